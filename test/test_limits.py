"""Who may ask how often, for how much and with what: rates, agents, tokens, budgets, settings, log-ins, and what of
it a restart keeps."""
import select, stat
from arena import *

WRONG = 'Basic ' + base64.b64encode(b'arena:wrong').decode()
DEFAULT_TOKEN = 'Bearer omniarena-default-token'
OPS = 'ops-token-0123456789'
WITHOUT_LIMITS_OF_TESTS = ('env', '-u', 'OMNIARENA_MAX_RPS', '-u', 'OMNIARENA_MAX_RATE_PER_AGENT')


def basic(password, user='arena'):
    return 'Basic ' + base64.b64encode(('%s:%s' % (user, password)).encode()).decode()


def refused(s, code, method, path, body=None, status=429, headers=None, **kw):
    """The headers of a reply that must be this refusal; a 429 says when to come again."""
    got, h, data = s.request(method, path, body, headers, **kw)
    r = json.loads(data)
    equal((got, r['ok'], r.get('code'), bool(r.get('error'))), (status, False, code, True), method, path, body, headers, r)
    check((int(h['Retry-After']) > 0) if status == 429 else h['Retry-After'] is None, 'Retry-After', h['Retry-After'])
    return h


def bad(s, path, *bodies):
    for body in bodies:
        body = body if isinstance(body, str) else json.dumps(body)
        equal(s.json('POST', path, body, status=400)['code'], 'bad_request', path, body)


def execute(s, cmd, agent=None, status=200, **headers):
    """Runs cmd as this agent; Tokens_In is X-Tokens-In."""
    if agent:
        headers['Agent'] = agent
    return s.post({'cmd': cmd}, status, headers={'X-' + k.replace('_', '-'): str(v).encode() for k, v in headers.items()})


def exec_refused(s, code, agent, cmd='true', status=429):
    return refused(s, code, 'POST', '/api/exec', json.dumps({'cmd': cmd}), status, {'X-Agent': agent})


def agents(s, **kw):
    return {a['name']: a for a in s.json('GET', '/api/agents', **kw)['agents']}


def kept(s):
    """What is said of the agents, without what depends on the last minute, or on our asking, which is default's activity."""
    return {n: {k: v for k, v in a.items() if k != 'rate_1m' and (n, k) != ('default', 'last_active')} for n, a in agents(s).items()}


def metrics(s):
    status, _, data = s.request('GET', '/metrics')
    equal(status, 200, data[:200])
    return {l.split(' ')[0][len('omniarena_'):]: float(l.split(' ')[1]) for l in data.decode().splitlines() if not l.startswith('#')}


def counters(s):
    """Those that a restart keeps."""
    return {k: v for k, v in metrics(s).items() if re.search(r'_total\b', k) and not k.startswith('audit_lost')}


def logged(s, event=None):
    with open(s.audit_log) as f:
        return [r for r in map(json.loads, f) if event in (None, r['event'])]


def again(host, s, *flags, **kw):
    """Another server with the files of s, which ends first."""
    equal(s.stop(), 0, s.log())
    new = host.server(*flags, env=dict(OMNIARENA_AUDIT_LOG=s.audit_log, OMNIARENA_STATE_DIR=s.state_dir), **kw)
    new.audit_log, new.state_dir, new.auth = s.audit_log, s.state_dir, s.auth
    return new


def at_once(s, *paths, auth=BASIC):
    """(status, headers, body) of each: they arrive in one packet, so that no time passes between them. auth: of all, or of each"""
    auths = [auth] * len(paths) if isinstance(auth, str) else auth
    with s.connect() as c:
        c.sendall(b''.join(b'GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\n\r\n' % (p.encode(), a.encode()) for p, a in zip(paths, auths)))
        f, out = c.makefile('rb'), []
        for _ in paths:
            status = int(f.readline().split()[1])
            h = http.client.parse_headers(f)
            out.append((status, h, f.read(int(h['Content-Length']))))
        return out


def read(path):
    with open(path) as f:
        return f.read()


# ---- all requests ----

@test
def requests_a_second(host):
    with host.server('--max-rps', '5') as s:
        got = at_once(s, *['/healthz'] * 20, *['/api/settings'] * 8, *['/healthz'] * 20)
        equal([r[0] for r in got], [200] * 25 + [429] * 3 + [200] * 20)
        for _, h, data in got[25:28]:
            r = json.loads(data)
            equal((r['ok'], r['code'], h['Retry-After'], h['Content-Type']), (False, 'rate', '1', 'application/json'))
        time.sleep(int(got[27][1]['Retry-After']))
        equal(s.request('GET', '/api/settings')[0], 200, 'after the seconds of Retry-After')
        rows = logged(s, 'RATE')
        equal([(r['cmd'], r['result']) for r in rows], [('/api/settings', 'RATE_LIMIT')] * 3)
        equal(metrics(s)['rate_limited_total'], 3)
        shown = [e for e in s.json('GET', '/api/audit')['events'] if e['event'] == 'RATE']
        equal([(e['seq'], e['result']) for e in shown], [(r['seq'], 'RATE_LIMIT') for r in rows])


@test
def refused_requests_change_nothing(host):
    with host.server('--max-rps', '1') as s:
        with s.connect() as c:
            body = b'{"cmd":"echo ran"}'
            post = b'POST /api/exec HTTP/1.1\r\nHost: localhost\r\nX-Agent: a\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s' % (BASIC.encode(), len(body), body)
            c.sendall(b'GET /api/health HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\n\r\n' % BASIC.encode() + post)
            text = b''
            while chunk := c.recv(65536):  # what has a body ends the connection
                text += chunk
        equal([int(m) for m in re.findall(rb'^HTTP/1.1 (\d+)', text, re.M)], [200, 429])
        time.sleep(1)
        a = agents(s)['a']
        equal((a['execs'], a['rate_limited'], a['rate_1m']), (0, 1, 0))
        equal([(r['agent'], r['cmd'], r['result']) for r in logged(s, 'RATE')], [('a', '/api/exec', 'RATE_LIMIT')])
        equal(logged(s, 'RUN') + logged(s, 'EXEC'), [])


@test
def unknown_paths_are_requests_too(host):
    with host.server('--max-rps', '3') as s:
        equal([r[0] for r in at_once(s, *['/api/nosuch'] * 3, '/api/settings')], [404] * 3 + [429])


# ---- each agent ----

@test
def commands_a_minute(host):
    with host.server('--max-rate-per-agent', '3') as s:
        begun = time.monotonic()
        for i in range(3):
            equal(agents(s).get('a', {'rate_1m': 0})['rate_1m'], i)
            execute(s, 'true', 'a')
        retry = int(exec_refused(s, 'rate', 'a', 'echo refused')['Retry-After'])
        check(60 - int(time.monotonic() - begun) - 1 <= retry <= 60, 'Retry-After:', retry)
        execute(s, 'true', 'b')
        execute(s, 'true')
        for method, path, body in (('GET', '/api/agents', None), ('GET', '/api/health', None), ('POST', '/api/policy/test', '{"cmd":"ls"}')):
            s.json(method, path, body, headers={'X-Agent': 'a'})
        exec_refused(s, 'rate', 'a')
        all = agents(s)
        equal([(n, all[n]['rate_1m'], all[n]['execs'], all[n]['rate_limited'], all[n]['rate_limit']) for n in ('a', 'b', 'default')],
              [('a', 3, 3, 2, 3), ('b', 1, 1, 0, 3), ('default', 1, 1, 0, 3)])
        equal([(r['agent'], r['cmd'], r['result']) for r in logged(s, 'RATE')], [('a', 'echo refused', 'RATE_LIMIT'), ('a', 'true', 'RATE_LIMIT')])
        m = metrics(s)
        equal((m['rate_limited_total'], m['agent_rate_limited_total{agent="a"}'], m['execs_total']), (2, 2, 5))


@test
def sections_have_rates(host):
    config = host.file('[whitelist]\ntrue\n[agent slow]\nrate=1\n[agent free]\nrate=0\n[agent fast]\nrate=4\n')
    with host.server('--config', config, '--max-rate-per-agent', '2') as s:
        for name, n in (('slow', 1), ('fast', 4), ('other', 2)):
            for _ in range(n):
                execute(s, 'true', name)
            exec_refused(s, 'rate', name)
        for _ in range(6):
            execute(s, 'true', 'free')
        equal({n: (a['rate_1m'], a['rate_limit']) for n, a in agents(s).items()}, {'slow': (1, 1), 'fast': (4, 4), 'other': (2, 2), 'free': (6, 0)})
        equal(s.json('GET', '/api/agents')['rate_limit'], 2)


@test
def what_counts_for_the_rate(host):
    with host.server('--max-rate-per-agent', '3', config=False) as s:
        execute(s, 'wget x', 'a', 403)
        execute(s, 'perl', 'a', 403)
        refused(s, 'bad_json', 'POST', '/api/exec', '{', 400, {'X-Agent': 'a'})
        refused(s, 'bad_request', 'POST', '/api/exec', '{"cmd":5}', 400, {'X-Agent': 'a'})
        execute(s, 'ls', 'a')
        exec_refused(s, 'rate', 'a', 'ls')
        exec_refused(s, 'rate', 'a', 'wget x')
        a = agents(s)['a']
        equal((a['rate_1m'], a['execs'], a['blocked'], a['rate_limited']), (3, 1, 2, 2))


# ---- agents ----

@test
def who_is_registered(host):
    with host.server() as s:
        r = s.json('GET', '/api/agents')
        equal((r['agents'], r['count'], r['max'], r['rate_limit']), ([], 0, 8, 0))
        requests = (('GET', '/api/health', None), ('GET', '/api/policy', None), ('GET', '/api/audit', None), ('POST', '/api/policy/test', '{"cmd":"ls"}'),
                    ('GET', '/api/agents', None), ('POST', '/api/exec', '{"cmd":"true"}'), ('GET', '/api/settings', None))
        for i, (method, path, body) in enumerate(requests):
            s.json(method, path, body, headers={'X-Agent': 'a.%d' % i})
            equal(sorted(agents(s)), ['a.%d' % k for k in range(i + 1)], 'without a name nobody is registered by looking')
        s.request('GET', '/healthz', headers={'X-Agent': 'public'})
        equal(s.request('GET', '/api/health', headers={'X-Agent': 'stranger', 'Authorization': WRONG})[0], 401)
        s.ok('true')
        equal(sorted(agents(s)), ['a.%d' % k for k in range(7)] + ['default'])
        equal(s.health()['agents_count'], 8)
        for name in ('a.0', 'default'):
            execute(s, 'true', name)
        equal({n: agents(s)[n]['execs'] for n in ('a.0', 'a.5', 'default')}, {'a.0': 1, 'a.5': 1, 'default': 2})
        equal(s.json('GET', '/api/agents')['count'], 8)


@test
def names_of_agents(host):
    with host.server() as s:
        for name in ('', 'a b', 'a/b', 'a"b', 'ä', 'a\t', 'a' * 64, 'a,b', '[a]', 'a:b'):
            for method, path, body in (('GET', '/api/health', None), ('POST', '/api/exec', '{"cmd":"true"}')):
                got, _, data = s.request(method, path, body, {'X-Agent': name.encode()})
                if name == 'a\t' and got == 200:
                    continue  # blanks around a value are no part of it
                equal((got, json.loads(data)['code']), (400, 'bad_request'), repr(name), path)
        equal(set(agents(s)) - {'a'}, set())
        for name in ('A-Z_a.z-09', 'x' * 63, '-', '..'):
            execute(s, 'true', name)
        equal(set(agents(s)) - {'a'}, {'A-Z_a.z-09', 'x' * 63, '-', '..'})


@test
def too_many_agents(host):
    for flags, most in (((), 8), (('--max-agents', '2'), 2)):
        with host.server(*flags) as s:
            for i in range(most):
                s.json('GET', '/api/health', headers={'X-Agent': 'a%d' % i})
            h = exec_refused(s, 'agents', 'one-more')
            check(3600 - 60 <= int(h['Retry-After']) <= 3600, 'all were there a moment ago', h['Retry-After'])
            refused(s, 'agents', 'GET', '/api/health', headers={'X-Agent': 'one-more'})
            refused(s, 'agents', 'POST', '/api/exec', '{"cmd":"true"}')  # as default
            refused(s, 'agents', 'POST', '/api/budget', '{"agent":"one-more","max_tokens":5}')
            execute(s, 'true', 'a0')
            r = s.json('GET', '/api/agents')
            equal((sorted(a['name'] for a in r['agents']), r['count'], r['max']), (['a%d' % i for i in range(most)], most, most))
            rows = [(e['agent'], e['result']) for e in logged(s, 'RATE')]
            equal(rows[:3], [('one-more', 'AGENTS'), ('one-more', 'AGENTS'), ('default', 'AGENTS')])
            equal(metrics(s)['rate_limited_total'], len(rows))


@test
def agents_are_not_idle_after_a_restart(host):
    """Only who was idle for an hour makes room."""
    with host.server('--max-agents', '2') as s:
        for name in ('a', 'b'):
            execute(s, 'true', name, Tokens_In=5)
        with again(host, s, '--max-agents', '2') as s:
            exec_refused(s, 'agents', 'c')
            equal(sorted(agents(s)), ['a', 'b'])


@test
def what_is_said_of_agents(host):
    with host.server(config=False) as s:
        begun = int(time.time())
        execute(s, 'echo abc', 'a', Tokens_In=15000, Tokens_Out=8200, Model='claude-4')
        execute(s, 'echo 12345 >&2; perl', 'a', 403)
        execute(s, 'cat /no-such-file; exit 3', 'a')
        equal(s.post({'cmd': 'python3 -c "import sys; sys.stderr.write(\'e\' * 7); sys.exit(3)"'}, headers={'X-Agent': 'a'})['exit_code'], 3)
        errors = len("cat: /no-such-file: No such file or directory\n")
        s.json('POST', '/api/budget', '{"agent":"a","max_tokens":50000}')
        a = agents(s)['a']
        check(begun <= a.pop('last_active') <= int(time.time()), 'last_active')
        want = dict(name='a', execs=3, blocked=1, bytes=4 + errors + 7, rate_1m=4, tokens_in=15000, tokens_out=8200, tokens_total=23200, token_budget=50000, model='claude-4')
        equal({k: a[k] for k in want}, want)
        equal([k for k in s.json('GET', '/api/agents')['agents'][0]][:11], ['name', 'execs', 'blocked', 'bytes', 'rate_1m', 'last_active', 'tokens_in', 'tokens_out', 'tokens_total', 'token_budget', 'model'])
        h = s.health()
        equal((h['total_execs'], h['blocked_cmds'], h['bytes_captured'], h['agents_count']), (3, 1, want['bytes'], 1))
        s.json('GET', '/api/health', headers={'X-Agent': 'b'})
        b = agents(s)['b']
        equal((b['execs'], b['tokens_total'], b['token_budget'], b['model'], b['running']), (0, 0, 0, '', 0))


# ---- tokens ----

@test
def tokens_add_up(host):
    with host.server() as s:
        def tokens(name='a'):
            a = agents(s)[name]
            return a['tokens_in'], a['tokens_out'], a['tokens_total'], a['model']
        s.json('GET', '/api/health', headers={'X-Agent': 'a', 'X-Tokens-In': '10', 'X-Model': 'one'})
        equal(tokens(), (10, 0, 10, 'one'))
        s.json('POST', '/api/policy/test', '{"cmd":"ls"}', headers={'X-Agent': 'a', 'X-Tokens-Out': '5'})
        equal(tokens(), (10, 5, 15, 'one'))
        s.json('GET', '/api/audit', headers={'X-Agent': 'a', 'X-Tokens-In': '1', 'X-Tokens-Out': '2', 'X-Model': 'two'})
        equal(tokens(), (11, 7, 18, 'two'))
        execute(s, 'true', 'a', Tokens_In=100, Tokens_Out=0, Model='three é')
        equal(tokens(), (111, 7, 118, 'three é'))
        s.post({'cmd': 'true', 'tokens_in': 1000, 'tokens_out': 2000, 'model': 'body'}, headers={'X-Agent': 'a', 'X-Tokens-In': '7', 'X-Tokens-Out': '7', 'X-Model': 'header'})
        equal(tokens(), (1111, 2007, 3118, 'body'))
        execute(s, 'nosuchprogram', 'a', 403, Tokens_In=1)
        equal(tokens()[:3], (1112, 2007, 3119), 'a blocked command is no reason not to count')
        s.post({'cmd': 'true', 'tokens_in': 3})
        equal(tokens('default'), (3, 0, 3, ''))
        s.json('GET', '/api/health', headers={'X-Tokens-In': '4'})  # of who is known already
        equal(tokens('default'), (7, 0, 7, ''))
        s.post({'cmd': 'true', 'model': 'm' * 64}, headers={'X-Agent': 'a'})
        equal(tokens()[3], 'm' * 64)
        equal(s.request('GET', '/api/health', headers={'X-Agent': 'a', 'X-Tokens-In': '50', 'Authorization': WRONG})[0], 401)
        equal(tokens()[:3], (1112, 2007, 3119), 'whoever it is who says so')
        m = metrics(s)
        equal((m['agent_tokens_in_total{agent="a"}'], m['agent_tokens_out_total{agent="a"}']), (1112, 2007))


@test
def bad_tokens_change_nothing(host):
    with host.server() as s:
        execute(s, 'true', 'a', Tokens_In=1, Tokens_Out=2, Model='m')
        before = kept(s)
        for h in ({'In': '-1'}, {'In': 'x'}, {'In': ''}, {'In': '1.5'}, {'In': '1e3'}, {'In': '0x10'}, {'In': '+1'}, {'In': '99999999999999999999'}, {'In': '1 2'},
                  {'In': '5', 'Out': '-5'}, {'In': 'x', 'Out': '5'}):
            for method, path, body in (('GET', '/api/health', None), ('POST', '/api/exec', '{"cmd":"echo ran"}')):
                refused(s, 'bad_request', method, path, body, 400, {'X-Agent': 'a', **{'X-Tokens-' + k: v for k, v in h.items()}})
        for model in (b'm' * 65, b'a\xff', b'a\xc2\x85b', b'a\x7fb', b'a\tb'):
            refused(s, 'bad_request', 'GET', '/api/health', None, 400, {'X-Agent': 'a', 'X-Model': model, 'X-Tokens-In': '5'})
        for field in ({'tokens_in': -1}, {'tokens_in': '5'}, {'tokens_out': 1.5}, {'tokens_out': None}, {'tokens_in': 1e30}, {'tokens_in': 5, 'tokens_out': -1}, {'model': 5},
                      {'model': 'm' * 65, 'tokens_in': 5}, {'model': 'é' * 33}, {'model': 'a\nb'}, {'model': 'a\x00b'}, {'model': 'a\x1b[2J'}, {'model': 'a\x7f'}, {'model': 'a\u0085'}):
            refused(s, 'bad_request', 'POST', '/api/exec', json.dumps({'cmd': 'echo ran', **field}), 400, {'X-Agent': 'a'})
        after = kept(s)
        equal({n: {**a, 'last_active': 0} for n, a in after.items()}, {n: {**a, 'last_active': 0} for n, a in before.items()})
        equal(len(logged(s, 'EXEC')), 1)


# ---- budgets ----

@test
def budgets(host):
    with host.server() as s:
        equal(s.json('POST', '/api/budget', '{"agent":"a","max_tokens":100}'), {'ok': True, 'agent': 'a', 'max_tokens': 100})
        equal(agents(s)['a']['token_budget'], 100, 'it is known from then on')
        execute(s, 'true', 'a', Tokens_In=60, Tokens_Out=39)
        execute(s, 'true', 'a')
        s.json('GET', '/api/health', headers={'X-Agent': 'a', 'X-Tokens-Out': '1'})
        h = exec_refused(s, 'budget', 'a', 'echo ran')
        check(int(h['Retry-After']) > 0)
        s.json('GET', '/api/health', headers={'X-Agent': 'a'})
        execute(s, 'true', 'b', Tokens_In=10**6)
        a = agents(s)['a']
        equal((a['execs'], a['over_budget'], a['tokens_total']), (2, 1, 100))
        equal([(r['agent'], r['cmd'], r['result']) for r in logged(s, 'BUDGET')], [('a', 'echo ran', 'OVER_BUDGET')])
        equal([r['agent'] for r in logged(s, 'RUN')], ['a', 'a', 'b'])
        equal(metrics(s)['over_budget_total'], 1)
        s.json('POST', '/api/budget', '{"agent":"a","max_tokens":101}')
        execute(s, 'true', 'a')
        s.json('POST', '/api/budget', '{"agent":"a","max_tokens":1}')
        exec_refused(s, 'budget', 'a')
        s.json('POST', '/api/budget', '{"agent":"a","max_tokens":0}')
        execute(s, 'true', 'a')
        equal(agents(s)['a']['token_budget'], 0)
        equal([(r['cmd'], r['exit_code']) for r in logged(s, 'CONFIG')], [('budget a', n) for n in (100, 101, 1, 0)])


@test
def default_budget(host):
    config = host.file('[whitelist]\ntrue\n[agent rich]\ntoken_budget=1000\n[agent free]\ntoken_budget=0\n')
    with host.server('--config', config) as s:
        for name in ('rich', 'free', 'poor'):
            execute(s, 'true', name, Tokens_In=50)
        r = s.json('POST', '/api/budget', '{"default":50}')
        equal((r['ok'], r['default'], r['persisted']), (True, 50, True))
        equal(s.health()['default_token_budget'], 50)
        exec_refused(s, 'budget', 'poor')
        execute(s, 'true', 'new', Tokens_In=49)
        execute(s, 'true', 'rich', Tokens_In=949)
        execute(s, 'true', 'free', Tokens_In=10**9)
        s.json('GET', '/api/health', headers={'X-Agent': 'rich', 'X-Tokens-In': '1'})
        exec_refused(s, 'budget', 'rich')
        equal({n: a['token_budget'] for n, a in agents(s).items()}, {'rich': 1000, 'free': 0, 'poor': 50, 'new': 50})
        s.json('POST', '/api/budget', '{"agent":"rich","max_tokens":0}')
        execute(s, 'true', 'rich')
        s.json('POST', '/api/budget', '{"default":0}')
        execute(s, 'true', 'poor')
        equal({n: a['token_budget'] for n, a in agents(s).items()}, {'rich': 0, 'free': 0, 'poor': 0, 'new': 0})


@test
def bad_budgets(host):
    with host.server() as s:
        s.json('POST', '/api/budget', '{"agent":"a","max_tokens":7}')
        s.json('POST', '/api/budget', '{"default":9}')
        bad(s, '/api/budget', {}, {'agent': 'a'}, {'max_tokens': 5}, {'agent': 'a', 'max_tokens': -1}, {'agent': 'a', 'max_tokens': '5'}, {'agent': 'a', 'max_tokens': 1.5},
            {'agent': 'a', 'max_tokens': None}, {'agent': 5, 'max_tokens': 5}, {'agent': 'a b', 'max_tokens': 5}, {'agent': '', 'max_tokens': 5}, {'agent': 'x' * 64, 'max_tokens': 5},
            {'default': -1}, {'default': 'x'}, {'default': True}, {'default': 5, 'agent': 'a', 'max_tokens': 5}, {'default': 5, 'max_tokens': 5}, {'default': 5, 'agent': 'a'},
            '[]', '{"default":5,"default":5}', '{"default":1e30}')
        refused(s, 'bad_json', 'POST', '/api/budget', '{', 400)
        refused(s, 'method', 'GET', '/api/budget', status=405)
        equal({n: a['token_budget'] for n, a in agents(s).items()}, {'a': 7})
        equal(s.health()['default_token_budget'], 9)
        equal(len(logged(s, 'CONFIG')), 2)


@test
def budgets_survive(host):
    text = '# the top\n[whitelist]\ntrue # runs\n\n[config] # keys\nprofile=0 # strict\n# between\n\n[agent b]\ntoken_budget=500 # its own\n# end\n'
    config = host.file(text)
    with host.server('--config', config) as s:
        s.json('POST', '/api/budget', '{"agent":"a","max_tokens":100}')
        s.json('POST', '/api/budget', '{"agent":"zero","max_tokens":0}')
        s.json('POST', '/api/budget', '{"default":77}')
        equal(read(config), text.replace('profile=0 # strict\n', 'profile=0 # strict\ndefault_token_budget=77\n'))
        s.json('POST', '/api/budget', '{"default":78}')
        saved = text.replace('profile=0 # strict\n', 'profile=0 # strict\ndefault_token_budget=78\n')
        equal(read(config), saved)
        s.json('GET', '/api/health', headers={'X-Agent': 'a', 'X-Tokens-In': '100'})
        exec_refused(s, 'budget', 'a')
        s.json('DELETE', '/api/sandbox')
        execute(s, 'true', 'a')  # what it spent is forgotten, what it may spend is not
        execute(s, 'true', 'a', Tokens_In=99)
        s.json('GET', '/api/health', headers={'X-Agent': 'b'})
        want = {'a': 100, 'zero': 0, 'b': 500}
        equal({n: a['token_budget'] for n, a in agents(s).items()}, want)
        with again(host, s, '--config', config) as s:
            equal({n: a['token_budget'] for n, a in agents(s).items()}, want)
            equal(s.health()['default_token_budget'], 78)
            s.json('GET', '/api/health', headers={'X-Agent': 'a', 'X-Tokens-In': '1'})
            exec_refused(s, 'budget', 'a')
            execute(s, 'true', 'zero', Tokens_In=1000)
            execute(s, 'true', 'new', Tokens_In=77)
            s.json('GET', '/api/health', headers={'X-Agent': 'new', 'X-Tokens-In': '1'})
            exec_refused(s, 'budget', 'new')
            equal(read(config), saved)


# ---- an agent's own token ----

@test
def an_own_token_is_one_agent(host):
    config = host.file('[whitelist]\ntrue\n[agent ops]\ntoken=%s\n[agent dev]\nrate=9\n' % OPS)
    with host.server('--config', config) as s:
        mine = {'Authorization': 'Bearer ' + OPS}
        s.post({'cmd': 'true', 'tokens_in': 3}, headers=mine)
        s.post({'cmd': 'true'}, headers={**mine, 'X-Agent': 'ops'})
        s.json('GET', '/api/health', headers={**mine, 'X-Tokens-Out': '4'})
        execute(s, 'true', 'dev')
        execute(s, 'true')
        a = agents(s)
        equal({n: a[n]['execs'] for n in a}, {'ops': 2, 'dev': 1, 'default': 1})
        equal((a['ops']['tokens_in'], a['ops']['tokens_out']), (3, 4))
        for other in ('dev', 'default', 'OPS'):
            refused(s, 'capability', 'POST', '/api/exec', '{"cmd":"true"}', 403, {**mine, 'X-Agent': other})
        for auth in (BASIC, DEFAULT_TOKEN):
            for method, path, body in (('POST', '/api/exec', '{"cmd":"true"}'), ('GET', '/api/health', None), ('POST', '/api/policy/test', '{"cmd":"true"}')):
                refused(s, 'capability', method, path, body, 403, {'Authorization': auth, 'X-Agent': 'ops', 'X-Tokens-In': '99'})
        for token in (OPS[:-1], OPS + '0', OPS.upper()):
            equal(s.request('GET', '/api/health', headers={'Authorization': 'Bearer ' + token})[0], 401, token)
        equal(s.request('GET', '/api/health', headers={'Authorization': basic(OPS, 'ops')})[0], 401)
        equal((agents(s)['ops']['execs'], agents(s)['ops']['tokens_in'], sorted(agents(s))), (2, 3, ['default', 'dev', 'ops']))
        # both see what is theirs
        mine_alone = s.json('GET', '/api/agents', headers=mine)
        equal(([x['name'] for x in mine_alone['agents']], mine_alone['count']), (['ops'], 1))
        for query in ('', '?agent=ops', '?limit=50'):
            r = s.json('GET', '/api/audit' + query, headers=mine)
            equal(([e['agent'] for e in r['events']], len(r['entries'])), (['ops', 'ops'], 2), query)
        for query in ('?agent=dev', '?agent='):
            r = s.json('GET', '/api/audit' + query, headers=mine)
            equal((r['events'], r['entries']), ([], []), query)
        equal({'ops', 'dev', 'default'} <= {e['agent'] for e in s.json('GET', '/api/audit')['events']}, True)
        check(OPS not in read(s.audit_log) and OPS not in s.log(), 'the token is written down')


@test
def an_own_token_changes_nothing(host):
    text = '[whitelist]\ntrue\n[agent ops]\ntoken=%s\ntoken_budget=10\n' % OPS
    config = host.file(text)
    with host.server('--config', config) as s:
        mine = {'Authorization': 'Bearer ' + OPS, 'X-Agent': 'ops'}
        execute(s, 'true', 'dev')
        settings, policy = s.json('GET', '/api/settings'), s.json('GET', '/api/policy')
        for method, path, body in (('POST', '/api/budget', '{"agent":"ops","max_tokens":0}'), ('POST', '/api/budget', '{"default":0}'), ('POST', '/api/settings', '{"max_rps":1}'),
                                   ('POST', '/api/auth/password', '{"current":"omniarena","new":"taken-over-1"}'), ('POST', '/api/profile', '{"profile":2}'),
                                   ('POST', '/api/policy', '{"action":"add","list":"whitelist","pattern":"perl"}'), ('POST', '/api/policy/reload', ''),
                                   ('DELETE', '/api/sandbox', None), ('GET', '/metrics', None), ('HEAD', '/metrics', None), ('GET', '/api/audit/export', None)):
            if method == 'HEAD':
                equal(s.request(method, path, headers=mine)[0], 403)
            else:
                refused(s, 'capability', method, path, body, 403, mine)
        equal((s.json('GET', '/api/settings'), s.json('GET', '/api/policy'), s.health()['profile_id'], read(config)), (settings, policy, 0, text))
        equal((agents(s)['dev']['execs'], logged(s, 'CONFIG') + logged(s, 'RESET')), (1, []))
        for path in ('/api/settings', '/api/policy', '/api/health', '/api/agents', '/api/audit'):
            s.json('GET', path, headers=mine)
        s.json('GET', '/api/health', headers={**mine, 'X-Tokens-In': '10'})
        refused(s, 'budget', 'POST', '/api/exec', '{"cmd":"true"}', headers=mine)


# ---- commands at once ----

class Running:
    """A command whose client can go away."""

    def __init__(self, s, cmd, agent='a'):
        body = json.dumps({'cmd': cmd}).encode()
        self.sock = s.connect()
        self.sock.sendall(b'POST /api/exec HTTP/1.1\r\nHost: localhost\r\nX-Agent: %s\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s' % (agent.encode(), s.auth.encode(), len(body), body))

    def close(self):
        self.sock.close()


@test
def commands_at_once(host):
    with host.server('--max-running', '2', '--profile', 'permissive') as s:
        slow = [Running(s, 'sleep 300') for _ in range(2)]
        until(lambda: metrics(s)['running'] == 2, what='both run')
        equal(agents(s)['a']['running'], 2)
        equal(int(exec_refused(s, 'busy', 'b', 'echo busy')['Retry-After']) > 0, True)
        equal([(r['agent'], r['cmd'], r['result']) for r in logged(s, 'RATE')], [('b', 'echo busy', 'BUSY')])
        b = agents(s)['b']
        equal((b['execs'], b['running']), (0, 0), 'it did not run')
        equal([r['cmd'] for r in logged(s, 'RUN')], ['sleep 300'] * 2)
        # one that waits takes the place of one that ends
        out = []
        third = threading.Thread(target=lambda: out.append(s.request('POST', '/api/exec', '{"cmd":"echo third"}')))
        third.start()
        until(lambda: metrics(s)['queued'] == 1, what='the third waits')
        slow.pop().close()
        third.join()
        equal((out[0][0], json.loads(out[0][2]).get('stdout')), (200, 'third\n'))
        slow.pop().close()
        until(lambda: s.health()['running'] == 0, what='nothing runs when nobody waits for it')
        equal(len(logged(s, 'RATE')), 1)


@test
def more_than_can_wait(host):
    """However many ask: each is answered, and as many run as may."""
    with host.server('--max-running', '2', '--profile', 'permissive') as s:
        slow = [Running(s, 'sleep 300') for _ in range(2)]
        until(lambda: metrics(s)['running'] == 2, what='both run')
        out = []
        threads = [threading.Thread(target=lambda: out.append(s.request('POST', '/api/exec', '{"cmd":"true"}'))) for _ in range(30)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        equal({(r[0], json.loads(r[2])['code'], int(r[1]['Retry-After']) > 0) for r in out}, {(429, 'busy', True)})
        equal([r['result'] for r in logged(s, 'RATE')], ['BUSY'] * 30)
        equal(metrics(s)['rate_limited_total'], 30)
        [r.close() for r in slow]
        until(lambda: s.health()['running'] == 0, what='nothing runs')
        s.ok('true')


# ---- log-ins ----

@test
def wrong_log_ins(host):
    with host.server() as s:
        conn = http.client.HTTPConnection('127.0.0.1', s.port, timeout=30)
        equal(s.request('GET', '/api/health', conn=conn)[0], 200)
        wrong = [WRONG, 'Bearer x', 'Bearer ', 'Basic', 'Basic !!!!', 'Digest a', basic('omniarena', 'root'), basic('omniarena '), basic(''), 'Bearer omniarena-default-toke']
        begun = time.monotonic()
        for auth in wrong:
            got, h, data = s.request('GET', '/api/health', headers={'Authorization': auth})
            equal((got, h['WWW-Authenticate'], json.loads(data)['code']), (401, 'Basic realm="OmniArena"', 'unauthorized'), auth)
        if time.monotonic() - begun > 5:
            raise Skip('this machine is too slow: one try has become free')
        first = refused(s, 'rate', 'GET', '/api/health', headers={'Authorization': WRONG})
        refused(s, 'rate', 'GET', '/api/health')  # right ones, but one who guesses must not learn that
        refused(s, 'rate', 'POST', '/api/exec', '{"cmd":"true"}', headers={'Authorization': DEFAULT_TOKEN})
        equal(s.request('GET', '/healthz')[0], 200)
        equal(s.request('GET', '/api/health', conn=conn)[0], 200, 'who was let in before')
        check(1 <= int(first['Retry-After']) <= 6, 'ten a minute are one each six seconds', first['Retry-After'])
        equal([(r['cmd'], r['result'], 'agent' in r) for r in logged(s, 'AUTH')], [('127.0.0.1', 'FAILED', False)] * 10)
        equal(logged(s, 'RUN'), [])
        time.sleep(int(first['Retry-After']))
        begun = time.monotonic()
        equal(s.request('GET', '/api/health', headers={'Authorization': WRONG})[0], 401, 'after the seconds of Retry-After')
        got = s.request('GET', '/api/health')
        check(got[0] == 429 or time.monotonic() - begun > 4, 'one try alone', got)
        equal(len(logged(s, 'AUTH')), 11)
        time.sleep(int(got[1]['Retry-After'] or 0))
        m = metrics(s)
        equal(m['auth_failures_total'], 11)
        conn.close()


@test
def no_credentials_are_a_wrong_log_in(host):
    with host.server() as s:
        got = [s.request('GET', '/api/health', auth=False)[0] for _ in range(2)] + [s.request('GET', p, auth=False)[0] for p in ('/api/nosuch', '/metrics')]
        equal(got, [401] * 4)
        equal(len(logged(s, 'AUTH')), 4)
        s.health()
        # right ones in between do not make the wrong ones forgotten
        for _ in range(6):
            equal(s.request('GET', '/api/health', auth=False)[0], 401)
        refused(s, 'rate', 'GET', '/api/health')


# ---- settings ----

@test
def settings_are_in_force_at_once(host):
    with host.server() as s:
        equal(s.json('GET', '/api/settings'), {'ok': True, 'max_rate_per_agent': 0, 'timeout_ms': 0, 'max_rps': 0})
        r = s.json('POST', '/api/settings', '{"max_rate_per_agent":1,"timeout_ms":300}')
        equal({k: r[k] for k in ('ok', 'max_rate_per_agent', 'timeout_ms', 'max_rps')}, {'ok': True, 'max_rate_per_agent': 1, 'timeout_ms': 300, 'max_rps': 0})
        h = s.health()
        equal((h['max_rate_per_agent'], h['limits']['timeout_ms'], h['max_rps']), (1, 300, 0))
        r = execute(s, 'sleep 20', 'a')
        equal((r['ok'], r['exit_code'], r['timed_out'], r['error']), (False, 124, True, 'timeout after 300 ms'))
        exec_refused(s, 'rate', 'a')
        s.json('POST', '/api/settings', '{"max_rate_per_agent":0}')
        r = s.post({'cmd': 'sleep 20', 'timeout_ms': 4000}, headers={'X-Agent': 'a'})
        equal(r['error'], 'timeout after 300 ms', 'it caps what a request asks for')
        equal(s.post({'cmd': 'sleep 20', 'timeout_ms': 100}, headers={'X-Agent': 'a'})['error'], 'timeout after 100 ms')
        equal(s.json('POST', '/api/profile', '{"profile":1}')['timeout_ms'], 300, 'a change of profile')
        equal(s.json('POST', '/api/settings', '{"timeout_ms":60000}')['timeout_ms'], 60000)
        equal(s.health()['limits']['timeout_ms'], 30000, 'it does not widen the profile')
        s.json('POST', '/api/settings', '{"timeout_ms":0}')
        equal(s.health()['limits']['timeout_ms'], 30000)
        s.json('POST', '/api/settings', '{"max_rps":2}')
        equal([x[0] for x in at_once(s, *['/api/settings'] * 4)].count(429) >= 2, True)
        until(lambda: s.request('POST', '/api/settings', '{"max_rps":0}')[0] == 200, what='the limit is lifted')
        equal([x[0] for x in at_once(s, *['/api/settings'] * 30)], [200] * 30)
        equal([(r['cmd'], r['exit_code']) for r in logged(s, 'CONFIG')],
              [('set max_rate_per_agent', 1), ('set timeout_ms', 300), ('set max_rate_per_agent', 0), ('set_profile', 1), ('set timeout_ms', 60000), ('set timeout_ms', 0), ('set max_rps', 2), ('set max_rps', 0)])


@test
def settings_survive(host):
    text = '# mine\n[config]\n# how often\n max_rps = 9 # a second\nprofile=1\n\n[whitelist]\nls # lists\n[agent a]\nrate=5\n'
    config = host.file(text)
    with host.server('--config', config, wrap=WITHOUT_LIMITS_OF_TESTS) as s:
        equal(s.json('GET', '/api/settings'), {'ok': True, 'max_rate_per_agent': 30, 'timeout_ms': 0, 'max_rps': 9})
        r = s.json('POST', '/api/settings', '{"max_rps":100,"max_rate_per_agent":12,"timeout_ms":4321}')
        equal(r['persisted'], True)
        saved = read(config)
        equal(saved, text.replace('max_rps = 9 #', 'max_rps=100 #').replace('profile=1\n', 'profile=1\nmax_rate_per_agent=12\ntimeout_ms=4321\n'))
        equal(s.json('POST', '/api/settings', '{"max_rps":99}')['max_rps'], 99)
        equal(read(config), saved.replace('100', '99'))
        s.json('POST', '/api/policy/reload', '')
        equal(s.json('GET', '/api/settings'), {'ok': True, 'max_rate_per_agent': 12, 'timeout_ms': 4321, 'max_rps': 99}, 'the file read anew')
        with again(host, s, '--config', config, wrap=WITHOUT_LIMITS_OF_TESTS) as s:
            equal(s.json('GET', '/api/settings'), {'ok': True, 'max_rate_per_agent': 12, 'timeout_ms': 4321, 'max_rps': 99})
            equal(s.health()['profile_id'], 1)
            with again(host, s, '--config', config, '--max-rps', '50', '--timeout-ms', '1000', wrap=WITHOUT_LIMITS_OF_TESTS) as s:
                equal(s.json('GET', '/api/settings'), {'ok': True, 'max_rate_per_agent': 12, 'timeout_ms': 1000, 'max_rps': 50}, 'a flag wins')
                s.json('POST', '/api/settings', '{"max_rps":60}')
                equal(s.json('GET', '/api/settings')['max_rps'], 60, 'until somebody says otherwise')
                with again(host, s, '--config', config, '--max-rps', '50', wrap=WITHOUT_LIMITS_OF_TESTS) as s:
                    equal(s.json('GET', '/api/settings'), {'ok': True, 'max_rate_per_agent': 12, 'timeout_ms': 4321, 'max_rps': 50})
                    equal(read(config), saved.replace('100', '60'))


@test
def settings_without_a_section(host):
    for text in ('', '[whitelist]\nls', '# only\n', '[config]'):
        config = host.file(text)
        with host.server('--config', config, config=False) as s:
            s.json('POST', '/api/settings', '{"timeout_ms":1234}')
            s.json('POST', '/api/settings', '{"timeout_ms":1235}')
            whitelist = s.json('GET', '/api/policy')['whitelist']
            check(read(config).startswith(text), text, read(config))
            equal(re.findall(r'(?m)^timeout_ms=(.*)$', read(config)), ['1235'])
            with again(host, s, '--config', config) as s:
                equal((s.json('GET', '/api/settings')['timeout_ms'], s.json('GET', '/api/policy')['whitelist']), (1235, whitelist), text)


@test
def bad_settings(host):
    text = '[config]\ntimeout_ms=5000\n'
    config = host.file(text)
    with host.server('--config', config) as s:
        before = s.json('GET', '/api/settings')
        bad(s, '/api/settings', {}, {'max_rps': -1}, {'max_rps': 1000001}, {'max_rps': '5'}, {'max_rps': 1.5}, {'max_rps': None}, {'max_rps': True}, {'max_rps': [5]},
            {'max_rate_per_agent': 65536}, {'max_rate_per_agent': -1}, {'timeout_ms': 86400001}, {'timeout_ms': -1}, {'timeout_ms': 1e30}, {'unknown': 5},
            {'max_rps': 5, 'timeout_ms': -1}, {'timeout_ms': 9, 'max_rate_per_agent': 'x'}, '{"max_rps":5,"max_rps":5}', '[1]', '5')
        refused(s, 'bad_json', 'POST', '/api/settings', '{"max_rps":05}', 400)
        refused(s, 'bad_json', 'POST', '/api/settings', '', 400)
        refused(s, 'method', 'DELETE', '/api/settings', status=405)
        equal((s.json('GET', '/api/settings'), read(config), logged(s, 'CONFIG')), (before, text, []))
        r = s.json('POST', '/api/settings', '{"max_rps":1000000,"max_rate_per_agent":65535,"timeout_ms":86400000,"unknown":5}')
        equal((r['max_rps'], r['max_rate_per_agent'], r['timeout_ms']), (1000000, 65535, 86400000))


# ---- the password ----

def change(s, current, new, status=200, **kw):
    return s.json('POST', '/api/auth/password', json.dumps({'current': current, 'new': new}), status=status, timeout=120, **kw)


def may(s, auth):
    return s.request('GET', '/api/health', headers={'Authorization': auth}, timeout=120)[0]


@test
def a_new_password(host):
    new = 'pässword: 1 "x"'
    with host.server() as s:
        path = os.path.join(s.state_dir, 'password')
        equal((may(s, DEFAULT_TOKEN), os.path.exists(path)), (200, False))
        equal(change(s, 'omniarena', new)['ok'], True)
        equal([may(s, a) for a in (BASIC, DEFAULT_TOKEN, basic(new), basic(new, 'root'), basic(new + 'x'), basic(new))], [401, 401, 200, 401, 401, 200])
        st = os.stat(path)
        equal((stat.S_IMODE(st.st_mode), stat.S_ISREG(st.st_mode)), (0o600, True))
        s.auth = basic(new)
        equal(s.health()['default_credentials'], False)
        # again: what is compared now is what was stored
        equal(change(s, 'omniarena', 'another-password', 403)['code'], 'capability')
        equal(may(s, basic(new)), 200, 'after a wrong one')
        first = read(path)
        change(s, new, new)
        check(read(path) != first, 'the same password has the same salt')
        change(s, new, 'another-password')
        equal([may(s, a) for a in (basic(new), basic('another-password'))], [401, 200])
        s.auth = basic('another-password')
        rows = logged(s)
        equal([r['cmd'] for r in rows if r['event'] == 'CONFIG'], ['set_password'] * 3)
        with again(host, s) as s:
            equal([may(s, a) for a in (basic(new), DEFAULT_TOKEN, basic('another-password'), BASIC)], [401, 401, 200, 401])
            equal(sorted(os.listdir(s.state_dir)), ['password', 'state'])
            everything = read(path) + read(os.path.join(s.state_dir, 'state')) + read(s.audit_log) + s.log()
            check(not [p for p in ('pässword', 'p\\u00e4ssword', 'another-password') if p in everything], 'a password is written down')


@test
def old_connections_after_a_new_password(host):
    with host.server() as s:
        conn, own = (http.client.HTTPConnection('127.0.0.1', s.port, timeout=120) for _ in range(2))
        equal(s.request('GET', '/api/health', conn=conn)[0], 200)
        change(s, 'omniarena', 'a-new-password', conn=own)
        equal(s.request('GET', '/api/health', conn=conn)[0], 401, 'it was let in with the old one')
        equal(s.request('GET', '/api/health', conn=own, headers={'Authorization': basic('a-new-password')})[0], 200)
        conn.close()
        own.close()


@test
def bad_new_passwords(host):
    with host.server() as s:
        equal(change(s, 'wrong', 'long-enough', 403)['code'], 'capability')
        equal(change(s, '', 'long-enough', 403)['code'], 'capability')
        for new in ('', '1234567', 'x' * 129, 'é' * 65, 'tab\tinside', 'line\nfeed', 'nul\0inside', 'del\x7finside', 'c1\u0085inside'):
            equal(change(s, 'omniarena', new, 400)['code'], 'bad_request', repr(new))
        bad(s, '/api/auth/password', {}, {'current': 'omniarena'}, {'new': 'long-enough'}, {'current': 5, 'new': 'long-enough'}, {'current': 'omniarena', 'new': 12345678},
            {'current': 'omniarena', 'new': None}, '{"current":"omniarena","new":"long-enough","new":"long-enough"}')
        equal((may(s, BASIC), os.path.exists(os.path.join(s.state_dir, 'password'))), (200, False))
        equal([r['result'] for r in logged(s, 'AUTH')], ['FAILED'] * 2)
        equal(logged(s, 'CONFIG'), [])
        for new in ('12345678', 'é' * 64, 'x' * 128):
            change(s, {'12345678': 'omniarena', 'é' * 64: '12345678', 'x' * 128: 'é' * 64}[new], new)
            s.auth = basic(new)
            equal(s.health()['ok'], True, 'with', new)


@test
def guessing_the_current_password(host):
    """It is a log-in as any other."""
    with host.server() as s:
        conn = http.client.HTTPConnection('127.0.0.1', s.port, timeout=30)
        got = [s.request('POST', '/api/auth/password', '{"current":"guess%d","new":"taken-over-1"}' % i, conn=conn)[0] for i in range(12)]
        equal(got, [403] * 10 + [429] * 2)
        conn.close()


@test
def a_damaged_password_file(host):
    with host.server() as s:
        change(s, 'omniarena', 'a-new-password')
        path = os.path.join(s.state_dir, 'password')
    good = read(path)
    fields = good.split()
    files = dict(OMNIARENA_AUDIT_LOG=s.audit_log, OMNIARENA_STATE_DIR=s.state_dir)
    for text in ('', '\n', good[:len(good) // 2], good[:-2], good.replace(fields[0], 'crypt'), good.replace(fields[1], '0'), good.replace(fields[1], '-1'),
                 good.replace(fields[2], fields[2][:-1] + 'g'), 'x' * 10000, 'omniarena\n'):
        with open(path, 'w') as f:
            f.write(text)
        other = host.server(env=files, ready=False)
        equal(other.wait(), 1, repr(text))
        check('password file %s: ' % path in other.log() and 'damaged' in other.log(), repr(text[:80]), other.log())
        equal(read(path), text, 'it was touched')
    with open(path, 'w') as f:
        f.write(good)
    os.chmod(path, 0o644)
    other = host.server(env=files, ready=False)
    equal(other.wait(), 1)
    check('chmod 600' in other.log(), other.log())
    os.chmod(path, 0o600)
    with host.server(env=files, auth=basic('a-new-password')) as s:
        equal(s.health()['ok'], True)


@test
def a_log_in_and_a_change_in_one_packet(host):
    """The log-in must be checked first, and the change begins in the same turn."""
    with host.server() as s:
        change(s, 'omniarena', 'a-new-password')
        body = b'{"current":"a-new-password","new":"another-password"}'
        with s.connect(120) as c:
            c.sendall(b'POST /api/auth/password HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s' % (basic('a-new-password').encode(), len(body), body))
            equal(c.recv(12), b'HTTP/1.1 200')
        check(not re.search(r' 0{64}$', read(os.path.join(s.state_dir, 'password'))), 'the stored key is none')
        equal([r[0] for r in at_once(s, *['/api/health'] * 3, auth=basic('anything'))], [401] * 3)
        equal([may(s, basic(p)) for p in ('a-new-password', 'another-password')], [401, 200])
        with again(host, s) as s:
            equal([may(s, basic(p)) for p in ('a-new-password', 'another-password')], [401, 200])


@test
def log_ins_behind_each_other(host):
    """On one connection, neither of which was seen before."""
    right, wrong = basic('a-new-password'), basic('wrong')
    with host.server() as s:
        change(s, 'omniarena', 'a-new-password')
        for auths in ((right, right), (wrong, wrong), (wrong, right), (right, wrong)):
            with again(host, s) as s:
                equal([r[0] for r in at_once(s, '/api/health', '/api/health', auth=auths)], [200 if a == right else 401 for a in auths], auths)


@test
def several_log_ins_at_once(host):
    with host.server() as s:
        change(s, 'omniarena', 'a-new-password')
        with again(host, s) as s:  # which has seen no right one yet
            waiting = []
            for password in ('wrong-1', 'a-new-password', 'wrong-2', 'a-new-password'):
                waiting.append(s.connect(120))
                waiting[-1].sendall(b'GET /api/health HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\n\r\n' % basic(password).encode())
            with s.connect() as gone:
                gone.sendall(b'GET /api/health HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\n\r\n' % basic('wrong-3').encode())
            equal([c.recv(12) for c in waiting], [b'HTTP/1.1 ' + n for n in (b'401', b'200', b'401', b'200')])
            [c.close() for c in waiting]


@test
def others_are_served_while_a_password_is_checked(host):
    """A check takes hundreds of turns; in one of a few tries three small requests need not as many."""
    if host.sanitized:
        raise Skip('its passwords are stretched for three turns only')
    with host.server() as s:
        change(s, 'omniarena', 'a-new-password')

        def served_meanwhile(password):
            with s.connect(120) as c:
                c.sendall(b'GET /api/health HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\n\r\n' % basic(password).encode())
                equal([s.request('GET', '/healthz')[0] for _ in range(3)], [200] * 3)
                before = not select.select([c], [], [], 0)[0]
                equal(c.recv(12), b'HTTP/1.1 401')
                return before
        check(any([served_meanwhile('wrong-%d' % i) for i in range(5)]), 'all else stands still')


# ---- what a restart keeps ----

def use(s):
    """Something in every counter."""
    execute(s, 'echo abc', 'a', Tokens_In=10, Tokens_Out=20, Model='m "1" é')
    execute(s, 'echo abcdef', 'b', Tokens_In=1)
    execute(s, 'false', 'b')
    s.json('POST', '/api/budget', '{"agent":"a","max_tokens":30}')
    exec_refused(s, 'budget', 'a')
    for _ in range(2):
        execute(s, 'wget x', 'c', 403)
    exec_refused(s, 'rate', 'c')
    equal(s.request('GET', '/api/health', headers={'Authorization': WRONG})[0], 401)
    equal(s.post({'cmd': 'sleep 20', 'timeout_ms': 50})['timed_out'], True)


def policy_of(host):
    return host.file('[whitelist]\necho\nfalse\ntrue\nsleep\n[agent c]\nrate=2\n')


@test
def counters_survive(host):
    config = policy_of(host)
    with host.server('--config', config) as s:
        use(s)
        before, agents_before, health = counters(s), kept(s), s.health()
        want = dict(execs_total=4, blocked_total=2, rate_limited_total=1, over_budget_total=1, auth_failures_total=1, timeouts_total=1, captured_bytes_total=11)
        equal({k: before[k] for k in want}, want)
        with again(host, s, '--config', config) as s:
            equal(counters(s), before)
            equal(kept(s), agents_before)
            now = s.health()
            equal([now[k] for k in ('total_execs', 'blocked_cmds', 'bytes_captured', 'agents_count')], [health[k] for k in ('total_execs', 'blocked_cmds', 'bytes_captured', 'agents_count')])
            check(now['total_execs'] == 4 and 'state.bad' not in s.log(), s.log())
            equal(stat.S_IMODE(os.stat(os.path.join(s.state_dir, 'state')).st_mode), 0o600)
            execute(s, 'true', 'b')
            with again(host, s, '--config', config) as s:
                equal((counters(s)['execs_total'], agents(s)['b']['execs']), (5, 3))
                equal(os.listdir(s.state_dir), ['state'])


@test
def counters_survive_a_kill(host):
    with host.server() as s:
        execute(s, 'true', 'a', Tokens_In=7)
        path = os.path.join(s.state_dir, 'state')
        until(lambda: os.path.exists(path) and '"tokens_in":7' in read(path) and '"execs":1' in read(path), what='it is saved without being asked')
        s.proc.kill()
        s.wait()
        with host.server(env=dict(OMNIARENA_AUDIT_LOG=s.audit_log, OMNIARENA_STATE_DIR=s.state_dir)) as new:
            equal((agents(new)['a']['execs'], agents(new)['a']['tokens_in'], new.health()['total_execs']), (1, 7, 1))


@test
def a_torn_state_file(host):
    config = policy_of(host)
    with host.server('--config', config) as s:
        use(s)
    path = os.path.join(s.state_dir, 'state')
    with open(path, 'rb') as f:
        good = f.read()
    check(b'"execs":4' in good and b'"tokens_out":20' in good, good)
    changed = good.replace(b'"execs":4', b'"execs":5')
    for text in (good[:len(good) // 2], good[:-1], good[:20], b'x', changed, good + b' ', b'{"totals":{"execs":99}}\n', b'\x00' * 500, b'\xff\xfe' * 30000):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + '.bad')
        with open(path, 'wb') as f:
            f.write(text)
        with host.server('--config', config, env=dict(OMNIARENA_AUDIT_LOG=s.audit_log, OMNIARENA_STATE_DIR=s.state_dir)) as new:
            check(path + ' is torn' in new.log() and 'state.bad' in new.log(), text[:40], new.log())
            equal((new.health()['total_execs'], new.health()['blocked_cmds'], agents(new), sum(counters(new).values())), (0, 0, {}, 0), text[:40])
            execute(new, 'true', 'a')
            until(lambda: os.path.exists(path + '.bad'), what='it is set aside')
            with open(path + '.bad', 'rb') as f:
                equal(f.read(), text)
            equal(stat.S_IMODE(os.stat(path + '.bad').st_mode), 0o600)
        with host.server('--config', config, env=dict(OMNIARENA_AUDIT_LOG=s.audit_log, OMNIARENA_STATE_DIR=s.state_dir)) as new:
            equal((new.health()['total_execs'], 'state.bad' in new.log()), (1, False))


@test
def an_empty_state_file(host):
    """A file without a byte is torn as well: counters are not lost without a word."""
    with host.server() as s:
        execute(s, 'true', 'a')
    path = os.path.join(s.state_dir, 'state')
    with open(path, 'w'):
        pass
    with host.server(env=dict(OMNIARENA_AUDIT_LOG=s.audit_log, OMNIARENA_STATE_DIR=s.state_dir)) as new:
        equal((new.health()['total_execs'], agents(new)), (0, {}))
        check(path + ' is torn' in new.log(), new.log())


# ---- reset ----

@test
def reset(host):
    config = policy_of(host)
    with host.server('--config', config) as s:
        use(s)
        check(sum(counters(s).values()) > 0)
        lines = read(s.audit_log)
        equal(s.json('DELETE', '/api/sandbox', headers={'X-Agent': 'b'}), {'ok': True, 'message': 'sandbox reset'})
        h = s.health()
        equal((h['total_execs'], h['blocked_cmds'], h['bytes_captured']), (0, 0, 0))
        a = agents(s)
        equal((sorted(a), a['a']['token_budget'], a['a']['execs'], a['a']['tokens_total'], a['a']['model'], a['a']['over_budget']), (['a'], 30, 0, 0, '', 0), 'budgets stay')
        equal(sum(counters(s).values()), 0)
        r = s.json('GET', '/api/audit')
        equal(([(e['event'], e['agent']) for e in r['events']], len(r['entries'])), ([('RESET', 'b')], 1))
        check(' RESET ' in r['entries'][0], r['entries'])
        check(read(s.audit_log).startswith(lines), 'the log was touched')
        rows = logged(s)
        equal((rows[-1]['event'], rows[-1]['agent'], [x['seq'] for x in rows]), ('RESET', 'b', list(range(1, len(rows) + 1))))
        execute(s, 'true', 'd')
        equal((s.health()['total_execs'], [e['event'] for e in s.json('GET', '/api/audit')['events']]), (1, ['RESET', 'EXEC']))
        with again(host, s, '--config', config) as s:
            equal((s.health()['total_execs'], sorted(agents(s))), (1, ['a', 'd']))
            check(read(s.audit_log).startswith(lines), 'the log was touched')


@test
def reset_while_something_runs(host):
    with host.server('--profile', 'permissive') as s:
        execute(s, 'true', 'b')
        running = Running(s, 'sleep 300', 'a')
        until(lambda: metrics(s)['running'] == 1, what='it runs')
        s.json('DELETE', '/api/sandbox')
        equal((agents(s)['a']['running'], agents(s)['a']['execs']), (1, 0))
        running.close()
        until(lambda: s.health()['running'] == 0, what='it has ended')
        a = agents(s)['a']
        equal((a['running'], s.health()['total_execs'] == a['execs']), (0, True))
        s.json('DELETE', '/api/sandbox')
        equal(agents(s), {})


CONNECT = '''
import socket, sys
def held(address, n):
    socks, answered = [], 0
    for _ in range(n):
        s = socket.create_connection((address, int(sys.argv[1])), 5)
        s.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
        socks.append(s)
        try:
            answered += s.recv(100).startswith(b'HTTP/1.1 200')
        except ConnectionResetError:
            pass
    return answered
print(held('10.9.0.1', 15), held('127.0.0.1', 30))
'''


@test
def connections_of_one_address(host):
    """In a network namespace of its own, where an address that is not loopback reaches nobody else."""
    if host.name != 'root':
        raise Skip('only root makes addresses')
    setup = 'ip link set lo up && ip addr add 10.9.0.1/32 dev lo && exec "$0" "$@"'
    token = host.file('a-token-of-one-s-own-for-this\n')
    with host.server('--listen', '0.0.0.0', '--token-file', token, '--address-connections', '10',
                     wrap=['unshare', '-n', 'sh', '-c', setup]) as s:
        p = subprocess.run(['nsenter', '-t', str(s.pid), '-n', sys.executable, '-c', CONNECT, str(s.port)], capture_output=True, text=True)
        equal(p.stdout.split(), ['10', '30'], p.stderr)


@test
def guesses_on_a_connection_that_was_let_in(host):
    policy = host.file('[blacklist]\n[whitelist]\ntrue\n[agent ops]\ntoken=%s\n' % OPS)
    with host.server('--config', policy) as s:
        conn = http.client.HTTPConnection('127.0.0.1', s.port, timeout=30)
        ask = lambda auth: s.request('GET', '/api/health', headers={'Authorization': auth}, conn=conn)[0]
        equal(ask('Bearer ' + OPS), 200)
        equal([ask(WRONG) for _ in range(12)], [401] * 10 + [429] * 2, 'an agent could guess the owner\'s password')


@test
def the_published_password_is_none_of_ones_own(host):
    with host.server() as s:
        s.json('POST', '/api/auth/password', json.dumps({'current': 'omniarena', 'new': 'omniarena'}), status=400)
        equal(s.health()['default_credentials'], True)


@test
def guesses_under_a_foreign_name(host):
    """What the answer gives away is counted, and does not slow who is at home."""
    policy = host.file('[blacklist]\n[whitelist]\ntrue\n[agent ops]\ntoken=%s\n' % OPS)
    with host.server('--config', policy) as s:
        ask = lambda auth: s.request('GET', '/api/health', headers={'Authorization': auth, 'Host': 'evil.example'})[0]
        equal(ask('Bearer ' + OPS), 200)
        equal([ask('Bearer ' + 'x' * 20) for _ in range(10)], [403] * 10)
        equal(ask('Bearer ' + OPS), 403, 'right or wrong, for now')
        check(s.health()['ok'])


@test
def places_for_agents_of_the_policy(host):
    policy = host.file('[blacklist]\n[whitelist]\ntrue\n[agent ops]\ntoken=%s\n' % OPS)
    with host.server('--config', policy, '--max-agents', '2') as s:
        equal([s.request('GET', '/api/health', headers={'X-Agent': n})[0] for n in ('a', 'b')], [200, 429])
        equal(s.request('GET', '/api/health', headers={'Authorization': 'Bearer ' + OPS})[0], 200)
