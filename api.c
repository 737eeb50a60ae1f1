/* L6 net: what can be asked. What a request says is compared, counted and escaped, and never becomes a format,
 * a path, a header or markup. */
#include "api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exec.h"
#include "json.h"
#include "page.h"
#include "sys.h"
#include "util.h"

enum {
	BODY_MS = 60000,     /* from the end of a request's head to the end of its body */
	TICK_MS = 1000,      /* between saves */
	SLICE = 2000,        /* iterations of PBKDF2 a turn: about a millisecond */
	ITERATIONS = SYS_SANITIZED ? 6000 : 600000, /* for new passwords; what OWASP's password storage page asks for */
	NOBODY_WAITS = UINT32_MAX, EXPORTS = 8,
	CALL_OUTPUT = 128 << 10, /* bytes of each stream that a call over MCP gets: it is sent twice, and read by a model */
};

typedef void handler(struct api *a, struct conn *c);
/* What a request that changed a file says when the warden has answered: "" is saved, else why not. */
typedef void saved_handler(struct api *a, struct conn *c, const char *unsaved);
static handler get_page, get_icon, get_healthz, get_health, post_exec, any_policy, post_test, post_reload, post_profile, get_agents, get_audit, get_export,
               get_events, any_settings, post_budget, post_password, delete_sandbox, get_metrics, any_mcp;
static saved_handler reply_policy, reply_settings, reply_default_budget, reply_password;

/* ADMIN: its changes are not for an agent's own token, which must not widen what holds for it; OWNER: nor what it
 * shows of others. */
enum { PUBLIC = 1, ADMIN = 2, OWNER = 4 };
struct route { char path[20]; uint8_t methods, flags; handler *run; saved_handler *saved; };
static const struct route routes[] = {
	{"/", HTTP_GET, PUBLIC, get_page, NULL},
	{"/favicon.ico", HTTP_GET, PUBLIC, get_icon, NULL},
	{"/healthz", HTTP_GET, PUBLIC, get_healthz, NULL},
	{"/api/health", HTTP_GET, 0, get_health, NULL},
	{"/api/exec", HTTP_POST, 0, post_exec, NULL},
	{"/api/agents", HTTP_GET, 0, get_agents, NULL},
	{"/api/audit", HTTP_GET, 0, get_audit, NULL},
	{"/api/audit/export", HTTP_GET, OWNER, get_export, NULL},
	{"/api/events", HTTP_GET, 0, get_events, NULL},
	{"/api/policy", HTTP_GET | HTTP_POST, ADMIN, any_policy, reply_policy},
	{"/api/policy/test", HTTP_POST, 0, post_test, NULL},
	{"/api/policy/reload", HTTP_POST, ADMIN, post_reload, NULL},
	{"/api/profile", HTTP_POST, ADMIN, post_profile, NULL},
	{"/api/budget", HTTP_POST, ADMIN, post_budget, reply_default_budget},
	{"/api/settings", HTTP_GET | HTTP_POST, ADMIN, any_settings, reply_settings},
	{"/api/auth/password", HTTP_POST, ADMIN, post_password, reply_password},
	{"/api/sandbox", HTTP_DELETE, ADMIN, delete_sandbox, NULL},
	{"/metrics", HTTP_GET, OWNER, get_metrics, NULL},
	{"/mcp", HTTP_POST | HTTP_DELETE, 0, any_mcp, NULL},
};

static void process(struct api *a, struct conn *c);

static void tell_lists(struct api *a)
{
	static char names[MSG_ASK_MAX];
	struct buf b = {names, 0, sizeof names, false};
	uint32_t forbidden = (uint32_t)policy_programs(a->policy, POLICY_BLACK, &b);
	uint32_t allowed = (uint32_t)policy_programs(a->policy, POLICY_WHITE, &b); /* the file is no larger than this */
	job_set_lists(a->jobs, (struct str){b.p, b.n}, forbidden, allowed);
}

bool api_init(struct api *a, struct conf *conf, struct policy *policy, struct loop *l, struct jobs *q, struct agents *g, struct audit *u,
              const struct msg_hello *hello)
{
	a->conf = conf;
	a->policy = policy;
	a->loop = l;
	a->jobs = q;
	a->agents = g;
	a->audit = u;
	a->hello = hello;
	a->started_ms = now_ms();
	a->started_unix_ms = now_unix_ms();
	a->tick = (struct timer){.kind = API_TICK, .place = -1};
	a->stretch = (struct timer){.kind = API_STRETCH, .place = -1};
	if (!conn_init(&a->conns, conf, l, q) || getrandom(a->boot, sizeof a->boot, 0) != sizeof a->boot)
		return false;
	tell_lists(a);
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

enum credential { NOBODY, PUBLISHED, OWN, UNCHECKED /* a password that must be stretched first */ };

/* The agent whose own token this is, or NULL. */
static const struct conf_agent *token_agent(const struct api *a, struct str token)
{
	const struct conf_agent *found = NULL;
	for (size_t i = 0; i < a->conf->agents; i++) /* all of them, so that the time says nothing */
		if (str_same_ct(token, str_of(a->conf->agent[i].token)) && a->conf->agent[i].token[0])
			found = &a->conf->agent[i];
	return found;
}

/* The quick digest by which a password that was right is known again. */
static void digest(const struct api *a, struct str password, unsigned char out[HASH_BYTES])
{
	hmac_sha256((struct str){(const char *)a->boot, sizeof a->boot}, password, out);
}

static bool is_good(const struct api *a, struct str password)
{
	unsigned char d[HASH_BYTES];
	digest(a, password, d);
	return a->good_known && str_same_ct((struct str){(char *)d, sizeof d}, (struct str){(const char *)a->good, sizeof a->good});
}

/* The user's name and the password, as they came, against the stored one. */
static enum credential check_password(const struct api *a, const struct conn *c, struct str password)
{
	struct str user;
	if (!memchr(password.p, ':', password.n) || !str_cut(&password, ':', &user) || !str_same_ct(user, str_of(a->conf->user)))
		return NOBODY;
	return is_good(a, password) ? OWN : c->wrong_password ? NOBODY : UNCHECKED;
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
	if (a->conf->secret.iterations)
		return n < 0 ? NOBODY : check_password(a, c, (struct str){plain, (size_t)n});
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
	unsigned char foreign[16];

	if (!conf_default_credentials(a->conf) || is_local(c))
		return true;
	/* the answer says whether the credential is right, so these guesses are counted as well; but apart, or any page could
	 * keep its own user out */
	memcpy(foreign, c->peer, sizeof foreign);
	foreign[0] ^= 0xff;
	if (agent_login_wait(a->agents, foreign, false, a->loop->now))
		return false;
	bool own = credential(a, c, &who) == OWN;
	if (!own && c->req.header[HTTP_AUTHORIZATION].p)
		(void)agent_login_wait(a->agents, foreign, true, a->loop->now);
	return own;
}

/* What Access-Control-Allow-Origin answers: nothing to a page that may not call; a local one is
 * echoed while only such may; else cors_origin rules. */
static struct str allowed_origin(const struct api *a, const struct conn *c)
{
	struct str o = c->req.header[HTTP_ORIGIN], none = {NULL, 0};
	if (!o.p || !may_call(a, c))
		return none;
	if ((conf_default_credentials(a->conf) && is_local(c)) || str_eq(o, a->conf->cors_origin))
		return o;
	return strcmp(a->conf->cors_origin, "*") == 0 ? str_of("*") : none;
}

/* ---- what is written down ---- */

void api_note(struct api *a, enum audit_kind kind, const char *text)
{
	audit_note(a->audit, kind, NULL, str_of(text), "OK");
}

/* A change that somebody asked for; value as the seed has it. */
static void note_change(struct api *a, const char *agent, const char *what, struct str detail, int64_t value)
{
	char text[320];
	struct buf b = {text, 0, sizeof text, false};
	buf_printf(&b, "%s%s%.*s", what, detail.n ? " " : "", (int)(detail.n < 256 ? detail.n : 256), detail.p);
	(void)audit_put(a->audit, &(struct audit_event){.kind = AUDIT_CONFIG, .agent = agent, .cmd = {b.p, b.n}, .result = "OK",
	                                               .exit_code = value > INT32_MAX ? INT32_MAX : (int)value});
	a->agents->changed = true;
}

static void refused(struct api *a, const struct conn *c, enum audit_kind kind, struct str cmd, const char *result)
{
	audit_note(a->audit, kind, c->agent, cmd, result);
	a->agents->changed = true;
}

/* Too much, for its agent (who may be NULL) or in all. */
static void refuse_rate(struct api *a, struct conn *c, struct agent *who, struct str cmd, enum error e, uint64_t retry_s, const char *text)
{
	if (who)
		who->rate_limited++;
	a->agents->total.rate_limited++;
	refused(a, c, AUDIT_RATE, cmd, e == E_AGENTS ? "AGENTS" : "RATE_LIMIT");
	conn_refuse_for(&a->conns, c, e, retry_s, text);
}

/* ---- checks, in their order ---- */

static void preflight(struct api *a, struct conn *c)
{
	conn_reply(&a->conns, c, 204, NULL,
	           "Access-Control-Allow-Methods: GET, POST, DELETE, OPTIONS\r\n"
	           "Access-Control-Allow-Headers: Authorization, Content-Type, X-Agent, X-Model, X-Tokens-In, X-Tokens-Out, Last-Event-ID, "
	           "MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id\r\n"
	           "Access-Control-Max-Age: 600\r\n");
}

/* Whose request this is: the agent's whose token it shows, else the one's that X-Agent names. NULL, or why not. */
static const char *identify(struct api *a, struct conn *c, const struct conf_agent *who, enum error *e)
{
	struct str name = c->req.header[HTTP_X_AGENT];

	*e = E_BAD_REQUEST;
	if (name.p && !conf_is_name(name))
		return "X-Agent must have 1 to 63 of A-Z a-z 0-9 . _ -";
	*e = E_CAPABILITY;
	if (who && name.p && !str_eq(name, who->name))
		return "this token is another agent's than X-Agent says";
	if (who || !name.p)
		name = str_of(who ? who->name : "default");
	memset(c->agent, 0, sizeof c->agent);
	memcpy(c->agent, name.p, name.n);
	c->own_token = who != NULL;
	const struct conf_agent *section = conf_agent(a->conf, name);
	if (section && section->token[0] && !who)
		return "this agent has a token of its own, and is nobody without it";
	if (who && c->route && ((c->route->flags & OWNER) || ((c->route->flags & ADMIN) && c->req.method & (HTTP_POST | HTTP_DELETE))))
		return "an agent's own token is not for this: it concerns others, or would change what holds for itself";
	return NULL;
}

static bool is_printable(struct str s)
{
	for (int len; s.n; s.p += len, s.n -= (size_t)len) {
		if ((unsigned char)s.p[0] < ' ' || s.p[0] == 0x7f || (len = utf8_next(s)) < 0)
			return false;
		if (len == 2 && (unsigned char)s.p[0] == 0xc2 && (unsigned char)s.p[1] < 0xa0)
			return false; /* control characters as well */
	}
	return true;
}

static void add_tokens(uint64_t *sum, uint64_t more)
{
	const uint64_t most = 1ull << 53;
	*sum = *sum + more < most ? *sum + more : most;
}

/* What the agent spent since it last said: by the body (model: .p NULL and body: -1 where it says nothing), else by the
 * headers. NULL, or what is wrong. */
static const char *spend(struct api *a, struct conn *c, struct agent *who, struct str model, const int64_t body[2])
{
	uint64_t tokens[2] = {0, 0};

	for (int i = 0; i < 2; i++) {
		struct str h = c->req.header[HTTP_X_TOKENS_IN + i];
		if (h.p && !str_uint(h, 1ull << 53, &tokens[i]))
			return "X-Tokens-In and X-Tokens-Out must be whole numbers";
		if (body[i] >= 0)
			tokens[i] = (uint64_t)body[i];
	}
	if (!model.p)
		model = c->req.header[HTTP_X_MODEL];
	if (model.p && (model.n > AGENT_MODEL_MAX || !is_printable(model)))
		return "the model's name must have at most 64 printable characters";
	add_tokens(&who->tokens_in, tokens[0]);
	add_tokens(&who->tokens_out, tokens[1]);
	if (model.p) {
		memset(who->model, 0, sizeof who->model);
		memcpy(who->model, model.p, model.n);
	}
	who->last_active = now_unix_ms() / 1000;
	who->seen_ms = a->loop->now;
	a->agents->changed = true;
	return NULL;
}

/* The agent of a request, registered if it is new. NULL: there is no place, which is answered. */
static struct agent *register_agent(struct api *a, struct conn *c)
{
	uint64_t retry_s;
	struct agent *who = agent_admit(a->agents, a->conf, str_of(c->agent), a->loop->now, &retry_s);
	if (!who)
		refuse_rate(a, c, NULL, c->req.path, E_AGENTS, retry_s, "too many agents; one makes room when it has no budget and was idle for an hour");
	return who;
}

/* Not by libc's inet_ntop, which brings all of printf with it. */
static void put_address(struct buf *b, const unsigned char peer[16])
{
	if (memcmp(peer, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0) {
		buf_printf(b, "%u.%u.%u.%u", peer[12], peer[13], peer[14], peer[15]);
		return;
	}
	for (int i = 0; i < 16; i += 2) {
		buf_str(b, i ? ":" : "");
		buf_hex(b, peer + i, 2);
	}
}

/* Wrong credentials: counted for the address, and slowed. */
static void failed_login(struct api *a, const unsigned char peer[16])
{
	char address[48];
	struct buf b = {address, 0, sizeof address, false};

	(void)agent_login_wait(a->agents, peer, true, a->loop->now);
	a->agents->total.auth_failures++;
	a->agents->changed = true;
	put_address(&b, peer);
	audit_note(a->audit, AUDIT_AUTH, NULL, (struct str){b.p, b.n}, "FAILED");
}

static void refuse_login(struct api *a, struct conn *c)
{
	c->known = false;
	failed_login(a, c->peer);
	conn_refuse(&a->conns, c, E_UNAUTHORIZED, "wrong or missing credentials");
}

static void begin_login(struct api *a, struct conn *c);

/* Whether this address may try a password now; if not, that is answered. It is not written down: whoever knows none
 * could fill the log. */
static bool may_try(struct api *a, struct conn *c)
{
	uint64_t wait_s = agent_login_wait(a->agents, c->peer, false, a->loop->now);
	if (wait_s == 0)
		return true;
	a->agents->total.logins_slowed++;
	conn_refuse_for(&a->conns, c, E_RATE, wait_s, "too many wrong log-ins from this address");
	return false;
}

/* The credentials are right. False: they are not, or not known yet. */
static bool log_in(struct api *a, struct conn *c, const struct conf_agent **who)
{
	unsigned char shown[HASH_BYTES];
	bool same = false;

	if (c->known) { /* who shows what was right on this connection goes on, whatever others at its address do */
		digest(a, c->req.header[HTTP_AUTHORIZATION], shown);
		same = str_same_ct((struct str){(char *)shown, sizeof shown}, (struct str){(char *)c->shown, sizeof c->shown});
	}
	if (!same && !may_try(a, c))
		return false;
	switch (credential(a, c, who)) {
	case NOBODY:
		refuse_login(a, c);
		return false;
	case UNCHECKED:
		begin_login(a, c);
		return false;
	default:
		if (!same)
			digest(a, c->req.header[HTTP_AUTHORIZATION], c->shown);
		c->known = true;
		return true;
	}
}

/* Agent and rate; what runs a command is counted where it does. False: it is answered. */
static bool admit_agent(struct api *a, struct conn *c, const struct conf_agent *who)
{
	enum error e;
	const char *why = identify(a, c, who, &e);
	struct agent *agent = NULL;
	const struct str *h = c->req.header, none = {NULL, 0};

	if (why) {
		conn_refuse(&a->conns, c, e, why);
		return false;
	}
	/* who says nothing is "default", which is there once it runs something */
	bool says = h[HTTP_X_AGENT].p || h[HTTP_X_MODEL].p || h[HTTP_X_TOKENS_IN].p || h[HTTP_X_TOKENS_OUT].p;
	if ((c->own_token || says) && !(agent = register_agent(a, c)))
		return false;
	if (!agent)
		agent = agent_find(a->agents, str_of(c->agent));
	if (agent && !(c->route && c->route->run == post_exec) &&
	    conn_refuse_bad(&a->conns, c, spend(a, c, agent, none, (const int64_t[2]){-1, -1})))
		return false;
	if (c->route && c->route->run == any_mcp) /* its exec is one that spends, too */
		c->req.header[HTTP_X_TOKENS_IN].p = c->req.header[HTTP_X_TOKENS_OUT].p = NULL;
	uint64_t wait_s = bucket_take(&a->agents->all, 60 * a->conf->max_rps, a->conf->max_rps, a->loop->now);
	if (wait_s)
		refuse_rate(a, c, agent, c->req.path, E_RATE, wait_s, "too many requests a second (max_rps)");
	return wait_s == 0;
}

static void refuse_method(struct api *a, struct conn *c)
{
	unsigned m = c->route->methods;
	char allow[64];
	(void)text_printf(allow, sizeof allow, "Allow: %s%s%sOPTIONS\r\n", m & HTTP_GET ? "GET, HEAD, " : "", m & HTTP_POST ? "POST, " : "",
	                  m & HTTP_DELETE ? "DELETE, " : ""); /* fits */
	conn_refuse_as(&a->conns, c, 405, "method", allow, "this path does not know that method");
}

/* The head is whole: may this go on? False: it is answered, or waits for a password's check. */
static bool admit(struct api *a, struct conn *c)
{
	const struct http_req *r = &c->req;
	const struct conf_agent *who = NULL;

	c->route = NULL;
	for (size_t i = 0; i < countof(routes); i++)
		if (str_eq(r->path, routes[i].path))
			c->route = &routes[i];
	c->origin = allowed_origin(a, c);
	bool public = c->route && (c->route->flags & PUBLIC);
	if (!public && !may_call(a, c)) {
		conn_refuse(&a->conns, c, E_ORIGIN, "while the default credentials are in force, only pages and names of this host may call");
		return false;
	}
	if (r->method == HTTP_OPTIONS && !r->chunked && !r->length) {
		preflight(a, c);
		return false;
	}
	if (!public && (!log_in(a, c, &who) || !admit_agent(a, c, who)))
		return false;
	if (!c->route) {
		conn_refuse(&a->conns, c, E_NOT_FOUND, "there is nothing at this path");
		return false;
	}
	if (!(c->route->methods & r->method) && !(r->method == HTTP_HEAD && (c->route->methods & HTTP_GET))) {
		refuse_method(a, c);
		return false;
	}
	return true;
}

/* ---- reading ---- */

static void head_done(struct api *a, struct conn *c)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

	c->used = c->req.head_len;
	bool ok = admit(a, c);
	c->wrong_password = false;
	if (!ok)
		return;
	if (!c->req.chunked && c->req.head_len + c->req.length <= CONN_IN) {
		c->body = (struct buf){c->in + c->req.head_len, 0, c->req.length, false};
	} else if (!conn_big(&a->conns, c)) {
		conn_refuse(&a->conns, c, E_NO_PLACE, "too many large requests at once");
		return;
	}
	bool waits = c->req.expect_continue && c->in_n == c->used && (c->req.chunked || c->req.length);
	if (waits && write(c->fd, go_on, sizeof go_on - 1) != (ssize_t)sizeof go_on - 1) {
		conn_close(&a->conns, c);
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
				conn_refuse_as(&a->conns, c, rc, rc == 413 ? "too_large" : rc == 501 ? "not_implemented" : "bad_request", NULL, c->req.error);
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
			conn_refuse(&a->conns, c, E_TOO_LARGE, "the body is larger than 2 MiB");
		else
			conn_refuse(&a->conns, c, E_BAD_REQUEST, "malformed chunk in the body");
	}
}

void api_event(struct api *a, uint32_t id, short revents)
{
	struct conn *c = conn_find(&a->conns, id);
	if (!c)
		return;
	if ((c->st == CONN_WAIT || c->st == CONN_STREAM) && (revents & (POLLRDHUP | POLLHUP | POLLERR))) {
		conn_close(&a->conns, c);
	} else if (c->st == CONN_STREAM) {
		(void)conn_push(&a->conns, c); /* what comes next is api_turn's */
	} else if (c->st == CONN_SEND) {
		conn_send(&a->conns, c);
		process(a, c);
	} else if (c->st != CONN_WAIT && conn_read(&a->conns, c)) {
		process(a, c);
	}
}

/* How far the command is that was called over MCP, once a second at most. False: there is nothing to be told. */
static bool put_progress(struct api *a, struct conn *c)
{
	const struct job *j = job_find(a->jobs, c->job);
	if (!c->call_n || !j || j->st != JOB_RUN || a->loop->now - c->told_ms < 1000)
		return false;
	c->told_ms = a->loop->now;
	uint64_t ms = (now_us() - j->start_us) / 1000;
	buf_printf(&c->out, "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":%.*s,"
	           "\"progress\":%llu,\"message\":\"%llu ms, %llu bytes of output\"}}\n\n", (int)c->token_n, c->token, (unsigned long long)ms,
	           (unsigned long long)ms, (unsigned long long)(j->out_bytes + j->err_bytes));
	return true;
}

static void beat(struct api *a, struct conn *c)
{
	if (c->stalled) { /* a whole beat long, nobody read */
		conn_close(&a->conns, c);
		return;
	}
	c->stalled = c->out.n > 0;
	if (c->out.n == 0 && !put_progress(a, c))
		buf_str(&c->out, ":\n\n"); /* a comment, which says that we are there */
	loop_timer(a->loop, &c->timer, CONN_BEAT_MS);
	(void)conn_push(&a->conns, c);
}

static void conn_timer(struct api *a, struct conn *c)
{
	bool asked = (c->st == CONN_HEAD && c->in_n) || c->st == CONN_BODY;
	if (c->st == CONN_STREAM) {
		beat(a, c);
	} else if (!asked) {
		conn_close(&a->conns, c);
	} else {
		c->close = true;
		conn_refuse(&a->conns, c, E_TIMEOUT, "the request took too long to arrive");
	}
}

void api_drain(struct api *a)
{
	a->conns.draining = true;
	for (size_t i = 0; i < a->conns.conns; i++) {
		struct conn *c = &a->conns.conn[i];
		if ((c->st == CONN_HEAD && c->in_n == 0) || (c->st == CONN_STREAM && !c->has_job))
			conn_close(&a->conns, c);
	}
}

/* ---- handlers ---- */

/* Whether a list as Accept and Accept-Encoding have it names this (RFC 9110 section 12.5); weights are not looked at. */
static bool names(struct str list, const char *what)
{
	for (struct str item, name; str_next(&list, &item);)
		if (str_cut(&item, ';', &name) && str_ieq(name, what))
			return true;
	return false;
}

/* It is kept compressed; who says nothing takes it so (RFC 9110 section 12.5.3). */
static void get_page(struct api *a, struct conn *c)
{
	struct str accepted = c->req.header[HTTP_ACCEPT_ENCODING];

	if (accepted.p && !names(accepted, "gzip") && !names(accepted, "*")) {
		conn_refuse_as(&a->conns, c, 406, "encoding", NULL, "the dashboard is sent compressed: ask with Accept-Encoding: gzip");
		return;
	}
	conn_piece(c, PIECE_PLAIN, page_html());
	conn_reply(&a->conns, c, 200, "text/html; charset=utf-8", page_headers());
}

static void get_icon(struct api *a, struct conn *c)
{
	conn_piece(c, PIECE_PLAIN, page_icon());
	conn_reply(&a->conns, c, 200, "image/svg+xml", NULL);
}

/* The dashboard learns here, without a guess that would count as a wrong log-in, that the published password holds. */
static void get_healthz(struct api *a, struct conn *c)
{
	bool published = a->conf->accept_pass && !a->conf->own_pass && is_local(c);
	buf_str(&c->text, "ok\n");
	conn_reply_text(&a->conns, c, 200, "text/plain", published ? "OmniArena-Credentials: default\r\n" : NULL);
}

static const char *isolation(const struct api *a)
{
	return (a->hello->layers & MSG_LAYERS_KERNEL) == MSG_LAYERS_KERNEL ? "kernel" : "basic";
}

static void put_layers(struct json_writer *w, const struct api *a)
{
	json_put(w, "layers:{policy:true");
	for (unsigned l = 0; l < LAYERS; l++) {
		json_key(w, msg_layer_name(l));
		json_truth(w, a->hello->layers >> l & 1);
	}
	json_put(w, "} missing:{");
	for (unsigned l = 0; l < LAYERS; l++)
		if (!(a->hello->layers >> l & 1) && a->hello->why[l][0])
			json_put_string(w, msg_layer_name(l), str_of(a->hello->why[l]));
	json_put(w, "}");
}

/* How well the default profile's lists are kept by the jail, not by the parser alone. */
static void put_enforcement(struct json_writer *w, const struct api *a)
{
	const char *why = a->jobs->profile == CONF_PERMISSIVE ? "permissive forbids nothing" :
	                  !a->jobs->view[a->jobs->profile].known ? "the first jail with these lists is still being made" :
	                  a->jobs->view[a->jobs->profile].why;

	json_put(w, "whitelist_enforcement:%s whitelist_enforcement_why:%s", *why ? "partial" : "kernel", *why ? why : NULL);
}

/* The wall time that a profile's commands have at most. */
static uint32_t timeout_of(const struct api *a, const struct conf_profile *p)
{
	return a->conf->timeout_ms && a->conf->timeout_ms < p->timeout_ms ? (uint32_t)a->conf->timeout_ms : p->timeout_ms;
}

static void put_health(struct json_writer *w, const struct api *a)
{
	const struct conf_profile *p = conf_profile(a->jobs->profile);
	char size[24];

	(void)text_printf(size, sizeof size, "~%lluKB", (unsigned long long)(a->binary_bytes + 512) / 1024); /* fits */
	json_put(w, "ok:true version:%s uptime_sec:%lu started_unix_ms:%lu total_execs:%lu blocked_cmds:%lu profile:%s profile_id:%u isolation:%s", CONF_VERSION,
	         (a->loop->now - a->started_ms) / 1000, a->started_unix_ms, a->agents->total.execs, a->agents->total.blocked, p->name, a->jobs->profile, isolation(a));
	put_layers(w, a);
	put_enforcement(w, a);
	json_put(w, "agents_count:%zu max_rate_per_agent:%lu max_rps:%lu default_token_budget:%lu default_credentials:%hhd", a->agents->n,
	         a->conf->max_rate_per_agent, a->conf->max_rps, a->conf->default_token_budget, conf_default_credentials(a->conf));
	json_put(w, "limits:{timeout_ms:%u max_mem_mb:%u max_cpu_sec:%u max_processes:%u max_file_mb:%u max_open_files:%u", timeout_of(a, p),
	         p->memory_mb, p->cpu_sec, p->processes, p->file_mb, p->open_files);
	json_put(w, "output_limit:%lu max_running:%lu}", a->conf->output_limit, a->conf->max_running);
	json_put(w, "audit_writable:%hhd audit_why:%s", !a->audit->why[0], a->audit->why[0] ? a->audit->why : NULL);
	json_put(w, "running:%zu warm_cells:%zu bytes_captured:%lu binary_size:%s binary_bytes:%lu dependencies:0", a->jobs->running,
	         job_ready_cells(a->jobs), a->agents->total.captured_bytes, size, a->binary_bytes);
}

static void get_health(struct api *a, struct conn *c)
{
	put_health(conn_object(c), a);
	conn_reply_object(&a->conns, c);
}

static const char no_profile[] = "'profile' must be 0, 1, 2, strict, moderate or permissive";

/* A profile's number or name; CONF_PROFILES for what is none. */
static uint32_t profile_of(const struct json_token *t)
{
	return t->kind == JSON_NUMBER ? conf_profile_id(t->text) : t->kind == JSON_STRING ? conf_profile_id(json_unescape(t->text)) : CONF_PROFILES;
}

/* ---- policy ---- */

/* The first rules of a list that are no longer than that. */
static void put_list(struct json_writer *w, const struct api *a, enum policy_list list, size_t most, size_t longest)
{
	const struct policy_rule *r = a->policy->rule;
	for (size_t i = 0; i < a->policy->rules && most; i++)
		if (r[i].list == list && r[i].text.n <= longest)
			(void)json_string(w, r[i].text), most--; /* what is no UTF-8 shows as U+FFFD */
}

/* The policy file as it is now is to be saved; the route's saved handler replies. */
static void save_policy(struct api *a, struct conn *c)
{
	a->edits++;
	if (job_ask(a->jobs, MSG_SAVE, MSG_POLICY, c->id, (struct str){a->policy->file, a->policy->file_n}))
		conn_wait(&a->conns, c);
	else
		c->route->saved(a, c, "the warden can't be asked now");
}

static void put_persisted(struct json_writer *w, const char *unsaved)
{
	json_put(w, *unsaved ? "persisted:false persisted_why:%s" : "persisted:true", unsaved);
}

/* The profile that an agent's commands have. */
static uint32_t profile_for(const struct api *a, const struct conn *c)
{
	const struct conf_agent *section = conf_agent(a->conf, str_of(c->agent));
	return section && section->profile >= 0 ? (uint32_t)section->profile : a->jobs->profile;
}

/* The lists; unsaved: NULL where nothing was to be saved, "" where it was, else why not. */
static void reply_policy(struct api *a, struct conn *c, const char *unsaved)
{
	struct json_writer *w = conn_large_object(&a->conns, c);

	if (!w)
		return;
	json_put(w, "ok:true blacklist:[");
	put_list(w, a, POLICY_BLACK, SIZE_MAX, SIZE_MAX);
	json_put(w, "] whitelist:[");
	put_list(w, a, POLICY_WHITE, SIZE_MAX, SIZE_MAX);
	json_put(w, "] profile:%u", a->jobs->profile);
	put_enforcement(w, a);
	if (unsaved)
		put_persisted(w, unsaved);
	conn_reply_object(&a->conns, c);
}

static void any_policy(struct api *a, struct conn *c)
{
	static const struct json_field known[] = {
		{"action", JSON_STRING, "'action' must be 'add' or 'remove'"},
		{"list", JSON_STRING, "'list' must be 'blacklist' or 'whitelist'"},
		{"pattern", JSON_STRING, "'pattern' must be a string"},
	};
	struct json_token f[countof(known)];

	if (c->req.method != HTTP_POST) {
		reply_policy(a, c, NULL);
		return;
	}
	if (!conn_fields(&a->conns, c, known, countof(known), f))
		return;
	const char *wrong = NULL;
	for (size_t i = 0; !wrong && i < countof(known); i++)
		if (f[i].kind == JSON_END)
			wrong = known[i].needs;
	struct str pattern = json_unescape(f[2].text);
	bool add = json_is(f[0].text, "add"), black = json_is(f[1].text, "blacklist");
	if (!wrong)
		wrong = !add && !json_is(f[0].text, "remove") ? known[0].needs : !black && !json_is(f[1].text, "whitelist") ? known[1].needs :
		        policy_edit(a->policy, add, black ? POLICY_BLACK : POLICY_WHITE, pattern);
	if (conn_refuse_bad(&a->conns, c, wrong))
		return;
	tell_lists(a);
	note_change(a, c->agent, add ? black ? "blacklist_add" : "whitelist_add" : black ? "blacklist_remove" : "whitelist_remove", pattern, 0);
	save_policy(a, c);
}

static void put_verdict(struct json_writer *w, const struct verdict *v)
{
	json_put_string(w, "rule", v->rule);
	json_put_string(w, "program", (struct str){v->program.p, v->program.n < 256 ? v->program.n : 256});
	json_put(w, "reason:%s", v->why);
}

static void post_test(struct api *a, struct conn *c)
{
	static const struct json_field known[] = {
		{"cmd", JSON_STRING, "'cmd' must be a string"},
		{"profile", JSON_END, ""},
	};
	static struct verdict v;
	struct json_token f[countof(known)];
	struct policy_ask ask = {.profile = profile_for(a, c)};
	static char text[EXEC_CMD_MAX];

	if (!conn_fields(&a->conns, c, known, countof(known), f))
		return;
	if (f[1].kind != JSON_END)
		ask.profile = profile_of(&f[1]);
	if (conn_refuse_bad(&a->conns, c, f[0].kind == JSON_END ? known[0].needs : ask.profile == CONF_PROFILES ? no_profile : NULL))
		return;
	ask.text = json_unescape(f[0].text);
	if (ask.text.n == 0 || ask.text.n > EXEC_CMD_MAX || memchr(ask.text.p, '\0', ask.text.n)) {
		conn_refuse(&a->conns, c, E_BAD_REQUEST, "'cmd' must have 1 byte to 64 KiB, and no NUL");
		return;
	}
	memcpy(text, ask.text.p, ask.text.n); /* the reply is written over the body */
	ask.text.p = text;
	policy_judge(a->policy, &ask, &v);
	struct json_writer *w = conn_large_object(&a->conns, c);
	if (!w)
		return;
	json_put(w, "ok:true allowed:%hhd code:%s would_block:%s", v.code == POLICY_OK, policy_code_name(v.code), policy_code_name(v.would));
	put_verdict(w, &v);
	json_put(w, "commands:[");
	for (size_t i = 0; i < v.names; i++)
		(void)json_string(w, v.name[i]);
	json_put(w, "] commands_truncated:%hhd undecidable:%hhd profile:%u", v.more_names, v.undecided, ask.profile);
	conn_reply_object(&a->conns, c);
}

static void post_profile(struct api *a, struct conn *c)
{
	static const struct json_field known[] = {{"profile", JSON_END, ""}};
	struct json_token f[1];

	if (!conn_fields(&a->conns, c, known, 1, f))
		return;
	uint32_t id = profile_of(&f[0]);
	if (conn_refuse_bad(&a->conns, c, id == CONF_PROFILES ? no_profile : NULL))
		return;
	const struct conf_profile *p = conf_profile(id);
	a->conf->profile = id;
	job_set_profile(a->jobs, id);
	note_change(a, c->agent, "set_profile", str_of(""), id);
	json_put(conn_object(c), "ok:true profile:%u timeout_ms:%u max_mem_mb:%u max_cpu_sec:%u", id, timeout_of(a, p), p->memory_mb, p->cpu_sec);
	conn_reply_object(&a->conns, c);
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
	/* restart: for a key that can't change in a running server */
	json_put(conn_object(c), "ok:true blacklist_count:%zu whitelist_count:%zu profile:%u restart_needed:%hhd", a->policy->count[POLICY_BLACK],
	         a->policy->count[POLICY_WHITE], a->jobs->profile, restart);
	conn_reply_object(&a->conns, c);
}


/* Commands a minute that an agent may run. */
static uint64_t rate_limit(const struct api *a, const char *agent)
{
	const struct conf_agent *section = conf_agent(a->conf, str_of(agent));
	return section && section->rate != CONF_UNSET ? (uint64_t)section->rate : a->conf->max_rate_per_agent;
}

/* ---- agents, budgets, settings ---- */

static void get_agents(struct api *a, struct conn *c)
{
	size_t shown = 0;
	struct json_writer *w = conn_large_object(&a->conns, c);

	if (!w)
		return;
	json_put(w, "agents:[");
	for (size_t i = 0; i < a->agents->n; i++) {
		struct agent *who = &a->agents->agent[i];
		if (c->own_token && strcmp(who->name, c->agent) != 0)
			continue; /* an agent sees itself */
		shown++;
		json_put(w, "{name:%s", who->name);
		for (size_t k = 0; k < AGENT_COUNTERS; k++) { /* in the seed's order */
			if (k == 3)
				json_put(w, "rate_1m:%u last_active:%lu", agent_rate(who, a->loop->now), who->last_active);
			else if (k == 5)
				json_put(w, "tokens_total:%lu token_budget:%lu model:%s running:%u", who->tokens_in + who->tokens_out,
				         agent_budget(who, a->conf), who->model, who->running);
			json_put_number(w, agent_counters[k].name, (int64_t)counter_of(who, &agent_counters[k]));
		}
		json_put(w, "rate_limit:%lu}", rate_limit(a, who->name));
	}
	json_put(w, "] count:%zu max:%zu rate_limit:%lu", shown, a->agents->max, a->conf->max_rate_per_agent);
	conn_reply_object(&a->conns, c);
}

static void reply_default_budget(struct api *a, struct conn *c, const char *unsaved)
{
	struct json_writer *w = conn_object(c);
	json_put(w, "ok:true default:%lu", a->conf->default_token_budget);
	put_persisted(w, unsaved);
	conn_reply_object(&a->conns, c);
}

static void post_budget(struct api *a, struct conn *c)
{
	static const struct json_field known[] = {
		{"agent", JSON_STRING, "'agent' must be an agent's name"},
		{"max_tokens", JSON_NUMBER, "'max_tokens' must be a whole number, at least 0"},
		{"default", JSON_NUMBER, "'default' must be a whole number, at least 0"},
	};
	struct json_token f[countof(known)];
	int64_t v;

	if (!conn_fields(&a->conns, c, known, countof(known), f))
		return;
	bool of_agent = f[0].kind != JSON_END, of_all = f[2].kind != JSON_END;
	const struct json_token *number = &f[of_all ? 2 : 1];
	struct str name = of_agent ? json_unescape(f[0].text) : str_of("");
	const char *wrong = of_agent == of_all || of_agent != (f[1].kind != JSON_END) ? "either 'agent' and 'max_tokens' or 'default' are needed" :
	                    !json_int(number->text, &v) || v < 0 ? known[of_all ? 2 : 1].needs : of_agent && !conf_is_name(name) ? known[0].needs : NULL;
	if (!wrong && of_all)
		wrong = policy_set(a->policy, "default_token_budget", (uint64_t)v);
	if (conn_refuse_bad(&a->conns, c, wrong))
		return;
	if (of_all) {
		a->conf->default_token_budget = (uint64_t)v;
		note_change(a, c->agent, "default_budget", str_of(""), v);
		save_policy(a, c);
		return;
	}
	uint64_t retry_s;
	struct agent *who = agent_admit(a->agents, a->conf, name, a->loop->now, &retry_s);
	if (!who) {
		conn_refuse_for(&a->conns, c, E_AGENTS, retry_s, "there is no such agent, and no place for one more");
		return;
	}
	who->budget = v;
	note_change(a, c->agent, "budget", name, v);
	json_put(conn_object(c), "ok:true agent:%s max_tokens:%ld", who->name, v);
	conn_reply_object(&a->conns, c);
}

static const struct { struct json_field f; size_t offset; int64_t max; } settings[] = {
	{{"max_rate_per_agent", JSON_NUMBER, "'max_rate_per_agent' must be a whole number from 0 to 65535"}, offsetof(struct conf, max_rate_per_agent), 65535},
	{{"timeout_ms", JSON_NUMBER, "'timeout_ms' must be a whole number from 0 to 86400000"}, offsetof(struct conf, timeout_ms), 86400000},
	{{"max_rps", JSON_NUMBER, "'max_rps' must be a whole number from 0 to 1000000"}, offsetof(struct conf, max_rps), 1000000},
};

/* unsaved: NULL where nothing was to be saved. */
static void reply_settings(struct api *a, struct conn *c, const char *unsaved)
{
	uint64_t v;
	struct json_writer *w = conn_object(c);
	json_put(w, "ok:true");
	for (size_t i = 0; i < countof(settings); i++) {
		memcpy(&v, (const char *)a->conf + settings[i].offset, sizeof v);
		json_put_number(w, settings[i].f.name, (int64_t)v);
	}
	if (unsaved)
		put_persisted(w, unsaved);
	conn_reply_object(&a->conns, c);
}

static void any_settings(struct api *a, struct conn *c)
{
	struct json_field known[countof(settings)];
	struct json_token f[countof(settings)];
	int64_t v[countof(settings)];
	const char *wrong = "one of 'max_rate_per_agent', 'timeout_ms' and 'max_rps' is needed";

	if (c->req.method != HTTP_POST) {
		reply_settings(a, c, NULL);
		return;
	}
	for (size_t i = 0; i < countof(settings); i++)
		known[i] = settings[i].f;
	if (!conn_fields(&a->conns, c, known, countof(known), f))
		return;
	for (size_t i = 0; i < countof(settings); i++) {
		if (f[i].kind == JSON_END)
			continue;
		wrong = !json_int(f[i].text, &v[i]) || v[i] < 0 || v[i] > settings[i].max ? known[i].needs : NULL;
		if (wrong)
			break;
	}
	if (conn_refuse_bad(&a->conns, c, wrong))
		return;
	for (size_t i = 0; i < countof(settings); i++) {
		if (f[i].kind == JSON_END)
			continue;
		uint64_t now = (uint64_t)v[i];
		memcpy((char *)a->conf + settings[i].offset, &now, sizeof now);
		note_change(a, c->agent, "set", str_of(known[i].name), v[i]);
		wrong = wrong ? wrong : policy_set(a->policy, known[i].name, now);
	}
	if (wrong)
		reply_settings(a, c, wrong);
	else
		save_policy(a, c);
}

static void delete_sandbox(struct api *a, struct conn *c)
{
	audit_clear(a->audit);
	agent_reset(a->agents);
	audit_note(a->audit, AUDIT_RESET, c->agent, str_of("sandbox"), "OK");
	json_put(conn_object(c), "ok:true message:%s", "sandbox reset");
	conn_reply_object(&a->conns, c);
}

/* ---- passwords: one is stretched at a time, a slice a turn ---- */

static void stretch(struct api *a, struct conn *c, enum purpose purpose, struct str password, const struct conf_secret *s)
{
	digest(a, password, a->trying);
	memcpy(a->stretch_peer, c->peer, sizeof a->stretch_peer);
	pbkdf2_start(&a->pbkdf2, password, (struct str){(const char *)s->salt, sizeof s->salt}, s->iterations);
	a->purpose = purpose;
	a->stretch_for = c->id;
	loop_timer(a->loop, &a->stretch, 0);
}

/* The request's password is compared with the stored one; its head is looked at once more when that is done. */
static void begin_login(struct api *a, struct conn *c)
{
	struct str value = c->req.header[HTTP_AUTHORIZATION], word;
	char plain[256];

	conn_wait(&a->conns, c);
	c->stretching = true; /* also where another one's is under way */
	if (a->purpose)
		return;
	(void)str_word(&value, &word);
	(void)str_word(&value, &word); /* credential() has seen that it is base64 with a colon */
	long n = base64_decode(word, plain);
	struct str password = {plain, (size_t)n}, user;
	(void)str_cut(&password, ':', &user);
	stretch(a, c, STRETCH_LOGIN, password, &a->conf->secret);
	memset(plain, 0, sizeof plain);
}

/* Its head is looked at again. */
static void look_again(struct api *a, struct conn *c)
{
	c->stretching = false;
	c->st = CONN_HEAD;
	loop_mod(a->loop, c->slot, POLLIN);
	head_done(a, c);
	process(a, c);
}

static void stretch_new(struct api *a, struct conn *c)
{
	a->fresh.iterations = ITERATIONS;
	if (getrandom(a->fresh.salt, sizeof a->fresh.salt, 0) != sizeof a->fresh.salt) {
		conn_refuse(&a->conns, c, E_INTERNAL, "there is no randomness for the password's salt");
		process(a, c);
		return;
	}
	stretch(a, c, STRETCH_NEW, (struct str){a->new_password, strlen(a->new_password)}, &a->fresh);
	memset(a->new_password, 0, sizeof a->new_password);
}

static void refuse_current(struct api *a, struct conn *c)
{
	(void)agent_login_wait(a->agents, c->peer, true, a->loop->now);
	refused(a, c, AUDIT_AUTH, str_of("change of the password"), "FAILED");
	conn_refuse(&a->conns, c, E_CAPABILITY, "'current' is not the password");
}

static void save_password(struct api *a, struct conn *c)
{
	char text[256];
	struct buf b = {text, 0, sizeof text, false};

	conf_write_secret(&a->fresh, &b);
	if (job_ask(a->jobs, MSG_SAVE, MSG_PASSWORD, c->id, (struct str){b.p, b.n})) {
		a->purpose = STRETCH_SAVE; /* until the answer */
	} else {
		reply_password(a, c, "the warden can't be asked now");
		process(a, c);
	}
	memset(text, 0, sizeof text);
}

/* Those who came while another one's password was stretched. */
static void next_login(struct api *a)
{
	for (size_t i = 0; i < a->conns.conns && !a->purpose; i++)
		if (a->conns.conn[i].st == CONN_WAIT && a->conns.conn[i].stretching)
			look_again(a, &a->conns.conn[i]);
}

static void stretched(struct api *a)
{
	struct conn *c = conn_find(&a->conns, a->stretch_for);
	enum purpose purpose = a->purpose;
	bool right = str_same_ct((struct str){(char *)a->pbkdf2.out, CONF_KEY}, (struct str){(char *)a->conf->secret.key, CONF_KEY});

	if (c && c->st != CONN_WAIT)
		c = NULL;
	a->purpose = STRETCH_NONE; /* what follows may begin the next one */
	if (purpose == STRETCH_NEW)
		memcpy(a->fresh.key, a->pbkdf2.out, sizeof a->fresh.key);
	memset(&a->pbkdf2, 0, sizeof a->pbkdf2);
	if (purpose != STRETCH_NEW && right) {
		memcpy(a->good, a->trying, sizeof a->good);
		a->good_known = true;
	}
	if (c && purpose == STRETCH_LOGIN) {
		c->wrong_password = !right;
		look_again(a, c);
	} else if (purpose == STRETCH_LOGIN && !right) { /* who hangs up has guessed all the same */
		failed_login(a, a->stretch_peer);
	} else if (c && purpose == STRETCH_CURRENT && right) {
		stretch_new(a, c);
	} else if (c && purpose == STRETCH_CURRENT) {
		refuse_current(a, c);
		process(a, c);
	} else if (c && purpose == STRETCH_NEW) {
		save_password(a, c);
	}
	if (!a->purpose)
		memset(a->new_password, 0, sizeof a->new_password);
	next_login(a);
}

static void post_password(struct api *a, struct conn *c)
{
	static const struct json_field known[] = {
		{"current", JSON_STRING, "'current' must be the password that is in force"},
		{"new", JSON_STRING, "'new' must be a password of 8 to 128 bytes, without control characters"},
	};
	struct json_token f[countof(known)];

	if (!conn_fields(&a->conns, c, known, countof(known), f))
		return;
	struct str current = json_unescape(f[0].text), fresh = json_unescape(f[1].text);
	const char *wrong = str_eq(fresh, CONF_DEFAULT_PASS) ? "this password is published; take another one" :
	                    f[0].kind == JSON_END ? known[0].needs : fresh.n < 8 || fresh.n > 128 || !is_printable(fresh) ? known[1].needs : NULL;
	if (conn_refuse_bad(&a->conns, c, wrong) || !may_try(a, c))
		return;
	if (a->purpose) {
		conn_refuse(&a->conns, c, E_BUSY, "another password is being checked");
		return;
	}
	bool stored = a->conf->secret.iterations, right = stored ? is_good(a, current) : str_same_ct(current, str_of(a->conf->pass));
	if (!stored && !right) {
		refuse_current(a, c);
		return;
	}
	memset(a->new_password, 0, sizeof a->new_password);
	memcpy(a->new_password, fresh.p, fresh.n);
	conn_wait(&a->conns, c);
	if (right)
		stretch_new(a, c);
	else
		stretch(a, c, STRETCH_CURRENT, current, &a->conf->secret);
}

/* The new password is stored, so it is the one; also when who asked for it is gone. */
static void take_password(struct api *a, const struct conn *c)
{
	a->conf->secret = a->fresh;
	a->good_known = false;
	conf_decide(a->conf);
	for (size_t i = 0; i < a->conns.conns; i++)
		a->conns.conn[i].known = false; /* all show it anew */
	note_change(a, c ? c->agent : NULL, "set_password", str_of(""), 0);
}

static void reply_password(struct api *a, struct conn *c, const char *unsaved)
{
	if (*unsaved) {
		conn_refuse_why(&a->conns, c, E_INTERNAL, "the password was not changed:", unsaved);
		return;
	}
	json_put(conn_object(c), "ok:true default_credentials:%hhd", conf_default_credentials(a->conf));
	conn_reply_object(&a->conns, c);
}

/* ---- what happened ---- */

/* The value of a parameter, or .p NULL. */
static struct str parameter(struct str query, const char *name)
{
	struct str pair, key;
	while (str_cut(&query, '&', &pair))
		if (str_cut(&pair, '=', &key) && str_eq(key, name))
			return pair;
	return (struct str){NULL, 0};
}

/* A number that the query may have; an absent one stays as it is. False: it is wrong, which is answered. */
static bool number(struct api *a, struct conn *c, struct str s, uint64_t *v)
{
	bool fine = !s.p || str_uint(s, INT64_MAX, v);
	if (!fine)
		conn_refuse(&a->conns, c, E_BAD_REQUEST, "'after', 'limit' and Last-Event-ID are whole numbers");
	return fine;
}

static bool numbers(struct api *a, struct conn *c, uint64_t *after, uint64_t *limit)
{
	return number(a, c, parameter(c->req.query, "after"), after) && number(a, c, parameter(c->req.query, "limit"), limit) &&
	       number(a, c, c->req.header[HTTP_LAST_EVENT_ID], after);
}

static uint64_t oldest_row(const struct audit *u)
{
	return u->rows > u->slots ? u->rows - u->slots : 0;
}

static bool is_shown(const struct conn *c, const struct audit_row *r, struct str agent, uint64_t after)
{
	return r && r->seq > after && (!agent.p || str_eq(agent, r->agent)) && (!c->own_token || strcmp(c->agent, r->agent) == 0);
}

static void get_audit(struct api *a, struct conn *c)
{
	struct str agent = parameter(c->req.query, "agent");
	uint64_t after = 0, limit = a->audit->slots < 256 ? a->audit->slots : 256, first = oldest_row(a->audit), found = 0;
	char line[2 * AUDIT_CMD_MAX * 4];
	struct buf text = {line, 0, sizeof line, false};
	struct json_writer *w;

	if (!numbers(a, c, &after, &limit) || !(w = conn_large_object(&a->conns, c)))
		return;
	limit = limit < 256 ? limit : 256; /* so many fit, whatever they are */
	for (uint64_t n = a->audit->rows; n-- > first && found < limit;) /* the newest ones */
		if (is_shown(c, audit_row(a->audit, n), agent, after) && ++found == limit)
			first = n;
	json_put(w, "entries:[");
	for (uint64_t n = first; n < a->audit->rows; n++) {
		const struct audit_row *r = audit_row(a->audit, n);
		text.n = 0;
		if (!limit || !is_shown(c, r, agent, after))
			continue;
		audit_text(r, &text);
		(void)json_string(w, (struct str){text.p, text.n}); /* what is no UTF-8 shows as U+FFFD */
	}
	json_put(w, "] events:[");
	for (uint64_t n = first; n < a->audit->rows; n++)
		if (limit && is_shown(c, audit_row(a->audit, n), agent, after))
			audit_json(audit_row(a->audit, n), w);
	json_put(w, "]");
	conn_reply_object(&a->conns, c);
}

static void get_export(struct api *a, struct conn *c)
{
	size_t others = 0; /* each holds a file open */
	for (size_t i = 0; i < a->conns.conns; i++)
		others += a->conns.conn[i].st != CONN_FREE && a->conns.conn[i].route && a->conns.conn[i].route->run == get_export && &a->conns.conn[i] != c;
	if (others >= EXPORTS)
		conn_refuse(&a->conns, c, E_NO_PLACE, "too many exports at once");
	else if (job_ask(a->jobs, MSG_FETCH, MSG_LOG_READ, c->id, (struct str){NULL, 0}))
		conn_wait(&a->conns, c);
	else
		conn_refuse(&a->conns, c, E_NO_PLACE, "the warden can't be asked now");
}

/* The log as it is now, as an array: its newlines become commas, but for the last. */
static void reply_export(struct api *a, struct conn *c, int fd, const char *why)
{
	static const char newline = '\n';
	struct stat st;
	char last;
	int64_t n;

	if (fd < 0 || fstat(fd, &st) < 0) {
		conn_refuse_why(&a->conns, c, E_AUDIT, "the log can't be read:", fd < 0 ? why : strerror(errno));
		return;
	}
	for (n = st.st_size; n && pread(fd, &last, 1, n - 1) == 1 && last != newline;) /* a line that is being written */
		n--;
	c->file = fd;
	conn_piece(c, PIECE_PLAIN, str_of("["));
	conn_piece(c, PIECE_FILE, (struct str){NULL, n ? (size_t)n - 1 : 0});
	conn_piece(c, PIECE_PLAIN, str_of("]\n"));
	conn_reply(&a->conns, c, 200, "application/json", "Content-Disposition: attachment; filename=\"audit.json\"\r\n");
}

static void get_events(struct api *a, struct conn *c)
{
	uint64_t after = UINT64_MAX, limit;
	if (!numbers(a, c, &after, &limit))
		return;
	if (c->req.method == HTTP_HEAD) {
		conn_reply(&a->conns, c, 200, "text/event-stream", NULL);
		return;
	}
	if (a->conns.streams >= a->conns.conns / 4) {
		conn_refuse(&a->conns, c, E_NO_PLACE, "too many streams at once");
		return;
	}
	c->next = a->audit->rows;
	c->figures = a->figures - 1;
	if (after != UINT64_MAX) { /* where it stopped, as far as the ring goes back */
		const struct audit_row *r;
		while (c->next > oldest_row(a->audit) && (!(r = audit_row(a->audit, c->next - 1)) || r->seq > after))
			c->next--;
	}
	conn_wait(&a->conns, c);
	conn_stream(&a->conns, c);
	buf_str(&c->out, ":\n\n"); /* so that the client sees at once that it is listening */
	(void)conn_push(&a->conns, c);
}

/* One row, or with r NULL what health says. False: there is no room for it now. */
static bool put_event(const struct api *a, struct buf *out, const struct audit_row *r)
{
	size_t was = out->n;
	struct json_writer w = {.b = out};
	if (r) {
		buf_printf(out, "id: %llu\nevent: audit\ndata: ", (unsigned long long)r->seq);
		audit_json(r, &w);
	} else {
		buf_str(out, "event: metrics\ndata: ");
		json_open(&w, true);
		put_health(&w, a);
		json_close(&w);
	}
	buf_str(out, "\n\n");
	bool fits = !out->full;
	if (!fits)
		out->n = was;
	out->full = false;
	return fits;
}

static void pump_events(struct api *a, struct conn *c)
{
	if (c->next < oldest_row(a->audit)) {
		if (c->out.n) { /* it does not read as fast as things happen */
			conn_close(&a->conns, c);
			return;
		}
		buf_printf(&c->out, "event: lost\ndata: {\"lost\":%llu}\n\n", (unsigned long long)(oldest_row(a->audit) - c->next));
		c->next = oldest_row(a->audit);
	}
	do {
		for (; c->next < a->audit->rows; c->next++) {
			const struct audit_row *r = audit_row(a->audit, c->next);
			if (is_shown(c, r, (struct str){NULL, 0}, 0) && !put_event(a, &c->out, r))
				break;
		}
		if (c->figures != a->figures && put_event(a, &c->out, NULL))
			c->figures = a->figures;
	} while (c->out.n && conn_push(&a->conns, c) && c->out.n == 0);
}

/* of: "" or "agent_". What only grows is a counter, whose name ends in "_total". */
static void put_head(struct buf *b, const char *of, const char *name, bool grows, const char *help)
{
	const char *total = grows ? "_total" : "";
	buf_printf(b, "# HELP omniarena_%s%s%s %s\n# TYPE omniarena_%s%s%s %s\n", of, name, total, help, of, name, total, grows ? "counter" : "gauge");
}

static void put_metric(struct buf *b, const char *name, bool grows, const char *help, uint64_t v)
{
	put_head(b, "", name, grows, help);
	buf_printf(b, "omniarena_%s%s %llu\n", name, grows ? "_total" : "", (unsigned long long)v);
}

/* Seconds with six places behind the point. */
static void put_seconds(struct buf *b, uint64_t us)
{
	buf_printf(b, "%llu.", (unsigned long long)(us / 1000000));
	for (uint64_t top = 100000; top > us % 1000000 && top > 1; top /= 10)
		buf_str(b, "0");
	buf_printf(b, "%llu", (unsigned long long)(us % 1000000));
}

static void put_histogram(struct buf *b, const struct totals *t)
{
	static const char name[] = "omniarena_exec_duration_seconds";
	uint64_t n = 0;
	buf_printf(b, "# HELP %s How long commands took, since the start.\n# TYPE %s histogram\n", name, name);
	for (size_t i = 0; i <= AGENT_BUCKETS; i++) {
		n += t->took[i];
		buf_printf(b, "%s_bucket{le=\"", name);
		if (i < AGENT_BUCKETS)
			put_seconds(b, (uint64_t)agent_bucket_ms(i) * 1000);
		else
			buf_str(b, "+Inf");
		buf_printf(b, "\"} %llu\n", (unsigned long long)n);
	}
	buf_printf(b, "%s_sum ", name);
	put_seconds(b, t->took_us);
	buf_printf(b, "\n%s_count %llu\n", name, (unsigned long long)n);
}

/* Names and types as prometheus.io's "metric and label naming" has them. */
static void get_metrics(struct api *a, struct conn *c)
{
	struct buf *b = &c->body;

	if (!conn_large(&a->conns, c))
		return;
	buf_str(b, "# HELP omniarena_build_info The version.\n# TYPE omniarena_build_info gauge\nomniarena_build_info{version=\"" CONF_VERSION "\"} 1\n");
	put_metric(b, "audit_lost", false, "Events that found no room while the log can't be written.", a->audit->lost);
	put_metric(b, "audit_writable", false, "1 while the log can be written.", !a->audit->why[0]);
	put_metric(b, "running", false, "Commands that run.", a->jobs->running);
	put_metric(b, "queued", false, "Commands that wait for a jail.", a->jobs->queued);
	put_metric(b, "warm_cells", false, "Jails that are ready.", job_ready_cells(a->jobs));
	put_metric(b, "connections", false, "Open connections.", a->conns.open);
	put_metric(b, "agents", false, "Known agents.", a->agents->n);
	put_metric(b, "start_time_seconds", false, "Unix time of the start.", a->started_unix_ms / 1000);
	for (const struct counter *of = total_counters; of < total_counters + TOTAL_COUNTERS; of++)
		put_metric(b, of->name, true, of->help, counter_of(&a->agents->total, of));
	for (const struct counter *of = agent_counters; of < agent_counters + AGENT_COUNTERS; of++) {
		put_head(b, "agent_", of->name, true, of->help);
		for (size_t k = 0; k < a->agents->n; k++)
			buf_printf(b, "omniarena_agent_%s_total{agent=\"%s\"} %llu\n", of->name, a->agents->agent[k].name,
			           (unsigned long long)counter_of(&a->agents->agent[k], of));
	}
	put_histogram(b, &a->agents->total);
	conn_piece(c, PIECE_PLAIN, (struct str){b->p, b->n});
	conn_reply(&a->conns, c, 200, "text/plain; version=0.0.4; charset=utf-8", NULL);
}

/* ---- the warden's answers ---- */

static bool fetch_policy(struct api *a, uint32_t id)
{
	a->edits_asked = a->edits;
	return job_ask(a->jobs, MSG_FETCH, MSG_FETCH_POLICY, id, (struct str){NULL, 0});
}

void api_reload(struct api *a)
{
	if (!fetch_policy(a, NOBODY_WAITS))
		warn("the policy file can't be read now: the warden does not listen");
	a->audit->want = AUDIT_OPEN;
}

static void post_reload(struct api *a, struct conn *c)
{
	if (fetch_policy(a, c->id))
		conn_wait(&a->conns, c);
	else
		conn_refuse(&a->conns, c, E_NO_PLACE, "the warden can't be asked now");
}

void api_take_log(struct api *a, int fd, const char *why)
{
	bool first = !a->audit->opened;
	audit_take(a->audit, fd, why);
	if (first && a->audit->opened)
		api_note(a, AUDIT_START, "version " CONF_VERSION);
	if (fd < 0 || !*why)
		return;
	warn("%s: %s", a->conf->audit_log, why);
	api_note(a, AUDIT_CONFIG, why);
}

static void take_saved(struct api *a, struct conn *c, uint32_t what, const char *why)
{
	if (what == MSG_STATE && *why && !a->state_told)
		warn("the counters can't be saved: %s", why);
	if (what == MSG_STATE)
		a->state_told = *why;
	if (what == MSG_PASSWORD)
		a->purpose = STRETCH_NONE;
	if (what == MSG_PASSWORD && !*why)
		take_password(a, c);
	if (c && c->route->saved)
		c->route->saved(a, c, why);
	if (what == MSG_PASSWORD)
		next_login(a);
}

static void take_reloaded(struct api *a, struct conn *c, int fd, const char *missing)
{
	bool restart;
	char why[256] = "";
	/* edited while the file was on its way: it may be the one before */
	if (a->edits != a->edits_asked && fetch_policy(a, c ? c->id : NOBODY_WAITS))
		return;
	bool ok = take_policy(a, fd, missing, &restart, why, sizeof why);

	if (ok)
		api_note(a, AUDIT_CONFIG, "policy_reload");
	if (!c || !ok)
		warn("%s", ok ? "the policy file was read anew" : why);
	if (c && ok)
		reply_reload(a, c, restart);
	else if (c)
		conn_refuse(&a->conns, c, E_BAD_REQUEST, why);
}

void api_wall_answer(struct api *a)
{
	struct conn *c = conn_find(&a->conns, a->jobs->answer.id);
	uint32_t what = a->jobs->answer.what;
	int fd = a->jobs->answer.fd;
	char why[sizeof a->jobs->answer.why];

	memcpy(why, a->jobs->answer.why, sizeof why);
	if (c && (c->st != CONN_WAIT || c->has_job))
		c = NULL;
	a->jobs->answer.fd = -1;
	bool saved = a->jobs->answer.type == MSG_SAVED;
	a->jobs->answer.type = 0;
	if (saved) {
		take_saved(a, c, what, why);
	} else if (what == MSG_LOG_OPEN || what == MSG_LOG_MEND || what == MSG_LOG_ROTATE) {
		api_take_log(a, fd, why);
		fd = -1;
	} else if (what == MSG_LOG_READ && c) {
		reply_export(a, c, fd, why);
		fd = -1;
	} else if (what == MSG_FETCH_POLICY) {
		take_reloaded(a, c, fd, why);
	}
	if (fd >= 0)
		(void)close(fd); /* read only */
	if (c)
		process(a, c); /* what was pipelined behind it */
}

void api_save(struct api *a)
{
	static char text[MSG_ASK_MAX];
	struct buf b = {text, 0, sizeof text, false};

	agent_save(a->agents, &a->audit->written, &b);
	if (b.full || !job_ask(a->jobs, MSG_SAVE, MSG_STATE, NOBODY_WAITS, (struct str){b.p, b.n}))
		return; /* the next second asks again */
	a->agents->changed = false;
}

/* Another number whenever what event streams tell of health has changed. */
static uint64_t figures(const struct api *a)
{
	return a->audit->rows << 16 | a->jobs->running << 1 | a->jobs->view[a->jobs->profile].known; /* max_running is below 2^15 */
}

static void tick(struct api *a)
{
	a->ticked_ms = a->loop->now;
	audit_tick(a->audit);
	a->figures += a->counted != figures(a);
	a->counted = figures(a);
	if (a->agents->changed)
		api_save(a);
}

void api_timer(struct api *a, struct timer *t)
{
	struct conn *c;
	if (t->kind == API_TICK)
		tick(a);
	else if (t->kind != API_STRETCH /* which only wakes: api_turn goes on */ && (c = conn_find(&a->conns, t->id)))
		conn_timer(a, c);
}

/* ---- exec ---- */

static void count_blocked(struct api *a, struct agent *who)
{
	who->blocked++;
	a->agents->total.blocked++;
	a->agents->changed = true;
}

static void refuse_blocked(struct api *a, struct conn *c, struct agent *who, const struct job *j, const struct verdict *v)
{
	static const char *const texts[] = {
		[POLICY_OK] = "", [POLICY_BLACKLISTED] = "command blocked by blacklist", [POLICY_NOT_WHITELISTED] = "command blocked by whitelist",
		[POLICY_SYNTAX] = "command blocked: its syntax can't be read with certainty",
	};
	static const char results[][10] = {[POLICY_BLACKLISTED] = "BLACKLIST", [POLICY_NOT_WHITELISTED] = "WHITELIST", [POLICY_SYNTAX] = "SYNTAX"};
	struct audit_event e = {.kind = AUDIT_BLOCK, .result = results[v->code], .rule = v->rule, .program = v->program};

	count_blocked(a, who);
	job_name_words(j, &e);
	(void)audit_put(a->audit, &e);
	struct json_writer *w = conn_object(c);
	json_put(w, "ok:false error:%s code:%s", texts[v->code], policy_code_name(v->code));
	put_verdict(w, v);
	if (v->code == POLICY_NOT_WHITELISTED) {
		json_put(w, "allowed:[");
		put_list(w, a, POLICY_WHITE, 32, 31);
		json_put(w, "]");
	}
	conn_reply_object_as(&a->conns, c, 403, NULL);
}

/* What is to be run, for events about a request that is not judged. */
static struct str command_of(const struct exec *x)
{
	return x->field[F_CMD].kind != JSON_END ? json_unescape(x->field[F_CMD].text) : x->field[F_ARGV].text;
}

/* Rate and budget. False: it is answered. */
static bool may_run(struct api *a, struct conn *c, struct agent *who, const struct exec *x)
{
	uint64_t wait_s = agent_take(who, rate_limit(a, who->name), a->loop->now), budget = agent_budget(who, a->conf);

	if (wait_s) {
		refuse_rate(a, c, who, command_of(x), E_RATE, wait_s, "too many commands a minute for this agent (max_rate_per_agent)");
		return false;
	}
	if (budget == 0 || who->tokens_in + who->tokens_out < budget)
		return true;
	who->over_budget++;
	a->agents->total.over_budget++;
	refused(a, c, AUDIT_BUDGET, command_of(x), "OVER_BUDGET");
	conn_refuse(&a->conns, c, E_BUDGET, "this agent's token budget is spent");
	return false;
}

static struct agent *read_exec(struct api *a, struct conn *c, struct exec *x)
{
	struct agent *who;

	if (!conn_is_json(&a->conns, c) || conn_refuse_bad(&a->conns, c, exec_read(x, (struct str){c->body.p, c->body.n})))
		return NULL;
	if (!(who = register_agent(a, c)) || conn_refuse_bad(&a->conns, c, spend(a, c, who, x->model, x->tokens)))
		return NULL;
	return who;
}

/* j: the job that found no place in time, or NULL */
static void refuse_busy(struct api *a, struct conn *c, struct agent *who, const struct exec *x, const struct job *j)
{
	struct audit_event e = {.kind = AUDIT_RATE, .agent = who->name, .result = "BUSY"};
	if (j)
		job_name_words(j, &e);
	else
		e.cmd = command_of(x);
	(void)audit_put(a->audit, &e);
	who->rate_limited++;
	a->agents->total.rate_limited++;
	a->agents->changed = true;
	conn_refuse(&a->conns, c, E_BUSY, "too many commands are running; none ended within 2 s");
}

static void refuse_unlogged(struct api *a, struct conn *c)
{
	conn_refuse_why(&a->conns, c, E_AUDIT, "the audit log can't be written, and nothing runs without it:", a->audit->why);
}

/* Whether a filled job is one that may run. False: it is answered. */
static bool may_start(struct api *a, struct conn *c, struct job *j)
{
	static struct verdict v;

	exec_judge(a->policy, j, &v);
	j->would = v.would != POLICY_OK ? policy_code_name(v.would) : NULL;
	if (v.code != POLICY_OK)
		refuse_blocked(a, c, j->who, j, &v); /* what it names is in the job's text */
	else if (a->conf->require_isolation == CONF_KERNEL && strcmp(isolation(a), "kernel") != 0)
		conn_refuse(&a->conns, c, E_ISOLATION, "this host gives no kernel isolation, and require_isolation asks for it");
	else if (!audit_ready(a->audit))
		refuse_unlogged(a, c);
	else
		return true;
	return false;
}

/* Makes a new job of the request. False: it is none, which is answered. */
static bool fill_job(struct api *a, struct conn *c, struct exec *x, struct job *j)
{
	const struct json_token *asked = &x->field[F_PROFILE];
	uint32_t profile = profile_for(a, c);
	j->profile = asked->kind != JSON_END ? profile_of(asked) : profile;
	if (conn_refuse_bad(&a->conns, c, j->profile == CONF_PROFILES ? no_profile : NULL))
		return false;
	if (j->profile > profile) {
		conn_refuse(&a->conns, c, E_CAPABILITY, "a command may ask for a stricter profile than the one in force, not for a wider one");
		return false;
	}
	const char *why = exec_fill(x, j, timeout_of(a, conf_profile(j->profile)));

	if (why && x->unfit.n) { /* whoever sends such a thing is remembered */
		count_blocked(a, j->who);
		refused(a, c, AUDIT_BLOCK, x->unfit, "BAD_REQUEST");
	}
	if (conn_refuse_bad(&a->conns, c, why))
		return false;
	if (j->text.full)
		conn_refuse(&a->conns, c, E_TOO_LARGE, "'argv', 'env' and 'allow' together are larger than 128 KiB");
	return !j->text.full;
}

static void post_exec(struct api *a, struct conn *c)
{
	struct exec x;
	struct agent *who = read_exec(a, c, &x);
	struct job *j;

	if (!who || !may_run(a, c, who, &x))
		return;
	if (a->conns.draining) {
		conn_refuse(&a->conns, c, E_DRAINING, "the server is shutting down");
	} else if (!(j = job_new(a->jobs, c->id, who))) {
		refuse_busy(a, c, who, &x, NULL);
	} else if (!fill_job(a, c, &x, j) || !may_start(a, c, j)) {
		job_drop(a->jobs, j);
	} else {
		c->job = j->id;
		c->has_job = true;
		c->streaming = names(c->req.header[HTTP_ACCEPT], "text/event-stream") && (!c->call_n || c->token_n);
		a->conns.streams += c->streaming;
		conn_wait(&a->conns, c);
		job_start(a->jobs, j);
	}
}

/* How much of s ends with a whole character; all of it when nothing can follow, or when it is no UTF-8 anyway. */
static size_t whole(struct str s, bool ended)
{
	for (size_t back = 1; !ended && back <= 3 && back <= s.n; back++) {
		struct str last = {s.p + s.n - back, back};
		unsigned char lead = (unsigned char)last.p[0];
		if (lead >= 0xc0)
			return utf8_next(last) == -(int)back ? s.n - back : s.n;
	}
	return s.n;
}

/* What stands in the job's own room from there on becomes a piece: where the next one begins. */
static size_t add_tail(struct conn *c, const struct job *j, size_t from)
{
	conn_piece(c, PIECE_PLAIN, (struct str){j->tail.p + from, j->tail.n - from});
	return j->tail.n;
}

/* The object's end, behind both streams: into the job's own room, and from there into pieces. */
static void add_rest(struct conn *c, struct job *j, size_t from, const char *end)
{
	struct json_writer *w = &c->w;

	exec_put_rest(w, j, c->lossy[0], c->lossy[1]);
	if (j->wants || j->want_all) {
		json_put(w, "contents:{");
		from = add_tail(c, j, from);
		conn_piece(c, PIECE_PLAIN, (struct str){j->contents.p, j->contents.n});
		json_put(w, "} contents_absent:[");
		from = add_tail(c, j, from);
		conn_piece(c, PIECE_PLAIN, (struct str){j->absent.p, j->absent.n});
		json_put(w, "]");
	}
	json_put(w, "}");
	buf_str(&j->tail, end);
	(void)add_tail(c, j, from); /* the last one */
}

static bool is_cut(const struct job *j)
{
	return j->tail.full || j->contents.full || j->absent.full || j->denied.full;
}

static void begin_result(struct conn *c, const struct job *j, struct buf *b)
{
	struct json_writer *w = &c->w;
	char why[64];

	*w = (struct json_writer){.b = b};
	(void)text_printf(why, sizeof why, "timeout after %u ms", j->timeout_ms); /* fits */
	json_put(w, j->outcome == JOB_TIMED_OUT ? "{ok:false error:%s" : "{ok:true", why);
	if (j->would)
		json_put(w, "would_block:%s", j->would);
}

/* A result that is sent twice, with so many bytes of each stream; where it is too much, the body says so. */
static void put_call(struct conn *c, struct job *j, size_t most)
{
	struct json_writer *w = &c->w;
	struct buf *of[] = {&j->out, &j->err};

	begin_result(c, j, &c->body);
	for (int i = 0; i < 2; i++) {
		if (of[i]->n > most)
			of[i]->n = whole((struct str){of[i]->p, most}, false);
		struct str s = {of[i]->p, of[i]->n};
		json_key(w, i ? "stderr" : "stdout");
		if (!j->base64) {
			c->lossy[i] = !json_string(w, s);
			continue;
		}
		json_elsewhere(w);
		buf_str(&c->body, "\"");
		(void)json_base64(&c->body, s); /* where it does not fit, nor does the rest */
		buf_str(&c->body, "\"");
		c->lossy[i] = false;
	}
	exec_put_rest(w, j, c->lossy[0], c->lossy[1]);
	if (j->wants || j->want_all) {
		json_put(w, "contents:{");
		buf_put(&c->body, j->contents.p, j->contents.n);
		json_put(w, "} contents_absent:[");
		buf_put(&c->body, j->absent.p, j->absent.n);
		json_put(w, "]");
	}
}

/* The same for who called over MCP, in one piece, as it is sent twice. */
static void reply_call(struct api *a, struct conn *c, struct job *j)
{
	if (!conn_large(&a->conns, c))
		return;
	size_t most = CALL_OUTPUT;
	do { /* escaped, and with files, both may be too much */
		c->body.n = 0;
		c->body.full = false;
		put_call(c, j, most);
	} while ((c->body.full || c->body.n + 2 > c->body.cap) && (most /= 8));
	if (is_cut(j))
		conn_refuse(&a->conns, c, E_INTERNAL, "the reply does not fit");
	else
		conn_reply_object(&a->conns, c);
}

static void reply_result(struct api *a, struct conn *c, struct job *j)
{
	struct json_writer *w = &c->w;
	struct str out = {j->out.p, j->out.n}, err = {j->err.p, j->err.n};
	int kind = j->base64 ? PIECE_BASE64 : PIECE_JSON;

	c->lossy[0] = c->lossy[1] = false;
	if (!j->base64) {
		(void)json_escaped_len(out, &c->lossy[0]); /* asked for the second result alone */
		(void)json_escaped_len(err, &c->lossy[1]);
	}
	begin_result(c, j, &c->text);
	json_key(w, "stdout");
	json_elsewhere(w);
	conn_piece(c, PIECE_PLAIN, (struct str){c->text.p, c->text.n});
	conn_piece(c, kind, out);
	w->b = &j->tail;
	json_key(w, "stderr");
	json_elsewhere(w);
	conn_piece(c, PIECE_PLAIN, (struct str){j->tail.p, j->tail.n});
	conn_piece(c, kind, err);
	add_rest(c, j, j->tail.n, "\n");
	if (is_cut(j)) {
		c->pieces = 0;
		conn_refuse(&a->conns, c, E_INTERNAL, "the reply does not fit");
		return;
	}
	conn_reply(&a->conns, c, 200, "application/json", NULL);
}

/* ---- exec as a stream ---- */

/* The next piece of an output as an event, as far as there is room. False: there is nothing, or no room. */
static bool put_output(struct conn *c, const struct job *j, bool is_err)
{
	const struct buf *b = is_err ? &j->err : &j->out;
	size_t *at = is_err ? &c->err_at : &c->out_at, room = c->out.cap - c->out.n;
	bool ended = (j->ended & (is_err ? JOB_ERR_EOF : JOB_OUT_EOF)) || j->st == JOB_TOLD || b->n == b->cap;
	struct str s = {b->p + *at, b->n - *at};

	if (s.n > CONN_OUT / 8)
		s.n = CONN_OUT / 8, ended = false;
	s.n = j->base64 ? (ended ? s.n : s.n / 3 * 3) : whole(s, ended);
	if (s.n == 0 || room < 64 + 6 * s.n)
		return false;
	buf_printf(&c->out, "event: %s\ndata: {\"data\":\"", is_err ? "stderr" : "stdout");
	(void)(j->base64 ? json_base64(&c->out, s) : json_escape(&c->out, s, &c->lossy[is_err])); /* fits: at most six bytes for each */
	buf_str(&c->out, "\"}\n\n");
	*at += s.n;
	return true;
}

static void end_exec(struct api *a, struct conn *c, struct job *j)
{
	static const char died[] = "event: error\ndata: {\"error\":\"the jail died before it could tell how the command ended\",\"code\":\"internal\"}\n\n";

	buf_str(&j->tail, "event: exit\ndata: ");
	if (j->outcome <= JOB_TIMED_OUT) {
		begin_result(c, j, &j->tail);
		add_rest(c, j, 0, "\n\n");
	}
	if (j->outcome > JOB_TIMED_OUT || is_cut(j)) {
		c->pieces = 0;
		conn_piece(c, PIECE_PLAIN, str_of(died));
	}
	conn_end_stream(&a->conns, c);
}

static void pump_exec(struct api *a, struct conn *c)
{
	struct job *j = job_find(a->jobs, c->job);

	if (!j || (c->st != CONN_STREAM && j->st == JOB_QUEUED))
		return;
	if (c->st != CONN_STREAM) {
		c->lossy[0] = c->lossy[1] = false;
		conn_stream(&a->conns, c);
	}
	do
		while (put_output(c, j, false) || put_output(c, j, true))
			;
	while (c->out.n && conn_push(&a->conns, c) && c->out.n == 0);
	if (c->st == CONN_STREAM && j->st == JOB_TOLD && c->out.n == 0 && c->out_at == j->out.n && c->err_at == j->err.n)
		end_exec(a, c, j);
}

/* A call that is answered with events: that the command runs, then how far it is; the result is api_job_done's. */
static void pump_call(struct api *a, struct conn *c)
{
	struct job *j = job_find(a->jobs, c->job);

	if (!j || j->st != JOB_RUN)
		return;
	if (c->st != CONN_STREAM) {
		conn_stream(&a->conns, c);
		c->told_ms = a->loop->now;
	}
	if (j->out_bytes + j->err_bytes > c->out_at && c->out.n == 0 && put_progress(a, c))
		c->out_at = j->out_bytes + j->err_bytes;
	if (c->out.n)
		(void)conn_push(&a->conns, c);
}

void api_job_done(struct api *a, struct job *j)
{
	struct conn *c = conn_find(&a->conns, j->conn);

	if (!c || (c->st != CONN_WAIT && c->st != CONN_STREAM)) {
		job_drop(a->jobs, j);
		return;
	}
	if (!c->call_n && (c->st == CONN_STREAM || (c->streaming && j->outcome <= JOB_TIMED_OUT))) {
		pump_exec(a, c);
		return;
	}
	switch (j->outcome) {
	case JOB_RAN:
	case JOB_TIMED_OUT:
		(c->call_n ? reply_call : reply_result)(a, c, j);
		break;
	case JOB_BUSY:
		refuse_busy(a, c, j->who, NULL, j);
		break;
	case JOB_TOO_LARGE:
		conn_refuse(&a->conns, c, E_TOO_LARGE, "the command is larger than this host's socket buffers (net.core.wmem_max)");
		break;
	case JOB_DRAINED:
		conn_refuse(&a->conns, c, E_DRAINING, "the server is shutting down");
		break;
	case JOB_CELL_DIED:
		conn_refuse(&a->conns, c, E_INTERNAL, "the jail died before it could tell how the command ended");
		break;
	case JOB_NO_LOG:
		refuse_unlogged(a, c);
		break;
	case JOB_NO_CELL:
		conn_refuse_why(&a->conns, c, E_ISOLATION, "no jail could be made:", a->jobs->lost ? "the warden is gone" : a->jobs->why);
		break;
	}
	process(a, c); /* what was pipelined behind it */
}

/* ---- MCP ---- */

/* Of a call that this session made, nothing is wanted any more: no answer either. */
static void cancel_call(struct api *a, const struct mcp *m)
{
	for (size_t i = 0; i < a->conns.conns; i++) {
		struct conn *c = &a->conns.conn[i];
		if (c->st != CONN_FREE && c->has_job && c->call_n == m->id.n && c->session == m->session && memcmp(c->call, m->id.p, m->id.n) == 0)
			conn_close(&a->conns, c);
	}
}

/* What 'audit' is given, as its path has it. False: it is wrong, which is answered. */
static bool audit_query(struct api *a, struct conn *c)
{
	static const struct json_field known[] = {
		{"limit", JSON_NUMBER, "'limit' must be a number"}, {"after", JSON_NUMBER, "'after' must be a number"}, {"agent", JSON_STRING, "'agent' must be a name"},
	};
	static char query[256];
	struct json_token f[countof(known)];
	struct buf b = {query, 0, sizeof query, false};

	if (!conn_fields(&a->conns, c, known, countof(known), f))
		return false;
	for (size_t i = 0; i < countof(known); i++)
		if (f[i].kind != JSON_END)
			buf_printf(&b, "%s=%.*s&", known[i].name, (int)f[i].text.n, f[i].text.p);
	bool name = f[2].kind == JSON_END || conf_is_name(f[2].text);
	c->req.query = (struct str){b.p, b.n};
	return !conn_refuse_bad(&a->conns, c, !name ? known[2].needs : b.full ? "these numbers are too long" : NULL);
}

static void call_tool(struct api *a, struct conn *c, const struct mcp *m)
{
	static handler *const tools[MCP_TOOLS] = {
		[MCP_EXEC] = post_exec, [MCP_CHECK_COMMAND] = post_test, [MCP_AUDIT] = get_audit, [MCP_HEALTH] = get_health,
	};
	static char none[] = "{}";

	memcpy(c->call, m->id.p, m->id.n);
	c->call_n = (uint8_t)m->id.n;
	if (m->token.n)
		memcpy(c->token, m->token.p, m->token.n);
	c->token_n = (uint8_t)m->token.n;
	c->session = m->session;
	/* what a tool is given is what its path's body would be */
	char *arguments = m->arguments.p ? c->body.p + (m->arguments.p - c->body.p) : none; /* they are a part of it */
	size_t n = m->arguments.p ? m->arguments.n : sizeof none - 1;
	c->body = (struct buf){arguments, n, n, false};
	if (m->tool != MCP_AUDIT || audit_query(a, c))
		tools[m->tool](a, c);
}

static void any_mcp(struct api *a, struct conn *c)
{
	struct mcp m;
	char session[128] = "";

	if (c->req.method == HTTP_DELETE) {
		if (mcp_end(&a->mcp, &c->req))
			conn_reply(&a->conns, c, 204, NULL, NULL);
		else
			conn_refuse(&a->conns, c, E_NOT_FOUND, "there is no such session");
		return;
	}
	switch (mcp_read(&a->mcp, &c->req, (struct str){c->body.p, c->body.n}, &m, &c->text)) {
	case MCP_CALL:
		call_tool(a, c, &m);
		break;
	case MCP_ANSWER:
		if (m.begins) {
			struct str name = mcp_session_name(&a->mcp, m.session);
			(void)text_printf(session, sizeof session, "Mcp-Session-Id: %.*s\r\n", (int)name.n, name.p);
		}
		conn_reply_text(&a->conns, c, m.status, "application/json", session);
		break;
	case MCP_CANCEL:
		cancel_call(a, &m);
		conn_reply(&a->conns, c, m.status, NULL, NULL);
		break;
	case MCP_ACCEPTED:
		conn_reply(&a->conns, c, m.status, NULL, NULL);
		break;
	}
}

/* ---- once a turn ---- */

static void pump(struct api *a)
{
	for (size_t i = 0; i < a->conns.conns; i++) {
		struct conn *c = &a->conns.conn[i];
		if (c->has_job && c->streaming && (c->st == CONN_STREAM || c->st == CONN_WAIT))
			(c->call_n ? pump_call : pump_exec)(a, c);
		else if (c->st == CONN_STREAM && !c->has_job)
			pump_events(a, c);
	}
}

void api_turn(struct api *a)
{
	static const uint32_t fetch[] = {[AUDIT_OPEN] = MSG_LOG_OPEN, [AUDIT_MEND] = MSG_LOG_MEND, [AUDIT_ROTATE] = MSG_LOG_ROTATE};

	bool stretching = a->purpose && a->purpose != STRETCH_SAVE;
	if (stretching && pbkdf2_go(&a->pbkdf2, SLICE))
		stretched(a);
	else if (stretching)
		loop_timer(a->loop, &a->stretch, 0);
	if (a->conns.streams)
		pump(a);
	if (a->audit->want && job_ask(a->jobs, MSG_FETCH, fetch[a->audit->want], NOBODY_WAITS, (struct str){NULL, 0}))
		a->audit->want = AUDIT_NOTHING;
	bool busy = a->agents->changed || a->audit->used || a->audit->why[0] || a->audit->want || (a->conns.streams && a->counted != figures(a));
	uint64_t due = a->ticked_ms + TICK_MS, now = a->loop->now;
	if (busy && a->tick.place < 0)
		loop_timer(a->loop, &a->tick, due > now ? due - now : 0);
}
