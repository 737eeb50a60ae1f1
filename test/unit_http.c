/* http.c against RFC 9112: each request whole, a byte at a time, and with another one behind it, in
 * memory that ends at a guard page. The columns are what the RFC asks for. */
#include "unit.h"

#include "../http.h"

#define H "Host: a\r\n"

static const struct { const char *text; int status; const char *path; bool keep_alive, chunked; uint64_t length; } requests[] = {
	{"GET / HTTP/1.1\r\n" H "\r\n", HTTP_DONE, "/", true, false, 0},
	{"\r\nGET / HTTP/1.1\r\n" H "\r\n", HTTP_DONE, "/", true, false, 0}, /* 2.2: one empty line ahead */
	{"\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 400, NULL, false, false, 0},
	{"GET /a%20b?c=d HTTP/1.1\r\nhOST:\t a:80 \t\r\n\r\n", HTTP_DONE, "/a%20b", true, false, 0},
	{"GET http://a:80/x?y HTTP/1.1\r\n" H "\r\n", HTTP_DONE, "/x", true, false, 0},
	{"GET HTTP://a HTTP/1.1\r\n" H "\r\n", HTTP_DONE, "/", true, false, 0},
	{"GET http://a?q HTTP/1.1\r\n" H "\r\n", HTTP_DONE, "/", true, false, 0},
	{"OPTIONS * HTTP/1.1\r\n" H "\r\n", HTTP_DONE, "*", true, false, 0},
	{"GET / HTTP/1.0\r\n\r\n", HTTP_DONE, "/", false, false, 0},
	{"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", HTTP_DONE, "/", true, false, 0},
	{"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", HTTP_DONE, "/", false, false, 0},
	{"GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", HTTP_DONE, "/", false, false, 0},
	{"GET / HTTP/1.1\r\n" H "Connection: x , CLOSE\r\n\r\n", HTTP_DONE, "/", false, false, 0},
	{"GET / HTTP/1.1\r\n" H "Connection: disclose\r\n\r\n", HTTP_DONE, "/", true, false, 0},
	{"GET / HTTP/1.9\r\n" H "\r\n", HTTP_DONE, "/", true, false, 0}, /* 2.3: a higher minor is as 1.1 */
	{"POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", HTTP_DONE, "/", true, false, 0},
	{"POST / HTTP/1.1\r\n" H "content-length:\t12 \r\n\r\n", HTTP_DONE, "/", true, false, 12},
	{"POST / HTTP/1.1\r\n" H "Content-Length: 00012\r\n\r\n", HTTP_DONE, "/", true, false, 12},
	{"POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n", HTTP_DONE, "/", true, true, 0},
	{"GET / HTTP/1.1\r\n" H "X: \x80\xff caf\xc3\xa9\r\n\r\n", HTTP_DONE, "/", true, false, 0},
	{"GET / HTTP/1.1\r\n" H "X:\r\n\r\n", HTTP_DONE, "/", true, false, 0},
	{"DELETE / HTTP/1.1\r\nHost: [::1]:7575\r\n\r\n", HTTP_DONE, "/", true, false, 0},
	/* the request line */
	{"GET  / HTTP/1.1\r\n", 400, NULL, false, false, 0}, {"GET /  HTTP/1.1\r\n", 400, NULL, false, false, 0},
	{" GET / HTTP/1.1\r\n", 400, NULL, false, false, 0}, {"GET\t/ HTTP/1.1\r\n", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1 \r\n", 400, NULL, false, false, 0}, {"GET /\r\n", 400, NULL, false, false, 0}, {"GET\r\n", 400, NULL, false, false, 0},
	{"GET / http/1.1\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/11\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.10\r\n", 400, NULL, false, false, 0},
	{"GET / HTTP/2.0\r\n", 505, NULL, false, false, 0}, {"GET / HTTP/0.9\r\n", 505, NULL, false, false, 0}, {"GET / HTTP/1.x\r\n", 400, NULL, false, false, 0},
	{"get / HTTP/1.1\r\n", 501, NULL, false, false, 0}, {"BREW / HTTP/1.1\r\n", 501, NULL, false, false, 0}, {"G(T / HTTP/1.1\r\n", 400, NULL, false, false, 0},
	{"GET a HTTP/1.1\r\n", 400, NULL, false, false, 0}, {"GET a:80 HTTP/1.1\r\n", 400, NULL, false, false, 0}, {"GET * HTTP/1.1\r\n", 400, NULL, false, false, 0},
	{"GET /\x01 HTTP/1.1\r\n", 400, NULL, false, false, 0}, {"GET /\xc3\xa9 HTTP/1.1\r\n", 400, NULL, false, false, 0}, {"GET /#x HTTP/1.1\r\n", 400, NULL, false, false, 0},
	/* line ends */
	{"GET / HTTP/1.1\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\n" "Host: a\n", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1\r\n" "Host: a\rX: b\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\rH", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1\r\n" H "\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\n" H "X: a\r\r\n", 400, NULL, false, false, 0},
	/* header lines */
	{"GET / HTTP/1.1\r\n" H "X : a\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\n" H "X\t: a\r\n", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1\r\n" H " X: a\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1\r\n" H "X: a\r\n\tb\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\n" H ": a\r\n", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1\r\n" H "X\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\n" H "X: a\x01\r\n", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1\r\n" H "X: a\x7f\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\n" H "X(: a\r\n", 400, NULL, false, false, 0},
	/* Host, section 3.2 */
	{"GET / HTTP/1.1\r\n\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\n" H H "\r\n", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400, NULL, false, false, 0},
	{"GET / HTTP/1.1\r\nHost: []\r\n\r\n", 400, NULL, false, false, 0}, {"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400, NULL, false, false, 0},
	{"GET http://a@b/ HTTP/1.1\r\n" H "\r\n", 400, NULL, false, false, 0}, {"GET http:///x HTTP/1.1\r\n" H "\r\n", 400, NULL, false, false, 0},
	/* lengths, section 6.3 */
	{"POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 2\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Content-Length: 1,1\r\n\r\n", 400, NULL, false, false, 0}, {"POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Content-Length: +1\r\n\r\n", 400, NULL, false, false, 0}, {"POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Content-Length: 0x1\r\n\r\n", 400, NULL, false, false, 0}, {"POST / HTTP/1.1\r\n" H "Content-Length: 1 1\r\n\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Content-Length: 1.0\r\n\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551616\r\n\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Content-Length: 2097152\r\n\r\n", HTTP_DONE, "/", true, false, 2097152},
	{"POST / HTTP/1.1\r\n" H "Content-Length: 2097153\r\n\r\n", 413, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, gzip\r\n\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, chunked\r\n\r\n", 501, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, NULL, false, false, 0},
	{"POST / HTTP/1.1\r\n" H "Expect: 200-ok\r\n\r\n", 417, NULL, false, false, 0},
};

/* Feeds text in steps of step bytes: the verdict, and how many bytes it took to come to it. */
static int feed(struct http_req *r, const char *text, size_t n, size_t step, size_t *at)
{
	char *p = guard_new(n);
	int rc = HTTP_MORE;
	memset(r, 0, sizeof *r);
	for (*at = 0; rc == HTTP_MORE && *at < n;) {
		size_t more = n - *at < step ? n - *at : step;
		memcpy(p + *at, text + *at, more);
		*at += more;
		rc = http_parse(r, (struct str){p, *at});
	}
	return rc; /* p stays: r points into it */
}

static void all_requests(void)
{
	for (size_t i = 0; i < countof(requests); i++) {
		const char *text = requests[i].text;
		size_t n = strlen(text), at;
		struct http_req r;
		const size_t steps[] = {1, 7, n};
		for (size_t k = 0; k < countof(steps); k++) {
			size_t step = steps[k];
			int rc = feed(&r, text, n, step, &at);
			check(rc == requests[i].status, "%.60s...: %d, not %d, in steps of %zu", text, rc, requests[i].status, step);
			check(rc < 400 || (r.error && *r.error), "%.60s: no sentence", text);
			if (rc != HTTP_DONE || requests[i].status != HTTP_DONE)
				continue;
			check(r.head_len == n && at == n, "%.60s: done after %zu of %zu", text, at, n);
			check(str_eq(r.path, requests[i].path) && r.keep_alive == requests[i].keep_alive && r.chunked == requests[i].chunked &&
			      r.length == requests[i].length, "%.60s: fields", text);
		}
		if (requests[i].status != HTTP_DONE)
			continue;
		char both[512]; /* what comes behind is not looked at */
		int len = snprintf(both, sizeof both, "%s\n\x01 garbage: \r\r\n", text);
		check(feed(&r, both, (size_t)len, (size_t)len, &at) == HTTP_DONE && r.head_len == n, "%.60s: with more behind", text);
	}
	struct http_req r;
	size_t at;
	check(feed(&r, "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 28, 28, &at) == 400, "NUL in a header");
	check(feed(&r, "GET http://b:1/ HTTP/1.1\r\n" H "\r\n", 37, 37, &at) == HTTP_DONE && str_eq(r.header[HTTP_HOST], "b:1"), "the target's host counts");
	check(feed(&r, "POST / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n", 69, 69, &at) == HTTP_DONE && r.expect_continue, "Expect");
	check(feed(&r, "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", 61, 61, &at) == HTTP_DONE && !r.expect_continue, "Expect of 1.0");
}

static void limits(void)
{
	static char text[4 * HTTP_HEAD_MAX];
	struct http_req r;
	size_t at;

	for (int over = 0; over <= 1; over++) {
		int n = sprintf(text, "GET /%0*d HTTP/1.1\r\n" H "\r\n", HTTP_LINE_MAX - 16 + over, 0);
		check(feed(&r, text, (size_t)n, 4096, &at) == (over ? 414 : HTTP_DONE), "request line, %d over", over);
		n = sprintf(text, "GET / HTTP/1.1\r\n" H "X:%0*d\r\n\r\n", HTTP_LINE_MAX - 4 + over, 0);
		check(feed(&r, text, (size_t)n, 4096, &at) == (over ? 431 : HTTP_DONE), "header line, %d over", over);
		n = sprintf(text, "GET / HTTP/1.1\r\n" H);
		for (int i = 1; i < HTTP_HEADERS_MAX + over; i++)
			n += sprintf(text + n, "X: a\r\n");
		n += sprintf(text + n, "\r\n");
		check(feed(&r, text, (size_t)n, 100, &at) == (over ? 431 : HTTP_DONE), "number of headers, %d over", over);
		n = sprintf(text, "GET / HTTP/1.1\r\n" H "X:%0*d\r\nX:%0*d\r\n", 8000, 0, 8000, 0);
		n += sprintf(text + n, "Y:%0*d\r\n\r\n", HTTP_HEAD_MAX - n - 6 + over, 0);
		check(n == HTTP_HEAD_MAX + over && feed(&r, text, (size_t)n, 1000, &at) == (over ? 431 : HTTP_DONE), "whole head, %d over", over);
	}
	memset(text, 'a', sizeof text); /* endless, without a line's end */
	check(feed(&r, text, sizeof text, 1, &at) == 414 && at <= HTTP_LINE_MAX + 1, "endless first line is refused after %zu", at);
}

static const struct { const char *text; int rc; const char *out; } chunks[] = {
	{"0\r\n\r\n", HTTP_DONE, ""}, {"3\r\nabc\r\n0\r\n\r\n", HTTP_DONE, "abc"}, {"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", HTTP_DONE, "abcde"},
	{"0003\r\nabc\r\n000\r\n\r\n", HTTP_DONE, "abc"}, {"A\r\n0123456789\r\n0\r\n\r\n", HTTP_DONE, "0123456789"}, {"a\r\n0123456789\r\n0\r\n\r\n", HTTP_DONE, "0123456789"},
	{"3;x\r\nabc\r\n0;y=\"z\"\r\n\r\n", HTTP_DONE, "abc"}, {"3\r\n\r\n\0\r\n0\r\n\r\n", HTTP_MORE, NULL}, {"0\r\nX: y\r\nZ: w\r\n\r\n", HTTP_DONE, ""},
	{"", HTTP_MORE, ""}, {"3\r\nab", HTTP_MORE, "ab"}, {"0\r\n", HTTP_MORE, ""},
	{"\r\n", 400, ""}, {"g\r\n", 400, ""}, {"-1\r\n", 400, ""}, {"+1\r\n", 400, ""}, {"0x1\r\n", 400, ""}, {" 1\r\n", 400, ""}, {"1\n", 400, ""}, {"1\rx", 400, ""},
	{"3\r\nabcd", 400, "abc"}, {"3\r\nabc\n", 400, "abc"}, {"3\r\nabc\rx", 400, "abc"}, {"3\r\nabc0\r\n\r\n", 400, "abc"}, {"0\r\nX: y\n", 400, ""}, {"0\r\n\rx", 400, ""},
	{"3;x\n", 400, ""}, {"FFFFFFFFFFFFFFFF1\r\n", 400, NULL}, {"21\r\nx", 413, ""}, {"FFFFFFFF\r\nx", 413, ""}, {"FFFFFFFFFFFFFFFF\r\n", 400, ""},
};

static void all_chunks(void)
{
	for (size_t i = 0; i < countof(chunks); i++)
		for (size_t step = 1; step < 40; step += 13) {
			size_t n = strlen(chunks[i].text), at = 0;
			char *in = guard_copy(chunks[i].text, n), *out = guard_new(32);
			struct buf b = {out, 0, 32, false};
			struct http_chunks c = {0};
			int rc = HTTP_MORE;
			while (rc == HTTP_MORE && at < n) {
				size_t used = n - at < step ? n - at : step;
				rc = http_dechunk(&c, in + at, &used, &b);
				at += used;
			}
			int want = chunks[i].rc;
			check(rc == want, "chunks %.30s: %d, not %d, in steps of %zu", chunks[i].text, rc, want, step);
			check(!chunks[i].out || (b.n == strlen(chunks[i].out) && memcmp(out, chunks[i].out, b.n) == 0), "chunks %.30s: data", chunks[i].text);
			check(rc != HTTP_DONE || at == n, "chunks %.30s: used %zu of %zu", chunks[i].text, at, n);
			guard_free(in, n);
			guard_free(out, 32);
		}
	char same[] = "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\nGET";
	struct buf b = {same, 0, sizeof same, false}; /* in the same memory; what follows is left alone */
	struct http_chunks c = {0};
	size_t n = sizeof same - 1;
	check(http_dechunk(&c, same, &n, &b) == HTTP_DONE && n == sizeof same - 4 && memcmp(same, "abcde", 5) == 0 && b.n == 5 && strcmp(same + n, "GET") == 0, "in place");
}

static void heads(void)
{
	char out[512];
	const struct http_reply r = {.status = 401, .type = "application/json", .date = "D", .extra = "X: y\r\n", .origin = {"http://o", 8}, .length = 12, .close = true};
	for (size_t cap = 0; cap < sizeof out; cap++) {
		char *p = guard_new(cap);
		struct buf b = {p, 0, cap, false};
		http_head(&b, &r);
		if (!b.full) {
			memcpy(out, p, b.n);
			out[b.n] = '\0';
			check(strncmp(out, "HTTP/1.1 401 Unauthorized\r\n", 27) == 0 && strcmp(out + b.n - 4, "\r\n\r\n") == 0, "first and last line");
			const char *const lines[] = {"\r\nContent-Length: 12\r\n", "\r\nContent-Type: application/json\r\n", "\r\nDate: D\r\n", "\r\nX: y\r\n", "\r\nConnection: close\r\n", "\r\nAccess-Control-Allow-Origin: http://o\r\n"};
			for (size_t i = 0; i < countof(lines); i++)
				check(strstr(out, lines[i]) != NULL, "no %s", lines[i]);
			guard_free(p, cap);
			return;
		}
		guard_free(p, cap);
	}
	check(false, "no head in %zu bytes", sizeof out);
}

int main(void)
{
	all_requests();
	limits();
	all_chunks();
	heads();
	return unit_end("unit_http");
}
