/* L6: what the command line asks for beside the server. Each subcommand is a process of its own; it needs
 * no server and no privilege. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h> /* rename */
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "chain.h"
#include "client.h"
#include "msg.h"
#include "sys.h"
#include "util.h"

static _Noreturn void wrong_policy(const char *why)
{
	warn("%s", why);
	_exit(2);
}

static _Noreturn void wrong_file(const char *name)
{
	warn("%s:", name);
	_exit(2);
}

void cli_policy(struct conf *c, struct policy *p, bool running)
{
	static char text[CONF_FILE_MAX];
	struct buf b = {text, 0, sizeof text, false};
	char why[512];
	bool restart;

	if (!conf_read(c, &b)) {
		(void)text_printf(why, sizeof why, "%s: %s", c->config, errno == EFBIG ? "it is larger than 64 KiB" : strerror(errno));
		wrong_policy(why);
	}
	if (!conf_apply(c, (struct str){text, b.n}, running, &restart, why, sizeof why) ||
	    !policy_load(p, (struct str){text, b.n}, c->config, why, sizeof why))
		wrong_policy(why);
	memset(text, 0, b.n); /* it may have tokens */
}

static void say(struct buf *b)
{
	size_t n = b->n;
	b->n = 0;
	if (write(1, b->p, n) != (ssize_t)n)
		_exit(2);
}

static _Noreturn void check_config(const struct conf *c, const struct policy *p)
{
	char line[512];
	struct buf b = {line, 0, sizeof line, false};
	buf_printf(&b, "%s: %s; %zu rules in the blacklist, %zu in the whitelist, %zu agents, profile %s\n", c->config,
	           p->file_n ? "fine" : "empty or not there: the defaults", p->count[POLICY_BLACK], p->count[POLICY_WHITE], c->agents,
	           conf_profile((uint32_t)c->profile)->name);
	say(&b);
	_exit(0);
}

/* Names from outside, on a terminal: nothing in them may move its cursor. */
static void put_shown(struct buf *b, struct str s)
{
	for (size_t i = 0; i < s.n && i < 128; i++)
		buf_put(b, (unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f ? "?" : &s.p[i], 1);
}

static _Noreturn void check(const struct conf *c, const struct policy *p, const char *command)
{
	static struct verdict v;
	static char out[POLICY_NAMES * 132];
	struct buf b = {out, 0, sizeof out, false};
	const struct policy_ask ask = {.text = str_of(command), .profile = (uint32_t)c->profile};

	if (ask.text.n == 0 || ask.text.n > SHELL_IN_MAX)
		wrong_policy("a command of 1 byte to 64 KiB is needed");
	policy_judge(p, &ask, &v);
	buf_printf(&b, "%s", v.code == POLICY_OK ? "allowed" : "blocked by ");
	buf_str(&b, v.code == POLICY_OK ? "" : policy_code_name(v.code));
	if (v.code == POLICY_OK && v.would != POLICY_OK)
		buf_printf(&b, ", in a stricter profile blocked by %s", policy_code_name(v.would));
	if (v.why)
		buf_printf(&b, ": %s", v.why);
	if (v.program.p || v.rule.p) {
		buf_str(&b, " (");
		put_shown(&b, v.program.p ? v.program : v.rule);
		if (v.program.p && v.rule.p) {
			buf_str(&b, ", rule ");
			put_shown(&b, v.rule);
		}
		buf_str(&b, ")");
	}
	buf_str(&b, "\nprograms:");
	for (size_t i = 0; i < v.names; i++) {
		buf_str(&b, " ");
		put_shown(&b, v.name[i]);
	}
	buf_str(&b, v.undecided ? " and what is not known before the run\n" : "\n");
	say(&b);
	_exit(v.code != POLICY_OK);
}

/* ---- verify ---- */

/* What the state file has of the head; nothing where there is none, which is said. */
static void read_head(const struct conf *c, struct chain_check *k)
{
	static char text[MSG_ASK_MAX + 1];
	char name[sizeof c->state_dir + 16];
	struct agents g = {.max = 0};

	(void)text_printf(name, sizeof name, "%s/state", c->state_dir); /* fits */
	ssize_t n = sys_read_file(name, text, sizeof text);
	if (n < 0 || !agent_load(&g, &k->head, (struct str){text, (size_t)n})) {
		k->head.seq = 0;
		warn("%s has no head of the log, so lines cut at its end can't be seen", name);
	}
}

static _Noreturn void wrong_log(const struct chain_check *k, const char *file)
{
	if (k->line)
		warn("%s: line %llu: %s", file, (unsigned long long)k->line, k->why);
	else
		warn("the last line of the log before %s: %s", file, k->why);
	_exit(1);
}

static void check_log(struct chain_check *k, const char *file)
{
	int fd = sys_open_file(file);
	if (fd < 0)
		wrong_file(file);
	if (!chain_check(k, fd))
		wrong_log(k, file);
	(void)close(fd); /* read only */
}

/* The log and those that were moved aside before it, or one file alone. */
static _Noreturn void verify(const struct conf *c, const struct policy *p, const char *file)
{
	static struct chain_check k;
	char old[sizeof c->audit_log + 8], line[512];
	struct buf b = {line, 0, sizeof line, false};
	uint64_t lines = 0, first = c->audit_keep;
	struct stat st;

	(void)p;
	if (!file || strcmp(file, c->audit_log) == 0)
		read_head(c, &k);
	for (; !file && first; first--) {
		(void)text_printf(old, sizeof old, "%s.%llu", c->audit_log, (unsigned long long)first);
		if (stat(old, &st) < 0)
			continue; /* if it should be there, the chain shows it */
		check_log(&k, old);
		lines += k.lines;
	}
	check_log(&k, file ? file : c->audit_log);
	lines += k.lines;
	if (!chain_check_head(&k))
		wrong_log(&k, file ? file : c->audit_log);
	buf_printf(&b, "%s: %llu lines follow one another%s, numbers %llu to %llu", file ? file : c->audit_log, (unsigned long long)lines,
	           lines > k.lines ? ", those moved aside included" : "", (unsigned long long)k.first, (unsigned long long)k.last.seq);
	if (k.head.seq && k.last.seq > k.head.seq)
		buf_printf(&b, "; %llu are younger than the head that was kept apart", (unsigned long long)(k.last.seq - k.head.seq));
	buf_str(&b, k.cut ? "; one more is cut short, the next start removes it\n" : "\n");
	say(&b);
	_exit(0);
}

/* ---- token ---- */

/* A new token in the token file; it is not shown, as a terminal remembers. */
static _Noreturn void token(const struct conf *c, const struct policy *p, const char *none)
{
	unsigned char secret[32];
	char text[2 * sizeof secret + 1], fresh[sizeof c->token_file + 8], out[512];
	struct buf b = {text, 0, sizeof text, false}, line = {out, 0, sizeof out, false};

	(void)p, (void)none;
	if (getrandom(secret, sizeof secret, 0) != sizeof secret || !text_printf(fresh, sizeof fresh, "%s.new", c->token_file))
		wrong_policy("token: there is no randomness, or the file's name is too long");
	buf_hex(&b, secret, sizeof secret);
	buf_str(&b, "\n");
	sys_make_folders(c->token_file);
	(void)unlink(fresh);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, b.n) != (ssize_t)b.n || fsync(fd) < 0 || close(fd) < 0 || rename(fresh, c->token_file) < 0)
		wrong_file(c->token_file);
	buf_printf(&line, "a new token is in %s; a running server takes it when it is started again\n", c->token_file);
	say(&line);
	_exit(0);
}

/* ---- the table ---- */

/* What a subcommand takes. */
enum {
	NEW = 1, /* --new, which is needed */
	OPERAND = 2, OPTIONAL = 4 /* it need not be there */, WORDS = 8 /* or may be several */,
	ASKS = 16 /* a server */, ALONE = 32 /* or one of its own */, RUNS = 64 /* a command */,
};
static const struct command {
	char name[7];
	uint8_t takes;
	void (*run)(const struct conf *c, const struct policy *p, const char *operand);
	void (*ask)(const struct conf *c, const struct client_options *o, const char *operand);
} commands[] = {
	{"check", OPERAND, check, NULL},
	{"verify", OPERAND | OPTIONAL, verify, NULL},
	{"token", NEW, token, NULL},
	{"exec", OPERAND | WORDS | ASKS | ALONE | RUNS, NULL, client_exec},
	{"mcp", ASKS | ALONE, NULL, client_mcp},
	{"tail", ASKS, NULL, client_tail},
	{"top", ASKS, NULL, client_top},
	{"doctor", 0, NULL, client_doctor},
};

static _Noreturn void wrong_usage(const char *what, const char *why)
{
	warn("%s: %s (omniarena --help lists what there is)", what, why);
	_exit(2);
}

/* The options that are subcommands' own, and which of these have them. */
enum { STANDALONE, JSON, AGENT, TIMEOUT };
static const struct { char name[13]; uint8_t of; bool value; } options[] = {
	[STANDALONE] = {"--standalone", ALONE, false}, [JSON] = {"--json", RUNS, false},
	[AGENT] = {"--agent", ASKS, true}, [TIMEOUT] = {"--timeout", RUNS, true},
};

static void set_option(struct client_options *o, size_t option, const char *value)
{
	o->standalone = o->standalone || option == STANDALONE;
	o->json = o->json || option == JSON;
	if (option == AGENT && !conf_is_name(str_of(o->agent = value)))
		wrong_usage(value, "an agent's name has 1 to 63 of A-Z a-z 0-9 . _ -");
	if (option == TIMEOUT && (!str_uint(str_of(value), 86400000, &o->timeout_ms) || o->timeout_ms == 0))
		wrong_usage(value, "a timeout is a whole number of milliseconds");
}

/* Takes them out of argv, where those of conf.h stay: how many words are left. */
static int take_options(const struct command *cmd, int argc, char **argv, struct client_options *o)
{
	int kept = 2, i = 2;
	for (; i < argc && argv[i][0] == '-' && strcmp(argv[i], "--") != 0; i++) {
		const char *eq = strchr(argv[i], '=');
		struct str name = {argv[i], eq ? (size_t)(eq - argv[i]) : strlen(argv[i])};
		size_t k = 0;

		while (k < countof(options) && (!(cmd->takes & options[k].of) || !str_eq(name, options[k].name)))
			k++;
		bool ours = k < countof(options);
		bool alone = str_eq(name, "--help") || str_eq(name, "-h") || str_eq(name, "--version") || str_eq(name, "--check-config");
		bool next = !eq && (ours ? options[k].value : !alone); /* its value is the next word */
		if (next && i + 1 == argc)
			wrong_usage(argv[i], "a value is missing");
		if (ours && eq && !options[k].value)
			wrong_usage(argv[i], "it takes no value");
		if (ours) {
			set_option(o, k, eq ? eq + 1 : next ? argv[i + 1] : "");
		} else {
			argv[kept++] = argv[i];
			if (next)
				argv[kept++] = argv[i + 1];
		}
		o->has_profile = o->has_profile || str_eq(name, "--profile");
		i += next;
	}
	while (i < argc)
		argv[kept++] = argv[i++];
	argv[kept] = NULL;
	return kept;
}

/* Several words are one command line, as ssh(1) has it. */
static const char *join(int n, char **words)
{
	static char line[SHELL_IN_MAX + 1];
	struct buf b = {line, 0, sizeof line - 1, false};
	for (int i = 0; i < n; i++) {
		buf_str(&b, i ? " " : "");
		buf_str(&b, words[i]);
	}
	if (b.full)
		wrong_usage("exec", "a command has at most 64 KiB");
	return line;
}

void cli_main(int argc, char **argv, struct conf *c, struct policy *p)
{
	bool only_check = false;
	const struct command *cmd = NULL;
	struct client_options o = {.json = false};
	char *keys[64] = {NULL};

	for (size_t i = 0; argc > 1 && i < countof(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			cmd = &commands[i];
	unsigned takes = cmd ? cmd->takes : 0;
	int skip = cmd ? 1 + !!(takes & NEW) : 0;
	if ((takes & NEW) && (argc < 3 || strcmp(argv[2], "--new") != 0))
		wrong_usage(cmd->name, "--new is needed");
	if (cmd && cmd->ask)
		argc = take_options(cmd, argc, argv, &o);
	int first = conf_load(c, argc - skip, argv + skip, &only_check) + skip, most = takes & WORDS ? argc : first + !!(takes & OPERAND);
	if (argc > most)
		wrong_usage(argv[most], "no such command or option");
	if ((takes & OPERAND) && !(takes & OPTIONAL) && argc == first)
		wrong_usage(cmd->name, "a command is missing");
	for (int i = 0; cmd && i < first - 2 && (size_t)i < countof(keys) - 1; i++)
		keys[i] = argv[i + 2];
	o.keys = keys;
	cli_policy(c, p, false);
	if (only_check)
		check_config(c, p);
	if (cmd && cmd->ask) {
		(void)sys_ignore_signal(SIGPIPE); /* who goes away is met where it is written to */
		if ((takes & ASKS) && !o.standalone)
			client_token(c);
		cmd->ask(c, &o, first < argc ? join(argc - first, argv + first) : NULL);
	} else if (cmd) {
		cmd->run(c, p, first < argc ? argv[first] : NULL);
	}
}
