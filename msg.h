/* L1: the wall. Every message between arena, warden and cell, as fixed structs over
 * SOCK_SEQPACKET socket pairs, so that one read is one message, whole.
 *
 *   arena  -> warden   msg_ask     build a cell, kill a cell; these are the lists of programs;
 *                                  save one of our few files; hand over the policy file, or the log
 *   warden -> arena    msg_hello   once, at start: what this host's jail is made of
 *                      msg_tell    here is a cell (with its fds), it is gone, it could not be made;
 *                                  how well the lists are kept; the file is saved, here it is (an fd)
 *   cell   -> arena    msg_ready   built and waiting, or the step that failed
 *   arena  -> cell     msg_job     run this, once; shutdown(SHUT_WR) then says "end it and report",
 *                                  close says "die"
 *   cell   -> arena    msg_result  how it ended
 *   arena  -> cell     msg_want    give me these files
 *   cell   -> arena    msg_content here they are
 *
 * The warden believes nothing that arena says beyond "this many cells of that profile", these names
 * of programs, and the text of a few files, whose places it knows itself; arena
 * believes nothing that a cell says beyond "this is what the command did". Each side checks size,
 * type and range of what it receives, and hangs up on the first message that is wrong. */
#ifndef MSG_H
#define MSG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MSG_CELLS_MAX = 255,       /* slots; each has a uid of its own, and arena has one */
	MSG_TEXT_MAX = 128 * 1024, /* working directory, argv and environment of a job, bytes */
	MSG_WORDS_MAX = 4096,      /* argv and environment, strings */
	MSG_FILES_BYTES = 16384, MSG_FILES_MAX = 512, /* names of files in a result */
	MSG_FDS = 4,
	MSG_ASK_MAX = 65536,       /* text behind a request: the policy file, or the names of programs */
	MSG_NAME_MAX = 200,        /* of a program */
	MSG_DENIED_MAX = 16,       /* different refused calls in a result */
	MSG_CONTENTS_MAX = 1 << 20, MSG_CONTENT_BYTES = 48 * 1024, /* of files given back: in all; in a message, a multiple of 3 */
};

/* What a job's files are to be before it starts: records of this, the name with its NUL, and the contents, in a file
 * that comes with the job. */
struct msg_put { uint32_t name_bytes, bytes; };

enum msg_type {
	MSG_BUILD = 1, MSG_KILL, MSG_LISTS, MSG_SAVE, MSG_FETCH, MSG_HELLO, MSG_CELL, MSG_GONE, MSG_FAILED, MSG_VIEW, MSG_SAVED,
	MSG_FETCHED, MSG_READY, MSG_JOB, MSG_RESULT, MSG_WANT, MSG_CONTENT,
};

/* What MSG_SAVE saves: the policy file; counters; the password; a state file that could not be read. */
enum msg_file { MSG_POLICY, MSG_STATE, MSG_PASSWORD, MSG_STATE_BAD, MSG_FILES };
/* What MSG_FETCH hands over: the policy file to be read; the log to be appended to, as it is, or when
 * nobody writes to it, so that its end can be mended, or after it was moved aside for a new one; the log to be read. */
enum msg_fetch { MSG_FETCH_POLICY, MSG_LOG_OPEN, MSG_LOG_MEND, MSG_LOG_ROTATE, MSG_LOG_READ, MSG_FETCHES };

/* What a cell is made of, one bit each; msg_layer_name has health's names. */
enum msg_layer {
	LAYER_NETNS, LAYER_MOUNTNS, LAYER_PIDNS, LAYER_RLIMITS, LAYER_NO_NEW_PRIVS, LAYER_SECCOMP,
	LAYER_CGROUP, LAYER_LANDLOCK, LAYER_USERNS, LAYERS,
};
/* the five of the six layers that a cell holds (the first is the policy); all of them make "kernel" */
#define MSG_LAYERS_KERNEL \
	(1u << LAYER_NETNS | 1u << LAYER_MOUNTNS | 1u << LAYER_PIDNS | 1u << LAYER_RLIMITS | \
	 1u << LAYER_NO_NEW_PRIVS | 1u << LAYER_SECCOMP)

/* id: the cell's, or what the answer is to carry. Behind it bytes of text: for MSG_LISTS count[0] forbidden
 * and count[1] allowed names, each NUL-terminated; for MSG_SAVE the file. profile: for MSG_SAVE and MSG_FETCH, which. */
struct msg_ask { uint32_t type, id, profile, count[2], bytes; };
struct msg_hello { uint32_t type, layers; char why[LAYERS][112]; /* NUL-terminated, why one is missing */ };
/* id: a cell's slot in the low 8 bits, generation above; for MSG_VIEW the profile; else the request's. what: as
 * in the request. MSG_CELL carries control, stdin, stdout, stderr; MSG_FETCHED the file, unless why says why not. */
struct msg_tell { uint32_t type, id, what; char why[112]; };
struct msg_ready { uint32_t type, layers; int32_t error; char step[32]; /* error != 0: this step failed */ };
/* With puts: a file of so many msg_put. Behind it text_bytes of text: cwd, argc words, envc assignments, allowc names of the only programs that
 * may run (with restricted), each NUL-terminated. */
struct msg_job { uint32_t type, argc, envc, allowc, restricted, puts, text_bytes, wants; };
/* Behind it files_bytes of text: files names, each NUL-terminated. status is waitpid(2)'s. */
struct msg_result {
	uint32_t type;
	int32_t status;
	uint64_t cpu_us, max_rss_kb, read_bytes, write_bytes;
	uint32_t oom, ended_early, files, files_bytes, files_truncated, procs_full, tmp_full, denied;
	/* calls that the filter refused, each once; arg: the first argument, where its kind says what was wanted */
	struct { uint32_t nr, arg, count; } call[MSG_DENIED_MAX];
};
/* Sent right behind a job that wants it, for process 1, which reads it when all is over: give me contents of files. Nothing is
 * run before it is there. bytes of names follow, count of them, NUL-terminated; all: those of the result. */
struct msg_want { uint32_t type, all, count, bytes; };
/* What it sends behind its result, piece by piece in the order of the names; index count is the end. bytes of contents follow: all
 * but a file's last piece have MSG_CONTENT_BYTES. A file that was too large or could not be read is absent. */
struct msg_content { uint32_t type, index, bytes, absent; };

_Static_assert(sizeof(struct msg_ask) == 24 && sizeof(struct msg_tell) == 124, "no holes over the wall");
_Static_assert(sizeof(struct msg_ready) == 44 && sizeof(struct msg_job) == 32, "no holes over the wall");
_Static_assert(sizeof(struct msg_result) == 72 + 12 * MSG_DENIED_MAX, "no holes over the wall");

const char *msg_layer_name(enum msg_layer l);

/* Two connected ends, close-on-exec; -1 and errno. */
int msg_pair(int ends[2]);
/* Sends head and tail (may be empty) as one message with nfds fds, which stay the caller's.
 * 0, or -1 and errno (EAGAIN when flags has MSG_DONTWAIT and the buffer is full). */
int msg_send(int fd, const void *head, size_t head_n, const void *tail, size_t tail_n, const int *fds,
             size_t nfds, int flags);
/* Receives one message: its length, 0 at the end, -1 and errno. A message or fds beyond what is
 * asked for is -1 EMSGSIZE. Fds arrive close-on-exec and are the caller's; fds not sent are -1. */
long msg_recv(int fd, void *p, size_t cap, int *fds, size_t nfds, int flags);

/* True when text holds exactly count NUL-terminated strings. */
bool msg_check_words(const char *text, size_t n, size_t count);
#endif
