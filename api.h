/* L4 net: connections and what is asked on them: routes, checks in their order, replies. */
#ifndef API_H
#define API_H
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "conf.h"
#include "http.h"
#include "job.h"
#include "loop.h"
#include "msg.h"
#include "policy.h"

/* Kinds in the loop, behind job's. */
enum { API_CONN = JOB_KINDS, API_CONN_TIMER, API_KINDS };

enum conn_state {
	CONN_FREE, CONN_HEAD, /* waiting for a request's head */
	CONN_BODY,            /* reading its body */
	CONN_WAIT,            /* a job runs for it, or the warden is asked */
	CONN_SEND,            /* writing the reply */
	CONN_LINGER,          /* reply sent, reading to the end so that no reset overtakes it */
};

/* A reply's body in pieces, escaped as it is sent. */
struct piece { enum { PIECE_PLAIN, PIECE_JSON, PIECE_BASE64 } kind; struct str raw; };
enum {
	API_PIECES = 5, API_IN = HTTP_HEAD_MAX + 4096, /* the largest head, and room for a body to pass through */
	API_OUT = 16384, API_TEXT = 8192,
};

struct conn {
	uint32_t id, job;
	int fd, slot, big;    /* big: index of a large body buffer, or -1 */
	enum conn_state st;
	struct timer timer;
	uint64_t since;       /* when it began to wait for the request */
	struct http_req req;
	struct http_chunks chunks;
	const struct route *route;
	const struct conf_agent *who; /* the agent's section, if it has one; good while a request is being answered */
	char *in;             /* API_IN bytes: head, and a body that fits behind it */
	size_t in_n, used;    /* bytes there; bytes of it that belong to this request */
	struct buf body;      /* decoded; in in or in a large buffer */
	struct buf out, text; /* what is being sent; a small reply's body */
	size_t sent;
	struct piece piece[API_PIECES];
	size_t pieces, piece_at;
	bool quoted;          /* the current piece's opening quote is out */
	bool has_job, close;
};

struct api {
	struct conf *conf;
	struct policy *policy;
	struct loop *loop;
	struct jobs *jobs;
	struct conn *conn;
	size_t conns, open;
	char *big;         /* large body buffers, HTTP_BODY_MAX each */
	bool *big_used;
	size_t bigs;
	uint64_t started_ms, execs, blocked, bytes_captured, binary_bytes;
	const struct msg_hello *hello;
	char date[32];     /* of the current second, for headers */
	time_t date_s;
	bool draining;
};

/* Takes all memory for max_connections, and tells the jobs the policy's programs. False: errno. */
bool api_init(struct api *a, struct conf *c, struct policy *p, struct loop *l, struct jobs *q, const struct msg_hello *hello);
/* A new client; takes over fd, which is non-blocking. False when there is no place: fd is closed. */
bool api_accept(struct api *a, int fd);
/* A connection's fd is ready, or its time is up. */
void api_event(struct api *a, uint32_t id, short revents);
void api_timer(struct api *a, struct timer *t);
/* A job is done: its reply goes out. */
void api_job_done(struct api *a, struct job *j);
/* The warden's answer to job_ask: who waits for it is answered. Takes over its fd. */
void api_wall_answer(struct api *a);
/* The policy file is to be read anew, for nobody who waits (SIGHUP). */
void api_reload(struct api *a);
/* No new requests; idle connections close now, the others after their reply. */
void api_drain(struct api *a);
#endif
