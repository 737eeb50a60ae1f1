"""What is done with the dashboard: logging in, connecting agents, budgets, rules, settings."""
from page_base import *


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
        equal((b.texts('.page'), b.text('#nav'), b.js('return [document.title, document.querySelector("[name=pass]").type]')),
              ([], None, ['Log in · OmniArena', 'password']))
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
        ended('echo more that is secret')
        until(lambda: 'echo secret' in commands(), what='it is shown')
        b.click('#logout')
        seen('h1[id=login-h]', 'Log in')
        equal((kept(), b.text('#logout'), b.text('#nav')), ((['', 0, ''], []), None, None))
        check('Live' not in b.text('#state') and 'secret' not in b.js('return document.querySelector("main").textContent'),
              'what was there is still there:', b.text('#state'))
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
            becomes(lambda: (table('#agents', agent=mine) is None, table('#agents', agent='a') is None,
                             'echo of another' in commands()), (False, alone, not alone))
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
                    check(any(x in code for x in secrets) and not any(x in shown for x in secrets) and '••••' in shown, tab,
                          shown)
                    hidden = functools.reduce(lambda c, x: c.replace(x, ''), secrets, code)
                    equal(hidden.strip(), re.sub('(arena:)?••••••••', '', shown).strip(), tab, 'else the same')
                    folder = os.path.join(tempfile.mkdtemp(dir=b.folder), 'my project é')
                    os.mkdir(folder)
                    yield s, tab, code, folder
        yield each()


def run_in(folder, *argv, stdin=None, path=''):
    r = subprocess.run(argv, cwd=folder, input=stdin, capture_output=True, text=True, timeout=60,
                       env={'PATH': path + os.environ['PATH'], 'HOME': folder, 'LC_ALL': 'C.UTF-8'})
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
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { readFileSync } from 'node:fs';
const client = new Client({ name: 'test', version: '1' });
const { type, url, headers } = JSON.parse(readFileSync(process.argv[2])).mcpServers.omniarena;
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
const { tools } = await client.listTools(), call = cmd => client.callTool({ name: 'exec', arguments: { cmd } });
const unknown = await client.callTool({ name: 'nosuch', arguments: {} }).then(() => 'taken', e => e.code);
await client.ping();
const allowed = await call('echo "hé"'), blocked = await call('wget x');
console.log(JSON.stringify({ type, server: client.getServerVersion(), tools, allowed, blocked, unknown }));
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
            r = json.loads(run_in(elsewhere, 'node', as_file(elsewhere, 'client.mjs', MCP_CLIENT),
                                  os.path.join(folder, '.mcp.json')))
            equal((r['type'], r['server']['name'], r['tools'][0]['name'], r['unknown'], logged(s)[-1]['agent']),
                  ('http', 'omniarena', 'exec', -32602, 'mcp'))
            equal(r['tools'][0]['inputSchema']['required'], ['cmd'])
            allowed, blocked = (r[k]['structuredContent'] for k in ('allowed', 'blocked'))
            equal((allowed['stdout'], r['allowed']['isError'], blocked['ok'], r['blocked']['isError']),
                  ('hé\n', False, False, True))


@test
@fails('/api/')
def code_for_openclaw(host):
    with integrate(host, 'OpenClaw') as each:
        for s, _, code, folder in each:
            os.mkdir(folder + '/bin')
            os.chmod(folder + '/bin/' + as_file(folder + '/bin', 'openclaw', '#!/bin/sh\nprintf "%s\\0" "$@" >>args\n'), 0o755)
            run_in(folder, 'sh', stdin=code, path=folder + '/bin:')
            with open(folder + '/args') as f:
                words = f.read().split('\0')
            how = json.loads(words.pop(3))
            equal((words, how['type']), (['mcp', 'set', 'omniarena', 'mcp', 'probe', 'omniarena', ''], 'http'))
            call = {'jsonrpc': '2.0', 'id': 1, 'method': 'tools/call',
                    'params': {'name': 'exec', 'arguments': {'cmd': 'echo hi'}}}
            with urllib.request.urlopen(urllib.request.Request(how['url'], json.dumps(call).encode(), how['headers'])) as reply:
                equal(json.load(reply)['result']['structuredContent']['stdout'], 'hi\n')
            equal(logged(s, 'EXEC')[-1]['agent'], 'openclaw')


@test
def credentials_and_tabs(host):
    with opened(host, page='integrate') as s:
        b.cdp('Browser.grantPermissions', permissions=['clipboardReadWrite', 'clipboardSanitizedWrite'])
        url = 'http://127.0.0.1:%d' % s.port
        equal([b.text('#' + x) for x in ('endpoint', 'who', 'secret')], [url, 'arena', '••••••••'])
        equal([copied('[data-copy=%s]' % x) for x in ('endpoint', 'secret')], [url, 'omniarena'])
        for pressed, secret in (('true', 'omniarena'), ('false', '••••••••')):
            b.click('#reveal')
            equal((b.text('#secret'), 'arena:' + secret in b.text('#code'),
                   b.js('return document.querySelector("#reveal").ariaPressed')), (secret, True, pressed))
        names = ['curl', 'Python', 'JavaScript', 'MCP', 'OpenClaw', 'LangChain']
        equal(b.texts('[role=tab]'), names)
        b.click('#tab-curl')
        for name in names[1:] + names[:1]:
            b.keys('Right')
            equal([b.focus(), b.texts('[aria-selected=true]'), b.texts('[role=tab][tabindex="0"]')], ['tab-' + name, [name], [name]])
        b.keys('Left')
        equal((b.texts('[aria-selected=true]'), '@langchain/core' in b.text('#code')), (['LangChain'], True))
        equal([b.texts('#integrate h2'), len(table('#api')) > 10],
              [['1. Your Sandbox Credentials', '2. Test Connection', '3. Integrate', 'Active Agents', 'API Endpoints'], True])


@test
@fails(*GONE)
def test_connection(host):
    with opened(host, page='integrate') as s:
        for profile in ('strict', 'moderate'):
            s.json('POST', '/api/profile', json.dumps({'profile': profile}))
            b.click('#test')
            h = s.health()
            seen('#tested', 'Connected: OmniArena %s, profile %s, isolation %s' % (h['version'], profile, h['isolation']))
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
                becomes(lambda: b.js('return document.activeElement.textContent'), 'Set budget of quiet', 'focus')
            execute(s, 'true', 'quiet')
            until(lambda: b.js('return document.querySelector("#m-execs").textContent') == str(s.health()['total_execs']), what='it is drawn')
            equal(b.js('return document.activeElement.textContent'), 'Set budget of quiet', 'focus')
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
            return dict(b.each('#verdict dt', '[e.textContent, e.nextSibling.textContent]'))
        equal(verdict('cat x | sort'), {'Verdict': '✓ allowed', 'Programs found': 'cat sort'})
        v = verdict('cat x | xargs wget')
        check(v['Verdict'].startswith('✗ blocked by ') and 'wget' in v['Programs found'] and v['Why'], v)
        equal((v['Rule'], v['Program']), ('wget', 'wget'))
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
            why = json.loads(s.request('POST', '/api/policy',
                                       json.dumps({'action': 'add', 'list': 'blacklist', 'pattern': bad}))[2])
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
        equal((s.health()['default_credentials'], b.text('#published'),
               b.js('return [...document.querySelectorAll("#password input")].map(i => i.value).join("")')), (False, None, ''))
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
        equal({k: s.json('GET', '/api/settings')[k] for k in ('max_rate_per_agent', 'timeout_ms')},
              dict(max_rate_per_agent=2, timeout_ms=300))
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
        becomes(lambda: list(cards('#settings .cards').items()),
                [('Total Executions', '4'), ('Total Tokens', '{:,}'.format(sum(a['tokens_total'] for a in agents(s).values()))),
                 ('Active Agents', '4')])
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
        equal((s.health()['total_execs'], len(logged(s, 'RESET')), sorted(a for a in agents(s) if a != 'dashboard')),
              (0, 1, ['claude', 'spent']))
        becomes(lambda: cards('#settings .cards')['Total Executions'], '0')
        go('dashboard')
        becomes(lambda: ([r[0] for r in audit()], cards()['Blocked'], table('#agents', agent='quiet')), (['RESET'], '0', None))
