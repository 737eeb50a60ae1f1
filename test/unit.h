/* The units' harness: counted checks, and input that ends where the readable memory ends. */
#ifndef UNIT_H
#define UNIT_H
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int unit_passed, unit_failed, unit_skipped;

__attribute__((format(printf, 2, 3))) static inline void check(bool ok, const char *fmt, ...)
{
	va_list ap;
	if (ok) {
		unit_passed++;
		return;
	}
	unit_failed++;
	va_start(ap, fmt);
	(void)printf("FAIL  ");
	(void)vprintf(fmt, ap);
	(void)printf("\n");
	va_end(ap);
}

static inline int unit_end(const char *name)
{
	(void)printf("%s: %d passed, %d failed, %d skipped\n", name, unit_passed, unit_failed, unit_skipped);
	return unit_failed > 0;
}

/* n writable bytes right before a page that nobody may touch: one byte too far is a crash. Not freed
 * but by guard_free. */
enum { GUARD_PAGE = 4096 };

static inline char *guard_new(size_t n)
{
	size_t pages = (n + GUARD_PAGE - 1) / GUARD_PAGE + 1;
	char *p = mmap(NULL, pages * GUARD_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || mprotect(p + (pages - 1) * GUARD_PAGE, GUARD_PAGE, PROT_NONE) < 0) {
		(void)printf("FAIL  no memory for a guarded buffer\n");
		exit(1);
	}
	return p + (pages - 1) * GUARD_PAGE - n;
}

static inline void guard_free(char *p, size_t n)
{
	size_t pages = (n + GUARD_PAGE - 1) / GUARD_PAGE + 1;
	(void)munmap(p + n - (pages - 1) * GUARD_PAGE, pages * GUARD_PAGE);
}

static inline char *guard_copy(const char *text, size_t n)
{
	char *p = guard_new(n);
	memcpy(p, text, n);
	return p;
}
#endif
