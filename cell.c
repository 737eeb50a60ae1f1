/* L4 priv: process 1 of a cell. It has no privilege left when it starts to wait; what it tells
 * arena is believed as little as the command itself.
 *
 * The child beside it waits for the one job message and executes it. Process 1 only watches: the
 * child's end, or the control socket. Arena's shutdown of it means "end the command and report",
 * its close (also by arena's death) means "die", and with process 1 the kernel ends all the rest. */
#include "cell.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys.h"
#include "util.h"

enum { WALK_DEPTH = 16, WALK_ENTRIES = 20000 };

/* What process 1 is going to tell. */
static struct msg_result r = {.type = MSG_RESULT};
static char found[MSG_FILES_BYTES]; /* names of files, NUL-terminated */

extern char **environ;

/* ---- the child ---- */

/* Filled once by the kernel, never copied: job head and text as they came. */
static struct { struct msg_job head; char text[MSG_TEXT_MAX]; } inbox;
static char *words[MSG_WORDS_MAX + 16];

/* To arena; with MSG_DONTWAIT where nobody may be left to read it. */
static int tell(const void *head, size_t head_n, const void *tail, size_t tail_n, int flags)
{
	return msg_send(CELL_CTL, head, head_n, tail, tail_n, NULL, 0, flags);
}

static _Noreturn void no_run(int status, const char *what, const char *name)
{
	warn("%s: %s: %s", name, what, strerror(errno));
	_exit(status);
}

/* Splits n strings off *text into out. */
static char **split(char **text, uint32_t n, char **out)
{
	for (; n; n--) {
		*out++ = *text;
		*text += strlen(*text) + 1;
	}
	return out;
}

/* What every command finds in its environment, unless the job says otherwise. */
static char **add_defaults(const struct jail_slot *s, char **envp, char **end)
{
	static char home[64], tmpdir[64];
	static char *const defaults[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", home, tmpdir,
		"USER=agent", "LOGNAME=agent", "LANG=C.UTF-8",
	};
	char **first = envp, **last = end;

	(void)text_printf(home, sizeof home, "HOME=%s", s->tmp);
	(void)text_printf(tmpdir, sizeof tmpdir, "TMPDIR=%s", s->tmp);
	for (size_t i = 0; i < countof(defaults); i++) {
		size_t n = (size_t)(strchr(defaults[i], '=') - defaults[i]) + 1;
		char **e = first;
		while (e < last && strncmp(*e, defaults[i], n) != 0)
			e++;
		if (e == last)
			*end++ = defaults[i];
	}
	return end;
}

/* Makes the next file that the job brings, with the rights that the command will have. */
static void put_file(const struct jail_slot *s, int from)
{
	static char chunk[65536];
	char name[PATH_MAX];
	struct msg_put h;
	size_t skip = strlen(s->tmp) + 1;

	errno = EBADMSG;
	(void)text_printf(name, sizeof name, "%s/", s->tmp); /* fits */
	if (read(from, &h, sizeof h) != sizeof h || h.name_bytes < 2 || h.name_bytes > sizeof name - skip ||
	    read(from, name + skip, h.name_bytes) != (ssize_t)h.name_bytes || name[skip + h.name_bytes - 1])
		no_run(125, "the job's files can't be read", "put_files");
	for (char *p = strchr(name + skip, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdir(name, 0755) < 0 && errno != EEXIST)
			no_run(125, "a folder can't be made", name);
		*p = '/';
	}
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	while (fd >= 0 && h.bytes) {
		size_t n = h.bytes < sizeof chunk ? h.bytes : sizeof chunk;
		if (read(from, chunk, n) != (ssize_t)n || write(fd, chunk, n) != (ssize_t)n)
			break;
		h.bytes -= (uint32_t)n;
	}
	if (fd < 0 || h.bytes || close(fd) < 0)
		no_run(125, "can't be written", name);
}

static bool job_is_whole(long n)
{
	const struct msg_job *h = &inbox.head;
	return n >= (long)sizeof *h && h->type == MSG_JOB && h->argc > 0 && h->argc <= MSG_WORDS_MAX &&
	       h->envc <= MSG_WORDS_MAX - h->argc && h->allowc <= MSG_WORDS_MAX && h->text_bytes == (size_t)n - sizeof *h &&
	       msg_check_words(inbox.text, h->text_bytes, 1u + h->argc + h->envc + h->allowc);
}

/* Says ready, waits for the job, executes it. What goes wrong before is told on the command's own
 * stderr with the status that shells use: 125 ours, 126 not executable, 127 not found. */
static _Noreturn void run_child(const struct jail *j, const struct jail_slot *s, struct msg_ready *ready)
{
	sigset_t none;

	(void)setsid(); /* a group of its own, so that kill(0) is not for process 1; it leads none: can't fail */
	for (int i = 0; i < JAIL_CONTROLLERS; i++) {
		if (s->fd[SLOT_JOIN + i] < 0)
			continue;
		if (write(CELL_JOIN + i, "0", 1) != 1) {
			ready->error = errno;
			(void)text_printf(ready->step, sizeof ready->step, "joining the cgroup");
		}
		(void)close(CELL_JOIN + i);
	}
	if (tell(ready, sizeof *ready, NULL, 0, 0) < 0 || ready->error)
		_exit(125);
	int files;
	(void)close(CELL_NOTICES); /* process 1 listens */
	long n = msg_recv(CELL_CTL, &inbox, sizeof inbox, &files, 1, 0);
	if (n == 0)
		_exit(125); /* nobody wants this cell any more */
	if (n < 0 || !job_is_whole(n)) {
		errno = EBADMSG;
		no_run(125, "the job can't be read", "cell");
	}
	/* the next message is process 1's; were it still on its way when all is over, arena would find a reset connection in place
	 * of the result (unix(7): the peer closed with data unread) */
	if (inbox.head.wants && poll(&(struct pollfd){CELL_CTL, POLLIN, 0}, 1, -1) < 0)
		no_run(125, "waiting for what is wanted", "cell");
	if (files >= 0 && lseek(files, 0, SEEK_SET) < 0)
		no_run(125, "the job's files can't be read", "put_files");
	for (uint32_t i = 0; i < inbox.head.puts; i++)
		put_file(s, files);
	if (files >= 0)
		(void)close(files);
	char *text = inbox.text, *cwd = text, **argv = words;
	text += strlen(text) + 1;
	char **end = split(&text, inbox.head.argc, argv), **envp = end + 1;
	*end = NULL;
	end = add_defaults(s, envp, split(&text, inbox.head.envc, envp));
	*end = NULL;
	/* text is at the names now; where there is no Landlock, the command line was judged by them alone */
	if (inbox.head.restricted && j->landlock_abi && view_shrink(text, inbox.head.allowc) < 0)
		no_run(125, "the allowed programs", "cell");
	(void)sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		no_run(125, "signal mask", "cell");
	if (*cwd && chdir(cwd) < 0)
		no_run(125, "working directory", cwd);
	environ = envp; /* execvp takes its PATH from here */
	(void)execvp(argv[0], argv);
	no_run(errno == ENOENT ? 127 : 126, errno == ENOENT ? "not found in the jail" : "can't be executed in the jail", argv[0]);
}

/* ---- process 1 ---- */

/* How often the cgroup's limits refused something in this slot, ever: processes ended for their memory, forks. */
static void read_events(uint64_t out[JAIL_EVENTS])
{
	static const char keys[JAIL_EVENTS][10] = {[JAIL_OOM] = "oom_kill ", [JAIL_PIDS] = "max "};
	char text[1024];
	for (int i = 0; i < JAIL_EVENTS; i++) {
		size_t skip = strlen(keys[i]);
		ssize_t n = pread(CELL_EVENTS + i, text + 1, sizeof text - 1, 0); /* none: no cgroup */
		struct str rest = {text + 1, n > 0 ? (size_t)n : 0}, line;
		for (out[i] = 0; str_cut(&rest, '\n', &line);)
			if (line.n > skip && memcmp(line.p, keys[i], skip) == 0)
				out[i] = str_digits(&(struct str){line.p + skip, line.n - skip});
	}
}

/* Ends everything in the cell and waits for it, so that usage counts all of it. */
static void end_all(const struct jail *j)
{
	pid_t pids[64];
	if (j->mode != JAIL_BASIC) {
		(void)kill(-1, SIGKILL); /* ESRCH: nobody is left. Process 1 is spared, kill(2) */
		while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
			;
		return;
	}
	/* No namespace: orphans come to us, the subreaper; kill our children until there are none.
	 * Where they can't be listed, the first child at least is waited for. */
	do {
		size_t n = sys_children(pids, countof(pids));
		while (n)
			(void)kill(pids[--n], SIGKILL); /* may be gone */
	} while (waitpid(-1, NULL, 0) > 0 || errno == EINTR);
}

struct walk { struct buf names; uint32_t files, entries; bool truncated; char path[1024]; };

static void walk_folder(struct walk *w, int fd, size_t len, int depth);

/* One entry of a folder: a regular file is named, a folder is gone into. Nothing is followed: the
 * kind is lstat's, and a folder is opened with O_NOFOLLOW. */
static void walk_entry(struct walk *w, int dir, const char *name, size_t len, int depth)
{
	struct stat st;
	size_t n = strlen(name);

	if (++w->entries > WALK_ENTRIES || n + len + 2 > sizeof w->path) {
		w->truncated = true;
		return;
	}
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	memcpy(w->path + len, name, n + 1);
	if (S_ISDIR(st.st_mode)) {
		int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		w->path[len + n] = '/';
		if (fd >= 0)
			walk_folder(w, fd, len + n + 1, depth + 1);
		return;
	}
	if (!S_ISREG(st.st_mode))
		return;
	if (w->files == MSG_FILES_MAX || n + len + 1 > w->names.cap - w->names.n) {
		w->truncated = true;
		return;
	}
	buf_put(&w->names, w->path, len + n + 1);
	w->files++;
}

/* Takes over fd. */
static void walk_folder(struct walk *w, int fd, size_t len, int depth)
{
	struct sys_dir d;
	const char *name;

	sys_dir_begin(&d, fd);
	w->truncated = w->truncated || depth == WALK_DEPTH;
	while (depth < WALK_DEPTH && w->entries <= WALK_ENTRIES && (name = sys_dir_next(&d)))
		walk_entry(w, fd, name, len, depth);
	sys_dir_end(&d);
}

static _Noreturn void die_with_all(const struct jail *j)
{
	if (j->mode == JAIL_BASIC) /* elsewhere the kernel does it */
		end_all(j);
	_exit(0);
}

static void report(const struct jail *j, const struct jail_slot *s, int status, const uint64_t before[JAIL_EVENTS], bool early)
{
	struct walk w = {.names = {found, 0, sizeof found, false}};
	uint64_t events[JAIL_EVENTS];
	struct statfs fs;
	struct rusage u;

	r.status = status;
	r.ended_early = early;

	end_all(j);
	if (getrusage(RUSAGE_CHILDREN, &u) == 0) {
		r.cpu_us = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
		           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
		r.max_rss_kb = (uint64_t)u.ru_maxrss;
		r.read_bytes = (uint64_t)u.ru_inblock * 512; /* getrusage(2) counts in 512 bytes */
		r.write_bytes = (uint64_t)u.ru_oublock * 512;
	}
	read_events(events);
	r.oom = events[JAIL_OOM] > before[JAIL_OOM];
	r.procs_full = events[JAIL_PIDS] > before[JAIL_PIDS];
	r.tmp_full = j->mode != JAIL_BASIC && statfs(s->tmp, &fs) == 0 && (fs.f_bfree == 0 || fs.f_ffree == 0);
	int fd = open(s->tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		walk_folder(&w, fd, 0, 0);
	r.files = w.files;
	r.files_bytes = (uint32_t)w.names.n;
	r.files_truncated = w.truncated;
	/* arena gone: nobody is left to tell */
	(void)tell(&r, sizeof r, found, w.names.n, MSG_DONTWAIT);
}

/* A call that the filter kept back: it is refused, and counted. */
static void refuse_call(void)
{
	struct sys_notice n;
	size_t i = 0;
	uint32_t arg;

	if (!sys_refuse_next(CELL_NOTICES, &n))
		return;
	arg = n.nr == SYS_socket ? (uint32_t)n.arg[0] : 0; /* the kind of network */
	while (i < r.denied && (r.call[i].nr != (uint32_t)n.nr || r.call[i].arg != arg))
		i++;
	if (i == MSG_DENIED_MAX)
		return; /* more kinds than anybody reads */
	r.call[i].nr = (uint32_t)n.nr;
	r.call[i].arg = arg;
	r.call[i].count++;
	r.denied += i == r.denied;
}

/* Part by part, so that no link is followed wherever it stands. */
static int open_below(int dir, const char *name)
{
	char part[NAME_MAX + 1];
	int at = dup(dir);

	for (const char *end; at >= 0 && (end = strchr(name, '/')); name = end + 1) {
		int up = at;
		bool fits = text_printf(part, sizeof part, "%.*s", (int)(end - name), name);
		at = fits ? openat(up, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
		(void)close(up);
	}
	int fd = at < 0 ? -1 : openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (at >= 0)
		(void)close(at);
	return fd;
}

/* Sends one file, in pieces; budget is what may still be sent. */
static void give_file(int dir, const char *name, uint32_t index, uint64_t *budget)
{
	static char chunk[MSG_CONTENT_BYTES];
	struct msg_content c = {.type = MSG_CONTENT, .index = index};
	struct stat st;
	int fd = open_below(dir, name);

	c.absent = fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > *budget;
	for (uint64_t left = c.absent ? 0 : (uint64_t)st.st_size;;) {
		c.bytes = left < sizeof chunk ? (uint32_t)left : sizeof chunk;
		if (c.bytes && read(fd, chunk, c.bytes) != (ssize_t)c.bytes)
			memset(chunk, 0, c.bytes); /* nobody is left who could change it */
		if (tell(&c, sizeof c, chunk, c.bytes, 0) < 0)
			break; /* arena is gone */
		left -= c.bytes;
		*budget -= c.bytes;
		if (c.bytes < sizeof chunk)
			break; /* the last piece is shorter, or empty */
	}
	if (fd >= 0)
		(void)close(fd); /* read only */
}

/* Nothing runs any more; what is in the temporary folder is given to who asks for it. */
static void give_files(const struct jail_slot *s)
{
	static struct { struct msg_want head; char names[MSG_FILES_BYTES]; } in;
	long n = msg_recv(CELL_CTL, &in, sizeof in, NULL, 0, MSG_DONTWAIT);
	uint64_t budget = MSG_CONTENTS_MAX;
	const char *name = in.head.all ? found : in.names;
	int dir = open(s->tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (n < (long)sizeof in.head || in.head.type != MSG_WANT || in.head.bytes != (size_t)n - sizeof in.head ||
	    !msg_check_words(in.names, in.head.bytes, in.head.count))
		return; /* mostly nobody asks */
	uint32_t count = in.head.all ? r.files : in.head.count;
	for (uint32_t i = 0; i < count; i++, name += strlen(name) + 1)
		give_file(dir, name, i, &budget);
	const struct msg_content end = {.type = MSG_CONTENT, .index = count};
	(void)tell(&end, sizeof end, NULL, 0, 0); /* arena gone: nobody is left to tell */
}

/* Waits until the child has ended: its status. Others that end meanwhile are reaped. */
static int watch(const struct jail *j, pid_t child, int signals, bool *early)
{
	/* where nobody listens, that fd is not open, which poll passes over once it is -1 */
	struct pollfd p[3] = {{CELL_CTL, POLLRDHUP, 0}, {signals, POLLIN, 0}, {sys_fcntl(CELL_NOTICES, F_GETFD, 0) < 0 ? -1 : CELL_NOTICES, POLLIN, 0}};
	struct signalfd_siginfo si;
	int status;

	for (;;) {
		if (p[2].revents & POLLIN)
			refuse_call();
		if (poll(p, 3, -1) < 0 || p[0].revents & (POLLHUP | POLLERR | POLLNVAL))
			die_with_all(j); /* no handler is installed, so poll is never interrupted */
		if (p[0].revents & POLLRDHUP) {
			*early = true;
			p[0].events = 0; /* once; a hang-up is reported all the same */
			(void)kill(child, SIGKILL);
		}
		if (p[1].revents & POLLIN)
			(void)read(signals, &si, sizeof si); /* only wakes: signals merge, so ask waitpid */
		for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
			if (pid == child)
				return status;
	}
}

static _Noreturn void not_ready(int ctl, struct msg_ready *ready, const char *step, int error)
{
	ready->error = error;
	(void)text_printf(ready->step, sizeof ready->step, "%s", step);
	/* whichever place the socket has by now; if neither takes it, the hang-up says enough */
	if (msg_send(ctl, ready, sizeof *ready, NULL, 0, NULL, 0, MSG_DONTWAIT) < 0 && (errno == EBADF || errno == ENOTSOCK))
		(void)tell(ready, sizeof *ready, NULL, 0, MSG_DONTWAIT);
	_exit(125);
}

void cell_main(const struct jail *j, const struct jail_slot *s, const int fds[MSG_FDS], bool probe)
{
	struct msg_ready ready = {.type = MSG_READY};
	struct jail_error e = {"", 0};
	bool early = false;
	sigset_t chld;

	if (!jail_enter(j, s, fds, &ready.layers, &e))
		not_ready(fds[0], &ready, e.step, e.error ? e.error : EINVAL);
	(void)sigemptyset(&chld);
	(void)sigaddset(&chld, SIGCHLD);
	int signals = sigprocmask(SIG_SETMASK, &chld, NULL) < 0 ? -1 : signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	uint64_t before[JAIL_EVENTS];
	read_events(before);
	if (probe)
		ready.layers = jail_observe(j, s, ready.layers);
	pid_t child = signals < 0 ? -1 : sys_clone(0);
	if (child == 0)
		run_child(j, s, &ready);
	if (child < 0)
		not_ready(CELL_CTL, &ready, "fork", errno);
	/* the pipes are the command's: while process 1 held an end, its reader would see no end */
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd <= 2; fd++)
		if (null < 0 || dup2(null, fd) < 0)
			die_with_all(j);
	(void)close(null);
	int status = watch(j, child, signals, &early);
	report(j, s, status, before, early);
	give_files(s);
	die_with_all(j);
}
