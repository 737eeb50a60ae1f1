"""What the dashboard shows: the page as it is sent, its figures, terminal, layers, log and charts, and a server that goes."""
from page_base import *


# ---- what is sent ----

@test
def the_page_as_it_is_sent(host):
    with host.server() as s:
        status, h, body = s.request('GET', '/', auth=False, headers={'Accept-Encoding': 'gzip'})
        equal((status, h['Content-Type'], h['Content-Encoding'], h['Vary']),
              (200, 'text/html; charset=utf-8', 'gzip', 'Accept-Encoding'))
        html = gzip.decompress(body)
        with open(os.path.join(TOP, 'dash.html'), 'rb') as f:
            equal(html == f.read(), True, 'the file, byte for byte')
        csp = dict(d.strip().split(' ', 1) for d in h['Content-Security-Policy'].split(';'))
        for tag in ('script', 'style'):
            inside = re.findall(rb'<%s[^>]*>(.*?)</%s>' % (tag.encode(), tag.encode()), html, re.S)
            equal([len(inside), csp[tag + '-src']],
                  [1, "'sha256-%s'" % base64.b64encode(hashlib.sha256(inside[0]).digest()).decode()])
        equal([csp[k] for k in ('default-src', 'connect-src', 'frame-ancestors', 'base-uri', 'form-action')],
              ["'none'", "'self'", "'none'", "'none'", "'none'"])
        check('unsafe' not in h['Content-Security-Policy'], h)
        equal(re.findall(rb'\son\w+\s*=\s*["\'].*|style\s*=\s*["\'].*|(?:src|href)="?(?:https?:)?//.*', html), [], 'inline, or from elsewhere')
        equal([s.request('GET', '/', auth=False, headers={'Accept-Encoding': e})[0] for e in ('identity', 'br', '*',
                                                                                              'br, gzip;q=0.5')], [406, 406, 200,
                                                                                                                   200])
        status, head, nothing = s.request('HEAD', '/', auth=False, headers={'Accept-Encoding': 'gzip'})
        equal((status, nothing, head['Content-Length'], head['Content-Security-Policy']),
              (200, b'', str(len(body)), h['Content-Security-Policy']))
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
            equal(b.js('return [document.title, location.hash, document.activeElement.id]'),
                  [page.capitalize() + ' · OmniArena', '#' + page, 'main'])
            equal((b.texts('h1'), b.texts('nav a[aria-current=page]'),
                   b.js('return document.querySelectorAll("[aria-current]").length')), ([heading], [page.capitalize()], 1))
        b.js('history.back()')
        seen('#dashboard-h', 'Dashboard')
        visit(s, 'no-such-page')
        equal(b.texts('h1'), ['Dashboard'])


@test
def the_nine_cards(host):
    with opened(host) as s:
        def want():
            h, a = s.health(), agents(s)
            kilobytes = round(os.path.getsize(os.path.join(host.work, 'omniarena')) / 1024)
            return {'Executions': str(h['total_execs']), 'Blocked': str(h['blocked_cmds']), 'Bytes': size(h['bytes_captured']),
                    'Rate/min': str(sum(x['rate_1m'] for x in a.values())), 'Agents': str(h['agents_count']), 'Profile': h['profile'],
                    'Isolation': h['isolation'], 'Binary size': '%d KB' % kilobytes}
        for begun in (False, True):
            if begun:
                busy(s)
                s.ok('seq 3000')
            becomes(lambda: {k: v for k, v in cards().items() if k != 'Uptime'}, want())
        equal(' '.join(cards()), 'Executions Blocked Bytes Uptime Rate/min Agents Profile Isolation Binary size')
        equal([cards()[k] for k in ('Executions', 'Blocked', 'Rate/min')] + [cards()['Bytes'][-5:]], ['5', '1', '7', '.0 kB'])
        uptime = lambda: [int(x) for x in re.fullmatch(r'(?:(\d+)m )?(\d+)s', cards()['Uptime']).groups('0')]
        check(abs(uptime()[0] * 60 + uptime()[1] - s.health()['uptime_sec']) <= 2, cards(), s.health())
        before = cards()['Uptime']
        until(lambda: cards()['Uptime'] != before, what='it goes on')


COLUMNS = ['Status', 'Agent', 'Execs', 'Blocked', 'Bytes', 'Rate/min', 'Tokens In', 'Tokens Out', 'Budget', 'Model',
           'Last Active']


@test
def the_table_of_agents(host):
    with opened(host) as s:
        equal(b.texts('#dashboard thead th'), COLUMNS)
        busy(s)
        a = agents(s)['claude']
        becomes(lambda: table('#agents', agent='claude')[:10],
                ['active', 'claude', '3', '1', size(a['bytes']), '4', '3,600', '102', '5,000', 'claude-x'])
        equal([a[k] for k in ('execs', 'blocked', 'tokens_in', 'tokens_out', 'token_budget')], [3, 1, 3600, 102, 5000])
        check(re.fullmatch(r'now|\d+s ago', table('#agents', agent='claude')[10]), table('#agents', agent='claude'))
        becomes(lambda: table('#agents', agent='spent')[0], 'over budget')
        equal((len(table('#agents')), b.text('#no-agents')), (len(agents(s)), None))
        running = Stream(s, 'POST', '/api/exec', '{"cmd":"sleep 30"}', Accept='text/event-stream', X_Agent='quiet')
        until(lambda: s.health()['running'], what='it runs')
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
        equal(len(set(b.js('return ["#term .out", "#term .err"].map(c => getComputedStyle(document.querySelector(c)).color)'))),
              2, 'one colour')
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
        check('Operation not permitted' in e['err'] and denied and all('%s: %s' % (d['call'], d['hint']) in e['err'] for d in denied), denied, e)


@test
def commands_given_before(host):
    with opened(host):
        for cmd in ('echo 1', 'echo 2', 'echo 3', 'echo 2'):
            ended(cmd)
        value = lambda key: (b.keys(key), b.js('return document.querySelector("#cmd").value'))[1]
        equal([value(k) for k in ('Up', 'Up', 'Up', 'Up', 'Down', 'Down', 'Down', 'Up')],
              ['echo 2', 'echo 3', 'echo 1', 'echo 1', 'echo 3', 'echo 2', '', 'echo 2'])


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
        check(b.js('const t = document.querySelector("#term"); return t.scrollTop + t.clientHeight > t.scrollHeight - 9'),
              'the end is in view')


# ---- profile, and the layers ----

@test
def the_profile(host):
    with opened(host) as s:
        for profile, limits in (('moderate', 'CPU:30s Mem:256MB Time:30s'), ('strict', 'CPU:5s Mem:64MB Time:5s'),
                                ('permissive', 'CPU:300s Mem:1024MB Time:300s')):
            b.choose('#profile', profile)
            seen('#profile-limits', limits)
            equal((s.health()['profile'], cards()['Profile']), (profile, profile))
        go('security')
        equal(b.js('return [...document.querySelectorAll("#profiles button b")].map(b => b.textContent)'),
              ['Strict', 'Moderate', 'Permissive'])
        pressed = lambda: b.js('return [...document.querySelectorAll("#profiles [aria-pressed=true] b")].map(b => b.textContent)')
        becomes(pressed, ['Permissive'])
        for n, name in ((2, 'Moderate'), (1, 'Strict'), (3, 'Permissive')):
            b.click('#profiles button:nth-child(%d)' % n)
            becomes(pressed, [name])
            l = s.health()['limits']
            equal(s.health()['profile'], name.lower())
            becomes(lambda: list(cards('#limits').values()),
                    ['%dms' % l['timeout_ms'], '%ds' % l['max_cpu_sec'], '%dMB' % l['max_mem_mb'], str(l['max_processes']),
                     '%dMB' % l['max_file_mb'], str(l['max_open_files'])])
        s.json('POST', '/api/profile', '{"profile":0}')
        becomes(pressed, ['Strict'], 'changed by somebody else')


def layers_are_true(s):
    h = s.health()

    def says(*names):
        why = [h['missing'][n] for n in names if n in h['missing']]
        return '✗ missing: ' + why[0] if why else '✓\u00a0in\u00a0force'
    layers = [('Command policy', 'policy'), ('CLONE_NEWNET', 'netns'), ('pivot_root jail', 'mountns', 'pidns'), ('setrlimit', 'rlimits'),
              ('NO_NEW_PRIVS', 'no_new_privs'), ('seccomp-bpf', 'seccomp')]
    check(all(h['layers'][n] is not (n in h['missing']) for l in layers for n in l[1:]), h)
    becomes(lambda: [[r[0], r[1], r[3]] for r in table('#layers')], [[str(i), l[0], says(*l[1:])] for i, l in enumerate(layers, 1)])
    fences = b.texts('#fences dd')
    equal(fences[:4], [says(n) for n in ('pidns', 'cgroup', 'landlock', 'userns')])
    check(fences[4].startswith('✓') if h['whitelist_enforcement'] == 'kernel' else h['whitelist_enforcement_why'] in fences[4],
          fences)
    return h


@test
def the_six_layers(host):
    with host.server() as s:
        s.settled()
        visit(s, 'security')
        h = layers_are_true(s)
        equal(b.text('#basic') is None, h['isolation'] == 'kernel')


@test
def lists_that_the_jail_keeps_soon(host):
    """A change of the lists is in the jail a moment later, when nothing else happens."""
    with host.server() as s:
        s.settled()
        if s.health()['whitelist_enforcement'] != 'kernel':
            raise Skip(s.health()['whitelist_enforcement_why'])
        visit(s, 'security')
        s.json('POST', '/api/policy', '{"action":"add","list":"whitelist","pattern":"wget"}')
        until(lambda: s.health()['whitelist_enforcement'] == 'kernel', what='the jail has them')
        becomes(lambda: b.texts('#fences dd')[4], '✓\u00a0in\u00a0force')


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

@test
def the_last_of_the_log(host):
    with host.server('--audit-slots', '600') as s:
        echo(s, *range(30))
        visit(s)
        last = lambda n, end: ['echo %d' % i for i in range(end - n, end)]
        becomes(commands, last(20, 30))
        b.js('document.querySelector("#audit li:last-child").mark = true')
        echo(s, *range(30, 32))
        becomes(commands, last(20, 32))
        equal(audit()[-1][:2] + [re.sub(r'\d+ ms', 'N ms', audit()[-1][3])], ['EXEC', 'a', 'exit 0 · N ms'])
        check(b.js('const a = document.querySelector("#audit"); return a.scrollTop + a.clientHeight >= a.scrollHeight - 2'),
              'the newest is in view')
        equal((asked('/api/audit'), len(asked('/api/health'))), ([], 1), 'by the stream alone')
        equal(b.each('#audit li', 'e.mark === true'), [False] * 17 + [True, False, False], 'rows stay the same elements')
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
        equal(asked('/api/audit'), [], 'by the stream alone')


@test
def five_thousand_events(host):
    def post(first, n):
        conn = http.client.HTTPConnection('127.0.0.1', s.port, timeout=30)
        for i in range(first, first + n):
            s.request('POST', '/api/exec', '{"cmd":"wget http://example.org/%d-%s"}' % (i, 'x' * 100),
                      {'X-Agent': 'a%d' % (i % 5)}, conn=conn)
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
        check(after[0] < before[0] + 6e5 and after[1] < before[1] + 1500 and after[2] < before[2] + 50, 'heap, nodes, elements:',
              before, after)
        equal([t for t in b.js('return tasks') if t > 200], [], 'long tasks')
        becomes(lambda: cards()['Blocked'], '5,002')
        equal(len(audit()), 20)


# ---- charts ----

@test
def charts(host):
    chart = lambda which: (b.text('#chart-%s figcaption' % which),
                           b.js('return document.querySelector("#chart-%s path").getAttribute("d")' % which).count('M'))
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


class Line:
    """Between a browser and a server, and can be cut."""
    def __init__(self, to, port=0):
        self.door, self.ends = socket.create_server(('127.0.0.1', port)), []
        self.to, self.port = to, self.door.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                a, b_ = self.door.accept()[0], socket.create_connection(('127.0.0.1', self.to))
                self.ends += [a, b_]
                for x, y in ((a, b_), (b_, a)):
                    threading.Thread(target=self._carry, args=(x, y), daemon=True).start()

    def _carry(self, x, y):
        with contextlib.suppress(OSError):
            while data := x.recv(65536):
                y.sendall(data)
            y.shutdown(socket.SHUT_WR)

    def cut(self):
        for s in (self.door, *self.ends):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


@test
@fails(*GONE)
def a_line_that_is_cut(host):
    """The server lives, and tells again what is known."""
    with host.server() as s:
        line = Line(s.port)
        visit(line)
        echo(s, *'abc')
        becomes(lambda: commands()[-1:], ['echo c'])
        line.cut()
        seen('#state', 'Server gone')
        echo(s, 'off')
        line = Line(s.port, line.port)
        seen('#state', 'Live', 20)
        echo(s, 'on')
        becomes(lambda: [c for c in commands() if 'echo' in c], ['echo ' + w for w in ('a', 'b', 'c', 'off', 'on')])
        becomes(lambda: cards()['Executions'], '5')
        b.go('about:blank')
        line.cut()


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
