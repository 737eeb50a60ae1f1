/* L1: the poll loop's bookkeeping: pollfd slots with a kind, and timers in a binary heap. */
#include "loop.h"

#include <limits.h>

#include "sys.h"
#include "util.h"

bool loop_init(struct loop *l, size_t fds, size_t timers)
{
	*l = (struct loop){.cap = fds, .timers_cap = timers, .now = now_ms()};
	l->fds = sys_memory(fds, sizeof *l->fds);
	l->slots = sys_memory(fds, sizeof *l->slots);
	l->heap = sys_memory(timers, sizeof *l->heap);
	return l->fds && l->slots && l->heap;
}

void loop_add(struct loop *l, int fd, short events, uint32_t kind, uint32_t id, int *slot)
{
	if (l->n == l->cap)
		die("more fds to watch than were counted at start");
	l->fds[l->n] = (struct pollfd){fd, events, 0};
	l->slots[l->n] = (struct loop_slot){kind, id, slot};
	*slot = (int)l->n++;
}

void loop_mod(struct loop *l, int slot, short events)
{
	l->fds[slot].events = events;
}

void loop_del(struct loop *l, int *slot)
{
	size_t i = (size_t)*slot, last = l->n - 1;
	if (*slot < 0)
		return;
	*slot = -1;
	if (i != last) {
		l->fds[i] = l->fds[last];
		l->slots[i] = l->slots[last];
		*l->slots[i].back = (int)i;
	}
	l->n = last;
}

int loop_wait(struct loop *l)
{
	int wait = -1;
	if (l->timers) {
		uint64_t at = l->heap[0]->at, now = now_ms();
		uint64_t left = at > now ? at - now : 0;
		wait = left > INT_MAX ? INT_MAX : (int)left;
	}
	int n = poll(l->fds, l->n, wait);
	l->now = now_ms();
	return n;
}

static void place(struct loop *l, size_t i, struct timer *t)
{
	l->heap[i] = t;
	t->place = (int)i;
}

/* Moves t from place i to where it belongs. */
static void sift(struct loop *l, size_t i, struct timer *t)
{
	while (i && l->heap[(i - 1) / 2]->at > t->at) {
		place(l, i, l->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	for (size_t c; (c = 2 * i + 1) < l->timers; i = c) {
		if (c + 1 < l->timers && l->heap[c + 1]->at < l->heap[c]->at)
			c++;
		if (l->heap[c]->at >= t->at)
			break;
		place(l, i, l->heap[c]);
	}
	place(l, i, t);
}

void loop_timer(struct loop *l, struct timer *t, uint64_t delay_ms)
{
	if (t->place < 0 && l->timers == l->timers_cap)
		die("more timers than were counted at start");
	size_t i = t->place < 0 ? l->timers++ : (size_t)t->place;
	t->at = l->now + delay_ms;
	sift(l, i, t);
}

void loop_timer_off(struct loop *l, struct timer *t)
{
	if (t->place < 0)
		return;
	size_t i = (size_t)t->place;
	struct timer *last = l->heap[--l->timers];
	t->place = -1;
	if (last != t)
		sift(l, i, last);
}

struct timer *loop_due(struct loop *l)
{
	struct timer *t = l->timers ? l->heap[0] : NULL;
	if (!t || t->at > l->now)
		return NULL;
	loop_timer_off(l, t);
	return t;
}
