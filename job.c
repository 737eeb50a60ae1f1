/* L4 net: ready cells, the queue for them, one command's life and its captured output.
 *
 * The life of a job; "end" is JOB_DONE with the outcome:
 *
 * event           QUEUED              RUN                     ENDING (report asked)  KILLED (control closed)
 * cell ready      send job, RUN       -                       -                      -
 * output, EOF     -                   keep or count; bit      same                   same
 * result          -                   check; RESULT bit       same, TIMED_OUT        can't come
 * control hang-up -                   CELL_DIED, KILLED       TIMED_OUT, KILLED      can't come
 * timer           end BUSY            shutdown, ENDING        close, KILLED          end with what is there
 * client gone     free                close, free             close, free            free
 * no cell made    end NO_CELL         -                       -                      -
 * drain           end DRAINED         timer is the grace      -                      -
 *
 * All three bits (stdout ended, stderr ended, result there) are the end. */
#include "job.h"

#include "denied.h"
#include "json.h"
#include "sys.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	QUEUE_MS = 2000,  /* longest wait for a cell */
	FILES_MS = 5000,  /* for files that are given back */
	CONTENTS = MSG_CONTENTS_MAX / 3 * 4 + MSG_FILES_BYTES * 6 + MSG_FILES_MAX * 8,
	REPORT_MS = 500,  /* a cell that is asked to end and report has this long, then it is killed */
	RETRY_MS = 250,   /* pause after a cell that could not be made */
	SCRATCH = 65536, READS_A_TURN = 4,
	TAIL = 8 * MSG_FILES_BYTES, /* each byte of a name may become six, and the numbers */
	JOB_PLACES = 512, /* an id is the place in the table and, above, a generation */
	RELEASE = 65536,  /* touched memory beyond this goes back to the kernel */
};

bool job_init(struct jobs *q, const struct conf *c, struct loop *l, struct audit *audit, struct agents *agents, int wall, uint32_t layers)
{
	const size_t cap[JOB_PARTS] = {
		c->output_limit, c->output_limit, MSG_TEXT_MAX, MSG_FILES_BYTES, TAIL, MSG_FILES_BYTES, CONTENTS, 8 * MSG_FILES_BYTES, DENIED_TEXT,
	};
	size_t each = sizeof *q->job;

	*q = (struct jobs){
		.loop = l, .audit = audit, .agents = agents, .wall = wall, .wall_slot = -1, .layers = layers, .profile = (uint32_t)c->profile,
		.jobs = 2 * c->max_running, .cells = c->max_running + c->warm_cells, .warm = c->warm_cells,
		.max_running = c->max_running, .output_limit = c->output_limit,
		.retry = {.kind = JOB_RETRY, .place = -1}, .answer = {.fd = -1},
	};
	for (size_t k = 0; k < JOB_PARTS; k++)
		each += cap[k];
	size_t all = q->jobs * each + q->cells * sizeof *q->cell + SCRATCH + MSG_ASK_MAX;
	/* reserved once, touched only as far as output really comes */
	char *p = sys_memory(all, 1);
	if (!p)
		return false;
	q->job = (struct job *)(void *)p;
	q->cell = (struct cell *)(void *)(p + q->jobs * sizeof *q->job);
	q->scratch = p + q->jobs * sizeof *q->job + q->cells * sizeof *q->cell;
	q->lists_text = (struct buf){q->scratch + SCRATCH, 0, MSG_ASK_MAX, false};
	p = q->scratch + SCRATCH + MSG_ASK_MAX;
	for (size_t i = 0; i < q->jobs; i++) {
		struct job *j = &q->job[i];
		for (size_t k = 0; k < JOB_PARTS; p += cap[k++])
			j->part[k] = (struct buf){p, 0, cap[k], false};
		j->timer = (struct timer){.kind = JOB_TIMER, .id = (uint32_t)i, .place = -1};
		j->id = (uint32_t)i;
		j->cell = j->put_fd = -1;
	}
	for (size_t i = 0; i < q->cells; i++) {
		q->cell[i].id = (uint32_t)i;
		for (size_t k = 0; k < MSG_FDS; k++)
			q->cell[i].fd[k] = q->cell[i].slot[k] = -1;
	}
	loop_add(l, wall, POLLIN, JOB_WALL, 0, &q->wall_slot);
	return true;
}

/* Touched pages of a large output go back; the address space stays. */
static void release(struct buf *b)
{
	size_t skip = -(uintptr_t)b->p & 4095; /* to the first whole page; 4096 is the smallest page there is */
	if (b->n > RELEASE)
		(void)madvise(b->p + skip, (b->n - skip) & ~(size_t)4095, MADV_DONTNEED); /* only saves memory */
	b->n = 0;
	b->full = false;
}

/* ---- cells ---- */

static void cell_close(struct jobs *q, struct cell *c, int k)
{
	if (c->fd[k] < 0)
		return;
	loop_del(q->loop, &c->slot[k]);
	(void)close(c->fd[k]); /* sockets and pipes: nothing is lost */
	c->fd[k] = -1;
}

/* Closing its control socket ends a cell; the place is free when the warden says that it is gone. */
static void cell_end(struct jobs *q, struct cell *c)
{
	for (int k = 0; k < MSG_FDS; k++)
		cell_close(q, c, k);
	c->st = c->gone ? CELL_FREE : CELL_DYING;
}

bool job_ask(struct jobs *q, enum msg_type type, uint32_t what, uint32_t id, struct str text)
{
	const struct msg_ask ask = {.type = type, .id = id, .profile = what, .bytes = (uint32_t)text.n};
	return !q->lost && msg_send(q->wall, &ask, sizeof ask, text.p, text.n, NULL, 0, MSG_DONTWAIT) == 0;
}

/* In case process 1 does not notice, or can't: the warden makes sure. */
static void cell_kill(struct jobs *q, struct cell *c)
{
	(void)job_ask(q, MSG_KILL, 0, c->id, (struct str){NULL, 0}); /* the close above did it already */
}

static bool cell_ask(struct jobs *q, struct cell *c, uint32_t profile)
{
	if (!job_ask(q, MSG_BUILD, profile, c->id + 256, (struct str){NULL, 0}))
		return false; /* full: the next turn asks again */
	c->id += 256; /* next generation */
	c->gone = false;
	c->profile = profile;
	c->lists = q->lists;
	c->st = CELL_BUILDING;
	return true;
}

size_t job_ready_cells(const struct jobs *q)
{
	size_t n = 0;
	for (size_t i = 0; i < q->cells; i++)
		n += q->cell[i].st == CELL_READY;
	return n;
}

/* Whether a cell is what jobs of this profile need now. */
static bool cell_fits(const struct jobs *q, const struct cell *c, uint32_t profile)
{
	return c->profile == profile && c->lists == q->lists;
}

static bool tell_lists(struct jobs *q)
{
	if (!q->lists_told)
		q->lists_told = msg_send(q->wall, &q->lists_head, sizeof q->lists_head, q->lists_text.p, q->lists_text.n, NULL, 0, MSG_DONTWAIT) == 0;
	return q->lists_told;
}

/* Ends waiting cells that nobody needs, down to keep of this profile, so that their places are free. */
static void trim_ready(struct jobs *q, uint32_t profile, size_t keep)
{
	for (size_t i = 0; i < q->cells; i++) {
		struct cell *c = &q->cell[i];
		if (c->st != CELL_READY || c->profile != profile)
			continue;
		if (cell_fits(q, c, profile) && keep)
			keep--;
		else
			cell_end(q, c);
	}
}

void job_refill(struct jobs *q)
{
	if (q->failing || q->draining || q->lost || !tell_lists(q))
		return;
	for (uint32_t p = 0; p < CONF_PROFILES; p++) {
		size_t have = 0, want = (p == q->profile ? q->warm : 0) + q->queued_for[p];
		for (size_t i = 0; i < q->cells; i++)
			have += (q->cell[i].st == CELL_BUILDING || q->cell[i].st == CELL_READY) && cell_fits(q, &q->cell[i], p);
		if (p != q->profile)
			trim_ready(q, p, want);
		for (size_t i = 0; i < q->cells && have < want; i++)
			if (q->cell[i].st == CELL_FREE) {
				if (!cell_ask(q, &q->cell[i], p))
					return;
				have++;
			}
		if (have < want && p != q->profile) /* what a burst left of the default profile's holds all places */
			trim_ready(q, q->profile, q->warm);
	}
}

void job_set_lists(struct jobs *q, struct str text, uint32_t forbidden, uint32_t allowed)
{
	q->lists_text.n = 0;
	buf_put(&q->lists_text, text.p, text.n);
	q->lists_head = (struct msg_ask){.type = MSG_LISTS, .count = {forbidden, allowed}, .bytes = (uint32_t)q->lists_text.n};
	q->lists++;
	q->lists_told = false;
	for (uint32_t p = 0; p < CONF_PROFILES; p++) {
		q->view[p].known = false;
		trim_ready(q, p, 0);
	}
}

void job_set_profile(struct jobs *q, uint32_t profile)
{
	q->profile = profile;
}

/* ---- jobs ---- */

struct job *job_find(struct jobs *q, uint32_t id)
{
	size_t place = id % JOB_PLACES;
	return place < q->jobs && q->job[place].id == id && q->job[place].st != JOB_FREE ? &q->job[place] : NULL;
}

struct job *job_new(struct jobs *q, uint32_t conn, struct agent *who)
{
	for (size_t i = 0; i < q->jobs; i++) {
		struct job *j = &q->job[i];
		if (j->st != JOB_FREE)
			continue;
		j->st = JOB_FILLING;
		j->conn = conn;
		j->who = who;
		who->running++;
		j->run = 0;
		j->would = NULL;
		j->shell = j->base64 = j->want_all = j->got_any = false;
		j->wants = j->wanted = 0;
		j->content_bytes = 0;
		j->serial = q->serial++;
		j->ended = 0;
		j->has_result = false;
		j->out_bytes = j->err_bytes = 0;
		j->head = (struct msg_job){.type = MSG_JOB};
		j->stdin_data = (struct str){NULL, 0};
		j->profile = q->profile;
		j->start_us = j->end_us = now_us();
		return j;
	}
	return NULL;
}

/* Leaves the queue or the cell, if it was in one. */
static void leave(struct jobs *q, struct job *j)
{
	if (j->st == JOB_QUEUED)
		q->queued--, q->queued_for[j->profile]--;
	if (j->st == JOB_RUN || j->st == JOB_ENDING || j->st == JOB_KILLED)
		q->running--;
	if (j->cell >= 0 && q->cell[j->cell].st == CELL_BUSY)
		cell_end(q, &q->cell[j->cell]);
	j->cell = -1;
	loop_timer_off(q->loop, &j->timer);
}

void job_name_words(const struct job *j, struct audit_event *e)
{
	e->cwd = str_of(j->text.p);
	const char *word = j->text.p + e->cwd.n + 1, *end = word;
	for (uint32_t i = 0; i < j->head.argc; i++)
		end += strlen(end) + 1;
	e->agent = j->who->name;
	e->profile = conf_profile(j->profile)->name;
	e->argc = j->shell ? 0 : j->head.argc;
	e->cmd = (struct str){word, (size_t)(end - word)};
	for (int i = 0; j->shell && i < 2; i++) { /* of "/bin/sh -c TEXT" the text */
		size_t skip = strlen(e->cmd.p) + 1;
		e->cmd = (struct str){e->cmd.p + skip, e->cmd.n - skip};
	}
	e->cmd.n -= j->shell;
}

/* The intent, before the command starts: false when it can't be written. */
static bool announce(struct jobs *q, struct job *j)
{
	struct audit_event e = {.kind = AUDIT_RUN};
	if (j->run)
		return true; /* for a cell that died before it could begin */
	job_name_words(j, &e);
	j->run = audit_put(q->audit, &e);
	return j->run != 0;
}

int job_exit_code(const struct job *j)
{
	if (j->outcome == JOB_TIMED_OUT)
		return 124; /* timeout(1) */
	return !j->has_result ? 128 + SIGKILL : WIFSIGNALED(j->res.status) ? 128 + WTERMSIG(j->res.status) : WEXITSTATUS(j->res.status);
}

/* What the jail refused, for the reply and the log. */
static void explain(struct jobs *q, struct job *j, struct audit_event *e)
{
	const struct denied_ask ask = {
		.profile = j->profile, .res = j->has_result ? &j->res : NULL, .exit_code = e->exit_code, .words = e->cmd,
		.err = {j->err.p, j->err.n < 65536 ? j->err.n : 65536}, .names = q->lists_text.p, .forbidden = q->lists_head.count[0],
		.allowed = q->lists_head.count[1],
	};
	denied_write(&ask, &j->denied);
	e->denied = (struct str){j->denied.p, j->denied.n};
}

/* How a command that was announced ended. */
static void record(struct jobs *q, struct job *j, const char *result)
{
	uint64_t bytes = j->out.n + j->err.n, took_us = j->end_us - j->start_us;
	struct audit_event e = {.kind = AUDIT_EXEC, .result = result, .run = j->run, .out_bytes = bytes, .duration_ms = (took_us + 500) / 1000};

	if (!j->run)
		return;
	job_name_words(j, &e);
	e.cwd = (struct str){NULL, 0}; /* stands in the intent */
	e.exit_code = job_exit_code(j);
	explain(q, j, &e);
	if (e.cmd.n > AUDIT_CMD_MAX) { /* the whole stands in the intent */
		e.argc = 0;
		e.cmd.n = AUDIT_CMD_MAX;
	}
	(void)audit_put(q->audit, &e); /* if there is no room, that is counted there */
	if (j->outcome <= JOB_CELL_DIED)
		agent_ran(q->agents, j->who, bytes, took_us, j->outcome == JOB_TIMED_OUT);
	j->run = 0;
}

static void finish(struct jobs *q, struct job *j, enum job_outcome outcome)
{
	leave(q, j);
	j->end_us = now_us();
	j->outcome = outcome;
	record(q, j, outcome == JOB_TIMED_OUT ? "TIMEOUT" : outcome == JOB_CELL_DIED ? "DIED" : outcome != JOB_RAN ? "NOT_RUN" :
	             j->res.oom ? "OOM" : j->would ? "WOULD_BLOCK" : "OK");
	j->st = JOB_DONE;
	q->done++;
}

void job_drop(struct jobs *q, struct job *j)
{
	if (j->cell >= 0) {
		struct cell *c = &q->cell[j->cell];
		cell_end(q, c);
		cell_kill(q, c);
	}
	q->done -= j->st == JOB_DONE;
	leave(q, j);
	if (j->run) {
		j->end_us = now_us();
		j->outcome = JOB_CELL_DIED;
		record(q, j, "CANCELLED");
	}
	j->who->running--;
	for (size_t k = 0; k < JOB_PARTS; k++)
		release(&j->part[k]);
	if (j->put_fd >= 0)
		(void)close(j->put_fd); /* in memory */
	j->put_fd = -1;
	j->st = JOB_FREE;
	j->id += JOB_PLACES; /* an old id finds nothing from now on */
	j->timer.id = j->id;
}

struct job *job_next_done(struct jobs *q)
{
	for (size_t i = 0; q->done && i < q->jobs; i++)
		if (q->job[i].st == JOB_DONE) {
			q->job[i].st = JOB_TOLD;
			q->done--;
			return &q->job[i];
		}
	return NULL;
}

static void write_stdin(struct jobs *q, struct job *j)
{
	struct cell *c = &q->cell[j->cell];
	while (j->stdin_data.n && c->fd[JOB_FD_IN] >= 0) {
		ssize_t n = write(c->fd[JOB_FD_IN], j->stdin_data.p, j->stdin_data.n);
		if (n < 0 && errno == EAGAIN) {
			if (c->slot[JOB_FD_IN] < 0)
				loop_add(q->loop, c->fd[JOB_FD_IN], POLLOUT, JOB_IN, (uint32_t)j->cell, &c->slot[JOB_FD_IN]);
			return;
		}
		if (n < 0)
			break; /* EPIPE: the command does not read it */
		j->stdin_data.p += n;
		j->stdin_data.n -= (size_t)n;
	}
	cell_close(q, c, JOB_FD_IN);
}

/* Hands a job to a ready cell. False when that cell was none any more. */
static bool hand_over(struct jobs *q, struct job *j, size_t place)
{
	struct cell *c = &q->cell[place];

	j->head.text_bytes = (uint32_t)j->text.n;
	if (!announce(q, j)) {
		finish(q, j, JOB_NO_LOG);
		return true;
	}
	const struct msg_want want = {.type = MSG_WANT, .all = j->want_all, .count = j->wants, .bytes = (uint32_t)j->want.n};
	j->head.wants = j->wants || j->want_all;
	bool sent = msg_send(c->fd[JOB_FD_CTL], &j->head, sizeof j->head, j->text.p, j->text.n, &j->put_fd, j->put_fd >= 0, MSG_DONTWAIT) == 0;
	if (!sent || (j->head.wants && msg_send(c->fd[JOB_FD_CTL], &want, sizeof want, j->want.p, j->want.n, NULL, 0, MSG_DONTWAIT) < 0)) {
		bool size = errno == EMSGSIZE || errno == ENOBUFS || errno == EAGAIN;
		if (sent || !size)
			cell_end(q, c); /* also one that has the job: it waits for the second message, and ran nothing */
		if (size)
			finish(q, j, JOB_TOO_LARGE);
		return size;
	}
	if (j->st == JOB_QUEUED)
		q->queued--, q->queued_for[j->profile]--;
	q->running++;
	c->st = CELL_BUSY;
	c->job = j->id;
	j->cell = (int)place;
	j->st = JOB_RUN;
	j->start_us = now_us();
	/* from now, not from the turn's begin; both clocks are cut to whole milliseconds */
	loop_timer(q->loop, &j->timer, j->start_us / 1000 + 1 - q->loop->now + j->timeout_ms);
	loop_add(q->loop, c->fd[JOB_FD_OUT], POLLIN, JOB_OUT, (uint32_t)place, &c->slot[JOB_FD_OUT]);
	loop_add(q->loop, c->fd[JOB_FD_ERR], POLLIN, JOB_ERR, (uint32_t)place, &c->slot[JOB_FD_ERR]);
	write_stdin(q, j);
	return true;
}

static bool run_in_any(struct jobs *q, struct job *j)
{
	if (q->running >= q->max_running)
		return false;
	for (size_t i = 0; i < q->cells; i++)
		if (q->cell[i].st == CELL_READY && cell_fits(q, &q->cell[i], j->profile) && hand_over(q, j, i))
			return true;
	return false;
}

/* Of those who wait for this profile, the first is next. */
static void serve_queue(struct jobs *q, uint32_t profile)
{
	while (q->queued_for[profile]) {
		struct job *first = NULL;
		for (size_t i = 0; i < q->jobs; i++)
			if (q->job[i].st == JOB_QUEUED && q->job[i].profile == profile && (!first || q->job[i].serial < first->serial))
				first = &q->job[i];
		if (!first || !run_in_any(q, first))
			return;
	}
}

void job_start(struct jobs *q, struct job *j)
{
	if (q->lost) {
		finish(q, j, JOB_NO_CELL);
	} else if (q->draining) {
		finish(q, j, JOB_DRAINED);
	} else if (q->queued_for[j->profile] || !run_in_any(q, j)) {
		j->st = JOB_QUEUED;
		q->queued++, q->queued_for[j->profile]++;
		loop_timer(q->loop, &j->timer, QUEUE_MS);
	}
}

static void fail_queue(struct jobs *q, enum job_outcome outcome)
{
	for (size_t i = 0; i < q->jobs; i++)
		if (q->job[i].st == JOB_QUEUED)
			finish(q, &q->job[i], outcome);
}

static void cell_failed(struct jobs *q, const char *why)
{
	size_t n = 0;
	for (; n < sizeof q->why - 1 && why[n]; n++)
		q->why[n] = why[n] >= ' ' && why[n] < 0x7f ? why[n] : '?';
	q->why[n] = '\0';
	warn("no cell could be made: %s", q->why);
	q->failing = true;
	loop_timer(q->loop, &q->retry, RETRY_MS);
	fail_queue(q, JOB_NO_CELL);
}

/* ---- what comes in ---- */

static void wall_lost(struct jobs *q)
{
	q->lost = true;
	loop_del(q->loop, &q->wall_slot);
	fail_queue(q, JOB_NO_CELL);
}

/* What the warden says of something else than a cell. */
static bool other_news(struct jobs *q, const struct msg_tell *t, const int *fds)
{
	if (t->type == MSG_VIEW && t->id < CONF_PROFILES) {
		q->view[t->id].known = true;
		memcpy(q->view[t->id].why, t->why, sizeof t->why);
		return true;
	}
	if ((t->type != MSG_SAVED && t->type != MSG_FETCHED) || q->answer.type)
		return false;
	q->answer.type = t->type;
	q->answer.id = t->id;
	q->answer.what = t->what;
	q->answer.fd = fds[0];
	memcpy(q->answer.why, t->why, sizeof t->why);
	return true;
}

static void read_wall(struct jobs *q)
{
	struct msg_tell t;
	int fds[MSG_FDS];
	long n = msg_recv(q->wall, &t, sizeof t, fds, MSG_FDS, MSG_DONTWAIT);
	size_t place = t.id & 0xff;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n == sizeof t && t.why[sizeof t.why - 1] == '\0' && other_news(q, &t, fds))
		return;
	if (n != sizeof t || place >= q->cells || q->cell[place].id != t.id || t.why[sizeof t.why - 1] != '\0') {
		for (size_t i = 0; i < MSG_FDS; i++)
			if (n >= 0 && fds[i] >= 0)
				(void)close(fds[i]);
		wall_lost(q);
		return;
	}
	struct cell *c = &q->cell[place];
	switch (t.type) {
	case MSG_CELL:
		for (size_t i = 0; i < MSG_FDS; i++)
			c->fd[i] = fds[i];
		if (c->st != CELL_BUILDING || fds[0] < 0 || fds[1] < 0 || fds[2] < 0 || fds[3] < 0)
			cell_end(q, c);
		else
			loop_add(q->loop, c->fd[JOB_FD_CTL], POLLIN, JOB_CTL, (uint32_t)place, &c->slot[JOB_FD_CTL]);
		break;
	case MSG_GONE:
		/* else its last words are still unread in the control socket, and free the place */
		c->gone = true;
		if (c->st == CELL_DYING)
			c->st = CELL_FREE;
		break;
	case MSG_FAILED:
		c->gone = true; /* it never was */
		cell_end(q, c);
		cell_failed(q, t.why);
		break;
	default:
		wall_lost(q);
	}
}

static void cell_ready(struct jobs *q, struct cell *c, const struct msg_ready *r, long n)
{
	char why[112];
	struct buf b = {why, 0, sizeof why - 1, false};

	if (n == sizeof *r && r->type == MSG_READY && r->error == 0 && (r->layers & q->layers) == q->layers) {
		c->st = CELL_READY;
		q->failing = false;
		if (c->lists == q->lists)
			serve_queue(q, c->profile);
		else
			cell_end(q, c); /* the lists have changed while it was made */
		return;
	}
	cell_end(q, c);
	if (n == sizeof *r && r->error > 0 && r->error < 4096 && memchr(r->step, '\0', sizeof r->step))
		buf_printf(&b, "%s: %s", r->step, strerror(r->error));
	else
		buf_str(&b, n > 0 ? "a cell came up with less isolation than the probe" : "a cell died while it was made");
	why[b.n] = '\0';
	cell_failed(q, why);
}

static void check_end(struct jobs *q, struct job *j)
{
	/* asked to end, it may have ended by itself before the question came */
	bool ran = j->st == JOB_RUN || (j->st == JOB_ENDING && j->has_result && !j->res.ended_early);
	if (j->ended == JOB_ENDED)
		finish(q, j, ran ? JOB_RAN : j->outcome);
}

static void kill_job(struct jobs *q, struct job *j, enum job_outcome outcome)
{
	struct cell *c = &q->cell[j->cell];
	cell_close(q, c, JOB_FD_CTL);
	cell_close(q, c, JOB_FD_IN);
	cell_kill(q, c);
	j->st = JOB_KILLED;
	j->outcome = outcome;
	j->ended |= JOB_RESULT;
	loop_timer(q->loop, &j->timer, REPORT_MS);
}

/* What process 1 says is checked as if an enemy had written it. */
static bool result_is_whole(const struct msg_result *r, const char *names, long n)
{
	return n >= (long)sizeof *r && r->type == MSG_RESULT && r->files <= MSG_FILES_MAX && r->denied <= MSG_DENIED_MAX &&
	       r->files_bytes == (size_t)n - sizeof *r && msg_check_words(names, r->files_bytes, r->files) &&
	       (WIFEXITED(r->status) || WIFSIGNALED(r->status));
}

/* Nothing more comes from process 1. */
static void end_result(struct jobs *q, struct cell *c, struct job *j)
{
	j->ended |= JOB_RESULT;
	cell_close(q, c, JOB_FD_CTL);
	/* the pipes' last bytes are there already or never come */
	loop_timer(q->loop, &j->timer, REPORT_MS);
}

/* ---- files given back ---- */

/* How many will come is known with the result. */
static bool awaits_contents(struct jobs *q, struct job *j)
{
	if (j->want_all) {
		buf_put(&j->want, j->files.p, j->files.n);
		j->wants = j->res.files;
	}
	if (j->wants)
		loop_timer(q->loop, &j->timer, FILES_MS);
	return j->wants > 0;
}

static struct str wanted_name(const struct job *j, uint32_t index)
{
	const char *name = j->want.p;
	while (index--)
		name += strlen(name) + 1;
	return str_of(name);
}

static void name_absent(struct job *j, uint32_t index)
{
	struct json_writer w = {.b = &j->absent};
	buf_str(&j->absent, j->absent.n ? "," : "");
	(void)json_string(&w, wanted_name(j, index)); /* what is no UTF-8 shows as U+FFFD */
}

/* One piece: its base64 goes behind what is there. False: that was the end, or no sense. */
static bool take_content(struct job *j, const struct msg_content *m, const char *data, long n)
{
	struct json_writer w = {.b = &j->contents};

	if (n < (long)sizeof *m || m->type != MSG_CONTENT || m->bytes != (size_t)n - sizeof *m || m->index != j->wanted || m->index >= j->wants ||
	    m->bytes > MSG_CONTENTS_MAX - j->content_bytes || (m->absent && (m->bytes || j->got_any)))
		return false;
	j->content_bytes += m->bytes;
	if (!m->absent && !j->got_any) {
		buf_str(&j->contents, j->contents.n ? "," : "");
		(void)json_string(&w, wanted_name(j, j->wanted));
		buf_str(&j->contents, ":\"");
	}
	if (json_base64(&j->contents, (struct str){data, m->bytes}) < m->bytes)
		j->contents.full = true;
	j->got_any = !m->absent;
	if (m->absent)
		name_absent(j, j->wanted);
	else if (m->bytes < MSG_CONTENT_BYTES)
		buf_str(&j->contents, "\"");
	if (m->absent || m->bytes < MSG_CONTENT_BYTES)
		j->wanted++, j->got_any = false;
	return true;
}

/* What has not come is absent; a piece that misses its end is closed. */
static void end_contents(struct job *j)
{
	if (j->got_any)
		buf_str(&j->contents, "\"");
	for (; j->wanted < j->wants; j->wanted++)
		name_absent(j, j->wanted);
}

static void cell_content(struct jobs *q, struct cell *c, struct job *j)
{
	static struct { struct msg_content m; char data[MSG_CONTENT_BYTES]; } in;
	long n = msg_recv(c->fd[JOB_FD_CTL], &in, sizeof in, NULL, 0, MSG_DONTWAIT);

	if ((n < 0 && errno == EAGAIN) || take_content(j, &in.m, in.data, n))
		return;
	end_contents(j);
	end_result(q, c, j);
	check_end(q, j);
}

static void cell_result(struct jobs *q, struct cell *c, struct job *j)
{
	static struct { struct msg_result r; char names[MSG_FILES_BYTES]; } in;
	long n = msg_recv(c->fd[JOB_FD_CTL], &in, sizeof in, NULL, 0, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	if (!result_is_whole(&in.r, in.names, n)) {
		kill_job(q, j, j->st == JOB_ENDING ? JOB_TIMED_OUT : JOB_CELL_DIED);
	} else {
		j->res = in.r;
		buf_put(&j->files, in.names, in.r.files_bytes);
		j->has_result = true;
		cell_close(q, c, JOB_FD_IN);
		if (!awaits_contents(q, j))
			end_result(q, c, j);
	}
	check_end(q, j);
}

static void read_output(struct jobs *q, struct cell *c, struct job *j, int k)
{
	struct buf *b = k == JOB_FD_OUT ? &j->out : &j->err;
	uint64_t *total = k == JOB_FD_OUT ? &j->out_bytes : &j->err_bytes;

	for (int i = 0; i < READS_A_TURN; i++) {
		size_t room = b->cap - b->n;
		ssize_t n = read(c->fd[k], room ? b->p + b->n : q->scratch, room ? room : SCRATCH);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			cell_close(q, c, k);
			j->ended |= k == JOB_FD_OUT ? JOB_OUT_EOF : JOB_ERR_EOF;
			check_end(q, j);
			return;
		}
		*total += (uint64_t)n;
		b->n += room ? (size_t)n : 0;
	}
}

void job_event(struct jobs *q, uint32_t kind, uint32_t id)
{
	struct msg_ready r;

	if (kind == JOB_WALL) {
		read_wall(q);
		return;
	}
	struct cell *c = &q->cell[id];
	struct job *j = c->st == CELL_BUSY ? job_find(q, c->job) : NULL;
	if (kind == JOB_CTL && !j) {
		long n = msg_recv(c->fd[JOB_FD_CTL], &r, sizeof r, NULL, 0, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return;
		if (c->st == CELL_BUILDING)
			cell_ready(q, c, &r, n);
		else
			cell_end(q, c); /* a waiting cell has nothing to say but its end */
	} else if (j && kind == JOB_CTL && j->has_result) {
		cell_content(q, c, j);
	} else if (j && kind == JOB_CTL) {
		cell_result(q, c, j);
	} else if (j && kind == JOB_IN) {
		write_stdin(q, j);
	} else if (j) {
		read_output(q, c, j, kind == JOB_OUT ? JOB_FD_OUT : JOB_FD_ERR);
	}
}

void job_timer(struct jobs *q, struct timer *t)
{
	if (t->kind == JOB_RETRY) {
		q->failing = false;
		return;
	}
	struct job *j = job_find(q, t->id);
	if (!j)
		return;
	if (j->st == JOB_QUEUED) {
		finish(q, j, JOB_BUSY);
	} else if (j->has_result && !(j->ended & JOB_RESULT)) {
		end_contents(j); /* what did not come in time */
		end_result(q, &q->cell[j->cell], j);
		check_end(q, j);
	} else if (j->ended & JOB_RESULT) {
		/* ended, and somebody who can't be of this cell still holds its pipes' other ends */
		j->ended = JOB_ENDED;
		check_end(q, j);
	} else if (j->st == JOB_RUN) {
		j->st = JOB_ENDING;
		j->outcome = JOB_TIMED_OUT;
		(void)shutdown(q->cell[j->cell].fd[JOB_FD_CTL], SHUT_WR); /* ENOTCONN: its hang-up is on the way */
		loop_timer(q->loop, &j->timer, REPORT_MS);
	} else {
		kill_job(q, j, JOB_TIMED_OUT);
		check_end(q, j);
	}
}

void job_drain(struct jobs *q, uint32_t grace_ms)
{
	q->draining = true;
	fail_queue(q, JOB_DRAINED);
	for (size_t i = 0; i < q->jobs; i++) {
		struct job *j = &q->job[i];
		if (j->st == JOB_RUN && j->timer.at > q->loop->now + grace_ms)
			loop_timer(q->loop, &j->timer, grace_ms);
	}
}
