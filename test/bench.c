/* What a judgement costs: medians over many, an everyday line and the largest texts that are known to be bad.
 * Prints Markdown; judges nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "policy.h"

static struct policy policy;
static struct verdict verdict;

static double now_us_f(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int less(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void measure(const char *what, struct str text, int batch)
{
	enum { ROUNDS = 101 };
	static double us[ROUNDS];
	struct policy_ask ask = {.text = text, .profile = CONF_STRICT};
	for (int r = 0; r < ROUNDS; r++) {
		double from = now_us_f();
		for (int i = 0; i < batch; i++)
			policy_judge(&policy, &ask, &verdict);
		us[r] = (now_us_f() - from) / batch;
	}
	qsort(us, ROUNDS, sizeof *us, less);
	printf("| %s | %zu | %.1f | %.1f | %s%s |\n", what, text.n, us[ROUNDS / 2], us[ROUNDS - 2], policy_code_name(verdict.code), verdict.undecided ? ", undecidable" : "");
}

/* start, then piece as often as it fits, then as often close, then end. */
static void worst(const char *what, const char *start, const char *piece, const char *close, const char *end, size_t most)
{
	static char text[SHELL_IN_MAX + 1];
	size_t n = strlen(start), p = strlen(piece), c = strlen(close), times = (SHELL_IN_MAX - n - strlen(end)) / (p + c);
	times = times < most ? times : most;
	memcpy(text, start, n);
	for (size_t i = 0; i < times; i++, n += p)
		memcpy(text + n, piece, p);
	for (size_t i = 0; i < times; i++, n += c)
		memcpy(text + n, close, c);
	memcpy(text + n, end, strlen(end));
	measure(what, (struct str){text, n + strlen(end)}, 1);
}

int main(void)
{
	static const char *const everyday[] = {
		"ls -la /tmp", "grep -rn 'TODO' src | head -20", "cd /tmp && python3 -c 'print(1+1)' > out.txt 2>&1",
		"for f in *.py; do wc -l \"$f\"; done", "cat <<EOF > notes.txt\nhello $(date)\nEOF", "find . -name '*.c' -exec grep -l main {} +",
	};
	char why[128];
	if (!policy_load(&policy, (struct str){"", 0}, "", why, sizeof why))
		return 1;
	printf("| line | bytes | median us | worst but one of 101 | verdict |\n|---|---|---|---|---|\n");
	for (size_t i = 0; i < countof(everyday); i++) {
		char shown[80];
		snprintf(shown, sizeof shown, "`%.70s`", everyday[i]);
		for (char *p = shown; *p; p++)
			*p = *p == '\n' ? ' ' : *p == '|' ? '/' : *p;
		measure(shown, str_of(everyday[i]), 1000);
	}
	const size_t all = SIZE_MAX;
	worst("commands", "", "a;", "", "", all);
	worst("whitelisted commands", "", "ls;", "", "", all);
	worst("words", "ls", " a", "", "", all);
	worst("one word", "echo ", "a", "", "", all);
	worst("substitutions in a row", "echo ", "$(a)", "", "", all);
	worst("substitutions in one word's quotes", "echo \"", "$(a)", "", "\"", all);
	worst("substitutions inside one another", "", "$(", ")", "", all);
	worst("subshells, 64 deep", "", "(", ")", "", 64);
	worst("open subshells", "", "(", "", "", all);
	worst("parameters", "echo ", "${a:-", "}", "", 60);
	worst("open arithmetic", "echo ", "$((", "", "", all);
	worst("arithmetic that is none", "echo ", "$((a) ", "", "", all);
	worst("backquotes", "echo ", "`a`", "", "", all);
	worst("escaped backquotes", "echo `", "\\`", "", "`", all);
	worst("eval eval", "", "eval ", "", "ls", all);
	worst("eval of a long text", "eval eval eval eval '", "ls;", "", "'", all);
	worst("eval of an eval", "eval \"eval '", "a;", "", "'\"", all);
	worst("eval, word by word", "eval ", "'a;' ", "", "", all);
	worst("sh -c", "sh -c '", "ls;", "", "'", all);
	worst("braces", "echo ", "{a,b}", "", "", all);
	worst("long braces", "echo {", "a,", "", "b}", all);
	worst("open braces", "echo ", "{", "", "", all);
	worst("braces inside one another", "echo ", "{a,", "}", "", all);
	worst("closed braces without commas", "echo ", "{", "}", "", all);
	worst("here-documents", "", "a<<E\nE\n", "", "", all);
	worst("a long here-document", "cat <<E\n", "$(a)\n", "", "E\n", all);
	worst("here-document lines", "cat <<E\n", "E \n", "", "E\n", all);
	worst("case items", "case a in ", "a) ls;;", "", " esac", all);
	worst("env env", "", "env ", "", "ls", all);
	worst("find -exec", "find . ", "-exec ls ; ", "", "", all);
	worst("assignments", "", "PS4=[$( ", "", "", all);
	worst("functions", "", "f(){ a;};", "", "f", all);
	worst("dots in a name", "a", ".a", "", "", all);
	worst("blanks", "ls", " ", "", "", all);
	worst("joined lines", "l", "\\\n", "", "s", all);
	worst("conditions", "[[ a ", "&& a ", "", "]]", all);
	worst("quotes", "ls ", "''", "", "", all);
	worst("rm with paths", "rm -r ", "/a/../ ", "", "", all);
	return 0;
}
