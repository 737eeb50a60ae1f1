/* L1: what can be configured: one table of keys for file, environment and flags; agents; profiles. */
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

#ifndef MAX_RPS
#define MAX_RPS 20
#endif
#ifndef MAX_RATE_PER_AGENT
#define MAX_RATE_PER_AGENT 30
#endif
#ifndef MAX_AGENTS
#define MAX_AGENTS 8
#endif
#ifndef AUDIT_SLOTS
#define AUDIT_SLOTS 64
#endif

#define CONF_VERSION "1.0.4"
#define CONF_DEFAULT_USER "arena"
#define CONF_DEFAULT_PASS "omniarena"
#define CONF_DEFAULT_TOKEN "omniarena-default-token"

/* The limits of one profile. Arena counts the wall time, the jail sets the rest. */
struct conf_profile {
	char name[12];
	uint32_t timeout_ms, memory_mb, cpu_sec, processes, file_mb, open_files;
	bool noexec; /* nothing written in the cell can be executed */
};
enum { CONF_STRICT, CONF_MODERATE, CONF_PERMISSIVE, CONF_PROFILES };
enum { CONF_FILE_MAX = 65536, CONF_AGENTS = 64, CONF_NAME_MAX = 63, CONF_UNSET = -1 };
/* id 0 to CONF_PROFILES - 1, else NULL. */
const struct conf_profile *conf_profile(uint32_t id);

/* The number of a profile that is given as number or name; CONF_PROFILES for none. */
uint32_t conf_profile_id(struct str s);

enum conf_isolation { CONF_ANY, CONF_KERNEL };

/* [agent NAME]: what holds for this one; numbers are CONF_UNSET where nothing is said. */
struct conf_agent { char name[CONF_NAME_MAX + 1], token[136]; int64_t profile, token_budget, rate; };

/* The password as it is stored: PBKDF2-HMAC-SHA256; iterations 0: none. */
enum { CONF_SALT = 16, CONF_KEY = 32 };
struct conf_secret { unsigned char salt[CONF_SALT], key[CONF_KEY]; uint32_t iterations; };

struct conf {
	uint64_t port, max_running, warm_cells, output_limit, max_connections;
	uint64_t profile, timeout_ms, max_rps, max_rate_per_agent, default_token_budget, max_agents, address_connections;
	uint64_t audit_slots, audit_rotate_bytes, audit_keep;
	uint64_t require_isolation;
	uint32_t fixed, named;                  /* bit i: key i was set outside the policy file; anywhere */
	bool own_pass, own_token;               /* neither is the published default */
	bool accept_pass, accept_token;
	size_t agents;
	char user[64], pass[136], token[264];
	struct conf_secret secret;              /* instead of pass */
	char listen[64], cors_origin[256], token_file[256], config[256], audit_log[256], state_dir[256];
	struct conf_agent agent[CONF_AGENTS];
};

/* Fills c from the defaults, the environment and the flags, the later winning; the index of the
 * first word in argv that is no flag. --help and --version are answered and end the process; what is
 * wrong ends it with status 2 and a sentence. *check is set by --check-config. */
int conf_load(struct conf *c, int argc, char **argv, bool *check);
/* Reads the policy file that c names into text, at most CONF_FILE_MAX bytes; a missing default one is
 * empty. False: errno. */
bool conf_read(const struct conf *c, struct buf *text);
/* The same from an fd, which stays the caller's. */
bool conf_read_fd(int fd, struct buf *text);
/* Takes [config] and [agent NAME] of a policy file's text, except what environment or flags said, and
 * checks that its sections are known. When running, what can't change any more stays, and *restart
 * says that something would. False: why has a sentence with file:line, and c is as before. */
bool conf_apply(struct conf *c, struct str text, bool running, bool *restart, char *why, size_t cap);
/* Whether that the token file could not be opened (errno) is fine, as nobody named it. */
bool conf_token_may_be_missing(const struct conf *c);
/* Which credentials hold, once secret, pass or token are set. */
void conf_decide(struct conf *c);
/* The text of the password file. */
void conf_write_secret(const struct conf_secret *s, struct buf *out);
/* Reads token and password, decides which credentials hold, and ends the process with a sentence where the
 * published ones would be reachable from other hosts. */
void conf_credentials(struct conf *c);
/* True for an address that only this host can reach. */
bool conf_is_loopback(const char *address);
/* True while a published credential is accepted. */
bool conf_default_credentials(const struct conf *c);
/* What an agent may be called: 1 to 63 of A-Za-z0-9._- */
bool conf_is_name(struct str s);
/* The agent's section, or NULL. */
const struct conf_agent *conf_agent(const struct conf *c, struct str name);

/* Steps through the text of a policy file. Zero it and set rest. */
struct conf_reader {
	struct str rest, section, raw; /* raw: the last entry's whole line, its end included */
	unsigned line;
	bool header;                   /* the last entry was a section's head */
};
/* The next line that says something, without comment and blanks; false at the end. */
bool conf_next(struct conf_reader *r, struct str *entry);
#endif
