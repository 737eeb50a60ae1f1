#!/bin/sh
# Installs OmniArena, upgrades it (the same command again), and removes it. Where something fails, a sentence says
# what, and everything is as it was before. POSIX sh; what it needs beside the usual tools it says itself.
set -u
umask 022

usage() {
	cat <<'END'
usage: ./install.sh [--from DIR | --from URL] [--no-service | --no-start]
       ./install.sh --uninstall [--purge]
Installs omniarena with its service, man page, completions, a policy file and a token. Again is an
upgrade: configuration and token stay, the service is started anew. As root it is for the system,
else for this user alone.

  --from DIR      a release: a folder with omniarena and SHA256SUMS
  --from URL      the same over https (curl or wget): the address of the folder, with "/" at its end, or of the
                  binary, with SHA256SUMS beside it. Without --from: this folder; in a checkout "make" builds it
  --no-service    no unit of systemd, no script of OpenRC
  --no-start      the service is there, and neither enabled nor started
  --uninstall     stops the service and removes what was installed; the log stays, and so does the folder of the
                  configuration where policy.conf was edited
  --purge         with --uninstall: removes these, too

Environment: PREFIX (/usr/local, not root: ~/.local), DESTDIR (for packagers: everything goes below it, there is
no token, and no service is started).
Exit status: 0 done, 1 not done (nothing was changed), 2 wrong usage.
END
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

here=$(cd "$(dirname "$0")" 2>/dev/null && pwd -P) || here=/nonexistent
from='' want_service=yes want_start=yes action=install purge=no
while [ $# -gt 0 ]; do
	case $1 in
	--from) [ $# -gt 1 ] || { echo 'install: --from: a folder or an address is needed' >&2; exit 2; }; from=$2; shift ;;
	--from=*) from=${1#*=} ;;
	--no-service) want_service=no ;;
	--no-start) want_start=no ;;
	--uninstall) action=uninstall ;;
	--purge) purge=yes ;;
	--help | -h) usage; exit 0 ;;
	*) printf 'install: %s: no such option (--help lists them)\n' "$1" >&2; exit 2 ;;
	esac
	shift
done
[ $purge = no ] || [ $action = uninstall ] || { echo 'install: --purge goes with --uninstall' >&2; exit 2; }

# ---- where things go ----

DESTDIR=${DESTDIR:-}
if [ "$(id -u)" = 0 ] || [ -n "$DESTDIR" ]; then
	system=yes prefix=${PREFIX:-/usr/local} etc=/etc/omniarena state=/var/lib/omniarena log=/var/log/omniarena
else
	[ -n "${HOME:-}" ] || fail 'HOME is not set'
	system=no prefix=${PREFIX:-$HOME/.local} etc=${XDG_CONFIG_HOME:-$HOME/.config}/omniarena
	state=${XDG_STATE_HOME:-$HOME/.local/state}/omniarena log=$state
fi
for folder in "$prefix" "$etc" "$state" "${DESTDIR:-/}"; do
	case $folder in
	/*) ;;
	*) fail "$folder: PREFIX, DESTDIR and HOME must begin with /" ;;
	esac
	case $folder in
	*[!A-Za-z0-9/._+@=-]* | */../* | */..) fail "$folder: letters, digits and / . _ + @ = - are all that a unit and a script take in a path" ;;
	esac
done
prefix=${prefix%/}
share=$prefix/share
manifest=$share/omniarena/manifest

# what runs the services here: systemd, user (systemd's, of one user), openrc, none
service_manager() {
	if [ $want_service = no ]; then echo none
	elif [ $system = no ]; then
		if systemctl --user show-environment >/dev/null 2>&1; then echo user; else echo none; fi
	elif [ -n "$DESTDIR" ]; then echo package
	elif [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then echo systemd
	elif [ -x /sbin/openrc-run ] && command -v rc-service >/dev/null; then echo openrc
	else echo none
	fi
}

unit_path() {
	case $1 in
	systemd) echo /etc/systemd/system/omniarena.service ;;
	user) echo "${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/omniarena.service" ;;
	openrc) echo /etc/init.d/omniarena ;;
	esac
}

# ctl MANAGER start|stop|restart|active|enable|disable|reread
ctl() {
	case $1 in
	systemd) set -- "$2" systemctl ;;
	user) set -- "$2" systemctl --user ;;
	openrc)
		case $2 in
		active) rc-service omniarena status >/dev/null 2>&1 ;;
		enable) rc-update add omniarena default >/dev/null ;;
		disable) rc-update del omniarena default >/dev/null 2>&1 || : ;;
		reread) : ;;
		*) rc-service omniarena "$2" >/dev/null ;;
		esac
		return ;;
	*) return 1 ;;
	esac
	verb=$1
	shift
	case $verb in
	active) "$@" is-active --quiet omniarena.service ;;
	enable) "$@" enable --quiet omniarena.service ;;
	# socket activation, where somebody switched it on, must not wake it again
	stop) "$@" stop omniarena.socket >/dev/null 2>&1; "$@" stop omniarena.service ;;
	disable) "$@" disable --quiet omniarena.socket >/dev/null 2>&1; "$@" disable --quiet omniarena.service ;;
	reread) "$@" daemon-reload ;;
	*) "$@" "$verb" omniarena.service ;;
	esac
}

# ---- steps that can be taken back ----

stage=$(mktemp -d) || fail 'no temporary folder can be made'
steps=0 finished=no was_active=no manager=none touched=no
: >"$stage/undo"

# the last step is taken back first
undo() {
	# while its script is still there
	[ $touched = no ] || [ $was_active = yes ] || ctl "$manager" stop >/dev/null 2>&1
	sed '1!G;h;$!d' "$stage/undo" >"$stage/back"
	while read -r what name kept; do
		case $what in
		new) rm -f "$name" ;;
		folder) rmdir "$name" 2>/dev/null ;;
		old) cp -p "$kept" "$name.new.$$" && mv -f "$name.new.$$" "$name" ;;
		enabled) ctl "$name" disable 2>/dev/null ;;
		esac
	done <"$stage/back"
	if [ $touched = yes ]; then
		ctl "$manager" reread
		[ $was_active = no ] || ctl "$manager" restart
	fi >/dev/null 2>&1
}

leave() {
	status=$?
	trap - EXIT INT TERM HUP
	if [ $finished = no ] && [ -s "$stage/undo" ]; then
		undo
		printf 'install: everything is as it was before\n' >&2
	fi
	rm -rf "$stage"
	exit $status
}
trap leave EXIT
trap 'exit 1' INT TERM HUP

# folder NAME MODE: makes it, and what is missing above it
folder() {
	[ -d "$1" ] && return
	[ ! -e "$1" ] || fail "$1 is there, and is no folder"
	up=${1%/*}
	[ -z "$up" ] || [ -d "$up" ] || folder "$up" 755
	mkdir -m "$2" "$1" || fail "$1 can't be made"
	printf 'folder %s\n' "$1" >>"$stage/undo"
	printf 'folder - %s\n' "${1#"$DESTDIR"}" >>"$stage/manifest"
}

hash_of() {
	if command -v sha256sum >/dev/null; then sha256sum <"$1"
	elif command -v shasum >/dev/null; then shasum -a 256 <"$1"
	elif command -v openssl >/dev/null; then openssl dgst -sha256 -r <"$1"
	else return 1
	fi | cut -c1-64
}

recorded() { [ ! -f "$manifest" ] || awk -v name="$1" '$1 == "file" && $3 == name { print $2 }' "$manifest"; }

# put SOURCE NAME MODE: in one move, so that nobody ever sees half a file, and what runs keeps the one it has
put() {
	to=$DESTDIR$2
	folder "${to%/*}" 755
	[ ! -d "$to" ] || fail "$to is a folder"
	printf 'file %s %s\n' "$(hash_of "$1")" "$2" >>"$stage/manifest"
	if [ -e "$to" ] && cmp -s "$1" "$to"; then
		return
	fi
	steps=$((steps + 1))
	if [ -e "$to" ]; then
		cp -p "$to" "$stage/old.$steps" || fail "$to can't be kept aside"
		printf 'old %s %s\n' "$to" "$stage/old.$steps" >>"$stage/undo"
	else
		printf 'new %s\n' "$to" >>"$stage/undo"
	fi
	if ! { cp "$1" "$to.new.$$" && chmod "$3" "$to.new.$$" && mv -f "$to.new.$$" "$to"; } 2>"$stage/why"; then
		rm -f "$to.new.$$"
		fail "$to can't be written: $(cat "$stage/why")"
	fi
	say "  $to"
}

# ---- uninstall ----

remove_all() {
	[ -z "$DESTDIR" ] || fail 'what was installed with DESTDIR is a package: its manager removes it'
	if [ ! -f "$manifest" ]; then
		[ $purge = yes ] || fail "nothing of install.sh is below $prefix (PREFIX says where to look)"
		: >"$stage/empty"
		manifest=$stage/empty
	fi
	# only the service of this prefix is ours
	for manager in systemd user openrc; do
		[ $manager = user ] && [ $system = yes ] && continue
		[ -n "$(recorded "$(unit_path $manager)")" ] || continue
		if ctl "$manager" active; then
			ctl "$manager" stop || fail "the service can't be stopped; nothing was removed"
			say "stopped the service"
		fi
		ctl "$manager" disable
		gone=$manager
	done
	edited=no
	if [ -f "$etc/policy.conf" ] && [ "$(hash_of "$etc/policy.conf")" != "$(recorded "$etc/policy.conf")" ]; then
		edited=yes
	fi
	finished=yes # from here there is no way back
	cp "$manifest" "$stage/list"
	while read -r what _ name; do
		[ "$what" = file ] || continue
		case $name in
		"$etc"/*) [ $edited = yes ] && continue ;;
		esac
		rm -f "$name" || printf 'install: %s can not be removed\n' "$name" >&2
	done <"$stage/list"
	[ "$manifest" = "$stage/empty" ] || rm -f "$manifest"
	if [ $purge = yes ]; then
		for name in "$etc" "$state" "$log"; do
			[ ! -d "$name" ] || rm -rf "$name"
		done
	fi
	# folders that were made here, the deepest first, and only empty ones
	awk '$1 == "folder" { print $3 }' "$stage/list" | sort -u -r | while read -r name; do
		case $name in
		"$etc") [ $edited = yes ] && [ $purge = no ] && continue ;;
		esac
		rmdir "$name" 2>/dev/null
	done
	[ -z "${gone:-}" ] || ctl "$gone" reread
	say "removed omniarena from $prefix"
	if [ -d "$etc" ] && [ $edited = yes ]; then say "kept $etc: policy.conf was edited (--purge removes it)"
	elif [ -d "$etc" ]; then say "kept $etc: there are files of others in it (--purge removes it)"; fi
	for name in "$log" "$state"; do
		[ ! -d "$name" ] || say "kept $name: the log, its head and the counters (--purge removes it)"
	done | sort -u
	exit 0
}

[ $action = install ] || remove_all

# ---- what is installed: taken, and checked, before anything is changed ----

fetch() { # ADDRESS FILE
	# a checksum from the same place over an open line would prove nothing
	case $1 in
	https://*) only='=https' ;;
	http://127.0.0.1[:/]* | http://localhost[:/]* | http://\[::1\][:/]*) only='=http,https' ;;
	*) fail "$1: https is needed" ;;
	esac
	if command -v curl >/dev/null; then
		curl -fsSL --proto "$only" --proto-redir "$only" --max-time 300 -o "$2" "$1" 2>"$stage/why"
	elif command -v wget >/dev/null; then
		wget -q -T 60 -O "$2" "$1" 2>"$stage/why"
	else
		fail 'curl or wget is needed to fetch a release'
	fi
}

# one file of the release, held against SHA256SUMS. False: the release has none of this name
take() { # NAME FILE
	sum=$(awk -v name="$1" '$2 == name || $2 == "*" name || $2 == "./" name { print $1; exit }' "$stage/SHA256SUMS")
	[ -n "$sum" ] || return 1
	case $from in
	*://*) fetch "$from$1" "$2" || fail "$from$1 can't be fetched: $(tail -n 1 "$stage/why")" ;;
	*) cp "$from/$1" "$2" 2>/dev/null || fail "$from/$1 is named in SHA256SUMS and can't be read" ;;
	esac
	is=$(hash_of "$2") || fail 'sha256sum, shasum or openssl is needed to check the release'
	[ "$is" = "$sum" ] || fail "$1: wrong checksum. SHA256SUMS has $sum, the file $is; nothing was installed"
}

checkout=no binary=omniarena
if [ -z "$from" ] && [ -f "$here/arena.c" ] && [ -f "$here/Makefile" ]; then
	checkout=yes
elif [ -z "$from" ]; then
	from=$here
fi
if [ $checkout = yes ]; then
	if [ ! -x "$here/omniarena" ]; then
		say "building in $here"
		make -s -C "$here" >"$stage/why" 2>&1 || { tail -n 5 "$stage/why" >&2; fail 'make failed; test/setup build installs what it needs'; }
	fi
	cp "$here/omniarena" "$stage/omniarena" || fail "$here/omniarena can't be read"
else
	case $from in
	*://*/) fetch "${from}SHA256SUMS" "$stage/SHA256SUMS" || fail "${from}SHA256SUMS can't be fetched: $(tail -n 1 "$stage/why")" ;;
	*://*/*)
		binary=${from##*/} from=${from%/*}/
		fetch "${from}SHA256SUMS" "$stage/SHA256SUMS" || fail "${from}SHA256SUMS can't be fetched: $(tail -n 1 "$stage/why")" ;;
	*) cp "$from/SHA256SUMS" "$stage/SHA256SUMS" 2>/dev/null || fail "$from/SHA256SUMS is not there: without it nothing says that omniarena is what was released" ;;
	esac
	take "$binary" "$stage/omniarena" || fail "SHA256SUMS does not name $binary"
fi
chmod 755 "$stage/omniarena"

# what goes with it: out of the release, else from beside this script
give() { # NAME
	file=$stage/with.$(basename "$1")
	if [ $checkout = no ] && take "$1" "$file"; then return 0; fi
	cp "$here/$1" "$file" 2>/dev/null
}
for name in omniarena.1 contrib/policy.conf contrib/completion/omniarena.bash contrib/completion/_omniarena \
	contrib/omniarena.service contrib/omniarena-user.service contrib/omniarena.socket contrib/omniarena.openrc; do
	give $name || say "$name is not in this release, and goes without"
done
for name in service openrc; do
	for file in "$stage"/with.omniarena*"$name"; do
		[ ! -f "$file" ] || { sed "s,/usr/local/bin/omniarena,$prefix/bin/omniarena,g" "$file" >"$file.here" && mv "$file.here" "$file"; } || fail 'the temporary folder is full'
	done
done

# a binary that does not run here is not put in the place of one that does
run=$stage/omniarena
if [ -z "$DESTDIR" ]; then
	version=$("$run" --version 2>"$stage/why") || version=
	if [ -z "$version" ]; then
		# the temporary folder may be mounted without exec: then from where it will be
		folder "$prefix/bin" 755
		run=$prefix/bin/.omniarena.new.$$
		printf 'new %s\n' "$run" >>"$stage/undo"
		cp "$stage/omniarena" "$run" || fail "$prefix/bin can't be written"
		version=$("$run" --version 2>"$stage/why") || version=
	fi
	[ -n "$version" ] || fail "this omniarena does not run on $(uname -m): $(tail -n 1 "$stage/why")"
	before=
	[ ! -x "$prefix/bin/omniarena" ] || before=$("$prefix/bin/omniarena" --version 2>/dev/null)
	# an edited policy that the new one can't read would keep the service from starting
	if [ -f "$etc/policy.conf" ] && ! "$run" --check-config --config "$etc/policy.conf" >/dev/null 2>"$stage/why"; then
		fail "the policy file does not suit this version: $(tail -n 1 "$stage/why")"
	fi
	[ "$run" = "$stage/omniarena" ] || rm -f "$run"
else
	version=omniarena before=
fi

# ---- and now ----

manager=$(service_manager)
unit=$(unit_path "$manager")
# a service that somebody stopped stays stopped
fresh=yes
[ -z "$unit" ] || [ ! -e "$unit" ] || fresh=no
ctl "$manager" active && was_active=yes

say "installing $version${before:+ over ${before#omniarena }} below ${DESTDIR}$prefix"
[ $system = no ] || folder "$DESTDIR$etc" 755
[ $system = yes ] || folder "$etc" 700
folder "$DESTDIR$state" 700
folder "$DESTDIR$log" 700
put "$stage/omniarena" "$prefix/bin/omniarena" 755
with() { [ ! -f "$stage/with.$1" ] || put "$stage/with.$1" "$2" 644; }
with omniarena.1 "$share/man/man1/omniarena.1"
with omniarena.bash "$share/bash-completion/completions/omniarena"
with _omniarena "$share/zsh/site-functions/_omniarena"
if [ -e "$DESTDIR$etc/policy.conf" ]; then
	say "  kept $etc/policy.conf"
elif [ -f "$stage/with.policy.conf" ]; then
	# the server saves what is changed by its API there, so others have no say in it
	put "$stage/with.policy.conf" "$etc/policy.conf" 600
fi
if [ -z "$DESTDIR" ] && [ ! -e "$etc/token" ]; then
	printf 'new %s\n' "$etc/token" >>"$stage/undo"
	"$prefix/bin/omniarena" token --new --token-file "$etc/token" >/dev/null 2>"$stage/why" || fail "no token can be made: $(tail -n 1 "$stage/why")"
	[ -f "$etc/token" ] || fail "no token can be made in $etc"
	printf 'file - %s\n' "$etc/token" >>"$stage/manifest"
	say "  $etc/token: a new one, at random"
elif [ -z "$DESTDIR" ]; then
	say "  kept $etc/token"
fi
case $manager in
package)
	with omniarena.service "$prefix/lib/systemd/system/omniarena.service"
	with omniarena.socket "$prefix/lib/systemd/system/omniarena.socket"
	[ ! -f "$stage/with.omniarena.openrc" ] || put "$stage/with.omniarena.openrc" /etc/init.d/omniarena 755 ;;
systemd | user | openrc)
	case $manager in systemd) file=omniarena.service ;; user) file=omniarena-user.service ;; openrc) file=omniarena.openrc ;; esac
	if [ $fresh = no ] && [ "$(hash_of "$unit")" != "$(recorded "$unit")" ] && ! cmp -s "$unit" "$stage/with.$file"; then
		say "  kept $unit: it was edited"
	elif [ "$manager" = openrc ]; then
		put "$stage/with.$file" "$unit" 755
	else
		put "$stage/with.$file" "$unit" 644
	fi
	[ "$manager" != systemd ] || with omniarena.socket "${unit%service}socket" ;;
esac

if [ -z "$DESTDIR" ]; then
	# those of earlier times are ours as well; what is newer counts
	[ ! -f "$manifest" ] || cat "$manifest" >>"$stage/manifest"
	folder "${manifest%/*}" 755
	awk '!seen[$1 " " $3]++' "$stage/manifest" >"$stage/all"
	put "$stage/all" "$manifest" 644 >/dev/null
fi

now_ms() { awk '{ printf "%d", $1 * 1000 }' /proc/uptime; }
case $manager in
systemd | user | openrc)
	touched=yes
	ctl "$manager" reread || fail 'the service manager does not take the unit'
	why='look into its log'
	[ "$manager" = openrc ] || why="journalctl ${manager#systemd} -u omniarena says why"
	[ "$manager" != user ] || why='journalctl --user -u omniarena says why'
	if [ $was_active = yes ]; then
		start=$(now_ms)
		{ ctl "$manager" restart && ctl "$manager" active; } || fail "the service does not start with the new version; $why"
		say "started the service anew: it was away for $(($(now_ms) - start)) ms"
	elif [ $fresh = yes ] && [ $want_start = yes ]; then
		printf 'enabled %s\n' "$manager" >>"$stage/undo"
		ctl "$manager" enable || fail 'the service can not be enabled'
		{ ctl "$manager" start && ctl "$manager" active; } || fail "the service does not start; $why"
		say 'enabled and started the service'
	else
		say 'the service is there, and was not started'
	fi ;;
esac
finished=yes

[ -n "$DESTDIR" ] || [ -f "$state/password" ] || say 'beside the token the published password, arena:omniarena, works from this host until you set one (the dashboard, Settings)'
[ $system = no ] || say 'no user was created: the server drops to uids of its own (from 0x70000000 up) that no account has'
case ":$PATH:" in
*":$prefix/bin:"*) command=omniarena ;;
*) command=$prefix/bin/omniarena; [ -n "$DESTDIR" ] || say "$prefix/bin is not in your PATH" ;;
esac
[ -z "$DESTDIR" ] || exit 0
if ctl "$manager" active; then say "next: $command exec 'ls | wc -l'"
else
	case $manager in
	systemd) say 'next: systemctl enable --now omniarena' ;;
	user) say 'next: systemctl --user enable --now omniarena' ;;
	openrc) say 'next: rc-service omniarena start' ;;
	none) say "next: $command &  (then: $command exec 'ls | wc -l')" ;;
	esac
fi
