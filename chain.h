/* L2: the audit log as a file: one JSON object a line, each with the SHA-256 of the line before, so
 * that what is edited, cut, inserted or moved shows. The first line has the file's own random seed. */
#ifndef CHAIN_H
#define CHAIN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hash.h"
#include "util.h"

enum { CHAIN_LINE_MAX = 1 << 20, CHAIN_START = 128 };

/* The last line: its number and the hash of its text without the newline; number 0: none yet. */
struct chain { uint64_t seq; char hash[HASH_HEX]; };

/* Opens a log to be appended to, or makes it, mode 0600; links are not followed. repair: nobody is writing to it, so
 * what a crash left of a last line is cut off: *cut bytes. -1 and errno; EBADMSG: the file is something else. */
int chain_open(const char *path, bool repair, uint64_t *cut);
/* The last line of an open log, and the log's size. False: errno, as above; EAGAIN: that line has no end. */
bool chain_tail(int fd, struct chain *c, uint64_t *size);
/* The line, without its newline, is the last one now. It begins with "seq", one more than before, and "prev", the
 * hash of the line before. */
void chain_follow(struct chain *c, struct str line);

/* Reads logs from their beginnings. Zero it; head is what was kept apart, or zero. */
struct chain_check {
	struct chain last, head;
	char before[HASH_HEX];   /* the hash of the line before the last */
	char twin[HASH_HEX];     /* of one more line with the last one's number */
	uint64_t first;          /* the number of the first line of all */
	uint64_t lines, line;    /* read in this file; the first one that is wrong */
	bool head_seen, cut;     /* cut: the last line has no end yet */
	char why[160];
};
/* Checks one more file, which continues the one before. False: line and why say what is wrong first. */
bool chain_check(struct chain_check *k, int fd);
/* At the end of all files: whether the head is there. False: why. */
bool chain_check_head(struct chain_check *k);
#endif
