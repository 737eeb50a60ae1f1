/* L1 pure: the grammar of the POSIX shell (XCU chapter 2), with what bash adds, read into a flat list
 * of simple commands. Memory to memory; nothing is run or expanded.
 *
 * Where shells differ, the list holds what any of them would run: "[[ a || b ]]" is a test for bash
 * and the start of b for dash. Where they differ in what is quoted, the text is called unclear.
 * Descent is bounded by SHELL_DEPTH; every byte is looked at a bounded number of times. */
#include "shell.h"

#include <string.h>

enum { BRACE_BYTES = 2 * SHELL_IN_MAX, BRACE_DEPTH = 16 };

/* What may end a list, one bit each. */
enum {
	E_END = 1, E_PAREN = 2, E_CASE = 4, E_BRACE = 8, E_THEN = 16, E_ELIF = 32, E_ELSE = 64, E_FI = 128, E_DO = 256, E_DONE = 512,
	E_ESAC = 1024, MAY_BE_EMPTY = 2048,
};
enum keyword { K_NONE, K_NOT, K_GROUP, K_IF, K_LOOP, K_FOR, K_CASE, K_FUNCTION, K_COND, K_PREFIX, K_IN, K_END };
static const struct reserved { char text[9]; uint8_t kind; /* enum keyword */ uint16_t end; } reserved[] = {
	{"!", K_NOT, 0}, {"{", K_GROUP, 0}, {"if", K_IF, 0}, {"while", K_LOOP, 0}, {"until", K_LOOP, 0}, {"for", K_FOR, 0},
	{"select", K_FOR, 0}, {"case", K_CASE, 0}, {"function", K_FUNCTION, 0}, {"[[", K_COND, 0}, {"time", K_PREFIX, 0},
	{"coproc", K_PREFIX, 0}, {"in", K_IN, 0}, {"}", K_END, E_BRACE}, {"then", K_END, E_THEN}, {"elif", K_END, E_ELIF},
	{"else", K_END, E_ELSE}, {"fi", K_END, E_FI}, {"do", K_END, E_DO}, {"done", K_END, E_DONE}, {"esac", K_END, E_ESAC},
};

/* Where a piece of a word stands: it decides what is special in it. */
enum place { BARE, QUOTED, HEREDOC, ARITHMETIC };

/* The word that is being read; its characters are on the scratch stack from start on. */
struct open_word { size_t start, lead; unsigned flags; bool quoted, special, equals; /* has an unquoted one of {*?[~, = */ };

static unsigned read_list(struct shell *s, unsigned ends);
static void read_command(struct shell *s);
static bool read_word(struct shell *s);
static bool read_expansion(struct shell *s, struct open_word *w, enum place place);

/* Ends the reading. */
static void fail(struct shell *s, enum shell_error error, const char *why)
{
	if (!s->stopped && s->error != SHELL_SYNTAX) {
		s->error = error;
		s->why = why;
	}
	s->in_n = s->at;
	s->stopped = true;
}

/* Goes on, for the sake of the names that are still to be found. */
static void unclear(struct shell *s, const char *why)
{
	if (!s->error) {
		s->error = SHELL_UNCLEAR;
		s->why = why;
	}
}

static bool enter(struct shell *s)
{
	if (++s->depth > SHELL_DEPTH)
		fail(s, SHELL_UNCLEAR, "it is nested too deeply");
	return s->depth <= SHELL_DEPTH;
}

/* The next character, or -1; a backslash and a newline join two lines (XCU 2.2.1). */
static int look(struct shell *s)
{
	while (s->at < s->in_n && s->in[s->at] == '\\' && s->at + 1 < s->in_n && s->in[s->at + 1] == '\n')
		s->at += 2;
	return s->at < s->in_n ? (unsigned char)s->in[s->at] : -1;
}

/* The character behind the next one. */
static int look_behind(struct shell *s)
{
	size_t at = s->at;
	if (look(s) < 0)
		return -1;
	s->at++;
	int c = look(s);
	s->at = at;
	return c;
}

/* Takes this character, which must be next. */
static void expect(struct shell *s, int c, const char *why)
{
	if (look(s) == c)
		s->at++;
	else
		fail(s, SHELL_SYNTAX, why);
}

/* Passes over the next character, with a backslash over what stands behind it too. */
static void skip(struct shell *s)
{
	s->at += s->in[s->at] == '\\' && s->at + 1 < s->in_n ? 2 : 1;
}

static bool is_name(int c, bool first)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (!first && c >= '0' && c <= '9');
}

/* Ends a word, unless quoted. */
static bool is_delimiter(int c)
{
	switch (c) {
	case -1: case ' ': case '\t': case '\n': case ';': case '&': case '|': case '(': case ')': case '<': case '>':
		return true;
	default:
		return false;
	}
}

static void skip_blanks(struct shell *s)
{
	int c;
	while ((c = look(s)) == ' ' || c == '\t')
		s->at++;
	if (c == '#')
		while (s->at < s->in_n && s->in[s->at] != '\n')
			s->at++;
}

/* ---- words ---- */

static void put(struct shell *s, struct open_word *w, int c, bool bare)
{
	if (!w)
		return;
	if (s->top == sizeof s->scratch) {
		fail(s, SHELL_UNCLEAR, "it is too long");
		return;
	}
	s->scratch[s->top] = (char)c;
	s->bare[s->top++] = bare;
}

/* Here something stands that is known only when it runs. */
static void put_expansion(struct shell *s, struct open_word *w, unsigned flags)
{
	s->complex = true;
	if (!w)
		return;
	if (!(w->flags & SHELL_VARIES))
		w->lead = s->top - w->start;
	w->flags |= SHELL_VARIES | flags;
	put(s, w, '$', false);
	put(s, w, '@', false);
}

static void put_word(struct shell *s, const char *p, size_t n, size_t lead, unsigned flags)
{
	if (n > sizeof s->text - s->text_n || s->words + s->open_words == SHELL_WORDS) {
		fail(s, SHELL_UNCLEAR, "it is too long");
		return;
	}
	memcpy(s->text + s->text_n, p, n);
	s->word[SHELL_WORDS - ++s->open_words] = (struct shell_word){
		(uint32_t)s->text_n, (uint32_t)n, (uint32_t)(flags & SHELL_VARIES ? lead : n), flags};
	s->text_n += n;
	s->complex = s->complex || (flags & ~(unsigned)SHELL_ASSIGNMENT);
}

/* The character of an open word that stands at a place, if it stood unquoted, else 0. */
static int bare_at(const struct shell *s, size_t i)
{
	return i < s->top && s->bare[i] ? s->scratch[i] : 0;
}

/* The i-th open word of those above base. */
static struct shell_word *open_word(struct shell *s, size_t base, size_t i)
{
	return &s->word[SHELL_WORDS - 1 - base - i];
}

/* The open words above base become a command. */
static void emit(struct shell *s, size_t base, unsigned flags)
{
	size_t n = s->open_words - base;
	if (n && s->cmds == SHELL_CMDS) {
		fail(s, SHELL_UNCLEAR, "it has too many commands");
	} else if (n && !(s->stopped && s->error == SHELL_SYNTAX)) {
		struct shell_cmd *c = &s->cmd[s->cmds++];
		*c = (struct shell_cmd){(uint32_t)s->words, (uint32_t)n, (uint16_t)flags, (uint16_t)s->depth};
		for (size_t i = 0; i < n / 2; i++) { /* they grew downwards */
			struct shell_word *a = open_word(s, base, i), *b = open_word(s, base, n - 1 - i), t = *a;
			*a = *b;
			*b = t;
		}
		memmove(&s->word[s->words], &s->word[SHELL_WORDS - s->open_words], n * sizeof *s->word);
		s->words += n;
	}
	s->open_words = base;
}

/* The first {a,b} of a word, as bash expands it: false when there is none. */
static bool find_brace(const struct shell *s, size_t from, size_t n, size_t *open, size_t *close)
{
	for (size_t i = from; i < from + n; i++) {
		int depth = 0;
		bool comma = false;
		if (bare_at(s, i) != '{')
			continue;
		for (size_t k = i; k < from + n; k++) {
			int c = bare_at(s, k);
			depth += c == '{' ? 1 : c == '}' ? -1 : 0;
			comma = comma || (c == ',' && depth == 1);
			if (depth > BRACE_DEPTH)
				return false;
			if (depth == 0) {
				*open = i;
				*close = k;
				if (comma)
					return true;
				break;
			}
		}
		if (depth)
			return false; /* unclosed, so is what stands behind it; or too deep */
	}
	return false;
}

/* Whether the shell may put something else in its place: a pattern, ~, or {1..9}. */
static bool is_pattern(const struct shell *s, size_t from, size_t n)
{
	bool bracket = false, brace = false;
	for (size_t i = from; i < from + n; i++) {
		int c = bare_at(s, i);
		if (c == '*' || c == '?' || (c == ']' && bracket) || (c == '~' && i == from))
			return true;
		if (c == '.' && brace && i + 1 < from + n && s->scratch[i + 1] == '.')
			return true;
		bracket = bracket || c == '[';
		brace = brace || c == '{';
	}
	return false;
}

static void expand_braces(struct shell *s, struct open_word *w, size_t from, size_t n, unsigned level)
{
	size_t open, close, base = s->top;

	if (!w->special || (w->flags & SHELL_ASSIGNMENT) || !find_brace(s, from, n, &open, &close)) {
		if (n || w->quoted || level == 0)
			put_word(s, s->scratch + from, n, level ? 0 : w->lead, w->flags | (w->special && is_pattern(s, from, n) ? SHELL_GLOB : 0));
		return;
	}
	s->complex = true;
	for (size_t at = open + 1, end = at, depth = 0; end <= close && !s->stopped; end++) {
		int c = bare_at(s, end);
		if (depth || (c != ',' && end != close)) {
			depth += c == '{' ? 1 : c == '}' ? -1 : 0;
			continue;
		}
		const size_t part[3][2] = {{from, open}, {at, end}, {close + 1, from + n}};
		if (level == BRACE_DEPTH || s->brace_budget < n) {
			unclear(s, "its braces expand to too much");
			return;
		}
		s->brace_budget -= n;
		for (size_t i = 0; i < countof(part); i++)
			for (size_t k = part[i][0]; k < part[i][1]; k++)
				put(s, w, s->scratch[k], s->bare[k]);
		expand_braces(s, w, base, s->top - base, level + 1);
		s->top = base;
		at = end + 1;
	}
}

static void read_single_quoted(struct shell *s, struct open_word *w)
{
	for (s->at++; s->at < s->in_n && s->in[s->at] != '\''; s->at++)
		put(s, w, s->in[s->at], false);
	expect(s, '\'', "a quote is not closed");
}

/* One escape of $'...' in bash; s->at is behind the backslash. */
static void read_escape(struct shell *s, struct open_word *w)
{
	static const char from[] = "abeEfnrtv", to[] = "\a\b\033\033\f\n\r\t\v";
	int c = (unsigned char)s->in[s->at++];
	const char *known = c ? strchr(from, c) : NULL;
	unsigned base = c == 'x' || c == 'u' || c == 'U' ? 16 : 8, v = 0;
	size_t most = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 3, n = 0;

	if (base == 8 && (c < '0' || c > '7')) {
		if (c == '\'' || c == 'c') /* other shells know no escape here: for them the string ends; \cX */
			unclear(s, "an escape in $'...' that shells read differently");
		if (!known && !strchr("\\'\"?", c))
			put(s, w, '\\', false);
		put(s, w, known ? to[known - from] : c, false);
		return;
	}
	for (s->at -= base == 8; n < most && s->at < s->in_n; n++, s->at++) {
		int d = s->in[s->at] | (base == 16 ? 32 : 0);
		unsigned digit = d >= '0' && d <= '9' ? (unsigned)d - '0' : d >= 'a' && d <= 'f' ? (unsigned)d - 'a' + 10 : 99;
		if (digit >= base)
			break;
		v = v * base + digit;
	}
	if (v == 0 || (base == 16 && c != 'x' && v > 127)) {
		put_expansion(s, w, 0); /* a NUL ends the string; letters beyond ASCII depend on the locale */
		return;
	}
	put(s, w, (int)(v & 255), false);
}

static void read_ansi_quoted(struct shell *s, struct open_word *w)
{
	s->at++;
	while (s->at < s->in_n && s->in[s->at] != '\'') {
		if (s->in[s->at++] != '\\')
			put(s, w, s->in[s->at - 1], false);
		else if (s->at < s->in_n)
			read_escape(s, w);
	}
	expect(s, '\'', "a quote is not closed");
}

/* Up to the closing quote; of a here-document's body, to its end. */
static void read_double_quoted(struct shell *s, struct open_word *w, enum place place)
{
	int c;
	while ((c = look(s)) >= 0 && !(c == '"' && place == QUOTED)) {
		if (read_expansion(s, w, place))
			continue;
		if (c == '\\' && s->at + 1 < s->in_n && strchr("$`\"\\", s->in[s->at + 1]))
			s->at++;
		put(s, w, s->in[s->at++], false);
	}
	if (place == QUOTED)
		expect(s, '"', "a quote is not closed");
}

/* Reads a text within the text, in place of it, up to its end. */
static void read_inner(struct shell *s, const char *p, size_t n)
{
	const char *in = s->in;
	size_t in_n = s->in_n, at = s->at, outside = s->heredocs_outside;

	if (n > s->budget) {
		fail(s, SHELL_UNCLEAR, "it is nested too deeply");
		return;
	}
	s->budget -= n;
	s->in = p;
	s->in_n = n;
	s->at = 0;
	s->heredocs_outside = s->heredocs;
	(void)read_list(s, E_END | MAY_BE_EMPTY);
	s->heredocs = s->heredocs_outside; /* without a body it is empty */
	s->heredocs_outside = outside;
	s->in = in;
	s->at = s->stopped ? in_n : at;
	s->in_n = in_n;
}

/* `...`: its text ends at the next ` that has no backslash, whatever quotes it has (XCU 2.6.3). */
static void read_backquote(struct shell *s, struct open_word *w, enum place place)
{
	size_t base = s->top;
	struct open_word text = {.start = base};

	s->at++;
	while (s->at < s->in_n && s->in[s->at] != '`') {
		if (s->in[s->at] == '\\' && s->at + 1 < s->in_n) {
			char next = s->in[s->at + 1];
			if (next == '"' && place != BARE && place != QUOTED)
				unclear(s, "an escape in `...` that shells read differently");
			if (next == '`' || next == '$' || next == '\\' || (next == '"' && place == QUOTED))
				s->at++;
			else
				put(s, &text, s->in[s->at++], false);
		}
		put(s, &text, s->in[s->at++], false);
	}
	if (s->at >= s->in_n) {
		fail(s, SHELL_SYNTAX, "a ` is not closed");
		return;
	}
	s->at++;
	if (enter(s))
		read_inner(s, s->scratch + base, s->top - base);
	s->depth--;
	s->top = base;
	put_expansion(s, w, place == BARE ? SHELL_SPLITS : 0);
}

/* Behind "$(": the commands up to the closing one. */
static void read_substitution(struct shell *s)
{
	size_t outside = s->heredocs_outside;

	s->heredocs_outside = s->heredocs;
	if (enter(s) && read_list(s, E_PAREN | MAY_BE_EMPTY) == E_PAREN)
		s->at++;
	s->depth--;
	if (s->heredocs > s->heredocs_outside) {
		unclear(s, "a here-document's body is outside the substitution that asks for it");
		s->heredocs = s->heredocs_outside;
	}
	s->heredocs_outside = outside;
}

/* Whether what stands behind "$((" ends with "))": else it is a subshell in a substitution. */
static bool is_arithmetic(struct shell *s)
{
	size_t level = 0, i = s->at;

	for (; i < s->in_n; i++) {
		if (s->in[i] == '\\')
			i++;
		else if (s->in[i] == '(')
			level++;
		else if (s->in[i] == ')' && level-- == 0)
			break;
	}
	if (i - s->at > s->budget && i < s->in_n)
		fail(s, SHELL_UNCLEAR, "it is nested too deeply");
	else
		s->budget -= i < s->in_n ? i - s->at : 0;
	return i + 1 < s->in_n && s->in[i + 1] == ')';
}

static void read_arithmetic(struct shell *s)
{
	size_t level = 0;

	for (int c; enter(s) && (c = look(s)) >= 0; s->depth--) {
		if (read_expansion(s, NULL, ARITHMETIC))
			continue;
		if (c == '\'' || c == '"' || c == '[')
			unclear(s, "quotes or subscripts in arithmetic, which shells read differently");
		skip(s);
		level += c == '(';
		if (c == ')' && level-- == 0) {
			if (look(s) != ')')
				break;
			s->at++;
			s->depth--;
			return;
		}
	}
	s->depth--;
	fail(s, SHELL_SYNTAX, "arithmetic is not closed");
}

/* "${": to its closing brace. What it stands for is not known; what it would run is found. */
static void read_parameter(struct shell *s, enum place place)
{
	int c = look(s), before = 0;

	if (c == ' ' || c == '\t' || c == '\n' || c == '|')
		unclear(s, "${ ...; }, which shells read differently");
	for (; enter(s) && (c = look(s)) >= 0 && c != '}'; before = c, s->depth--) {
		if (read_expansion(s, NULL, place))
			continue;
		if (c == '\'' && place == BARE) {
			read_single_quoted(s, NULL);
		} else if (c == '"' && (place == BARE || place == QUOTED)) {
			s->at++;
			read_double_quoted(s, NULL, QUOTED);
		} else {
			if (c == '\'' || c == '"')
				unclear(s, "quotes in ${...}, which shells read differently");
			if ((before == '@' && c == 'P') || (c == '(' && (before == '<' || before == '>')))
				unclear(s, "${...} may run what it finds"); /* ${x@P} */
			skip(s);
		}
	}
	s->depth--;
	expect(s, '}', "a ${ is not closed");
}

/* At a '$'. */
static void read_dollar(struct shell *s, struct open_word *w, enum place place)
{
	unsigned splits = place == BARE ? SHELL_SPLITS : 0;
	int c;

	s->at++;
	c = look(s);
	if (c == '\'' && place == BARE) {
		if (w)
			w->quoted = true;
		read_ansi_quoted(s, w);
		return;
	}
	if (c == '"' && place == BARE)
		return; /* a translated string reads like any other */
	if (c == '(') {
		s->at++;
		if (look(s) == '(') {
			s->at++;
			if (is_arithmetic(s)) {
				read_arithmetic(s);
				put_expansion(s, w, splits);
				return;
			}
			s->at--;
		}
		read_substitution(s);
	} else if (c == '{') {
		s->at++;
		if (look(s) == '@' || look(s) == '!' || memchr(s->in + s->at, '@', s->in_n - s->at < 64 ? s->in_n - s->at : 64))
			splits = SHELL_SPLITS;
		read_parameter(s, place);
	} else if (is_name(c, true)) {
		while (is_name(look(s), false))
			s->at++;
	} else if (c >= 0 && c < 128 && c && strchr("0123456789@*#?$!-", c)) {
		splits |= c == '@' ? SHELL_SPLITS : 0;
		s->at++;
	} else {
		if (c == '[')
			unclear(s, "$[...], which shells read differently");
		put(s, w, '$', false);
		return;
	}
	put_expansion(s, w, splits);
}

/* $ and `, and what they begin. False when it is something else. */
static bool read_expansion(struct shell *s, struct open_word *w, enum place place)
{
	int c = look(s);
	if (c == '$')
		read_dollar(s, w, place);
	else if (c == '`')
		read_backquote(s, w, place);
	return c == '$' || c == '`';
}

static bool assigns(const struct shell *s, const struct open_word *w)
{
	size_t i = w->start;
	while (is_name(bare_at(s, i), i == w->start))
		i++;
	if (i == w->start)
		return false;
	if (bare_at(s, i) == '[') /* bash: NAME[subscript]= */
		while (i < s->top && s->scratch[i++] != ']')
			;
	i += bare_at(s, i) == '+';
	return bare_at(s, i) == '=';
}

/* One word, which braces may make several. False when there is none. */
static bool read_word(struct shell *s)
{
	struct open_word w = {.start = s->top};
	size_t begun = s->at;

	for (int c; !is_delimiter(c = look(s)) || ((c == '<' || c == '>') && s->at == begun && look_behind(s) == '(');) {
		if (read_expansion(s, &w, BARE))
			continue;
		if (c == '<' || c == '>') { /* process substitution */
			s->at += 2;
			read_substitution(s);
			put_expansion(s, &w, 0);
		} else if (c == '\'') {
			w.quoted = true;
			read_single_quoted(s, &w);
		} else if (c == '"') {
			w.quoted = true;
			s->at++;
			read_double_quoted(s, &w, QUOTED);
		} else if (c == '\\' && s->at + 1 < s->in_n) {
			put(s, &w, s->in[s->at + 1], false);
			s->at += 2;
		} else {
			w.special = w.special || c == '{' || c == '*' || c == '?' || c == '[' || c == '~';
			w.equals = w.equals || c == '=';
			put(s, &w, c, true);
			s->at++;
		}
	}
	bool any = s->at > begun;
	if (any && w.equals && assigns(s, &w))
		w.flags |= SHELL_ASSIGNMENT;
	if (any)
		expand_braces(s, &w, w.start, s->top - w.start, 0);
	s->top = w.start;
	return any;
}

static bool drop_word(struct shell *s)
{
	size_t base = s->open_words;
	bool any = read_word(s);
	s->open_words = base;
	return any;
}

/* A word that must stand here; of it only what its substitutions start is kept. */
static void expect_word(struct shell *s, const char *why)
{
	skip_blanks(s);
	if (!drop_word(s))
		fail(s, SHELL_SYNTAX, why);
}

/* ---- redirections ---- */

/* "<<": the delimiter; the body comes with the next newline (XCU 2.7.4). */
static void read_heredoc_head(struct shell *s)
{
	struct shell_heredoc h = {.end = {s->text + s->text_n, 0}};
	size_t base = s->open_words;

	if (look(s) == '-') {
		h.strip = true;
		s->at++;
	}
	skip_blanks(s);
	size_t from = s->at;
	if (!read_word(s)) {
		fail(s, SHELL_SYNTAX, "a here-document has no delimiter");
		return;
	}
	bool varies = s->open_words != base + 1 || (open_word(s, base, 0)->flags & SHELL_VARIES);
	for (size_t i = from; i < s->at; i++) {
		h.quoted = h.quoted || strchr("'\"\\", s->in[i]);
		varies = varies || s->in[i] == '$' || s->in[i] == '\n';
	}
	if (s->heredocs == SHELL_HEREDOCS || varies) {
		unclear(s, varies ? "a here-document's delimiter that shells read differently" : "it has too many here-documents");
	} else {
		h.end = (struct str){s->text + open_word(s, base, 0)->at, open_word(s, base, 0)->n};
		s->heredoc[s->heredocs++] = h;
	}
	s->open_words = base;
}

static void read_heredoc_body(struct shell *s, const struct shell_heredoc *h)
{
	size_t from = s->at, line = from, all = s->in_n, next;
	bool joined = false, last = false;

	for (;; line = next) {
		const char *nl = memchr(s->in + line, '\n', all - line);
		size_t end = nl ? (size_t)(nl - s->in) : all, start = line, back = end;
		next = end + (nl != NULL);
		while (h->strip && start < end && s->in[start] == '\t')
			start++;
		last = !joined && end - start == h->end.n && memcmp(s->in + start, h->end.p, h->end.n) == 0;
		if (last || !nl)
			break;
		while (!h->quoted && back > line && s->in[back - 1] == '\\')
			back--;
		joined = (end - back) % 2; /* this line's end is none */
	}
	if (!h->quoted && enter(s)) {
		s->in_n = last ? line : all;
		read_double_quoted(s, NULL, HEREDOC);
		if (s->stopped)
			return;
		s->depth--;
	}
	s->in_n = all;
	s->at = next;
}

static void take_newline(struct shell *s)
{
	s->at++;
	if (s->heredocs_outside)
		unclear(s, "a substitution with a line's end stands before or in the body of a here-document");
	size_t n = s->heredocs;
	for (size_t i = s->heredocs_outside; i < n && !s->stopped; i++)
		read_heredoc_body(s, &s->heredoc[i]);
	s->heredocs = s->heredocs_outside;
}

static void skip_newlines(struct shell *s)
{
	for (skip_blanks(s); look(s) == '\n'; skip_blanks(s))
		take_newline(s);
}

/* At '<' or '>', or at "&>"; false when it is none. */
static bool read_redirection(struct shell *s)
{
	int c = look(s);

	if (!(c == '<' || c == '>' || (c == '&' && look_behind(s) == '>')))
		return false;
	s->complex = true;
	s->at++;
	bool both = c == '&';
	if (both)
		(void)look(s), s->at++;
	int second = look(s);
	if (c == '<' && second == '<') {
		s->at++;
		if (look(s) != '<') {
			read_heredoc_head(s);
			return true;
		}
		s->at++; /* a here-string */
	} else if (second == '>' || (second == '&' && !both) || (second == '|' && c == '>')) {
		s->at++;
	}
	expect_word(s, "a redirection has no target");
	return true;
}

static void read_redirections(struct shell *s)
{
	for (;;) {
		skip_blanks(s);
		size_t at = s->at;
		while (look(s) >= '0' && look(s) <= '9')
			s->at++;
		if (s->at > at && look(s) != '<' && look(s) != '>')
			s->at = at;
		if (!read_redirection(s))
			return;
	}
}

/* ---- commands ---- */

/* The reserved word that stands here, unquoted and whole. */
static const struct reserved *peek_reserved(struct shell *s)
{
	char text[10];
	size_t n = 0, at = s->at;
	int c = look(s);

	switch (c) { /* most words are told by their first letter */
	case '!': case '{': case '}': case '[': case 'i': case 'w': case 'u': case 'f': case 's': case 'c': case 't': case 'd': case 'e':
		break;
	default:
		return NULL;
	}
	while (!is_delimiter(c = look(s)) && n < sizeof text - 1) {
		text[n++] = (char)c;
		s->at++;
	}
	text[n] = '\0';
	s->behind = s->at;
	s->at = at;
	for (size_t i = 0; is_delimiter(c) && i < countof(reserved); i++)
		if (reserved[i].text[0] == text[0] && strcmp(reserved[i].text, text) == 0)
			return &reserved[i];
	return NULL;
}

static bool take_reserved(struct shell *s, enum keyword kind, unsigned ends)
{
	const struct reserved *r = peek_reserved(s);
	if (!r || r->kind != kind || (ends && !(r->end & ends)))
		return false;
	s->at = s->behind;
	return true;
}

/* A list that must end with one of these words, which is taken. */
static unsigned read_part(struct shell *s, unsigned ends)
{
	unsigned end = read_list(s, ends);
	if (end && !take_reserved(s, K_END, end))
		end = 0;
	return end;
}

/* A name that is set to what is not known: as the assignment that it is. */
static void put_name_as_assignment(struct shell *s, size_t base)
{
	struct shell_word *w = open_word(s, base, 0);
	if (s->open_words == base + 1 && s->text_n < sizeof s->text && w->at + w->n == s->text_n) {
		s->text[s->text_n++] = '=';
		w->n++;
		w->lead = w->n;
		w->flags |= SHELL_ASSIGNMENT | SHELL_VARIES;
		emit(s, base, 0);
	}
	s->open_words = base;
}

static void read_for(struct shell *s)
{
	size_t base = s->open_words;

	skip_blanks(s);
	if (look(s) == '(' && look_behind(s) == '(') {
		s->at += 2;
		read_arithmetic(s);
		skip_blanks(s);
		if (look(s) == ';')
			s->at++;
	} else {
		if (!read_word(s))
			fail(s, SHELL_SYNTAX, "'for' has no name");
		else
			put_name_as_assignment(s, base);
		skip_newlines(s);
		if (take_reserved(s, K_IN, 0))
			for (skip_blanks(s); drop_word(s); skip_blanks(s))
				;
		if (look(s) == ';')
			s->at++;
	}
	skip_newlines(s);
	if (take_reserved(s, K_END, E_DO))
		(void)read_part(s, E_DONE);
	else
		fail(s, SHELL_SYNTAX, "'do' is missing");
}

static void read_case(struct shell *s)
{
	expect_word(s, "'case' has no word");
	skip_newlines(s);
	if (!take_reserved(s, K_IN, 0))
		fail(s, SHELL_SYNTAX, "'in' is missing");
	for (skip_newlines(s); !s->stopped && !take_reserved(s, K_END, E_ESAC); skip_newlines(s)) {
		if (look(s) == '(')
			s->at++;
		do {
			expect_word(s, "a pattern, or 'esac', is missing");
			skip_blanks(s);
		} while (look(s) == '|' && s->at++ < s->in_n);
		expect(s, ')', "a pattern is not closed");
		if (read_list(s, E_CASE | E_ESAC | MAY_BE_EMPTY) == E_CASE)
			while (look(s) == ';' || look(s) == '&') /* ;; ;& ;;& */
				s->at++;
	}
}

/* A part of [[ ]] behind && or ||, or behind a line's end. */
static void emit_condition(struct shell *s, size_t base, bool first)
{
	static const char operators[][4] = {"=", "==", "!=", "=~", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef"};
	size_t n = s->open_words - base, skip = 0;
	bool operand = false;

	while (!first && skip < n && str_eq(shell_text(s, open_word(s, base, skip)), "!"))
		skip++;
	if (n - skip >= 2)
		for (size_t i = 0; i < countof(operators); i++)
			operand = operand || str_eq(shell_text(s, open_word(s, base, skip + 1)), operators[i]);
	if (!first && skip < n && open_word(s, base, skip)->n && s->text[open_word(s, base, skip)->at] == '-')
		operand = true;
	for (size_t i = skip; skip && i < n; i++)
		*open_word(s, base, i - skip) = *open_word(s, base, i);
	s->open_words -= skip;
	emit(s, base, !first && operand ? SHELL_OPERAND : 0);
}

/* Behind =~ bash takes everything up to a blank as one pattern; the words are not kept. */
static void read_regex(struct shell *s)
{
	size_t base = s->open_words;
	int level = 0;

	skip_blanks(s);
	for (int c; (c = look(s)) >= 0 && c != ' ' && c != '\t' && c != '\n';) {
		if (level == 0 && (c == '|' || c == '&' || c == ';'))
			unclear(s, "an operator in a pattern, which shells read differently");
		level += (c == '(') - (c == ')');
		if (is_delimiter(c))
			s->at++;
		else
			(void)read_word(s);
	}
	s->open_words = base;
}

static void read_condition(struct shell *s)
{
	size_t base = s->open_words;
	bool first = true, closed = false;
	int c;

	put_word(s, "[[", 2, 2, 0);
	s->complex = true;
	for (skip_blanks(s); !closed && (c = look(s)) >= 0; skip_blanks(s)) {
		size_t from = s->at;
		if (c == '\n' || ((c == '&' || c == '|') && look_behind(s) == c)) {
			emit_condition(s, base, first);
			first = false;
			s->at += c != '\n';
			(void)look(s);
			if (c == '\n')
				take_newline(s);
			else
				s->at++;
		} else if (c == '<' || c == '>') {
			char op = (char)c;
			put_word(s, &op, 1, 1, 0);
			s->at++;
		} else if (c == '(' || c == ')') {
			s->at++;
		} else if (!read_word(s)) {
			break;
		} else if (s->at == from + 2 && s->in[from] == '=' && s->in[from + 1] == '~') {
			read_regex(s);
		}
		closed = s->at == from + 2 && s->in[from] == ']' && s->in[from + 1] == ']';
	}
	if (closed)
		s->open_words--;
	emit_condition(s, base, first);
	if (!closed)
		fail(s, SHELL_SYNTAX, "a [[ is not closed");
}

/* The name is open word base; behind its "()". */
static void read_function(struct shell *s, size_t base, bool certain)
{
	size_t at = s->cmds;

	s->open_words = base + 1;
	if (open_word(s, base, 0)->flags)
		fail(s, SHELL_SYNTAX, "a function's name is no word");
	emit(s, base, SHELL_DEFINES);
	size_t line = s->at;
	skip_newlines(s);
	if (memchr(s->in + line, '\n', s->at - line))
		certain = certain && s->in[line - 1] == ')';
	if (enter(s))
		read_command(s);
	s->depth--;
	s->defined = certain && at < s->cmds ? (int32_t)at : -1;
}

/* "()" behind a name. */
static bool take_parens(struct shell *s)
{
	size_t at = s->at;
	skip_blanks(s);
	if (look(s) == '(') {
		s->at++;
		skip_blanks(s);
		if (look(s) == ')') {
			s->at++;
			return true;
		}
	}
	s->at = at;
	return false;
}

/* NAME=(a b c) of bash; at its '('. */
static void read_array(struct shell *s)
{
	s->at++;
	for (skip_newlines(s); drop_word(s); skip_newlines(s))
		;
	expect(s, ')', "an array is not closed");
}

/* The open word last read, when it is the number or {name} of a redirection. */
static bool is_redirected_fd(const struct shell *s, size_t from)
{
	size_t i = from, end = s->at;
	bool named = end - from > 2 && s->in[from] == '{' && s->in[end - 1] == '}';

	if (end == s->in_n || (s->in[end] != '<' && s->in[end] != '>'))
		return false;
	for (i += named; i < end - named; i++)
		if (named ? !is_name((unsigned char)s->in[i], false) : s->in[i] < '0' || s->in[i] > '9')
			return false;
	return true;
}

static void read_simple(struct shell *s)
{
	size_t base = s->open_words, assignments = 0, begun = s->at;

	for (int c; skip_blanks(s), (c = look(s)) >= 0 && c != '\n';) {
		size_t from = s->at, before = s->open_words;
		if (c == ';' || c == '|' || c == ')')
			break;
		if (c == '&' && look_behind(s) == '>') {
			/* for bash of this command; for others its end, and the beginning of another */
			(void)read_redirection(s);
			emit(s, base, 0);
			assignments = 0;
			continue;
		}
		if (c == '(') {
			bool array = before > base && assignments == before - base && s->in[from - 1] == '=';
			if (array) {
				read_array(s);
			} else if (before == base + 1 && !assignments && take_parens(s)) {
				read_function(s, base, true);
				return;
			} else {
				fail(s, SHELL_SYNTAX, "a ( where none can be");
			}
			continue;
		}
		if (!((c == '<' || c == '>') && look_behind(s) == '(') && read_redirection(s))
			continue;
		if (!read_word(s))
			break;
		if (is_redirected_fd(s, from)) {
			s->open_words = before;
			continue;
		}
		for (; assignments < s->open_words - base && (open_word(s, base, assignments)->flags & SHELL_ASSIGNMENT); assignments++)
			;
	}
	s->complex = s->complex || assignments;
	for (size_t i = assignments; i < s->open_words - base; i++)
		open_word(s, base, i)->flags &= ~(unsigned)SHELL_ASSIGNMENT;
	emit(s, base, 0);
	if (s->at == begun)
		fail(s, SHELL_SYNTAX, "a command is missing");
}

/* "function NAME [()] body"; others than bash run a program of that name, and then the body. */
static void read_function_keyword(struct shell *s)
{
	size_t base = s->open_words;

	skip_blanks(s);
	if (!read_word(s)) {
		fail(s, SHELL_SYNTAX, "'function' has no name");
		return;
	}
	(void)take_parens(s);
	read_function(s, base, true);
}

/* "time" and "coproc" before a compound command; before a simple one they are words of it. */
static bool read_prefix(struct shell *s)
{
	const char *name = s->in + s->at;
	size_t at = s->at, n = s->behind - at;

	s->at = s->behind;
	skip_blanks(s);
	if (n == 6 && is_name(look(s), true)) { /* bash: a name may stand between */
		size_t name_at = s->at;
		while (is_name(look(s), false))
			s->at++;
		skip_blanks(s);
		if (look(s) != '{' && look(s) != '(')
			s->at = name_at;
	}
	const struct reserved *r = peek_reserved(s);
	if (look(s) == '(' || (r && r->kind != K_END && r->kind != K_IN && r->kind != K_PREFIX)) {
		size_t base = s->open_words;
		put_word(s, name, n, n, 0);
		emit(s, base, 0);
		return true;
	}
	s->at = at;
	return false;
}

static void read_compound(struct shell *s, enum keyword kind)
{
	unsigned end;

	switch (kind) {
	case K_GROUP:
		(void)read_part(s, E_BRACE);
		break;
	case K_IF:
		do {
			(void)read_part(s, E_THEN);
			end = read_part(s, E_ELIF | E_ELSE | E_FI);
		} while (end == E_ELIF);
		if (end == E_ELSE)
			(void)read_part(s, E_FI);
		break;
	case K_LOOP:
		(void)read_part(s, E_DO);
		(void)read_part(s, E_DONE);
		break;
	case K_FOR:
		read_for(s);
		break;
	case K_CASE:
		read_case(s);
		break;
	case K_COND:
		read_condition(s);
		break;
	default:
		read_function_keyword(s);
	}
}

/* "((": for bash arithmetic, where it ends with "))"; for others subshells. They agree on what is run
 * unless something in it hides a part of the text from one of them. */
static void check_arithmetic(struct shell *s)
{
	static const char hides[] = "'\"\\#`<";
	size_t at = s->at;

	s->at += 2;
	if (is_arithmetic(s))
		for (size_t i = s->at, level = 0; i < s->in_n && !(s->in[i] == ')' && level == 0); i++) {
			level += (s->in[i] == '(') - (s->in[i] == ')');
			if (strchr(hides, s->in[i]))
				unclear(s, "((...)) with quotes or redirections, which shells read differently");
		}
	s->at = at;
}

static void read_command(struct shell *s)
{
	const struct reserved *r;

	while ((r = peek_reserved(s)) && (r->kind == K_NOT || (r->kind == K_PREFIX && read_prefix(s)))) {
		s->complex = true;
		if (r->kind == K_NOT)
			s->at = s->behind;
		skip_blanks(s);
	}
	bool subshell = look(s) == '(';
	if (!subshell && (!r || r->kind == K_IN || r->kind == K_PREFIX)) {
		read_simple(s);
		return;
	}
	s->complex = true;
	if (subshell && look_behind(s) == '(')
		check_arithmetic(s);
	if (r && r->kind == K_END) {
		fail(s, SHELL_SYNTAX, "a keyword where none can be");
	} else if (enter(s)) {
		s->at = subshell ? s->at + 1 : s->behind;
		if (!subshell)
			read_compound(s, r->kind);
		else if (read_list(s, E_PAREN) == E_PAREN)
			s->at++;
		read_redirections(s);
		s->depth--;
	}
}

/* What ends the list here, if anything does: looked at, not taken. */
static unsigned peek_end(struct shell *s)
{
	int c = look(s);

	if (c < 0)
		return E_END;
	if (c == ')')
		return E_PAREN;
	if (c == ';' && (look_behind(s) == ';' || look_behind(s) == '&'))
		return E_CASE;
	const struct reserved *r = peek_reserved(s);
	return r ? r->end : 0;
}

/* Takes the operator behind a command: what it is, 'A' for && and 'O' for ||; 0 when there is none. */
static int take_operator(struct shell *s)
{
	int c = look(s);

	if (c == '\n') {
		take_newline(s);
		return c;
	}
	if ((c != ';' && c != '&' && c != '|') || (c == ';' && peek_end(s)))
		return 0;
	s->at++;
	if (c != ';' && look(s) == c) {
		s->at++;
		return c == '&' ? 'A' : 'O';
	}
	if (c == '|' && look(s) == '&')
		s->at++;
	return c;
}

/* Commands up to one of the ends: which it was, not taken, or 0. */
static unsigned read_list(struct shell *s, unsigned ends)
{
	bool needed = !(ends & MAY_BE_EMPTY), first = true;
	unsigned end = 0;
	int op = 0;

	s->lists++;
	while (!s->stopped) {
		skip_newlines(s);
		if ((end = peek_end(s)) || s->stopped)
			break;
		s->defined = -1;
		size_t begun = s->at;
		read_command(s);
		int32_t defined = s->lists == 1 && first ? s->defined : -1;
		skip_blanks(s);
		op = take_operator(s);
		if (defined >= 0 && op != '&' && op != '|')
			s->cmd[defined].flags |= SHELL_CERTAIN;
		s->complex = s->complex || op;
		first = op == ';' || op == '&' || op == '\n';
		needed = op == 'A' || op == 'O' || op == '|';
		if (s->at == begun || (!op && !peek_end(s)))
			fail(s, SHELL_SYNTAX, "an operator is missing");
	}
	s->defined = -1;
	s->lists--;
	if (!s->stopped && (needed || !(end & ends)))
		fail(s, SHELL_SYNTAX, needed ? "a command is missing" : end == E_END ? "it ends too early" : "something closes what was not opened");
	return s->stopped ? 0 : end;
}

/* ---- from outside ---- */

void shell_reset(struct shell *s)
{
	s->error = SHELL_FINE;
	s->why = NULL;
	s->complex = false;
	s->cmds = s->words = s->text_n = s->open_words = s->top = 0;
	s->heredocs = s->heredocs_outside = s->lists = s->depth = 0;
	s->budget = SHELL_BUDGET;
	s->brace_budget = BRACE_BYTES;
}

void shell_read(struct shell *s, struct str text, unsigned depth)
{
	s->stopped = false;
	s->depth = depth;
	s->lists = depth ? 1 : 0; /* what eval defines is not certain */
	read_inner(s, text.p, text.n);
	s->lists = s->depth = 0; /* where it was stopped, these are left as they were */
	s->top = s->open_words = s->heredocs = s->heredocs_outside = 0;
}

bool shell_is_plain(const struct shell *s)
{
	return !s->error && !s->complex && s->cmds == 1;
}

struct str shell_text(const struct shell *s, const struct shell_word *w)
{
	return (struct str){s->text + w->at, w->n};
}

struct str shell_join(struct shell *s, const struct shell_word *w, size_t n)
{
	size_t from = s->text_n;
	for (size_t i = 0; i < n; i++) {
		if (w[i].n + 1 > sizeof s->text - s->text_n) {
			s->text_n = from;
			return (struct str){NULL, 0};
		}
		memcpy(s->text + s->text_n, s->text + w[i].at, w[i].n);
		s->text_n += w[i].n;
		s->text[s->text_n++] = ' ';
	}
	return (struct str){s->text + from, s->text_n - from};
}

bool shell_add_words(struct shell *s, const struct str *word, size_t n)
{
	for (size_t i = 0; i < n; i++)
		put_word(s, word[i].p, word[i].n, word[i].n, 0);
	emit(s, 0, 0);
	return !s->error;
}
