/* L1: the wall between arena, warden and cell; msg.h says who may send what. */
#include "msg.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "sys.h"

const char *msg_layer_name(enum msg_layer l)
{
	static const char names[LAYERS][13] = {
		"netns", "mountns", "pidns", "rlimits", "no_new_privs", "seccomp", "cgroup", "landlock", "userns",
	};
	return names[l];
}

int msg_pair(int ends[2])
{
	return sys_socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
}

int msg_send(int fd, const void *head, size_t head_n, const void *tail, size_t tail_n, const int *fds, size_t nfds,
        int flags)
{
	union { struct cmsghdr align; char room[CMSG_SPACE(sizeof(int) * MSG_FDS)]; } ctl;
	struct iovec iov[2] = {{(void *)head, head_n}, {(void *)tail, tail_n}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = tail_n ? 2 : 1};
	ssize_t n;

	if (nfds) {
		memset(&ctl, 0, sizeof ctl);
		m.msg_control = ctl.room;
		m.msg_controllen = (socklen_t)CMSG_SPACE(sizeof(int) * nfds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = (socklen_t)CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	while ((n = sendmsg(fd, &m, MSG_NOSIGNAL | flags)) < 0 && errno == EINTR)
		;
	return n < 0 ? -1 : 0; /* SOCK_SEQPACKET: all or nothing */
}

long msg_recv(int fd, void *p, size_t cap, int *fds, size_t nfds, int flags)
{
	union { struct cmsghdr align; char room[CMSG_SPACE(sizeof(int) * MSG_FDS)]; } ctl;
	struct iovec iov = {p, cap};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.room};
	size_t got = 0;
	ssize_t n;

	m.msg_controllen = nfds ? (socklen_t)CMSG_LEN(sizeof(int) * nfds) : 0; /* CMSG_SPACE has room for one more */
	for (size_t i = 0; i < nfds; i++)
		fds[i] = -1;
	while ((n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | flags)) < 0 && errno == EINTR)
		;
	if (n < 0)
		return -1;
	struct cmsghdr *c = CMSG_FIRSTHDR(&m); /* one at most: nothing else was asked for */
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		while (got < count && got < nfds) {
			memcpy(&fds[got], CMSG_DATA(c) + got * sizeof(int), sizeof(int));
			got++;
		}
	}
	/* what did not fit was cut by the kernel: fds beyond the room were never installed */
	if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		while (got)
			(void)close(fds[--got]);
		errno = EMSGSIZE;
		return -1;
	}
	return n;
}

bool msg_check_words(const char *text, size_t n, size_t count)
{
	for (; count; count--) {
		const char *end = n ? memchr(text, '\0', n) : NULL;
		if (!end)
			return false;
		n -= (size_t)(end - text) + 1;
		text = end + 1;
	}
	return n == 0;
}
