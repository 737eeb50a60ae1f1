/* L2: the audit log as a file. Runs in the warden (which opens it), in arena (which appends) and in
 * "omniarena verify"; of what stands in a line only its begin is read, the rest is hashed. */
#include "chain.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 4096 };
static const char seq_key[] = "{\"seq\":", prev_key[] = ",\"prev\":\"";

void chain_follow(struct chain *c, struct str line)
{
	sha256_hex(line, c->hash);
	c->seq++;
}

/* True when a line begins as ours do. */
static bool parse(struct str s, uint64_t *seq, char prev[HASH_HEX])
{
	size_t n = sizeof seq_key - 1;
	if (s.n < n || memcmp(s.p, seq_key, n) != 0)
		return false;
	s.p += n, s.n -= n;
	*seq = str_digits(&s);
	n = sizeof prev_key - 1;
	if (*seq == 0 || *seq > 1ull << 53 || s.n < n + HASH_HEX + 1 || memcmp(s.p, prev_key, n) != 0 || s.p[n + HASH_HEX] != '"')
		return false;
	memcpy(prev, s.p + n, HASH_HEX);
	return true;
}

/* Where the line begins whose last byte stands before end. -1: it is longer than any of ours, or errno. */
static int64_t line_start(int fd, int64_t end)
{
	char chunk[CHUNK];
	int64_t stop = end > CHAIN_LINE_MAX ? end - CHAIN_LINE_MAX : 0;

	for (int64_t at = end; at > stop;) {
		size_t n = at - stop < CHUNK ? (size_t)(at - stop) : CHUNK;
		at -= (int64_t)n;
		if (pread(fd, chunk, n, at) != (ssize_t)n)
			return -1;
		const char *newline = memrchr(chunk, '\n', n);
		if (newline)
			return at + (newline - chunk) + 1;
	}
	errno = EBADMSG;
	return stop ? -1 : 0;
}

/* A file that does not begin as ours do is not touched. */
static bool is_log(int fd, int64_t size)
{
	char start[sizeof seq_key - 1];
	errno = EBADMSG;
	return size == 0 || (pread(fd, start, sizeof start, 0) == (ssize_t)sizeof start && memcmp(start, seq_key, sizeof start) == 0) ||
	       (size < (int64_t)sizeof start && line_start(fd, size) == 0);
}

int chain_open(const char *path, bool repair, uint64_t *cut)
{
	struct stat st;
	char last;
	int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	int64_t start = 0;

	*cut = 0;
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) < 0)
		goto fail;
	errno = EBADMSG;
	/* with a second name it could be any file of somebody else */
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || !is_log(fd, st.st_size))
		goto fail;
	if (st.st_size && pread(fd, &last, 1, st.st_size - 1) != 1)
		goto fail;
	if (st.st_size == 0 || last == '\n' || !repair)
		return fd;
	if ((start = line_start(fd, st.st_size)) < 0 || ftruncate(fd, start) < 0)
		goto fail;
	*cut = (uint64_t)(st.st_size - start);
	return fd;
fail:;
	int saved = errno;
	(void)close(fd); /* nothing was written */
	errno = saved;
	return -1;
}

bool chain_tail(int fd, struct chain *c, uint64_t *size)
{
	char chunk[CHUNK], prev[HASH_HEX];
	unsigned char digest[HASH_BYTES];
	struct buf hash = {c->hash, 0, sizeof c->hash, false};
	struct sha256 s;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	*size = (uint64_t)st.st_size;
	c->seq = 0;
	if (st.st_size == 0)
		return true;
	if (pread(fd, chunk, 1, st.st_size - 1) != 1)
		return false;
	errno = EAGAIN;
	int64_t start = chunk[0] == '\n' ? line_start(fd, st.st_size - 1) : -1;
	if (start < 0)
		return false;
	sha256_init(&s);
	for (int64_t at = start, end = st.st_size - 1; at < end;) {
		size_t n = end - at < CHUNK ? (size_t)(end - at) : CHUNK;
		if (pread(fd, chunk, n, at) != (ssize_t)n)
			return false;
		if (at == start && !parse((struct str){chunk, n}, &c->seq, prev)) {
			errno = EBADMSG;
			return false;
		}
		sha256_put(&s, chunk, n);
		at += (int64_t)n;
	}
	sha256_end(&s, digest);
	buf_hex(&hash, digest, sizeof digest);
	return c->seq > 0;
}

/* ---- checking ---- */

static bool wrong(struct chain_check *k, uint64_t line, const char *why)
{
	if (!k->why[0] || line < k->line) {
		k->line = line;
		(void)text_printf(k->why, sizeof k->why, "%s", why); /* fits */
	}
	return false;
}

/* A line whose own end is known: its start and its hash. */
static bool check_line(struct chain_check *k, struct str start, const char *hash)
{
	uint64_t seq;
	char prev[HASH_HEX];
	bool first = k->last.seq == 0, follows;

	k->lines++;
	if (!parse(start, &seq, prev))
		return wrong(k, k->lines, "it is no line of this log: edited or inserted");
	follows = first || memcmp(prev, k->last.hash, HASH_HEX) == 0;
	if (k->twin[0]) { /* two lines have one number: this one says which of them belongs here */
		k->line -= memcmp(prev, k->twin, HASH_HEX) == 0 && memcmp(k->twin, k->last.hash, HASH_HEX) != 0;
		return false;
	}
	if (k->why[0]) /* the line before did not follow: if it is whole itself, the one before that was changed */
		return follows ? wrong(k, k->line - 1, "it was edited") : false;
	if (first)
		k->first = seq;
	if (!first && seq != k->last.seq + 1) {
		if (seq == k->last.seq && memcmp(prev, k->before, HASH_HEX) == 0) {
			memcpy(k->twin, hash, HASH_HEX);
			(void)wrong(k, k->lines, "it was inserted");
			return true;
		}
		return wrong(k, k->lines, seq > k->last.seq ? "it does not follow the line before: lines were cut, or it was moved here" :
		                                             "its number was there already: it was inserted or moved here");
	}
	memcpy(k->before, k->last.hash, HASH_HEX);
	memcpy(k->last.hash, hash, HASH_HEX);
	k->last.seq = seq;
	if (seq == k->head.seq) {
		k->head_seen = true;
		if (memcmp(hash, k->head.hash, HASH_HEX) != 0)
			return wrong(k, k->lines, "it is not the line that the head, which is kept apart, has: edited");
	}
	if (!follows) /* which of the two it was, the next line tells */
		(void)wrong(k, k->lines, "it was edited");
	return true;
}

bool chain_check(struct chain_check *k, int fd)
{
	static char chunk[1 << 16];
	char start[CHAIN_START], hash[HASH_HEX];
	unsigned char digest[HASH_BYTES];
	size_t have = 0, length = 0;
	struct sha256 s;
	ssize_t n;

	k->lines = 0;
	k->cut = false;
	sha256_init(&s);
	while ((n = read(fd, chunk, sizeof chunk)) > 0)
		for (struct str rest = {chunk, (size_t)n}; rest.n;) {
			const char *newline = memchr(rest.p, '\n', rest.n);
			size_t take = newline ? (size_t)(newline - rest.p) : rest.n;
			size_t keep = take < sizeof start - have ? take : sizeof start - have;
			memcpy(start + have, rest.p, keep);
			have += keep;
			length += take;
			sha256_put(&s, rest.p, take);
			rest.p += take + (newline != NULL);
			rest.n -= take + (newline != NULL);
			if (length > CHAIN_LINE_MAX)
				return wrong(k, k->lines + 1, "it is longer than any line of this log");
			if (!newline)
				break;
			struct buf b = {hash, 0, sizeof hash, false};
			sha256_end(&s, digest);
			buf_hex(&b, digest, sizeof digest);
			if (!check_line(k, (struct str){start, have}, hash))
				return false;
			sha256_init(&s);
			have = length = 0;
		}
	if (n < 0)
		return wrong(k, k->lines, strerror(errno));
	k->cut = length > 0;
	/* the last line does not follow, and no other tells which of the two it was, unless the head has the first */
	if (k->why[0] && !(k->head_seen && k->head.seq + 1 == k->last.seq))
		k->line--;
	return !k->why[0];
}

bool chain_check_head(struct chain_check *k)
{
	if (k->head.seq == 0 || k->head_seen)
		return true;
	if (k->head.seq > k->last.seq)
		(void)text_printf(k->why, sizeof k->why, "%llu lines are missing at the end: the head, which is kept apart, is line number %llu",
		                  (unsigned long long)(k->head.seq - k->last.seq), (unsigned long long)k->head.seq);
	else
		(void)text_printf(k->why, sizeof k->why, "the line that the head names, number %llu, is in none of these files",
		                  (unsigned long long)k->head.seq);
	k->line = k->lines + 1;
	return false;
}
