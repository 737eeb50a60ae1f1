/* L4 net: connections and what is asked on them. Every byte here comes from the network: it is
 * parsed, compared and counted, and never becomes a format, a path, a header or markup. */
#include "api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "util.h"

enum {
	HEAD_MS = 10000,   /* from a request's first byte to the end of its head */
	BODY_MS = 60000,   /* from there to the end of its body */
	IDLE_MS = 60000,   /* between requests */
	STALL_MS = 30000,  /* without a byte being taken from a reply */
	LINGER_MS = 2000,
	PLACES = 32768,    /* an id is the place in the table and, above, a generation */
	CMD_MAX = 65536, CWD_MAX = 4096,
};

enum error {
	E_BAD_JSON, E_BAD_REQUEST, E_UNAUTHORIZED, E_ORIGIN, E_CAPABILITY, E_NOT_FOUND, E_METHOD, E_TIMEOUT, E_TOO_LARGE,
	E_BUSY, E_NO_PLACE, E_DRAINING, E_ISOLATION, E_INTERNAL, E_NOT_IMPLEMENTED,
};
static const struct { int status; const char *code, *extra; } errors[] = {
	[E_BAD_JSON] = {400, "bad_json", NULL},
	[E_BAD_REQUEST] = {400, "bad_request", NULL},
	[E_UNAUTHORIZED] = {401, "unauthorized", "WWW-Authenticate: Basic realm=\"OmniArena\"\r\n"},
	[E_ORIGIN] = {403, "origin", NULL},
	[E_CAPABILITY] = {403, "capability", NULL},
	[E_NOT_FOUND] = {404, "not_found", NULL},
	[E_METHOD] = {405, "method", NULL},
	[E_TIMEOUT] = {408, "timeout", NULL},
	[E_TOO_LARGE] = {413, "too_large", NULL},
	[E_BUSY] = {429, "busy", "Retry-After: 1\r\n"},
	[E_NO_PLACE] = {503, "busy", "Retry-After: 1\r\n"},
	[E_DRAINING] = {503, "busy", "Retry-After: 2\r\n"},
	[E_ISOLATION] = {503, "isolation", "Retry-After: 1\r\n"},
	[E_INTERNAL] = {500, "internal", NULL},
	[E_NOT_IMPLEMENTED] = {501, "not_implemented", NULL},
};

typedef void handler(struct api *a, struct conn *c);
static handler get_healthz, get_health, post_exec, any_policy, post_test, post_reload, post_profile;

/* ADMIN: its POST is not for an agent's own token, which must not widen what holds for it */
enum { PUBLIC = 1, ADMIN = 2 };
static const struct route { const char *path; unsigned methods, flags; handler *run; const char *allow; } routes[] = {
	{"/healthz", HTTP_GET, PUBLIC, get_healthz, "Allow: GET, HEAD, OPTIONS\r\n"},
	{"/api/health", HTTP_GET, 0, get_health, "Allow: GET, HEAD, OPTIONS\r\n"},
	{"/api/exec", HTTP_POST, 0, post_exec, "Allow: POST, OPTIONS\r\n"},
	{"/api/policy", HTTP_GET | HTTP_POST, ADMIN, any_policy, "Allow: GET, HEAD, POST, OPTIONS\r\n"},
	{"/api/policy/test", HTTP_POST, 0, post_test, "Allow: POST, OPTIONS\r\n"},
	{"/api/policy/reload", HTTP_POST, ADMIN, post_reload, "Allow: POST, OPTIONS\r\n"},
	{"/api/profile", HTTP_POST, ADMIN, post_profile, "Allow: POST, OPTIONS\r\n"},
};

/* ---- memory and places ---- */

static void tell_lists(struct api *a)
{
	static char names[MSG_ASK_MAX];
	struct buf b = {names, 0, sizeof names, false};
	uint32_t forbidden = (uint32_t)policy_programs(a->policy, POLICY_BLACK, &b);
	uint32_t allowed = (uint32_t)policy_programs(a->policy, POLICY_WHITE, &b); /* the file is no larger than this */
	job_set_lists(a->jobs, (struct str){b.p, b.n}, forbidden, allowed);
}

bool api_init(struct api *a, struct conf *conf, struct policy *policy, struct loop *l, struct jobs *q, const struct msg_hello *hello)
{
	*a = (struct api){.conf = conf, .policy = policy, .loop = l, .jobs = q, .hello = hello, .started_ms = now_ms(),
	                  .conns = conf->max_connections, .bigs = conf->max_running};
	size_t each = API_IN + API_OUT + API_TEXT;
	size_t all = a->conns * each + a->bigs * HTTP_BODY_MAX;
	/* reserved once, touched only as far as bytes really come */
	char *p = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	a->conn = calloc(a->conns, sizeof *a->conn);
	a->big_used = calloc(a->bigs, sizeof *a->big_used);
	if (p == MAP_FAILED || !a->conn || !a->big_used)
		return false;
	for (size_t i = 0; i < a->conns; i++, p += each)
		a->conn[i] = (struct conn){
			.id = (uint32_t)i, .fd = -1, .slot = -1, .big = -1, .in = p,
			.out = {p + API_IN, 0, API_OUT, false},
			.text = {p + API_IN + API_OUT, 0, API_TEXT, false},
			.timer = {.kind = API_CONN_TIMER, .id = (uint32_t)i, .place = -1},
		};
	a->big = p;
	tell_lists(a);
	return true;
}

static struct conn *find(struct api *a, uint32_t id)
{
	size_t place = id % PLACES;
	return place < a->conns && a->conn[place].id == id && a->conn[place].st != CONN_FREE ? &a->conn[place] : NULL;
}

static bool big_take(struct api *a, struct conn *c)
{
	for (size_t i = 0; i < a->bigs; i++)
		if (!a->big_used[i]) {
			a->big_used[i] = true;
			c->big = (int)i;
			c->body = (struct buf){a->big + i * HTTP_BODY_MAX, 0, HTTP_BODY_MAX, false};
			return true;
		}
	return false;
}

static void big_free(struct api *a, struct conn *c)
{
	if (c->big < 0)
		return;
	(void)madvise(a->big + (size_t)c->big * HTTP_BODY_MAX, HTTP_BODY_MAX, MADV_DONTNEED); /* only saves memory */
	a->big_used[c->big] = false;
	c->big = -1;
}

/* The command that runs for this connection, if there is one, is not wanted any more. */
static void job_off(struct api *a, struct conn *c)
{
	struct job *j = c->has_job ? job_find(a->jobs, c->job) : NULL;
	if (j)
		job_drop(a->jobs, j);
	c->has_job = false;
}

static void conn_close(struct api *a, struct conn *c)
{
	job_off(a, c);
	big_free(a, c);
	loop_timer_off(a->loop, &c->timer);
	loop_del(a->loop, &c->slot);
	(void)close(c->fd); /* whatever it says, nobody is left to tell */
	c->fd = -1;
	c->st = CONN_FREE;
	c->id += PLACES; /* an old id finds nothing from now on */
	c->timer.id = c->id;
	a->open--;
}

/* A free place; when all are taken, of the connections that wait between requests the one that
 * has waited longest goes. */
static struct conn *make_place(struct api *a)
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
static void next_request(struct api *a, struct conn *c)
{
	memmove(c->in, c->in + c->used, c->in_n - c->used);
	c->in_n -= c->used;
	c->used = 0;
	memset(&c->req, 0, sizeof c->req);
	c->chunks = (struct http_chunks){0};
	c->body = (struct buf){0};
	c->out.n = c->text.n = c->sent = c->pieces = c->piece_at = 0;
	c->out.full = c->text.full = c->quoted = false;
	c->st = CONN_HEAD;
	c->since = a->loop->now;
	loop_timer(a->loop, &c->timer, c->in_n ? HEAD_MS : IDLE_MS);
}

bool api_accept(struct api *a, int fd)
{
	struct conn *c = make_place(a);
	if (!c) {
		(void)close(fd);
		return false;
	}
	c->fd = fd;
	c->in_n = c->used = 0;
	c->close = false;
	a->open++;
	loop_add(a->loop, fd, POLLIN, API_CONN, c->id, &c->slot);
	next_request(a, c);
	loop_timer(a->loop, &c->timer, HEAD_MS); /* who connects has something to say */
	return true;
}

/* ---- who may call ---- */

static bool is_loopback(struct str authority)
{
	struct str host = http_host(authority);
	if (str_ieq(host, "localhost") || str_eq(host, "[::1]"))
		return true;
	for (size_t i = 0; i < host.n; i++) /* 127.evil.example is a name like any other */
		if (host.p[i] != '.' && (host.p[i] < '0' || host.p[i] > '9'))
			return false;
	return host.n > 4 && memcmp(host.p, "127.", 4) == 0;
}

static bool is_local(const struct conn *c)
{
	struct str host = c->req.header[HTTP_HOST], origin = c->req.header[HTTP_ORIGIN];
	if (host.p && !is_loopback(host))
		return false;
	if (!origin.p)
		return true;
	for (size_t skip = 7; skip <= 8; skip++)
		if (origin.n > skip && memcmp(origin.p, skip == 7 ? "http://" : "https://", skip) == 0)
			return is_loopback((struct str){origin.p + skip, origin.n - skip});
	return false;
}

enum credential { NOBODY, PUBLISHED, OWN };

/* The agent whose own token this is, or NULL. */
static const struct conf_agent *token_agent(const struct api *a, struct str token)
{
	const struct conf_agent *found = NULL;
	for (size_t i = 0; i < a->conf->agents; i++) /* all of them, so that the time says nothing */
		if (str_same_ct(token, str_of(a->conf->agent[i].token)) && a->conf->agent[i].token[0])
			found = &a->conf->agent[i];
	return found;
}

/* who: the agent that the credential is for alone, or NULL. */
static enum credential credential(const struct api *a, const struct conn *c, const struct conf_agent **who)
{
	struct str value = c->req.header[HTTP_AUTHORIZATION], scheme;
	char plain[256], both[sizeof a->conf->user + sizeof a->conf->pass];

	*who = NULL;
	if (!value.p || !str_word(&value, &scheme))
		return NOBODY;
	while (value.n && value.p[0] == ' ')
		value.p++, value.n--;
	if (str_ieq(scheme, "Bearer") && (*who = token_agent(a, value)))
		return OWN;
	if (str_ieq(scheme, "Bearer"))
		return !str_same_ct(value, str_of(a->conf->token)) || !a->conf->accept_token ? NOBODY : a->conf->own_token ? OWN : PUBLISHED;
	if (!str_ieq(scheme, "Basic") || value.n > sizeof plain)
		return NOBODY;
	long n = base64_decode(value, plain);
	struct buf b = {both, 0, sizeof both, false};
	buf_printf(&b, "%s:%s", a->conf->user, a->conf->pass);
	bool same = n >= 0 && str_same_ct((struct str){plain, (size_t)n}, (struct str){b.p, b.n});
	return !same || !a->conf->accept_pass ? NOBODY : a->conf->own_pass ? OWN : PUBLISHED;
}

/* While a published credential holds, any page in the user's browser knows it: then only pages of
 * this host itself may call, under a name that can't be pointed here from outside; and whoever shows
 * a credential that is not published. */
static bool may_call(const struct api *a, const struct conn *c)
{
	const struct conf_agent *who;
	return !conf_default_credentials(a->conf) || is_local(c) || credential(a, c, &who) == OWN;
}

/* What Access-Control-Allow-Origin answers: nothing to a page that may not call; a local one is
 * echoed while only such may; else cors_origin rules. */
static struct str allowed_origin(const struct api *a, const struct conn *c)
{
	struct str o = c->req.header[HTTP_ORIGIN], none = {NULL, 0};
	if (!o.p || c->req.error || !may_call(a, c))
		return none;
	if ((conf_default_credentials(a->conf) && is_local(c)) || str_eq(o, a->conf->cors_origin))
		return o;
	return strcmp(a->conf->cors_origin, "*") == 0 ? str_of("*") : none;
}

/* ---- replies ---- */

static uint64_t piece_len(const struct piece *p, bool *lossy)
{
	switch (p->kind) {
	case PIECE_JSON:
		return json_escaped_len(p->raw, lossy) + 2;
	case PIECE_BASE64:
		return (p->raw.n + 2) / 3 * 4 + 2;
	default:
		return p->raw.n;
	}
}

static size_t put_base64(struct buf *b, struct str s)
{
	size_t used = 0;
	char four[4];
	while (used < s.n && b->cap - b->n >= sizeof four) {
		size_t n = s.n - used < 3 ? s.n - used : 3;
		base64_group((const unsigned char *)s.p + used, n, four);
		buf_put(b, four, sizeof four);
		used += n;
	}
	return used;
}

/* Moves what fits of the pieces into out. Those that are not plain get their quotes here. */
static void fill(struct conn *c)
{
	struct buf *b = &c->out;
	bool lossy = false;

	for (; c->piece_at < c->pieces; c->piece_at++, c->quoted = false) {
		struct piece *p = &c->piece[c->piece_at];
		size_t used;
		if (b->cap - b->n < 8)
			return;
		if (p->kind != PIECE_PLAIN && !c->quoted)
			buf_put(b, "\"", 1);
		c->quoted = true;
		if (p->kind == PIECE_PLAIN) {
			used = p->raw.n < b->cap - b->n ? p->raw.n : b->cap - b->n;
			buf_put(b, p->raw.p, used);
		} else {
			used = p->kind == PIECE_JSON ? json_escape(b, p->raw, &lossy) : put_base64(b, p->raw);
		}
		p->raw.p += used;
		p->raw.n -= used;
		if (p->raw.n || (p->kind != PIECE_PLAIN && b->n == b->cap))
			return;
		if (p->kind != PIECE_PLAIN)
			buf_put(b, "\"", 1);
	}
}

static void reply_sent(struct api *a, struct conn *c)
{
	job_off(a, c);
	big_free(a, c);
	if (!c->close) {
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

static void send_out(struct api *a, struct conn *c)
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

static unsigned days_of_month(unsigned month, unsigned year)
{
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	return month == 1 ? 28u + leap : 30u + ((month + (month < 7)) & 1); /* 0 is January */
}

/* IMF-fixdate, RFC 9110 section 5.6.7; made once a second. Not by libc's gmtime, which may open
 * files of time zones. */
static const char *date(struct api *a)
{
	static const char days[][4] = {"Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"};
	static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t t = time(NULL);
	unsigned day = (unsigned)(t / 86400), second = (unsigned)(t % 86400), year = 1970, month = 0;

	if (t == a->date_s)
		return a->date;
	a->date_s = t;
	const char *name = days[day % 7];
	for (unsigned n; day >= (n = days_of_month(month, year)); day -= n)
		if (++month == 12)
			month = 0, year++;
	(void)text_printf(a->date, sizeof a->date, "%s, %02u %s %u %02u:%02u:%02u GMT", name, day + 1, months[month], year,
	                  second / 3600, second / 60 % 60, second % 60); /* fits */
	return a->date;
}

static void add_piece(struct conn *c, int kind, struct str raw)
{
	c->piece[c->pieces++] = (struct piece){kind, raw};
}

/* Puts the head in front of the pieces and starts to send. */
static void reply(struct api *a, struct conn *c, int status, const char *type, const char *extra)
{
	bool lossy = false;
	struct http_reply r = {.status = status, .type = type, .date = date(a), .extra = extra,
	                       .origin = allowed_origin(a, c), .http10 = c->req.http10};

	for (size_t i = 0; i < c->pieces; i++)
		r.length += piece_len(&c->piece[i], &lossy);
	c->close = c->close || !c->req.keep_alive || a->draining;
	r.close = c->close;
	http_head(&c->out, &r);
	if (c->req.method == HTTP_HEAD)
		c->pieces = 0;
	c->st = CONN_SEND;
	send_out(a, c);
}

/* What was written into text is the whole body. */
static void reply_text(struct api *a, struct conn *c, int status, const char *type, const char *extra)
{
	if (c->text.full) { /* never cut: the writer's state says whether it is whole */
		c->text.n = 0;
		c->text.full = false;
		status = 500;
		buf_str(&c->text, "{\"ok\":false,\"error\":\"the reply does not fit\",\"code\":\"internal\"}\n");
	}
	add_piece(c, PIECE_PLAIN, (struct str){c->text.p, c->text.n});
	reply(a, c, status, type, extra);
}

/* Closes the object that was written into text, and sends it. */
static void reply_json(struct api *a, struct conn *c, struct json_writer *w, int status, const char *extra)
{
	json_close(w);
	buf_put(&c->text, "\n", 1);
	reply_text(a, c, status, "application/json", extra);
}

static void refuse_as(struct api *a, struct conn *c, int status, const char *code, const char *extra, const char *text)
{
	struct json_writer w = {.b = &c->text};

	/* a body that is still to come can't be told from the next request */
	if (c->st == CONN_HEAD)
		c->close = c->close || c->req.error || c->req.chunked || c->req.length;
	c->text.n = c->pieces = 0;
	json_open(&w, true);
	json_put_truth(&w, "ok", false);
	json_put_string(&w, "error", str_of(text));
	json_put_string(&w, "code", str_of(code));
	reply_json(a, c, &w, status, extra);
}

/* text may carry words from outside: the writer escapes them. */
static void refuse(struct api *a, struct conn *c, enum error e, const char *text)
{
	refuse_as(a, c, errors[e].status, errors[e].code, errors[e].extra, text);
}

/* ---- checks, in their order ---- */

static void preflight(struct api *a, struct conn *c)
{
	reply(a, c, 204, NULL,
	      "Access-Control-Allow-Methods: GET, POST, DELETE, OPTIONS\r\n"
	      "Access-Control-Allow-Headers: Authorization, Content-Type, X-Agent, X-Model, X-Tokens-In, X-Tokens-Out\r\n"
	      "Access-Control-Max-Age: 600\r\n");
}

/* Which agent calls: the one whose token it shows, else the one that X-Agent names. NULL, or why not. */
static const char *identify(struct api *a, struct conn *c, const struct conf_agent *who, enum error *e)
{
	struct str name = c->req.header[HTTP_X_AGENT];

	*e = E_BAD_REQUEST;
	if (name.p && !conf_is_name(name))
		return "X-Agent must have 1 to 63 of A-Z a-z 0-9 . _ -";
	*e = E_CAPABILITY;
	if (who && name.p && !str_eq(name, who->name))
		return "this token is another agent's than X-Agent says";
	c->who = who ? who : conf_agent(a->conf, name.p ? name : str_of("default"));
	if (c->who && c->who->token[0] && !who)
		return "this agent has a token of its own, and is nobody without it";
	if (who && (c->route->flags & ADMIN) && c->req.method == HTTP_POST)
		return "an agent's own token can't change the policy that holds for it";
	return NULL;
}

/* The head is whole: may this go on? False: it is answered. */
static bool admit(struct api *a, struct conn *c)
{
	const struct http_req *r = &c->req;
	const struct conf_agent *who = NULL;
	const char *why;
	enum error e;

	c->route = NULL;
	c->who = NULL;
	for (size_t i = 0; i < countof(routes); i++)
		if (str_eq(r->path, routes[i].path))
			c->route = &routes[i];
	bool public = c->route && (c->route->flags & PUBLIC);
	if (!public && !may_call(a, c)) {
		refuse(a, c, E_ORIGIN, "while the default credentials are in force, only pages and names of this host may call");
		return false;
	}
	if (r->method == HTTP_OPTIONS && !r->chunked && !r->length) {
		preflight(a, c);
		return false;
	}
	if (!public && credential(a, c, &who) == NOBODY) {
		refuse(a, c, E_UNAUTHORIZED, "wrong or missing credentials");
		return false;
	}
	if (!c->route) {
		refuse(a, c, E_NOT_FOUND, "there is nothing at this path");
		return false;
	}
	if (!(c->route->methods & r->method) && !(r->method == HTTP_HEAD && (c->route->methods & HTTP_GET))) {
		refuse_as(a, c, 405, "method", c->route->allow, "this path does not know that method");
		return false;
	}
	if (!public && (why = identify(a, c, who, &e))) {
		refuse(a, c, e, why);
		return false;
	}
	return true;
}

/* ---- reading ---- */

static void head_done(struct api *a, struct conn *c)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

	c->used = c->req.head_len;
	if (!admit(a, c))
		return;
	if (!c->req.chunked && c->req.head_len + c->req.length <= API_IN) {
		c->body = (struct buf){c->in + c->req.head_len, 0, c->req.length, false};
	} else if (!big_take(a, c)) {
		refuse(a, c, E_NO_PLACE, "too many large requests at once");
		return;
	}
	bool waits = c->req.expect_continue && c->in_n == c->used && (c->req.chunked || c->req.length);
	if (waits && write(c->fd, go_on, sizeof go_on - 1) != (ssize_t)sizeof go_on - 1) {
		conn_close(a, c);
		return;
	}
	c->st = CONN_BODY;
	loop_timer(a->loop, &c->timer, BODY_MS);
}

/* Takes what in has of the body: HTTP_MORE, HTTP_DONE, or a status. */
static int take_body(struct conn *c)
{
	size_t have = c->in_n - c->used;

	if (c->req.chunked) {
		size_t n = have;
		int rc = http_dechunk(&c->chunks, c->in + c->used, &n, &c->body);
		if (rc == HTTP_MORE)
			c->in_n = c->used; /* all of it was used: the next bytes go to the same place */
		else
			c->used += n;
		return rc;
	}
	size_t take = have < c->req.length - c->body.n ? have : c->req.length - c->body.n;
	if (c->big >= 0)
		memcpy(c->body.p + c->body.n, c->in + c->used, take);
	c->body.n += take;
	c->used += take;
	return c->body.n == c->req.length ? HTTP_DONE : HTTP_MORE;
}

/* Goes as far as the bytes that are there lead, request by request. */
static void process(struct api *a, struct conn *c)
{
	while (c->st == CONN_HEAD || c->st == CONN_BODY) {
		int rc;
		if (c->st == CONN_HEAD) {
			if (c->in_n == 0 || (rc = http_parse(&c->req, (struct str){c->in, c->in_n})) == HTTP_MORE)
				return;
			if (rc == HTTP_DONE)
				head_done(a, c);
			else
				refuse_as(a, c, rc, rc == 413 ? "too_large" : rc == 501 ? "not_implemented" : "bad_request", NULL, c->req.error);
			continue;
		}
		if ((rc = take_body(c)) == HTTP_MORE)
			return;
		if (rc == HTTP_DONE) {
			c->route->run(a, c);
			continue;
		}
		c->close = true;
		if (rc == 413)
			refuse(a, c, E_TOO_LARGE, "the body is larger than 2 MiB");
		else
			refuse(a, c, E_BAD_REQUEST, "malformed chunk in the body");
	}
}

static void read_more(struct api *a, struct conn *c)
{
	bool direct = c->st == CONN_BODY && c->big >= 0 && !c->req.chunked;
	bool idle = c->st == CONN_HEAD && c->in_n == 0;
	char *to = direct ? c->body.p + c->body.n : c->in + c->in_n;
	size_t room = direct ? c->req.length - c->body.n : API_IN - c->in_n;

	if (c->st == CONN_LINGER)
		to = c->in, room = API_IN;
	ssize_t n = read(c->fd, to, room);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		conn_close(a, c);
		return;
	}
	if (c->st == CONN_LINGER)
		return;
	if (direct)
		c->body.n += (size_t)n;
	else
		c->in_n += (size_t)n;
	if (idle)
		loop_timer(a->loop, &c->timer, HEAD_MS);
	process(a, c);
}

void api_event(struct api *a, uint32_t id, short revents)
{
	struct conn *c = find(a, id);
	if (!c)
		return;
	if (c->st == CONN_WAIT) {
		if (revents & (POLLRDHUP | POLLHUP | POLLERR))
			conn_close(a, c);
	} else if (c->st == CONN_SEND) {
		send_out(a, c);
		process(a, c);
	} else {
		read_more(a, c);
	}
}

void api_timer(struct api *a, struct timer *t)
{
	struct conn *c = find(a, t->id);
	if (!c)
		return;
	bool asked = (c->st == CONN_HEAD && c->in_n) || c->st == CONN_BODY;
	if (!asked) {
		conn_close(a, c);
		return;
	}
	c->close = true;
	refuse(a, c, E_TIMEOUT, "the request took too long to arrive");
}

void api_drain(struct api *a)
{
	a->draining = true;
	for (size_t i = 0; i < a->conns; i++)
		if (a->conn[i].st == CONN_HEAD && a->conn[i].in_n == 0)
			conn_close(a, &a->conn[i]);
}

/* ---- handlers ---- */

static void get_healthz(struct api *a, struct conn *c)
{
	buf_str(&c->text, "ok\n");
	reply_text(a, c, 200, "text/plain", NULL);
}

static const char *isolation(const struct api *a)
{
	return (a->hello->layers & MSG_LAYERS_KERNEL) == MSG_LAYERS_KERNEL ? "kernel" : "basic";
}

static void put_layers(struct json_writer *w, const struct api *a)
{
	json_key(w, "layers");
	json_open(w, true);
	json_put_truth(w, "policy", true);
	for (unsigned l = 0; l < LAYERS; l++)
		json_put_truth(w, msg_layer_name(l), a->hello->layers >> l & 1);
	json_close(w);
	json_key(w, "missing");
	json_open(w, true);
	for (unsigned l = 0; l < LAYERS; l++)
		if (!(a->hello->layers >> l & 1) && a->hello->why[l][0])
			json_put_string(w, msg_layer_name(l), str_of(a->hello->why[l]));
	json_close(w);
}

/* How well the default profile's lists are kept by the jail, not by the parser alone. */
static void put_enforcement(struct json_writer *w, const struct api *a)
{
	const char *why = a->jobs->profile == CONF_PERMISSIVE ? "permissive forbids nothing" :
	                  !a->jobs->view[a->jobs->profile].known ? "the first jail with these lists is still being made" :
	                  a->jobs->view[a->jobs->profile].why;

	json_put_string(w, "whitelist_enforcement", str_of(*why ? "partial" : "kernel"));
	json_put_string(w, "whitelist_enforcement_why", *why ? str_of(why) : (struct str){NULL, 0});
}

/* The wall time that a profile's commands have at most. */
static uint32_t timeout_of(const struct api *a, const struct conf_profile *p)
{
	return a->conf->timeout_ms && a->conf->timeout_ms < p->timeout_ms ? (uint32_t)a->conf->timeout_ms : p->timeout_ms;
}

static void put_limits(struct json_writer *w, const struct api *a, const struct conf_profile *p)
{
	json_key(w, "limits");
	json_open(w, true);
	json_put_number(w, "timeout_ms", timeout_of(a, p));
	json_put_number(w, "max_mem_mb", p->memory_mb);
	json_put_number(w, "max_cpu_sec", p->cpu_sec);
	json_put_number(w, "max_processes", p->processes);
	json_put_number(w, "max_file_mb", p->file_mb);
	json_put_number(w, "max_open_files", p->open_files);
	json_put_number(w, "output_limit", (int64_t)a->conf->output_limit);
	json_put_number(w, "max_running", (int64_t)a->conf->max_running);
	json_close(w);
}

/* Numbers that nothing counts or limits yet are told as what they are: 0, and 0 is "no limit". */
static void get_health(struct api *a, struct conn *c)
{
	const struct conf_profile *p = conf_profile(a->jobs->profile);
	struct json_writer w = {.b = &c->text};

	json_open(&w, true);
	json_put_truth(&w, "ok", true);
	json_put_string(&w, "version", str_of(CONF_VERSION));
	json_put_number(&w, "uptime_sec", (int64_t)(a->loop->now - a->started_ms) / 1000);
	json_put_number(&w, "total_execs", (int64_t)a->execs);
	json_put_number(&w, "blocked_cmds", (int64_t)a->blocked);
	json_put_string(&w, "profile", str_of(p->name));
	json_put_number(&w, "profile_id", a->jobs->profile);
	json_put_string(&w, "isolation", str_of(isolation(a)));
	put_layers(&w, a);
	put_enforcement(&w, a);
	json_put_number(&w, "agents_count", 0);
	json_put_number(&w, "max_rate_per_agent", 0);
	json_put_number(&w, "max_rps", 0);
	json_put_number(&w, "default_token_budget", 0);
	json_put_truth(&w, "default_credentials", conf_default_credentials(a->conf));
	put_limits(&w, a, p);
	json_put_number(&w, "running", (int64_t)a->jobs->running);
	json_put_number(&w, "warm_cells", (int64_t)job_ready_cells(a->jobs));
	json_put_number(&w, "bytes_captured", (int64_t)a->bytes_captured);
	json_key(&w, "binary_size");
	char size[24];
	struct buf b = {size, 0, sizeof size, false};
	buf_str(&b, "~");
	buf_uint(&b, (a->binary_bytes + 512) / 1024);
	buf_str(&b, "KB");
	(void)json_string(&w, (struct str){b.p, b.n}); /* ASCII */
	json_put_number(&w, "binary_bytes", (int64_t)a->binary_bytes);
	json_put_number(&w, "dependencies", 0);
	reply_json(a, c, &w, 200, NULL);
}

/* ---- bodies ---- */

/* A field that is known: JSON_END as its kind takes any. */
struct field { const char *name; enum json_kind kind; const char *needs; };

/* Reads the body's known fields, each at most once and of its kind. NULL, or the sentence and *e. */
static const char *read_fields(struct str body, const struct field *known, size_t n, struct json_token *out, enum error *e)
{
	struct json_reader r = {.in = body};
	size_t at;

	*e = E_BAD_JSON;
	if (json_check(body, &at))
		return "the body is not valid JSON (RFC 8259)";
	*e = E_BAD_REQUEST;
	if (json_next(&r).kind != JSON_OBJECT)
		return "the body must be a JSON object";
	for (struct json_token t; (t = json_next(&r)).kind != JSON_CLOSE;) {
		(void)json_skip(&r, &t); /* checked above */
		for (size_t f = 0; f < n; f++) {
			if (!json_is(t.key, known[f].name))
				continue;
			if (out[f].kind != JSON_END)
				return "a field is given twice";
			if (t.kind != known[f].kind && known[f].kind != JSON_END)
				return known[f].needs;
			out[f] = t;
		}
	}
	return NULL;
}

/* The same for a connection, which is answered when it is false. */
static bool take_fields(struct api *a, struct conn *c, const struct field *known, size_t n, struct json_token *out)
{
	enum error e;
	const char *why = read_fields((struct str){c->body.p, c->body.n}, known, n, out, &e);
	if (why)
		refuse(a, c, e, why);
	return !why;
}

/* A profile's number or name; CONF_PROFILES for what is none. */
static uint32_t profile_of(const struct json_token *t)
{
	return t->kind == JSON_NUMBER ? conf_profile_id(t->text) : t->kind == JSON_STRING ? conf_profile_id(json_unescape(t->text)) : CONF_PROFILES;
}

/* ---- policy ---- */

static void put_list(struct json_writer *w, const struct api *a, enum policy_list list, const char *name)
{
	json_key(w, name);
	json_open(w, false);
	for (size_t i = 0; i < a->policy->rules; i++)
		if (a->policy->rule[i].list == list)
			(void)json_string(w, a->policy->rule[i].text); /* what is no UTF-8 shows as U+FFFD */
	json_close(w);
}

/* Room for a large reply, which the connection keeps until it is sent; the request's body may be gone
 * then. False: there is none, and that is answered. */
static bool big_reply(struct api *a, struct conn *c, struct buf *b)
{
	if (c->big < 0 && !big_take(a, c)) {
		refuse(a, c, E_NO_PLACE, "too many large requests at once");
		return false;
	}
	*b = (struct buf){a->big + (size_t)c->big * HTTP_BODY_MAX, 0, HTTP_BODY_MAX, false};
	return true;
}

/* Closes a reply that was written into big_reply's room, and sends it. */
static void reply_big(struct api *a, struct conn *c, struct json_writer *w)
{
	json_close(w);
	buf_put(w->b, "\n", 1);
	if (w->b->full)
		refuse(a, c, E_INTERNAL, "the reply does not fit");
	else {
		add_piece(c, PIECE_PLAIN, (struct str){w->b->p, w->b->n});
		reply(a, c, 200, "application/json", NULL);
	}
}

/* The lists; unsaved: NULL where nothing was to be saved, "" where it was, else why not. */
static void reply_policy(struct api *a, struct conn *c, const char *unsaved)
{
	struct buf b;
	struct json_writer w = {.b = &b};

	if (!big_reply(a, c, &b))
		return;
	json_open(&w, true);
	json_put_truth(&w, "ok", true);
	put_list(&w, a, POLICY_BLACK, "blacklist");
	put_list(&w, a, POLICY_WHITE, "whitelist");
	json_put_number(&w, "profile", a->jobs->profile);
	put_enforcement(&w, a);
	if (unsaved) {
		json_put_truth(&w, "persisted", !*unsaved);
		if (*unsaved)
			json_put_string(&w, "persisted_why", str_of(unsaved));
	}
	reply_big(a, c, &w);
}

/* Waits for the warden's answer. */
static void wait_for_wall(struct api *a, struct conn *c)
{
	c->st = CONN_WAIT;
	loop_timer_off(a->loop, &c->timer); /* the warden answers, or is lost and all ends */
	loop_mod(a->loop, c->slot, POLLRDHUP);
}

static void any_policy(struct api *a, struct conn *c)
{
	static const struct field known[] = {
		{"action", JSON_STRING, "'action' must be 'add' or 'remove'"},
		{"list", JSON_STRING, "'list' must be 'blacklist' or 'whitelist'"},
		{"pattern", JSON_STRING, "'pattern' must be a string"},
	};
	struct json_token f[countof(known)] = {{.kind = JSON_END}};

	if (c->req.method != HTTP_POST) {
		reply_policy(a, c, NULL);
		return;
	}
	if (!take_fields(a, c, known, countof(known), f))
		return;
	for (size_t i = 0; i < countof(known); i++)
		if (f[i].kind == JSON_END) {
			refuse(a, c, E_BAD_REQUEST, known[i].needs);
			return;
		}
	bool add = json_is(f[0].text, "add"), black = json_is(f[1].text, "blacklist");
	const char *wrong = !add && !json_is(f[0].text, "remove") ? known[0].needs : !black && !json_is(f[1].text, "whitelist") ? known[1].needs :
	                    policy_edit(a->policy, add, black ? POLICY_BLACK : POLICY_WHITE, json_unescape(f[2].text));
	if (wrong) {
		refuse(a, c, E_BAD_REQUEST, wrong);
		return;
	}
	tell_lists(a);
	if (job_ask(a->jobs, MSG_SAVE, c->id, (struct str){a->policy->file, a->policy->file_n}))
		wait_for_wall(a, c);
	else
		reply_policy(a, c, "the warden can't be asked now");
}

static void put_verdict(struct json_writer *w, const struct verdict *v)
{
	json_put_string(w, "rule", v->rule);
	json_put_string(w, "program", (struct str){v->program.p, v->program.n < 256 ? v->program.n : 256});
	json_put_string(w, "reason", v->why ? str_of(v->why) : (struct str){NULL, 0});
}

static void post_test(struct api *a, struct conn *c)
{
	static const struct field known[] = {
		{"cmd", JSON_STRING, "'cmd' must be a string"},
		{"profile", JSON_END, NULL},
	};
	static struct verdict v;
	struct json_token f[countof(known)] = {{.kind = JSON_END}};
	struct policy_ask ask = {.profile = c->who && c->who->profile >= 0 ? (uint32_t)c->who->profile : a->jobs->profile};
	static char text[CMD_MAX];
	struct buf b;
	struct json_writer w = {.b = &b};

	if (!take_fields(a, c, known, countof(known), f))
		return;
	if (f[1].kind != JSON_END)
		ask.profile = profile_of(&f[1]);
	if (f[0].kind == JSON_END || ask.profile == CONF_PROFILES) {
		refuse(a, c, E_BAD_REQUEST, f[0].kind == JSON_END ? known[0].needs : "'profile' must be 0, 1, 2, strict, moderate or permissive");
		return;
	}
	ask.text = json_unescape(f[0].text);
	if (ask.text.n == 0 || ask.text.n > CMD_MAX || memchr(ask.text.p, '\0', ask.text.n)) {
		refuse(a, c, E_BAD_REQUEST, "'cmd' must have 1 byte to 64 KiB, and no NUL");
		return;
	}
	memcpy(text, ask.text.p, ask.text.n); /* the reply is written over the body */
	ask.text.p = text;
	policy_judge(a->policy, &ask, &v);
	if (!big_reply(a, c, &b))
		return;
	json_open(&w, true);
	json_put_truth(&w, "ok", true);
	json_put_truth(&w, "allowed", v.code == POLICY_OK);
	json_put_string(&w, "code", str_of(policy_code_name(v.code)));
	json_put_string(&w, "would_block", str_of(policy_code_name(v.would)));
	put_verdict(&w, &v);
	json_key(&w, "commands");
	json_open(&w, false);
	for (size_t i = 0; i < v.names; i++)
		(void)json_string(&w, v.name[i]);
	json_close(&w);
	json_put_truth(&w, "commands_truncated", v.more_names);
	json_put_truth(&w, "undecidable", v.undecided);
	json_put_number(&w, "profile", ask.profile);
	reply_big(a, c, &w);
}

static void post_profile(struct api *a, struct conn *c)
{
	static const struct field known[] = {{"profile", JSON_END, "'profile' must be 0, 1, 2, strict, moderate or permissive"}};
	struct json_token f[1] = {{.kind = JSON_END}};
	struct json_writer w = {.b = &c->text};

	if (!take_fields(a, c, known, 1, f))
		return;
	uint32_t id = profile_of(&f[0]);
	if (id == CONF_PROFILES) {
		refuse(a, c, E_BAD_REQUEST, known[0].needs);
		return;
	}
	const struct conf_profile *p = conf_profile(id);
	a->conf->profile = id;
	job_set_profile(a->jobs, id);
	json_open(&w, true);
	json_put_truth(&w, "ok", true);
	json_put_number(&w, "profile", id);
	json_put_number(&w, "timeout_ms", timeout_of(a, p));
	json_put_number(&w, "max_mem_mb", p->memory_mb);
	json_put_number(&w, "max_cpu_sec", p->cpu_sec);
	reply_json(a, c, &w, 200, NULL);
}

enum { NOBODY_WAITS = UINT32_MAX };

void api_reload(struct api *a)
{
	if (!job_ask(a->jobs, MSG_FETCH, NOBODY_WAITS, (struct str){NULL, 0}))
		warn("the policy file can't be read now: the warden does not listen");
}

static void post_reload(struct api *a, struct conn *c)
{
	if (job_ask(a->jobs, MSG_FETCH, c->id, (struct str){NULL, 0}))
		wait_for_wall(a, c);
	else
		refuse(a, c, E_NO_PLACE, "the warden can't be asked now");
}

/* Both parts of the file are checked before either is taken. */
static bool take_policy(struct api *a, int fd, const char *missing, bool *restart, char *why, size_t cap)
{
	static char text[CONF_FILE_MAX];
	static struct conf next;
	struct buf b = {text, 0, sizeof text, false};
	bool ok = false;

	next = *a->conf;
	*restart = false;
	if (*missing)
		(void)text_printf(why, cap, "%s: %s", a->conf->config, missing);
	else if (fd >= 0 && !conf_read_fd(fd, &b))
		(void)text_printf(why, cap, "%s: %s", a->conf->config, errno == EFBIG ? "it is larger than 64 KiB" : strerror(errno));
	else
		ok = conf_apply(&next, (struct str){text, b.n}, true, restart, why, cap) &&
		     policy_load(a->policy, (struct str){text, b.n}, a->conf->config, why, cap);
	if (ok) {
		*a->conf = next;
		job_set_profile(a->jobs, (uint32_t)next.profile);
		tell_lists(a);
	}
	memset(text, 0, b.n); /* it may have tokens */
	memset(&next, 0, sizeof next);
	return ok;
}

static void reply_reload(struct api *a, struct conn *c, bool restart)
{
	struct json_writer w = {.b = &c->text};
	json_open(&w, true);
	json_put_truth(&w, "ok", true);
	json_put_number(&w, "blacklist_count", (int64_t)a->policy->count[POLICY_BLACK]);
	json_put_number(&w, "whitelist_count", (int64_t)a->policy->count[POLICY_WHITE]);
	json_put_number(&w, "profile", a->jobs->profile);
	json_put_truth(&w, "restart_needed", restart); /* for a key that can't change in a running server */
	reply_json(a, c, &w, 200, NULL);
}

void api_wall_answer(struct api *a)
{
	struct conn *c = find(a, a->jobs->answer.id);
	bool fetched = a->jobs->answer.type == MSG_FETCHED, restart = false, ok = true;
	char why[256] = "";

	if (fetched)
		ok = take_policy(a, a->jobs->answer.fd, a->jobs->answer.why, &restart, why, sizeof why);
	if (a->jobs->answer.fd >= 0)
		(void)close(a->jobs->answer.fd); /* read only */
	a->jobs->answer.fd = -1;
	a->jobs->answer.type = 0;
	if (fetched && (!c || !ok))
		warn("%s", ok ? "the policy file was read anew" : why);
	if (!c || c->st != CONN_WAIT || c->has_job)
		return;
	if (!fetched)
		reply_policy(a, c, a->jobs->answer.why);
	else if (ok)
		reply_reload(a, c, restart);
	else
		refuse(a, c, E_BAD_REQUEST, why);
	process(a, c); /* what was pipelined behind it */
}

/* ---- exec ---- */

enum exec_field { F_CMD, F_ARGV, F_STDIN, F_ENV, F_CWD, F_TIMEOUT, F_ENCODING, F_ALLOW, F_PUT_FILES, F_GET_FILES, FIELDS };
static const struct field fields[FIELDS] = {
	[F_CMD] = {"cmd", JSON_STRING, "'cmd' must be a string"},
	[F_ARGV] = {"argv", JSON_ARRAY, "'argv' must be an array of strings"},
	[F_STDIN] = {"stdin", JSON_STRING, "'stdin' must be a string"},
	[F_ENV] = {"env", JSON_OBJECT, "'env' must be an object of strings"},
	[F_CWD] = {"cwd", JSON_STRING, "'cwd' must be a string"},
	[F_TIMEOUT] = {"timeout_ms", JSON_NUMBER, "'timeout_ms' must be a whole number of milliseconds, at least 1"},
	[F_ENCODING] = {"encoding", JSON_STRING, "'encoding' must be 'utf8' or 'base64'"},
	[F_ALLOW] = {"allow", JSON_ARRAY, "'allow' must be an array of programs' names, without folders"},
	/* known, asked for, and not to be passed over in silence: what they promise is not kept yet */
	[F_PUT_FILES] = {"put_files", JSON_END, NULL}, [F_GET_FILES] = {"get_files", JSON_END, NULL},
};

struct request { struct json_token field[FIELDS]; bool base64; };

static bool has_nul(struct str s)
{
	return s.n && memchr(s.p, '\0', s.n);
}

static const char *put_word(struct job *j, struct str s)
{
	if (has_nul(s))
		return "a NUL character can't be passed to a program";
	buf_put(&j->text, s.p, s.n);
	buf_put(&j->text, "", 1);
	return NULL;
}

static const char *put_argv(struct job *j, const struct request *rq)
{
	const struct json_token *cmd = &rq->field[F_CMD], *argv = &rq->field[F_ARGV];
	struct json_reader r = {.in = argv->text};
	const char *why = NULL;

	if ((cmd->kind == JSON_END) == (argv->kind == JSON_END))
		return "exactly one of 'cmd' and 'argv' is needed";
	if (cmd->kind != JSON_END) {
		struct str s = json_unescape(cmd->text);
		if (s.n == 0 || s.n > CMD_MAX)
			return s.n ? "'cmd' is longer than 64 KiB" : "'cmd' is empty";
		j->head.argc = 3;
		(void)put_word(j, str_of("/bin/sh")); /* no NUL in these */
		(void)put_word(j, str_of("-c"));
		return put_word(j, s);
	}
	(void)json_next(&r);
	for (struct json_token t; !why && (t = json_next(&r)).kind != JSON_CLOSE; j->head.argc++) {
		if (t.kind != JSON_STRING || j->head.argc == MSG_WORDS_MAX)
			return fields[F_ARGV].needs;
		struct str s = json_unescape(t.text);
		if (j->head.argc == 0 && s.n == 0)
			return "the program's name in 'argv' is empty";
		why = put_word(j, s);
	}
	return why ? why : j->head.argc ? NULL : "'argv' is empty";
}

static const char *put_env(struct job *j, const struct request *rq)
{
	struct json_reader r = {.in = rq->field[F_ENV].text};

	if (rq->field[F_ENV].kind == JSON_END)
		return NULL;
	(void)json_next(&r);
	for (struct json_token t; (t = json_next(&r)).kind != JSON_CLOSE; j->head.envc++) {
		struct str name = json_unescape(t.key), value = json_unescape(t.text);
		if (t.kind != JSON_STRING || j->head.argc + j->head.envc >= MSG_WORDS_MAX)
			return fields[F_ENV].needs;
		if (name.n == 0 || memchr(name.p, '=', name.n))
			return "a name in 'env' is empty or has a '='";
		if (has_nul(name) || has_nul(value))
			return "a NUL character can't be passed to a program";
		buf_put(&j->text, name.p, name.n);
		buf_put(&j->text, "=", 1);
		(void)put_word(j, value); /* checked */
	}
	return NULL;
}

/* The only programs that may run. */
static const char *put_allow(struct job *j, const struct request *rq)
{
	struct json_reader r = {.in = rq->field[F_ALLOW].text};

	j->head.restricted = rq->field[F_ALLOW].kind != JSON_END;
	if (!j->head.restricted)
		return NULL;
	(void)json_next(&r);
	for (struct json_token t; (t = json_next(&r)).kind != JSON_CLOSE; j->head.allowc++) {
		struct str name = json_unescape(t.text);
		if (t.kind != JSON_STRING || j->head.allowc == POLICY_NAMES || name.n == 0 || name.n > MSG_NAME_MAX ||
		    memchr(name.p, '/', name.n) || str_eq(name, ".") || str_eq(name, ".."))
			return fields[F_ALLOW].needs;
		if (put_word(j, name))
			return fields[F_ALLOW].needs;
	}
	return NULL;
}

/* Fills the job from the request: NULL, or what is wrong with it. */
static const char *fill_job(struct api *a, struct job *j, struct request *rq)
{
	const struct conf_profile *p = conf_profile(j->profile);
	uint32_t most = timeout_of(a, p);
	struct json_token *f = rq->field;
	struct str cwd = f[F_CWD].kind == JSON_END ? str_of("") : json_unescape(f[F_CWD].text);
	const char *why;
	int64_t ms = most;

	if (cwd.n > CWD_MAX)
		return "'cwd' is too long";
	if (f[F_CWD].kind != JSON_END && cwd.n == 0)
		return "'cwd' is empty";
	if (f[F_TIMEOUT].kind != JSON_END && (!json_int(f[F_TIMEOUT].text, &ms) || ms < 1))
		return fields[F_TIMEOUT].needs;
	j->timeout_ms = ms < most ? (uint32_t)ms : most;
	if (f[F_ENCODING].kind != JSON_END) {
		rq->base64 = json_is(f[F_ENCODING].text, "base64");
		if (!rq->base64 && !json_is(f[F_ENCODING].text, "utf8"))
			return fields[F_ENCODING].needs;
	}
	if ((why = put_word(j, cwd)) || (why = put_argv(j, rq)) || (why = put_env(j, rq)) || (why = put_allow(j, rq)))
		return why;
	if (f[F_STDIN].kind != JSON_END)
		j->stdin_data = json_unescape(f[F_STDIN].text);
	return NULL;
}

/* The next n of the strings in a job's text, as slices. */
static struct str *slices(const char **text, uint32_t n, struct str *out)
{
	for (uint32_t i = 0; i < n; i++, *text += out[i - 1].n + 1)
		out[i] = str_of(*text);
	return out;
}

/* Judges what the job is going to run. */
static void judge_job(struct api *a, const struct job *j, bool shell, struct verdict *v)
{
	static struct str argv[MSG_WORDS_MAX], env[MSG_WORDS_MAX], allow[POLICY_NAMES];
	const char *text = j->text.p + strlen(j->text.p) + 1; /* behind the folder */
	struct policy_ask ask = {.profile = j->profile, .restricted = j->head.restricted, .allows = j->head.allowc};

	(void)slices(&text, j->head.argc, argv);
	(void)slices(&text, j->head.envc, env);
	ask.allow = slices(&text, j->head.allowc, allow);
	if (shell)
		ask.text = argv[2];
	else
		ask.argv = argv, ask.argc = j->head.argc;
	policy_judge(a->policy, &ask, v);
	for (size_t i = 0; i < j->head.envc && v->code == POLICY_OK && (j->profile == CONF_STRICT || j->head.restricted); i++) {
		struct str rest = env[i], name;
		if (str_cut(&rest, '=', &name) && policy_is_run_by_shells(name)) {
			v->code = POLICY_NOT_WHITELISTED;
			v->why = "a shell runs what this variable of 'env' holds";
		}
	}
}

static void refuse_blocked(struct api *a, struct conn *c, const struct verdict *v)
{
	static const char *const texts[] = {
		[POLICY_OK] = "", [POLICY_BLACKLISTED] = "command blocked by blacklist", [POLICY_NOT_WHITELISTED] = "command blocked by whitelist",
		[POLICY_SYNTAX] = "command blocked: its syntax can't be read with certainty",
	};
	struct json_writer w = {.b = &c->text};

	a->blocked++;
	json_open(&w, true);
	json_put_truth(&w, "ok", false);
	json_put_string(&w, "error", str_of(texts[v->code]));
	json_put_string(&w, "code", str_of(policy_code_name(v->code)));
	put_verdict(&w, v);
	if (v->code == POLICY_NOT_WHITELISTED) {
		size_t n = 0;
		json_key(&w, "allowed");
		json_open(&w, false);
		for (size_t i = 0; i < a->policy->rules && n < 32; i++)
			if (a->policy->rule[i].list == POLICY_WHITE && a->policy->rule[i].text.n < 32)
				(void)json_string(&w, a->policy->rule[i].text), n++;
		json_close(&w);
	}
	reply_json(a, c, &w, 403, NULL);
}

static void post_exec(struct api *a, struct conn *c)
{
	struct request rq = {.base64 = false};
	static struct verdict v;
	const char *why;

	if (!take_fields(a, c, fields, FIELDS, rq.field))
		return;
	if (rq.field[F_PUT_FILES].kind != JSON_END || rq.field[F_GET_FILES].kind != JSON_END) {
		refuse(a, c, E_NOT_IMPLEMENTED, "'put_files' and 'get_files' are not implemented yet");
		return;
	}
	if (a->draining) {
		refuse(a, c, E_DRAINING, "the server is shutting down");
		return;
	}
	struct job *j = job_new(a->jobs, c->id);
	if (!j) {
		refuse(a, c, E_BUSY, "too many commands are running and waiting");
		return;
	}
	if (c->who && c->who->profile >= 0)
		j->profile = (uint32_t)c->who->profile;
	why = fill_job(a, j, &rq);
	if (why || j->text.full) {
		bool full = j->text.full && !why;
		job_drop(a->jobs, j);
		refuse(a, c, full ? E_TOO_LARGE : E_BAD_REQUEST, full ? "'argv', 'env' and 'allow' together are larger than 128 KiB" : why);
		return;
	}
	judge_job(a, j, rq.field[F_CMD].kind != JSON_END, &v);
	if (v.code != POLICY_OK) {
		refuse_blocked(a, c, &v); /* what it names is in the job's text */
		job_drop(a->jobs, j);
		return;
	}
	if (a->conf->require_isolation == CONF_KERNEL && strcmp(isolation(a), "kernel") != 0) {
		job_drop(a->jobs, j);
		refuse(a, c, E_ISOLATION, "this host gives no kernel isolation, and require_isolation asks for it");
		return;
	}
	j->base64 = rq.base64;
	c->job = j->id;
	c->has_job = true;
	c->st = CONN_WAIT;
	loop_timer_off(a->loop, &c->timer); /* the job has its own */
	loop_mod(a->loop, c->slot, POLLRDHUP);
	job_start(a->jobs, j);
}

static const char *signal_name(int sig, char out[8])
{
	/* the numbers that x86_64 and aarch64 share, signal(7) */
	static const char names[][8] = {
		"", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
		"TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
		"WINCH", "IO", "PWR", "SYS",
	};
	struct buf b = {out, 0, 8, false};
	buf_str(&b, "SIG");
	if (sig > 0 && (size_t)sig < countof(names) && strlen(names[sig]) < 5)
		buf_str(&b, names[sig]);
	else
		buf_uint(&b, (uint64_t)sig);
	out[b.n] = '\0';
	return out;
}

static void put_files(struct json_writer *w, const struct job *j)
{
	static struct str names[MSG_FILES_MAX];
	size_t n = 0, at = 0;

	for (; j->has_result && n < j->res.files; at += names[n++].n + 1)
		names[n] = str_of(j->files.p + at);
	/* in order, so that the same files give the same reply: few and short, so insertion does */
	for (size_t i = 1; i < n; i++) {
		struct str s = names[i];
		size_t k = i;
		for (; k && strcmp(names[k - 1].p, s.p) > 0; k--)
			names[k] = names[k - 1];
		names[k] = s;
	}
	json_key(w, "files");
	json_open(w, false);
	for (size_t i = 0; i < n; i++)
		(void)json_string(w, names[i]); /* a name that is not UTF-8 shows as U+FFFD */
	json_close(w);
}

static void put_usage(struct json_writer *w, const struct job *j)
{
	json_key(w, "usage");
	if (!j->has_result) {
		json_null(w); /* nobody was left to tell */
		return;
	}
	json_open(w, true);
	json_put_number(w, "cpu_ms", (int64_t)(j->res.cpu_us / 1000));
	json_put_number(w, "max_rss_kb", (int64_t)j->res.max_rss_kb);
	json_put_number(w, "read_bytes", (int64_t)j->res.read_bytes);
	json_put_number(w, "write_bytes", (int64_t)j->res.write_bytes);
	json_close(w);
}

/* Everything behind the two streams, which are pieces of their own. */
static void put_rest(struct json_writer *w, const struct job *j, bool out_lossy, bool err_lossy)
{
	bool timed_out = j->outcome == JOB_TIMED_OUT;
	bool killed = !timed_out && WIFSIGNALED(j->res.status);
	char name[8];

	json_put_number(w, "exit_code", timed_out ? 124 : killed ? 128 + WTERMSIG(j->res.status) : WEXITSTATUS(j->res.status));
	json_put_number(w, "duration_ms", (int64_t)(j->end_us - j->start_us + 500) / 1000);
	put_files(w, j);
	json_put_truth(w, "files_truncated", j->has_result && j->res.files_truncated);
	json_put_truth(w, "timed_out", timed_out);
	json_put_string(w, "signal", killed ? str_of(signal_name(WTERMSIG(j->res.status), name)) : (struct str){NULL, 0});
	json_put_number(w, "stdout_bytes", (int64_t)j->out_bytes);
	json_put_number(w, "stderr_bytes", (int64_t)j->err_bytes);
	json_put_truth(w, "stdout_truncated", j->out_bytes > j->out.n);
	json_put_truth(w, "stderr_truncated", j->err_bytes > j->err.n);
	json_put_truth(w, "stdout_lossy", out_lossy);
	json_put_truth(w, "stderr_lossy", err_lossy);
	json_put_truth(w, "oom", j->has_result && j->res.oom);
	put_usage(w, j);
}

static void reply_result(struct api *a, struct conn *c, struct job *j)
{
	struct json_writer w = {.b = &c->text};
	struct piece out = {j->base64 ? PIECE_BASE64 : PIECE_JSON, {j->out.p, j->out.n}};
	struct piece err = {out.kind, {j->err.p, j->err.n}};
	bool out_lossy = false, err_lossy = false;
	char why[64];
	struct buf b = {why, 0, sizeof why, false};

	a->execs++;
	a->bytes_captured += j->out.n + j->err.n;
	(void)piece_len(&out, &out_lossy);
	(void)piece_len(&err, &err_lossy);
	json_open(&w, true);
	json_put_truth(&w, "ok", j->outcome == JOB_RAN);
	if (j->outcome == JOB_TIMED_OUT) {
		buf_str(&b, "timeout after ");
		buf_uint(&b, j->timeout_ms);
		buf_str(&b, " ms");
		json_put_string(&w, "error", (struct str){b.p, b.n});
	}
	json_key(&w, "stdout");
	json_elsewhere(&w);
	add_piece(c, PIECE_PLAIN, (struct str){c->text.p, c->text.n});
	c->piece[c->pieces++] = out;
	w.b = &j->tail;
	json_key(&w, "stderr");
	json_elsewhere(&w);
	size_t mid = j->tail.n;
	add_piece(c, PIECE_PLAIN, (struct str){j->tail.p, mid});
	c->piece[c->pieces++] = err;
	put_rest(&w, j, out_lossy, err_lossy);
	json_close(&w);
	buf_put(&j->tail, "\n", 1);
	if (j->tail.full) {
		c->pieces = 0;
		refuse(a, c, E_INTERNAL, "the reply does not fit");
		return;
	}
	add_piece(c, PIECE_PLAIN, (struct str){j->tail.p + mid, j->tail.n - mid});
	reply(a, c, 200, "application/json", NULL);
}

void api_job_done(struct api *a, struct job *j)
{
	struct conn *c = find(a, j->conn);
	char why[160];
	struct buf b = {why, 0, sizeof why - 1, false};

	if (!c || c->st != CONN_WAIT) {
		job_drop(a->jobs, j);
		return;
	}
	switch (j->outcome) {
	case JOB_RAN:
	case JOB_TIMED_OUT:
		reply_result(a, c, j);
		break;
	case JOB_BUSY:
		refuse(a, c, E_BUSY, "too many commands are running; none ended within 2 s");
		break;
	case JOB_TOO_LARGE:
		refuse(a, c, E_TOO_LARGE, "the command is larger than this host's socket buffers (net.core.wmem_max)");
		break;
	case JOB_DRAINED:
		refuse(a, c, E_DRAINING, "the server is shutting down");
		break;
	case JOB_CELL_DIED:
		refuse(a, c, E_INTERNAL, "the jail died before it could tell how the command ended");
		break;
	case JOB_NO_CELL:
		buf_str(&b, "no jail could be made: ");
		buf_str(&b, a->jobs->lost ? "the warden is gone" : a->jobs->why);
		why[b.n] = '\0';
		refuse(a, c, E_ISOLATION, why);
		break;
	}
	process(a, c); /* what was pipelined behind it */
}
