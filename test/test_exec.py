"""What a command is given, what comes back, and that nothing of it stays."""
import base64, concurrent.futures, os, threading, time
from arena import *

FIELDS = {'ok', 'stdout', 'stderr', 'exit_code', 'duration_ms', 'files', 'files_truncated', 'timed_out', 'signal', 'stdout_bytes',
          'stderr_bytes', 'stdout_truncated', 'stderr_truncated', 'stdout_lossy', 'stderr_lossy', 'oom', 'usage', 'denied'}


@test
def reply(host):
    with host.server() as s:
        r = s.run('ls -la /tmp')
        equal(set(r), FIELDS)
        equal((r['ok'], r['exit_code'], r['stderr'], r['files'], r['timed_out'], r['signal'], r['oom']),
              (True, 0, '', [], False, None, False))
        check(r['stdout'].startswith('total 0\n'), r['stdout'])
        equal(set(r['usage']), {'cpu_ms', 'max_rss_kb', 'read_bytes', 'write_bytes'})
        check(r['usage']['max_rss_kb'] > 500, r['usage'])
        r = s.run('echo out; echo err >&2; exit 3')
        equal((r['ok'], r['exit_code'], r['stdout'], r['stderr'], r['stdout_bytes'], r['stderr_bytes']),
              (True, 3, 'out\n', 'err\n', 4, 4))
        equal(s.health()['total_execs'], 2)
        before = s.health()['bytes_captured']
        s.run('echo 12345; echo 6 >&2')
        equal(s.health()['bytes_captured'] - before, 8)


@test
def ordinary_work(host):
    """What agents really type."""
    with host.server() as s:
        equal(s.ok('python3 -c "print(sum(range(101)))"'), '5050\n')
        equal(s.ok("printf '3\\n1\\n2\\n' | sort | head -n 2 | tr '\\n' ,"), '1,2,')
        equal(s.ok("cat <<'E' | wc -l\na\nb $x\nE"), '2\n')
        equal(s.ok('cat <<E\n$((6*7)) $(echo in) $HOME\nE'), '42 in /tmp\n')
        equal(s.ok('for i in 1 2 3; do (echo $i) & wait; done'), '1\n2\n3\n')
        equal(s.ok('find /usr/bin -name python3 | wc -l; grep -c agent /etc/passwd; date +%Y >/dev/null; whoami'), '1\n1\nagent\n')
        r = s.run('mkdir -p d/e; echo 1 > b; echo 2 > a; echo 3 > d/e/c; echo "4" > "sp ace"; ln -s /etc/passwd link; mkfifo p')
        equal((r['exit_code'], r['files'], r['files_truncated']), (0, ['a', 'b', 'd/e/c', 'sp ace'], False))
        equal(s.ok('ls -A /tmp'), '', 'files of the run before')
        equal(s.ok('python3 - <<E\nimport tempfile,subprocess,json,hashlib,threading\nt=threading.Thread(target=print,args=("t",))\n'
                   't.start();t.join()\nprint(subprocess.run(["echo","x"],capture_output=True).stdout)\n'
                   'print(len(tempfile.mkdtemp()))\nE'), "t\nb'x\\n'\n%d\n" % len('/tmp/tmpabcdefgh'))


@test
def many_files(host):
    with host.server() as s:
        r = s.run('python3 -c "for i in range(3000): open(f\'/tmp/f{i:05}\',\'w\')"')
        equal((r['exit_code'], r['files_truncated'], len(r['files'])), (0, True, 512))
        r = s.run('python3 -c "\nimport os\nfor i in range(60): os.mkdir(\'d\'); os.chdir(\'d\')\nopen(\'f\',\'w\')"')
        equal((r['exit_code'], r['files'], r['files_truncated']), (0, [], True))
        r = s.run('python3 -c "\nimport os\nopen(bytes(range(1,128)).replace(b\'/\',b\'\'),\'w\')\nopen(b\'\\xff\',\'w\')"')
        equal(r['files'], [bytes(range(1, 128)).replace(b'/', b'').decode(), '\ufffd'])


@test
def every_byte(host):
    with host.server() as s:
        cmd = 'python3 -c "import os; os.write(1, bytes(range(256))*3); os.write(2, bytes(range(255,-1,-1)))"'
        r = s.run(cmd, encoding='base64')
        equal(base64.b64decode(r['stdout']), bytes(range(256)) * 3)
        equal(base64.b64decode(r['stderr']), bytes(range(255, -1, -1)))
        r = s.run(cmd)
        equal(r['stdout'], (bytes(range(256)) * 3).decode('utf-8', 'replace'))
        equal((r['stdout_lossy'], r['stderr_lossy'], r['stdout_bytes']), (True, True, 768))
        text = 'grüße 漢字 🦀 \x7f "\\ \t\r'
        r = s.run('cat', stdin=text)
        equal((r['stdout'], r['stdout_lossy']), (text, False))


@test
def large_output(host):
    with host.server() as s:
        for cmd, n in (('head -c 10000000 /dev/zero', 10000000), ('yes | head -c 1048576', 1 << 20), ('yes | head -c 1048577', (1 << 20) + 1)):
            r = s.run(cmd, encoding='base64')
            equal((r['exit_code'], r['stdout_bytes'], len(base64.b64decode(r['stdout'])), r['stdout_truncated']),
                  (0, n, min(n, 1 << 20), n > 1 << 20), cmd)
        r = s.run('yes >&2', timeout_ms=700)
        check(r['timed_out'] and r['stderr_bytes'] > 5 << 20 and len(r['stderr']) == 1 << 20 and r['stderr_truncated'], r['stderr_bytes'])
        equal(s.ok('echo next'), 'next\n')


@test
def fields(host):
    with host.server() as s:
        equal(s.post({'argv': ['echo', '$HOME; `id` "', '*', '']})['stdout'], '$HOME; `id` " * \n')
        equal(s.post({'argv': ['/bin/cat', '-'], 'stdin': 'x\ny'})['stdout'], 'x\ny')
        equal(s.ok('cat; echo $?', stdin=''), '0\n')
        equal(s.ok('cat'), '')
        equal(s.ok('cat /dev/stdin > /dev/stdout; echo x > /dev/stderr', stdin='in'), 'in')
        equal(s.ok('wc -c', stdin='z' * 1500000), '1500000\n')
        equal(s.ok('true', stdin='z' * 1500000), '', 'stdin that nobody reads')
        equal(s.ok('echo $A-$PATH-$B', env={'A': 'x=y "', 'PATH': '/usr/bin', 'B': ''}), 'x=y "-/usr/bin-\n')
        equal(s.ok('pwd; cd /tmp', cwd='/usr'), '/usr\n')
        equal(s.ok('env | sort').replace('\n', ' '), 'HOME=/tmp LANG=C.UTF-8 LOGNAME=agent '
              'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PWD=/tmp TMPDIR=/tmp USER=agent ')
        equal(s.ok('echo a\u00e9\U0001f980 "$X"', env={'X': '\u00df'}), 'a\u00e9\U0001f980 \u00df\n')
        equal(s.json('POST', '/api/exec', '{"\\u0063md":"echo \\u00e9\\ud83e\\udd80","unknown":[{"cmd":1}]}')['stdout'], 'é🦀\n')
        big = 'x' * 60000
        equal(s.ok('echo ' + big), big + '\n')
        equal(s.post({'argv': ['printf', '%s'] + ['a' * 100] * 1000})['stdout_bytes'], 100000)


@test
def refusals(host):
    with host.server() as s:
        for fields, status, code in (
                ({}, 400, 'bad_request'), ({'cmd': 'id', 'argv': ['id']}, 400, 'bad_request'), ({'cmd': ''}, 400, 'bad_request'),
                ({'cmd': 5}, 400, 'bad_request'), ({'cmd': None}, 400, 'bad_request'), ({'cmd': 'a\0b'}, 400, 'bad_request'),
                ({'cmd': 'x' * 65537}, 400, 'bad_request'), ({'argv': []}, 400, 'bad_request'), ({'argv': ['a', 1]}, 400, 'bad_request'),
                ({'argv': ['']}, 400, 'bad_request'), ({'argv': ['a\0']}, 400, 'bad_request'), ({'argv': 'id'}, 400, 'bad_request'),
                ({'argv': ['a'] * 5000}, 400, 'bad_request'), ({'argv': ['a' * 200000]}, 413, 'too_large'),
                ({'cmd': 'id', 'env': {'A=B': ''}}, 400, 'bad_request'), ({'cmd': 'id', 'env': {'': 'x'}}, 400, 'bad_request'),
                ({'cmd': 'id', 'env': {'A': 1}}, 400, 'bad_request'), ({'cmd': 'id', 'env': []}, 400, 'bad_request'),
                ({'cmd': 'id', 'cwd': ''}, 400, 'bad_request'), ({'cmd': 'id', 'cwd': 'a\0'}, 400, 'bad_request'),
                ({'cmd': 'id', 'timeout_ms': 0}, 400, 'bad_request'), ({'cmd': 'id', 'timeout_ms': -1}, 400, 'bad_request'),
                ({'cmd': 'id', 'timeout_ms': 1.5}, 400, 'bad_request'), ({'cmd': 'id', 'timeout_ms': '9'}, 400, 'bad_request'),
                ({'cmd': 'id', 'encoding': 'latin1'}, 400, 'bad_request'), ({'cmd': 'id', 'stdin': []}, 400, 'bad_request'),
                ({'cmd': 'id', 'get_files': 1}, 400, 'bad_request'), ({'cmd': 'id', 'get_files': ['../x']}, 400, 'bad_request'),
                ({'cmd': 'id', 'get_files': ['/etc/passwd']}, 400, 'bad_request'), ({'cmd': 'id', 'put_files': {'a/../b': ''}}, 400, 'bad_request'),
                ({'cmd': 'id', 'put_files': {'a': '='}}, 400, 'bad_request'), ({'cmd': 'id', 'put_files': {'': ''}}, 400, 'bad_request'),
                ({'cmd': 'id', 'put_files': ['a']}, 400, 'bad_request')):
            r = s.post(fields, status)
            equal((r['ok'], r['code']), (False, code), str(fields)[:80])
            check(len(r['error']) > 8, r)
        equal(s.health()['total_execs'], 0, 'a refused command ran')
        r = s.post({'argv': ['no-such-program']})
        equal((r['ok'], r['exit_code'], 'no-such-program' in r['stderr']), (True, 127, True))
        equal(s.post({'argv': ['/etc/passwd']}, 403)['code'], 'whitelist')
        s.json('POST', '/api/profile', '{"profile":1}')
        r = s.post({'argv': ['/etc/passwd']})
        equal((r['ok'], r['exit_code']), (True, 126))
        r = s.run('id', cwd='/no/where')
        equal((r['ok'], r['exit_code'], '/no/where' in r['stderr']), (True, 125, True))


@test
def signals_and_timeouts(host):
    with host.server() as s:
        r = s.run('kill -SEGV $$')
        equal((r['ok'], r['exit_code'], r['signal']), (True, 139, 'SIGSEGV'))
        r = s.run('trap "" TERM HUP INT; echo so far; exec sleep 60', timeout_ms=400)
        equal((r['ok'], r['exit_code'], r['timed_out'], r['error'], r['stdout']), (False, 124, True, 'timeout after 400 ms', 'so far\n'))
        check(400 <= r['duration_ms'] < 5000, r['duration_ms'])
        r = s.run('echo 1 > f; kill -STOP 0', timeout_ms=400)
        equal((r['exit_code'], r['timed_out'], r['files']), (124, True, ['f']))
        r = s.run('kill 0; sleep 9')
        equal((r['exit_code'], r['signal']), (143, 'SIGTERM'))
        r = s.run('kill -9 -1; echo still here')
        equal((r['exit_code'], r['stdout']), (0, 'still here\n'))
        r = s.run('kill -9 1; kill -STOP 1; echo $?')
        equal((r['exit_code'], r['timed_out']), (0, False))
        r = s.run('python3 -c "while 1: pass"', timeout_ms=600)
        check(r['timed_out'] and r['usage']['cpu_ms'] > 50, r)
        r = s.run('while :; do :; done')  # 5 s of the wall, 5 s of the processor: whichever is first
        check(r['timed_out'] or r['signal'] in ('SIGKILL', 'SIGXCPU'), r)
        r = s.run('sleep 30', timeout_ms=999999999)  # capped
        equal((r['error'], r['timed_out']), ('timeout after 5000 ms', True))


@test
def strays(host):
    """A daemon, forked twice in a session of its own, ends with its command, which does not wait for it."""
    with host.server() as s:
        r = s.run('(setsid sh -c "sleep 4242@; echo late" >/dev/null 2>&1 &) ; echo done')
        equal((r['exit_code'], r['stdout'], r['timed_out']), (0, 'done\n', False))
        until(lambda: not having('4242@'), what='the daemon is gone')
        r = s.run('sleep 4243@ & echo held')  # holds stdout open
        equal((r['exit_code'], r['stdout'], r['timed_out']), (0, 'held\n', False))
        until(lambda: not having('4243@'), what='the background job is gone')


@test
def bombs(host):
    with host.server() as s:
        cgroup = s.health()['layers']['cgroup']
        r = s.run('b(){ b|b& }; b; sleep 1', timeout_ms=3000)
        check('fork' in r['stderr'] or r['timed_out'] or r['signal'], r)
        equal(s.ok('echo next'), 'next\n')
        r = s.run('python3 -c "\nimport os\nn=0\ntry:\n while n<100:\n  if os.fork()==0:\n   __import__(\'time\').sleep(9)\n'
                  '  n+=1\nexcept OSError: print(n)"', timeout_ms=3000)
        check(r['exit_code'] == 0 and 1 <= int(r['stdout']) <= 5, r)
        r = s.run('python3 -c "x=bytearray(200<<20)"')
        check(r['exit_code'] != 0 and 'MemoryError' in r['stderr'] or r['oom'], r)
        if cgroup:  # each below RLIMIT_AS, together beyond the limit
            r = s.run('for i in 1 2 3; do python3 -c "x=bytearray(33<<20); import time; time.sleep(2)" & done; wait; echo end')
            equal(r['oom'], True, r)
            r = s.run('python3 -c "x=bytearray(10<<20); print(1)"')
            equal((r['oom'], r['stdout']), (False, '1\n'))
        r = s.run('for i in 1 2 3 4 5 6 7 8; do head -c 9000000 /dev/zero > f$i || echo full; done; df -P /tmp | tail -1')
        check(r['exit_code'] == 0 and 'No space left' in r['stderr'], r)
        r = s.run('python3 -c "\ntry:\n for i in range(10**6): open(f\'/tmp/{i}\',\'w\')\nexcept OSError as e: print(e.errno)"')
        equal(r['stdout'], '28\n', 'inodes')
        r = s.run('head -c 20M /dev/zero > f; stat -c %s f')
        equal(r['stdout'], '%d\n' % (10 << 20), 'file size limit')
        equal(s.ok('ls -A /tmp; echo clean'), 'clean\n')
        s.settled()


@test
def hundred_at_once(host):
    with host.server('--max-running', '128') as s:
        with concurrent.futures.ThreadPoolExecutor(101) as pool:
            jobs = [pool.submit(s.run, 'sleep 2; echo %d' % i) for i in range(100)]
            until(lambda: s.health()['running'] >= 50, what='many run at once')
            for _ in range(20):
                check(s.health()['ok'])
            for i, j in enumerate(jobs):
                r = j.result()
                equal((r['ok'], r['exit_code'], r['stdout']), (True, 0, '%d\n' % i))
        s.settled()


@test
def queue(host):
    with host.server('--max-running', '2', '--warm-cells', '0') as s:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            t = [pool.submit(s.run, 'sleep 1; echo 1') for _ in range(4)]  # two wait for a second
            equal([j.result()['stdout'] for j in t], ['1\n'] * 4)
    with host.server('--max-running', '2') as s:  # ready cells or not
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            t = [pool.submit(s.request, 'POST', '/api/exec', '{"cmd":"sleep 4"}') for _ in range(3)]
            got = sorted(((j.result()[0], j.result()[1]['Retry-After']) for j in t), key=lambda g: g[0])
            equal(got, [(200, None), (200, None), (429, '1')])
        s.health()


@test
def hang_up(host):
    """A client that goes away takes its command with it."""
    with host.server() as s:
        body = '{"cmd":"exec sleep 4.777@"}'.replace('@', UNIQUE)
        c = s.connect()
        c.sendall(('POST /api/exec HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s' % (BASIC, len(body), body)).encode())
        until(lambda: having('4.777@'), what='the command runs')
        c.close()
        until(lambda: not having('4.777@') and s.health()['running'] == 0, 3, 'the command is gone')


@test
def nothing_is_left(host):
    """A thousand runs of every kind of end; then the host is as before."""
    with host.server('--max-running', '4', '--warm-cells', '4') as s:
        w = s.warden()
        kinds = ['true', 'exit 7', 'kill -9 $$', '(setsid sleep 99 &)', 'echo x > /tmp/x', 'head -c 200000 /dev/zero', 'ls|cat|wc']

        def batch(n):
            def some(k):
                c = http.client.HTTPConnection('127.0.0.1', s.port, timeout=60)
                for i in range(n // 4):
                    if i % 50 == k:
                        s.run('sleep 9', timeout_ms=20, conn=c)
                    s.run(kinds[(i + k) % len(kinds)], conn=c)
                c.close()
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                list(pool.map(some, range(4)))

        def count():
            s.settled()
            maps = {p: sum(1 for _ in open('/proc/%d/maps' % p)) for p in (s.pid, w)}
            zombies = [p for p in tree(s.pid) if status(p)['State'].startswith('Z')]
            def lasting(p):  # what was there each time: the connections of the questions above are ending
                return min((time.sleep(0.02), len(fds(p)))[1] for _ in range(10))
            return {'fds': {p: lasting(p) for p in (s.pid, w)}, 'mounts': mounts(), 'cgroups': cgroups(w), 'maps': maps, 'zombies': zombies,
                    'processes': len(tree(s.pid))}

        # what a slot brings for good (its namespaces, its cgroup) comes at its first use: have all eight used
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            t = [pool.submit(s.run, 'sleep 2') for _ in range(4)]
            until(lambda: s.health()['running'] == 4 and s.health()['warm_cells'] == 4, what='all places are used')
            [j.result() for j in t]
        before = count()
        batch(1000)
        equal(count(), before)
    equal(cgroups(w), set(), 'cgroups after the end')
    equal(tree(s.pid), {s.pid})
