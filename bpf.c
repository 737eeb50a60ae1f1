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

#define CALL(x86_64, aarch64, who, rule, name) {x86_64, aarch64, who, rule},
static const struct bpf_call calls[] = {
#include "calls.h"
};
#undef CALL
#define CALL(x86_64, aarch64, who, rule, name) name "\0"
static const char call_names[] =
#include "calls.h"
;
#undef CALL

const struct bpf_call *bpf_calls(size_t *n)
{
	*n = countof(calls);
	return calls;
}

const char *bpf_call_name(const struct bpf_call *c)
{
	const char *name = call_names;
	for (; c > calls; c--)
		name += strlen(name) + 1;
	return name;
}

const char *bpf_name(uint32_t arch, uint32_t nr)
{
	for (size_t i = 0; i < countof(calls); i++)
		if ((arch == SYS_ARCH_X86_64 ? calls[i].x86_64 : calls[i].aarch64) == (int)nr)
			return bpf_call_name(&calls[i]);
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
