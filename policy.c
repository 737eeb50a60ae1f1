/* L2 net: the two lists, and what they say about a command line. shell.c finds the commands; here it
 * is decided which program each of them would start, and whether it may. Nothing is run. */
#include "policy.h"

#include <string.h>

static const char list_names[POLICY_LISTS][10] = {"blacklist", "whitelist"};
static const char *const defaults[POLICY_LISTS] = {
	"rm -rf /\nmkfs\ndd if=\n:(){\nwget\ncurl\nnc\nncat\nssh\nscp\nsudo\nsu\nchmod 777 /\nshutdown\nreboot\nmount\niptables\n",
	"ls\ncat\necho\npwd\nhead\ntail\nwc\ngrep\nfind\nsort\nuniq\ndate\nwhoami\npython3\n",
};

/* Of a POSIX shell and bash: what starts nothing and loads nothing. */
static const char harmless[] =
	"echo cd : [ [[ bg break continue declare dirs disown exit export false fg getopts hash jobs kill let local logout popd "
	"printf pushd pwd read readonly return set shift shopt suspend test times true type typeset ulimit umask unalias unset wait";
/* Of these the words name variables that are set; bash evaluates subscripts in them, and in the others', too. */
static const char sets_variables[] = "declare export getopts local read readonly typeset";
static const char evaluates[] = "[ [[ let test unset";
/* With this option: hash gives a program another name, jobs runs one, printf sets a variable (all in bash). */
static const struct { char name[8], letter; } renaming[] = {{"hash", 'p'}, {"jobs", 'x'}, {"printf", 'v'}};
/* A shell runs text that it finds in these: PS4 as a trace's prompt, the others as files. */
static const char run_by_shells[] = "PS4 ENV BASH_ENV PROMPT_COMMAND PS1 PS2 SHELLOPTS BASHOPTS";

static const char program_folders[] = "/bin/ /sbin/ /usr/bin/ /usr/sbin/ /usr/local/bin/ /usr/local/sbin/ /usr/games/ /usr/local/games/";

/* Programs and builtins that start what their words say. */
enum starts {
	PROGRAM,  /* behind the options and skip operands: a program and its words */
	FED,      /* the same, completed from what it reads */
	ASSIGNED, /* env: assignments before the program, -S splits a text */
	ASKS,     /* command: with -v it starts nothing */
	SCRIPT,   /* a shell: -c and a text */
	TEXT,     /* eval: all words together are a text */
	TRAP,     /* the first operand is a text */
	FOUND,    /* find: -exec and its kin */
	OPTION,   /* an option names the program */
	UNKNOWN,  /* what it runs can't be known from its words */
	ALIAS,    /* name=text, which is run where the name stands */
};
static const struct starter {
	char name[9];
	uint8_t how;        /* enum starts */
	bool builtin;       /* it is a part of the shell, and needs no place in a list */
	char with[15];      /* short options that take a word */
	uint8_t skip;       /* operands before the program */
} starters[] = {
	{"env", ASSIGNED, false, "uCS", 0}, {"xargs", FED, false, "adEILnPs", 0}, {"nice", PROGRAM, false, "n", 0},
	{"nohup", PROGRAM, false, "", 0}, {"timeout", PROGRAM, false, "ks", 1}, {"time", PROGRAM, false, "fo", 0},
	{"stdbuf", PROGRAM, false, "ioe", 0}, {"setsid", PROGRAM, false, "", 0}, {"ionice", PROGRAM, false, "cnpPu", 0},
	{"chroot", PROGRAM, false, "", 1}, {"busybox", PROGRAM, false, "", 0}, {"toybox", PROGRAM, false, "", 0},
	{"coproc", PROGRAM, true, "", 0}, {"chrt", PROGRAM, false, "TPD", 1}, {"taskset", PROGRAM, false, "", 1},
	{"sudo", PROGRAM, false, "CDghpRrtTUu", 0}, {"doas", PROGRAM, false, "Cu", 0}, {"unshare", PROGRAM, false, "RwSG", 0},
	{"nsenter", PROGRAM, false, "tSG", 0}, {"setarch", PROGRAM, false, "", 1},
	{"strace", PROGRAM, false, "abeEIoOpPsSuUX", 0}, {"prlimit", PROGRAM, false, "p", 0},
	{"flock", PROGRAM, false, "cwE", 1}, {"watch", TEXT, false, "nq", 0}, {"command", ASKS, true, "", 0},
	{"builtin", PROGRAM, true, "", 0}, {"exec", PROGRAM, true, "a", 0}, {"eval", TEXT, true, "", 0},
	{"trap", TRAP, true, "", 0}, {".", UNKNOWN, true, "", 0}, {"source", UNKNOWN, true, "", 0},
	{"alias", ALIAS, true, "", 0}, {"sh", SCRIPT, false, "oO", 0}, {"bash", SCRIPT, false, "oO", 0},
	{"dash", SCRIPT, false, "o", 0}, {"ash", SCRIPT, false, "o", 0}, {"ksh", SCRIPT, false, "o", 0},
	{"mksh", SCRIPT, false, "o", 0}, {"zsh", SCRIPT, false, "o", 0}, {"rbash", SCRIPT, false, "oO", 0},
	{"find", FOUND, false, "", 0}, {"sort", OPTION, false, "", 0}, {"tar", OPTION, false, "I", 0},
};
/* Their long options that take a word: the program, then they. */
static const char with_long[] =
	"env unset chdir split-string argv0\0" "xargs arg-file delimiter max-args max-chars max-procs process-slot-var\0"
	"nice adjustment\0" "timeout kill-after signal\0" "time format output\0" "stdbuf input output error\0"
	"ionice class classdata pid pgid uid\0" "chroot userspec groups\0"
	"chrt sched-runtime sched-period sched-deadline\0" "sudo user group host prompt chdir chroot role type close-from\0"
	"unshare root wd setuid setgid\0" "nsenter target setuid setgid\0" "prlimit pid\0"
	"flock command wait timeout conflict-exit-code\0" "watch interval equexit\0" "sh rcfile init-file\0"
	"bash rcfile init-file\0" "sort compress-program\0" "tar use-compress-program to-command\0";

/* ---- rules ---- */

/* FNV-1a, a byte at a time, and what of it is a place in the table. */
enum { HASH_BEGIN = 0x811c9dc5 };

static uint32_t hash_step(uint32_t h, char c)
{
	return (h ^ (unsigned char)c) * 16777619u;
}

static unsigned hash_place(uint32_t h)
{
	return (h ^ h >> 16) % POLICY_HASH;
}

static unsigned hash_of(struct str s)
{
	uint32_t h = HASH_BEGIN;
	for (size_t i = 0; i < s.n; i++)
		h = hash_step(h, s.p[i]);
	return hash_place(h);
}

static bool same(struct str a, struct str b)
{
	return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

/* The first of some words with blanks between that begins with this text, which is not empty, or NULL. */
static const char *find_word(const char *list, struct str begin, bool whole)
{
	for (struct str rest = str_of(list), word; str_word(&rest, &word);)
		if (word.n >= begin.n && (!whole || word.n == begin.n) && memcmp(word.p, begin.p, begin.n) == 0)
			return word.p;
	return NULL;
}

static bool in_words(struct str name, const char *list)
{
	return name.n && find_word(list, name, true);
}

static bool is_among(const struct str *list, size_t n, struct str s)
{
	for (size_t i = 0; i < n; i++)
		if (same(list[i], s))
			return true;
	return false;
}

static struct str base_name(struct str s)
{
	const char *slash = s.n ? memrchr(s.p, '/', s.n) : NULL;
	return slash ? (struct str){slash + 1, s.n - (size_t)(slash + 1 - s.p)} : s;
}

static bool is_text_rule(struct str pattern)
{
	for (size_t i = 0; i < pattern.n; i++)
		if (strchr(";&|()<>{}`$\"'\\", pattern.p[i]))
			return true;
	return false;
}

/* NULL, or what is wrong with a rule. */
static const char *check_pattern(enum policy_list list, struct str pattern)
{
	struct str rest = pattern, name;

	if (pattern.n == 0 || pattern.n > POLICY_PATTERN_MAX)
		return pattern.n ? "a rule has at most 200 bytes" : "the rule is empty";
	for (size_t i = 0; i < pattern.n; i++)
		if ((unsigned char)pattern.p[i] < ' ' || pattern.p[i] == 0x7f || (pattern.p[i] == '#' && (i == 0 || pattern.p[i - 1] == ' ')))
			return "a rule has no control characters, and no word that begins with '#'";
	if (pattern.p[0] == ' ' || pattern.p[pattern.n - 1] == ' ' || (pattern.p[0] == '[' && pattern.p[pattern.n - 1] == ']'))
		return "a rule neither begins nor ends with a blank, and does not look like a [section]";
	if (list == POLICY_WHITE && is_text_rule(pattern))
		return "the whitelist has programs; a rule with shell punctuation names none";
	if (!is_text_rule(pattern) && (!str_word(&rest, &name) || base_name(name).n == 0 || pattern.p[0] == '-'))
		return "a rule begins with the name of a program";
	return NULL;
}

static void add_rule(struct policy *p, enum policy_list list, struct str text)
{
	struct policy_rule *r = &p->rule[p->rules++];
	struct str rest = text;

	*r = (struct policy_rule){.text = text, .list = list};
	p->count[list]++;
	if (is_text_rule(text))
		return;
	(void)str_word(&rest, &r->name); /* check_pattern saw one */
	r->name = base_name(r->name);
	r->words = str_word(&rest, &(struct str){NULL, 0});
	uint16_t *head = &p->hash[hash_of(r->name)];
	r->next = *head;
	*head = (uint16_t)p->rules;
}

static int list_of(struct str section)
{
	for (int l = 0; l < POLICY_LISTS; l++)
		if (str_eq(section, list_names[l]))
			return l;
	return -1;
}

/* Which of the tables above has a name of this hash: most names are in none. */
enum { HARMLESS = 1, STARTER = 2 };

static void build(struct policy *p)
{
	bool has[POLICY_LISTS] = {false, false};
	struct conf_reader r = {.rest = {p->file, p->file_n}};
	struct str entry;

	p->rules = 0;
	memset(p->count, 0, sizeof p->count);
	memset(p->hash, 0, sizeof p->hash);
	for (struct str rest = str_of(harmless), name; str_word(&rest, &name);)
		p->known[hash_of(name)] |= HARMLESS;
	for (size_t i = 0; i < countof(starters); i++)
		p->known[hash_of(str_of(starters[i].name))] |= STARTER;
	while (conf_next(&r, &entry)) {
		int l = list_of(r.section);
		if (l >= 0 && !r.header)
			add_rule(p, l, entry);
		if (l >= 0)
			has[l] = true;
	}
	for (enum policy_list l = 0; l < POLICY_LISTS; l++)
		for (struct str rest = str_of(defaults[l]), line; !has[l] && str_cut(&rest, '\n', &line);)
			add_rule(p, l, line);
}

bool policy_load(struct policy *p, struct str text, const char *file_name, char *why, size_t cap)
{
	struct conf_reader r = {.rest = text};
	size_t n = 64; /* the defaults, twice over */
	struct str entry;

	while (conf_next(&r, &entry)) {
		int l = list_of(r.section);
		const char *wrong = l < 0 || r.header ? NULL : ++n > POLICY_RULES ? "there are too many rules" : check_pattern(l, entry);
		if (wrong) {
			(void)text_printf(why, cap, "%s:%u: %s", file_name, r.line, wrong);
			return false;
		}
	}
	if (text.n)
		memcpy(p->file, text.p, text.n); /* conf_apply saw that it fits */
	p->file_n = text.n;
	build(p);
	return true;
}

/* Puts text in place of n bytes of the file at a place. */
static bool splice(struct policy *p, size_t at, size_t n, struct str text)
{
	if (p->file_n - n + text.n > sizeof p->file)
		return false;
	memmove(p->file + at + text.n, p->file + at + n, p->file_n - at - n);
	if (text.n)
		memcpy(p->file + at, text.p, text.n);
	p->file_n += text.n - n;
	return true;
}

const char *policy_edit(struct policy *p, bool add, enum policy_list list, struct str pattern)
{
	static char text[4096];
	struct conf_reader r = {.rest = {p->file, p->file_n}};
	struct buf b = {text, 0, sizeof text, false};
	const char *wrong = check_pattern(list, pattern);
	size_t at = 0, rule = 0;
	bool has = false, there = false;
	struct str entry;

	for (; rule < p->rules && !there; rule++)
		there = p->rule[rule].list == list && same(p->rule[rule].text, pattern);
	if (wrong || (add && there))
		return wrong; /* it is in force already */
	if (!add && !there)
		return "there is no such rule in that list";
	if (add && p->rules + 64 > POLICY_RULES)
		return "there are too many rules";
	while (conf_next(&r, &entry)) {
		if (list_of(r.section) != (int)list)
			continue;
		has = true;
		at = (size_t)(r.raw.p - p->file) + r.raw.n; /* behind the section's last entry */
		if (!add && !r.header && same(entry, pattern)) {
			(void)splice(p, (size_t)(r.raw.p - p->file), r.raw.n, (struct str){NULL, 0}); /* shorter */
			r.rest = (struct str){r.raw.p, p->file_n - (size_t)(r.raw.p - p->file)};
		}
	}
	if (!has) { /* the defaults were in force: from now on the file says what is */
		at = p->file_n;
		buf_printf(&b, "%s[%s]\n", at && p->file[at - 1] != '\n' ? "\n" : "", list_names[list]);
		for (struct str rest = str_of(defaults[list]), line; str_cut(&rest, '\n', &line);)
			if (add || !same(line, pattern))
				buf_printf(&b, "%.*s\n", (int)line.n, line.p);
	} else if (add && at && p->file[at - 1] != '\n') {
		buf_str(&b, "\n");
	}
	if (add)
		buf_printf(&b, "%.*s\n", (int)pattern.n, pattern.p);
	bool fits = b.n == 0 || splice(p, at, 0, (struct str){b.p, b.n});
	build(p);
	return fits ? NULL : "the policy file would be larger than 64 KiB";
}

size_t policy_programs(const struct policy *p, enum policy_list list, struct buf *out)
{
	size_t n = 0;
	for (size_t i = 0; i < p->rules; i++) {
		const struct policy_rule *r = &p->rule[i];
		if (r->list != list || !r->name.n || (list == POLICY_BLACK && r->words))
			continue; /* "rm -rf /" does not take rm away */
		buf_put(out, r->name.p, r->name.n);
		buf_put(out, "", 1);
		n++;
	}
	return n;
}

/* ---- a rule of several words ---- */

/* "/a/./b//.." as "/a", and so is "/a" with a star for its contents. */
static struct str clean_path(struct str in, char *out, size_t cap)
{
	struct buf b = {out, 0, cap, false};
	struct str part;

	while (str_cut(&in, '/', &part)) {
		size_t only = 0;
		while (only < part.n && strchr("*?.", part.p[only]))
			only++;
		bool glob = only == part.n && memchr(part.p, '*', part.n ? part.n : 0);
		if (part.n == 0 || str_eq(part, ".") || (glob && in.n == 0))
			continue;
		if (str_eq(part, "..")) {
			const char *slash = b.n ? memrchr(out, '/', b.n) : NULL;
			b.n = slash ? (size_t)(slash - out) : 0;
			continue;
		}
		buf_put(&b, "/", 1);
		buf_put(&b, part.p, part.n);
	}
	return (struct str){out, b.n};
}

static struct str skip_zeros(struct str s)
{
	struct str t = s;
	while (t.n > 1 && t.p[0] == '0')
		t.p++, t.n--;
	for (size_t i = 0; i < t.n; i++)
		if (t.p[i] < '0' || t.p[i] > '7')
			return s;
	return t;
}

static bool operand_matches(struct str rule, struct str word, bool sure)
{
	char a[POLICY_PATTERN_MAX + 1], b[SHELL_IN_MAX / 16];

	if (rule.n && rule.p[rule.n - 1] == '=')
		return word.n >= rule.n && memcmp(word.p, rule.p, rule.n) == 0;
	if (!sure)
		return false;
	if (rule.n && rule.p[0] == '/')
		return word.n && word.p[0] == '/' && same(clean_path(rule, a, sizeof a), clean_path(word, b, sizeof b));
	return same(rule, word) || (word.n && same(skip_zeros(rule), skip_zeros(word)));
}

/* The letters of a flag word, as bits: -rf, and --force or any beginning of it (getopt_long(3)). */
static void add_flags(struct str word, uint64_t flags[2])
{
	struct str letters = {word.p + 1, word.n - 1};

	if (word.n > 2 && word.p[1] == '-') {
		const char *known = find_word("recursive force verbose interactive dir", (struct str){word.p + 2, word.n - 2}, false);
		letters = (struct str){known, known != NULL}; /* the first one of each is its short form */
	}
	for (size_t i = 0; i < letters.n; i++) {
		unsigned char c = (unsigned char)letters.p[i];
		c = c == 'R' ? 'r' : c; /* rm knows both; for a blacklist they are one */
		if (c < 128)
			flags[c >> 6] |= 1ull << (c & 63);
	}
}

static bool is_flag(struct str s)
{
	return s.n > 1 && s.p[0] == '-';
}

static bool words_match(const struct policy_rule *r, const struct shell *s, const struct shell_word *w, size_t n)
{
	struct str rest = r->text, want;
	uint64_t need[2] = {0, 0}, have[2] = {0, 0};
	bool options = true;

	for (size_t i = 1; i < n; i++) {
		struct str t = {s->text + w[i].at, w[i].lead};
		options = options && !str_eq(t, "--");
		if (options && is_flag(t))
			add_flags(t, have);
	}
	(void)str_word(&rest, &want); /* the program */
	while (str_word(&rest, &want)) {
		uint64_t before = need[0] | need[1];
		bool found = false;
		if (is_flag(want))
			add_flags(want, need);
		if (is_flag(want) && (want.p[1] != '-' || (need[0] | need[1]) != before))
			continue; /* other long flags are looked for as they stand */
		for (size_t i = 1; i < n && !found; i++)
			found = operand_matches(want, (struct str){s->text + w[i].at, w[i].lead}, !(w[i].flags & SHELL_VARIES));
		if (!found)
			return false;
	}
	return (need[0] & ~have[0]) == 0 && (need[1] & ~have[1]) == 0;
}

/* The first rule of a list that matches a program by this name with these words. */
static const struct policy_rule *find_rule(const struct policy *p, enum policy_list list, struct str name, unsigned hash,
        const struct shell *s, const struct shell_word *w, size_t n)
{
	for (unsigned i = p->hash[hash]; i; i = p->rule[i - 1].next) {
		const struct policy_rule *r = &p->rule[i - 1];
		if (r->list == list && same(r->name, name) && (!r->words || words_match(r, s, w, n)))
			return r;
	}
	return NULL;
}

/* On the blacklist "mkfs" is "mkfs.ext4" too, and "nc" "nc.openbsd", where they are the system's. */
static const struct policy_rule *find_black(const struct policy *p, struct str name, unsigned hash, bool ours, const struct shell *s,
        const struct shell_word *w, size_t n)
{
	const struct policy_rule *r = find_rule(p, POLICY_BLACK, name, hash, s, w, n);
	uint32_t h = HASH_BEGIN;
	for (size_t i = 0; ours && !r && i < name.n && i <= POLICY_PATTERN_MAX; h = hash_step(h, name.p[i++]))
		if (i && name.p[i] == '.')
			r = find_rule(p, POLICY_BLACK, (struct str){name.p, i}, hash_place(h), s, w, n);
	return r;
}

/* Rules about text: both sides with their blanks squeezed out. */
static const struct policy_rule *find_text(const struct policy *p, struct str text)
{
	static char line[SHELL_IN_MAX], want[POLICY_PATTERN_MAX];
	struct buf b = {line, 0, sizeof line, false};
	bool squeezed = false;

	for (size_t i = 0; i < p->rules; i++) {
		struct buf w = {want, 0, sizeof want, false};
		if (p->rule[i].name.n)
			continue;
		for (size_t k = 0; !squeezed && k < text.n && k < sizeof line; k++)
			if (text.p[k] != ' ' && text.p[k] != '\t' && text.p[k] != '\n' && text.p[k] != '\r')
				line[b.n++] = text.p[k];
		squeezed = true;
		for (struct str rest = p->rule[i].text, part; str_word(&rest, &part);)
			buf_put(&w, part.p, part.n);
		if (b.n && memmem(line, b.n, want, w.n))
			return &p->rule[i];
	}
	return NULL;
}

/* ---- judgement ---- */

enum { NO_SHELL = 0x100 }; /* in a command's depth: it is started without one */

static struct shell shell; /* what is being judged; arena is one thread */

/* One command that is being peeled: its words, and where it stands. */
struct run {
	const struct shell_word *w;
	size_t n;
	unsigned flags, depth;
	bool shell;           /* a shell runs it, so that builtins are found */
	bool functions;       /* and functions */
	bool fed;             /* words come behind these that nobody knows yet */
	struct str replaced;  /* what is replaced in the words, p NULL for nothing */
};

struct judge {
	const struct policy *p;
	const struct policy_ask *ask;
	struct verdict *v;
	struct str function[POLICY_FUNCTIONS];
	size_t functions;
	struct run unset[8]; /* what unset was told */
	size_t unsets;
	bool used_function; /* a function was counted on */
	const struct policy_rule *black;
	struct str black_program, bad_program;
	const char *bad; /* why a list of what may run refuses it */
	uint8_t seen[POLICY_HASH]; /* an index into the names, plus 1; 0 none; 255 look through all */
};

static void refuse(struct judge *g, struct str program, const char *why)
{
	if (!g->bad) {
		g->bad = why;
		g->bad_program = program;
	}
}

static void unknown(struct judge *g, const char *why)
{
	g->v->undecided = true;
	refuse(g, (struct str){NULL, 0}, why);
}

static void add_name(struct judge *g, struct str name, unsigned hash)
{
	struct verdict *v = g->v;
	uint8_t *seen = &g->seen[hash];

	if (*seen && *seen < 255 && same(v->name[*seen - 1], name))
		return;
	if (*seen && is_among(v->name, v->names, name))
		return;
	if (v->names == POLICY_NAMES) {
		v->more_names = true;
		return;
	}
	v->name[v->names++] = name;
	*seen = *seen || v->names > 254 ? 255 : (uint8_t)v->names;
}

static bool is_harmless(const struct policy *p, struct str name, unsigned hash)
{
	return p->known[hash] & HARMLESS && in_words(name, harmless);
}

static const struct starter *find_starter(const struct policy *p, struct str name, unsigned hash)
{
	for (size_t i = 0; p->known[hash] & STARTER && i < countof(starters); i++)
		if (name.p[0] == starters[i].name[0] && str_eq(name, starters[i].name))
			return &starters[i];
	return NULL;
}

static struct str text_of(const struct shell_word *w)
{
	return shell_text(&shell, w);
}

static bool word_is(const struct shell_word *w, const char *text)
{
	return str_eq(text_of(w), text);
}

/* A word that does not say before the run what it will be. */
static bool varies(const struct run *r, const struct shell_word *w)
{
	struct str t = text_of(w);
	return w->flags & (SHELL_VARIES | SHELL_GLOB) || (r->replaced.n && memmem(t.p, t.n, r->replaced.p, r->replaced.n));
}

/* NAME= where NAME is one that shells run. */
static void check_assignment(struct judge *g, const struct shell_word *w)
{
	struct str t = text_of(w), name = t;
	const char *eq = t.n ? memchr(t.p, '=', t.n) : NULL;

	if (eq)
		name.n = (size_t)(eq - t.p);
	if (name.n && name.p[name.n - 1] == '+')
		name.n--;
	if (policy_is_run_by_shells(name))
		unknown(g, "a shell runs what this variable holds");
	/* bash evaluates a subscript wherever it takes a number, and with it what stands in $( ) */
	const char *open = t.n ? memchr(t.p, '[', t.n) : NULL;
	size_t left = open ? t.n - (size_t)(open - t.p) : 0;
	for (size_t i = 1; i + 1 < left; i++)
		if (open[i] == '`' || (open[i] == '$' && open[i + 1] == '('))
			unknown(g, "a shell may run what stands in this subscript");
}

/* The words of a builtin that sets, or evaluates, the variables that they name. */
static void check_variables(struct judge *g, const struct run *r, bool set)
{
	for (size_t i = 1; i < r->n; i++) {
		struct str t = text_of(&r->w[i]), name;
		check_assignment(g, &r->w[i]);
		if (set && (r->w[i].flags & SHELL_VARIES) && r->w[i].lead == 0)
			unknown(g, "which variable is set is not known before the run");
		if (str_cut(&t, '=', &name) && policy_is_run_by_shells(t)) /* declare -n x=PS4 */
			unknown(g, "a shell runs what this variable holds");
	}
}

/* Found by its name, or in one of the system's folders of programs. */
static bool is_ours(struct str path, struct str name)
{
	return path.n == name.n || in_words((struct str){path.p, path.n - name.n}, program_folders);
}

/* Whether the program by this name may run as far as the lists of what may run go. */
static void check_allowed(struct judge *g, const struct run *r, struct str path, struct str name, unsigned hash, const struct starter *st)
{
	const struct policy_ask *ask = g->ask;

	if (path.n == name.n && r->shell) {
		if (is_harmless(g->p, name, hash) || (st && st->builtin))
			return;
		if (r->functions && is_among(g->function, g->functions, name)) {
			g->used_function = true;
			return;
		}
	}
	if (ask->restricted && !is_among(ask->allow, ask->allows, name))
		refuse(g, name, "the program is not in this request's 'allow'");
	if (ask->profile != CONF_STRICT)
		return;
	if (!is_ours(path, name))
		refuse(g, name, "the program is not in one of the system's folders of programs");
	else if (!find_rule(g->p, POLICY_WHITE, name, hash, &shell, r->w, r->n))
		refuse(g, name, "the program is not in the whitelist");
}

static void judge_run(struct judge *g, struct run *r);

/* A text that a shell would run; sure when all of it is known. Its commands are judged in their turn. */
static void judge_text(struct judge *g, const struct run *r, struct str text, bool sure)
{
	if (!sure)
		unknown(g, "the text that it runs is not known before the run");
	if (text.p && r->depth < SHELL_DEPTH)
		shell_read(&shell, text, r->depth + 1);
	else
		unknown(g, "it is nested too deeply");
}

static bool has_long(const struct starter *st, struct str name)
{
	const char *at = with_long;
	size_t n = strlen(st->name);
	while (*at && (strncmp(at, st->name, n) != 0 || at[n] != ' '))
		at += strlen(at) + 1;
	return *at && name.n && find_word(at + n + 1, name, false); /* getopt_long takes beginnings */
}

/* One word of options: the last letter that was looked at, or 'L' for a long one; value where it takes one. */
struct option { char letter; struct str name, value; const struct shell_word *word, *value_word; bool found; };

/* Takes options from word i on; false at their end. */
static bool next_option(const struct starter *st, const struct run *r, size_t *i, struct option *o)
{
	memset(o, 0, sizeof *o);
	if (*i >= r->n)
		return false;
	struct str t = text_of(&r->w[*i]);
	o->found = is_flag(t) || (st->how == SCRIPT && ((t.n > 1 && t.p[0] == '+') || str_eq(t, "-")));
	if (!o->found)
		return false;
	o->word = o->value_word = &r->w[(*i)++];
	if (str_eq(t, "--") || t.n == 1) /* for a shell "-" is the same */
		return false;
	if (t.p[1] == '-') {
		const char *eq = memchr(t.p, '=', t.n);
		o->letter = 'L';
		o->name = (struct str){t.p + 2, (eq ? (size_t)(eq - t.p) : t.n) - 2};
		if (eq)
			o->value = (struct str){eq + 1, t.n - (size_t)(eq + 1 - t.p)};
		else if (has_long(st, o->name) && *i < r->n)
			o->value = text_of(o->value_word = &r->w[(*i)++]);
		return true;
	}
	for (size_t k = 1; k < t.n; k++) {
		o->letter = t.p[k];
		o->name = (struct str){t.p + k, 1};
		if (!strchr(st->with, t.p[k]))
			continue;
		if (k + 1 < t.n && st->how != SCRIPT)
			o->value = (struct str){t.p + k + 1, t.n - k - 1};
		else if (*i < r->n)
			o->value = text_of(o->value_word = &r->w[(*i)++]);
		break;
	}
	return true;
}

static bool has_letter(const struct option *o, char c)
{
	struct str t = text_of(o->word);
	return o->letter != 'L' && t.n > 1 && memchr(t.p + 1, c, t.n - 1);
}

/* A long option that begins with this letter. */
static bool is_long(const struct option *o, char c)
{
	return o->letter == 'L' && o->name.n && o->name.p[0] == c;
}

static void judge_script(struct judge *g, const struct starter *st, const struct run *r)
{
	bool command = false;
	struct option o;
	size_t i = 1;

	while (next_option(st, r, &i, &o)) {
		if (varies(r, o.word))
			unknown(g, "an option of the shell is not known before the run");
		command = command || has_letter(&o, 'c');
	}
	if (!command)
		unknown(g, "what a shell reads from a file or its input is not known before the run");
	else if (i < r->n)
		judge_text(g, r, text_of(&r->w[i]), !varies(r, &r->w[i]));
	else if (r->fed)
		unknown(g, "the text that it runs is not known before the run");
}

static void judge_joined(struct judge *g, const struct run *r, size_t from)
{
	bool sure = !r->fed;
	for (size_t i = from; i < r->n; i++)
		sure = sure && !(r->w[i].flags & SHELL_VARIES);
	if (from < r->n)
		judge_text(g, r, shell_join(&shell, r->w + from, r->n - from), sure);
}

/* find: the words between -exec and its end, which may hold {}. */
static void judge_find(struct judge *g, const struct run *r)
{
	static const char runs[] = "-exec -execdir -ok -okdir";
	int open = 0;

	if (r->fed)
		unknown(g, "find may be told to start what it reads");
	for (size_t i = 1; i < r->n; i++) {
		struct str t = text_of(&r->w[i]);
		if (r->w[i].flags & SHELL_SPLITS)
			unknown(g, "find may be told to start something by a word that is not known before the run");
		if (!(r->w[i].flags & SHELL_VARIES) && in_words(t, runs)) {
			size_t end = ++i;
			while (end < r->n && !word_is(&r->w[end], ";") && !(word_is(&r->w[end], "+") && word_is(&r->w[end - 1], "{}")))
				end++;
			struct run inner = {.w = r->w + i, .n = end - i, .depth = r->depth, .replaced = str_of("{}")};
			judge_run(g, &inner);
			i = end;
		} else if (str_eq(t, ";")) {
			open++;
		}
	}
	if (open)
		unknown(g, "find may be told to start something by a word that is not known before the run");
}

static void judge_option(struct judge *g, const struct starter *st, const struct run *r)
{
	for (size_t i = 1; i < r->n;) {
		struct option o;
		(void)next_option(st, r, &i, &o);
		i += !o.found;
		struct str rest = o.value, program;
		if (!o.value.p || (o.letter == 'L' && !has_long(st, o.name)) || !str_word(&rest, &program))
			continue;
		if (varies(r, o.value_word))
			unknown(g, "the program's name is not known before it runs");
		if (shell_add_words(&shell, &program, 1))
			shell.cmd[shell.cmds - 1].depth = (uint16_t)(r->depth | NO_SHELL);
	}
}

/* Passes over what stands before the program that is started: true when r now has it. */
static bool peel(struct judge *g, const struct starter *st, struct run *r)
{
	struct option o;
	size_t i = 1, skip = st->skip;

	while (next_option(st, r, &i, &o)) {
		if (o.word->flags & (SHELL_VARIES | SHELL_GLOB))
			unknown(g, "an option before the program is not known before the run");
		if (st->how == ASKS && (has_letter(&o, 'v') || has_letter(&o, 'V')))
			return false;
		if (st->how == ASSIGNED && o.value.p && (o.letter == 'S' || is_long(&o, 's'))) {
			/* the text is split into words of env's own, options and all, and what stands behind it follows them */
			const struct shell_word env[2] = {r->w[0], {.at = (uint32_t)(o.value.p - shell.text), .n = (uint32_t)o.value.n}};
			struct str text = shell_join(&shell, env, 2);
			if (i < r->n && text.p)
				text.n += shell_join(&shell, r->w + i, r->n - i).n; /* right behind it; no room is a text cut off */
			judge_text(g, r, text, i == r->n);
			return false;
		}
		if (st->how == FED && (o.letter == 'I' || o.letter == 'i' || is_long(&o, 'r')))
			r->replaced = o.value.n ? o.value : str_of("{}");
		if (strcmp(st->name, "flock") == 0 && (o.letter == 'c' || (o.letter == 'L' && o.value.p)))
			judge_text(g, r, o.value, true);
	}
	for (; i < r->n; i++) {
		bool assigns = st->how == ASSIGNED && (memchr(text_of(&r->w[i]).p, '=', r->w[i].lead) || word_is(&r->w[i], "-"));
		if (r->w[i].flags & (SHELL_SPLITS | SHELL_GLOB) || ((r->w[i].flags & SHELL_VARIES) && !assigns && skip))
			unknown(g, "a word before the program is not known before the run");
		if (assigns)
			check_assignment(g, &r->w[i]);
		else if (skip)
			skip--;
		else
			break;
	}
	if (i >= r->n && r->fed && st->how != FED)
		unknown(g, "the program's name is not known before it runs");
	r->fed = r->fed || (st->how == FED && !r->replaced.n);
	/* exec starts programs alone; time is a keyword of bash, behind which builtins are found */
	r->shell = r->shell && (st->builtin ? strcmp(st->name, "exec") != 0 : strcmp(st->name, "time") == 0);
	r->functions = false;
	r->w += i;
	r->n -= i < r->n ? i : r->n;
	return r->n > 0;
}

/* name=text: what stands where the name stands is put together from both; what can be seen is judged. */
static void judge_alias(struct judge *g, const struct run *r, struct str definition)
{
	struct str text = definition, name;
	unknown(g, "what an alias runs is not known before the run");
	if (str_cut(&text, '=', &name) && text.n)
		judge_text(g, r, text, false);
}

/* What a command that starts others starts: true when r has become that. */
static bool judge_started(struct judge *g, const struct starter *st, struct run *r)
{
	size_t i = 1;

	switch (st->how) {
	case SCRIPT:
		judge_script(g, st, r);
		return false;
	case TEXT:
		for (struct option o; next_option(st, r, &i, &o);)
			;
		judge_joined(g, r, i);
		return false;
	case TRAP:
		while (i < r->n && is_flag(text_of(&r->w[i])))
			i++;
		if (i + 1 < r->n && !word_is(&r->w[i], "-"))
			judge_text(g, r, text_of(&r->w[i]), !varies(r, &r->w[i]));
		return false;
	case FOUND:
		judge_find(g, r);
		return false;
	case OPTION:
		judge_option(g, st, r);
		return false;
	case UNKNOWN:
		unknown(g, "what stands in a file is not known before the run");
		return false;
	case ALIAS:
		for (; i < r->n; i++)
			if (varies(r, &r->w[i]) || memchr(text_of(&r->w[i]).p, '=', r->w[i].n))
				judge_alias(g, r, text_of(&r->w[i]));
		return false;
	default:
		return peel(g, st, r);
	}
}

/* A builtin that starts nothing by itself, but may change what others start. */
static void check_builtin(struct judge *g, const struct run *r, struct str name)
{
	bool set = in_words(name, sets_variables);
	struct str first = r->n > 1 ? text_of(&r->w[1]) : (struct str){NULL, 0};

	if (set || in_words(name, evaluates))
		check_variables(g, r, set);
	if (str_eq(name, "unset"))
		g->unset[g->unsets < countof(g->unset) ? g->unsets++ : 0] = *r; /* more of them than that: see may_be_unset */
	for (size_t i = 0; i < countof(renaming); i++)
		if (str_eq(name, renaming[i].name) && ((renaming[i].letter != 'v' && r->n > 1 && varies(r, &r->w[1])) ||
		                                       (is_flag(first) && memchr(first.p, renaming[i].letter, first.n))))
			unknown(g, "this builtin's option may start a program by another name");
}

/* One command, and what it starts in its turn: r becomes that. */
static void judge_run(struct judge *g, struct run *r)
{
	while (r->n) {
		struct str path = text_of(&r->w[0]), name = base_name(path);
		if (varies(r, &r->w[0]) || name.n == 0) {
			if (path.n)
				unknown(g, "the program's name is not known before it runs");
			return;
		}
		unsigned hash = hash_of(name);
		add_name(g, name, hash);
		const struct policy_rule *black = find_black(g->p, name, hash, is_ours(path, name), &shell, r->w, r->n);
		if (black && !g->black) {
			g->black = black;
			g->black_program = name;
		}
		if (r->flags & SHELL_OPERAND)
			return;
		const struct starter *st = find_starter(g->p, name, hash);
		check_allowed(g, r, path, name, hash, st);
		if (r->shell && is_harmless(g->p, name, hash))
			check_builtin(g, r, name);
		if (!st || (st->builtin && !r->shell) || !judge_started(g, st, r))
			return;
	}
}

/* Whether a function that was counted on may be gone: by -f, and in bash without it. */
static bool may_be_unset(const struct judge *g)
{
	bool may = g->unsets == countof(g->unset);
	for (size_t i = 0; i < g->unsets; i++)
		for (size_t k = 1; k < g->unset[i].n; k++) {
			struct str t = text_of(&g->unset[i].w[k]);
			may = may || varies(&g->unset[i], &g->unset[i].w[k]) || (is_flag(t) && memchr(t.p, 'f', t.n)) ||
			      is_among(g->function, g->functions, t);
		}
	return may;
}

static void judge_command(struct judge *g, const struct shell_cmd *c)
{
	struct run r = {.w = &shell.word[c->word], .n = c->words, .flags = c->flags, .depth = c->depth & 0xff, .shell = !g->ask->argv && !(c->depth & NO_SHELL)};
	r.functions = r.shell;

	for (; r.n && (r.w->flags & SHELL_ASSIGNMENT); r.w++, r.n--)
		check_assignment(g, r.w);
	if (c->flags & SHELL_DEFINES) {
		if ((c->flags & SHELL_CERTAIN) && g->functions < POLICY_FUNCTIONS && !is_among(g->function, g->functions, text_of(r.w)))
			g->function[g->functions++] = text_of(r.w);
		return;
	}
	judge_run(g, &r);
}

bool policy_is_run_by_shells(struct str variable)
{
	return in_words(variable, run_by_shells) || (variable.n > 9 && memcmp(variable.p, "BASH_FUNC", 9) == 0);
}

const char *policy_code_name(enum policy_code c)
{
	static const char names[][10] = {"ok", "blacklist", "whitelist", "syntax"};
	return names[c];
}

void policy_judge(const struct policy *p, const struct policy_ask *ask, struct verdict *v)
{
	static struct judge g;
	const struct policy_rule *text = NULL;

	memset(v, 0, sizeof *v);
	memset(&g, 0, sizeof g);
	g.p = p;
	g.ask = ask;
	g.v = v;
	shell_reset(&shell);
	if (ask->argv)
		(void)shell_add_words(&shell, ask->argv, ask->argc); /* no room: an error */
	else
		shell_read(&shell, ask->text, 0);
	v->plain = shell_is_plain(&shell);
	for (size_t i = 0; i < shell.cmds; i++) /* judging may add commands */
		judge_command(&g, &shell.cmd[i]);
	if (g.used_function && may_be_unset(&g))
		unknown(&g, "a function that it calls may have been unset");
	const struct str *texts = ask->argv ? ask->argv : &ask->text;
	for (size_t i = 0; !text && i < (ask->argv ? ask->argc : 1); i++)
		text = find_text(p, texts[i]);
	v->undecided = v->undecided || shell.error;
	if (ask->profile == CONF_STRICT || ask->restricted) {
		v->code = shell.error ? POLICY_SYNTAX : g.bad ? POLICY_NOT_WHITELISTED : POLICY_OK;
		v->why = shell.error ? shell.why : g.bad;
		v->program = v->code == POLICY_NOT_WHITELISTED ? g.bad_program : v->program;
	}
	v->would = g.black || text ? POLICY_BLACKLISTED : v->code;
	if (v->would == POLICY_BLACKLISTED) {
		v->rule = (text ? text : g.black)->text;
		v->program = text ? v->program : g.black_program;
		v->why = text ? "the text has what this rule forbids" : "the rule forbids this program";
	}
	if (ask->profile != CONF_PERMISSIVE)
		v->code = v->would;
}

const char *policy_set(struct policy *p, const char *key, uint64_t value)
{
	char text[96];
	struct buf b = {text, 0, sizeof text, false};
	struct conf_reader r = {.rest = {p->file, p->file_n}};
	struct str entry, name;
	size_t at = p->file_n, gone = 0;
	bool config = false;

	while (gone == 0 && conf_next(&r, &entry)) {
		if (!str_eq(r.section, "config"))
			continue;
		config = true;
		at = (size_t)(r.raw.p - p->file) + r.raw.n; /* behind the section's last entry */
		struct str rest = entry;
		(void)str_cut(&rest, '=', &name);
		while (name.n && (name.p[name.n - 1] == ' ' || name.p[name.n - 1] == '\t'))
			name.n--;
		if (str_eq(name, key)) /* in its place, before its comment */
			at = (size_t)(entry.p - p->file), gone = entry.n;
	}
	if (gone == 0 && at && p->file[at - 1] != '\n')
		buf_str(&b, "\n");
	buf_printf(&b, "%s%s=%llu%s", config ? "" : "[config]\n", key, (unsigned long long)value, gone ? "" : "\n");
	bool fits = splice(p, at, gone, (struct str){b.p, b.n});
	build(p);
	return fits ? NULL : "the policy file would be larger than 64 KiB";
}
