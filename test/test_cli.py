"""The command line as a client: exec, mcp, tail, top, doctor, --standalone; and how a service manager starts the server."""
import fcntl, pty, stat
from arena import *
from test_life import WITHOUT

DEFAULT = 'omniarena-default-token'
MOVES = rb'[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]'  # what moves a terminal's cursor, or worse
OK, EVENTS = b'HTTP/1.1 200 OK\r\n\r\n', b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n'
MODERN = {'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {}}
HOSTILE = '\x1b[2J\r\x07\x7f\u009b2J\u0085'


def environment(host, s=None, **env):
    """Nothing of the host's own is read: no policy, no token."""
    base = {'PATH': os.environ['PATH'], 'HOME': '/nonexistent', 'OMNIARENA_CONFIG': '/dev/null', 'OMNIARENA_TOKEN': DEFAULT,
            'ASAN_OPTIONS': 'detect_leaks=0'}
    if s:
        base['OMNIARENA_PORT'] = str(s.port)
    return {k: v for k, v in {**base, **env}.items() if v is not None}


def binary(host):
    return os.path.join(host.work, 'omniarena-sanitized' if host.sanitized else 'omniarena')


def start(host, s, *args, wrap=(), env=None, **kw):
    kw = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, **kw}
    return subprocess.Popen([*wrap, binary(host), *(a.replace('@', UNIQUE) if isinstance(a, str) else a for a in args)], cwd='/',
                            env=environment(host, s, **(env or {})), **host.ids, **kw)


def ended(p, data=None, seconds=30):
    """(status, stdout, stderr): what is said on stderr beside a command's own begins with our name."""
    try:
        out, err = p.communicate(data, seconds)
    except subprocess.TimeoutExpired:
        for pid in tree(p.pid):  # a server of its own as well
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        p.communicate()
        raise AssertionError('never ended: %.300r' % (p.args,))
    check(b'Sanitizer' not in (err or b'') and b'runtime error' not in (err or b''), err)
    return p.returncode, out, err


def cli(host, s, *args, data=b'', **kw):
    return ended(start(host, s, *args, **{'stdin': subprocess.PIPE, **kw}), data)


def ours(host, s, *args, status=125, says=b'', **kw):
    """What it says where it fails; that is one line or more of our own, without anything that moves the cursor."""
    got, out, err = cli(host, s, *args, **kw)
    equal((got, out), (status, b''), args, err)
    check(err.startswith(b'omniarena: ') and len(err.strip()) > 15 and not re.search(MOVES, err), err)
    check(says in err, says, 'is not in', err)
    return err


class Liar:
    """A server on loopback that answers every connection with these bytes, or with what a generator gives."""

    def __init__(self, reply, reads=True):
        self.reply, self.reads, self.asked = reply, reads, []
        self.socket = socket.create_server(('127.0.0.1', 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                c = self.socket.accept()[0]
            except OSError:
                return
            with c, contextlib.suppress(OSError):
                c.settimeout(10)
                if self.reads:
                    self.asked.append(self._read(c))
                for piece in [self.reply] if isinstance(self.reply, bytes) else self.reply():
                    c.sendall(piece)

    def _read(self, c):
        text = b''
        while b'\r\n\r\n' not in text and (got := c.recv(65536)):
            text += got
        head, _, body = text.partition(b'\r\n\r\n')
        m = re.search(rb'Content-Length: (\d+)', head)
        while m and len(body) < int(m.group(1)) and (got := c.recv(65536)):
            body += got
        return head, body

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()


def event(name, text):
    return b'event: %s\ndata: %s\n\n' % (name.encode(), json.dumps(text, ensure_ascii=False).encode())


# ---- exec ----

@test
def exec_streams_as_it_comes(host):
    with host.server('--profile', '2') as s:
        p = start(host, s, 'exec', 'echo first; echo wrong >&2; sleep 1; echo last')
        equal((p.stdout.readline(), p.stderr.readline(), p.poll()), (b'first\n', b'wrong\n', None))
        equal(ended(p), (0, b'last\n', b''))


@test
def exec_gives_exact_bytes(host):
    program = 'import os\nfor fd in (1, 2): os.write(fd, bytes(range(256)) * 4)\nos.write(1, b"\\xff" * 300001)'
    with host.server('--profile', '2') as s:
        every = bytes(range(256)) * 4
        equal(cli(host, s, 'exec', 'python3', '-', data=program.encode()), (0, every + b'\xff' * 300001, every))
        equal(cli(host, s, 'exec', r"printf '\033[2J\r\007'"), (0, b'\x1b[2J\r\x07', b''),
              'as ssh: what a command prints is its own')


@test
def exec_has_the_commands_status(host):
    with host.server('--profile', '2') as s:
        for cmd, status in (('true', 0), ('exit 7', 7), ('exit 255', 255), ('exit 124', 124), ('kill -9 $$', 137),
                            ('kill -TERM $$', 143)):
            equal(cli(host, s, 'exec', cmd), (status, b'', b''), cmd)
        status, out, err = cli(host, s, 'exec', '--timeout', '300', 'echo begun; sleep 9')
        equal((status, out), (124, b'begun\n'))
        check(re.fullmatch(rb'omniarena: timeout after 300 ms\n', err), err)
        equal(cli(host, s, 'exec', '--timeout=300', 'sleep 9')[0], 124)


@test
def exec_tells_the_rule(host):
    with host.server(config=False) as s:
        ours(host, s, 'exec', 'rm -rf /', status=126, says=b'(rule rm -rf /)')
        ours(host, s, 'exec', 'perl', '-e', '1', status=126, says=b'perl')
        ours(host, s, 'exec', 'echo (', status=126)
        got, out, err = cli(host, s, 'exec', '--json', 'rm -rf /')
        equal((got, json.loads(out)['rule']), (126, 'rm -rf /'), err)


@test
def exec_failures_are_ours(host):
    with host.server('--max-rate-per-agent', '1', '--profile', '2') as s:
        ours(host, s, 'exec', 'true', says=b'token', env={'OMNIARENA_TOKEN': 'wrong-token-0123456789'})
        equal(cli(host, s, 'exec', 'true')[0], 0)
        ours(host, s, 'exec', 'true', says=b'commands a minute')
        p = start(host, s, 'exec', '--agent', 'b', 'echo begun; sleep 9')
        p.stdout.readline()
        os.kill(s.pid, signal.SIGKILL)
        status, _, err = ended(p)
        equal(status, 125)
        check(err.startswith(b'omniarena: the server went away'), err)
    ours(host, s, 'exec', 'true', says=b'no server answers on 127.0.0.1 port %d' % s.port)
    ours(host, None, 'exec', '--listen', 'no-address', 'true')


@test
def exec_usage(host):
    for args in (('exec',), ('exec', '--'), ('exec', '--agent'), ('exec', '--agent', '', 'true'), ('exec', '--agent', 'a b',
        'true'), ('exec', '--agent=a\nb', 'true'),
                 ('exec', '--agent', 'a' * 64, 'true'), ('exec', '--timeout', '0', 'true'), ('exec', '--timeout', 'x',
                     'true'), ('exec', '--timeout', '-1', 'true'),
                 ('exec', '--profile', '3', 'true'), ('exec', '--nonsense', 'true'), ('exec', '--token', 'x', 'true'), ('exec',
                     '--json=1', 'true'),
                 ('mcp', 'word'), ('tail', 'word'), ('top', '--json'), ('doctor', 'word'), ('doctor', '--standalone'), ('tail',
                     '--standalone'), ('execs',)):
        ours(host, None, *args, status=2)
    equal(cli(host, None, 'exec', '--help')[0], 0)


@test
def exec_joins_words(host):
    with host.server('--profile', '2') as s:
        equal(cli(host, s, 'exec', 'echo', 'a  b', "'c  d'", ';', 'echo', '$((1+1))')[1], b'a b c  d\n2\n')
        equal(cli(host, s, 'exec', 'echo', '--json', '--agent')[1], b'--json --agent\n', 'behind the first word all are words')
        equal(cli(host, s, 'exec', '--', 'echo', '--', 'x')[1], b'-- x\n')


@test
def exec_json_and_agent(host):
    with host.server('--profile', '2') as s:
        status, out, err = cli(host, s, 'exec', '--json', '--agent', 'Some.Agent_1-x', 'cat; echo e >&2; exit 3', data=b'in')
        r = json.loads(out)
        equal((status, r['stdout'], r['stderr'], r['exit_code'], err), (3, 'in', 'e\n', 3, b''))
        equal([e['agent'] for e in s.json('GET', '/api/audit')['events'] if e['event'] == 'EXEC'], ['Some.Agent_1-x'])
        equal(json.loads(cli(host, s, 'exec', '--json', '--timeout', '200', 'sleep 9')[1])['timed_out'], True)


@test
def exec_takes_a_stricter_profile(host):
    with host.server('--profile', '1') as s:
        equal(cli(host, s, 'exec', 'ulimit -n')[1], b'128\n')
        equal(cli(host, s, 'exec', '--profile', '0', 'ulimit -n')[1], b'32\n')
        equal(cli(host, s, 'exec', '--profile=strict', 'ulimit -n')[1], b'32\n')
        ours(host, s, 'exec', '--profile', '2', 'true', says=b'stricter profile')


@test
def exec_stdin(host):
    with host.server('--profile', '2') as s:
        for data in (b'', b'x', 'a\0\x01\u00e9\U0001f600\n'.encode(), b'y' * 1000000, b'\n' * 900000):
            status, out, err = cli(host, s, 'exec', 'cat', data=data)
            equal((status, len(out), out == data, err), (0, len(data), True, b''))
        equal(cli(host, s, 'exec', 'wc -c', data=b'y' * ((2 << 20) - 200))[:2], (0, b'%d\n' % ((2 << 20) - 200)))
        equal(cli(host, s, 'exec', 'wc -c', wrap=('sh', '-c', 'exec "$@" 0<&-', 'sh'))[1], b'0\n')
        ours(host, s, 'exec', 'cat', data=b'\xff\n', says=b'UTF-8')
        ours(host, s, 'exec', 'cat', data=b'x' * (2 << 20), says=b'2 MiB')
        ours(host, s, 'exec', 'cat', data=b'x' * (3 << 20), says=b'2 MiB')


@test
def exec_stdin_that_cannot_be_read_is_told(host):
    """A command must not run with half of its input as if that were all."""
    with host.server('--profile', '2') as s:
        folder = os.open('/', os.O_RDONLY)
        try:
            ours(host, s, 'exec', 'cat; echo ran', stdin=folder, data=None)
        finally:
            os.close(folder)


@test
def exec_stdin_may_be_slow(host):
    with host.server('--profile', '2') as s:
        r, w = os.pipe()
        os.set_blocking(r, False)
        p = start(host, s, 'exec', 'cat', stdin=r)
        time.sleep(0.3)
        with contextlib.suppress(BrokenPipeError):
            os.write(w, b'late')
        os.close(w), os.close(r)
        equal(ended(p)[1], b'late', 'a pipe that does not block')


@test
def exec_large_requests_that_are_refused_are_told(host):
    """The server answers before it has read all: that is a refusal with its reason, not a signal."""
    with host.server('--profile', '2') as s:
        for data, env, says in ((b'\n' * 1500000, {}, b''), (b'x' * 2000000, {'OMNIARENA_TOKEN': 'wrong-token-0123456789'},
                                                             b'token'), (b'\x01' * 900000, {}, b'')):
            got = [cli(host, s, 'exec', 'cat', data=data, env=env) for _ in range(3)]
            check(all(status == 125 and out == b'' and err.startswith(b'omniarena: ') and says in err for status, out,
                      err in got), data[:1], env, got)
    with Liar(OK, reads=False) as s:
        ours(host, s, 'exec', 'cat', data=b'x' * 2000000)


@test
def exec_tells_that_output_was_cut(host):
    """Beyond output_limit a stream ends early; who gets half of it must be told."""
    with host.server('--profile', '2', '--output-limit', '5000') as s:
        status, out, err = cli(host, s, 'exec', 'head -c 9000 /dev/zero')
        equal((status, out), (0, b'\0' * 5000))
        check(err.startswith(b'omniarena: '), 'nothing is said', err)


@test
def exec_command_sizes(host):
    with host.server('--profile', '2') as s:
        status, out, _ = cli(host, s, 'exec', ': ' + 'x' * (65536 - 2))
        equal((status, out), (0, b''))
        ours(host, s, 'exec', ': ' + 'x' * 65535, status=2, says=b'64 KiB')
        ours(host, s, 'exec', ':', *['y' * 60] * 1100, status=2, says=b'64 KiB')
        equal(cli(host, s, 'exec', "printf '%s' '" + '\x01' * 60000 + "' | wc -c")[1], b'60000\n')


@test
def exec_command_is_not_changed(host):
    """What is no UTF-8 is refused, not run as something else."""
    with host.server('--profile', '2') as s:
        ours(host, s, 'exec', b'echo ran \xff', says=b'UTF-8')
        equal([e['event'] for e in s.json('GET', '/api/audit')['events']], ['START'])


@test
def exec_closing_ends_the_command(host):
    with host.server('--profile', '2') as s:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP):
            p = start(host, s, 'exec', 'echo begun; sleep 4.24242@')
            p.stdout.readline()
            until(lambda: having('sleep\0004.24242@'))
            p.send_signal(number)
            equal(ended(p)[0], -number)
            until(lambda: not having('4.24242@'), 5, 'the command ends with its client')
        for ignored in ('', 'trap "" PIPE; '):
            p = subprocess.run(['sh', '-c', ignored + '"$0" exec "yes line@" | head -1'.replace('@', UNIQUE), binary(host)],
                               capture_output=True, timeout=20,
                               env=environment(host, s), cwd='/', **host.ids)
            equal(p.stdout, b'line' + UNIQUE.encode() + b'\n')
            until(lambda: not having('line@'), 5, 'the command ends with its reader')
        equal(s.health()['running'], 0)


@test
def exec_with_closed_streams(host):
    with host.server('--profile', '2') as s:
        for close, status in (('1>&-', 5), ('0<&- 1>&- 2>&-', 5), ('2>&-', 5)):
            got = cli(host, s, 'exec', 'echo out; echo err >&2; exit 5', wrap=('sh', '-c', 'exec "$@" ' + close, 'sh'))
            equal(got, (status, b'out\n' if close[0] == '2' else b'', b'err\n' if close[0] == '1' else b''), close)


@test
def exec_output_that_cannot_be_written_is_told(host):
    with host.server('--profile', '2') as s, open('/dev/full', 'w') as full:
        p = start(host, s, 'exec', 'echo out', stdout=full)
        status, _, err = ended(p)
        equal(status, 125)
        check(err.startswith(b'omniarena: ') and b'No space' in err, err)


@test
def exec_waits_for_a_slow_reader(host):
    """A pipe or terminal may be set not to block by whoever else has it."""
    with host.server('--profile', '2') as s:
        r, w = os.pipe()
        os.set_blocking(w, False)
        p = start(host, s, 'exec', 'head -c 400000 /dev/zero', stdout=w)
        os.close(w)
        time.sleep(0.5)
        with open(r, 'rb') as f:
            n = len(f.read())
        equal((n, ended(p)[0]), (400000, 0))


# ---- who it is ----

def token_file(host, text, mode=0o600):
    path = os.path.join(host.folder(), 'token')
    with open(path, 'wb') as f:
        f.write(text)
    os.chmod(path, mode)
    os.chown(path, *([host.account.pw_uid, host.account.pw_gid] if host.account else [-1, -1]))
    return path


@test
def tokens_come_from_a_file_or_the_environment(host):
    secret = 'own-token-0123456789'
    path = token_file(host, secret.encode() + b'\n')
    with host.server('--token-file', path, '--profile', '2') as s:
        s.auth = 'Bearer ' + secret
        equal(cli(host, s, 'exec', '--token-file', path, 'echo in', env={'OMNIARENA_TOKEN': None})[:2], (0, b'in\n'))
        equal(cli(host, s, 'exec', 'echo in', env={'OMNIARENA_TOKEN': None, 'OMNIARENA_TOKEN_FILE': path})[:2], (0, b'in\n'))
        equal(cli(host, s, 'exec', 'echo in', env={'OMNIARENA_TOKEN': secret})[:2], (0, b'in\n'))
        equal(cli(host, s, 'exec', 'echo in', env={'OMNIARENA_TOKEN': ' %s\n' % secret})[:2], (0, b'in\n'))
        p = start(host, s, 'exec', 'env; tr "\\0" "\\n" </proc/self/environ; sleep 1', env={'OMNIARENA_TOKEN': secret})
        p.stdout.readline()
        check(secret.encode() not in open('/proc/%d/cmdline' % p.pid, 'rb').read())
        _, out, err = ended(p)
        check(secret.encode() not in out + err, out)
        for mode in (0o640, 0o604, 0o620, 0o602):
            ours(host, s, 'exec', '--token-file', token_file(host, secret.encode(), mode), 'true', says=b'others can read it',
                 env={'OMNIARENA_TOKEN': None})
        os.mkfifo(fifo := os.path.join(host.folder(), 'fifo'))
        for bad in (fifo, host.folder(), token_file(host, b''), token_file(host, b' \n')):
            ours(host, s, 'exec', '--token-file', bad, 'true', env={'OMNIARENA_TOKEN': None})


@test
def tokens_may_have_quotes(host):
    """What the server takes for a token, its clients do."""
    path = token_file(host, b'it\'s-a-"quoted"\\token-{}\n')
    with host.server('--token-file', path, '--profile', '2') as s:
        equal(cli(host, s, 'exec', '--token-file', path, 'echo in', env={'OMNIARENA_TOKEN': None})[:2], (0, b'in\n'))
        ours(host, s, 'exec', 'true', says=b'blanks', env={'OMNIARENA_TOKEN': 'two words-0123456789'})
        ours(host, s, 'exec', 'true', says=b'long', env={'OMNIARENA_TOKEN': 'x' * 10240})


@test
def token_file_that_is_named_must_be_there(host):
    """A slip in its name must not show the published token instead."""
    with host.server('--profile', '2') as s:
        ours(host, s, 'exec', '--token-file', '/nonexistent/token', 'echo ran', says=b'/nonexistent/token',
             env={'OMNIARENA_TOKEN': None})


@test
def token_file_of_nobody_need_not_be_there(host):
    """As for the server: the default one may be in a folder that is none, or another user's."""
    if host.root:
        raise Skip('root has /etc/omniarena')
    with host.server('--profile', '2') as s:
        for home in ('/dev/null', '/root', '/nonexistent'):
            equal(cli(host, s, 'exec', 'echo ran', env={'OMNIARENA_TOKEN': None, 'HOME': home})[:2], (0, b'ran\n'), home)


@test
def headers_cannot_be_injected(host):
    with Liar(EVENTS + event('exit', {'exit_code': 0})) as s:
        for bad in ('a\r\nX-Agent: evil\r\n\r\nGET / HTTP/1.1', 'a\nX-Agent:evil', 'a\rX-Agent:evil', 'a\tb', 'a"b', '\x01a',
                    '\x7f', 'a\u00e9', 'x' * 10240, '', '\n'):
            status, _, err = cli(host, s, 'exec', 'true', env={'OMNIARENA_TOKEN': bad})
            check(status == 0 or (status == 125 and err.startswith(b'omniarena: ') and not re.search(MOVES, err)), status, err)
        for head, body in s.asked:
            check(re.fullmatch(rb'POST /api/exec HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer [!-~]+\r\nAccept: text/event-stream\r\n'
                               rb'Connection: close\r\nContent-Length: %d' % len(body), head), head)


# ---- what a server may do to us ----

@test
def rubbish_is_told(host):
    deep = b'{"exit_code":' * 100000
    for reply in (b'', b'rubbish', b'\r\n\r\n', b'HTTP/1.1\r\n\r\n', b'HTTP/1.1 abc\r\n\r\n', b'\0' * 5000,
                  b'HTTP/1.1 99999999999999999999 x\r\n\r\n', OK, EVENTS,
                  EVENTS + b'event: exit\ndata: {', EVENTS + b'event: exit\ndata: {\n\n', EVENTS + b'event: exit\ndata: []\n\n',
                  EVENTS + b'event: exit\ndata: \0\n\n',
                  EVENTS + b'event: exit\ndata: {"exit_code":"0"}\n\n', EVENTS + b'event: exit\ndata: {}\n\n',
                  EVENTS + b'event: exit\ndata: {"error":"\xc3"}\n\n',
                  EVENTS + b'event: exit\ndata: ' + deep + b'\n\n',
                  EVENTS + b'event: exit\ndata: {"exit_code":1,"exit_code":1}\n\n',
                  EVENTS + b'event: exit\ndata: {"exit_code":0,"denied":[1,{"call":5},{"call":"x"}]', b'HTTP/1.1 500 x\r\n\r\n',
                  b'HTTP/1.1 500 x\r\n\r\n{"error":5}',
                  b'HTTP/1.1 403 x\r\n\r\n{"error":"x","error":"y"}', b'HTTP/1.1 403 x\r\n\r\n{"error":"\xff"}',
                  b'HTTP/1.1 500 x\r\n\r\n' + b'[' * 1000000):
        with Liar(reply) as s:
            for args in (('exec', 'true'), ('top',), ('tail',)):
                ours(host, s, *args)
            got, out, err = cli(host, s, 'exec', '--json', 'true')
            check(got == 125 and err.startswith(b'omniarena: '), reply[:60], got, err)


@test
def floods_end(host):
    """A head or an event without end, and 100 MB, end with a sentence; in no more memory than a reply may take."""
    def flood(begin, piece, n):
        def pieces():
            yield begin
            for _ in range(n):
                yield piece
        return pieces

    for pieces in (flood(b'HTTP/1.1 200 OK\r\n', b'X: ' + b'y' * 65000 + b'\r\n', 400), flood(EVENTS + b'data: ', b'z' * 65536,
        400), flood(OK, b'[' * 65536, 400)):
        with Liar(pieces) as s:
            ours(host, s, 'exec', 'true')
            ours(host, s, 'top')
    row = b'event: stdout\ndata: {"data":"%s"}\n\n' % base64.b64encode(b'x' * 48000)
    with Liar(flood(EVENTS, row, 2000)) as s:  # 100 MB that are wanted
        status, out, err = cli(host, s, 'exec', 'true')
        equal((status, len(out)), (125, 96000000), err)


@test
def exec_takes_output_that_is_none_for_nothing(host):
    with Liar(EVENTS + b': comment\n\nevent: stdout\ndata: {"data":"!!!"}\n\nevent: stdout\ndata: {"data":5}\n\nevent: stdout\ndata: rubbish\n\n' +
              event('stdout', {'data': 'b2s='}) + event('exit', {'exit_code': 9})) as s:
        equal(cli(host, s, 'exec', 'true')[:2], (9, b'ok'))


@test
def nothing_moves_the_cursor(host):
    """Whatever a server says, or a command that it tells of."""
    denied = {'exit_code': 3, 'denied': [{'call': HOSTILE, 'hint': 'h' + HOSTILE}], 'timed_out': True, 'error': 'e' + HOSTILE}
    refusal = json.dumps({'error': 'e' + HOSTILE, 'rule': HOSTILE, 'program': HOSTILE, 'reason': HOSTILE, 'code': HOSTILE},
                         ensure_ascii=False)
    agents = {'agents': [{'name': HOSTILE, 'model': HOSTILE, 'running': 1}]}
    row = {k: HOSTILE for k in ('time', 'agent', 'event', 'cmd', 'result')}
    texts = []
    for ascii in (True, False):
        dumps = lambda v: json.dumps(v, ensure_ascii=ascii).encode()
        for reply, args in ((EVENTS + b'event: exit\ndata: %s\n\n' % dumps(denied), ('exec', 'true')),
                            (b'HTTP/1.1 403 x\r\n\r\n' + dumps(json.loads(refusal)), ('exec', 'true')),
                            (b'HTTP/1.1 403 x\r\n\r\n' + dumps(json.loads(refusal)), ('tail',)), (OK + dumps(agents), ('top',)),
                            (EVENTS + b'event: audit\ndata: %s\n\n' % dumps(row), ('tail',))):
            with Liar(reply) as s:
                _, out, err = cli(host, s, *args)
                texts.append((args, reply, out + err))
                check(len(out + err) > 30, args, out, err)
    for args, reply, text in texts:
        bad = re.search(MOVES, text)
        check(not bad, args, reply[-200:], 'shows', text)


@test
def long_messages_are_not_lost(host):
    for n in (990, 1010, 1030, 5000):
        with Liar(b'HTTP/1.1 403 x\r\n\r\n' + json.dumps({'error': 'x' * n}).encode()) as s:
            ours(host, s, 'exec', 'true', status=126, says=b'x' * 900)
    with Liar(EVENTS + event('exit', {'exit_code': 124, 'timed_out': True, 'error': 'y' * 5000})) as s:
        ours(host, s, 'exec', 'true', status=124, says=b'y' * 900)


# ---- tail, top ----

def reading(p):
    """The lines of p's stdout as they come, in a list that grows."""
    rows = []
    threading.Thread(target=lambda: [rows.append(line) for line in p.stdout], daemon=True).start()
    return rows


@test
def tail_shows_rows_as_they_come(host):
    with host.server('--profile', '2') as s:
        p = start(host, s, 'tail')
        rows = reading(p)
        until(lambda: s.run('echo seen') and rows, what='a row while it goes on')
        s.post({'cmd': 'exit 3'}, headers={'X-Agent': 'someone'})
        until(lambda: any(re.fullmatch(r'\d{4}-\d\d-\d\dT[\d:.]+Z someone EXEC exit 3 \u2192 exit:3 OK\n', r.decode())
                          for r in rows), what='the row')
        s.run(': ' + HOSTILE + ' end@')
        until(lambda: any(('end' + UNIQUE).encode() in r for r in rows), what='a hostile row')
        n = len(rows)
        s.run(': ' + 'l' * 60000)
        s.run('echo behind@')
        until(lambda: any(('echo behind' + UNIQUE).encode() in r for r in rows), what='a row behind a long one')
        equal((rows[-1].split(b' ')[2:4], len(rows)), ([b'EXEC', b'echo'], n + 2), 'a row is a line, however long its command')
        check(not any(re.search(MOVES, r) for r in rows), [r for r in rows if re.search(MOVES, r)])
        os.kill(s.pid, signal.SIGKILL)
        p.wait(10)
        equal((p.returncode, p.stderr.read()), (125, b'omniarena: the server went away\n'))
        p.stderr.close()
    ours(host, s, 'tail')


@test
def top_shows_agents(host):
    with host.server('--profile', '2') as s:
        s.post({'cmd': 'true'}, headers={'X-Agent': 'someone',
                                         'X-Model': 'some-model \u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9'.encode(), 'X-Tokens-In': '41'})
        status, out, err = cli(host, s, 'top')
        text = out.decode()  # half a character would fail here
        equal((status, err), (0, b''))
        check(re.match(r'AGENT +RUN +EXECS', text) and re.search(r'\nsomeone +0 +1 +0 +1 +41 +0 +some-model', text), text)
        check(b'\x1b' not in out)
        master, slave = pty.openpty()
        p = start(host, s, 'top', stdin=slave, stdout=slave)
        os.close(slave)
        out, end = b'', time.monotonic() + 10
        while out.count(b'\x1b[H\x1b[2J') < 2 and time.monotonic() < end:
            out += os.read(master, 65536)
        equal((out.count(b'\x1b[H\x1b[2J'), out.count(b'someone')), (2, 2), out)
        os.kill(s.pid, signal.SIGKILL)
        equal(p.wait(10), 125)
        check(b'omniarena: ' in p.stderr.read())
        p.stderr.close(), os.close(master)


# ---- standalone ----

def alone(p):
    """(server, its folder) of a client that has started one, and waits for its input"""
    def found():
        for c in children(p.pid):
            with contextlib.suppress(OSError), open('/proc/%d/cmdline' % c, 'rb') as f:
                m = re.search(rb'(/tmp/omniarena-\w{6})/socket|(/tmp/omniarena-\w{6})/audit.log', f.read())
                if m and len(children(c)) == 1:
                    return c, (m.group(1) or m.group(2)).decode()
    until(lambda: found() or p.poll() is not None, what='a server of its own')
    check(found(), 'it did not start:', p.poll() is not None and p.stderr.read())
    return found()


def kept_input(host, *args, **kw):
    kw['env'] = {'OMNIARENA_CONFIG': host.policy(), **kw.get('env', {})}
    return start(host, None, 'exec', '--standalone', *args, stdin=subprocess.PIPE, **kw)


@test
def standalone_leaves_nothing(host):
    p = kept_input(host, 'cat; id -u; exit 3')
    server, folder = alone(p)
    all, warden = tree(server), children(server)[0]
    equal((stat.S_IMODE(os.stat(folder).st_mode), stat.S_IMODE(os.stat(folder + '/token').st_mode)), (0o700, 0o600))
    secret = open(folder + '/token', 'rb').read()
    for pid in (p.pid, *all):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a cell that was only tried
            check(secret not in open('/proc/%d/cmdline' % pid, 'rb').read() + open('/proc/%d/environ' % pid, 'rb').read())
    status, out, err = ended(p, b'given\n')
    equal((status, out.split(b'\n')[0], err), (3, b'given', b''))
    check(not os.path.exists(folder), os.path.exists(folder) and [x for x in os.walk(folder)])
    until(lambda: not any(map(alive, all)), 5, 'no process is left')
    equal(cgroups(warden), set())


@test
def standalone_ends_with_a_killed_client(host):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        p = kept_input(host, 'cat')
        server, folder = alone(p)
        all, warden = tree(server), children(server)[0]
        time.sleep(0.3)  # it has given up its privileges
        p.send_signal(number)
        try:
            equal(ended(p)[0], -number)
            until(lambda: not any(map(alive, all)), 8, 'the server ends by itself after signal %d' % number)
            until(lambda: not cgroups(warden), 3, 'cgroups are gone')
        finally:
            for pid in all:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)


@test
def standalone_command_ends_with_a_killed_client(host):
    for number in (signal.SIGTERM, signal.SIGKILL):
        p = start(host, None, 'exec', '--standalone', '--profile', '2', 'echo begun; sleep 6.28282@',
                  env={'OMNIARENA_CONFIG': host.policy()})
        server, folder = alone(p)
        all = tree(server)
        p.stdout.readline()
        p.send_signal(number)
        try:
            equal(ended(p)[0], -number)
            until(lambda: not having('sleep\0006.28282@'), 8, 'the command ends')
        finally:
            for pid in all:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)


# Runs argv[5:] as argv[1]:argv[2] where /tmp is its own and argv[3] is /mnt; then says what is left in /tmp.
OWN_TMP = '''
import ctypes, os, resource, subprocess, sys, time
uid, gid, work, processes = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
def must(r): assert r == 0, os.strerror(ctypes.get_errno())
must(libc.unshare(0x20000))
must(libc.prctl(36, 1, 0, 0, 0))  # orphans are ours
must(libc.mount(None, b'/', None, 0x44000, None))
must(libc.mount(work.encode(), b'/mnt', None, 0x1000, None))
must(libc.mount(b'none', b'/tmp', b'tmpfs', 0, b'mode=1777'))
def become():
    os.setgroups([]), os.setresgid(gid, gid, gid), os.setresuid(uid, uid, uid)
    if processes >= 0: resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
p = subprocess.run(sys.argv[5:], preexec_fn=become)
left, end = [], time.monotonic() + 8
while (pids := [int(p) for p in open('/proc/self/task/%d/children' % os.getpid()).read().split()]):
    for pid in pids:
        if time.monotonic() > end: left.append('a process'), os.kill(pid, 9)
        os.waitpid(pid, os.WNOHANG)
    time.sleep(0.02)
sys.stderr.write('LEFT %r' % (left + sorted(os.path.join(d, f) for d, ds, fs in os.walk('/tmp') for f in ds + fs),))
sys.exit(p.returncode if p.returncode >= 0 else 128 - p.returncode)
'''


def in_own_tmp(host, *argv, processes=-1, config=None, env=None):
    """(status, stdout, stderr, what is left in /tmp) of a command line where '@@' is our binary"""
    if os.geteuid() != 0:
        raise Skip('only root can give it a /tmp of its own')
    uid, gid = (host.account.pw_uid, host.account.pw_gid) if host.account else (0, 0)
    inside = lambda path: path.replace(host.work, '/mnt')
    p = subprocess.run(['/usr/bin/python3', '-c', OWN_TMP, str(uid), str(gid), host.work, str(processes), *(a.replace('@@',
        inside(binary(host))) for a in argv)], cwd='/',
                       stdin=subprocess.DEVNULL, capture_output=True, timeout=30, env=environment(host, None,
                           OMNIARENA_CONFIG=inside(config or host.policy()), **(env or {})))
    err, _, left = p.stderr.rpartition(b'LEFT ')
    check(b'Sanitizer' not in err and left, p.stderr)
    return p.returncode, p.stdout, err, left.decode()


@test
def standalone_leaves_no_file(host):
    equal(in_own_tmp(host, '@@', 'exec', '--standalone', 'echo ok'), (0, b'ok\n', b'', '[]'))
    equal(in_own_tmp(host, '@@', 'exec', '--standalone', 'exit 9')[::3], (9, '[]'))
    equal(in_own_tmp(host, '@@', 'exec', '--standalone', 'no such (')[::3], (126, '[]'))
    equal(in_own_tmp(host, '@@', 'exec', '--standalone', '--timeout', '200', 'sleep 9')[::3], (124, '[]'))
    equal(in_own_tmp(host, '@@', 'doctor')[3], '[]')


@test
def standalone_leaves_no_file_when_its_reader_goes(host):
    _, out, err, left = in_own_tmp(host, 'sh', '-c', '@@ exec --standalone --profile 2 yes | head -1')
    equal((out, left), (b'y\n', '[]'), err)


@test
def standalone_leaves_no_file_when_the_log_was_rotated(host):
    cmd = '; '.join(['echo \'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"exec","arguments":{"cmd":"true"}}}\'; sleep 0.4' % i for i in range(7)])
    status, out, err, left = in_own_tmp(host, 'sh', '-c', '(%s) | @@ mcp --standalone --audit-rotate-bytes 500' % cmd)
    equal((status, out.count(b'"exit_code":0'), left), (0, 7, '[]'), err)


@test
def standalone_leaves_no_process_whenever_its_client_is_killed(host):
    killed = 'for d in 0 0.001 0.002 0.004 0.008 0.012 0.016 0.02 0.03 0.04; do @@ exec --standalone sleep 9 & p=$!; sleep $d; kill -9 $p; done; wait; true'
    status, out, err, left = in_own_tmp(host, 'sh', '-c', killed)
    check(status == 0 and 'a process' not in left, err, left)


@test
def standalone_says_why_it_cannot_start(host):
    for text in ('[nonsense]\n', '[config]\nport=x\n'):
        config = host.file(text)
        status, out, err, left = in_own_tmp(host, '@@', 'exec', '--standalone', 'true', config=config)
        check(status in (2, 125) and err.startswith(b'omniarena: ') and b'file:' in err, status, err)
        equal((out, left), (b'', '[]'))
    # what only the server itself meets
    status, out, err, left = in_own_tmp(host, '@@', 'exec', '--standalone', '--max-connections', '16384', 'true',
                                        processes=0 if not host.root else -1)
    if not host.root:
        check(status == 125 and b'temporarily unavailable' in err, 'no reason:', status, err)
        equal(left, '[]')
    status, out, err, left = in_own_tmp(host, 'sh', '-c', 'ulimit -n 16; exec @@ exec --standalone --max-connections 16384 true')
    if not host.root:
        check(status == 125 and b'max-connections' in err, status, err)
    equal(left, '[]')


@test
def standalone_is_nobody_elses(host):
    p = kept_input(host, 'cat')
    server, folder = alone(p)
    if os.geteuid() != 0:
        raise Skip('only root can become another user')
    other = pwd.getpwnam('daemon' if not host.root else 'nobody')
    code = 'import socket, sys\ntry: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\nexcept OSError as e: print(type(e).__name__)'
    r = subprocess.run(['/usr/bin/python3', '-c', code, folder + '/socket'], capture_output=True, text=True, user=other.pw_uid,
                       group=other.pw_gid, extra_groups=[])
    equal(r.stdout, 'PermissionError\n', r.stderr)
    equal(ended(p, b'x')[:2], (0, b'x'))


@test
def standalone_several_at_once(host):
    """None has the other's uids, cgroups or files."""
    cmd = 'cat; id -u; ls | wc -l; echo $$ >mine; sleep 0.5; cat mine; kill -9 -1; echo alive'
    running = [kept_input(host, cmd) for _ in range(4)]
    seen = [alone(p) for p in running]
    wardens = [children(server)[0] for server, _ in seen]
    equal(len({f for _, f in seen}), 4)
    if host.root:
        equal(len({status(server)['Uid'].split()[0] for server, _ in seen}), 4, 'the servers\' uids')
    groups = [cgroups(w) for w in wardens]
    check(not any(a & b for i, a in enumerate(groups) for b in groups[:i]), groups)
    for p in running:
        p.stdin.write(b'x\n'), p.stdin.flush(), p.stdin.close()
        p.stdin = None
    outs = [ended(p) for p in running]
    for code, out, err in outs:
        check(code == 0 and out.startswith(b'x\n') and out.endswith(b'alive\n'), code, out, err)
    if host.root and os.path.exists('/proc/self/uid_map'):
        check(all(o[1].split(b'\n')[2] == b'0' for o in outs), outs)
    check(not any(os.path.exists(f) for _, f in seen))


@test
def standalone_takes_the_servers_keys(host):
    config = host.policy()
    run = lambda *args, **env: cli(host, None, 'exec', '--standalone', *args, env={'OMNIARENA_CONFIG': config, **env})
    equal(run('--profile', '1', 'ulimit -n')[:2], (0, b'128\n'))
    equal(run('--profile=2', 'ulimit -n')[:2], (0, b'512\n'))
    equal(run('ulimit -n', OMNIARENA_PROFILE='1')[:2], (0, b'128\n'))
    equal(run('ulimit -n')[:2], (0, b'32\n'))
    strict = host.file('[blacklist]\necho forbidden\n[whitelist]\necho\n')
    equal(run('--config', strict, 'echo forbidden')[0], 126)
    equal(run('--config', strict, 'echo fine')[:2], (0, b'fine\n'))
    equal(run('--output-limit', '1024', '--profile', '2', 'head -c 5000 /dev/zero')[1], b'\0' * 1024)
    equal(run('--token-file', token_file(host, b'another-token-0123456789'), 'echo ran')[:2], (0, b'ran\n'), 'its token is its own')


@test
def standalone_does_not_depend_on_the_environment(host):
    """What a service manager has said to us is not said to it; and however much there is, its keys reach it."""
    config = host.policy()
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind('\0omniarena-test-' + UNIQUE + host.name)
    heard.setblocking(False)
    many = {'A%03d' % i: 'x' for i in range(400)}
    for env in ({'LISTEN_FDS': '1'}, {'LISTEN_PID': '1', 'LISTEN_FDS': '1'}, {'LISTEN_FDS': '2'},
                {'NOTIFY_SOCKET': '@omniarena-test-' + UNIQUE + host.name},
                {'OMNIARENA_TOKEN': 'a"b'}, {'OMNIARENA_TOKEN': 'some-token-0123456789',
                                             'OMNIARENA_TOKEN_FILE': '/nonexistent'}, many):
        p = start(host, None, 'exec', '--standalone', 'ulimit -n', env={**env, 'OMNIARENA_CONFIG': config,
            'OMNIARENA_PROFILE': '1', 'OMNIARENA_PORT': '0'})
        try:
            got = ended(p, seconds=5)
        except AssertionError:
            got = 'never ended'
        equal(got, (0, b'128\n', b''), list(env.items())[:3])
    with contextlib.suppress(BlockingIOError):
        raise AssertionError('the service manager of somebody else was told: %r' % heard.recv(100))
    heard.close()


@test
def standalone_keeps_the_token_to_itself(host):
    secret = 'very-secret-token-0123456789'
    p = kept_input(host, '--profile', '2', 'cat; env; cat /proc/*/environ 2>/dev/null | tr "\\0" "\\n"',
                   env={'OMNIARENA_TOKEN': secret, 'OMNIARENA_TOKEN_FILE': '/x'})
    server, _ = alone(p)
    for pid in tree(server):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open('/proc/%d/environ' % pid, 'rb') as f:
            check(secret.encode() not in f.read(), 'of the server')
    check(secret.encode() not in ended(p, b'')[1], 'of the command')


# ---- doctor ----

def diagnosis(host, wrap=(), **env):
    status, out, err = cli(host, None, 'doctor', wrap=wrap, env=env)
    check(not re.search(MOVES, out), out)
    lines = out.decode().splitlines()
    return status, lines[0], {m[2]: (m[1] == 'ok', m[3], lines[i + 1:i + 2]) for i,
                              x in enumerate(lines) if (m := re.match(r'(ok|missing) +(\w+)(.*)', x))}, err


@test
def doctor_tells_the_truth(host):
    with host.server() as s:
        h = s.health()
    status, head, layers, err = diagnosis(host)
    equal((status, err), (int(h['isolation'] != 'kernel'), b''))
    check(head.endswith('isolation ' + h['isolation']) and ('as root' if host.root else 'as an ordinary user') in head
          and h['version'] in head, head)
    equal({k: v[0] for k, v in layers.items()}, h['layers'])
    for layer, (there, why, next) in layers.items():
        check(there and not why or not there and h['missing'][layer] in why and re.match(r' +to have it: \S', next[0]), layer,
              why, next)


@test
def doctor_tells_what_is_missing(host):
    if host.root:
        raise Skip('root has its own way')
    status, head, layers, err = diagnosis(host, wrap=('/usr/bin/python3', '-c', WITHOUT))
    equal((status, head.split()[-1]), (1, 'basic'))
    for layer in ('netns', 'mountns', 'pidns', 'userns'):
        there, why, next = layers[layer]
        check(not there and len(why) > 10 and re.match(r' +to have it: \S', next[0]), layer, layers[layer])
    for layer, (there, why, next) in layers.items():
        check(there or (why and next[0].startswith(' ')), layer)


# ---- mcp ----

class Bridge:
    """An MCP client's end of 'omniarena mcp'."""

    def __init__(self, host, s, *flags, **kw):
        self.p = start(host, s, 'mcp', *flags, stdin=subprocess.PIPE, **kw)
        self.got, self.raw = [], []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.p.stdout:
            self.raw.append(line)
            self.got.append(json.loads(line) if line.endswith(b'\n') else None)

    def send(self, *messages):
        for m in messages:
            self.p.stdin.write(m if isinstance(m, bytes) else json.dumps(m).encode() + b'\n')
        self.p.stdin.flush()

    def answers(self, id):
        return [m for m in self.got if m.get('id') == id and ('result' in m or 'error' in m)]

    def answer(self, id, seconds=10):
        until(lambda: self.answers(id), seconds, 'answer to %r' % (id,))
        return self.answers(id)[0]

    def ask(self, id, method, **params):
        self.send(message(id, method, **params))
        return self.answer(id)

    def end(self):
        with contextlib.suppress(OSError):
            self.p.stdin.close()
        status = self.p.wait(15)
        self.reader.join(5)
        err = self.p.stderr.read()
        check(b'Sanitizer' not in err and b'runtime error' not in err, err)
        self.p.stderr.close()
        return status

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.p.poll() is None:
            for pid in tree(self.p.pid):  # a server of its own as well
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.p.wait()


def message(id, method, **params):
    return {'jsonrpc': '2.0', **({} if id is None else {'id': id}), 'method': method, **({'params': params} if params else {})}


def run(id, cmd, **more):
    meta = {'_meta': more.pop('meta')} if 'meta' in more else {}
    return message(id, 'tools/call', name='exec', arguments={'cmd': cmd.replace('@', UNIQUE), **more}, **meta)


@test
def mcp_both_eras(host):
    with host.server('--profile', '2') as s, Bridge(host, s, '--agent', 'speaker') as b:
        r = b.ask(1, 'initialize', protocolVersion='2025-06-18', capabilities={}, clientInfo={'name': 'x', 'version': '1'})
        equal((r['result']['protocolVersion'], r['result']['serverInfo']['name']), ('2025-06-18', 'omniarena'))
        b.send(message(None, 'notifications/initialized'))
        check('exec' in [t['name'] for t in b.ask('two', 'tools/list')['result']['tools']])
        b.send(run(3, 'echo old; exit 4'))
        equal([b.answer(3)['result']['structuredContent'][k] for k in ('stdout', 'exit_code')], ['old\n', 4])
        r = b.ask(4, 'server/discover', _meta=MODERN)
        equal(r['result']['supportedVersions'], ['2026-07-28'])
        b.send(run('f\u00e9', 'echo new', meta=MODERN))
        equal(b.answer('f\u00e9')['result']['structuredContent']['stdout'], 'new\n')
        equal(b.ask(6, 'no/such', _meta=MODERN)['error']['code'], -32601)
        equal([b.ask(7, 'ping')['result'] == {}, b.end(), len(b.got)], [True, 0, 7])
        equal({e['agent'] for e in s.json('GET', '/api/audit')['events'] if e['event'] == 'EXEC'}, {'speaker'})


@test
def mcp_headers_say_what_the_body_does(host):
    """Names that no header can carry, and JSON's other ways to write one."""
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        b.send(json.dumps(run(1, 'echo x', meta=MODERN)).replace('tools/call', 'tools\\/call').encode() + b'\n')
        check('result' in b.answer(1), 'a method with an escape', b.answer(1))
        for id, name in ((2, 'no-\u00e9'), (3, 'a b '), (4, 'x\r\nX-Agent: evil'), (5, '')):
            b.send(message(id, 'tools/call', name=name, arguments={}, _meta=MODERN))
            equal(b.answer(id)['error']['code'], -32602, repr(name), b.answer(id))
        for n in range(800, 900):  # around the end of the room for headers: an answer whatever is said
            b.send(message(n, 'tools/call', name='n' * n, arguments={}, _meta=MODERN))
        for n in range(800, 900):
            equal('error' in b.answer(n), True)
        equal(b.end(), 0)


@test
def mcp_answers_as_they_end(host):
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        b.send(*[run(i, 'sleep %.1f; echo %d' % ((9 - i) / 5, i)) for i in (1, 5, 9)])
        b.answer(1)
        equal([m['id'] for m in b.got], [9, 5, 1])
        equal(b.end(), 0)


@test
def mcp_cancels(host):
    for meta in ({}, {'meta': MODERN}):
        with host.server('--profile', '2') as s, Bridge(host, s) as b:
            b.send(run(1, 'sleep 7.5757@', **meta), run('1', 'sleep 0.5; echo stays', **meta))
            until(lambda: having('sleep\0007.5757@'))
            b.send(message(None, 'notifications/cancelled', requestId=1))
            until(lambda: not having('7.5757@'), 5, 'the command ends')
            equal(b.answer('1')['result']['structuredContent']['stdout'], 'stays\n')
            b.ask(3, 'tools/list', **({'_meta': MODERN} if meta else {}))
            equal((b.end(), [m['id'] for m in b.got]), (0, ['1', 3]), 'a cancelled one has no answer')


@test
def mcp_cancels_nothing_else(host):
    """A cancellation of nothing is nothing."""
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        b.send(run(1, 'sleep 1; echo a'), run('x' * 200, 'echo long'))
        for wrong in (None, True, 2, '1', {}, [], 1.5):
            b.send(message(None, 'notifications/cancelled', requestId=wrong))
        b.send(message(None, 'notifications/cancelled'))
        equal(b.answer(1)['result']['structuredContent']['stdout'], 'a\n')
        equal(b.end(), 0)


@test
def mcp_cancels_even_when_all_places_are_taken(host):
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        b.send(*[run(i, 'sleep 3.8383@') for i in range(16)])
        until(lambda: len(having('sleep\0003.8383@')) == 16, what='all of them run')
        b.send(*[message(None, 'notifications/cancelled', requestId=i) for i in range(16)])
        until(lambda: not having('3.8383@'), 2, 'they are cancelled before they end')
        equal((b.end(), b.got), (0, []))


@test
def mcp_seventeen_at_once(host):
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        b.send(*[run(i, 'sleep 0.5; echo %d' % i) for i in range(17)])
        for i in range(17):
            equal(b.answer(i)['result']['structuredContent']['stdout'], '%d\n' % i)
        equal((b.end(), len(b.got)), (0, 17))


@test
def mcp_progress(host):
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        both = ((1, {'progressToken': 't'}), (2, {**MODERN, 'progressToken': 7}))
        b.send(*[run(id, 'echo 1; sleep 1.1; echo 2; sleep 0.2; echo 3', meta=meta) for id, meta in both])
        for id, meta in both:
            equal(b.answer(id)['result']['structuredContent']['stdout'], '1\n2\n3\n')
            told = [m for m in b.got if m.get('method') == 'notifications/progress'
                    and m['params']['progressToken'] == meta['progressToken']]
            check(told and b.got.index(told[0]) < b.got.index(b.answer(id)), b.got)
        equal((b.end(), len(b.answers(1)), len(b.answers(2))), (0, 1, 1))


@test
def mcp_one_answer_whatever_a_command_prints(host):
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        for id, text in ((1, 'notifications/progress'), (2, 'data: x'), (3, '"jsonrpc":"2.0"')):
            b.send(run(id, "echo '%s'; sleep 0.3; echo '%s'" % (text, text), meta={'progressToken': id}))
            equal(b.answer(id)['result']['structuredContent']['stdout'], (text + '\n') * 2)
        equal((b.end(), [len(b.answers(i)) for i in (1, 2, 3)]), (0, [1, 1, 1]))


@test
def mcp_outlives_its_server(host):
    port = socket.create_server(('127.0.0.1', 0))
    number = port.getsockname()[1]
    port.close()
    with Bridge(host, None, '--port', str(number)) as b:
        equal(b.ask(1, 'tools/list')['error']['code'], -32603, 'no server yet')
        b.send(message(None, 'notifications/initialized'))
        with host.server('--profile', '2', port=number) as s:
            check('result' in b.ask(2, 'tools/list'))
            b.send(run(3, 'sleep 9'))
            until(lambda: s.health()['running'] == 1)
            os.kill(s.pid, signal.SIGKILL)
            equal(b.answer(3)['error']['code'], -32603, 'it went away in the middle')
        equal(b.ask(4, 'tools/list')['error']['code'], -32603)
        with host.server('--profile', '2', port=number):
            b.send(run(5, 'echo again'))
            equal(b.answer(5)['result']['structuredContent']['stdout'], 'again\n')
        equal((b.end(), len(b.got)), (0, 5))


@test
def mcp_outlives_what_a_server_does(host):
    """Each is an error answer, and the bridge goes on."""
    reply = lambda body, status=b'200': b'HTTP/1.1 %s x\r\n\r\n%s' % (status, body)
    for answer, reads in ((b'', True), (b'', False), (OK, True), (reply(b'rubbish'), True), (reply(b'{"error":"x","code":5}',
        b'500'), True), (EVENTS, True),
                          (reply(b'{"error":"x","error":"y"}', b'500'), True), (reply(b'{"error":{"a":1}}', b'500'),
                              True), (reply(b'[' * 100000), True),
                          (reply(b'\0' * 100), True), (reply(b'{"error":"x%s"}' % HOSTILE.encode()[:1], b'401'),
                                                       True), (EVENTS + b'data: rubbish\n\n', True)):
        with Liar(answer, reads) as s, Bridge(host, s) as b:
            for id in (1, 2):
                with contextlib.suppress(BrokenPipeError):
                    b.send(message(id, 'tools/call', name='exec', arguments={'cmd': ': ' + 'x' * (1000000 if id == 1 else 10)}))
                until(lambda: b.answers(id) or b.p.poll() is not None, what='answer to %d for %r' % (id, answer[:60]))
                check(b.answers(id) and 'error' in b.answers(id)[0], answer[:60], reads, 'the bridge ended with', b.p.poll(), b.got)
            equal((b.end(), [m.get('id') for m in b.got]), (0, [1, 2]), answer[:60])
    pretty = json.dumps({'jsonrpc': '2.0', 'id': 1, 'result': {'a': [1, 2]}}, indent=2).encode()
    with Liar(reply(pretty)) as s, Bridge(host, s) as b:
        equal((b.ask(1, 'ping')['result'], b.end(), len(b.raw)), ({'a': [1, 2]}, 0, 1), 'an answer is one line')


@test
def mcp_refusals_are_errors(host):
    with host.server('--profile', '2') as s, Bridge(host, s, env={'OMNIARENA_TOKEN': 'wrong-token-0123456789'}) as b:
        equal(b.ask(1, 'tools/list')['error']['code'], -32603)
        equal(b.end(), 0)


@test
def mcp_bad_lines(host):
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        for i, bad in enumerate((b'rubbish\n', b'{"jsonrpc":"2.0","id":9,\n', b'\xff\xfe\n', b'[]\n', b'5\n', b'{"a":"\0"}\n',
                                 b'[' * 5000 + b'\n',
                                 b'{"jsonrpc":"2.0","id":null,"method":"ping"}\n', b'{"jsonrpc":"2.0","id":{},"method":"ping"}\n')):
            b.send(bad)
            until(lambda: len(b.got) == i + 1, what='an error for %r' % bad[:40])
            check(b.got[-1]['jsonrpc'] == '2.0' and b.got[-1]['error']['code'] < 0, b.got[-1])
        b.send(b'\n\r\n\n')
        equal(b.ask(2, 'ping')['result'], {})
        b.send(json.dumps(message(3, 'ping')).encode() + b'\r\n')
        equal(b.answer(3)['result'], {})
        equal(b.end(), 0)


@test
def mcp_large_messages(host):
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        for i, size in enumerate((1 << 20, (2 << 20) - 1, 2 << 20)):
            m = json.dumps(run(i, 'wc -c', stdin='')).encode()
            b.send(m[:-4] + b'x' * (size - len(m)) + m[-4:] + b'\n')
            equal(b.answer(i)['result']['structuredContent']['stdout'], '%d\n' % (size - len(m)), size)
        equal(b.end(), 0)


@test
def mcp_too_large_messages_do_not_end_it(host):
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        b.send(run(1, 'sleep 1; echo under way'))
        with contextlib.suppress(BrokenPipeError):
            b.send(run(2, 'cat', stdin='x' * (3 << 20)))
        equal(b.answer(1)['result']['structuredContent']['stdout'], 'under way\n')
        with contextlib.suppress(BrokenPipeError):
            b.send(message(3, 'ping'))
        equal((b.answer(3)['result'], b.end()), ({}, 0))


@test
def mcp_end_of_input(host):
    with host.server('--profile', '2') as s:
        with Bridge(host, s) as b:
            b.send(*[run(i, 'sleep 0.5; echo %d' % i) for i in range(20)])
            equal((b.end(), sorted(m['id'] for m in b.got if 'result' in m)), (0, list(range(20))))
        with Bridge(host, s) as b:
            equal((b.end(), b.got), (0, []))
        with Bridge(host, s) as b:
            b.send(json.dumps(message(1, 'ping')).encode())
            equal((b.end(), [m.get('id') for m in b.got]), (0, [1]), 'a last line without its newline')


@test
def mcp_ends_commands_with_itself(host):
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        b.send(run(1, 'sleep 5.9595@'))
        until(lambda: having('sleep\0005.9595@'))
        b.p.kill()
        until(lambda: not having('5.9595@'), 5, 'the command ends')


@test
def mcp_keeps_no_fds(host):
    with host.server('--profile', '2') as s, Bridge(host, s) as b:
        for i in range(60):
            b.ask(i, 'ping')
        b.send(run('c', 'sleep 9'))
        until(lambda: s.health()['running'] == 1)
        b.send(message(None, 'notifications/cancelled', requestId='c'))
        b.ask('last', 'ping')
        until(lambda: len(fds(b.p.pid)) <= 3, 5, 'no fd is left: %r' % fds(b.p.pid))
        equal(b.end(), 0)


@test
def mcp_standalone(host):
    with Bridge(host, None, '--standalone', '--profile', '2', env={'OMNIARENA_CONFIG': host.policy()}) as b:
        b.send(run(1, 'echo alone; ulimit -n'))
        equal(b.answer(1)['result']['structuredContent']['stdout'], 'alone\n512\n')
        server, folder = alone(b.p)
        all = tree(server)
        equal(b.end(), 0)
        until(lambda: not any(map(alive, all)), 5, 'no process is left')
        check(not os.path.exists(folder))


@test
def standalone_may_say_much(host):
    """Nobody reads what the server says once it listens: it must not wait for that."""
    config = host.policy()
    with Bridge(host, None, '--standalone', env={'OMNIARENA_CONFIG': config}) as b:
        equal(b.ask(0, 'ping')['result'], {})
        server, folder = alone(b.p)
        with open(config, 'a') as f:
            f.write('[%s]\n' % ('x' * 100))
        for _ in range(600):
            os.kill(server, signal.SIGHUP)
            time.sleep(0.002)
        equal((b.ask(1, 'ping')['result'], b.end()), ({}, 0))


# ---- a service manager's ways ----

# Hands over a socket as systemd does: argv[1] is its address as Python has it, argv[2] LISTEN_FDS, argv[3] LISTEN_PID or ''
HANDED = '''
import os, socket, sys
at = eval(sys.argv[1])
s = socket.socket(socket.AF_UNIX if isinstance(at, str) else socket.AF_VSOCK if at[0] == 2 ** 32 - 1 else socket.AF_INET6 if ':' in at[0] else socket.AF_INET)
if not isinstance(at, str) and at[0] != 2 ** 32 - 1: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(at), s.listen(), os.dup2(s.fileno(), 3), os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS=sys.argv[2], LISTEN_PID=sys.argv[3] or str(os.getpid()))
os.execv(sys.argv[4], sys.argv[4:])
'''


def handed(host, at, *flags, n=1, pid='', **kw):
    return host.server(*flags, wrap=('/usr/bin/python3', '-c', HANDED, repr(at), str(n), str(pid)), **kw)


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__('localhost', timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


@test
def activated_by_a_socket(host):
    for at in (('127.0.0.1', 0), ('::1', 0)):
        with handed(host, at) as s:
            check(not any('listening' in l and not re.search(r'127\.0\.0\.1|\[::1\]', l) for l in s.log_lines), s.log())
            if at[0] == '127.0.0.1':
                equal(s.ok('echo $0; cat /proc/self/environ').split('\n')[0], '/bin/sh')
                check('LISTEN' not in s.ok('env'))
    path = os.path.join(host.folder(), 'socket')
    with handed(host, path) as s:
        run = lambda cmd: s.post({'cmd': cmd}, conn=Unix(path))
        equal((run('echo unix')['stdout'], run('echo again; exit 2')['exit_code']), ('unix\n', 2))
        check('isolation' in s.json('GET', '/api/health', conn=Unix(path)))
        equal(s.request('GET', '/api/health', auth=False, conn=Unix(path))[0], 401)
        equal(s.post({'cmd': 'who'}, 403, conn=Unix(path))['ok'], False)
        equal(s.stop(), 0)


@test
def activated_wrongly(host):
    with handed(host, ('127.0.0.1', 0), n=2, ready=False) as s:
        equal(s.wait(), 1)
        check('LISTEN_FDS=2' in s.log(), s.log())
    for pid in (1, 'nonsense', '-1', '99999999999999999999'):
        with handed(host, '\0omniarena-test-x' + UNIQUE + host.name, pid=pid) as s:
            check('isolation' in s.health(), 'its own port')
    with contextlib.suppress(OSError), socket.socket(socket.AF_VSOCK) as probe:  # where the kernel has it
        probe.bind((2 ** 32 - 1, 7000 + os.getpid() % 1000))
        probe.listen()
        with handed(host, (2 ** 32 - 1, 8000 + os.getpid() % 1000), ready=False) as s:
            equal(s.wait(), 1, 'a socket that other machines may reach')
    for at in (('0.0.0.0', 0), ('::', 0)):
        with handed(host, at, ready=False) as s:
            equal(s.wait(), 1, at, s.log())
            check('default credentials' in s.log(), s.log())
    with handed(host, ('0.0.0.0', 0), '--token-file', token_file(host, b'own-token-0123456789abc')) as s:
        s.auth = 'Bearer own-token-0123456789abc'
        check('isolation' in s.health())


@test
def tells_the_service_manager(host):
    path = os.path.join(host.folder(), 'notify')
    for at, name in ((path, path), ('\0omniarena-notify-' + UNIQUE + host.name, '@omniarena-notify-' + UNIQUE + host.name)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(at)
            heard.settimeout(10)
            if at == path:
                os.chmod(path, 0o777)
            with host.server(env={'NOTIFY_SOCKET': name}) as s:
                check(b'READY=1' in heard.recv(100).split(b'\n'))
                equal(s.request('GET', '/healthz')[0], 200, 'it answers by then')
                check('NOTIFY' not in s.ok('env'))
                s.proc.send_signal(signal.SIGTERM)
                check(b'STOPPING=1' in heard.recv(100).split(b'\n'))
                equal(s.wait(), 0)
    for wrong in ('', '/nonexistent/socket', 'x' * 300, '@'):
        with host.server(env={'NOTIFY_SOCKET': wrong}) as s:
            equal(s.request('GET', '/healthz')[0], 200)


# ---- exec's profile ----

@test
def profile_of_one_command(host):
    with host.server('--profile', '2', config=False) as s:
        for strict in (0, 'strict', '0'):
            equal(s.run('ulimit -n', profile=strict)['stdout'], '32\n')
            equal(s.post({'cmd': 'perl -e 1', 'profile': strict}, 403)['code'], s.post({'cmd': 'perl -e 2', 'profile': 0},
                403)['code'])
        equal((s.run('ulimit -n', profile=1)['stdout'], s.run('ulimit -n', profile='permissive')['stdout'],
               s.run('ulimit -n')['stdout']), ('128\n', '512\n', '512\n'))
        for nonsense in (3, -1, 1.5, '', 'x', '3', None, True, [], {}, [0], 10 ** 30):
            equal(s.post({'cmd': 'true', 'profile': nonsense}, 400)['code'], 'bad_request', nonsense)
    with host.server('--profile', '1', config=False) as s:
        for wider in (2, 'permissive'):
            equal(s.post({'cmd': 'true', 'profile': wider}, 403)['code'], 'capability')
        equal(s.run('ulimit -n', profile=0)['stdout'], '32\n')
        equal(s.health()['profile'], 'moderate', 'for that one alone')
