/* L1: what can be configured: one table of keys for file, environment and flags; agents; profiles.
 * Runs first as the user who started us, where what is wrong ends the start; conf_apply runs again
 * when the policy is read anew, where what is wrong changes nothing. */
#include "conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys.h"

static const struct conf_profile profiles[CONF_PROFILES] = {
	/*               wall ms  MB   cpu s procs MB  files noexec */
	{"strict",       5000,   64,   5,   5,   10,   32,  true},
	{"moderate",    30000,  256,  30,  10,  100,  128,  false},
	{"permissive", 300000, 1024, 300,  50, 1024,  512,  false},
};

const struct conf_profile *conf_profile(uint32_t id)
{
	return id < CONF_PROFILES ? &profiles[id] : NULL;
}

uint32_t conf_profile_id(struct str s)
{
	uint64_t v;
	for (uint32_t i = 0; i < CONF_PROFILES; i++)
		if (str_eq(s, profiles[i].name))
			return i;
	return str_uint(s, CONF_PROFILES - 1, &v) ? (uint32_t)v : CONF_PROFILES;
}

enum kind { NUMBER, TEXT, PATH, ISOLATION, PROFILE };
enum { LIVE = true, START = false }; /* whether a new value takes effect in a running server */

#define AT(field) offsetof(struct conf, field), sizeof ((struct conf *)0)->field
static const struct key {
	char name[20];
	uint8_t kind; /* enum kind */
	bool live;
	uint16_t offset, size;
	uint32_t min;
	uint64_t max;
	uint32_t number;  /* the default, or */
	const char *text; /* this one; of a path root's, others have the XDG folders */
	char help[56];
} keys[] = {
	{"config", PATH, START, AT(config), 0, 0, 0, "/etc/omniarena/policy.conf", "policy file"},
	{"token_file", PATH, START, AT(token_file), 0, 0, 0, "/etc/omniarena/token", "file with the bearer token, one line, mode 0600"},
	{"listen", TEXT, START, AT(listen), 0, 0, 0, "127.0.0.1", "address to listen on, IPv4 or IPv6"},
	{"port", NUMBER, START, AT(port), 0, 65535, PORT, NULL, "TCP port; 0 takes a free one"},
	{"profile", PROFILE, LIVE, AT(profile), 0, 0, CONF_STRICT, NULL, "0 strict, 1 moderate, 2 permissive"},
	{"timeout_ms", NUMBER, LIVE, AT(timeout_ms), 0, 86400000, 0, NULL, "longest a command may run; 0: the profile's own"},
	{"max_running", NUMBER, START, AT(max_running), 1, 200, 64, NULL, "commands that run at once; more wait up to 2 s"},
	{"warm_cells", NUMBER, START, AT(warm_cells), 0, 50, 4, NULL, "jails kept ready ahead of need"},
	{"output_limit", NUMBER, START, AT(output_limit), 1024, 16 << 20, 1 << 20, NULL, "bytes kept of each output stream"},
	{"max_connections", NUMBER, START, AT(max_connections), 8, 16384, 1100, NULL, "open client connections"},
	{"require_isolation", ISOLATION, LIVE, AT(require_isolation), 0, 0, CONF_ANY, NULL, "kernel: run nothing in less than the whole jail"},
	{"cors_origin", TEXT, LIVE, AT(cors_origin), 0, 0, 0, "*", "web origin that may call, once credentials are your own"},
	{"max_rps", NUMBER, LIVE, AT(max_rps), 0, 1000000, MAX_RPS, NULL, "requests a second, as many at once; 0: no limit"},
	{"max_rate_per_agent", NUMBER, LIVE, AT(max_rate_per_agent), 0, 65535, MAX_RATE_PER_AGENT, NULL, "commands a minute for each agent; 0: no limit"},
	{"default_token_budget", NUMBER, LIVE, AT(default_token_budget), 0, 1ull << 53, 0, NULL, "tokens an agent may spend; 0: no limit"},
	{"max_agents", NUMBER, START, AT(max_agents), 1, 128, MAX_AGENTS, NULL, "agents that are known at once"},
	{"address_connections", NUMBER, START, AT(address_connections), 1, 16384, 128, NULL, "of them for one address beyond this host"},
	{"audit_slots", NUMBER, START, AT(audit_slots), 1, 65536, AUDIT_SLOTS, NULL, "events kept in memory"},
	{"audit_log", PATH, START, AT(audit_log), 0, 0, 0, "/var/log/omniarena/audit.log", "log, appended to"},
	{"audit_rotate_bytes", NUMBER, START, AT(audit_rotate_bytes), 0, 1ull << 40, 64 << 20, NULL, "size at which the log becomes audit.log.1; 0: never"},
	{"audit_keep", NUMBER, START, AT(audit_keep), 1, 999, 10, NULL, "old logs kept"},
	{"state_dir", PATH, START, AT(state_dir), 0, 0, 0, "/var/lib/omniarena", "folder for counters and the password"},
};
_Static_assert(countof(keys) <= 32, "struct conf has a bit for each");
enum { KEY_CONFIG = 0, KEY_TOKEN_FILE = 1, KEY_STATE_DIR = countof(keys) - 1 };

static _Noreturn void bad_usage(const char *what, const char *name)
{
	warn("%s: %s (omniarena --help lists them)", name, what);
	_exit(2);
}

/* "max_running" as "max-running", or as "MAX_RUNNING". */
static void spell(char *out, size_t cap, const char *name, bool upper)
{
	size_t i = 0;
	for (; name[i] && i + 1 < cap; i++)
		out[i] = upper && name[i] >= 'a' && name[i] <= 'z' ? (char)(name[i] - 32) :
		         !upper && name[i] == '_' ? '-' : name[i];
	out[i] = '\0';
}

/* NULL, or what is wrong with the value, good until the next call. */
static const char *set(struct conf *c, const struct key *k, struct str value)
{
	static char range[64];
	char *field = (char *)c + k->offset;
	uint64_t v = 0;

	switch (k->kind) {
	case NUMBER:
		(void)text_printf(range, sizeof range, "a whole number from %llu to %llu is needed",
		               (unsigned long long)k->min, (unsigned long long)k->max); /* fits */
		if (!str_uint(value, k->max, &v) || v < k->min)
			return range;
		break;
	case TEXT:
	case PATH:
		if (value.n >= k->size || value.n == 0)
			return value.n ? "the value is too long" : "the value is empty";
		memset(field, 0, k->size);
		memcpy(field, value.p, value.n);
		return NULL;
	case ISOLATION:
		v = str_eq(value, "kernel") ? CONF_KERNEL : CONF_ANY;
		if (v == CONF_ANY && !str_eq(value, "any"))
			return "'kernel' or 'any' is needed";
		break;
	case PROFILE:
		if ((v = conf_profile_id(value)) == CONF_PROFILES)
			return "0, 1, 2, strict, moderate or permissive is needed";
		break;
	}
	memcpy(field, &v, sizeof v);
	return NULL;
}

/* root's files are where the system has its own; others have the XDG folders, by the same names. */
static void default_path(const struct key *k, char *field)
{
	bool etc = strncmp(k->text, "/etc/", 5) == 0, root = geteuid() == 0;
	const char *home = getenv("HOME"), *xdg = getenv(etc ? "XDG_CONFIG_HOME" : "XDG_STATE_HOME"), *name = str_find(str_of(k->text), "/omniarena");
	bool in_xdg = xdg && *xdg;

	if (!text_printf(field, k->size, "%s%s%s", root ? "" : in_xdg ? xdg : home ? home : "",
	                 root || in_xdg ? "" : etc ? "/.config" : "/.local/state", root ? k->text : name))
		field[0] = '\0'; /* no file has this name */
}

static void set_default(struct conf *c, const struct key *k)
{
	char *field = (char *)c + k->offset;
	if (k->kind == PATH)
		default_path(k, field);
	else if (k->kind == TEXT)
		memcpy(field, k->text, strlen(k->text) + 1);
	else
		memcpy(field, &(uint64_t){k->number}, sizeof(uint64_t));
}

static void set_outside(struct conf *c, size_t i, const char *value, const char *origin)
{
	const char *wrong = set(c, &keys[i], str_of(value));
	if (wrong)
		bad_usage(wrong, origin);
	c->fixed |= 1u << i;
	c->named |= 1u << i;
}

/* All of text on stdout, and the end. */
static _Noreturn void answer(const struct buf *b)
{
	_exit(!b->full && write(1, b->p, b->n) == (ssize_t)b->n ? 0 : 1);
}

static _Noreturn void help(const struct conf *c)
{
	char out[8192], flag[32], number[24];
	struct buf b = {out, 0, sizeof out, false};

	buf_str(&b, "usage: omniarena [--KEY VALUE]...\n"
	            "       omniarena check [--KEY VALUE]... COMMAND\n"
	            "       omniarena verify [--KEY VALUE]... [FILE]\n"
	            "       omniarena token --new [--KEY VALUE]...\n"
	            "       omniarena exec [--json] [--agent NAME] [--profile N] [--timeout MS] [--standalone] COMMAND...\n"
	            "       omniarena mcp [--agent NAME] [--standalone]\n"
	            "       omniarena tail | top | doctor\n"
	            "Runs agents' shell commands in kernel jails, asked over HTTP. 'check' only says what the\n"
	            "policy would say to a command, with status 0 allowed, 1 blocked. 'verify' reads the audit\n"
	            "log, with status 0 whole, 1 changed. 'token' makes a new bearer token. 'exec' has a running\n"
	            "server run a command, with our standard streams (the whole input goes first) and its exit\n"
	            "status: 124 after the timeout, 125 when it could not be run, 126 when the policy forbids it;\n"
	            "with --standalone a server of its own does, for this once. 'mcp' is an MCP server on standard\n"
	            "input and output. 'tail' shows the audit log as it grows, 'top' the agents, 'doctor' what jail\n"
	            "this host gives. These show the token of --token-file or OMNIARENA_TOKEN.\n\n");
	for (size_t i = 0; i < countof(keys); i++) {
		const struct key *k = &keys[i];
		spell(flag, sizeof flag, k->name, false);
		(void)text_printf(number, sizeof number, "%llu", (unsigned long long)k->number); /* fits */
		buf_printf(&b, "  --%s%.*s%s (%s)\n", flag, (int)(24 - strlen(flag)), "                        ", k->help,
		           k->kind == TEXT || k->kind == PATH ? (const char *)c + k->offset : k->kind == ISOLATION ? "any" : number);
	}
	buf_str(&b, "  --check-config          says whether the policy file is right, and ends\n"
	            "  --help, --version\n\n"
	            "Each is also a key in [config] of the policy file (max_running=...) and an environment\n"
	            "variable (OMNIARENA_MAX_RUNNING); a flag wins over the environment, that over the file.\n"
	            "Exit status: 0 ended as asked, 1 could not start or lost its warden, 2 wrong usage.\n");
	answer(&b);
}

static int load_flags(struct conf *c, int argc, char **argv, bool *check)
{
	int i = 1;
	for (; i < argc && strncmp(argv[i], "-", 1) == 0; i++) {
		const char *arg = argv[i], *eq = strchr(arg, '=');
		size_t n = eq ? (size_t)(eq - arg) : strlen(arg), k = 0;
		char flag[32];

		if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
			help(c);
		if (strcmp(arg, "--version") == 0)
			answer(&(struct buf){"omniarena " CONF_VERSION "\n", sizeof "omniarena " CONF_VERSION, 0, false});
		if (strcmp(arg, "--check-config") == 0) {
			*check = true;
			continue;
		}
		if (strcmp(arg, "--") == 0)
			return i + 1;
		for (; k < countof(keys); k++) {
			spell(flag, sizeof flag, keys[k].name, false);
			if (n == strlen(flag) + 2 && strncmp(arg, "--", 2) == 0 && strncmp(arg + 2, flag, n - 2) == 0)
				break;
		}
		if (k == countof(keys))
			bad_usage("no such option", arg);
		if (!eq && ++i == argc)
			bad_usage("a value is missing", arg);
		set_outside(c, k, eq ? eq + 1 : argv[i], arg);
	}
	return i;
}

/* The warden opens these later, from elsewhere. NULL, or the one that is too long. */
static const char *make_absolute(struct conf *c)
{
	char *paths[] = {c->config, c->audit_log, c->state_dir}, given[sizeof c->config], here[sizeof c->config];
	for (size_t k = 0; k < countof(paths); k++) {
		memcpy(given, paths[k], sizeof given);
		if (given[0] != '/' && (sys_cwd(here, sizeof here) < 0 || !text_printf(paths[k], sizeof given, "%s/%s", here, given)))
			return paths[k];
	}
	return NULL;
}

int conf_load(struct conf *c, int argc, char **argv, bool *check)
{
	memset(c, 0, sizeof *c);
	for (size_t i = 0; i < countof(keys); i++) {
		char name[64] = "OMNIARENA_";
		const char *env;

		set_default(c, &keys[i]);
		spell(name + 10, sizeof name - 10, keys[i].name, true);
		if ((env = getenv(name)))
			set_outside(c, i, env, name);
	}
	int i = load_flags(c, argc, argv, check);
	const char *wrong = make_absolute(c);
	if (wrong)
		bad_usage("the path is too long", wrong);
	return i;
}

/* ---- the policy file ---- */

bool conf_read_fd(int fd, struct buf *text)
{
	ssize_t n = 1;
	text->n = 0;
	while (n > 0 && text->n < text->cap)
		if ((n = read(fd, text->p + text->n, text->cap - text->n)) > 0)
			text->n += (size_t)n;
	errno = n > 0 ? EFBIG : errno;
	return n == 0;
}

/* A file could not be opened that nobody named: that is fine where it is not there, or where it is another
 * user's folder ($HOME of whoever started us), which is told. */
static bool may_be_missing(const struct conf *c, int key, const char *path)
{
	static unsigned told;
	if ((c->named >> key & 1) || (errno != ENOENT && errno != ENOTDIR && errno != EACCES))
		return false;
	if (errno == EACCES && !(told >> key & 1))
		warn("going on without %s:", path);
	told |= 1u << key;
	return true;
}

bool conf_token_may_be_missing(const struct conf *c)
{
	return may_be_missing(c, KEY_TOKEN_FILE, c->token_file);
}

bool conf_read(const struct conf *c, struct buf *text)
{
	int fd = sys_open_file(c->config);
	text->n = 0;
	if (fd < 0)
		return may_be_missing(c, KEY_CONFIG, c->config);
	bool ok = conf_read_fd(fd, text);
	int saved = errno;
	(void)close(fd); /* read only: nothing can be lost */
	errno = saved;
	return ok;
}

static void trim(struct str *s)
{
	while (s->n && strchr(" \t\r", s->p[0]))
		s->p++, s->n--;
	while (s->n && strchr(" \t\r", s->p[s->n - 1]))
		s->n--;
}

bool conf_next(struct conf_reader *r, struct str *entry)
{
	while (r->rest.n) {
		r->raw.p = r->rest.p;
		(void)str_cut(&r->rest, '\n', entry); /* there is more */
		r->raw.n = (size_t)(r->rest.p - r->raw.p);
		r->line++;
		for (size_t i = 0; i < entry->n; i++)
			if (entry->p[i] == '#' && (i == 0 || entry->p[i - 1] == ' ' || entry->p[i - 1] == '\t'))
				entry->n = i;
		trim(entry);
		r->header = entry->n > 2 && entry->p[0] == '[' && entry->p[entry->n - 1] == ']';
		if (r->header)
			r->section = (struct str){entry->p + 1, entry->n - 2};
		if (entry->n)
			return true;
	}
	return false;
}

bool conf_is_name(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!((s.p[i] | 32) >= 'a' && (s.p[i] | 32) <= 'z') && !(s.p[i] >= '0' && s.p[i] <= '9') && !(s.p[i] && strchr("._-", s.p[i])))
			return false;
	return s.n > 0 && s.n <= CONF_NAME_MAX;
}

const struct conf_agent *conf_agent(const struct conf *c, struct str name)
{
	for (size_t i = 0; i < c->agents; i++)
		if (str_eq(name, c->agent[i].name))
			return &c->agent[i];
	return NULL;
}

static const char *check_token(struct str t, size_t max)
{
	if (t.n < 16 || t.n > max)
		return "a token of 16 to 128 characters is needed";
	for (size_t i = 0; i < t.n; i++)
		if (t.p[i] <= ' ' || t.p[i] >= 0x7f)
			return "blanks and characters beyond ASCII can't be sent in a header";
	return NULL;
}

static const char *apply_agent(struct conf_agent *a, struct str key, struct str value)
{
	struct { const char *name; int64_t *to; } numbers[] = {{"token_budget", &a->token_budget}, {"rate", &a->rate}};
	uint64_t v;

	if (str_eq(key, "token")) {
		const char *wrong = check_token(value, 128);
		if (!wrong)
			memcpy(a->token, value.p, value.n);
		return wrong;
	}
	if (str_eq(key, "profile")) {
		a->profile = conf_profile_id(value);
		return a->profile == CONF_PROFILES ? "0, 1, 2, strict, moderate or permissive is needed" : NULL;
	}
	for (size_t i = 0; i < countof(numbers); i++)
		if (str_eq(key, numbers[i].name)) {
			if (!str_uint(value, 1ull << 53, &v))
				return "a whole number is needed";
			*numbers[i].to = (int64_t)v;
			return NULL;
		}
	return "no such key for an agent; there are token, profile, token_budget and rate";
}

static const char *apply_config(struct conf *c, struct str key, struct str value)
{
	for (size_t i = 0; i < countof(keys); i++)
		if (i != KEY_CONFIG && str_eq(key, keys[i].name)) {
			c->named |= 1u << i;
			return set(c->fixed >> i & 1 ? &(struct conf){.port = 0} : c, &keys[i], value);
		}
	return "no such key in [config]";
}

static const char *apply_header(struct conf *c, struct str section)
{
	struct str name = {section.p + 6, section.n - 6};

	if (str_eq(section, "blacklist") || str_eq(section, "whitelist") || str_eq(section, "config"))
		return NULL;
	if (section.n < 6 || memcmp(section.p, "agent ", 6) != 0)
		return "no such section; there are [blacklist], [whitelist], [config] and [agent NAME]";
	trim(&name);
	if (!conf_is_name(name))
		return "an agent's name has 1 to 63 of A-Z a-z 0-9 . _ -";
	if (conf_agent(c, name))
		return "this agent has a section already";
	if (c->agents == CONF_AGENTS)
		return "there are too many agents";
	struct conf_agent *a = &c->agent[c->agents++];
	*a = (struct conf_agent){.profile = CONF_UNSET, .token_budget = CONF_UNSET, .rate = CONF_UNSET};
	memcpy(a->name, name.p, name.n);
	return NULL;
}

static const char *apply_entry(struct conf *c, const struct conf_reader *r, struct str entry)
{
	struct str key, value = entry;

	for (size_t i = 0; i < entry.n; i++)
		if ((unsigned char)entry.p[i] < ' ' && entry.p[i] != '\t')
			return "a control character stands in this line";
	if (r->header)
		return apply_header(c, r->section);
	if (!r->section.p)
		return "this line stands before the first [section]";
	if (str_eq(r->section, "blacklist") || str_eq(r->section, "whitelist"))
		return NULL; /* policy_load reads these */
	if (!memchr(entry.p, '=', entry.n))
		return "key=value is needed";
	(void)str_cut(&value, '=', &key);
	trim(&key);
	trim(&value);
	return str_eq(r->section, "config") ? apply_config(c, key, value) : apply_agent(&c->agent[c->agents - 1], key, value);
}

bool conf_apply(struct conf *c, struct str text, bool running, bool *restart, char *why, size_t cap)
{
	static struct conf next;
	struct conf_reader r = {.rest = text};
	struct str entry;

	next = *c;
	next.agents = 0;
	*restart = false;
	while (conf_next(&r, &entry)) {
		const char *wrong = apply_entry(&next, &r, entry);
		if (wrong) {
			struct str shown = entry.n > 40 ? (struct str){entry.p, 40} : entry;
			bool secret = str_eq(shown, "token") || (entry.n > 5 && memcmp(entry.p, "token", 5) == 0);
			(void)text_printf(why, cap, "%s:%u: %.*s: %s", c->config, r.line, (int)(secret ? 5 : shown.n), shown.p, wrong);
			memset(next.agent, 0, next.agents * sizeof *next.agent);
			return false;
		}
	}
	const char *long_path = running ? NULL : make_absolute(&next);
	if (long_path) {
		(void)text_printf(why, cap, "%s: the path is too long: %s", c->config, long_path);
		return false;
	}
	for (size_t i = 0; running && i < countof(keys); i++) {
		void *now = (char *)c + keys[i].offset, *then = (char *)&next + keys[i].offset;
		if (keys[i].live || memcmp(now, then, keys[i].size) == 0)
			continue;
		*restart = true;
		memcpy(then, now, keys[i].size);
	}
	*c = next;
	memset(next.agent, 0, next.agents * sizeof *next.agent); /* it has tokens */
	return true;
}

/* ---- credentials ---- */

bool conf_is_loopback(const char *address)
{
	return strcmp(address, "localhost") == 0 || strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0;
}

bool conf_default_credentials(const struct conf *c)
{
	return (c->accept_pass && !c->own_pass) || (c->accept_token && !c->own_token);
}

static void read_token(struct conf *c)
{
	struct stat st;
	int fd = sys_open_file(c->token_file);

	if (fd < 0 && may_be_missing(c, KEY_TOKEN_FILE, c->token_file))
		return;
	if (fd < 0 || fstat(fd, &st) < 0)
		die("token file %s:", c->token_file);
	if (st.st_mode & 077)
		die("token file %s: others can read it; chmod 600 it", c->token_file);
	ssize_t n = read(fd, c->token, sizeof c->token);
	if (n < 0)
		die("token file %s:", c->token_file);
	(void)close(fd); /* read only: nothing can be lost */
	while (n > 0 && strchr("\r\n \t", c->token[n - 1]))
		n--;
	const char *wrong = n == sizeof c->token ? "it is too long" : check_token((struct str){c->token, (size_t)n}, sizeof c->token - 1);
	if (wrong)
		die("token file %s: %s", c->token_file, wrong);
	c->token[n] = '\0';
}

static const char secret_magic[] = "pbkdf2-sha256";

void conf_write_secret(const struct conf_secret *s, struct buf *out)
{
	buf_printf(out, "%s %u ", secret_magic, s->iterations);
	buf_hex(out, s->salt, sizeof s->salt);
	buf_str(out, " ");
	buf_hex(out, s->key, sizeof s->key);
	buf_str(out, "\n");
}

static bool read_hex(struct str *rest, unsigned char *out, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	struct str word;
	if (!str_word(rest, &word) || word.n != 2 * n)
		return false;
	for (size_t i = 0; i < word.n; i++) {
		const char *at = memchr(digits, word.p[i], 16);
		if (!at)
			return false;
		out[i / 2] = (unsigned char)(out[i / 2] << 4 | (at - digits));
	}
	return true;
}

/* A password file that can't be read is no reason to take the published one again. */
static void read_secret(struct conf *c)
{
	char name[sizeof c->state_dir + 16], text[256];
	struct stat st;
	uint64_t n;

	(void)text_printf(name, sizeof name, "%s/password", c->state_dir); /* fits */
	if (lstat(name, &st) < 0 && (errno == ENOENT || errno == ENOTDIR || (errno == EACCES && !(c->named >> KEY_STATE_DIR & 1))))
		return;
	ssize_t len = sys_read_file(name, text, sizeof text);
	if (len < 0)
		die("password file %s:", name);
	if (st.st_mode & 077)
		die("password file %s: others can read it; chmod 600 it", name);
	struct str rest = {text, (size_t)len}, word;
	if (!str_word(&rest, &word) || !str_eq(word, secret_magic) || !str_word(&rest, &word) || !str_uint(word, 10000000, &n) || n == 0 ||
	    !read_hex(&rest, c->secret.salt, sizeof c->secret.salt) || !read_hex(&rest, c->secret.key, sizeof c->secret.key) || str_word(&rest, &word))
		die("password file %s: it is damaged; remove it to have the default password again, and set a new one", name);
	c->secret.iterations = (uint32_t)n;
	memset(text, 0, sizeof text);
}

void conf_decide(struct conf *c)
{
	bool local = conf_is_loopback(c->listen);
	c->own_pass = c->secret.iterations || strcmp(c->pass, CONF_DEFAULT_PASS) != 0;
	c->own_token = strcmp(c->token, CONF_DEFAULT_TOKEN) != 0;
	/* a published secret is good for this host alone; beside a password of one's own the token is off */
	c->accept_pass = local || c->own_pass;
	c->accept_token = c->own_token || (local && !c->own_pass);
}

void conf_credentials(struct conf *c)
{
	_Static_assert(sizeof AUTH_USER <= sizeof c->user && sizeof AUTH_PASS <= sizeof c->pass, "AUTH_USER or AUTH_PASS too long");

	memcpy(c->user, AUTH_USER, sizeof AUTH_USER);
	memcpy(c->pass, AUTH_PASS, sizeof AUTH_PASS);
	read_secret(c);
	read_token(c);
	if (!c->token[0])
		memcpy(c->token, CONF_DEFAULT_TOKEN, sizeof CONF_DEFAULT_TOKEN);
	conf_decide(c);
	if (!conf_is_loopback(c->listen) && !c->own_pass && !c->own_token)
		die("refusing to listen on %s with the published default credentials: make a token of your own with "
		    "'omniarena token --new', which writes %s, or set a password first", c->listen, c->token_file);
}
