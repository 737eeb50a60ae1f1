/* libFuzzer: any bytes as a command line, read and judged with every profile. What must hold whatever they are:
 * no access outside (the sanitizers), slices within their stores, a verdict that fits the finding. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"

static struct policy policy;
static struct shell shell;
static struct verdict v;

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static void must_hold(int cond, const char *what)
{
	if (!cond) {
		(void)fprintf(stderr, "does not hold: %s\n", what);
		abort();
	}
}
#define must(cond) must_hold(cond, #cond)

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
	char why[128], *text = malloc(n ? n : 1); /* of its own size: one byte beyond is found */

	if (!policy.rules)
		must(policy_load(&policy, (struct str){"", 0}, "", why, sizeof why));
	if (n && n <= SHELL_IN_MAX)
		memcpy(text, data, n);
	if (n == 0 || n > SHELL_IN_MAX || memchr(text, '\0', n)) {
		free(text);
		return 0;
	}
	shell_reset(&shell);
	shell_read(&shell, (struct str){text, n}, 0);
	must(shell.words <= SHELL_WORDS && shell.cmds <= SHELL_CMDS && shell.open_words == 0 && shell.top == 0 && shell.depth == 0);
	must((shell.error == SHELL_FINE) == (shell.why == NULL));
	for (size_t i = 0; i < shell.words; i++) {
		const struct shell_word *w = &shell.word[i];
		must(w->at <= shell.text_n && w->n <= shell.text_n - w->at && w->lead <= w->n);
	}
	for (uint32_t p = 0; p < CONF_PROFILES; p++) {
		struct policy_ask ask = {.text = {text, n}, .profile = p};
		policy_judge(&policy, &ask, &v);
		must(p != CONF_PERMISSIVE || v.code == POLICY_OK);
		must(p != CONF_STRICT || !v.undecided || v.code != POLICY_OK);
		must(p != CONF_MODERATE || v.code == POLICY_OK || v.code == POLICY_BLACKLISTED);
		must((v.would == POLICY_BLACKLISTED) == (v.rule.p != NULL));
	}
	struct str argv[2] = {{text, n / 2}, {text + n / 2, n - n / 2}};
	struct policy_ask ask = {.argv = argv, .argc = 2, .profile = CONF_STRICT};
	policy_judge(&policy, &ask, &v);
	free(text);
	return 0;
}
