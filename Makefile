# make            ./omniarena, static
# make debug      ./omniarena-sanitized, with address and undefined-behaviour sanitizers
# make test       all tests, after installing what they need (says so first)
# make bench      what a judgement by the policy costs, as a table
# make fuzz T=60  libFuzzer on each target, that many seconds
# make lint       clang-tidy, formatting and layering
# make lines      lines that hold code, per module
# CPPFLAGS='-DPORT=8080 -DAUTH_PASS="\"...\""' sets the compile-time names of conf.h.
.SUFFIXES:

SRC := util.c sys.c hash.c json.c http.c shell.c bpf.c page.c msg.c loop.c chain.c conf.c policy.c agent.c audit.c denied.c view.c jail.c cell.c warden.c \
       job.c conn.c mcp.c exec.c api.c client.c cli.c arena.c

# A musl compiler where there is one: musl-gcc, or a cc that is musl's own (Alpine).
ifeq ($(origin CC),default)
  CC := $(shell command -v musl-gcc || echo cc)
endif
# Debian's musl-gcc does not know -static-pie: it gets the start files by name, from beside its specs
SPECS := $(shell sed -n 's/.*-specs "\(.*\)\/musl-gcc.specs".*/\1/p' "$$(command -v $(CC))" 2>/dev/null)
MUSL  := $(or $(SPECS),$(findstring musl,$(shell $(CC) -dumpmachine)))

WERROR  := -Werror
WARN    := -Wall -Wextra -Wconversion -Wno-sign-conversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla $(WERROR)
HARDEN  := -fPIE -fstack-protector-strong -fno-strict-aliasing -fwrapv
# what -Os still spends on speed (-Oz is gcc's since 12; -malign-data is x86's), each as far as the compiler knows it
SMALL   := -Oz -fno-move-loop-invariants -fno-optimize-sibling-calls -fno-expensive-optimizations -fno-caller-saves -malign-data=abi
ifeq ($(origin CFLAGS),undefined)
  CFLAGS := -Os $(foreach f,$(SMALL),$(shell $(CC) -Werror $(f) -xc -c -o /dev/null /dev/null 2>/dev/null && echo '$(f)'))
endif
ALL     := -std=c11 -D_GNU_SOURCE $(WARN) $(HARDEN) -ffunction-sections -fdata-sections \
           -fno-asynchronous-unwind-tables $(CPPFLAGS) $(CFLAGS)
comma   := ,
# noseparate-code: constants share their pages with the code instead of being padded away from it, 8 KB. They can be executed then,
# as before binutils 2.31; nothing that can be written ever can
LINK    := $(if $(SPECS),-static -nostartfiles -Wl$(comma)-pie$(comma)--no-dynamic-linker $(SPECS)/rcrt1.o $(SPECS)/crti.o $(SPECS)/crtn.o,-static-pie) \
           -Wl,--gc-sections,-z,text,-z,relro,-z,now,-z,noexecstack,-z,noseparate-code -s $(LDFLAGS)
SANITIZE := -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

.PHONY: all debug test bench fuzz test-programs lint lines clean
all: omniarena

omniarena: $(SRC:%.c=build/%.o)
	$(CC) $(ALL) -o $@ $^ $(LINK)
	@[ -n "$(MUSL)" ] || echo "omniarena: built without musl ($(CC)): it works the same, but is several times as large" >&2

build/%.o: %.c build/flags
	$(CC) $(ALL) -MMD -MP -c -o $@ $<

# The page as bytes, and the hashes of its script and style, in base64, for its Content-Security-Policy: three
# hexadecimal digits are two letters of base64.
HASH = { echo; sed -n '1,/^<$(1)>$$/d; /^<\/$(1)>$$/q; p' dash.html; } | sha256sum | awk '{ \
	h = $$1 "00"; letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"; \
	for (i = 1; i < 66; i += 3) { \
		for (n = k = 0; k < 3; k++) n = n * 16 + index("0123456789abcdef", substr(h, i + k, 1)) - 1; \
		out = out substr(letters, int(n / 64) + 1, 1) substr(letters, n % 64 + 1, 1) } \
	print substr(out, 1, 43) "=" }'
build/page.inc: dash.html Makefile | build/test
	cat dash.html | gzip -9 | od -An -v -tu1 | sed 's/[0-9][0-9]*/&,/g' >$@.new
	printf '#define PAGE_SCRIPT "%s"\n#define PAGE_STYLE "%s"\n' "$$($(call HASH,script))" "$$($(call HASH,style))" >>$@.new
	mv $@.new $@
build/page.o: build/page.inc
build/tools.inc: tools.json Makefile | build/test
	tr -d '\n\t' <tools.json | od -An -v -tu1 | sed 's/[0-9][0-9]*/&,/g' >$@
build/mcp.o: build/tools.inc

# rebuilt when the compiler or a flag changes
build/flags: FORCE | build/test
	$(file >build/flags.new,$(CC) $(ALL) $(LINK))
	@cmp -s build/flags.new $@ || cp build/flags.new $@
build/test:
	mkdir -p $@
FORCE:
.PHONY: FORCE
-include $(SRC:%.c=build/%.d)

# the sanitizers need a libc of their own kind: the system's, dynamic
DEBUG_CC := cc
debug: omniarena-sanitized
omniarena-sanitized: $(SRC) $(wildcard *.h) build/page.inc build/tools.inc build/flags
	$(DEBUG_CC) -std=c11 -D_GNU_SOURCE $(WARN) $(CPPFLAGS) $(SANITIZE) -o $@ $(SRC)

# ---- tests ----
UNITS := $(foreach u,hash http json bpf loop shell agent chain,build/test/unit_$u)
HOOKS := $(foreach n,1 2 3 4 5 6 7 8 9 10 11 12 13,omniarena-hook$n)
CAN_SANITIZE := $(shell echo 'int main(void){return 0;}' | $(DEBUG_CC) -xc $(SANITIZE) -o /dev/null - 2>/dev/null && echo yes)

test:
	test/run

test-programs: $(UNITS) $(HOOKS) omniarena-unjudged build/test/differ $(if $(CAN_SANITIZE),omniarena-sanitized $(UNITS:%=%-sanitized))
build/test/%: test/%.c test/unit.h $(SRC) build/flags
	$(CC) $(ALL) -I. -o $@ $< $(UNIT_SRC) $(LINK)
build/test/%-sanitized: test/%.c test/unit.h $(SRC) build/flags
	$(DEBUG_CC) -std=c11 -D_GNU_SOURCE $(WARN) -I. $(SANITIZE) -o $@ $< $(UNIT_SRC)
UNIT_SRC := util.c sys.c hash.c http.c json.c bpf.c loop.c shell.c policy.c conf.c chain.c agent.c denied.c
# the parser switched off: the jail alone must keep the lists
omniarena-unjudged: $(SRC:%.c=build/%.o) policy.c test/unjudged.c
	$(CC) $(ALL) -Dpolicy_judge=policy_judge_unused -c -o build/test/policy.o policy.c
	$(CC) $(ALL) -o $@ test/unjudged.c build/test/policy.o $(filter-out build/policy.o,$(SRC:%.c=build/%.o)) $(LINK)
omniarena-hook%: $(SRC:%.c=build/%.o) arena.c test/hook.c
	$(CC) $(ALL) -DTEST_HOOK=$* -o $@ arena.c test/hook.c $(filter-out build/arena.o,$(SRC:%.c=build/%.o)) $(LINK)

# what a judgement costs
bench: build/test/bench
	build/test/bench

# T seconds of random input for each target, in as many processes as there are cores; needs clang's libFuzzer
T := 60
fuzz: build/test/fuzz_shell
	test/fuzz/run $(T) build/test/fuzz_shell
build/test/fuzz_%: test/fuzz/%.c $(UNIT_SRC) | build/test
	clang -std=c11 -D_GNU_SOURCE -I. -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $@ $< $(UNIT_SRC)

lint:
	test/layers *.c *.h
	clang-tidy --quiet $(SRC) -- -std=c11 -D_GNU_SOURCE

# lines that hold code: not blank, not comment only
lines:
	@for f in *.c *.h; do printf '%5d %s\n' "$$(sed -e 's,/\*.*\*/,,' -e '/\/\*/,/\*\//d' $$f | grep -c '[^[:space:]]')" $$f; done | sort -k2 | \
		awk '{ print; s += $$1 } END { printf "%5d in all\n", s }'

clean:
	rm -rf build omniarena omniarena-*
