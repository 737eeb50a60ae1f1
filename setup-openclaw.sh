#!/bin/sh
# Makes OmniArena known to OpenClaw and to mcporter as an MCP server, and offers to switch off OpenClaw's own exec tool,
# which else stays open beside it. The token goes by a pipe: no command line, which ps shows, ever has it.
set -u
umask 077

usage() {
	cat <<'END'
usage: ./setup-openclaw.sh [--url URL] [--token-file FILE] [--deny-exec | --keep-exec]
  --url URL           OmniArena's MCP endpoint (http://127.0.0.1:7575/mcp)
  --token-file FILE   the token (/etc/omniarena/token, not root: ~/.config/omniarena/token first); - is standard
                      input: sudo cat /etc/omniarena/token | ./setup-openclaw.sh --token-file -
                      A token of its own, [agent openclaw] token=... in policy.conf, is better: it can't change the policy
  --deny-exec         denies OpenClaw's own exec and process tools (tools.deny has group:runtime); without this or
                      --keep-exec it is asked for, where somebody is there to answer
Configures what is installed of openclaw and mcporter; again is fine. MCPORTER_CONFIG names mcporter's file
(config/mcporter.json where that is there, else ~/.mcporter/mcporter.json).
Exit status: 0 done, 1 not or not wholly done, 2 wrong usage.
END
}

say() { printf '%s\n' "$*"; }
fail() { printf 'setup-openclaw: %s\n' "$*" >&2; exit 1; }

url=http://127.0.0.1:7575/mcp file='' deny=ask
while [ $# -gt 0 ]; do
	case $1 in
	--url | --token-file)
		[ $# -gt 1 ] || { printf 'setup-openclaw: %s: a value is missing\n' "$1" >&2; exit 2; }
		if [ "$1" = --url ]; then url=$2; else file=$2; fi
		shift ;;
	--deny-exec) deny=yes ;;
	--keep-exec) deny=no ;;
	--help | -h) usage; exit 0 ;;
	*) printf 'setup-openclaw: %s: no such option (--help lists them)\n' "$1" >&2; exit 2 ;;
	esac
	shift
done
case $url in
*[!]A-Za-z0-9:/._%[-]*) fail "$url: this is no plain address" ;;
https://* | http://127.0.0.1[:/]* | http://localhost[:/]* | http://\[::1\][:/]*) ;;
*) fail "$url: the token would go over an open line; https is needed beyond this host" ;;
esac

# ---- the token ----

if [ -z "$file" ]; then
	own=${XDG_CONFIG_HOME:-${HOME:-}/.config}/omniarena/token
	file=/etc/omniarena/token
	[ "$(id -u)" = 0 ] || [ ! -f "$own" ] || file=$own
fi
if [ "$file" = - ]; then
	read -r token || [ -n "${token:-}" ] || fail 'there is no token on standard input'
elif [ -r "$file" ]; then
	read -r token <"$file" || [ -n "${token:-}" ] || fail "$file is empty"
elif [ -e "$file" ]; then
	fail "$file is not yours to read: sudo cat $file | $0 --token-file -"
else
	fail "$file is not there: install.sh makes it, or omniarena token --new"
fi
case $token in
*[!A-Za-z0-9._~+/=-]*) fail 'the token has characters beyond A-Z a-z 0-9 . _ ~ + / = -' ;;
????????????????*) ;;
*) fail 'a token has at least 16 characters' ;;
esac

# ---- OpenClaw ----

found=no wrong=no
if command -v openclaw >/dev/null; then
	found=yes
	# "openclaw mcp set" has its JSON on the command line; this writes the same key
	if ! openclaw config patch --help 2>/dev/null | grep -q -- --stdin; then
		fail "this openclaw has no 'config patch --stdin', and 'mcp set' would show the token to ps: update openclaw"
	fi
	printf '{"mcp":{"servers":{"omniarena":{"url":"%s","transport":"streamable-http","headers":{"Authorization":"Bearer %s"}}}}}\n' "$url" "$token" |
		openclaw config patch --stdin >/dev/null || fail 'openclaw did not take the server; see above'
	say "openclaw: mcp.servers.omniarena is $url"
	if openclaw mcp probe omniarena; then
		say 'openclaw: it answers'
	else
		say "openclaw: it does not answer at $url; is the server running? (openclaw mcp probe omniarena asks again)" >&2
		wrong=yes
	fi

	if [ $deny = ask ] && [ -t 0 ] && [ -t 1 ]; then
		say "OpenClaw's own exec tool runs commands on this host, outside of every jail, whatever OmniArena forbids."
		printf 'Deny it, and leave commands to OmniArena alone? [y/N] '
		read -r answer || answer=
		case $answer in [yY]*) deny=yes ;; *) deny=no ;; esac
	fi
	if [ $deny = yes ]; then
		# an array that is patched replaces the one before: what is denied already stays
		was=$(openclaw config get tools.deny --json 2>/dev/null | tr -d '\n') || was=
		case $was in
		*'"group:runtime"'*) say 'openclaw: tools.deny has group:runtime already' ;;
		*)
			list=$(printf '%s' "$was" | sed -n 's/^[[:space:]]*\[[[:space:]]*\(.*[^[:space:]]\)[[:space:]]*\][[:space:]]*$/\1, /p')
			printf '{"tools":{"deny":[%s"group:runtime"]}}\n' "$list" | openclaw config patch --stdin >/dev/null ||
				fail 'openclaw did not take tools.deny; see above'
			say 'openclaw: tools.deny has group:runtime: its own exec and process are gone' ;;
		esac
		say 'openclaw: its file tools still write on this host; "group:fs" in tools.deny denies these, too'
	else
		say "openclaw: its own exec tool is still open beside OmniArena (--deny-exec denies it)"
	fi
	say 'openclaw: a running gateway may want: openclaw gateway restart'
else
	say 'openclaw is not installed here (npm install -g openclaw); nothing was configured for it'
fi

# ---- mcporter ----

if command -v mcporter >/dev/null; then
	found=yes
	config=${MCPORTER_CONFIG:-}
	if [ -z "$config" ]; then
		config=${HOME:-}/.mcporter/mcporter.json
		[ ! -f config/mcporter.json ] || config=config/mcporter.json
	fi
	mkdir -p "$(dirname "$config")" || fail "the folder of $config can't be made"
	# a word in the token's place, which is changed for it in the file
	mcporter config remove omniarena --config "$config" >/dev/null 2>&1
	mcporter config add omniarena --url "$url" --header 'Authorization=Bearer OMNIARENA-TOKEN-HERE' --persist "$config" >/dev/null ||
		fail 'mcporter did not take the server; see above'
	if ! { printf '%s\n' "$token" | awk 'NR == FNR { token = $0; next } { gsub(/OMNIARENA-TOKEN-HERE/, token); print }' - "$config" >"$config.new" &&
		chmod 600 "$config.new" && mv -f "$config.new" "$config"; }; then
		rm -f "$config.new"
		fail "$config can't be written"
	fi
	say "mcporter: omniarena is in $config (mode 0600: it has the token)"
	if mcporter --config "$config" list omniarena >/dev/null 2>&1; then
		say 'mcporter: it answers'
	else
		say "mcporter: it does not answer at $url (mcporter list omniarena says why)" >&2
		wrong=yes
	fi
else
	say 'mcporter is not installed here (npm install -g mcporter); nothing was configured for it'
fi
[ $found = yes ] || fail 'neither openclaw nor mcporter is here'
[ $wrong = no ]
