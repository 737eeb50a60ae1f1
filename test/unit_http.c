/* http.c against RFC 9110 and RFC 9112: each text is fed whole, as every prefix, and byte by byte;
 * it ends at a guard page. Where the RFC leaves a choice the row has both statuses. */
#include <stdint.h>

#include "../http.h"
#include "unit.h"

/* n bytes that end at a guard page, one place a slot; text, if given, is copied there */
static char *edge(unsigned slot, const char *text, size_t n)
{
	enum { ROOM = 1 << 16 };
	static char *place[3];
	if (!place[slot])
		place[slot] = guard_new(ROOM);
	char *p = place[slot] + ROOM - n;
	return n && text ? memcpy(p, text, n) : p;
}

#define H "\r\nHost: h\r\n"
#define GET "GET / HTTP/1.1" H
#define POST "POST / HTTP/1.1" H
#define HOST(value) "GET / HTTP/1.1\r\nHost: " value "\r\n\r\n"
#define NUL_AT '\1' /* stands for a NUL byte in the tables */

/* flags: 0 HTTP/1.0, k keep-alive, c chunked, e expect-continue, l Content-Length given */
static const struct good { const char *text; enum http_method method; const char *path, *query, *flags; unsigned length; } goods[] = {
	{GET "\r\n", HTTP_GET, "/", "", "k", 0},
	{"\r\n" GET "\r\n", HTTP_GET, "/", "", "k", 0}, /* RFC 9112 2.2: one empty line is ignored */
	{"HEAD /a/b?c=d?e&f HTTP/1.1" H "\r\n", HTTP_HEAD, "/a/b", "c=d?e&f", "k", 0},
	{"DELETE /? HTTP/1.1" H "\r\n", HTTP_DELETE, "/", "", "k", 0},
	{"OPTIONS * HTTP/1.1" H "\r\n", HTTP_OPTIONS, "*", "", "k", 0},
	{"OPTIONS /x HTTP/1.1" H "\r\n", HTTP_OPTIONS, "/x", "", "k", 0},
	{"PUT / HTTP/1.1" H "\r\n", HTTP_OTHER, "/", "", "k", 0},
	{"PATCH / HTTP/1.1" H "\r\n", HTTP_OTHER, "/", "", "k", 0},
	{"GET /%41%2f%00?%26 HTTP/1.1" H "\r\n", HTTP_GET, "/%41%2f%00", "%26", "k", 0}, /* not decoded here */
	{"GET //a/../b HTTP/1.1" H "\r\n", HTTP_GET, "//a/../b", "", "k", 0},
	/* absolute-form: a server MUST accept it (3.2.2); the scheme has no case (RFC 3986 3.1) and an empty
	 * path is "/" (RFC 9110 4.2.3) */
	{"GET http://h/p?q HTTP/1.1" H "\r\n", HTTP_GET, "/p", "q", "k", 0},
	{"GET http://h:80/ HTTP/1.1\r\nHost: h:80\r\n\r\n", HTTP_GET, "/", "", "k", 0},
	{"GET HTTP://h/p HTTP/1.1" H "\r\n", HTTP_GET, "/p", "", "k", 0},
	{"GET http://h HTTP/1.1" H "\r\n", HTTP_GET, "/", "", "k", 0},
	{"GET http://h?q HTTP/1.1" H "\r\n", HTTP_GET, "/", "q", "k", 0},
	{"GET http://h?q/api HTTP/1.1" H "\r\n", HTTP_GET, "/", "q/api", "k", 0},
	{"GET / HTTP/1.0\r\n\r\n", HTTP_GET, "/", "", "0", 0},
	{"GET / HTTP/1.0" H "\r\n", HTTP_GET, "/", "", "0", 0},
	{"GET / HTTP/1.2" H "\r\n", HTTP_GET, "/", "", "k", 0}, /* RFC 9110 2.5: read as 1.1 */
	{"GET / HTTP/1.9" H "\r\n", HTTP_GET, "/", "", "k", 0},
	/* 9.3: 1.1 stays unless close, 1.0 goes unless keep-alive; close wins wherever it stands */
	{GET "Connection: close\r\n\r\n", HTTP_GET, "/", "", "", 0},
	{GET "Connection: CLOSE\r\n\r\n", HTTP_GET, "/", "", "", 0},
	{GET "Connection: keep-alive\r\n\r\n", HTTP_GET, "/", "", "k", 0},
	{GET "Connection: upgrade , \tClose,,x\r\n\r\n", HTTP_GET, "/", "", "", 0},
	{GET "Connection: close\r\nConnection: keep-alive\r\n\r\n", HTTP_GET, "/", "", "", 0},
	{GET "Connection: x\r\nconnection: close\r\n\r\n", HTTP_GET, "/", "", "", 0},
	{GET "Connection: closed, not-close\r\n\r\n", HTTP_GET, "/", "", "k", 0},
	{GET "Connection:\r\n\r\n", HTTP_GET, "/", "", "k", 0},
	{GET "X-Connection: close\r\n\r\n", HTTP_GET, "/", "", "k", 0},
	{"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", HTTP_GET, "/", "", "0k", 0},
	{"GET / HTTP/1.0\r\nConnection: x, keep-alive\r\n\r\n", HTTP_GET, "/", "", "0k", 0},
	{"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", HTTP_GET, "/", "", "0", 0},
	{"GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n", HTTP_GET, "/", "", "0", 0},
	{"GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", HTTP_GET, "/", "", "0", 0},
	{POST "Content-Length: 5\r\n\r\n", HTTP_POST, "/", "", "kl", 5},
	{POST "content-LENGTH:0\r\n\r\n", HTTP_POST, "/", "", "kl", 0},
	{POST "Content-Length: \t 007 \t\r\n\r\n", HTTP_POST, "/", "", "kl", 7},
	{GET "Content-Length: 2\r\n\r\n", HTTP_GET, "/", "", "kl", 2}, /* a body is framed, whatever the method */
	{POST "\r\n", HTTP_POST, "/", "", "k", 0},                      /* 6.3: neither header: no body */
	{POST "Transfer-Encoding: chunked\r\n\r\n", HTTP_POST, "/", "", "kc", 0},
	{POST "Transfer-Encoding:\tChunKED \r\n\r\n", HTTP_POST, "/", "", "kc", 0},
	{POST "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n", HTTP_POST, "/", "", "kle", 3},
	{POST "Content-Length: 3\r\nExpect: 100-Continue\r\n\r\n", HTTP_POST, "/", "", "kle", 3},
	{"POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", HTTP_POST, "/", "", "0l", 3}, /* RFC 9110 10.1.1: ignored */
	{GET "Empty:\r\nObs: \xe9\xff\r\nTab:\ta\tb\t\r\n!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n", HTTP_GET, "/", "", "k", 0},
	{HOST("[::1]:7575"), HTTP_GET, "/", "", "k", 0}, {HOST("127.0.0.1"), HTTP_GET, "/", "", "k", 0},
	{HOST("a-b.c_d~:8080"), HTTP_GET, "/", "", "k", 0}, {HOST("a%20b"), HTTP_GET, "/", "", "k", 0},
	{HOST("h:"), HTTP_GET, "/", "", "k", 0}, /* port = *DIGIT */
	{HOST("!$&'()*+,;="), HTTP_GET, "/", "", "k", 0}, {HOST("[v1.a:b]"), HTTP_GET, "/", "", "k", 0},
	{"GET / HTTP/1.1\r\nX: y\r\nhOST:h\t\r\n\r\n", HTTP_GET, "/", "", "k", 0},
};

static const struct bad { const char *text; int status, or; } bads[] = {
	/* request line, 3: two single spaces, nothing else; a line ends in CR LF (strict: 2.2 lets bare LF be taken) */
	{"\r\n\r\n" GET "\r\n", 400, HTTP_DONE}, {"\n" GET "\r\n", 400, 0}, {" " GET "\r\n", 400, 0}, {"\r" GET "\r\n", 400, 0},
	{"GET /\r\n\r\n", 400, 0}, {"GET\r\n\r\n", 400, 0}, {"GET / \r\n\r\n", 400, 0}, {" / HTTP/1.1" H "\r\n", 400, 0},
	{"GET  / HTTP/1.1" H "\r\n", 400, 0}, {"GET /  HTTP/1.1" H "\r\n", 400, 0}, {"GET / HTTP/1.1 " H "\r\n", 400, 0},
	{"GET\t/\tHTTP/1.1" H "\r\n", 400, 0}, {"GET /a b HTTP/1.1" H "\r\n", 400, 0}, {"GET / HTTP/1.1\nHost: h\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\rHost: h\r\n\r\n", 400, 0}, {"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", 400, 0}, {"GET\r\n / HTTP/1.1" H "\r\n", 400, 0},
	{"GET /\1 HTTP/1.1" H "\r\n", 400, 0}, {"G\1T / HTTP/1.1" H "\r\n", 400, 0}, {"\1" GET "\r\n", 400, 0},
	{"get / HTTP/1.1" H "\r\n", 501, 0}, {"Get / HTTP/1.1" H "\r\n", 501, 0}, {"BREW / HTTP/1.1" H "\r\n", 501, 0},
	{"GETX / HTTP/1.1" H "\r\n", 501, 0}, {"GE / HTTP/1.1" H "\r\n", 501, 0}, {"G(T / HTTP/1.1" H "\r\n", 400, 0},
	{"CONNECT h:80 HTTP/1.1" H "\r\n", 501, 400}, {"GET h:80 HTTP/1.1" H "\r\n", 400, 0}, {"GET * HTTP/1.1" H "\r\n", 400, 0},
	{"OPTIONS ** HTTP/1.1" H "\r\n", 400, 0}, {"GET a HTTP/1.1" H "\r\n", 400, 0}, {"GET ?a HTTP/1.1" H "\r\n", 400, 0},
	{"GET /a#b HTTP/1.1" H "\r\n", 400, 0}, {"GET ftp://h/ HTTP/1.1" H "\r\n", 400, 421}, {"GET http:/a HTTP/1.1" H "\r\n", 400, 0},
	/* RFC 9110 4.2.1: an empty host MUST be rejected */
	{"GET http:///a HTTP/1.1" H "\r\n", 400, 0}, {"GET http://:80/a HTTP/1.1" H "\r\n", 400, 0}, {"GET http://?/a HTTP/1.1" H "\r\n", 400, 0},
	{"GET / HTTP/2.0" H "\r\n", 505, 0}, {"GET / HTTP/3.1" H "\r\n", 505, 0}, {"GET / HTTP/0.9" H "\r\n", 505, 400},
	{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, 501}, {"GET / HTTP/1" H "\r\n", 400, 0}, {"GET / HTTP/1.10" H "\r\n", 400, 0},
	{"GET / HTTP/11.1" H "\r\n", 400, 505}, {"GET / HTTP/1,1" H "\r\n", 400, 0}, {"GET / http/1.1" H "\r\n", 400, 0}, {"GET / HTTP/a.1" H "\r\n", 400, 0},
	{"GET / HTTP/1.x" H "\r\n", 400, 0}, {"GET / HTTP/ 1.1" H "\r\n", 400, 0}, {"GET / HTTPS/1.1" H "\r\n", 400, 0}, {"GET / HTTP/+.1" H "\r\n", 400, 0},
	/* header lines, 5 */
	{GET "Name : v\r\n\r\n", 400, 0}, {GET "Name\t: v\r\n\r\n", 400, 0}, {GET ": v\r\n\r\n", 400, 0}, {GET "Name\r\n\r\n", 400, 0},
	{GET " Name: v\r\n\r\n", 400, 0}, {GET "A: b\r\n c\r\n\r\n", 400, 0}, {GET "A: b\r\n\tc\r\n\r\n", 400, 0}, {GET "A: b\r\n \r\n\r\n", 400, 0},
	{GET "A: b\nC: d\r\n\r\n", 400, 0}, {GET "A: b\rC: d\r\n\r\n", 400, 0}, {GET "A: b\r\r\n\r\n", 400, 0}, {GET "A: b\r\n\n", 400, 0},
	{GET "\n", 400, 0}, {GET "\rX", 400, 0}, {GET "A: \1\r\n\r\n", 400, 0}, {GET "A\1: b\r\n\r\n", 400, 0}, {GET "A: \x7f\r\n\r\n", 400, 0},
	{GET "A: \x1b[m\r\n\r\n", 400, 0}, {GET "A B: c\r\n\r\n", 400, 0}, {GET "A\x80: c\r\n\r\n", 400, 0}, {GET "(A): c\r\n\r\n", 400, 0},
	{GET "Content-Length : 5\r\n\r\n", 400, 0}, {GET "Transfer-Encoding\x0b: chunked\r\n\r\n", 400, 0},
	/* Host, 3.2: MUST be there once in 1.1 and be valid: uri-host [ ":" port ] */
	{"GET / HTTP/1.1\r\n\r\n", 400, 0}, {"GET / HTTP/1.2\r\n\r\n", 400, 0}, {"GET http://h/ HTTP/1.1\r\n\r\n", 400, 0}, {GET "Host: h\r\n\r\n", 400, 0},
	{GET "host: other\r\n\r\n", 400, 0}, {"GET / HTTP/1.0" H "Host: h\r\n\r\n", 400, 0}, {"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400, 0},
	{HOST(""), 400, 0}, {HOST("a b"), 400, 0}, {HOST("a, b"), 400, 0}, {HOST("http://h/"), 400, 0}, {HOST("h/"), 400, 0}, {HOST("u@h"), 400, 0},
	{HOST("h?"), 400, 0}, {HOST("h#"), 400, 0}, {HOST("h\\"), 400, 0}, {HOST("\"h\""), 400, 0}, {HOST("\xc3\xa9"), 400, 0}, {HOST("<h>"), 400, 0},
	{HOST(":80"), 400, 0}, {HOST("h:x"), 400, 0}, {HOST("h:80:80"), 400, 0}, {HOST("::1"), 400, 0}, {HOST("[::1"), 400, 0}, {HOST("::1]"), 400, 0},
	{HOST("a[b]"), 400, 0}, {HOST("[::1]x"), 400, 0}, {HOST("[]"), 400, 0}, {HOST("a%2"), 400, 0}, {HOST("a%zz"), 400, 0},
	/* Content-Length, RFC 9110 8.6: 1*DIGIT; a list of equal ones may be refused */
	{POST "Content-Length: +5\r\n\r\n", 400, 0}, {POST "Content-Length: -5\r\n\r\n", 400, 0}, {POST "Content-Length: 5, 5\r\n\r\n", 400, 0},
	{POST "Content-Length: 5,6\r\n\r\n", 400, 0}, {POST "Content-Length: 5 5\r\n\r\n", 400, 0}, {POST "Content-Length: 0x5\r\n\r\n", 400, 0},
	{POST "Content-Length:\r\n\r\n", 400, 0}, {POST "Content-Length: 5.0\r\n\r\n", 400, 0}, {POST "Content-Length: 5e0\r\n\r\n", 400, 0},
	{POST "Content-Length: five\r\n\r\n", 400, 0}, {POST "Content-Length: \"5\"\r\n\r\n", 400, 0}, {POST "Content-Length: 5;a\r\n\r\n", 400, 0},
	{POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400, 0}, {POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, 0},
	{POST "Content-Length:\r\nContent-Length: 6\r\n\r\n", 400, 0}, {POST "Content-Length: 2097153\r\n\r\n", 413, 0}, {POST "Content-Length: 4294967301\r\n\r\n", 413, 0},
	{POST "Content-Length: 9223372036854775807\r\n\r\n", 413, 0}, {POST "Content-Length: 9223372036854775809\r\n\r\n", 413, 400},
	{POST "Content-Length: 18446744073709551615\r\n\r\n", 413, 400}, {POST "Content-Length: 18446744073709551616\r\n\r\n", 413, 400},
	{POST "Content-Length: 18446744073709551621\r\n\r\n", 413, 400}, {POST "Content-Length: 99999999999999999999999999\r\n\r\n", 413, 400},
	/* Transfer-Encoding, 6.1 and 6.3: where chunked is not last the status MUST be 400; one that is not known is 501 */
	{POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, 0}, {POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400, 0},
	{POST "Transfer-Encoding: x\r\nContent-Length: 5\r\n\r\n", 400, 0}, {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, 0},
	{POST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, 0}, {POST "Transfer-Encoding: chunked, gzip\r\n\r\n", 400, 0},
	{POST "Transfer-Encoding: gzip\r\n\r\n", 400, 0}, {POST "Transfer-Encoding: identity\r\n\r\n", 400, 0}, {POST "Transfer-Encoding:\r\n\r\n", 400, 0},
	{POST "Transfer-Encoding: chunked, chunked\r\n\r\n", 400, 501}, {POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, 501},
	{POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n", 400, 501}, {POST "Transfer-Encoding: xchunked\r\n\r\n", 400, 501},
	{POST "Transfer-Encoding: chunked;a=b\r\n\r\n", 400, 501}, {POST "Transfer-Encoding: \"chunked\"\r\n\r\n", 400, 501}, {POST "Transfer-Encoding: chunked x\r\n\r\n", 400, 501},
	{POST "Transfer-Encoding: chunked\x0b\r\n\r\n", 400, 0}, {POST "Transfer-Encoding: chunke\r\n\r\n", 400, 501},
	{POST "Content-Length: 1\r\nExpect: x\r\n\r\n", 417, 0}, {POST "Expect: 100-continu\r\n\r\n", 417, 0}, {POST "Expect: 100-continue, x\r\n\r\n", 417, 0},
	{POST "Content-Length: 2097153\r\nExpect: 100-continue\r\n\r\n", 413, 0},
	{GET "Authorization: Basic a\r\nAuthorization: Basic b\r\n\r\n", 400, 0}, {GET "Origin: a\r\nOrigin: b\r\n\r\n", 400, 0},
};

static void has_fields(const struct http_req *r, const struct good *g, size_t head_len)
{
	const char *f = g->flags;
	check(r->method == g->method && str_eq(r->path, g->path) && (r->query.n ? str_eq(r->query, g->query) : !*g->query), "method, path or query of %s", g->text);
	check(r->http10 == !!strchr(f, '0') && r->keep_alive == !!strchr(f, 'k') && r->chunked == !!strchr(f, 'c') && r->has_length == !!strchr(f, 'l') &&
	   r->expect_continue == !!strchr(f, 'e'), "flags '%s' expected of %s", f, g->text);
	check(r->length == g->length && r->head_len == head_len, "lengths of %s", g->text);
}

/* Feeds text in all ways, checks that every way has the same verdict, and returns it. */
static int verdict(const char *text, size_t n, struct http_req *r)
{
	char *p = edge(0, NULL, n);
	int rc = HTTP_MORE, early;
	size_t at = 0;
	bool steady = true;

	for (size_t i = 0; i <= n && n < 1000; i++) { /* each prefix by itself, at the guard page */
		struct http_req one = {0};
		int was = rc;
		rc = http_parse(&one, (struct str){edge(1, text, i), i});
		steady = steady && (was == HTTP_MORE || rc == was);
	}
	check(steady, "more bytes change the verdict: %s", text);
	early = rc;
	memset(r, 0, sizeof *r);
	memset(p, '\n', n); /* a look ahead would see this */
	for (rc = HTTP_MORE; at < n && rc == HTTP_MORE; at++) {
		p[at] = text[at];
		rc = http_parse(r, (struct str){p, at + 1});
	}
	check(n >= 1000 || rc == early, "byte by byte %d, whole %d: %s", rc, early, text);
	check(rc == HTTP_MORE || rc == HTTP_DONE || (rc >= 400 && r->error && *r->error), "no sentence with %d: %s", rc, text);
	check(rc != HTTP_DONE || r->head_len == at, "done, but not where the head ends: %s", text);
	struct http_req whole = {0};
	check(http_parse(&whole, (struct str){edge(1, text, n), n}) == rc, "at once and by bytes differ: %.60s", text);
	return rc;
}

static void tables(void)
{
	struct http_req r;
	for (size_t i = 0; i < countof(goods); i++) {
		int rc = verdict(goods[i].text, strlen(goods[i].text), &r);
		check(rc == HTTP_DONE, "%d (%s) for %s", rc, r.error ? r.error : "-", goods[i].text);
		if (rc == HTTP_DONE)
			has_fields(&r, &goods[i], strlen(goods[i].text));
	}
	for (size_t i = 0; i < countof(bads); i++) {
		char text[512];
		size_t n = strlen(bads[i].text);
		memcpy(text, bads[i].text, n + 1);
		for (size_t k = 0; k < n; k++)
			text[k] = text[k] == NUL_AT ? '\0' : text[k];
		int rc = verdict(text, n, &r);
		check(rc == bads[i].status || (bads[i].or && rc == bads[i].or), "expected %d, got %d for %s", bads[i].status, rc, bads[i].text);
	}
	/* values are trimmed, named without case, NULL where absent */
	const char *text = "GET / HTTP/1.1\r\nHOST: \t h:1 \t\r\nauthorization:Basic a b=\r\nOrigin:\r\n\r\n";
	check(verdict(text, strlen(text), &r) == HTTP_DONE && str_eq(r.header[HTTP_HOST], "h:1") && str_eq(r.header[HTTP_AUTHORIZATION], "Basic a b=") &&
	   r.header[HTTP_ORIGIN].p && r.header[HTTP_ORIGIN].n == 0 && !r.header[HTTP_EXPECT].p, "header values");
	/* 3.2.2: with absolute-form the target's authority counts, not Host; refusing the contradiction is as safe */
	text = "GET http://evil:1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
	check(verdict(text, strlen(text), &r) == 400 || str_eq(r.header[HTTP_HOST], "evil:1"), "absolute-form: Host is believed against the target");
}

static void pipelined(void)
{
	static char text[1 << 15];
	struct buf b = {text, 0, sizeof text, false}, out = {(char[8]){0}, 0, 8, false};
	for (size_t i = 0; i < countof(goods); i++) {
		buf_str(&b, goods[i].text);
		buf_put(&b, "GET / HTTP", goods[i].length); /* a body that looks like a request */
		buf_str(&b, strchr(goods[i].flags, 'c') ? "3;x\r\nGET\r\n0\r\nT: x\r\n\r\n" : "");
	}
	char *p = edge(0, b.p, b.n);
	for (size_t i = 0, at = 0; i < countof(goods); i++) {
		struct http_req r = {0};
		struct http_chunks c = {0};
		int rc = http_parse(&r, (struct str){p + at, b.n - at});
		if (rc != HTTP_DONE) { /* told above; go on behind it */
			at += strlen(goods[i].text);
			continue;
		}
		has_fields(&r, &goods[i], strlen(goods[i].text));
		at += r.head_len + r.length;
		size_t n = b.n - at;
		if (!r.chunked)
			continue;
		out.n = 0;
		check(http_dechunk(&c, p + at, &n, &out) == HTTP_DONE && out.n == 3 && memcmp(out.p, "GET", 3) == 0, "pipelined chunks");
		at += n;
	}
}

/* Every byte at one place of a request. */
static void every_byte(void)
{
	static const char tchar[] = "!#$%&'*+-.^_`|~", pchar[] = "-._~!$&'()*+,;=:@/?";
	for (int c = 0; c < 256; c++) {
		struct http_req r;
		char text[128];
		bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'), token = alnum || (c && strchr(tchar, c));
		int n = sprintf(text, "G%cT / HTTP/1.1" H "\r\n", 'x'), rc;
		text[1] = (char)c;
		rc = verdict(text, (size_t)n, &r);
		check(rc == (c == 'E' ? HTTP_DONE : token ? 501 : 400), "byte %d in a method: %d", c, rc);
		n = sprintf(text, "GET /a%cb HTTP/1.1" H "\r\n", 'x');
		text[6] = (char)c;
		rc = verdict(text, (size_t)n, &r);
		if (alnum || (c && strchr(pchar, c)))
			check(rc == HTTP_DONE, "byte %d in a target: %d", c, rc);
		else if (c <= ' ' || c >= 0x7f || c == '#')
			check(rc == 400, "byte %d in a target: %d", c, rc); /* the others are harmless: either */
		n = sprintf(text, GET "X%cY: v\r\n\r\n", 'x');
		text[n - 9] = (char)c;
		rc = verdict(text, (size_t)n, &r);
		check(rc == (token || c == ':' ? HTTP_DONE : 400), "byte %d in a header name: %d", c, rc);
		n = sprintf(text, GET "X: a%cb\r\n\r\n", 'x');
		text[n - 6] = (char)c;
		rc = verdict(text, (size_t)n, &r);
		check(rc == (c == '\t' || (c >= ' ' && c != 0x7f) ? HTTP_DONE : 400), "byte %d in a header value: %d", c, rc);
		n = sprintf(text, "GET / HTTP/1.1\r\nHost: a%cb\r\n\r\n", 'x');
		text[23] = (char)c;
		rc = verdict(text, (size_t)n, &r); /* sub-delims and unreserved, RFC 3986 3.2.2 */
		check(rc == (alnum || (c && strchr("-._~!$&'()*+,;=", c)) ? HTTP_DONE : 400), "byte %d in Host: %d", c, rc);
	}
}

static int parse_fill(struct buf *b, const char *end)
{
	struct http_req r;
	buf_str(b, end);
	return verdict(b->p, b->n, &r);
}

static void fill(struct buf *b, const char *start, char c, size_t upto)
{
	b->n = 0;
	buf_str(b, start);
	while (b->n < upto)
		buf_put(b, &c, 1);
}

static void limits(void)
{
	static char text[HTTP_HEAD_MAX * 2];
	struct buf b = {text, 0, sizeof text, false};
	struct http_req r;
	int rc;

	for (size_t over = 0; over < 2; over++) {
		fill(&b, "GET /", 'a', HTTP_LINE_MAX - 11 + over);
		rc = parse_fill(&b, " HTTP/1.1" H "\r\n");
		check(rc == (over ? 414 : HTTP_DONE), "request line of the most + %zu: %d", over, rc);
		fill(&b, GET "X:", 'a', strlen(GET) + HTTP_LINE_MAX - 2 + over);
		rc = parse_fill(&b, "\r\n\r\n");
		check(rc == (over ? 431 : HTTP_DONE), "header line of the most + %zu: %d", over, rc);
		fill(&b, GET, 'a', strlen(GET)); /* Host is one of them */
		for (size_t i = 1; i < HTTP_HEADERS_MAX + over; i++)
			buf_str(&b, "A: b\r\n");
		rc = parse_fill(&b, "\r\n");
		check(rc == (over ? 431 : HTTP_DONE), "%zu headers: %d", HTTP_HEADERS_MAX + over, rc);
		fill(&b, GET "X:", 'a', 8000);
		buf_str(&b, "\r\nY: z\r\nZ:");
		while (b.n < 9000)
			buf_put(&b, "a", 1);
		buf_str(&b, "\r\nZ:");
		while (b.n < HTTP_HEAD_MAX - 4 + over)
			buf_put(&b, "a", 1);
		rc = parse_fill(&b, "\r\n\r\n");
		check(rc == (over ? 431 : HTTP_DONE), "head of the most + %zu: %d", over, rc);
		b.n = 0;
		buf_printf(&b, POST "Content-Length: %zu", HTTP_BODY_MAX + over);
		rc = parse_fill(&b, "\r\n\r\n");
		check(rc == (over ? 413 : HTTP_DONE), "body of the most + %zu: %d", over, rc);
	}
	/* lines that never end are refused at the limit, not held for ever */
	fill(&b, "", 'a', HTTP_LINE_MAX + 1);
	check(verdict(b.p, b.n - 2, &r) == HTTP_MORE && verdict(b.p, b.n, &r) == 414, "endless request line");
	fill(&b, GET "X:", 'a', strlen(GET) + HTTP_LINE_MAX + 1);
	check(verdict(b.p, b.n, &r) == 431, "endless header line");
	fill(&b, GET "X:", 'a', 8000);
	buf_str(&b, "\r\nY:a\r\nZ:");
	while (b.n < 9000)
		buf_put(&b, "a", 1);
	buf_str(&b, "\r\nZ:");
	while (b.n < HTTP_HEAD_MAX)
		buf_put(&b, "a", 1);
	check(verdict(b.p, b.n - 1, &r) == HTTP_MORE && verdict(b.p, b.n, &r) == 431, "endless head");
}

/* 7.1. 4 = any refusal; data is what must have come out. The text behind the end is another's. */
static const struct chunk { const char *text; int status; const char *data; } chunked[] = {
	{"0\r\n\r\n", HTTP_DONE, ""}, {"00000000\r\n\r\n", HTTP_DONE, ""}, {"3\r\nabc\r\n0\r\n\r\n", HTTP_DONE, "abc"},
	{"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n", HTTP_DONE, "abcdefg"}, {"00000003\r\nabc\r\n000\r\n\r\n", HTTP_DONE, "abc"},
	{"A\r\n0123456789\r\n0\r\n\r\n", HTTP_DONE, "0123456789"}, {"a\r\n0123456789\r\n0\r\n\r\n", HTTP_DONE, "0123456789"},
	{"1f\r\n0123456789012345678901234567890\r\n0\r\n\r\n", HTTP_DONE, "0123456789012345678901234567890"},
	{"1F\r\n0123456789012345678901234567890\r\n0\r\n\r\n", HTTP_DONE, "0123456789012345678901234567890"},
	{"5\r\n\r\n0\r\n\r\n0\r\n\r\n", HTTP_DONE, "\r\n0\r\n"}, {"3;a\r\nabc\r\n0;b\r\n\r\n", HTTP_DONE, "abc"},
	{"3;a=b;c=\"d e\\\"\"\r\nabc\r\n0\r\n\r\n", HTTP_DONE, "abc"}, {"0\r\nT: v\r\n\r\n", HTTP_DONE, ""},
	{"1\r\nx\r\n0\r\nT: v\r\nU:\tw\r\nE:\r\n\r\n", HTTP_DONE, "x"}, {"1\r\nx\r\n0;e\r\nContent-Length: 9\r\n\r\n", HTTP_DONE, "x"},
	{"\r\n", 400, ""}, {"x\r\n", 400, ""}, {";a\r\n", 400, ""}, {" 3\r\nabc", 400, ""}, {"\t3\r\nabc", 400, ""}, {"-1\r\n", 400, ""}, {"+3\r\nabc", 400, ""},
	{"0x3\r\nabc", 400, ""}, {"3g\r\nabc", 400, ""}, {"3 \r\nabc", 400, ""}, {"3,3\r\nabc", 400, ""}, {"3\nabc", 400, ""}, {"3\rabc", 400, ""}, {"3\r\rabc", 400, ""},
	{"3\r\nabc0\r\n\r\n", 400, "abc"}, {"3\r\nabcd\r\n", 400, "abc"}, {"3\r\nabc\n0\r\n\r\n", 400, "abc"}, {"3\r\nabc\rx", 400, "abc"},
	{"3\r\nabc\r\n\r\n", 400, "abc"}, {"3;a\nabc", 400, ""}, {"3;a\rabc", 400, ""}, {"3;\x02\r\nabc", 400, ""}, {"3;\x7f\r\nabc", 400, ""},
	{"0\r\nT: v\n\r\n", 400, ""}, {"0\r\nT: v\r\n\n", 400, ""}, {"0\r\n\rX", 400, ""}, {"0\r\nT: \x02\r\n\r\n", 400, ""}, {"0\n\n", 400, ""},
	/* a trailer is a field-line: what is none may be the next request, to a reader before or behind us */
	{"0\r\nGET / HTTP/1.1\r\n\r\n", 400, ""}, {"0\r\nT : v\r\n\r\n", 400, ""}, {"0\r\n: v\r\n\r\n", 400, ""}, {"0\r\n v\r\n\r\n", 400, ""},
	{"0\r\nT: a\r\n b\r\n\r\n", 400, ""}, {"0\r\nT: \x7f\r\n\r\n", 400, ""},
	{"100000000\r\n", 4, ""}, {"10000000000000003\r\nabc\r\n", 4, ""}, {"ffffffffffffffffffff\r\n", 4, ""}, {"FFFFFFFF\r\nabcdefgh", 4, ""},
	{"fffffffe\r\nabcdefgh", 4, ""},
};

/* text in steps of step bytes at most; same: out is the memory that in lies in */
static bool dechunk(const struct chunk *t, size_t step, bool same, size_t cap)
{
	char text[128], *in;
	size_t n = strlen(t->text), want = strlen(t->data), at = 0, took;
	int rc = HTTP_MORE;
	bool right = true;

	memcpy(text, t->text, n);
	memcpy(text + n, "NEXT", 4);
	in = edge(0, text, n + (t->status == HTTP_DONE ? 4 : 0));
	struct buf out = {same ? in : edge(2, NULL, cap), 0, cap, false};
	size_t all = t->status == HTTP_DONE ? n + 4 : n;
	struct http_chunks c = {0};
	do {
		took = step < all - at ? step : all - at;
		size_t gave = took;
		rc = http_dechunk(&c, in + at, &took, &out);
		right = right && took <= gave && (rc != HTTP_MORE || took == gave);
		at += took;
	} while (rc == HTTP_MORE && at < all);
	right = right && (t->status == 4 ? rc == 400 || rc == 413 : rc == t->status) && (rc != HTTP_DONE || at == n) &&
	        (t->status == 4 || (out.n == want && memcmp(out.p, t->data, want) == 0));
	check(right, "chunks in steps of %zu: expected %d, got %d with '%.*s' after %zu of %zu: %s", step, t->status, rc, (int)out.n, out.p, at, n, t->text);
	return right;
}

static void chunks(void)
{
	static char text[70000];
	for (size_t i = 0; i < countof(chunked); i++)
		for (size_t step = 1, right = 1; right && step <= strlen(chunked[i].text) + 4; step++)
			for (int same = 0; right && same < 2; same++) /* once wrong is said once */
				right = dechunk(&chunked[i], step, same, chunked[i].status == 4 ? 4 : strlen(chunked[i].data));
	for (size_t cut = 0; cut < 22; cut++) { /* an unfinished body is never done */
		const char *whole = "5;e\r\nabcde\r\n0\r\nT: v\r\n\r\n";
		size_t n = cut;
		struct http_chunks c = {0};
		struct buf out = {edge(2, NULL, 5), 0, 5, false};
		check(http_dechunk(&c, edge(0, whole, cut), &n, &out) == HTTP_MORE && n == cut, "cut at %zu", cut);
	}
	for (size_t room = 0; room < 6; room++) { /* what does not fit: 413, and n says what was used */
		const char *whole = "2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n";
		size_t n = strlen(whole);
		struct http_chunks c = {0};
		struct buf out = {edge(2, NULL, room), 0, room, false};
		int rc = http_dechunk(&c, edge(0, whole, n), &n, &out);
		check(rc == 413 && out.n == (room < 2 ? 0 : 2), "room of %zu: %d with %zu", room, rc, out.n);
		check(n == (room < 2 ? 3 : 10), "room of %zu: n is %zu, not what was used", room, n);
	}
	for (int where = 0; where < 3; where++) /* 7.1.1: what means nothing has a limit */
		for (size_t extra = 4000; extra <= 60000; extra += 56000) {
			struct buf b = {text, 0, sizeof text, false}, out = {(char[1]){0}, 0, 1, false};
			struct http_chunks c = {0};
			buf_str(&b, where == 0 ? "0;" : where == 1 ? "0\r\nT:" : "0\r\n");
			while (b.n < extra)
				buf_str(&b, where == 2 ? "T:a\r\n" : "a");
			buf_str(&b, where == 2 ? "\r\n" : "\r\n\r\n");
			size_t n = b.n;
			int rc = http_dechunk(&c, edge(0, b.p, b.n), &n, &out);
			if (where == 0 && extra == 4000) /* "0;aaa CRLF CRLF" ends there */
				check(rc == HTTP_DONE && n == b.n, "short extension: %d", rc);
			else
				check(rc == (extra == 4000 ? HTTP_DONE : 400), "extra of %zu bytes at %d: %d", extra, where, rc);
		}
}

static void heads(void)
{
#define REST "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
	static const struct { struct http_reply r; const char *text; } rows[] = {
		{{.status = 200, .type = "application/json", .date = "Sun, 06 Nov 1994 08:49:37 GMT", .length = 2},
		 "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/json\r\nContent-Length: 2\r\n" REST "\r\n"},
		{{.status = 204, .origin = {"http://a.b:1xxx", 12}, .http10 = true},
		 "HTTP/1.1 204 No Content\r\n" REST "Access-Control-Allow-Origin: http://a.b:1\r\nAccess-Control-Expose-Headers: Retry-After, Mcp-Session-Id\r\nVary: Origin\r\nConnection: keep-alive\r\n\r\n"},
		{{.status = 401, .extra = "WWW-Authenticate: Basic realm=\"OmniArena\"\r\n", .close = true, .http10 = true},
		 "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n" REST "WWW-Authenticate: Basic realm=\"OmniArena\"\r\nConnection: close\r\n\r\n"},
		{{.status = 431, .length = UINT64_MAX}, "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 18446744073709551615\r\n" REST "\r\n"},
	};
	static const struct { int status; const char *reason; } reasons[] = { /* RFC 9110 15, RFC 6585 */
		{400, "Bad Request"}, {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"}, {408, "Request Timeout"}, {413, "Content Too Large"},
		{414, "URI Too Long"}, {417, "Expectation Failed"}, {429, "Too Many Requests"}, {500, "Internal Server Error"}, {501, "Not Implemented"},
		{503, "Service Unavailable"}, {505, "HTTP Version Not Supported"}, {799, "Unknown"},
	};
	for (size_t i = 0; i < countof(rows); i++)
		for (size_t cap = 0, len = strlen(rows[i].text); cap <= len + 1; cap++) {
			struct buf b = {edge(2, NULL, cap), 0, cap, false};
			http_head(&b, &rows[i].r);
			check(b.full == (cap < len) && b.n <= cap, "head %zu in %zu bytes", i, cap);
			check(b.full || (b.n == len && memcmp(b.p, rows[i].text, len) == 0), "head: %.*s", (int)b.n, b.p);
		}
	for (size_t i = 0; i < countof(reasons); i++)
		check(strcmp(http_reason(reasons[i].status), reasons[i].reason) == 0, "reason of %d", reasons[i].status);
}

int main(void)
{
	tables();
	pipelined();
	every_byte();
	limits();
	chunks();
	heads();
	return unit_end("unit_http");
}
