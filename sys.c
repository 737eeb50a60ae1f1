/* L0: system calls and kernel ABI that musl's headers lack. */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

/* calls from 424 on have one number on every CPU */
enum {
	NR_CLOSE_RANGE = 436, NR_MOUNT_SETATTR = 442, NR_LANDLOCK_CREATE = 444,
	NR_LANDLOCK_ADD = 445, NR_LANDLOCK_RESTRICT = 446,
};

/* The number that stands here; *p goes behind it. libc's own ways know signs, bases and errors. */
static unsigned digits(const char **p)
{
	unsigned v = 0;
	while (**p >= '0' && **p <= '9')
		v = v * 10 + (unsigned)(*(*p)++ - '0');
	return v;
}

bool sys_kernel_since(unsigned major, unsigned minor)
{
	struct utsname u;
	if (uname(&u) < 0)
		return false;
	const char *p = u.release;
	unsigned v = digits(&p);
	return v > major || (v == major && *p++ == '.' && digits(&p) >= minor);
}

int sys_fcntl(int fd, int command, long arg)
{
	return (int)syscall(SYS_fcntl, fd, command, arg);
}

int sys_dup3(int from, int to, int flags)
{
	return (int)syscall(SYS_dup3, from, to, flags);
}

int sys_pipe2(int ends[2], int flags)
{
	return (int)syscall(SYS_pipe2, ends, flags);
}

int sys_socket(int family, int type, int protocol)
{
	return (int)syscall(SYS_socket, family, type, protocol);
}

int sys_socketpair(int family, int type, int protocol, int ends[2])
{
	return (int)syscall(SYS_socketpair, family, type, protocol, ends);
}

int sys_accept4(int fd, void *address, unsigned *size, int flags)
{
	return (int)syscall(SYS_accept4, fd, address, size, flags);
}

int sys_ignore_signal(int number)
{
	/* struct sigaction as both CPUs' kernels have it */
	const struct { void (*handler)(int); unsigned long flags; void (*restorer)(void); uint64_t mask; } act = {.handler = SIG_IGN};
	return (int)syscall(SYS_rt_sigaction, number, &act, NULL, sizeof act.mask);
}

void sys_dir_begin(struct sys_dir *d, int fd)
{
	d->fd = fd;
	d->at = d->n = 0;
}

const char *sys_dir_next(struct sys_dir *d)
{
	/* struct linux_dirent64: inode, offset, 8 bytes each, length, 2, type, 1, name */
	enum { LENGTH = 16, TYPE = 18, NAME = 19 };
	for (;;) {
		if (d->at >= d->n) {
			long n = d->fd < 0 ? 0 : syscall(SYS_getdents64, d->fd, d->text, sizeof d->text);
			if (n <= 0)
				return NULL;
			d->n = (size_t)n;
			d->at = 0;
		}
		const char *entry = d->text + d->at;
		uint16_t length;
		memcpy(&length, entry + LENGTH, sizeof length);
		d->at += length;
		d->type = (unsigned char)entry[TYPE];
		if (strcmp(entry + NAME, ".") != 0 && strcmp(entry + NAME, "..") != 0)
			return entry + NAME;
	}
}

void sys_dir_end(struct sys_dir *d)
{
	if (d->fd >= 0)
		(void)close(d->fd); /* read only */
}

void *sys_memory(size_t n, size_t size)
{
	void *p = n > SIZE_MAX / size ? MAP_FAILED : mmap(NULL, n * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

int sys_cwd(char *out, size_t cap)
{
	return syscall(SYS_getcwd, out, cap) < 0 ? -1 : 0;
}

int sys_become(uid_t uid)
{
	return syscall(SYS_setresgid, uid, uid, uid) == 0 && syscall(SYS_setresuid, uid, uid, uid) == 0 ? 0 : -1;
}

int sys_no_groups(void)
{
	return (int)syscall(SYS_setgroups, 0, NULL);
}

pid_t sys_clone(unsigned long flags)
{
	/* x86_64 and aarch64 order the last arguments differently; all of them are zero here */
	return (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
}

int sys_pivot_root(const char *new_root, const char *put_old)
{
	return (int)syscall(SYS_pivot_root, new_root, put_old);
}

int sys_close_from(int first)
{
	struct rlimit rl;
	if (syscall(NR_CLOSE_RANGE, (unsigned)first, ~0u, 0) == 0)
		return 0;
	if (errno != ENOSYS || prlimit(0, RLIMIT_NOFILE, NULL, &rl) < 0)
		return -1;
	for (rlim_t fd = (rlim_t)first; fd < rl.rlim_cur; fd++)
		(void)close((int)fd); /* most are not open */
	return 0;
}

int sys_mount_restrict(const char *path, uint64_t attr_set)
{
	struct { uint64_t set, clr, propagation, userns_fd; } attr = {attr_set, 0, 0, 0};
	return (int)syscall(NR_MOUNT_SETATTR, AT_FDCWD, path, 0x8000 /* AT_RECURSIVE */, &attr, sizeof attr);
}

int sys_seccomp(const struct sys_bpf_insn *insn, size_t n)
{
	struct sys_bpf_prog prog = {(uint16_t)n, insn};
	return prctl(PR_SET_SECCOMP, SYS_SECCOMP_MODE_FILTER, &prog, 0, 0);
}

/* seccomp(2), linux/seccomp.h */
enum { OP_SET_FILTER = 1, OP_ACTION_AVAIL = 2, OP_NOTIF_SIZES = 3, FLAG_NEW_LISTENER = 8 };
#define NOTIF_RECV 0xc0502100u /* _IOWR('!', 0, struct of 80 bytes) */
#define NOTIF_SEND 0xc0182101u /* _IOWR('!', 1, struct of 24 bytes) */
struct answer { uint64_t id; int64_t value; int32_t error; uint32_t flags; };
_Static_assert(sizeof(struct sys_notice) == 80 && sizeof(struct answer) == 24, "the sizes are in the numbers above");

bool sys_can_notify(void)
{
	const uint32_t action = SYS_RET_USER_NOTIF;
	struct { uint16_t notice, answer, data; } sizes;
	return syscall(SYS_seccomp, OP_ACTION_AVAIL, 0, &action) == 0 && syscall(SYS_seccomp, OP_NOTIF_SIZES, 0, &sizes) == 0 &&
	       sizes.notice == sizeof(struct sys_notice) && sizes.answer == sizeof(struct answer);
}

int sys_seccomp_listen(const struct sys_bpf_insn *insn, size_t n)
{
	struct sys_bpf_prog prog = {(uint16_t)n, insn};
	return (int)syscall(SYS_seccomp, OP_SET_FILTER, FLAG_NEW_LISTENER, &prog);
}

bool sys_refuse_next(int listener_fd, struct sys_notice *n)
{
	memset(n, 0, sizeof *n); /* the kernel insists */
	if (ioctl(listener_fd, (int)NOTIF_RECV, n) < 0)
		return false;
	struct answer a = {.id = n->id, .error = -EPERM};
	return ioctl(listener_fd, (int)NOTIF_SEND, &a) == 0;
}

struct cap_header { uint32_t version; int32_t pid; };
struct cap_data { uint32_t effective, permitted, inheritable; };
enum { CAP_VERSION_3 = 0x20080522 };

int sys_capset(uint64_t caps)
{
	struct cap_header h = {CAP_VERSION_3, 0};
	struct cap_data d[2] = {{(uint32_t)caps, (uint32_t)caps, 0}, {(uint32_t)(caps >> 32), (uint32_t)(caps >> 32), 0}};
	return (int)syscall(SYS_capset, &h, d);
}

int sys_capget(uint64_t *caps)
{
	struct cap_header h = {CAP_VERSION_3, 0};
	struct cap_data d[2];
	if (syscall(SYS_capget, &h, d) < 0)
		return -1;
	*caps = (uint64_t)(d[1].effective | d[1].permitted | d[1].inheritable) << 32 |
	        (d[0].effective | d[0].permitted | d[0].inheritable);
	return 0;
}

int sys_cap_bound(uint64_t keep)
{
	for (unsigned long cap = 0; cap <= SYS_CAP_MAX; cap++) {
		if (keep >> cap & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			if (errno == EINVAL)
				break; /* past the last capability of this kernel */
			if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 0)
				return -1; /* still there and can't be dropped */
		}
	}
	/* EINVAL before 4.3, which has no ambient set to empty */
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
		return -1;
	return 0;
}

int sys_landlock_abi(void)
{
	long abi = syscall(NR_LANDLOCK_CREATE, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
	return abi < 0 ? 0 : (int)abi;
}

int sys_landlock_create(const struct sys_ll_ruleset *r, int abi)
{
	/* an older kernel refuses a struct longer than its own if the rest is not zero */
	size_t size = abi < 4 ? 8 : abi < 6 ? 16 : sizeof *r;
	return (int)syscall(NR_LANDLOCK_CREATE, r, size, 0);
}

int sys_landlock_allow(int ruleset_fd, const char *path, uint64_t rights)
{
	struct { uint64_t rights; int32_t fd; } __attribute__((packed)) rule = {rights, -1};
	int rc, saved;

	if ((rule.fd = open(path, O_PATH | O_CLOEXEC)) < 0)
		return -1;
	rc = (int)syscall(NR_LANDLOCK_ADD, ruleset_fd, 1 /* LANDLOCK_RULE_PATH_BENEATH */, &rule, 0);
	saved = errno;
	(void)close(rule.fd);
	errno = saved;
	return rc;
}

int sys_landlock_enforce(int ruleset_fd)
{
	return (int)syscall(NR_LANDLOCK_RESTRICT, ruleset_fd, 0);
}

int sys_temp_folder(char *path)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
	unsigned char any[6];
	char *last = path + strlen(path) - sizeof any;

	for (int tries = 0; tries < 100; tries++) {
		if (getrandom(any, sizeof any, 0) != sizeof any)
			return -1;
		for (size_t i = 0; i < sizeof any; i++)
			last[i] = letters[any[i] & 31];
		if (mkdir(path, 0700) == 0)
			return 0;
		if (errno != EEXIST)
			return -1;
	}
	return -1;
}

int sys_real_path(const char *path, char *out)
{
	enum { LINKS_MAX = 40 }; /* the kernel's own, path_resolution(7) */
	char rest[PATH_MAX], target[PATH_MAX];
	size_t n = 0, len; /* out[0..n] is where we are, "" the root; at: where to go from there */
	const char *at = rest;
	struct stat st;
	int links = 0;

	if (stat(path, &st) < 0) /* whether it leads anywhere: a folder before "..", too long, too many links */
		return -1;
	memcpy(rest, path, strlen(path) + 1);
	for (; *at; at += len + (at[len] == '/')) {
		const char *end = strchr(at, '/');
		len = end ? (size_t)(end - at) : strlen(at);
		if (len == 0 || (len == 1 && at[0] == '.'))
			continue;
		if (len == 2 && at[0] == '.' && at[1] == '.') {
			while (n && out[--n] != '/')
				;
			continue;
		}
		if (n + 1 + len >= PATH_MAX) {
			errno = ENAMETOOLONG;
			return -1;
		}
		out[n] = '/';
		memcpy(out + n + 1, at, len);
		out[n + 1 + len] = '\0';
		ssize_t got = readlink(out, target, sizeof target);
		if (got < 0) {
			if (errno != EINVAL)
				return -1;
			n += 1 + len; /* no link */
			continue;
		}
		size_t left = strlen(at + len);
		if (++links > LINKS_MAX || (size_t)got + left >= sizeof rest) {
			errno = links > LINKS_MAX ? ELOOP : ENAMETOOLONG;
			return -1;
		}
		memmove(rest + got, at + len, left + 1);
		memcpy(rest, target, (size_t)got);
		n = target[0] == '/' ? 0 : n;
		at = rest;
		len = 0;
	}
	out[n ? n : 1] = '\0';
	out[0] = '/';
	return 0;
}

void sys_make_folders(const char *file)
{
	char dir[PATH_MAX];
	size_t n = strlen(file);
	if (n >= sizeof dir)
		return;
	memcpy(dir, file, n + 1);
	for (char *p = n ? strchr(dir + 1, '/') : NULL; p; p = strchr(p + 1, '/')) {
		*p = '\0';
		(void)mkdir(dir, 0755);
		*p = '/';
	}
}

int sys_write_file(const char *path, const char *text)
{
	size_t n = strlen(text);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t done = write(fd, text, n);
	int saved = errno;
	if (close(fd) < 0 && done >= 0)
		return -1;
	errno = done >= 0 ? EIO : saved;
	return done == (ssize_t)n ? 0 : -1;
}

int sys_open_file(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISCHR(st.st_mode)))
		return fd;
	(void)close(fd);
	errno = EINVAL;
	return -1;
}

ssize_t sys_read_file(const char *path, char *out, size_t cap)
{
	int fd = sys_open_file(path);
	size_t n = 0;
	ssize_t got;
	if (fd < 0)
		return -1;
	while (n < cap - 1 && (got = read(fd, out + n, cap - 1 - n)) != 0) {
		if (got < 0) {
			int saved = errno;
			(void)close(fd);
			errno = saved;
			return -1;
		}
		n += (size_t)got;
	}
	(void)close(fd); /* read only: nothing can be lost */
	out[n] = '\0';
	return (ssize_t)n;
}

size_t sys_children(pid_t *out, size_t max)
{
	char list[8192];
	const char *p = list;
	size_t n = 0;
	if (sys_read_file("/proc/thread-self/children", list, sizeof list) < 0)
		return 0;
	for (unsigned pid; n < max && (pid = digits(&p)) && *p == ' '; p++) /* one cut off has no blank */
		out[n++] = (pid_t)pid;
	return n;
}
