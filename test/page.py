"""The dashboard as a person has it: a real browser on the real server. test/page.py [PATTERN...]

Every test begins with a fresh tab, and ends with a look at the page's console, where nothing may stand but the requests that
the test means to fail (@fails). Where a test fails, build/page/NAME.png shows what the browser showed.
"""
import ctypes, functools, gzip, hashlib, itertools, shlex, unicodedata
import arena
from arena import *
from browser import Browser, Gone
from test_limits import OPS, again, agents, basic, change, execute, logged
from test_life import basic_server
from test_audit import Stream

arena.TESTS.clear()  # theirs
PAGES = dict(dashboard='Dashboard', integrate='Connect Your Agents', policies='Policies', budgets='Token Budgets', security='Security', settings='Settings')
STRANGE = 'a\'b"c$HOME \\n `id` é ü €'
NPM = ['axe-core@4.14.1', '@langchain/core@1.4.0', '@modelcontextprotocol/sdk@1.32.2']
TITLE = '.page:not([hidden]) > h1'
WATCH = 'window.tasks = []; new PerformanceObserver(l => tasks.push(...l.getEntries().map(e => e.duration))).observe({ type: "longtask" })'
IMG = '<img src=x onerror=window.pwned=1>'
b = None


def test(fn):
    @functools.wraps(fn)
    def run(host):
        global b
        try:
            b = b or Browser()
        except Gone as e:
            raise Skip(e)
        b.alone()
        b.console()
        b.name = fn.__name__
        fn(host)
        noise = [l for l in b.console() if 'Failed to load resource' not in l or not any(p in l for p in getattr(fn, 'fails', ()))]
        equal(noise, [], 'the console')
    run.__module__ = 'page'
    arena.TESTS.append(run)
    return run


def stop(self, stop=Server.stop):
    """The page leaves before its server does, whose absence is told in the console."""
    if issubclass(sys.exc_info()[0] or Skip, AssertionError | Gone | LookupError | TypeError):
        os.makedirs(os.path.join(TOP, 'build/page'), exist_ok=True)
        b.shot(os.path.join(TOP, 'build/page', b.name + '.png'))
    b.go('about:blank')
    return stop(self)


Server.stop = stop


def fails(*paths):
    """Requests to these paths are meant to fail."""
    def mark(fn):
        fn.fails = paths
        return fn
    return mark


def visit(s, page='dashboard', state='Live'):
    b.go('http://127.0.0.1:%d/#%s' % (s.port, page))
    seen('#state', state)


@contextlib.contextmanager
def opened(host, *flags, page='dashboard', **kw):
    with host.server(*flags, **kw) as s:
        visit(s, page)
        yield s


def seen(css, text, seconds=10):
    """This text comes to be in it, or with None nothing is to be seen of it."""
    last = [None]

    def there():
        last[0] = b.text(css)
        return last[0] is None if text is None else text in (last[0] or '')
    try:
        until(there, seconds)
    except AssertionError:
        raise AssertionError('%s never said %r, but %.600r' % (css, text, last[0])) from None


def becomes(fn, want, *what, seconds=10):
    def got():
        with contextlib.suppress(TypeError, IndexError, KeyError):  # a row that is not there yet
            return fn()
    with contextlib.suppress(AssertionError):
        until(lambda: got() == want, seconds)
    equal(got(), want, *what)


def go(page):
    b.click('nav a[href="#%s"]' % page)
    becomes(lambda: b.js('return [...document.querySelectorAll("main > section")].filter(e => e.checkVisibility()).map(e => e.id)'), [page])


def cards(css='#cards'):
    return dict(b.js('return [...document.querySelectorAll(arguments[0] + " div")].map(d => [d.children[0].innerText, d.children[1].innerText])', css))


def table(css, **row):
    """The cells of its rows; of one alone, with agent=NAME."""
    cells = b.js('return [...document.querySelectorAll(arguments[0] + " tr")].map(r => [...r.cells].map(c => c.innerText.trim()))', css)
    return next((r for r in cells if row['agent'] in r[:2]), None) if row else cells


def audit():
    """Tag, agent, command and result of the rows that are shown."""
    return b.js('return [...document.querySelectorAll("#audit li")].map(li => [...li.children].slice(1).map(c => c.textContent))')


def commands():
    return [r[2] for r in audit()]


def command(cmd):
    b.fill('#cmd', cmd.replace('@', UNIQUE))
    b.keys('Enter')


def entry():
    """The last one of the terminal."""
    return b.js('''const e = document.querySelector('#term .entry:last-child'), of = c => e ? [...e.querySelectorAll(c)].map(x => x.textContent).join('') : '';
        return { cmd: of('.cmd'), out: of('.out'), err: of('.err'), end: of('p:last-child'), bad: !!e?.querySelector('p.fail') }''')


def ended(cmd, seconds=20):
    command(cmd)
    until(lambda: entry()['end'] and entry()['cmd'].startswith('$ ' + cmd[:2].replace('@', UNIQUE)), seconds, cmd + ' has ended')
    return entry()


def asked(path):
    """The requests that the page has made to it: when they began, in ms."""
    return b.js('''return performance.getEntriesByType('resource').filter(e => new URL(e.name).pathname === arguments[0]).map(e => e.startTime)''', path)


def said(text):
    seen('#say', text)


def size(n):
    return '%d B' % n if n < 1000 else '%.1f kB' % (n / 1e3) if n < 1e6 else '%.1f MB' % (n / 1e6)


def own(host, password=STRANGE, **kw):
    """A server with a password of its own, which has to be typed."""
    s = host.server(**kw)
    change(s, 'omniarena', password)
    s.auth = basic(password)
    return s


def log_in(password, **fields):
    for name, value in (fields or {'pass': password}).items():
        b.fill('#login-form [name=%s]' % name, value)
    b.keys('Enter')


def npm():
    """The folder of what npm has."""
    if not shutil.which('npm') or not shutil.which('node'):
        raise Skip('no npm, or no node')
    folder = os.path.join(TOP, 'build/npm')

    def version(package):
        with contextlib.suppress(OSError), open(os.path.join(folder, 'node_modules', package, 'package.json')) as f:
            return json.load(f)['version']
    if any(version(p.rsplit('@', 1)[0]) != p.rsplit('@', 1)[1] for p in NPM):
        r = subprocess.run(['npm', 'install', '--no-save', '--no-audit', '--no-fund', '--prefix', folder, *NPM], capture_output=True, text=True)
        if r.returncode:
            raise Skip('npm could not install: ' + ' '.join(r.stderr.split())[-300:])
    return os.path.join(folder, 'node_modules')


def busy(s):
    """Something on every page."""
    for agent, model, cmds in (('claude', 'claude-x', ('echo abc', 'false', 'ls -la /tmp')), ('quiet', '', ('true',))):
        for cmd in cmds:
            execute(s, cmd, agent, Tokens_In=1200, Tokens_Out=34, Model=model or 'm')
    execute(s, 'wget http://example.org', 'claude', 403)
    s.json('POST', '/api/budget', '{"agent":"claude","max_tokens":5000}')
    s.json('POST', '/api/budget', '{"agent":"spent","max_tokens":10}')
    s.json('GET', '/api/health', headers={'X-Agent': 'spent', 'X-Tokens-In': '25'})
    s.request('POST', '/api/exec', '{"cmd":"true"}', {'X-Agent': 'spent'})
    s.json('POST', '/api/policy', '{"action":"add","list":"blacklist","pattern":"rm -rf /"}')


# ---- what is sent ----

@test
def the_page_as_it_is_sent(host):
    with host.server() as s:
        status, h, body = s.request('GET', '/', auth=False, headers={'Accept-Encoding': 'gzip'})
        equal((status, h['Content-Type'], h['Content-Encoding'], h['Vary']), (200, 'text/html; charset=utf-8', 'gzip', 'Accept-Encoding'))
        html = gzip.decompress(body)
        with open(os.path.join(TOP, 'dash.html'), 'rb') as f:
            equal(html == f.read(), True, 'the file, byte for byte')
        csp = dict(d.strip().split(' ', 1) for d in h['Content-Security-Policy'].split(';'))
        for tag in ('script', 'style'):
            inside = re.findall(rb'<%s[^>]*>(.*?)</%s>' % (tag.encode(), tag.encode()), html, re.S)
            equal([len(inside), csp[tag + '-src']], [1, "'sha256-%s'" % base64.b64encode(hashlib.sha256(inside[0]).digest()).decode()])
        equal([csp[k] for k in ('default-src', 'connect-src', 'frame-ancestors', 'base-uri', 'form-action')], ["'none'", "'self'", "'none'", "'none'", "'none'"])
        check('unsafe' not in h['Content-Security-Policy'] and not re.search(rb'\son\w+\s*=\s*["\']|style\s*=\s*["\']|(src|href)="?(https?:)?//', html), 'inline, or from elsewhere')
        equal([s.request('GET', '/', auth=False, headers={'Accept-Encoding': e})[0] for e in ('identity', 'br', '*', 'br, gzip;q=0.5')], [406, 406, 200, 200])
        status, head, nothing = s.request('HEAD', '/', auth=False, headers={'Accept-Encoding': 'gzip'})
        equal((status, nothing, head['Content-Length'], head['Content-Security-Policy']), (200, b'', str(len(body)), h['Content-Security-Policy']))
        status, h, icon = s.request('GET', '/favicon.ico', auth=False)
        equal((status, h['Content-Type'], icon[:4]), (200, 'image/svg+xml', b'<svg'))


@test
def nothing_from_elsewhere(host):
    with opened(host) as s:
        busy(s)
        for page in PAGES:
            go(page)
        names = b.js('return performance.getEntries().map(e => e.name).filter(n => /^\\w+:/.test(n))')
        equal([n for n in names if not n.startswith('http://127.0.0.1:%d/' % s.port)], [])
        check(len(names) > 4, names)
        equal(b.js('return [...document.querySelectorAll("script[src], iframe, object, embed, link[rel=stylesheet]")].length'), 0)


# ---- pages ----

@test
def each_page_by_its_link(host):
    with opened(host) as s:
        for page, heading in [*PAGES.items()][1:] + [('dashboard', 'Dashboard'), ('settings', 'Settings')]:
            go(page)
            equal(b.js('return [document.title, location.hash, document.activeElement.id]'), [page.capitalize() + ' · OmniArena', '#' + page, 'main'])
            equal((b.texts('h1'), b.texts('nav a[aria-current=page]'), b.js('return document.querySelectorAll("[aria-current]").length')), ([heading], [page.capitalize()], 1))
        b.js('history.back()')
        seen('#dashboard-h', 'Dashboard')
        visit(s, 'no-such-page')
        equal(b.texts('h1'), ['Dashboard'])


@test
def the_nine_cards(host):
    with opened(host) as s:
        def want():
            h, a = s.health(), agents(s)
            return {'Executions': str(h['total_execs']), 'Blocked': str(h['blocked_cmds']), 'Bytes': size(h['bytes_captured']), 'Rate/min': str(sum(x['rate_1m'] for x in a.values())),
                    'Agents': str(h['agents_count']), 'Profile': h['profile'], 'Isolation': h['isolation'], 'Binary size': '%d KB' % round(os.path.getsize(os.path.join(host.work, 'omniarena')) / 1024)}
        for begun in (False, True):
            if begun:
                busy(s)
                s.ok('seq 3000')
            becomes(lambda: {k: v for k, v in cards().items() if k != 'Uptime'}, want())
        equal(list(cards()), ['Executions', 'Blocked', 'Bytes', 'Uptime', 'Rate/min', 'Agents', 'Profile', 'Isolation', 'Binary size'])
        equal([cards()[k] for k in ('Executions', 'Blocked', 'Rate/min')] + [cards()['Bytes'][-5:]], ['5', '1', '7', '.0 kB'])
        uptime = lambda: [int(x) for x in re.fullmatch(r'(?:(\d+)m )?(\d+)s', cards()['Uptime']).groups('0')]
        check(abs(uptime()[0] * 60 + uptime()[1] - s.health()['uptime_sec']) <= 2, cards(), s.health())
        before = cards()['Uptime']
        until(lambda: cards()['Uptime'] != before, what='it goes on')


COLUMNS = ['Status', 'Agent', 'Execs', 'Blocked', 'Bytes', 'Rate/min', 'Tokens In', 'Tokens Out', 'Budget', 'Model', 'Last Active']


@test
def the_table_of_agents(host):
    with opened(host) as s:
        equal(b.texts('#dashboard thead th'), COLUMNS)
        busy(s)
        a = agents(s)['claude']
        becomes(lambda: table('#agents', agent='claude')[:10], ['active', 'claude', '3', '1', size(a['bytes']), '4', '3,600', '102', '5,000', 'claude-x'])
        equal([a[k] for k in ('execs', 'blocked', 'tokens_in', 'tokens_out', 'token_budget')], [3, 1, 3600, 102, 5000])
        check(re.fullmatch(r'now|\d+s ago', table('#agents', agent='claude')[10]), table('#agents', agent='claude'))
        becomes(lambda: table('#agents', agent='spent')[0], 'over budget')
        equal((len(table('#agents')), b.text('#no-agents')), (len(agents(s)), None))
        running = Stream(s, 'POST', '/api/exec', '{"cmd":"sleep 30"}', Accept='text/event-stream', X_Agent='quiet')
        until(lambda: s.health()['running'], what='it runs')
        execute(s, 'true', 'claude')  # agents are asked for after something has happened, else every 15 s
        becomes(lambda: table('#agents', agent='quiet')[0], 'running')
        running.sock.close(), running.file.close()
        becomes(lambda: table('#agents', agent='quiet')[0], 'active')


# ---- terminal ----

@test
def output_as_it_comes(host):
    with opened(host) as s:
        command('echo one; sleep 2; echo two')
        until(lambda: entry()['out'] == 'one\n', what='the first line')
        equal((entry()['out'], entry()['end'], b.text('#run'), s.health()['running']), ('one\n', '', 'Cancel', 1))
        until(lambda: entry()['end'], what='the end')
        e = entry()
        equal((e['out'], e['err'], e['bad'], b.text('#run')), ('one\ntwo\n', '', False, 'Run'))
        check(2000 <= int(re.fullmatch(r'exit 0 · ([\d,]+) ms', e['end'])[1].replace(',', '')) < 9000, e)
        equal((logged(s, 'EXEC')[-1]['agent'], b.js('return document.activeElement.id')), ('dashboard', 'cmd'))


@test
def errors_apart_and_the_exit_code(host):
    with opened(host) as s:
        e = ended('echo out; echo err >&2; exit 3')
        equal((e['out'], e['err'], e['bad']), ('out\n', 'err\n', True))
        check(re.fullmatch(r'exit 3 · [\d,]+ ms', e['end']), e)
        equal(len(set(b.js('return ["#term .out", "#term .err"].map(c => getComputedStyle(document.querySelector(c)).color)'))), 2, 'one colour')
        check(re.fullmatch(r'.*exit 137 · SIGKILL · [\d,]+ ms', ended('kill -9 $$')['end']), entry())
        s.json('POST', '/api/settings', '{"timeout_ms":200}')
        check(re.fullmatch(r'timeout after 200 ms · exit 124.*', ended('sleep 20')['end']), entry())


@test
@fails('/api/exec')
def blocked_and_refused(host):
    with opened(host, '--config', host.file('[blacklist]\nwget\n[whitelist]\npython3\n')) as s:
        e = ended('wget http://example.org')
        r = s.post({'cmd': 'wget http://example.org'}, 403)
        equal((r['error'] + ' · rule: wget', e['bad']), (e['end'], True))
        check(r['reason'] in e['err'] and 'wget' in e['err'], e, r)
        ended('uptime')
        check('python3' in entry()['err'], 'what is allowed', entry())
        e = ended('python3 -c "import socket; socket.socket()"')
        denied = s.run('python3 -c "import socket; socket.socket()"')['denied']
        check(denied and all(d['hint'] in e['err'] and d['call'] in e['err'] for d in denied) and 'Operation not permitted' in e['err'], denied, e)


@test
def commands_given_before(host):
    with opened(host):
        for cmd in ('echo 1', 'echo 2', 'echo 3', 'echo 2'):
            ended(cmd)
        value = lambda key: (b.keys(key), b.js('return document.querySelector("#cmd").value'))[1]
        equal([value(k) for k in ('Up', 'Up', 'Up', 'Up', 'Down', 'Down', 'Down', 'Up')], ['echo 2', 'echo 3', 'echo 1', 'echo 1', 'echo 3', 'echo 2', '', 'echo 2'])


@test
def cancelled_commands(host):
    with opened(host) as s:
        for cancel in (lambda: b.keys('c', hold='Control'), lambda: b.click('#run')):
            command('echo started; sleep 300.@')
            until(lambda: having('300.@') and entry()['out'], what='it runs')
            equal(b.text('#run'), 'Cancel')
            cancel()
            until(lambda: not having('300.@'), what='it is gone')
            until(lambda: re.fullmatch(r'cancelled after [\d,]+ ms', entry()['end']), what='it says so')
            becomes(lambda: logged(s)[-1]['result'], 'CANCELLED')
            equal((b.text('#run'), ended('echo on')['out']), ('Run', 'on\n'))


@test
def large_output(host):
    with opened(host, '--output-limit', '16000000', '--profile', 'moderate'):
        b.js(WATCH)
        e = ended('head -c 5000000 /dev/zero | tr "\\0" x')
        seen('#term', '4,800,000 characters more than the page keeps')
        equal((len(e['out']), e['bad']), (200000, False))
        ended('for i in $(seq 3000); do echo $i; echo $i >&2; done')
        check(b.js('return document.querySelectorAll("#term *").length') < 8000, 'elements')
        equal([t for t in b.js('return tasks') if t > 800], [], 'long tasks')
        b.js('''return (async () => { const f = document.querySelector('#term-form'), cmd = document.querySelector('#cmd');
            for (let i = 0; i < 52; i++) {
                cmd.value = 'echo ' + i;
                f.requestSubmit();
                while (document.querySelector('#run').textContent !== 'Run') await new Promise(done => setTimeout(done, 5));
            } })()''')
        equal((b.js('return document.querySelector("#term").children.length'), entry()['out']), (50, '51\n'))
        check(b.js('const t = document.querySelector("#term"); return t.scrollTop + t.clientHeight > t.scrollHeight - 9'), 'the end is in view')


# ---- profile, and the layers ----

@test
def the_profile(host):
    with opened(host) as s:
        for profile, limits in (('moderate', 'CPU:30s Mem:256MB Time:30s'), ('strict', 'CPU:5s Mem:64MB Time:5s'), ('permissive', 'CPU:300s Mem:1024MB Time:300s')):
            b.choose('#profile', profile)
            seen('#profile-limits', limits)
            equal((s.health()['profile'], cards()['Profile']), (profile, profile))
        go('security')
        equal(b.js('return [...document.querySelectorAll("#profiles button b")].map(b => b.textContent)'), ['Strict', 'Moderate', 'Permissive'])
        pressed = lambda: b.js('return [...document.querySelectorAll("#profiles [aria-pressed=true] b")].map(b => b.textContent)')
        becomes(pressed, ['Permissive'])
        for n, name in ((2, 'Moderate'), (1, 'Strict'), (3, 'Permissive')):
            b.click('#profiles button:nth-child(%d)' % n)
            becomes(pressed, [name])
            l = s.health()['limits']
            equal(s.health()['profile'], name.lower())
            becomes(lambda: list(cards('#limits').values()), ['%dms' % l['timeout_ms'], '%ds' % l['max_cpu_sec'], '%dMB' % l['max_mem_mb'], str(l['max_processes']), '%dMB' % l['max_file_mb'], str(l['max_open_files'])])
        s.json('POST', '/api/profile', '{"profile":0}')
        becomes(pressed, ['Strict'], 'changed by somebody else')


def layers_are_true(s):
    h = s.health()
    says = lambda *names: '✓\u00a0in\u00a0force' if all(h['layers'][n] for n in names) else '✗ missing: ' + next(h['missing'][n] for n in names if n in h['missing'])
    becomes(lambda: [[r[0], r[1], r[3]] for r in table('#layers')], [['1', 'Command policy', says('policy')], ['2', 'CLONE_NEWNET', says('netns')],
        ['3', 'pivot_root jail', says('mountns', 'pidns')], ['4', 'setrlimit', says('rlimits')], ['5', 'NO_NEW_PRIVS', says('no_new_privs')], ['6', 'seccomp-bpf', says('seccomp')]])
    fences = b.texts('#fences dd')
    equal(fences[:4], [says(n) for n in ('pidns', 'cgroup', 'landlock', 'userns')])
    check(fences[4].startswith('✓') if h['whitelist_enforcement'] == 'kernel' else h['whitelist_enforcement_why'] in fences[4], fences)
    return h


@test
def the_six_layers(host):
    with opened(host, page='security') as s:
        h = layers_are_true(s)
        equal(b.text('#basic') is None, h['isolation'] == 'kernel')


@test
def a_host_without_the_layers(host):
    user = host if not host.root else Host('user', host.work)
    with basic_server(user) as s:
        visit(s)
        becomes(lambda: [s.health()['isolation'], cards()['Isolation']], ['basic', 'basic'])
        seen('#basic', 'Isolation is basic')
        b.click('#basic a')
        seen('h1[id=security-h]', 'Security')
        layers_are_true(s)
        check(table('#layers')[1][3].startswith('✗ missing: ') and 'user namespace' in table('#layers')[1][3], table('#layers'))


# ---- audit log ----

def echo(s, *what, agent='a'):
    for w in what:
        execute(s, 'echo %s' % w, agent)


@test
def the_last_of_the_log(host):
    with host.server('--audit-slots', '600') as s:
        echo(s, *range(30))
        visit(s)
        last = lambda n, end: ['echo %d' % i for i in range(end - n, end)]
        becomes(commands, last(20, 30))
        echo(s, *range(30, 32))
        becomes(commands, last(20, 32))
        equal(audit()[-1][:2] + [re.sub(r'\d+ ms', 'N ms', audit()[-1][3])], ['EXEC', 'a', 'exit 0 · N ms'])
        check(b.js('const a = document.querySelector("#audit"); return a.scrollTop + a.clientHeight >= a.scrollHeight - 2'), 'the newest is in view')
        equal((asked('/api/audit'), len(asked('/api/health'))), ([], 1), 'by the stream alone')
        execute(s, 'wget x', 'b', 403)
        execute(s, 'exit 4', 'b')
        becomes(lambda: [r[:3] for r in audit()[-2:]], [['BLOCK', 'b', 'wget x'], ['EXEC', 'b', 'exit 4']])
        check(audit()[-1][3].startswith('exit 4 ·'), audit()[-1])
        b.choose('#audit-rows', '100')
        becomes(commands, [r['cmd'] for r in s.json('GET', '/api/audit')['events']], 'all of them')
        times = b.js('return [...document.querySelectorAll("#audit time")].map(t => t.dateTime)')
        equal(times, sorted(times))


@test
def rows_and_filter(host):
    with host.server('--audit-slots', '600') as s:
        echo(s, *range(30), agent='many')
        echo(s, 'a needle 1', 'Needle 2', agent='other')
        execute(s, 'wget needle', 'many', 403)
        echo(s, *range(30, 130), agent='many')
        visit(s)
        becomes(lambda: len(audit()), 20)
        for n, want in (('100', 100), ('500', len(s.json('GET', '/api/audit?limit=600')['events'])), ('20', 20)):
            b.choose('#audit-rows', n)
            becomes(lambda: len(audit()), want)
        b.click(TITLE)
        b.keys('/')
        becomes(lambda: b.js('return document.activeElement.id'), 'filter')
        b.keys('needle')
        becomes(commands, ['echo a needle 1', 'echo Needle 2', 'wget needle'])
        b.keys(' OTHER')
        becomes(commands, ['echo a needle 1', 'echo Needle 2'])
        echo(s, 'one more', 'needle 3', agent='other')
        becomes(commands, ['echo a needle 1', 'echo Needle 2', 'echo needle 3'], 'live')
        b.fill('#filter', 'block')
        becomes(commands, ['wget needle'])
        b.fill('#filter', 'no such thing')
        seen('#no-audit', 'Nothing matches the filter.')
        b.fill('#filter', '.*')
        becomes(commands, [])
        b.fill('#filter', ' ')
        b.keys('Enter')
        becomes(lambda: commands()[-1], 'echo needle 3')


@test
def scrolled_up_is_paused(host):
    with opened(host) as s:
        echo(s, *range(40))
        until(lambda: 'echo 39' in commands(), what='all are there')
        equal(b.text('#audit-resume'), None)
        where = lambda: [commands(), b.js('return document.querySelector("#audit").scrollTop')]
        for resume in (lambda: b.click('#audit-resume'), lambda: b.keys('End')):
            b.js('document.querySelector("#audit").focus()')
            b.keys('Home')
            seen('#audit-resume', 'Paused')
            until(lambda: where()[1] == 0, what='it is at the top')
            before = where()
            echo(s, *'abcde')
            seen('#audit-resume', 'Paused · 5 new · go to the end')
            equal(where(), before, 'it moved')
            b.js('document.querySelector("#audit").focus()')
            resume()
            becomes(lambda: commands()[-5:], ['echo ' + c for c in 'abcde'])
            seen('#audit-resume', None)
            echo(s, 'on')
            becomes(lambda: commands()[-1], 'echo on')


@test
def five_thousand_events(host):
    def post(first, n):
        conn = http.client.HTTPConnection('127.0.0.1', s.port, timeout=30)
        for i in range(first, first + n):
            s.request('POST', '/api/exec', '{"cmd":"wget http://example.org/%d-%s"}' % (i, 'x' * 100), {'X-Agent': 'a%d' % (i % 5)}, conn=conn)
        conn.close()

    def burst(first, n):
        threads = [threading.Thread(target=post, args=(first + k * n // 4, n // 4)) for k in range(4)]
        [t.start() for t in threads], [t.join() for t in threads]
        execute(s, 'wget the-end-of-%d' % first, 'a', 403)
        becomes(lambda: commands()[-1], 'wget the-end-of-%d' % first, seconds=20)
        until(lambda: table('#agents', agent='a4'), what='the agents are there')
        b.cdp('HeapProfiler.collectGarbage')
        m = {x['name']: x['value'] for x in b.cdp('Performance.getMetrics')['metrics']}
        return m['JSHeapUsedSize'], m['Nodes'], b.js('return document.querySelectorAll("*").length')
    with opened(host, '--max-rps', '0', '--max-rate-per-agent', '0') as s:
        b.cdp('Performance.enable')
        b.cdp('HeapProfiler.enable')
        b.js(WATCH)
        before, after = burst(100000, 1000), burst(200000, 4000)
        check(after[0] < before[0] + 3e6 and after[1] < before[1] + 1500 and after[2] < before[2] + 50, 'heap, nodes, elements:', before, after)
        equal([t for t in b.js('return tasks') if t > 200], [], 'long tasks')
        becomes(lambda: cards()['Blocked'], '5,002')
        equal(len(audit()), 20)


# ---- charts ----

@test
def charts(host):
    chart = lambda which: (b.text('#chart-%s figcaption' % which), b.js('return document.querySelector("#chart-%s path").getAttribute("d")' % which).count('M'))
    with host.server() as s:
        for opened_then, execs, blocks in ((False, 4, 2), (True, 11, 5)):
            for _ in range(7 if opened_then else 4):
                execute(s, 'true', 'a')
            for _ in range(3 if opened_then else 2):
                execute(s, 'wget x', 'a', 403)
            if not opened_then:
                visit(s)
            for which, n in (('execs', execs), ('blocks', blocks)):
                seen('#chart-%s figcaption' % which, '%d in the last minute, %d in half an hour, at most ' % (n, n))
                text, bars = chart(which)
                check(bars in (1, 2) and (bars == 2 or text.endswith('at most %d in 30 s' % n)), text, bars)
        equal(b.texts('.chart h2'), ['Executions', 'Blocked'])


# ---- a server that goes ----

GONE = ('/api/', '/healthz')


def killed(s):
    s.proc.kill()
    s.wait()
    seen('#state', 'Server gone')
    seen('#gone', 'The server does not answer')
    equal(b.js('return document.querySelector("#gone").getAttribute("role")'), 'alert')


@test
@fails(*GONE)
def killed_and_started_anew(host):
    with opened(host) as s:
        echo(s, 'before')
        becomes(lambda: commands()[-1:], ['echo before'])
        killed(s)
        with host.server(port=s.port, env=dict(OMNIARENA_AUDIT_LOG=s.audit_log, OMNIARENA_STATE_DIR=s.state_dir)) as new:
            seen('#state', 'Live', 20)
            seen('#gone', None)
            echo(new, 'after')
            becomes(lambda: [commands().count('echo ' + w) for w in ('before', 'after')], [1, 1])
            equal(commands()[-1], 'echo after')
            becomes(lambda: cards()['Executions'], str(new.health()['total_execs']))


@test
@fails(*GONE)
def another_one_in_its_place(host):
    """With a log of its own, which counts from 1."""
    with opened(host) as s:
        echo(s, *range(10))
        becomes(lambda: commands()[-1:], ['echo 9'])
        killed(s)
        with host.server(port=s.port) as new:
            echo(new, 'early')
            seen('#state', 'Live', 20)
            for c in 'abc':
                echo(new, c)
                becomes(lambda: commands()[-1], 'echo ' + c)
            becomes(lambda: cards()['Executions'], '4')
            becomes(lambda: [c for c in commands() if 'echo' in c], ['echo %s' % w for w in [*range(10), 'early', *'abc']])


@test
@fails('/api/events')
def without_a_stream(host):
    with host.server('--max-connections', '40') as s:
        taken = [Stream(s, 'GET', '/api/events') for _ in range(10)]
        equal([x.status for x in taken], [200] * 10)
        visit(s, state='Every 3 s')
        equal(b.text('#gone'), None)
        echo(s, 'polled')
        becomes(lambda: commands()[-1:], ['echo polled'])
        execute(s, 'wget x', 'a', 403)
        becomes(lambda: (cards()['Blocked'], commands()[-1]), ('1', 'wget x'))
        at = asked('/api/audit')
        check(2 <= len(at) <= 6 and all(2900 < y - x < 5000 for x, y in zip(at, at[1:])) and len(asked('/api/events')) == 1, at)


# ---- log-in ----

def kept():
    """What the browser keeps: in this tab, for longer, and cookies."""
    return b.js('return [Object.values(sessionStorage).join(), localStorage.length, document.cookie]'), b.ask('GET', '/cookie')


@test
def published_credentials(host):
    with opened(host) as s:
        seen('#published', 'The published password is in force')
        equal((b.text('#login'), b.text('#logout'), kept()), (None, None, (['', 0, ''], [])))
        b.click('#published a')
        seen('h1[id=settings-h]', 'Settings')
        equal(logged(s, 'AUTH'), [])


@test
@fails('/api/health')
def logging_in(host):
    with own(host) as s:
        visit(s, 'policies', state='')
        seen('h1[id=login-h]', 'Log in')
        equal((b.texts('.page'), b.text('#nav'), b.js('return [document.title, document.querySelector("[name=pass]").type]')), ([], None, ['Log in · OmniArena', 'password']))
        log_in('wrong-password')
        seen('#login-error', 'Wrong credentials.')
        equal((kept(), b.text('#nav')), ((['', 0, ''], []), None))
        log_in(STRANGE)
        seen('h1[id=policies-h]', 'Policies')
        equal((b.text('#published'), b.text('#login')), (None, None))
        b.reload()
        seen('#state', 'Live')
        (session, local, cookie), cookies = kept()
        equal((json.loads(session), local, cookie, cookies), ({'user': 'arena', 'pass': STRANGE}, 0, '', []))
        for method in (lambda: b.tab(), lambda: b.alone()):
            method()
            b.go('http://127.0.0.1:%d/' % s.port)
            seen('h1[id=login-h]', 'Log in')
            equal(kept(), (['', 0, ''], []), 'another tab')
        equal(len(logged(s, 'AUTH')), 1, 'only what was typed wrong')


@test
def logging_out(host):
    with own(host) as s:
        visit(s, state='')
        log_in(STRANGE)
        seen('#state', 'Live')
        echo(s, 'secret')
        until(lambda: 'echo secret' in commands(), what='it is shown')
        b.click('#logout')
        seen('h1[id=login-h]', 'Log in')
        equal((kept(), b.text('#logout'), b.text('#nav')), ((['', 0, ''], []), None, None))
        check('Live' not in b.text('#state') and 'secret' not in b.js('return document.querySelector("main").textContent'), 'what was there is still there:', b.text('#state'))
        b.reload()
        seen('h1[id=login-h]', 'Log in')


@test
@fails('/api/')
def a_password_changed_elsewhere(host):
    with own(host) as s:
        visit(s, state='')
        log_in(STRANGE)
        seen('#state', 'Live')
        change(s, STRANGE, 'changed-elsewhere')
        s.auth = basic('changed-elsewhere')
        seen('h1[id=login-h]', 'Log in', 20)
        seen('#login-error', 'The server does not take these credentials.')
        equal(kept(), (['', 0, ''], []))
        log_in('changed-elsewhere')
        seen('#state', 'Live')
        check(len(logged(s, 'AUTH')) <= 3, 'it went on asking', logged(s, 'AUTH'))


@test
def loading_is_no_log_in(host):
    with own(host) as s:
        for _ in range(10):
            visit(s, state='')
            b.reload()
            seen('h1[id=login-h]', 'Log in')
        log_in(STRANGE)
        seen('#state', 'Live')
        for _ in range(10):
            b.reload()
            seen('#state', 'Live')
        equal(logged(s, 'AUTH'), [])


@test
@fails('/api/')
def tokens(host):
    policy = host.file('[blacklist]\n[whitelist]\necho\n[agent ops]\ntoken=%s\n' % OPS)
    token = 'a-token-of-one-s-own-for-this'
    with host.server('--config', policy, '--token-file', host.file(token + '\n')) as s:
        change(s, 'omniarena', STRANGE)
        s.auth = basic(STRANGE)
        echo(s, 'of another')
        visit(s, state='')
        for secret, mine, alone in ((token, 'dashboard', False), (OPS, 'ops', True)):
            seen('h1[id=login-h]', 'Log in')
            if b.text('[name=token]') is None:
                b.click('#login-other')
            log_in(None, token=secret)
            seen('#dashboard-h', 'Dashboard')
            seen('#state', 'Live')
            equal((json.loads(kept()[0][0]), ended('echo mine')['out']), ({'token': secret}, 'mine\n'))
            becomes(lambda: commands()[-1:], ['echo mine'])
            becomes(lambda: (table('#agents', agent=mine) is None, table('#agents', agent='a') is None, 'echo of another' in commands()), (False, alone, not alone))
            equal(logged(s, 'EXEC')[-1]['agent'], mine)
            b.click('#logout')


# ---- integrate ----

def copied(button='#copy'):
    b.click(TITLE)
    b.js('return navigator.clipboard.writeText("nothing")')
    b.click(button)
    until(lambda: b.js('return navigator.clipboard.readText()') != 'nothing', what='it is copied')
    return b.js('return navigator.clipboard.readText()')


@contextlib.contextmanager
def integrate(host, *tabs):
    """For each tab, with the published password and with a strange one: server, tab, its code as copied, an empty folder."""
    with opened(host, page='integrate') as s:
        b.cdp('Browser.grantPermissions', permissions=['clipboardReadWrite', 'clipboardSanitizedWrite'])

        def each():
            for password in ('omniarena', STRANGE):
                if password == STRANGE:
                    change(s, 'omniarena', STRANGE)
                    s.auth = basic(STRANGE)
                    seen('h1[id=login-h]', 'Log in', 20)
                    log_in(STRANGE)
                    seen('h1[id=integrate-h]', 'Connect')
                secrets = ['arena:' + password.replace("'", "'\\''"), basic(password)[6:]]
                for tab in tabs:
                    b.click('#tab-' + tab)
                    code, shown = copied(), b.text('#code')
                    check(any(x in code for x in secrets) and not any(x in shown for x in secrets) and '••••' in shown, tab, shown)
                    hidden = functools.reduce(lambda c, x: c.replace(x, ''), secrets, code)
                    equal(hidden.strip(), shown.replace('arena:••••••••', '').replace('••••••••', '').strip(), tab, 'else the same')
                    folder = os.path.join(tempfile.mkdtemp(dir=b.folder), 'my project é')
                    os.mkdir(folder)
                    yield s, tab, code, folder
        yield each()


def run_in(folder, *argv, stdin=None, path=''):
    r = subprocess.run(argv, cwd=folder, input=stdin, capture_output=True, text=True, timeout=60, env={'PATH': path + os.environ['PATH'], 'HOME': folder, 'LC_ALL': 'C.UTF-8'})
    equal(r.returncode, 0, argv, r.stderr[-600:])
    return r.stdout


def as_file(folder, name, text):
    with open(os.path.join(folder, name), 'w') as f:
        f.write(text)
    return name


@test
@fails('/api/')
def code_for_shells_and_python(host):
    with integrate(host, 'curl', 'Python') as each:
        for s, tab, code, folder in each:
            before = agents(s).get('my-agent', {'execs': 0})['execs']
            if tab == 'curl':
                equal(json.loads(run_in(folder, 'sh', as_file(folder, 'run.sh', code)))['exit_code'], 0)
            else:
                check("'exit_code': 0" in run_in(folder, '/usr/bin/python3', as_file(folder, 'run.py', code)))
                out = run_in(folder, '/usr/bin/python3', as_file(folder, 'run.py', code.replace('ls -la /tmp', 'wget x')))
                check("'code': 'policy'" in out or "'code': 'blocked'" in out or "'ok': False" in out, out)
            equal((agents(s)['my-agent']['execs'] - before, logged(s, 'EXEC')[-1]['cmd']), (1, 'ls -la /tmp'), tab)


@test
@fails('/api/')
def code_for_javascript(host):
    if not shutil.which('node'):
        raise Skip('no node')
    with integrate(host, 'JavaScript') as each:
        for s, _, code, folder in each:
            check('exit_code: 0' in run_in(folder, 'node', as_file(folder, 'run.mjs', code)))
            equal(logged(s, 'EXEC')[-1]['agent'], 'my-agent')


@test
@fails('/api/')
def code_for_langchain(host):
    modules = npm()
    with integrate(host, 'LangChain') as each:
        for s, _, code, folder in each:
            os.symlink(modules, os.path.join(folder, 'node_modules'))
            equal(json.loads(run_in(folder, 'node', as_file(folder, 'tool.mjs', code)))['exit_code'], 0)
            equal((logged(s, 'EXEC')[-1]['agent'], logged(s, 'EXEC')[-1]['cmd']), ('langchain', 'ls -la /tmp'))


MCP_CLIENT = '''import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { readFileSync } from 'node:fs';
const client = new Client({ name: 'test', version: '1' });
await client.connect(new StdioClientTransport(JSON.parse(readFileSync(process.argv[2])).mcpServers.omniarena));
const { tools } = await client.listTools(), call = cmd => client.callTool({ name: 'exec', arguments: { cmd } });
const unknown = await client.callTool({ name: 'nosuch', arguments: {} }).then(() => 'taken', e => e.code);
await client.ping();
console.log(JSON.stringify({ server: client.getServerVersion(), tools, allowed: await call('echo "hé"'), blocked: await call('wget x'), unknown }));
await client.close();
'''


@test
@fails('/api/')
def code_for_mcp(host):
    modules = npm()
    with integrate(host, 'MCP') as each:
        for s, _, code, folder in each:
            run_in(folder, 'sh', stdin=code)
            elsewhere = tempfile.mkdtemp(dir=b.folder)
            os.symlink(modules, os.path.join(elsewhere, 'node_modules'))
            r = json.loads(run_in(elsewhere, 'node', as_file(elsewhere, 'client.mjs', MCP_CLIENT), os.path.join(folder, '.mcp.json')))
            equal((r['server']['name'], [t['name'] for t in r['tools']], r['unknown'], logged(s)[-1]['agent']), ('omniarena', ['exec'], -32601, 'mcp'))
            equal(r['tools'][0]['inputSchema']['required'], ['cmd'])
            allowed, blocked = (json.loads(r[k]['content'][0]['text']) for k in ('allowed', 'blocked'))
            equal((allowed['stdout'], bool(r['allowed'].get('isError')), blocked['ok'], r['blocked']['isError']), ('hé\n', False, False, True))


@test
@fails('/api/')
def code_for_openclaw(host):
    with integrate(host, 'OpenClaw') as each:
        for s, _, code, folder in each:
            os.mkdir(folder + '/bin')
            os.chmod(folder + '/bin/' + as_file(folder + '/bin', 'openclaw', '#!/bin/sh\nprintf "%s\\0" "$@" >args\n'), 0o755)
            run_in(folder, 'sh', stdin=code, path=folder + '/bin:')
            with open(folder + '/args') as f:
                *words, how, end = f.read().split('\0')
            equal((words, end, set(json.loads(how))), (['mcp', 'set', 'omniarena'], '', {'command', 'args'}))
            call = {'jsonrpc': '2.0', 'id': 1, 'method': 'tools/call', 'params': {'name': 'exec', 'arguments': {'cmd': 'echo hi'}}}
            reply = json.loads(run_in('/', json.loads(how)['command'], *json.loads(how)['args'], stdin=json.dumps(call) + '\n'))
            equal(json.loads(reply['result']['content'][0]['text'])['stdout'], 'hi\n')


@test
def credentials_and_tabs(host):
    with opened(host, page='integrate') as s:
        b.cdp('Browser.grantPermissions', permissions=['clipboardReadWrite', 'clipboardSanitizedWrite'])
        equal([b.text('#' + x) for x in ('endpoint', 'who', 'secret')], ['http://127.0.0.1:%d' % s.port, 'arena', '••••••••'])
        equal([copied('[data-copy=%s]' % x) for x in ('endpoint', 'secret')], ['http://127.0.0.1:%d' % s.port, 'omniarena'])
        for pressed, secret in (('true', 'omniarena'), ('false', '••••••••')):
            b.click('#reveal')
            equal((b.text('#secret'), 'arena:' + secret in b.text('#code'), b.js('return document.querySelector("#reveal").ariaPressed')), (secret, True, pressed))
        names = ['curl', 'Python', 'JavaScript', 'MCP', 'OpenClaw', 'LangChain']
        equal(b.texts('[role=tab]'), names)
        b.click('#tab-curl')
        for name in names[1:] + names[:1]:
            b.keys('Right')
            equal(b.js('return [document.activeElement.textContent, document.querySelector("[aria-selected=true]").textContent, document.querySelectorAll("[role=tab][tabindex=\'0\']").length]'), [name, name, 1])
        b.keys('Left')
        equal((b.texts('[aria-selected=true]'), '@langchain/core' in b.text('#code')), (['LangChain'], True))
        equal([b.texts('#integrate h2'), len(table('#api')) > 10], [['1. Your Sandbox Credentials', '2. Test Connection', '3. Integrate', 'Active Agents', 'API Endpoints'], True])


@test
@fails(*GONE)
def test_connection(host):
    with opened(host, page='integrate') as s:
        for profile in ('strict', 'moderate'):
            s.json('POST', '/api/profile', json.dumps({'profile': profile}))
            b.click('#test')
            seen('#tested', 'Connected: OmniArena %s, profile %s, isolation %s' % (s.health()['version'], profile, s.health()['isolation']))
        killed(s)
        b.click('#test')
        seen('#tested', '✗ No answer from http://127.0.0.1:%d' % s.port)


# ---- budgets, policies, settings ----

@test
def budgets(host):
    with opened(host, page='integrate') as s:
        busy(s)
        budget = lambda agent: agents(s)[agent]['token_budget']
        for page, rows, column in (('integrate', '#active', 5), ('budgets', '#usage', 2)):
            go(page)
            until(lambda: table(rows, agent='quiet'), what='the agent is there')
            was = table(rows, agent='quiet')[column]
            for how in (lambda: b.click('"Cancel"'), lambda: b.keys('Escape')):
                b.click('"Set budget of quiet"')
                seen('#budget-h', 'Token budget of quiet')
                b.fill('#budget-v', '77')
                how()
                seen('#budget-box', None)
            equal((budget('quiet'), table(rows, agent='quiet')[column]), (0 if was == 'none' else 20000, was), 'cancelled')
            b.click('"Set budget of quiet"')
            b.fill('#budget-v', '20000')
            b.keys('Enter')
            said('The budget of quiet is 20,000 tokens.')
            becomes(lambda: table(rows, agent='quiet')[column], '20,000')
            equal(budget('quiet'), 20000)
        equal(table('#usage', agent='quiet')[:4], ['quiet', '1,234', '20,000', '6%'])
        equal([table('#usage', agent=a)[3] for a in ('claude', 'spent')], ['74%', '250%, spent'])
        bars = b.js('return Object.fromEntries([...document.querySelectorAll("#usage progress")].map(p => [p.ariaLabel, p.value]))')
        equal([round(bars['Budget used by ' + a], 3) for a in ('quiet', 'claude', 'spent')], [0.062, 0.74, 1])
        equal(b.text('#budget-default'), 'none')
        b.click('#set-default')
        seen('#budget-h', 'Default token budget')
        b.fill('#budget-v', '900')
        b.click('#budget-box .main')
        seen('#budget-default', '900 tokens')
        equal((s.health()['default_token_budget'], execute(s, 'true', 'new-one')['ok'], budget('new-one')), (900, True, 900))
        becomes(lambda: (table('#usage', agent='new-one') or [0] * 3)[2], '900')
        b.click('"Set budget of quiet"')
        b.fill('#budget-v', '0')
        b.keys('Enter')
        becomes(lambda: (table('#usage', agent='quiet')[2:4], bool(budget('quiet'))), (['none', 'no limit'], False))


@test
def judging_a_command(host):
    with opened(host, '--config', host.file('[blacklist]\nwget\n[whitelist]\ncat\nsort\n'), page='policies') as s:
        def verdict(cmd, profile=''):
            b.js('document.querySelector("#verdict").replaceChildren()')
            b.fill('#judge [name=cmd]', cmd)
            b.choose('#judge [name=profile]', profile)
            b.click('#judge button')
            until(lambda: b.text('#verdict'), what='a verdict')
            return dict(b.js('return [...document.querySelectorAll("#verdict dt")].map(t => [t.textContent, t.nextSibling.textContent])'))
        equal(verdict('cat x | sort'), {'Verdict': '✓ allowed', 'Programs found': 'cat sort'})
        v = verdict('cat x | xargs wget')
        check(v['Verdict'].startswith('✗ blocked by ') and (v['Rule'], v['Program']) == ('wget', 'wget') and 'wget' in v['Programs found'] and v['Why'], v)
        equal(verdict('uptime')['Verdict'][:9], '✗ blocked')
        equal(verdict('uptime', 'moderate')['Verdict'], '✓ allowed')
        check(verdict('wget x', 'permissive')['Verdict'].startswith('✓ allowed (another profile would block it: '))
        equal((logged(s, 'BLOCK'), s.health()['blocked_cmds']), ([], 0), 'only asked')


@test
@fails('/api/policy')
def rules(host):
    config = host.file('# mine\n[blacklist]\nwget\n[whitelist]\nls\necho\n')
    with opened(host, '--config', config, page='policies') as s:
        shown = lambda lst: b.texts('#%s code' % lst)
        becomes(lambda: (shown('blacklist'), shown('whitelist')), (['wget'], ['ls', 'echo']))
        for lst, rule, cmd in (('blacklist', 'echo secret', 'echo secret'), ('whitelist', 'cat', 'cat /dev/null')):
            equal(s.request('POST', '/api/exec', json.dumps({'cmd': cmd}))[0], 200 if lst == 'blacklist' else 403)
            b.fill('form[data-list=%s] input' % lst, rule)
            b.keys('Enter')
            said('Added “%s” to the %s.' % (rule, lst))
            becomes(lambda: shown(lst)[-1], rule)
            equal(s.request('POST', '/api/exec', json.dumps({'cmd': cmd}))[0], 403 if lst == 'blacklist' else 200, 'in force')
            with open(config) as f:
                check(rule + '\n' in f.read(), 'saved')
            b.click('"Remove %s"' % rule)
            said('Removed “%s” from the %s.' % (rule, lst))
            check(rule not in shown(lst), shown(lst))
            equal(s.request('POST', '/api/exec', json.dumps({'cmd': cmd}))[0], 200 if lst == 'blacklist' else 403, 'no longer')
        before = s.json('GET', '/api/policy')
        for bad in ('[section]', 'wget'):
            b.fill('form[data-list=blacklist] input', bad)
            b.keys('Enter')
            why = json.loads(s.request('POST', '/api/policy', json.dumps({'action': 'add', 'list': 'blacklist', 'pattern': bad}))[2])
            said(why['error'] if not why['ok'] else 'Added')
            equal(b.js('return document.querySelector("#say").className') == 'bad', not why['ok'], why)
        equal(s.json('GET', '/api/policy')['blacklist'], before['blacklist'])
        with open(config, 'a') as f:
            f.write('sort\n')
        b.click('#reload')
        said('Read anew: 1 rules in the blacklist, 3 in the whitelist.')
        becomes(lambda: shown('whitelist'), ['ls', 'echo', 'sort'])
        s.json('POST', '/api/policy', '{"action":"add","list":"blacklist","pattern":"from-elsewhere"}')
        becomes(lambda: shown('blacklist'), ['wget', 'from-elsewhere'])


@test
@fails('/api/auth/password')
def a_new_password(host):
    with opened(host, page='settings') as s:
        def change_to(current, new, repeated):
            for name, text in (('current', current), ('new', new), ('again', repeated)):
                b.fill('#password [name=%s]' % name, text)
            b.keys('Enter')
        change_to('omniarena', 'my-new-one', 'my-new-onf')
        said('The new password was not typed the same twice.')
        change_to('not this one', 'my-new-one', 'my-new-one')
        said(s.json('POST', '/api/auth/password', '{"current":"nor this","new":"my-new-one"}', status=403)['error'])
        equal((s.health()['default_credentials'], b.text(TITLE)), (True, 'Settings'))
        change_to('omniarena', 'my-new-one', 'my-new-one')
        said('The password is changed.')
        s.auth = basic('my-new-one')
        equal((s.health()['default_credentials'], b.text('#published'), b.js('return [...document.querySelectorAll("#password input")].map(i => i.value).join("")')), (False, None, ''))
        for again_ in (False, True):
            if again_:
                b.reload()
                seen('#state', 'Live')
            go('dashboard')
            equal(ended('echo on')['out'], 'on\n')
            becomes(lambda: commands()[-1:], ['echo on'])


@test
@fails('/api/exec')
def rate_and_timeout(host):
    with opened(host, page='settings') as s:
        value = lambda name: b.js('return document.querySelector("[data-setting=%s] input").value' % name)
        becomes(lambda: (value('max_rate_per_agent'), value('timeout_ms')), ('0', '0'))
        for name, v in (('timeout_ms', '300'), ('max_rate_per_agent', '2')):
            b.js('document.querySelector("#say").textContent = ""')
            b.fill('[data-setting=%s] input' % name, v)
            b.keys('Enter')
            said('Saved.')
        equal({k: s.json('GET', '/api/settings')[k] for k in ('max_rate_per_agent', 'timeout_ms')}, dict(max_rate_per_agent=2, timeout_ms=300))
        go('dashboard')
        seen('#profile-limits', 'Time:0.3s')
        check(ended('sleep 20')['end'].startswith('timeout after 300 ms'), entry())
        ended('true')
        check('rate' in ended('echo third')['end'] and entry()['bad'], entry())
        b.reload()
        go('settings')
        becomes(lambda: (value('max_rate_per_agent'), value('timeout_ms')), ('2', '300'))


@test
def summary_and_export(host):
    with opened(host, page='settings') as s:
        busy(s)
        becomes(lambda: list(cards('#settings .cards').items()), [('Total Executions', '4'), ('Total Tokens', '{:,}'.format(sum(a['tokens_total'] for a in agents(s).values()))), ('Active Agents', '4')])
        folder = tempfile.mkdtemp(dir=b.folder)
        b.cdp('Browser.setDownloadBehavior', behavior='allow', downloadPath=folder)
        b.click('#export')
        until(lambda: os.listdir(folder) == ['audit.json'], what='it is there')
        with open(folder + '/audit.json') as f:
            rows = json.load(f)
        equal([r['seq'] for r in rows], [r['seq'] for r in logged(s)])
        check('wget http://example.org' in [r.get('cmd') for r in rows if r['event'] == 'BLOCK'], rows)


@test
def reset_asks_first(host):
    with opened(host, page='settings') as s:
        busy(s)
        becomes(lambda: cards('#settings .cards')['Total Executions'], '4')
        for no in (lambda: b.click('"Cancel"'), lambda: b.keys('Escape')):
            b.click('#reset')
            seen('#reset-box', 'Reset the sandbox?')
            no()
            seen('#reset-box', None)
        equal((s.health()['total_execs'], logged(s, 'RESET')), (4, []))
        b.click('#reset')
        b.click('#reset-box .danger')
        said('The sandbox is reset.')
        equal((s.health()['total_execs'], len(logged(s, 'RESET')), sorted(a for a in agents(s) if a != 'dashboard')), (0, 1, ['claude', 'spent']))
        becomes(lambda: cards('#settings .cards')['Total Executions'], '0')
        go('dashboard')
        becomes(lambda: ([r[0] for r in audit()], cards()['Blocked'], table('#agents', agent='quiet')), (['RESET'], '0', None))


# ---- hostile text ----

HOSTILE = [IMG, '<script>window.pwned=1</script>', '"\'><svg/onload=window.pwned=1>', '\x1b[31mred\x1b]0;title\x07\x1b[2J', 'a\u202eb\u200bc', 'one\ntwo\r\tthree', '&lt;b&gt;&amp;', '{{7*7}}${7*7}']


@test
@fails('/api/')
def hostile_text(host):
    with opened(host, '--profile', 'permissive', '--max-agents', '20') as s:
        counted = lambda: b.js('return document.querySelectorAll("img, script, svg, iframe, [onerror], [onload]").length')
        seen('.chart.blocks figcaption', 'in the last minute')
        before = counted()
        for i, text in enumerate(HOSTILE):
            model = {'model': text} if text.isprintable() else {}  # the server refuses others
            s.post({'cmd': 'echo ' + shlex.quote(text), **model}, headers={'X-Agent': 'h%d' % i})
        s.json('POST', '/api/policy', json.dumps({'action': 'add', 'list': 'blacklist', 'pattern': IMG}))
        s.json('POST', '/api/policy', json.dumps({'action': 'add', 'list': 'blacklist', 'pattern': '"quoted" \'>\u202e'}))
        visible = lambda t: ''.join('\\u%04x' % ord(c) if unicodedata.category(c) in ('Cc', 'Cf') else c for c in t)
        becomes(lambda: [table('#agents', agent='h%d' % i)[9] for i in range(len(HOSTILE))], [t if t.isprintable() else '–' for t in HOSTILE])
        shown = [c for c in commands() if c.startswith('echo ')]
        equal(shown, ['echo ' + visible(shlex.quote(t)) for t in HOSTILE])
        b.fill('#filter', '<img')
        becomes(commands, ['echo ' + shlex.quote(IMG), 'blacklist_add ' + IMG])
        b.fill('#filter', ' ')
        e = ended("printf '%s\\n' '" + IMG + "'; printf '\\033[31mred\\033[0m\\033]0;t\\007 \\342\\200\\256rtl \\001\\n'; echo '<script>window.pwned=1</script>' >&2")
        equal((e['out'], e['err'].split('\n')[0]), (IMG + '\nred \\u202ertl \\u0001\n', '<script>window.pwned=1</script>'))
        s.json('POST', '/api/budget', '{"agent":"h0","max_tokens":5}')
        for page in PAGES:
            go(page)
            b.js('return new Promise(done => setTimeout(done, 150))')
            if page == 'integrate':
                equal(table('#active', agent='h0')[1], visible(IMG))
            if page == 'policies':
                becomes(lambda: b.texts('#blacklist code'), [IMG, '"quoted" \'>\\u202e'])
                for cmd in (IMG, 'rm ' + IMG, '"<b>x</b>"'):
                    b.fill('#judge [name=cmd]', cmd)
                    b.keys('Enter')
                    becomes(lambda: bool(b.text('#verdict')), True)
                b.click('"Remove %s"' % IMG)
                said('Removed “%s”' % IMG)
            equal((counted(), b.js('return window.pwned ?? null'), re.findall('[\u202e\u200b\x1b\x07]', b.js('return document.body.textContent'))), (before, None, []), page)
            equal(b.js('return document.title'), page.capitalize() + ' · OmniArena')


# ---- keys, and narrow windows ----

@test
def every_control_by_tab(host):
    with host.server() as s:
        busy(s)
        visit(s)
        until(lambda: table('#agents', agent='claude'), what='the agents are there')
        for page in PAGES:
            go(page)
            b.js('return new Promise(done => setTimeout(done, 200))')
            b.js('document.activeElement.blur(); getSelection().removeAllRanges(); window.all = null; document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute("tabindex")')
            want = b.js('''window.all = [...document.querySelectorAll('a[href], button, input, select, [tabindex]')].filter(e => e.checkVisibility() && !e.disabled && e.tabIndex >= 0);
                return all.length''')
            got = []
            for _ in range(want):
                b.keys('Tab')
                got.append(b.js('const e = document.activeElement, s = getComputedStyle(e); return [all.indexOf(e), s.outlineStyle !== "none"]'))
            equal(got, [[i, True] for i in range(want)], page)


@test
def single_keys(host):
    with opened(host) as s:
        focus, open_ = (lambda: b.js('return document.activeElement.id')), (lambda: b.js('return [...document.querySelectorAll("dialog[open]")].map(d => d.id)'))
        for n, page in enumerate(PAGES, 1):
            b.keys(str(n))
            becomes(lambda: b.texts('h1'), [PAGES[page]])
            b.js('document.querySelector("#keys").focus()')
            b.keys('?')
            equal(open_(), ['keys-box'])
            b.keys('1')
            equal(b.texts('h1'), [PAGES[page]], 'behind the dialog')
            b.keys('Escape')
            equal((open_(), focus()), ([], 'keys'))
            for key, goal in (('/', 'filter'), ('t', 'cmd')):
                b.keys(key)
                becomes(focus, goal)
                equal(b.texts('h1'), ['Dashboard'])
                b.keys('/2?')
                equal((b.js('return document.activeElement.value'), b.texts('h1'), open_()), ('/2?', ['Dashboard'], []))
                b.fill('#' + goal, '')
                b.click(TITLE)
                b.keys(str(n))
                becomes(lambda: b.texts('h1'), [PAGES[page]])
        b.click('#keys')
        b.click('#keys-on')
        b.keys('Escape')
        b.js('document.activeElement.blur()')
        b.keys('1', '?', 't')
        equal((b.texts('h1'), open_(), s.health()['ok']), (['Settings'], [], True), 'switched off')
        b.click('#keys')
        equal(open_(), ['keys-box'])


@test
def a_narrow_window(host):
    with own(host, 'a-new-password') as s:
        busy(s)
        long = 'x' * 60
        execute(s, 'echo ' + long * 5, 'agent-' + 'y' * 20, Model=long, Tokens_In=10**12)
        s.json('POST', '/api/policy', json.dumps({'action': 'add', 'list': 'blacklist', 'pattern': long * 2}))
        b.cdp('Emulation.setDeviceMetricsOverride', width=360, height=700, deviceScaleFactor=2, mobile=False)
        fits = lambda: b.js('const e = document.documentElement; return [innerWidth, Math.max(e.scrollWidth, document.body.scrollWidth) - e.clientWidth]')
        visit(s, state='')
        seen('h1[id=login-h]', 'Log in')
        equal(fits(), [360, 0])
        log_in('a-new-password')
        seen('#state', 'Live')
        until(lambda: table('#agents', agent='claude'), what='the agents are there')
        ended('echo ' + long * 5)
        for page in PAGES:
            go(page)
            b.js('return new Promise(done => setTimeout(done, 200))')
            equal(fits(), [360, 0], page)
            equal(b.js('''return [...document.querySelectorAll("button, input, select, h1, h2")].filter(e => { const r = e.getBoundingClientRect();
                return e.checkVisibility() && !e.closest('.scroll, .unseen') && !e.matches('.unseen') && (r.left < 0 || r.right > 360); }).map(e => e.outerHTML)'''), [], page)
        for button, box in (('#keys', '#keys-box'), ('#reset', '#reset-box')):
            b.click(button)
            equal(b.js('const r = document.querySelector(arguments[0]).getBoundingClientRect(); return r.left >= 0 && r.right <= 360', box), True)
            b.keys('Escape')


# ---- for everybody ----

@test
@fails(*GONE)
def axe(host):
    with open(os.path.join(npm(), 'axe-core/axe.min.js')) as f:
        source = f.read()

    def clean(where):
        b.js('return Promise.all(document.getAnimations().map(a => a.finished))')
        if not b.js('return !!window.axe'):
            b.cdp('Runtime.evaluate', expression=source)
        for scheme in ('light', 'dark'):
            b.cdp('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])
            r = b.js('return axe.run(document).then(r => [r.violations.map(v => [v.id, ...v.nodes.map(n => n.target.join(" ") + ": " + n.failureSummary)]), r.passes.map(p => p.id)])')
            equal(r[0], [], where, scheme)
            check('color-contrast' in r[1], where, 'not looked at')
    with own(host, 'a-new-password') as s:
        b.cdp('Page.setBypassCSP', enabled=True)
        busy(s)
        visit(s, state='')
        seen('h1[id=login-h]', 'Log in')
        clean('log-in')
        log_in('wrong-password')
        seen('#login-error', 'Wrong')
        clean('log-in that was refused')
        log_in('a-new-password')
        seen('#state', 'Live')
        ended('echo out; echo err >&2; exit 3'), ended('wget x')
        until(lambda: table('#agents', agent='claude'), what='the agents are there')
        for page in PAGES:
            go(page)
            if page == 'policies':
                b.fill('#judge [name=cmd]', 'wget x')
                b.keys('Enter')
                until(lambda: b.text('#verdict'), what='a verdict')
            if page == 'integrate':
                b.click('#test')
                seen('#tested', 'Connected')
            clean(page)
            if page == 'budgets':
                b.click('"Set budget of claude"')
                clean('budget')
                b.keys('Escape')
        for button in ('#keys', '#reset'):
            b.click(button)
            clean(button)
            b.keys('Escape')
        go('dashboard')
        killed(s)
        clean('the server is gone')


if __name__ == '__main__':
    if not any(not sys.argv[1:] or any(fnmatch.fnmatch(n, p) or p in n for p in sys.argv[1:]) for n in [t.__name__ for t in TESTS]):
        pass
    try:
        sys.exit(arena.run(['root' if os.geteuid() == 0 else 'user'], sys.argv[1:], 'page'))
    finally:
        if b:
            b.quit()
