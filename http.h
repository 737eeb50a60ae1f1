/* L1 pure: HTTP/1.1 messages, memory to memory (RFC 9110, RFC 9112). No fd, no clock. */
#ifndef HTTP_H
#define HTTP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util.h"

enum {
	HTTP_HEAD_MAX = 16384,   /* request line and headers together, bytes; beyond: 431 */
	HTTP_LINE_MAX = 8192,    /* one line; beyond: 414 for the first, 431 for a header */
	HTTP_HEADERS_MAX = 64,   /* header lines; beyond: 431 */
	HTTP_BODY_MAX = 2 << 20, /* bytes after decoding; beyond: 413 */
};

enum http_method { HTTP_GET = 1, HTTP_HEAD = 2, HTTP_POST = 4, HTTP_DELETE = 8, HTTP_OPTIONS = 16, HTTP_OTHER = 32 };

/* The headers that anybody reads. */
enum http_header {
	HTTP_HOST, HTTP_AUTHORIZATION, HTTP_CONTENT_LENGTH, HTTP_TRANSFER_ENCODING, HTTP_EXPECT, HTTP_ORIGIN,
	HTTP_CONNECTION, HTTP_X_AGENT, HTTP_X_MODEL, HTTP_X_TOKENS_IN, HTTP_X_TOKENS_OUT, HTTP_ACCEPT, HTTP_ACCEPT_ENCODING, HTTP_LAST_EVENT_ID,
	HTTP_MCP_VERSION, HTTP_MCP_METHOD, HTTP_MCP_NAME, HTTP_MCP_SESSION_ID, HTTP_HEADER_COUNT,
};

enum { HTTP_MORE = 0, HTTP_DONE = 1 }; /* else a status from 400 on */

/* One request's head. Zero it; slices point into the text given to http_parse. */
struct http_req {
	enum http_method method;
	struct str path, query;
	bool http10, keep_alive, says_close, chunked, expect_continue, has_length;
	uint64_t length;
	size_t head_len;   /* bytes up to and with the blank line, once done */
	const char *error; /* a sentence, with a status */
	size_t line, scan; /* the parser's own: start of the current line, next byte to look at */
	unsigned lines;
	struct str authority; /* of an absolute-form target; header[HTTP_HOST] is then this */
	struct str header[HTTP_HEADER_COUNT]; /* .p is NULL where absent; blanks trimmed */
};

/* Goes on where it stopped: in holds everything of this request so far and may only have grown,
 * at the same address. HTTP_MORE, HTTP_DONE, or the status of a refusal (RFC 9112 sections 2 to 6).
 * Each byte is looked at once, however they come. */
int http_parse(struct http_req *r, struct str in);

/* The host of host[":" port] (RFC 3986 section 3.2.2), brackets included; .p is NULL where the
 * whole is anything else. */
struct str http_host(struct str authority);

/* Decoding state of one chunked body (RFC 9112 section 7.1). Zero it. */
struct http_chunks { int state; uint64_t left; size_t line, extra; };

/* Takes *n bytes at in, moves the data they carry to the end of out (which may lie before them in
 * the same memory), sets *n to what was used. HTTP_MORE, HTTP_DONE after the last trailer, 400 or 413. */
int http_dechunk(struct http_chunks *c, const char *in, size_t *n, struct buf *out);

/* What a response says above its body. length counts the body's bytes. */
struct http_reply {
	int status;
	const char *type, *date; /* date may be NULL: then none is sent */
	const char *extra;       /* whole header lines of our own, or NULL */
	struct str origin;       /* for Access-Control-Allow-Origin; already checked; .n 0: none */
	uint64_t length;
	bool close, http10, stream; /* stream: the end of the connection is the body's, RFC 9112 section 6.3 */
};

void http_head(struct buf *b, const struct http_reply *r);
const char *http_reason(int status);
#endif
