/* L1 pure: SHA-256 (FIPS 180-4), HMAC (RFC 2104), PBKDF2 (RFC 8018). */
#ifndef HASH_H
#define HASH_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util.h"

enum { HASH_BYTES = 32, HASH_BLOCK = 64, HASH_HEX = 2 * HASH_BYTES };

/* A digest that is being made; start it with sha256_init. */
struct sha256 { uint32_t h[8]; uint64_t bytes; unsigned char block[HASH_BLOCK]; };

void sha256_init(struct sha256 *s);
void sha256_put(struct sha256 *s, const void *p, size_t n);
/* Writes the digest; s is then spent. */
void sha256_end(struct sha256 *s, unsigned char out[HASH_BYTES]);
/* The digest of a text, as 64 lower case hexadecimal digits and no NUL. */
void sha256_hex(struct str text, char out[HASH_HEX]);

/* HMAC-SHA256 with a key of any length. */
void hmac_sha256(struct str key, struct str text, unsigned char out[HASH_BYTES]);

/* PBKDF2-HMAC-SHA256, one block of 32 bytes, done a slice at a time so that nobody waits for it. */
struct pbkdf2 { struct sha256 inner, outer; unsigned char u[HASH_BYTES], out[HASH_BYTES]; uint32_t left; };

/* iterations: at least 1. password and salt are not needed afterwards. */
void pbkdf2_start(struct pbkdf2 *k, struct str password, struct str salt, uint32_t iterations);
/* Does at most n more iterations; true when out holds the key. */
bool pbkdf2_go(struct pbkdf2 *k, uint32_t n);
#endif
