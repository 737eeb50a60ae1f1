"""What the server says over HTTP: framing, refusals, credentials, origins, slow and many clients.

Replies are read by hand from the socket, strictly: what http.client forgives is a failure here.
Expected values are those of RFC 9110, RFC 9112, RFC 8259 and API.md.
"""
import base64, contextlib, email.utils, json, os, re, select, socket, struct, threading, time, types
from arena import *

HOST, OWN = 'Host: 127.0.0.1', 'Authorization: ' + BASIC
TOKEN = 'omniarena-default-token'
CHUNKS = 'Transfer-Encoding: chunked'
GOOD = b'{"cmd":"echo in"}'
CODE = {400: 'bad_request', 401: 'unauthorized', 404: 'not_found', 405: 'method', 413: 'too_large'}
# valid, unescaped: control bytes, quotes, letters of 2 to 4 bytes; the odd length moves the seams
TEXT = ''.join(map(chr, range(33))) + '"\\/\x7fé漢🦀'
LARGE = 33000
PRINT_LARGE = 'python3 -c "import sys; sys.stdout.buffer.write((bytes(range(33)) + bytes.fromhex(\'%s\')) * %d)"' % (
    TEXT.encode()[33:].hex(), LARGE)


def req(method='GET', path='/api/health', *lines, body=None, version='HTTP/1.1', base=(HOST, OWN)):
    """A request's bytes; lines are header lines; a body gets its Content-Length"""
    lines = [*base, *lines] + ([] if body is None else ['Content-Length: %d' % len(body)])
    return ('%s %s %s\r\n%s\r\n' % (method, path, version, ''.join(x + '\r\n' for x in lines))).encode('latin-1') + (body or b'')


def get(*lines, **kw):
    return req('GET', '/api/health', *lines, **kw)


def post(*lines, behind=b'', **kw):
    return req('POST', '/api/exec', *lines, **kw) + behind


def run(cmd, *lines, **fields):
    return post(*lines, body=json.dumps({'cmd': cmd, **fields}).encode())


def chunked(data, size, extension='', trailers=''):
    parts = [data[i:i + size] for i in range(0, len(data), size)]
    return b''.join(b'%x%s\r\n%s\r\n' % (len(p), extension.encode(), p) for p in parts) + b'0\r\n%s\r\n' % trailers.encode()


@contextlib.contextmanager
def tried(wrong, what):
    """Failures of one row of a table are collected, so that the others are tried too"""
    try:
        yield
    except (AssertionError, OSError) as e:
        wrong.append('%.160r: %s %.300s\n' % (what, type(e).__name__, e))


class Client:
    """One connection; source: which loopback address it comes from"""

    def __init__(self, s, data=b'', rcvbuf=0, source='127.0.0.1', timeout=30):
        self.sock = socket.socket()
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        self.sock.bind((source, 0))
        self.sock.connect(('127.0.0.1', s.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf = b''
        self.send(data)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def send(self, *parts):
        for p in parts:
            self.sock.sendall(p)
        return self

    def more(self, size=65536):
        data = self.sock.recv(size)
        self.buf += data
        return data

    def read(self, head=False):
        """The next reply, checked for everything that holds for each; head: to a HEAD request"""
        while b'\r\n\r\n' not in self.buf:
            check(self.more(), 'closed inside a head:', self.buf)
        top, self.buf = self.buf.split(b'\r\n\r\n', 1)
        first, *lines = top.decode('latin-1').split('\r\n')
        m = re.fullmatch(r'HTTP/1\.1 (\d{3}) [A-Za-z -]*', first)
        check(m, 'status line', first)
        r = types.SimpleNamespace(status=int(m.group(1)), top=top, headers={}, body=b'', json=None)
        for line in lines:
            m = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)", line)
            check(m and m.group(1).lower() not in r.headers, 'header line', repr(line))
            r.headers[m.group(1).lower()] = m.group(2)
        check('transfer-encoding' not in r.headers, 'no chunked reply is expected')
        equal('content-length' in r.headers, r.status >= 200 and r.status != 204, 'Content-Length is there', first)
        if r.status < 200:
            return r
        date = email.utils.parsedate_to_datetime(r.headers['date'])
        equal(r.headers['date'], email.utils.format_datetime(date, usegmt=True), 'IMF-fixdate')
        check(abs(date.timestamp() - time.time()) < 300, 'Date', date)
        check(re.fullmatch(r'\d+', r.headers.get('content-length', '0')), r.headers)
        n, got = 0 if head else int(r.headers.get('content-length', 0)), bytearray(self.buf)
        while len(got) < n:
            data = self.sock.recv(65536)
            check(data, 'closed with', n - len(got), 'bytes of the body missing')
            got += data
        r.body, self.buf = bytes(got[:n]), bytes(got[n:])
        if r.body and r.headers['content-type'] == 'application/json':
            check(r.body.endswith(b'\n'), 'no newline at the end', r.body[-80:])
            r.json = json.loads(r.body.decode('utf-8'))
        return r

    def ask(self, data, **kw):
        return self.send(data).read(**kw)

    def ended(self):
        """Nothing more comes, and the end is an orderly one"""
        while self.more():
            pass
        equal(self.buf, b'', 'after the last reply')


def ask(s, data, status=200, **kw):
    with Client(s, data, **kw) as c:
        r = c.read()
        equal(r.status, status, data[:200], r.body[:200])
        return r


def is_refusal(r, status, what, code=None):
    """The documented error with this status; or, statuses and codes that are all right"""
    check(r.status in (status if isinstance(status, tuple) else (status,)), what, 'got', r.status, r.body[:200], 'want', status)
    equal(r.headers['content-type'], 'application/json', what)
    check(r.json['ok'] is False and r.json['error'] and isinstance(r.json['error'], str) and re.fullmatch('[a-z_]+', r.json['code']), what, r.json)
    code = code.get(r.status) if isinstance(code, dict) else code or CODE.get(r.status)
    check(code in (None, r.json['code']), what, r.json, 'want', code)
    return r


def connections(s):
    """Client connections that the server still has open"""
    mine = set()
    for f in os.listdir('/proc/%d/fd' % s.pid):
        with contextlib.suppress(OSError):
            mine.add(os.readlink('/proc/%d/fd/%s' % (s.pid, f)))
    with open('/proc/net/tcp') as f:
        rows = [line.split() for line in f][1:]
    return sum(r[1].endswith(':%04X' % s.port) and r[3] != '0A' and 'socket:[%s]' % r[9] in mine for r in rows)


def quiet(s):
    """How many fds the server has with nobody connected and nothing running, beside four for each warm cell"""
    s.settled()
    until(lambda: connections(s) == 0, what='no connections')
    h = s.health()
    until(lambda: connections(s) == 0, what='no connections')
    return len(fds(s.pid)) - 4 * h['warm_cells']


# ---- connections ----

@test
def http_keep_alive(host):
    """Many requests on one connection, and when it ends (RFC 9112 section 9.3)."""
    wrong = []
    with host.server() as s:
        with Client(s) as c:
            for i in range(100):
                equal((c.ask(req(path='/healthz')).body, c.ask(run('echo %d' % i)).json['stdout']), (b'ok\n', '%d\n' % i))
        for version, lines, stays in (
                ('1.1', [], True), ('1.1', ['Connection: close'], False), ('1.1', ['cOnnection:CLOSE'], False),
                ('1.1', ['Connection: x, close'], False), ('1.1', ['Connection: x', 'Connection: close'], False),
                ('1.1', ['Connection: close', 'Connection: x'], False), ('1.1', ['Connection: close, keep-alive'], False),
                ('1.1', ['Connection: closed'], True), ('1.1', ['X-Connection: close'], True), ('1.2', [], True),
                ('1.0', [], False), ('1.0', ['Connection: keep-alive'], True), ('1.0', ['Connection: Keep-Alive'], True),
                ('1.0', ['Connection: keep-alive, close'], False), ('1.0', ['Connection: close, keep-alive'], False)):
            with tried(wrong, (version, lines)), Client(s) as c:
                r = c.ask(get(*lines, version='HTTP/' + version))
                equal((r.status, r.headers.get('connection')),
                      (200, 'keep-alive' if stays and version == '1.0' else None if stays else 'close'))
                if stays:
                    equal(c.ask(req(path='/healthz')).body, b'ok\n')
                else:
                    c.ended()
        equal(ask(s, b'GET /healthz HTTP/1.0\r\n\r\n').body, b'ok\n', 'HTTP/1.0 needs no Host')
        with Client(s, b'\r\n' + run('echo 1') + b'\r\n' + req(path='/healthz')) as c: # RFC 9112 section 2.2
            equal((c.read().json['stdout'], c.read().body), ('1\n', b'ok\n'), 'an empty line ahead')
    check(not wrong, *wrong)


@test
def http_pipeline(host):
    """Twenty requests in one write, each answered in its turn; bodies over several writes."""
    rows = [(req(path='/healthz'), lambda r: r.body == b'ok\n'), (req('HEAD'), lambda r: r.status == 200),
            (req(path='/nothing'), lambda r: r.status == 404), (req(), lambda r: r.json['ok']),
            (req('OPTIONS'), lambda r: r.status == 204), (get(body=b'unasked'), lambda r: r.status == 200),
            (post(CHUNKS) + chunked(b'{"cmd":"echo chunk"}', 7),
             lambda r: r.json['stdout'] == 'chunk\n'),
            (req('PUT', '/api/health'), lambda r: r.status == 405), (req(base=[HOST]), lambda r: r.status == 401),
            (run('sleep 0.3; echo slow'), lambda r: r.json['stdout'] == 'slow\n'), (run('exit 7'), lambda r: r.json['exit_code'] == 7)]
    rows = (rows * 2)[:19] + [(run('wc -c', 'Connection: close', stdin='x' * 40000), lambda r: r.json['stdout'] == '40000\n')]
    data = b''.join(row[0] for row in rows)
    with host.server() as s:
        for cuts in ([len(data)], [len(data) - 30000, len(data)], range(1000, len(data) + 1000, 1000)):
            with Client(s) as c:
                done = 0
                for cut in cuts:
                    c.send(data[done:cut])
                    done = cut
                for i, (what, good) in enumerate(rows):
                    r = c.read(head=what.startswith(b'HEAD'))
                    check(good(r), i, what[:60], r.top, r.body[:200])
                c.ended()
        many = 2000
        with Client(s) as c:
            t = threading.Thread(target=c.send, args=(req(path='/healthz') * many,))
            t.start()
            for i in range(many):
                equal(c.read().body, b'ok\n', i)
            t.join()
        big = run('wc -c', stdin='y' * 1900000)
        with Client(s, big + req(path='/healthz') + big + req('HEAD')) as c:
            equal((c.read().json['stdout'], c.read().body), ('1900000\n', b'ok\n'))
            equal((c.read().json['stdout'], c.read(head=True).status), ('1900000\n', 200))


@test
def http_byte_by_byte(host):
    """However the bytes come, the reply is the same."""
    body = json.dumps({'cmd': 'cat; exit 3', 'stdin': 'a\u00e9\n'}).encode()
    with host.server() as s:
        with Client(s) as c:
            for data in (post('X-Other: \t padded \t', body=body),
                         post(CHUNKS) + chunked(body, 5, ';a="b"', 'X-T: 1\r\n')):
                got = []
                for size in (len(data), 1, 1, 2):
                    c.send(*(data[i:i + size] for i in range(0, len(data), size)))
                    r = c.read()
                    got.append((r.status, {k: v for k, v in r.headers.items() if k not in ('date', 'content-length')},
                                {k: v for k, v in r.json.items() if k not in ('duration_ms', 'usage')}))
                equal((got[0][0], got[0][2]['exit_code'], got[0][2]['stdout']), (200, 3, 'a\u00e9\n'))
                equal(got[1:], got[:1] * 3)


@test
def http_chunked(host):
    body = json.dumps({'cmd': 'wc -c', 'stdin': 'q' * 50000}).encode()
    with host.server() as s, Client(s) as c:
        for data in (chunked(body, 1), chunked(body, 1000), chunked(body, 65536), chunked(body, 333, ';name'),
                     chunked(body, 5000, ';name=value;x="quo\\"ted;"'), chunked(body, 5000, '', 'X-One: 1\r\nX-Two: %s\r\n' % ('2' * 3000)),
                     b'00c350;x\r\n'.replace(b'c350', b'%x' % len(body)) + body + b'\r\n000\r\n\r\n',
                     (b'%X\r\n' % len(body)) + body + b'\r\n0;last\r\nContent-Length: 5\r\nHost: evil.example\r\n\r\n'):
            equal(c.ask(post('transfer-encoding: CHUNKED') + data).json['stdout'], '50000\n', data[:40])
            equal(c.ask(req(path='/healthz')).body, b'ok\n', 'behind', data[:40])
        equal(c.ask(post(CHUNKS) + b'0\r\n\r\n').json['code'], 'bad_json')


@test
def http_expect(host):
    """100 before the body is sent, none when the head alone decides (RFC 9110 section 10.1.1)."""
    body = b'{"cmd":"echo waited"}'
    with host.server() as s:
        for value, line, data in (('100-continue', 'Content-Length: %d' % len(body), body),
                                  ('100-Continue', 'Transfer-Encoding: chunked', chunked(body, 9)),
                                  ('100-continue', 'Content-Length: 60000', body + b' ' * (60000 - len(body)))):
            with Client(s) as c:
                for _ in range(2):
                    r = c.ask(post('Expect: ' + value, line))
                    equal((r.status, r.top.count(b'\r\n')), (100, 0), r.top)
                    equal(c.ask(data).json['stdout'], 'waited\n')
            with Client(s, post('Expect: ' + value, line) + data + req(path='/healthz')) as c:
                r = c.read()
                r = c.read() if r.status == 100 else r # may be left out when the body is there
                equal((r.json['stdout'], c.read().body), ('waited\n', b'ok\n'))
        with Client(s, post('Expect: 100-continue', 'Content-Length: 21', version='HTTP/1.0')) as c:
            equal(c.ask(body).json['stdout'], 'waited\n', 'HTTP/1.0 gets no 100')
        with Client(s, req('GET', '/healthz', 'Expect: 100-continue')) as c:
            equal(c.read().body, b'ok\n')
        for lines, path, status in (
                ((HOST,), '/api/exec', 401), ((HOST, 'Authorization: Basic eDp5'), '/api/exec', 401), (('Host: evil.example', OWN), '/api/exec', 403),
                ((OWN,), '/api/exec', 400), ((HOST, OWN), '/nothing', 404), ((HOST, OWN), '/api/health', 405), ((HOST, OWN), '/api/exec', 413)):
            length = 'Content-Length: %d' % (2097153 if status == 413 else 21)
            with Client(s, req('POST', path, length, 'Expect: 100-continue', base=lines)) as c:
                is_refusal(c.read(), status, lines, 'origin' if status == 403 else None)
        for value in ('200-ok', '100-continue, x', '100', 'x=y'):
            with Client(s, post('Expect: ' + value, body=body) + run('echo behind')) as c:
                is_refusal(c.read(), 417, value)
                c.ended()
        equal(s.health()['total_execs'], 10)


# ---- routes ----

@test
def http_routes(host):
    """Statuses, Allow, HEAD and preflight; every reply is read strictly."""
    preflight = ('Origin: http://localhost:3000', 'Access-Control-Request-Method: POST', 'Access-Control-Request-Headers: authorization')
    with host.server() as s:
        for path in ('/healthz', '/api/health', '/api/health?a=b&c'):
            with Client(s) as c:
                one, two = c.ask(req('GET', path)), c.ask(req('HEAD', path), head=True)
                equal((one.status, two.status), (200, 200), path)
                one.headers.pop('date'), two.headers.pop('date')
                equal(two.headers, one.headers, path)
                check(int(one.headers['content-length']) == len(one.body) > 0, one.headers)
                equal(c.ask(req(path='/healthz')).body, b'ok\n', 'no body came with HEAD')
        r = ask(s, req('GET', '/healthz', base=[HOST]))
        equal((r.body, r.headers['content-type'].split(';')[0], ask(s, req()).headers['content-type']), (b'ok\n', 'text/plain', 'application/json'))
        with Client(s) as c:
            for method, path in (('POST', '/api/health'), ('PUT', '/api/health'), ('DELETE', '/api/health'), ('PATCH', '/api/exec'),
                                 ('GET', '/api/exec'), ('DELETE', '/api/exec'), ('POST', '/healthz')):
                r = is_refusal(c.ask(req(method, path)), 405, (method, path))
                allow = set(r.headers['allow'].split(', '))
                check(method not in allow and ('POST' if path == '/api/exec' else 'GET') in allow, method, path, allow)
            r = c.ask(req('HEAD', '/api/exec'), head=True)
            check(r.status == 405 and 'allow' in r.headers, r.top)
            for path in ('/nothing', '/api', '/api/', '/api/health/', '/API/health', '/api/heal', '/api/healthy', '/api/health%00', '/api/health;x', '/etc/passwd'):
                is_refusal(c.ask(req(path=path)), 404, path)
            equal(c.ask(req('HEAD', '/nothing'), head=True).status, 404)
            for path in ('/api/exec', '/api/health'):
                r = c.ask(req('OPTIONS', path, *preflight, base=[HOST]))
                equal((r.status, r.headers['access-control-allow-origin']), (204, 'http://localhost:3000'), path)
                check('POST' in r.headers['access-control-allow-methods'].split(', '), r.headers)
                check({'authorization', 'content-type', 'x-agent'} <= set(r.headers['access-control-allow-headers'].lower().split(', ')), r.headers)
            equal(c.ask(req(path='http://127.0.0.1:%d/healthz' % s.port)).body, b'ok\n', 'absolute-form, RFC 9112 section 3.2.2')
            equal(c.ask(req(path='http://localhost/api/health?x')).status, 200)


# ---- refusals ----

LINE = ('\r\n%s\r\n%s\r\n\r\n' % (HOST, OWN)).encode()
MALFORMED = [
    # RFC 9112 section 6: length
    (400, post('Content-Length: 17', CHUNKS, behind=b'0\r\n\r\n')), (400, post(CHUNKS, 'Content-Length: 0', behind=b'0\r\n\r\n')),
    (400, post('Content-Length: 17', 'Content-Length: 18', behind=GOOD)), (400, post('Content-Length: 17', 'Content-Length: 17', behind=GOOD)),
    *((400, post('Content-Length: ' + v, behind=GOOD)) for v in (
        '17, 18', '17, 17', '+17', '-17', '-1', '1 7', '0x11', '17.0', '', '17;', '1e1', '\xb2', '17,', '"17"', '0,17', '17\t7')),
    *(((400, 413), post('Content-Length: ' + v, behind=GOOD)) for v in (
        '99999999999999999999', '1' + '0' * 60, '18446744073709551633', '4294967313', '9223372036854775807')),
    *((s, post('Transfer-Encoding: ' + v, behind=chunked(GOOD, 5))) for s, v in (
        (501, 'gzip, chunked'), ((400, 501), 'xchunked'), ((400, 501), 'gzip'), ((400, 501), 'identity'), ((400, 501), ''),
        ((400, 501), 'chunked;q=1'), ((400, 501), 'chunked, chunked'), (400, '\x0bchunked'), ((400, 501), '"chunked"'))),
    (400, post('Transfer-Encoding: chunked, gzip', behind=chunked(GOOD, 5))), # the last coding must be chunked: section 6.3
    ((400, 501), post(CHUNKS, CHUNKS, behind=chunked(GOOD, 5))), ((400, 501), post(CHUNKS, 'Transfer-Encoding: identity', behind=chunked(GOOD, 5))),
    (400, post(CHUNKS, behind=chunked(GOOD, 5), version='HTTP/1.0')), (400, post(CHUNKS + '\r\n ,gzip', behind=chunked(GOOD, 5))),
    *((400, post(CHUNKS, behind=b)) for b in (
        b'g\r\n', b'-1\r\n', b'0x1\r\n1\r\n0\r\n\r\n', b'\r\n\r\n', b' 5\r\nabcde\r\n', b'+5\r\nabcde\r\n', b'5\nabcde\r\n0\r\n\r\n',
        b'5 5\r\nabcde\r\n', b'5\r\nabcdef\r\n', b'5\r\nabcde0\r\n\r\n', b'5\r\nabcde\n0\r\n\r\n',
        b'5\rXabcde\r\n0\r\n\r\n', b'5\r\nabcdeX\n0\r\n\r\n', b'5\r\nabcde\rX0\r\n\r\n', b'0\rX\r\n', b'0\r\n\rX', b'5;a\nb\r\nabcde\r\n',
        b'5;a\0\r\nabcde\r\n', b';a\r\n', b'0\r\nX: a\rb\r\n\r\n', b'0\r\nX: a\nb\r\n\r\n')),
    *(((400, 413, 431), post(CHUNKS, behind=b + b'x' * 70000)) for b in (b'5;', b'0\r\nX: ')),
    *(((400, 413), post(CHUNKS, behind=b)) for b in (b'11111111111111111\r\n', b'ffffffffffffffff\r\nx', b'10000000000000011\r\n' + GOOD)),
    # section 5: header lines
    *((400, get(line)) for line in (
        'X-A: b\r\n c', 'X-A: b\r\n\tc', 'X-A: b\rc', 'X-A: b\r', '\rX-A: b', 'X-A: b\nX-B: c', 'X-A: b\n', 'X-A: \0', 'X-\0A: b', 'X-A : b',
        'X-A\t: b', ' X-A: b', ': b', 'X-A', 'X(A): b', 'X A: b', 'X-\xe9: b', 'X-A: \x01', 'X-A: \x7f', 'X-A: \x1b[31m', 'Host : 127.0.0.1')),
    (400, b'GET /api/health HTTP/1.1\r\n ' + HOST.encode() + LINE), (400, b'GET /api/health HTTP/1.1\n' + LINE[2:]),
    (400, LINE[2:].join([b'GET /api/health HTTP/1.1\r\n', b'']).replace(b'\r\n', b'\n')),
    (400, req(base=[OWN])), (400, get(HOST)), (400, get('Host: other')), (400, get('host: 127.0.0.1')), (400, req(base=['Hostess: x', OWN])),
    *((400, req(base=['Host: ' + v, OWN])) for v in (
        'a b', '127.0.0.1/x', 'user@localhost', '<localhost>', '[::1', '\xe9', '127.0.0.1\\x', 'local"host',
        '[::1]evil.example', '[::1].evil.example', 'localhost:x', '127.0.0.1:80:80', 'localhost:80evil', '[::1]:x')),
    # section 3: request line
    *((400, b + LINE) for b in (
        b'GET /api/health', b'GET', b'GET  /api/health HTTP/1.1', b'GET /api/health  HTTP/1.1', b'GET /api/health HTTP/1.1 ', b' GET /api/health HTTP/1.1',
        b'GET\t/api/health\tHTTP/1.1', b'GET /api/health HTTP/1.1\r', b'GET /api/health\r HTTP/1.1', b'GET /api/h\0 HTTP/1.1', b'G\0T /api/health HTTP/1.1',
        b'G@T /api/health HTTP/1.1', b'GET api/health HTTP/1.1', b'GET * HTTP/1.1', b'GET /a#b HTTP/1.1', b'GET /\xe9 HTTP/1.1', b'GET /\x7f HTTP/1.1',
        b'GET /api/health http/1.1', b'GET /api/health HTTP/1', b'GET /api/health HTTP/1.10', b'GET /api/health HTTP/11.1', b'GET /api/health HTTP/1,1',
        b'GET /api/health XTTP/1.1', b'GET /api/health HTTP/ 1.1', b'GET /api/health HTTP/-1.1', b'\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03', b'{"cmd":"id"}')),
    *((505, b'GET /api/health ' + v + LINE) for v in (b'HTTP/2.0', b'HTTP/0.9', b'HTTP/3.1', b'HTTP/9.9')), ((400, 501, 505), b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    *((501, m + b' /api/health HTTP/1.1' + LINE) for m in (b'FROB', b'get', b'GETT', b'GE', b'PROPFIND', b'M' * 300)),
    (414, b'GET /' + b'a' * 20000 + b' HTTP/1.1' + LINE), (414, b'GET /?' + b'a' * 300000), (414, b'x' * 9000),
    (431, get('X-A: ' + 'a' * 20000)), (431, get('X-A: ' + 'a' * 300000)), (431, get('x' * 20000 + ': a')),
    (431, get(*('X-%d: %s' % (i, 'a' * 1000) for i in range(20)))), (431, get(*(['X: y'] * 500))),
    (413, post('Content-Length: 2097153', behind=b' ' * 1000)), (413, post('Content-Length: 2097153', behind=b' ' * 2097153)),
    (413, post('Content-Length: 4000000', behind=b' ' * 4000000)), (413, post(CHUNKS, behind=chunked(GOOD + b' ' * 2097136, 65536))),
    (413, post(CHUNKS, behind=chunked(b' ' * 3000000, 3000000))), (413, post(CHUNKS, behind=chunked(b' ' * 2097153, 100))),
]


@test
def http_malformed(host):
    """Each gets its status and the documented error; nothing behind it is run or answered; the
    reply outlives what the client goes on sending; the server closes, even if the client does not."""
    behind = run('echo smuggled') + req() + b'\r\n\r\n' + run('echo smuggled') * 200 # and more than one buffer of it
    wrong, kept = [], []
    with host.server('--max-connections', '1000') as s:
        before = quiet(s)
        for status, data in MALFORMED:
            kept.append(Client(s, data + behind, timeout=5))
            c = kept[-1]
            check(len(wrong) < 12, 'too many to go on:\n', *wrong)
            with tried(wrong, data):
                r = is_refusal(c.read(), status, '')
                equal(r.headers.get('connection'), 'close')
                c.ended()
                equal(ask(s, req(path='/healthz')).body, b'ok\n', 'on a new connection')
        with tried(wrong, 'a body that goes on for a while behind its refusal'), Client(s, post('Content-Length: 3000000')) as c:
            for _ in range(10):
                time.sleep(0.05)
                c.send(b'x' * 300000)
            is_refusal(c.read(), 413, '')
        check(not wrong, len(wrong), 'of', len(MALFORMED), 'rows:\n', *wrong)
        until(lambda: connections(s) == 0, what='the server has closed them all')
        equal(s.health()['total_execs'], 0, 'commands that were smuggled in')
        until(lambda: quiet(s) == before, what='as many fds as before')


@test
def http_limits(host):
    """What lies just within the limits is answered."""
    wrong = []
    def head(size, *lines):
        pads = ['X-A: ' + 'a' * 5000] * 2
        return post(*lines, *pads, 'X-P: ' + 'a' * (size - len(post(*lines, *pads, 'X-P: '))))
    with host.server() as s:
        equal(ask(s, req('GET', '/healthz?' + 'q' * 7900)).body, b'ok\n', 'RFC 9112 section 3: 8000 octets and more')
        ask(s, get(*('X-%d: y' % i for i in range(62))))
        ask(s, get('X-A: ' + 'a' * 8000))
        for body in (GOOD + b' ' * (2097152 - len(GOOD)), json.dumps({'cmd': 'wc -c', 'stdin': 'x' * 2000000}).encode()):
            check(ask(s, post(body=body)).json['stdout'] in ('in\n', '2000000\n'))
            for size in (1000, 2097152):
                check(ask(s, post(CHUNKS) + chunked(body, size)).json['stdout'] in ('in\n', '2000000\n'))
        for size in (16384 - 40, 16384 - len(GOOD), 16383, 16384): # http.h: a head may have 16 KiB
            for data in (head(size, 'Content-Length: 17') + GOOD, head(size, CHUNKS) + chunked(GOOD, 3)):
                with tried(wrong, (size, data[-40:])), Client(s, data + req(path='/healthz')) as c:
                    equal((c.read().json['stdout'], c.read().body), ('in\n', b'ok\n'))
    check(not wrong, *wrong)


@test
def http_bodies(host):
    """RFC 8259 and nothing beside it; known fields once and of their kind."""
    def deep(n):
        return b'{"cmd":"echo deep","x":' + b'[' * (n - 1) + b']' * (n - 1) + b'}'
    bad_json = [b'', b' ', b'\0', b'{', b'}', b'{"cmd":"id"', b'{"cmd":"id"} x', b'{"cmd":"id"}{"cmd":"id"}', b'{"cmd":"id"}\0', b'{"cmd":"id"},',
                b'{"cmd":"\xff"}', b'{"cmd":"\xc0\xaf"}', b'{"cmd":"\xed\xa0\x80"}', b'{"cmd":"\xf4\x90\x80\x80"}', b'{"cmd":"\xc3"}', b'{"x":"\x80"}',
                b'{"\xff":1,"cmd":"id"}', b"{'cmd':'id'}", b'{"cmd":"id",}', b'{,"cmd":"id"}', b'{"cmd":"a\nb"}', b'{"cmd":"a\0b"}', b'{"cmd":"\\x41"}',
                b'{"cmd":"\\u12g4"}', b'{"cmd":"\\u12"}', b'{"cmd":"\\', b'{cmd:"id"}', b'{"cmd" "id"}', b'{"cmd":}', b'{"cmd"}', b'{"cmd":"id" "x":1}',
                b'//c\n{"cmd":"id"}', b'{"cmd":"id"/**/}', b'\xff\xfe{\0', b'nul', b'{"x":tru,"cmd":"id"}', b'{"x":True,"cmd":"id"}', b'{"x":[1,],"cmd":"id"}',
                b'{"x":[1 2],"cmd":"id"}', b'{"x":[1},"cmd":"id"}', b'{1:2,"cmd":"id"}', b'\x0b{"cmd":"id"}', b'{"cmd":"id"\xc2\xa0}', b'{"cmd":"id"]',
                *(b'{"x":%s,"cmd":"id"}' % n for n in (b'01', b'+1', b'1.', b'.5', b'1e', b'-', b'NaN', b'Infinity', b'0x1', b'1_0', b'- 1', b'--1')),
                deep(33), deep(40), b'[' * 100000, b'{"x":' * 100000]
    bad_request = [b'[]', b'5', b'"x"', b'null', b'true', b'[{"cmd":"id"}]', b'{}', b'{"cmd":"id","cmd":"id"}', b'{"cmd":"id","\\u0063md":"id"}',
                   b'{"cmd":5}', b'{"cmd":null}', b'{"cmd":["id"]}', b'{"cmd":{}}', b'{"cmd":true}', b'{"cmd":""}', b'{"cmd":"a\\u0000b"}', b'{"CMD":"id"}',
                   b'{"argv":"ls"}', b'{"argv":[1]}', b'{"argv":[]}', b'{"argv":{}}', b'{"argv":["a",null]}', b'{"argv":["id"],"argv":["id"]}',
                   *(b'{"cmd":"id",%s}' % f for f in (
                       b'"stdin":5', b'"stdin":null', b'"stdin":"a","stdin":"a"', b'"env":[]', b'"env":{"A":1}', b'"env":"A=1"', b'"env":{},"env":{}', b'"cwd":1',
                       b'"timeout_ms":"5"', b'"timeout_ms":1.5', b'"timeout_ms":-1', b'"timeout_ms":null', b'"timeout_ms":9,"timeout_ms":9', b'"encoding":5',
                       b'"encoding":"latin1"', b'"encoding":null'))]
    good = [deep(32), b'\t\r\n {"cmd" : "echo deep" } \n', b'{"cmd":"echo deep","x":null,"x":1e400,"":{"cmd":[5]},"\\u0000":-0.0e-1,"Cmd":7}',
            b'{"\\u0063\\u006d\\u0064":"echo d\\u0065ep"}', b'{"cmd":"echo deep","y":"\\ud83e\\udd80\\/\\b"}']
    with host.server() as s, Client(s) as c:
        for code, rows in (('bad_json', bad_json), ('bad_request', bad_request)):
            for body in rows:
                is_refusal(c.ask(post(body=body)), 400, body[:100], code)
        equal(s.health()['total_execs'], 0)
        for body in good:
            equal(c.ask(post(body=body)).json['stdout'], 'deep\n', body[:100])
            equal(c.ask(post('Content-Type: application/x-www-form-urlencoded', body=body)).status, 200)


@test
def http_no_echo(host):
    """No word of the client's gets into a reply's head, in whatever part it came."""
    wrong, evil = [], 'Zq7x%0d%0aSet-Cookie:%20z=1'
    rows = [req(path='/' + evil), req('Zq7x'), req(version='HTTP/1.1Zq7x'), get('Zq7x: y'), get('Zq7x'),
            get('X-A: ' + evil), req(base=['Host: ' + evil, OWN]), req(base=[HOST, 'Authorization: Zq7x']),
            get('Connection: keep-alive, Zq7x'), get('X-Agent: Zq7x'),
            get('Origin: http://Zq7x.example'), req('GET', '/healthz', 'Origin: http://Zq7x.example'),
            get('Origin: http://localhost:80\tZq7x'), get('Origin: http://localhost:80 Zq7x'),
            req('OPTIONS', '/api/exec', 'Access-Control-Request-Method: Zq7x', 'Access-Control-Request-Headers: Zq7x'),
            req('OPTIONS', '/api/exec', 'Origin: http://Zq7x'), req('PUT', '/api/exec?' + evil), post('Expect: Zq7x', body=GOOD),
            post('Transfer-Encoding: Zq7x'), post('Content-Length: Zq7x'), post(body=b'{"Zq7x'),
            run('echo Zq7x; echo "Set-Cookie: a" >&2'), run('printf "\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\nZq7x: 1"')]
    with host.server() as s:
        for data in rows:
            with tried(wrong, data), Client(s, data) as c:
                r = c.read()
                check(b'zq7x' not in r.top.lower() and b'cookie' not in r.top.lower(), r.top)
    check(not wrong, *wrong)


# ---- who may ----

@test
def http_auth(host):
    """Few failures for each server, so that none is slowed for those before."""
    def b64(text):
        return base64.b64encode(text.encode('latin-1')).decode()
    good = ['Authorization: ' + BASIC, 'authorization: ' + BASIC, 'AUTHORIZATION:' + BASIC, 'Authorization: \t' + BASIC + ' \t',
            'Authorization: basic ' + BASIC[6:], 'Authorization: BASIC  ' + BASIC[6:], 'Authorization: Bearer ' + TOKEN, 'aUthorization: bEARER ' + TOKEN]
    bad = ['X-Nothing: here', 'Authorization:', 'Authorization: Basic', 'Authorization: Bearer', 'Authorization: Bearer ', 'Authorization: ' + BASIC[6:],
           'Authorization: Basic:' + BASIC[6:], 'Authorization: Basic, ' + BASIC[6:], 'Authorization: Digest ' + BASIC[6:], 'Authorization: Basic ' + TOKEN,
           'Authorization: Bearer ' + BASIC[6:], 'Authorization: Bearer ' + TOKEN[:-1], 'Authorization: Bearer ' + TOKEN + 'x', 'Authorization: Bearer ' + TOKEN * 2,
           'Authorization: Bearer ' + TOKEN.upper(), 'Authorization: Bearer ' + TOKEN * 300, 'Authorization: Basic ' + 'A' * 8000, 'Authorization: Bearer ' + 'x' * 8000,
           'Authorization: x' + 'y' * 8000, 'Proxy-Authorization: ' + BASIC, 'Authorization: Basic ' + BASIC[6:] * 2, 'Authorization: ' + BASIC + ' x',
           'Authorization: ' + BASIC + '====', *('Authorization: Basic ' + v for v in (
               b64('arena:omniaren'), b64('arena:omniarena2'), b64('arena:Omniarena'), b64('Arena:omniarena'), b64('arena'), b64('arena:'), b64(':omniarena'), b64(':'),
               b64('arena:omniarena\0'), b64('arena\0omniarena'), b64('\0'), b64('arena:omniarena\n'), b64('x' * 150), b64('x' * 250 + ':'), b64('é:ü'),
               '!!!!', '====', 'A', 'AA', 'AAA', 'A===', 'Y=Jh', '\xe9\xe9\xe9\xe9', 'arena:omniarena', BASIC[6:-1], '*' + BASIC[7:]))]
    with host.server() as s:
        for line in good:
            equal(ask(s, req(base=[HOST, line])).json['ok'], True, line)
    for k in range(0, len(bad), 9):
        with host.server() as s:
            for line in bad[k:k + 9]:
                with Client(s, req(base=[HOST, line])) as c:
                    r = is_refusal(c.read(), 401, line)
                    equal(r.headers['www-authenticate'], 'Basic realm="OmniArena"', line)
                    equal(c.ask(req(path='/healthz', base=[HOST, line])).body, b'ok\n', 'public, with', line)
    with host.server() as s:
        for method, path in (('POST', '/api/exec'), ('HEAD', '/api/health'), ('PUT', '/api/health'), ('GET', '/nothing'), ('DELETE', '/etc')):
            with Client(s, req(method, path, base=[HOST], body=GOOD if method == 'POST' else None)) as c:
                r = c.read(head=method == 'HEAD')
                equal((r.status, r.headers['www-authenticate']), (401, 'Basic realm="OmniArena"'), method, path)
        with Client(s, get(OWN, 'Authorization: Basic eDp5', base=[HOST]), source='127.0.2.9') as c:
            check(c.read().status in (400, 401), 'two different credentials')
        equal(s.health()['total_execs'], 0)


LOOPBACK = ('http://localhost', 'http://localhost:3000', 'https://localhost:8443', 'http://127.0.0.1:7575', 'http://127.0.0.1', 'http://127.1.2.3:1',
            'http://[::1]:7575', 'http://[::1]')
FOREIGN = ('http://evil.example', 'https://evil.example:7575', 'null', '', 'http://127.evil.example', 'http://127.0.0.1.evil.example', 'http://localhost.evil.example',
           'http://evil.example/localhost', 'http://localhostx', 'http://xlocalhost', 'http://evil.example:127.0.0.1', 'http://[::2]', 'http://[::1].evil.example',
           'http://[::1]evil.example', 'http://127.0.0.1:80@evil.example', 'http://localhost:80@evil.example', 'http://localhost@evil.example', 'ftp://localhost',
           'localhost', '//localhost', 'http://', 'http:///', 'http://localhost http://evil.example', 'http://128.0.0.1', 'http://10.0.0.1', 'chrome-extension://abc',
           'http://0.0.0.0', 'http://localhost:80 evil', 'http://1270.0.0.1')


@test
def http_origin_default(host):
    """While the published credentials hold, no other page or name may drive the server."""
    wrong, allowed = [], []
    with host.server() as s:
        equal(s.health()['default_credentials'], True)
        for origin in LOOPBACK:
            for data in (get('Origin: ' + origin), run('true', 'origin:' + origin), req('GET', '/nothing', 'Origin: ' + origin),
                         req('OPTIONS', '/api/exec', 'Origin: ' + origin, base=[HOST]), get('Origin: ' + origin, base=[HOST])):
                with Client(s, data) as c:
                    r = c.read()
                    equal((r.status == 403, r.headers.get('access-control-allow-origin')), (False, origin), data[:100])
                    check('origin' in r.headers.get('vary', '').lower(), r.top)
        check('access-control-allow-origin' not in ask(s, req()).headers, 'without Origin')
        for name in ('localhost', 'LocalHost:80', '127.0.0.1:%d' % s.port, '127.3.4.5', '[::1]', '[::1]:80'):
            ask(s, req(base=['Host: ' + name, OWN]))
        execs = s.health()['total_execs']
        for line in (*('Origin: ' + o for o in FOREIGN), *('Host: ' + h for h in (
                'evil.example', 'evil.example:80', '127.evil.example', '127.0.0.1.evil.example', 'localhost.evil.example', 'xlocalhost', 'localhosts', '[::2]',
                '128.0.0.1', '0.0.0.0', '1270.0.0.1', '127.0.0.1x', '127', 'localhost%2eevil.example'))):
            base = [line, OWN] if line.startswith('Host') else [HOST, OWN, line]
            bearer = [b.replace(BASIC, 'Bearer ' + TOKEN) for b in base]
            for data in (req(base=base), post(base=base, body=GOOD), req('OPTIONS', '/api/exec', base=base), req(base=bearer)):
                with tried(wrong, (line, data[:20])), Client(s, data) as c:
                    r = c.read()
                    if 'access-control-allow-origin' in r.headers:
                        allowed.append('%s, %s\n' % (line, data[:20]))
                    is_refusal(r, (403, 400), '', {403: 'origin', 400: 'bad_request'})
        with tried(allowed, '/healthz'):
            r = ask(s, req('GET', '/healthz', 'Origin: http://evil.example', base=['Host: evil.example']))
            check(r.body == b'ok\n' and 'access-control-allow-origin' not in r.headers, r.top)
        for authority in ('evil.example', 'evil.example:%d' % s.port, '127.evil.example'): # RFC 9112 section 3.2.2: Host does not count then
            with tried(wrong, 'absolute-form, ' + authority), Client(s, req(path='http://%s/api/health' % authority)) as c:
                is_refusal(c.read(), (403, 400), '', {403: 'origin', 400: 'bad_request'})
        with tried(wrong, 'commands that ran'):
            equal(s.health()['total_execs'], execs)
    check(not wrong and not allowed, len(wrong), 'let in:\n', *wrong, len(allowed), 'may read the refusal:\n', *allowed[:5])


@test
def http_origin_own(host):
    """With a token of one's own."""
    token = 'a-token-of-our-own-0123456789'
    other = ['Host: arena.example:8080', 'Authorization: Bearer ' + token]
    flags = ('--token-file', host.file(token + '\n'), '--listen', '0.0.0.0')
    with host.server(*flags, auth='Bearer ' + token) as s:
        equal(s.health()['default_credentials'], False)
        equal(ask(s, req(base=other)).status, 200)
        equal(ask(s, post(base=other, body=GOOD)).json['stdout'], 'in\n')
        equal(ask(s, get('Origin: https://page.example', base=other)).headers['access-control-allow-origin'], '*')
        for i, line in enumerate((OWN, 'Authorization: Bearer ' + TOKEN, 'Authorization: Bearer ' + token[:-1], 'Authorization: Bearer ' + token + '0')):
            is_refusal(ask(s, req(base=[HOST, line]), 401, source='127.0.3.%d' % (i + 1)), 401, line)
    with host.server(*flags, '--cors-origin', 'https://app.example', auth='Bearer ' + token) as s:
        for origin, allowed in (('https://app.example', True), ('https://app.example.evil', False), ('http://app.example', False), ('https://app.exampl', False)):
            for data in (get('Origin: ' + origin, base=other), req('OPTIONS', '/api/exec', 'Origin: ' + origin, base=other[:1])):
                with Client(s, data) as c:
                    equal(c.read().headers.get('access-control-allow-origin'), origin if allowed else None, data[:80])


@test
def http_origin_own_local(host):
    """The same on a loopback address, where the published password still holds for this host alone:
    who shows the own token is no page that knows only what is published."""
    token = 'a-token-of-our-own-0123456789'
    with host.server('--token-file', host.file(token)) as s:
        is_refusal(ask(s, req(base=['Host: evil.example', OWN]), 403), 403, 'published password under another name', 'origin')
        is_refusal(ask(s, req(base=[HOST, 'Authorization: Bearer ' + TOKEN]), 401), 401, 'the published token')
        ask(s, req(base=[HOST, 'Authorization: Bearer ' + token]))
        ask(s, req(base=['Host: arena.example', 'Authorization: Bearer ' + token]))


# ---- slow, deaf and many ----

@test
def http_slow_reader(host):
    """A large reply that is read in small pieces arrives whole, and others are served meanwhile."""
    with host.server('--output-limit', '4194304') as s:
        for fields in ({}, {'encoding': 'base64'}):
            with Client(s, run(PRINT_LARGE, **fields), rcvbuf=16384) as c, Client(s) as other:
                pieces = [c.sock.recv(1000)]
                m = re.search(rb'\r\nContent-Length: (\d+)\r\n.*?\r\n\r\n', pieces[0], re.S)
                want = m.end() + int(m.group(1))
                check(int(m.group(1)) > (1500000 if fields else 5000000), 'large', m.group(1))
                got = len(pieces[0])
                while got < want:
                    pieces.append(c.sock.recv(8000))
                    got += len(pieces[-1])
                    check(pieces[-1], 'closed with', want - got, 'bytes missing')
                    if len(pieces) % 40 == 0:
                        equal(other.ask(req()).json['ok'], True)
                        time.sleep(0.002)
                c.buf = b''.join(pieces)
                r = c.read().json
                got = base64.b64decode(r['stdout']).decode() if fields else r['stdout']
                check(got == TEXT * LARGE and r['stdout_lossy'] is False and not r['stdout_truncated'], 'the text differs', len(got))
                equal(c.ask(req(path='/healthz')).body, b'ok\n', 'the connection goes on')


@test
def http_deaf_clients(host):
    """Clients that never read block nobody; clients that go away leave nothing."""
    with host.server('--output-limit', '4194304', '--max-running', '8') as s:
        before = quiet(s)
        deaf = [Client(s, run(PRINT_LARGE) + req() * 50, rcvbuf=4096) for _ in range(6)]
        until(lambda: s.health()['total_execs'] == 6, 30, 'their commands ended')
        for i in range(5):
            equal(s.ok('echo %d' % i), '%d\n' % i)
        equal(s.health()['running'], 0)
        for c in deaf[:3]:
            c.sock.close()
        for i in range(8): # in the middle of a reply: orderly, or with a reset
            c = Client(s, run(PRINT_LARGE), rcvbuf=4096)
            check(c.sock.recv(1000), 'the reply has begun')
            if i % 2:
                c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            c.sock.close()
        for c in deaf[3:]:
            c.sock.close()
        large = run('wc -c', stdin='z' * 500000)
        for data in (b'G', b'GET /api/health HTTP/1.1\r\nHos', large[:300], large[:100000], post(CHUNKS) + b'fffff\r\nabc', run('sleep 3')):
            for _ in range(9): # more than there are buffers for large bodies
                Client(s, data).sock.close()
        until(lambda: connections(s) == 0, what='connections are closed')
        until(lambda: s.health()['running'] == 0, what='nothing runs')
        with Client(s, large) as c:
            equal(c.read().json['stdout'], '500000\n')
        until(lambda: quiet(s) == before, what='as many fds as before')


@test
def http_many_idle(host):
    with host.server() as s:
        before = quiet(s)
        idle = [Client(s) for _ in range(300)]
        for c in idle[::3]:
            equal(c.ask(req(path='/healthz')).body, b'ok\n')
        until(lambda: connections(s) >= 300, what='they are connected')
        equal((s.health()['ok'], s.ok('echo 1')), (True, '1\n'))
        for c in idle:
            equal(c.ask(req(path='/healthz')).body, b'ok\n', 'idle ones are still there')
            c.sock.close()
        until(lambda: quiet(s) == before, what='as many fds as before')


@test
def http_full(host):
    """When all places are taken the connection that has been idle longest makes room, whether it has
    been used (the first n) or not."""
    for n in (16, 0, 8):
        with host.server('--max-connections', '16') as s:
            places = []
            for i in range(16):
                places.append(Client(s))
                if i < n:
                    equal(places[i].ask(req(path='/healthz')).body, b'ok\n')
                until(lambda: connections(s) == i + 1)
                time.sleep(0.02)
            equal(places[0].ask(req(path='/healthz')).body, b'ok\n', 'now number 1 has been idle longest')
            with Client(s, req()) as c:
                equal(c.read().status, 200, 'the seventeenth')
                until(lambda: connections(s) == 16)
                alive = []
                for i in (0, *range(2, 16)):
                    with contextlib.suppress(OSError):
                        alive += [i] * places[i].send(req(path='/healthz')).sock.recv(9).startswith(b'HTTP/1.1')
                equal(alive, [0, *range(2, 16)], 'who stays, with', n, 'used')
                places[1].ended()


@test
def http_full_begun(host):
    """A connection that has begun a request is never closed for a new one, which gets nothing or 503."""
    data = post(body=GOOD)
    with host.server('--max-connections', '16') as s:
        places = [Client(s, data[:1 + i * len(data) // 16]) for i in range(16)]
        time.sleep(0.2)
        for _ in range(3):
            with Client(s) as c:
                try:
                    got = c.send(req(path='/healthz')).sock.recv(100)
                except OSError:
                    got = b''
                check(not got or got.startswith(b'HTTP/1.1 503 '), got)
        for i, c in enumerate(places):
            equal(c.ask(data[1 + i * len(data) // 16:]).json['stdout'], 'in\n', i)
        ask(s, req())


@test
def http_head_timeout(host):
    """A request must end its head within 10 s of its first byte, however busily it trickles; then 408,
    and the place is free again."""
    with host.server('--max-connections', '16') as s:
        stuck = [Client(s) for _ in range(16)]
        equal(stuck[0].ask(req(path='/healthz')).body, b'ok\n') # then a second request that does not end
        for i, c in enumerate(stuck):
            c.send((req()[:1], req()[:30], req()[:-2], b'POST /api/exec HTTP/1.1\r\nX: ')[i % 4])
        begun = time.monotonic()
        while not select.select([stuck[3].sock], [], [], 0.3)[0]:
            check(time.monotonic() - begun < 25, 'no 408 while it trickles')
            stuck[3].send(b'x')
        for i, c in enumerate(stuck):
            r = is_refusal(c.read(), 408, i)
            equal(r.headers.get('connection'), 'close')
            c.ended()
        for c in stuck:
            c.sock.close()
        until(lambda: connections(s) == 0, what='they are gone')
        equal(s.health()['total_execs'], 0)
