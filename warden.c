/* L5 priv: the one process that keeps privilege. It reads fixed-size requests from arena on one
 * socket and answers on the same; a request that is not in the table below, or not permitted now,
 * ends it, and with it every cell. Slots hold what cells use one after the other. */
#include "warden.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h> /* rename */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bpf.h"
#include "cell.h"
#include "chain.h"
#include "msg.h"
#include "sys.h"
#include "util.h"

static struct warden {
	int wall;
	const struct conf *conf;
	char file[MSG_FILES][PATH_MAX];
	struct jail jail;
	struct jail_slot slots[MSG_CELLS_MAX];
	struct { pid_t pid; uint32_t id; } cells[MSG_CELLS_MAX]; /* pid 0: the slot is free */
} w;

/* A request as it came: nothing of it is believed before it is checked. */
static struct { struct msg_ask head; char text[MSG_ASK_MAX]; } asked;

static _Noreturn void end(void);

static void tell(enum msg_type type, uint32_t id, uint32_t what, const char *why, const int *fds, size_t nfds)
{
	struct msg_tell t = {.type = type, .id = id, .what = what};
	(void)text_printf(t.why, sizeof t.why, "%s", why);
	if (msg_send(w.wall, &t, sizeof t, NULL, 0, fds, nfds, 0) < 0)
		end(); /* arena is gone */
}

static void tell_failed(uint32_t id, const struct jail_error *e)
{
	char why[sizeof ((struct msg_tell *)0)->why];
	(void)text_printf(why, sizeof why, "%s: %s", e->step, strerror(e->error));
	tell(MSG_FAILED, id, 0, why, NULL, 0);
}

/* Control socket pair and three pipes; mine are arena's ends, theirs the cell's, which owns the pipes
 * so that it may open /dev/stdout. On failure all are closed. */
static bool open_ends(const struct jail_slot *s, int mine[MSG_FDS], int theirs[MSG_FDS])
{
	int room = 2 * (MSG_TEXT_MAX + 4096), pair[2];
	uid_t uid = jail_slot_uid(&w.jail, s);
	size_t n = 0;

	if (msg_pair(pair) < 0)
		return false;
	mine[0] = pair[0], theirs[0] = pair[1];
	for (n = 1; n < MSG_FDS; n++) {
		if (sys_pipe2(pair, O_CLOEXEC) < 0)
			break;
		mine[n] = pair[n == 1], theirs[n] = pair[n != 1]; /* stdin is written, the others are read */
	}
	/* a job message goes out in one piece or not at all; net.core.wmem_max may make this less, and
	 * then arena says so to whom it concerns */
	bool ok = n == MSG_FDS && setsockopt(mine[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0;
	for (size_t i = 0; ok && i < MSG_FDS; i++)
		ok = sys_fcntl(mine[i], F_SETFL, O_NONBLOCK | (i == 1 ? O_WRONLY : 0)) == 0 &&
		     (i == 0 || uid == (uid_t)-1 || fchown(theirs[i], uid, (gid_t)uid) == 0);
	if (ok)
		return true;
	int saved = errno;
	for (size_t i = 0; i < n; i++)
		(void)close(mine[i]), (void)close(theirs[i]);
	errno = saved;
	return false;
}

static void close_ends(const int fds[MSG_FDS])
{
	for (size_t i = 0; i < MSG_FDS; i++)
		(void)close(fds[i]);
}

/* A new cell in a slot that is ready: its process 1, and arena's ends in mine; or -1, and the slot is spent. */
static pid_t start_cell(const struct jail_slot *s, bool is_probe, int mine[MSG_FDS], struct jail_error *e)
{
	int theirs[MSG_FDS];
	pid_t pid = -1;

	if (!open_ends(s, mine, theirs)) {
		*e = (struct jail_error){"pipes", errno};
	} else {
		pid = sys_clone(jail_clone_flags(&w.jail));
		if (pid == 0)
			cell_main(&w.jail, s, theirs, is_probe);
		*e = (struct jail_error){"clone", errno};
		close_ends(theirs);
		if (pid < 0)
			close_ends(mine);
	}
	if (pid < 0)
		jail_slot_spent(&w.jail, s);
	return pid;
}

static void build(uint32_t id, uint32_t profile)
{
	uint32_t n = id & 0xff;
	int mine[MSG_FDS];
	struct jail_error e = {"", 0};
	pid_t pid = -1;
	bool made = false;

	bool seen = jail_view_ready(&w.jail, profile, &made, &e);
	if (seen && made)
		tell(MSG_VIEW, profile, 0, w.jail.view[profile].v.why, NULL, 0);
	if (seen && jail_slot_ready(&w.jail, &w.slots[n], profile, &e))
		pid = start_cell(&w.slots[n], false, mine, &e);
	if (pid < 0) {
		tell_failed(id, &e);
		return;
	}
	w.cells[n].pid = pid;
	w.cells[n].id = id;
	tell(MSG_CELL, id, 0, "", mine, MSG_FDS);
	close_ends(mine);
}

/* What arena asks, once its size is right: false is "that can't be", and the end. */
static bool ask_build(const struct msg_ask *a)
{
	uint32_t n = a->id & 0xff;
	if (n >= MSG_CELLS_MAX - 1 /* whose uid can be the warden's own */ || !conf_profile(a->profile) || w.cells[n].pid != 0)
		return false;
	build(a->id, a->profile);
	return true;
}

static bool ask_kill(const struct msg_ask *a)
{
	uint32_t n = a->id & 0xff;
	/* the pid is ours until we reap it; an id of an earlier generation finds nothing */
	if (n < MSG_CELLS_MAX && w.cells[n].pid && w.cells[n].id == a->id)
		(void)kill(w.cells[n].pid, SIGKILL);
	return n < MSG_CELLS_MAX;
}

static bool ask_lists(const struct msg_ask *a)
{
	return jail_set_lists(&w.jail, asked.text, a->bytes, a->count);
}

/* The old file, or the whole of the new one, whatever happens in between (rename(2)); what a crash leaves
 * is the .new file, which the next one replaces. Owner and mode stay. lasting: also when the power fails. */
static bool save(const char *to, const char *text, size_t n, bool lasting)
{
	char fresh[PATH_MAX];
	struct stat old;
	bool was = lstat(to, &old) == 0;

	errno = EINVAL;
	if (was && !S_ISREG(old.st_mode))
		return false; /* a device, say, is not replaced */

	if (!text_printf(fresh, sizeof fresh, "%s.new", to))
		return false;
	(void)unlink(fresh);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	bool ok = write(fd, text, n) == (ssize_t)n && (!lasting || fsync(fd) == 0) &&
	          (!was || (fchown(fd, old.st_uid, old.st_gid) == 0 && fchmod(fd, old.st_mode & 07777) == 0));
	int saved = ok ? 0 : errno;
	ok = close(fd) == 0 && ok && rename(fresh, to) == 0;
	if (!ok) {
		saved = saved ? saved : errno;
		(void)unlink(fresh);
		errno = saved;
		return false;
	}
	*strrchr(fresh, '/') = '\0'; /* the folder */
	if (lasting && (fd = open(fresh, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0) {
		(void)fsync(fd); /* the name too; not every file system can */
		(void)close(fd);
	}
	return true;
}

/* Whether a policy file leaves all that is decided at the start as it is: where files are, above all. Else arena, were
 * it taken over, could have root write elsewhere after the next start. */
static bool keeps_places(const struct msg_ask *a)
{
	static struct conf c;
	char why[256];
	bool restart = false;
	c = *w.conf;
	return conf_apply(&c, (struct str){asked.text, a->bytes}, true, &restart, why, sizeof why) && !restart;
}

static bool ask_save(const struct msg_ask *a)
{
	char real[PATH_MAX], why[sizeof ((struct msg_tell *)0)->why] = "";

	if (a->profile >= MSG_FILES)
		return false;
	if (a->profile == MSG_POLICY && !keeps_places(a)) {
		tell(MSG_SAVED, a->id, a->profile, "a key in it needs a restart; save again after that", NULL, 0);
		return true;
	}
	sys_make_folders(w.file[a->profile]);
	if (a->profile != MSG_POLICY || sys_real_path(w.file[MSG_POLICY], real) < 0) /* of the policy a link stays one, its target is replaced */
		(void)text_printf(real, sizeof real, "%s", w.file[a->profile]);
	errno = 0;
	if (real[0] != '/' || !save(real, asked.text, a->bytes, a->profile == MSG_POLICY || a->profile == MSG_PASSWORD))
		(void)text_printf(why, sizeof why, "the file can't be written: %s", strerror(errno ? errno : EINVAL));
	tell(MSG_SAVED, a->id, a->profile, why, NULL, 0);
	return true;
}

/* audit.log becomes audit.log.1, and so on; the oldest one goes. Not before its time: arena, were it taken over, could
 * else make the whole record go by asking. */
static void rotate(const char *path)
{
	char from[PATH_MAX], to[PATH_MAX];
	uint64_t bytes = w.conf->audit_rotate_bytes;
	struct stat st;

	if (lstat(path, &st) < 0 || (uint64_t)st.st_size < bytes || bytes == 0)
		return;
	/* nor faster than 64 MiB an hour: till then the log grows */
	if (text_printf(to, sizeof to, "%s.1", path) && lstat(to, &st) == 0 && now_unix_ms() / 1000 < (uint64_t)st.st_ctime + bytes * 3600 / (64 << 20))
		return;
	for (uint64_t k = w.conf->audit_keep; k; k--) {
		(void)text_printf(from, sizeof from, k > 1 ? "%s.%llu" : "%s", path, (unsigned long long)k - 1);
		if (!text_printf(to, sizeof to, "%s.%llu", path, (unsigned long long)k) || (rename(from, to) < 0 && errno != ENOENT))
			return; /* no younger one may take the place of what stays; the log grows */
	}
}

static bool ask_fetch(const struct msg_ask *a)
{
	char why[sizeof ((struct msg_tell *)0)->why] = "";
	const char *log = w.conf->audit_log;
	uint64_t cut = 0;
	int fd;

	if (a->profile >= MSG_FETCHES)
		return false;
	if (a->profile == MSG_LOG_ROTATE)
		rotate(log);
	if (a->profile == MSG_FETCH_POLICY)
		fd = sys_open_file(w.file[MSG_POLICY]);
	else if (a->profile == MSG_LOG_READ)
		fd = open(log, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	else {
		sys_make_folders(log);
		fd = chain_open(log, a->profile == MSG_LOG_MEND, &cut);
	}
	if (fd < 0 && !(a->profile == MSG_FETCH_POLICY && errno == ENOENT))
		(void)text_printf(why, sizeof why, "%s", errno == EBADMSG ? "it is no audit log" : errno == ELOOP ? "it is a symbolic link" : strerror(errno));
	else if (cut)
		(void)text_printf(why, sizeof why, "a last line that was cut short, %llu bytes, was removed", (unsigned long long)cut);
	tell(MSG_FETCHED, a->id, a->profile, why, &fd, fd >= 0);
	if (fd >= 0)
		(void)close(fd);
	return true;
}

static const struct { uint32_t type; bool text; bool (*run)(const struct msg_ask *a); } requests[] = {
	{MSG_BUILD, false, ask_build},
	{MSG_KILL, false, ask_kill},
	{MSG_LISTS, true, ask_lists},
	{MSG_SAVE, true, ask_save},
	{MSG_FETCH, false, ask_fetch},
};

/* In basic a command can kill its process 1, which has the same uid and no namespace between: what
 * it leaves comes to us, the next subreaper. */
static void end_strays(const struct jail_slot *s)
{
	pid_t pids[MSG_CELLS_MAX + 64];
	uid_t uid = jail_slot_uid(&w.jail, s);
	bool found = true;
	pid_t helper = uid == (uid_t)-1 ? -1 : sys_clone(0);

	if (helper == 0) /* all of a uid at once, however fast they fork: kill(2) holds the list of processes meanwhile */
		_exit(sys_become(uid) < 0 || kill(-1, SIGKILL) < 0);
	if (helper > 0)
		(void)waitpid(helper, NULL, 0);
	for (int round = 0; found && round < 1000; round++) { /* bounded, so that others are served */
		found = false;
		for (size_t i = sys_children(pids, countof(pids)); i-- > 0;) {
			uint32_t n = 0;
			while (n < MSG_CELLS_MAX && w.cells[n].pid != pids[i])
				n++;
			if (n == MSG_CELLS_MAX && kill(pids[i], SIGKILL) == 0)
				found = waitpid(pids[i], NULL, 0) == pids[i] || found;
		}
	}
}

static void reap(bool wait_for_all)
{
	pid_t pid;
	while ((pid = waitpid(-1, NULL, wait_for_all ? 0 : WNOHANG)) > 0)
		for (uint32_t n = 0; n < MSG_CELLS_MAX; n++) {
			if (w.cells[n].pid != pid)
				continue;
			w.cells[n].pid = 0;
			if (w.jail.mode == JAIL_BASIC)
				end_strays(&w.slots[n]);
			jail_slot_spent(&w.jail, &w.slots[n]);
			if (!wait_for_all)
				tell(MSG_GONE, w.cells[n].id, 0, "", NULL, 0);
		}
}

/* Arena is gone, or no longer makes sense: nothing of ours outlives it. */
static _Noreturn void end(void)
{
	for (uint32_t n = 0; n < MSG_CELLS_MAX; n++)
		if (w.cells[n].pid)
			(void)kill(w.cells[n].pid, SIGKILL);
	reap(true);
	jail_close(&w.jail, w.slots, MSG_CELLS_MAX);
	_exit(0);
}

static void one_request(void)
{
	long n = msg_recv(w.wall, &asked, sizeof asked, NULL, 0, 0);
	const struct msg_ask *a = &asked.head;

	if (n < (long)sizeof *a || a->bytes != (size_t)n - sizeof *a)
		end();
	for (size_t i = 0; i < countof(requests); i++)
		if (requests[i].type == a->type && (requests[i].text || a->bytes == 0) && requests[i].run(a))
			return;
	end();
}

/* The first cell is a probe: it is built like any other, asks the kernel what it is in, and its
 * answer is what health will say. It runs nothing. */
static bool probe(struct msg_hello *h, struct jail_error *e)
{
	static char step[sizeof ((struct msg_ready *)0)->step];
	int mine[MSG_FDS];
	struct msg_ready r;
	pid_t pid;

	if (!jail_slot_ready(&w.jail, &w.slots[0], 0, e) || (pid = start_cell(&w.slots[0], true, mine, e)) < 0)
		return false;
	struct pollfd p = {mine[0], POLLIN, 0};
	long n = poll(&p, 1, 10000) == 1 ? msg_recv(mine[0], &r, sizeof r, NULL, 0, 0) : -1;
	close_ends(mine); /* which ends the cell */
	if (n < 0)
		(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0); /* no handler is installed: not interrupted */
	jail_slot_spent(&w.jail, &w.slots[0]);
	if (n == sizeof r && !r.error) {
		h->layers = r.layers;
		return true;
	}
	*e = (struct jail_error){"probe cell", ECHILD};
	if (n == sizeof r) {
		memcpy(step, r.step, sizeof step - 1);
		*e = (struct jail_error){step, r.error};
	}
	return false;
}

static void confine(struct jail_error *e)
{
	static struct sys_bpf_insn program[BPF_MAX_INSNS];
	const struct bpf_ask ask = {.arch = SYS_ARCH_HERE, .role = BPF_WARDEN, .notify = w.jail.notify};
	size_t n = bpf_build(&ask, program);

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || n == 0 || sys_seccomp(program, n) < 0) {
		*e = (struct jail_error){"the warden's filter", errno};
		warn("warden: %s: %s", e->step, strerror(e->error));
		_exit(1);
	}
}

/* What a folder of ours may have in it. */
static bool is_our_name(const char *name)
{
	static const char names[][13] = {"state", "state.new", "state.bad", "password", "password.new"};
	const char *log = strrchr(w.conf->audit_log, '/') + 1;
	bool ours = strncmp(name, log, strlen(log)) == 0;
	for (size_t i = 0; i < countof(names); i++)
		ours = ours || strcmp(name, names[i]) == 0;
	return ours;
}

/* The folder above a file is made if it is missing. Root that can't keep its uid gives it to that one, uid, with what is
 * in it, when that is ours alone. */
static void make_place(const char *file, uid_t uid)
{
	char dir[PATH_MAX], entry[2 * PATH_MAX];
	struct sys_dir d;
	const char *name;
	bool ours = uid != (uid_t)-1;

	sys_make_folders(file);
	(void)text_printf(dir, sizeof dir, "%.*s", (int)(strrchr(file, '/') - file), file); /* absolute, and fits */
	for (int pass = 0; pass < 2 && ours; pass++) {
		sys_dir_begin(&d, open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
		while ((name = sys_dir_next(&d)))
			if (pass == 0)
				ours = ours && is_our_name(name);
			else if (text_printf(entry, sizeof entry, "%s/%s", dir, name))
				(void)lchown(entry, uid, (gid_t)uid); /* if not, it can't be written, which is told */
		sys_dir_end(&d);
	}
	if (ours)
		(void)lchown(dir, uid, (gid_t)uid); /* as above */
}

static bool can_make_userns(void)
{
	int status;
	pid_t pid = sys_clone(0);
	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER) < 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void name_files(const struct conf *c, enum jail_mode mode, uint16_t port)
{
	static const char *const names[MSG_FILES] = {[MSG_STATE] = "state", [MSG_PASSWORD] = "password", [MSG_STATE_BAD] = "state.bad"};
	uid_t uid = mode == JAIL_USER && jail_uid_base(port) != (uid_t)-1 && can_make_userns() ? jail_uid_base(port) + MSG_CELLS_MAX - 1 : (uid_t)-1;

	w.conf = c;
	for (size_t i = 0; i < MSG_FILES; i++)
		(void)text_printf(w.file[i], sizeof w.file[i], names[i] ? "%s/%s" : "%s", names[i] ? c->state_dir : c->config, names[i]);
	make_place(c->audit_log, uid);
	make_place(w.file[MSG_STATE], uid);
}

static _Noreturn void serve(enum jail_mode mode, uint16_t port, const struct conf *c)
{
	struct msg_hello hello = {.type = MSG_HELLO};
	struct jail_error e = {"", 0};
	struct signalfd_siginfo si;
	sigset_t all;

	/* the terminal's Ctrl-C is for arena, whose end is ours; children arrive by fd */
	(void)sigfillset(&all);
	if (sigprocmask(SIG_SETMASK, &all, NULL) < 0)
		die("warden: signal mask:");
	for (uint32_t n = 0; n < MSG_CELLS_MAX; n++)
		w.slots[n].n = n;
	if (mode == JAIL_BASIC && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		die("warden: subreaper:");
	name_files(c, mode, port);
	bool ok = jail_open(&w.jail, mode, port, &e);
	/* a command of the same user must not find us in /proc */
	ok = ok && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0;
	if (ok) {
		confine(&e);
		ok = probe(&hello, &e);
	}
	memcpy(hello.why, w.jail.why, sizeof hello.why);
	if (!ok) {
		hello.layers = 0;
		(void)text_printf(hello.why[0], sizeof hello.why[0], "%s: %s", e.step, strerror(e.error));
	}
	(void)sigemptyset(&all);
	(void)sigaddset(&all, SIGCHLD);
	/* arena's end closes the wall; were it taken over, it could have hidden one more fd of it in a cell's queue */
	(void)sigaddset(&all, SIGUSR1);
	if (prctl(PR_SET_PDEATHSIG, SIGUSR1, 0, 0, 0) < 0)
		die("warden: parent death signal:");
	int signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		die("warden: signalfd:");
	if (msg_send(w.wall, &hello, sizeof hello, NULL, 0, NULL, 0, 0) < 0 || !ok)
		end();
	for (;;) {
		struct pollfd p[2] = {{w.wall, POLLIN, 0}, {signals, POLLIN, 0}};
		if (poll(p, 2, -1) < 0)
			end();
		if (p[1].revents) {
			while (read(signals, &si, sizeof si) == sizeof si)
				if (si.ssi_signo == SIGUSR1)
					end();
			reap(false); /* signals merge, so ask waitpid */
		}
		if (p[0].revents)
			one_request();
	}
}

int warden_start(enum jail_mode mode, uint16_t port, const struct conf *c, pid_t *pid)
{
	int ends[2];

	if (msg_pair(ends) < 0)
		return -1;
	*pid = sys_clone(0);
	if (*pid == 0) {
		/* a second fd table entry for anything else of arena's would outlive arena's close */
		w.wall = dup2(ends[1], 3) < 0 ? -1 : 3;
		if (w.wall < 0 || sys_close_from(4) < 0 || sys_fcntl(w.wall, F_SETFD, FD_CLOEXEC) < 0)
			_exit(1);
		serve(mode, port, c);
	}
	(void)close(ends[1]);
	if (*pid < 0) {
		(void)close(ends[0]);
		return -1;
	}
	return ends[0];
}
