/* L1: what can be configured: one table of keys for flags and environment, and the profiles.
 * Runs before anything else, as the user who started us; what is wrong here ends the start. */
#include "conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_TOKEN_FILE "/etc/omniarena/token"

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

enum kind { NUMBER, TEXT, ISOLATION };

#define AT(field) offsetof(struct conf, field), sizeof ((struct conf *)0)->field
static const struct key {
	const char *name;
	enum kind kind;
	size_t offset, size;
	uint64_t min, max, number;
	const char *text, *help;
} keys[] = {
	{"listen", TEXT, AT(listen), 0, 0, 0, "127.0.0.1", "address to listen on, IPv4 or IPv6"},
	{"port", NUMBER, AT(port), 0, 65535, PORT, NULL, "TCP port; 0 takes a free one"},
	{"max_running", NUMBER, AT(max_running), 1, 200, 128, NULL, "commands that run at once; more wait up to 2 s"},
	{"warm_cells", NUMBER, AT(warm_cells), 0, 50, 4, NULL, "jails kept ready ahead of need"},
	{"output_limit", NUMBER, AT(output_limit), 1024, 16 << 20, 1 << 20, NULL, "bytes kept of each output stream"},
	{"max_connections", NUMBER, AT(max_connections), 8, 16384, 1100, NULL, "open client connections"},
	{"require_isolation", ISOLATION, AT(require_isolation), 0, 0, CONF_ANY, NULL, "kernel: run nothing in less than the whole jail"},
	{"cors_origin", TEXT, AT(cors_origin), 0, 0, 0, "*", "web origin that may call, once credentials are your own"},
	{"token_file", TEXT, AT(token_file), 0, 0, 0, DEFAULT_TOKEN_FILE, "file with the bearer token, one line, mode 0600"},
};

static _Noreturn void bad_usage(const char *what, const char *name, const char *more)
{
	warn("%s: %s%s (omniarena --help lists them)", name, what, more);
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

static void set(struct conf *c, const struct key *k, const char *value, const char *origin)
{
	char *field = (char *)c + k->offset, range[64];
	uint64_t v;

	switch (k->kind) {
	case NUMBER:
		(void)text_printf(range, sizeof range, "a whole number from %llu to %llu is needed",
		               (unsigned long long)k->min, (unsigned long long)k->max);
		if (!str_uint(str_of(value), k->max, &v) || v < k->min)
			bad_usage(range, origin, "");
		memcpy(field, &v, sizeof v);
		break;
	case TEXT:
		if (strlen(value) >= k->size || !*value)
			bad_usage(*value ? "the value is too long" : "the value is empty", origin, "");
		memcpy(field, value, strlen(value) + 1);
		break;
	case ISOLATION:
		if (strcmp(value, "kernel") != 0 && strcmp(value, "any") != 0)
			bad_usage("'kernel' or 'any' is needed", origin, "");
		c->require_isolation = *value == 'k' ? CONF_KERNEL : CONF_ANY;
		break;
	}
}

/* All of text on stdout, and the end. */
static _Noreturn void answer(const struct buf *b)
{
	_exit(!b->full && write(1, b->p, b->n) == (ssize_t)b->n ? 0 : 1);
}

static _Noreturn void help(void)
{
	char out[4096], flag[32], number[24];
	struct buf b = {out, 0, sizeof out, false};

	buf_str(&b, "usage: omniarena [--KEY VALUE]...\n"
	            "Runs agents' shell commands in kernel jails, asked over HTTP.\n\n");
	for (size_t i = 0; i < countof(keys); i++) {
		const struct key *k = &keys[i];
		spell(flag, sizeof flag, k->name, false);
		(void)text_printf(number, sizeof number, "%llu", (unsigned long long)k->number); /* fits */
		buf_printf(&b, "  --%s%.*s%s (%s)\n", flag, (int)(20 - strlen(flag)), "                    ", k->help,
		           k->kind == NUMBER ? number : k->kind == ISOLATION ? "any" : k->text);
	}
	buf_str(&b, "  --help, --version\n\n"
	            "Each is also an environment variable: --max-running is OMNIARENA_MAX_RUNNING.\n"
	            "A flag wins over the environment. Exit status: 0 ended as asked, 1 could not\n"
	            "start or lost its warden, 2 wrong usage.\n");
	answer(&b);
}

static void load_flags(struct conf *c, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *eq = strchr(arg, '=');
		size_t n = eq ? (size_t)(eq - arg) : strlen(arg), k = 0;
		char flag[32];

		if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
			help();
		if (strcmp(arg, "--version") == 0)
			answer(&(struct buf){"omniarena " CONF_VERSION "\n", sizeof "omniarena " CONF_VERSION, 0, false});
		for (; k < countof(keys); k++) {
			spell(flag, sizeof flag, keys[k].name, false);
			if (n == strlen(flag) + 2 && strncmp(arg, "--", 2) == 0 && strncmp(arg + 2, flag, n - 2) == 0)
				break;
		}
		if (k == countof(keys))
			bad_usage("no such option", arg, "");
		if (!eq && ++i == argc)
			bad_usage("a value is missing", arg, "");
		set(c, &keys[k], eq ? eq + 1 : argv[i], eq ? arg : argv[i - 1]);
		if (keys[k].offset == offsetof(struct conf, token_file))
			c->token_file_named = true;
	}
}

void conf_load(struct conf *c, int argc, char **argv)
{
	memset(c, 0, sizeof *c);
	for (size_t i = 0; i < countof(keys); i++) {
		const struct key *k = &keys[i];
		char name[64] = "OMNIARENA_";
		const char *env;

		if (k->text)
			set(c, k, k->text, k->name);
		else if (k->kind == NUMBER)
			memcpy((char *)c + k->offset, &k->number, sizeof k->number);
		spell(name + 10, sizeof name - 10, k->name, true);
		if ((env = getenv(name))) {
			set(c, k, env, name);
			if (k->offset == offsetof(struct conf, token_file))
				c->token_file_named = true;
		}
	}
	load_flags(c, argc, argv);
}

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
	int fd = open(c->token_file, O_RDONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT && !c->token_file_named)
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
	if (n < 16 || n == sizeof c->token)
		die("token file %s: one line of 16 to %zu characters is needed", c->token_file, sizeof c->token - 1);
	for (ssize_t i = 0; i < n; i++)
		if (c->token[i] <= ' ' || c->token[i] >= 0x7f)
			die("token file %s: blanks and characters beyond ASCII can't be sent in a header", c->token_file);
	c->token[n] = '\0';
}

void conf_credentials(struct conf *c)
{
	_Static_assert(sizeof AUTH_USER <= sizeof c->user && sizeof AUTH_PASS <= sizeof c->pass, "AUTH_USER or AUTH_PASS too long");
	bool local = conf_is_loopback(c->listen);

	memcpy(c->user, AUTH_USER, sizeof AUTH_USER);
	memcpy(c->pass, AUTH_PASS, sizeof AUTH_PASS);
	read_token(c);
	if (!c->token[0])
		memcpy(c->token, CONF_DEFAULT_TOKEN, sizeof CONF_DEFAULT_TOKEN);
	c->own_pass = strcmp(c->pass, CONF_DEFAULT_PASS) != 0;
	c->own_token = strcmp(c->token, CONF_DEFAULT_TOKEN) != 0;
	if (!local && !c->own_pass && !c->own_token)
		die("refusing to listen on %s with the published default credentials: put a token of your own into %s "
		    "(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'; mode 0600) or name one with --token-file",
		    c->listen, c->token_file);
	/* a published secret is good for this host alone; beside one of your own it is off elsewhere */
	c->accept_pass = local || c->own_pass;
	c->accept_token = local || c->own_token;
}
