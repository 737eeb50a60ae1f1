/* L0: slices, bounded buffers, numbers, base64, UTF-8, clock, messages to people. */
#ifndef UTIL_H
#define UTIL_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define countof(a) (sizeof(a) / sizeof((a)[0]))

/* Borrowed slice: never freed, no NUL promised. */
struct str { const char *p; size_t n; };
/* Fixed store, owned by somebody else; the first put that does not fit sets full and stays so. */
struct buf { char *p; size_t n, cap; bool full; };

/* The slice of a C string. */
struct str str_of(const char *s);
bool str_eq(struct str a, const char *b);
/* ASCII letters compare without case: header names and tokens (RFC 9110 section 5.1). */
bool str_ieq(struct str a, const char *b);
/* Cuts the next element of a comma list off *list, blanks trimmed (RFC 9110 section 5.6.1);
 * false at the end. */
bool str_next(struct str *list, struct str *item);
/* Cuts off what stands before the next separator, which goes too; false at the end. */
bool str_cut(struct str *rest, char separator, struct str *item);
/* Cuts off the next run of characters that are no blanks and no newlines; false at the end. */
bool str_word(struct str *rest, struct str *word);
/* Cuts off the decimal digits that it begins with, at most 19: their number, 0 for none. */
uint64_t str_digits(struct str *rest);
/* Decimal digits only, no sign, at most max; anything else is false and leaves *v alone. */
bool str_uint(struct str s, uint64_t max, uint64_t *v);
/* Where what stands in s first, or NULL. */
const char *str_find(struct str s, const char *what);
/* True when both have the same bytes; the time depends on b's length alone. */
bool str_same_ct(struct str a, struct str b);

/* All of it or nothing: what does not fit sets full. */
void buf_put(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, const char *s);
void buf_uint(struct buf *b, uint64_t v);
/* Two lower case hexadecimal digits a byte. */
void buf_hex(struct buf *b, const void *p, size_t n);
/* The part of printf that we use: %s %.*s %d %u, with l, ll or z, and %02u. For formats of our own
 * only, never for text from outside. Pieces that fit whole are written, then full is set. */
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The same into a C string, cut at the first piece that does not fit: then false. */
bool text_printf(char *out, size_t cap, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool text_vprintf(char *out, size_t cap, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));

/* Strict base64 (RFC 4648 section 4, padding required): bytes written to out, or -1.
 * out holds at least in.n / 4 * 3 bytes and may be the input's own memory. */
long base64_decode(struct str in, char *out);
/* Writes four letters for 1 to 3 bytes. */
void base64_group(const unsigned char *in, size_t n, char out[4]);

/* Length of the well-formed UTF-8 sequence at the start of s, which is not empty (Unicode 15, table 3-7); else, below
 * zero, that of the ill-formed part to replace by one U+FFFD (at least 1). */
int utf8_next(struct str s);

/* CLOCK_MONOTONIC in milliseconds, microseconds. */
uint64_t now_ms(void);
uint64_t now_us(void);

/* Unix time, milliseconds: CLOCK_REALTIME. */
uint64_t now_unix_ms(void);
/* A Unix time as a date of UTC; month 0 is January, weekday 0 is Sunday. Not by libc's gmtime, which may
 * open files of time zones. */
struct date { unsigned year, month, day, weekday, hour, minute, second; };
struct date date_of(uint64_t unix_s);

/* One line on stderr behind "omniarena: "; a format that ends in ':' gets errno's text. die
 * ends the process with status 1: only for start-up and for children under construction. */
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#endif
