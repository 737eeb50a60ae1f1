/* loop.c: timers come out in order however they were set, moved and taken back; slots stay with
 * their owners. */
#include "unit.h"

#include "../loop.h"
#include "../util.h"

enum { N = 500 };

static uint32_t seed = 7;

static uint32_t random_number(uint32_t below)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % below;
}

static void timers(void)
{
	static struct timer t[N];
	struct loop l;
	uint64_t last = 0;
	size_t set = 0, out = 0;

	check(loop_init(&l, 1, N), "memory");
	for (uint32_t i = 0; i < N; i++)
		t[i] = (struct timer){.id = i, .place = -1};
	for (int i = 0; i < 20 * N; i++) {
		struct timer *one = &t[random_number(N)];
		if (random_number(3))
			loop_timer(&l, one, random_number(1000));
		else
			loop_timer_off(&l, one);
	}
	for (size_t i = 0; i < N; i++)
		set += t[i].place >= 0;
	check(set == l.timers, "%zu are set, %zu are kept", set, l.timers);
	bool order = true, early = false;
	for (uint64_t start = l.now; l.timers && l.now < start + 2000; l.now++)
		for (struct timer *due; (due = loop_due(&l)); out++, last = due->at) {
			order = order && due->at >= last && due->place < 0;
			early = early || due->at > l.now;
		}
	check(order && !early && out == set, "%zu of %zu came, in order: %d, early: %d", out, set, order, early);
	check(loop_due(&l) == NULL, "nothing is left");
}

static void slots(void)
{
	struct loop l;
	static int slot[N];
	bool right = true;

	check(loop_init(&l, N, 1), "memory");
	for (int i = 0; i < N; i++)
		slot[i] = -1;
	for (int i = 0; i < 20 * N; i++) {
		uint32_t k = random_number(N);
		if (slot[k] < 0)
			loop_add(&l, (int)k + 1000, 1, 5, k, &slot[k]);
		else if (random_number(2))
			loop_del(&l, &slot[k]);
		for (uint32_t j = 0; j < N; j += 37)
			right = right && (slot[j] < 0 || (l.fds[slot[j]].fd == (int)j + 1000 && l.slots[slot[j]].id == j));
	}
	size_t used = 0;
	for (int i = 0; i < N; i++)
		used += slot[i] >= 0;
	check(right && used == l.n, "slots and owners agree: %d, %zu of %zu", right, used, l.n);
}

int main(void)
{
	timers();
	slots();
	return unit_end("unit_loop");
}
