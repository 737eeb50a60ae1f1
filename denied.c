/* L2 net: why a command failed. Everything here was written by the command or by process 1 of its cell: it is
 * compared, counted and escaped, and decides nothing. */
#include "denied.h"

#include <string.h>

#include "bpf.h"
#include "json.h"

/* Calls by how their names begin, and what to say of them; the first that fits, and the last for all others. */
static const char calls[] =
	"socket connect bind listen accept\0" "there is no network in this jail\0"
	"ptrace process_vm\0" "programs can't be traced in this jail; run it without a debugger\0"
	"unshare setns clone\0" "there are no further namespaces in this jail; run the program without a sandbox of its own\0"
	"chroot pivot_root\0" "the root can't be changed in this jail\0"
	"mount\0" "nothing can be mounted in this jail; work in /tmp\0"
	"umount\0" "nothing can be unmounted in this jail\0"
	"io_\0" "asynchronous I/O of the kernel is shut in this jail; the program must use ordinary reads and writes\0"
	"memfd_create\0" "files in memory could be executed, so this profile has none; write to /tmp\0"
	"shmget\0" "memory that outlives its process can't be limited here; use files in /tmp\0"
	"inotify\0" "files can't be watched in this profile; look again instead\0"
	"ioctl\0" "nothing can be typed into a terminal from this jail\0"
	"personality\0" "the program can't change how the kernel runs it; run it without setarch\0"
	"set\0" "limits and priorities of others, and of the host, can't be changed in this jail\0"
	"sched_ prlimit\0" "limits and priorities of others can't be changed in this jail\0"
	"\0" "this call reaches beyond the jail and is refused";

/* Limits by what the kernel told, by the signal that it sends, or by the words of its error on stderr. */
static const struct { char call[7], limit[11], phrase[33]; uint8_t signal; const char *hint; } limits[] = {
	{"mmap", "memory", "MemoryError", 0, "the profile's memory is used up; work on less at a time, or ask for a larger profile"},
	{"mmap", "memory", "annot allocate memory", 0, "the profile's memory is used up; work on less at a time, or ask for a larger profile"},
	{"fork", "processes", "annot fork", 0, "the profile allows no more processes at once; run fewer in parallel"},
	{"fork", "processes", "Resource temporarily unavailable", 0, "the profile allows no more processes at once; run fewer in parallel"},
	{"fork", "processes", "can't start new thread", 0, "the profile allows no more processes at once; run fewer in parallel"},
	{"write", "file_size", "File too large", 25 /* SIGXFSZ */, "the profile allows no larger file; split it"},
	{"open", "open_files", "Too many open files", 0, "the profile allows no more open files at once; close some"},
	{"write", "tmp", "No space left on device", 0, "/tmp is full: it has half the profile's memory; remove files or write less"},
	{"execve", "cpu", "", 24 /* SIGXCPU */, "the profile's processor time is used up; do less in one command"},
	{"open", "read_only", "Read-only file system", 0, "only /tmp can be written in this jail"},
};

struct list { struct json_writer w; size_t n; };

static void add(struct list *l, const char *call, const char *key, struct str what, uint64_t count, const char *hint)
{
	const struct json_writer was = l->w;
	size_t begin = l->w.b->n;

	if (l->n++ >= DENIED_MAX)
		return;
	json_open(&l->w, true);
	json_put_string(&l->w, "call", str_of(call));
	if (key)
		json_put_string(&l->w, key, (struct str){what.p, what.n < 200 ? what.n : 200});
	json_put_number(&l->w, "count", (int64_t)count);
	json_put_string(&l->w, "hint", str_of(hint));
	json_close(&l->w);
	if (l->w.b->full) { /* whole entries only */
		l->w = was;
		l->w.b->n = begin;
		l->w.b->full = false;
	}
}

static const char *call_hint(const char *name)
{
	const char *row = calls;
	for (;;) {
		struct str begins = str_of(row), begin;
		const char *hint = row + begins.n + 1;
		if (begins.n == 0)
			return hint;
		while (str_word(&begins, &begin))
			if (strncmp(name, begin.p, begin.n) == 0)
				return hint;
		row = hint + strlen(hint) + 1;
	}
}

static void add_calls(struct list *l, const struct denied_ask *d)
{
	for (uint32_t i = 0; i < d->res->denied; i++) {
		const char *name = bpf_name(SYS_ARCH_HERE, d->res->call[i].nr);
		bool local = name && strcmp(name, "socket") == 0 && d->res->call[i].arg == 1; /* AF_UNIX */
		/* libc asks name services in passing ("ls -l"), and goes on without */
		if (!name || (local && d->exit_code == 0))
			continue;
		add(l, name, NULL, str_of(""), d->res->call[i].count, local ? "there are no sockets in this jail, not even local ones" : call_hint(name));
	}
}

static bool told(const struct denied_ask *d, const char *limit)
{
	if (!d->res)
		return false;
	return (strcmp(limit, "memory") == 0 && d->res->oom) || (strcmp(limit, "processes") == 0 && d->res->procs_full) ||
	       (strcmp(limit, "tmp") == 0 && d->res->tmp_full) ||
	       (strcmp(limit, "cpu") == 0 && d->exit_code == 128 + 9 && d->res->cpu_us >= conf_profile(d->profile)->cpu_sec * 1000000ull);
}

static void add_limits(struct list *l, const struct denied_ask *d)
{
	const char *last = ""; /* rows of one limit stand together */
	for (size_t i = 0; i < countof(limits); i++) {
		bool hit = told(d, limits[i].limit) || (limits[i].signal && d->exit_code == 128 + limits[i].signal) ||
		           (d->exit_code && limits[i].phrase[0] && str_find(d->err, limits[i].phrase));
		if (!hit || strcmp(last, limits[i].limit) == 0)
			continue;
		last = limits[i].limit;
		add(l, limits[i].call, "limit", str_of(last), 1, limits[i].hint);
	}
}

/* Cuts off the next run of characters that stand in no name. */
static bool next_token(struct str *rest, const char *between, struct str *token)
{
	while (rest->n && strchr(between, rest->p[0])) /* a NUL is between as well */
		rest->p++, rest->n--;
	*token = (struct str){rest->p, 0};
	for (; rest->n && !strchr(between, rest->p[0]); rest->p++, rest->n--)
		token->n++;
	return token->n > 0;
}

/* Paths among the command's words whose folders are not in the jail. */
static void add_files(struct list *l, const struct denied_ask *d)
{
	static const char inside[][17] = {
		"usr", "bin", "sbin", "lib", "lib64", "lib32", "libx32", "proc", "dev", "tmp", "etc/passwd", "etc/group",
		"etc/alternatives", "etc/ld.so.cache",
	};
	struct str rest = d->words, path, seen = str_of("");

	while (l->n < DENIED_MAX && next_token(&rest, " \t\n'\"=;|&<>(){}`$,:", &path)) {
		bool in = path.p[0] != '/' || path.n < 2 || path.p[1] == '/' || str_eq(path, "/etc") || str_eq(path, "/etc/");
		for (size_t i = 0; !in && i < countof(inside); i++) {
			size_t n = strlen(inside[i]);
			in = path.n > n && memcmp(path.p + 1, inside[i], n) == 0 && (path.n == n + 1 || path.p[n + 1] == '/');
		}
		if (in || (seen.n == path.n && memcmp(seen.p, path.p, path.n) == 0))
			continue;
		seen = path;
		add(l, "open", "path", path, 1, "this path is not in the jail, which has the system's programs and libraries and its own /tmp; bring files in with put_files");
	}
}

static bool is_in(const char *names, uint32_t n, struct str name)
{
	for (; n; n--, names += strlen(names) + 1)
		if (str_eq(name, names))
			return true;
	return false;
}

/* "NAME: not found" of dash, "NAME: command not found" of bash, "'NAME': No such file or directory" of env. */
static bool stands_before(const char *end, const char *phrase)
{
	static const char between[][11] = {": ", ": command ", "': "};
	for (size_t i = 0; i < countof(between); i++)
		if (end <= phrase && (size_t)(phrase - end) == strlen(between[i]) && memcmp(end, between[i], strlen(between[i])) == 0)
			return true;
	return false;
}

/* Programs that shells and others say they could not start. */
static void add_programs(struct list *l, const struct denied_ask *d)
{
	static const char phrases[][26] = {"not found", "Permission denied", "No such file or directory"};
	const char *allowed = d->names;
	struct str rest = d->err, line, token, last = str_of("");

	for (uint32_t i = 0; i < d->forbidden; i++)
		allowed += strlen(allowed) + 1;
	while (l->n < DENIED_MAX && d->profile != CONF_PERMISSIVE && str_cut(&rest, '\n', &line)) {
		const char *phrase = NULL;
		for (size_t i = 0; !phrase && i < countof(phrases); i++)
			phrase = str_find(line, phrases[i]);
		while (phrase && next_token(&line, " \t:'\"`[]()/", &token)) {
			bool black = is_in(d->names, d->forbidden, token);
			bool unknown = d->profile == CONF_STRICT && (d->exit_code == 126 || d->exit_code == 127) &&
			               stands_before(token.p + token.n, phrase) && !is_in(allowed, d->allowed, token);
			if ((!black && !unknown) || (last.n == token.n && memcmp(last.p, token.p, token.n) == 0))
				continue;
			last = token;
			add(l, "execve", "program", token, 1, black ? "this program is on the blacklist; do it with another one, or ask for the rule to be removed"
			                                            : "this profile has the whitelist's programs and no others; GET /api/policy lists them");
		}
	}
}

void denied_write(const struct denied_ask *d, struct buf *out)
{
	struct buf room = {out->p, 0, out->cap - 1, false}; /* and one byte for the end */
	struct list l = {.w = {.b = &room}};

	json_open(&l.w, false);
	if (d->res)
		add_calls(&l, d);
	add_limits(&l, d);
	if (d->exit_code) {
		add_programs(&l, d);
		add_files(&l, d);
	}
	out->n = room.n;
	l.w.b = out;
	json_close(&l.w);
}
