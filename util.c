/* L0: slices, bounded buffers, numbers, base64, UTF-8, clock, messages to people.
 * Used by every process; trusts nothing about the bytes it is given. */
#include "util.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct str
str_of(const char *s)
{
	return (struct str){s, strlen(s)};
}

bool
str_eq(struct str a, const char *b)
{
	return a.n == strlen(b) && memcmp(a.p, b, a.n) == 0;
}

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool
str_ieq(struct str a, const char *b)
{
	if (a.n != strlen(b))
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (lower(a.p[i]) != lower(b[i]))
			return false;
	return true;
}

bool
str_next(struct str *list, struct str *item)
{
	if (list->n == 0)
		return false;
	const char *comma = memchr(list->p, ',', list->n);
	struct str s = {list->p, comma ? (size_t)(comma - list->p) : list->n};
	size_t used = comma ? s.n + 1 : s.n;
	list->p += used;
	list->n -= used;
	while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
		s.p++, s.n--;
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	*item = s;
	return true;
}

bool
str_uint(struct str s, uint64_t max, uint64_t *v)
{
	uint64_t r = 0;
	if (s.n == 0 || s.n > 19)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		r = r * 10 + (uint64_t)(s.p[i] - '0');
	}
	if (r > max)
		return false;
	*v = r;
	return true;
}

bool
str_same_ct(struct str a, struct str b)
{
	unsigned diff = a.n != b.n;
	for (size_t i = 0; i < b.n; i++)
		diff |= (unsigned char)b.p[i] ^ (unsigned char)(a.n ? a.p[i % a.n] : 0);
	return diff == 0;
}

void
buf_put(struct buf *b, const void *p, size_t n)
{
	if (b->full || n > b->cap - b->n) {
		b->full = true;
		return;
	}
	if (n)
		memcpy(b->p + b->n, p, n);
	b->n += n;
}

void
buf_str(struct buf *b, const char *s)
{
	buf_put(b, s, strlen(s));
}

void
buf_uint(struct buf *b, uint64_t v)
{
	char tmp[20];
	size_t i = sizeof tmp;
	do
		tmp[--i] = (char)('0' + v % 10);
	while (v /= 10);
	buf_put(b, tmp + i, sizeof tmp - i);
}

void
buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	size_t left = b->full ? 0 : b->cap - b->n;
	int n = vsnprintf(left ? b->p + b->n : NULL, left, fmt, ap);
	va_end(ap);
	/* vsnprintf needs room for its NUL, so exactly full counts as too much */
	if (n < 0 || (size_t)n >= left)
		b->full = true;
	else
		b->n += (size_t)n;
}

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void
base64_group(const unsigned char *in, size_t n, char out[4])
{
	uint32_t v = (uint32_t)in[0] << 16 | (n > 1 ? (uint32_t)in[1] << 8 : 0) | (n > 2 ? in[2] : 0);
	out[0] = b64[v >> 18];
	out[1] = b64[v >> 12 & 63];
	out[2] = n > 1 ? b64[v >> 6 & 63] : '=';
	out[3] = n > 2 ? b64[v & 63] : '=';
}

long
base64_decode(struct str in, char *out)
{
	size_t o = 0;
	if (in.n % 4)
		return -1;
	for (size_t i = 0; i < in.n; i += 4) {
		uint32_t v = 0;
		int pad = 0;
		for (int k = 0; k < 4; k++) {
			char c = in.p[i + (size_t)k];
			const char *at = c ? strchr(b64, c) : NULL;
			if (c == '=' && i + 4 == in.n && k >= 2)
				pad++;
			else if (!at || pad)
				return -1;
			v = v << 6 | (at ? (uint32_t)(at - b64) : 0);
		}
		/* bits that no byte carries must be zero, or two texts would mean the same */
		if ((pad == 1 && (v & 0xff)) || (pad == 2 && (v & 0xffff)))
			return -1;
		for (int k = 0; k < 3 - pad; k++)
			out[o++] = (char)(v >> (16 - 8 * k) & 0xff);
	}
	return (long)o;
}

size_t
utf8_next(struct str s, size_t *bad)
{
	const unsigned char *u = (const unsigned char *)s.p;
	unsigned lo = 0x80, hi = 0xbf, c = u[0];
	size_t len;

	*bad = 1;
	if (c < 0x80)
		return 1;
	if (c < 0xc2 || c > 0xf4)
		return 0;
	len = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
	/* the second byte's range shuts out overlong forms, surrogates and what lies past U+10FFFF */
	if (c == 0xe0)
		lo = 0xa0;
	else if (c == 0xed)
		hi = 0x9f;
	else if (c == 0xf0)
		lo = 0x90;
	else if (c == 0xf4)
		hi = 0x8f;
	for (size_t i = 1; i < len; i++, lo = 0x80, hi = 0xbf) {
		if (i >= s.n || u[i] < lo || u[i] > hi)
			return 0;
		*bad = i + 1;
	}
	return len;
}

uint64_t
now_us(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* can't fail: the clock exists since Linux 2.6 */
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t
now_ms(void)
{
	return now_us() / 1000;
}

static void
say(const char *fmt, va_list ap)
{
	char line[1024];
	int saved = errno;
	size_t len = strlen(fmt);
	struct buf b = {line, 0, sizeof line - 1, false};
	buf_str(&b, "omniarena: ");
	int n = vsnprintf(line + b.n, sizeof line - b.n, fmt, ap);
	if (n > 0)
		b.n += (size_t)n < sizeof line - b.n ? (size_t)n : sizeof line - b.n - 1;
	if (len && fmt[len - 1] == ':') {
		buf_put(&b, " ", 1);
		buf_str(&b, strerror(saved));
	}
	line[b.n++] = '\n';
	/* one write, so that lines of several processes never mix; nobody to tell if it fails */
	ssize_t done = write(2, line, b.n);
	(void)done;
	errno = saved;
}

void
warn(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
}

void
die(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	_exit(1);
}
