/* L3 priv: the steps that make a cell.
 * jail_open runs once in the warden, jail_enter in each new process 1 before anything foreign is
 * near it: paths it mounts on are its own template's, so nobody can swap them. Every step is a row
 * of a table; the first that fails ends the process under construction. */
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h> /* renameat */
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bpf.h"
#include "sys.h"
#include "util.h"

enum { NAMESPACED = JAIL_ROOT | JAIL_USER };
enum { CLONE_CGROUP_NS = 0x02000000 }; /* CLONE_NEWCGROUP, since 4.6 */
enum { INITIAL_USERNS = 0xeffffffd };   /* its inode on every kernel: PROC_USER_INIT_INO, linux/proc_ns.h */
/* What the warden keeps as root: to enter namespaces and mount (SYS_ADMIN, SYS_CHROOT), to become a
 * slot's uid and empty its capabilities (SETUID, SETGID, SETPCAP), to end it (KILL), to give it its
 * pipes (CHOWN), and to remove a folder from a cgroup root, which is not root's to write (DAC_OVERRIDE). */
#define WARDEN_CAPS \
	(SYS_CAP(SYS_CAP_SYS_ADMIN) | SYS_CAP(SYS_CAP_SYS_CHROOT) | SYS_CAP(SYS_CAP_DAC_OVERRIDE) | \
	 SYS_CAP(SYS_CAP_SETUID) | SYS_CAP(SYS_CAP_SETGID) | SYS_CAP(SYS_CAP_SETPCAP) | SYS_CAP(SYS_CAP_KILL) | SYS_CAP(SYS_CAP_CHOWN))

/* Folders of programs and libraries that a cell sees, where the host has them; a link is made
 * again as a link (merged /usr). */
static const char sysdirs[][7] = {"usr", "bin", "sbin", "lib", "lib64", "lib32", "libx32"};
enum { CLEAR_DEPTH = 16, CLEAR_PASSES = 4096 };
static const struct { char name[8]; uint8_t minor; } devices[] = {
	{"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}, /* all of major 1, mem(4) */
};
static const struct { char target[16], name[11]; } dev_links[] = {
	{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
	{"/proc/self/fd/2", "dev/stderr"}, {"/tmp", "dev/shm"},
};
/* Of /etc: what the dynamic loaders need to find libraries, as copies. */
static const char etc_copies[][25] = {
	"etc/ld.so.cache", "etc/ld-musl-x86_64.path", "etc/ld-musl-aarch64.path",
};
/* Files and folders of /proc that speak of the host's hardware, keys and kernel. Those that only
 * uid 0 may open are closed to a cell anyway and not mounted over. */
static const char proc_masks[][20] = {
	"/proc/kcore", "/proc/kmsg", "/proc/keys", "/proc/key-users", "/proc/kallsyms", "/proc/modules",
	"/proc/interrupts", "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats", "/proc/mtrr",
	"/proc/sysrq-trigger", "/proc/acpi", "/proc/asound", "/proc/bus", "/proc/fs", "/proc/scsi",
};
static const char ns_files[][5] = {"net", "mnt", "pid", "user"};
static const enum msg_layer ns_layers[] = {LAYER_NETNS, LAYER_MOUNTNS, LAYER_PIDNS, LAYER_USERNS}; /* in the same order */

static bool fail(struct jail_error *e, const char *step)
{
	*e = (struct jail_error){step, errno};
	return false;
}

static void missing(struct jail *j, enum msg_layer l, const char *what, int error)
{
	(void)text_printf(j->why[l], sizeof j->why[l], error ? "%s: %s" : "%s", what, error ? strerror(error) : "");
}

/* A path or another text made of parts, good until the next call but one; "" (no file) when it is too long. */
static const char *path(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static const char *path(const char *fmt, ...)
{
	static char texts[2][768];
	static unsigned turn;
	char *out = texts[turn++ & 1];
	va_list ap;
	va_start(ap, fmt);
	if (!text_vprintf(out, sizeof *texts, fmt, ap))
		out[0] = '\0';
	va_end(ap);
	return out;
}

/* An fd of a namespace that this process is in. */
static int open_ns(const char *name)
{
	return open(path("/proc/self/ns/%s", name), O_RDONLY | O_CLOEXEC);
}

/* The working directory becomes the root; nothing of the old one is left (pivot_root(2)). */
static bool become_root(void)
{
	return sys_pivot_root(".", ".") == 0 && umount2(".", MNT_DETACH) == 0 && chdir("/") == 0;
}

/* ---- uids ---- */

uid_t jail_uid_base(uint16_t port)
{
	/* 0x70000000 to 0x7fffffff belongs to nobody in systemd's UIDS-GIDS table, nor to the usual
	 * /etc/subuid ranges; a container may have the first 65536 only */
	const uint32_t tries[] = {0x70000000u | (uint32_t)port << 8, 0xf000};
	char map[1024];
	uint64_t v[3]; /* from, its number outside, how many: user_namespaces(7) */

	if (geteuid() != 0 || sys_read_file("/proc/self/uid_map", map, sizeof map) < 0)
		return (uid_t)-1;
	for (size_t i = 0; i < countof(tries); i++)
		for (struct str rest = str_of(map), w; str_word(&rest, &w) && str_uint(w, UINT32_MAX, &v[0]);) {
			for (int k = 1; k < 3; k++)
				if (!str_word(&rest, &w) || !str_uint(w, UINT32_MAX, &v[k]))
					return (uid_t)-1;
			if (tries[i] >= v[0] && tries[i] + 256ull <= v[0] + v[2])
				return tries[i];
		}
	return (uid_t)-1;
}

/* ---- cgroups: memory, pids, cpu, each in v2 or in a v1 hierarchy of its own ---- */

static const char controllers[JAIL_CONTROLLERS][7] = {"memory", "pids", "cpu"};

/* True when word stands in a list of commas (v1) or blanks (v2). */
static bool has_word(struct str list, const char *word)
{
	size_t n = strlen(word);
	for (const char *p = list.p, *end = list.p + list.n; (p = memmem(p, (size_t)(end - p), word, n)); p += n)
		if ((p == list.p || strchr(", \n", p[-1])) && (p + n == end || strchr(", \n", p[n])))
			return true;
	return false;
}

static bool file_has_word(const char *file, const char *word)
{
	char text[256];
	return sys_read_file(file, text, sizeof text) > 0 && has_word(str_of(text), word);
}

/* This process's path in the hierarchy of a v1 controller, or in v2 (NULL): /proc/self/cgroup has
 * lines "id:controllers:path", cgroups(7). */
static bool own_cgroup(const char *controller, char *out, size_t cap)
{
	char text[4096];
	if (sys_read_file("/proc/self/cgroup", text, sizeof text) < 0)
		return false;
	for (struct str rest = str_of(text), line; str_cut(&rest, '\n', &line);) {
		struct str id, list;
		if (str_cut(&line, ':', &id) && str_cut(&line, ':', &list) && (controller ? has_word(list, controller) : list.n == 0))
			return text_printf(out, cap, "%.*s", (int)line.n, line.p);
	}
	return false;
}

/* Where the hierarchy that holds a controller is mounted: mountinfo, proc(5), has
 * "id parent device root point options [fields] - type source superoptions". */
static bool find_hierarchy(const char *controller, bool *v2, char *root, char *point, size_t cap)
{
	static char text[1 << 18];
	if (sys_read_file("/proc/self/mountinfo", text, sizeof text) < 0)
		return false;
	for (struct str rest = str_of(text), line; str_cut(&rest, '\n', &line);) {
		struct str w[5], type = {NULL, 0}, source, super = {NULL, 0};
		for (size_t i = 0; i < countof(w); i++)
			if (!str_word(&line, &w[i]))
				return false;
		while (str_word(&line, &type) && !str_eq(type, "-"))
			;
		if (!str_word(&line, &type) || !str_word(&line, &source) || !str_word(&line, &super) ||
		    !text_printf(root, cap, "%.*s", (int)w[3].n, w[3].p) || !text_printf(point, cap, "%.*s", (int)w[4].n, w[4].p))
			continue;
		*v2 = str_eq(type, "cgroup2");
		if (*v2 ? file_has_word(path("%s/cgroup.controllers", point), controller)
		        : str_eq(type, "cgroup") && has_word(super, controller))
			return true;
	}
	errno = ENOENT;
	return false;
}

/* Empties a folder whose processes are all dead. Nothing is followed; what lies too deep is first
 * moved to the top. True when something was. Takes over fd. */
static bool clear_folder(int fd, int top, int depth)
{
	static unsigned moved; /* makes the new names differ */
	struct sys_dir d;
	const char *name;
	bool again = false;

	sys_dir_begin(&d, fd);
	while ((name = sys_dir_next(&d))) {
		if (unlinkat(fd, name, 0) == 0)
			continue;
		int at = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), sub = -1;
		if (at >= 0 && depth < CLEAR_DEPTH) {
			(void)chmod(path("/proc/self/fd/%d", at), 0700); /* its owner may have shut it */
			sub = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		} else if (at >= 0) {
			again = renameat(fd, name, top, path("%u", moved++)) == 0 || again;
		}
		if (at >= 0)
			(void)close(at);
		if (sub >= 0)
			again = clear_folder(sub, top, depth + 1) || again;
		(void)unlinkat(fd, name, AT_REMOVEDIR); /* if not, the folder above stays too */
	}
	sys_dir_end(&d);
	return again;
}

static void clear_path(const char *name)
{
	bool again = true;
	for (int pass = 0; again && pass < CLEAR_PASSES; pass++) {
		int top = open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		again = top >= 0 && clear_folder(dup(top), top, 0);
		if (top >= 0)
			(void)close(top);
	}
}

/* Removes what a daemon left that was killed: its lock on the folder is gone with it. */
static void sweep(const char *parent, const char *prefix, bool cgroups)
{
	struct sys_dir d;
	const char *name;
	sys_dir_begin(&d, open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	while ((name = sys_dir_next(&d))) {
		char dir[640];
		struct stat st;
		if (strncmp(name, prefix, strlen(prefix)) != 0 || !text_printf(dir, sizeof dir, "%s/%s", parent, name))
			continue;
		int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid() && flock(fd, LOCK_EX | LOCK_NB) == 0) {
			if (!cgroups)
				clear_path(dir);
			for (int i = 0; cgroups && i < MSG_CELLS_MAX; i++)
				(void)rmdir(path("%s/c%d", dir, i)); /* most do not exist */
			(void)rmdir(dir); /* busy: tried again at the next start */
		}
		if (fd >= 0)
			(void)close(fd);
	}
	sys_dir_end(&d);
}

/* Makes our folder below parent and holds its lock as long as we live. In v2 the parent must hand
 * the controllers down (cgroups(7), "subtree control"). */
static bool make_base(struct jail_cgroup *g, const char *parent, const char *controller)
{
	if (g->v2 && !file_has_word(path("%s/cgroup.subtree_control", parent), controller) &&
	    sys_write_file(path("%s/cgroup.subtree_control", parent), "+memory +pids +cpu") < 0)
		return false; /* EBUSY: processes live in it */
	sweep(parent, "omniarena-", true);
	errno = ENAMETOOLONG;
	if (!text_printf(g->dir, sizeof g->dir, "%s/omniarena-%d", parent, (int)getpid()) || (mkdir(g->dir, 0700) < 0 && errno != EEXIST))
		return false;
	g->lock_fd = open(g->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* 0700: no other user can hold the lock */
	if (g->lock_fd < 0 || flock(g->lock_fd, LOCK_EX | LOCK_NB) < 0 ||
	    (g->v2 && sys_write_file(path("%s/cgroup.subtree_control", g->dir), "+memory +pids") < 0)) {
		int saved = errno;
		(void)rmdir(g->dir);
		errno = saved;
		return false;
	}
	if (g->v2) /* a weight is welcome, not needed */
		(void)sys_write_file(path("%s/cgroup.subtree_control", g->dir), "+cpu");
	return true;
}

/* One controller: our own cgroup is the natural parent; in v2, where processes may not sit beside
 * children, an ancestor that already hands the controllers down serves as well. */
static bool open_cgroup(struct jail_cgroup *g, const char *controller)
{
	char root[224], point[224], own[256], parent[512];

	if (!find_hierarchy(controller, &g->v2, root, point, sizeof root) || !own_cgroup(g->v2 ? NULL : controller, own, sizeof own))
		return false;
	size_t skip = strcmp(root, "/") != 0 && strncmp(own, root, strlen(root)) == 0 ? strlen(root) : 0;
	(void)text_printf(parent, sizeof parent, "%s%s", point, strcmp(own + skip, "/") == 0 ? "" : own + skip); /* fits */
	while (!make_base(g, parent, controller)) {
		if (!g->v2 || strlen(parent) <= strlen(point))
			return false;
		*strrchr(parent, '/') = '\0';
	}
	return true;
}

static void open_cgroups(struct jail *j)
{
	for (size_t i = 0; i < JAIL_CONTROLLERS; i++) {
		struct jail_cgroup *g = &j->cgroups[i];
		g->lock_fd = -1;
		if (i && j->cgroups[0].v2) {
			*g = j->cgroups[0]; /* v2: one folder for all */
		} else if (!open_cgroup(g, controllers[i])) {
			g->dir[0] = '\0';
			if (i == 2)
				break; /* a share of the processor is a courtesy; the other two are the fence */
			missing(j, LAYER_CGROUP, path("no %s cgroup can be made", controllers[i]), errno);
			return;
		}
	}
	j->cgroup = true;
}

static bool set_value(const char *dir, const char *file, uint64_t v)
{
	return sys_write_file(path("%s/%s", dir, file), path("%llu", (unsigned long long)v)) == 0;
}

static bool slot_cgroup(struct jail *j, struct jail_slot *s, uint32_t profile)
{
	const struct conf_profile *p = conf_profile(profile);
	uint64_t bytes = (uint64_t)p->memory_mb << 20;
	char dir[256];

	for (size_t i = 0; i < JAIL_CONTROLLERS; i++) {
		struct jail_cgroup *g = &j->cgroups[i];
		if (!g->dir[0])
			continue;
		(void)text_printf(dir, sizeof dir, "%s/c%u", g->dir, s->n); /* fits */
		if (mkdir(dir, 0755) < 0 && errno != EEXIST)
			return false;
		if (i == 0 && g->v2) {
			if (!set_value(dir, "memory.max", bytes))
				return false;
			/* each may be absent: no swap accounting; before 4.19 */
			(void)set_value(dir, "memory.swap.max", 0);
			(void)set_value(dir, "memory.oom.group", 1);
		} else if (i == 0) {
			/* the two v1 limits must never cross: lift the upper, set the lower, lower the upper */
			(void)set_value(dir, "memory.memsw.limit_in_bytes", INT64_MAX);
			if (!set_value(dir, "memory.limit_in_bytes", bytes))
				return false;
			(void)set_value(dir, "memory.memsw.limit_in_bytes", bytes);
		} else if (i == 1 && !set_value(dir, "pids.max", p->processes)) {
			return false;
		} else if (i == 2) {
			/* half of what others weigh, so that a busy cell leaves the daemon its turn */
			(void)(g->v2 ? set_value(dir, "cpu.weight", 50) : set_value(dir, "cpu.shares", 512));
		}
		if (!s->open && i == 1) /* before 4.11 there is none, and a full number of processes is not told */
			s->fd[SLOT_EVENTS + JAIL_PIDS] = open(path("%s/pids.events", dir), O_RDONLY | O_CLOEXEC);
		if (s->open || (g->v2 && i))
			continue;
		if ((s->fd[SLOT_JOIN + i] = open(path("%s/cgroup.procs", dir), O_WRONLY | O_CLOEXEC)) < 0)
			return false;
		if (i == 0 && (s->fd[SLOT_EVENTS + JAIL_OOM] = open(path("%s/%s", dir, g->v2 ? "memory.events" : "memory.oom_control"), O_RDONLY | O_CLOEXEC)) < 0)
			return false;
	}
	return true;
}

/* ---- helpers: short-lived children that make a namespace and hand over its fd ---- */

/* v: what a view's helper found out comes back with the fd; others have none. */
typedef int helper_fn(const struct jail *j, const struct jail_slot *s, struct view *v, struct jail_error *e);

static int run_helper(helper_fn *fn, const struct jail *j, const struct jail_slot *s, struct view *v, struct jail_error *e)
{
	static struct { int32_t error; char step[44]; struct view v; } answer;
	int ends[2], fd = -1, status;

	if (msg_pair(ends) < 0)
		return fail(e, "socket pair"), -1;
	pid_t pid = sys_clone(0);
	if (pid == 0) {
		struct jail_error ce = {"helper", 0};
		memset(&answer, 0, sizeof answer);
		fd = fn(j, s, &answer.v, &ce);
		answer.error = fd < 0 ? ce.error : 0;
		(void)text_printf(answer.step, sizeof answer.step, "%s", ce.step);
		_exit(msg_send(ends[1], &answer, sizeof answer, NULL, 0, &fd, fd >= 0, 0) < 0);
	}
	(void)close(ends[1]);
	if (pid < 0) {
		(void)fail(e, "fork");
	} else if (msg_recv(ends[0], &answer, sizeof answer, &fd, 1, 0) != sizeof answer) {
		errno = ECHILD;
		(void)fail(e, "helper process");
	} else if (fd < 0) {
		static char step[sizeof answer.step];
		memcpy(step, answer.step, sizeof step - 1);
		*e = (struct jail_error){step, answer.error};
	} else if (v) {
		*v = answer.v;
	}
	(void)close(ends[0]);
	if (pid > 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	return fd;
}

/* In a new user namespace: its one uid and gid, and what they are outside (user_namespaces(7)). */
static bool write_maps(uid_t inside, uid_t uid, gid_t gid)
{
	/* becoming another uid made this process undumpable and its /proc files root's */
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0 && sys_write_file("/proc/self/setgroups", "deny") == 0 &&
	       sys_write_file("/proc/self/uid_map", path("%u %u 1", inside, uid)) == 0 &&
	       sys_write_file("/proc/self/gid_map", path("%u %u 1", inside, gid)) == 0;
}

/* A user namespace with one uid in it, CELL_UID, that is the slot's outside. */
static int make_userns(const struct jail *j, const struct jail_slot *s, struct view *v, struct jail_error *e)
{
	(void)v;
	uid_t outside = j->mode == JAIL_ROOT ? jail_slot_uid(j, s) : 0;

	if ((j->mode == JAIL_ROOT && sys_become(outside) < 0) || unshare(CLONE_NEWUSER) < 0)
		return fail(e, "user namespace of the slot"), -1;
	if (!write_maps(CELL_UID, outside, outside))
		return fail(e, "uid map of the slot"), -1;
	int fd = open_ns("user");
	if (fd < 0)
		fail(e, "user namespace of the slot");
	return fd;
}

static bool copy_file(const char *from, const char *to)
{
	char chunk[16384];
	ssize_t n;
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	if (in < 0)
		return errno == ENOENT; /* another libc's file */
	if ((out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)) < 0)
		return false;
	while ((n = read(in, chunk, sizeof chunk)) > 0)
		if (write(out, chunk, (size_t)n) != n)
			return false;
	(void)close(in);
	return n == 0 && close(out) == 0;
}

static bool make_file(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	return fd >= 0 && close(fd) == 0;
}

/* Below the new root: the host's folder, read-only, with what is mounted in it. */
static bool bind_readonly(const char *from, const char *to)
{
	if (mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0)
		return false;
	if (sys_mount_restrict(to, SYS_MOUNT_ATTR_RDONLY | SYS_MOUNT_ATTR_NOSUID | SYS_MOUNT_ATTR_NODEV) == 0)
		return true;
	/* before 5.12: without what is mounted in it, whose flags could not be changed in one go */
	return errno == ENOSYS && umount2(to, MNT_DETACH) == 0 && mount(from, to, NULL, MS_BIND, NULL) == 0 &&
	       mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) == 0;
}

static bool make_sysdirs(void)
{
	char target[256];
	for (size_t i = 0; i < countof(sysdirs); i++) {
		const char *from = path("/%s", sysdirs[i]);
		struct stat st;
		if (lstat(from, &st) < 0) {
			if (errno != ENOENT)
				return false;
		} else if (S_ISLNK(st.st_mode)) {
			ssize_t n = readlink(from, target, sizeof target - 1);
			if (n < 0)
				return false;
			target[n] = '\0';
			if (symlink(target, sysdirs[i]) < 0)
				return false;
		} else if (mkdir(sysdirs[i], 0755) < 0 || !bind_readonly(from, sysdirs[i])) {
			return false;
		}
	}
	return true;
}

static bool make_devices(void)
{
	(void)umask(0); /* this process ends soon, and a device that not all may write is none */
	if (mkdir("dev", 0755) < 0 || mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k,nr_inodes=32") < 0)
		return false;
	for (size_t i = 0; i < countof(devices); i++) {
		const char *to = path("dev/%s", devices[i].name);
		if (mknod(to, S_IFCHR | 0666, makedev(1, devices[i].minor)) == 0)
			continue;
		/* in a user namespace nobody makes devices: take the host's */
		if (!make_file(to) || mount(path("/%s", to), to, NULL, MS_BIND, NULL) < 0 ||
		    (sys_mount_restrict(to, SYS_MOUNT_ATTR_RDONLY | SYS_MOUNT_ATTR_NOSUID) < 0 && errno != ENOSYS))
			return false; /* read-only: it can be written to, and not touched */
	}
	for (size_t i = 0; i < countof(dev_links); i++)
		if (symlink(dev_links[i].target, dev_links[i].name) < 0)
			return false;
	return mount(NULL, "dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) == 0;
}

/* One user, whose number is the same in every cell where there are user namespaces; else each
 * slot has its own. */
static bool make_accounts(const struct jail *j)
{
	char passwd[64 * MSG_CELLS_MAX], group[64 * MSG_CELLS_MAX];
	struct buf p = {passwd, 0, sizeof passwd - 1, false}, g = {group, 0, sizeof group - 1, false};

	for (unsigned i = 0; i < (j->userns ? 1 : MSG_CELLS_MAX); i++) {
		unsigned uid = j->userns ? CELL_UID : (unsigned)j->uid_base + i;
		buf_printf(&p, "agent:x:%u:%u:agent:/tmp:/bin/sh\n", uid, uid);
		buf_printf(&g, "agent:x:%u:\n", uid);
	}
	passwd[p.n] = group[g.n] = '\0';
	return !p.full && !g.full && make_file("etc/passwd") && sys_write_file("etc/passwd", passwd) == 0 &&
	       make_file("etc/group") && sys_write_file("etc/group", group) == 0;
}

/* The finished root of all cells, in a mount namespace of its own; nothing of the host is left in
 * it but the folders bound above. */
static int make_template(const struct jail *j, const struct jail_slot *s, struct view *v, struct jail_error *e)
{
	(void)s, (void)v;
	if (unshare(CLONE_NEWNS) < 0)
		return fail(e, "mount namespace"), -1;
	int fd = open_ns("mnt");
	if (fd < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return fail(e, "private mounts"), -1;
	/* /tmp is where it is built, seen by nobody outside this namespace */
	if (mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m,nr_inodes=1k") < 0 || chdir("/tmp") < 0)
		return fail(e, "root tmpfs"), -1;
	if (mkdir("proc", 0755) < 0 || mkdir("tmp", 0755) < 0 || mkdir("mnt", 0755) < 0 || mkdir("etc", 0755) < 0)
		return fail(e, "folders of the root"), -1;
	if (!make_sysdirs())
		return fail(e, "program folders"), -1;
	if (!make_devices())
		return fail(e, "/dev"), -1;
	for (size_t i = 0; i < countof(etc_copies); i++)
		if (!copy_file(path("/%s", etc_copies[i]), etc_copies[i]))
			return fail(e, etc_copies[i]), -1;
	if (!make_accounts(j))
		return fail(e, "/etc/passwd"), -1;
	if (mkdir("etc/alternatives", 0755) < 0 ||
	    (!bind_readonly("/etc/alternatives", "etc/alternatives") && errno != ENOENT))
		return fail(e, "/etc/alternatives"), -1;
	/* In a user namespace the kernel lets a process mount a proc only while it can see another one
	 * whole (mount_namespaces(7)): the cell drops this one right after mounting its own. */
	if (j->in_userns && mount("/proc", "mnt", NULL, MS_BIND | MS_REC, NULL) < 0)
		return fail(e, "proc for the cells"), -1;
	if (!become_root())
		return fail(e, "pivot_root"), -1;
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		return fail(e, "read-only root"), -1;
	return fd;
}

/* A copy of one of our roots, to be changed: an fd of its namespace. */
static int copy_root(int of_fd, struct jail_error *e)
{
	int ns = open("/proc/self/ns", O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1; /* there is no proc in it */
	if (ns >= 0 && setns(of_fd, CLONE_NEWNS) == 0 && unshare(CLONE_NEWNS) == 0)
		fd = openat(ns, "mnt", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		(void)fail(e, "a copy of the root");
	return fd;
}

static int make_quiet(const struct jail *j, const struct jail_slot *s, struct view *v, struct jail_error *e)
{
	int fd = copy_root(j->template_fd, e);
	(void)s;
	if (fd >= 0 && !view_quiet(v))
		return fail(e, "program files without exec"), -1;
	return fd;
}

/* The root of a profile's cells; of s the profile alone is asked for. */
static int make_view(const struct jail *j, const struct jail_slot *s, struct view *v, struct jail_error *e)
{
	bool strict = s->profile == CONF_STRICT;
	int fd = copy_root(strict ? j->quiet_fd : j->template_fd, e);
	if (fd >= 0 && !(strict ? view_allow(&j->lists, v) : view_forbid(&j->lists, v)))
		return fail(e, strict ? "folders of allowed programs" : "covers of forbidden programs"), -1;
	return fd;
}

/* ---- the warden's side ---- */

static uint64_t ns_inode(const char *name)
{
	struct stat st;
	return stat(path("/proc/self/ns/%s", name), &st) == 0 ? st.st_ino : 0;
}

/* Root with all power over what it makes, and over nothing else. */
static bool enter_userns(uid_t uid_base, struct jail_error *e)
{
	uid_t uid;
	gid_t gid;

	if (uid_base != (uid_t)-1 && sys_become(uid_base + MSG_CELLS_MAX - 1) < 0)
		return fail(e, "unprivileged uid"), false; /* root's own uid must never be mapped */
	uid = geteuid(), gid = getegid(); /* inside they are nobody's till they are mapped */
	if (unshare(CLONE_NEWUSER) < 0)
		return fail(e, "user namespace");
	if (!write_maps(0, uid, gid))
		return fail(e, "uid map");
	return true;
}

/* What others may read or write; also where something is mounted over it here, as a cell's own /proc will not have that. */
static unsigned find_masks(void)
{
	unsigned found = 0;
	struct stat proc, st;
	bool known = stat("/proc", &proc) == 0;
	for (size_t i = 0; i < countof(proc_masks); i++)
		if (stat(proc_masks[i], &st) == 0 && (!known || st.st_dev != proc.st_dev || (st.st_mode & (S_IROTH | S_IWOTH))))
			found |= 1u << i;
	return found;
}

/* In basic every slot has a folder of its own below this one of ours. */
static bool make_tmp_base(struct jail *j, struct jail_error *e)
{
	sweep("/tmp", "omniarena-cells-", false);
	(void)text_printf(j->tmp, sizeof j->tmp, "/tmp/omniarena-cells-XXXXXX");
	if (sys_temp_folder(j->tmp) < 0 || chmod(j->tmp, 0711) < 0)
		return fail(e, "folder in /tmp");
	j->tmp_lock_fd = open(j->tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (j->tmp_lock_fd < 0 || flock(j->tmp_lock_fd, LOCK_EX | LOCK_NB) < 0)
		return fail(e, "lock on the folder in /tmp");
	return true;
}

bool jail_set_lists(struct jail *j, const char *text, size_t n, const uint32_t count[VIEW_LISTS])
{
	for (uint32_t p = 0; p < CONF_PROFILES; p++)
		j->view[p].fresh = false;
	return view_set_lists(&j->lists, text, n, count);
}

/* Which list a profile's cells are made from is the seed's: strict both, moderate the forbidden, permissive none. */
bool jail_view_ready(struct jail *j, uint32_t profile, bool *made, struct jail_error *e)
{
	struct view *v = &j->view[profile].v;
	int fd = -1;

	*made = !j->view[profile].fresh;
	if (!*made)
		return true;
	memset(v, 0, sizeof *v);
	if (j->mode == JAIL_BASIC) {
		if (profile == CONF_STRICT)
			view_resolve(&j->lists, v);
		if (profile != CONF_PERMISSIVE && (profile == CONF_MODERATE || j->landlock_abi == 0))
			(void)text_printf(v->why, sizeof v->why, "this host gives no jail with mounts of its own: only the command line is judged");
	} else if (profile != CONF_PERMISSIVE) {
		if (profile == CONF_STRICT && j->quiet_fd < 0) {
			if ((j->quiet_fd = run_helper(make_quiet, j, NULL, v, e)) < 0)
				return false;
			memcpy(j->quiet_why, v->why, sizeof j->quiet_why);
		}
		const struct jail_slot of_profile = {.profile = profile};
		if ((fd = run_helper(make_view, j, &of_profile, v, e)) < 0)
			return false;
		if (profile == CONF_STRICT && !v->why[0])
			memcpy(v->why, j->quiet_why, sizeof v->why);
	}
	if (j->view[profile].fd >= 0)
		(void)close(j->view[profile].fd);
	j->view[profile].fd = fd;
	j->view[profile].fresh = true;
	return true;
}

bool jail_open(struct jail *j, enum jail_mode mode, uint16_t port, struct jail_error *e)
{
	j->mode = mode;
	j->template_fd = j->quiet_fd = j->home_net_fd = j->tmp_lock_fd = -1;
	for (uint32_t p = 0; p < CONF_PROFILES; p++)
		j->view[p].fd = -1;
	j->uid_base = jail_uid_base(port);
	if (mode == JAIL_ROOT && j->uid_base == (uid_t)-1) {
		errno = EPERM;
		return fail(e, "root with uids to give");
	}
	if (geteuid() == 0 && sys_no_groups() < 0 && mode == JAIL_ROOT)
		return fail(e, "no supplementary groups");
	/* since 5.14 RLIMIT_NPROC counts within a user namespace, before over the whole host */
	j->shared_count = mode == JAIL_USER ? !sys_kernel_since(5, 14) : j->uid_base == (uid_t)-1;
	j->notify = sys_can_notify();
	j->landlock_abi = sys_landlock_abi();
	if (j->landlock_abi == 0)
		missing(j, LAYER_LANDLOCK, "this kernel has no Landlock", 0);
	j->masks = find_masks();
	j->in_userns = mode == JAIL_USER || ns_inode("user") != INITIAL_USERNS;
	if (mode == JAIL_USER && !enter_userns(j->uid_base, e))
		return false;
	open_cgroups(j); /* as who will use them */
	for (size_t i = 0; i < countof(ns_files); i++)
		j->home_ns[i] = ns_inode(ns_files[i]);
	if (mode == JAIL_BASIC) {
		for (size_t i = 0; i < countof(ns_layers); i++)
			missing(j, ns_layers[i], "this host allows neither root's namespaces nor user namespaces", 0);
		return make_tmp_base(j, e);
	}
	/* the warden itself has no use for a network, and in a user namespace no way back to the host's */
	if (unshare(CLONE_NEWUTS | CLONE_NEWNET) < 0 || sethostname("omniarena", 9) < 0)
		return fail(e, "host name and network of the warden");
	j->home_net_fd = open_ns("net");
	if (j->home_net_fd < 0)
		return fail(e, "own network namespace");
	struct jail_slot first = {.n = 0};
	int fd = run_helper(make_userns, j, &first, NULL, e);
	j->userns = fd >= 0;
	if (fd >= 0)
		(void)close(fd);
	else if (mode == JAIL_USER)
		return false;
	else
		missing(j, LAYER_USERNS, "user namespaces are switched off", e->error);
	j->template_fd = run_helper(make_template, j, NULL, NULL, e);
	if (j->template_fd < 0)
		return false;
	if (mode == JAIL_ROOT && (sys_cap_bound(WARDEN_CAPS) < 0 || sys_capset(WARDEN_CAPS) < 0))
		return fail(e, "the warden's capabilities");
	return true;
}

static int make_netns(const struct jail *j)
{
	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	int fd = open_ns("net");
	if (setns(j->home_net_fd, CLONE_NEWNET) < 0 && fd >= 0) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

static void slot_close(struct jail_slot *s)
{
	for (size_t i = 0; i < SLOT_FDS; i++) {
		if (s->fd[i] >= 0)
			(void)close(s->fd[i]);
		s->fd[i] = -1;
	}
	s->open = false;
}

/* Basic: a folder for each cell, so that nothing of the one before can be in it. */
static bool slot_folder(const struct jail *j, struct jail_slot *s)
{
	static unsigned made;
	(void)text_printf(s->tmp, sizeof s->tmp, "%s/%u", j->tmp, made++); /* fits */
	if (mkdir(s->tmp, 0700) < 0)
		return false;
	return j->uid_base == (uid_t)-1 || chown(s->tmp, jail_slot_uid(j, s), (gid_t)jail_slot_uid(j, s)) == 0;
}

uid_t jail_slot_uid(const struct jail *j, const struct jail_slot *s)
{
	return j->mode == JAIL_USER || j->uid_base == (uid_t)-1 ? (uid_t)-1 : j->uid_base + s->n;
}

void jail_slot_spent(const struct jail *j, const struct jail_slot *s)
{
	if (j->mode != JAIL_BASIC)
		return;
	(void)chmod(s->tmp, 0700); /* the command may have shut it */
	clear_path(s->tmp);
	if (rmdir(s->tmp) < 0)
		warn("%s could not be removed:", s->tmp);
}

/* Once what all cells of the slot use, with its cgroup set to the profile. */
static bool slot_open(struct jail *j, struct jail_slot *s, uint32_t profile, struct jail_error *e)
{
	if (!s->open) {
		for (size_t i = 0; i < SLOT_FDS; i++)
			s->fd[i] = -1;
		if ((j->mode & NAMESPACED) && (s->fd[SLOT_NET] = make_netns(j)) < 0)
			return fail(e, "network namespace");
		if (j->userns && (s->fd[SLOT_USER] = run_helper(make_userns, j, s, NULL, e)) < 0)
			return false;
	}
	return !j->cgroup || slot_cgroup(j, s, profile) || fail(e, "cgroup");
}

bool jail_slot_ready(struct jail *j, struct jail_slot *s, uint32_t profile, struct jail_error *e)
{
	if (j->mode != JAIL_BASIC)
		(void)text_printf(s->tmp, sizeof s->tmp, "/tmp");
	else if (!slot_folder(j, s))
		return fail(e, "folder of the cell");
	if (s->open && s->profile == profile)
		return true;
	if (!slot_open(j, s, profile, e)) {
		slot_close(s);
		return false;
	}
	s->open = true;
	s->profile = profile;
	return true;
}

void jail_close(struct jail *j, struct jail_slot *slots, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!slots[i].open)
			continue;
		slot_close(&slots[i]);
		for (size_t c = 0; c < JAIL_CONTROLLERS; c++)
			if (j->cgroups[c].dir[0] && rmdir(path("%s/c%zu", j->cgroups[c].dir, i)) < 0 && errno != ENOENT)
				warn("a cgroup stays behind in %s:", j->cgroups[c].dir);
	}
	if (j->tmp_lock_fd >= 0)
		(void)rmdir(j->tmp);
	for (size_t c = 0; c < JAIL_CONTROLLERS; c++)
		if (j->cgroups[c].dir[0])
			(void)rmdir(j->cgroups[c].dir); /* in v2 the second and third are the first */
}

unsigned long jail_clone_flags(const struct jail *j)
{
	return j->mode == JAIL_BASIC ? 0 : CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_CGROUP_NS;
}

/* ---- the steps, in a cell under construction ---- */

struct site {
	const struct jail *j;
	const struct jail_slot *s;
	const struct conf_profile *p;
	const int *fds;
};

enum result { FAILED, DONE, SKIPPED };

static enum result ok_if(bool ok)
{
	return ok ? DONE : FAILED;
}

static enum result step_order(const struct site *c)
{
	/* When the whole host is out of memory, a cell goes before anybody else's process; the host's
	 * /proc is still there. Only who is dumpable owns its files in it (proc(5)). */
	if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 || sys_write_file("/proc/self/oom_score_adj", "500") < 0)
		return FAILED;
	/* and has the processor after arena, which as root went up instead */
	return ok_if(c->j->mode == JAIL_ROOT || setpriority(PRIO_PROCESS, 0, 5) == 0);
}

static enum result step_netns(const struct site *c)
{
	return ok_if(setns(c->s->fd[SLOT_NET], CLONE_NEWNET) == 0);
}

static enum result step_mountns(const struct site *c)
{
	int view = c->j->view[c->s->profile].fd;
	/* into the finished root, then onto a copy of our own */
	return ok_if(setns(view >= 0 ? view : c->j->template_fd, CLONE_NEWNS) == 0 && unshare(CLONE_NEWNS) == 0);
}

static enum result step_proc(const struct site *c)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY; /* so /proc/sys is, too */
	struct stat st;

	/* hidepid=2, proc(5): a cell sees its own processes only, and not process 1, which is ours */
	if (mount("proc", "/proc", "proc", flags, "hidepid=2") < 0)
		return FAILED;
	if (c->j->in_userns && umount2("/mnt", MNT_DETACH) < 0)
		return FAILED;
	for (size_t i = 0; i < countof(proc_masks); i++) {
		if (!(c->j->masks >> i & 1))
			continue;
		if (stat(proc_masks[i], &st) < 0 ||
		    mount(S_ISDIR(st.st_mode) ? "/mnt" : "/dev/null", proc_masks[i], NULL, MS_BIND, NULL) < 0)
			return FAILED;
	}
	return DONE;
}

static enum result step_tmp(const struct site *c)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | (c->p->noexec ? MS_NOEXEC : 0);
	/* half of the memory, so that a full /tmp is ENOSPC before it is an end by the memory limit */
	const char *options = path("mode=1777,size=%um,nr_inodes=%u", c->p->memory_mb / 2, c->p->memory_mb * 64);
	return ok_if(mount("tmpfs", "/tmp", "tmpfs", flags, options) == 0 && chdir("/tmp") == 0);
}

static enum result step_fds(const struct site *c)
{
	static const int standard[] = {CELL_CTL, 0, 1, 2};
	int source[CELL_FDS], target[CELL_FDS], n = 0;

	for (int i = 0; i < MSG_FDS; i++)
		source[n] = c->fds[i], target[n++] = standard[i];
	for (int i = SLOT_EVENTS; i < SLOT_FDS; i++)
		if (c->s->fd[i] >= 0)
			source[n] = c->s->fd[i], target[n++] = CELL_EVENTS + i - SLOT_EVENTS;
	/* first out of the way, then into place: a source could stand where another must go */
	for (int i = 0; i < n; i++)
		if ((source[i] = sys_fcntl(source[i], F_DUPFD_CLOEXEC, CELL_FDS)) < 0)
			return FAILED;
	for (int i = 0; i < CELL_FDS; i++)
		(void)close(i); /* whatever it was */
	for (int i = 0; i < n; i++)
		if (sys_dup3(source[i], target[i], target[i] > 2 ? O_CLOEXEC : 0) < 0)
			return FAILED;
	return ok_if(sys_close_from(CELL_FDS) == 0);
}

static enum result step_session(const struct site *c)
{
	(void)umask(022);
	/* without a pid namespace, orphans must come to us to be ended */
	return ok_if(setsid() >= 0 && (c->j->mode != JAIL_BASIC || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0));
}

/* Threads of this uid on the host: where a cell has no uid of its own, RLIMIT_NPROC counts them all. */
static uint64_t count_threads(void)
{
	struct sys_dir d;
	const char *name;
	uint64_t n = 0;
	sys_dir_begin(&d, open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	while ((name = sys_dir_next(&d))) {
		struct stat st;
		if (name[0] >= '1' && name[0] <= '9' && stat(path("/proc/%s/task", name), &st) == 0 && st.st_uid == getuid())
			n += st.st_nlink - 2;
	}
	sys_dir_end(&d);
	return n;
}

struct limits { struct { int what; uint64_t value; } of[10]; };

static struct limits limits_of(const struct site *c)
{
	uint64_t memory = (uint64_t)c->p->memory_mb << 20;
	/* where the cgroup holds memory, programs that reserve far more than they use may do so,
	 * except in strict */
	uint64_t space = SYS_SANITIZED ? RLIM_INFINITY : c->j->cgroup && !c->p->noexec ? 4 * memory + (4ull << 30) : memory;
	uint64_t procs = c->p->processes + 1ull; /* process 1 has the same uid */
	if (c->j->shared_count) /* what else the user runs counts too, and changes: leave it room */
		procs += count_threads() + 32;
	return (struct limits){{
		{RLIMIT_CPU, c->p->cpu_sec}, {RLIMIT_AS, space}, {RLIMIT_NPROC, procs},
		{RLIMIT_FSIZE, (uint64_t)c->p->file_mb << 20}, {RLIMIT_NOFILE, c->p->open_files}, {RLIMIT_CORE, 0},
		{RLIMIT_STACK, 8 << 20}, {RLIMIT_MSGQUEUE, 0}, {RLIMIT_RTPRIO, 0}, {RLIMIT_MEMLOCK, 64 << 10},
	}};
}

static enum result step_limits(const struct site *c)
{
	const struct limits l = limits_of(c);
	for (size_t i = 0; i < countof(l.of); i++) {
		struct rlimit rl;
		if (prlimit(0, l.of[i].what, NULL, &rl) < 0)
			return FAILED;
		if (rl.rlim_max > l.of[i].value) /* else the host allows less already; raising needs privilege */
			rl.rlim_max = l.of[i].value;
		rl.rlim_cur = rl.rlim_max;
		if (prlimit(0, l.of[i].what, &rl, NULL) < 0)
			return FAILED;
	}
	return DONE;
}

/* Becomes uid for good. The bounding set goes first, while there is the right to empty it; then
 * SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP and SECBIT_NO_CAP_AMBIENT_RAISE, each with its lock, so
 * that executing as or becoming uid 0 gives nothing (capabilities(7)). */
static bool drop_to(uid_t uid)
{
	return sys_cap_bound(0) == 0 && prctl(PR_SET_SECUREBITS, 1 | 2 | 4 | 8 | 64 | 128, 0, 0, 0) == 0 && sys_become(uid) == 0;
}

static enum result step_uid(const struct site *c)
{
	if (c->s->fd[SLOT_USER] >= 0 || jail_slot_uid(c->j, c->s) == (uid_t)-1)
		return SKIPPED;
	return ok_if(drop_to(jail_slot_uid(c->j, c->s)));
}

static enum result step_userns(const struct site *c)
{
	if (c->s->fd[SLOT_USER] < 0)
		return SKIPPED;
	return ok_if(setns(c->s->fd[SLOT_USER], CLONE_NEWUSER) == 0 && drop_to(CELL_UID));
}

static enum result step_capabilities(const struct site *c)
{
	uint64_t left;
	(void)c;
	return ok_if(sys_capset(0) == 0 && sys_capget(&left) == 0 && left == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0);
}

static enum result step_basic_tmp(const struct site *c)
{
	return ok_if(chdir(c->s->tmp) == 0);
}

static enum result step_no_new_privs(const struct site *c)
{
	(void)c;
	/* and end with the warden, if arena should not notice first */
	return ok_if(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0);
}

/* The second fence on files: what the mounts allow, once more, path by path; and in basic, where
 * there are no mounts of our own, the only one. */
static enum result step_landlock(const struct site *c)
{
	int abi = c->j->landlock_abi;
	unsigned all = SYS_LL_FS_1 | (abi >= 2 ? SYS_LL_REFER : 0) | (abi >= 3 ? SYS_LL_TRUNCATE : 0) |
	               (abi >= 5 ? SYS_LL_IOCTL_DEV : 0);
	unsigned look = SYS_LL_READ_FILE | SYS_LL_READ_DIR, run = look | SYS_LL_EXECUTE;
	unsigned device = all & (SYS_LL_READ_FILE | SYS_LL_WRITE_FILE | SYS_LL_TRUNCATE | SYS_LL_IOCTL_DEV);
	unsigned work = all & ~(unsigned)(SYS_LL_MAKE_CHAR | SYS_LL_MAKE_BLOCK | (c->p->noexec ? SYS_LL_EXECUTE : 0));
	struct sys_ll_ruleset r = {all, abi >= 4 ? SYS_LL_NET_TCP : 0, abi >= 6 ? SYS_LL_SCOPE_ALL : 0};
	bool basic = c->j->mode == JAIL_BASIC, ok;
	/* the probe runs nothing, and there are no lists yet */
	bool listed = c->s->profile == CONF_STRICT && c->j->view[CONF_STRICT].fresh;
	struct stat st;
	int fd;

	if (abi == 0)
		return SKIPPED;
	if ((fd = sys_landlock_create(&r, abi)) < 0)
		return FAILED;
	ok = sys_landlock_allow(fd, c->s->tmp, work) == 0 && sys_landlock_allow(fd, "/proc", look) == 0;
	ok = ok && (basic || (sys_landlock_allow(fd, "/etc", look) == 0 && sys_landlock_allow(fd, "/", SYS_LL_READ_DIR) == 0 &&
	                      sys_landlock_allow(fd, "/dev", device) == 0));
	for (size_t i = 0; ok && i < countof(sysdirs); i++)
		if (lstat(path("/%s", sysdirs[i]), &st) == 0 && S_ISDIR(st.st_mode))
			ok = sys_landlock_allow(fd, path("/%s", sysdirs[i]), listed ? look : run) == 0;
	if (ok && listed)
		ok = view_landlock(fd, &c->j->view[CONF_STRICT].v, !basic) == 0;
	for (size_t i = 0; ok && basic && i < countof(devices); i++)
		ok = sys_landlock_allow(fd, path("/dev/%s", devices[i].name), device) == 0;
	for (size_t i = 0; ok && basic && i < countof(etc_copies); i++)
		ok = sys_landlock_allow(fd, path("/%s", etc_copies[i]), SYS_LL_READ_FILE) == 0 || errno == ENOENT;
	if (ok && basic)
		ok = sys_landlock_allow(fd, "/etc/alternatives", look) == 0 || errno == ENOENT;
	ok = ok && sys_landlock_enforce(fd) == 0;
	(void)close(fd);
	return ok_if(ok);
}

static enum result step_seccomp(const struct site *c)
{
	struct sys_bpf_insn program[BPF_MAX_INSNS];
	struct bpf_ask ask = {
		.arch = SYS_ARCH_HERE, .role = BPF_CELL, .memcg = c->j->cgroup,
		.memfd = c->j->cgroup && !c->p->noexec, .strict = c->p->noexec, .shared_pids = c->j->mode == JAIL_BASIC,
		.notify = c->j->notify,
	};
	size_t n = bpf_build(&ask, program);
	if (c->j->notify) {
		int fd = n > 0 ? sys_seccomp_listen(program, n) : -1;
		if (fd >= 0 || errno != EBUSY)
			return ok_if(fd >= 0 && sys_dup3(fd, CELL_NOTICES, O_CLOEXEC) >= 0 && close(fd) == 0);
		ask.notify = false; /* a container around us listens already: then nobody explains */
		n = bpf_build(&ask, program);
	}
	return ok_if(n > 0 && sys_seccomp(program, n) == 0);
}

static const struct step {
	char name[20];
	uint8_t modes;
	int8_t layer; /* -1: none of its own */
	enum result (*run)(const struct site *c);
} steps[] = {
	{"order of precedence", NAMESPACED | JAIL_BASIC, -1, step_order},
	{"network namespace", NAMESPACED, LAYER_NETNS, step_netns},
	{"mount namespace", NAMESPACED, -1, step_mountns},
	{"proc", NAMESPACED, LAYER_PIDNS, step_proc},
	{"tmp", NAMESPACED, LAYER_MOUNTNS, step_tmp},
	{"session", NAMESPACED | JAIL_BASIC, -1, step_session},
	{"uid", NAMESPACED | JAIL_BASIC, -1, step_uid},
	{"user namespace", NAMESPACED, LAYER_USERNS, step_userns},
	{"file descriptors", NAMESPACED | JAIL_BASIC, -1, step_fds},
	{"resource limits", NAMESPACED | JAIL_BASIC, LAYER_RLIMITS, step_limits},
	{"capabilities", NAMESPACED | JAIL_BASIC, -1, step_capabilities},
	{"temporary folder", JAIL_BASIC, -1, step_basic_tmp},
	{"no_new_privs", NAMESPACED | JAIL_BASIC, LAYER_NO_NEW_PRIVS, step_no_new_privs},
	{"landlock", NAMESPACED | JAIL_BASIC, LAYER_LANDLOCK, step_landlock},
	{"seccomp", NAMESPACED | JAIL_BASIC, LAYER_SECCOMP, step_seccomp},
};

bool jail_enter(const struct jail *j, const struct jail_slot *s, const int fds[MSG_FDS], uint32_t *layers,
        struct jail_error *e)
{
	const struct site site = {j, s, conf_profile(s->profile), fds};

	*layers = j->cgroup ? 1u << LAYER_CGROUP : 0; /* the command joins it before it is ready */
	for (size_t i = 0; i < countof(steps); i++) {
		if (!(steps[i].modes & (unsigned)j->mode))
			continue;
		errno = 0;
		enum result r = steps[i].run(&site);
		if (r == FAILED)
			return fail(e, steps[i].name);
		if (r == DONE && steps[i].layer >= 0)
			*layers |= 1u << steps[i].layer;
	}
	return true;
}

uint32_t jail_observe(const struct jail *j, const struct jail_slot *s, uint32_t layers)
{
	const struct site site = {j, s, conf_profile(s->profile), NULL};
	const struct limits l = limits_of(&site);

	for (size_t i = 0; i < countof(ns_files); i++) {
		uint64_t ino = ns_inode(ns_files[i]);
		if (ino == 0 || ino == j->home_ns[i])
			layers &= ~(1u << ns_layers[i]);
	}
	for (size_t i = 0; i < countof(l.of); i++) {
		struct rlimit rl;
		if (l.of[i].what == RLIMIT_NPROC && j->shared_count)
			continue; /* moves with what else the user runs */
		if (prlimit(0, l.of[i].what, NULL, &rl) < 0 || rl.rlim_max > l.of[i].value)
			layers &= ~(1u << LAYER_RLIMITS);
	}
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		layers &= ~(1u << LAYER_NO_NEW_PRIVS);
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != SYS_SECCOMP_MODE_FILTER)
		layers &= ~(1u << LAYER_SECCOMP);
	return layers;
}

/* ---- arena's own ---- */

static bool empty_root(struct jail_error *e)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=555,size=4k,nr_inodes=2") < 0 ||
	    chdir("/proc") < 0 || !become_root() ||
	    mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return fail(e, "empty root");
	return true;
}

bool jail_surrender(uid_t uid_base, struct jail_error *e)
{
	static struct sys_bpf_insn program[BPF_MAX_INSNS];
	const struct bpf_ask ask = {.arch = SYS_ARCH_HERE, .role = BPF_ARENA};
	bool root = uid_base != (uid_t)-1;
	int with_parent = 0;
	pid_t parent = getppid();
	uint64_t left;
	size_t n;

	if (prctl(PR_GET_PDEATHSIG, &with_parent) < 0)
		return fail(e, "parent's death");
	/* Where the host allows neither, there is no way to an empty root, and it is the filter alone,
	 * which knows no call that opens a file, that keeps arena from files. */
	bool own_ns = unshare(root ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) == 0;
	if (own_ns && !empty_root(e))
		return false;
	if ((own_ns || root) && sys_cap_bound(0) < 0)
		return fail(e, "bounding set");
	if (root) /* so that no crowd of cells keeps it from answering; a container may lack the right */
		(void)setpriority(PRIO_PROCESS, 0, -5);
	if (root && (sys_no_groups() < 0 || sys_become(uid_base + MSG_CELLS_MAX) < 0))
		return fail(e, "own uid");
	/* another uid has forgotten it: prctl(2), PR_SET_PDEATHSIG */
	if (with_parent && (prctl(PR_SET_PDEATHSIG, with_parent) < 0 || getppid() != parent))
		return fail(e, "parent's death");
	if (sys_capset(0) < 0 || sys_capget(&left) < 0 || left != 0)
		return fail(e, "capabilities");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail(e, "no_new_privs");
	n = bpf_build(&ask, program);
	if (n == 0 || sys_seccomp(program, n) < 0)
		return fail(e, "seccomp");
	return true;
}
