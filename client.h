/* L3: the command line as a client of the server: exec, mcp, tail, top, doctor. Each is a process of its own, without privilege. */
#ifndef CLIENT_H
#define CLIENT_H
#include <stdbool.h>
#include <stdint.h>

#include "conf.h"

/* What stands between a subcommand's name and its operand, beside the keys of conf.h. */
struct client_options { bool json, standalone, has_profile; const char *agent; uint64_t timeout_ms; char **keys; /* for --standalone's server, NULL at the end */ };

enum { CLIENT_TIMEOUT = 124, CLIENT_FAILED = 125, CLIENT_REFUSED = 126 }; /* as timeout(1) and docker-run(1) have them */

/* The token to show: OMNIARENA_TOKEN, else the token file's, else the published one; what is wrong with it ends the process. */
void client_token(struct conf *c);
/* Runs a command line in the server's jail, with our standard streams; its exit status becomes ours. */
_Noreturn void client_exec(const struct conf *c, const struct client_options *o, const char *cmd);
/* An MCP server on standard input and output (newline-delimited JSON-RPC): each message goes to the server's /mcp. */
_Noreturn void client_mcp(const struct conf *c, const struct client_options *o, const char *none);
/* The audit log's rows as they come. */
_Noreturn void client_tail(const struct conf *c, const struct client_options *o, const char *none);
/* The agents, every two seconds; once where standard output is no terminal. */
_Noreturn void client_top(const struct conf *c, const struct client_options *o, const char *none);
/* What this kernel and host offer, what is missing, and how to get it, a line each; 1 when isolation is basic. */
_Noreturn void client_doctor(const struct conf *c, const struct client_options *o, const char *none);
#endif
