/* L3: the command line as a client of the server. Every request has a connection of its own, which ends with the reply: closing it
 * is how a command is cancelled. With --standalone the server is a child of ours, behind a socket in a folder that is ours alone. */
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h> /* remove */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json.h"
#include "sys.h"
#include "util.h"

enum {
	HEAD_MAX = 16384, BODY_MAX = 2 << 20, /* of a request: what the server takes */
	REPLY_MAX = 16 << 20, /* a reply: two megabytes twice, once of them escaped */
	CALLS = 16,           /* messages of an MCP client that are under way at once */
	START_MS = 10000, TOP_MS = 2000,
};

extern char **environ;
static struct { pid_t pid; char folder[64], socket[96], token[33]; } child; /* the server of --standalone */

/* A reply that is being read: its head is gone once status is set. at: what of the body was used. */
struct reply { int fd, status; size_t n, at; char *text; bool ended, events; };

static _Noreturn void leave(int status)
{
	static const char *const files[] = {"audit.log", "state/state", "state/state.new", "state", "socket", "token"};
	char path[128];
	bool more = true;

	if (child.pid > 0) {
		(void)sys_close_from(3); /* it waits a while for those who have not hung up */
		(void)kill(child.pid, SIGTERM);
		(void)waitpid(child.pid, NULL, 0); /* it has nothing to do any more, and ends */
	}
	if (child.folder[0]) {
		for (unsigned i = 1; more; i++) /* logs that were moved aside: .1 is the youngest */
			more = text_printf(path, sizeof path, "%s/audit.log.%u", child.folder, i) && remove(path) == 0;
		for (size_t i = 0; i < countof(files); i++) {
			(void)text_printf(path, sizeof path, "%s/%s", child.folder, files[i]); /* fits */
			(void)remove(path); /* most are there */
		}
		(void)rmdir(child.folder);
	}
	_exit(status);
}

static _Noreturn void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void fail(const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	(void)text_vprintf(text, sizeof text, fmt, ap); /* cut at the worst */
	va_end(ap);
	warn("%s", text);
	leave(CLIENT_FAILED);
}

/* After a call that failed: whether it is to be made again. An fd that others have as well may be set not to block. */
static bool again(int fd, short wanted)
{
	struct pollfd p = {fd, wanted, 0};
	if (errno == EAGAIN)
		(void)poll(&p, 1, -1); /* told by the next call */
	return errno == EAGAIN || errno == EINTR;
}

/* False, and errno: not all of it could be written. */
static bool put(int fd, const void *p, size_t n)
{
	const char *at = p;
	while (n) {
		ssize_t got = write(fd, at, n);
		if (got < 0 && !again(fd, POLLOUT))
			return false;
		at += got > 0 ? got : 0;
		n -= got > 0 ? (size_t)got : 0;
	}
	return true;
}

static void put_all(int fd, const void *p, size_t n)
{
	if (put(fd, p, n))
		return;
	if (errno == EPIPE)
		leave(CLIENT_FAILED); /* who reads us is gone, and wants nothing */
	fail("standard %s: %s", fd == 1 ? "output" : "error", strerror(errno));
}

/* ---- a server of our own ---- */

/* The child: what it is given stands before the keys of the command line, which win. */
static _Noreturn void serve_alone(int listener, int ready, char **argv, pid_t parent)
{
	static char *env[4096];
	char audit[128], state[128], token[128], pid[32];
	char *args[64] = {"omniarena", "--audit-log", audit, "--state-dir", state, "--max-rps", "0", "--max-rate-per-agent", "0", "--warm-cells", "1"};
	size_t n = 11, e = 0;

	(void)text_printf(audit, sizeof audit, "%s/audit.log", child.folder); /* all four fit */
	(void)text_printf(token, sizeof token, "%s/token", child.folder);
	(void)text_printf(state, sizeof state, "%s/state", child.folder);
	(void)text_printf(pid, sizeof pid, "LISTEN_PID=%d", getpid());
	while (*argv && strcmp(*argv, "--") != 0 && n < countof(args) - 3)
		args[n++] = *argv++;
	args[n++] = "--token-file"; /* this one is not to be chosen */
	args[n++] = token;
	for (char **from = environ; *from && e < countof(env) - 3; from++) /* nor is it whom a service manager spoke to */
		if (strncmp(*from, "OMNIARENA_TOKEN", 15) != 0 && strncmp(*from, "LISTEN_", 7) != 0 && strncmp(*from, "NOTIFY_SOCKET", 13) != 0)
			env[e++] = *from;
	env[e++] = pid;
	env[e++] = "LISTEN_FDS=1";
	env[e] = NULL;
	int null = open("/dev/null", O_RDWR);
	if (null < 0 || prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != parent || dup2(ready, 2) < 0 ||
	    dup2(listener, 3) < 0 || sys_fcntl(3, F_SETFD, 0) < 0 /* it may have been 3 before */ || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
	    sys_close_from(4) < 0)
		_exit(CLIENT_FAILED);
	(void)execve("/proc/self/exe", args, env);
	_exit(CLIENT_FAILED);
}

static bool make_token(void)
{
	unsigned char any[16];
	char path[128];
	struct buf b = {child.token, 0, sizeof child.token - 1, false};

	if (getrandom(any, sizeof any, 0) != sizeof any || !text_printf(path, sizeof path, "%s/token", child.folder))
		return false;
	buf_hex(&b, any, sizeof any);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	bool ok = fd >= 0 && write(fd, b.p, b.n) == (ssize_t)b.n;
	if (fd >= 0)
		ok = close(fd) == 0 && ok;
	return ok;
}

/* Starts it and waits until it listens. argv: keys for it, NULL at the end. */
static void start_alone(char **argv)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char said[4096];
	size_t n = 0;
	int ends[2];
	pid_t self = getpid();

	memcpy(child.folder, "/tmp/omniarena-XXXXXX", sizeof "/tmp/omniarena-XXXXXX");
	if (sys_temp_folder(child.folder) < 0) {
		child.folder[0] = '\0';
		fail("a folder in /tmp: %s", strerror(errno));
	}
	(void)text_printf(child.socket, sizeof child.socket, "%s/socket", child.folder); /* fits */
	int listener = sys_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!make_token())
		fail("a token: %s", strerror(errno));
	memcpy(at.sun_path, child.socket, strlen(child.socket) + 1);
	if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, CALLS) < 0 || sys_pipe2(ends, O_CLOEXEC) < 0 ||
	    sys_fcntl(ends[1], F_SETFL, O_NONBLOCK) < 0)
		fail("a server of its own: %s", strerror(errno));
	child.pid = sys_clone(0);
	if (child.pid == 0)
		serve_alone(listener, ends[1], argv, self);
	if (child.pid < 0)
		fail("a server of its own: %s", strerror(errno));
	(void)close(listener);
	(void)close(ends[1]);
	struct pollfd p = {ends[0], POLLIN, 0};
	for (;;) { /* what it says, until it listens; if it never does, that is why */
		ssize_t got = poll(&p, 1, START_MS) == 1 ? read(ends[0], said + n, sizeof said - 1 - n) : -1;
		if (got <= 0) {
			(void)put(2, said, n); /* lines like ours */
			fail("the server did not start");
		}
		n += (size_t)got;
		if (str_find((struct str){said, n}, "listening on") && said[n - 1] == '\n')
			break;
	}
	/* the end stays open: what it says later is nobody's affair, but it must not die of it, nor wait for a reader */
}

/* ---- asking ---- */

void client_token(struct conf *c)
{
	const char *env = getenv("OMNIARENA_TOKEN");
	char text[sizeof c->token + 64]; /* with newlines behind it */
	struct stat st;

	memcpy(c->token, CONF_DEFAULT_TOKEN, sizeof CONF_DEFAULT_TOKEN);
	int fd = env ? -1 : sys_open_file(c->token_file);
	if (!env && fd < 0 && conf_token_may_be_missing(c))
		return;
	if (!env && (fd < 0 || fstat(fd, &st) < 0))
		fail("token file %s: %s", c->token_file, strerror(errno));
	if (!env && (st.st_mode & 077))
		fail("token file %s: others can read it; chmod 600 it", c->token_file);
	ssize_t n = env ? (ssize_t)strlen(env) : read(fd, text, sizeof text);
	struct str s = {env ? env : text, n > 0 ? (size_t)n : 0};
	if (fd >= 0)
		(void)close(fd); /* read only */
	while (s.n && strchr(" \t\r\n", s.p[0]) && s.p[0])
		s.p++, s.n--;
	while (s.n && strchr(" \t\r\n", s.p[s.n - 1]) && s.p[s.n - 1])
		s.n--;
	const char *wrong = s.n == 0 ? "there is no token in it" : s.n >= sizeof c->token ? "the token is too long" : NULL;
	for (size_t i = 0; !wrong && i < s.n; i++)
		if (s.p[i] <= ' ' || s.p[i] >= 0x7f)
			wrong = "blanks and characters beyond ASCII can't be sent in a header";
	if (wrong)
		fail("%s: %s", env ? "OMNIARENA_TOKEN" : c->token_file, wrong);
	memset(c->token, 0, sizeof c->token);
	memcpy(c->token, s.p, s.n);
}

/* Where the server is: -1 and errno, or EINVAL for an address that is none. */
static int connect_to(const struct conf *c)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sockaddr_storage at = {.ss_family = AF_UNIX};
	struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&at;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&at;
	bool any4 = strcmp(c->listen, "0.0.0.0") == 0 || strcmp(c->listen, "localhost") == 0, any6 = strcmp(c->listen, "::") == 0;
	const char *host = any4 ? "127.0.0.1" : any6 ? "::1" : c->listen;
	socklen_t n = sizeof un;

	if (child.pid > 0) {
		memcpy(un.sun_path, child.socket, strlen(child.socket) + 1);
		memcpy(&at, &un, sizeof un);
	} else if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET, v4->sin_port = htons((uint16_t)c->port), n = sizeof *v4;
	} else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6, v6->sin6_port = htons((uint16_t)c->port), n = sizeof *v6;
	} else {
		errno = EINVAL;
		return -1;
	}
	int fd = sys_socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&at, n) < 0) {
		int why = errno;
		(void)close(fd);
		errno = why;
		return -1;
	}
	return fd;
}

/* Sends a request; headers: whole lines of our own. False: no server is there, errno. r->text is kept. */
static bool try_ask(const struct conf *c, const struct client_options *o, struct reply *r, const char *method, const char *path,
                    const char *headers, struct str body)
{
	char head[HEAD_MAX];
	struct buf b = {head, 0, sizeof head, false};

	*r = (struct reply){.text = r->text ? r->text : sys_memory(REPLY_MAX, 1), .fd = connect_to(c)};
	if (!r->text)
		fail("taking memory: %s", strerror(errno));
	if (r->fd < 0)
		return false;
	buf_printf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n", method, path, child.pid > 0 ? child.token : c->token);
	if (o->agent)
		buf_printf(&b, "X-Agent: %s\r\n", o->agent);
	buf_printf(&b, "%sConnection: close\r\nContent-Length: %zu\r\n\r\n", headers, body.n);
	if (b.full)
		fail("the request does not fit");
	if (put(r->fd, b.p, b.n))
		(void)put(r->fd, body.p, body.n); /* refused before its end, or gone: reading tells */
	return true;
}

/* Takes what has come; false when the server has ended, or it is too much. */
static bool take(struct reply *r)
{
	if (r->at && !r->ended) { /* what was used makes room */
		memmove(r->text, r->text + r->at, r->n - r->at);
		r->n -= r->at, r->at = 0;
	}
	ssize_t got = r->n < REPLY_MAX ? read(r->fd, r->text + r->n, REPLY_MAX - r->n) : 0;
	r->ended = got <= 0;
	r->n += got > 0 ? (size_t)got : 0;
	const char *end = r->status ? NULL : str_find((struct str){r->text, r->n}, "\r\n\r\n");
	if (end) { /* HTTP/1.1 200 ... */
		struct str line = {r->text + 9, r->n > 12 ? 3 : 0};
		uint64_t status = str_digits(&line);
		r->at = (size_t)(end + 4 - r->text);
		r->events = memmem(r->text, r->at, "text/event-stream", 17) != NULL;
		r->status = status ? (int)status : -1;
	}
	return !r->ended;
}

/* The same for who can't go on without it. */
static void ask(const struct conf *c, const struct client_options *o, struct reply *r, const char *method, const char *path,
                const char *headers, struct str body)
{
	if (!try_ask(c, o, r, method, path, headers, body))
		fail("no server answers on %s port %llu: %s; start one with 'omniarena', or use --standalone", c->listen,
		     (unsigned long long)c->port, strerror(errno));
	while (!r->status && take(r))
		;
	if (r->status <= 0)
		fail("the server went away");
}

/* The next line of the body; waits for it. False at the end. */
static bool next_line(struct reply *r, struct str *line)
{
	const char *end;
	while (!(end = r->n > r->at ? memchr(r->text + r->at, '\n', r->n - r->at) : NULL))
		if (!take(r))
			return false;
	*line = (struct str){r->text + r->at, (size_t)(end - r->text) - r->at};
	r->at += line->n + 1;
	return true;
}

/* The whole body, once its head is there. */
static struct str whole_body(struct reply *r)
{
	size_t at = r->at;
	r->at = 0; /* so that nothing moves */
	while (take(r))
		;
	r->at = at;
	return (struct str){r->text + at, r->n - at};
}

/* The fields of an object whose names stand in a line; absent ones are JSON_END. False: it is no object, or has one twice. What comes from the server
 * is checked like anything else. */
static bool pick(struct str object, const char *names, struct json_token *out)
{
	struct json_reader r;
	struct json_token t;
	size_t i = 0;

	for (struct str rest = str_of(names), name; str_word(&rest, &name);)
		out[i++] = (struct json_token){.kind = JSON_END};
	if (json_check(object, NULL) || json_enter(&r, object) != JSON_OBJECT)
		return false;
	while (json_next(&r, &t) != JSON_CLOSE) {
		(void)json_skip(&r, &t); /* it was checked */
		i = 0;
		for (struct str rest = str_of(names), name; str_word(&rest, &name); i++) {
			if (t.key.n != name.n || memcmp(t.key.p, name.p, name.n) != 0)
				continue;
			if (out[i].kind != JSON_END)
				return false;
			out[i] = t;
		}
	}
	return true;
}

/* A server-sent event's data, of its line: .p NULL where the line is another one. */
static struct str data_of(struct str line)
{
	bool is = line.n > 6 && memcmp(line.p, "data: ", 6) == 0;
	return is ? (struct str){line.p + 6, line.n - 6} : (struct str){NULL, 0};
}

static int64_t number_of(const struct json_token *t)
{
	int64_t v;
	return t->kind == JSON_NUMBER && json_int(t->text, &v) ? v : 0;
}

/* Text from elsewhere on a terminal: nothing in it may move the cursor, U+0080 to U+009F neither. As much of it as fits. */
static void put_plain(struct buf *b, struct str s)
{
	for (int n; s.n && !b->full; s.p += n, s.n -= (size_t)n) {
		unsigned char c = (unsigned char)s.p[0];
		n = utf8_next(s);
		bool moves = n < 0 || c < ' ' || c == 0x7f || (c == 0xc2 && (unsigned char)s.p[1] < 0xa0);
		n = n < 0 ? -n : n;
		buf_put(b, moves ? "?" : s.p, moves ? 1 : (size_t)n);
	}
}

/* A line on stderr of two texts that are still JSON's; cut where it would be too long. */
static void tell(struct str first, const char *between, struct str second)
{
	char text[960];
	struct buf b = {text, 0, sizeof text, false};

	put_plain(&b, json_unescape(first));
	buf_str(&b, between);
	put_plain(&b, json_unescape(second));
	warn("%.*s", (int)b.n, b.p);
}

/* A refusal, said on stderr; the status that goes with it. */
static int refused(int status, struct str body)
{
	struct json_token f[5];
	char text[900];
	struct buf b = {text, 0, sizeof text, false};

	if (!pick(body, "error rule program reason code", f) || f[0].kind != JSON_STRING) {
		warn("the server answered %d", status);
		return CLIENT_FAILED;
	}
	put_plain(&b, json_unescape(f[0].text));
	for (int i = 1; i < 4; i++)
		if (f[i].kind == JSON_STRING) {
			buf_str(&b, i == 1 ? " (rule " : i == 2 ? " (program " : " (");
			put_plain(&b, json_unescape(f[i].text));
			buf_str(&b, ")");
		}
	warn("%.*s%s", (int)b.n, b.p, status == 401 ? "; give the token with --token-file or OMNIARENA_TOKEN" : "");
	return status == 403 && !json_is(f[4].text, "origin") && !json_is(f[4].text, "capability") ? CLIENT_REFUSED : CLIENT_FAILED;
}

/* ---- exec ---- */

/* Our standard input to its end, which a command's is given whole; nothing where it is a terminal. */
static void put_stdin(struct json_writer *w)
{
	static char text[BODY_MAX];
	size_t n = 0;
	ssize_t got = 0;

	if (isatty(0))
		return;
	while (n < sizeof text && ((got = read(0, text + n, sizeof text - n)) > 0 || (got < 0 && again(0, POLLIN))))
		n += got > 0 ? (size_t)got : 0;
	if (got < 0)
		fail("standard input: %s", strerror(errno));
	if (n == sizeof text)
		fail("standard input is larger than 2 MiB, which is the most that a command can be given; put it into files");
	json_key(w, "stdin");
	if (!json_string(w, (struct str){text, n}))
		fail("standard input is no UTF-8 text; encode it, as with base64");
}

/* The status that our end has, of a reply's object. */
static int status_of(struct str object)
{
	struct json_token f[5];

	if (!pick(object, "exit_code timed_out error stdout_truncated stderr_truncated", f) || (f[0].kind != JSON_NUMBER && f[0].kind != JSON_END))
		fail("the server's answer can't be read");
	if (f[0].kind == JSON_END)
		return refused(500, object);
	if (f[1].kind == JSON_BOOL && f[1].truth && f[2].kind == JSON_STRING)
		tell(f[2].text, "", (struct str){NULL, 0});
	for (int i = 3; i < 5; i++)
		if (f[i].kind == JSON_BOOL && f[i].truth)
			warn("there was more on standard %s than the server's output_limit", i == 3 ? "output" : "error");
	return (int)number_of(&f[0]) & 255;
}

/* What the jail refused, each with its hint. */
static void tell_denied(struct str object)
{
	struct json_token f[1], t, d[2];
	struct json_reader r;

	if (!pick(object, "denied", f) || f[0].kind != JSON_ARRAY)
		return;
	(void)json_enter(&r, f[0].text);
	while (json_next(&r, &t) == JSON_OBJECT && json_skip(&r, &t))
		if (pick(t.text, "call hint", d) && d[0].kind == JSON_STRING && d[1].kind == JSON_STRING)
			tell(d[0].text, ": ", d[1].text);
}

/* One event of a command's: output goes where it belongs. True when it was the last one, with our status. */
static bool take_event(struct str event, struct str data, int *status)
{
	struct json_token f[1];

	if (str_eq(event, "exit") || str_eq(event, "error")) {
		tell_denied(data);
		*status = status_of(data);
		return true;
	}
	if (!pick(data, "data", f) || f[0].kind != JSON_STRING)
		return false;
	struct str text = json_unescape(f[0].text);
	long n = base64_decode(text, (char *)text.p);
	if (n > 0)
		put_all(str_eq(event, "stderr") ? 2 : 1, text.p, (size_t)n);
	return false;
}

_Noreturn void client_exec(const struct conf *c, const struct client_options *o, const char *cmd)
{
	static char text[2 * BODY_MAX];
	struct buf b = {text, 0, sizeof text, false};
	struct json_writer w = {.b = &b};
	struct reply r = {.text = NULL};
	struct str line, event = {"", 0};
	int status = CLIENT_FAILED;

	if (o->standalone)
		start_alone(o->keys);
	json_put(&w, "{");
	json_key(&w, "cmd");
	if (!json_string(&w, str_of(cmd)))
		fail("the command is no UTF-8 text");
	if (!o->json)
		json_put(&w, "encoding:%s", "base64");
	if (o->timeout_ms)
		json_put(&w, "timeout_ms:%lu", o->timeout_ms);
	if (o->has_profile && !o->standalone)
		json_put(&w, "profile:%lu", c->profile);
	put_stdin(&w);
	json_put(&w, "}");
	if (b.full)
		fail("the command and its input do not fit");
	ask(c, o, &r, "POST", "/api/exec", o->json ? "" : "Accept: text/event-stream\r\n", (struct str){b.p, b.n});
	if (r.status != 200 || o->json) {
		struct str body = whole_body(&r);
		if (o->json)
			put_all(1, body.p, body.n);
		leave(r.status == 200 ? status_of(body) : refused(r.status, body));
	}
	while (next_line(&r, &line)) {
		struct str name = {line.p + 7, line.n - 7}, data = data_of(line);
		if (line.n > 7 && memcmp(line.p, "event: ", 7) == 0)
			event = str_of(str_eq(name, "stderr") ? "stderr" : str_eq(name, "stdout") ? "stdout" : "exit");
		else if (data.p && take_event(event, data, &status))
			leave(status);
	}
	fail("the server went away before the command ended");
}

/* ---- mcp ---- */

/* A message that is under way. */
static struct call { struct reply r; char id[128]; size_t id_n; bool open; } calls[CALLS];

/* A line for the client: newlines may stand between what JSON has. */
static void put_line(struct str s)
{
	for (char *at = (char *)s.p; (at = memchr(at, '\n', (size_t)(s.p + s.n - at))); at++)
		*at = ' ';
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\r'))
		s.n--;
	put_all(1, s.p, s.n);
	put_all(1, "\n", 1);
}

static void put_error(const struct call *k, const char *what)
{
	char text[512];
	struct buf b = {text, 0, sizeof text, false};
	struct json_writer w = {.b = &b};

	if (!k->id_n)
		return; /* a notification: nobody waits for an answer */
	buf_printf(&b, "{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"error\":", (int)k->id_n, k->id);
	json_put(&w, "{code:-32603 message:%s}", what);
	buf_str(&b, "}");
	put_line((struct str){b.p, b.n});
}

/* What of a reply has come is handed on: events one by one, an answer when it is whole. */
static void hand_on(struct call *k)
{
	struct json_token f[3];
	struct reply *r = &k->r;
	bool more = take(r);
	const char *end;

	while (r->events && r->n > r->at && (end = memchr(r->text + r->at, '\n', r->n - r->at))) {
		struct str line = {r->text + r->at, (size_t)(end - r->text) - r->at};
		r->at += line.n + 1;
		struct str data = data_of(line);
		if (data.p && pick(data, "jsonrpc error method", f) && f[0].kind == JSON_STRING) {
			put_line(data);
			k->id_n = f[2].kind != JSON_END ? k->id_n : 0; /* what is no notification is its answer */
		}
	}
	if (more)
		return;
	struct str body = {r->text + r->at, r->n - r->at};
	bool is_json = r->status > 0 && !r->events && pick(body, "jsonrpc error method", f);
	if (is_json && f[0].kind == JSON_STRING)
		put_line(body);
	else if (is_json && f[1].kind == JSON_STRING)
		put_error(k, "the server refuses; see standard error"), (void)refused(r->status, body);
	else if (r->status != 202)
		put_error(k, "the server went away");
	(void)close(r->fd);
	k->open = false;
}

/* Headers that the newest revision wants beside a message, out of the message; in base64 where a header could not carry them. */
static void mirror(struct buf *b, const char *name, const struct json_token *t)
{
	char value[1024];

	if (t->kind != JSON_STRING || t->text.n > sizeof value)
		return;
	memcpy(value, t->text.p, t->text.n);
	struct str s = json_unescape((struct str){value, t->text.n});
	bool plain = s.n && s.p[0] != ' ' && s.p[0] != '=' && s.p[s.n - 1] != ' ';
	for (size_t i = 0; i < s.n; i++)
		plain = plain && s.p[i] >= ' ' && s.p[i] <= '~';
	buf_printf(b, "%s: %s", name, plain ? "" : "=?base64?");
	if (plain)
		buf_put(b, s.p, s.n);
	else if (json_base64(b, s) < s.n)
		b->full = true;
	buf_str(b, plain ? "\r\n" : "?=\r\n");
}

static void cancel(struct str id)
{
	for (size_t i = 0; id.n && i < CALLS; i++)
		if (calls[i].open && calls[i].id_n == id.n && memcmp(calls[i].id, id.p, id.n) == 0) {
			(void)close(calls[i].r.fd); /* which ends the command */
			calls[i].open = false;
		}
}

/* An id as it stands there, quotes included. */
static struct str raw_id(const struct json_token *t)
{
	return t->kind == JSON_STRING ? (struct str){t->text.p - 1, t->text.n + 2} : t->text;
}

/* Whether a line is a cancellation, and of what. */
static bool is_cancellation(struct str line, struct str *id)
{
	struct json_token f[2], asked[1];

	if (!pick(line, "method params", f) || f[0].kind != JSON_STRING || !json_is(f[0].text, "notifications/cancelled") ||
	    !pick(f[1].text, "requestId", asked) || asked[0].kind == JSON_END)
		return false;
	*id = raw_id(&asked[0]);
	return true;
}

static void send_message(const struct conf *c, const struct client_options *o, struct call *k, struct str line)
{
	struct json_token f[3], p[2], version[1];
	char headers[1024];
	struct buf b = {headers, 0, sizeof headers - 1, false};
	struct str other;

	k->id_n = 0;
	if (is_cancellation(line, &other)) {
		cancel(other);
		return;
	}
	buf_str(&b, "Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n");
	if (pick(line, "id method params", f)) {
		struct str id = raw_id(&f[0]);
		if (id.n && id.n <= sizeof k->id)
			memcpy(k->id, id.p, k->id_n = id.n);
		if (f[2].kind == JSON_OBJECT && pick(f[2].text, "name _meta", p) && p[1].kind == JSON_OBJECT &&
		    pick(p[1].text, "io.modelcontextprotocol/protocolVersion", version) && version[0].kind == JSON_STRING) {
			mirror(&b, "MCP-Protocol-Version", version);
			mirror(&b, "Mcp-Method", &f[1]);
			mirror(&b, "Mcp-Name", &p[0]);
		}
	}
	headers[b.n] = '\0';
	if (!b.full && try_ask(c, o, &k->r, "POST", "/mcp", headers, line))
		k->open = true;
	else
		put_error(k, b.full ? "the message's names are too long" : "no server answers; is omniarena running?");
}

_Noreturn void client_mcp(const struct conf *c, const struct client_options *o, const char *none)
{
	static char in[BODY_MAX + 2]; /* with its newline */
	size_t n = 0, seen = 0; /* so far cancellations were looked for ahead of their turn */
	bool ended = false, skipping = false;
	struct str id;
	char *end;

	(void)none;
	if (o->standalone)
		start_alone(o->keys);
	for (;;) {
		struct pollfd p[CALLS + 1];
		struct call *idle = NULL;
		size_t open = 0;
		for (size_t i = 0; i < CALLS; i++) {
			p[i] = (struct pollfd){calls[i].open ? calls[i].r.fd : -1, POLLIN, 0};
			open += calls[i].open;
			idle = calls[i].open ? idle : &calls[i];
		}
		end = n > seen && !idle ? memchr(in + seen, '\n', n - seen) : NULL;
		if (end) { /* no place is free: a cancellation makes one; in its turn it is met again, and finds what it named if that came first */
			if (is_cancellation((struct str){in + seen, (size_t)(end - in) - seen}, &id))
				cancel(id);
			seen = (size_t)(end + 1 - in);
			continue;
		}
		end = n && (idle || skipping || n == sizeof in) ? memchr(in, '\n', n) : NULL;
		if (!end && (skipping || n == sizeof in)) {
			if (!skipping)
				put_line(str_of("{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32600,\"message\":\"a message is larger than 2 MiB\"}}"));
			skipping = true;
			n = seen = 0;
		}
		if (end && (idle || skipping)) {
			size_t len = (size_t)(end - in);
			if (len && !skipping)
				send_message(c, o, idle, (struct str){in, len});
			skipping = false;
			n -= len + 1;
			seen -= seen < len + 1 ? seen : len + 1;
			memmove(in, end + 1, n);
			continue;
		}
		if (ended && !open)
			leave(0);
		p[CALLS] = (struct pollfd){n < sizeof in && !ended ? 0 : -1, POLLIN, 0};
		if (poll(p, CALLS + 1, -1) < 0 && errno != EINTR)
			fail("poll: %s", strerror(errno));
		for (size_t i = 0; i < CALLS; i++)
			if (p[i].revents)
				hand_on(&calls[i]);
		ssize_t got = p[CALLS].revents ? read(0, in + n, sizeof in - n) : 1;
		ended = ended || (got <= 0 && !(got < 0 && again(0, POLLIN)));
		n += p[CALLS].revents && got > 0 ? (size_t)got : 0;
		if (ended && n && n < sizeof in && in[n - 1] != '\n')
			in[n++] = '\n'; /* a last line without one */
	}
}

/* ---- tail, top, doctor ---- */

_Noreturn void client_tail(const struct conf *c, const struct client_options *o, const char *none)
{
	struct json_token f[6];
	struct reply r = {.text = NULL};
	struct str line;
	static char out[128 << 10];

	(void)none;
	ask(c, o, &r, "GET", "/api/events", "", (struct str){NULL, 0});
	if (r.status != 200)
		leave(refused(r.status, whole_body(&r)));
	while (next_line(&r, &line)) {
		struct buf b = {out, 0, sizeof out - 1, false};
		struct str data = data_of(line);
		if (!data.p || !pick(data, "time agent event cmd exit_code result", f) || f[2].kind != JSON_STRING)
			continue; /* a comment, or other figures */
		for (int i = 0; i < 4; i++) {
			put_plain(&b, f[i].kind == JSON_STRING ? json_unescape(f[i].text) : str_of("-"));
			buf_str(&b, " ");
		}
		buf_str(&b, "\u2192 exit:");
		put_plain(&b, f[4].text);
		buf_str(&b, " ");
		put_plain(&b, f[5].kind == JSON_STRING ? json_unescape(f[5].text) : str_of("-"));
		out[b.n++] = '\n'; /* however long the row is */
		put_all(1, b.p, b.n);
	}
	fail("the server went away");
}

static void pad(struct buf *b, struct str s, size_t width)
{
	size_t from = b->n, n = s.n < width ? s.n : width;
	while (n && n < s.n && ((unsigned char)s.p[n] & 0xc0) == 0x80)
		n--; /* no half characters */
	put_plain(b, (struct str){s.p, n});
	while (!b->full && b->n - from < width + 1)
		buf_put(b, " ", 1);
}

_Noreturn void client_top(const struct conf *c, const struct client_options *o, const char *none)
{
	static const uint8_t width[] = {24, 4, 9, 9, 9, 12, 12, 24};
	static const char titles[countof(width)][10] = {"AGENT", "RUN", "EXECS", "BLOCKED", "RATE/MIN", "TOKENS", "BUDGET", "MODEL"};
	struct json_token f[countof(width)], a[1], t;
	struct reply r = {.text = NULL};
	struct json_reader rows;
	static char out[65536];
	bool lives = isatty(1);

	(void)none;
	for (;; (void)poll(NULL, 0, TOP_MS)) {
		struct buf b = {out, 0, sizeof out, false};
		ask(c, o, &r, "GET", "/api/agents", "", (struct str){NULL, 0});
		struct str body = whole_body(&r);
		(void)close(r.fd);
		if (r.status != 200)
			leave(refused(r.status, body));
		if (!pick(body, "agents", a) || a[0].kind != JSON_ARRAY)
			fail("the server's answer can't be read");
		buf_str(&b, lives ? "\033[H\033[2J" : "");
		for (size_t i = 0; i < countof(width); i++)
			pad(&b, str_of(titles[i]), width[i]);
		buf_str(&b, "\n");
		(void)json_enter(&rows, a[0].text);
		while (json_next(&rows, &t) == JSON_OBJECT && json_skip(&rows, &t) &&
		       pick(t.text, "name running execs blocked rate_1m tokens_total token_budget model", f)) {
			for (size_t i = 0; i < countof(width); i++)
				pad(&b, f[i].kind == JSON_STRING ? json_unescape(f[i].text) : f[i].text, width[i]);
			buf_str(&b, "\n");
		}
		put_all(1, b.p, b.n);
		if (!lives)
			leave(0);
	}
}

/* How a layer is had where it is missing. */
static const struct { char layer[13], how[150]; } remedies[] = {
	{"netns", "run as root, or allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000"},
	{"mountns", "as above; on Ubuntu 24.04 and later also: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile"},
	{"pidns", "as above; in a container also --security-opt seccomp=unconfined and --security-opt systempaths=unconfined"},
	{"userns", "a kernel with CONFIG_USER_NS, and user.max_user_namespaces above 0"},
	{"seccomp", "a kernel with CONFIG_SECCOMP_FILTER"},
	{"cgroup", "run as root; as a user: systemd-run --user --scope -p Delegate=yes omniarena"},
	{"landlock", "Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK, and landlock in the lsm= of the kernel's command line"},
};

_Noreturn void client_doctor(const struct conf *c, const struct client_options *o, const char *none)
{
	struct json_token f[4], on, why;
	struct json_reader layers, missing;
	struct reply r = {.text = NULL};
	struct utsname u;
	char out[8192];
	struct buf b = {out, 0, sizeof out, false};

	(void)none;
	start_alone(o->keys);
	ask(c, o, &r, "GET", "/api/health", "", (struct str){NULL, 0});
	struct str body = whole_body(&r);
	if (r.status != 200 || !pick(body, "isolation layers missing version", f) || f[1].kind != JSON_OBJECT || f[2].kind != JSON_OBJECT ||
	    uname(&u) < 0)
		fail("a server of its own did not answer as it should");
	buf_printf(&b, "omniarena %.*s on %s %s %s, as %s: isolation %.*s\n", (int)f[3].text.n, f[3].text.p, u.sysname, u.release, u.machine,
	           geteuid() == 0 ? "root" : "an ordinary user", (int)f[0].text.n, f[0].text.p);
	(void)json_enter(&layers, f[1].text);
	while (json_next(&layers, &on) == JSON_BOOL) {
		buf_printf(&b, "%s %.*s", on.truth ? "ok     " : "missing", (int)on.key.n, on.key.p);
		(void)json_enter(&missing, f[2].text);
		while (!on.truth && json_next(&missing, &why) == JSON_STRING)
			if (why.key.n == on.key.n && memcmp(why.key.p, on.key.p, on.key.n) == 0)
				buf_printf(&b, ": %.*s", (int)why.text.n, why.text.p);
		for (size_t i = 0; !on.truth && i < countof(remedies); i++)
			if (str_eq(on.key, remedies[i].layer))
				buf_printf(&b, "\n        to have it: %s", remedies[i].how);
		buf_str(&b, "\n");
	}
	put_all(1, b.p, b.n);
	leave(!json_is(f[0].text, "kernel"));
}
