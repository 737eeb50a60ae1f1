"""What holds on every page: hostile text, keys, narrow windows, and what axe-core looks at."""
from page_base import *


# ---- hostile text ----

HOSTILE = [IMG, '<script>window.pwned=1</script>', '"\'><svg/onload=window.pwned=1>', '\x1b[31mred\x1b]0;title\x07\x1b[2J',
           'a\u202eb\u200bc', 'one\ntwo\r\tthree', '&lt;b&gt;&amp;', '{{7*7}}${7*7}']


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
        becomes(lambda: [table('#agents', agent='h%d' % i)[9] for i in range(len(HOSTILE))],
                [t if t.isprintable() else '–' for t in HOSTILE])
        shown = [c for c in commands() if c.startswith('echo ')]
        equal(shown, ['echo ' + visible(shlex.quote(t)) for t in HOSTILE])
        b.fill('#filter', '<img')
        becomes(commands, ['echo ' + shlex.quote(IMG), 'blacklist_add ' + IMG])
        b.fill('#filter', ' ')
        e = ended("printf '%s\\n' '" + IMG + "'; "
                  "printf '\\033[31mred\\033[0m\\033]0;t\\007 \\342\\200\\256rtl \\001\\n'; echo '<script>window.pwned=1</script>' >&2")
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
            equal((counted(), b.js('return window.pwned ?? null'),
                   re.findall('[\u202e\u200b\x1b\x07]', b.js('return document.body.textContent'))), (before, None, []), page)
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
            b.js('document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute("tabindex")')
            want = b.js('''window.all = [...document.querySelectorAll('a[href], button, input, select, [tabindex]')]
                    .filter(e => e.checkVisibility() && !e.disabled && e.tabIndex >= 0);
                return all.length''')
            got = []
            for _ in range(want):
                b.keys('Tab')
                got.append(b.js('const e = document.activeElement; return [all.indexOf(e), getComputedStyle(e).outlineStyle !== "none"]'))
            equal(got, [[i, True] for i in range(want)], page)


@test
def single_keys(host):
    with opened(host) as s:
        open_ = lambda: b.each('dialog[open]', 'e.id')
        for n, page in enumerate(PAGES, 1):
            b.keys(str(n))
            becomes(lambda: b.texts('h1'), [PAGES[page]])
            b.js('document.querySelector("#keys").focus()')
            b.keys('?')
            equal(open_(), ['keys-box'])
            b.keys('1')
            equal(b.texts('h1'), [PAGES[page]], 'behind the dialog')
            b.keys('Escape')
            equal((open_(), b.focus()), ([], 'keys'))
            for key, goal in (('/', 'filter'), ('t', 'cmd')):
                b.keys(key)
                becomes(b.focus, goal)
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
        fits = lambda: b.each('html', '[innerWidth, Math.max(e.scrollWidth, document.body.scrollWidth) - e.clientWidth]')[0]
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
            out = b.each('button, input, select, h1, h2', '''(r => e.checkVisibility() && !e.closest('.scroll, .unseen') &&
                (r.left < 0 || r.right > 360) && e.outerHTML)(e.getBoundingClientRect())''')
            equal([o for o in out if o], [], page)
        for button, box in (('#keys', '#keys-box'), ('#reset', '#reset-box')):
            b.click(button)
            equal(b.each(box, '(r => r.left >= 0 && r.right <= 360)(e.getBoundingClientRect())'), [True])
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
            r = b.js('''return axe.run(document).then(r => [r.violations.map(v => [v.id, ...v.nodes.map(n => n.target.join(" ") +
                ": " + n.failureSummary)]), r.passes.map(p => p.id)])''')
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
