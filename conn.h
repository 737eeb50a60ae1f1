/* L5 net: connections: reading requests, writing replies. What is asked is api.c's. */
#ifndef CONN_H
#define CONN_H
#include <stdbool.h>
#include <stdint.h>

#include "conf.h"
#include "http.h"
#include "job.h"
#include "json.h"
#include "loop.h"
#include "mcp.h"

/* Kinds in the loop, behind job's. */
enum { CONN_SOCKET = JOB_KINDS, CONN_TIMER, CONN_KINDS };

enum conn_state {
	CONN_FREE, CONN_HEAD, /* waiting for a request's head */
	CONN_BODY,            /* reading its body */
	CONN_WAIT,            /* a job runs for it, the warden is asked, or a password is stretched */
	CONN_SEND,            /* writing the reply */
	CONN_STREAM,          /* writing events as they come */
	CONN_LINGER,          /* reply sent, reading to the end so that no reset overtakes it */
};

/* A reply's body in pieces, made as they are sent: as they are; as JSON strings; so many bytes of the file,
 * where every newline becomes a comma. */
struct piece { enum { PIECE_PLAIN, PIECE_JSON, PIECE_BASE64, PIECE_FILE } kind; struct str raw; };
enum {
	CONN_PIECES = 10, CONN_IN = HTTP_HEAD_MAX + 4096, /* the largest head, and room for a body to pass through */
	CONN_OUT = 16384, CONN_TEXT = 8192, CONN_BEAT_MS = 15000 /* between the signs of life of a stream */, CONN_PLACES = 32768, /* an id is the place and, above, a generation */
};

/* What is used most stands first, where the machine's short offsets reach: it makes the program smaller. */
struct conn {
	uint32_t id, job;
	int fd, slot, big;    /* big: index of a large body buffer, or -1 */
	enum conn_state st;
	bool has_job, close, wrong_password;
	bool own_token;       /* said by an agent's own token */
	bool known;           /* right credentials were shown on this connection before: shown's */
	bool quoted;          /* the current piece's opening quote is out */
	bool streaming, stalled; /* the reply is to be events; nothing of them was taken since the last beat */
	bool stretching;      /* its password is being checked; then the same request is looked at once more */
	bool lossy[2];        /* of a command's reply: what was no UTF-8 was replaced in stdout, stderr */
	int file;             /* what PIECE_FILE reads, or -1 */
	uint8_t call_n, token_n; /* a tool is called over MCP: length of the call's id, else 0; of the token of its progress, or 0 */
	char *call, *token;   /* these, MCP_ID_MAX bytes each; not in here, as memory is touched for every connection that there may be */
	uint32_t session;     /* of that call */
	uint64_t told_ms;     /* when progress was told last */
	const struct route *route;
	char *in;             /* CONN_IN bytes: head, and a body that fits behind it */
	size_t in_n, used;    /* bytes there; bytes of it that belong to this request */
	struct buf out;       /* what is being sent */
	size_t sent, pieces, piece_at;
	struct buf body;      /* decoded; in in or in a large buffer */
	struct buf text;      /* a small reply's body */
	struct json_writer w; /* of the reply's object, in text or in body */
	uint64_t next;        /* stream: the next row of the ring */
	uint32_t figures;     /* stream: which figures were told */
	size_t out_at, err_at;/* stream: how much of the job's output was written */
	struct timer timer;
	uint64_t since;       /* when it began to wait for the request */
	unsigned char peer[16]; /* the address, IPv4 mapped into IPv6 */
	char agent[CONF_NAME_MAX + 1]; /* whose request this is */
	struct str origin;    /* the page that may read the reply; .n 0: none */
	struct http_chunks chunks;
	struct http_req req;
	unsigned char shown[32]; /* the digest of right credentials */
	struct piece piece[CONN_PIECES];
};

struct conns {
	struct conf *conf;
	struct loop *loop;
	struct jobs *jobs;
	struct conn *conn;
	size_t conns, open, streams;
	char *big;         /* large body buffers, HTTP_BODY_MAX each */
	bool *big_used;
	size_t bodies, bigs; /* the first ones for bodies, the others for replies alone */
	char date[32];     /* of the current second, for headers */
	uint64_t date_s;
	bool draining;
};

enum error {
	E_BAD_JSON, E_BAD_REQUEST, E_UNAUTHORIZED, E_ORIGIN, E_CAPABILITY, E_NOT_FOUND, E_METHOD, E_TIMEOUT, E_TOO_LARGE,
	E_RATE, E_BUDGET, E_AGENTS, E_BUSY, E_NO_PLACE, E_DRAINING, E_ISOLATION, E_AUDIT, E_INTERNAL,
};

/* Takes all memory for max_connections. False: errno. */
bool conn_init(struct conns *a, struct conf *c, struct loop *l, struct jobs *q);
/* A new client; takes over fd, which is non-blocking. False when there is no place: fd is closed. */
bool conn_accept(struct conns *a, int fd, const unsigned char peer[16]);
struct conn *conn_find(struct conns *a, uint32_t id);
/* The connection and what it waits for are given up. */
void conn_close(struct conns *a, struct conn *c);
/* Its command is not wanted any more. */
void conn_drop_job(struct conns *a, struct conn *c);

/* Reads what is there into in or the body. False when there was nothing, or it is closed now. */
bool conn_read(struct conns *a, struct conn *c);
/* A large buffer for the body (c->body), which stays until the reply is sent; false: all are in use. */
bool conn_big(struct conns *a, struct conn *c);
/* Nothing is read until the reply; a hang-up is still noticed. */
void conn_wait(struct conns *a, struct conn *c);

/* Appends to the reply's body; raw stays the caller's until it is sent. */
void conn_piece(struct conn *c, int kind, struct str raw);
/* Puts the head in front of the pieces and starts to send; extra: whole header lines, or NULL. */
void conn_reply(struct conns *a, struct conn *c, int status, const char *type, const char *extra);
/* c->text is the whole body. */
void conn_reply_text(struct conns *a, struct conn *c, int status, const char *type, const char *extra);
/* Begins an object that is the whole body, in c->text. */
struct json_writer *conn_object(struct conn *c);
/* The same in c->body, which becomes room for a large reply, kept until that is sent; the request's body may be gone
 * then. NULL: there is none, and that is answered. */
struct json_writer *conn_large_object(struct conns *a, struct conn *c);
/* Closes the object and sends it, with status 200. */
void conn_reply_object(struct conns *a, struct conn *c);
void conn_reply_object_as(struct conns *a, struct conn *c, int status, const char *extra);
/* The failure as API.md has it. text may carry words from outside. retry_s: for Retry-After, 0: the usual one. */
void conn_refuse(struct conns *a, struct conn *c, enum error e, const char *text);
/* E_BAD_REQUEST, where text says what is wrong. False: it is NULL, and nothing is. */
bool conn_refuse_bad(struct conns *a, struct conn *c, const char *text);
/* The text, which ends in ':', and why; both together shorter than 192 bytes. */
void conn_refuse_why(struct conns *a, struct conn *c, enum error e, const char *text, const char *why);
void conn_refuse_for(struct conns *a, struct conn *c, enum error e, uint64_t retry_s, const char *text);
void conn_refuse_as(struct conns *a, struct conn *c, int status, const char *code, const char *extra, const char *text);
/* Whether the body is; if not, that is answered. */
bool conn_is_json(struct conns *a, struct conn *c);
/* Reads the body's known fields (json_fields). False: something is wrong with them, and it is answered. */
bool conn_fields(struct conns *a, struct conn *c, const struct json_field *known, size_t n, struct json_token *out);
/* Room for a large reply that is no object, in c->body, as above. */
bool conn_large(struct conns *a, struct conn *c);
/* Goes on sending. */
void conn_send(struct conns *a, struct conn *c);

/* The head of an event stream; what follows is put into c->out, as it has room, and conn_push sends it. */
void conn_stream(struct conns *a, struct conn *c);
/* False: the client is gone, and so is the connection. */
bool conn_push(struct conns *a, struct conn *c);
/* The stream ends when what is in out and in the pieces is sent. */
void conn_end_stream(struct conns *a, struct conn *c);
#endif
