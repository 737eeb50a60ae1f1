/* L1 pure: JSON as RFC 8259 has it, memory to memory: a checking reader and a writer that can't
 * write anything else. */
#ifndef JSON_H
#define JSON_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util.h"

enum { JSON_DEPTH = 32 };

enum json_kind { JSON_END, JSON_OBJECT, JSON_ARRAY, JSON_CLOSE, JSON_STRING, JSON_NUMBER, JSON_BOOL, JSON_NULL };

/* One step of the reader. text is the raw text: a string's without its quotes, still escaped; of
 * an object or array the whole, brackets included, once json_skip has passed it. */
struct json_token { enum json_kind kind; struct str key, text; bool truth; };

/* Reads tokens of one text in order. Zero it and set in. bad says where reading stopped. */
struct json_reader {
	struct str in;
	size_t at;
	uint64_t objects; /* bit d: what is open at depth d is an object */
	int depth;
	bool begun, after_value;
	const char *error; /* NULL, or a few words; at is then the offset */
};

/* The next token, grammar and UTF-8 checked: its kind. Inside an object key holds the raw name, else key.p is NULL.
 * JSON_END when the one value is complete and nothing but blanks follows, or on an error. */
enum json_kind json_next(struct json_reader *r, struct json_token *t);
/* Begins to read a text and passes its first token, such as the bracket of what json_skip passed: its kind. */
enum json_kind json_enter(struct json_reader *r, struct str in);
/* Passes over what t opened, checking it; t->text becomes the whole of it. False on an error. */
bool json_skip(struct json_reader *r, struct json_token *t);
/* Checks a whole text: NULL, or what is wrong; at, unless NULL, becomes its offset. */
const char *json_check(struct str in, size_t *at);
/* A field that is known: JSON_END as its kind takes any; needs is the sentence for a wrong kind. */
struct json_field { char name[19]; uint8_t kind; /* enum json_kind */ char needs[73]; };
/* Reads the known fields of a checked text, each at most once and of its kind, into out, else JSON_END; others are
 * passed over. NULL, or what is wrong. */
const char *json_fields(struct str object, const struct json_field *known, size_t n, struct json_token *out);
/* Resolves the escapes of a raw string, in its own memory, which must be writable; do it once. */
struct str json_unescape(struct str raw);
/* True when the raw string s means the same as the plain ASCII name. */
bool json_is(struct str s, const char *name);
/* An integer without fraction or exponent, at most 2^53 either way (RFC 8259 section 6). */
bool json_int(struct str number, int64_t *v);

/* Writes one value into b. Commas and brackets are its own affair; what would not be JSON (a
 * value without its key, a key in an array, a second top value) sets b->full instead. */
struct json_writer { struct buf *b; uint64_t objects; int depth; bool comma, key; };

void json_open(struct json_writer *w, bool object);
void json_close(struct json_writer *w);
/* key is a C string of ours, written with its escapes like any other string. */
void json_key(struct json_writer *w, const char *key);
/* Any bytes; true when all were UTF-8, else each ill-formed part became U+FFFD. */
bool json_string(struct json_writer *w, struct str s);
void json_number(struct json_writer *w, int64_t v);
void json_truth(struct json_writer *w, bool v);
void json_null(struct json_writer *w);
/* A value stands here that somebody else writes. */
void json_elsewhere(struct json_writer *w);
/* Several fields or values after a pattern of ours, like "name:%s limits:{max:%u} n:0 list:[": a name with ':', then
 * what brackets or a word stand there, or %s (NULL: null), %hhd (a truth), %d, %u, %lu, %ld, %zu. */
void json_put(struct json_writer *w, const char *pattern, ...) __attribute__((format(printf, 2, 3)));
/* Key and value at once, where the key is no constant; a string whose p is NULL is null. */
void json_put_string(struct json_writer *w, const char *key, struct str s);
void json_put_number(struct json_writer *w, const char *key, int64_t v);

/* The escaped form of s, without quotes, as far as it fits whole into b, which never becomes
 * full: the bytes of s used. *lossy, unless NULL, is set when something was replaced. */
size_t json_escape(struct buf *b, struct str s, bool *lossy);
/* How many bytes json_escape would write for all of s. */
size_t json_escaped_len(struct str s, bool *lossy);
/* The same for base64, in whole groups. */
size_t json_base64(struct buf *b, struct str s);
#endif
