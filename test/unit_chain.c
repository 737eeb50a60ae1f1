/* chain.c: every change of one byte, every line left out, doubled or swapped is found, and at its place. */
#include "unit.h"

#include <fcntl.h>
#include <unistd.h>

#include "../chain.h"
#include "../util.h"

enum { LINES = 12 };
static struct { char text[400]; size_t n; } line[LINES];
static struct chain head;

static void make(void)
{
	memset(head.hash, '5', sizeof head.hash);
	for (unsigned i = 0; i < LINES; i++) {
		struct buf b = {line[i].text, 0, sizeof line[i].text, false};
		buf_printf(&b, "{\"seq\":%u,\"prev\":\"%.*s\",\"event\":\"EXEC\",\"cmd\":\"echo %u\"}", i + 1, HASH_HEX, head.hash, i);
		chain_follow(&head, (struct str){b.p, b.n});
		line[i].n = b.n;
	}
}

static const char *path = "/tmp/omniarena-unit-chain";

/* The first line that is wrong, 0 for none; lines are taken in this order. */
static uint64_t verdict(const int *order, size_t n, size_t cut, bool with_head)
{
	struct chain_check k = {.lines = 0};
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	bool ok = fd >= 0;

	for (size_t i = 0; i < n; i++)
		ok = ok && write(fd, line[order[i]].text, line[order[i]].n) == (ssize_t)line[order[i]].n && write(fd, "\n", 1) == 1;
	if (cut)
		ok = ok && write(fd, line[0].text, cut) == (ssize_t)cut;
	check(ok && lseek(fd, 0, SEEK_SET) == 0, "a file can't be written");
	if (with_head)
		k.head = head;
	ok = chain_check(&k, fd) && chain_check_head(&k);
	check(k.cut == (cut > 0) || !ok, "a cut line is seen");
	(void)close(fd);
	return ok ? 0 : k.line;
}

int main(void)
{
	int order[LINES + 1];
	size_t wrong = 0;

	make();
	for (int i = 0; i < LINES; i++)
		order[i] = i;
	check(verdict(order, LINES, 0, true) == 0, "an untouched log is whole");
	check(verdict(order, LINES, 30, true) == 0, "so is one whose last line is being written");
	check(verdict(order, LINES - 1, 0, true) == LINES, "a line cut off at the end");
	check(verdict(order, LINES - 1, 0, false) == 0, "which only the head can tell");
	for (int i = 0; i < LINES; i++) {
		for (size_t at = 0; at < line[i].n; at++) {
			line[i].text[at] ^= 1;
			uint64_t said = verdict(order, LINES, 0, true);
			line[i].text[at] ^= 1;
			if (said != (uint64_t)i + 1)
				wrong++, check(wrong > 5, "byte %zu of line %d: line %llu is named", at, i + 1, (unsigned long long)said);
		}
		size_t n = 0;
		for (int k = 0; k < LINES; k++)
			if (k != i)
				order[n++] = k;
		uint64_t said = verdict(order, n, 0, true);
		check(i == 0 ? said == 0 : said == (uint64_t)i + 1, "without line %d: %llu", i + 1, (unsigned long long)said); /* the first one's absence is a rotation */
		n = 0;
		for (int k = 0; k < LINES; k++) {
			order[n++] = k;
			if (k == i)
				order[n++] = k;
		}
		said = verdict(order, n, 0, true);
		check(said == (uint64_t)i + 2 || (i == LINES - 1 && said == LINES), "line %d twice: %llu", i + 1, (unsigned long long)said);
		for (int k = 0; k < LINES; k++)
			order[k] = k;
	}
	for (int i = 1; i + 1 < LINES; i++) {
		order[i] = i + 1, order[i + 1] = i;
		check(verdict(order, LINES, 0, true) == (uint64_t)i + 1, "lines %d and %d swapped", i + 1, i + 2);
		order[i] = i, order[i + 1] = i + 1;
	}
	(void)unlink(path);
	return unit_end("unit_chain");
}
