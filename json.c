/* L1 pure: JSON as RFC 8259 has it, memory to memory.
 * The reader accepts that grammar and nothing more, strings must be UTF-8 (section 8.1) and
 * surrogates paired; it allocates nothing and keeps its nesting in a bit a level. */
#include "json.h"

#include <string.h>

static bool fail(struct json_reader *r, const char *why)
{
	if (!r->error)
		r->error = why;
	return false;
}

static void blanks(struct json_reader *r)
{
	while (r->at < r->in.n && memchr(" \t\r\n", r->in.p[r->at], 4))
		r->at++;
}

/* The value of four hexadecimal digits, or -1. */
static int32_t hex4(const char *p)
{
	int32_t v = 0;
	for (int i = 0; i < 4; i++) {
		char c = p[i];
		int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
		if (d < 0)
			return -1;
		v = v << 4 | d;
	}
	return v;
}

struct escaped { uint32_t len; int32_t cp; };

/* The escape at p[0] == '\\' with n bytes left: its length, 0 for none, and the code point. */
static struct escaped escape(const char *p, size_t n)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const struct escaped none = {0, 0};
	const char *at;
	int32_t cp, low;

	if (n < 2)
		return none;
	if (p[1] && (at = strchr(from, p[1])))
		return (struct escaped){2, to[at - from]};
	if (p[1] != 'u' || n < 6 || (cp = hex4(p + 2)) < 0 || (cp >= 0xdc00 && cp <= 0xdfff))
		return none;
	if (cp < 0xd800 || cp > 0xdbff)
		return (struct escaped){6, cp};
	/* a high surrogate means something only with the low one behind it (section 7) */
	if (n < 12 || p[6] != '\\' || p[7] != 'u' || (low = hex4(p + 8)) < 0xdc00 || low > 0xdfff)
		return none;
	return (struct escaped){12, 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00)};
}

/* At an opening quote: the raw text between the quotes. */
static bool string(struct json_reader *r, struct str *out)
{
	size_t start = ++r->at;

	for (;;) {
		struct str rest = {r->in.p + r->at, r->in.n - r->at};
		if (rest.n == 0)
			return fail(r, "string without end");
		unsigned char c = (unsigned char)rest.p[0];
		if (c == '"')
			break;
		if (c < 0x20)
			return fail(r, "control character in a string");
		int len = c == '\\' ? (int)escape(rest.p, rest.n).len : utf8_next(rest);
		if (len <= 0)
			return fail(r, c == '\\' ? "bad escape in a string" : "invalid UTF-8 in a string");
		r->at += (size_t)len;
	}
	*out = (struct str){r->in.p + start, r->at - start};
	r->at++;
	return true;
}

static size_t digits(struct str s, size_t at)
{
	while (at < s.n && s.p[at] >= '0' && s.p[at] <= '9')
		at++;
	return at;
}

static bool number(struct json_reader *r, struct str *out)
{
	struct str s = {r->in.p + r->at, r->in.n - r->at};
	size_t i = s.p[0] == '-', was = i;

	if ((i = digits(s, i)) == was || (s.p[was] == '0' && i > was + 1))
		return fail(r, "bad number");
	if (i < s.n && s.p[i] == '.') {
		was = i + 1;
		if ((i = digits(s, was)) == was)
			return fail(r, "bad number");
	}
	if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
		i++;
		if (i < s.n && (s.p[i] == '+' || s.p[i] == '-'))
			i++;
		was = i;
		if ((i = digits(s, i)) == was)
			return fail(r, "bad number");
	}
	*out = (struct str){s.p, i};
	r->at += i;
	return true;
}

static bool word(struct json_reader *r, const char *w)
{
	size_t n = strlen(w);
	if (r->in.n - r->at < n || memcmp(r->in.p + r->at, w, n) != 0)
		return false;
	r->at += n;
	return true;
}

static bool value(struct json_reader *r, struct json_token *t)
{
	if (r->at == r->in.n)
		return fail(r, "value missing");
	char c = r->in.p[r->at];
	r->after_value = true;
	if (c == '{' || c == '[') {
		if (r->depth == JSON_DEPTH)
			return fail(r, "nested too deep");
		r->depth++;
		uint64_t bit = 1ull << r->depth;
		r->objects = c == '{' ? r->objects | bit : r->objects & ~bit;
		t->kind = c == '{' ? JSON_OBJECT : JSON_ARRAY;
		t->text = (struct str){r->in.p + r->at, 1};
		r->after_value = false;
		r->at++;
	} else if (c == '"') {
		t->kind = JSON_STRING;
		return string(r, &t->text);
	} else if (c == '-' || (c >= '0' && c <= '9')) {
		t->kind = JSON_NUMBER;
		return number(r, &t->text);
	} else if (word(r, "true") || word(r, "false")) {
		t->kind = JSON_BOOL;
		t->truth = c == 't';
	} else if (word(r, "null")) {
		t->kind = JSON_NULL;
	} else {
		return fail(r, "unexpected character");
	}
	return true;
}

static bool next(struct json_reader *r, struct json_token *t)
{
	bool object = r->depth && (r->objects >> r->depth & 1);

	blanks(r);
	if (r->depth == 0) {
		if (!r->begun) {
			r->begun = true;
			return value(r, t);
		}
		return r->at == r->in.n || fail(r, "something follows the value");
	}
	if (r->at < r->in.n && r->in.p[r->at] == (object ? '}' : ']')) {
		r->at++;
		r->depth--;
		r->after_value = true;
		t->kind = JSON_CLOSE;
		return true;
	}
	if (r->after_value) {
		if (r->at == r->in.n || r->in.p[r->at] != ',')
			return fail(r, object ? "',' or '}' expected" : "',' or ']' expected");
		r->at++;
		blanks(r);
	}
	if (object) {
		if (r->at == r->in.n || r->in.p[r->at] != '"')
			return fail(r, "name expected");
		if (!string(r, &t->key))
			return false;
		blanks(r);
		if (r->at == r->in.n || r->in.p[r->at] != ':')
			return fail(r, "':' expected");
		r->at++;
		blanks(r);
	}
	return value(r, t);
}

enum json_kind json_next(struct json_reader *r, struct json_token *t)
{
	*t = (struct json_token){.kind = JSON_END};
	if (r->error || !next(r, t))
		t->kind = JSON_END;
	return t->kind;
}

enum json_kind json_enter(struct json_reader *r, struct str in)
{
	struct json_token t;
	*r = (struct json_reader){.in = in};
	return json_next(r, &t);
}

bool json_skip(struct json_reader *r, struct json_token *t)
{
	struct json_token inner;
	int depth = r->depth;
	if (t->kind != JSON_OBJECT && t->kind != JSON_ARRAY)
		return !r->error;
	while (r->depth >= depth && !r->error)
		(void)json_next(r, &inner); /* errors are in r */
	t->text.n = (size_t)(r->in.p + r->at - t->text.p);
	return !r->error;
}

const char *json_check(struct str in, size_t *at)
{
	struct json_reader r = {.in = in};
	struct json_token t;
	while (json_next(&r, &t) != JSON_END)
		;
	if (at)
		*at = r.at;
	return r.error;
}

const char *json_fields(struct str object, const struct json_field *known, size_t n, struct json_token *out)
{
	struct json_reader r;
	struct json_token t;

	memset(out, 0, n * sizeof *out);
	if (json_enter(&r, object) != JSON_OBJECT)
		return "a JSON object is needed";
	while (json_next(&r, &t) != JSON_CLOSE) {
		(void)json_skip(&r, &t); /* checked before */
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

static size_t utf8_write(char *out, uint32_t cp)
{
	if (cp < 0x80) {
		out[0] = (char)cp;
		return 1;
	}
	size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
	for (size_t i = n; i-- > 1; cp >>= 6)
		out[i] = (char)(0x80 | (cp & 0x3f));
	out[0] = (char)((0xf00 >> n & 0xff) | cp); /* 2: c0, 3: e0, 4: f0 */
	return n;
}

struct str json_unescape(struct str raw)
{
	/* an escape is never shorter than what it stands for, so this can be done in place */
	char *out = (char *)raw.p;
	size_t o = 0;

	for (size_t i = 0; i < raw.n;) {
		struct escaped e = {0, 0};
		if (raw.p[i] == '\\')
			e = escape(raw.p + i, raw.n - i);
		if (e.len)
			o += utf8_write(out + o, (uint32_t)e.cp);
		else
			out[o++] = raw.p[i];
		i += e.len ? e.len : 1;
	}
	return (struct str){raw.p, o};
}

bool json_is(struct str s, const char *name)
{
	for (struct escaped e; s.n; s.p += e.len, s.n -= e.len, name++) {
		e = s.p[0] == '\\' ? escape(s.p, s.n) : (struct escaped){1, (unsigned char)s.p[0]};
		if (!e.len || *name == '\0' || e.cp != (unsigned char)*name)
			return false;
	}
	return *name == '\0';
}

bool json_int(struct str s, int64_t *v)
{
	bool minus = s.n && s.p[0] == '-';
	uint64_t u;
	if (minus)
		s.p++, s.n--;
	if (!str_uint(s, 1ull << 53, &u))
		return false;
	*v = minus ? -(int64_t)u : (int64_t)u;
	return true;
}

/* Bytes of s that need no change and may be copied as they are. */
static size_t plain(struct str s)
{
	size_t i = 0;
	while (i < s.n && (unsigned char)s.p[i] >= 0x20 && (unsigned char)s.p[i] < 0x7f &&
	       s.p[i] != '"' && s.p[i] != '\\')
		i++;
	return i;
}

/* The escaped form of the character at the start of s: its length in out, *used bytes of s. */
static size_t escape_one(struct str s, char out[8], size_t *used, bool *lossy)
{
	static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt", hex[] = "0123456789abcdef";
	unsigned char c = (unsigned char)s.p[0];
	const char *at = c ? strchr(from, (char)c) : NULL;

	*used = 1;
	if (at) {
		out[0] = '\\';
		out[1] = to[at - from];
		return 2;
	}
	/* DEL and U+0080 to U+009F are legal JSON, but a log that is read in a terminal is better off without */
	if (c == 0xc2 && s.n > 1 && (unsigned char)s.p[1] >= 0x80 && (unsigned char)s.p[1] < 0xa0) {
		*used = 2;
		c = (unsigned char)s.p[1];
	}
	if (c < 0x20 || c == 0x7f || *used == 2) {
		memcpy(out, "\\u00", 4);
		out[4] = hex[c >> 4];
		out[5] = hex[c & 15];
		return 6;
	}
	int n = utf8_next(s);
	*used = (size_t)(n < 0 ? -n : n);
	if (n > 0) {
		memcpy(out, s.p, *used);
		return *used;
	}
	if (lossy)
		*lossy = true;
	memcpy(out, "\xef\xbf\xbd", 3);
	return 3;
}

size_t json_escape(struct buf *b, struct str s, bool *lossy)
{
	size_t at = 0, used;
	char one[8];

	while (at < s.n) {
		struct str rest = {s.p + at, s.n - at};
		size_t room = b->cap - b->n, n = plain((struct str){rest.p, rest.n < room ? rest.n : room}); /* looked at once, however often asked */
		if (n) {
			buf_put(b, rest.p, n);
			at += n;
			continue;
		}
		n = escape_one(rest, one, &used, lossy);
		if (n > b->cap - b->n)
			break;
		buf_put(b, one, n);
		at += used;
	}
	return at;
}

size_t json_escaped_len(struct str s, bool *lossy)
{
	char room[256];
	size_t len = 0;

	while (s.n) {
		struct buf b = {room, 0, sizeof room, false};
		size_t used = json_escape(&b, s, lossy);
		s.p += used;
		s.n -= used;
		len += b.n;
	}
	return len;
}

size_t json_base64(struct buf *b, struct str s)
{
	size_t at = 0;
	char four[4];

	while (at < s.n && b->cap - b->n >= sizeof four) {
		size_t n = s.n - at < 3 ? s.n - at : 3;
		base64_group((const unsigned char *)s.p + at, n, four);
		buf_put(b, four, sizeof four);
		at += n;
	}
	return at;
}

/* Before a value or a bracket: the comma, and whether a value may stand here at all. */
static void begin(struct json_writer *w, bool is_key)
{
	bool object = w->depth && (w->objects >> w->depth & 1);
	if (object ? is_key == w->key : is_key || (w->depth == 0 && w->comma))
		w->b->full = true;
	if (w->comma && !w->key)
		buf_put(w->b, ",", 1);
	w->key = is_key;
	w->comma = !is_key;
}

void json_open(struct json_writer *w, bool object)
{
	begin(w, false);
	if (w->depth == JSON_DEPTH) {
		w->b->full = true;
		return;
	}
	uint64_t bit = 1ull << ++w->depth;
	w->objects = object ? w->objects | bit : w->objects & ~bit;
	w->comma = false;
	buf_str(w->b, object ? "{" : "[");
}

void json_close(struct json_writer *w)
{
	if (w->depth == 0 || w->key) {
		w->b->full = true;
		return;
	}
	buf_str(w->b, w->objects >> w->depth & 1 ? "}" : "]");
	w->depth--;
	w->comma = true;
}

static bool quoted(struct json_writer *w, struct str s)
{
	bool lossy = false;
	buf_put(w->b, "\"", 1);
	if (!w->b->full && json_escape(w->b, s, &lossy) < s.n)
		w->b->full = true;
	buf_put(w->b, "\"", 1);
	return !lossy;
}

static void put_key(struct json_writer *w, struct str key)
{
	begin(w, true);
	quoted(w, key);
	buf_put(w->b, ":", 1);
}

void json_key(struct json_writer *w, const char *key)
{
	put_key(w, str_of(key));
}

bool json_string(struct json_writer *w, struct str s)
{
	begin(w, false);
	return quoted(w, s);
}

void json_number(struct json_writer *w, int64_t v)
{
	begin(w, false);
	if (v < 0)
		buf_put(w->b, "-", 1);
	buf_uint(w->b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void json_truth(struct json_writer *w, bool v)
{
	begin(w, false);
	buf_str(w->b, v ? "true" : "false");
}

void json_null(struct json_writer *w)
{
	begin(w, false);
	buf_str(w->b, "null");
}

void json_elsewhere(struct json_writer *w)
{
	begin(w, false);
}

static void put_string(struct json_writer *w, struct str s)
{
	if (s.p)
		(void)json_string(w, s); /* what was not UTF-8 shows as U+FFFD */
	else
		json_null(w);
}

void json_put_string(struct json_writer *w, const char *key, struct str s)
{
	json_key(w, key);
	put_string(w, s);
}

void json_put_number(struct json_writer *w, const char *key, int64_t v)
{
	json_key(w, key);
	json_number(w, v);
}

void json_put(struct json_writer *w, const char *pattern, ...)
{
	va_list ap;
	size_t n;

	va_start(ap, pattern);
	for (const char *p = pattern; *p; p += n) {
		for (n = 0; p[n] && !strchr(": {}[]", p[n]);)
			n++;
		if (n == 0) {
			n = 1;
			if (*p == '{' || *p == '[')
				json_open(w, *p == '{');
			else if (*p != ' ')
				json_close(w);
		} else if (p[n] == ':') {
			put_key(w, (struct str){p, n++});
		} else if (*p != '%') {
			json_elsewhere(w);
			buf_put(w->b, p, n);
		} else if (p[1] == 's') {
			const char *text = va_arg(ap, const char *);
			put_string(w, (struct str){text, text ? strlen(text) : 0});
		} else if (p[1] == 'l' || p[1] == 'z') {
			json_number(w, va_arg(ap, int64_t));
		} else {
			unsigned v = va_arg(ap, unsigned);
			if (p[1] == 'h')
				json_truth(w, v);
			else
				json_number(w, p[1] == 'u' ? (int64_t)v : (int)v);
		}
	}
	va_end(ap);
}
