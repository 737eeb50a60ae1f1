/* shell.c and policy.c as units: what a line becomes, every beginning of every line of the corpus right before a
 * page that can't be read, the limits, and edits of a policy file. The verdicts themselves are test_policy.py's. */
#include "unit.h"

#include "policy.h"

static struct shell shell;
static struct policy policy;
static struct verdict verdict;

/* "words|of one command;words|of the next", with a mark behind each word that is not constant. */
static const char *flat(const char *text)
{
	static char out[4096];
	struct buf b = {out, 0, sizeof out - 1, false};

	shell_reset(&shell);
	shell_read(&shell, str_of(text), 0);
	for (size_t i = 0; i < shell.cmds; i++)
		for (uint32_t k = 0; k < shell.cmd[i].words; k++) {
			const struct shell_word *w = &shell.word[shell.cmd[i].word + k];
			struct str t = shell_text(&shell, w);
			buf_printf(&b, "%s%.*s%s%s%s", k ? "|" : i ? ";" : "", (int)t.n, t.p, w->flags & SHELL_SPLITS ? "?" : w->flags & SHELL_VARIES ? "!" : "",
			           w->flags & SHELL_GLOB ? "*" : "", w->flags & SHELL_ASSIGNMENT ? "=" : "");
		}
	buf_str(&b, shell.error == SHELL_SYNTAX ? ";SYNTAX" : shell.error ? ";UNCLEAR" : shell_is_plain(&shell) ? ";PLAIN" : "");
	out[b.n] = '\0';
	return out;
}

static void flat_forms(void)
{
	static const char *const cases[][2] = {
		{"ls -la", "ls|-la;PLAIN"}, {" ls\t'a b' \"c\" d\\ e # x", "ls|a b|c|d e;PLAIN"}, {"ls *", "ls|**"}, {"ls ~", "ls|~*"},
		{"ls $x", "ls|$@?"}, {"ls \"$x\"", "ls|$@!"}, {"ls \"$@\"", "ls|$@?"}, {"a;b", "a;b"}, {"ls &", "ls"}, {"ls >f", "ls"},
		{"A=1 ls", "A=1=|ls"}, {"ls A=1", "ls|A=1;PLAIN"}, {"a=$(b)", "b;a=$@?="}, {"ls ''", "ls|;PLAIN"}, {"''", ";PLAIN"},
		{"l\\\ns", "ls;PLAIN"}, {"$'\\x6c\\163'", "ls;PLAIN"}, {"ls $'a\\'b'", "ls|a'b;UNCLEAR"}, {"{ls,-l}", "ls|-l"}, {"a{b,c{d,e}}f", "abf|acdf|acef"},
		{"ls {a}", "ls|{a};PLAIN"}, {"ls {1..3}", "ls|{1..3}*"}, {"ls \"{a,b}\"", "ls|{a,b};PLAIN"}, {"(a)|{ b;}", "a;b"},
		{"if a; then b; elif c; then d; else e; fi", "a;b;c;d;e"}, {"while a; do b; done", "a;b"}, {"for x in $(a); do b; done", "x=!=;a;b"},
		{"case a in b|c) d;; (e) f ;& *) g;; esac", "d;f;g"}, {"f() { a; }; f", "f;a;f"}, {"function f { a; }", "f;a"}, {"time { a; }", "time;a"},
		{"time a", "time|a;PLAIN"}, {"! a", "a"}, {"a <<E\n$(b) `c`\nE\nd", "a;b;c;d"}, {"a <<'E'\n$(b)\nE\nd", "a;d"}, {"a <<-E\n\tE\nb", "a;b"},
		{"a <<E\nx\\\nE\nE\nb", "a;b"}, {"a <<A <<B\n$(x)\nA\n$(y)\nB\nb", "a;x;y;b"}, {"echo $((1 + $(a)))", "a;echo|$@?"}, {"echo $((a); b)", "a;b;echo|$@?"},
		{"echo `a \\`b\\``", "b;a|$@?;echo|$@?"}, {"echo ${x:-$(a)}", "a;echo|$@?"}, {"echo \"${x:-`a`}\"", "a;echo|$@!"}, {"a <(b) >(c)", "b;c;a|$@!|$@!"},
		{"a &> f b", "a;b"}, {"a |& b", "a;b"}, {"[[ -f a && b == c || d ]]", "[[|-f|a;b|==|c;d"}, {"[[ a =~ ^(b|c)$ ]]; d", "[[|a|=~;d"}, {"x=(a $(b))", "b;x=="},
		{"2>&1 a", "a"}, {"a 2", "a|2;PLAIN"}, {"{fd}>f a", "a"}, {"coproc N { a; }", "coproc;a"}, {"for ((;;)); do a; done", "a"}, {"a&&b||c", "a;b;c"},
		{"", ""}, {"# x", ""}, {")", ";SYNTAX"}, {"'", ";SYNTAX"}, {"\"", ";SYNTAX"}, {"`", ";SYNTAX"}, {"$(", ";SYNTAX"}, {"${", ";SYNTAX"}, {"a &&", "a;SYNTAX"},
		{"if a; then b", "a;b;SYNTAX"}, {"a;;b", "a;SYNTAX"}, {"( )", ";SYNTAX"}, {"a (", ";SYNTAX"}, {">", ";SYNTAX"}, {"a $[1]", "a|$[1]*;UNCLEAR"},
	};
	for (size_t i = 0; i < countof(cases); i++)
		check(strcmp(flat(cases[i][0]), cases[i][1]) == 0, "%s: got %s, want %s", cases[i][0], flat(cases[i][0]), cases[i][1]);
}

static void sane(const char *text, size_t n)
{
	bool ok = shell.words <= SHELL_WORDS && shell.cmds <= SHELL_CMDS && (shell.error == SHELL_FINE) == !shell.why;
	for (size_t i = 0; i < shell.words; i++)
		ok = ok && shell.word[i].at <= shell.text_n && shell.word[i].n <= shell.text_n - shell.word[i].at && shell.word[i].lead <= shell.word[i].n;
	for (size_t i = 0; i < shell.cmds; i++)
		ok = ok && shell.cmd[i].words && shell.cmd[i].word + shell.cmd[i].words <= shell.words;
	check(ok, "not sane: %.*s", (int)n, text);
}

static void beginnings(void)
{
	static char line[8192], text[8192];
	FILE *f = fopen("test/corpus", "r");
	while (f && fgets(line, sizeof line, f)) {
		char *p = line;
		size_t n = 0;
		for (int tab = 0; tab < 3 && p; tab++)
			p = (p = strchr(p, '\t')) ? p + 1 : NULL;
		for (; line[0] != '#' && p && *p && *p != '\n'; p++)
			text[n++] = *p != '\\' ? *p : *++p == 'n' ? '\n' : *p == 't' ? '\t' : '\\';
		char *at = guard_new(n ? n : 1);
		for (size_t k = 1; k <= n; k++) { /* the last byte of the text is the last that can be read */
			memcpy(at + (n - k), text, k);
			shell_reset(&shell);
			shell_read(&shell, (struct str){at + (n - k), k}, 0);
			sane(text, k);
			policy_judge(&policy, &(struct policy_ask){.text = {at + (n - k), k}}, &verdict);
		}
		guard_free(at, n ? n : 1);
	}
	check(f != NULL, "test/corpus can't be read");
	if (f)
		(void)fclose(f);
}

/* piece, again and again up to the largest text there can be */
static void filled(const char *piece, enum shell_error want)
{
	size_t n = strlen(piece), all = SHELL_IN_MAX / n * n;
	char *at = guard_new(all);
	for (size_t i = 0; i < all; i += n)
		memcpy(at + i, piece, n);
	shell_reset(&shell);
	shell_read(&shell, (struct str){at, all}, 0);
	check(shell.error == want, "64 KiB of %s: %d (%s)", piece, shell.error, shell.why ? shell.why : "");
	sane(piece, n);
	policy_judge(&policy, &(struct policy_ask){.text = {at, all}}, &verdict);
	guard_free(at, all);
}

static void nested(const char *open, const char *inner, const char *close, int depth, enum shell_error want)
{
	static char text[4096];
	struct buf b = {text, 0, sizeof text, false};
	for (int i = 0; i < depth; i++)
		buf_str(&b, open);
	buf_str(&b, inner);
	for (int i = 0; i < depth; i++)
		buf_str(&b, close);
	shell_reset(&shell);
	shell_read(&shell, (struct str){text, b.n}, 0);
	check(shell.error == want, "%d times %s: %d (%s)", depth, open, shell.error, shell.why ? shell.why : "");
	sane(open, strlen(open));
}

static void limits(void)
{
	filled("a;", SHELL_FINE);
	filled("a ", SHELL_FINE);
	filled("$(a)", SHELL_FINE);
	filled("(", SHELL_UNCLEAR);
	filled("$(", SHELL_UNCLEAR);
	filled("`", SHELL_FINE);
	filled("$((", SHELL_UNCLEAR);
	filled("{a,b}", SHELL_UNCLEAR);
	filled("{", SHELL_FINE);
	filled("${a", SHELL_UNCLEAR);
	filled("a<<E\n", SHELL_FINE);
	filled("'", SHELL_FINE);
	filled("eval ", SHELL_FINE);
	filled("\\\n", SHELL_FINE);
	nested("$(", "a", ")", SHELL_DEPTH, SHELL_FINE);
	nested("$(", "a", ")", SHELL_DEPTH + 1, SHELL_UNCLEAR);
	nested("{ ", "a", "; }", SHELL_DEPTH, SHELL_FINE);
	nested("(", "a", ")", SHELL_DEPTH + 1, SHELL_UNCLEAR);
	nested("${a:-", "b", "}", 50, SHELL_FINE);
}

static void edits(void)
{
	static const char file[] = "# mine\n[whitelist]\nls # lists\n  cat\n\n[config]\nprofile=1\n";
	char why[256];

	check(policy_load(&policy, str_of(file), "f", why, sizeof why) && policy.count[POLICY_WHITE] == 2 && policy.count[POLICY_BLACK] == 17, "load");
	check(!policy_edit(&policy, true, POLICY_WHITE, str_of("git status")), "add");
	check(!policy_edit(&policy, true, POLICY_WHITE, str_of("ls")), "add again");
	check(!policy_edit(&policy, false, POLICY_WHITE, str_of("cat")), "remove");
	check(policy_edit(&policy, false, POLICY_WHITE, str_of("cat")) != NULL, "remove what is gone");
	static const char want[] = "# mine\n[whitelist]\nls # lists\ngit status\n\n[config]\nprofile=1\n";
	check(policy.file_n == strlen(want) && memcmp(policy.file, want, policy.file_n) == 0, "edited: %.*s", (int)policy.file_n, policy.file);
	check(policy_load(&policy, str_of("[whitelist]\nls\ncat"), "f", why, sizeof why) && !policy_edit(&policy, true, POLICY_WHITE, str_of("wc")) &&
	      !policy_edit(&policy, false, POLICY_WHITE, str_of("wc")) && !policy_edit(&policy, false, POLICY_WHITE, str_of("cat")) &&
	      policy.file_n == 15 && memcmp(policy.file, "[whitelist]\nls\n", 15) == 0, "the last line: %.*s", (int)policy.file_n, policy.file);
	check(!policy_edit(&policy, false, POLICY_WHITE, str_of("ls")) && policy.count[POLICY_WHITE] == 0, "an empty list");
	check(!policy_edit(&policy, false, POLICY_BLACK, str_of("wget")) && policy.count[POLICY_BLACK] == 16, "remove a default");
	check(memmem(policy.file, policy.file_n, "[blacklist]\nrm -rf /\n", 21) && !memmem(policy.file, policy.file_n, "wget", 4), "the other defaults are written down");
	static const char *const bad[] = {"", " x", "x ", "a\nb", "#x", "a #b", "[x]", "-rf", "a;b", "\x7f"};
	for (size_t i = 0; i < countof(bad); i++)
		check(policy_edit(&policy, true, POLICY_WHITE, str_of(bad[i])) != NULL, "taken: %s", bad[i]);
	check(!policy_load(&policy, str_of("[whitelist]\nls\na|b\n"), "f.conf", why, sizeof why) && strncmp(why, "f.conf:3: ", 10) == 0, "why: %s", why);
	check(policy.count[POLICY_BLACK] == 16, "the old lists stay");
	static char large[CONF_FILE_MAX];
	struct buf b = {large, 0, sizeof large, false};
	buf_str(&b, "[whitelist]\n");
	while (b.n + 300 < sizeof large)
		buf_str(&b, "# a comment of some length that fills the file up to its end\n");
	check(policy_load(&policy, (struct str){large, b.n}, "f", why, sizeof why), "large: %s", why);
	const char *full = NULL;
	char name[32];
	for (int i = 0; i < 60 && !full; i++) {
		(void)text_printf(name, sizeof name, "program-number-%d", i);
		full = policy_edit(&policy, true, POLICY_WHITE, str_of(name));
	}
	check(full && policy.file_n <= CONF_FILE_MAX, "a full file: %s", full ? full : "no error");
	check(policy_load(&policy, str_of(""), "f", why, sizeof why), "defaults");
}

int main(void)
{
	char why[256];
	check(policy_load(&policy, str_of(""), "f", why, sizeof why) && policy.count[POLICY_BLACK] == 17 && policy.count[POLICY_WHITE] == 14, "defaults");
	flat_forms();
	beginnings();
	limits();
	edits();
	return unit_end("shell");
}
