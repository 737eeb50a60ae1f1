/* bpf.c: an emulator walks every program for every number and proves the verdicts against lists that
 * are written here, independently; the kernel's own headers prove the numbers; and the cell's filter
 * is worn by a child that makes the refused calls for real. */
#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../bpf.h"

struct data { uint32_t nr, arch; uint64_t ip, args[6]; }; /* struct seccomp_data */

static const uint32_t arches[] = {SYS_ARCH_X86_64, SYS_ARCH_AARCH64};
#define ERRNO(e) (SYS_RET_ERRNO | (e))

/* ---- the emulator: what the kernel lets seccomp programs have (seccomp_check_filter) ---- */

static uint32_t run(const struct sys_bpf_insn *p, size_t n, const struct data *d)
{
	uint32_t a = 0, words[sizeof *d / 4];
	memcpy(words, d, sizeof *d);
	for (size_t pc = 0; pc < n; pc++) {
		const struct sys_bpf_insn *i = &p[pc];
		switch (i->code) {
		case 0x20: a = words[i->k / 4]; break;                     /* ld [k] */
		case 0x05: pc += i->k; break;                              /* ja */
		case 0x15: pc += a == i->k ? i->jt : i->jf; break;         /* jeq */
		case 0x25: pc += a > i->k ? i->jt : i->jf; break;          /* jgt */
		case 0x35: pc += a >= i->k ? i->jt : i->jf; break;         /* jge */
		case 0x45: pc += a & i->k ? i->jt : i->jf; break;          /* jset */
		case 0x06: return i->k;                                    /* ret */
		}
	}
	return 0xdead;
}

static bool is_sound(const struct sys_bpf_insn *p, size_t n)
{
	if (n == 0 || n > 4096 || p[n - 1].code != 0x06)
		return false;
	for (size_t pc = 0; pc < n; pc++) {
		size_t left = n - pc - 1;
		switch (p[pc].code) {
		case 0x20: if (p[pc].k % 4 || p[pc].k >= sizeof(struct data)) return false; break;
		case 0x05: if (p[pc].k >= left) return false; break;
		case 0x15: case 0x25: case 0x35: case 0x45: if (p[pc].jt >= left || p[pc].jf >= left) return false; break;
		case 0x06: break;
		default: return false;
		}
	}
	return true;
}

/* ---- what is expected ---- */

/* Never in a cell, on any terms, but for the argument tests below. */
static const char forbidden[] =
	" socket connect accept accept4 bind listen setsockopt ptrace process_vm_readv process_vm_writev reboot kexec_load kexec_file_load init_module"
	" finit_module delete_module create_module mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick"
	" mount_setattr statmount listmount setns unshare keyctl add_key request_key bpf perf_event_open userfaultfd io_uring_setup io_uring_enter"
	" io_uring_register io_setup io_submit io_destroy io_getevents io_pgetevents io_cancel open_by_handle_at name_to_handle_at swapon swapoff acct"
	" quotactl quotactl_fd settimeofday clock_settime adjtimex clock_adjtime ioperm iopl modify_ldt syslog sethostname setdomainname vhangup"
	" kcmp lookup_dcookie fanotify_init fanotify_mark vmsplice pidfd_getfd process_madvise process_mrelease move_pages migrate_pages mq_open mq_unlink"
	" mbind set_mempolicy set_mempolicy_home_node mq_timedsend mq_timedreceive mq_notify mq_getsetattr nfsservctl memfd_secret uselib ustat sysfs _sysctl ";
/* What programs of every day need. */
static const char needed[] =
	" read write open openat openat2 close stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat lseek pread64 pwrite64 readv writev"
	" mmap mprotect munmap mremap madvise brk rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack pipe pipe2 dup dup2 dup3 fcntl flock poll ppoll select pselect6"
	" epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 timerfd_create signalfd4 inotify_init1 fork vfork execve execveat exit exit_group wait4 waitid futex"
	" set_tid_address set_robust_list getpid getppid gettid getuid geteuid getgid getegid getpgrp getpgid setpgid setsid getsid umask getcwd chdir fchdir"
	" mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat chmod fchmod fchmodat truncate ftruncate fallocate utimensat getdents64"
	" clock_gettime gettimeofday nanosleep clock_nanosleep getrandom uname sysinfo getrusage times sched_yield sched_getaffinity prctl arch_prctl getrlimit"
	" kill tgkill sendmsg recvmsg sendto recvfrom shutdown getsockname getsockopt sendfile splice copy_file_range statfs fstatfs sync_file_range rseq"
	" membarrier fsync fdatasync ";
/* All that arena may do. */
static const char arena[] =
	" read write close poll ppoll readv writev sendto recvfrom sendmsg recvmsg shutdown exit exit_group rt_sigreturn restart_syscall clock_gettime madvise accept4"
	" setsockopt fstat pread64 getrandom memfd_create ";
/* What the warden needs to build cells with and, of the above, nothing else; every cell inherits its filter. */
static const char build[] = " mount umount2 pivot_root chroot setns unshare mount_setattr sethostname setdomainname setsockopt ";
/* Which argument decides, a value of it that must pass, one that must not. */
static const struct { const char *name; int arg; uint64_t passes, refused; } tested[] = {
	{"clone", 0, 17, 0x20000}, {"clone", 0, 0x01200011, 0x02000000}, {"clone", 0, 0x3d0f00, 0x04000000}, {"clone", 0, 17, 0x08000000},
	{"clone", 0, 17, 0x10000000}, {"clone", 0, 17, 0x20000000}, {"clone", 0, 17, 0x40000000}, {"clone", 0, 17, 0x7e020011},
	{"ioctl", 1, 0x5401, 0x5412}, {"ioctl", 1, 0x5413, 0x541c}, {"ioctl", 1, 0x541b, 0x541d}, {"ioctl", 1, 0x5421, 0x5423},
	{"socketpair", 0, 1, 2}, {"socketpair", 0, 1, 16}, {"socketpair", 0, 1, 40}, {"personality", 0, 0xffffffff, 0}, {"personality", 0, 0xffffffff, 0x40000},
	{"fcntl", 1, 1, 1024}, {"fcntl", 1, 1030, 1026}, {"setpriority", 0, 0, 2}, {"setpriority", 1, 0, 1}, {"ioprio_set", 0, 1, 3}, {"ioprio_set", 1, 0, 1},
	{"prlimit64", 0, 0, 1}, {"sched_setaffinity", 0, 0, 1}, {"sched_setscheduler", 0, 0, 1}, {"sched_setparam", 0, 0, 1}, {"sched_setattr", 0, 0, 1},
};

static bool in(const char *list, const char *name)
{
	char word[40];
	(void)snprintf(word, sizeof word, " %s ", name);
	return strstr(list, word) != NULL;
}

static const struct bpf_call *named(const char *name)
{
	size_t n;
	const struct bpf_call *c = bpf_calls(&n);
	for (size_t i = 0; i < n; i++)
		if (strcmp(bpf_call_name(&c[i]), name) == 0)
			return &c[i];
	return NULL;
}

static int number(const struct bpf_call *c, uint32_t arch)
{
	return arch == SYS_ARCH_X86_64 ? c->x86_64 : c->aarch64;
}

static const struct bpf_call *numbered(uint32_t nr, uint32_t arch)
{
	size_t n;
	const struct bpf_call *c = bpf_calls(&n);
	for (size_t i = 0; i < n; i++)
		if (number(&c[i], arch) == (int)nr && nr < 100000)
			return &c[i];
	return NULL;
}

static void words_are_known(const char *list)
{
	char copy[4096], *save = NULL;
	(void)snprintf(copy, sizeof copy, "%s", list);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		check(named(w) != NULL, "the table has no %s", w);
}

/* One program against the lists, for every number. */
static void prove(const struct bpf_ask *ask)
{
	static struct sys_bpf_insn p[BPF_MAX_INSNS];
	size_t n = bpf_build(ask, p);
	const char *cpu = ask->arch == SYS_ARCH_X86_64 ? "x86_64" : "aarch64";
	const uint32_t refused = ask->notify ? SYS_RET_USER_NOTIF : ERRNO(EPERM);
	unsigned wrong = 0;

	check(n && is_sound(p, n), "%s role %d: the kernel would refuse the program", cpu, ask->role);
	for (uint64_t i = 0; i < 2048 + 6; i++) {
		static const uint32_t far[] = {0x3fffffff, 0x7fffffff, 0x80000000, 0xffffffff, 4096, 1u << 20};
		uint32_t nr = i < 2048 ? (uint32_t)i : far[i - 2048];
		struct data d = {.nr = nr, .arch = ask->arch};
		uint32_t got = run(p, n, &d);
		const struct bpf_call *c = numbered(nr, ask->arch);
		bool x32 = ask->arch == SYS_ARCH_X86_64 && nr & 0x40000000;
		bool ok;
		if (x32 || (ask->arch == SYS_ARCH_X86_64 && nr >= 0x40000000))
			ok = got == SYS_RET_KILL_PROCESS;
		else if (ask->role == BPF_ARENA)
			ok = SYS_SANITIZED || got == (c && in(arena, bpf_call_name(c)) ? SYS_RET_ALLOW : SYS_RET_KILL_PROCESS);
		else if (!c)
			ok = got == ERRNO(ENOSYS);
		else if (ask->role == BPF_WARDEN)
			ok = got == (in(build, bpf_call_name(c)) || in(needed, bpf_call_name(c)) || strcmp(bpf_call_name(c), "clone") == 0 ? SYS_RET_ALLOW : in(forbidden, bpf_call_name(c)) ? refused :
			             strcmp(bpf_call_name(c), "clone3") == 0 ? ERRNO(ENOSYS) : got == refused ? got : SYS_RET_ALLOW);
		else if (strcmp(bpf_call_name(c), "clone3") == 0)
			ok = got == ERRNO(ENOSYS);
		else if (in(forbidden, bpf_call_name(c)))
			ok = got == refused;
		else if (in(needed, bpf_call_name(c)))
			ok = got == SYS_RET_ALLOW;
		else if (strcmp(bpf_call_name(c), "inotify_add_watch") == 0)
			ok = got == (ask->strict ? refused : SYS_RET_ALLOW);
		else if (strcmp(bpf_call_name(c), "memfd_create") == 0)
			ok = got == (ask->memfd ? SYS_RET_ALLOW : refused);
		else if (strcmp(bpf_call_name(c), "shmget") == 0 || strcmp(bpf_call_name(c), "semget") == 0 || strcmp(bpf_call_name(c), "msgget") == 0)
			ok = got == (ask->memcg ? SYS_RET_ALLOW : refused);
		else
			ok = got == SYS_RET_ALLOW || got == refused;
		if (!ok && wrong++ < 5)
			check(false, "%s role %d: call %u (%s) gets %x", cpu, ask->role, nr, c ? bpf_call_name(c) : "unknown", got);
		d.arch = ask->arch ^ 0x40000000; /* i386 has no 64-bit mark; here: anything else */
		if (run(p, n, &d) != SYS_RET_KILL_PROCESS && wrong++ < 5)
			check(false, "%s: a foreign call %u lives", cpu, nr);
		d.arch = ask->arch == SYS_ARCH_X86_64 ? 0x40000003 : 0x40000028; /* AUDIT_ARCH_I386, _ARM */
		if (run(p, n, &d) != SYS_RET_KILL_PROCESS && wrong++ < 5)
			check(false, "%s: a 32-bit call %u lives", cpu, nr);
	}
	check(!wrong, "%s role %d: %u verdicts", cpu, ask->role, wrong);
	for (uint32_t nr = 0; ask->arch == SYS_ARCH_X86_64 && nr < 600; nr++) {
		struct data d = {.nr = nr | 0x40000000, .arch = ask->arch};
		if (run(p, n, &d) != SYS_RET_KILL_PROCESS)
			check(false, "x32 call %u lives", nr);
	}
	for (size_t i = 0; ask->role == BPF_CELL && i < sizeof tested / sizeof tested[0]; i++) {
		const struct bpf_call *c = named(tested[i].name);
		if (!c || number(c, ask->arch) < 0)
			continue;
		for (int high = 0; high < 2; high++) { /* the kernel reads 32 bits of these */
			struct data d = {.nr = (uint32_t)number(c, ask->arch), .arch = ask->arch};
			uint64_t junk = high ? 0xdeadbeef00000000 : 0;
			d.args[tested[i].arg] = tested[i].passes | junk;
			check(run(p, n, &d) == SYS_RET_ALLOW, "%s %s %llx is refused", cpu, bpf_call_name(c), (unsigned long long)d.args[tested[i].arg]);
			d.args[tested[i].arg] = tested[i].refused | junk;
			check(run(p, n, &d) == refused, "%s %s %llx passes", cpu, bpf_call_name(c), (unsigned long long)d.args[tested[i].arg]);
		}
	}
	struct data all = {.nr = ask->arch == SYS_ARCH_X86_64 ? 62 : 129, .arch = ask->arch, .args = {0xffffffff}};
	if (ask->role != BPF_CELL)
		return;
	check(run(p, n, &all) == (ask->shared_pids ? refused : SYS_RET_ALLOW), "kill(-1) with%s shared pids", ask->shared_pids ? "" : "out");
	/* where the host's files and processes can be reached: no datagrams to paths, no limits of others */
	struct data pair = {.nr = ask->arch == SYS_ARCH_X86_64 ? 53 : 199, .arch = ask->arch, .args = {1, 0x80002}};
	check(run(p, n, &pair) == (ask->shared_pids ? refused : SYS_RET_ALLOW), "socketpair of datagrams");
	pair.args[1] = 0x80805;
	check(run(p, n, &pair) == SYS_RET_ALLOW, "socketpair of packets");
	struct data limit = {.nr = ask->arch == SYS_ARCH_X86_64 ? 302 : 261, .arch = ask->arch, .args = {77}};
	check(run(p, n, &limit) == (ask->shared_pids ? refused : SYS_RET_ALLOW), "prlimit of another process");
}

/* One row a call, sorted; a number twice would give the later row's verdict to both. */
static void sorted(void)
{
	size_t n;
	const struct bpf_call *c = bpf_calls(&n);
	for (size_t i = 0; i < n; i++) {
		bool alone = true;
		for (size_t k = 0; k < i; k++)
			alone = alone && c[k].x86_64 < c[i].x86_64 && strcmp(bpf_call_name(&c[k]), bpf_call_name(&c[i])) != 0 && (c[i].aarch64 < 0 || c[k].aarch64 != c[i].aarch64);
		check(alone, "%s is out of order or has another's name or number", bpf_call_name(&c[i]));
	}
}

static void prove_all(void)
{
	sorted();
	words_are_known(build);
	words_are_known(forbidden);
	words_are_known(needed);
	words_are_known(arena);
	for (size_t a = 0; a < 2; a++)
		for (int role = BPF_ARENA; role <= BPF_CELL; role *= 2)
			for (int f = 0; f < 32; f++)
				prove(&(struct bpf_ask){.arch = arches[a], .role = (enum bpf_role)role, .memcg = f & 1, .memfd = f & 2, .shared_pids = f & 4, .strict = f & 8,
				                        .notify = f & 16});
}

/* ---- the numbers, by the kernel's headers ---- */

static void prove_numbers(const char *header, uint32_t arch)
{
	char line[256], name[64];
	unsigned nr, seen = 0;
	FILE *f = fopen(header, "r");
	if (!f) {
		unit_skipped++;
		(void)printf("SKIP  unit_bpf: %s is not there to prove the numbers\n", header);
		return;
	}
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "#define __NR_%63s %u", name, &nr) != 2 && sscanf(line, "#define __NR3264_%63s %u", name, &nr) != 2)
			continue;
		/* what the generic list calls by its 32-bit twin's name */
		const char *known = strcmp(name, "fstatat") == 0 ? "newfstatat" : strcmp(name, "fadvise64_64") == 0 ? "fadvise64" :
		                    strcmp(name, "sync_file_range2") == 0 ? "sync_file_range" : strcmp(name, "umount") == 0 ? "umount2" : name;
		const struct bpf_call *c = named(known);
		if (strcmp(name, "syscalls") == 0 || strcmp(name, "arch_specific_syscall") == 0 || (nr >= 403 && nr <= 423))
			continue; /* 403 to 423 are the 64-bit times of 32-bit CPUs */
		seen++;
		check(c == NULL || number(c, arch) == (int)nr, "%s is %u in %s and %d here", name, nr, header, c ? number(c, arch) : 0);
		check(c != NULL || nr > 460, "%s is in %s and not in the table", name, header);
	}
	(void)fclose(f);
	check(seen > 250, "only %u numbers in %s", seen, header);
}

/* ---- for real ---- */

/* In a child that wears the cell's filter: makes one call, exits with its errno. */
static int attempt(long nr, long a0, long a1)
{
	static struct sys_bpf_insn p[BPF_MAX_INSNS];
	size_t n = bpf_build(&(struct bpf_ask){.arch = SYS_ARCH_HERE, .role = BPF_CELL}, p);
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || sys_seccomp(p, n) < 0)
			_exit(255);
		errno = 0;
#ifdef __x86_64__
		if (nr == -80) { /* getpid by the door of i386 */
			long r = 20;
			__asm__ volatile("int $0x80" : "+a"(r)::"memory");
			_exit(0);
		}
#endif
		long r = syscall(nr, a0, a1, 0L, 0L, 0L, 0L);
		_exit(r == -1 ? errno : 0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void attempts(void)
{
	char copy[4096], *save = NULL;
	(void)snprintf(copy, sizeof copy, "%s", forbidden);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		const struct bpf_call *c = named(w);
		if (!c || number(c, SYS_ARCH_HERE) < 0)
			continue;
		int got = attempt(number(c, SYS_ARCH_HERE), -1, -1);
		check(got == EPERM, "%s, made for real: %d", w, got);
	}
	check(attempt(435, 0, 0) == ENOSYS, "clone3, made for real");
	check(attempt(SYS_clone, 0x10000011, 0) == EPERM, "clone with a new user namespace, made for real");
	check(attempt(SYS_ioctl, -1, 0x5412) == EPERM && attempt(SYS_ioctl, -1, (long)0xdead00005412) == EPERM, "TIOCSTI, made for real");
	check(attempt(SYS_ioctl, -1, 0x5401) == EBADF && attempt(SYS_getpid, 0, 0) == 0, "what is allowed passes");
	check(attempt(5000, 0, 0) == ENOSYS, "an unknown call, made for real");
#ifdef __x86_64__
	check(attempt(SYS_getpid | 0x40000000, 0, 0) == 1000 + SIGSYS, "x32, made for real");
	int door = attempt(-80, 0, 0); /* a kernel without that door at all kills in its own way */
	check(door == 1000 + SIGSYS || door == 1000 + SIGSEGV, "int 0x80, made for real: %d", door);
#endif
}

int main(void)
{
	prove_all();
	prove_numbers("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", SYS_ARCH_X86_64);
	prove_numbers("/usr/include/asm-generic/unistd.h", SYS_ARCH_AARCH64);
	attempts();
	return unit_end("unit_bpf");
}
