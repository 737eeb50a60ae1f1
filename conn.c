/* L5 net: connections. Every byte here comes from the network: it is parsed and counted, and never becomes a
 * format, a path, a header or markup. */
#include "conn.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys.h"
#include "util.h"

enum {
	HEAD_MS = 10000,   /* from a request's first byte to the end of its head */
	IDLE_MS = 60000,   /* between requests */
	STALL_MS = 30000,  /* without a byte being taken from a reply */
	LINGER_MS = 2000,
	REPLIES = 16,      /* large buffers that no body may take */
};

static const struct { short status; char code[13]; const char *extra; } errors[] = {
	[E_BAD_JSON] = {400, "bad_json", NULL},
	[E_BAD_REQUEST] = {400, "bad_request", NULL},
	[E_UNAUTHORIZED] = {401, "unauthorized", "WWW-Authenticate: Basic realm=\"OmniArena\"\r\n"},
	[E_ORIGIN] = {403, "origin", NULL},
	[E_CAPABILITY] = {403, "capability", NULL},
	[E_NOT_FOUND] = {404, "not_found", NULL},
	[E_METHOD] = {405, "method", NULL},
	[E_TIMEOUT] = {408, "timeout", NULL},
	[E_TOO_LARGE] = {413, "too_large", NULL},
	[E_RATE] = {429, "rate", NULL},
	[E_BUDGET] = {429, "budget", "Retry-After: 3600\r\n"}, /* until somebody raises it */
	[E_AGENTS] = {429, "agents", NULL},
	[E_BUSY] = {429, "busy", "Retry-After: 1\r\n"},
	[E_NO_PLACE] = {503, "busy", "Retry-After: 1\r\n"},
	[E_DRAINING] = {503, "busy", "Retry-After: 2\r\n"},
	[E_ISOLATION] = {503, "isolation", "Retry-After: 1\r\n"},
	[E_AUDIT] = {503, "audit", "Retry-After: 1\r\n"},
	[E_INTERNAL] = {500, "internal", NULL},
};

/* ---- memory and places ---- */

bool conn_init(struct conns *a, struct conf *conf, struct loop *l, struct jobs *q)
{
	*a = (struct conns){.conf = conf, .loop = l, .jobs = q, .conns = conf->max_connections, .bodies = conf->max_running, .bigs = conf->max_running + REPLIES};
	size_t each = CONN_IN + CONN_OUT + CONN_TEXT + 2 * MCP_ID_MAX;
	size_t all = a->conns * each + a->bigs * HTTP_BODY_MAX;
	/* reserved once, touched only as far as bytes really come */
	char *p = sys_memory(all, 1);
	a->conn = sys_memory(a->conns, sizeof *a->conn);
	a->big_used = sys_memory(a->bigs, sizeof *a->big_used);
	if (!p || !a->conn || !a->big_used)
		return false;
	for (size_t i = 0; i < a->conns; i++, p += each)
		a->conn[i] = (struct conn){
			.id = (uint32_t)i, .fd = -1, .slot = -1, .big = -1, .file = -1, .in = p,
			.out = {p + CONN_IN, 0, CONN_OUT, false},
			.text = {p + CONN_IN + CONN_OUT, 0, CONN_TEXT, false},
			.call = p + each - 2 * MCP_ID_MAX, .token = p + each - MCP_ID_MAX,
			.timer = {.kind = CONN_TIMER, .id = (uint32_t)i, .place = -1},
		};
	a->big = p;
	return true;
}

struct conn *conn_find(struct conns *a, uint32_t id)
{
	size_t place = id % CONN_PLACES;
	return place < a->conns && a->conn[place].id == id && a->conn[place].st != CONN_FREE ? &a->conn[place] : NULL;
}

static bool take_big(struct conns *a, struct conn *c, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		if (!a->big_used[i]) {
			a->big_used[i] = true;
			c->big = (int)i;
			c->body = (struct buf){a->big + i * HTTP_BODY_MAX, 0, HTTP_BODY_MAX, false};
			return true;
		}
	return false;
}

bool conn_big(struct conns *a, struct conn *c)
{
	return take_big(a, c, 0, a->bodies);
}

static void big_free(struct conns *a, struct conn *c)
{
	if (c->big < 0)
		return;
	(void)madvise(a->big + (size_t)c->big * HTTP_BODY_MAX, HTTP_BODY_MAX, MADV_DONTNEED); /* only saves memory */
	a->big_used[c->big] = false;
	c->big = -1;
}

void conn_drop_job(struct conns *a, struct conn *c)
{
	struct job *j = c->has_job ? job_find(a->jobs, c->job) : NULL;
	if (j)
		job_drop(a->jobs, j);
	c->has_job = false;
}

/* What a request held, beyond the connection itself. */
static void let_go(struct conns *a, struct conn *c)
{
	conn_drop_job(a, c);
	big_free(a, c);
	if (c->file >= 0)
		(void)close(c->file); /* read only */
	c->file = -1;
	a->streams -= c->streaming;
	c->streaming = false;
}

void conn_close(struct conns *a, struct conn *c)
{
	let_go(a, c);
	loop_timer_off(a->loop, &c->timer);
	loop_del(a->loop, &c->slot);
	(void)close(c->fd); /* whatever it says, nobody is left to tell */
	c->fd = -1;
	c->stretching = c->wrong_password = false;
	c->st = CONN_FREE;
	c->id += CONN_PLACES; /* an old id finds nothing from now on */
	c->timer.id = c->id;
	a->open--;
}

/* A free place; when all are taken, of the connections that wait between requests the one that
 * has waited longest goes. */
static struct conn *make_place(struct conns *a)
{
	struct conn *oldest = NULL;
	for (size_t i = 0; i < a->conns; i++) {
		struct conn *c = &a->conn[i];
		if (c->st == CONN_FREE)
			return c;
		if (c->st == CONN_HEAD && c->in_n == 0 && (!oldest || c->since < oldest->since))
			oldest = c;
	}
	if (oldest)
		conn_close(a, oldest);
	return oldest;
}

/* Forgets the request that was answered; what came behind it moves to the front. */
static void next_request(struct conns *a, struct conn *c)
{
	memmove(c->in, c->in + c->used, c->in_n - c->used);
	c->in_n -= c->used;
	c->used = 0;
	memset(&c->req, 0, sizeof c->req);
	c->route = NULL;
	c->chunks = (struct http_chunks){0};
	c->body = (struct buf){0};
	c->out.n = c->text.n = c->sent = c->pieces = c->piece_at = 0;
	c->out.full = c->text.full = c->quoted = false;
	c->origin = (struct str){NULL, 0};
	c->call_n = c->token_n = 0;
	c->st = CONN_HEAD;
	c->since = a->loop->now;
	loop_timer(a->loop, &c->timer, c->in_n ? HEAD_MS : IDLE_MS);
}

/* Everybody on this host has the same address, so only others are counted by it. */
static bool has_too_many(const struct conns *a, const unsigned char peer[16])
{
	static const unsigned char mapped_loopback[13] = {[10] = 0xff, [11] = 0xff, [12] = 127}, loopback6[16] = {[15] = 1};
	size_t n = 0;
	if (memcmp(peer, mapped_loopback, sizeof mapped_loopback) == 0 || memcmp(peer, loopback6, sizeof loopback6) == 0)
		return false;
	for (size_t i = 0; i < a->conns; i++)
		n += a->conn[i].st != CONN_FREE && memcmp(a->conn[i].peer, peer, 16) == 0;
	return n >= a->conf->address_connections;
}

bool conn_accept(struct conns *a, int fd, const unsigned char peer[16])
{
	struct conn *c = has_too_many(a, peer) ? NULL : make_place(a);
	if (!c) {
		(void)close(fd);
		return false;
	}
	c->fd = fd;
	memcpy(c->peer, peer, sizeof c->peer);
	c->in_n = c->used = 0;
	c->close = c->known = false;
	a->open++;
	loop_add(a->loop, fd, POLLIN, CONN_SOCKET, c->id, &c->slot);
	next_request(a, c);
	loop_timer(a->loop, &c->timer, HEAD_MS); /* who connects has something to say */
	return true;
}

/* ---- reading ---- */

bool conn_read(struct conns *a, struct conn *c)
{
	bool direct = c->st == CONN_BODY && c->big >= 0 && !c->req.chunked;
	bool idle = c->st == CONN_HEAD && c->in_n == 0;
	char *to = direct ? c->body.p + c->body.n : c->in + c->in_n;
	size_t room = direct ? c->req.length - c->body.n : CONN_IN - c->in_n;

	if (c->st == CONN_LINGER)
		to = c->in, room = CONN_IN;
	ssize_t n = read(c->fd, to, room);
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) {
		conn_close(a, c);
		return false;
	}
	if (c->st == CONN_LINGER)
		return false;
	if (direct)
		c->body.n += (size_t)n;
	else
		c->in_n += (size_t)n;
	if (idle)
		loop_timer(a->loop, &c->timer, HEAD_MS);
	return true;
}

void conn_wait(struct conns *a, struct conn *c)
{
	c->st = CONN_WAIT;
	loop_timer_off(a->loop, &c->timer); /* what it waits for has its own, or ends with all */
	loop_mod(a->loop, c->slot, POLLRDHUP);
}

/* ---- replies ---- */

static uint64_t piece_len(const struct piece *p)
{
	switch (p->kind) {
	case PIECE_JSON:
		return json_escaped_len(p->raw, NULL) + 2;
	case PIECE_BASE64:
		return (p->raw.n + 2) / 3 * 4 + 2;
	default:
		return p->raw.n;
	}
}

/* The next bytes of a log, as elements of a JSON array. */
static size_t put_file(struct conn *c, size_t want)
{
	struct buf *b = &c->out;
	ssize_t n = read(c->file, b->p + b->n, want < b->cap - b->n ? want : b->cap - b->n);
	if (n <= 0) {
		c->close = true; /* it was longer a moment ago; the length that was promised can't be kept */
		return 0;
	}
	for (char *p = b->p + b->n, *end = p + n; (p = memchr(p, '\n', (size_t)(end - p)));)
		*p = ',';
	b->n += (size_t)n;
	return (size_t)n;
}

/* Moves what fits of the pieces into out. Those that are not plain get their quotes here. */
static void fill(struct conn *c)
{
	struct buf *b = &c->out;

	for (; c->piece_at < c->pieces; c->piece_at++, c->quoted = false) {
		struct piece *p = &c->piece[c->piece_at];
		size_t used = 0;
		if (b->cap - b->n < 8)
			return;
		bool quoted = p->kind == PIECE_JSON || p->kind == PIECE_BASE64;
		if (quoted && !c->quoted)
			buf_put(b, "\"", 1);
		c->quoted = true;
		if (p->kind == PIECE_FILE) {
			if (p->raw.n && (used = put_file(c, p->raw.n)) == 0)
				c->pieces = c->piece_at;
			if ((p->raw.n -= used))
				return;
			continue;
		}
		if (p->kind == PIECE_PLAIN) {
			used = p->raw.n < b->cap - b->n ? p->raw.n : b->cap - b->n;
			buf_put(b, p->raw.p, used);
		} else {
			used = p->kind == PIECE_JSON ? json_escape(b, p->raw, NULL) : json_base64(b, p->raw);
		}
		p->raw.p += used;
		p->raw.n -= used;
		if (p->raw.n || (quoted && b->n == b->cap))
			return;
		if (quoted)
			buf_put(b, "\"", 1);
	}
}

static void reply_sent(struct conns *a, struct conn *c)
{
	let_go(a, c);
	if (!c->close && !a->draining) {
		loop_mod(a->loop, c->slot, POLLIN);
		next_request(a, c);
	} else if (shutdown(c->fd, SHUT_WR) < 0) {
		conn_close(a, c);
	} else {
		/* RFC 9112 section 9.6: closing with bytes unread resets the connection, and the reset
		 * could overtake the reply */
		c->st = CONN_LINGER;
		loop_mod(a->loop, c->slot, POLLIN);
		loop_timer(a->loop, &c->timer, LINGER_MS);
	}
}

void conn_send(struct conns *a, struct conn *c)
{
	for (;;) {
		fill(c);
		ssize_t n = write(c->fd, c->out.p + c->sent, c->out.n - c->sent);
		if (n < 0 && errno != EAGAIN) {
			conn_close(a, c);
			return;
		}
		if (n < 0)
			break;
		c->sent += (size_t)n;
		if (c->sent < c->out.n)
			break; /* the socket is full */
		c->sent = c->out.n = 0;
		if (c->piece_at == c->pieces) {
			reply_sent(a, c);
			return;
		}
	}
	loop_mod(a->loop, c->slot, POLLOUT);
	loop_timer(a->loop, &c->timer, STALL_MS);
}

/* IMF-fixdate, RFC 9110 section 5.6.7; made once a second. */
static const char *date(struct conns *a)
{
	static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	uint64_t t = now_unix_ms() / 1000;

	if (t == a->date_s)
		return a->date;
	a->date_s = t;
	struct date d = date_of(t);
	(void)text_printf(a->date, sizeof a->date, "%s, %02u %s %u %02u:%02u:%02u GMT", days[d.weekday], d.day, months[d.month], d.year,
	                  d.hour, d.minute, d.second); /* fits */
	return a->date;
}

void conn_piece(struct conn *c, int kind, struct str raw)
{
	c->piece[c->pieces++] = (struct piece){kind, raw};
}

static void put_head(struct conns *a, struct conn *c, int status, const char *type, const char *extra, bool stream)
{
	c->close = c->close || stream || !c->req.keep_alive || a->draining;
	struct http_reply r = {.status = status, .type = type, .date = date(a), .extra = extra, .origin = c->origin, .close = c->close,
	                       .http10 = c->req.http10, .stream = stream};
	for (size_t i = 0; i < c->pieces; i++)
		r.length += piece_len(&c->piece[i]);
	http_head(&c->out, &r);
}

void conn_reply(struct conns *a, struct conn *c, int status, const char *type, const char *extra)
{
	put_head(a, c, status, type, extra, false);
	if (c->req.method == HTTP_HEAD)
		c->pieces = 0;
	c->st = CONN_SEND;
	conn_send(a, c);
}

/* Never cut: the buffer says whether what was written is whole. */
static void reply_whole(struct conns *a, struct conn *c, const struct buf *b, int status, const char *type, const char *extra)
{
	if (b->full) {
		conn_refuse(a, c, E_INTERNAL, "the reply does not fit"); /* this does */
		return;
	}
	conn_piece(c, PIECE_PLAIN, (struct str){b->p, b->n});
	conn_reply(a, c, status, type, extra);
}

void conn_reply_text(struct conns *a, struct conn *c, int status, const char *type, const char *extra)
{
	reply_whole(a, c, &c->text, status, type, extra);
}

static struct json_writer *begin_object(struct conn *c, struct buf *b)
{
	b->n = 0;
	b->full = false;
	c->w = (struct json_writer){.b = b};
	json_open(&c->w, true);
	return &c->w;
}

struct json_writer *conn_object(struct conn *c)
{
	return begin_object(c, &c->text);
}

struct json_writer *conn_large_object(struct conns *a, struct conn *c)
{
	return conn_large(a, c) ? begin_object(c, &c->body) : NULL;
}

/* The object as the result of a tool that was called over MCP: also what refuses is one. */
static void reply_framed(struct conns *a, struct conn *c, bool failed)
{
	bool is_event = c->st == CONN_STREAM;
	struct str object = {c->w.b->p, c->w.b->n};

	conn_piece(c, PIECE_PLAIN, str_of(is_event ? "event: message\ndata: " : ""));
	conn_piece(c, PIECE_PLAIN, str_of(mcp_frame[MCP_BEGIN]));
	conn_piece(c, PIECE_PLAIN, (struct str){c->call, c->call_n});
	conn_piece(c, PIECE_PLAIN, str_of(mcp_frame[MCP_TEXT]));
	conn_piece(c, PIECE_JSON, object);
	conn_piece(c, PIECE_PLAIN, str_of(mcp_frame[MCP_OBJECT]));
	conn_piece(c, PIECE_PLAIN, object);
	conn_piece(c, PIECE_PLAIN, str_of(mcp_frame[failed ? MCP_END_FAILED : MCP_END]));
	conn_piece(c, PIECE_PLAIN, str_of(is_event ? "\n\n" : "\n"));
	if (is_event)
		conn_end_stream(a, c);
	else
		conn_reply(a, c, 200, "application/json", NULL);
}

void conn_reply_object_as(struct conns *a, struct conn *c, int status, const char *extra)
{
	json_close(&c->w);
	if (c->call_n && !c->w.b->full) {
		reply_framed(a, c, status >= 400);
		return;
	}
	buf_put(c->w.b, "\n", 1);
	reply_whole(a, c, c->w.b, status, "application/json", extra);
}

void conn_reply_object(struct conns *a, struct conn *c)
{
	conn_reply_object_as(a, c, 200, NULL);
}

void conn_refuse_as(struct conns *a, struct conn *c, int status, const char *code, const char *extra, const char *text)
{
	/* a body that is still to come can't be told from the next request */
	if (c->st == CONN_HEAD)
		c->close = c->close || c->req.error || c->req.chunked || c->req.length;
	c->pieces = 0;
	json_put(conn_object(c), "ok:false error:%s code:%s", text, code);
	conn_reply_object_as(a, c, status, extra);
}

void conn_refuse(struct conns *a, struct conn *c, enum error e, const char *text)
{
	conn_refuse_as(a, c, errors[e].status, errors[e].code, errors[e].extra, text);
}

bool conn_refuse_bad(struct conns *a, struct conn *c, const char *text)
{
	if (text)
		conn_refuse(a, c, E_BAD_REQUEST, text);
	return text;
}

void conn_refuse_why(struct conns *a, struct conn *c, enum error e, const char *text, const char *why)
{
	char both[192];
	(void)text_printf(both, sizeof both, "%s %s", text, why); /* fits */
	conn_refuse(a, c, e, both);
}

void conn_refuse_for(struct conns *a, struct conn *c, enum error e, uint64_t retry_s, const char *text)
{
	char extra[64];
	if (retry_s == 0) {
		conn_refuse(a, c, e, text);
		return;
	}
	(void)text_printf(extra, sizeof extra, "Retry-After: %llu\r\n", (unsigned long long)retry_s); /* fits */
	conn_refuse_as(a, c, errors[e].status, errors[e].code, extra, text);
}

bool conn_is_json(struct conns *a, struct conn *c)
{
	bool valid = !json_check((struct str){c->body.p, c->body.n}, NULL);
	if (!valid)
		conn_refuse(a, c, E_BAD_JSON, "the body is not valid JSON (RFC 8259)");
	return valid;
}

bool conn_fields(struct conns *a, struct conn *c, const struct json_field *known, size_t n, struct json_token *out)
{
	return conn_is_json(a, c) && !conn_refuse_bad(a, c, json_fields((struct str){c->body.p, c->body.n}, known, n, out));
}

bool conn_large(struct conns *a, struct conn *c)
{
	if (c->big < 0 && !take_big(a, c, a->bodies, a->bigs) && !conn_big(a, c)) {
		conn_refuse(a, c, E_NO_PLACE, "too many large requests at once");
		return false;
	}
	c->body = (struct buf){a->big + (size_t)c->big * HTTP_BODY_MAX, 0, HTTP_BODY_MAX, false};
	return true;
}

/* ---- streams ---- */

void conn_stream(struct conns *a, struct conn *c)
{
	a->streams += !c->streaming;
	c->streaming = true;
	c->stalled = false;
	c->out_at = c->err_at = 0;
	put_head(a, c, 200, "text/event-stream", "X-Accel-Buffering: no\r\n", true); /* proxies are to pass it on at once */
	c->st = CONN_STREAM;
	loop_timer(a->loop, &c->timer, CONN_BEAT_MS);
}

bool conn_push(struct conns *a, struct conn *c)
{
	ssize_t n = c->sent < c->out.n ? write(c->fd, c->out.p + c->sent, c->out.n - c->sent) : 0;
	if (n < 0 && errno != EAGAIN) {
		conn_close(a, c);
		return false;
	}
	if (n > 0) {
		c->sent += (size_t)n;
		c->stalled = false;
	}
	if (c->sent == c->out.n)
		c->sent = c->out.n = 0;
	loop_mod(a->loop, c->slot, c->out.n ? POLLOUT | POLLRDHUP : POLLRDHUP);
	return true;
}

void conn_end_stream(struct conns *a, struct conn *c)
{
	c->st = CONN_SEND;
	conn_send(a, c);
}
