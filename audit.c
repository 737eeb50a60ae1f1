/* L3 net: what happened. Arena holds the log open for appending and nothing else: its filter has no call
 * that opens, cuts or moves a file, so what is written stays. Opening and rotating is the warden's. */
#include "audit.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys.h"

enum { RESERVE = 16384 /* for the end of each command that runs */, RELEASE = 65536 };

static const char kinds[][7] = {
	[AUDIT_RUN] = "RUN", [AUDIT_EXEC] = "EXEC", [AUDIT_BLOCK] = "BLOCK", [AUDIT_RATE] = "RATE", [AUDIT_BUDGET] = "BUDGET",
	[AUDIT_AUTH] = "AUTH", [AUDIT_CONFIG] = "CONFIG", [AUDIT_RESET] = "RESET", [AUDIT_START] = "START", [AUDIT_STOP] = "STOP",
};

bool audit_init(struct audit *a, const struct conf *c, size_t running)
{
	size_t room = CHAIN_LINE_MAX + running * RESERVE + RELEASE;
	*a = (struct audit){.slots = c->audit_slots, .started_ms = now_ms(), .fd = -1, .max_bytes = c->audit_rotate_bytes, .want = AUDIT_MEND,
	                    .ring = sys_memory(c->audit_slots, sizeof *a->ring)};
	unsigned char seed[HASH_BYTES]; /* of a log that begins with us */
	struct buf hash = {a->last.hash, 0, sizeof a->last.hash, false};
	if (getrandom(seed, sizeof seed, 0) != sizeof seed) /* never short for 32 bytes, random(7) */
		return false;
	buf_hex(&hash, seed, sizeof seed);
	/* reserved once, touched only as far as lines are long */
	a->pending = (struct buf){sys_memory(room, 1), 0, room, false};
	(void)text_printf(a->why, sizeof a->why, "it is not open yet");
	return a->ring && a->pending.p;
}

static void set_why(struct audit *a, const char *what)
{
	if (strncmp(a->why, what, sizeof a->why - 1) != 0)
		warn("the audit log can't be written, and no command runs until it can: %s", what);
	(void)text_printf(a->why, sizeof a->why, "%s", what);
	a->told = true;
}

static void works(struct audit *a)
{
	if (a->told)
		warn("the audit log can be written again");
	a->told = false;
	a->why[0] = '\0';
}

static void forget_file(struct audit *a, const char *why)
{
	if (a->fd >= 0)
		(void)close(a->fd); /* every write was looked at */
	a->fd = -1;
	set_why(a, why);
}

void audit_take(struct audit *a, int fd, const char *why)
{
	struct chain tail;
	struct stat st;
	uint64_t size;

	if (fd < 0) {
		forget_file(a, *why ? why : "it can't be opened");
		return;
	}
	if (fstat(fd, &st) == 0 && a->fd >= 0 && st.st_dev == a->dev && st.st_ino == a->ino) {
		(void)close(fd); /* the one that we have is still in its place */
		return;
	}
	if (!chain_tail(fd, &tail, &size)) {
		forget_file(a, errno == EBADMSG ? "it is no audit log" : errno == EAGAIN ? "its last line is cut short" : strerror(errno));
		(void)close(fd);
		return;
	}
	if (a->fd >= 0)
		(void)close(a->fd);
	a->fd = fd;
	a->sent = 0; /* what began in another file begins anew */
	a->dev = st.st_dev;
	a->ino = st.st_ino;
	a->size = size;
	/* what was written in the last second before a crash is younger than the head that was kept apart */
	bool fits = tail.seq == a->last.seq ? !tail.seq || memcmp(tail.hash, a->last.hash, HASH_HEX) == 0 :
	            a->opened ? tail.seq == 0 : tail.seq > a->last.seq;
	if (fits && tail.seq)
		a->last = a->written = tail; /* else the lines go on from where we were, so that verify shows what is missing */
	a->opened = true;
	works(a);
	if (!fits) {
		static const char text[] = "the log does not end where it was left: lines are missing or changed";
		warn("%s", text);
		audit_note(a, AUDIT_CONFIG, NULL, str_of(text), "BROKEN");
	}
}

/* Writes what waits, as far as it goes. */
static void flush(struct audit *a)
{
	struct stat st;

	if (a->fd < 0)
		return;
	if (fstat(a->fd, &st) < 0 || st.st_nlink == 0) {
		forget_file(a, "it was removed");
		a->want = AUDIT_MEND;
		return;
	}
	if (a->pending.n == 0)
		return;
	ssize_t n = write(a->fd, a->pending.p + a->sent, a->pending.n - a->sent);
	if (n > 0) {
		size_t was = a->pending.n;
		a->size += (uint64_t)n;
		a->sent += (size_t)n;
		const char *end = memrchr(a->pending.p, '\n', a->sent);
		size_t whole = end ? (size_t)(end - a->pending.p) + 1 : 0;
		a->pending.n -= whole;
		a->sent -= whole;
		memmove(a->pending.p, a->pending.p + whole, a->pending.n);
		if (was > RELEASE && a->pending.n == 0)
			(void)madvise(a->pending.p, a->pending.cap, MADV_DONTNEED); /* only saves memory */
	}
	if (a->pending.n) {
		set_why(a, n < 0 ? strerror(errno) : strerror(ENOSPC));
	} else {
		a->written = a->last;
		works(a);
	}
	a->used = true;
}

bool audit_ready(struct audit *a)
{
	flush(a);
	return a->fd >= 0 && a->pending.n == 0;
}

void audit_tick(struct audit *a)
{
	if (a->pending.n)
		flush(a);
	/* somebody may have moved it away, which no write tells */
	if (a->used || a->fd < 0)
		a->want = a->fd < 0 ? AUDIT_MEND : a->max_bytes && a->size >= a->max_bytes && a->pending.n == 0 ? AUDIT_ROTATE : AUDIT_OPEN;
	a->used = false;
}

/* ---- one line ---- */

static void put_time(struct json_writer *w, uint64_t unix_ms)
{
	char text[32];
	struct buf b = {text, 0, sizeof text, false};
	struct date d = date_of(unix_ms / 1000);
	unsigned ms = (unsigned)(unix_ms % 1000);

	/* RFC 3339 */
	buf_printf(&b, "%u-%02u-%02uT%02u:%02u:%02u.%s%02uZ", d.year, d.month + 1, d.day, d.hour, d.minute, d.second,
	           ms < 100 ? "0" : "", ms);
	json_put_string(w, "time", (struct str){b.p, b.n});
}

static void put_words(struct json_writer *w, const struct audit_event *e)
{
	const char *p = e->cmd.p;
	if (!e->argc) {
		json_put_string(w, "cmd", e->cmd);
		return;
	}
	json_put(w, "argv:[");
	for (uint32_t i = 0; i < e->argc; i++, p += strlen(p) + 1)
		(void)json_string(w, str_of(p)); /* what is no UTF-8 shows as U+FFFD */
	json_put(w, "]");
}

static void put_known(struct json_writer *w, const char *key, struct str s)
{
	if (s.n)
		json_put_string(w, key, s);
}

static void put_positive(struct json_writer *w, const char *key, uint64_t v)
{
	if (v)
		json_put_number(w, key, (int64_t)v);
}

static void write_line(const struct audit *a, const struct audit_event *e, uint64_t unix_ms, struct buf *line)
{
	struct json_writer w = {.b = line};

	json_put(&w, "{seq:%lu", a->last.seq + 1); /* these two first: chain.c reads them */
	json_put_string(&w, "prev", (struct str){a->last.hash, HASH_HEX});
	put_time(&w, unix_ms);
	json_put(&w, "event:%s", kinds[e->kind]);
	put_known(&w, "agent", str_of(e->agent ? e->agent : ""));
	put_positive(&w, "run", e->run);
	put_words(&w, e);
	put_known(&w, "cwd", e->cwd);
	put_known(&w, "profile", str_of(e->profile ? e->profile : ""));
	put_known(&w, "result", str_of(e->result ? e->result : ""));
	if (e->kind == AUDIT_EXEC || e->kind == AUDIT_CONFIG)
		json_put(&w, "exit_code:%d", e->exit_code);
	if (e->kind == AUDIT_EXEC)
		json_put(&w, "duration_ms:%lu output_bytes:%lu", e->duration_ms, e->out_bytes);
	put_known(&w, "rule", e->rule);
	put_known(&w, "program", (struct str){e->program.p, e->program.n < 256 ? e->program.n : 256});
	put_positive(&w, "tokens_in", e->tokens_in);
	put_positive(&w, "tokens_out", e->tokens_out);
	if (e->denied.n > 2) { /* more than [] */
		json_put(&w, "denied:");
		json_elsewhere(&w);
		buf_put(line, e->denied.p, e->denied.n);
	}
	put_positive(&w, "lost", a->lost);
	json_put(&w, "}");
	buf_put(line, "\n", 1);
}

/* At most cap - 1 bytes of s as a C string, not cut within a character: how many. */
static size_t keep(char *to, size_t cap, struct str s)
{
	size_t n = s.n < cap - 1 ? s.n : cap - 1;
	while (n < s.n && n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80)
		n--;
	if (n)
		memcpy(to, s.p, n);
	to[n] = '\0';
	return n;
}

static void add_row(struct audit *a, const struct audit_event *e, uint64_t seq, uint64_t unix_ms)
{
	struct audit_row *r = &a->ring[a->rows++ % a->slots];
	struct str cmd = {e->cmd.p, e->cmd.n - (e->argc && e->cmd.n)}; /* words: without the last one's NUL */

	*r = (struct audit_row){.seq = seq, .unix_ms = unix_ms, .since_ms = now_ms() - a->started_ms, .duration_ms = e->duration_ms,
	                        .kind = e->kind, .exit_code = e->exit_code};
	(void)keep(r->agent, sizeof r->agent, str_of(e->agent ? e->agent : ""));
	(void)keep(r->result, sizeof r->result, str_of(e->result ? e->result : ""));
	(void)keep(r->rule, sizeof r->rule, e->rule);
	r->cmd_n = (uint16_t)keep(r->cmd, sizeof r->cmd, cmd);
	r->cut = r->cmd_n < cmd.n;
	for (size_t i = 0; e->argc && i < r->cmd_n; i++) /* shown as one line */
		if (!r->cmd[i])
			r->cmd[i] = ' ';
}

uint64_t audit_put(struct audit *a, const struct audit_event *e)
{
	if (e->kind == AUDIT_RUN && !audit_ready(a))
		return 0;
	if (!a->opened) {
		add_row(a, e, a->last.seq + 1, now_unix_ms());
		a->lost++;
		return 0;
	}
	const struct chain before = a->last;
	size_t waiting = a->pending.n;
	uint64_t unix_ms = now_unix_ms();
	struct buf line = {a->pending.p + waiting, 0, a->pending.cap - waiting, false};

	if (e->kind != AUDIT_RUN && e->kind != AUDIT_EXEC && waiting > CHAIN_LINE_MAX)
		line.full = true; /* the rest is for the ends of what runs */
	if (!line.full)
		write_line(a, e, unix_ms, &line);
	if (line.full) {
		a->lost++;
		return 0;
	}
	if (e->kind != AUDIT_RUN)
		add_row(a, e, a->last.seq + 1, unix_ms);
	chain_follow(&a->last, (struct str){line.p, line.n - 1});
	uint64_t seq = a->last.seq;
	a->pending.n += line.n;
	a->lost = 0;
	flush(a);
	if (e->kind != AUDIT_RUN || a->pending.n == 0)
		return seq;
	if (a->pending.n == line.n && a->sent == 0) { /* nothing of it is in the log, as nothing waited before */
		a->pending.n = 0;
		a->last = before;
	} else { /* its begin can't be taken back: what it announces did not happen */
		(void)audit_put(a, &(struct audit_event){.kind = AUDIT_EXEC, .agent = e->agent, .run = seq, .result = "NOT_RUN"});
	}
	return 0;
}

void audit_note(struct audit *a, enum audit_kind kind, const char *agent, struct str cmd, const char *result)
{
	(void)audit_put(a, &(struct audit_event){.kind = kind, .agent = agent, .cmd = cmd, .result = result}); /* no intent */
}

/* ---- the ring ---- */

void audit_clear(struct audit *a)
{
	memset(a->ring, 0, a->slots * sizeof *a->ring);
}

const struct audit_row *audit_row(const struct audit *a, uint64_t n)
{
	const struct audit_row *r = &a->ring[n % a->slots];
	return n < a->rows && a->rows - n <= a->slots && r->seq ? r : NULL;
}

/* Nothing in it moves a cursor or begins a line. */
static void put_visible(struct buf *b, struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i], next = i + 1 < s.n ? (unsigned char)s.p[i + 1] : 0;
		if (c == 0xc2 && next >= 0x80 && next < 0xa0) { /* U+0080 to U+009F: terminals obey some of these, too */
			buf_str(b, "\\x");
			buf_hex(b, &next, 1);
			i++;
			continue;
		}
		if (c >= ' ' && c != 0x7f) {
			buf_put(b, &s.p[i], 1);
			continue;
		}
		buf_str(b, c == '\n' ? "\\n" : "\\x");
		if (c != '\n')
			buf_hex(b, &c, 1);
	}
}

void audit_text(const struct audit_row *r, struct buf *out)
{
	unsigned s = (unsigned)(r->since_ms / 1000);
	buf_printf(out, "[%02u:%02u:%02u] %s ", s / 3600, s / 60 % 60, s % 60, kinds[r->kind]);
	put_visible(out, (struct str){r->cmd, r->cmd_n});
	buf_printf(out, "%s \xe2\x86\x92 exit:%d %s", r->cut ? "\xe2\x80\xa6" : "", r->exit_code, r->result);
}

void audit_json(const struct audit_row *r, struct json_writer *w)
{
	json_put(w, "{seq:%lu", r->seq);
	put_time(w, r->unix_ms);
	json_put(w, "agent:%s event:%s", r->agent[0] ? r->agent : NULL, kinds[r->kind]);
	json_put_string(w, "cmd", (struct str){r->cmd, r->cmd_n});
	json_put(w, "cmd_truncated:%hhd result:%s", r->cut, r->result);
	json_put(w, "rule:%s exit_code:%d duration_ms:%lu}", r->rule[0] ? r->rule : NULL, r->exit_code, r->duration_ms);
}
