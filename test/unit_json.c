/* json.c against RFC 8259: what it must accept, what it must refuse, and that its writer can't write
 * anything else. Inputs end at a guard page. */
#include "unit.h"

#include "../json.h"

static const char *const accepted[] = {
	"null", "true", "false", "0", "-0", "1", "-1", "10", "123456789012345678901234567890", "0.5", "-0.0", "1e5", "1E5", "1e+5", "1e-5",
	"1.25e10", "0e0", "0E+00", "\"\"", "\"a\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u0000\"", "\"\\u00e9\"", "\"\\uD83D\\uDE00\"",
	"\"\\ud83d\\ude00x\"", "\"\\uFFFF\"", "\"\x7f\"", "\"\xc3\xa9\"", "\"\xe2\x82\xac\"", "\"\xf0\x9f\xa6\x80\"", "\"\xf4\x8f\xbf\xbf\"",
	"\"\xed\x9f\xbf\"", "\"\xee\x80\x80\"", "[]", "{}", "[ ]", "{ }", "[1]", "[1,2]", "[[],{}]", "{\"\":0}", "{\"a\":1,\"a\":2}",
	"{\"a\":{\"b\":[true,false,null]}}", " \t\r\n1 \t\r\n", " [ 1 , 2 ] ", "{ \"a\" : 1 , \"b\" : [ ] }", "[\"\",\"\"]", "\"/\"", "[-1.5e-3,0]",
};

static const char *const refused[] = {
	"", " ", "nul", "nulll", "True", "NULL", "tru", "truefalse", "undefined", "NaN", "Infinity", "-Infinity", "-", "+1", "01", "-01", "00",
	"1.", ".5", "-.5", "1.e5", "1e", "1e+", "1E-", "0x10", "1_000", "1 2", "--1", "1-", "1e5.5", "1,", "\"", "\"a", "'a'", "\"\\\"", "\"\\x41\"",
	"\"\\u\"", "\"\\u12\"", "\"\\u123g\"", "\"\\U0041\"", "\"\\a\"", "\"\\'\"", "\"\\0\"", "\"\\\n\"", "\"\n\"", "\"\t\"", "\"\x01\"", "\"\x1f\"",
	"\"\\ud800\"", "\"\\udc00\"", "\"\\ud800x\"", "\"\\ud800\\ud800\"", "\"\\ud800\\u0041\"", "\"\\ud800\\ue000\"", "\"\\ud800\\udbff\"", "\"\\udc00\\ud800\"", "\"\\ud83d\\\"",
	"\"\x80\"", "\"\xbf\"", "\"\xc0\x80\"", "\"\xc1\xbf\"", "\"\xc3\"", "\"\xc3(\"", "\"\xe0\x80\x80\"", "\"\xe0\x9f\xbf\"", "\"\xe2\x82\"",
	"\"\xed\xa0\x80\"", "\"\xed\xbf\xbf\"", "\"\xf0\x80\x80\x80\"", "\"\xf0\x8f\xbf\xbf\"", "\"\xf0\x9f\xa6\"", "\"\xf4\x90\x80\x80\"",
	"\"\xf5\x80\x80\x80\"", "\"\xfe\"", "\"\xff\"", "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[,]", "[1 2]", "[1}", "{1}", "{\"a\"}",
	"{\"a\":}", "{\"a\":1", "{\"a\":1,}", "{,\"a\":1}", "{\"a\" 1}", "{\"a\":1 \"b\":2}", "{a:1}", "{'a':1}", "{1:1}", "{null:1}", "{\"a\"::1}",
	"{\"a\":1]", "[]]", "{}}", "[] []", "{} 1", "[1]x", "\xef\xbb\xbf[]", "\x0b" "1", "\x0c" "1", "\xc2\xa0" "1", "/**/1", "1//", "#1", "[1]\x01",
};

static bool is_valid(const char *text, size_t n)
{
	size_t at;
	char *p = guard_copy(text, n);
	bool ok = json_check((struct str){p, n}, &at) == NULL;
	check(at <= n, "offset beyond the text: %.40s", text);
	guard_free(p, n);
	return ok;
}

static void grammar(void)
{
	for (size_t i = 0; i < countof(accepted); i++)
		check(is_valid(accepted[i], strlen(accepted[i])), "refused: %s", accepted[i]);
	for (size_t i = 0; i < countof(refused); i++)
		check(!is_valid(refused[i], strlen(refused[i])), "accepted: %s", refused[i]);
	for (int c = 0; c < 256; c++) { /* behind, before and alone */
		char text[3] = {'[', ']', (char)c}, front[3] = {(char)c, '[', ']'}, in[3] = {'"', (char)c, '"'};
		bool blank = c == ' ' || c == '\t' || c == '\n' || c == '\r';
		check(is_valid(text, 3) == blank, "byte %d behind", c);
		check(is_valid(front, 3) == blank, "byte %d before", c);
		check(is_valid(in, 3) == (c >= 0x20 && c < 0x80 && c != '"' && c != '\\'), "byte %d in a string", c);
		check(is_valid(front, 1) == (c >= '0' && c <= '9'), "byte %d alone", c);
	}
	check(!is_valid("\0", 1) && !is_valid("[]\0", 3) && !is_valid("\"a\0b\"", 5), "NUL accepted");
	const char *doc = "{\"a\\n\\ud83d\\ude00\":[1.5e3,true,null,{\"b\":\"\xf0\x9f\xa6\x80\"}],\"c\":{}}";
	for (size_t n = 0; n < strlen(doc); n++)
		check(!is_valid(doc, n), "prefix of %zu accepted", n);
	check(is_valid(doc, strlen(doc)), "whole document refused");
	for (int depth = JSON_DEPTH - 1; depth <= JSON_DEPTH + 40; depth++) {
		char deep[4 * (JSON_DEPTH + 41) * 5], *p = deep;
		for (int i = 0; i < depth; i++)
			p += sprintf(p, i % 2 ? "{\"a\":" : "[");
		*p++ = '1';
		for (int i = depth; i-- > 0;)
			*p++ = i % 2 ? '}' : ']';
		check(is_valid(deep, (size_t)(p - deep)) == (depth <= JSON_DEPTH), "depth %d", depth);
	}
}

static void reader(void)
{
	char text[] = "{\"n\\u0061me\":\"x\\u00e9\\ud83e\\udd80\\n\\\\\",\"list\":[1,[2,{\"in\":[]}],3],\"int\":-12,\"big\":9007199254740993,\"f\":1.0,\"t\":true,\"z\":null}";
	struct json_reader r = {.in = {text, sizeof text - 1}};
	struct json_token t;
	(void)json_next(&r, &t);
	int64_t v = 5;

	check(t.kind == JSON_OBJECT && !t.key.p, "top");
	(void)json_next(&r, &t);
	check(t.kind == JSON_STRING && json_is(t.key, "name") && !json_is(t.key, "nam") && !json_is(t.key, "namex"), "key with an escape");
	check(str_eq(json_unescape(t.text), "x\xc3\xa9\xf0\x9f\xa6\x80\n\\"), "unescaped");
	(void)json_next(&r, &t);
	check(t.kind == JSON_ARRAY && json_is(t.key, "list") && json_skip(&r, &t) && str_eq(t.text, "[1,[2,{\"in\":[]}],3]"), "skipped array");
	(void)json_next(&r, &t);
	check(t.kind == JSON_NUMBER && json_int(t.text, &v) && v == -12, "int");
	(void)json_next(&r, &t);
	check(t.kind == JSON_NUMBER && !json_int(t.text, &v) && v == -12, "beyond 2^53 is refused and changes nothing");
	(void)json_next(&r, &t);
	check(!json_int(t.text, &v), "a fraction is no int");
	(void)json_next(&r, &t);
	check(t.kind == JSON_BOOL && t.truth, "true");
	check(json_next(&r, &t) == JSON_NULL && json_next(&r, &t) == JSON_CLOSE && json_next(&r, &t) == JSON_END && !r.error, "end");
	check(json_int(str_of("9007199254740992"), &v) && v == 1ll << 53 && json_int(str_of("-9007199254740992"), &v) && v == -(1ll << 53), "2^53");
	check(!json_int(str_of("1e3"), &v) && !json_int(str_of("99999999999999999999"), &v), "not an int");
}

/* What json_string writes for s is a JSON string that means s, is as long as was said, and is the
 * same when it is written in pieces through a buffer of cap bytes: NULL, or what is wrong. */
static const char *written(struct str s, size_t cap)
{
	static char out[8192], whole[8192];
	struct buf b = {out, 0, sizeof out, false}, all = {whole, 0, sizeof whole, false};
	struct json_writer w = {.b = &b};
	size_t at, used;
	bool clean = json_string(&w, s), valid = true, lossy = false;

	for (struct str rest = s; rest.n; rest.p += used, rest.n -= used) {
		int len = utf8_next(rest);
		valid = valid && len > 0;
		used = (size_t)(len > 0 ? len : -len);
	}
	if (b.full || json_check((struct str){b.p, b.n}, &at))
		return "is no JSON";
	if (clean != valid)
		return "does not say rightly whether it is lossy";
	if (json_escaped_len(s, &lossy) != b.n - 2 || lossy != !valid)
		return "has another length than was said";
	for (struct str rest = s; rest.n; rest.p += used, rest.n -= used) {
		char *small = guard_new(cap);
		struct buf p = {small, 0, cap, false};
		used = json_escape(&p, rest, &lossy);
		bool bad_piece = used == 0 || p.full || p.n > cap;
		buf_put(&all, p.p, p.n);
		guard_free(small, cap);
		if (bad_piece)
			return "makes no progress in a small buffer";
	}
	if (all.n != b.n - 2 || memcmp(all.p, b.p + 1, all.n) != 0)
		return "differs in pieces";
	struct str back = json_unescape((struct str){b.p + 1, b.n - 2});
	if (valid && (back.n != s.n || (s.n && memcmp(back.p, s.p, s.n) != 0)))
		return "does not come back";
	return NULL;
}

/* Refusals have their offset and stay; nothing is read beyond the end. */
static void edges(void)
{
	static const struct { const char *text; size_t at; } where[] = {
		{"[1,x]", 3}, {"{\"a\":1 2}", 7}, {"[] 1", 3}, {"", 0}, {"  ", 2}, {"[1,]", 3}, {"{1}", 1}, {"nul", 0},
	};
	static const struct { const char *raw, *name; bool same; } names[] = {
		{"", "", true}, {"a", "", false}, {"", "a", false}, {"abc", "abc", true}, {"abcd", "abc", false}, {"ab", "abc", false}, {"\\u0061\\u0062c", "abc", true},
		{"abc\\u0000", "abc", false}, {"\\u0000", "\0", false}, {"abc\\u0000", "abc\0", false}, {"\\u0161", "a", false}, {"Abc", "abc", false}, {"\\/", "/", true}, {"\\ud83d\\ude00", "=", false},
	};
	static const struct { const char *raw, *text; size_t n; } escaped[] = {
		{"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t", 8}, {"\\u0000x", "\0x", 2}, {"\\u007F\\u0080", "\x7f\xc2\x80", 3}, {"\\u07ff\\u0800", "\xdf\xbf\xe0\xa0\x80", 5},
		{"\\ud7FF\\ue000\\uffff", "\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf", 9}, {"\\ud800\\udc00\\uDBFF\\uDFFF", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 8}, {"\\\\u0041", "\\u0041", 6},
	};
	static const struct { const char *text; bool ok; int64_t v; } ints[] = {
		{"0", true, 0}, {"-0", true, 0}, {"-1", true, -1}, {"9007199254740993", false, 0}, {"-9007199254740993", false, 0}, {"1.0", false, 0}, {"1e0", false, 0},
		{"9223372036854775808", false, 0}, {"18446744073709551617", false, 0}, {"", false, 0}, {"-", false, 0},
	};
	char one[8];
	bool lossy = false;

	for (size_t i = 0; i < countof(where); i++) {
		struct str in = {guard_copy(where[i].text, strlen(where[i].text)), strlen(where[i].text)};
		struct json_reader r = {.in = in};
		struct json_token t;
		size_t at;
		check(json_check(in, &at) && at == where[i].at, "%s: refused at %zu, not %zu", where[i].text, at, where[i].at);
		for (int k = 0; k < 99; k++)
			(void)json_next(&r, &t); /* errors are in r */
		check(r.error && r.at == where[i].at && json_next(&r, &t) == JSON_END, "%s: the error does not stay", where[i].text);
	}
	for (size_t i = 0; i < countof(names); i++)
		check(json_is((struct str){guard_copy(names[i].raw, strlen(names[i].raw)), strlen(names[i].raw)}, names[i].name) == names[i].same, "%s is %s", names[i].raw, names[i].name);
	for (size_t i = 0; i < countof(escaped); i++) {
		struct str s = json_unescape((struct str){guard_copy(escaped[i].raw, strlen(escaped[i].raw)), strlen(escaped[i].raw)});
		check(s.n == escaped[i].n && memcmp(s.p, escaped[i].text, s.n) == 0, "unescaped %s", escaped[i].raw);
	}
	for (size_t i = 0; i < countof(ints); i++) {
		int64_t v = 77;
		bool is = json_int(str_of(ints[i].text), &v);
		check(is == ints[i].ok && v == (is ? ints[i].v : 77), "int %s", ints[i].text);
	}
	for (size_t cap = 0; cap < 6; cap++) { /* an escape goes in whole or not at all */
		struct buf b = {guard_new(cap), 0, cap, false};
		check(json_escape(&b, str_of("\x01"), &lossy) == 0 && b.n == 0 && !b.full, "part of an escape in %zu bytes", cap);
		check(json_escape(&b, str_of("\xf0\x9f\xa6\x80"), &lossy) == (cap < 4 ? 0 : 4) && b.n == (cap < 4 ? 0 : 4), "part of UTF-8 in %zu bytes", cap);
	}
	check(!lossy, "lossy without a loss");
	struct buf b = {one, 0, sizeof one, false};
	check(json_escape(&b, str_of("\x7f"), &lossy) == 1 && b.n == 6 && memcmp(one, "\\u007f", 6) == 0, "DEL is escaped: logs are read in terminals");
	char text[64];
	b = (struct buf){text, 0, sizeof text, false};
	struct json_writer w = {.b = &b};
	json_open(&w, false);
	json_number(&w, INT64_MIN), json_number(&w, INT64_MAX), json_number(&w, 0);
	json_elsewhere(&w), buf_str(&b, "{}"), json_close(&w);
	check(!b.full && str_eq((struct str){b.p, b.n}, "[-9223372036854775808,9223372036854775807,0,{}]"), "numbers: %.*s", (int)b.n, b.p);
}

static void writer(void)
{
	uint32_t seed = 12345;
	char bytes[64];

	const char *wrong;

	for (int c = 0; c < 256; c++) {
		bytes[0] = (char)c;
		wrong = written((struct str){bytes, 1}, 6);
		check(!wrong, "written byte %d %s", c, wrong);
	}
	int failed = 0;
	for (int i = 0; i < 20000; i++) {
		size_t n = (seed >> 8) % 20;
		for (size_t k = 0; k < n; k++) {
			seed = seed * 1664525 + 1013904223;
			bytes[k] = (char)((seed >> 24 & (seed & 0x1000 ? 0xff : 0x8f)) | (seed & 0x2000 ? 0xc0 : 0));
		}
		seed = seed * 1664525 + 1013904223;
		if ((wrong = written((struct str){bytes, n}, 6 + seed % 9)) && failed++ < 5)
			check(false, "random string %d %s", i, wrong);
	}
	check(!failed, "%d of 20000 random strings", failed);
	for (size_t cap = 0; cap < 70; cap++) { /* whatever the size: whole, or full and nothing beyond */
		char *p = guard_new(cap);
		struct buf b = {p, 0, cap, false};
		struct json_writer w = {.b = &b};
		size_t at;
		json_open(&w, true);
		json_put_string(&w, "k\"ey", str_of("v\xffv\n"));
		json_put_number(&w, "n", -9007199254740992);
		json_key(&w, "a");
		json_open(&w, false);
		json_null(&w);
		json_truth(&w, true);
		json_close(&w);
		json_close(&w);
		const char *want = "{\"k\\\"ey\":\"v\xef\xbf\xbdv\\n\",\"n\":-9007199254740992,\"a\":[null,true]}";
		check(b.full == (cap < strlen(want)), "room of %zu", cap);
		check(b.full || (b.n == strlen(want) && memcmp(p, want, b.n) == 0 && !json_check((struct str){p, b.n}, &at)), "text in room of %zu", cap);
		guard_free(p, cap);
	}
}

static void misuse(void)
{
	for (int i = 0; i < 11; i++) {
		char out[1024];
		struct buf b = {out, 0, sizeof out, false};
		struct json_writer w = {.b = &b};
		if (i != 3 && i != 4)
			json_open(&w, i != 1);
		switch (i) {
		case 0: json_null(&w); break;                                    /* value without its key */
		case 1: json_key(&w, "k"); break;                                /* key in an array */
		case 2: json_close(&w); json_null(&w); break;                    /* second top value */
		case 3: json_close(&w); break;                                   /* nothing open */
		case 4: json_key(&w, "k"); break;                                /* key at the top */
		case 5: json_key(&w, "k"); json_close(&w); break;                /* key without its value */
		case 6: json_key(&w, "k"); json_key(&w, "l"); break;             /* two keys */
		case 7: json_close(&w); json_close(&w); break;                   /* closed twice */
		case 8: for (int d = 0; d < 40; d++) { json_key(&w, "k"); json_open(&w, true); } break; /* too deep */
		case 9: for (int d = 0; d < 99; d++) json_open(&w, false); for (int d = 0; d < 99; d++) json_close(&w); break; /* deeper than the bits */
		case 10: for (int d = 1; d < JSON_DEPTH; d++) { json_key(&w, "k"); json_open(&w, true); } check(!b.full, "depth 32"); json_key(&w, "k"); json_open(&w, true); break; /* 33 */
		}
		check(b.full, "misuse %d went through", i);
	}
}

int main(void)
{
	grammar();
	reader();
	edges();
	writer();
	misuse();
	return unit_end("unit_json");
}
