/* Random command lines from a grammar, then bent: the programs that dash really starts must be among those
 * that the parser named, unless it called the line undecidable.  differ [LINES [SEED [SHELL]]]
 *
 * The programs are one static program under many names, this one: it writes the name of the file that the
 * kernel executed (AT_EXECFN) into a pipe. The wrappers are the system's own. Lines run as nobody, in an
 * empty folder, with few processes and little time. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policy.h"

static const char *const programs[] = {"p1", "p2", "p3", "p4", "wget"};
static const char *const wrappers[] = {"env", "xargs", "nice", "nohup", "timeout", "setsid", "stdbuf", "find", "sort", "dash", "sh", "bash"};
static uint64_t state;

static unsigned pick(unsigned n)
{
	state ^= state << 13, state ^= state >> 7, state ^= state << 17; /* xorshift64 */
	return (unsigned)(state >> 33) % n;
}

static char line[8192];
static size_t len;

static void add(const char *s)
{
	size_t n = strlen(s);
	if (len + n < sizeof line - 1)
		memcpy(line + len, s, n + 1), len += n;
}

static const char *one_of(const char *const *list, size_t n)
{
	return list[pick((unsigned)n)];
}
#define PICK(...) one_of((const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void list(int depth);

static void name(int depth)
{
	const char *p = one_of(programs, countof(programs));
	char text[64];
	switch (pick(44)) {
	case 0: snprintf(text, sizeof text, "%c'%s'", p[0], p + 1); add(text); break;
	case 1: snprintf(text, sizeof text, "\"%s\"", p); add(text); break;
	case 2: snprintf(text, sizeof text, "\\%s", p); add(text); break;
	case 3: snprintf(text, sizeof text, "%c\\\n%s", p[0], p + 1); add(text); break;
	case 4: add(PICK("$X", "${X}", "\"$X\"", "$N", "$N p1", "${N:-p2}", "${N}p3")); break;
	case 5: add("$(echo "); add(p); add(")"); break;
	case 6: snprintf(text, sizeof text, "`echo %s`", p); add(text); break;
	case 7: snprintf(text, sizeof text, "%c''%s\"\"", p[0], p + 1); add(text); break;
	case 8: add(PICK("f", "g", "f")); break;
	case 9: add(PICK("$'p1'", "$\"p1\"", "{p1,p2}", "p?", "p[12]", "~/p1", "./p1", "bin/p2", "p1#")); break;
	case 10: add(PICK("command ", "eval ", "exec ", "env ", "nice ", "xargs ", "nohup ", "timeout 1 ", "command -p ", "env -i ", "env A=1 ", "env -u A ", "nice -n 1 ", "xargs -n 1 ", "xargs -I{} ", "setsid ", "time ", "stdbuf -o0 ", "env -S ", "command -- ")); name(depth); break;
	case 11: add(PICK(":", "true", "false", "echo", "cd", "test", "[ a ]", "read v", "set -- a", "shift", "trap p1 EXIT", "trap 'p2; p3' 0", "eval 'p1; p4'", "unset -f f", "export A=p1", ". ./s", "alias p1=p2", "return", "[[ a || p1 ]]", "[[ -f x && p2 == y ]]")); break;
	case 12: add(PICK("sh -c ", "dash -c ", "bash -c ", "sh -ec ", "sh -c -- ")); add(PICK("'p1; p2'", "\"p3 $X\"", "p4", "'f() { p1; }; f'", "\"$X\"", "'sh -c \"p2\"'")); break;
	case 13: add(PICK("find . -exec p1 {} \\;", "find . -exec sh -c 'p2 {}' \\;", "find . -name x -o -exec p3 {} +", "find . $X", "sort --compress-program=p1 s", "find . -ok p4 \\;")); break;
	default: add(p);
	}
}

static void word(int depth)
{
	switch (pick(40)) {
	case 0: add("'a;p1'"); break;
	case 1: add("\"b $("); list(depth + 1); add(")\""); break;
	case 2: add("$("); list(depth + 1); add(")"); break;
	case 3: if (depth < 2) { add("`"); name(9); add(" x`"); } break;
	case 4: add(PICK("$((1+2))", "$(( $(p1) + 1 ))", "$((`p2`))", "$(( (1) ))", "$((p1) | p2)", "$( (p3) )")); break;
	case 5: add(PICK("${Y:-$(p1)}", "\"${Y:-`p2`}\"", "${Y:+'$(p3)'}", "${X#p}", "${#X}", "${X:-\"$(p4)\"}", "\"${Y:-'$(p1)'}\"", "${Y:-}p1}", "\"${Y:-\"$(p2)\"}\"")); break;
	case 6: add(PICK("#", "a#b", "\\#", "'#'", "$#")); break;
	case 7: add(PICK("\\;", "\\&", "\\|", "\\\n", "\\\\", "\\'", "\\\"", "\"\\\"\"", "\"\\`\"", "'\\'")); break;
	case 8: add(PICK("x=1", "{", "}", "if", "done", "esac", "!", "in", "then", "-c", "--", "-exec")); break;
	case 9: add(PICK("*", "?", "[a]", "~", "{a,b}", "{1..3}", "$@", "$*", "\"$@\"")); break;
	case 10: add(PICK("$'a'", "$'it\\'s'", "$\"x\"", "$", "\"$\"", "$[1]", "$%", "\"a\nb\"", "'a\nb'")); break;
	default: add(PICK("a", "b", "-x", "\"c d\"", "'e f'", "1", "p1", "/tmp"));
	}
}

static void redirect(int depth)
{
	char text[128];
	switch (pick(9)) {
	case 0: add(" <s"); break;
	case 1: add(" 2>&1"); break;
	case 2: add(" >o"); word(depth + 1); break;
	case 3: add(PICK(" >>o", " 2>/dev/null", " <>o", " >|o", " >&2", " 3<s", " <&-")); break;
	case 4:
	case 5:
		if (depth < 2) {
			snprintf(text, sizeof text, " <<%s%s\n%s\n%s\n%s", PICK("", "-"), PICK("E", "'E'", "\\E", "\"E\""), PICK("x $(p1) y", "`p2`", "$X\\", "'$(p3)'", "\tE\\\nE", "$(p4\n)", "\"", "\\$(p1)"), PICK("E", "\tE", "E ", "F\nE"), PICK("", "p1\n", ""));
			add(text);
		}
		break;
	case 6: add(PICK(" &>o", " |& p1", " <<<x", " >&o", " 1>o")); break;
	default: add(" >o");
	}
}

static void simple(int depth)
{
	if (pick(8) == 0)
		add(PICK("A=1 ", "A=$(p1) ", "A='p2' B=`p3` ", "X=p4; ", "PS4='$(p1)' ", "A[0]=1 ", "A=~ "));
	if (pick(12) == 0)
		redirect(depth), add(" ");
	name(depth);
	for (unsigned n = pick(3); n; n--)
		add(" "), word(depth);
	if (pick(6) == 0)
		redirect(depth);
}

static void command(int depth)
{
	switch (depth > 3 ? 99 : pick(26)) {
	case 0: add("( "); list(depth + 1); add(" )"); break;
	case 1: add("{ "); list(depth + 1); add("; }"); break;
	case 2: add("if "); list(depth + 1); add("; then "); list(depth + 1); add(PICK("; fi", "; else p1; fi", "\nelif p2\nthen p3\nfi")); break;
	case 3: add(PICK("while ", "until ")); list(depth + 1); add("; do "); list(depth + 1); add("; break; done"); break;
	case 4: add(PICK("for i in a $(p1) b; do ", "for i; do ", "for p1 in x\ndo ", "for i in ; do ")); list(depth + 1); add("; done"); break;
	case 5: add(PICK("case a in a) ", "case $X in (p*|a) ", "case `p1` in b) p2;; *) ", "case a in\n# c\na) ")); list(depth + 1); add(PICK(" ;; esac", " ; esac", "\nesac", ";; b) p3 ;; esac")); break;
	case 6: add(PICK("f() { ", "g () { ", "f()\n{ ", "p1() { ")); list(depth + 1); add("; }"); break;
	case 7: add(PICK("f() ", "g() ")); simple(depth); break;
	case 8: add("! "); command(depth + 1); break;
	case 9: add(PICK("(( 1 ))", "((p1))", "[[ a && p2 ]]", "time { p1; }", "function f { p2; }", "function f\n{ p3; }", "coproc p4", "select i in a; do p1; done")); break;
	default: simple(depth);
	}
	if (pick(10) == 0)
		redirect(depth);
}

static void list(int depth)
{
	command(depth);
	for (unsigned n = pick(depth ? 2 : 4); n; n--) {
		add(PICK("; ", " && ", " || ", " | ", " & ", "\n", "|", ";", "&&\n", " # c\n", "&", " |\n"));
		command(depth);
	}
}

static void bend(void)
{
	static const char some[] = "'\"\\$(){}[]<>;&|#\n =*?~-!`1apf,:";
	for (unsigned n = 1 + pick(3); n && len > 1 && len < sizeof line - 2; n--) {
		size_t at = pick((unsigned)len);
		char c = some[pick(sizeof some - 1)];
		switch (pick(3)) {
		case 0: line[at] = c; break;
		case 1: memmove(line + at, line + at + 1, len - at); len--; break;
		default: memmove(line + at + 1, line + at, len - at + 1); line[at] = c; len++;
		}
	}
	line[len] = '\0';
}

static char dir[] = "/tmp/differ-XXXXXX";

static void make_programs(const char *self)
{
	char path[256], real[4096];
	if (!mkdtemp(dir) || chmod(dir, 0755) < 0)
		exit(2);
	snprintf(path, sizeof path, "mkdir %s/bin %s/w && cp %s %s/bin/p1 && chmod 755 %s/bin/p1 && chmod 777 %s/w", dir, dir, self, dir, dir, dir);
	if (system(path) != 0 || chdir(dir) < 0)
		exit(2);
	for (size_t i = 1; i < countof(programs); i++) {
		snprintf(path, sizeof path, "bin/%s", programs[i]);
		if (link("bin/p1", path) < 0)
			exit(2);
	}
	for (size_t i = 0; i < countof(wrappers); i++) {
		snprintf(path, sizeof path, "/usr/bin/%s", wrappers[i]);
		if (!realpath(path, real))
			continue;
		snprintf(path, sizeof path, "bin/%s", wrappers[i]);
		if (symlink(real, path) < 0)
			exit(2);
	}
}

/* Runs the line; the names that were started, each ended by a newline. */
static size_t run_line(const char *shell, char *out, size_t cap)
{
	int p[2];
	size_t n = 0;
	ssize_t got = -1;
	if (pipe2(p, O_NONBLOCK) < 0)
		exit(2);
	/* as root in a pid namespace, whose end is the end of everything in it */
	pid_t pid = geteuid() == 0 ? (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL) : fork();
	if (pid == 0) {
		(void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
		(void)setsid();
		if (fork()) { /* what goes on in the background has its time, too */
			close(p[1]);
			while (wait(NULL) > 0 || errno == EINTR)
				;
			_exit(0);
		}
		struct rlimit nproc = {48, 48}, file = {65536, 65536}, cpu = {1, 1}, core = {0, 0}, space = {256 << 20, 256 << 20};
		int null = open("/dev/null", O_RDWR);
		if (chdir("w") < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 || dup2(p[1], 100) < 0 || setrlimit(RLIMIT_FSIZE, &file) < 0 ||
		    setrlimit(RLIMIT_CPU, &cpu) < 0 || setrlimit(RLIMIT_CORE, &core) < 0 || setrlimit(RLIMIT_AS, &space) < 0 || setrlimit(RLIMIT_NPROC, &nproc) < 0 ||
		    (getuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0)))
			_exit(99);
		char path[300], home[300];
		snprintf(path, sizeof path, "PATH=%s/bin", dir);
		snprintf(home, sizeof home, "HOME=%s/bin", dir);
		char *env[] = {path, home, "X=p2", "N=", NULL}, *argv[] = {"sh", "-c", line, NULL};
		execve(shell, argv, env);
		_exit(98);
	}
	close(p[1]);
	for (int waits = 0; waits < 40; waits++) {
		struct pollfd f = {p[0], POLLIN, 0};
		(void)poll(&f, 1, 25);
		while (n < cap && (got = read(p[0], out + n, cap - n)) > 0)
			n += (size_t)got;
		if (n == cap || (f.revents & POLLHUP && !(f.revents & POLLIN)) || got == 0)
			break;
	}
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	while (n < cap && (got = read(p[0], out + n, cap - n)) > 0)
		n += (size_t)got;
	close(p[0]);
	return n;
}

int main(int argc, char **argv)
{
	static struct policy policy;
	static struct verdict v;
	static char started[65536];
	const char *self = (const char *)getauxval(AT_EXECFN), *base = strrchr(self, '/') ? strrchr(self, '/') + 1 : self;
	char why[256];
	unsigned long lines = argc > 1 ? strtoul(argv[1], NULL, 10) : 2000, undecided = 0, missed = 0, ran = 0, errors = 0;

	if (strncmp(base, "differ", 6) != 0) { /* one of the programs */
		char text[80];
		int n = snprintf(text, sizeof text, "%.70s\n", base);
		(void)!write(100, text, (size_t)n);
		return 0;
	}
	state = argc > 2 ? strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15u + 1 : 88172645463325252u;
	const char *shell = argc > 3 ? argv[3] : "/usr/bin/dash";
	if (access(shell, X_OK) < 0) {
		printf("SKIP  the differential test: %s is not there\ndiffer: 0 passed, 0 failed, 1 skipped\n", shell);
		return 0;
	}
	make_programs(realpath("/proc/self/exe", NULL));
	if (!policy_load(&policy, (struct str){"", 0}, "", why, sizeof why))
		return 2;
	for (unsigned long i = 0; i < lines; i++) {
		len = 0;
		line[0] = '\0';
		list(0);
		if (pick(4) == 0)
			bend();
		char copy[sizeof line];
		memcpy(copy, line, len + 1);
		struct policy_ask ask = {.text = {copy, len}, .profile = CONF_STRICT};
		if (len == 0)
			continue;
		policy_judge(&policy, &ask, &v);
		undecided += v.undecided;
		errors += v.code == POLICY_SYNTAX;
		if (v.undecided)
			continue;
		size_t n = run_line(shell, started, sizeof started - 1);
		started[n] = '\0';
		ran += n > 0;
		char *save = NULL;
		for (char *s = strtok_r(started, "\n", &save); s; s = strtok_r(NULL, "\n", &save)) {
			bool named = false;
			for (size_t k = 0; k < v.names; k++)
				named = named || str_eq(v.name[k], s);
			if (!named && missed++ < 10)
				printf("FAIL  %s was started and not named in: %s\n--\n", s, line);
			if (!named)
				break;
		}
	}
	char clean[64];
	snprintf(clean, sizeof clean, "rm -rf %s", dir);
	(void)!system(clean);
	printf("differ: %lu lines, %lu undecidable (%lu of them for their syntax), %lu started something, %lu missed\n", lines, undecided, errors, ran, missed);
	if (ran * 10 < lines)
		printf("FAIL  too few lines start anything\n"), missed++;
	printf("differ: %lu passed, %lu failed\n", lines - missed, missed);
	return missed > 0;
}
