/* agent.c against a plain model of it, with a clock of our own: a hundred thousand seconds take none. */
#include "unit.h"

#include "../agent.h"
#include "../util.h"

static uint32_t seed = 11;

static uint32_t random_number(uint32_t below)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % below;
}

/* Never more than limit in any minute (but for the tenth of a second that the slices have), and who waits as long as
 * he was told is let in. */
static void minutes(uint32_t limit)
{
	static uint64_t at[200000];
	static struct agent who;
	size_t n = 0, first = 0, early = 0, late = 0;
	uint64_t now = 1000 + random_number(1000);

	who = (struct agent){.window_ms = now};
	for (int i = 0; i < 20000; i++) {
		now += random_number(4) ? random_number(60000 / limit) : random_number(200);
		uint64_t wait_s = agent_take(&who, limit, now);
		if (wait_s) {
			early += wait_s > 60;
			now += wait_s * 1000;
			late += agent_take(&who, limit, now) != 0;
		}
		at[n++] = now;
		while (at[first] + AGENT_WINDOW_MS - AGENT_SLICE_MS <= now)
			first++;
		early += n - first > limit;
	}
	check(early == 0, "%u a minute: %zu times more, or told to wait more than a minute", limit, early);
	check(late == 0, "%u a minute: %zu times refused after waiting", limit, late);
	check(agent_rate(&who, now + AGENT_WINDOW_MS) == 0, "a minute later none counts");
	check(agent_take(&who, 0, now) == 0, "0 is no limit");
}

static void buckets(uint64_t per_minute, uint64_t burst)
{
	struct bucket b = {0, 0};
	uint64_t now = 5000, begun = now, n = 0, at_once = 0, wrong = 0;

	while (bucket_take(&b, per_minute, burst, now) == 0)
		at_once++;
	check(at_once == burst, "%llu at once instead of %llu", (unsigned long long)at_once, (unsigned long long)burst);
	for (n = at_once; n < 5000; n++) {
		now += random_number(2000);
		uint64_t wait_s = bucket_take(&b, per_minute, burst, now);
		if (wait_s) {
			now += wait_s * 1000;
			wrong += bucket_take(&b, per_minute, burst, now) != 0;
		}
		wrong += n + 1 > burst + (now - begun) * per_minute / 60000;
	}
	check(wrong == 0, "%llu a minute: %llu times wrong", (unsigned long long)per_minute, (unsigned long long)wrong);
	check(bucket_take(&b, 0, 0, now) == 0, "0 is no limit");
}

static void places(void)
{
	static struct conf c;
	struct agents g;
	uint64_t retry_s = 0, now = 10000000;

	check(agent_init(&g, 2), "memory");
	struct agent *a = agent_admit(&g, &c, str_of("a"), now, &retry_s), *b = agent_admit(&g, &c, str_of("b"), now + 1000, &retry_s);
	check(a && b && agent_admit(&g, &c, str_of("a"), now, &retry_s) == a, "two agents");
	check(!agent_admit(&g, &c, str_of("c"), now + 2000, &retry_s) && retry_s == 3598, "no third one, for %llu s", (unsigned long long)retry_s);
	a->running = 1;
	check(!agent_admit(&g, &c, str_of("c"), now + AGENT_IDLE_MS + 500, &retry_s) && retry_s == 1, "who runs something stays: %llu", (unsigned long long)retry_s);
	b->budget = 5;
	check(!agent_admit(&g, &c, str_of("c"), now + 2 * AGENT_IDLE_MS, &retry_s) && retry_s == 3600, "who has a budget stays");
	b->budget = CONF_UNSET;
	b->execs = 7;
	check(agent_admit(&g, &c, str_of("c"), now + 2 * AGENT_IDLE_MS, &retry_s) == b && b->execs == 0 && !agent_find(&g, str_of("b")), "who was idle makes room");
}

static void log_ins(void)
{
	static struct agents g;
	unsigned char address[16] = {1}, other[16] = {2};
	uint64_t now = 100000, wait_s = 0;

	for (int i = 0; i < AGENT_FAILURES; i++) {
		wait_s += agent_login_wait(&g, address, false, now);
		(void)agent_login_wait(&g, address, true, now);
	}
	check(wait_s == 0, "ten may fail");
	wait_s = agent_login_wait(&g, address, false, now);
	check(wait_s == 6 && agent_login_wait(&g, other, false, now) == 0, "then that address waits %llu s", (unsigned long long)wait_s);
	check(agent_login_wait(&g, address, false, now + wait_s * 1000) == 0, "and may try again");
	/* a crowd of addresses pushes out the oldest, not the busy one */
	for (unsigned i = 0; i < 2 * AGENT_PEERS; i++) {
		unsigned char many[16] = {3, (unsigned char)i};
		(void)agent_login_wait(&g, many, true, now + i);
		(void)agent_login_wait(&g, address, true, now + i);
	}
	check(agent_login_wait(&g, address, false, now + 2 * AGENT_PEERS) > 0, "it still waits");
}

/* What was saved is read again; whatever is changed in it is seen, whatever is cut off as well. */
static void state(void)
{
	static char text[65536], copy[65536];
	struct buf out = {text, 0, sizeof text, false};
	struct chain head = {.seq = 42}, got = {.seq = 0};
	static struct conf c;
	struct agents g, h;
	uint64_t retry_s;
	size_t taken = 0;

	memset(head.hash, 'a', sizeof head.hash);
	check(agent_init(&g, 3) && agent_init(&h, 3), "memory");
	struct agent *a = agent_admit(&g, &c, str_of("x.1"), 1, &retry_s);
	a->execs = 1ull << 40;
	a->budget = 0;
	memcpy(a->model, "m\"\\", 4);
	g.total.blocked = 5;
	agent_save(&g, &head, &out);
	check(!out.full && agent_load(&h, &got, (struct str){text, out.n}), "it is read");
	check(h.n == 1 && h.agent[0].execs == 1ull << 40 && h.agent[0].budget == 0 && strcmp(h.agent[0].model, "m\"\\") == 0 && h.total.blocked == 5,
	      "and is the same");
	check(got.seq == 42 && memcmp(got.hash, head.hash, HASH_HEX) == 0, "with the head");
	for (size_t i = 0; i < out.n; i++) {
		char *end = guard_copy(text, i);
		taken += agent_load(&h, &got, (struct str){end, i});
		guard_free(end, i);
		memcpy(copy, text, out.n);
		copy[i] ^= 1;
		taken += agent_load(&h, &got, (struct str){copy, out.n});
	}
	check(taken == 0, "%zu damaged ones were taken", taken);
}

int main(void)
{
	for (uint32_t limit = 1; limit <= 100; limit += 11)
		minutes(limit);
	buckets(10, 10);
	buckets(1200, 20);
	buckets(60, 1);
	places();
	log_ins();
	state();
	return unit_end("unit_agent");
}
