/* L2 net: why a command failed, as far as the jail had to do with it, in sentences that an agent can act on. */
#ifndef DENIED_H
#define DENIED_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf.h"
#include "msg.h"
#include "util.h"

enum { DENIED_MAX = 16, DENIED_TEXT = 8192 };

/* What is known of a command that ended. */
struct denied_ask {
	uint32_t profile;
	const struct msg_result *res;      /* NULL: nothing was reported */
	int exit_code;
	struct str words;                  /* the command's text, or its words with NULs between */
	struct str err;                    /* what it wrote to stderr */
	const char *names;                 /* the policy's programs, NUL-terminated: forbidden ones, then allowed ones */
	uint32_t forbidden, allowed;
};

/* Writes a JSON array of at most DENIED_MAX objects, each thing once with a count. What the kernel told comes
 * first; the rest is read off the exit status, stderr and the command's own words, and is a hint, no proof. */
void denied_write(const struct denied_ask *d, struct buf *out);
#endif
