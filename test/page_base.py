"""The harness of the page's tests: what a person sees, and does, on the dashboard of a real server in a real browser.

Every test begins with a fresh tab, and ends with a look at the page's console, where nothing may stand but the requests that
the test means to fail (@fails). Where a test fails, build/page/NAME.png shows what the browser showed.
"""
import functools, gzip, hashlib, shlex, unicodedata, urllib.request
import arena
from arena import *
from browser import Browser, Gone
from npm import modules
from test_limits import OPS, agents, basic, change, execute, logged
from test_life import basic_server
from test_audit import Stream

arena.TESTS.clear()  # theirs
PAGES = dict(dashboard='Dashboard', integrate='Connect Your Agents', policies='Policies', budgets='Token Budgets',
             security='Security', settings='Settings')
STRANGE = 'a\'b"c$HOME \\n `id` é ü €'
NPM = ['axe-core@4.14.1', '@langchain/core@1.4.0', '@modelcontextprotocol/sdk@1.32.2']
TITLE = '.page:not([hidden]) > h1'
WATCH = '''window.tasks = [];
    new PerformanceObserver(l => tasks.push(...l.getEntries().map(e => e.duration))).observe({ type: "longtask" })'''
IMG = '<img src=x onerror=window.pwned=1>'
b = Browser()


def test(fn):
    @functools.wraps(fn)
    def run(host):
        if not b.session:
            try:
                b.start()
            except FileNotFoundError as e:
                raise Skip(e)
        b.alone()
        b.console()
        b.name = fn.__name__
        fn(host)
        noise = [l for l in b.console() if 'Failed to load resource' not in l or not any(p in l for p in getattr(fn, 'fails',
                                                                                                                 ()))]
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


def until(fn, seconds=10, what='condition'):
    """Asks less often than the house's: a browser has more to do for an answer."""
    arena.until(lambda: fn() or time.sleep(0.04), seconds, what)


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
    becomes(lambda: [i for i in b.each('main > section', 'e.checkVisibility() && e.id') if i], [page])


def cards(css='#cards'):
    return dict(b.each(css + ' div', '[e.children[0].innerText, e.children[1].innerText]'))


def table(css, **row):
    """The cells of its rows; of one alone, with agent=NAME."""
    cells = b.each(css + ' tr', '[...e.cells].map(c => c.innerText.trim())')
    return next((r for r in cells if row['agent'] in r[:2]), None) if row else cells


def audit():
    """Tag, agent, command and result of the rows that are shown."""
    return b.each('#audit li', '[...e.children].slice(1).map(c => c.textContent)')


def commands():
    return [r[2] for r in audit()]


def command(cmd):
    b.fill('#cmd', cmd.replace('@', UNIQUE))
    b.keys('Enter')


def entry():
    """The last one of the terminal."""
    return b.js('''const e = document.querySelector('#term .entry:last-child');
        const of = c => e ? [...e.querySelectorAll(c)].map(x => x.textContent).join('') : '';
        return { cmd: of('.cmd'), out: of('.out'), err: of('.err'), end: of('p:last-child'), bad: !!e?.querySelector('p.fail') }''')


def ended(cmd, seconds=20):
    command(cmd)
    until(lambda: entry()['end'] and entry()['cmd'].startswith('$ ' + cmd[:2].replace('@', UNIQUE)), seconds, cmd + ' has ended')
    return entry()


def asked(path):
    """The requests that the page has made to it: when they began, in ms."""
    return b.js('''return performance.getEntriesByType('resource').filter(e => new URL(e.name).pathname === arguments[0])
        .map(e => e.startTime)''', path)


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
    return modules('npm', NPM)


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


def echo(s, *what, agent='a'):
    for w in what:
        execute(s, 'echo %s' % w, agent)


GONE = ('/api/', '/healthz')


def killed(s):
    s.proc.kill()
    s.wait()
    seen('#state', 'Server gone')
    seen('#gone', 'The server does not answer')
    equal(b.js('return document.querySelector("#gone").getAttribute("role")'), 'alert')
