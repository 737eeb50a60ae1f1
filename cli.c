/* L5: what the command line asks for beside the server. Each subcommand is a process of its own; it needs
 * no server and no privilege. */
#include "cli.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "util.h"

static _Noreturn void wrong_policy(const char *why)
{
	warn("%s", why);
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

void cli_main(int argc, char **argv, struct conf *c, struct policy *p)
{
	bool only_check = false, judge = argc > 1 && strcmp(argv[1], "check") == 0;
	int first = conf_load(c, argc - judge, argv + judge, &only_check) + judge;

	if (judge ? first != argc - 1 : first != argc) {
		warn("%s: %s (omniarena --help lists what there is)", first < argc ? argv[judge && first + 1 < argc ? first + 1 : first] : "check",
		     first < argc ? "no such command or option" : "a command is missing");
		_exit(2);
	}
	cli_policy(c, p, false);
	if (only_check)
		check_config(c, p);
	if (judge)
		check(c, p, argv[first]);
}
