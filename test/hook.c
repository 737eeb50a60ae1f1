/* Linked into a test build (-DTEST_HOOK) only: what a thief inside arena would try, at the point
 * where it serves the network. Each attempt in a process of its own would need fork, which arena
 * may not call either; so one run of the binary makes one attempt, told by the environment before
 * that was wiped: the compile-time TEST_HOOK number. Whoever survives its attempt says so. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../msg.h"
#include "../util.h"

void test_hook(int listen_fd, pid_t warden);

/* Of whatever is a socket, one is the wall. */
static void ask_for_rotations(void)
{
	const struct msg_ask ask = {.type = MSG_FETCH, .id = UINT32_MAX, .profile = MSG_LOG_ROTATE};
	for (int fd = 3; fd < 64; fd++)
		for (int i = 0; i < 30; i++)
			(void)send(fd, &ask, sizeof ask, MSG_NOSIGNAL);
	(void)poll(NULL, 0, 2000); /* the warden has them all */
}

void
test_hook(int listen_fd, pid_t warden)
{
	long r = 0;
	switch (TEST_HOOK) {
	case 1: r = open("/etc/passwd", O_RDONLY); break;
	case 2: r = execl("/bin/true", "true", (char *)NULL); break;
	case 3: r = socket(AF_INET, SOCK_STREAM, 0); break;
	case 4: r = kill(warden, SIGKILL); break;
	case 5: r = fork(); break;
	case 6: r = ptrace(PTRACE_ATTACH, warden, NULL, NULL); break;
	case 7: r = (long)mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == -1; break;
	case 8: r = listen(listen_fd, 1); break;
	case 9: r = setuid(0); break;
	case 10: r = chdir(".."); break;
	case 11: r = ftruncate(listen_fd + 1, 0); break;
	case 12: r = pwrite(listen_fd + 1, "x", 1, 0); break;
	case 13: ask_for_rotations(); break; /* allowed, and to no avail */
	}
	warn("hook %d survived: %ld", TEST_HOOK, r);
	_exit(99);
}
