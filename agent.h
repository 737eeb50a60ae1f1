/* L3 net: who asks, how much they have had, and how fast they may go on. */
#ifndef AGENT_H
#define AGENT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chain.h"
#include "conf.h"
#include "util.h"

enum {
	AGENT_MODEL_MAX = 64, AGENT_IDLE_MS = 3600000, /* after which one without a budget makes room */
	AGENT_WINDOW_MS = 60000, AGENT_SLICE_MS = 100, AGENT_SLICES = AGENT_WINDOW_MS / AGENT_SLICE_MS,
	AGENT_PEERS = 64, AGENT_FAILURES = 10 /* wrong log-ins of one address, a minute */, AGENT_BUCKETS = 13,
};

/* So many in a minute, evenly spread, and so many at once. Zero it. */
struct bucket { uint64_t at_ms, used; };

struct agent {
	uint64_t execs, blocked, bytes, rate_limited, over_budget, tokens_in, tokens_out;
	int64_t budget;             /* set by a request, or CONF_UNSET: then its section or the default rules */
	uint64_t last_active, seen_ms; /* last request: Unix time; the loop's time */
	uint32_t running;           /* commands of it that wait or run: it can't be retired */
	uint64_t window_ms;         /* the last minute of runs, in slices */
	uint32_t window;
	char name[CONF_NAME_MAX + 1], model[AGENT_MODEL_MAX + 1];
	uint16_t slice[AGENT_SLICES];
};

struct totals {
	uint64_t execs, blocked, captured_bytes, rate_limited, over_budget, auth_failures, logins_slowed, timeouts;
	uint64_t took[AGENT_BUCKETS + 1], took_us; /* since start: how long commands took */
};

struct agents {
	struct agent *agent;
	size_t n, max;
	bool changed;               /* something that is kept has changed */
	struct totals total;
	struct bucket all;                                          /* requests of everybody */
	struct peer { unsigned char address[16]; struct bucket failures; } peer[AGENT_PEERS];
};

/* What is counted: its name in replies, in the state file and, with "omniarena_" and "_total", in metrics; a uint64_t. */
struct counter { char name[15], help[57]; uint32_t offset; };
/* Of struct agent and of struct totals. */
enum { AGENT_COUNTERS = 7, TOTAL_COUNTERS = 8 };
extern const struct counter agent_counters[AGENT_COUNTERS], total_counters[TOTAL_COUNTERS];
uint64_t counter_of(const void *from, const struct counter *c);
/* How many milliseconds the slowest of a bucket's commands took; the last bucket has no limit. */
uint32_t agent_bucket_ms(size_t bucket);

/* Takes memory for max agents. */
bool agent_init(struct agents *g, size_t max);
/* The agent of this name, or NULL. */
struct agent *agent_find(struct agents *g, struct str name);
/* The same, and a new one where there is none: in a free place, or in that of one who has no budget,
 * runs nothing and was idle for an hour. NULL: all places are taken; *retry_s says when one may be free. */
struct agent *agent_admit(struct agents *g, const struct conf *c, struct str name, uint64_t now_ms, uint64_t *retry_s);
/* What it may spend in all, tokens: 0 is no limit. */
uint64_t agent_budget(const struct agent *who, const struct conf *c);
/* Commands of the last minute. */
uint32_t agent_rate(struct agent *who, uint64_t now_ms);
/* One command more: 0 when limit (0: none) allows it, else the seconds until it will. */
uint64_t agent_take(struct agent *who, uint64_t limit, uint64_t now_ms);
/* One of burst at once and per_minute in the long run: 0, or the seconds to wait. per_minute 0 is no limit. */
uint64_t bucket_take(struct bucket *b, uint64_t per_minute, uint64_t burst, uint64_t now_ms);
/* The seconds that an address has to wait because of its wrong log-ins, 0 for none; failed counts one more. */
uint64_t agent_login_wait(struct agents *g, const unsigned char address[16], bool failed, uint64_t now_ms);
/* A command ended: it counts for its agent and in all. */
void agent_ran(struct agents *g, struct agent *who, uint64_t bytes, uint64_t took_us, bool timed_out);
/* Forgets all counters, and the agents that neither run something nor have a budget of their own. */
void agent_reset(struct agents *g);

/* The text of the state file: what must survive, and the head of the log. */
void agent_save(const struct agents *g, const struct chain *head, struct buf *out);
/* Takes it back. False: it is torn or not ours, and nothing was taken. */
bool agent_load(struct agents *g, struct chain *head, struct str text);
#endif
