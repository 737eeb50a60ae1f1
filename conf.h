/* L1: what can be configured: one table of keys for flags and environment, and the profiles. */
#ifndef CONF_H
#define CONF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util.h"

/* The seed's compile-time names; each can be given as -DNAME=... to make CPPFLAGS. */
#ifndef PORT
#define PORT 7575
#endif
#ifndef AUTH_USER
#define AUTH_USER "arena"
#endif
#ifndef AUTH_PASS
#define AUTH_PASS "omniarena"
#endif

#define CONF_VERSION "1.0.4"
#define CONF_DEFAULT_USER "arena"
#define CONF_DEFAULT_PASS "omniarena"
#define CONF_DEFAULT_TOKEN "omniarena-default-token"

/* The limits of one profile. Arena counts the wall time, the jail sets the rest. */
struct conf_profile {
	const char *name;
	uint32_t timeout_ms, memory_mb, cpu_sec, processes, file_mb, open_files;
	bool noexec; /* nothing written in the cell can be executed */
};
enum { CONF_PROFILES = 3 };
/* id 0 to CONF_PROFILES - 1, else NULL. */
const struct conf_profile *conf_profile(uint32_t id);

enum conf_isolation { CONF_ANY, CONF_KERNEL };

struct conf {
	char listen[64], cors_origin[256], token_file[256];
	uint64_t port, max_running, warm_cells, output_limit, max_connections;
	enum conf_isolation require_isolation;
	bool token_file_named;                  /* a missing default file is fine, a named one is not */
	char user[64], pass[136], token[264];
	bool own_pass, own_token;               /* neither is the published default */
	bool accept_pass, accept_token;
};

/* Fills c from the defaults, the environment and the flags, the later winning. --help and
 * --version are answered and end the process; what is wrong ends it with status 2 and a sentence. */
void conf_load(struct conf *c, int argc, char **argv);
/* Reads the token, decides which credentials hold, and ends the process with a sentence where the
 * published ones would be reachable from other hosts. */
void conf_credentials(struct conf *c);
/* True for an address that only this host can reach. */
bool conf_is_loopback(const char *address);
/* True while a published credential is accepted. */
bool conf_default_credentials(const struct conf *c);
#endif
