/* L4 net: ready cells, the queue for them, one command's life and its captured output. */
#ifndef JOB_H
#define JOB_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent.h"
#include "audit.h"
#include "conf.h"
#include "loop.h"
#include "msg.h"
#include "util.h"

/* Kinds in the loop: fds of a cell (id: its place), then timers. Others begin at JOB_KINDS. */
enum { JOB_WALL, JOB_CTL, JOB_IN, JOB_OUT, JOB_ERR, JOB_TIMER, JOB_RETRY, JOB_KINDS };

enum { JOB_FD_CTL, JOB_FD_IN, JOB_FD_OUT, JOB_FD_ERR };
enum cell_state { CELL_FREE, CELL_BUILDING, CELL_READY, CELL_BUSY, CELL_DYING };
struct cell {
	enum cell_state st;
	uint32_t id, job;   /* job: its id, while busy */
	uint32_t profile, lists; /* what it is made for, and from which lists */
	bool gone;          /* the warden has reaped it */
	int fd[MSG_FDS], slot[MSG_FDS];
};

/* How a job ended, for the reply; JOB_RAN has a result, JOB_TIMED_OUT mostly. */
enum job_outcome { JOB_RAN, JOB_TIMED_OUT, JOB_CELL_DIED, JOB_BUSY, JOB_NO_CELL, JOB_NO_LOG, JOB_TOO_LARGE, JOB_DRAINED };
enum job_state { JOB_FREE, JOB_FILLING, JOB_QUEUED, JOB_RUN, JOB_ENDING, JOB_KILLED, JOB_DONE, JOB_TOLD };
enum { JOB_OUT_EOF = 1, JOB_ERR_EOF = 2, JOB_RESULT = 4, JOB_ENDED = 7, JOB_PARTS = 9 };

struct job {
	uint32_t id, conn; /* conn: who waits for it */
	enum job_state st;
	enum job_outcome outcome;
	unsigned ended;
	int cell;
	bool has_result, shell, base64; /* shell: the words are /bin/sh -c TEXT; base64: how the reply wants the output */
	bool want_all, got_any;  /* of the files given back; got_any: its first piece is there */
	uint32_t wants, wanted;  /* how many; the index of the one that is coming */
	uint32_t profile;
	uint32_t timeout_ms;     /* wall time, counted from the hand-over to the cell */
	int put_fd;              /* a file with what is to be laid in /tmp before the start, or -1: ours */
	struct agent *who;       /* whose it is; counted as running there */
	uint64_t serial;         /* order of arrival */
	uint64_t run;            /* the intent's number in the log; 0: not handed over */
	const char *would;       /* what a stricter profile would have refused it for, or NULL */
	uint64_t start_us, end_us;
	struct timer timer;
	union {
		struct buf part[JOB_PARTS]; /* all of them */
		struct {
			struct buf out, err; /* kept; *_bytes counts all */
			struct buf text;
			struct buf files;    /* the names, each NUL-terminated */
			struct buf tail;     /* room for whoever writes the reply */
			struct buf want;     /* names of files to be given back, NUL-terminated; all: what there is */
			struct buf contents; /* JSON: an object of what was given back, in base64 */
			struct buf absent;   /* JSON: an array of names that were not */
			struct buf denied;   /* JSON: denied.h's array, once the job is done */
		};
	};
	uint64_t out_bytes, err_bytes, content_bytes;
	struct str stdin_data;   /* borrowed from the connection, which outlives the job or cancels it */
	struct msg_job head;     /* words of text, in order: cwd, argv, environment, allowed programs */
	struct msg_result res;
};
_Static_assert(offsetof(struct job, denied) == offsetof(struct job, part[JOB_PARTS - 1]), "a part for each");

struct jobs {
	struct loop *loop;
	struct audit *audit;
	struct agents *agents;
	int wall, wall_slot;
	uint32_t layers;         /* what the probe had; a cell with less runs nothing */
	uint32_t profile;        /* the default one, for which cells are kept warm */
	struct job *job;
	struct cell *cell;
	size_t jobs, cells, warm, max_running, running, queued, done, output_limit, queued_for[CONF_PROFILES];
	uint32_t lists;          /* counts what was told of lists_text */
	bool lists_told;
	bool failing, draining, lost; /* lost: the warden is gone */
	char *scratch;           /* where output beyond the limit is thrown */
	uint64_t serial;
	struct timer retry;
	char why[112];           /* why the last cell could not be made */
	/* the policy's programs, as the warden is to have them */
	struct msg_ask lists_head;
	struct buf lists_text;
	/* how well each profile's cells keep them, once that is known: "" is "wholly" */
	struct { bool known; char why[112]; } view[CONF_PROFILES];
	struct { enum msg_type type; uint32_t id, what; int fd; char why[112]; } answer; /* to job_ask; type 0: none */
};

/* Takes all memory: max_running commands, as many in the queue, their output. False: errno. */
bool job_init(struct jobs *q, const struct conf *c, struct loop *l, struct audit *audit, struct agents *agents, int wall, uint32_t layers);
/* New lists, forbidden names and then allowed ones, each NUL-terminated, at most MSG_ASK_MAX bytes, copied: cells
 * of the old ones take no more work. */
void job_set_lists(struct jobs *q, struct str text, uint32_t forbidden, uint32_t allowed);
/* The default profile from now on. */
void job_set_profile(struct jobs *q, uint32_t profile);
/* Asks the warden to save a text as one of its files (MSG_SAVE) or to hand one over (MSG_FETCH); the
 * answer carries id. False when it can't be asked now. */
bool job_ask(struct jobs *q, enum msg_type type, uint32_t what, uint32_t id, struct str text);
/* A job of this agent to fill in (text, head, profile, stdin_data, timeout_ms) and then start or drop;
 * NULL when running and waiting places are all taken. */
struct job *job_new(struct jobs *q, uint32_t conn, struct agent *who);
/* Runs it in a ready cell, or queues it for 2 s at most. Done is told by job_next_done. */
void job_start(struct jobs *q, struct job *j);
/* The job is not wanted (any more): its cell is ended at once, which is logged; the slot is free. */
void job_drop(struct jobs *q, struct job *j);
struct job *job_find(struct jobs *q, uint32_t id);
/* An fd of kind JOB_*, or a timer of kind JOB_*, is ready. */
void job_event(struct jobs *q, uint32_t kind, uint32_t id);
void job_timer(struct jobs *q, struct timer *t);
/* Asks for cells that are missing; call it once a turn, when replies are out. */
void job_refill(struct jobs *q);
/* The next job that became JOB_DONE, or NULL; the caller drops it when the reply is out. */
struct job *job_next_done(struct jobs *q);
/* No new work; what runs gets at most grace_ms more. */
void job_drain(struct jobs *q, uint32_t grace_ms);
/* The words of a filled job, its folder, agent and profile, as the log has them: slices of the job. */
void job_name_words(const struct job *j, struct audit_event *e);
/* What the shell would say of a command that ran: its status, 128 and its signal, 124 for a timeout. */
int job_exit_code(const struct job *j);
/* Cells that wait for work. */
size_t job_ready_cells(const struct jobs *q);
#endif
