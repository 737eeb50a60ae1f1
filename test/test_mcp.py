"""The Model Context Protocol at /mcp: revision 2026-07-28, which has no session, beside 2025-11-25 and 2025-06-18, which have."""
import random, select
from arena import *
from test_limits import WRONG, agents, basic, change, logged, metrics

MODERN, OLDER = '2026-07-28', ('2025-11-25', '2025-06-18')
KEY = 'io.modelcontextprotocol/'
EVENTS = 'application/json, text/event-stream'
TOOLS = ['exec', 'check_command', 'audit', 'health']
PARSE_ERROR, INVALID_REQUEST, NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
HEADER_MISMATCH, UNSUPPORTED = -32020, -32022


# ---- a client ----

def request(method, id=1, **params):
    return {'jsonrpc': '2.0', **({} if id is None else {'id': id}), 'method': method, 'params': params}


def meta(**more):
    return {KEY + 'protocolVersion': MODERN, KEY + 'clientCapabilities': {}, **more}


def head(m, **more):
    """What mirrors a message of 2026-07-28; Mcp_Name=None leaves it out."""
    params = m.get('params') or {}
    h = {'MCP-Protocol-Version': params.get('_meta', {}).get(KEY + 'protocolVersion', MODERN), 'Mcp-Method': m['method'],
         'Mcp-Name': params.get('name'), **{k.replace('_', '-'): v for k, v in more.items()}}
    return {k: v for k, v in h.items() if v is not None}


def say(s, m, headers=None, **kw):
    """(status, headers, the message that answers or None)"""
    body = m if isinstance(m, (str, bytes)) else json.dumps(m)
    status, h, data = s.request('POST', '/mcp', body, {'Content-Type': 'application/json', 'Accept': EVENTS, **(headers or {})},
                                **kw)
    if data:
        equal(h['Content-Type'], 'application/json', status, data[:200])
        check(data.endswith(b'\n') and data.count(b'\n') == 1, 'one line:', data[-50:])
    return status, h, json.loads(data) if data else None


def ask(s, method, id=1, meta_=None, headers=None, **params):
    """The same, of 2026-07-28."""
    m = request(method, id, **params, _meta=meta(**(meta_ or {})))
    return say(s, m, {**head(m), **(headers or {})})


def failed(got, status, code, id=1):
    """It must be this error."""
    equal((got[0], got[2].get('error', {}).get('code'), got[2].get('id')), (status, code, id), got[2])
    check('result' not in got[2] and got[2]['jsonrpc'] == '2.0' and got[2]['error']['message'], got[2])
    return got[2]['error']


def result(got, id=1):
    equal((got[0], got[2].get('id'), got[2]['jsonrpc'], 'error' in got[2]), (200, id, '2.0', False), str(got[2])[:600])
    return got[2]['result']


def outcome(r, is_error=False):
    """The object that a tool's result is made of, which stands in it twice."""
    equal((r['isError'], [c['type'] for c in r['content']]), (is_error, ['text']), str(r)[:600])
    equal(json.loads(r['content'][0]['text']), r['structuredContent'], 'the text and the object')
    return r['structuredContent']


def call(s, tool, is_error=False, headers=None, **arguments):
    return outcome(result(ask(s, 'tools/call', name=tool, arguments=arguments, headers=headers)), is_error)


def execute(s, cmd, **kw):
    return call(s, 'exec', cmd=cmd.replace('@', UNIQUE), **kw)


def begin(s, version=OLDER[0], **kw):
    """The headers of a new session of the older revisions."""
    got = say(s, request('initialize', protocolVersion=version, capabilities={}, clientInfo={'name': 't', 'version': '1'}), **kw)
    chosen = result(got)['protocolVersion']
    check(re.fullmatch('[0-9a-f]{32}', got[1]['Mcp-Session-Id']), got[1]['Mcp-Session-Id'])
    return {'Mcp-Session-Id': got[1]['Mcp-Session-Id'], 'MCP-Protocol-Version': chosen}


def post(s, m, headers=None, accept=EVENTS):
    """The bytes of a request."""
    body = json.dumps(m)
    h = {'Host': 'localhost', 'Authorization': s.auth, 'Content-Length': len(body), 'Accept': accept, **(headers or {})}
    return ('POST /mcp HTTP/1.1\r\n%s\r\n\r\n%s' % ('\r\n'.join('%s: %s' % x for x in h.items()), body)).encode()


def sent(s, m, headers=None, **kw):
    """A connection on which this was asked."""
    c = s.connect()
    c.sendall(post(s, m, headers, **kw))
    return c


def rest(c):
    """All that comes until the server closes."""
    data = b''
    while chunk := c.recv(65536):
        data += chunk
    return data


def answer(f):
    """(status, headers, body) of the next reply of a connection."""
    status = int(f.readline().split()[1])
    h = http.client.parse_headers(f)
    return status, h, f.read(int(h['Content-Length'] or 0))


def events(data):
    """The messages of a stream; what precedes the first is its head."""
    h, _, body = data.partition(b'\r\n\r\n')
    check(re.match(rb'HTTP/1.1 200 .*\r\n(.*\r\n)*Content-Type: text/event-stream\r\n', h + b'\r\n'), h)
    check(body.endswith(b'\n\n'), body[-100:])
    out = []
    for e in body.decode().split('\n\n')[:-1]:
        lines = [l for l in e.split('\n') if not l.startswith(':')]
        check(not lines or (len(lines) == 2 and lines[0] == 'event: message' and lines[1].startswith('data: ')), repr(e[:200]))
        out += [json.loads(l[6:]) for l in lines if l.startswith('data: ')]
    return out


def sleeper(n=1):
    """A call that runs until it is ended, and what its command line has."""
    cmd = 'echo begun; exec sleep 9%d%s' % (n, UNIQUE)
    return request('tools/call', 'c%d' % n, name='exec', arguments={'cmd': cmd}), 'sleep\x009%d@' % n


def runs(what):
    until(lambda: having(what), what='it runs')


def ends(what):
    until(lambda: not having(what), what='it is gone')


def cancelled(s, n):
    """So many calls were ended because nobody wanted them, not by the clock."""
    rows = lambda: [r['result'] for r in logged(s, 'EXEC') if 'exec sleep 9' in r['cmd']]
    until(lambda: len(rows()) == n, what='they are written down')
    equal(rows(), ['CANCELLED'] * n)


def conforms(v, schema, at='$'):
    """The part of JSON Schema 2020-12 that our tools use; other keywords are an error."""
    kinds = dict(object=dict, array=list, string=str, boolean=bool, null=type(None), integer=int)
    unknown = set(schema) - {'type', 'properties', 'required', 'items', 'additionalProperties', 'enum', 'minimum', 'description'}
    equal(unknown, set(), at)
    if 'type' in schema:
        types = schema['type'] if isinstance(schema['type'], list) else [schema['type']]
        fits = any(isinstance(v, kinds[t]) and not (t == 'integer' and isinstance(v, bool)) for t in types)
        check(fits, at, 'is', repr(v)[:100], 'not', types)
    check(v in schema.get('enum', [v]) and (not isinstance(v, int) or v >= schema.get('minimum', v)), at, v, schema)
    if isinstance(v, dict):
        check(set(schema.get('required', [])) <= set(v), at, 'lacks one of', schema.get('required'), 'in', list(v))
        for k, x in v.items():
            more = schema.get('additionalProperties', {})
            conforms(x, schema.get('properties', {}).get(k, more if isinstance(more, dict) else {}), '%s.%s' % (at, k))
    if isinstance(v, list) and 'items' in schema:
        for i, x in enumerate(v):
            conforms(x, schema['items'], '%s[%d]' % (at, i))


def schemas(s):
    return {t['name']: t['outputSchema'] for t in result(ask(s, 'tools/list'))['tools']}


# ---- 2026-07-28 ----

@test
def discovery_names_version_tools_and_server(host):
    with host.server() as s:
        got = ask(s, 'server/discover', 'discover-1')
        r = result(got, 'discover-1')
        equal((r['resultType'], r['supportedVersions'], r['capabilities'], r['cacheScope']),
              ('complete', [MODERN], {'tools': {}}, 'public'))
        check(isinstance(r['ttlMs'], int) and r['ttlMs'] > 0 and r['instructions'], r)
        info = r['_meta'][KEY + 'serverInfo']
        equal((info['name'], info['version'], got[1]['Mcp-Session-Id']), ('omniarena', s.health()['version'], None))
        got = ask(s, 'tools/list')
        equal((got[0], got[1]['Mcp-Session-Id'], result(got)['resultType'], result(got)['cacheScope']),
              (200, None, 'complete', 'public'))
        check('nextCursor' not in result(got) and result(got)['ttlMs'] > 0 and result(got)['_meta'], got)
        for headers in ({'Mcp-Session-Id': 'f' * 32}, {'Mcp-Session-Id': ''}, {'Last-Event-ID': '5'}):
            result(ask(s, 'tools/list', headers=headers))


@test
def tools_are_described(host):
    with host.server() as s:
        tools = result(ask(s, 'tools/list'))['tools']
        equal([t['name'] for t in tools], TOOLS)
        equal(result(say(s, request('tools/list'), begin(s)))['tools'], tools, 'in both eras')
        for t in tools:
            check(t['title'] and len(t['description']) > 20, t)
            hints = t['annotations']
            equal((hints['readOnlyHint'], hints['destructiveHint'], hints['openWorldHint']),
                  (t['name'] != 'exec', False, False), t['name'])
            for schema in (t['inputSchema'], t['outputSchema']):
                equal((schema['type'], set(schema.get('required', [])) <= set(schema['properties'])), ('object', True), t['name'])
                conforms({k: None for k in schema.get('required', [])}, {'type': 'object', 'required': schema.get('required', [])})
        equal(tools[0]['inputSchema']['required'], ['cmd'])


@test
def results_conform_to_their_schemas(host):
    config = host.file('[blacklist]\nwget\n[whitelist]\necho\nfalse\nsleep\n')
    with host.server('--config', config) as s:
        schema = schemas(s)
        for tool, is_error, arguments in (
                ('exec', False, {'cmd': 'echo a'}), ('exec', False, {'cmd': 'false'}), ('exec', True, {'cmd': 'wget x'}),
                ('exec', True, {}),
                ('exec', True, {'cmd': 'perl'}), ('exec', True, {'cmd': 5}),
                ('exec', False, {'cmd': 'echo a', 'get_files': ['b']}),
                ('exec', False, {'cmd': 'sleep 5', 'timeout_ms': 100}), ('exec', True, {'cmd': "echo 'a"}), ('audit', False, {}),
                ('check_command', False, {'cmd': 'wget x'}), ('check_command', False, {'cmd': 'echo a | echo b'}),
                ('check_command', True, {}),
                ('check_command', False, {'cmd': "echo 'a"}), ('audit', False, {'limit': 1, 'after': 2, 'agent': 'default'}),
                ('audit', True, {'limit': 'x'}), ('audit', False, {'agent': 'nobody', 'limit': 0}), ('health', False, {})):
            got = ask(s, 'tools/call', name=tool, arguments=arguments)
            # that a time-out is a failure is for exec to say, not for the protocol
            r = result(got)
            if 'timeout_ms' not in arguments:
                equal(r['isError'], is_error, tool, arguments, str(r)[:300])
            conforms(outcome(r, r['isError']), schema[tool], tool)
            equal((r['resultType'], KEY + 'serverInfo' in r['_meta']), ('complete', True))


@test
def a_request_is_whole_in_itself(host):
    """Nothing is kept between requests, nor are they bound to a connection."""
    with host.server() as s:
        c = http.client.HTTPConnection('127.0.0.1', s.port, timeout=30)
        m = request('tools/list', _meta=meta())
        for lacks in (KEY + 'protocolVersion', KEY + 'clientCapabilities'):
            result(say(s, m, head(m), conn=c))
            less = request('tools/list', _meta={k: v for k, v in meta().items() if k != lacks})
            check(lacks in failed(say(s, less, head(m), conn=c), 400, INVALID_PARAMS)['message'], lacks)
        c.close()
        for wrong in ({KEY + 'protocolVersion': 5}, {KEY + 'protocolVersion': None}, {KEY + 'clientCapabilities': []},
                      {KEY + 'clientCapabilities': None}):
            failed(say(s, request('tools/list', _meta=meta(**wrong)), head(m)), 400, INVALID_PARAMS)
        for none in ({'jsonrpc': '2.0', 'id': 1, 'method': 'tools/list'}, request('tools/list'), request('tools/list', _meta={})):
            failed(say(s, none, head(m)), 400, INVALID_PARAMS)
        failed(say(s, request('tools/list', _meta=5), head(m)), 400, INVALID_PARAMS)


def encoded(text):
    return '=?base64?%s?=' % base64.b64encode(text.encode()).decode()


def exec_with(s, id=1, name='exec', raw=None, **headers):
    m = request('tools/call', id, name=name, arguments={'cmd': 'echo ran >&2; echo @'}, _meta=meta())
    h = head(m, **headers)
    return say(s, raw(json.dumps(m)) if raw else m, h)


@test
def headers_must_say_what_the_body_does(host):
    with host.server() as s:
        for header in ('MCP-Protocol-Version', 'Mcp-Method', 'Mcp-Name'):
            for value in (None, '', 'other', 'tools/list', 'EXEC', 'Tools/Call', OLDER[0], 'exec exec', '=?base64?b3RoZXI=?=',
                          '=?base64?!?=',
                          '=?base64??=', '=?BASE64?ZXhlYw==?=', '=?base64?ZXhlYw?=', '=?base64?ZXhlYw==', '=?base64?', '?=',
                          '=' * 3000):
                failed(exec_with(s, **{header.replace('-', '_'): value}), 400, HEADER_MISMATCH)
        equal(logged(s, 'EXEC') + logged(s, 'RUN'), [], 'nothing ran')
        for name in ('exec', encoded('exec'), '  exec\t'):
            equal(outcome(result(exec_with(s, Mcp_Name=name)))['stdout'], '@\n')
        m = request('tools/list', _meta=meta())
        failed(say(s, m, {**head(m), 'Mcp-Method': 'tools/call'}), 400, HEADER_MISMATCH)
        result(say(s, m, {**{k.lower(): v for k, v in head(m).items()}, 'Mcp-Name': 'any'}))
        with s.connect() as c:  # which of two would be looked at?
            c.sendall(post(s, m, head(m)).replace(b'\r\nMcp-Method', b'\r\nMcp-Method: tools/call\r\nMcp-Method'))
            check(c.recv(999).startswith(b'HTTP/1.1 400 '))


@test
def only_names_come_in_base64(host):
    with host.server() as s:
        failed(exec_with(s, Mcp_Method=encoded('tools/call')), 400, HEADER_MISMATCH)
        failed(exec_with(s, MCP_Protocol_Version=encoded(MODERN)), 400, HEADER_MISMATCH)


@test
def headers_are_compared_with_what_json_means(host):
    """Escapes are JSON's own affair: some encoders write them for '/' and for all that is not ASCII."""
    with host.server() as s:
        for name in ('é', 'a"b', 'a\\b', ' a ', '\n', '\x00', '=?base64?literal?=', 'n' * 180):
            failed(exec_with(s, name=name, Mcp_Name=encoded(name)), 200, INVALID_PARAMS)
        for plain, escaped in (('"tools/call"', '"tools\\/call"'), ('"exec"', '"\\u0065xec"'),
                               ('"2026-07-28"', '"2026\\u002d07-28"')):
            result(exec_with(s, raw=lambda t: t.replace(plain, escaped)))


@test
def a_call_without_a_name(host):
    with host.server() as s:
        for params in ({}, {'name': ''}):
            for value in ('', '=?base64??='):
                m = request('tools/call', _meta=meta(), **params)
                got = say(s, m, {**head(m), 'Mcp-Name': value})
                check(got[2]['error']['code'] in (INVALID_PARAMS, HEADER_MISMATCH), got)
        for name in ('nosuch', 'Exec', 'exec ', 'health\x00'):
            failed(say(s, request('tools/call', name=name)), 200, INVALID_PARAMS)
        failed(say(s, request('tools/call')), 200, INVALID_PARAMS)
        failed(say(s, {'jsonrpc': '2.0', 'id': 1, 'method': 'tools/call'}), 200, INVALID_PARAMS)
        s.health()


@test
def other_versions_are_told_which_there_are(host):
    with host.server() as s:
        for version in ('1900-01-01', '2027-01-01', '2026-07-28 ', 'x' * 200, OLDER[0]):
            m = request('tools/list', _meta=meta(**{KEY + 'protocolVersion': version}))
            h = {k: v.encode() for k, v in head(m).items()}
            if version.strip() != version:
                continue  # no header can carry it
            e = failed(say(s, m, h), 400, UNSUPPORTED)
            equal((MODERN in e['data']['supported'], e['data'].get('requested')), (True, version), e)
        for version in ('1900-01-01', '2024-11-05', 'x'):
            e = failed(say(s, request('tools/list'), {'MCP-Protocol-Version': version}), 400, UNSUPPORTED)
            equal((e['data']['supported'], e['data'].get('requested')), ([MODERN, *OLDER], version), e)


@test
def methods_that_are_not_there(host):
    with host.server() as s:
        for method in ('nosuch', 'initialize', 'ping', 'resources/list', 'prompts/list', 'logging/setLevel', 'tools/List', '',
                       'subscriptions/listen'):
            failed(ask(s, method), 404, NOT_FOUND)
        session = begin(s)
        for method in ('nosuch', 'resources/list', 'server/discover', 'tasks/list', 'Ping'):
            failed(say(s, request(method), session), 200, NOT_FOUND)
        for method, path in (('GET', '/mcp'), ('PUT', '/mcp'), ('HEAD', '/mcp'), ('PATCH', '/mcp')):
            status, h, _ = s.request(method, path, headers={'Accept': 'text/event-stream'})
            check(status == 405 and 'POST' in h['Allow'] and 'DELETE' in h['Allow'], method, status, h['Allow'])
        for path in ('/mcp/', '/MCP', '/mcp/x'):
            equal(s.request('POST', path, '{}')[0], 404)


@test
def no_oauth_is_advertised(host):
    with host.server() as s:
        status, h, data = s.request('POST', '/mcp', '{}', auth=False)
        check(status == 401 and not re.search('resource_metadata|authorization_uri|oauth', '%s %s' % (h, data)), status, h, data)
        for path in ('oauth-protected-resource', 'oauth-protected-resource/mcp', 'oauth-authorization-server',
                     'openid-configuration'):
            equal([s.request('GET', '/.well-known/' + path, auth=a)[0] for a in (True, False)], [404, 401], path)
        equal(s.request('POST', '/register', '{}')[0], 404)


@test
def closing_the_stream_ends_the_command(host):
    with host.server() as s:
        for token in ({}, {'progressToken': 1}):  # a plain reply is waited for on a connection as well
            m, what = sleeper()
            m['params']['_meta'] = meta(**token)
            m['params']['arguments'] = {'cmd': 'exec sleep 91' + UNIQUE}  # without output, as a write would find out
            c = sent(s, m, head(m))
            runs(what)
            if token:
                until(lambda: select.select([c], [], [], 0)[0], what='the head of the stream')
            c.close()
            ends(what)
            until(lambda: s.health()['running'] == 0, what='nothing runs')
        cancelled(s, 2)


# ---- the older revisions ----

@test
def versions_are_negotiated(host):
    with host.server() as s:
        for wanted, chosen in [(v, v) for v in OLDER] + [(v, OLDER[0]) for v in ('2025-03-26', '2024-11-05', MODERN,
                                                                                 '1900-01-01', '', 'é"\\' * 40)]:
            got = say(s, request('initialize', 'i', protocolVersion=wanted, capabilities={'roots': {}},
                                 clientInfo={'name': 't', 'version': '1'}))
            r = result(got, 'i')
            equal((r['protocolVersion'], r['capabilities'], r['serverInfo']['name']), (chosen, {'tools': {}}, 'omniarena'), wanted)
            check(r['serverInfo']['version'] and r['instructions'], r)
            h = {'Mcp-Session-Id': got[1]['Mcp-Session-Id'], 'MCP-Protocol-Version': chosen}
            equal(say(s, request('notifications/initialized', None), h)[::2], (202, None))
            equal(result(say(s, request('ping', 7), h), 7), {})
            equal([t['name'] for t in result(say(s, request('tools/list'), h))['tools']], TOOLS)
            del h['MCP-Protocol-Version']  # the session says which it is
            equal(outcome(result(say(s, request('tools/call', name='exec', arguments={'cmd': 'echo a'}), h)))['stdout'], 'a\n')
        for params in ({}, {'protocolVersion': 5}, {'protocolVersion': None}):
            check(say(s, request('initialize', **params))[2]['error']['code'] == INVALID_PARAMS, params)
        # who asks with a header of another version begins all the same
        begin(s, headers={'MCP-Protocol-Version': MODERN})
        begin(s, headers={'Mcp-Session-Id': 'f' * 32})


@test
def sessions_end(host):
    with host.server() as s:
        a, b = begin(s), begin(s)
        check(a['Mcp-Session-Id'] != b['Mcp-Session-Id'], 'the same name twice')
        for name in ('f' * 32, '', a['Mcp-Session-Id'][:-1], a['Mcp-Session-Id'] + '0', a['Mcp-Session-Id'].upper() + 'x', 'é'):
            h = {'Mcp-Session-Id': name.encode()}
            for m in (request('ping'), request('tools/call', name='exec', arguments={'cmd': 'true'})):
                failed(say(s, m, h), 404, INVALID_REQUEST)
            check(say(s, request('notifications/initialized', None), h)[0] == 404)
            equal(s.request('DELETE', '/mcp', headers=h)[0], 404, name)
        equal(s.request('DELETE', '/mcp')[0], 404)
        equal(logged(s, 'RUN'), [], 'nothing ran')
        result(say(s, request('ping'), a))
        status, _, data = s.request('DELETE', '/mcp', headers=a)
        check(status in (200, 204) and not data, status, data)
        failed(say(s, request('ping'), a), 404, INVALID_REQUEST)
        equal(s.request('DELETE', '/mcp', headers=a)[0], 404)
        result(say(s, request('ping'), b))
        failed(say(s, request('ping'), {**b, 'MCP-Protocol-Version': '1.0'}), 400, UNSUPPORTED)


@test
def the_longest_unused_session_makes_room(host):
    with host.server() as s:
        c = http.client.HTTPConnection('127.0.0.1', s.port, timeout=30)
        all = [begin(s, conn=c) for _ in range(64)]
        result(say(s, request('ping'), all[0], conn=c))
        all += [begin(s, conn=c) for _ in range(3)]
        there = [say(s, request('ping'), h, conn=c)[0] for h in all]
        equal(there, [200] + [404] * 3 + [200] * 63)
        s.request('DELETE', '/mcp', headers=all[9], conn=c)
        all.append(begin(s, conn=c))
        equal([say(s, request('ping'), h, conn=c)[0] for h in all], [200] + [404] * 3 + [200] * 5 + [404] + [200] * 58)
        c.close()


def cancel(s, h, id, **more):
    equal(say(s, request('notifications/cancelled', None, requestId=id, **more), h)[::2], (202, None))


@test
def a_cancelled_call_ends_on_the_host(host):
    with host.server() as s:
        a, b = begin(s), begin(s, OLDER[1])
        m, what = sleeper()
        for accept, token in (('application/json', {}), (EVENTS, {'_meta': {'progressToken': 'p'}})):
            m['params'].update(token)
            c = sent(s, m, a, accept=accept)
            runs(what)
            for h, id in ((a, 'c2'), (a, 'c'), (a, 'c11'), (a, 1), (a, None), (a, {}), (a, '"c1"'), (b, 'c1'), ({}, 'c1')):
                cancel(s, h, id)
            other = sent(s, request('tools/call', 'c1', name='exec', arguments={'cmd': 'sleep 0.6%s; echo other' % UNIQUE}), b)
            time.sleep(0.2)
            check(having(what) and not select.select([c], [], [], 0)[0] or token, 'it went on')
            cancel(s, a, 'c1', reason='no more wanted')
            ends(what)
            data = rest(c)
            check(b'"id"' not in data, 'an answer to what was cancelled', data)
            c.close()
            with other, other.makefile('rb') as f:
                equal(outcome(json.loads(answer(f)[2])['result'])['stdout'], 'other\n')
            cancel(s, a, 'c1')
        until(lambda: s.health()['running'] == 0, what='nothing runs')
        cancelled(s, 2)
        equal(outcome(result(say(s, request('tools/call', 'c1', name='exec', arguments={'cmd': 'echo a'}), a), 'c1'))['stdout'],
              'a\n')


@test
def ids_differ_by_kind(host):
    with host.server() as s:
        a = begin(s)
        for id, others in ((5, ('5', 50, 5.5, -5)), ('5', (5, '55', '')), (2**53, (str(2**53), 2**53 - 1))):
            m, what = sleeper()
            m['id'] = id
            with sent(s, m, a):
                runs(what)
                for o in others:
                    cancel(s, a, o)
                time.sleep(0.1)
                check(having(what), 'ended by another id than', id)
                cancel(s, a, id)
                ends(what)
        cancelled(s, 3)


@test
def a_session_does_not_inherit_calls(host):
    """Who has the place of one that is over can't end what that one asked."""
    with host.server() as s:
        a = begin(s)
        m, what = sleeper()
        with sent(s, m, a) as c:
            runs(what)
            equal(s.request('DELETE', '/mcp', headers=a)[0], 204)
            time.sleep(0.1)
            if not having(what):
                return  # it ended with its session
            for _ in range(64):
                cancel(s, begin(s), m['id'])
            time.sleep(0.1)
            check(having(what) and not select.select([c], [], [], 0)[0], "a new session's cancellation ended it")
            c.close()
            ends(what)


@test
def notifications_have_no_answer(host):
    with host.server() as s:
        a = begin(s)
        for method in ('notifications/initialized', 'notifications/cancelled', 'notifications/nosuch', 'tools/list', 'ping',
                       'nosuch', 'initialize'):
            for h in ({}, a):
                got = say(s, request(method, None), h)
                equal(got[::2], (202, None), method)
        equal(say(s, request('tools/call', None, name='exec', arguments={'cmd': 'echo notified'}), a)[::2], (202, None))
        for params in ({'_meta': meta()}, {}):  # only requests must say their version
            m = request('notifications/nosuch', None, **params)
            equal(say(s, m, head(m))[::2], (202, None), params)
        equal(logged(s, 'RUN') + logged(s, 'EXEC'), [], 'nothing ran')


# ---- progress ----

PRINTS = 'for i in 1 2 3 4 5 6 7 8 9 10 11; do echo $i; sleep 0.25; done'


@test
def progress_is_told_on_the_calls_own_stream(host):
    with host.server() as s:
        h, streams = begin(s), []
        for n, token in enumerate(('a"\\\u2028é', 7)):
            m = request('tools/call', n, name='exec', arguments={'cmd': PRINTS},
                        _meta={'progressToken': token, **(meta() if n else {})})
            streams.append((n, token, sent(s, m, head(m) if n else h)))
        for n, token, c in streams:
            *told, last = events(rest(c))
            c.close()
            equal(outcome(last['result'])['stdout'], ''.join('%d\n' % i for i in range(1, 12)))
            equal((last['id'], last['jsonrpc']), (n, '2.0'))
            check(2 <= len(told) <= 4, told)
            for t in told:
                equal((set(t), t['jsonrpc'], t['method'], t['params']['progressToken']),
                      ({'jsonrpc', 'method', 'params'}, '2.0', 'notifications/progress', token))
                check(isinstance(t['params']['progress'], (int, float)) and isinstance(t['params']['message'], str), t)
            at = [t['params']['progress'] for t in told]
            check(at == sorted(set(at)), 'it increases', at)


@test
def no_progress_unless_it_is_wanted(host):
    with host.server() as s:
        cmd = 'echo a; sleep 1.1; echo b; sleep 0.1'
        all = [(a, t) for a, t in (('application/json', 'p'), (EVENTS, None), ('*/*', 'p'), (EVENTS, {}), (EVENTS, 't' * 200))]
        conns = []
        for accept, token in all:
            m = request('tools/call', name='exec', arguments={'cmd': cmd},
                        _meta=meta(**({} if token is None else {'progressToken': token})))
            conns.append(sent(s, m, head(m), accept=accept))
        for c, what in zip(conns, all):
            with c, c.makefile('rb') as f:
                status, h, data = answer(f)
                equal((status, h['Content-Type']), (200, 'application/json'), what)
                equal(outcome(json.loads(data)['result'])['stdout'], 'a\nb\n')
        m = request('tools/call', name='health', _meta=meta(progressToken=1))
        equal(outcome(result(say(s, m, head(m))))['ok'], True)


@test
def proxies_are_told_to_pass_a_stream_on(host):
    with host.server() as s:
        m = request('tools/call', name='exec', arguments={'cmd': 'echo a; sleep 0.2'}, _meta=meta(progressToken='p'))
        with sent(s, m, head(m)) as c:
            check(b'\r\nX-Accel-Buffering: no\r\n' in rest(c))


@test
def a_stream_ends_with_what_refuses(host):
    """A time-out and 300 KB on a stream are answers like any other."""
    with host.server() as s:
        for cmd, more in (('echo a; sleep 20', {'timeout_ms': 300}), ('seq 60000; sleep 0.1', {})):
            m = request('tools/call', name='exec', arguments={'cmd': cmd, **more}, _meta=meta(progressToken='p'))
            with sent(s, m, head(m)) as c:
                last = events(rest(c))[-1]
            r = outcome(last['result'], last['result']['isError'])
            equal((r['timed_out'], r['stdout_truncated'], r['ok']), ('timeout_ms' in more, 'timeout_ms' not in more,
                                                                     'timeout_ms' not in more))


# ---- tools ----

@test
def commands_that_fail_are_results(host):
    with host.server() as s:
        for cmd, code in (('true', 0), ('exit 3', 3), ('no-such-program', 127), ('echo e >&2; false', 1)):
            r = execute(s, cmd)
            equal((r['ok'], r['exit_code']), (True, code), cmd)
        equal(execute(s, 'echo e >&2; false')['stderr'], 'e\n')
        r = execute(s, 'kill -9 $$')
        equal((r['ok'], r['signal']), (True, 'SIGKILL'))
        r = execute(s, 'cat; pwd; echo $A', stdin='in\n', cwd='/', env={'A': 'b'})
        equal(r['stdout'], 'in\n/\nb\n')


@test
def what_is_blocked_is_an_error_with_its_rule(host):
    with host.server('--config', host.file('[blacklist]\nwget\nrm -rf /\n[whitelist]\necho\n')) as s:
        for cmd, code, rule in (('wget x', 'blacklist', 'wget'), ('echo a; rm -rf /', 'blacklist', 'rm -rf /'),
                                ('perl -e 1', 'whitelist', None),
                                ("echo 'a", 'syntax', None)):
            was = {n: a['blocked'] for n, a in agents(s).items()}
            r = execute(s, cmd, is_error=True)
            want = s.post({'cmd': cmd}, status=403)
            equal((r['ok'], r['code'], r['rule']), (False, want['code'], want['rule']), cmd)
            check(code in r['code'] and (not rule or r['rule'] == rule), cmd, r)
            equal(r, want, 'as /api/exec says it')
            equal(agents(s)['default']['blocked'], was.get('default', 0) + 2)
            said = call(s, 'check_command', cmd=cmd)
            equal((said['ok'], said['allowed'], said['rule']), (True, False, want['rule']), cmd)
        equal([r['event'] for r in logged(s) if r['event'] in ('RUN', 'EXEC')], [])
        r = call(s, 'check_command', cmd='echo a | perl', profile='permissive')
        equal((r['allowed'], r['commands'], r['profile']), (True, ['echo', 'perl'], 2))
        equal(call(s, 'check_command', is_error=True, cmd='echo', profile='nosuch')['code'], 'bad_request')


@test
def arguments_that_are_wrong_are_results_too(host):
    with host.server() as s:
        for tool, arguments in (('exec', {}), ('exec', {'cmd': ''}), ('exec', {'cmd': 5}), ('exec', {'cmd': 'a\0'}),
                                ('exec', {'cmd': 'true', 'env': []}),
                                ('exec', {'cmd': 'true', 'timeout_ms': 0}), ('exec', {'cmd': 'true', 'timeout_ms': 'x'}),
                                ('exec', {'cmd': ['true']}),
                                ('exec', {'cmd': 'true', 'put_files': {'a': '!'}}), ('exec', {'cmd': 'true', 'get_files': 5}),
                                ('check_command', {'cmd': None}),
                                ('audit', {'limit': -1}), ('audit', {'limit': 1.5}), ('audit', {'limit': 1e30}),
                                ('audit', {'after': [1]}),
                                ('audit', {'agent': 'a&limit=5'}), ('audit', {'agent': ''}), ('audit', {'agent': '%61'}),
                                ('audit', {'agent': 5})):
            r = call(s, tool, is_error=True, **arguments)
            check((r['ok'], r['code']) == (False, 'bad_request') and r['error'], tool, arguments, r)
        for arguments in ('x', 5, [], None, True):
            m = request('tools/call', name='exec', arguments=arguments, _meta=meta())
            failed(say(s, m, head(m)), 400, INVALID_PARAMS)
        m = request('tools/call', name='exec', arguments={'cmd': 'true'}, _meta=meta())
        r = outcome(result(say(s, json.dumps(m).replace('"cmd"', '"cmd": "echo twice", "cmd"'), head(m))), True)
        equal(r['code'], 'bad_request')
        equal(logged(s, 'RUN'), [])


@test
def audit_and_health_are_those_of_the_api(host):
    with host.server() as s:
        for agent in ('a', 'b', 'a'):
            execute(s, 'echo %s' % agent, headers={'X-Agent': agent})
        want = s.json('GET', '/api/audit')
        equal(call(s, 'audit'), want)
        last = want['events'][-1]['seq']
        for query, arguments in (('limit=1', {'limit': 1}), ('agent=a', {'agent': 'a'}),
                                 ('after=%d' % (last - 1), {'after': last - 1}),
                                 ('agent=a&limit=1&after=2', {'after': 2, 'limit': 1, 'agent': 'a'}), ('limit=0', {'limit': 0})):
            equal(call(s, 'audit', **arguments), s.json('GET', '/api/audit?' + query), query)
        equal(outcome(result(ask(s, 'tools/call', name='audit')))['events'], want['events'], 'without arguments')
        for cmd in [": '%s'" % t for t in HOSTILE]:
            s.post({'cmd': cmd})
        equal(call(s, 'audit'), s.json('GET', '/api/audit'))
        steady = lambda h: {k: v for k, v in h.items() if k in ('ok', 'version', 'profile', 'isolation', 'layers',
                                                                'total_execs', 'agents_count')}
        equal(steady(call(s, 'health')), steady(s.health()))


HOSTILE = ['"\\', '\\u0000\\n', '\n\n\r\n\r', 'data: x\n\nevent: y\n\n', '\t\x01\x1f\x7f', '\u2028\u2029\u0085',
           '"}],"isError":true}', '\U0001f600é', '']


@test
def hostile_output_is_the_same_twice(host):
    with host.server() as s:
        for text in HOSTILE:
            r = execute(s, 'cat; cat >&2 <<"E"\n%s\nE' % text.replace('@', ''), stdin=text)
            equal((r['stdout'], r['stderr'], r['stdout_lossy']), (text, text + '\n', False), repr(text))
        r = execute(s, "printf '\\0a\\377\\0\\303\\355\\240\\200'")
        equal((r['stdout'][:4], r['stdout_lossy'], r['stdout_bytes']), ('\0a\ufffd\0', True, 8))
        for text, each in (('x', 1), ('"', 1), ('\\0', 1), ('é', 2), ('€', 3), ('\\377', 1)):
            for to in ('', '>&2'):
                by = {'\\0': '#', '\\377': '\\o377'}.get(text, text)
                r = execute(s, "printf '%%0100000d' 0 | sed 's/0/%s/g' | tr '#' '\\0' %s" % (by, to))
                name = 'stderr' if to else 'stdout'
                full = 100000 * each
                one = {'\\0': '\0', '\\377': '\ufffd'}.get(text, text)
                got = r[name]
                equal((r[name + '_bytes'], r[name + '_truncated'], set(got)), (full, full > 128 << 10, {one}), text, to)
                check(len(got) == 100000 if full <= 128 << 10 else 128 << 10 >= len(got) * each > (128 << 10) - 4, len(got))


@test
def three_hundred_kilobytes_are_cut(host):
    with host.server() as s:
        for fill in ('A', '\\0', '\\n', '\\377'):
            r = execute(s, "head -c 300000 /dev/zero | tr '\\0' '%s'" % fill)
            equal((r['stdout_truncated'], r['stderr_truncated'], r['stdout_bytes']), (True, False, 300000), fill)
            check(0 <= (128 << 10) - len(r['stdout']) < 4, fill, len(r['stdout']))
        r = execute(s, "head -c 300000 /dev/zero | tee /dev/stderr")
        equal((r['stdout_truncated'], r['stderr_truncated'], r['stdout'] == r['stderr'] == '\0' * (128 << 10)), (True, True, True))
        check(not s.run('head -c 300000 /dev/zero')['stdout_truncated'], 'the path itself gives it whole')


@test
def files_go_in_and_come_back(host):
    with host.server() as s:
        data = bytes(range(256)) * 40
        r = execute(s, 'cp in out; echo b > d/e', put_files={'in': base64.b64encode(data).decode(), 'd/f': ''},
                    get_files=['out', 'd/e', 'none'])
        equal({k: base64.b64decode(v) for k, v in r['contents'].items()}, {'out': data, 'd/e': b'b\n'})
        equal([a if isinstance(a, str) else a.get('name', a) for a in r['contents_absent']], ['none'])


@test
def files_come_back_beside_long_output(host):
    """What ran is not lost where all of it together would not fit."""
    with host.server() as s:
        r = execute(s, 'head -c 700000 /dev/zero > f; head -c 200000 /dev/zero | tee /dev/stderr', get_files=['f'])
        equal((len(base64.b64decode(r['contents']['f'])), r['stdout_bytes'], r['stdout_truncated'], r['stderr_truncated']),
              (700000, 200000, True, True))
        check(len(r['stdout']) and set(r['stdout'] + r['stderr']) == {'\0'}, len(r['stdout']), len(r['stderr']))


def cpu_s(pid):
    with open('/proc/%d/stat' % pid) as f:
        return sum(map(int, f.read().rsplit(')', 1)[1].split()[11:13])) / os.sysconf('SC_CLK_TCK')


@test
def long_output_does_not_hold_others_up(host):
    """Its cost is its length, not the square of it: there is one loop for all."""
    with host.server() as s:
        was = cpu_s(s.pid)
        execute(s, 'head -c 780000 /dev/zero > f', get_files=['f'])
        equal(len(s.ok("head -c 1000000 /dev/zero | tr '\\0' a")), 1000000)
        check(cpu_s(s.pid) - was < 1, 'seconds of CPU:', cpu_s(s.pid) - was)


@test
def base64_is_given_where_it_is_asked_for(host):
    with host.server() as s:
        got = result(ask(s, 'tools/call', name='exec', arguments={'cmd': "printf '\\377\\0a'", 'encoding': 'base64'}))
        r = outcome(got, got['isError'])
        check(got['isError'] and r['code'] == 'bad_request' or r.get('stdout') == '/wBh', 'neither refused nor done:', r)


# ---- who may ----

@test
def credentials_and_origins_are_those_of_the_api(host):
    with host.server() as s:
        m = request('tools/list', _meta=meta())
        for auth in (None, WRONG, 'Bearer x', 'Basic !'):
            status, h, data = s.request('POST', '/mcp', json.dumps(m), {**head(m), **({'Authorization': auth} if auth else {})},
                                        auth=False)
            equal((status, json.loads(data)['code']), (401, 'unauthorized'), auth)
    with host.server() as s:
        m = request('tools/call', name='exec', arguments={'cmd': 'true'}, _meta=meta())
        for name, value in (('Origin', 'http://evil.example'), ('Origin', 'null'), ('Origin', 'http://127.0.0.1.evil.example'),
                            ('Host', 'evil.example')):
            for method in ('POST', 'DELETE'):
                status, h, data = s.request(method, '/mcp', json.dumps(m), {**head(m), name: value})
                equal((status, json.loads(data)['code'], h['Access-Control-Allow-Origin']), (403, 'origin', None), value)
        equal(logged(s, 'RUN'), [])
        for value in ('http://localhost:3000', 'http://127.0.0.1', 'https://[::1]:5'):
            got = say(s, m, {**head(m), 'Origin': value})
            equal((result(got)['isError'], got[1]['Access-Control-Allow-Origin']), (False, value))
        h = say(s, request('initialize', protocolVersion=OLDER[0]), {'Origin': 'http://localhost:1'})[1]
        check('mcp-session-id' in (h['Access-Control-Expose-Headers'] or '').lower(), h)
        status, h, _ = s.request('OPTIONS', '/mcp', headers={'Origin': 'http://localhost:1'}, auth=False)
        equal(status, 204)
        for want in ('authorization', 'mcp-protocol-version', 'mcp-method', 'mcp-name', 'mcp-session-id', 'content-type'):
            check(want in h['Access-Control-Allow-Headers'].lower(), want)
        check({'POST', 'DELETE'} <= set(h['Access-Control-Allow-Methods'].split(', ')), h)


@test
def other_agents_are_none_of_its_business(host):
    config = host.file('[blacklist]\n[whitelist]\necho\n[agent bot]\ntoken=%s\n' % ('t' * 20))
    with host.server('--config', config) as s:
        execute(s, 'echo other', headers={'X-Agent': 'other'})
        own = {'Authorization': 'Bearer ' + 't' * 20}
        execute(s, 'echo mine', headers=own)
        equal([e['agent'] for e in call(s, 'audit', headers=own)['events']], ['bot'])
        equal([r['agent'] for r in logged(s, 'EXEC')], ['other', 'bot'])
        m = request('tools/list', _meta=meta())
        equal(s.request('POST', '/mcp', json.dumps(m), {**head(m), **own, 'X-Agent': 'other'})[0], 403)
        equal(s.request('POST', '/mcp', json.dumps(m), {**head(m), 'X-Agent': 'bot'})[0], 403)


@test
def tokens_count_once(host):
    with host.server() as s:
        spent = lambda: tuple(agents(s)['a'][k] for k in ('tokens_in', 'tokens_out', 'model', 'execs'))
        h = {'X-Agent': 'a', 'X-Tokens-In': '100', 'X-Tokens-Out': '7', 'X-Model': 'm1'}
        execute(s, 'true', headers=h)
        equal(spent(), (100, 7, 'm1', 1))
        say(s, request('tools/call', name='exec', arguments={'cmd': 'false'}), {**begin(s), **h})
        equal(spent(), (200, 14, 'm1', 2))
        ask(s, 'tools/list', headers=h)
        equal(spent()[:2], (300, 21))
        for tool in ('health', 'audit'):
            call(s, tool, headers={**h, 'X-Model': 'm2'})
        equal(spent(), (500, 35, 'm2', 2))
        execute(s, 'true', headers={'X-Agent': 'a'}, tokens_in=1000, tokens_out=1, model='m3')
        equal(spent(), (1500, 36, 'm3', 3))
        execute(s, '', is_error=True, headers=h)
        equal(spent()[:2], (1600, 43))
        failed(ask(s, 'nosuch', headers=h), 404, NOT_FOUND)
        equal(spent()[:2], (1700, 50))
        equal(s.request('POST', '/mcp', '{}', {'X-Agent': 'a', 'X-Tokens-In': 'x'})[0], 400)


@test
def tokens_count_once_when_a_password_is_checked(host):
    with host.server() as s:
        change(s, 'omniarena', 'a password of its own')
        s.auth = basic('a password of its own')
        execute(s, 'true', headers={'X-Agent': 'a', 'X-Tokens-In': '100'})
        c = http.client.HTTPConnection('127.0.0.1', s.port, timeout=30)
        for _ in range(2):
            say(s, request('ping'), {'X-Agent': 'a', 'X-Tokens-In': '100'}, conn=c)
        c.close()
        equal(agents(s)['a']['tokens_in'], 300)


@test
def a_call_ends_before_the_server_does(host):
    with host.server() as s:
        conns = []
        for token in ({}, {'progressToken': 1}):
            m, what = sleeper()
            m['params'].update(arguments={'cmd': 'sleep 0.6%s; echo done' % UNIQUE}, _meta=meta(**token))
            conns.append(sent(s, m, head(m)))
        until(lambda: s.health()['running'] == 2, what='both run')
        s.proc.send_signal(signal.SIGTERM)
        plain, stream = (rest(c) for c in conns)
        for r in (json.loads(plain.partition(b'\r\n\r\n')[2]), events(stream)[-1]):
            equal(outcome(r['result'])['stdout'], 'done\n')
        equal(s.wait(), 0)


@test
def what_runs_is_written_down_like_api_exec(host):
    with host.server('--config', host.file('[blacklist]\nwget\n[whitelist]\necho\n')) as s:
        for cmd in ('echo \'é"\\\'', 'wget x', 'perl'):
            execute(s, cmd, is_error=cmd[0] != 'e', headers={'X-Agent': 'm'})
            s.request('POST', '/api/exec', json.dumps({'cmd': cmd}), {'X-Agent': 'p'})
        rows = [{k: v for k, v in r.items() if k in ('event', 'cmd', 'result', 'rule', 'program', 'exit_code',
                                                     'agent')} for r in logged(s)]
        of = lambda a: [{**r, 'agent': ''} for r in rows if r.get('agent') == a]
        equal(of('m'), of('p'))
        equal([r['event'] for r in of('m')], ['RUN', 'EXEC', 'BLOCK', 'BLOCK'])
        a = agents(s)
        equal([[a[n][k] for k in ('execs', 'blocked', 'bytes', 'rate_1m')] for n in 'mp'], [[1, 2, 5, 3]] * 2)
        equal((metrics(s)['execs_total'], metrics(s)['blocked_total']), (2, 4))


@test
def rates_and_budgets_are_errors_with_their_code(host):
    with host.server('--max-rate-per-agent', '2') as s:
        for _ in range(2):
            execute(s, 'true', headers={'X-Agent': 'a'})
        schema = schemas(s)
        r = execute(s, 'echo refused', is_error=True, headers={'X-Agent': 'a'})
        equal((r['ok'], r['code']), (False, 'rate'))
        conforms(r, schema['exec'])
        call(s, 'health', headers={'X-Agent': 'a'})
        call(s, 'check_command', cmd='true', headers={'X-Agent': 'a'})
        equal([(r['agent'], r['cmd']) for r in logged(s, 'RATE')], [('a', 'echo refused')])
        s.json('POST', '/api/budget', '{"agent":"b","max_tokens":10}')
        execute(s, 'true', headers={'X-Agent': 'b', 'X-Tokens-In': '9'})
        r = execute(s, 'echo spent', is_error=True, headers={'X-Agent': 'b', 'X-Tokens-Out': '1'})
        equal((r['ok'], r['code'], agents(s)['b']['over_budget']), (False, 'budget', 1))
        equal([r['cmd'] for r in logged(s, 'BUDGET')], ['echo spent'])
    with host.server('--max-rps', '2') as s:
        got = [s.request('POST', '/mcp', json.dumps(request('ping')))[0] for _ in range(30)]
        check(set(got) == {200, 429}, got)
    with host.server('--max-running', '1') as s:
        m, what = sleeper()
        with sent(s, m, {}):
            runs(what)
            equal(execute(s, 'true', is_error=True)['code'], 'busy')


# ---- malformed ----

@test
def malformed_messages(host):
    with host.server() as s:
        ok = json.dumps(request('tools/list'))
        for body in ('', '{', ok + 'x', ok[:-1], b'\xef\xbb\xbf' + ok.encode(), "{'id':1}", '{"id":01,"method":"ping"}',
                     b'{"id":"\xff","method":"ping"}', '\0',
                     '{"jsonrpc":"2.0","id":1,"method":"ping","params":' + '[' * 50 + ']' * 50 + '}', '[' * 100000,
                     '{"a":' * 100000):
            failed(say(s, body), 400, PARSE_ERROR, None)
        for body in ('[]', '[%s]' % ok, '[%s,%s]' % (ok, ok), 'null', '5', '"ping"', 'true', '{}', '{"jsonrpc":"2.0"}'):
            failed(say(s, body), 400, INVALID_REQUEST, None)
        for m in ({'method': 5}, {'method': None}, {'method': ['ping']}, {'method': {}}):
            got = say(s, {'jsonrpc': '2.0', 'id': 1, **m})
            equal((got[0], got[2]['error']['code']), (400, INVALID_REQUEST), m)
        for params in ([], [1], 'x', 5, None, True):
            got = say(s, {'jsonrpc': '2.0', 'id': 1, 'method': 'ping', 'params': params})
            equal((got[0], got[2]['error']['code'] in (INVALID_PARAMS, INVALID_REQUEST)), (400, True), params)
        for doubled in ('"id":2,', '"method":"ping",', '"params":{},'):
            got = say(s, ok.replace('{', '{' + doubled, 1))
            equal((got[0], got[2]['error']['code']), (400, INVALID_REQUEST), doubled)
        for doubled in ('"name":"exec"', '"arguments":{}', '"_meta":{}'):
            body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{%s,%s}}' % (doubled, doubled)
            failed(say(s, body), 400, INVALID_PARAMS)
        result(say(s, json.dumps(request('ping'), indent=4).replace('\n', '\r\n\t')))
        equal(logged(s, 'RUN'), [])


def mangled(r, body):
    """A message with a few bytes gone, doubled, swapped for others, or nested."""
    for _ in range(r.randint(1, 4)):
        at, n = r.randrange(len(body)), r.choice((1, 1, 2, 5, 20))
        other = r.choice((b'', body[at:at + n] * 2, b'null', b'{}', b'[]', b'"', b'\\', b'\\u0000', b'1e9', b'-', b'\xff', b',',
                          b'}', bytes([r.randrange(256)])))
        body = body[:at] + other + body[at + n:]
    return body or b'x'


@test
def mangled_messages_have_an_answer(host):
    r = random.Random(5)
    with host.server(config=False) as s:
        session, c = begin(s), http.client.HTTPConnection('127.0.0.1', s.port, timeout=30)
        all = [request('initialize', protocolVersion=OLDER[0], capabilities={}), request('tools/list'),
               request('notifications/cancelled', None, requestId=1)]
        all += [request('tools/call', name=n, arguments=a, _meta=meta(progressToken=1)) for n, a in
                (('exec', {'cmd': ''}), ('check_command', {'cmd': 'echo a'}), ('audit', {'limit': 5, 'after': 1, 'agent': 'a'}),
                 ('health', {}))]
        for i in range(600):
            m = r.choice(all)
            h = r.choice(({}, session, head(m)))
            status, _, got = say(s, mangled(r, json.dumps(m).encode()), h, conn=c)
            check(status in (200, 202, 400, 404) and (status == 202) == (got is None), status, got)
            check(got is None or (got['jsonrpc'] == '2.0' and ('result' in got) != ('error' in got)), got)
        c.close()
        s.health()


@test
def the_version_of_jsonrpc_is_looked_at(host):
    """JSON-RPC 2.0 section 4: exactly "2.0"."""
    with host.server() as s:
        for wrong in ({}, {'jsonrpc': '1.0'}, {'jsonrpc': 2.0}, {'jsonrpc': None}, {'jsonrpc': ''}, {'jsonrpc': '2.0 '}):
            got = say(s, {**wrong, 'id': 1, 'method': 'ping'})
            equal((got[0], got[2].get('error', {}).get('code')), (400, INVALID_REQUEST), wrong)


@test
def ids_are_strings_or_integers(host):
    with host.server() as s:
        for id in (0, -1, 2**53, 10**127, '', 'é"\\\n\u2028', 'x' * 126, '\x00'):
            got = say(s, request('tools/call', id, name='health'))
            check(got[2]['id'] == id and result(got, id), repr(id))
        for id in (None, [], {}, True, False, 'x' * 127, 10**128, 'é' * 30, {'a': 1}, 1.5, [1]):
            m = {**request('tools/call', name='exec', arguments={'cmd': 'true'}), 'id': id}
            failed(say(s, m), 400, INVALID_REQUEST, None)
        equal(logged(s, 'RUN'), [])
        for id in ('1.5', '1e1000', '1E+2', '-0.0'):
            failed(say(s, '{"jsonrpc":"2.0","id":%s,"method":"ping"}' % id), 400, INVALID_REQUEST, None)


@test
def answers_to_nothing(host):
    """Clients of 2026-07-28 send no responses; those of the older revisions may, and are thanked."""
    with host.server() as s:
        for m in ({'result': {}}, {'error': {'code': -1, 'message': 'x'}}):
            got = say(s, {'jsonrpc': '2.0', 'id': 1, **m}, begin(s))
            check(got[0] in (202, 400) and (got[0] == 400) == bool(got[2]), got)
            got = say(s, {'jsonrpc': '2.0', 'id': 1, **m}, {'MCP-Protocol-Version': MODERN})
            equal((got[0], got[2] and 'error' in got[2]), (400, True), m)
        for m in ({'id': 1}, {'id': {}}, {'id': None}, {'params': {}}):
            got = say(s, {'jsonrpc': '2.0', **m})
            equal((got[0], got[2] and got[2]['error']['code']), (400, INVALID_REQUEST), m)


@test
def bodies_of_two_mebibytes(host):
    with host.server() as s:
        m = request('tools/call', name='exec', arguments={'cmd': 'wc -c', 'stdin': ''}, _meta=meta())
        pad = lambda n: json.dumps({**m, 'params': {**m['params'], 'arguments': {'cmd': 'wc -c', 'stdin': 'x' * n}}})
        most = (2 << 20) - len(pad(0))
        equal(outcome(result(say(s, pad(1000000), head(m))))['stdout'].split(), ['1000000'])
        got = say(s, pad(most), head(m))  # stdin may have a limit of its own, which is told
        r = outcome(result(got), got[2]['result']['isError'])
        check(r['ok'] and r['stdout'].split() == [str(most)] or r.get('code') in ('too_large', 'bad_request'), r)
        ping = json.dumps(request('ping'))
        result(say(s, ping + ' ' * ((2 << 20) - len(ping))))
        failed(say(s, 'x' * (2 << 20)), 400, PARSE_ERROR, None)
        with s.connect() as c:
            c.sendall(post(s, request('ping'), {'Content-Length': (2 << 20) + 1}))
            check(rest(c).startswith(b'HTTP/1.1 413 '))
        status, _, data = s.request('POST', '/mcp', iter([pad(5).encode()]), head(m))
        equal((status, outcome(json.loads(data)['result'])['stdout'].split()), (200, ['5']))


@test
def pipelined_requests_stay_in_order(host):
    with host.server() as s:
        a = begin(s)
        work = [request('ping', 1), request('tools/call', 2, name='exec', arguments={'cmd': 'sleep 0.3; echo 2'}),
                request('tools/list', 3),
                request('notifications/initialized', None), request('tools/call', 5, name='exec', arguments={'cmd': 'echo 5'}),
                request('nosuch', 6),
                request('tools/call', 7, name='exec', arguments={'cmd': 5}), request('tools/call', 8, name='audit', arguments={})]
        with s.connect() as c, c.makefile('rb') as f:
            c.sendall(b''.join(post(s, m, a) for m in work))
            got = [answer(f) for _ in work]
        equal([r[0] for r in got], [200] * 3 + [202] + [200] * 4)
        equal([json.loads(r[2])['id'] if r[2] else None for r in got], [1, 2, 3, None, 5, 6, 7, 8])
        equal([outcome(json.loads(got[i][2])['result'])['stdout'] for i in (1, 4)], ['2\n', '5\n'])
        # a stream is the last of its connection: what came behind it is not begun
        m = request('tools/call', 1, name='exec', arguments={'cmd': 'echo a; sleep 0.3'}, _meta=meta(progressToken=1))
        with sent(s, m, head(m)) as c:
            equal([e['id'] for e in events(rest(c))], [1])
