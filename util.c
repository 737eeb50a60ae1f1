/* L0: slices, bounded buffers, numbers, base64, UTF-8, clock, messages to people.
 * Used by every process; trusts nothing about the bytes it is given. */
#include "util.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct str str_of(const char *s)
{
	return (struct str){s, strlen(s)};
}

bool str_eq(struct str a, const char *b)
{
	return a.n == strlen(b) && memcmp(a.p, b, a.n) == 0;
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool str_ieq(struct str a, const char *b)
{
	if (a.n != strlen(b))
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (lower(a.p[i]) != lower(b[i]))
			return false;
	return true;
}

bool str_cut(struct str *rest, char separator, struct str *item)
{
	if (rest->n == 0)
		return false;
	const char *end = memchr(rest->p, separator, rest->n);
	*item = (struct str){rest->p, end ? (size_t)(end - rest->p) : rest->n};
	size_t used = end ? item->n + 1 : item->n;
	rest->p += used;
	rest->n -= used;
	return true;
}

static bool blank(char c)
{
	return c == ' ' || c == '\t';
}

bool str_next(struct str *list, struct str *item)
{
	if (!str_cut(list, ',', item))
		return false;
	while (item->n && blank(item->p[0]))
		item->p++, item->n--;
	while (item->n && blank(item->p[item->n - 1]))
		item->n--;
	return true;
}

bool str_word(struct str *rest, struct str *word)
{
	while (rest->n && (blank(rest->p[0]) || rest->p[0] == '\n'))
		rest->p++, rest->n--;
	*word = (struct str){rest->p, 0};
	for (; rest->n && !blank(rest->p[0]) && rest->p[0] != '\n'; rest->p++, rest->n--)
		word->n++;
	return word->n > 0;
}

uint64_t str_digits(struct str *rest)
{
	uint64_t v = 0;
	for (int i = 0; i < 19 && rest->n && rest->p[0] >= '0' && rest->p[0] <= '9'; i++, rest->p++, rest->n--)
		v = v * 10 + (uint64_t)(rest->p[0] - '0');
	return v;
}

bool str_uint(struct str s, uint64_t max, uint64_t *v)
{
	struct str rest = s;
	uint64_t r = str_digits(&rest);
	if (s.n == 0 || rest.n || r > max)
		return false;
	*v = r;
	return true;
}

const char *str_find(struct str s, const char *what)
{
	return memmem(s.p, s.n, what, strlen(what));
}

bool str_same_ct(struct str a, struct str b)
{
	unsigned diff = a.n != b.n;
	for (size_t i = 0; i < b.n; i++)
		diff |= (unsigned char)b.p[i] ^ (unsigned char)(a.n ? a.p[i % a.n] : 0);
	return diff == 0;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
	if (b->full || n > b->cap - b->n) {
		b->full = true;
		return;
	}
	if (n)
		memcpy(b->p + b->n, p, n);
	b->n += n;
}

void buf_str(struct buf *b, const char *s)
{
	buf_put(b, s, strlen(s));
}

void buf_uint(struct buf *b, uint64_t v)
{
	char tmp[20];
	size_t i = sizeof tmp;
	do
		tmp[--i] = (char)('0' + v % 10);
	while (v /= 10);
	buf_put(b, tmp + i, sizeof tmp - i);
}

void buf_hex(struct buf *b, const void *p, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	for (const unsigned char *at = p, *end = at + n; at < end; at++) {
		buf_put(b, &digits[*at >> 4], 1);
		buf_put(b, &digits[*at & 15], 1);
	}
}

/* %s %.*s %d %u, with l, ll or z, and %02u: what this house writes, in a tenth of libc's code. */
static void put_format(struct buf *b, const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		int longs = 0, pad = 0, limit = -1;
		if (*fmt != '%') {
			buf_put(b, fmt, 1);
			continue;
		}
		if (fmt[1] == '0')
			pad = fmt[2] - '0', fmt += 2;
		if (fmt[1] == '.')
			limit = va_arg(ap, int), fmt += 2;
		for (fmt++; *fmt == 'l' || *fmt == 'z'; fmt++)
			longs++; /* all of these are 64 bits on both CPUs */
		if (*fmt == 's') {
			const char *s = va_arg(ap, const char *);
			buf_put(b, s, limit >= 0 ? (size_t)limit : strlen(s));
		} else if (*fmt == 'd') {
			int64_t v = longs ? va_arg(ap, long) : va_arg(ap, int);
			if (v < 0)
				buf_put(b, "-", 1);
			buf_uint(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
		} else if (*fmt == 'u') {
			uint64_t v = longs ? va_arg(ap, unsigned long) : va_arg(ap, unsigned);
			for (uint64_t top = 10; pad > 1 && v < top; pad--)
				buf_put(b, "0", 1);
			buf_uint(b, v);
		} else {
			b->full = true; /* a format that is not ours */
			return;
		}
	}
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	put_format(b, fmt, ap);
	va_end(ap);
}

bool text_vprintf(char *out, size_t cap, const char *fmt, va_list ap)
{
	struct buf b = {out, 0, cap - 1, false};
	put_format(&b, fmt, ap);
	out[b.n] = '\0';
	return !b.full;
}

bool text_printf(char *out, size_t cap, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	bool fits = text_vprintf(out, cap, fmt, ap);
	va_end(ap);
	return fits;
}

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_group(const unsigned char *in, size_t n, char out[4])
{
	uint32_t v = (uint32_t)in[0] << 16 | (n > 1 ? (uint32_t)in[1] << 8 : 0) | (n > 2 ? in[2] : 0);
	out[0] = b64[v >> 18];
	out[1] = b64[v >> 12 & 63];
	out[2] = n > 1 ? b64[v >> 6 & 63] : '=';
	out[3] = n > 2 ? b64[v & 63] : '=';
}

long base64_decode(struct str in, char *out)
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

int utf8_next(struct str s)
{
	const unsigned char *u = (const unsigned char *)s.p;
	unsigned lo = 0x80, hi = 0xbf, c = u[0];
	int len;

	if (c < 0x80)
		return 1;
	if (c < 0xc2 || c > 0xf4)
		return -1;
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
	for (int i = 1; i < len; i++, lo = 0x80, hi = 0xbf)
		if ((size_t)i >= s.n || u[i] < lo || u[i] > hi)
			return -i;
	return len;
}

/* By the call itself, not by libc, which first looks for the kernel's faster one in the vDSO with a linker of its own. */
static struct timespec clock_now(clockid_t clock)
{
	struct timespec t = {0, 0};
	(void)syscall(SYS_clock_gettime, clock, &t); /* can't fail: both clocks exist since Linux 2.6 */
	return t;
}

uint64_t now_us(void)
{
	struct timespec t = clock_now(CLOCK_MONOTONIC);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t now_ms(void)
{
	return now_us() / 1000;
}

uint64_t now_unix_ms(void)
{
	struct timespec t = clock_now(CLOCK_REALTIME);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static unsigned days_of_month(unsigned month, unsigned year)
{
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	return month == 1 ? 28u + leap : 30u + ((month + (month < 7)) & 1);
}

struct date date_of(uint64_t unix_s)
{
	unsigned day = (unsigned)(unix_s / 86400), second = (unsigned)(unix_s % 86400);
	struct date d = {.year = 1970, .weekday = (day + 4) % 7, .hour = second / 3600, .minute = second / 60 % 60, .second = second % 60};

	for (unsigned n; day >= (n = days_of_month(d.month, d.year)); day -= n)
		if (++d.month == 12)
			d.month = 0, d.year++;
	d.day = day + 1;
	return d;
}

static void say(const char *fmt, va_list ap)
{
	char line[1024];
	int saved = errno;
	size_t len = strlen(fmt);
	struct buf b = {line, 0, sizeof line - 1, false};
	buf_str(&b, "omniarena: ");
	put_format(&b, fmt, ap);
	if (len && fmt[len - 1] == ':')
		buf_printf(&b, " %s", strerror(saved));
	line[b.n++] = '\n';
	/* one write, so that lines of several processes never mix; nobody to tell if it fails */
	ssize_t done = write(2, line, b.n);
	(void)done;
	errno = saved;
}

void warn(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
}

void die(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	_exit(1);
}
