/* L3 net: who asks, how much they have had, and how fast they may go on. All memory is taken at start. */
#include "agent.h"

#include <string.h>

#include "hash.h"
#include "json.h"
#include "sys.h"

#define COUNTER(type, name, help) {#name, help, offsetof(struct type, name)}
const struct counter total_counters[TOTAL_COUNTERS] = {
	COUNTER(totals, execs, "Commands that ran."), COUNTER(totals, blocked, "Commands that the policy refused."),
	COUNTER(totals, captured_bytes, "Bytes of output that were kept."), COUNTER(totals, rate_limited, "Requests refused for their rate or for want of a place."),
	COUNTER(totals, over_budget, "Commands refused for their agent's token budget."),
	COUNTER(totals, auth_failures, "Requests with wrong credentials."), COUNTER(totals, logins_slowed, "Requests refused because of wrong log-ins before."),
	COUNTER(totals, timeouts, "Commands ended by their time limit."),
}, agent_counters[AGENT_COUNTERS] = {
	COUNTER(agent, execs, "Commands of an agent that ran."), COUNTER(agent, blocked, "Commands of an agent that the policy refused."),
	COUNTER(agent, bytes, "Bytes of output of an agent's commands."),
	COUNTER(agent, tokens_in, "Tokens that an agent says it read."), COUNTER(agent, tokens_out, "Tokens that an agent says it wrote."),
	COUNTER(agent, rate_limited, "Requests of an agent refused for their rate."),
	COUNTER(agent, over_budget, "Commands of an agent refused for its token budget."),
};
static const struct counter saved_too[] = {COUNTER(agent, budget, ""), COUNTER(agent, last_active, "")}; /* budget: -1 for none of its own */

uint64_t counter_of(const void *from, const struct counter *c)
{
	uint64_t v;
	memcpy(&v, (const char *)from + c->offset, sizeof v);
	return v;
}

uint32_t agent_bucket_ms(size_t bucket)
{
	static const uint32_t ms[AGENT_BUCKETS] = {1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000};
	return bucket < AGENT_BUCKETS ? ms[bucket] : UINT32_MAX;
}

bool agent_init(struct agents *g, size_t max)
{
	*g = (struct agents){.max = max, .agent = sys_memory(max, sizeof *g->agent)};
	return g->agent != NULL;
}

struct agent *agent_find(struct agents *g, struct str name)
{
	for (size_t i = 0; i < g->n; i++)
		if (str_eq(name, g->agent[i].name))
			return &g->agent[i];
	return NULL;
}

uint64_t agent_budget(const struct agent *who, const struct conf *c)
{
	const struct conf_agent *section = conf_agent(c, str_of(who->name));
	return who->budget != CONF_UNSET ? (uint64_t)who->budget :
	       section && section->token_budget != CONF_UNSET ? (uint64_t)section->token_budget : c->default_token_budget;
}

static uint64_t seconds(uint64_t ms)
{
	return (ms + 999) / 1000;
}

struct agent *agent_admit(struct agents *g, const struct conf *c, struct str name, uint64_t now_ms, uint64_t *retry_s)
{
	struct agent *who = agent_find(g, name);
	uint64_t wait_ms = AGENT_IDLE_MS;

	if (who)
		return who;
	size_t reserved = 0; /* places of agents that have a section and did not come yet */
	for (size_t i = 0; i < c->agents; i++)
		reserved += !str_eq(name, c->agent[i].name) && !agent_find(g, str_of(c->agent[i].name));
	if (g->n < g->max && (g->n + reserved < g->max || conf_agent(c, name)))
		who = &g->agent[g->n++];
	else for (struct agent *old = g->agent; old && !who && old < g->agent + g->n; old++) {
		uint64_t idle = now_ms - old->seen_ms;
		if (old->running || old->budget > 0 || (old->budget == CONF_UNSET && agent_budget(old, c) != c->default_token_budget))
			continue;
		if (idle >= AGENT_IDLE_MS)
			who = old;
		else if (AGENT_IDLE_MS - idle < wait_ms)
			wait_ms = AGENT_IDLE_MS - idle;
	}
	*retry_s = seconds(wait_ms);
	if (!who)
		return NULL;
	*who = (struct agent){.budget = CONF_UNSET, .seen_ms = now_ms, .window_ms = now_ms};
	memcpy(who->name, name.p, name.n);
	g->changed = true;
	return who;
}

/* ---- rates ---- */

/* Slices that are a minute old count no more. */
static void slide(struct agent *who, uint64_t now_ms)
{
	uint64_t now = now_ms / AGENT_SLICE_MS, at = who->window_ms / AGENT_SLICE_MS;
	for (uint64_t k = at + 1; k <= now && k <= at + AGENT_SLICES; k++) {
		who->window -= who->slice[k % AGENT_SLICES];
		who->slice[k % AGENT_SLICES] = 0;
	}
	who->window_ms = now_ms;
}

uint32_t agent_rate(struct agent *who, uint64_t now_ms)
{
	slide(who, now_ms);
	return who->window;
}

uint64_t agent_take(struct agent *who, uint64_t limit, uint64_t now_ms)
{
	uint64_t now = now_ms / AGENT_SLICE_MS, oldest = now < AGENT_SLICES ? 0 : now - AGENT_SLICES + 1;
	uint32_t left = agent_rate(who, now_ms);

	if ((limit == 0 || left < limit) && who->slice[now % AGENT_SLICES] < UINT16_MAX) {
		who->slice[now % AGENT_SLICES]++;
		who->window++;
		return 0;
	}
	/* the slice whose end leaves room, a minute later */
	for (; left >= limit && oldest <= now; oldest++)
		left -= who->slice[oldest % AGENT_SLICES];
	return seconds((oldest - 1 + AGENT_SLICES) * AGENT_SLICE_MS - now_ms);
}

uint64_t bucket_take(struct bucket *b, uint64_t per_minute, uint64_t burst, uint64_t now_ms)
{
	/* in units of which one request has as many as a minute has milliseconds: they drain per_minute a millisecond */
	uint64_t drained = (now_ms - b->at_ms) * per_minute, one = 60000;

	if (per_minute == 0)
		return 0;
	b->used = drained < b->used ? b->used - drained : 0;
	b->at_ms = now_ms;
	if (b->used + one > burst * one)
		return seconds((b->used + one - burst * one + per_minute - 1) / per_minute);
	b->used += one;
	return 0;
}

uint64_t agent_login_wait(struct agents *g, const unsigned char address[16], bool failed, uint64_t now_ms)
{
	static const unsigned char loopback[13] = {[10] = 0xff, [11] = 0xff, [12] = 127};
	bool local = memcmp(address, loopback, sizeof loopback) == 0; /* all of 127/8 is this host */
	struct peer *p = NULL, *quiet = NULL;
	for (size_t i = 0; !p && i < AGENT_PEERS; i++) {
		struct peer *one = &g->peer[i];
		if (memcmp(one->address, address, local ? sizeof loopback : sizeof one->address) == 0)
			p = one;
		else if ((now_ms - one->failures.at_ms) * AGENT_FAILURES >= one->failures.used)
			quiet = one; /* its failures are forgiven by now */
	}
	if (!p && quiet && failed) {
		*quiet = (struct peer){.failures = {0, 0}};
		memcpy(quiet->address, address, sizeof quiet->address);
	}
	if (!p && quiet && !failed)
		return 0;
	if (!p) /* so many addresses fail that all others wait together */
		p = quiet ? quiet : &g->peer[0];
	struct bucket try = p->failures;
	uint64_t wait_s = bucket_take(&try, AGENT_FAILURES, AGENT_FAILURES, now_ms);
	if (failed && wait_s == 0)
		p->failures = try;
	return wait_s;
}

/* ---- counters ---- */

void agent_ran(struct agents *g, struct agent *who, uint64_t bytes, uint64_t took_us, bool timed_out)
{
	size_t k = 0;
	while (k < AGENT_BUCKETS && took_us > (uint64_t)agent_bucket_ms(k) * 1000)
		k++;
	g->total.took[k]++;
	g->total.took_us += took_us;
	g->total.execs++;
	g->total.captured_bytes += bytes;
	g->total.timeouts += timed_out;
	who->execs++;
	who->bytes += bytes;
	g->changed = true;
}

void agent_reset(struct agents *g)
{
	bool running = false;
	for (size_t i = 0; i < g->n; i++)
		running = running || g->agent[i].running;
	for (size_t i = g->n; i-- > 0;) {
		struct agent *who = &g->agent[i], old = *who;
		*who = (struct agent){.budget = old.budget, .running = old.running, .seen_ms = old.seen_ms, .window_ms = old.window_ms};
		memcpy(who->name, old.name, sizeof who->name);
		if (!running && old.budget == CONF_UNSET) /* a command holds a pointer to its agent's place */
			*who = g->agent[--g->n];
	}
	g->total = (struct totals){.execs = 0};
	g->changed = true;
}

/* ---- the state file: a line with the digest of the rest, which is JSON ---- */

static const char magic[] = "omniarena-state 1 ";
enum { HEAD = sizeof magic - 1 + HASH_HEX + 1 };

static void put_numbers(struct json_writer *w, const void *from, const struct counter *field, size_t n)
{
	for (size_t i = 0; i < n; i++)
		json_put_number(w, field[i].name, (int64_t)counter_of(from, &field[i]));
}

void agent_save(const struct agents *g, const struct chain *head, struct buf *out)
{
	struct json_writer w = {.b = out};
	char digest[HASH_HEX];

	if (out->cap < HEAD) {
		out->full = true;
		return;
	}
	out->n = HEAD;
	json_put(&w, "{head_seq:%lu", head->seq);
	json_put_string(&w, "head_hash", (struct str){head->hash, HASH_HEX});
	json_put(&w, "totals:{");
	put_numbers(&w, &g->total, total_counters, TOTAL_COUNTERS);
	json_put(&w, "} agents:[");
	for (size_t i = 0; i < g->n; i++) {
		json_put(&w, "{name:%s model:%s", g->agent[i].name, g->agent[i].model);
		put_numbers(&w, &g->agent[i], agent_counters, AGENT_COUNTERS);
		put_numbers(&w, &g->agent[i], saved_too, countof(saved_too));
		json_put(&w, "}");
	}
	json_put(&w, "]}");
	buf_put(out, "\n", 1);
	sha256_hex((struct str){out->p + HEAD, out->n - HEAD}, digest);
	struct buf line = {out->p, 0, HEAD, false};
	buf_printf(&line, "%s%.*s\n", magic, HASH_HEX, digest);
}

/* What the digest covers was written by us, so only what a later version might add is met here. */
static void take_number(void *to, const struct counter *field, size_t n, const struct json_token *t)
{
	int64_t v;
	for (size_t i = 0; i < n; i++)
		if (t->kind == JSON_NUMBER && json_is(t->key, field[i].name) && json_int(t->text, &v))
			memcpy((char *)to + field[i].offset, &v, sizeof v);
}

static void take_text(char *to, size_t cap, struct json_token *t, const char *name)
{
	if (t->kind != JSON_STRING || !json_is(t->key, name))
		return;
	struct str s = json_unescape(t->text);
	if (s.n < cap)
		memcpy(to, s.p, s.n);
}

static void take_agents(struct agents *g, struct json_reader *r)
{
	for (struct json_token t; json_next(r, &t) == JSON_OBJECT;) {
		struct agent who = {.budget = CONF_UNSET};
		while (json_next(r, &t) != JSON_CLOSE && t.kind != JSON_END) {
			(void)json_skip(r, &t);
			take_text(who.name, sizeof who.name, &t, "name");
			take_text(who.model, sizeof who.model, &t, "model");
			take_number(&who, agent_counters, AGENT_COUNTERS, &t);
			take_number(&who, saved_too, countof(saved_too), &t);
		}
		who.seen_ms = who.window_ms = now_ms(); /* nobody was idle while we were not there */
		if (g->n < g->max && conf_is_name(str_of(who.name)))
			g->agent[g->n++] = who;
		else
			warn("agent %s of the state file has no place: --max-agents is %zu", who.name, g->max);
	}
}

bool agent_load(struct agents *g, struct chain *head, struct str text)
{
	struct str in = {text.p + HEAD, text.n - HEAD};
	struct json_reader r;
	struct json_token t;
	char digest[HASH_HEX];

	if (text.n < HEAD || memcmp(text.p, magic, sizeof magic - 1) != 0)
		return false;
	sha256_hex(in, digest);
	if (memcmp(text.p + sizeof magic - 1, digest, HASH_HEX) != 0 || json_check(in, NULL))
		return false;
	(void)json_enter(&r, in);
	while (json_next(&r, &t) != JSON_CLOSE && t.kind != JSON_END) {
		take_number(head, &(const struct counter){"head_seq", "", offsetof(struct chain, seq)}, 1, &t);
		if (t.kind == JSON_STRING && json_is(t.key, "head_hash") && t.text.n == HASH_HEX)
			memcpy(head->hash, t.text.p, HASH_HEX);
		else if (t.kind == JSON_ARRAY && json_is(t.key, "agents"))
			take_agents(g, &r);
		else if (t.kind == JSON_OBJECT && json_is(t.key, "totals"))
			while (json_next(&r, &t) != JSON_CLOSE && t.kind != JSON_END)
				take_number(&g->total, total_counters, TOTAL_COUNTERS, &t);
		else
			(void)json_skip(&r, &t);
	}
	return true;
}
