/* L6: what the command line asks for beside the server. */
#ifndef CLI_H
#define CLI_H
#include <stdbool.h>

#include "conf.h"
#include "policy.h"

/* Reads flags, environment and the policy file into c and p, and returns when the server is wanted.
 * Subcommands, and --check-config, end the process; so does whatever is wrong, with status 2. */
void cli_main(int argc, char **argv, struct conf *c, struct policy *p);
/* Reads the policy file, or ends the process with what is wrong with it. running: what is decided already
 * stays as it is. */
void cli_policy(struct conf *c, struct policy *p, bool running);
#endif
