/* L1 pure: the shell's grammar, read into a flat list of the simple commands; it knows no rule. */
#ifndef SHELL_H
#define SHELL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util.h"

enum {
	SHELL_IN_MAX = 65536, SHELL_DEPTH = 64,
	/* several texts may be read into one list (what eval and sh -c are given), in all at most: */
	SHELL_BUDGET = 2 * SHELL_IN_MAX,
	SHELL_CMDS = 40960, SHELL_WORDS = 98304, SHELL_TEXT = SHELL_BUDGET + 2 * SHELL_IN_MAX, SHELL_HEREDOCS = 16,
};

/* SYNTAX: no shell can read it. UNCLEAR: shells read it differently, or it is beyond the limits. */
enum shell_error { SHELL_FINE, SHELL_SYNTAX, SHELL_UNCLEAR };

/* A word after quote removal. Without flags it is constant. */
enum {
	SHELL_VARIES = 1,     /* has an expansion, which stands in text as $@; the first lead bytes are sure */
	SHELL_SPLITS = 2,     /* and may become no word, or several */
	SHELL_GLOB = 4,       /* a pattern or ~, which the shell may replace by file names */
	SHELL_ASSIGNMENT = 8, /* NAME=value before the command's name */
};
struct shell_word { uint32_t at, n, lead, flags; };

/* A simple command: its assignments, then its words, the first of which says what is run. */
enum {
	SHELL_DEFINES = 1,  /* its one word is the name of a function; the body's commands follow */
	SHELL_CERTAIN = 2,  /* and whatever stands behind it finds that function */
	SHELL_OPERAND = 4,  /* in [[ ]] behind && or ||: bash compares it, other shells would run it */
};
struct shell_cmd { uint32_t word, words; uint16_t flags, depth; };

/* The small fields stand first: near the struct's beginning, code that uses them is half as long. */
struct shell {
	/* the result; text is what words point into */
	enum shell_error error;
	bool complex; /* anything but words was met: an operator, a redirection, a keyword, an expansion */
	const char *why; /* of error: a few words */
	size_t cmds, words;

	/* while reading */
	const char *in;
	size_t top; /* words that are being read, a stack of scratch and bare */
	size_t in_n, at, text_n, open_words;
	size_t behind; /* the reserved word that was looked at last */
	size_t heredocs, heredocs_outside; /* whose bodies are still to come */
	unsigned depth, lists;
	int32_t defined; /* the function that the command just read defines, or -1 */
	bool stopped;
	size_t budget, brace_budget;
	struct shell_heredoc { struct str end; bool strip, quoted; } heredoc[SHELL_HEREDOCS];

	struct shell_cmd cmd[SHELL_CMDS];
	struct shell_word word[SHELL_WORDS]; /* from the end downwards: words of commands that are being read */
	char text[SHELL_TEXT], scratch[SHELL_TEXT];
	bool bare[SHELL_TEXT]; /* which of scratch's characters stood unquoted */
};

/* Forgets what was read. */
void shell_reset(struct shell *s);
/* Reads one text and appends its commands; depth is that of the command that brought it. What was
 * found before an error stays in the list. Time is linear in the text; the text may lie in s->text. */
void shell_read(struct shell *s, struct str text, unsigned depth);
/* True when all of it is one program with constant words, for which no shell is needed. */
bool shell_is_plain(const struct shell *s);
struct str shell_text(const struct shell *s, const struct shell_word *w);
/* n words as one text with blanks between, in s->text; p is NULL when there is no room. */
struct str shell_join(struct shell *s, const struct shell_word *w, size_t n);
/* Appends one command of constant words, which no shell has read. False when there is no room. */
bool shell_add_words(struct shell *s, const struct str *word, size_t n);
#endif
