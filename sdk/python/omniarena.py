"""OmniArena from Python: run shell commands in the server's jail, as subprocess.run would run them here.

    from omniarena import Client
    print(Client().run('echo hello; ls /tmp', check=True).stdout)

One file, no dependencies, Python 3.9 and later. `Client` blocks, `AsyncClient` has the same methods for asyncio; both
speak HTTP themselves, follow no redirect, use no proxy, and believe no reply: sizes, types and times are bounded.
Times are seconds. What a method returns is the caller's own; nothing of it is kept.
"""
# Everything between the public methods and the sockets is written once, as generators that yield what is to be done
# on a connection ("read", "sleep 1 s") and get the outcome back; `_drive` of Client does it, that of AsyncClient awaits it.
from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import (Any, AsyncIterator, Callable, Dict, Generator, Generic, Iterator, List, Mapping, Optional, Sequence, Tuple, Type,
                    TypeVar, Union)
from urllib.parse import SplitResult, urlencode, urlsplit

__version__ = '1.0.4'
__all__ = ['Client', 'AsyncClient', 'Stream', 'AsyncStream', 'Result', 'Output', 'Event', 'Verdict', 'OmniArenaError', 'Unauthorized', 'Blocked',
           'RateLimited', 'BudgetExceeded', 'Timeout', 'CommandFailed', 'Busy', 'Unavailable', 'BadRequest']

MAX_REQUEST = 2 << 20  # bytes of a body: the server's own limit
MAX_REPLY = 64 << 20   # both streams in base64 at the largest output_limit, 16 MiB
MAX_HEAD = 64 << 10
MAX_EVENT = 8 << 20    # an event of a stream; the largest is `exit` with 1 MiB of files
MAX_TRIES = 10         # of one request
LONGEST = 302.0        # the most patient profile's limit, and the wait for a free jail
BEAT = 15.0            # between two signs of life of a stream
IDLE = 30.0            # a connection kept longer is not used again: the server closes them after 60
TOKENS = 1 << 53       # what the server counts up to

T = TypeVar('T')
Steps = Generator[Callable[[], Any], Any, T]
Args = Union[str, Sequence[str]]
Data = Union[str, bytes]


# ---- errors ----

class OmniArenaError(Exception):
    """Any failure. `code`: the server's word for it ('connection' or 'reply' where none was understood); `status`: of HTTP, or 0."""

    def __init__(self, message: str = '', code: str = '', status: int = 0) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class Unauthorized(OmniArenaError):
    """The credentials are wrong (401), or not for this (403 capability, origin)."""


class BadRequest(OmniArenaError):
    """The server can't accept the request as it is; nothing ran."""


class Blocked(OmniArenaError):
    """The policy refuses the command; nothing ran. `rule`, `program`, `reason`: what decided, each None where it does not
    apply. `allowed`: up to 32 programs of the whitelist, where that was it."""
    rule: Optional[str] = None
    program: Optional[str] = None
    reason: Optional[str] = None
    allowed: List[str] = []


class RateLimited(OmniArenaError):
    """Too many requests or agents, also after waiting `max_wait`; nothing ran. `retry_after`: seconds until it is worth another try."""
    retry_after: float = 1.0


class Busy(OmniArenaError):
    """Too many commands at once, or the server is shutting down; nothing ran. `retry_after`: seconds."""
    retry_after: float = 1.0


class BudgetExceeded(OmniArenaError):
    """The agent's token budget is spent; nothing runs until somebody raises it. Never tried again."""


class Unavailable(OmniArenaError):
    """No server, no jail (503 isolation), no audit log (503 audit), or a reply that makes no sense. `may_have_run`: the
    request had gone out, so what it asked for may have happened."""
    may_have_run: bool = False


class CommandFailed(OmniArenaError):
    """`check=True`, and the exit status is not 0. `result`: all of it."""

    def __init__(self, message: str = '', result: Optional[Result] = None) -> None:
        super().__init__(message, 'failed', 200)
        self.result: Any = result


class Timeout(OmniArenaError):
    """The command took longer than `timeout`, or than its profile allows, and was ended. `result`: with the output so far."""

    def __init__(self, message: str = '', result: Optional[Result] = None) -> None:
        super().__init__(message, 'timeout', 200)
        self.result: Any = result
        self.stdout: Any = result.stdout if result else None
        self.stderr: Any = result.stderr if result else None


class _Broken(Exception):
    """The other side closed ('connection'), or says what is no HTTP, JSON or OmniArena ('reply')."""

    def __init__(self, said: str, code: str = 'reply') -> None:
        super().__init__(said)
        self.code = code


def _refusal(reply: _Reply, o: Any) -> OmniArenaError:
    """The error that a reply which is not 200 stands for, whatever its body is."""
    o = o if isinstance(o, dict) else {}

    def text(name: str) -> Optional[str]:
        return o[name][:1000] if isinstance(o.get(name), str) else None
    status, code = reply.status, text('code') or ''
    kinds: Dict[int, Type[OmniArenaError]] = {401: Unauthorized, 403: Blocked, 429: RateLimited}
    kind = kinds.get(status, Unavailable if status < 400 or status >= 500 else BadRequest)
    if code in ('origin', 'capability'):
        kind = Unauthorized
    if code == 'budget':
        kind = BudgetExceeded
    if code == 'busy':
        kind = Busy
    said = text('error') or ('the server redirects, which is not followed' if 300 <= status < 400 else 'HTTP status %d' % status)
    e = kind('; '.join(x for x in (said, text('reason')) if x), code or 'reply', status)
    if isinstance(e, Blocked):
        allowed = o.get('allowed')
        e.rule, e.program, e.reason = text('rule'), text('program'), text('reason')
        e.allowed = [a for a in allowed if isinstance(a, str)] if isinstance(allowed, list) else []
    if isinstance(e, Unavailable):
        e.may_have_run = status != 503
    if isinstance(e, (RateLimited, Busy)):
        after = reply.headers.get('retry-after', '')
        e.retry_after = float(after) if re.fullmatch('[0-9]{1,9}', after) else 1.0
    return e


# ---- what comes back ----

@dataclass(frozen=True)
class Output:
    """A piece of output of a running command. `data` is str, or bytes with text=False; characters are never cut in two."""
    stream: str  # 'stdout' or 'stderr'
    data: Any


@dataclass(frozen=True)
class Event:
    """One of `events()`. `kind` 'audit': a row of the log, `id` its number; 'metrics': what health() says; 'lost': rows that are gone."""
    kind: str
    data: Dict[str, Any]
    id: Optional[int] = None


@dataclass(frozen=True)
class Verdict:
    """What the policy says of a command line; true where it may run."""
    allowed: bool
    code: str                  # 'ok', 'blacklist', 'whitelist' or 'syntax'
    rule: Optional[str]
    program: Optional[str]
    reason: Optional[str]
    commands: List[str]        # every program that the line would start

    def __bool__(self) -> bool:
        return self.allowed


@dataclass(frozen=True)
class Result:
    """How a command ended. Output is str, or bytes with text=False, and empty in what stream() ends with: there it came before."""
    args: Args
    returncode: int            # 128+N where signal N ended it, 124 where the time was up
    stdout: Any
    stderr: Any
    duration_ms: int
    signal: Optional[str]      # as 'SIGSEGV'
    timed_out: bool
    oom: bool                  # the memory limit ended it
    stdout_truncated: bool     # more came than the server keeps (1 MiB a stream by default)
    stderr_truncated: bool
    stdout_bytes: int          # all that came, kept or not
    stderr_bytes: int
    stdout_lossy: bool         # with text=True: bytes that are no UTF-8 became U+FFFD
    stderr_lossy: bool
    files: List[str]           # what it left below /tmp, by name
    files_truncated: bool
    contents: Dict[str, bytes] = field(repr=False)  # of the files asked for by get_files, 1 MiB in all
    contents_absent: List[str]                      # asked for, but not there or over that
    denied: List[Dict[str, Any]]                    # what the jail refused: a count and a hint each
    usage: Optional[Dict[str, int]]                 # cpu_ms, max_rss_kb, read_bytes, write_bytes
    would_block: Optional[str]                      # profile permissive: what another one would have said

    def check_returncode(self) -> None:
        """Raises CommandFailed where the exit status is not 0."""
        if self.returncode:
            raise CommandFailed('command %.200r ended with exit status %d%s' % (self.args, self.returncode, ' (%s)' % self.signal if self.signal else ''), self)


def _pick(o: Dict[str, Any], name: str, kind: Any, absent: Any = None) -> Any:
    """A field, which must have this very type, or be null where absent is None."""
    v = o.get(name, absent)
    if type(v) is not kind and not (v is None and absent is None):
        raise _Broken("'%s' in the reply is no %s" % (name, kind.__name__))
    return v


def _texts(o: Dict[str, Any], name: str, kind: type = str) -> List[Any]:
    if not all(type(x) is kind for x in _pick(o, name, list, [])):
        raise _Broken("'%s' in the reply has other things than %s" % (name, kind.__name__))
    return list(o.get(name, []))


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise _Broken('the reply has bad base64') from None


def _data(o: Dict[str, Any], name: str, text: bool) -> Data:
    s: str = _pick(o, name, str, '')
    return s if text else _bytes(s)


def _result(args: Args, o: Dict[str, Any], text: bool) -> Result:
    if type(o.get('exit_code')) is not int:
        raise _Broken('the reply has no exit status')
    usage = _pick(o, 'usage', dict)
    if usage and not all(type(v) is int for v in usage.values()):
        raise _Broken("'usage' in the reply has other things than int")
    flags = {k: _pick(o, k, bool, False) for k in ('timed_out', 'oom', 'stdout_truncated', 'stderr_truncated', 'stdout_lossy', 'stderr_lossy', 'files_truncated')}
    numbers = {k: _pick(o, k, int, 0) for k in ('duration_ms', 'stdout_bytes', 'stderr_bytes')}
    return Result(args=args, returncode=o['exit_code'], stdout=_data(o, 'stdout', text), stderr=_data(o, 'stderr', text), signal=_pick(o, 'signal', str),
                  files=_texts(o, 'files'), contents={k: _bytes(v) for k, v in _pick(o, 'contents', dict, {}).items()},
                  contents_absent=_texts(o, 'contents_absent'), denied=_texts(o, 'denied', dict), usage=usage, would_block=_pick(o, 'would_block', str),
                  **flags, **numbers)


# ---- connections ----

class _Hidden:
    """A secret, or bytes with one in them, which no repr and no traceback with local variables shows."""
    __slots__ = ('value',)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Wire:
    """One connection: what both kinds have in common. `until`: when its next step must have ended."""

    def __init__(self, host: str, port: int, tls: Optional[ssl.SSLContext]) -> None:
        self.host, self.port, self.tls = host, port, tls
        self.buf, self.until, self.since, self.pid = bytearray(), 0.0, 0.0, os.getpid()
        self.loop: Any = None

    def left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise socket.timeout('timed out')
        return left

    def is_fresh(self) -> bool:
        """Whether it can take one more request: nothing came since the last reply, as the end does; and it is no other process's or loop's."""
        return self.pid == os.getpid() and time.monotonic() - self.since < IDLE and not self.buf and not self.has_ended()

    def has_ended(self) -> bool:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def _readable(fd: int) -> bool:
    if not hasattr(select, 'poll'):
        return bool(select.select([fd], [], [], 0)[0])
    p = select.poll()
    p.register(fd, select.POLLIN)
    return bool(p.poll(0))


class _Socket(_Wire):
    sock: Optional[socket.socket] = None

    def connect(self) -> None:
        self.sock = socket.create_connection((self.host, self.port), self.left())
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            self.sock = self.tls.wrap_socket(self.sock, server_hostname=self.host)

    def write(self, request: _Hidden) -> None:
        assert self.sock
        self.sock.settimeout(self.left())
        self.sock.sendall(request.value)

    def read(self) -> bytes:
        assert self.sock
        self.sock.settimeout(self.left())
        return self.sock.recv(1 << 16)

    def has_ended(self) -> bool:
        return not self.sock or self.sock.fileno() < 0 or _readable(self.sock.fileno())

    def close(self) -> None:
        if self.sock and self.pid == os.getpid():  # after a fork it is still the parent's
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in it
        if self.sock:
            self.sock.close()


class _AsyncSocket(_Wire):
    writer: Optional[asyncio.StreamWriter] = None

    async def timed(self, step: Any, *args: Any, **options: Any) -> Any:
        left = self.left()
        try:
            return await asyncio.wait_for(step(*args, **options), left)
        except asyncio.TimeoutError:  # its own kind before Python 3.11
            raise socket.timeout('timed out') from None

    async def connect(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.reader, self.writer = await self.timed(asyncio.open_connection, self.host, self.port, ssl=self.tls)

    async def write(self, request: _Hidden) -> None:
        assert self.writer
        self.writer.write(request.value)
        await self.timed(self.writer.drain)

    async def read(self) -> bytes:
        return bytes(await self.timed(self.reader.read, 1 << 16))

    def has_ended(self) -> bool:
        return (not self.writer or self.loop is not asyncio.get_running_loop() or self.writer.is_closing() or self.reader.at_eof() or
                _readable(self.writer.get_extra_info('socket').fileno()))

    def close(self) -> None:
        if self.writer and not self.loop.is_closed():
            self.writer.transport.abort()


class _Reply:
    """A reply as it is read from its connection (RFC 9112), and the events in it, where it is a stream."""
    status = 0

    def __init__(self, wire: Any) -> None:
        self.wire, self.text = wire, bytearray()
        self.headers: Dict[str, str] = {}
        self.left: Optional[int] = 0  # bytes of the body, or of its chunk; None: up to the end
        self.chunked: bool = False
        self.begun: bool = False
        self.keeps: bool = False

    def fill(self) -> Steps[bool]:
        data = yield self.wire.read
        self.wire.buf += data
        self.begun = self.begun or bool(data)
        return bool(data)

    def line(self, most: int) -> Steps[bytes]:
        buf, at, most = self.wire.buf, 0, max(most, 0)
        while (end := buf.find(b'\n', at, most)) < 0:
            at = len(buf)
            if at >= most:
                raise _Broken('the head of the reply is too long')
            if not (yield from self.fill()):
                raise _Broken('the connection ended before the reply did', 'connection')
        text = bytes(buf[:end])
        del buf[:end + 1]
        return text[:-1] if text.endswith(b'\r') else text

    def head(self) -> Steps[None]:
        most, version = MAX_HEAD, b''
        while self.status < 200:  # what comes before is interim
            first = yield from self.line(most)
            m = re.fullmatch(rb'HTTP/1\.([01]) ([1-9][0-9][0-9])( .*)?', first)
            if not m:
                raise _Broken('what answers does not speak HTTP/1.1')
            version, self.status, self.headers = m[1], int(m[2]), {}
            while text := (yield from self.line(most)):
                most -= len(text) + 2
                name, _, value = text.decode('latin-1').partition(':')
                self.headers[name.lower()] = value.strip()
            most -= len(first) + 2
        length = self.headers.get('content-length')
        self.chunked = self.headers.get('transfer-encoding', '').lower() == 'chunked'
        if length is not None and not re.fullmatch('[0-9]{1,18}', length):
            raise _Broken('the length of the reply is no number')
        self.left = 0 if self.chunked or self.status in (204, 304) else None if length is None else int(length)
        self.keeps = version == b'1' and self.left is not None and 'close' not in self.headers.get('connection', '').lower()
        if (self.left or 0) > MAX_REPLY:
            raise _Broken('the reply is larger than %d MiB' % (MAX_REPLY >> 20))

    def more(self) -> Steps[bytes]:
        """The next bytes of the body; b'' at its end."""
        buf = self.wire.buf
        if self.chunked and not self.left:
            size = (yield from self.line(MAX_HEAD)).partition(b';')[0].strip()
            if not re.fullmatch(rb'[0-9A-Fa-f]{1,15}', size):
                raise _Broken('a chunk of the reply has no size')
            self.left, self.chunked = int(size, 16), int(size, 16) > 0
            while not self.left and (yield from self.line(MAX_HEAD)):
                pass  # fields behind the body; until timeout, at most
        if self.left == 0:
            return b''
        if not buf and not (yield from self.fill()):
            if self.left is None:
                return b''
            raise _Broken('the connection ended before the reply did', 'connection')
        piece = bytes(buf) if self.left is None else bytes(buf[:self.left])
        del buf[:len(piece)]
        if self.left is not None:
            self.left -= len(piece)
        if self.chunked and not self.left:
            yield from self.line(MAX_HEAD)
        return piece

    def whole(self) -> Steps[bytes]:
        body = bytearray()
        while piece := (yield from self.more()):
            body += piece
            if len(body) > MAX_REPLY:
                raise _Broken('the reply is larger than %d MiB' % (MAX_REPLY >> 20))
        return bytes(body)

    def event(self, patience: float) -> Steps[Optional[Tuple[str, Dict[str, Any], str]]]:
        """Kind, data and id of the next event; None at the end. patience: seconds without a byte."""
        kind, ident, size = 'message', '', 0
        data: List[bytes] = []
        while True:
            while (end := self.text.find(b'\n')) < 0:
                if size + len(self.text) > MAX_EVENT:
                    raise _Broken('an event is larger than %d MiB' % (MAX_EVENT >> 20))
                self.wire.until = time.monotonic() + patience
                piece = yield from self.more()
                if not piece:
                    return None
                self.text += piece
            text = bytes(self.text[:end]).rstrip(b'\r')
            del self.text[:end + 1]
            size += len(text) + 1
            name, _, value = text.partition(b':')
            value = value[1:] if value.startswith(b' ') else value
            if name == b'data':
                data.append(value)
            elif name == b'event':
                kind = value.decode('utf-8', 'replace')
            elif name == b'id':
                ident = value.decode('utf-8', 'replace')
            elif not text and data:
                return kind, _object(b'\n'.join(data)), ident
            elif not text:
                size = 0


def _object(data: bytes) -> Dict[str, Any]:
    try:
        o = json.loads(data.decode('utf-8'))
    except (ValueError, RecursionError):
        raise _Broken('the reply is no JSON') from None
    if not isinstance(o, dict):
        raise _Broken('the reply is no JSON object')
    return o


# ---- requests ----

def _body(args: Args, input: Optional[Data], timeout: Optional[float], text: bool, env: Optional[Mapping[str, str]], cwd: Optional[str],
          put_files: Optional[Mapping[str, Data]], get_files: Union[None, bool, Sequence[str]], allow: Optional[Sequence[str]]) -> Dict[str, Any]:
    """The fields of an exec; ValueError or TypeError for what can't be said in them."""
    o: Dict[str, Any] = {'cmd': args} if isinstance(args, str) else {'argv': [os.fspath(a) for a in args]}
    if isinstance(allow, str) or isinstance(get_files, str) or isinstance(args, (bytes, bytearray)):
        raise TypeError('args is a str or a list of str, allow and get_files are lists')
    if timeout is not None:
        if not timeout >= 0:
            raise ValueError('timeout must be at least 0')
        o['timeout_ms'] = max(1, math.ceil(min(timeout, 1e6) * 1000))
    if input is not None:
        try:
            o['stdin'] = input if isinstance(input, str) else bytes(input).decode('utf-8')
        except UnicodeDecodeError:
            raise ValueError('input must be UTF-8: lay other bytes into a file by put_files, and redirect from it') from None
    if not text:
        o['encoding'] = 'base64'
    if put_files is not None:
        o['put_files'] = {k: base64.b64encode(v.encode('utf-8') if isinstance(v, str) else v).decode() for k, v in put_files.items()}
    o.update({k: v for k, v in (('env', None if env is None else dict(env)), ('cwd', cwd), ('allow', None if allow is None else list(allow)),
                                ('get_files', list(get_files) if isinstance(get_files, (list, tuple, set)) else get_files)) if v is not None})
    return o


def _where(url: str) -> SplitResult:
    with suppress(ValueError):  # what urlsplit says may have a password in it
        at = urlsplit(url)
        if at.scheme in ('http', 'https') and at.hostname and '@' not in at.netloc and not at.query + at.fragment and at.port != 0 and re.fullmatch('[!-~]+', url):
            return at
    raise ValueError('the URL must be http:// or https:// and a host, without credentials in it')


def _is_counted(path: str, e: OmniArenaError) -> bool:
    """Whether a refused request's tokens were counted all the same. Of exec they are when the global rate has let it in, of
    others before that; the two rates have one code, and are told apart by the setting's name in the sentence."""
    if e.code in ('unauthorized', 'origin', 'capability', 'agents') or 'log-ins' in str(e):
        return False
    return not (path == '/api/exec' and e.code == 'rate' and 'max_rate_per_agent' not in str(e))


class _Core:
    """What Client and AsyncClient share: all but waiting."""
    _wire: Any

    def __init__(self, url: Optional[str] = None, user: Optional[str] = None, password: Optional[str] = None, token: Optional[str] = None,
                 agent: Optional[str] = None, model: Optional[str] = None, timeout: Optional[float] = None, *, max_wait: float = 30.0) -> None:
        """url: else OMNIARENA_URL, else http://127.0.0.1:7575. token, or user and password: else OMNIARENA_TOKEN, else
        OMNIARENA_USER and OMNIARENA_PASSWORD, else the published ones, which the server takes from its own host alone.
        agent, model: as whom requests are counted (1 to 63 of A-Za-z0-9._-; at most 64 bytes). timeout: seconds that
        connecting may take, and an answer beyond the command's own time; 30 unless given. max_wait: seconds that a request
        which was refused for its rate, or for want of a free place, is tried again for, as the server's Retry-After says."""
        env = os.environ.get
        at = _where(url or env('OMNIARENA_URL') or 'http://127.0.0.1:7575')
        if not (token or user or password):
            token, user, password = env('OMNIARENA_TOKEN'), env('OMNIARENA_USER'), env('OMNIARENA_PASSWORD')
        elif not token:
            user, password = user or env('OMNIARENA_USER'), password or env('OMNIARENA_PASSWORD')
        if token and not re.fullmatch('[!-~]+', token):
            raise ValueError('a token has printable ASCII characters only')
        if agent is not None and not re.fullmatch('[A-Za-z0-9._-]{1,63}', agent):
            raise ValueError('the name of an agent has 1 to 63 of A-Z a-z 0-9 . _ -')
        both = '%s:%s' % (user or 'arena', password or 'omniarena')
        self._auth = _Hidden('Bearer ' + token if token else 'Basic ' + base64.b64encode(both.encode('utf-8')).decode())
        self._at, self._path, self.agent = at, at.path.rstrip('/'), agent
        self._tls = ssl.create_default_context() if at.scheme == 'https' else None
        self.timeout, self.max_wait = 30.0 if timeout is None else float(timeout), float(max_wait)
        self._kept: List[Any] = []
        self._lock, self._tokens = threading.Lock(), [0, 0]
        self._model: Optional[str] = None
        if model is not None:
            self.report_usage(0, 0, model)

    def __repr__(self) -> str:
        return '%s(%r, agent=%r)' % (type(self).__name__, '%s://%s%s' % (self._at.scheme, self._at.netloc, self._path), self.agent)

    def report_usage(self, tokens_in: int, tokens_out: int, model: Optional[str] = None) -> None:
        """Adds what the agent spent on its model since the last report. It goes out with the next request, and is counted
        once, also when that request is refused and tried again; if the connection breaks in the middle, at most once.
        model: from now on, at most 64 bytes. Sends nothing itself, so it is no coroutine in AsyncClient either."""
        if not all(type(n) is int and 0 <= n <= TOKENS for n in (tokens_in, tokens_out)):
            raise ValueError('tokens are whole numbers, at least 0')
        if model is not None and (not model.isprintable() or len(model.encode('utf-8')) > 64):
            raise ValueError('the name of a model has at most 64 bytes of printable characters')
        with self._lock:
            self._model = self._model if model is None else model
            self._tokens = [min(TOKENS, a + b) for a, b in zip(self._tokens, (tokens_in, tokens_out))]

    def _take_usage(self) -> List[int]:
        with self._lock:
            tokens, self._tokens = self._tokens, [0, 0]
        return tokens

    def _request(self, method: str, path: str, body: Optional[bytes], tokens: List[int], accept: str, last: Optional[int]) -> _Hidden:
        h = {'Host': self._at.netloc, 'User-Agent': 'omniarena-python/' + __version__, 'Accept': accept, 'Authorization': self._auth.value}
        if self.agent:
            h['X-Agent'] = self.agent
        if self._model:
            h['X-Model'] = self._model
        if any(tokens):
            h['X-Tokens-In'], h['X-Tokens-Out'] = map(str, tokens)
        if last is not None:
            h['Last-Event-ID'] = str(last)
        if body is not None:
            h['Content-Type'], h['Content-Length'] = 'application/json', str(len(body))
        head = '%s %s%s HTTP/1.1\r\n%s\r\n' % (method, self._path, path, ''.join('%s: %s\r\n' % i for i in h.items()))
        return _Hidden(head.encode('utf-8') + (body or b''))

    def _connection(self) -> Tuple[Any, bool]:
        """A connection, and whether it was kept from an earlier request. It is the caller's alone until it is kept again."""
        while True:
            try:
                wire = self._kept.pop()  # in one step, whatever other threads do
            except IndexError:
                return self._wire(self._at.hostname, self._at.port or (443 if self._tls else 80), self._tls), False
            if wire.is_fresh():
                return wire, True
            wire.close()

    def _send(self, patience: float, method: str, path: str, body: Optional[bytes], tokens: List[int], *rest: Any) -> Steps[_Reply]:
        """Sends a request, and reads the head of its reply. On an error the connection is closed."""
        while True:
            wire, kept = self._connection()
            reply, sent = _Reply(wire), kept
            try:
                if not kept:
                    wire.until = time.monotonic() + self.timeout
                    yield wire.connect
                wire.until, sent = time.monotonic() + patience, True
                request = self._request(method, path, body, tokens, *rest)
                with suppress(ConnectionError):  # a refusal may be there before the whole body is
                    yield lambda: wire.write(request)
                yield from reply.head()
                return reply
            except (OSError, ValueError, _Broken) as e:
                wire.close()
                if not sent:
                    self._add_usage(tokens)
                elif kept and method == 'GET' and not reply.begun and not isinstance(e, socket.timeout):
                    tokens = [0, 0]  # they may have been counted
                    continue
                raise self._gone(e, sent) from e
            except BaseException:  # the caller is not there any more: cancelled, or Ctrl-C. To close is what ends the command
                wire.close()
                raise

    def _add_usage(self, tokens: List[int]) -> None:
        self.report_usage(tokens[0], tokens[1])

    def _gone(self, e: Exception, sent: bool) -> Unavailable:
        said = str(e) if isinstance(e, _Broken) else 'no answer in time' if isinstance(e, socket.timeout) else e.__class__.__name__
        gone = Unavailable('%s: %s' % (self._at.netloc, said), e.code if isinstance(e, _Broken) else 'connection')
        gone.may_have_run = sent
        return gone

    def _guarded(self, wire: Any, steps: Steps[T]) -> Steps[T]:
        """Steps on a connection that is closed if they fail."""
        try:
            return (yield from steps)
        except (OSError, _Broken) as e:
            wire.close()
            raise self._gone(e, True) from e
        except BaseException:
            wire.close()
            raise

    def _read(self, reply: _Reply) -> Steps[Dict[str, Any]]:
        data = yield from reply.whole()
        if reply.keeps and len(self._kept) < 64:
            reply.wire.since = time.monotonic()
            self._kept.append(reply.wire)
        else:
            reply.wire.close()
        try:
            return _object(data)
        except _Broken:
            if reply.status == 200:
                raise
            return {}

    def _call(self, method: str, path: str, fields: Optional[Dict[str, Any]] = None, patience: float = 0.0, stream: bool = False,
              last: Optional[int] = None) -> Steps[Any]:
        """The object that is answered, or with stream the reply, of which more is to be read. A 429 is tried again, as
        nothing was done; what broke is not, as it may have been."""
        try:
            body = None if fields is None else json.dumps(fields, ensure_ascii=False).encode('utf-8')
        except (UnicodeEncodeError, TypeError) as e:
            raise BadRequest('the request is no text that JSON could hold: %s' % e.__class__.__name__, 'bad_request') from None
        if body and len(body) > MAX_REQUEST:
            raise BadRequest('the request is larger than 2 MiB', 'too_large')
        began, tries = time.monotonic(), 0
        while True:
            tokens, tries = self._take_usage(), tries + 1
            reply = yield from self._send(patience + self.timeout, method, path, body, tokens, 'text/event-stream' if stream else 'application/json', last)
            if stream and reply.status == 200 and reply.headers.get('content-type', '').startswith('text/event-stream'):
                return reply
            o = yield from self._guarded(reply.wire, self._read(reply))
            if reply.status == 200 and not stream:
                return o
            e = _refusal(reply, o)
            if any(tokens) and not _is_counted(path, e):
                self._add_usage(tokens)
            wait = getattr(e, 'retry_after', 0.0)
            if (reply.status != 429 or e.code not in ('rate', 'agents', 'busy') or tries == MAX_TRIES or
                    time.monotonic() + wait > began + self.max_wait):
                raise e
            yield lambda: self._sleep(wait)

    def _sleep(self, seconds: float) -> Any:
        raise NotImplementedError

    def _run(self, args: Args, check: bool, *options: Any) -> Steps[Result]:
        fields = _body(args, *options)
        o = yield from self._call('POST', '/api/exec', fields, min(LONGEST, fields.get('timeout_ms', 1e9) / 1000 + 2))
        try:
            result = _result(args, o, 'encoding' not in fields)
        except _Broken as e:
            raise self._gone(e, True) from e
        if result.timed_out:
            raise Timeout('command %.200r timed out after %d ms' % (args, result.duration_ms), result)
        if check:
            result.check_returncode()
        return result

    def _check(self, cmd: str, profile: Union[None, int, str]) -> Steps[Verdict]:
        o = yield from self._call('POST', '/api/policy/test', {'cmd': cmd} if profile is None else {'cmd': cmd, 'profile': profile})
        try:
            return Verdict(_pick(o, 'allowed', bool, 0), *[_pick(o, k, str) for k in ('code', 'rule', 'program', 'reason')], commands=_texts(o, 'commands'))
        except _Broken as e:
            raise self._gone(e, True) from e

    def _rows(self, path: str, name: str) -> Steps[List[Dict[str, Any]]]:
        o = yield from self._call('GET', path)
        try:
            return _texts(o, name, dict)
        except _Broken as e:
            raise self._gone(e, True) from e

    def _audit(self, **query: Any) -> Steps[List[Dict[str, Any]]]:
        return self._rows('/api/audit?' + urlencode({k: v for k, v in query.items() if v is not None}), 'events')

    def _rule(self, action: str, which: str, pattern: str) -> Steps[Dict[str, Any]]:
        return self._call('POST', '/api/policy', {'action': action, 'list': which, 'pattern': pattern})

    def _budget(self, max_tokens: int, agent: Optional[str]) -> Steps[Dict[str, Any]]:
        return self._call('POST', '/api/budget', {'default': max_tokens} if agent is None else {'agent': agent, 'max_tokens': max_tokens})


# ---- streams ----

class _Live(Generic[T]):
    """Events that still come."""
    reply: Optional[_Reply] = None
    ended = False

    def next(self) -> Steps[Optional[T]]:
        raise NotImplementedError

    def close(self) -> None:
        self.ended = True
        if self.reply:
            self.reply.wire.close()


class _LiveRun(_Live[Union[Output, Result]]):
    def __init__(self, core: _Core, args: Args, options: Tuple[Any, ...]) -> None:
        self.core, self.args, self.fields = core, args, _body(args, *options)

    def open(self) -> Steps[None]:
        if not self.reply:
            self.reply = yield from self.core._call('POST', '/api/exec', self.fields, BEAT, stream=True)

    def next(self) -> Steps[Union[None, Output, Result]]:
        if self.ended:
            return None
        yield from self.open()
        assert self.reply
        return (yield from self.core._guarded(self.reply.wire, self.step(self.reply)))

    def step(self, reply: _Reply) -> Steps[Union[None, Output, Result]]:
        text = 'encoding' not in self.fields
        while not self.ended:
            got = yield from reply.event(BEAT + self.core.timeout)
            if got is None:
                raise _Broken('the connection ended before the command did', 'connection')
            kind, o, _ = got
            if kind in ('stdout', 'stderr'):
                return Output(kind, _data(o, 'data', text))
            if kind == 'exit':
                result = _result(self.args, o, text)
                self.close()
                return result
            if kind == 'error':
                raise _Broken(_pick(o, 'error', str, 'the jail died')[:1000], _pick(o, 'code', str, 'internal'))
        return None


class _LiveEvents(_Live[Event]):
    def __init__(self, core: _Core, after: Optional[int]) -> None:
        self.core, self.last, self.pause, self.lost = core, after, 0.1, 0.0

    def open(self) -> Steps[None]:
        if self.last is None:  # from now on; without a number, what happens before a reconnect would be missed
            rows = yield from self.core._audit(limit=1)
            self.last = max([r['seq'] for r in rows if type(r.get('seq')) is int], default=0)
        if not self.reply:
            self.reply = yield from self.core._call('GET', '/api/events', None, BEAT, stream=True, last=self.last)
            self.lost = 0.0

    def next(self) -> Steps[Optional[Event]]:
        while not self.ended:
            try:
                yield from self.open()
                assert self.reply
                got = yield from self.core._guarded(self.reply.wire, self.reply.event(BEAT + self.core.timeout))
                if got:
                    self.pause = 0.1
                    kind, o, ident = got
                    if re.fullmatch('[0-9]{1,18}', ident):
                        self.last = int(ident)
                    return Event(kind, o, int(ident) if kind == 'audit' and ident.isdigit() else None)
                self.reply.wire.close()
            except (Unavailable, Busy) as e:
                if self.ended:
                    break
                if e.code == 'reply' or (not self.reply and not self.lost):
                    raise
                if self.lost and time.monotonic() - self.lost + self.pause > self.core.max_wait:
                    raise
            self.reply, self.lost = None, self.lost or time.monotonic()
            yield lambda: self.core._sleep(self.pause)
            self.pause = min(2.0, 2 * self.pause)
        return None


class Stream(Generic[T]):
    """An iterator whose end, close(), or `with` block's end closes the connection, and so ends the command. One thread may
    close it while another waits for its next event."""

    def __init__(self, client: Client, live: Any) -> None:
        self._client, self._live = client, live
        client._drive(live.open())

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            event = self._client._drive(self._live.next())
        except Unavailable:
            if not self._live.ended:
                raise
            event = None  # it was closed meanwhile
        if event is None:
            raise StopIteration
        return event  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends it; a command that still runs is killed."""
        self._live.close()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncStream(Generic[T]):
    """An async iterator, as Stream. It begins with `async with`, or with its first event; aclose() ends it, and the command."""

    def __init__(self, client: AsyncClient, live: Any) -> None:
        self._client, self._live = client, live

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            event = await self._client._drive(self._live.next())
        except Unavailable:
            if not self._live.ended:
                raise
            event = None
        if event is None:
            raise StopAsyncIteration
        return event  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """Ends it; a command that still runs is killed."""
        self._live.close()

    async def __aenter__(self) -> AsyncStream[T]:
        await self._client._drive(self._live.open())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._live.close()

    def __del__(self) -> None:
        with suppress(RuntimeError):  # its loop may have ended
            self._live.close()


# ---- the two clients ----

class Client(_Core):
    """A server, and as whom it is asked. Threads may share one: each has a connection of its own while it waits. Every method
    may raise Unauthorized, RateLimited, Busy, BadRequest and Unavailable; ValueError and TypeError say that nothing was sent."""
    _wire = _Socket

    def _drive(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    got = step()
                except BaseException as e:
                    step = steps.throw(e)
                else:
                    step = steps.send(got)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        """Closes the connections that are kept. The client can be used again."""
        while self._kept:
            with suppress(IndexError):
                self._kept.pop().close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, '_kept'):  # else the arguments were wrong
            self.close()

    def run(self, args: Args, *, input: Optional[Data] = None, timeout: Optional[float] = None, check: bool = False, text: bool = True,
            env: Optional[Mapping[str, str]] = None, cwd: Optional[str] = None, put_files: Optional[Mapping[str, Data]] = None,
            get_files: Union[None, bool, Sequence[str]] = None, allow: Optional[Sequence[str]] = None) -> Result:
        """Runs a command in the jail, and waits for its end. args: a str for /bin/sh -c (at most 64 KiB), or a list of str
        without a shell. input: its stdin, UTF-8. timeout: seconds, at most the profile's (5 in strict). text=False: output
        as exact bytes. env: added to the jail's. cwd: a folder of the jail. put_files: names below /tmp and what is to be in
        them before the start; get_files: names, or True for all, whose bytes come back in `contents`, 1 MiB in all. allow:
        the only programs that may run this time. The request is at most 2 MiB. Raises Blocked, BudgetExceeded, Timeout, and
        with check=True CommandFailed where the exit status is not 0."""
        return self._drive(self._run(args, check, input, timeout, text, env, cwd, put_files, get_files, allow))

    def stream(self, args: Args, *, input: Optional[Data] = None, timeout: Optional[float] = None, text: bool = True,
               env: Optional[Mapping[str, str]] = None, cwd: Optional[str] = None, put_files: Optional[Mapping[str, Data]] = None,
               get_files: Union[None, bool, Sequence[str]] = None, allow: Optional[Sequence[str]] = None) -> Stream[Union[Output, Result]]:
        """As run(), but its output comes while it runs: an Output for each piece, last the Result (with `timed_out` set where
        the time was up). The command has started when this returns; the caller closes the stream, or reads it to its end."""
        return Stream(self, _LiveRun(self, args, (input, timeout, text, env, cwd, put_files, get_files, allow)))

    def check(self, cmd: str, profile: Union[None, int, str] = None) -> Verdict:
        """What the policy says of a command line. Runs nothing and counts nothing. profile: 0 to 2 or its name, else the one in force."""
        return self._drive(self._check(cmd, profile))

    def health(self) -> Dict[str, Any]:
        """What the server is, and what its jail is made of: `isolation`, `layers`, `limits`, `profile`, counters."""
        return self._drive(self._call('GET', '/api/health'))

    def agents(self) -> List[Dict[str, Any]]:
        """The known agents and their counters. With an agent's own token: itself."""
        return self._drive(self._rows('/api/agents', 'agents'))

    def audit(self, agent: Optional[str] = None, limit: Optional[int] = None, after: Optional[int] = None) -> List[Dict[str, Any]]:
        """The newest rows of the audit log that are in memory (64), oldest first. after: only those whose `seq` is larger."""
        return self._drive(self._audit(agent=agent, limit=limit, after=after))

    def events(self, after: Optional[int] = None) -> Stream[Event]:
        """What happens, from now on, or after the row with this `seq`. It does not end by itself: a connection that broke is made
        again, and goes on where it stopped, until the server could not be reached for max_wait seconds (Unavailable)."""
        return Stream(self, _LiveEvents(self, after))

    def policy(self) -> Dict[str, Any]:
        """`blacklist`, `whitelist`, `profile` (its number), and how well the jail keeps them."""
        return self._drive(self._call('GET', '/api/policy'))

    def add_rule(self, which: str, pattern: str) -> Dict[str, Any]:
        """Adds to 'blacklist' or 'whitelist'; in force at once, and the new policy is returned. `persisted` false: it will not survive a restart."""
        return self._drive(self._rule('add', which, pattern))

    def remove_rule(self, which: str, pattern: str) -> Dict[str, Any]:
        """Takes a rule off its list, as add_rule(). BadRequest if it is not there."""
        return self._drive(self._rule('remove', which, pattern))

    def set_profile(self, profile: Union[int, str]) -> Dict[str, Any]:
        """The profile for everybody: 0 strict, 1 moderate, 2 permissive. Returns its limits."""
        return self._drive(self._call('POST', '/api/profile', {'profile': profile}))

    def set_budget(self, max_tokens: int, agent: Optional[str] = None) -> Dict[str, Any]:
        """Tokens that an agent may spend, 0 for no limit. Without agent: what holds for those that have no budget of their own."""
        return self._drive(self._budget(max_tokens, agent))


class AsyncClient(_Core):
    """Client for asyncio. Tasks may share one; a task that is cancelled ends its command. Its methods do what Client's do."""
    _wire = _AsyncSocket

    async def _drive(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    got = await step()
                except BaseException as e:
                    step = steps.throw(e)
                else:
                    step = steps.send(got)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aclose(self) -> None:
        """Closes the connections that are kept. The client can be used again, in another loop as well."""
        while self._kept:
            self._kept.pop().close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def run(self, args: Args, *, input: Optional[Data] = None, timeout: Optional[float] = None, check: bool = False, text: bool = True,
                  env: Optional[Mapping[str, str]] = None, cwd: Optional[str] = None, put_files: Optional[Mapping[str, Data]] = None,
                  get_files: Union[None, bool, Sequence[str]] = None, allow: Optional[Sequence[str]] = None) -> Result:
        return await self._drive(self._run(args, check, input, timeout, text, env, cwd, put_files, get_files, allow))

    def stream(self, args: Args, *, input: Optional[Data] = None, timeout: Optional[float] = None, text: bool = True,
               env: Optional[Mapping[str, str]] = None, cwd: Optional[str] = None, put_files: Optional[Mapping[str, Data]] = None,
               get_files: Union[None, bool, Sequence[str]] = None, allow: Optional[Sequence[str]] = None) -> AsyncStream[Union[Output, Result]]:
        return AsyncStream(self, _LiveRun(self, args, (input, timeout, text, env, cwd, put_files, get_files, allow)))

    async def check(self, cmd: str, profile: Union[None, int, str] = None) -> Verdict:
        return await self._drive(self._check(cmd, profile))

    async def health(self) -> Dict[str, Any]:
        return await self._drive(self._call('GET', '/api/health'))

    async def agents(self) -> List[Dict[str, Any]]:
        return await self._drive(self._rows('/api/agents', 'agents'))

    async def audit(self, agent: Optional[str] = None, limit: Optional[int] = None, after: Optional[int] = None) -> List[Dict[str, Any]]:
        return await self._drive(self._audit(agent=agent, limit=limit, after=after))

    def events(self, after: Optional[int] = None) -> AsyncStream[Event]:
        return AsyncStream(self, _LiveEvents(self, after))

    async def policy(self) -> Dict[str, Any]:
        return await self._drive(self._call('GET', '/api/policy'))

    async def add_rule(self, which: str, pattern: str) -> Dict[str, Any]:
        return await self._drive(self._rule('add', which, pattern))

    async def remove_rule(self, which: str, pattern: str) -> Dict[str, Any]:
        return await self._drive(self._rule('remove', which, pattern))

    async def set_profile(self, profile: Union[int, str]) -> Dict[str, Any]:
        return await self._drive(self._call('POST', '/api/profile', {'profile': profile}))

    async def set_budget(self, max_tokens: int, agent: Optional[str] = None) -> Dict[str, Any]:
        return await self._drive(self._budget(max_tokens, agent))


for _name in ('run', 'stream', 'check', 'health', 'agents', 'audit', 'events', 'policy', 'add_rule', 'remove_rule', 'set_profile', 'set_budget'):
    getattr(AsyncClient, _name).__doc__ = getattr(Client, _name).__doc__
