"""Both SDKs on the real server. test/sdk.py [PATTERN...]

A test marked @each runs three times: with Client, with AsyncClient, and with the JavaScript SDK, whose calls go to a node
process (sdk.mjs). Between them and the server is a Relay where a test wants one: it counts, answers in the server's place, and breaks
connections where it is told to.
"""
import asyncio, fcntl, inspect, select, sys
import arena
from arena import *
from test_limits import agents, basic, change, logged

sys.path.insert(0, os.path.join(TOP, 'sdk/python'))
import omniarena as o

arena.TESTS.clear()  # test_limits has its own
TYPESCRIPT = 'typescript@5.9.3'
SECRET = 'tell-nobody-0123456789'
ALL_BYTES = bytes(range(256))


# ---- the three kinds of client ----

LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, daemon=True).start()


def wait(step, seconds=40):
    return asyncio.run_coroutine_threadsafe(step, LOOP).result(seconds)


class Iter:
    def __init__(self, step, end):
        self.step, self.close = step, end

    def __iter__(self):
        return self

    def __next__(self):
        got = self.step()
        if got is None:
            raise StopIteration
        return got


class Async:
    def __init__(self, **options):
        self.c = o.AsyncClient(**options)

    def __getattr__(self, name):
        def call(*args, **options):
            got = getattr(self.c, name)(*args, **options)
            if not isinstance(got, o.AsyncStream):
                return wait(got) if inspect.iscoroutine(got) else got

            async def step():
                return await anext(got, None)
            return Iter(lambda: wait(step()), lambda: wait(got.aclose()))
        return call


class Js:
    """The JavaScript SDK; all clients are one process's."""
    proc, calls, came, outcomes = None, 0, threading.Condition(), {}
    TAKES = {'check': ['cmd'], 'addRule': ['which', 'pattern'], 'removeRule': ['which', 'pattern'], 'setProfile': ['profile'], 'setBudget': ['max_tokens'],
             'reportUsage': ['tokens_in', 'tokens_out', 'model'], 'run': ['args'], 'stream': ['args']}

    @classmethod
    def start(cls):
        if not shutil.which('node'):
            raise Skip('no node')
        cls.proc = subprocess.Popen(['node', os.path.join(TOP, 'test/sdk.mjs')], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def listen():
            for line in cls.proc.stdout:
                got = json.loads(line)
                with cls.came:
                    cls.outcomes[got['call']] = got
                    cls.came.notify_all()
        threading.Thread(target=listen, daemon=True).start()

    def ask(self, name, *args, of=None):
        def encode(v):
            return ({'$': base64.b64encode(v).decode()} if isinstance(v, bytes) else [encode(x) for x in v] if isinstance(v, (list, tuple)) else
                    {k: encode(x) for k, x in v.items()} if isinstance(v, dict) else v)

        def decode(v):
            if isinstance(v, list):
                return [decode(x) for x in v]
            return base64.b64decode(v['$']) if isinstance(v, dict) and '$' in v else {snake(k): decode(x) for k, x in v.items()} if isinstance(v, dict) else v
        with self.came:
            Js.calls += 1
            call = Js.calls
            self.proc.stdin.write(json.dumps({'call': call, 'id': of or self.id, 'name': name, 'args': encode(args)}) + '\n')
            self.proc.stdin.flush()
            check(self.came.wait_for(lambda: call in self.outcomes, 40), 'node does not answer')
            got = self.outcomes.pop(call)
        if 'ok' in got:
            return decode(got['ok'])
        more = decode(got['more'])
        if 'result' in more:
            more['result'] = typed(more['result'])
        e = getattr(o, got['error'], {'TypeError': ValueError, 'RangeError': ValueError}.get(got['error'], Exception))(got['message'])
        e.__dict__.update(more, stack=got['stack'])
        raise e

    def __init__(self, **options):
        if not self.proc:
            self.start()
        self.id = 'c%d' % Js.calls
        env = {k: v for k, v in os.environ.items() if k.startswith('OMNIARENA_')}
        self.ask('new', env, {camel(k): v for k, v in options.items()})

    def __getattr__(self, name):
        name = camel(name)

        def call(*args, **options):
            head = self.TAKES.get(name, [])
            options.update(zip([*head, *{'set_budget': ['agent']}.get(name, [])] or ['after'], args))
            first = [options.pop(k, None) for k in head]
            rest = [{camel(k): v for k, v in options.items() if v is not None}] if name != 'reportUsage' else []
            if name not in ('stream', 'events'):
                got = self.ask(name, *[f for f in first if f is not None], *rest)
                return o.Verdict(**got) if name == 'check' else typed(got)
            ident = 's%d' % Js.calls
            self.ask('open', name, self.id, *first, *rest, of=ident)

            def step():
                got = self.ask('next', of=ident)
                return None if got.get('done') else typed(got['value'])
            return Iter(step, lambda: self.ask('close', of=ident))
        return call

    def __repr__(self):
        return self.ask('inspect')


def snake(name):
    return re.sub('[A-Z]', lambda m: '_' + m[0].lower(), name)


def camel(name):
    return re.sub('_(.)', lambda m: m[1].upper(), name)


def typed(got):
    kind = got.pop('class', None) if isinstance(got, dict) else None
    if kind is None and isinstance(got, dict) and set(got) == {'kind', 'data', 'id'}:
        return o.Event(**got)
    return getattr(o, kind)(**got) if kind else got


KINDS = {'python': o.Client, 'asyncio': Async, 'javascript': Js}


def each(fn):
    for name in KINDS:
        def run(host, make=KINDS[name]):
            fn(host, make)
        run.__name__ = '%s.%s' % (fn.__name__, name)
        arena.TESTS.append(run)
    return fn


def raises(kind, fn, **want):
    """The exception, which must be of just this class, and have these attributes."""
    try:
        got = fn()
    except Exception as e:
        check(type(e) is kind, 'not', kind.__name__, 'but', repr(e), traceback.format_exc())
        equal({k: getattr(e, k) for k in want}, want, repr(e))
        return e
    raise AssertionError('no %s, but %.300r' % (kind.__name__, got))


def url(at):
    return 'http://127.0.0.1:%d' % at.port


# ---- the relay ----

class Relay:
    """plan: what happens to the next requests, one each, then 'pass': 'pass'; 'idle' (as pass, then the connection ends); where it is broken:
    'before' a byte is read, in its 'middle', 'after' it, in the 'reply'; bytes or a list of pieces: what is answered instead."""

    def __init__(self, to, *plan):
        self.to, self.plan, self.seen, self.connections, self.open = to, list(plan), [], 0, []
        self.sock = socket.create_server(('127.0.0.1', 0))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                c, _ = self.sock.accept()
                self.connections += 1
                self.open.append(c)
                threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        with c, contextlib.suppress(OSError):
            while self.one(c):
                pass

    def one(self, c):
        if self.plan[:1] == ['before']:
            self.plan.pop(0)
            return False
        data = c.recv(1 << 16)
        if not data:
            return False
        step = self.plan.pop(0) if self.plan else 'pass'
        if step == 'middle':
            self.seen.append(data.split(b' ')[1].decode())
            return False
        while b'\r\n\r\n' not in data:
            data += c.recv(1 << 16)
        head, _, body = data.partition(b'\r\n\r\n')
        length = int((re.search(rb'(?i)\r\ncontent-length: (\d+)', head) or [0, 0])[1])
        while len(body) < length:
            body += c.recv(1 << 16)
        self.seen.append(head.split(b' ')[1].decode())
        if not isinstance(step, str):
            for piece in step if isinstance(step, list) else [step]:
                c.sendall(piece) if isinstance(piece, bytes) else time.sleep(piece)
            return False
        with socket.create_connection(('127.0.0.1', self.to.port)) as up:
            up.sendall(re.sub(rb'(?i)\r\nconnection: [^\r]*', b'', head) + b'\r\nConnection: close\r\n\r\n' + body)
            if step == 'after':
                while up.recv(1 << 16):
                    pass
                return False
            reply = b''
            while True:
                if c in select.select([c, up], [], [])[0] and not c.recv(1, socket.MSG_PEEK):
                    return False  # hung up: up is, too
                got = up.recv(1 << 16)
                if not got:
                    break
                got = got.replace(b'Connection: close\r\n', b'') if not reply and b'event-stream' not in got else got
                if step == 'reply':
                    c.sendall(got[:len(got) * 2 // 3])
                    return False
                c.sendall(got)
                reply += got
            return step != 'idle' and b'event-stream' not in reply[:1000]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(OSError):  # a test may have closed it
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for c in self.open:
            with contextlib.suppress(OSError):
                c.shutdown(socket.SHUT_RDWR)


def reply(status, fields=None, *headers, body=None):
    body = json.dumps(fields).encode() if body is None else body
    return b'HTTP/1.1 %d x\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n' % (status, len(body), b''.join(h.encode() + b'\r\n' for h in headers)) + body


def slow(code, after=0, text='no'):
    return reply(429, {'ok': False, 'error': text, 'code': code}, 'Retry-After: %s' % after)


@contextlib.contextmanager
def relayed(host, make, *plan, flags=('--profile', '2'), **options):
    with host.server(*flags) as s, Relay(s, *plan) as r:
        yield s, r, make(url=url(r), **options)


@contextlib.contextmanager
def served(host, make, *flags, **options):
    with host.server(*flags) as s:
        yield s, make(url=url(s), **options)


# ---- commands ----

@each
def run(host, make):
    with served(host, make, '--profile', '1') as (s, c):
        r = c.run('echo "$A é $(pwd)"; cat; echo err >&2; exit 3', input='in\n', env={'A': 'ü€😀'}, cwd='/usr')
        equal((r.returncode, r.stdout, r.stderr, r.signal, r.timed_out, r.oom, r.files), (3, 'ü€😀 é /usr\nin\n', 'err\n', None, False, False, []))
        equal((r.args[:4], r.stdout_bytes, r.stdout_truncated, r.stdout_lossy, r.would_block), ('echo', len(r.stdout.encode()), False, False, None))
        check(0 <= r.duration_ms < 5000 and r.usage['max_rss_kb'] > 100 and set(r.usage) == {'cpu_ms', 'max_rss_kb', 'read_bytes', 'write_bytes'}, r)
        equal(c.run(['echo', '$HOME; ls']).stdout, '$HOME; ls\n')
        equal(c.run('kill -9 $$').signal, 'SIGKILL')
        equal(c.run('cat', input='é'.encode()).stdout, 'é')
        equal(c.run('cat /etc/shadow').denied[0]['call'], 'open')
        equal(c.run('true', check=True).returncode, 0)
        e = raises(o.CommandFailed, lambda: c.run('echo out; exit 7', check=True), code='failed')
        equal((e.result.returncode, e.result.stdout), (7, 'out\n'))
        equal(raises(o.Blocked, lambda: c.run(['cat', 'x'], allow=['ls'])).program, 'cat')
        raises(ValueError, lambda: c.run('true', timeout=-1))
        equal(s.health()['total_execs'], 7)


@each
def bytes_and_sizes(host, make):
    with served(host, make, '--profile', '2') as (s, c):
        r = c.run('cat all; cat all >&2', text=False, put_files={'all': ALL_BYTES})
        equal((r.stdout, r.stderr), (ALL_BYTES, ALL_BYTES))
        r = c.run("printf '\\377'")
        equal((r.stdout, r.stdout_lossy), ('\ufffd', True))
        r = c.run('yes | head -c 3000000; printf done >&2')
        equal((len(r.stdout), r.stdout_truncated, r.stdout_bytes, r.stderr, r.stderr_truncated), (1 << 20, True, 3000000, 'done', False))
        equal(len(c.run("head -c 1048576 /dev/zero").stdout), 1 << 20)  # six times as large as JSON
        equal(len(c.run('cat', input=('x' * 99 + '\n') * 15000).stdout), 1 << 20)
        raises(o.BadRequest, lambda: c.run('cat', input='x' * (2 << 20)), code='too_large')
        both = [e for e in c.stream('yes | head -c 1500000; head -c 300000 /dev/urandom >&2', text=False)]
        equal((sum(len(e.data) for e in both[:-1] if e.stream == 'stdout'), sum(len(e.data) for e in both[:-1] if e.stream == 'stderr')), (1 << 20, 300000))
        equal((both[-1].stdout_truncated, both[-1].stderr_truncated, both[-1].stdout), (True, False, b''))


@each
def files(host, make):
    with served(host, make, '--profile', '1') as (s, c):
        r = c.run('cat a > b; mkdir -p d; cat d/é >> b; printf x > d/new', put_files={'a': b'\0\xff', 'd/é': 'é'}, get_files=['b', 'd/new', 'none'])
        equal((r.contents, r.contents_absent), ({'b': b'\0\xff\xc3\xa9', 'd/new': b'x'}, ['none']))
        check('b' in r.files, r.files)
        equal(c.run('printf 1 > one', get_files=True).contents, {'one': b'1'})
        equal([e for e in c.stream('printf 1 > one', get_files=True)][-1].contents, {'one': b'1'})
        raises(o.BadRequest, lambda: c.run('true', put_files={'../x': b''}), code='bad_request')


@each
def time_is_up(host, make):
    with served(host, make) as (s, c):
        e = raises(o.Timeout, lambda: c.run('echo so far; sleep 20', timeout=0.3), code='timeout')
        equal((e.stdout, e.stderr, e.result.returncode, e.result.timed_out), ('so far\n', '', 124, True))
        equal(list(c.stream('sleep 20', timeout=0.3))[-1].timed_out, True)
        begun = time.monotonic()
        raises(o.Timeout, lambda: c.run('sleep 20', timeout=0))
        check(time.monotonic() - begun < 5, 'at once')
    with served(host, make, '--timeout-ms', '300') as (s, c):
        raises(o.Timeout, lambda: c.run('sleep 20', timeout=3000))
        raises(o.Timeout, lambda: c.run('sleep 20'))


# ---- other methods ----

@each
def methods(host, make):
    with served(host, make, agent='anna', model='modèl-1') as (s, c):
        equal((c.health()['profile'], c.health()['isolation'] in ('kernel', 'basic')), ('strict', True))
        v = c.check('ls | wget x')
        equal((v.allowed, v.code, v.program, v.commands, bool(v.reason), bool(v)), (False, 'whitelist', 'wget', ['ls', 'wget'], True, False))
        equal((c.check('ls').allowed, c.check('ls').code, c.check('wget x', profile='permissive').allowed, c.check('ls', profile=1).allowed), (True, 'ok', True, True))
        raises(o.Blocked, lambda: c.run('git log'))
        p = c.add_rule('whitelist', 'git')
        equal(('git' in p['whitelist'], p['persisted'], c.check('git log').allowed), (True, True, True))
        equal('git' in c.remove_rule('whitelist', 'git')['whitelist'], False)
        equal(c.policy()['whitelist'], [w for w in p['whitelist'] if w != 'git'])
        raises(o.BadRequest, lambda: c.remove_rule('whitelist', 'git'), status=400)
        equal((c.set_profile('moderate')['profile'], c.set_profile(2)['profile'], c.health()['profile']), (1, 2, 'permissive'))
        raises(o.BadRequest, lambda: c.set_profile(7))
        c.run('echo one')
        a = {a['name']: a for a in c.agents()}['anna']
        equal((a['execs'], a['blocked'], a['model']), (1, 1, 'modèl-1'))
        equal(c.set_budget(5000, agent='anna')['max_tokens'], 5000)
        equal(c.set_budget(9000)['default'], 9000)
        rows = c.audit(agent='anna')
        last = [r for r in rows if r['event'] == 'EXEC'][-1]
        equal((last['cmd'], c.audit(after=last['seq'] - 1, limit=1)[-1]['seq'] >= last['seq'], c.audit(agent='nobody')), ('echo one', True, []))
        equal(len(c.audit(limit=2)), 2)
        raises(ValueError, lambda: make(url=url(s), agent='a b\r\nX: y'))
        raises(ValueError, lambda: make(url='http://me:%s@127.0.0.1' % SECRET))
        raises(ValueError, lambda: c.report_usage(-1, 0))
        raises(ValueError, lambda: c.report_usage(0, 0, 'a\r\nb'))


@each
def who_asks(host, make):
    """Arguments before the environment before what is published."""
    policy = host.file('[whitelist]\nls\necho\n[agent bot]\ntoken=%s\n' % SECRET)
    with host.server('--config', policy) as s:
        change(s, 'omniarena', 'a-pass:wörd')
        old = dict(os.environ)
        try:
            os.environ.update(OMNIARENA_URL=url(s), OMNIARENA_USER='arena', OMNIARENA_PASSWORD='a-pass:wörd')
            equal(make().run('echo 1').stdout, '1\n')
            raises(o.Unauthorized, lambda: make(password='wrong').health(), status=401, code='unauthorized')
            os.environ['OMNIARENA_TOKEN'] = SECRET
            bot = make()
            equal([a['name'] for a in bot.agents()], ['bot'])
            raises(o.Unauthorized, lambda: bot.set_profile(2), status=403, code='capability')
            raises(o.Unauthorized, lambda: make(agent='other').health(), code='capability')
            equal(make(user='arena', password='a-pass:wörd').set_profile(0)['profile'], 0)
        finally:
            os.environ.clear()
            os.environ.update(old)
        equal([a['name'] for a in make(url=url(s) + '/', token=SECRET).agents()], ['bot'])


# ---- what is refused ----

@each
def refusals(host, make):
    with served(host, make, max_wait=0) as (s, c):
        change_list = s.json('POST', '/api/policy', '{"action":"add","list":"blacklist","pattern":"rm -rf /"}')
        check(change_list['ok'])
        e = raises(o.Blocked, lambda: c.run('wget http://example.org'), code='whitelist', status=403, program='wget', rule=None)
        check('echo' in e.allowed and 'whitelist' in str(e) and e.reason in str(e), e.allowed, str(e))
        raises(o.Blocked, lambda: c.run('rm -rf //'), code='blacklist', rule='rm -rf /')
        raises(o.Blocked, lambda: list(c.stream('wget x')))
        raises(o.BadRequest, lambda: c.run(''), code='bad_request')
        raises(o.BadRequest, lambda: list(c.stream('ls', cwd='')), code='bad_request')
        c.set_budget(10, agent='default')
        c.report_usage(5, 5)
        raises(o.BudgetExceeded, lambda: c.run('true'), code='budget')
        raises(o.BudgetExceeded, lambda: c.run('true'))
        equal((logged(s, 'RUN'), agents(s)['default']['tokens_total']), ([], 10))


@each
def too_much(host, make):
    with served(host, make, '--max-running', '1', '--profile', '2', max_wait=0) as (s, c):
        st = c.stream('echo go; sleep 30')
        equal(next(st).data, 'go\n')
        e = raises(o.Busy, lambda: c.run('true'), status=429, code='busy')
        equal(e.retry_after, 1)
        st.close()
    with host.server('--max-agents', '1') as s:
        make(url=url(s), agent='one').health()
        raises(o.RateLimited, lambda: make(url=url(s), agent='two', max_wait=0).health(), code='agents')
    with host.server(env={'OMNIARENA_MAX_RATE_PER_AGENT': '1'}) as s:
        c = make(url=url(s), max_wait=1)
        c.run('true')
        begun = time.monotonic()
        e = raises(o.RateLimited, lambda: c.run('true'), code='rate')
        check(e.retry_after > 30 and time.monotonic() - begun < 2, 'not waited for what comes too late:', e.retry_after)
        equal(len(logged(s, 'RUN')), 1)


@each
def unavailable(host, make):
    with socket.create_server(('127.0.0.1', 0)) as none:
        port = none.getsockname()[1]
    raises(o.Unavailable, lambda: make(url='http://127.0.0.1:%d' % port).run('true'), code='connection', may_have_run=False)
    for status, code, ran in (503, 'isolation', False), (503, 'audit', False), (500, 'internal', True):
        with Relay(None, reply(status, {'ok': False, 'error': 'because', 'code': code}, 'Retry-After: 1')) as r:
            e = raises(o.Unavailable, lambda: make(url=url(r)).run('true'), status=status, code=code, may_have_run=ran)
            equal((str(e), len(r.seen)), ('because', 1))
    with Relay(None, reply(503, {'ok': False, 'error': 'the server is shutting down', 'code': 'busy'}, 'Retry-After: 2')) as r:
        raises(o.Busy, lambda: make(url=url(r)).run('true'), retry_after=2, status=503)
    with served(host, make, '--profile', '2') as (s, c):
        st = c.stream('echo go; sleep 60')
        next(st)
        s.proc.kill()
        raises(o.Unavailable, lambda: next(st), code='connection', may_have_run=True)
        raises(o.Unavailable, lambda: c.run('true'), code='connection')


# ---- trying again ----

@each
def retries(host, make):
    with relayed(host, make, *[slow(code) for code in ('rate', 'agents', 'busy')]) as (s, r, c):
        equal((c.run('echo 1').stdout, r.seen), ('1\n', ['/api/exec'] * 4))
        r.plan[:] = [slow('rate', 1)]
        begun = time.monotonic()
        equal(next(c.stream('echo 2')).data, '2\n')
        check(1 <= time.monotonic() - begun < 3, 'Retry-After')
        for code in 'budget', 'unknown', None, 7:
            r.seen.clear()
            r.plan[:] = [slow(code)]
            raises(o.BudgetExceeded if code == 'budget' else o.RateLimited, lambda: c.run('true'))
            equal(len(r.seen), 1, code)
        r.seen.clear()
        r.plan[:] = [slow('rate')] * 20
        raises(o.RateLimited, lambda: c.run('true'), retry_after=0)
        equal(len(r.seen), 10, 'as often as it is tried')
        for after in '31', '999999999999', '-1', 'soon', '1e3':
            r.seen.clear()
            r.plan[:] = [slow('busy', after)] * 20
            begun = time.monotonic()
            raises(o.Busy, lambda: make(url=url(r), max_wait=30 if after == '31' else 0).health())
            equal((len(r.seen), time.monotonic() - begun < 1), (1, True), after)
        r.plan[:] = [slow('rate', 1)] * 20
        r.seen.clear()
        raises(o.RateLimited, lambda: make(url=url(r), max_wait=1.5).run('true'))
        equal(len(r.seen), 2, 'in all no longer than max_wait')
        equal(len(logged(s, 'RUN')), 2)


@each
def broken_connections(host, make):
    """Nothing that may have run is asked for twice."""
    for step, runs in ('before', 0), ('middle', 0), ('after', 1), ('reply', 1):
        for via in 'run', 'stream':
            with relayed(host, make, step) as (s, r, c):
                e = raises(o.Unavailable, lambda: list(getattr(c, via)('echo ran > /tmp/x')) if via == 'stream' else c.run('echo ran > /tmp/x'))
                # where nothing was read, only we know
                equal((e.may_have_run, e.code, r.connections), (True, 'connection', 1), step, via)
                arena.until(lambda: not s.health()['running'])
                equal(len(logged(s, 'RUN')), runs, step, via)
                equal(c.run('echo on').stdout, 'on\n')


@test
def idle_connections(host):
    """Of the Python SDK, which has its own: one is kept, and one that the server closed is made anew."""
    for make in o.Client, Async:
        with relayed(host, make, flags=('--profile', '2')) as (s, r, c):
            for i in range(5):
                equal(c.run('echo %d' % i).stdout, '%d\n' % i)
                c.health()
            equal((r.connections, len(r.seen)), (1, 10))
            r.plan[:] = ['idle']
            c.health()
            time.sleep(0.1)
            equal((c.run('echo on').stdout, r.connections), ('on\n', 2))
            r.plan[:] = ['middle']  # it breaks as the request is there: a GET is asked again, once, a POST is not
            equal((c.health()['ok'], r.connections), (True, 3))
            r.plan[:] = ['middle', 'middle']
            raises(o.Unavailable, c.health)
            equal((c.health()['ok'], r.connections), (True, 5))
            r.plan[:] = ['middle']
            raises(o.Unavailable, lambda: c.run('echo no'), may_have_run=True)
            equal((len(logged(s, 'RUN')), r.connections), (6, 5))
            r.plan[:] = ['reply']
            c.health() if False else raises(o.Unavailable, c.health, code='connection')


# ---- streams ----

@each
def streams(host, make):
    with served(host, make, '--profile', '2') as (s, c):
        st = c.stream('echo one; read x; echo $x >&2; sleep 20', input='é\n')
        begun = time.monotonic()
        equal([next(st), next(st)], [o.Output('stdout', 'one\n'), o.Output('stderr', 'é\n')])
        check(time.monotonic() - begun < 10 and s.health()['running'] == 1, 'while it runs')
        st.close()
        arena.until(lambda: s.health()['running'] == 0)
        equal(list(st), [])
        last = list(c.stream('echo 1; exit 5'))[-1]
        equal((last.returncode, last.stdout, last.stdout_bytes), (5, '', 2))
        # a character that comes in two pieces
        pieces = [e.data for e in c.stream("printf '\\303'; sleep 0.2; printf '\\251'") if isinstance(e, o.Output)]
        equal(''.join(pieces), 'é')


@each
def closing_ends_the_command(host, make):
    with served(host, make, '--profile', '2') as (s, c):
        st = c.stream(['sh', '-c', 'echo go; sleep 71@'.replace('@', UNIQUE)])
        next(st)
        check(having('sleep 71@'), 'it runs')
        timer = threading.Timer(0.5, st.close)  # while next() waits
        timer.start()
        equal(list(st), [])
        arena.until(lambda: not having('sleep 71@'), what='it is gone')


@test
def leaving_ends_the_command(host):
    """Without close(): what is forgotten, cancelled, aborted or broken out of."""
    with host.server('--profile', '2') as s:
        cmd = 'echo go; sleep 72@'.replace('@', UNIQUE)

        def gone(what):
            arena.until(lambda: not having('sleep 72@'), what=what)

        def there():
            arena.until(lambda: having('sleep 72@'))
        c = o.Client(url(s))
        for _ in c.stream(cmd):
            there()
            break
        gone('forgotten')
        with c.stream(cmd):
            there()
        gone('the end of its with')

        async def main():
            async with o.AsyncClient(url(s)) as a:
                for step in a.run(cmd), anext(a.stream('sleep 72@'.replace('@', UNIQUE))):
                    task = asyncio.ensure_future(step)
                    while not having('sleep 72@'):
                        await asyncio.sleep(0.05)
                    task.cancel()
                    equal((await asyncio.gather(task, return_exceptions=True))[0].__class__, asyncio.CancelledError)
                    while having('sleep 72@'):
                        await asyncio.sleep(0.05)
                async with a.stream(cmd) as st:
                    equal((await anext(st)).data, 'go\n')
                while having('sleep 72@'):
                    await asyncio.sleep(0.05)
        asyncio.run(asyncio.wait_for(main(), 20))
        j = Js(url=url(s))
        equal(j.ask('abort', cmd, 300), 'enough')
        gone('aborted')
        equal(j.ask('breaks', cmd)['data'], 'go\n')
        gone('broken out of')


@each
def events(host, make):
    with relayed(host, make) as (s, r, c):
        c.run('echo before')
        st = c.events()
        got, rows = [], lambda: [e.data['cmd'] for e in got if e.kind == 'audit' and e.data['event'] == 'EXEC']

        def listen():
            for e in st:
                got.append(e)
        t = threading.Thread(target=listen)
        t.start()
        arena.until(lambda: '/api/events' in r.seen)
        for i in range(4):
            s.run('echo %d' % i)
            arena.until(lambda: rows() == ['echo %d' % n for n in range(i + 1)], what=rows())
            for conn in r.open:  # all break; and something happens before it is there again
                with contextlib.suppress(OSError):
                    conn.shutdown(socket.SHUT_RDWR)
        ids = [e.id for e in got if e.kind == 'audit']
        equal(ids, sorted(set(ids)), 'none twice')
        check(r.seen.count('/api/events') >= 4 and any(e.kind == 'metrics' and e.data['ok'] for e in got), r.seen)
        st.close()
        t.join(10)
        check(not t.is_alive(), 'close() ends it')
        first = c.events(after=0)
        equal(next(e for e in first if e.kind == 'audit' and e.data['event'] == 'EXEC').data['cmd'], 'echo before')
        first.close()
    with socket.create_server(('127.0.0.1', 0)) as none:
        port = none.getsockname()[1]
    raises(o.Unavailable, lambda: next(make(url='http://127.0.0.1:%d' % port).events()), code='connection')
    with served(host, make, max_wait=1) as (s, c):
        st = c.events()
        s.run('true')
        next(st)
        s.proc.kill()
        raises(o.Unavailable, lambda: list(st), code='connection')


# ---- what is counted ----

@each
def usage_is_counted_once(host, make):
    def spent(c, name):
        return [(a['tokens_in'], a['tokens_out'], a['model']) for a in c.agents() if a['name'] == name][0]
    with relayed(host, make, agent='a') as (s, r, c):
        c.report_usage(3, 4)
        c.report_usage(30, 40, 'm')
        c.health()
        equal(spent(c, 'a'), (33, 44, 'm'))
        c.report_usage(100, 0)
        raises(o.Blocked, lambda: (c.set_profile(0), c.run('nosuch-thing'))[1])
        equal(spent(c, 'a'), (133, 44, 'm'))
        r.plan[:] = ['after']
        c.report_usage(1000, 0)
        raises(o.Unavailable, lambda: c.run('true'))
        c.run('true')
        equal(spent(c, 'a'), (1133, 44, 'm'))
        c.report_usage(10000, 0)
        r.plan[:] = [reply(401, {'code': 'unauthorized'})]
        raises(o.Unauthorized, c.health)
        c.run('true')
        equal(spent(c, 'a'), (11133, 44, 'm'))
        r.plan[:] = [slow('rate', text='too many requests a second (max_rps)'), slow('agents')]
        c.report_usage(100000, 0)
        c.run('true')
        equal(spent(c, 'a'), (111133, 44, 'm'))
        r.__exit__()
        c.report_usage(1, 1)
        raises(o.Unavailable, c.health)
    # the real refusals: of exec the global rate comes before the tokens, the agent's after them; elsewhere it comes after
    for env, first in ({'OMNIARENA_MAX_RPS': '1'}, lambda c: c.health()), ({'OMNIARENA_MAX_RATE_PER_AGENT': '1'}, lambda c: c.run('true')):
        with host.server(env=env) as s:
            c = make(url=url(s), agent='a', max_wait=4)
            first(c)
            c.report_usage(5, 7)
            if 'OMNIARENA_MAX_RPS' in env:
                c.run('true')
                c.report_usage(10, 10)
                c.health()
            else:
                raises(o.RateLimited, lambda: c.run('true'))
            time.sleep(1.1)
            equal(spent(c, 'a')[:2], (15, 17) if 'OMNIARENA_MAX_RPS' in env else (5, 7))


@test
def sixteen_threads(host):
    with relayed(host, o.Client, agent='t') as (s, r, c):
        wrong = []

        def work(n):
            try:
                for i in range(6):
                    c.report_usage(1, 2)
                    equal(c.run('echo %d.%d; cat' % (n, i), input='x' * n).stdout, '%d.%d\n%s' % (n, i, 'x' * n))
                    equal([e.data for e in c.stream('echo %d' % n) if isinstance(e, o.Output)], ['%d\n' % n])
            except BaseException as e:
                wrong.append(e)
        ts = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for t in ts:
            t.start()
        for t in ts:
            t.join()
        equal(wrong, [])
        c.health()
        a = agents(s)['t']
        equal((a['execs'], a['tokens_in'], a['tokens_out']), (192, 96, 192))
        check(r.connections <= 16 + 96 + 16, r.connections)


@test
def fifty_tasks(host):
    with host.server('--profile', '2') as s:
        c = o.AsyncClient(url(s))

        async def one(n):
            return (await c.run('sleep 0.2; echo %d' % n)).stdout

        async def main():
            return await asyncio.gather(*[one(n) for n in range(50)])
        for _ in range(2):  # each time another loop, to which the connections of the first one are nothing
            begun = time.monotonic()
            equal(asyncio.run(main()), ['%d\n' % n for n in range(50)])
            check(time.monotonic() - begun < 8, 'one after the other')
        asyncio.run(c.aclose())


@test
def after_a_fork(host):
    with host.server('--profile', '2') as s:
        c = o.Client(url(s))
        c.health()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if c.run('echo child').stdout == 'child\n' and c.close() is None else 1)
        equal(os.waitpid(pid, 0)[1], 0)
        equal(c.run('echo parent').stdout, 'parent\n')


# ---- secrets, hostile servers ----

@each
def secrets_are_not_shown(host, make):
    hidden = [SECRET, base64.b64encode(b'me:' + SECRET.encode()).decode()[:20]]

    def clean(text):
        check(not any(h in text for h in hidden), 'a secret in', text)

    def clean_error(e):
        clean(repr(e) + str(vars(e)))
        shown = traceback.TracebackException.from_exception(e, capture_locals=True)
        while shown:  # the frames of the SDK; ours know the secret
            frames = [f for f in shown.stack if f.filename.endswith('omniarena.py')]
            check(frames or make is Js or shown.exc_type is not type(e), 'no frames')
            clean(''.join(shown.format_exception_only()) + ''.join(str(f.locals) for f in frames))
            shown = shown.__cause__ or shown.__context__
    for options in {'token': SECRET}, {'user': 'me', 'password': SECRET}:
        with relayed(host, make, 'pass', 'after', b'nonsense\r\n\r\n', **options) as (s, r, c):
            clean(repr(c) + str(getattr(c, 'c', '')))
            for fn in (c.health, lambda: c.run('true'), lambda: c.run('true'), lambda: list(c.stream('true'))):
                try:
                    fn()
                except o.OmniArenaError as e:
                    clean_error(e)
                else:
                    raise AssertionError('no error')
            r.__exit__()
            try:
                c.run('true')
            except o.Unavailable as e:
                clean_error(e)


HOSTILE = {
    'no http': [b'SSH-2.0-x\r\n' * 5],
    'no json': reply(200, body=b'{"ok":tru'),
    'no utf-8': reply(200, body=b'{"stdout":"\xff"}'),
    'no object': reply(200, [1]),
    'deep': reply(200, body=b'[' * 200000),
    'endless head': [b'HTTP/1.1 200 OK\r\nX: ' + b'a' * 3000000],
    'endless heads': [b'HTTP/1.1 200 OK\r\n' + b'X-A: b\r\n' * 300000],
    'endless status': [b'HTTP/1.1 200 ' + b'a' * 3000000],
    'bad length': [b'HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}'],
    '10 GB': [b'HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n' + b' ' * 1000],
    'more than is bearable': [b'HTTP/1.1 200 OK\r\n\r\n'] + [b' ' * 1000000] * 100,
    'bad chunk': [b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}'],
    'no exit status': reply(200, {'ok': True, 'stdout': ''}),
    'text as a number': reply(200, {'ok': True, 'exit_code': 0, 'stdout': 7}),
    'status as text': reply(200, {'ok': True, 'exit_code': '0', 'stdout': ''}),
    'status as truth': reply(200, {'ok': True, 'exit_code': True, 'stdout': ''}),
    'files as text': reply(200, {'ok': True, 'exit_code': 0, 'stdout': '', 'files': 'abc'}),
    'names as numbers': reply(200, {'ok': True, 'exit_code': 0, 'stdout': '', 'files': [1]}),
    'contents': reply(200, {'ok': True, 'exit_code': 0, 'stdout': '', 'contents': {'a': '!'}}),
    'contents as list': reply(200, {'ok': True, 'exit_code': 0, 'stdout': '', 'contents': [1]}),
    'redirect': reply(302, {}, 'Location: http://127.0.0.1:@/api/exec'),
    'redirect that keeps the method': reply(307, {}, 'Location: http://127.0.0.1:@/api/exec'),
}


@each
def hostile_replies(host, make):
    with Relay(None) as elsewhere, Relay(None) as r:
        c = make(url=url(r), timeout=3)
        for name, say in HOSTILE.items():
            r.plan[:] = [[p.replace(b':@', b':%d' % elsewhere.port) if isinstance(p, bytes) else p for p in (say if isinstance(say, list) else [say])]]
            begun = time.monotonic()
            e = raises(o.Unavailable, lambda: c.run('true'), may_have_run=True)
            check(time.monotonic() - begun < 5, name)
            check('larger' in str(e) or name not in ('10 GB', 'more than is bearable'), name, str(e))
            if make is not Js:
                equal(e.code, 'reply', name, str(e))
        equal((elsewhere.seen, elsewhere.connections, len(r.seen)), ([], 0, len(HOSTILE)))
        r.plan[:] = [[b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n'] + [b'{', 0.2] * 30]
        begun = time.monotonic()
        # one that drips: of all waiting there is an end
        raises(o.Unavailable, lambda: make(url=url(r), timeout=0.5).health())
        check(time.monotonic() - begun < 3, 'drips')
        for say in (reply(400, body=b'<html>'), reply(400, [1]), reply(403, {'error': 7, 'code': [], 'rule': {}, 'allowed': 'x'}), reply(429, {'code': {}})):
            r.plan[:] = [say]
            e = raises(o.Blocked if b' 403 ' in say else o.RateLimited if b' 429 ' in say else o.BadRequest, lambda: c.run('true'))
        r.plan[:] = [reply(302, {'ok': True}, 'Location: /')]
        raises(o.Unavailable, c.health)
        stream = b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n'
        for say in b'event: exit\ndata: []\n\n', b'event: exit\ndata: {"exit_code":"x"}\n\n', b'event: stdout\ndata: {"data":1}\n\n', b'data: ' + b'x' * 9000000, \
                b': \n' * 10 + b'event: exit\ndata: {', b'event: error\ndata: {"error":"the jail died","code":"internal"}\n\n', b'event: stdout\ndata: nonsense\n\n':
            r.plan[:] = [[stream + say]]
            raises(o.Unavailable, lambda: list(c.stream('true')), may_have_run=True)
        r.plan[:] = [[stream.replace(b'\r\n\r\n', b'\r\nTransfer-Encoding: chunked\r\n\r\n') + b''.join(b'%x\r\n%s\r\n' % (len(p), p) for p in
                     (b'event: stdout\r\nda', b'ta: {"data":"\xc3', b'\xa9"}\r\n\r', b'\nevent: new\ndata: {}\n\n', b'event: exit\ndata: {"exit_code":0,\ndata: "stdout":""}\n\n')) + b'0\r\n\r\n']]
        got = list(c.stream('true'))  # chunks, as a proxy makes them, cut anywhere
        equal((got[0].data, got[1].returncode, len(got)), ('é', 0, 2))


# ---- as packages ----

@test
def python_package(host):
    with tempfile.TemporaryDirectory(dir=host.work) as d:
        shutil.copytree(os.path.join(TOP, 'sdk/python'), os.path.join(d, 'src'), ignore=shutil.ignore_patterns('build', '*.egg-info', '__pycache__'))
        has = 'from importlib.util import find_spec; exit(not find_spec("pip"))'
        pip = next((p for p in ('/usr/bin/python3', shutil.which('python3')) if subprocess.run([p, '-c', has]).returncode == 0), None)
        if not pip:
            raise Skip('no pip')
        r = subprocess.run([pip, '-m', 'pip', 'install', '-q', '--no-index', '--target', os.path.join(d, 'to'), os.path.join(d, 'src')], capture_output=True, text=True)
        equal(r.returncode, 0, r.stdout, r.stderr)
        r = subprocess.run([pip, '-c', 'import omniarena as o, importlib.metadata as m; print(o.__file__, m.version("omniarena"), o.__version__, m.metadata("omniarena")["License"])'],
                           env={'PYTHONPATH': os.path.join(d, 'to')}, capture_output=True, text=True, cwd='/')
        equal(r.stdout.split(), [os.path.join(d, 'to/omniarena.py'), '1.0.4', '1.0.4', 'MIT'], r.stderr)


@test
def python_surface(host):
    """The two clients take the same, every public thing is documented, and the types are right."""
    for name, fn in vars(o.Client).items():
        if not name.startswith('_') and name != 'close':
            a, b = inspect.signature(fn), inspect.signature(getattr(o.AsyncClient, name))
            equal(list(map(str, a.parameters.values())), list(map(str, b.parameters.values())), name)
    for thing in [getattr(o, n) for n in o.__all__] + [f for n, f in {**vars(o.Client), **vars(o.AsyncClient)}.items() if n[0] != '_' and callable(f)]:
        check(inspect.getdoc(thing), 'no documentation:', thing)
    r = subprocess.run([sys.executable, '-m', 'mypy', '--strict', '--cache-dir', os.path.join(host.work, 'mypy'), os.path.join(TOP, 'sdk/python/omniarena.py')],
                       capture_output=True, text=True)
    if 'No module named mypy' in r.stderr:
        raise Skip('no mypy; the rest is right')
    equal(r.returncode, 0, r.stdout)


@test
def javascript_package(host):
    if not shutil.which('npm'):
        raise Skip('no npm')
    with tempfile.TemporaryDirectory(dir=host.work) as d:
        r = subprocess.run(['npm', 'install', '--offline', '--no-audit', '--no-fund', '--install-links', '--prefix', d, os.path.join(TOP, 'sdk/javascript')], capture_output=True, text=True)
        equal(r.returncode, 0, r.stderr)
        r = subprocess.run(['node', '--input-type=module', '-e', 'import { Client, version } from "omniarena"; console.log(version, typeof Client)'], cwd=d, capture_output=True, text=True)
        equal(r.stdout, '1.0.4 function\n', r.stderr)


USE = '''
import { Client, Blocked, Timeout, Output, Result } from 'omniarena';
const c = new Client({ agent: 'a', timeout: 3 });
const text: string = (await c.run('ls', { check: true, putFiles: { a: new Uint8Array(1) } })).stdout;
const raw: Uint8Array = (await c.run(['ls'] as const, { text: false })).stdout;
for await (const e of c.stream('ls', { signal: AbortSignal.timeout(1) })) { if (e instanceof Output) { const s: string = e.data; } else { const n: number = e.returncode; } }
for await (const e of c.events({ after: 1 })) { const id: number | null = e.id; break; }
try { await c.health(); } catch (e) { if (e instanceof Blocked) { const p: string | null = e.program; } if (e instanceof Timeout) { const r: number = e.result.returncode; } }
// @ts-expect-error
await c.run(7);
// @ts-expect-error
const wrong: string = (await c.run('ls', { text: false })).stdout;
// @ts-expect-error
await c.addRule('greylist', 'x');
'''


@test
def typescript(host):
    if not shutil.which('npm') or not shutil.which('node'):
        raise Skip('no npm, or no node')
    folder = os.path.join(TOP, 'build/npm-types')
    os.makedirs(folder, exist_ok=True)
    tsc = os.path.join(folder, 'node_modules/typescript/bin/tsc')
    with open(os.path.join(folder, 'lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(tsc):
            r = subprocess.run(['npm', 'install', '--no-save', '--no-audit', '--no-fund', '--prefix', folder, TYPESCRIPT], capture_output=True, text=True)
            if r.returncode:
                raise Skip('npm could not install: ' + ' '.join(r.stderr.split())[-300:])
    with tempfile.TemporaryDirectory(dir=host.work) as d:
        shutil.copytree(os.path.join(TOP, 'sdk/javascript'), os.path.join(d, 'node_modules/omniarena'))
        with open(os.path.join(d, 'use.mts'), 'w') as f:
            f.write(USE)
        r = subprocess.run(['node', tsc, '--strict', '--noEmit', '--target', 'es2022', '--module', 'nodenext', '--lib', 'es2022,dom,dom.iterable', 'use.mts'], cwd=d,
                           capture_output=True, text=True)
        equal(r.returncode, 0, r.stdout)
    # what the module has, its declaration has, and the other way round
    with open(os.path.join(TOP, 'sdk/javascript/omniarena.d.ts')) as f:
        declared = set(re.findall(r'export (?:class|const) (\w+)', f.read()))
    r = subprocess.run(['node', '--input-type=module', '-e', 'import * as o from "%s/sdk/javascript/omniarena.mjs"; console.log(Object.keys(o).join(" "))' % TOP], capture_output=True, text=True)
    equal(set(r.stdout.split()), declared, r.stderr)


# ---- the runner ----

def part(which, args):
    arena.TESTS[:] = arena.TESTS[which::2]
    for fn in arena.TESTS:
        fn.__module__ = 'sdk'
    try:
        return arena.run(['root' if os.geteuid() == 0 else 'user'], args, 'sdk')
    finally:
        if Js.proc:
            Js.proc.stdin.close()
            Js.proc.wait(10)


def main():
    """Two halves side by side, as most tests wait for something."""
    args = sys.argv[1:]
    if args[:1] == ['--part']:
        return part(int(args[1]), args[2:])
    return arena.side_by_side('sdk', 'sdk', [['--part', n, *args] for n in '01'])


if __name__ == '__main__':
    sys.exit(main())
