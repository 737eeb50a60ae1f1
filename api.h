/* L6 net: what can be asked: routes, checks in their order, replies. */
#ifndef API_H
#define API_H
#include <stdbool.h>
#include <stdint.h>

#include "agent.h"
#include "audit.h"
#include "conf.h"
#include "conn.h"
#include "hash.h"
#include "job.h"
#include "loop.h"
#include "mcp.h"
#include "msg.h"
#include "policy.h"

/* Timers in the loop, behind conn's. */
enum { API_TICK = CONN_KINDS, API_STRETCH, API_KINDS };

/* What a password is stretched for. */
enum purpose { STRETCH_NONE, STRETCH_LOGIN, STRETCH_CURRENT, STRETCH_NEW, STRETCH_SAVE /* and then saved */ };

struct api {
	struct conf *conf;
	struct policy *policy;
	struct loop *loop;
	struct jobs *jobs;
	struct agents *agents;
	struct audit *audit;
	const struct msg_hello *hello;
	enum purpose purpose;
	bool state_told;           /* that the state can't be saved was said */
	bool good_known;
	uint32_t edits, edits_asked; /* of the policy in memory; when its file was asked for */
	uint64_t ticked_ms, counted; /* the last tick; what there was to tell then */
	uint32_t figures;          /* changes when event streams are to tell the counters anew: once a second at most */
	struct conns conns;
	uint64_t started_ms, started_unix_ms, binary_bytes;
	struct mcp_sessions mcp;
	struct timer tick;         /* once a second while there is something to save or to look after */
	/* one password at a time is compared with the stored one; who is right is known by a quick digest from then on */
	struct timer stretch;
	struct pbkdf2 pbkdf2;
	uint32_t stretch_for;      /* a connection's id */
	unsigned char stretch_peer[16];
	unsigned char boot[HASH_BYTES], good[HASH_BYTES] /* once good_known */, trying[HASH_BYTES];
	struct conf_secret fresh;  /* a new password that is being saved */
	char new_password[129];
};

/* Takes all memory for max_connections, and tells the jobs the policy's programs. False: errno. */
bool api_init(struct api *a, struct conf *c, struct policy *p, struct loop *l, struct jobs *q, struct agents *g, struct audit *u,
              const struct msg_hello *hello);
/* A connection's fd is ready, or a timer of conn's or api's is due. */
void api_event(struct api *a, uint32_t id, short revents);
void api_timer(struct api *a, struct timer *t);
/* A job is done: its reply goes out. */
void api_job_done(struct api *a, struct job *j);
/* The warden's answer to job_ask: who waits for it is answered. Takes over its fd. */
void api_wall_answer(struct api *a);
/* Once a turn, when all events were met: streams get what is new, and what must be kept is saved soon. */
void api_turn(struct api *a);
/* The policy file is to be read anew and the log to be opened anew, for nobody who waits (SIGHUP). */
void api_reload(struct api *a);
/* No new requests; idle connections close now, the others after their reply. */
void api_drain(struct api *a);
/* The counters go to the warden, to be saved. */
void api_save(struct api *a);
/* The log as the warden opened it, or -1 and why; what was cut off its end is told in it, as is the start. */
void api_take_log(struct api *a, int fd, const char *why);
/* An event that no request caused. */
void api_note(struct api *a, enum audit_kind kind, const char *text);
#endif
