/* L7: main. Starts the warden, opens the one socket, gives up every privilege, and then is the
 * loop: what is ready goes to the module that owns it, in one switch; finished commands come back
 * as bits that are read after it. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "api.h"
#include "audit.h"
#include "cli.h"
#include "conf.h"
#include "jail.h"
#include "job.h"
#include "loop.h"
#include "msg.h"
#include "policy.h"
#include "sys.h"
#include "util.h"
#include "warden.h"

enum { ARENA_LISTEN = API_KINDS /* sockets and timers share one numbering */, ARENA_SIGNAL, ARENA_ACCEPT_TIMER, ARENA_DRAIN_TIMER };
enum {
	GRACE_MS = 5000,   /* for running commands, once the server is told to end */
	LEAVE_MS = 1000,   /* and for their replies to be read */
	PAUSE_MS = 1000,   /* no new connections for so long, when the host has no fd left */
	WARDEN_MS = 3000,  /* for the warden to clear up behind us */
	BACKLOG = 1024, ACCEPTS_A_TURN = 64, OTHER_FDS = 32,
};

static struct arena {
	struct conf conf;
	struct policy policy;
	struct loop loop;
	struct jobs jobs;
	struct agents agents;
	struct audit audit;
	struct api api;
	struct msg_hello hello;
	pid_t warden;
	int wall, listen_fd, listen_slot, signal_fd, signal_slot, notify_fd;
	uint16_t port;
	bool draining, over;
	int status;
	struct timer accept_timer, drain_timer;
} a;

extern char **environ;

/* The test build calls this once, where the server has nothing left: test/hook.c. */
#ifdef TEST_HOOK
void test_hook(int listen_fd, pid_t warden);
#endif

/* ---- start ---- */

/* A socket that lands on 0, 1 or 2 would get our messages. */
static void open_standard_fds(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	if (fd < 0)
		die("/dev/null:");
	(void)close(fd); /* the first one beyond */
}

/* A process shows the environment it was started with in /proc for as long as it lives, and a
 * cell's process 1 is a copy of us. */
static void wipe_environment(void)
{
	for (char **e = environ; *e; e++)
		memset(*e, 0, strlen(*e));
	environ[0] = NULL;
}

/* The policy's text and its agents' tokens, until the warden is born. */
static void forget_policy(void)
{
	memset(a.policy.file, 0, a.policy.file_n);
	memset(a.conf.agent, 0, a.conf.agents * sizeof *a.conf.agent);
	a.conf.agents = 0;
}

/* Both the server and the warden live under the same limit; the server keeps the fds of cells and one for the files of
 * each job, the warden 7 a slot. */
static void raise_fd_limit(const struct conf *c)
{
	rlim_t cells = c->max_running + c->warm_cells;
	rlim_t need = c->max_connections + MSG_FDS * cells + 2 * c->max_running + OTHER_FDS, warden = 7 * cells + OTHER_FDS;
	struct rlimit rl;

	need = need > warden ? need : warden;
	if (prlimit(0, RLIMIT_NOFILE, NULL, &rl) < 0)
		die("RLIMIT_NOFILE:");
	if (rl.rlim_cur >= need)
		return;
	rl.rlim_cur = need;
	rl.rlim_max = rl.rlim_max > need ? rl.rlim_max : need; /* beyond it root only */
	if (prlimit(0, RLIMIT_NOFILE, &rl, NULL) < 0)
		die("%llu open files are needed and this user may have fewer (ulimit -Hn); lower --max-connections or --max-running",
		    (unsigned long long)need);
}

/* "localhost" is the one name that is known without a resolver. */
static socklen_t parse_address(const char *text, uint16_t port, struct sockaddr_storage *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)out;

	memset(out, 0, sizeof *out);
	if (strcmp(text, "localhost") == 0)
		text = "127.0.0.1";
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof *v4;
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		return sizeof *v6;
	}
	return 0;
}

static _Noreturn void no_listen(void)
{
	if (errno == EADDRINUSE)
		die("port %llu of %s is taken: another omniarena, or another server, listens there; end it, or choose with --port",
		    (unsigned long long)a.conf.port, a.conf.listen);
	die("listening on %s port %llu:", a.conf.listen, (unsigned long long)a.conf.port);
}

/* The socket that a service manager has opened for us (sd_listen_fds(3)), or -1. */
static int inherited_socket(void)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
	uint64_t v;

	if (!pid || !n || !str_uint(str_of(pid), INT32_MAX, &v) || (pid_t)v != getpid())
		return -1;
	if (strcmp(n, "1") != 0)
		die("LISTEN_FDS=%s: one socket is served, not several", n);
	return 3;
}

/* Where the service manager wants to hear that we are ready (sd_notify(3)); told or not, the server serves. */
static int open_notify(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	size_t n = path ? strlen(path) : 0;

	if (n == 0 || n >= sizeof at.sun_path)
		return -1;
	memcpy(at.sun_path, path, n);
	if (path[0] == '@')
		at.sun_path[0] = '\0'; /* an abstract name, unix(7) */
	int fd = sys_socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); /* the loop waits for nobody */
	if (fd >= 0 && connect(fd, (struct sockaddr *)&at, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		warn("NOTIFY_SOCKET %s:", path);
	return fd;
}

static void notify(const char *text)
{
	if (a.notify_fd >= 0)
		(void)write(a.notify_fd, text, strlen(text)); /* nobody there: then nobody waits */
}

/* A socket of ours is known by what the checks of an address need: who can reach it. One in the file system is its
 * folder's affair; the jails' uids are then told apart by our pid. */
static void take_socket(void)
{
	struct sockaddr_storage at;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)&at;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)&at;
	socklen_t n = sizeof at;
	const unsigned char *ip = (const unsigned char *)&v4->sin_addr;

	if (getsockname(a.listen_fd, (struct sockaddr *)&at, &n) < 0 || listen(a.listen_fd, BACKLOG) < 0 ||
	    sys_fcntl(a.listen_fd, F_SETFL, O_NONBLOCK) < 0 || sys_fcntl(a.listen_fd, F_SETFD, FD_CLOEXEC) < 0)
		die("the socket that was handed over:");
	if (at.ss_family == AF_INET) {
		(void)text_printf(a.conf.listen, sizeof a.conf.listen, "%u.%u.%u.%u", ip[0], ip[1], ip[2], ip[3]); /* fits */
		a.port = ntohs(v4->sin_port);
	} else if (at.ss_family == AF_INET6) {
		(void)text_printf(a.conf.listen, sizeof a.conf.listen, IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ? "::1" : "::"); /* fits */
		a.port = ntohs(v6->sin6_port);
	} else if (at.ss_family == AF_UNIX) {
		(void)text_printf(a.conf.listen, sizeof a.conf.listen, "127.0.0.1"); /* fits */
		a.port = (uint16_t)getpid();
	} else { /* AF_VSOCK and others: nobody knows here who can reach it */
		die("the socket that was handed over is neither TCP's nor in the file system");
	}
}

/* Takes the port before anything else is done, so that a second instance changes nothing. */
static void bind_port(void)
{
	struct sockaddr_storage at;
	socklen_t n = parse_address(a.conf.listen, (uint16_t)a.conf.port, &at);
	const int on = 1;

	if (a.listen_fd >= 0) {
		take_socket();
		return;
	}
	if (n == 0)
		die("--listen %s: an IPv4 or IPv6 address is needed", a.conf.listen);
	a.listen_fd = sys_socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (a.listen_fd < 0 || setsockopt(a.listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
		die("socket:");
	if (bind(a.listen_fd, (struct sockaddr *)&at, n) < 0 || listen(a.listen_fd, BACKLOG) < 0)
		no_listen();
	if (getsockname(a.listen_fd, (struct sockaddr *)&at, &n) < 0)
		die("getsockname:");
	a.port = ntohs(at.ss_family == AF_INET ? ((struct sockaddr_in *)(void *)&at)->sin_port
	                                       : ((struct sockaddr_in6 *)(void *)&at)->sin6_port);
}

/* The first way to a jail that this host allows. A way that failed is told, and is the reason why
 * the layers that only it has are missing. */
static void start_warden(void)
{
	static const struct { enum jail_mode mode; char name[15]; } ways[] = {
		{JAIL_ROOT, "root"}, {JAIL_USER, "user namespace"}, {JAIL_BASIC, "basic"},
	};
	char why[sizeof a.hello.why[0]] = "";

	for (size_t i = geteuid() == 0 ? 0 : 1; i < countof(ways); i++) {
		a.wall = warden_start(ways[i].mode, a.port, &a.conf, &a.warden);
		if (a.wall < 0)
			die("starting the warden:");
		if (msg_recv(a.wall, &a.hello, sizeof a.hello, NULL, 0, 0) != sizeof a.hello || a.hello.type != MSG_HELLO)
			die("the warden ended before it was ready");
		for (size_t l = 0; l < LAYERS; l++)
			a.hello.why[l][sizeof a.hello.why[l] - 1] = '\0';
		if (a.hello.layers) {
			for (unsigned l = 0; *why && l < LAYERS; l++)
				if ((MSG_LAYERS_KERNEL | 1u << LAYER_USERNS) >> l & 1 && a.hello.why[l][0])
					memcpy(a.hello.why[l], why, sizeof why);
			return;
		}
		memcpy(why, a.hello.why[0], sizeof why);
		warn("no jail by way of %s: %s", ways[i].name, why);
		(void)close(a.wall);
		(void)waitpid(a.warden, NULL, 0); /* it is ending */
	}
	die("this host allows no jail at all; nothing is run without one");
}

static void announce(void)
{
	bool six = strchr(a.conf.listen, ':') != NULL;
	bool kernel = (a.hello.layers & MSG_LAYERS_KERNEL) == MSG_LAYERS_KERNEL;

	warn("version " CONF_VERSION ", listening on http://%s%s%s:%u, isolation %s", six ? "[" : "", a.conf.listen,
	     six ? "]" : "", a.port, kernel ? "kernel" : "basic");
	for (unsigned l = 0; l < LAYERS; l++)
		if (!(a.hello.layers >> l & 1))
			warn("without %s: %s", msg_layer_name(l), a.hello.why[l]);
	if (conf_default_credentials(&a.conf))
		warn("the default credentials are in force, for this host alone");
	notify("READY=1\n");
}

static int open_signals(void)
{
	sigset_t set;
	/* a client that went away is an error of write(2), not a signal */
	/* and a log that may not grow any more (RLIMIT_FSIZE) as well */
	if (sys_ignore_signal(SIGPIPE) < 0 || sys_ignore_signal(SIGXFSZ) < 0 || sigemptyset(&set) < 0 || sigaddset(&set, SIGTERM) < 0 ||
	    sigaddset(&set, SIGINT) < 0 || sigaddset(&set, SIGHUP) < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* What was saved by the one before us; it is looked at when there is no privilege left. */
static ssize_t read_state(char *text, size_t cap)
{
	char name[sizeof a.conf.state_dir + 16];
	(void)text_printf(name, sizeof name, "%s/state", a.conf.state_dir); /* fits */
	ssize_t n = sys_read_file(name, text, cap);
	if (n < 0 && errno != ENOENT && errno != ENOTDIR)
		warn("the counters start at 0; %s:", name);
	return n;
}

/* Counters go on where they were. A file that is not ours is kept beside it; it costs the counters, not the start. */
static void take_state(struct str text)
{
	struct chain head = {.seq = 0};
	if (agent_load(&a.agents, &head, text)) {
		if (head.seq)
			a.audit.last = a.audit.written = head;
		return;
	}
	warn("%s/state is torn or not ours: it is set aside as state.bad, and the counters start at 0", a.conf.state_dir);
	if (text.n > MSG_ASK_MAX)
		text.n = MSG_ASK_MAX;
	(void)job_ask(&a.jobs, MSG_SAVE, MSG_STATE_BAD, UINT32_MAX, text); /* its answer is met in the loop */
}

/* The log is opened before the first request is met; where it can't be, that is told and asked again. */
static void open_log(void)
{
	struct msg_tell t = {.type = 0};
	int fds[MSG_FDS];

	if (!job_ask(&a.jobs, MSG_FETCH, MSG_LOG_MEND, UINT32_MAX, (struct str){NULL, 0}))
		return; /* audit.want is set: the loop asks */
	while (t.type != MSG_FETCHED)
		if (msg_recv(a.wall, &t, sizeof t, fds, MSG_FDS, 0) != sizeof t)
			die("the warden ended before the log was open");
	t.why[sizeof t.why - 1] = '\0';
	a.audit.want = AUDIT_NOTHING;
	api_take_log(&a.api, fds[0], t.why);
}

/* Everything that needs memory, files or privilege; behind it no byte of it is left. */
static void start(int argc, char **argv)
{
	static char state[MSG_ASK_MAX + 2];
	struct jail_error e = {"", 0};
	struct stat self;

	a.wall = a.listen_fd = a.listen_slot = a.signal_slot = -1;
	a.accept_timer = (struct timer){.kind = ARENA_ACCEPT_TIMER, .place = -1};
	a.drain_timer = (struct timer){.kind = ARENA_DRAIN_TIMER, .place = -1};
	open_standard_fds();
	cli_main(argc, argv, &a.conf, &a.policy);
	forget_policy(); /* no cell inherits a secret */
	a.listen_fd = inherited_socket();
	a.notify_fd = open_notify();
	wipe_environment();
	raise_fd_limit(&a.conf);
	bind_port();
	start_warden();
	cli_policy(&a.conf, &a.policy, true);
	conf_credentials(&a.conf); /* after the warden was born, as the policy's tokens */

	size_t cells = a.conf.max_running + a.conf.warm_cells;
	a.signal_fd = open_signals();
	if (a.signal_fd < 0 || stat("/proc/self/exe", &self) < 0)
		die("start:");
	if (!loop_init(&a.loop, OTHER_FDS + a.conf.max_connections + MSG_FDS * cells,
	               OTHER_FDS + a.conf.max_connections + 2 * a.conf.max_running) ||
	    !agent_init(&a.agents, a.conf.max_agents) || !audit_init(&a.audit, &a.conf, a.conf.max_running) ||
	    !job_init(&a.jobs, &a.conf, &a.loop, &a.audit, &a.agents, a.wall, a.hello.layers) ||
	    !api_init(&a.api, &a.conf, &a.policy, &a.loop, &a.jobs, &a.agents, &a.audit, &a.hello))
		die("taking memory:");
	ssize_t state_n = read_state(state, sizeof state);
	a.api.binary_bytes = (uint64_t)self.st_size;
	loop_add(&a.loop, a.listen_fd, POLLIN, ARENA_LISTEN, 0, &a.listen_slot);
	loop_add(&a.loop, a.signal_fd, POLLIN, ARENA_SIGNAL, 0, &a.signal_slot);
	if (!jail_surrender(jail_uid_base(a.port), &e))
		die("giving up privilege: %s: %s", e.step, strerror(e.error));
	if (state_n >= 0)
		take_state((struct str){state, (size_t)state_n});
	open_log();
	announce();
}

/* ---- the loop ---- */

/* IPv4 as IPv6 has it; of IPv6 the network, as whoever has one address there has them all (RFC 6177). */
static void peer_address(const struct sockaddr_storage *from, unsigned char out[16])
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)from;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)from;

	memset(out, 0, 16);
	if (from->ss_family == AF_UNIX) {
		out[15] = 1; /* as from ::1 */
	} else if (from->ss_family == AF_INET) {
		out[10] = out[11] = 0xff;
		memcpy(out + 12, &v4->sin_addr, 4);
	} else
		memcpy(out, &v6->sin6_addr, IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) || IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ? 16 : 8);
}

static void accept_all(void)
{
	const int on = 1;
	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		struct sockaddr_storage from;
		socklen_t n = sizeof from;
		unsigned char peer[16];
		memset(&from, 0, sizeof from);
		int fd = sys_accept4(a.listen_fd, &from, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			/* replies are whole when they are written: Nagle would only hold them back */
			(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
			peer_address(&from, peer);
			(void)conn_accept(&a.api.conns, fd, peer); /* no place: closed */
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			loop_del(&a.loop, &a.listen_slot);
			loop_timer(&a.loop, &a.accept_timer, PAUSE_MS);
			return;
		}
		if (errno == EAGAIN)
			return; /* the others, accept(2), are of one connection that is gone */
	}
}

static void drain(int status)
{
	if (a.draining)
		return;
	a.draining = true;
	a.status = status;
	notify("STOPPING=1\n");
	loop_del(&a.loop, &a.listen_slot);
	loop_timer_off(&a.loop, &a.accept_timer);
	(void)close(a.listen_fd);
	job_drain(&a.jobs, GRACE_MS);
	api_drain(&a.api);
	loop_timer(&a.loop, &a.drain_timer, GRACE_MS + LEAVE_MS);
}

static void read_signal(void)
{
	struct signalfd_siginfo si;
	if (read(a.signal_fd, &si, sizeof si) != sizeof si)
		return;
	if (si.ssi_signo == SIGHUP) {
		api_reload(&a.api);
		return;
	}
	if (a.draining) {
		a.over = true; /* told twice: now */
		return;
	}
	warn("ending: no new commands; those that run have %d s", GRACE_MS / 1000);
	drain(0);
}

static void one_event(uint32_t kind, uint32_t id, short revents)
{
	switch (kind) {
	case ARENA_LISTEN:
		accept_all();
		break;
	case ARENA_SIGNAL:
		read_signal();
		break;
	case CONN_SOCKET:
		api_event(&a.api, id, revents);
		break;
	default:
		job_event(&a.jobs, kind, id);
	}
}

static void one_timer(struct timer *t)
{
	switch (t->kind) {
	case ARENA_ACCEPT_TIMER:
		loop_add(&a.loop, a.listen_fd, POLLIN, ARENA_LISTEN, 0, &a.listen_slot);
		break;
	case ARENA_DRAIN_TIMER:
		a.over = true;
		break;
	case API_TICK:
	case API_STRETCH:
	case CONN_TIMER:
		api_timer(&a.api, t);
		break;
	default:
		job_timer(&a.jobs, t);
	}
}

static void one_turn(void)
{
	struct loop *l = &a.loop;
	struct timer *t;
	struct job *j;

	if (loop_wait(l) < 0) {
		if (errno != EINTR)
			die("poll:");
		return;
	}
	/* downwards: loop_del fills a hole with the last slot, which was looked at already */
	for (size_t i = l->n; i-- > 0;) {
		if (i >= l->n || !l->fds[i].revents)
			continue;
		short revents = l->fds[i].revents;
		l->fds[i].revents = 0;
		one_event(l->slots[i].kind, l->slots[i].id, revents);
	}
	while ((t = loop_due(l)))
		one_timer(t);
	if (a.jobs.answer.type)
		api_wall_answer(&a.api);
	while ((j = job_next_done(&a.jobs)))
		api_job_done(&a.api, j);
	api_turn(&a.api);
	job_refill(&a.jobs);
	if (a.jobs.lost && !a.draining) {
		warn("the warden is gone, and with it every cell; ending");
		drain(1);
	}
	if (a.draining && a.api.conns.open == 0)
		a.over = true;
}

/* Closing our side ends the warden; it hangs up when nothing of ours is left on the host. */
static void wait_for_warden(void)
{
	struct pollfd p = {a.wall, POLLIN, 0};
	uint64_t until = now_ms() + WARDEN_MS;
	struct msg_tell t;
	int fds[MSG_FDS];

	if (a.jobs.lost || shutdown(a.wall, SHUT_WR) < 0)
		return;
	for (uint64_t now; (now = now_ms()) < until && poll(&p, 1, (int)(until - now)) == 1;) {
		if (msg_recv(a.wall, &t, sizeof t, fds, MSG_FDS, MSG_DONTWAIT) <= 0)
			return;
		for (size_t i = 0; i < MSG_FDS; i++)
			if (fds[i] >= 0)
				(void)close(fds[i]);
	}
}

int main(int argc, char **argv)
{
	start(argc, argv);
#ifdef TEST_HOOK
	test_hook(a.listen_fd, a.warden);
#endif
	while (!a.over)
		one_turn();
	api_note(&a.api, AUDIT_STOP, "version " CONF_VERSION);
	api_save(&a.api); /* the warden meets it before the end of the wall */
	wait_for_warden();
	return a.status;
}
