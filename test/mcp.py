"""Clients that others wrote, and the official conformance runner, at /mcp of a real server. test/mcp.py [PATTERN...]"""
import concurrent.futures, functools
import arena
from arena import *
from npm import modules
from test_limits import agents, logged

arena.TESTS.clear()  # theirs
NPM = ['@modelcontextprotocol/sdk@1.32.2', '@modelcontextprotocol/client@2.4.0', '@modelcontextprotocol/conformance@0.1.16',
       'mcporter@0.12.3']
NODE = 20  # what they need at least
# What a client is asked to do. It waits for a line before it gives its call up, and before it goes.
CLIENT = '''import { createInterface } from 'node:readline';
const [url, authorization, agent, mode] = process.argv.slice(2);
const old = mode === 'sdk';
const from = (path) => import(old ? '@modelcontextprotocol/sdk/client/' + path : '@modelcontextprotocol/client');
const { Client } = await from('index.js'), { StreamableHTTPClientTransport } = await from('streamableHttp.js');
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (what, value) => console.log(JSON.stringify([what, value]));
const negotiation = { versionNegotiation: { mode: mode === 'pin' ? { pin: '2026-07-28' } : mode } };
const client = new Client({ name: 'test', version: '1' }, old ? {} : negotiation);
client.onerror = e => say('onerror', String(e));
const headers = { Authorization: authorization, 'X-Agent': agent };
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
await client.connect(transport);
const exec = (cmd, options) => client.callTool({ name: 'exec', arguments: { cmd } }, ...(old ? [undefined, options] : [options]));
say('server', [client.getServerVersion().name, Object.keys(client.getServerCapabilities()), client.getInstructions().length > 50]);
say('version', old ? transport.protocolVersion : client.getNegotiatedProtocolVersion());
say('session', transport.sessionId ?? null);
say('tools', (await client.listTools()).tools);
for (const cmd of ['printf \\'a"\\\\\\\\\\\\n\\\\342\\\\200\\\\250\\\\0\\\\377\\'', 'exit 3', 'wget x'])
    say('result', await exec(cmd));
say('unknown', await client.callTool({ name: 'nosuch', arguments: {} }).then(() => 0, e => e.code));
say('health', (await client.callTool({ name: 'health', arguments: {} })).structuredContent.ok);
const told = [];
const printing = exec('for i in 1 2 3 4 5 6 7; do echo $i; sleep 0.5; done', { onprogress: p => told.push(p.progress) });
const giving = new AbortController();
const given = exec('echo begun; exec sleep 9' + agent.slice(-1) + process.argv[6], { signal: giving.signal, onprogress: () => 0 })
    .then(() => 'answered', e => e.name);
await lines.next();
giving.abort('no more wanted');
say('aborted', await given);
say('printed', [await printing, told]);
if (mode === 'sdk' || mode === 'legacy') {
    await client.ping();
    say('ping', true);
}
await lines.next();
if (transport.sessionId) await transport.terminateSession();
await client.close();
say('closed', true);
process.exit();
'''
SCHEMAS = '''import Ajv from 'ajv/dist/2020.js';
import { readFileSync } from 'node:fs';
const ajv = new Ajv.default({ strict: true, strictRequired: true, allowUnionTypes: true, validateFormats: false });
for (const t of JSON.parse(readFileSync(0))) {
    for (const s of [t.inputSchema, t.outputSchema]) {
        if (!ajv.validateSchema(s)) throw new Error(t.name + ': ' + ajv.errorsText());
        ajv.compile(s);
    }
    console.log(t.name);
}
'''
# The runner imports a function that came with node 22, for what it does not do here.
SHIM = '''import { register } from 'node:module';
const data = text => 'data:text/javascript,' + encodeURIComponent(text);
register(data(`export const resolve = (s, c, next) => s === 'fs' && !c.parentURL.startsWith('data:')
    ? { url: ${JSON.stringify(data('export * from "node:fs"; export const globSync = () => [];'))}, shortCircuit: true }
    : next(s, c);`));
'''


@functools.cache
def installed():
    """A folder with the modules, for scripts; or the Skip."""
    try:
        found = modules('npm-mcp', NPM)
    except Skip as e:
        return e
    version = subprocess.run(['node', '--version'], capture_output=True, text=True).stdout
    if int(re.match(r'v(\d+)', version)[1]) < NODE:
        return Skip('node is older than %d: %s' % (NODE, version.strip()))
    folder = tempfile.mkdtemp(prefix='omniarena-mcp-')
    os.symlink(found, os.path.join(folder, 'node_modules'))
    for name, text in (('client.mjs', CLIENT), ('schemas.mjs', SCHEMAS), ('shim.mjs', SHIM)):
        with open(os.path.join(folder, name), 'w') as f:
            f.write(text)
    return folder


def ready():
    if isinstance(installed(), Skip):
        raise installed()
    return installed()


def node(*args, stdin='', seconds=60):
    """(status, stdout, stderr), with a home of its own"""
    home = tempfile.mkdtemp(dir=ready())
    r = subprocess.run(['node', *args], cwd=home, env={'PATH': os.environ['PATH'], 'HOME': home}, input=stdin,
                       capture_output=True, text=True,
                       timeout=seconds)
    return r.returncode, r.stdout, r.stderr


def part(package, path):
    return os.path.join(ready(), 'node_modules', package, path)


# ---- clients ----

MODES = {'sdk': '2025-11-25', 'legacy': '2025-11-25', 'auto': '2026-07-28', 'pin': '2026-07-28'}


class Client:
    def __init__(self, s, mode):
        agent = 'ts-%s%d' % (mode, list(MODES).index(mode))
        self.sleeper = 'sleep\x009%s@' % agent[-1]
        self.proc = subprocess.Popen(['node', 'client.mjs', 'http://127.0.0.1:%d/mcp' % s.port, s.auth, agent, mode, UNIQUE],
                                     cwd=ready(),
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said, self.agent = [], agent
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.proc.stdout:
            self.said.append(json.loads(line))

    def all(self, what):
        return [v for k, v in list(self.said) if k == what]

    def wait(self, what, seconds=30):
        until(lambda: self.all(what) or self.proc.poll() is not None, seconds, what)
        check(self.all(what), what, self.said[-2:], self.proc.poll() is not None and self.proc.stderr.read()[-1500:])
        return self.all(what)[-1]

    def go_on(self):
        self.proc.stdin.write('\n')
        self.proc.stdin.flush()


def talk(host, mode):
    """What the client said, and what the host and the server showed meanwhile."""
    with host.server('--config', host.file('[blacklist]\nwget\n[whitelist]\nprintf\necho\nsleep\n')) as s:
        c = Client(s, mode)
        try:
            until(lambda: having(c.sleeper) or c.proc.poll() is not None, 30, 'the call runs')
            check(c.proc.poll() is None, c.said, c.proc.poll() is not None and c.proc.stderr.read()[-1500:])
            c.go_on()
            c.aborted = c.wait('aborted')
            until(lambda: not having(c.sleeper), what='the call is gone')
            c.wait('ping' if mode in ('sdk', 'legacy') else 'printed')
            c.still = c.proc.poll() is None and s.health()['running'] == 0
            c.go_on()
            c.wait('closed')
            c.proc.wait(15)
            session = c.all('session')[0]
            c.after = s.request('POST', '/mcp', '{"jsonrpc":"2.0","id":1,"method":"ping"}',
                                {'Mcp-Session-Id': session})[0] if session else None
            c.rows = [(r['event'], r['cmd'][:11], r['result']) for r in logged(s)
                      if r.get('agent') == c.agent and r['event'] in ('EXEC', 'BLOCK')]
            c.counts = agents(s)[c.agent]
        finally:
            if c.proc.poll() is None:
                c.proc.kill()
                c.proc.wait()
    return c


@functools.cache
def talks(host):
    """All of them at once, as they mostly wait."""
    ready()
    pool = concurrent.futures.ThreadPoolExecutor(len(MODES))
    return {mode: pool.submit(talk, host, mode) for mode in MODES}


def holds(host, mode):
    c = talks(host)[mode].result()
    equal((c.all('server')[0], c.all('version')[0]), (['omniarena', ['tools'], True], MODES[mode]))
    equal(bool(c.all('session')[0]), mode in ('sdk', 'legacy'), 'a session only for the older revisions')
    equal([t['name'] for t in c.all('tools')[0]], ['exec', 'check_command', 'audit', 'health'])
    allowed, failing, blocked = c.all('result')
    equal([bool(r.get('isError')) for r in (allowed, failing, blocked)], [False, False, True])
    equal((allowed['structuredContent']['stdout'], failing['structuredContent']['exit_code']), ('a"\\\n\u2028\0\ufffd', 3))
    equal((blocked['structuredContent']['code'], blocked['structuredContent']['rule']), ('blacklist', 'wget'))
    for r in (allowed, failing, blocked):
        equal(json.loads(r['content'][0]['text']), r['structuredContent'])
    equal((c.all('unknown'), c.all('health')), ([-32602], [True]))
    printed, told = c.all('printed')[0]
    equal(printed['structuredContent']['stdout'], ''.join('%d\n' % i for i in range(1, 8)))
    check(2 <= len(told) <= 5 and told == sorted(set(told)), 'progress', told)
    check(c.aborted != 'answered' and c.still, c.aborted, 'and nothing runs, though the client is there')
    equal(c.all('onerror'), [])
    equal(c.after, 404 if c.all('session')[0] else None, 'its session, once it is gone')
    equal(sorted(r[0] for r in c.rows), ['BLOCK'] + ['EXEC'] * 4)
    equal([r[2] for r in c.rows if r[1] == 'echo begun;'], ['CANCELLED'])
    equal((c.counts['execs'], c.counts['blocked']), (4, 1))


@test
def typescript_sdk_of_the_older_revisions(host):
    holds(host, 'sdk')


@test
def typescript_client_as_it_is_by_default(host):
    holds(host, 'legacy')


@test
def typescript_client_that_finds_out_the_revision(host):
    holds(host, 'auto')


@test
def typescript_client_of_the_newest_revision(host):
    holds(host, 'pin')


@test
def schemas_are_of_2020_12(host):
    tools = talks(host)['pin'].result().all('tools')[0]
    status, out, err = node(os.path.join(ready(), 'schemas.mjs'), stdin=json.dumps(tools))
    equal((status, out.split()), (0, ['exec', 'check_command', 'audit', 'health']), err[-500:])


def mcporter(s, command, *args):
    status, out, err = node(part('mcporter', 'dist/cli.js'), command, '--http-url', 'http://127.0.0.1:%d/mcp' % s.port,
                            '--allow-http', '--no-oauth',
                            '--header', 'Authorization=' + s.auth, '--header', 'X-Agent=porter', *args)
    if not out and 'Unsupported' in err:
        raise Skip('mcporter does not run on this node')
    return status, out, err


@test
def mcporter_lists_and_calls(host):
    with host.server('--config', host.file('[blacklist]\nwget\n[whitelist]\necho\n')) as s:
        status, out, err = mcporter(s, 'list', '--json')
        r = json.loads(out)
        equal((status, r['status'], [t['name'] for t in r['tools']]), (0, 'ok', ['exec', 'check_command', 'audit', 'health']), err)
        for cmd, want in (('echo a', (True, 'a\n', None)), ('wget x', (False, None, 'wget'))):
            status, out, err = mcporter(s, 'call', '--output', 'json', '--tool', 'exec', '--args', json.dumps({'cmd': cmd}))
            text = out[out.index('{'):]
            r = json.JSONDecoder().raw_decode(text)[0]
            r = r.get('structuredContent', r)
            equal((r['ok'], r.get('stdout'), r.get('rule')), want, out, err)
        equal([(r['agent'], r['event']) for r in logged(s) if r['event'] in ('EXEC', 'BLOCK')],
              [('porter', 'EXEC'), ('porter', 'BLOCK')])


# ---- the official conformance runner ----

PASSES = {'server-initialize', 'ping', 'tools-list', 'dns-rebinding-protection'}
# What it asks of a server that was made for it, and that we do not have nor pretend to.
NOT_OURS = re.compile(r'MCP error -32602: there is no such tool|MCP error -32601: Method not found|'
                      r"Tool 'json_schema_2020_12_tool' not found|"
                      r'does not implement test_reconnection tool')
# It names 2025-03-26 in each request, whatever was negotiated; that is none of our revisions, and gets its 400.
ITS_OWN = {'server-sse-multiple-streams': 'Server rejected some requests. Statuses: 400, 400, 400'}


def pump(a, b):
    with contextlib.suppress(OSError):
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)


def relay_one(s, c):
    head = b''
    while b'\r\n\r\n' not in head:
        data = c.recv(65536)
        if not data:
            return c.close()
        head += data
    head, _, body = head.partition(b'\r\n\r\n')
    lines = [l for l in head.split(b'\r\n') if not l.lower().startswith(b'connection:')]
    with c, s.connect() as to:
        to.sendall(b'\r\n'.join([*lines, b'Connection: close', b'Authorization: ' + s.auth.encode()]) + b'\r\n\r\n' + body)
        back = threading.Thread(target=pump, args=(to, c), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while data := c.recv(65536):
                to.sendall(data)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_RDWR)
        back.join(5)


@contextlib.contextmanager
def relay(s):
    """A port that adds the credentials, which the runner has no option for; all else goes through as it is, Host and Origin too."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=relay_one, args=(s, listener.accept()[0]), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@functools.cache
def conformance(host):
    """Scenario to its checks."""
    out = tempfile.mkdtemp(dir=ready())
    with host.server() as s, relay(s) as port:
        _, text, err = node('--import', os.path.join(ready(), 'shim.mjs'),
                            part('@modelcontextprotocol/conformance', 'dist/index.js'),
                            'server', '--url', 'http://localhost:%d/mcp' % port, '--suite', 'all', '-o', out)
    checks = {}
    for name in os.listdir(out):
        with open(os.path.join(out, name, 'checks.json')) as f:
            checks[re.match(r'server-(.*?)-\d{4}-\d\d-\d\dT', name)[1]] = json.load(f)
    check(len(checks) > 20, text[-500:], err[-500:])
    return checks


@test
def conformance_of_what_is_generic(host):
    for name in PASSES:
        got = conformance(host).get(name, [])
        check(got and all(c['status'] == 'SUCCESS' for c in got), name,
              [(c['id'], c['status'], c.get('errorMessage')) for c in got])


@test
def conformance_of_all_else(host):
    """Nothing fails but for want of what we do not offer."""
    for name, got in conformance(host).items():
        bad = [c.get('errorMessage', '') for c in got if c['status'] not in ('SUCCESS', 'INFO')]
        if name in ITS_OWN:
            equal(bad, [ITS_OWN[name]], name)
        else:
            equal([b for b in bad if not NOT_OURS.search(b)], [], name)


if __name__ == '__main__':
    for fn in TESTS:
        fn.__module__ = 'mcp'
    try:
        sys.exit(arena.run(['root' if os.geteuid() == 0 else 'user'], sys.argv[1:], 'mcp'))
    finally:
        if not isinstance(installed(), Skip):
            shutil.rmtree(installed(), ignore_errors=True)
