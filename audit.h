/* L3 net: what happened: the ring that is shown, and the log that can't be changed unseen. */
#ifndef AUDIT_H
#define AUDIT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chain.h"
#include "conf.h"
#include "json.h"
#include "util.h"

enum { AUDIT_CMD_MAX = 512, AUDIT_RULE_MAX = 96, AUDIT_RESULT_MAX = 16 };

/* RUN is the intent, written before a command starts; it stands in the log alone. */
enum audit_kind {
	AUDIT_RUN, AUDIT_EXEC, AUDIT_BLOCK, AUDIT_RATE, AUDIT_BUDGET, AUDIT_AUTH, AUDIT_CONFIG, AUDIT_RESET, AUDIT_START, AUDIT_STOP,
};

/* One event; all slices are borrowed for the call. Fields that say nothing are zero. */
struct audit_event {
	enum audit_kind kind;
	const char *agent, *result, *profile;
	struct str cmd;            /* a command line, or words each NUL-terminated: argc of them */
	uint32_t argc;
	struct str cwd, rule, program, denied; /* denied: JSON */
	int exit_code;             /* for CONFIG: the new value */
	uint64_t run, duration_ms; /* run: seq of the intent that this is the end of */
	uint64_t out_bytes;
	uint64_t tokens_in, tokens_out;
};

/* What is kept of an event in memory. */
struct audit_row {
	uint64_t seq, unix_ms, since_ms, duration_ms;
	enum audit_kind kind;
	int exit_code;
	bool cut;                  /* cmd was longer */
	uint16_t cmd_n;
	char agent[CONF_NAME_MAX + 1], result[AUDIT_RESULT_MAX], rule[AUDIT_RULE_MAX], cmd[AUDIT_CMD_MAX];
};

enum audit_want { AUDIT_NOTHING, AUDIT_OPEN, AUDIT_MEND, AUDIT_ROTATE };

struct audit {
	struct audit_row *ring;    /* seq is the place, taken modulo slots */
	uint64_t slots, rows, started_ms; /* rows: how many there ever were */
	int fd;                    /* of the log; -1: not open */
	enum audit_want want;      /* what the warden is to be asked */
	bool told;                 /* that it can't be written was said */
	bool opened;               /* it was, once: what happens before is in the ring alone, and counted as lost */
	bool used;                 /* used since the last look whether the log is still in its place */
	uint64_t size, max_bytes, lost, dev, ino; /* lost: events that found no room while the log could not be written */
	struct buf pending;        /* whole lines; of the first one sent bytes are written already */
	size_t sent;
	struct chain last, written; /* the newest line; the newest that is whole in the file: the head to keep apart */
	char why[112];             /* why it can't be written, or "" */
};

/* Takes memory for the ring and for what waits; running: commands at once. */
bool audit_init(struct audit *a, const struct conf *c, size_t running);
/* The warden's answer: the opened log, which is now a's, or -1 and why. news: what was mended, or "". */
void audit_take(struct audit *a, int fd, const char *why);
/* Writes what waits. True when the log takes lines now. */
bool audit_ready(struct audit *a);
/* Records an event: its number in the log; 0: an intent that could not be written, so that the command
 * must not run. Other events wait in memory while the log can't be written, as far as there is room. */
uint64_t audit_put(struct audit *a, const struct audit_event *e);
/* The same of an event that says no more than this. */
void audit_note(struct audit *a, enum audit_kind kind, const char *agent, struct str cmd, const char *result);
/* Once a second: what must be asked is in want then. */
void audit_tick(struct audit *a);
/* No rows any more; the log stays. */
void audit_clear(struct audit *a);

/* The row behind the n-th ever, NULL when there is none (yet, or any more); the ring has the last slots ones. */
const struct audit_row *audit_row(const struct audit *a, uint64_t n);
/* "[00:01:23] EXEC ls -la → exit:0 OK", on one line whatever the command is. */
void audit_text(const struct audit_row *r, struct buf *out);
/* The row as a JSON object. */
void audit_json(const struct audit_row *r, struct json_writer *w);
#endif
