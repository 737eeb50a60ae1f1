/* L1 pure: which system calls each kind of process may make, as seccomp-bpf programs.
 * Memory to memory; installs nothing. One table says everything; the assembler below turns the
 * column of one role into a binary search over the call's number (a straight list costs more than
 * twice as much to compile in the kernel, and each call walks it). */
#include "bpf.h"

#include <errno.h>
#include <string.h>

#include "util.h"

enum {
	NONE = 0, BUILD = BPF_WARDEN, CELL = BPF_WARDEN | BPF_CELL, /* cells inherit the warden's filter */
	ARENA = BPF_ARENA, WARDEN = BPF_WARDEN, ALL = BPF_ARENA | BPF_WARDEN | BPF_CELL,
};

enum rule {
	NO_NEW_NS = 1, NO_TTY_INPUT, UNIX_ONLY, UNIX_STREAM, NOT_PID1, OWN_ONLY, PRIORITY, IO_PRIORITY, NO_LEASE,
	QUERY, NOT_ALL,                         /* up to here they look at arguments */
	NEEDS_MEMCG, MEMFD, NOT_STRICT, ABSENT, /* these are known when the program is built */
	RULES,
};

/* What a call's arguments must pass in a cell: the first test that matches decides, and none of them
 * means the contrary of the last. All of these arguments are int or the flags of clone(2), of which
 * the kernel reads the low 32 bits only, so only these are compared: what a caller leaves in the high
 * half changes nothing (CVE-2019-10063 was a filter that compared all). */
static const struct arg_test { uint8_t rule, arg; bool mask, allow; uint32_t value; } arg_tests[] = {
	/* clone: none of CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}; a new user namespace gives
	 * every capability inside it and with them most of the kernel's attack surface */
	{NO_NEW_NS, 0, true, false, 0x7e020000},
	/* ioctl: not TIOCSTI, TIOCLINUX (type into the terminal), TIOCCONS, TIOCSETD */
	{NO_TTY_INPUT, 1, false, false, 0x5412}, {NO_TTY_INPUT, 1, false, false, 0x541c},
	{NO_TTY_INPUT, 1, false, false, 0x541d}, {NO_TTY_INPUT, 1, false, false, 0x5423},
	/* socketpair: AF_UNIX, which reaches nobody but its own two ends; where the host's files can be
	 * seen not SOCK_DGRAM (2) or SOCK_RAW (3), which may send to a path */
	{UNIX_ONLY, 0, false, true, 1},
	{UNIX_STREAM, 1, true, false, 2}, {UNIX_STREAM, 0, false, true, 1},
	/* limits and scheduling of others, but not of the cell's process 1, which has the same uid; and
	 * where that uid's other processes can be reached, of the caller alone */
	{NOT_PID1, 0, false, false, 1},
	{OWN_ONLY, 0, false, true, 0},
	/* setpriority, ioprio_set: the caller or its group, not "all of my user's" (2, 3) */
	{PRIORITY, 0, false, false, 2}, {PRIORITY, 1, false, true, 0},
	{IO_PRIORITY, 0, false, false, 3}, {IO_PRIORITY, 1, false, true, 0},
	/* fcntl: not F_SETLEASE, which makes others wait who open the file; nor F_NOTIFY, which tells of them */
	{NO_LEASE, 1, false, false, 1024}, {NO_LEASE, 1, false, false, 1026},
	/* personality: 0xffffffff asks and changes nothing */
	{QUERY, 0, false, true, 0xffffffff},
	/* kill(-1) where the host's processes can be seen */
	{NOT_ALL, 0, false, false, 0xffffffff},
};

static const struct bpf_call calls[] = {
	{0, 63, ALL, 0, "read"}, {1, 64, ALL, 0, "write"}, {2, -1, CELL, 0, "open"}, {3, 57, ALL, 0, "close"},
	{4, -1, CELL, 0, "stat"}, {5, 80, ALL, 0, "fstat"}, {6, -1, CELL, 0, "lstat"}, {7, -1, ALL, 0, "poll"},
	{8, 62, CELL, 0, "lseek"}, {9, 222, CELL, 0, "mmap"}, {10, 226, CELL, 0, "mprotect"},
	{11, 215, CELL, 0, "munmap"}, {12, 214, CELL, 0, "brk"}, {13, 134, CELL, 0, "rt_sigaction"},
	{14, 135, CELL, 0, "rt_sigprocmask"}, {15, 139, ALL, 0, "rt_sigreturn"},
	{16, 29, CELL, NO_TTY_INPUT, "ioctl"}, {17, 67, ALL, 0, "pread64"}, {18, 68, CELL, 0, "pwrite64"},
	{19, 65, ALL, 0, "readv"}, {20, 66, ALL, 0, "writev"}, {21, -1, CELL, 0, "access"},
	{22, -1, CELL, 0, "pipe"}, {23, -1, CELL, 0, "select"}, {24, 124, CELL, 0, "sched_yield"},
	{25, 216, CELL, 0, "mremap"}, {26, 227, CELL, 0, "msync"}, {27, 232, CELL, 0, "mincore"},
	{28, 233, ALL, 0, "madvise"}, {29, 194, CELL, NEEDS_MEMCG, "shmget"}, {30, 196, CELL, 0, "shmat"},
	{31, 195, CELL, 0, "shmctl"}, {32, 23, CELL, 0, "dup"}, {33, -1, CELL, 0, "dup2"},
	{34, -1, CELL, 0, "pause"}, {35, 101, CELL, 0, "nanosleep"}, {36, 102, CELL, 0, "getitimer"},
	{37, -1, CELL, 0, "alarm"}, {38, 103, CELL, 0, "setitimer"}, {39, 172, CELL, 0, "getpid"},
	{40, 71, CELL, 0, "sendfile"}, {41, 198, NONE, 0, "socket"}, {42, 203, NONE, 0, "connect"},
	{43, 202, NONE, 0, "accept"}, {44, 206, ALL, 0, "sendto"}, {45, 207, ALL, 0, "recvfrom"},
	{46, 211, ALL, 0, "sendmsg"}, {47, 212, ALL, 0, "recvmsg"}, {48, 210, ALL, 0, "shutdown"},
	{49, 200, NONE, 0, "bind"}, {50, 201, NONE, 0, "listen"}, {51, 204, CELL, 0, "getsockname"},
	{52, 205, CELL, 0, "getpeername"}, {53, 199, CELL, UNIX_ONLY, "socketpair"},
	{54, 208, ARENA | WARDEN, 0, "setsockopt"}, {55, 209, CELL, 0, "getsockopt"},
	{56, 220, CELL, NO_NEW_NS, "clone"}, {57, -1, CELL, 0, "fork"}, {58, -1, CELL, 0, "vfork"},
	{59, 221, CELL, 0, "execve"}, {60, 93, ALL, 0, "exit"}, {61, 260, CELL, 0, "wait4"},
	{62, 129, CELL, NOT_ALL, "kill"}, {63, 160, CELL, 0, "uname"}, {64, 190, CELL, NEEDS_MEMCG, "semget"},
	{65, 193, CELL, 0, "semop"}, {66, 191, CELL, 0, "semctl"}, {67, 197, CELL, 0, "shmdt"},
	{68, 186, CELL, NEEDS_MEMCG, "msgget"}, {69, 189, CELL, 0, "msgsnd"}, {70, 188, CELL, 0, "msgrcv"},
	{71, 187, CELL, 0, "msgctl"}, {72, 25, CELL, NO_LEASE, "fcntl"}, {73, 32, CELL, 0, "flock"},
	{74, 82, CELL, 0, "fsync"}, {75, 83, CELL, 0, "fdatasync"}, {76, 45, CELL, 0, "truncate"},
	{77, 46, CELL, 0, "ftruncate"}, {78, -1, CELL, 0, "getdents"}, {79, 17, CELL, 0, "getcwd"},
	{80, 49, CELL, 0, "chdir"}, {81, 50, CELL, 0, "fchdir"}, {82, -1, CELL, 0, "rename"},
	{83, -1, CELL, 0, "mkdir"}, {84, -1, CELL, 0, "rmdir"}, {85, -1, CELL, 0, "creat"},
	{86, -1, CELL, 0, "link"}, {87, -1, CELL, 0, "unlink"}, {88, -1, CELL, 0, "symlink"},
	{89, -1, CELL, 0, "readlink"}, {90, -1, CELL, 0, "chmod"}, {91, 52, CELL, 0, "fchmod"},
	{92, -1, CELL, 0, "chown"}, {93, 55, CELL, 0, "fchown"}, {94, -1, CELL, 0, "lchown"},
	{95, 166, CELL, 0, "umask"}, {96, 169, CELL, 0, "gettimeofday"}, {97, 163, CELL, 0, "getrlimit"},
	{98, 165, CELL, 0, "getrusage"}, {99, 179, CELL, 0, "sysinfo"}, {100, 153, CELL, 0, "times"},
	{101, 117, NONE, 0, "ptrace"}, {102, 174, CELL, 0, "getuid"}, {103, 116, NONE, 0, "syslog"},
	{104, 176, CELL, 0, "getgid"}, {105, 146, CELL, 0, "setuid"}, {106, 144, CELL, 0, "setgid"},
	{107, 175, CELL, 0, "geteuid"}, {108, 177, CELL, 0, "getegid"}, {109, 154, CELL, 0, "setpgid"},
	{110, 173, CELL, 0, "getppid"}, {111, -1, CELL, 0, "getpgrp"}, {112, 157, CELL, 0, "setsid"},
	{113, 145, CELL, 0, "setreuid"}, {114, 143, CELL, 0, "setregid"}, {115, 158, CELL, 0, "getgroups"},
	{116, 159, CELL, 0, "setgroups"}, {117, 147, CELL, 0, "setresuid"}, {118, 148, CELL, 0, "getresuid"},
	{119, 149, CELL, 0, "setresgid"}, {120, 150, CELL, 0, "getresgid"}, {121, 155, CELL, 0, "getpgid"},
	{122, 151, CELL, 0, "setfsuid"}, {123, 152, CELL, 0, "setfsgid"}, {124, 156, CELL, 0, "getsid"},
	{125, 90, CELL, 0, "capget"}, {126, 91, CELL, 0, "capset"}, {127, 136, CELL, 0, "rt_sigpending"},
	{128, 137, CELL, 0, "rt_sigtimedwait"}, {129, 138, CELL, 0, "rt_sigqueueinfo"},
	{130, 133, CELL, 0, "rt_sigsuspend"}, {131, 132, CELL, 0, "sigaltstack"}, {132, -1, CELL, 0, "utime"},
	{133, -1, CELL, 0, "mknod"}, {134, -1, NONE, 0, "uselib"}, {135, 92, CELL, QUERY, "personality"},
	{136, -1, NONE, 0, "ustat"}, {137, 43, CELL, 0, "statfs"}, {138, 44, CELL, 0, "fstatfs"},
	{139, -1, NONE, 0, "sysfs"}, {140, 141, CELL, 0, "getpriority"}, {141, 140, CELL, PRIORITY, "setpriority"},
	{142, 118, CELL, NOT_PID1, "sched_setparam"}, {143, 121, CELL, 0, "sched_getparam"},
	{144, 119, CELL, NOT_PID1, "sched_setscheduler"}, {145, 120, CELL, 0, "sched_getscheduler"},
	{146, 125, CELL, 0, "sched_get_priority_max"}, {147, 126, CELL, 0, "sched_get_priority_min"},
	{148, 127, CELL, 0, "sched_rr_get_interval"}, {149, 228, CELL, 0, "mlock"},
	{150, 229, CELL, 0, "munlock"}, {151, 230, CELL, 0, "mlockall"}, {152, 231, CELL, 0, "munlockall"},
	{153, 58, NONE, 0, "vhangup"}, {154, -1, NONE, 0, "modify_ldt"}, {155, 41, BUILD, 0, "pivot_root"},
	{156, -1, NONE, 0, "_sysctl"}, {157, 167, CELL, 0, "prctl"}, {158, -1, CELL, 0, "arch_prctl"},
	{159, 171, NONE, 0, "adjtimex"}, {160, 164, CELL, 0, "setrlimit"}, {161, 51, BUILD, 0, "chroot"},
	{162, 81, NONE, 0, "sync"}, {163, 89, NONE, 0, "acct"}, {164, 170, NONE, 0, "settimeofday"},
	{165, 40, BUILD, 0, "mount"}, {166, 39, BUILD, 0, "umount2"}, {167, 224, NONE, 0, "swapon"},
	{168, 225, NONE, 0, "swapoff"}, {169, 142, NONE, 0, "reboot"}, {170, 161, BUILD, 0, "sethostname"},
	{171, 162, BUILD, 0, "setdomainname"}, {172, -1, NONE, 0, "iopl"}, {173, -1, NONE, 0, "ioperm"},
	{174, -1, NONE, 0, "create_module"}, {175, 105, NONE, 0, "init_module"},
	{176, 106, NONE, 0, "delete_module"}, {177, -1, NONE, 0, "get_kernel_syms"},
	{178, -1, NONE, 0, "query_module"}, {179, 60, NONE, 0, "quotactl"}, {180, 42, NONE, 0, "nfsservctl"},
	{181, -1, NONE, 0, "getpmsg"}, {182, -1, NONE, 0, "putpmsg"}, {183, -1, NONE, 0, "afs_syscall"},
	{184, -1, NONE, 0, "tuxcall"}, {185, -1, NONE, 0, "security"}, {186, 178, CELL, 0, "gettid"},
	{187, 213, CELL, 0, "readahead"}, {188, 5, CELL, 0, "setxattr"}, {189, 6, CELL, 0, "lsetxattr"},
	{190, 7, CELL, 0, "fsetxattr"}, {191, 8, CELL, 0, "getxattr"}, {192, 9, CELL, 0, "lgetxattr"},
	{193, 10, CELL, 0, "fgetxattr"}, {194, 11, CELL, 0, "listxattr"}, {195, 12, CELL, 0, "llistxattr"},
	{196, 13, CELL, 0, "flistxattr"}, {197, 14, CELL, 0, "removexattr"}, {198, 15, CELL, 0, "lremovexattr"},
	{199, 16, CELL, 0, "fremovexattr"}, {200, 130, CELL, 0, "tkill"}, {201, -1, CELL, 0, "time"},
	{202, 98, CELL, 0, "futex"}, {203, 122, CELL, NOT_PID1, "sched_setaffinity"},
	{204, 123, CELL, 0, "sched_getaffinity"}, {205, -1, NONE, 0, "set_thread_area"},
	{206, 0, NONE, 0, "io_setup"}, {207, 1, NONE, 0, "io_destroy"}, {208, 4, NONE, 0, "io_getevents"},
	{209, 2, NONE, 0, "io_submit"}, {210, 3, NONE, 0, "io_cancel"}, {211, -1, NONE, 0, "get_thread_area"},
	{212, 18, NONE, 0, "lookup_dcookie"}, {213, -1, CELL, 0, "epoll_create"},
	{214, -1, NONE, 0, "epoll_ctl_old"}, {215, -1, NONE, 0, "epoll_wait_old"},
	{216, 234, NONE, 0, "remap_file_pages"}, {217, 61, CELL, 0, "getdents64"},
	{218, 96, CELL, 0, "set_tid_address"}, {219, 128, ALL, 0, "restart_syscall"},
	{220, 192, CELL, 0, "semtimedop"}, {221, 223, CELL, 0, "fadvise64"}, {222, 107, CELL, 0, "timer_create"},
	{223, 110, CELL, 0, "timer_settime"}, {224, 108, CELL, 0, "timer_gettime"},
	{225, 109, CELL, 0, "timer_getoverrun"}, {226, 111, CELL, 0, "timer_delete"},
	{227, 112, NONE, 0, "clock_settime"}, {228, 113, ALL, 0, "clock_gettime"},
	{229, 114, CELL, 0, "clock_getres"}, {230, 115, CELL, 0, "clock_nanosleep"},
	{231, 94, ALL, 0, "exit_group"}, {232, -1, CELL, 0, "epoll_wait"}, {233, 21, CELL, 0, "epoll_ctl"},
	{234, 131, CELL, 0, "tgkill"}, {235, -1, CELL, 0, "utimes"}, {236, -1, NONE, 0, "vserver"},
	{237, 235, NONE, 0, "mbind"}, {238, 237, NONE, 0, "set_mempolicy"}, {239, 236, CELL, 0, "get_mempolicy"},
	{240, 180, NONE, 0, "mq_open"}, {241, 181, NONE, 0, "mq_unlink"}, {242, 182, NONE, 0, "mq_timedsend"},
	{243, 183, NONE, 0, "mq_timedreceive"}, {244, 184, NONE, 0, "mq_notify"},
	{245, 185, NONE, 0, "mq_getsetattr"}, {246, 104, NONE, 0, "kexec_load"}, {247, 95, CELL, 0, "waitid"},
	{248, 217, NONE, 0, "add_key"}, {249, 218, NONE, 0, "request_key"}, {250, 219, NONE, 0, "keyctl"},
	{251, 30, CELL, IO_PRIORITY, "ioprio_set"}, {252, 31, CELL, 0, "ioprio_get"}, {253, -1, CELL, 0, "inotify_init"},
	{254, 27, CELL, NOT_STRICT, "inotify_add_watch"}, {255, 28, CELL, 0, "inotify_rm_watch"},
	{256, 238, NONE, 0, "migrate_pages"}, {257, 56, CELL, 0, "openat"}, {258, 34, CELL, 0, "mkdirat"},
	{259, 33, CELL, 0, "mknodat"}, {260, 54, CELL, 0, "fchownat"}, {261, -1, CELL, 0, "futimesat"},
	{262, 79, CELL, 0, "newfstatat"}, {263, 35, CELL, 0, "unlinkat"}, {264, 38, CELL, 0, "renameat"},
	{265, 37, CELL, 0, "linkat"}, {266, 36, CELL, 0, "symlinkat"}, {267, 78, CELL, 0, "readlinkat"},
	{268, 53, CELL, 0, "fchmodat"}, {269, 48, CELL, 0, "faccessat"}, {270, 72, CELL, 0, "pselect6"},
	{271, 73, ALL, 0, "ppoll"}, {272, 97, BUILD, 0, "unshare"}, {273, 99, CELL, 0, "set_robust_list"},
	{274, 100, CELL, 0, "get_robust_list"}, {275, 76, CELL, 0, "splice"}, {276, 77, CELL, 0, "tee"},
	{277, 84, CELL, 0, "sync_file_range"}, {278, 75, NONE, 0, "vmsplice"}, {279, 239, NONE, 0, "move_pages"},
	{280, 88, CELL, 0, "utimensat"}, {281, 22, CELL, 0, "epoll_pwait"}, {282, -1, CELL, 0, "signalfd"},
	{283, 85, CELL, 0, "timerfd_create"}, {284, -1, CELL, 0, "eventfd"}, {285, 47, CELL, 0, "fallocate"},
	{286, 86, CELL, 0, "timerfd_settime"}, {287, 87, CELL, 0, "timerfd_gettime"},
	{288, 242, ARENA, 0, "accept4"}, {289, 74, CELL, 0, "signalfd4"}, {290, 19, CELL, 0, "eventfd2"},
	{291, 20, CELL, 0, "epoll_create1"}, {292, 24, CELL, 0, "dup3"}, {293, 59, CELL, 0, "pipe2"},
	{294, 26, CELL, 0, "inotify_init1"}, {295, 69, CELL, 0, "preadv"}, {296, 70, CELL, 0, "pwritev"},
	{297, 240, CELL, 0, "rt_tgsigqueueinfo"}, {298, 241, NONE, 0, "perf_event_open"},
	{299, 243, CELL, 0, "recvmmsg"}, {300, 262, NONE, 0, "fanotify_init"},
	{301, 263, NONE, 0, "fanotify_mark"}, {302, 261, CELL, NOT_PID1, "prlimit64"},
	{303, 264, NONE, 0, "name_to_handle_at"}, {304, 265, NONE, 0, "open_by_handle_at"},
	{305, 266, NONE, 0, "clock_adjtime"}, {306, 267, NONE, 0, "syncfs"}, {307, 269, CELL, 0, "sendmmsg"},
	{308, 268, BUILD, 0, "setns"}, {309, 168, CELL, 0, "getcpu"}, {310, 270, NONE, 0, "process_vm_readv"},
	{311, 271, NONE, 0, "process_vm_writev"}, {312, 272, NONE, 0, "kcmp"},
	{313, 273, NONE, 0, "finit_module"}, {314, 274, CELL, NOT_PID1, "sched_setattr"},
	{315, 275, CELL, 0, "sched_getattr"}, {316, 276, CELL, 0, "renameat2"}, {317, 277, CELL, 0, "seccomp"},
	{318, 278, ALL, 0, "getrandom"}, {319, 279, ALL, MEMFD, "memfd_create"},
	{320, 294, NONE, 0, "kexec_file_load"}, {321, 280, NONE, 0, "bpf"}, {322, 281, CELL, 0, "execveat"},
	{323, 282, NONE, 0, "userfaultfd"}, {324, 283, CELL, 0, "membarrier"}, {325, 284, CELL, 0, "mlock2"},
	{326, 285, CELL, 0, "copy_file_range"}, {327, 286, CELL, 0, "preadv2"}, {328, 287, CELL, 0, "pwritev2"},
	{329, 288, CELL, 0, "pkey_mprotect"}, {330, 289, CELL, 0, "pkey_alloc"},
	{331, 290, CELL, 0, "pkey_free"}, {332, 291, CELL, 0, "statx"}, {333, 292, NONE, 0, "io_pgetevents"},
	{334, 293, CELL, 0, "rseq"}, {424, 424, CELL, 0, "pidfd_send_signal"},
	{425, 425, NONE, 0, "io_uring_setup"}, {426, 426, NONE, 0, "io_uring_enter"},
	{427, 427, NONE, 0, "io_uring_register"}, {428, 428, NONE, 0, "open_tree"},
	{429, 429, NONE, 0, "move_mount"}, {430, 430, NONE, 0, "fsopen"}, {431, 431, NONE, 0, "fsconfig"},
	{432, 432, NONE, 0, "fsmount"}, {433, 433, NONE, 0, "fspick"}, {434, 434, CELL, 0, "pidfd_open"},
	{435, 435, NONE, ABSENT, "clone3"}, {436, 436, CELL, 0, "close_range"}, {437, 437, CELL, 0, "openat2"},
	{438, 438, NONE, 0, "pidfd_getfd"}, {439, 439, CELL, 0, "faccessat2"},
	{440, 440, NONE, 0, "process_madvise"}, {441, 441, CELL, 0, "epoll_pwait2"},
	{442, 442, BUILD, 0, "mount_setattr"}, {443, 443, NONE, 0, "quotactl_fd"},
	{444, 444, CELL, 0, "landlock_create_ruleset"}, {445, 445, CELL, 0, "landlock_add_rule"},
	{446, 446, CELL, 0, "landlock_restrict_self"}, {447, 447, NONE, 0, "memfd_secret"},
	{448, 448, NONE, 0, "process_mrelease"}, {449, 449, CELL, 0, "futex_waitv"},
	{450, 450, NONE, 0, "set_mempolicy_home_node"}, {451, 451, CELL, 0, "cachestat"},
	{452, 452, CELL, 0, "fchmodat2"}, {453, 453, CELL, 0, "map_shadow_stack"},
	{454, 454, CELL, 0, "futex_wake"}, {455, 455, CELL, 0, "futex_wait"},
	{456, 456, CELL, 0, "futex_requeue"}, {457, 457, NONE, 0, "statmount"}, {458, 458, NONE, 0, "listmount"},
	{459, 459, NONE, 0, "lsm_get_self_attr"}, {460, 460, NONE, 0, "lsm_set_self_attr"},
	{461, 461, NONE, 0, "lsm_list_modules"}, {462, 462, CELL, 0, "mseal"}, {463, 463, CELL, 0, "setxattrat"},
	{464, 464, CELL, 0, "getxattrat"}, {465, 465, CELL, 0, "listxattrat"},
	{466, 466, CELL, 0, "removexattrat"}, {467, 467, NONE, 0, "open_tree_attr"},
	{468, 468, CELL, 0, "file_getattr"}, {469, 469, NONE, 0, "file_setattr"},
};

const struct bpf_call *bpf_calls(size_t *n)
{
	*n = countof(calls);
	return calls;
}

const char *bpf_name(uint32_t arch, uint32_t nr)
{
	for (size_t i = 0; i < countof(calls); i++)
		if ((arch == SYS_ARCH_X86_64 ? calls[i].x86_64 : calls[i].aarch64) == (int)nr)
			return calls[i].name;
	return NULL;
}

/* the kernel's struct seccomp_data */
enum { OFF_NR = 0, OFF_ARCH = 4, OFF_ARGS = 16 };
/* BPF opcodes in use, bpf(4) of the BSDs: load word, jumps on a constant, return */
enum { LD = 0x20, JA = 0x05, JEQ = 0x15, JGE = 0x35, JSET = 0x45, RET = 0x06 };
enum { X32_BIT = 0x40000000, NUMBERS = 512, LEAF = 32 /* verdicts below are rules */ };
enum { V_ALLOW = LEAF, V_EPERM, V_ENOSYS, V_KILL, ARENA_ELSE = SYS_SANITIZED ? V_ALLOW : V_KILL };


struct prog {
	struct sys_bpf_insn *out;
	size_t n;
	bool full;
	uint16_t start[NUMBERS]; /* runs of numbers with one verdict: the first number of each */
	uint8_t verdict[NUMBERS];
	size_t runs;
	uint16_t rule_at[RULES];
	uint32_t action[V_KILL - LEAF + 1];
};

static size_t put(struct prog *p, uint16_t code, uint8_t jt, uint8_t jf, uint32_t k)
{
	if (p->n == BPF_MAX_INSNS) {
		p->full = true;
		return 0;
	}
	p->out[p->n] = (struct sys_bpf_insn){code, jt, jf, k};
	return p->n++;
}

static uint8_t judge(const struct bpf_ask *ask, const struct bpf_call *c)
{
	if (!(c->who & ask->role))
		return ask->role == BPF_ARENA ? ARENA_ELSE : c->rule == ABSENT ? V_ENOSYS : V_EPERM;
	if (ask->role != BPF_CELL || c->rule == 0)
		return V_ALLOW;
	if (c->rule == NEEDS_MEMCG)
		return ask->memcg ? V_ALLOW : V_EPERM;
	if (c->rule == MEMFD)
		return ask->memfd ? V_ALLOW : V_EPERM;
	if (c->rule == NOT_STRICT)
		return ask->strict ? V_EPERM : V_ALLOW;
	if (c->rule == NOT_ALL && !ask->shared_pids)
		return V_ALLOW;
	if (ask->shared_pids && (c->rule == NOT_PID1 || c->rule == UNIX_ONLY))
		return c->rule == NOT_PID1 ? OWN_ONLY : UNIX_STREAM;
	return c->rule;
}

/* The sorted runs over every number; what no row names is unknown. */
static void make_runs(struct prog *p, const struct bpf_ask *ask)
{
	uint8_t v[NUMBERS];
	memset(v, ask->role == BPF_ARENA ? ARENA_ELSE : V_ENOSYS, sizeof v);
	for (size_t i = 0; i < countof(calls); i++) {
		int nr = ask->arch == SYS_ARCH_X86_64 ? calls[i].x86_64 : calls[i].aarch64;
		if (nr >= 0 && nr < NUMBERS - 1) /* the last stands for all beyond */
			v[nr] = judge(ask, &calls[i]);
	}
	for (size_t nr = 0; nr < NUMBERS; nr++) {
		if (nr && v[nr] == v[nr - 1])
			continue;
		p->start[p->runs] = (uint16_t)nr;
		p->verdict[p->runs++] = v[nr];
	}
}

/* Runs lo to hi as a balanced tree: "number >= start of the upper half?" The lower half follows
 * at once, the upper one is jumped to. Depth is log2 of the runs, so recursion is bounded. */
static void put_tree(struct prog *p, size_t lo, size_t hi)
{
	if (lo == hi) {
		uint8_t v = p->verdict[lo];
		if (v >= LEAF)
			put(p, RET, 0, 0, p->action[v - LEAF]);
		else
			put(p, JA, 0, 0, v); /* the rule's place is not known yet */
		return;
	}
	size_t mid = (lo + hi + 1) / 2;
	size_t node = put(p, JGE, 0, 0, p->start[mid]);
	put_tree(p, lo, mid - 1);
	size_t skip = p->n - node - 1;
	if (skip > UINT8_MAX)
		p->full = true; /* a jump has 8 bits */
	p->out[node].jt = (uint8_t)skip;
	put_tree(p, mid, hi);
}

/* One rule: each test loads its argument and returns if it matches; then what is left. */
static void put_rule(struct prog *p, unsigned rule)
{
	bool allow = false;
	for (size_t i = 0; i < countof(arg_tests); i++) {
		const struct arg_test *t = &arg_tests[i];
		if (t->rule != rule)
			continue;
		if (p->rule_at[rule] == 0)
			p->rule_at[rule] = (uint16_t)p->n;
		allow = t->allow;
		put(p, LD, 0, 0, OFF_ARGS + 8u * t->arg); /* the low half: both CPUs are little-endian */
		put(p, t->mask ? JSET : JEQ, 0, 1, t->value);
		put(p, RET, 0, 0, p->action[allow ? 0 : V_EPERM - LEAF]);
	}
	if (p->rule_at[rule])
		put(p, RET, 0, 0, p->action[allow ? V_EPERM - LEAF : 0]);
}

size_t bpf_build(const struct bpf_ask *ask, struct sys_bpf_insn *out)
{
	struct prog p = {.out = out, .action = {SYS_RET_ALLOW, ask->notify ? SYS_RET_USER_NOTIF : SYS_RET_ERRNO | EPERM, SYS_RET_ERRNO | ENOSYS,
	                                        SYS_RET_KILL_PROCESS}};

	make_runs(&p, ask);
	put(&p, LD, 0, 0, OFF_ARCH);
	put(&p, JEQ, 1, 0, ask->arch);
	put(&p, RET, 0, 0, SYS_RET_KILL_PROCESS);
	put(&p, LD, 0, 0, OFF_NR);
	if (ask->arch == SYS_ARCH_X86_64) {
		/* x32 shares the architecture's number and sets bit 30 of the call's */
		put(&p, JGE, 0, 1, X32_BIT);
		put(&p, RET, 0, 0, SYS_RET_KILL_PROCESS);
	}
	size_t tree = p.n;
	put_tree(&p, 0, p.runs - 1);
	size_t end = p.n;
	for (unsigned rule = 1; rule < RULES; rule++)
		put_rule(&p, rule);
	for (size_t i = tree; i < end && !p.full; i++)
		if (out[i].code == JA)
			out[i].k = p.rule_at[out[i].k] - (uint32_t)i - 1;
	return p.full ? 0 : p.n;
}
