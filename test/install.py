"""install.sh, setup-openclaw.sh, the units, the man page and the completions: on bare roots, not on this machine.

A root of Debian (debootstrap) is made once and kept in build/; one of busybox alone needs no network. Everything runs in
namespaces of its own (mounts, network, processes), so that the port is ours and nothing stays behind.
"""
import glob, hashlib, http.server, os, pwd, re, shutil, signal, stat, subprocess, sys, tempfile, threading, traceback

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.geteuid() == 0
TESTS = []
WITH = ['omniarena.1', *('contrib/' + n for n in ('policy.conf', 'completion/omniarena.bash', 'completion/_omniarena', 'omniarena.service',
        'omniarena-user.service', 'omniarena.socket', 'omniarena.openrc'))]
SCRIPTS = ['install.sh', 'setup-openclaw.sh']


class Skip(Exception):
    pass


def test(fn):
    TESTS.append(fn)
    return fn


def run(*args, ok=True, **kw):
    """What a command says, on both of its streams; ok: whether it must end well (None: either)."""
    p = subprocess.run(args, stdin=kw.pop('stdin', subprocess.DEVNULL), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       timeout=kw.pop('timeout', 60), **kw)
    if ok is not None and (p.returncode == 0) != ok:
        raise AssertionError('%s: status %d\n%s' % (' '.join(args)[:200], p.returncode, p.stdout))
    return p.stdout


def has(text, *parts):
    for part in parts:
        if not re.search(part, text):
            raise AssertionError('no %r in:\n%s' % (part, text))


def need(*programs):
    for p in programs:
        if not shutil.which(p):
            raise Skip(p + ' is not here')


def release(folder, binary=None):
    """A release as it is published: the files, and SHA256SUMS."""
    os.makedirs(folder)
    lines = []
    for name in ['omniarena', *WITH]:
        to = os.path.join(folder, name)
        os.makedirs(os.path.dirname(to), exist_ok=True)
        shutil.copy(os.path.join(TOP, name), to)
        if name == 'omniarena' and binary:
            open(to, 'w').write(binary)
        lines.append('%s  %s\n' % (hashlib.sha256(open(to, 'rb').read()).hexdigest(), name))
    open(os.path.join(folder, 'SHA256SUMS'), 'w').write(''.join(lines))
    for name in SCRIPTS:
        shutil.copy(os.path.join(TOP, name), folder)
    return folder


def files(root):
    """Each file below root, with its mode and what is in it; without what the kernel and this test have there."""
    out = {}
    for folder, dirs, names in os.walk(root):
        if folder == root:
            dirs[:] = [d for d in dirs if d not in ('proc', 'sys', 'dev', 'run', 'tmp', 'opt')]
        for name in dirs + names:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            content = hashlib.sha256(open(path, 'rb').read()).hexdigest() if stat.S_ISREG(st.st_mode) else ''
            out[path[len(root):]] = (oct(st.st_mode), st.st_uid, content)
    return out


def same(before, after):
    diff = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    if diff:
        raise AssertionError('changed: %s' % ' '.join(diff[:20]))


def debian():
    """A bare Debian, made once."""
    kept = os.path.join(TOP, 'build/root.debian')
    if not os.path.exists(kept + '/etc/debian_version'):
        need('debootstrap')
        suite = re.search(r'^VERSION_CODENAME=(\w+)', open('/etc/os-release').read(), re.M)
        if not suite or not os.path.exists('/usr/share/debootstrap/scripts/' + suite[1]):
            raise Skip('debootstrap does not know this system')
        shutil.rmtree(kept + '.new', ignore_errors=True)
        try:
            said = run('debootstrap', '--variant=minbase', suite[1], kept + '.new', timeout=240)
        except (AssertionError, subprocess.TimeoutExpired) as e:
            raise Skip('no root can be made by debootstrap: ' + str(e).strip().splitlines()[-1][:150])
        os.rename(kept + '.new', kept)
    return kept


def busybox(work):
    """A root in which everything is busybox, its ash included."""
    need('busybox')
    root = os.path.join(work, 'busybox')
    for d in ('bin', 'etc', 'proc', 'sys', 'dev', 'tmp', 'run', 'var/lib', 'var/log', 'root', 'usr/bin', 'lib'):
        os.makedirs(os.path.join(root, d))
    shutil.copy(shutil.which('busybox'), root + '/bin/busybox')
    for name in run('busybox', '--list').split():
        if not os.path.exists(root + '/bin/' + name):
            os.symlink('busybox', root + '/bin/' + name)
    return root


# a service manager that starts what the unit says: systemctl as far as install.sh uses it
SYSTEMCTL = r'''#!/bin/sh
unit=/etc/systemd/system/omniarena.service pid=/run/fake.pid
alive() { [ -s $pid ] && [ -d "/proc/$(cat $pid)" ]; }
stop() { alive || return 0; kill "$(cat $pid)"; while alive; do sleep 0.01; done; rm -f $pid; }
start() {
	alive && return 0
	command=$(sed -n 's/^ExecStart=//p' $unit)
	$command >/run/fake.log 2>&1 </dev/null & echo $! >$pid
	n=0
	until grep -q 'listening on' /run/fake.log; do n=$((n + 1)); [ $n -lt 300 ] && alive || { rm -f $pid; return 1; }; sleep 0.01; done
}
case "$*" in *socket*) exit 0 ;; esac
case $1 in
start) start ;; stop) stop ;; restart) stop; start ;;
is-active) alive ;;
enable) mkdir -p /run/fake; : >/run/fake/enabled ;; disable) rm -f /run/fake/enabled ;;
daemon-reload) : ;;
*) exit 1 ;;
esac
'''


def inside(root, work, script, timeout=60):
    """Runs a script in the root, with proc, sys and dev there, a loopback of its own, and nothing of it left afterwards."""
    need('unshare', 'ip', 'chroot')
    shutil.rmtree(root + '/opt', ignore_errors=True)
    release(root + '/opt/new')
    release(root + '/opt/broken', '#!/bin/sh\ncase $1 in --version) echo omniarena 9.9; exit 0 ;; --check-config) exit 0 ;; esac\nexit 1\n')
    os.makedirs(root + '/opt/fake')
    open(root + '/opt/fake/systemctl', 'w').write(SYSTEMCTL)
    os.chmod(root + '/opt/fake/systemctl', 0o755)
    open(root + '/opt/script', 'w').write(script)
    before = files(root)
    outer = '''set -e
ip link set lo up
mount --bind "$0" "$0" # pivot_root(2) wants the root to be a mount
mount -t tmpfs tmpfs "$0/run"; mount -t tmpfs tmpfs "$0/tmp"
mount -t proc proc "$0/proc"; mount --rbind /sys "$0/sys"; mount --rbind /dev "$0/dev"
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot "$0" /bin/sh -eu /opt/script'''
    said = run('unshare', '--mount', '--net', '--pid', '--fork', '--kill-child', '--propagation', 'private', 'sh', '-c', outer, root, timeout=timeout)
    same(before, files(root))
    shutil.rmtree(root + '/opt')
    return said


# install, a command, upgrade, uninstall, without any service manager; then the same with one
BY_HAND = r'''
trap 'cat /tmp/log' EXIT
cd /opt/new
./install.sh
[ "$(stat -c %a /etc/omniarena/token)" = 600 ]; [ "$(stat -c %a /etc/omniarena)" = 755 ]; [ "$(stat -c %a /var/log/omniarena)" = 700 ]
[ "$(grep -c '^[0-9a-f]\{64\}$' /etc/omniarena/token)" = 1 ]
omniarena >/tmp/log 2>&1 </dev/null & server=$!
n=0; until grep -q 'listening on' /tmp/log; do n=$((n + 1)); [ $n -lt 300 ]; sleep 0.02; done
cat /tmp/log
echo "ran: $(omniarena exec 'echo a b c | wc -w; ls /')" | tr '\n' ' '
cp /etc/omniarena/token /tmp/token; was=$(stat -c %i /usr/local/bin/omniarena)
printf x >>omniarena; sum=$(sha256sum <omniarena | cut -c1-64); sed -i "s/^[0-9a-f]*  omniarena\$/$sum  omniarena/" SHA256SUMS
./install.sh
cmp /tmp/token /etc/omniarena/token; [ "$was" != "$(stat -c %i /usr/local/bin/omniarena)" ]
# what runs has its old file still
kill $server; wait $server || :
printf '# mine\n' >>/etc/omniarena/policy.conf
./install.sh --uninstall
[ -f /etc/omniarena/token ]; [ -f /var/log/omniarena/audit.log ]; [ ! -e /usr/local/bin/omniarena ]
./install.sh --no-service
./install.sh --uninstall --purge
printf y >>omniarena
if ./install.sh; then exit 1; fi
'''
BY_MANAGER = r'''
trap 'cat /run/fake.log' EXIT
mkdir -p /run/systemd/system; PATH=/opt/fake:$PATH
cd /opt/new
./install.sh
[ -f /run/fake/enabled ]
echo "ran: $(omniarena exec 'echo 1')"
./install.sh
cd /opt/broken
if ./install.sh; then exit 1; fi
omniarena --version | grep -v 9.9
echo "still: $(omniarena exec 'echo 2')"
cd /opt/new
systemctl stop omniarena; ./install.sh; if systemctl is-active omniarena; then exit 1; fi
printf '# mine\n' >>/etc/systemd/system/omniarena.service; ./install.sh; grep -q mine /etc/systemd/system/omniarena.service
./install.sh --uninstall --purge
cd /opt/broken
if ./install.sh; then exit 1; fi
[ ! -e /usr/local/bin/omniarena ]; [ ! -e /etc/omniarena ]
cd /opt/new; ./install.sh --no-start; [ ! -e /run/fake/enabled ]; ./install.sh --uninstall
'''


def whole(root, work):
    said = inside(root, work, BY_HAND)
    has(said, 'isolation (kernel|basic)', 'ran: 3 .*tmp', 'kept /etc/omniarena/token', 'policy.conf was edited', 'wrong checksum')
    said = inside(root, work, BY_MANAGER)
    has(said, 'ran: 1', 'still: 2', 'everything is as it was before', 'does not start with the new version', 'it was edited', 'was not started')
    away = [int(n) for n in re.findall(r'away for (\d+) ms', said)]
    if not away or max(away) > 1000:
        raise AssertionError('the service was away for %s ms' % away)
    print('    the service was away for %s ms' % away)


@test
def debian_root(work):
    if not ROOT:
        raise Skip('chroot is for root')
    run('cp', '-a', debian(), work + '/debian')
    whole(work + '/debian', work)


@test
def busybox_root(work):
    if not ROOT:
        raise Skip('chroot is for root')
    whole(busybox(work), work)


@test
def alpine_root(work):
    raise Skip('neither Debian nor npm has a root of Alpine; busybox_root has its shell and tools, not its musl and OpenRC')


@test
def scripts_are_clean(work):
    need('shellcheck')
    listed = glob.glob(TOP + '/*.sh') + glob.glob(TOP + '/contrib/*.sh') + [TOP + '/contrib/completion/omniarena.bash', TOP + '/contrib/quickstart']
    run('shellcheck', *listed)
    run('shellcheck', '-s', 'sh', '-e', 'SC2034', TOP + '/contrib/omniarena.openrc')
    for shell in (['dash'], ['busybox', 'ash']):
        need(shell[0])
        for s in SCRIPTS:
            run(*shell, '-n', os.path.join(TOP, s))
            has(run(*shell, os.path.join(TOP, s), '--help'), 'usage: ')
    for args in (['--nonsense'], ['--purge']):
        run(TOP + '/install.sh', *args, ok=False)


def ordinary(work):
    """Somebody else's account, with a home of its own: what a process is started with."""
    home = os.path.join(work, 'home')
    os.makedirs(home)
    ids = {}
    if ROOT:
        nobody = pwd.getpwnam('nobody')
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        ids = dict(user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])
    return home, dict(env={'PATH': os.environ['PATH'], 'HOME': home}, cwd=home, **ids)


@test
def user_install_from_an_address(work):
    need('curl')
    folder = release(work + '/release')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *a):
            super().__init__(*a, directory=folder)

        def log_message(self, *a):
            pass

    web = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Quiet)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        url = 'http://127.0.0.1:%d/' % web.server_port
        home, kw = ordinary(work)
        script = os.path.join(work, 'install.sh')  # alone, as somebody fetched it
        shutil.copy(TOP + '/install.sh', script)
        tools = {'curl': kw['env']['PATH']}
        if shutil.which('busybox') and shutil.which('wget'):  # busybox's tools, and nothing called curl; its wget, static, has no resolver
            os.makedirs(work + '/tools')
            for name in run('busybox', '--list').split():
                os.symlink(shutil.which('wget' if name == 'wget' else 'busybox'), work + '/tools/' + name)
            tools['wget'] = work + '/tools'
        for path in tools.values():
            kw['env']['PATH'] = path
            said = run(script, '--from', url, '--no-service', **kw)
            has(said, r'\.local/bin/omniarena', 'token: a new one', 'next: ')
            got = files(home)
            for name in ('/.local/bin/omniarena', '/.local/share/man/man1/omniarena.1', '/.config/omniarena/policy.conf', '/.config/omniarena/token'):
                assert name in got, name
            assert got['/.config/omniarena/token'][0] == '0o100600', got['/.config/omniarena/token']
            said = run(home + '/.local/bin/omniarena', 'exec', '--standalone', 'echo 6 7 | wc -w', **kw)
            assert said.strip().endswith('2'), said
            run(script, '--uninstall', '--purge', **kw)
            same({}, files(home))
        # a wrong checksum, no checksum, no such address: nothing is there afterwards
        open(folder + '/omniarena', 'ab').write(b'x')
        has(run(script, '--from', url, '--no-service', ok=False, **kw), 'wrong checksum')
        has(run(script, '--from', url + 'omniarena', '--no-service', ok=False, **kw), 'wrong checksum')
        os.remove(folder + '/SHA256SUMS')
        has(run(script, '--from', url, ok=False, **kw), "SHA256SUMS can't be fetched")
        has(run(script, '--from', folder, ok=False, **kw), 'SHA256SUMS is not there')
        has(run(script, '--from', 'http://example.com/', ok=False, **kw), 'https is needed')
        same({}, files(home))
    finally:
        web.shutdown()
        web.server_close()


@test
def nothing_half_done(work):
    """A step that can't be taken takes back those before it."""
    home, kw = ordinary(work)
    os.makedirs(home + '/.local/share/zsh/site-functions/_omniarena')  # a folder stands where a file goes
    if ROOT:
        run('chown', '-R', 'nobody', home)
    before = files(home)
    folder = release(work + '/release')
    has(run(folder + '/install.sh', '--no-service', ok=False, **kw), 'is a folder', 'everything is as it was before')
    same(before, files(home))


@test
def destdir(work):
    to = work + '/package'
    said = run(TOP + '/install.sh', env={**os.environ, 'DESTDIR': to, 'PREFIX': '/usr'})
    got = files(to)
    for name in ('/usr/bin/omniarena', '/usr/lib/systemd/system/omniarena.service', '/etc/init.d/omniarena', '/etc/omniarena/policy.conf', '/var/lib/omniarena'):
        assert name in got, name
    assert '/etc/omniarena/token' not in got and not any('manifest' in n for n in got), 'a package has no secret and no list of files'
    has(open(to + '/usr/lib/systemd/system/omniarena.service').read(), '(?m)^ExecStart=/usr/bin/omniarena$')
    has(run(TOP + '/install.sh', '--uninstall', ok=False, env={**os.environ, 'DESTDIR': to}), 'is a package')


@test
def man_page(work):
    page, told = open(TOP + '/omniarena.1').read(), run(TOP + '/omniarena', '--help')
    rows = re.findall(r'(?m)^  --([a-z-]+) +.* \((.*)\)$', told)
    assert len(rows) > 15, told
    for key, default in rows:
        m = re.search(r'(?m)^\.It Fl -%s Ar \w+ Pq (.*)$' % key, page)
        assert m, 'the page does not name --' + key
        assert m[1] == default or not ROOT and default.startswith('/'), '--%s: the page has %s, --help %s' % (key, m[1], default)
    named = set(re.findall(r'(?m)^\.It Fl -([a-z-]+) Ar', page))
    assert named == {k for k, _ in rows}, named ^ {k for k, _ in rows}
    for command in set(re.findall(r'(?m)^(?:usage:)? +omniarena (\w+(?: \| \w+)*)', told)):
        for name in command.split(' | '):
            has(page, r'(?m)^\.It Cm %s$' % name)
    if shutil.which('mandoc'):
        lint = run('mandoc', '-Tlint', '-Wwarning', TOP + '/omniarena.1', ok=None)
        assert 'omniarena.1:' not in lint, lint
    else:
        raise Skip('mandoc is not here; the keys are all named')


@test
def completions(work):
    need('bash')
    file = TOP + '/contrib/completion/omniarena.bash'
    run('bash', '-n', file)
    ask = '''. "$0"; complete -p omniarena; PATH=%s:$PATH
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _omniarena; echo "$*: ${COMPREPLY[*]}"; }
try omniarena d; try omniarena --prof; try omniarena exec --st; try omniarena --profile m''' % TOP
    has(run('bash', '-c', ask, file), '(?m)^complete -F _omniarena omniarena$', r'omniarena d: doctor\n', '--prof: --profile\n', '--st: .*--standalone', ' m: moderate\n')
    need('zsh')
    run('zsh', '-n', TOP + '/contrib/completion/_omniarena')


@test
def units(work):
    need('systemd-analyze')
    folder = work + '/units'
    os.makedirs(folder)
    for name in ('omniarena.service', 'omniarena.socket'):
        text = open(TOP + '/contrib/' + name).read().replace('/usr/local/bin/omniarena', TOP + '/omniarena')
        open(folder + '/' + name, 'w').write(text)
    said = run('systemd-analyze', 'verify', '--man=no', folder + '/omniarena.service', folder + '/omniarena.socket', ok=None)
    # a key of systemd 254; older ones say that they pass over it
    wrong = [line for line in said.splitlines() if folder in line and 'DelegateSubgroup' not in line]
    assert not wrong, wrong


# what the two programs are asked, written down; ps never shows the token
FAKE = '''#!/bin/sh
echo "$0 $*" | sed 's,.*/,,' >>"$LOG"
case "$*" in
*'patch --help') echo ' --stdin' ;;
*'patch --stdin') cat >>"$LOG" ;;
*'get tools.deny'*) printf '[\\n  "browser"\\n]\\n' ;;
*'config add'*) for a; do last=$a; done; echo '{"Authorization":"Bearer OMNIARENA-TOKEN-HERE"}' >"$last" ;;
esac
'''


@test
def openclaw(work):
    token = '0123456789abcdef' * 4
    os.makedirs(work + '/bin')
    open(work + '/token', 'w').write(token + '\n')
    log = work + '/log'
    env = {'PATH': '/usr/bin:/bin', 'HOME': work, 'LOG': log}
    has(run(TOP + '/setup-openclaw.sh', '--token-file', work + '/token', ok=False, env=env), 'openclaw is not installed', 'mcporter is not installed')
    for name in ('openclaw', 'mcporter'):
        open(work + '/bin/' + name, 'w').write(FAKE)
        os.chmod(work + '/bin/' + name, 0o755)
    env['PATH'] = work + '/bin:' + env['PATH']
    said = run(TOP + '/setup-openclaw.sh', '--token-file', work + '/token', '--deny-exec', env=env)
    asked = open(log).read()
    has(asked, '"streamable-http","headers":{"Authorization":"Bearer ' + token, r'"deny":\["browser", "group:runtime"\]', 'openclaw mcp probe omniarena')
    assert not re.search('(?m)^(openclaw|mcporter) .*' + token, asked), 'the token is on a command line'
    assert token not in said
    config = work + '/.mcporter/mcporter.json'
    has(open(config).read(), 'Bearer ' + token)
    assert os.stat(config).st_mode & 0o777 == 0o600
    has(run(TOP + '/setup-openclaw.sh', '--token-file', work + '/token', '--url', 'http://example.com/mcp', ok=False, env=env), 'https is needed')
    has(run(TOP + '/setup-openclaw.sh', '--token-file', work + '/none', ok=False, env=env), 'is not there')


def main():
    passed = failed = skipped = 0
    for fn in TESTS:
        if sys.argv[1:] and not any(p in fn.__name__ for p in sys.argv[1:]):
            continue
        work = tempfile.mkdtemp(prefix='omniarena-install-')
        os.chmod(work, 0o755)
        try:
            fn(work)
            passed += 1
            print('ok    install', fn.__name__)
        except Skip as e:
            skipped += 1
            print('SKIP  install %s: %s' % (fn.__name__, e))
        except Exception as e:
            failed += 1
            print('FAIL  install %s: %s' % (fn.__name__, e if isinstance(e, AssertionError) else traceback.format_exc()))
        finally:
            shutil.rmtree(work, ignore_errors=True)
    print('install: %d passed, %d failed, %d skipped' % (passed, failed, skipped))
    return failed > 0


sys.exit(main())
