/* L2 net: the two lists, and what they say about a command line. */
#ifndef POLICY_H
#define POLICY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf.h"
#include "shell.h"
#include "util.h"

enum policy_list { POLICY_BLACK, POLICY_WHITE, POLICY_LISTS };
enum policy_code { POLICY_OK, POLICY_BLACKLISTED, POLICY_NOT_WHITELISTED, POLICY_SYNTAX };
enum { POLICY_RULES = 1024, POLICY_PATTERN_MAX = 200, POLICY_HASH = 2048, POLICY_NAMES = 256, POLICY_FUNCTIONS = 64 };

struct policy_rule {
	struct str text, name; /* of the file, or of the defaults; name: the program's, empty for a rule about text */
	uint16_t list, next;   /* next: one more than the next rule whose name has the same hash */
	bool words;            /* there is more than a name */
};

struct policy {
	size_t file_n, rules, count[POLICY_LISTS];
	char file[CONF_FILE_MAX]; /* the policy file as it should be; rules point into it */
	struct policy_rule rule[POLICY_RULES];
	uint16_t hash[POLICY_HASH];
	uint8_t known[POLICY_HASH]; /* which tables of policy.c have a name of this hash, by bits */
};

struct policy_ask {
	struct str text;          /* a command line, or: */
	const struct str *argv;   /* a program and its arguments, no shell */
	size_t argc;
	uint32_t profile;
	const struct str *allow;  /* the only programs that may run, where restricted */
	size_t allows;
	bool restricted;
};

/* What was found. Slices point into the policy and into the parser, until the next judgement. */
struct verdict {
	enum policy_code code;    /* what the command is refused for */
	enum policy_code would;   /* permissive: what a stricter profile would refuse it for */
	struct str rule, program; /* the rule that refuses it; the program it is refused for, if there is one */
	const char *why;          /* a sentence, or NULL */
	bool undecided;           /* it starts something whose name is not known yet */
	bool plain;               /* one program with constant words */
	bool more_names;
	size_t names;
	struct str name[POLICY_NAMES]; /* every program it would start, each once */
};

/* Takes the two lists of a policy file's text, or the defaults for a list that it does not have, and
 * keeps a copy of the text. False: why has a sentence, and p is as before. */
bool policy_load(struct policy *p, struct str text, const char *file_name, char *why, size_t cap);
/* Judges; runs nothing. Bounded in time and memory whatever the text is. */
void policy_judge(const struct policy *p, const struct policy_ask *ask, struct verdict *v);
/* Whether a shell runs text, or a file, that it finds in this variable. */
bool policy_is_run_by_shells(struct str variable);
/* "blacklist", ... as the API has it. */
const char *policy_code_name(enum policy_code c);
/* Adds or removes a rule in p->file, whose comments stay, and in the lists. NULL, or what is wrong. */
const char *policy_edit(struct policy *p, bool add, enum policy_list list, struct str pattern);
/* Sets a key of [config] in p->file, whose comments stay. NULL, or what is wrong. */
const char *policy_set(struct policy *p, const char *key, uint64_t value);
/* The names of programs in a list, each NUL-terminated; how many. */
size_t policy_programs(const struct policy *p, enum policy_list list, struct buf *out);
#endif
