/* L1 pure: SHA-256 (FIPS 180-4), HMAC (RFC 2104), PBKDF2 (RFC 8018). Memory to memory; no table
 * is looked up by a secret, so the time says nothing about it. */
#include "hash.h"

#include <string.h>

/* the first 32 bits of the fractions of the cube roots of the first 64 primes, FIPS 180-4 section 4.2.2 */
static const uint32_t k256[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t ror(uint32_t v, int n)
{
	return v >> n | v << (32 - n);
}

/* FIPS 180-4 section 6.2.2 */
static void compress(uint32_t h[8], const unsigned char *p)
{
	uint32_t w[64];

	for (int i = 0; i < 16; i++, p += 4)
		w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
	uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], last = h[7];
	for (int i = 0; i < 64; i++) {
		uint32_t t1 = last + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + ((e & f) ^ (~e & g)) + k256[i] + w[i];
		uint32_t t2 = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
		last = g, g = f, f = e, e = d + t1;
		d = c, c = b, b = a, a = t1 + t2;
	}
	h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e, h[5] += f, h[6] += g, h[7] += last;
}

void sha256_init(struct sha256 *s)
{
	/* of the square roots of the first 8 primes, section 5.3.3 */
	*s = (struct sha256){.h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void sha256_put(struct sha256 *s, const void *p, size_t n)
{
	const unsigned char *from = p;

	while (n) {
		size_t at = s->bytes % HASH_BLOCK, take = HASH_BLOCK - at < n ? HASH_BLOCK - at : n;
		memcpy(s->block + at, from, take);
		s->bytes += take;
		from += take;
		n -= take;
		if (s->bytes % HASH_BLOCK == 0)
			compress(s->h, s->block);
	}
}

static void put_big_endian(unsigned char *out, uint64_t v, int n)
{
	while (n--)
		*out++ = (unsigned char)(v >> 8 * n);
}

void sha256_end(struct sha256 *s, unsigned char out[HASH_BYTES])
{
	static const unsigned char padding[HASH_BLOCK] = {0x80};
	uint64_t bits = s->bytes * 8;
	unsigned char length[8];

	put_big_endian(length, bits, 8);
	sha256_put(s, padding, 1 + (2 * HASH_BLOCK - 9 - s->bytes % HASH_BLOCK) % HASH_BLOCK);
	sha256_put(s, length, sizeof length);
	for (int i = 0; i < 8; i++)
		put_big_endian(out + 4 * i, s->h[i], 4);
}

void sha256_hex(struct str text, char out[HASH_HEX])
{
	struct buf b = {out, 0, HASH_HEX, false};
	unsigned char digest[HASH_BYTES];
	struct sha256 s;

	sha256_init(&s);
	sha256_put(&s, text.p, text.n);
	sha256_end(&s, digest);
	buf_hex(&b, digest, sizeof digest);
}

/* The two digests, each with its padded key already in (RFC 2104 section 4). */
static void hmac_key(struct str key, struct sha256 *inner, struct sha256 *outer)
{
	unsigned char pad[HASH_BLOCK] = {0};

	sha256_init(inner);
	sha256_init(outer);
	if (key.n > sizeof pad) {
		sha256_put(inner, key.p, key.n);
		sha256_end(inner, pad);
		sha256_init(inner);
	} else if (key.n) {
		memcpy(pad, key.p, key.n);
	}
	for (size_t i = 0; i < sizeof pad; i++)
		pad[i] ^= 0x36;
	sha256_put(inner, pad, sizeof pad);
	for (size_t i = 0; i < sizeof pad; i++)
		pad[i] ^= 0x36 ^ 0x5c;
	sha256_put(outer, pad, sizeof pad);
}

/* inner has the text already; outer is used up. */
static void hmac_end(struct sha256 *inner, struct sha256 *outer, unsigned char out[HASH_BYTES])
{
	sha256_end(inner, out);
	sha256_put(outer, out, HASH_BYTES);
	sha256_end(outer, out);
}

void hmac_sha256(struct str key, struct str text, unsigned char out[HASH_BYTES])
{
	struct sha256 inner, outer;
	hmac_key(key, &inner, &outer);
	sha256_put(&inner, text.p, text.n);
	hmac_end(&inner, &outer, out);
}

void pbkdf2_start(struct pbkdf2 *k, struct str password, struct str salt, uint32_t iterations)
{
	static const unsigned char first_block[4] = {0, 0, 0, 1};
	struct sha256 inner, outer;

	hmac_key(password, &k->inner, &k->outer);
	inner = k->inner;
	outer = k->outer;
	sha256_put(&inner, salt.p, salt.n);
	sha256_put(&inner, first_block, sizeof first_block);
	hmac_end(&inner, &outer, k->u);
	memcpy(k->out, k->u, sizeof k->out);
	k->left = iterations - 1;
}

bool pbkdf2_go(struct pbkdf2 *k, uint32_t n)
{
	for (; n && k->left; n--, k->left--) {
		struct sha256 inner = k->inner, outer = k->outer;
		sha256_put(&inner, k->u, sizeof k->u);
		hmac_end(&inner, &outer, k->u);
		for (size_t i = 0; i < sizeof k->out; i++)
			k->out[i] ^= k->u[i];
	}
	return k->left == 0;
}
