/* L0: system calls and kernel ABI that musl's headers lack. Nothing else in the house has a
 * kernel number of its own. Every wrapper gives -1 and errno like libc's. */
#ifndef SYS_H
#define SYS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* seccomp(2), linux/seccomp.h */
#define SYS_SECCOMP_MODE_FILTER  2
#define SYS_RET_KILL_PROCESS     0x80000000u /* since 4.14 */
#define SYS_RET_ERRNO            0x00050000u
#define SYS_RET_ALLOW            0x7fff0000u
#define SYS_RET_USER_NOTIF       0x7fc00000u /* since 5.0 */
struct sys_bpf_insn { uint16_t code; uint8_t jt, jf; uint32_t k; };
/* struct seccomp_notif: a refused call, until somebody answers it */
struct sys_notice { uint64_t id; uint32_t pid, flags; int32_t nr; uint32_t arch; uint64_t ip, arg[6]; };
struct sys_bpf_prog { uint16_t len; const struct sys_bpf_insn *insn; };

/* linux/audit.h: what struct seccomp_data.arch holds */
#define SYS_ARCH_X86_64  0xc000003eu
#define SYS_ARCH_AARCH64 0xc00000b7u
#if defined(__x86_64__)
#define SYS_ARCH_HERE SYS_ARCH_X86_64
#elif defined(__aarch64__)
#define SYS_ARCH_HERE SYS_ARCH_AARCH64
#else
#error "OmniArena knows the system calls of x86_64 and aarch64 only"
#endif

/* The sanitizers' runtime maps memory when it likes: their build has no filter on arena and no
 * RLIMIT_AS on cells. */
#ifdef __SANITIZE_ADDRESS__
enum { SYS_SANITIZED = 1 };
#else
enum { SYS_SANITIZED = 0 };
#endif

/* capabilities(7) */
enum {
	SYS_CAP_CHOWN = 0, SYS_CAP_DAC_OVERRIDE = 1, SYS_CAP_KILL = 5, SYS_CAP_SETGID = 6, SYS_CAP_SETUID = 7,
	SYS_CAP_SETPCAP = 8, SYS_CAP_SYS_CHROOT = 18, SYS_CAP_SYS_ADMIN = 21, SYS_CAP_MAX = 63,
};
#define SYS_CAP(n) (1ull << (n))

/* landlock(7), linux/landlock.h; the ABI that brought each right behind it */
enum {
	SYS_LL_EXECUTE = 1 << 0, SYS_LL_WRITE_FILE = 1 << 1, SYS_LL_READ_FILE = 1 << 2,
	SYS_LL_READ_DIR = 1 << 3, SYS_LL_MAKE_CHAR = 1 << 6, SYS_LL_MAKE_BLOCK = 1 << 11,
	SYS_LL_FS_1 = (1 << 13) - 1, SYS_LL_REFER = 1 << 13 /* 2 */, SYS_LL_TRUNCATE = 1 << 14 /* 3 */,
	SYS_LL_IOCTL_DEV = 1 << 15 /* 5 */,
	SYS_LL_NET_TCP = 3 /* 4 */, SYS_LL_SCOPE_ALL = 3 /* 6: abstract sockets, signals */,
};
struct sys_ll_ruleset { uint64_t fs, net, scoped; };

/* mount_setattr(2), since 5.12 */
#define SYS_MOUNT_ATTR_RDONLY 1u
#define SYS_MOUNT_ATTR_NOSUID 2u
#define SYS_MOUNT_ATTR_NODEV  4u

/* The entries of a folder, read by getdents64(2): libc's own way brings its allocator with it, and there is no other use
 * for one. sys_dir_begin takes over fd (which may be -1: then there are no entries), sys_dir_end closes it. */
struct sys_dir { int fd; unsigned char type; /* of the last entry: DT_* of readdir(3) */ size_t at, n; char text[4096]; };
void sys_dir_begin(struct sys_dir *d, int fd);
/* The next name, good until the next call, without "." and ".."; NULL at the end. */
const char *sys_dir_next(struct sys_dir *d);
void sys_dir_end(struct sys_dir *d);
/* Zeroed memory that is kept to the end: mmap(2), touched only as far as it is used. NULL and errno. */
void *sys_memory(size_t n, size_t size);
/* The working directory as a C string; -1 and errno: getcwd(2), of which libc's wrapper may allocate. */
int sys_cwd(char *out, size_t cap);
/* An absolute path without links, "." and "..", into out, which holds PATH_MAX bytes; -1 and errno: realpath(3) of libc brings its
 * allocator with it. */
int sys_real_path(const char *path, char *out);
/* fcntl(2), dup3(2), pipe2(2), socket(2), socketpair(2), accept4(2) as the kernel has them. libc's ones go on to what kernels before
 * 2.6.28 had, which knew no SOCK_CLOEXEC, and to commands that nobody here uses: ten times the code. */
int sys_fcntl(int fd, int command, long arg);
int sys_dup3(int from, int to, int flags);
int sys_pipe2(int ends[2], int flags);
int sys_socket(int family, int type, int protocol);
int sys_socketpair(int family, int type, int protocol, int ends[2]);
int sys_accept4(int fd, void *address, unsigned *size, int flags);
/* A signal is ignored from now on. libc's way has handlers, of which there are none. */
int sys_ignore_signal(int number);
/* Makes a new folder, mode 0700, of a path whose last six characters are to be chosen; -1 and errno: mkdtemp(3) of libc, which asks
 * the clock for them, and brings it along. */
int sys_temp_folder(char *path);
/* Becomes this uid and gid, real, effective and saved. libc's wrappers know threads, of which there are none. */
int sys_become(uid_t uid);
/* No supplementary groups. */
int sys_no_groups(void);
/* True when the running kernel is this one or later: uname(2). */
bool sys_kernel_since(unsigned major, unsigned minor);
/* Pids of the calling thread's children, at most max: /proc/thread-self/children, proc(5). 0 where
 * the kernel lacks that file (CONFIG_PROC_CHILDREN). */
size_t sys_children(pid_t *out, size_t max);
/* Raw clone(2) without a new stack: 0 in the child, its pid in the parent. libc's cached
 * thread id is stale in the child, which therefore uses none of libc's thread functions. */
pid_t sys_clone(unsigned long flags);
/* pivot_root(2); libc has no wrapper. */
int sys_pivot_root(const char *new_root, const char *put_old);
/* Closes every fd from first on: close_range(2), since 5.9, else one by one. */
int sys_close_from(int first);
/* Recursive change of mount flags: mount_setattr(2) with AT_RECURSIVE; ENOSYS before 5.12. */
int sys_mount_restrict(const char *path, uint64_t attr_set);
/* Installs a filter for the calling thread and what it starts; NO_NEW_PRIVS must be set. */
int sys_seccomp(const struct sys_bpf_insn *insn, size_t n);
/* Whether refused calls can be told to a listener: SECCOMP_GET_ACTION_AVAIL, SECCOMP_GET_NOTIF_SIZES. */
bool sys_can_notify(void);
/* The same filter with a listener: its fd, close-on-exec. */
int sys_seccomp_listen(const struct sys_bpf_insn *insn, size_t n);
/* The next refused call; answers it with EPERM. False: there is none, or who made it is gone. */
bool sys_refuse_next(int listener_fd, struct sys_notice *n);
/* Sets effective and permitted to caps and inheritable to none: capset(2), version 3. */
int sys_capset(uint64_t caps);
/* Effective, permitted and inheritable sets of the caller, or'ed together. */
int sys_capget(uint64_t *caps);
/* Leaves the bounding set with no capability outside keep, and the ambient set empty. */
int sys_cap_bound(uint64_t keep);
/* Landlock ABI version of the running kernel, 0 for none (before 5.13, or switched off). */
int sys_landlock_abi(void);
/* landlock_create_ruleset(2): an fd. Fields that this ABI lacks must be zero. */
int sys_landlock_create(const struct sys_ll_ruleset *r, int abi);
/* Adds: below path (or the file itself) rights are allowed. */
int sys_landlock_allow(int ruleset_fd, const char *path, uint64_t rights);
int sys_landlock_enforce(int ruleset_fd);
/* Makes the folders above a file, mode 0755, as far as they are missing; opening the file says what is wrong. */
void sys_make_folders(const char *file);
/* Opens a file to be read; what could block or never end (a FIFO, a socket), and a folder, is -1 EINVAL. */
int sys_open_file(const char *path);
/* Opens path, writes text in one write(2), closes. */
int sys_write_file(const char *path, const char *text);
/* Reads the start of a file as a C string: the length, at most cap - 1. */
ssize_t sys_read_file(const char *path, char *out, size_t cap);
#endif
