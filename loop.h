/* L1: the poll loop's bookkeeping: pollfd slots with a kind, and timers in order. It calls
 * nobody: what happened is read off the slots, and a due timer is handed out. */
#ifndef LOOP_H
#define LOOP_H
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* at: when, in the loop's milliseconds. kind and id mean something to the owner only. */
struct timer { uint64_t at; uint32_t kind, id; int place; /* in the heap, -1 when not set */ };

struct loop {
	struct pollfd *fds; /* dense: the first n are in use */
	struct loop_slot { uint32_t kind, id; int *back; } *slots;
	size_t n, cap;
	struct timer **heap;
	size_t timers, timers_cap;
	uint64_t now; /* read once a turn */
};

/* Takes memory for fds and timers at most; false when there is none. */
bool loop_init(struct loop *l, size_t fds, size_t timers);
/* Watches fd; *slot, which must stay where it is until loop_del, is kept up to date and is -1
 * while not watched. There is room as long as the caller keeps to its own numbers. */
void loop_add(struct loop *l, int fd, short events, uint32_t kind, uint32_t id, int *slot);
void loop_mod(struct loop *l, int slot, short events);
/* Forgets the slot (the fd stays open); another one moves into its place. */
void loop_del(struct loop *l, int *slot);
/* Sleeps until an fd or the first timer is ready; updates now. -1 and errno, EINTR included. */
int loop_wait(struct loop *l);

/* Sets or moves t, delay in milliseconds from now. */
void loop_timer(struct loop *l, struct timer *t, uint64_t delay_ms);
void loop_timer_off(struct loop *l, struct timer *t);
/* Takes out the first timer that is due, or NULL. */
struct timer *loop_due(struct loop *l);
#endif
