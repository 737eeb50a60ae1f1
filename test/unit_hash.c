/* hash.c: the published vectors, and the same text in pieces of every size. */
#include "unit.h"

#include "../hash.h"
#include "../util.h"

static void equal_hex(const void *got, size_t n, const char *want, const char *what)
{
	char hex[2 * 64];
	struct buf b = {hex, 0, sizeof hex, false};
	buf_hex(&b, got, n);
	check(b.n == strlen(want) && memcmp(hex, want, b.n) == 0, "%s: %.*s instead of %s", what, (int)b.n, hex, want);
}

/* FIPS 180-4's examples, as NIST publishes them with their intermediate values; and a million a. */
static void digests(void)
{
	static const struct { const char *text, *digest; } known[] = {
		{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
		{"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
		 "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
	};
	static char million[1000000];
	unsigned char out[HASH_BYTES];
	struct sha256 s;

	for (size_t i = 0; i < countof(known); i++) {
		char hex[HASH_HEX];
		sha256_hex(str_of(known[i].text), hex);
		check(memcmp(hex, known[i].digest, HASH_HEX) == 0, "digest of '%s'", known[i].text);
	}
	memset(million, 'a', sizeof million);
	sha256_init(&s);
	sha256_put(&s, million, sizeof million);
	sha256_end(&s, out);
	equal_hex(out, sizeof out, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", "a million a");
	for (size_t piece = 1; piece < 200; piece++) {
		unsigned char whole[HASH_BYTES];
		sha256_init(&s);
		sha256_put(&s, million, 1000 + piece);
		sha256_end(&s, whole);
		sha256_init(&s);
		for (size_t at = 0; at < 1000 + piece; at += piece)
			sha256_put(&s, million, 1000 + piece - at < piece ? 1000 + piece - at : piece);
		sha256_end(&s, out);
		check(memcmp(out, whole, sizeof out) == 0, "pieces of %zu bytes", piece);
	}
}

/* RFC 4231, cases 1, 2, 3 and 6 (a key longer than a block) */
static void hmacs(void)
{
	char key[131], text[50];
	unsigned char out[HASH_BYTES];

	memset(key, 0x0b, 20);
	hmac_sha256((struct str){key, 20}, str_of("Hi There"), out);
	equal_hex(out, sizeof out, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", "RFC 4231 case 1");
	hmac_sha256(str_of("Jefe"), str_of("what do ya want for nothing?"), out);
	equal_hex(out, sizeof out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", "RFC 4231 case 2");
	memset(key, 0xaa, sizeof key);
	memset(text, 0xdd, sizeof text);
	hmac_sha256((struct str){key, 20}, (struct str){text, sizeof text}, out);
	equal_hex(out, sizeof out, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe", "RFC 4231 case 3");
	hmac_sha256((struct str){key, sizeof key}, str_of("Test Using Larger Than Block-Size Key - Hash Key First"), out);
	equal_hex(out, sizeof out, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54", "RFC 4231 case 6");
}

/* RFC 7914 section 11, and the widely published ones with RFC 6070's inputs; the first 32 bytes of each */
static void keys(void)
{
	static const struct { struct str password, salt; uint32_t iterations; const char *key; } known[] = {
		{{"passwd", 6}, {"salt", 4}, 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"},
		{{"Password", 8}, {"NaCl", 4}, 80000, "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"},
		{{"password", 8}, {"salt", 4}, 1, "120fb6cffcf8b32c43e7225256c4f837a86548c92ccc35480805987cb70be17b"},
		{{"password", 8}, {"salt", 4}, 2, "ae4d0c95af6b46d32d0adff928f06dd02a303f8ef3c251dfd6e2d85a95474c43"},
		{{"password", 8}, {"salt", 4}, 4096, "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a"},
		{{"passwordPASSWORDpassword", 24}, {"saltSALTsaltSALTsaltSALTsaltSALTsalt", 36}, 4096,
		 "348c89dbcbd32b2f32d814b8116e84cf2b17347ebc1800181c4e2a1fb8dd53e1"},
	};
	for (size_t i = 0; i < countof(known); i++)
		for (uint32_t slice = 7; slice < 100000; slice += 99000) {
			struct pbkdf2 k;
			pbkdf2_start(&k, known[i].password, known[i].salt, known[i].iterations);
			while (!pbkdf2_go(&k, slice))
				;
			equal_hex(k.out, sizeof k.out, known[i].key, "PBKDF2");
		}
}

int main(void)
{
	digests();
	hmacs();
	keys();
	return unit_end("unit_hash");
}
