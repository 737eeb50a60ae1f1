/* L1 pure: which system calls each kind of process may make, as seccomp-bpf programs. */
#ifndef BPF_H
#define BPF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sys.h"

/* One bit for each kind of process. */
enum bpf_role { BPF_ARENA = 1, BPF_WARDEN = 2, BPF_CELL = 4 };

/* One row of the table in calls.h, packed into 4 bytes. */
struct bpf_call { signed x86_64 : 11, aarch64 : 11; unsigned who : 3, rule : 5; };

struct bpf_ask {
	uint32_t arch;      /* SYS_ARCH_* */
	enum bpf_role role; /* the filter's wearer */
	bool memcg;         /* cell: a cgroup holds its memory, so System V objects may exist */
	bool memfd;         /* cell: memfd_create is allowed; it can execute what a noexec /tmp can't */
	bool strict;        /* cell: no inotify, which shows who uses the host's programs */
	bool notify;        /* cell and warden: who listens is told what gets EPERM. A filter without a listener that says so, the
	                     * warden's, gives ENOSYS, and leaves the answer to a younger one that has one: an errno of its own
	                     * would win over that (seccomp(2), "user space notification") */
	bool shared_pids;   /* cell: no pid namespace of its own, so kill(-1) would hit the host */
};

enum { BPF_MAX_INSNS = 512 };

/* Writes the program to out, which holds BPF_MAX_INSNS: its length, or 0 if it did not fit.
 * arena is killed for what it may not do. A cell, and the warden whose filter every cell inherits,
 * get EPERM for what is forbidden and ENOSYS for what is unknown or can be done without. A call of
 * a foreign architecture or of x32 kills. */
size_t bpf_build(const struct bpf_ask *ask, struct sys_bpf_insn *out);
/* The whole table, for the tests. */
const struct bpf_call *bpf_calls(size_t *n);
const char *bpf_call_name(const struct bpf_call *c);
/* A call's name, or NULL. */
const char *bpf_name(uint32_t arch, uint32_t nr);
#endif
