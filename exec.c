/* L5 net: a request for a command becomes a job, and the job's end becomes a reply. */
#include "exec.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util.h"

enum { CMD_MAX = EXEC_CMD_MAX, CWD_MAX = 4096, FILE_NAME = 1024 };

static const struct json_field fields[FIELDS] = {
	[F_CMD] = {"cmd", JSON_STRING, "'cmd' must be a string"},
	[F_ARGV] = {"argv", JSON_ARRAY, "'argv' must be an array of strings"},
	[F_PROFILE] = {"profile", JSON_END, ""},
	[F_STDIN] = {"stdin", JSON_STRING, "'stdin' must be a string"},
	[F_ENV] = {"env", JSON_OBJECT, "'env' must be an object of strings"},
	[F_CWD] = {"cwd", JSON_STRING, "'cwd' must be a string"},
	[F_TIMEOUT] = {"timeout_ms", JSON_NUMBER, "'timeout_ms' must be a whole number of milliseconds, at least 1"},
	[F_ENCODING] = {"encoding", JSON_STRING, "'encoding' must be 'utf8' or 'base64'"},
	[F_ALLOW] = {"allow", JSON_ARRAY, "'allow' must be an array of programs' names, without folders"},
	[F_PUT_FILES] = {"put_files", JSON_OBJECT, "'put_files' must be an object of names below /tmp and contents in base64"},
	[F_GET_FILES] = {"get_files", JSON_END, "'get_files' must be true, or an array of names below /tmp"},
	[F_MODEL] = {"model", JSON_STRING, "'model' must be a string of at most 64 printable characters"},
	[F_TOKENS_IN] = {"tokens_in", JSON_NUMBER, "'tokens_in' must be a whole number, at least 0"},
	[F_TOKENS_OUT] = {"tokens_out", JSON_NUMBER, "'tokens_out' must be a whole number, at least 0"},
};

const char *exec_read(struct exec *x, struct str object)
{
	struct json_token *f = x->field;
	const char *why;

	*x = (struct exec){.tokens = {-1, -1}};
	if ((why = json_fields(object, fields, FIELDS, f)))
		return why;
	for (int i = 0; i < 2; i++)
		if (f[F_TOKENS_IN + i].kind != JSON_END && (!json_int(f[F_TOKENS_IN + i].text, &x->tokens[i]) || x->tokens[i] < 0))
			return fields[F_TOKENS_IN + i].needs;
	if (f[F_MODEL].kind != JSON_END)
		x->model = json_unescape(f[F_MODEL].text);
	return NULL;
}

static bool has_nul(struct str s)
{
	return s.n && memchr(s.p, '\0', s.n);
}

static const char *put_word(struct job *j, struct str s)
{
	if (has_nul(s))
		return "a NUL character can't be passed to a program";
	buf_put(&j->text, s.p, s.n);
	buf_put(&j->text, "", 1);
	return NULL;
}

static const char *put_argv(struct job *j, struct exec *x)
{
	const struct json_token *cmd = &x->field[F_CMD], *argv = &x->field[F_ARGV];
	struct json_reader r;
	struct json_token t;
	const char *why = NULL;

	if ((cmd->kind == JSON_END) == (argv->kind == JSON_END))
		return "exactly one of 'cmd' and 'argv' is needed";
	if (cmd->kind != JSON_END) {
		struct str s = json_unescape(cmd->text);
		if (s.n == 0 || s.n > CMD_MAX)
			return s.n ? "'cmd' is longer than 64 KiB" : "'cmd' is empty";
		j->head.argc = 3;
		j->shell = true;
		if (has_nul(s))
			x->unfit = s;
		(void)put_word(j, str_of("/bin/sh")); /* no NUL in these */
		(void)put_word(j, str_of("-c"));
		return put_word(j, s);
	}
	for ((void)json_enter(&r, argv->text); !why && json_next(&r, &t) != JSON_CLOSE; j->head.argc++) {
		if (t.kind != JSON_STRING || j->head.argc == MSG_WORDS_MAX)
			return fields[F_ARGV].needs;
		struct str s = json_unescape(t.text);
		if (j->head.argc == 0 && s.n == 0)
			return "the program's name in 'argv' is empty";
		why = put_word(j, s);
	}
	return why ? why : j->head.argc ? NULL : "'argv' is empty";
}

static const char *put_env(struct job *j, const struct exec *x)
{
	struct json_reader r;
	struct json_token t;

	if (x->field[F_ENV].kind == JSON_END)
		return NULL;
	for ((void)json_enter(&r, x->field[F_ENV].text); json_next(&r, &t) != JSON_CLOSE; j->head.envc++) {
		struct str name = json_unescape(t.key), value = json_unescape(t.text);
		if (t.kind != JSON_STRING || j->head.argc + j->head.envc >= MSG_WORDS_MAX)
			return fields[F_ENV].needs;
		if (name.n == 0 || memchr(name.p, '=', name.n))
			return "a name in 'env' is empty or has a '='";
		if (has_nul(name) || has_nul(value))
			return "a NUL character can't be passed to a program";
		buf_put(&j->text, name.p, name.n);
		buf_put(&j->text, "=", 1);
		(void)put_word(j, value); /* checked */
	}
	return NULL;
}

/* The only programs that may run. */
static const char *put_allow(struct job *j, const struct exec *x)
{
	struct json_reader r;
	struct json_token t;

	j->head.restricted = x->field[F_ALLOW].kind != JSON_END;
	if (!j->head.restricted)
		return NULL;
	for ((void)json_enter(&r, x->field[F_ALLOW].text); json_next(&r, &t) != JSON_CLOSE; j->head.allowc++) {
		struct str name = json_unescape(t.text);
		if (t.kind != JSON_STRING || j->head.allowc == POLICY_NAMES || name.n == 0 || name.n > MSG_NAME_MAX ||
		    memchr(name.p, '/', name.n) || str_eq(name, ".") || str_eq(name, ".."))
			return fields[F_ALLOW].needs;
		if (put_word(j, name))
			return fields[F_ALLOW].needs;
	}
	return NULL;
}

static const char *put_contents(int fd, struct str name, struct str data)
{
	const struct msg_put h = {(uint32_t)name.n + 1, (uint32_t)data.n};
	if (write(fd, &h, sizeof h) != sizeof h || write(fd, name.p, name.n) != (ssize_t)name.n || write(fd, "", 1) != 1 ||
	    write(fd, data.p, data.n) != (ssize_t)data.n)
		return "there is no memory for the files";
	return NULL;
}

/* A path below /tmp that leads nowhere else. */
static bool is_below(struct str name)
{
	struct str rest = name, part;
	if (name.n == 0 || name.n > FILE_NAME || has_nul(name) || name.p[0] == '/' || name.p[name.n - 1] == '/')
		return false;
	while (str_cut(&rest, '/', &part))
		if (part.n == 0 || part.n > 255 || str_eq(part, ".") || str_eq(part, ".."))
			return false;
	return true;
}

/* The files that the command is to find: decoded in the request's own memory, then into a file in memory, which
 * the cell reads. */
static const char *put_put_files(struct job *j, const struct exec *x)
{
	struct json_reader r;
	struct json_token t;
	const char *why = NULL;

	if (x->field[F_PUT_FILES].kind == JSON_END)
		return NULL;
	if ((j->put_fd = memfd_create("put_files", MFD_CLOEXEC)) < 0)
		return "there is no memory for the files";
	for ((void)json_enter(&r, x->field[F_PUT_FILES].text); !why && json_next(&r, &t) != JSON_CLOSE; j->head.puts++) {
		struct str name = json_unescape(t.key);
		if (t.kind != JSON_STRING || !is_below(name) || j->head.puts == MSG_FILES_MAX)
			return fields[F_PUT_FILES].needs;
		struct str text = json_unescape(t.text);
		long n = base64_decode(text, (char *)text.p);
		why = n < 0 ? fields[F_PUT_FILES].needs : put_contents(j->put_fd, name, (struct str){text.p, (size_t)n});
	}
	return why;
}

static bool is_wanted(const struct job *j, struct str name)
{
	const char *at = j->want.p;
	for (uint32_t i = 0; i < j->wants; i++, at += strlen(at) + 1)
		if (str_eq(name, at))
			return true;
	return false;
}

static const char *put_get_files(struct job *j, const struct exec *x)
{
	const struct json_token *f = &x->field[F_GET_FILES];
	struct json_reader r;
	struct json_token t;

	j->want_all = f->kind == JSON_BOOL && f->truth;
	if (f->kind == JSON_END || f->kind == JSON_BOOL)
		return NULL;
	if (f->kind != JSON_ARRAY)
		return fields[F_GET_FILES].needs;
	for ((void)json_enter(&r, f->text); json_next(&r, &t) != JSON_CLOSE; j->wants++) {
		struct str name = t.kind == JSON_STRING ? json_unescape(t.text) : str_of("");
		if (!is_below(name) || j->wants == MSG_FILES_MAX)
			return fields[F_GET_FILES].needs;
		if (is_wanted(j, name))
			return "a name stands twice in 'get_files'";
		buf_put(&j->want, name.p, name.n);
		buf_put(&j->want, "", 1);
	}
	return j->want.full ? "the names in 'get_files' are too long" : NULL;
}

const char *exec_fill(struct exec *x, struct job *j, uint32_t most_ms)
{
	const struct json_token *f = x->field;
	struct str cwd = f[F_CWD].kind == JSON_END ? str_of("") : json_unescape(f[F_CWD].text);
	const char *why;
	int64_t ms = most_ms;

	if (cwd.n > CWD_MAX)
		return "'cwd' is too long";
	if (f[F_CWD].kind != JSON_END && cwd.n == 0)
		return "'cwd' is empty";
	if (f[F_TIMEOUT].kind != JSON_END && (!json_int(f[F_TIMEOUT].text, &ms) || ms < 1))
		return fields[F_TIMEOUT].needs;
	j->timeout_ms = ms < most_ms ? (uint32_t)ms : most_ms;
	if (f[F_ENCODING].kind != JSON_END) {
		j->base64 = json_is(f[F_ENCODING].text, "base64");
		if (!j->base64 && !json_is(f[F_ENCODING].text, "utf8"))
			return fields[F_ENCODING].needs;
	}
	if ((why = put_word(j, cwd)) || (why = put_argv(j, x)) || (why = put_env(j, x)) || (why = put_allow(j, x)) ||
	    (why = put_get_files(j, x)) || (why = put_put_files(j, x)))
		return why;
	if (f[F_STDIN].kind != JSON_END)
		j->stdin_data = json_unescape(f[F_STDIN].text);
	return NULL;
}

/* The next n of the strings in a job's text, as slices. */
static struct str *slices(const char **text, uint32_t n, struct str *out)
{
	for (uint32_t i = 0; i < n; i++, *text += out[i - 1].n + 1)
		out[i] = str_of(*text);
	return out;
}

/* Judges what the job is going to run. */
void exec_judge(const struct policy *p, const struct job *j, struct verdict *v)
{
	static struct str argv[MSG_WORDS_MAX], env[MSG_WORDS_MAX], allow[POLICY_NAMES];
	const char *text = j->text.p + strlen(j->text.p) + 1; /* behind the folder */
	struct policy_ask ask = {.profile = j->profile, .restricted = j->head.restricted, .allows = j->head.allowc};

	(void)slices(&text, j->head.argc, argv);
	(void)slices(&text, j->head.envc, env);
	ask.allow = slices(&text, j->head.allowc, allow);
	if (j->shell)
		ask.text = argv[2];
	else
		ask.argv = argv, ask.argc = j->head.argc;
	policy_judge(p, &ask, v);
	for (size_t i = 0; i < j->head.envc && v->code == POLICY_OK && (j->profile == CONF_STRICT || j->head.restricted); i++) {
		struct str rest = env[i], name;
		if (str_cut(&rest, '=', &name) && policy_is_run_by_shells(name)) {
			v->code = POLICY_NOT_WHITELISTED;
			v->why = "a shell runs what this variable of 'env' holds";
		}
	}
}

static const char *signal_name(int sig, char out[8])
{
	/* the numbers that x86_64 and aarch64 share, signal(7) */
	static const char names[][8] = {
		"", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
		"TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
		"WINCH", "IO", "PWR", "SYS",
	};
	struct buf b = {out, 0, 8, false};
	buf_str(&b, "SIG");
	if (sig > 0 && (size_t)sig < countof(names) && strlen(names[sig]) < 5)
		buf_str(&b, names[sig]);
	else
		buf_uint(&b, (uint64_t)sig);
	out[b.n] = '\0';
	return out;
}

static void put_files(struct json_writer *w, const struct job *j)
{
	static struct str names[MSG_FILES_MAX];
	size_t n = 0, at = 0;

	for (; j->has_result && n < j->res.files; at += names[n++].n + 1)
		names[n] = str_of(j->files.p + at);
	/* in order, so that the same files give the same reply: few and short, so insertion does */
	for (size_t i = 1; i < n; i++) {
		struct str s = names[i];
		size_t k = i;
		for (; k && strcmp(names[k - 1].p, s.p) > 0; k--)
			names[k] = names[k - 1];
		names[k] = s;
	}
	json_put(w, "files:[");
	for (size_t i = 0; i < n; i++)
		(void)json_string(w, names[i]); /* a name that is not UTF-8 shows as U+FFFD */
	json_put(w, "] files_truncated:%hhd", j->has_result && j->res.files_truncated);
}

void exec_put_rest(struct json_writer *w, const struct job *j, bool out_lossy, bool err_lossy)
{
	bool timed_out = j->outcome == JOB_TIMED_OUT;
	bool killed = !timed_out && j->has_result && WIFSIGNALED(j->res.status);
	char name[8];

	json_put(w, "exit_code:%d duration_ms:%lu", job_exit_code(j), (j->end_us - j->start_us + 500) / 1000);
	put_files(w, j);
	json_put(w, "timed_out:%hhd signal:%s stdout_bytes:%lu stderr_bytes:%lu stdout_truncated:%hhd stderr_truncated:%hhd", timed_out,
	         killed ? signal_name(WTERMSIG(j->res.status), name) : NULL, j->out_bytes, j->err_bytes, j->out_bytes > j->out.n,
	         j->err_bytes > j->err.n);
	json_put(w, "stdout_lossy:%hhd stderr_lossy:%hhd oom:%hhd", out_lossy, err_lossy, j->has_result && j->res.oom);
	if (j->has_result)
		json_put(w, "usage:{cpu_ms:%lu max_rss_kb:%lu read_bytes:%lu write_bytes:%lu}", j->res.cpu_us / 1000, j->res.max_rss_kb,
		         j->res.read_bytes, j->res.write_bytes);
	else
		json_put(w, "usage:null"); /* nobody was left to tell */
	json_put(w, "denied:");
	json_elsewhere(w);
	buf_put(w->b, j->denied.p, j->denied.n);
}
