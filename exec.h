/* L5 net: a request for a command becomes a job, and the job's end becomes a reply. */
#ifndef EXEC_H
#define EXEC_H
#include <stdbool.h>
#include <stdint.h>

#include "job.h"
#include "json.h"
#include "policy.h"

enum { EXEC_CMD_MAX = 65536 };
enum exec_field {
	F_CMD, F_ARGV, F_STDIN, F_ENV, F_CWD, F_TIMEOUT, F_ENCODING, F_ALLOW, F_PUT_FILES, F_GET_FILES, F_MODEL, F_TOKENS_IN, F_TOKENS_OUT,
	F_PROFILE, FIELDS,
};

/* What a request says: slices of its text. tokens: in and out, -1 where nothing was said. unfit: after exec_fill, a
 * command line that no program can be given. */
struct exec { struct json_token field[FIELDS]; struct str model, unfit; int64_t tokens[2]; };

/* Reads the object of a checked text, which must stay and is written over. NULL, or what is wrong. */
const char *exec_read(struct exec *x, struct str object);
/* Fills a new job; most_ms is the longest time that it may run. NULL, or what is wrong; j->text.full: it is too large. */
const char *exec_fill(struct exec *x, struct job *j, uint32_t most_ms);
/* What the policy says to a filled job. */
void exec_judge(const struct policy *p, const struct job *j, struct verdict *v);
/* The fields of a reply behind the two streams, into an open object. */
void exec_put_rest(struct json_writer *w, const struct job *j, bool out_lossy, bool err_lossy);
#endif
