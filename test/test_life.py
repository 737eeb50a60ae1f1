"""The three kinds of process: what each may do, how they start, and how they end together."""
import ctypes
from arena import *

NO_CAPS = {'CapInh': '0' * 16, 'CapPrm': '0' * 16, 'CapEff': '0' * 16, 'CapAmb': '0' * 16}
# capabilities(7): CHOWN DAC_OVERRIDE KILL SETGID SETUID SETPCAP SYS_CHROOT SYS_ADMIN
WARDEN_CAPS = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 18 | 1 << 21
WORKS = 'python3 -c "print(6*7)"'


@test
def arena_has_no_privilege(host):
    with host.server() as s:
        st = status(s.pid)
        equal({k: st[k] for k in NO_CAPS}, NO_CAPS)
        equal((st['CapBnd'], st['NoNewPrivs'], st['Seccomp'], st['Groups'].strip() if host.root else ''), ('0' * 16, '1', '2', ''))
        uid = {int(u) for u in st['Uid'].split() + st['Gid'].split()}
        equal(len(uid), 1)
        check(min(uid) >= 0x70000000 if host.root else uid == {65534}, uid)
        s.settled()
        if os.geteuid() == 0:
            equal(os.listdir('/proc/%d/root' % s.pid), [], 'its root is not empty')
            check(os.statvfs('/proc/%d/root' % s.pid).f_flag & os.ST_RDONLY, 'its root is writable')
            kinds = sorted(re.sub(r'[:\[].*', '', to) for fd, to in fds(s.pid).items() if fd > 2)
            ready = s.health()['warm_cells']
            log = [fd for fd, to in fds(s.pid).items() if to == s.audit_log]
            equal(len(log), 1, 'the log')
            with open('/proc/%d/fdinfo/%d' % (s.pid, log[0])) as f:
                check(int(re.search(r'flags:\s*(\d+)', f.read()).group(1), 8) & os.O_APPEND, 'the log can be written elsewhere than at its end')
            kinds.remove(s.audit_log)
            check(set(kinds) == {'socket', 'pipe', 'anon_inode'}, kinds)
            equal(kinds.count('anon_inode'), 1, 'the signal fd')
            equal(kinds.count('pipe'), 3 * ready)


@test
def warden_has_no_network(host):
    with host.server() as s:
        w = s.warden()
        st = status(w)
        equal((st['NoNewPrivs'], st['Seccomp']), ('1', '2'))
        if not host.root:
            return  # its capabilities are those of its own user namespace
        equal((int(st['CapPrm'], 16), int(st['CapBnd'], 16), st['CapInh'], st['CapAmb']), (WARDEN_CAPS, WARDEN_CAPS, '0' * 16, '0' * 16))
        check(os.readlink('/proc/%d/ns/net' % w) != os.readlink('/proc/self/ns/net'), 'the warden is in the host\'s network')
        inodes = {line.split()[9] for name in ('tcp', 'tcp6') for line in list(open('/proc/net/' + name))[1:]}
        check(not [to for to in fds(w).values() if to.startswith('socket:') and to[8:-1] in inodes], 'holds a network socket')


@test
def a_thief_in_arena(host):
    """A test build tries to open, execute, make sockets, signal the warden ... after the surrender."""
    for n in range(1, 13):
        name = 'omniarena-hook%d' % n
        check(os.path.exists(os.path.join(host.work, name)), 'make hooks did not build', name)
        s = host.server(binary=name, ready=False)
        equal(s.wait(), -signal.SIGSYS, name, s.log())
        check('survived' not in s.log(), s.log())
    # what he may ask the warden does not make the record go
    s = host.server(binary='omniarena-hook13', ready=False)
    equal(s.wait(), 99, s.log())
    check(os.path.exists(s.audit_log) and not os.path.exists(s.audit_log + '.1'), os.listdir(s.folder))


@test
def default_secrets_stay_home(host):
    for listen in ('0.0.0.0', '::'):
        s = host.server('--listen', listen, ready=False)
        equal(s.wait(), 1)
        check('default credentials' in s.log() and 'token' in s.log(), s.log())
    token = host.file('0123456789abcdef-own\n')
    with host.server('--listen', '0.0.0.0', '--token-file', token) as s:
        equal(s.request('GET', '/api/health')[0], 401, 'the published password from everywhere')
        s.auth = 'Bearer 0123456789abcdef-own'
        equal(s.health()['default_credentials'], False)
        equal(s.request('GET', '/api/health', headers={'Host': 'arena.example'})[0], 200)
        equal(s.request('GET', '/api/health', headers={'Authorization': 'Bearer omniarena-default-token'})[0], 401)
    with host.server('--token-file', token) as s:  # at home both are good
        equal(s.request('GET', '/api/health')[0], 200)
        equal(s.request('GET', '/api/health', headers={'Authorization': 'Bearer 0123456789abcdef-own'})[0], 200)
        equal(s.request('GET', '/api/health', headers={'Authorization': 'Bearer omniarena-default-token'})[0], 401)
    with host.server() as s:
        equal(s.request('GET', '/api/health', headers={'Authorization': 'Bearer omniarena-default-token'})[0], 200)
        equal(s.health()['default_credentials'], True)


@test
def bad_usage(host):
    for flags, status, words in (
            (('--no-such', '1'), 2, ('--no-such', '--help')), (('--port', '99999'), 2, ('--port', '65535')), (('--port', 'x'), 2, ('--port',)),
            (('--port',), 2, ('--port', 'missing')), (('extra',), 2, ('extra',)), (('--max-running', '0'), 2, ('--max-running',)),
            (('--require-isolation', 'some'), 2, ('kernel',)), (('--listen', 'no.such.host'), 1, ('no.such.host', 'address')),
            (('--listen', '192.0.2.1', '--token-file', host.file('0123456789abcdef\n')), 1, ('192.0.2.1',)),
            (('--token-file', '/no/such/file'), 1, ('/no/such/file',)), (('--token-file', host.file('0123456789abcdef\n', 0o644)), 1, ('chmod',)),
            (('--token-file', host.file('short\n')), 1, ('16',)), (('--token-file', host.file('two words of more than 16\n')), 1, ('blanks',))):
        s = host.server(*flags, ready=False)
        equal(s.wait(), status, flags, s.log())
        equal([w for w in words if w not in s.log()], [], flags, s.log())
        check(s.log().startswith('omniarena: '), s.log())
    s = host.server(env={'OMNIARENA_MAX_RUNNING': 'many'}, ready=False)
    equal((s.wait(), 'OMNIARENA_MAX_RUNNING' in s.log()), (2, True))
    for flag, word in (('--help', b'--max-running'), ('--version', b'omniarena 1.0.4\n')):
        s = host.server(flag, ready=False)
        out = s.proc.stdout.read()
        equal((s.wait(), word in out, s.log()), (0, True, ''))


@test
def environment_and_flags(host):
    with host.server('--max-running', '3', env={'OMNIARENA_MAX_RUNNING': '9', 'OMNIARENA_OUTPUT_LIMIT': '2048'}) as s:
        limits = s.health()['limits']
        equal((limits['max_running'], limits['output_limit']), (3, 2048))
        equal(s.run('head -c 3000 /dev/zero', encoding='base64')['stdout_truncated'], True)


@test
def second_instance(host):
    with host.server() as s:
        t = host.server(port=s.port, ready=False)
        equal(t.wait(), 1)
        check('port %d' % s.port in t.log() and 'taken' in t.log(), t.log())
        equal(s.ok(WORKS), '42\n')
    with host.server(port=s.port) as s:  # and the port is free again at once
        equal(s.ok(WORKS), '42\n')


def running(s, mark):
    """A command that runs until it is ended, in a thread; its reply, or what went wrong, in a list."""
    out = []

    def go():
        try:
            out.append(s.run('echo begun; exec sleep ' + mark))
        except Exception as e:
            out.append(e)
    t = threading.Thread(target=go, daemon=True)
    t.start()
    until(lambda: having(mark), what='the command runs')
    return t, out


@test
def drains(host):
    """SIGTERM: no new work, what runs ends and is answered, nothing stays."""
    s = host.server()
    w, idle = s.warden(), s.connect()
    t, out = running(s, '1.234@')
    all_of_it = tree(s.pid)
    s.proc.send_signal(signal.SIGTERM)
    equal(idle.recv(1), b'', 'an idle connection is closed')
    until(lambda: not listening(s.port), what='the port is closed')
    t.join(10)
    check(isinstance(out[0], dict) and out[0]['exit_code'] == 0, out)
    equal(s.wait(), 0)
    until(lambda: not [p for p in all_of_it if p != s.pid and alive(p)], what='warden and cells are gone')
    equal(cgroups(w), set())


def listening(port):
    with contextlib.closing(socket.socket()) as c:
        return c.connect_ex(('127.0.0.1', port)) == 0


@test
def told_twice(host):
    s = host.server()
    t, out = running(s, '4.321@')
    s.proc.send_signal(signal.SIGTERM)
    until(lambda: 'ending' in s.log(), what='it drains')
    s.proc.send_signal(signal.SIGINT)
    s.wait(4)
    until(lambda: not having('4.321@'), what='the command is gone')


@test
def killed_arena(host):
    """kill -9 of arena ends warden and every cell at once, and leaves no cgroup."""
    s = host.server()
    w = s.warden()
    t, out = running(s, '4.111@')
    whole = tree(s.pid) - {s.pid}
    s.proc.kill()
    s.wait()
    until(lambda: not [p for p in whole if alive(p)], 3, 'warden and cells are gone')
    equal((having('4.111@'), cgroups(w)), ([], set()))


@test
def killed_warden(host):
    """kill -9 of the warden ends every cell at once; arena says so, answers, and ends; the next start clears up."""
    s = host.server()
    w = s.warden()
    t, out = running(s, '4.222@')
    whole = tree(s.pid) - {s.pid, w}
    os.kill(w, signal.SIGKILL)
    until(lambda: not [p for p in whole if alive(p)], 3, 'cells are gone')
    t.join(10)
    check(out and isinstance(out[0], AssertionError) and 'internal' in str(out[0]), out)
    equal(s.wait(), 1)
    check('warden is gone' in s.log(), s.log())
    with host.server() as s:
        equal(cgroups(w), set(), 'the cgroups of the one that was killed')
        equal(s.ok(WORKS), '42\n')


@test
def killed_cells(host):
    """A cell that dies, waiting or busy, costs one command at most."""
    if not host.root:
        raise Skip('one way to kill them is enough')
    with host.server() as s:
        for p in tree(s.pid) - {s.pid, s.warden()}:
            try:
                os.kill(p, signal.SIGKILL)
            except ProcessLookupError:
                pass
        s.settled()
        equal(s.ok(WORKS), '42\n')
        t, out = running(s, '4.333@')
        os.kill([p for p in tree(s.pid) if set(children(p)) & set(having('4.333@'))][0], signal.SIGKILL)
        t.join(10)
        check(isinstance(out[0], AssertionError) and '"code":"internal"' in str(out[0]), out)
        equal(s.ok(WORKS), '42\n')
        s.settled()


# An account without user namespaces: as in a container, or where a sysctl forbids them. One is made
# whose own limit of further ones is 0; the server in it is not its root.
WITHOUT = '''
import ctypes, os, sys
uid, gid = os.getuid(), os.getgid()
if ctypes.CDLL(None).unshare(0x10000000): sys.exit('no user namespaces here at all')
for f, t in (('setgroups', 'deny'), ('uid_map', '%d %d 1' % (uid, uid)), ('gid_map', '%d %d 1' % (gid, gid))):
    open('/proc/self/' + f, 'w').write(t)
open('/proc/sys/user/max_user_namespaces', 'w').write('0')
os.execv(sys.argv[1], sys.argv[1:])
'''


# Root as containers have it: with a container engine's usual capabilities, without SYS_ADMIN; and in
# a user namespace of its own, where no further ones may be made.
FEW_CAPABILITIES = '''
import ctypes, os, sys
for cap in set(range(64)) - {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}: ctypes.CDLL(None).prctl(24, cap, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
'''
OWN_USERNS = '''
import ctypes, os, sys
(ready, tell), (done, say) = os.pipe(), os.pipe()
if os.fork() == 0:
    os.read(ready, 1)
    for f in ('uid_map', 'gid_map'): open('/proc/%d/%s' % (os.getppid(), f), 'w').write('0 0 4294967295')
    os._exit(os.write(say, b'x') != 1)
if ctypes.CDLL(None).unshare(0x10000000): sys.exit('no user namespaces here at all')
os.write(tell, b'x'), os.read(done, 1), os.wait()
open('/proc/sys/user/max_user_namespaces', 'w').write('0')
os.setresgid(0, 0, 0), os.setresuid(0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
'''


@test
def containers(host):
    """Root of a container gets the whole jail where the kernel has a way to it."""
    if not host.root:
        raise Skip('about root')
    for wrap, missing in ((FEW_CAPABILITIES, {'cgroup'}), (OWN_USERNS, {'userns'})):
        with host.server(wrap=('/usr/bin/python3', '-c', wrap)) as s:
            h = s.health()
            equal((h['isolation'], missing <= set(h['missing'])), ('kernel', True), s.log())
            equal(s.ok('id -un; ls | wc -l; ls /proc | grep -c "^[0-9]*$"; grep -h ^Cap /proc/self/status | grep -c 0000000000000000').split()[-1], '5')
            check(s.run('cat /etc/shadow; kill -9 %d' % s.pid)['exit_code'] != 0)


def landlock_abi():
    return ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, 1)


def basic_server(host, *flags):
    return host.server(*flags, wrap=('/usr/bin/python3', '-c', WITHOUT))


@test
def basic(host):
    """Where neither root nor user namespaces are to be had: said so, and still fenced."""
    if host.root:
        raise Skip('root has its own way')
    with basic_server(host) as s:
        h = s.health()
        equal(h['isolation'], 'basic')
        equal({k: h['layers'][k] for k in ('netns', 'mountns', 'pidns', 'userns', 'rlimits', 'no_new_privs', 'seccomp')},
              dict(netns=False, mountns=False, pidns=False, userns=False, rlimits=True, no_new_privs=True, seccomp=True))
        s.ok('ls')
        equal((s.health()['whitelist_enforcement'], len(s.health()['whitelist_enforcement_why']) > 30), ('partial', True))
        if h['layers']['landlock']:
            check('Permission denied' in s.run('python3 -c "import os; os.execv(\'/usr/bin/who\', [\'who\'])"')['stderr'], 'a program that is not in the list')
        check('user namespace' in h['missing']['netns'] and 'without netns' in s.log(), h['missing'])
        equal(s.ok(WORKS), '42\n')
        r = s.run('pwd; echo x > f; mkdir d; echo y > d/g; ls')
        check(r['exit_code'] == 0 and re.match(r'/tmp/omniarena-cells-\w{6}/\d+\nd\nf\n$', r['stdout']), r)
        equal(r['files'], ['d/g', 'f'])
        where = os.path.dirname(r['stdout'].split('\n')[0])
        s.run('mkdir d; cd d; for i in 1 2 3 4 5 6 7 8 9; do mkdir -p a/a/a/a/a; echo x > a/x; chmod 0 a/x; cd a/a/a; done; cd /tmp; chmod 0 d')
        until(lambda: not any(f for _, _, f in os.walk(where)) and not any(os.listdir(os.path.join(where, d)) for d in os.listdir(where)),
              what='its files are gone')
        equal(s.ok('python3 -c "import socket\ntry: socket.socket()\nexcept OSError as e: print(e.errno)"'), '1\n')
        if h['layers']['landlock']:
            for path in (host.file('secret'), '/etc/shadow', '/etc/hostname', '/var'):
                check(s.run('cat %s; test -d %s && ls %s' % (path, path, path))['exit_code'] != 0, path, 'can be read')
            check('Permission denied' in s.run('cp /bin/true t; python3 -c "import os; os.execv(\'./t\', [\'t\'])"')['stderr'], 'what is written can be executed')
            check(s.run('echo x > /tmp/elsewhere')['exit_code'] != 0, 'the host\'s /tmp can be written')
        equal(s.ok('kill -9 -1; echo alive'), 'alive\n')
        r = s.run('chmod 0 .; mkdir -p /tmp/x 2>/dev/null; exec python3 -', stdin='import resource\ntry: resource.prlimit(%d, resource.RLIMIT_CPU, (9, 9))\n'
                  'except PermissionError: print("refused")\n' % s.pid)
        equal(r['stdout'], 'refused\n', 'limits of the server')
        equal(s.run('kill 0; sleep 9')['signal'], 'SIGTERM')
        if landlock_abi() >= 6:  # before 6.12 nothing fences signals to other processes of the same user
            equal(s.ok('kill -9 %d; echo alive' % s.pid), 'alive\n')
        r = s.run('(setsid sleep 3.14159@ &) ; (sleep 3.14159@ & sleep 3.14159@) & sleep 0.1; echo done')
        equal((r['exit_code'], r['stdout']), (0, 'done\n'))
        until(lambda: not having('3.14159@'), 3, 'strays are gone')
        r = s.run('trap "" TERM; sleep 2.71828@ & sleep 2.71828@', timeout_ms=300)
        equal((r['timed_out'], r['exit_code']), (True, 124))
        until(lambda: not having('2.71828@'), 3, 'strays are gone')
        equal(s.post({'cmd': '(setsid sleep 3.33333@ &); sleep 3.33333@ & kill -9 $PPID; sleep 9'}, 500)['code'], 'internal')
        until(lambda: not having('3.33333@'), 3, 'strays of a killed process 1 are gone')
        equal(s.ok(WORKS), '42\n')
    check(not os.path.exists(where), 'the folder stays')
    with basic_server(host) as s:  # and what a killed one leaves, the next one sweeps
        where = os.path.dirname(s.ok('pwd').strip())
        os.kill(s.warden(), signal.SIGKILL)
        s.wait()
        check(os.path.exists(where), where)
    with basic_server(host) as s:
        check(not os.path.exists(where), where, 'stays')
    with basic_server(host, '--require-isolation', 'kernel') as s:
        equal(s.post({'cmd': 'id'}, 503)['code'], 'isolation')
        equal(s.health()['total_execs'], 0)
