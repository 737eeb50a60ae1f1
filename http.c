/* L1 pure: HTTP/1.1 messages, memory to memory (RFC 9110, RFC 9112).
 * Strict where two readers of the same bytes could disagree: that is what request smuggling
 * lives on. A line ends in CRLF and nothing else. */
#include "http.h"

#include <string.h>

static const struct { char name[21]; bool list; } headers[HTTP_HEADER_COUNT] = {
	[HTTP_HOST] = {"host", false},
	[HTTP_AUTHORIZATION] = {"authorization", false},
	[HTTP_CONTENT_LENGTH] = {"content-length", false},
	[HTTP_TRANSFER_ENCODING] = {"transfer-encoding", false},
	[HTTP_EXPECT] = {"expect", false},
	[HTTP_ORIGIN] = {"origin", false},
	[HTTP_CONNECTION] = {"connection", true},
	[HTTP_X_AGENT] = {"x-agent", false},
	[HTTP_X_MODEL] = {"x-model", false},
	[HTTP_X_TOKENS_IN] = {"x-tokens-in", false},
	[HTTP_X_TOKENS_OUT] = {"x-tokens-out", false},
	[HTTP_ACCEPT] = {"accept", true},
	[HTTP_ACCEPT_ENCODING] = {"accept-encoding", true},
	[HTTP_LAST_EVENT_ID] = {"last-event-id", false},
	[HTTP_MCP_VERSION] = {"mcp-protocol-version", false},
	[HTTP_MCP_METHOD] = {"mcp-method", false},
	[HTTP_MCP_NAME] = {"mcp-name", false},
	[HTTP_MCP_SESSION_ID] = {"mcp-session-id", false},
};

static const struct { char name[8]; enum http_method method; } methods[] = {
	{"GET", HTTP_GET}, {"HEAD", HTTP_HEAD}, {"POST", HTTP_POST}, {"DELETE", HTTP_DELETE},
	{"OPTIONS", HTTP_OPTIONS}, {"PUT", HTTP_OTHER}, {"PATCH", HTTP_OTHER},
};

static const struct { short status; char reason[32]; } reasons[] = {
	{200, "OK"}, {202, "Accepted"}, {204, "No Content"}, {400, "Bad Request"}, {401, "Unauthorized"}, {403, "Forbidden"},
	{404, "Not Found"}, {405, "Method Not Allowed"}, {406, "Not Acceptable"}, {408, "Request Timeout"}, {413, "Content Too Large"},
	{414, "URI Too Long"}, {417, "Expectation Failed"}, {429, "Too Many Requests"},
	{431, "Request Header Fields Too Large"}, {500, "Internal Server Error"}, {501, "Not Implemented"},
	{503, "Service Unavailable"}, {505, "HTTP Version Not Supported"},
};

const char *http_reason(int status)
{
	for (size_t i = 0; i < countof(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Unknown";
}

static int refuse(struct http_req *r, int status, const char *error)
{
	r->error = error;
	return status;
}

static bool is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* No field value has these (RFC 9110 section 5.5). */
static bool is_control(char c)
{
	return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

/* Letters, digits and what else is allowed, at least one. */
static bool consists_of(struct str s, const char *also)
{
	for (size_t i = 0; i < s.n; i++)
		if (!is_alnum(s.p[i]) && (s.p[i] == '\0' || !strchr(also, s.p[i])))
			return false;
	return s.n > 0;
}

/* RFC 9110 section 5.6.2 */
static bool is_token(struct str s)
{
	return consists_of(s, "!#$%&'*+-.^_`|~");
}

struct str http_host(struct str authority)
{
	bool literal = authority.n && authority.p[0] == '[';
	const char *end = memchr(authority.p, literal ? ']' : ':', authority.n);
	size_t n = end ? (size_t)(end - authority.p) + literal : authority.n;
	struct str host = {authority.p, n}, port = {authority.p + n, authority.n - n}, none = {NULL, 0};
	uint64_t v;

	for (size_t i = 0; i < host.n; i++) /* "%" HEXDIG HEXDIG */
		if (host.p[i] == '%' && (i + 2 >= host.n || hex_digit(host.p[i + 1]) < 0 || hex_digit(host.p[i + 2]) < 0))
			return none;
	if (literal ? !end || !consists_of((struct str){host.p + 1, n - 2}, ":.") : !consists_of(host, "-._~%!$&'()*+,;="))
		return none;
	if (port.n && (port.p[0] != ':' || (port.n > 1 && !str_uint((struct str){port.p + 1, port.n - 1}, UINT16_MAX, &v))))
		return none;
	return host;
}

static bool starts(struct str s, const char *prefix)
{
	size_t n = strlen(prefix);
	return s.n >= n && memcmp(s.p, prefix, n) == 0;
}

/* origin-form, or absolute-form, whose authority stands for Host; asterisk-form for OPTIONS alone
 * (RFC 9112 section 3.2) */
static int parse_target(struct http_req *r, struct str t)
{
	r->query = (struct str){t.p, 0};
	if (str_eq(t, "*") && r->method == HTTP_OPTIONS) {
		r->path = t;
		return HTTP_MORE;
	}
	if (t.n > 7 && str_ieq((struct str){t.p, 7}, "http://")) {
		r->authority = (struct str){t.p + 7, 0};
		while (7 + r->authority.n < t.n && t.p[7 + r->authority.n] != '/' && t.p[7 + r->authority.n] != '?')
			r->authority.n++;
		t = (struct str){t.p + 7 + r->authority.n, t.n - 7 - r->authority.n};
		if (t.n == 0 || t.p[0] == '?') { /* an empty path is "/", RFC 9110 section 4.2.3 */
			r->path = str_of("/");
			r->query = (struct str){t.p + (t.n > 0), t.n - (t.n > 0)};
			return HTTP_MORE;
		}
	}
	if (t.n == 0 || t.p[0] != '/')
		return refuse(r, 400, "the request target must start with '/'");
	const char *q = memchr(t.p, '?', t.n);
	r->path = (struct str){t.p, q ? (size_t)(q - t.p) : t.n};
	if (q)
		r->query = (struct str){q + 1, t.n - r->path.n - 1};
	return HTTP_MORE;
}

static int request_line(struct http_req *r, struct str l)
{
	const char *sp1 = memchr(l.p, ' ', l.n);
	if (!sp1)
		return refuse(r, 400, "malformed request line");
	struct str method = {l.p, (size_t)(sp1 - l.p)};
	struct str rest = {sp1 + 1, l.n - method.n - 1};
	const char *sp2 = memchr(rest.p, ' ', rest.n);
	if (!is_token(method) || !sp2)
		return refuse(r, 400, "malformed request line");
	struct str target = {rest.p, (size_t)(sp2 - rest.p)};
	struct str version = {sp2 + 1, rest.n - target.n - 1};
	for (size_t i = 0; i < target.n; i++)
		if (target.p[i] <= ' ' || target.p[i] >= 0x7f || target.p[i] == '#')
			return refuse(r, 400, "a character in the request target is not allowed there");
	if (version.n != 8 || !starts(version, "HTTP/") || version.p[6] != '.' ||
	    version.p[5] < '0' || version.p[5] > '9' || version.p[7] < '0' || version.p[7] > '9')
		return refuse(r, 400, "malformed HTTP version");
	if (version.p[5] != '1')
		return refuse(r, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
	r->http10 = version.p[7] == '0';
	r->keep_alive = !r->http10;
	for (size_t i = 0; i < countof(methods); i++)
		if (str_eq(method, methods[i].name))
			r->method = methods[i].method;
	if (!r->method)
		return refuse(r, 501, "unknown method");
	return parse_target(r, target);
}

static int header_line(struct http_req *r, struct str l)
{
	const char *colon = memchr(l.p, ':', l.n);
	/* a blank before the colon or at the line's start (obs-fold) is no token */
	struct str name = {l.p, colon ? (size_t)(colon - l.p) : 0};
	struct str v, list;

	if (!is_token(name))
		return refuse(r, 400, "malformed header line");
	list = (struct str){colon + 1, l.n - name.n - 1};
	for (size_t i = 0; i < list.n; i++)
		if (is_control(list.p[i]))
			return refuse(r, 400, "control character in a header");
	v = list;
	while (v.n && (v.p[0] == ' ' || v.p[0] == '\t'))
		v.p++, v.n--;
	while (v.n && (v.p[v.n - 1] == ' ' || v.p[v.n - 1] == '\t'))
		v.n--;
	for (size_t h = 0; h < HTTP_HEADER_COUNT; h++) {
		if (!str_ieq(name, headers[h].name))
			continue;
		if (r->header[h].p && !headers[h].list)
			return refuse(r, 400, "a header that may stand once stands twice");
		r->header[h] = v;
	}
	while (str_ieq(name, "connection") && str_next(&list, &v)) {
		r->says_close = r->says_close || str_ieq(v, "close"); /* wins, RFC 9112 section 9.3 */
		r->keep_alive = !r->says_close && (!r->http10 || r->keep_alive || str_ieq(v, "keep-alive"));
	}
	return HTTP_MORE;
}

/* What the headers say together, once all are there. */
static int finish(struct http_req *r)
{
	struct str te = r->header[HTTP_TRANSFER_ENCODING], cl = r->header[HTTP_CONTENT_LENGTH];
	struct str *host = &r->header[HTTP_HOST], expect = r->header[HTTP_EXPECT], coding = te;

	if (host->p ? !http_host(*host).p : !r->http10)
		return refuse(r, 400, host->p ? "malformed Host header" : "the Host header is missing");
	if (r->authority.p) { /* what Host says is then ignored, RFC 9112 section 3.2.2 */
		if (!http_host(r->authority).p)
			return refuse(r, 400, "malformed host in the request target");
		*host = r->authority;
	}
	if (te.p && cl.p)
		return refuse(r, 400, "Transfer-Encoding and Content-Length in one request");
	if (te.p && r->http10)
		return refuse(r, 400, "Transfer-Encoding in an HTTP/1.0 request");
	for (struct str rest = te; str_next(&rest, &coding);)
		;
	if (te.p && !str_ieq(coding, "chunked")) /* where it ends can't be known: section 6.3 */
		return refuse(r, 400, "the last transfer coding must be chunked");
	if (te.p && !str_ieq(te, "chunked"))
		return refuse(r, 501, "the only transfer coding spoken here is chunked");
	if (cl.p && !str_uint(cl, UINT64_MAX / 2, &r->length))
		return refuse(r, 400, "malformed Content-Length");
	if (r->length > HTTP_BODY_MAX)
		return refuse(r, 413, "the body is larger than 2 MiB");
	if (expect.p && !str_ieq(expect, "100-continue"))
		return refuse(r, 417, "the only expectation met here is 100-continue");
	r->chunked = te.p != NULL;
	r->has_length = cl.p != NULL;
	r->expect_continue = expect.p && !r->http10; /* an HTTP/1.0 client can't wait (RFC 9110 10.1.1) */
	r->head_len = r->line;
	return HTTP_DONE;
}

static int one_line(struct http_req *r, struct str l)
{
	if (r->lines == 0 && l.n == 0 && r->line == 2)
		return HTTP_MORE; /* one empty line ahead is forgiven (RFC 9112 section 2.2) */
	if (r->lines++ == 0)
		return request_line(r, l);
	if (l.n == 0)
		return finish(r);
	if (r->lines > HTTP_HEADERS_MAX + 1)
		return refuse(r, 431, "too many headers");
	return header_line(r, l);
}

int http_parse(struct http_req *r, struct str in)
{
	size_t end = in.n < HTTP_HEAD_MAX ? in.n : HTTP_HEAD_MAX;

	while (r->scan < end) {
		char c = in.p[r->scan++];
		size_t n = r->scan - r->line;
		if (c == '\0')
			return refuse(r, 400, "NUL byte in the request's head");
		if (n > 1 && in.p[r->scan - 2] == '\r' ? c != '\n' : c == '\n')
			return refuse(r, 400, "a line must end in CR LF, and neither may stand alone");
		if (n > HTTP_LINE_MAX)
			return refuse(r, r->lines ? 431 : 414, r->lines ? "header line too long" : "request line too long");
		if (c != '\n')
			continue;
		struct str l = {in.p + r->line, n - 2};
		r->line = r->scan;
		int rc = one_line(r, l);
		if (rc != HTTP_MORE)
			return rc;
	}
	if (end == HTTP_HEAD_MAX)
		return refuse(r, 431, "the request's head is larger than 16 KiB");
	return HTTP_MORE;
}

enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_VALUE, TRAILER_LF };
/* Chunk extensions and trailers mean nothing here; together they may be this long, or a client
 * could send 250 bytes of them for each byte that counts. */
enum { EXTRA_MAX = 16384 };

/* One byte outside of data: HTTP_MORE, HTTP_DONE or 400. c->line counts what the line has so far. */
static int chunk_byte(struct http_chunks *c, char ch)
{
	int digit = hex_digit(ch);

	switch (c->state) {
	case SIZE:
		if (digit >= 0 && c->line < 8) {
			c->left = c->left << 4 | (unsigned)digit;
			c->line++;
			return HTTP_MORE;
		}
		if (c->line == 0 || digit >= 0)
			return 400;
		c->state = ch == '\r' ? SIZE_LF : EXTENSION;
		return ch == '\r' || ch == ';' ? HTTP_MORE : 400;
	case EXTENSION:
	case TRAILER_VALUE:
		if (ch == '\r')
			c->state = c->state == EXTENSION ? SIZE_LF : TRAILER_LF;
		else if (is_control(ch) || ++c->extra > EXTRA_MAX)
			return 400;
		return HTTP_MORE;
	case SIZE_LF:
		c->state = c->left ? DATA : TRAILER;
		c->line = 0;
		return ch == '\n' ? HTTP_MORE : 400;
	case DATA_CR:
		c->state = DATA_LF;
		return ch == '\r' ? HTTP_MORE : 400;
	case DATA_LF:
		c->state = SIZE;
		return ch == '\n' ? HTTP_MORE : 400;
	case TRAILER: /* as strict as a header line, or the next request's start could pass for one */
		if (ch == '\r' && c->line == 0)
			c->state = TRAILER_LF;
		else if (ch == ':' && c->line)
			c->state = TRAILER_VALUE;
		else if (!is_token((struct str){&ch, 1}) || ++c->extra > EXTRA_MAX)
			return 400;
		else
			c->line++;
		return HTTP_MORE;
	default: /* TRAILER_LF */
		if (ch != '\n')
			return 400;
		c->state = TRAILER;
		if (c->line == 0)
			return HTTP_DONE;
		c->line = 0;
		return HTTP_MORE;
	}
}

int http_dechunk(struct http_chunks *c, const char *in, size_t *n, struct buf *out)
{
	size_t at = 0;
	int rc = HTTP_MORE;

	while (at < *n && rc == HTTP_MORE) {
		if (c->state != DATA) {
			rc = chunk_byte(c, in[at++]);
			continue;
		}
		if (c->left > out->cap - out->n) {
			rc = 413;
			break;
		}
		size_t take = *n - at < c->left ? *n - at : (size_t)c->left;
		memmove(out->p + out->n, in + at, take);
		out->n += take;
		at += take;
		c->left -= take;
		if (c->left == 0)
			c->state = DATA_CR;
	}
	*n = at;
	return rc;
}

void http_head(struct buf *b, const struct http_reply *r)
{
	buf_printf(b, "HTTP/1.1 %d %s\r\n", r->status, http_reason(r->status));
	if (r->date)
		buf_printf(b, "Date: %s\r\n", r->date);
	if (r->type)
		buf_printf(b, "Content-Type: %s\r\n", r->type);
	if (r->status != 204 && !r->stream) /* RFC 9110 section 8.6 forbids a length there */
		buf_printf(b, "Content-Length: %llu\r\n", (unsigned long long)r->length);
	buf_str(b, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
	if (r->origin.n)
		buf_printf(b, "Access-Control-Allow-Origin: %.*s\r\nAccess-Control-Expose-Headers: Retry-After, Mcp-Session-Id\r\nVary: Origin\r\n", (int)r->origin.n, r->origin.p);
	if (r->extra)
		buf_str(b, r->extra);
	if (r->close)
		buf_str(b, "Connection: close\r\n");
	else if (r->http10)
		buf_str(b, "Connection: keep-alive\r\n");
	buf_str(b, "\r\n");
}
