"""The record: the ring, the log and its chain, what is told of refusals, files in and out, streams."""
import base64, concurrent.futures, contextlib, hashlib, http.client, json, os, random, re, signal, socket, subprocess, threading, time
from arena import Skip, Server, alive, check, children, equal, test, tree, until


def lines(path):
    with open(path, 'rb') as f:
        return f.read().split(b'\n')[:-1]


def events(path, kind=None):
    return [e for e in (json.loads(x) for x in lines(path)) if kind in (None, e['event'])]


def chain_holds(path, prev=None, seq=None):
    """The chain, checked by other code than the server's own: the number of lines."""
    n = 0
    for raw in lines(path):
        check(raw.startswith(b'{"seq":'), path, 'line', n + 1, raw[:80])
        e = json.loads(raw)
        if prev is not None:
            equal((e['seq'], e['prev']), (seq + 1, prev), path)
        prev, seq, n = hashlib.sha256(raw).hexdigest(), e['seq'], n + 1
    return n


def verify(s, *args, log=None, state=None):
    """(status, what it says) of omniarena verify"""
    p = subprocess.run([os.path.join(os.path.dirname(s.proc.args[0]), 'omniarena'), 'verify', '--config', '/dev/null', '--audit-log', log or s.audit_log,
                        '--state-dir', state or s.state_dir, *args], capture_output=True, text=True)
    return p.returncode, p.stdout + p.stderr


def again(s, host, *flags, **kw):
    """A server with the files of one that has ended."""
    return host.server(*flags, env={'OMNIARENA_AUDIT_LOG': s.audit_log, 'OMNIARENA_STATE_DIR': s.state_dir}, **kw)


def same_files(s, old):
    s.audit_log, s.state_dir = old.audit_log, old.state_dir
    return s


@test
def ring_and_log(host):
    with host.server(config=False) as s:
        s.run('ls -la /tmp')
        s.post({'cmd': 'rm -rf /'}, status=403)
        s.json('POST', '/api/profile', json.dumps({'profile': 1}))
        s.post({'argv': ['echo', 'a b', 'c']}, headers={'X-Agent': 'claude-agent'})
        a = s.json('GET', '/api/audit')
        texts = [re.sub(r'^\[\d\d:\d\d:\d\d\] ', '', e) for e in a['entries']]
        equal(texts[-4:], ['EXEC ls -la /tmp → exit:0 OK', 'BLOCK rm -rf / → exit:0 BLACKLIST', 'CONFIG set_profile → exit:1 OK',
                           'EXEC echo a b c → exit:0 OK'])
        check(all(re.match(r'\[\d\d:\d\d:\d\d\] ', e) for e in a['entries']), a['entries'])
        last = a['events'][-1]
        equal({k: last[k] for k in ('agent', 'event', 'cmd', 'result', 'exit_code')},
              {'agent': 'claude-agent', 'event': 'EXEC', 'cmd': 'echo a b c', 'result': 'OK', 'exit_code': 0})
        check(re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z', last['time']) and last['duration_ms'] >= 0, last)
        equal([e['rule'] for e in a['events'] if e['event'] == 'BLOCK'], ['rm -rf /'])
        equal(len(a['entries']), len(a['events']))
        equal(len(s.json('GET', '/api/audit?limit=2')['entries']), 2)
        equal(s.json('GET', '/api/audit?limit=0')['entries'], [])
        equal([e['agent'] for e in s.json('GET', '/api/audit?agent=claude-agent')['events']], ['claude-agent'])
        seqs = [e['seq'] for e in a['events']]
        equal([e['seq'] for e in s.json('GET', '/api/audit?after=%d' % seqs[-3])['events']], seqs[-2:])
        for bad in ('limit=-1', 'after=x', 'limit=99999999999999999999'):
            s.json('GET', '/api/audit?' + bad, status=400)
        # the log has the same, and the intents
        log = events(s.audit_log)
        equal([e['event'] for e in log], ['START', 'RUN', 'EXEC', 'BLOCK', 'CONFIG', 'RUN', 'EXEC'])
        equal((log[-2]['argv'], log[-1]['run'], log[-1]['argv']), (['echo', 'a b', 'c'], log[-2]['seq'], ['echo', 'a b', 'c']))
        equal(chain_holds(s.audit_log), 7)
        equal(os.stat(s.audit_log).st_mode & 0o777, 0o600)
    equal(verify(s)[0], 0, verify(s))
    equal([e['event'] for e in events(s.audit_log)][-1], 'STOP')


@test
def ring_is_bounded(host):
    with host.server('--audit-slots', '5') as s:
        for i in range(9):
            s.run('echo %d' % i)
        a = s.json('GET', '/api/audit')
        equal([e['cmd'] for e in a['events']], ['echo %d' % i for i in range(4, 9)])


HOSTILE = ['echo a\nb; : [00:00:00] EXEC forged → exit:0 OK', "echo '\x1b[2J\x1b]0;x\x07'", 'echo "\\"}\n{\\"seq\\":1,\\"prev\\":\\"\\""',
           ': ' + '\u0001' * 60000, ': \u0085\u2028\u009b31m', ': ' + '"' * 60000, ': \r\n\t\x7f']


@test
def hostile_text_stays_one_line(host):
    with host.server('--profile', '2') as s:
        for i, cmd in enumerate(HOSTILE):
            was, rows = len(lines(s.audit_log)), len(s.json('GET', '/api/audit')['entries'])
            s.run(cmd)
            equal(len(lines(s.audit_log)), was + 2, 'one line for the intent and one for the end of', cmd[:50])
            entries = s.json('GET', '/api/audit')['entries']
            equal(len(entries), rows + 1)
            check(not re.search(r'[\x00-\x1f\x7f-\x9f]', entries[-1]), 'a control character in', repr(entries[-1][:80]))
            check(entries[-1].startswith('[') and ' EXEC ' in entries[-1] and re.search(r'exit:\d+ OK$', entries[-1]), repr(entries[-1][-80:]))
            equal(events(s.audit_log, 'RUN')[-1]['cmd'], cmd)
        # a NUL can't be run, but it is written down who sent it
        was, rows = len(lines(s.audit_log)), len(s.json('GET', '/api/audit')['entries'])
        equal(s.request('POST', '/api/exec', '{"cmd":"' + '\\u0000' * 65536 + '"}')[0], 400)
        equal((len(lines(s.audit_log)), len(s.json('GET', '/api/audit')['entries'])), (was + 1, rows + 1))
        equal(events(s.audit_log, 'BLOCK')[-1]['cmd'], '\0' * 65536)
        raw = open(s.audit_log, 'rb').read()
        check(not re.search(rb'[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]', raw), 'a raw control character in the log')
        chain_holds(s.audit_log)
    equal(verify(s)[0], 0)


def changed(s, host, change):
    """What verify says of a copy of the log that was changed"""
    path = os.path.join(host.folder(), 'audit.log')
    text = lines(s.audit_log)
    change(text)
    with open(path, 'wb') as f:
        f.write(b''.join(x + b'\n' for x in text))
    return verify(s, log=path)


@test
def every_change_is_found(host):
    with host.server() as s:
        for i in range(10):
            s.run('echo %d' % i)
    n = len(lines(s.audit_log))
    equal(verify(s)[0], 0)

    def edit(k, old=b'echo', new=b'ecno'):
        def f(t):
            check(old in t[k], t[k])
            t[k] = t[k].replace(old, new)
        return f

    def swap(t):
        t[5], t[6] = t[6], t[5]
    forged = lambda t: t.insert(6, t[5].replace(b'echo', b'exho'))
    def forged_well(t):
        e = json.loads(t[5])
        t.insert(6, json.dumps({**e, 'seq': e['seq'] + 1, 'prev': hashlib.sha256(t[5]).hexdigest()}, separators=(',', ':')).encode())
    cases = {
        'edited': (edit(4), 'line 5:'), 'edited first': (edit(0, b'version', b'vErsion'), 'line 1:'), 'edited last': (edit(n - 1, b'version', b'vErsion'), 'line %d:' % n),
        'last but one': (edit(n - 2), 'line %d:' % (n - 1)), 'number': (edit(4, b'"seq":5', b'"seq":6'), 'line 5:'),
        'link': (lambda t: t.__setitem__(4, re.sub(rb'"prev":"....', b'"prev":"0000', t[4])), 'line 5:'),
        'cut': (lambda t: t.pop(4), 'line 5:'), 'cut two': (lambda t: (t.pop(4), t.pop(4)), 'line 5:'), 'swapped': (swap, 'line 6:'),
        'inserted': (forged, 'line 7:'), 'inserted well': (forged_well, 'line 7:'), 'moved to the end': (lambda t: t.append(t.pop(3)), 'line 4:'),
        'garbage': (lambda t: t.insert(3, b'hello'), 'line 4:'), 'empty line': (lambda t: t.insert(3, b''), 'line 4:'),
        'truncated': (lambda t: t.pop(), '1 lines are missing at the end'), 'truncated more': (lambda t: t.__delitem__(slice(8, None)), '%d lines are missing' % (n - 8)),
        'emptied': (lambda t: t.clear(), '%d lines are missing' % n),
    }
    for name, (change, said) in cases.items():
        status, text = changed(s, host, change)
        check(status == 1 and said in text, name, status, text)
    # the whole chain made anew behind an edit: only the head tells
    def rechain(t):
        t[4] = t[4].replace(b'echo', b'ecno')
        for k in range(5, n):
            t[k] = re.sub(rb'"prev":"\w+"', b'"prev":"%s"' % hashlib.sha256(t[k - 1]).hexdigest().encode(), t[k])
    status, text = changed(s, host, rechain)
    check(status == 1 and 'line %d:' % n in text and 'head' in text, status, text)
    equal(verify(s, '/nonexistent')[0], 2)
    equal(verify(s, s.audit_log)[0], 0)


@test
def a_line_cut_short_is_mended(host):
    with host.server() as s:
        s.run('echo one')
    with open(s.audit_log, 'ab') as f:
        f.write(b'{"seq":99,"prev":"00')
    status, text = verify(s)
    check(status == 0 and 'cut short' in text, text)
    with again(s, host) as t:
        check('cut short' in t.log(), t.log())
        t.run('echo two')
        check(any('cut short' in e.get('cmd', '') for e in events(s.audit_log, 'CONFIG')), 'the log does not say so')
    equal(verify(s)[0], 0, verify(s))
    chain_holds(s.audit_log)


@test
def a_foreign_file_is_not_touched(host):
    path = host.file('root:x:0:0\nno newline at the end')
    with host.server('--audit-log', path) as s:
        s.post({'cmd': 'ls'}, status=503)
        check('no audit log' in s.log(), s.log())
    equal(open(path).read(), 'root:x:0:0\nno newline at the end')


@test
def log_that_goes_away(host):
    with host.server() as s:
        target = host.file('')
        for i in range(5):
            s.run('echo one')
            os.unlink(s.audit_log)
            status = s.request('POST', '/api/exec', '{"cmd":"echo lost"}')[0]
            check(status == 503 or b'echo lost' in open(s.audit_log, 'rb').read(), 'a command ran and its line is nowhere')
            until(lambda: s.request('POST', '/api/exec', '{"cmd":"ls"}')[0] == 200, what='it makes the file anew')
        os.unlink(s.audit_log)
        until(lambda: s.request('POST', '/api/exec', '{"cmd":"ls"}')[0] == 200, what='it makes the file anew')
        os.unlink(s.audit_log)
        os.symlink(target, s.audit_log)
        until(lambda: s.request('POST', '/api/exec', '{"cmd":"ls"}')[0] == 503, what='a link is not followed')
        r = s.post({'cmd': 'ls'}, status=503)
        equal(r['code'], 'audit')
        until(lambda: 'symbolic link' in s.post({'cmd': 'ls'}, status=503)['error'], what='the reason')
        equal(s.health()['audit_writable'], False)
        equal(os.path.getsize(target), 0, 'bytes behind the link')
        os.unlink(s.audit_log)
        until(lambda: s.request('POST', '/api/exec', '{"cmd":"ls"}')[0] == 200, what='it recovers by itself')
        equal(s.health()['audit_writable'], True)
        os.rename(s.audit_log, s.audit_log + '.1')  # as logrotate does; SIGHUP is for at once
        s.proc.send_signal(signal.SIGHUP)
        until(lambda: os.path.exists(s.audit_log), what='a new file after SIGHUP')
        s.run('echo three')
        until(lambda: s.run('echo four')['ok'] and b'four' in open(s.audit_log, 'rb').read(), what='lines in the new file')
        last = lines(s.audit_log + '.1')[-1]
        equal(json.loads(lines(s.audit_log)[0])['prev'], hashlib.sha256(last).hexdigest(), 'the chain goes on in the new file')
        os.rename(s.audit_log, s.audit_log + '.2')  # and without a signal it is seen within seconds
        until(lambda: s.run('echo five')['ok'] and os.path.exists(s.audit_log), what='a new file by itself')


@contextlib.contextmanager
def small_disk(host, *options):
    if not host.root:
        raise Skip('only root mounts')
    path = host.folder()
    subprocess.run(['mount', '-t', 'tmpfs', '-o', ','.join(('size=64k', *options)), 'tmpfs', path], check=True)
    try:
        yield path
    finally:
        subprocess.run(['umount', '-l', path], check=True)


@test
def full_disk(host):
    with small_disk(host) as path, host.server('--audit-log', path + '/audit.log', '--output-limit', '4096') as s:
        s.run('echo before')
        slow = threading.Thread(target=lambda: s.run('sleep 2; echo %d' % 1, timeout_ms=4000))
        slow.start()
        until(lambda: s.health()['running'] == 1, what='one runs')
        fd = os.open(path + '/fill', os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, b'x' * 4096)
        os.close(fd)
        ran = 0
        while s.request('POST', '/api/exec', json.dumps({'cmd': ': ' + 'y' * 200}))[0] == 200:
            ran += 1
            check(ran < 1000, 'the disk is full and commands go on')
        r = s.post({'cmd': 'ls'}, status=503)
        equal(r['code'], 'audit')
        check('No space left' in r['error'], r)
        slow.join()
        os.unlink(path + '/fill')
        until(lambda: s.request('POST', '/api/exec', '{"cmd":"ls"}')[0] == 200, what='it recovers by itself')
        n = chain_holds(path + '/audit.log')
        runs, ends = events(path + '/audit.log', 'RUN'), {e['run']: e for e in events(path + '/audit.log', 'EXEC')}
        equal({e['seq'] for e in runs}, set(ends), 'each intent has its end')
        not_run = [e for e in ends.values() if e['result'] == 'NOT_RUN']
        equal(len(runs) - len(not_run), s.health()['total_execs'])
        equal(verify(s, log=path + '/audit.log')[0], 0)
        # full again, with a line half written, and then the file goes: no half line in the next one
        fd = os.open(path + '/fill', os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, b'x' * 4096)
        os.close(fd)
        while s.request('POST', '/api/exec', json.dumps({'cmd': ': ' + 'y' * 200}))[0] == 200:
            pass
        os.unlink(path + '/audit.log')
        until(lambda: s.request('POST', '/api/exec', '{"cmd":"ls"}')[0] == 200, what='it recovers by itself')
        chain_holds(path + '/audit.log')


@test
def lines_that_were_never_written(host):
    """What waited when the server ended on a full disk is lost, and is no line that somebody took away."""
    with small_disk(host) as path:
        with host.server('--audit-log', path + '/audit.log') as s:
            s.run('true')
            fd = os.open(path + '/fill', os.O_WRONLY | os.O_CREAT)
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, b'x' * 4096)
            os.close(fd)
            while s.request('POST', '/api/exec', json.dumps({'cmd': ': ' + 'y' * 200}))[0] == 200:
                pass
            for _ in range(5):
                s.request('GET', '/api/health', headers={'Authorization': 'Bearer wrong'})
            time.sleep(1.2)  # the counters are saved meanwhile
        os.unlink(path + '/fill')
        with host.server('--audit-log', path + '/audit.log', env={'OMNIARENA_STATE_DIR': s.state_dir}) as t:
            check('missing or changed' not in t.log(), t.log())
            t.run('true')
        equal(verify(s, log=path + '/audit.log')[0], 0, verify(s, log=path + '/audit.log'))


@test
def read_only_mount(host):
    with small_disk(host, 'ro') as path, host.server('--audit-log', path + '/audit.log') as s:
        r = s.post({'cmd': 'ls'}, status=503)
        check('Read-only' in r['error'], r)
        subprocess.run(['mount', '-o', 'remount,rw', path], check=True)
        until(lambda: s.request('POST', '/api/exec', '{"cmd":"ls"}')[0] == 200, what='it recovers by itself')
        # a read-only mount that comes over it
        subprocess.run(['mount', '--bind', path, path], check=True)
        try:
            subprocess.run(['mount', '-o', 'remount,bind,ro', path], check=True)
            until(lambda: s.request('POST', '/api/exec', '{"cmd":"ls"}')[0] == 503, what='the log can no longer be opened')
        finally:
            subprocess.run(['umount', '-l', path], check=True)
        until(lambda: s.request('POST', '/api/exec', '{"cmd":"ls"}')[0] == 200, what='it recovers by itself')
        equal(verify(s, log=path + '/audit.log')[0], 0)


@test
def rotation(host):
    with host.server('--audit-rotate-bytes', '2000', '--audit-keep', '3') as s:
        def rotated():
            for _ in range(10):
                s.run(': rotate')
            return os.path.exists(s.audit_log + '.3')
        until(rotated, 30, 'three old logs')
    files = [p for p in (s.audit_log + '.%d' % k for k in (4, 3, 2, 1)) if os.path.exists(p)] + [s.audit_log]
    equal(len(files), 4)
    prev = seq = None
    for path in files:
        chain_holds(path, prev, seq)
        last = lines(path)[-1]
        prev, seq = hashlib.sha256(last).hexdigest(), json.loads(last)['seq']
    status, text = verify(s, '--audit-keep', '3')
    check(status == 0 and 'moved aside included' in text, text)
    os.unlink(s.audit_log + '.2')
    equal(verify(s, '--audit-keep', '3')[0], 1, 'a missing file between')


@test
def export(host):
    with host.server() as s:
        status, headers, body = s.request('GET', '/api/audit/export')
        equal((status, headers['Content-Type']), (200, 'application/json'))
        check('attachment' in headers['Content-Disposition'] and int(headers['Content-Length']) == len(body), headers)
        equal(json.loads(body), events(s.audit_log))
        s.run(': ' + '\x01' * 60000)
        for _ in range(40):
            s.run(': ' + 'x' * 50000)
        status, _, body = s.request('GET', '/api/audit/export')
        equal(len(json.loads(body)), len(lines(s.audit_log)))
        equal(s.request('HEAD', '/api/audit/export')[2], b'')


# ---- why it failed ----

def denied(r):
    return {d.get('limit') or d.get('program') or d.get('path') or d['call'] for d in r['denied']}


@test
def refused_calls_are_named(host):
    with host.server('--profile', '1') as s:
        equal(s.run('ls -l /; id; whoami')['denied'], [], 'nothing was refused')
        r = s.run('python3 -c "import socket\nfor i in range(3):\n try: socket.socket()\n except PermissionError: pass"')
        equal([(d['call'], d['count']) for d in r['denied']], [('socket', 3)])
        check('no network' in r['denied'][0]['hint'], r)
        calls = {'unshare': 'unshare -U true', 'mount': 'python3 -c "import ctypes; ctypes.CDLL(None).mount(b\'a\', b\'/tmp\', b\'tmpfs\', 0, 0)"',
                 'ptrace': 'python3 -c "import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0)"',
                 'keyctl': 'python3 -c "import ctypes; ctypes.CDLL(None).syscall(250 if __import__(\'os\').uname().machine == \'x86_64\' else 219, 0, 0)"'}
        for call, cmd in calls.items():
            r = s.run(cmd)
            check(call in denied(r), call, r['denied'], r['stderr'])
        # many kinds are counted, each once; a flood does no harm
        r = s.run('python3 -c "\nimport ctypes\nc = ctypes.CDLL(None)\nfor i in range(20000): c.ptrace(0, 0, 0, 0)"')
        equal([(d['call'], d['count']) for d in r['denied']], [('ptrace', 20000)])
        equal(s.run('true')['denied'], [], 'nothing is left of the one before')
        log = [e for e in events(s.audit_log, 'EXEC') if 'denied' in e]
        check(any(d['call'] == 'socket' and d['count'] == 3 for e in log for d in e['denied']), 'the log does not say it')


@test
def limits_are_named(host):
    with host.server('--profile', '1') as s:
        cases = {
            'file_size': 'head -c 200000000 /dev/zero > f', 'open_files': 'python3 -c "l = [open(\'/dev/null\') for i in range(300)]"',
            'tmp': 'head -c 90000000 /dev/zero > a; head -c 90000000 /dev/zero > b', 'read_only': 'touch /usr/x',
            'processes': 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do sleep 1 & done; wait',
        }
        if not host.sanitized:
            cases['memory'] = 'python3 -c "b\'a\' * 6000000000"'
        for limit, cmd in cases.items():
            r = s.run(cmd)
            check(limit in denied(r), limit, r['denied'], r['stderr'])
            check(all(len(d['hint']) > 10 for d in r['denied']), r['denied'])


@test
def files_outside_are_named(host):
    with host.server('--profile', '1') as s:
        r = s.run('cat /home/me/notes.txt "/root/x" /etc/shadow /usr/no-such /tmp/no-such /dev/null /etc/passwd')
        equal(denied(r), {'/home/me/notes.txt', '/root/x', '/etc/shadow'})
        check(all('put_files' in d['hint'] for d in r['denied']), r['denied'])
        equal(s.run('echo /home/me')['denied'], [], 'it did not fail')


@test
def kept_out_programs_are_named(host):
    with host.server(config=False) as s:
        r = s.run('python3 -c "import os; os.system(\'git status\'); raise SystemExit(127)"')
        equal(denied(r), {'git'}, r['stderr'])
        s.json('POST', '/api/profile', json.dumps({'profile': 1}))
        r = s.run('X=wget; $X http://example.com')
        check('wget' in denied(r), r)


# ---- files in and out ----

@test
def files_in_and_out(host):
    b64 = lambda data: base64.b64encode(data).decode()
    with host.server('--profile', '1') as s:
        every = bytes(range(256)) * 400
        r = s.run('cat a.txt; cmp dir/sub/b.bin dir/sub/b.bin && wc -c < dir/sub/b.bin; cp dir/sub/b.bin out; ln -s /etc/passwd link; mkfifo pipe; touch empty',
                  put_files={'a.txt': b64(b'hello\n'), 'dir/sub/b.bin': b64(every)}, get_files=['out', 'empty', 'link', 'pipe', 'nope', 'dir', 'a.txt'])
        equal((r['stdout'], r['stderr']), ('hello\n102400\n', ''))
        equal({k: base64.b64decode(v) for k, v in r['contents'].items()}, {'out': every, 'empty': b'', 'a.txt': b'hello\n'})
        equal(sorted(r['contents_absent']), ['dir', 'link', 'nope', 'pipe'])
        r = s.run('mkdir d; echo x > d/y; head -c 1000000 /dev/zero > big; head -c 200000 /dev/zero > more', get_files=True)
        equal(len(r['contents']) + len(r['contents_absent']), 3)
        check('d/y' in r['contents'] and len(r['contents_absent']) == 1, r['contents'].keys(), r['contents_absent'])
        for n in (0, 1, 2, 3, 49151, 49152, 49153, 98304, 1 << 20):
            r = s.run('head -c %d /dev/urandom > f; cksum < f' % n, get_files=['f'])
            equal(len(base64.b64decode(r['contents']['f'])), n)
        equal(s.run('ls')['files'], [], 'nothing stays')
        check('contents' not in s.run('ls'), 'nobody asked')
        who = s.run('stat -c %u:%a f; id -u', put_files={'f': ''})['stdout'].split()
        equal(who, [who[1] + ':644', who[1]])
        r = s.run('echo part; sleep 60', timeout_ms=500, put_files={'a': b64(b'x')}, get_files=True)
        equal((r['timed_out'], r['contents']), (True, {'a': b64(b'x')}))
        r = s.run('true', put_files={'big/' + 'x' * 200: b64(b'z' * 1400000)})
        equal(r['exit_code'], 0)
        # more than /tmp has: said, and not run
        r = s.run('echo ran', put_files={'f': b64(b'z' * 1500000)}, **({} if host.name == 'user' else {}))
        equal(r['stdout'], 'ran\n')


# ---- streams ----

class Stream:
    def __init__(self, s, method, path, body='', **headers):
        self.sock = s.connect()
        h = ''.join('%s: %s\r\n' % (k.replace('_', '-'), v) for k, v in {'Authorization': s.auth, 'Host': 'localhost', 'Content-Length': len(body), **headers}.items())
        self.sock.sendall(('%s %s HTTP/1.1\r\n%s\r\n%s' % (method, path, h, body)).encode())
        self.file = self.sock.makefile('rb')
        self.status = int(self.file.readline().split()[1])
        self.headers = {}
        for line in iter(self.file.readline, b'\r\n'):
            k, v = line.decode().rstrip().split(': ', 1)
            self.headers[k.lower()] = v

    def __iter__(self):
        event = {}
        for line in self.file:
            line = line.decode().rstrip('\n')
            if not line and event:
                yield event
                event = {}
            elif line and not line.startswith(':'):
                k, v = line.split(': ', 1)
                event[k] = v


def stream(s, fields, **headers):
    return Stream(s, 'POST', '/api/exec', json.dumps(fields), Accept='text/event-stream', **headers)


@test
def exec_as_a_stream(host):
    with host.server('--profile', '2') as s:
        st = stream(s, {'cmd': 'echo one; sleep 1; echo two >&2; printf "\\303"; sleep 0.3; printf "\\251"; exit 3'})
        equal((st.status, st.headers['content-type']), (200, 'text/event-stream'))
        got = list(st)
        equal(json.loads(got[0]['data']), {'data': 'one\n'})
        out = ''.join(json.loads(e['data'])['data'] for e in got if e['event'] == 'stdout')
        err = ''.join(json.loads(e['data'])['data'] for e in got if e['event'] == 'stderr')
        equal((out, err), ('one\né', 'two\n'))
        equal(got[-1]['event'], 'exit')
        end = json.loads(got[-1]['data'])
        equal((end['ok'], end['exit_code'], end['stdout_bytes'], end['timed_out']), (True, 3, 6, False))
        check('stdout' not in end and 'usage' in end and 'denied' in end, end)
        # all of it, exactly, and more than any buffer has
        data = b''
        for e in stream(s, {'cmd': 'seq 1 150000', 'encoding': 'base64'}):
            data += base64.b64decode(json.loads(e['data'])['data']) if e['event'] == 'stdout' else b''
        equal(data, b''.join(b'%d\n' % i for i in range(1, 150001)))
        # a refusal is an ordinary reply
        st = stream(s, {'cmd': ''})
        equal((st.status, st.headers['content-type']), (400, 'application/json'))
        got = list(stream(s, {'cmd': 'echo x; sleep 9', 'timeout_ms': 300}))
        equal(json.loads(got[-1]['data'])['exit_code'], 124)
        got = list(stream(s, {'cmd': 'echo x > f', 'get_files': True}))
        equal(json.loads(got[-1]['data'])['contents'], {'f': base64.b64encode(b'x\n').decode()})


@test
def a_client_that_leaves_ends_its_command(host):
    with host.server('--profile', '2') as s:
        st = stream(s, {'cmd': 'echo go; sleep 60'})
        next(iter(st))
        st.file.close()
        st.sock.close()
        until(lambda: s.health()['running'] == 0, what='the command has ended')
        until(lambda: events(s.audit_log)[-1]['result'] == 'CANCELLED', what='it is in the log')
        equal(s.health()['total_execs'], 1)


@test
def a_slow_reader_is_bounded(host):
    with host.server('--audit-slots', '8') as s:
        lazy = Stream(s, 'GET', '/api/events')
        lazy.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        conn = http.client.HTTPConnection('127.0.0.1', s.port)

        def dropped():
            for _ in range(200):
                s.post({'cmd': 'wget ' + 'x' * 480}, status=403, conn=conn)
            return b'connections 1\n' in s.request('GET', '/metrics', conn=conn)[2]
        until(dropped, 60, 'the reader who reads nothing is dropped')


def rows_of(stream):
    return (e for e in stream if e['event'] != 'metrics')


@test
def live_figures(host):
    '''An event stream tells what health says: at once, and again when something has happened, but not once a row.'''
    with host.server() as s:
        told = (json.loads(e['data']) for e in Stream(s, 'GET', '/api/events') if e['event'] == 'metrics')
        first, h = next(told), s.health()
        equal({k: v for k, v in first.items() if k not in ('uptime_sec', 'warm_cells')}, {k: v for k, v in h.items() if k not in ('uptime_sec', 'warm_cells')})
        for i in range(100):
            s.post({'cmd': 'wget %d' % i if i % 2 else 'true'}, status=403 if i % 2 else 200)
        seen = [next(told)]
        while seen[-1]['total_execs'] + seen[-1]['blocked_cmds'] < 100:
            seen.append(next(told))
        equal((seen[-1]['total_execs'], seen[-1]['blocked_cmds']), (50, 50))
        check(len(seen) < 50, 'once a second at most, not once a row', len(seen))
        with stream(s, {'cmd': 'sleep 9'}).sock:
            until(lambda: next(told)['running'] == 1, what='what runs is told while it runs')
        until(lambda: next(told)['running'] == 0, what='and that it does not any more')


@test
def the_published_password_is_told_on_loopback(host):
    '''What the dashboard goes by; nobody else learns it.'''
    with host.server() as s:
        def told(server, **headers):
            return server.request('GET', '/healthz', auth=False, headers=headers)[1]['OmniArena-Credentials']
        equal((told(s), told(s, Host='evil.example'), told(s, Origin='http://evil.example')), ('default', None, None))
        s.json('POST', '/api/auth/password', json.dumps({'current': 'omniarena', 'new': 'correct horse'}))
        equal(told(s), None, 'a password of its own')


@test
def live_events(host):
    with host.server() as s:
        live = rows_of(Stream(s, 'GET', '/api/events'))
        s.run('echo live')
        e = next(live)
        row = json.loads(e['data'])
        equal((e['event'], int(e['id']), row['event'], row['cmd']), ('audit', row['seq'], 'EXEC', 'echo live'))
        for i in range(5):
            s.run('echo %d' % i)
        equal([json.loads(next(live)['data'])['cmd'] for _ in range(5)], ['echo %d' % i for i in range(5)])
        late = rows_of(Stream(s, 'GET', '/api/events', **{'Last-Event-ID': e['id']}))
        equal([json.loads(next(late)['data'])['cmd'] for _ in range(5)], ['echo %d' % i for i in range(5)], 'what it missed')
        s.run('echo both')
        equal([json.loads(next(x)['data'])['cmd'] for x in (live, late)], ['echo both'] * 2)
        s.json('GET', '/api/events?after=x', status=400)


@test
def metrics(host):
    with host.server(config=False) as s:
        s.post({'cmd': 'echo x'}, headers={'X-Agent': 'm.1'})
        s.post({'cmd': 'wget x'}, status=403, headers={'X-Agent': 'm.1'})
        status, headers, body = s.request('GET', '/metrics')
        check(status == 200 and headers['Content-Type'].startswith('text/plain'), headers)
        text, values, typed = body.decode(), {}, {}
        for line in text.splitlines():
            if line.startswith('# TYPE'):
                typed[line.split()[2]] = line.split()[3]
            elif not line.startswith('#'):
                check(re.fullmatch(r'omniarena_[a-z_]+(\{[a-z]+="[^"\n]*"\})? \d+(\.\d+)?', line), line)
                values[line.rsplit(' ', 1)[0]] = float(line.rsplit(' ', 1)[1])
        equal((values['omniarena_execs_total'], values['omniarena_blocked_total'], values['omniarena_agent_execs_total{agent="m.1"}']), (1, 1, 1))
        buckets = [v for k, v in values.items() if '_bucket' in k]
        check(buckets == sorted(buckets) and buckets[-1] == values['omniarena_exec_duration_seconds_count'] == 1, buckets)
        check(all(re.sub(r'(_bucket|_sum|_count)?(\{.*)?$', '', k) in typed for k in values), 'a metric without a type')


# ---- under load, and under fire ----

def sums(s):
    """What the three have to say: agents, metrics, log."""
    agents = {a['name']: a for a in s.json('GET', '/api/agents')['agents']}
    m = dict(line.rsplit(' ', 1) for line in s.request('GET', '/metrics')[2].decode().splitlines() if not line.startswith('#'))
    return agents, {k[len('omniarena_'):]: float(v) for k, v in m.items()}, events(s.audit_log)


@test
def sums_agree(host):
    n = int(os.environ.get('OMNIARENA_LOAD', 4000)) // (4 if host.sanitized else 1)
    policy = host.file('[blacklist]\nwget\n[whitelist]\ntrue\n[agent a6]\nrate=50\n[agent a7]\ntoken_budget=5000\n')
    with host.server('--config', policy, '--profile', '1', '--audit-slots', '64') as s:
        seen, lock = {}, threading.Lock()

        def client(k):
            rnd, conn, mine = random.Random(k), None, {}
            conn = http.client.HTTPConnection('127.0.0.1', s.port, timeout=60)
            for i in range(n // 64):
                agent = 'a%d' % (k % 8)
                cmd = rnd.choice(['true', 'wget x', 'true', 'echo hi'])
                h = {'X-Agent': agent, **({'X-Tokens-In': '70'} if agent == 'a7' else {})}
                status, _, body = s.request('POST', '/api/exec', json.dumps({'cmd': cmd}), headers=h, conn=conn)
                code = 'ok' if status == 200 else json.loads(body)['code']
                mine[agent, code] = mine.get((agent, code), 0) + 1
            with lock:
                for key, v in mine.items():
                    seen[key] = seen.get(key, 0) + v
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            list(pool.map(client, range(64)))
        agents, m, log = sums(s)
        total = lambda code: sum(v for (_, c), v in seen.items() if c == code)
        logged = lambda kind, name=None: sum(e['event'] == kind and name in (None, e['agent']) for e in log)
        check(total('rate') > 0 and total('budget') > 0 and total('blacklist') > 0 and total('ok') > 0, seen)
        equal(set(c for _, c in seen) - {'ok', 'blacklist', 'rate', 'budget', 'busy'}, set(), seen)
        equal((m['execs_total'], logged('EXEC'), logged('RUN')), (total('ok'),) * 3)
        equal((m['blocked_total'], logged('BLOCK')), (total('blacklist'),) * 2)
        equal((m['rate_limited_total'], logged('RATE')), (total('rate') + total('busy'),) * 2)
        equal((m['over_budget_total'], logged('BUDGET')), (total('budget'),) * 2)
        for name, a in agents.items():
            of = lambda code: seen.get((name, code), 0)
            equal((a['execs'], a['blocked'], a['rate_limited'], a['over_budget']), (of('ok'), of('blacklist'), of('rate') + of('busy'), of('budget')), name)
            equal((logged('EXEC', name), logged('BLOCK', name)), (of('ok'), of('blacklist')))
        chain_holds(s.audit_log)
    equal(verify(s)[0], 0, verify(s))
    print('      %d requests: %s' % (sum(seen.values()), {c: total(c) for c in ('ok', 'blacklist', 'rate', 'budget', 'busy')}))


@test
def killed_at_random(host):
    rounds = int(os.environ.get('OMNIARENA_KILLS', 5))
    if host.sanitized:
        raise Skip('the same processes')
    if os.geteuid() != 0 and not host.root:
        raise Skip('needs a look at all processes')
    rnd, first, ran, ids = random.Random(time.time()), None, set(), iter(range(10**9))
    stop = threading.Event()
    current = {}

    def client(k):
        while not stop.is_set():
            name = 'id%d' % next(ids)
            try:
                st = stream(current['s'], {'cmd': 'echo %s; sleep 0.0%d' % (name, k)}, X_Agent='k%d' % k)
                if st.status == 200 and any(e['event'] == 'stdout' for e in st):
                    ran.add(name)
            except (OSError, ValueError, IndexError, KeyError):
                time.sleep(0.01)

    threads = [threading.Thread(target=client, args=(k,), daemon=True) for k in range(6)]
    s = None
    try:
        for r in range(rounds):
            s = same_files(again(first, host, '--profile', '1'), first) if first else host.server('--profile', '1')
            if first:
                log = events(s.audit_log)
                now = {a['name']: a['execs'] for a in s.json('GET', '/api/agents')['agents']}
                at = lambda e: time.mktime(time.strptime(e['time'][:19], '%Y-%m-%dT%H:%M:%S')) + float(e['time'][19:23])
                died = at([e for e in log if e['event'] == 'START'][-1]) if log else 0
                last = max([at(e) for e in log if e['event'] == 'EXEC'] or [0])
                total = sum(now.values())
                old = sum(e['event'] == 'EXEC' and e['result'] != 'NOT_RUN' and at(e) < last - 1.5 for e in log)
                every = sum(e['event'] == 'EXEC' and e['result'] != 'NOT_RUN' for e in log)
                base = current.get('base', 0)
                check(old <= total + base <= every, 'round', r, 'counters', total, 'lost', base, 'log', old, every)
                current['base'] = every - total  # what was lost up to now stays lost
            first = first or s
            current['s'] = s
            if r == 0:
                for t in threads:
                    t.start()
            time.sleep(rnd.uniform(0.05, 1.2))
            kinds = [s.pid, s.warden() if children(s.pid) else s.pid]
            victims = {'arena': [s.pid], 'warden': kinds[1:], 'cells': [p for p in tree(s.pid) if p not in kinds]}
            kind = rnd.choice(list(victims))
            for pid in rnd.sample(victims[kind], 1) if victims[kind] else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if kind == 'cells':
                time.sleep(0.2)
                check(s.proc.poll() is None, 'the server died of a cell\'s death:', s.log())
                s.proc.kill()
            s.proc.wait(20)
            until(lambda: not any(alive(p) for p in victims['cells']), what='nothing is left')
            status, text = verify(s)
            check(status == 0, r, kind, text)
            names = {n for e in events(s.audit_log, 'RUN') for n in re.findall(r'id\d+', e['cmd'])}
            check(ran <= names, 'ran without a line:', sorted(ran - names)[:5])
    finally:
        stop.set()
        if s:
            s.stop()
    print('      %d times killed, %d commands seen to run' % (rounds, len(ran)))


# ---- found by attack ----

@test
def a_log_cut_between_two_runs(host):
    with host.server() as s:
        for i in range(4):
            s.run('echo %d' % i)
    whole = lines(s.audit_log)
    with open(s.audit_log, 'wb') as f:
        f.write(b''.join(x + b'\n' for x in whole[:-3]))
    with again(s, host) as t:
        check('lines are missing or changed' in t.log(), t.log())
        t.run('echo on')
        equal([e['result'] for e in events(s.audit_log, 'CONFIG')], ['BROKEN'])
    status, text = verify(s)
    check(status == 1 and 'line %d' % (len(whole) - 2) in text, status, text)
    # all of it gone: the numbers go on, and verify says from where
    with host.server() as s:
        s.run('true')
    os.unlink(s.audit_log)
    with again(s, host) as t:
        check('lines are missing or changed' in t.log(), t.log())
        t.run('true')
    status, text = verify(s)
    check(status == 0 and 'numbers 5 to' in text, status, text)


@test
def a_shorter_copy_in_a_running_server(host):
    with host.server() as s:
        for i in range(5):
            s.run('echo %d' % i)
        copy = host.file(b''.join(x + b'\n' for x in lines(s.audit_log)[:-4]).decode())
        os.rename(copy, s.audit_log)
        until(lambda: s.request('POST', '/api/exec', '{"cmd":"echo on"}')[0] == 200 and 'lines are missing or changed' in s.log(), what='it is seen')
    equal(verify(s)[0], 1)


@test
def the_log_comes_late(host):
    """Nothing that happened before breaks the chain of what is there."""
    with host.server() as s:
        s.run('true')
    os.rename(s.audit_log, s.audit_log + '.away')
    os.symlink('/nonexistent/x', s.audit_log)
    os.unlink(os.path.join(s.state_dir, 'state'))
    with again(s, host) as t:
        t.post({'cmd': 'true'}, status=503)
        os.rename(s.audit_log + '.away', s.audit_log)
        until(lambda: t.request('POST', '/api/exec', '{"cmd":"true"}')[0] == 200, what='the log is there')
        equal(events(s.audit_log)[4]['event'], 'START')
    equal(verify(s)[0], 0, verify(s))


@test
def files_that_never_end(host):
    with host.server() as s:
        s.run('true')
    for name in ('state', 'password'):
        path = os.path.join(s.state_dir, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.mkfifo(path, 0o600)
        os.chown(path, os.stat(s.audit_log).st_uid, -1)
        with again(s, host, ready=False) as t:
            until(lambda: t.log(), what='it says something')
            check('/%s:' % name in t.log() or name in t.log(), t.log())
        os.unlink(path)
    fifo = os.path.join(host.folder(), 'p')
    os.mkfifo(fifo)
    with host.server('--config', fifo, ready=False) as t:
        equal(t.wait(), 2, t.log())
    os.rename(s.audit_log, s.audit_log + '.x')
    os.mkfifo(s.audit_log)
    equal(verify(s)[0], 2)


@test
def links_in_the_state_folder(host):
    victim = host.file('precious')
    with host.server() as s:
        s.run('true')
        until(lambda: os.path.exists(os.path.join(s.state_dir, 'state')), what='it is saved')
        os.unlink(os.path.join(s.state_dir, 'state'))
        os.symlink(victim, os.path.join(s.state_dir, 'state'))
        s.run('true')
        time.sleep(1.2)
    equal(open(victim).read(), 'precious')


@test
def a_policy_can_not_move_files(host):
    policy = host.file('[blacklist]\n[whitelist]\ntrue\n')
    with host.server('--config', policy) as s:
        with open(policy, 'a') as f:
            f.write('[config]\naudit_keep=1\n')  # as good as another place: it decides what of the log stays
        equal(s.json('POST', '/api/policy/reload')['restart_needed'], True)
        r = s.json('POST', '/api/policy', json.dumps({'action': 'add', 'list': 'whitelist', 'pattern': 'echo'}))
        equal(r['persisted'], False)
        check('restart' in r['persisted_why'], r)
    check('echo' not in open(policy).read(), 'it was saved all the same')


@test
def contents_of_quick_commands(host):
    '''What is wanted and the command are two messages to the cell: the command may not be over before the second is there.'''
    with host.server('--profile', '1') as s:
        got = []
        def client():
            got.extend(s.run('echo x > f', get_files=True)['contents'] for _ in range(25))
        threads = [threading.Thread(target=client) for _ in range(6)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        equal(got, [{'f': base64.b64encode(b'x\n').decode()}] * 150)


@test
def contents_are_not_reached_through_links(host):
    with host.server('--profile', '1') as s:
        r = s.run('ln -s /etc d; mkdir e; echo x > e/f', get_files=['d/passwd', 'e/f'])
        equal((r['contents'], r['contents_absent']), ({'e/f': base64.b64encode(b'x\n').decode()}, ['d/passwd']))
        s.post({'cmd': 'true', 'get_files': ['a', 'a']}, status=400)


@test
def a_log_that_may_not_grow(host):
    if host.sanitized:
        raise Skip('a build of its own')
    with host.server(wrap=['prlimit', '--fsize=6000']) as s:
        while s.request('POST', '/api/exec', '{"cmd":"true"}')[0] == 200:
            pass
        s.post({'cmd': 'true'}, status=503)
        check(s.proc.poll() is None, 'it died of it')


@test
def streams_leave_places(host):
    with host.server('--max-connections', '40') as s:
        streams = [Stream(s, 'GET', '/api/events') for _ in range(14)]
        equal([x.status for x in streams], [200] * 10 + [503] * 4)
        check(s.health()['ok'])
