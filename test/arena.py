"""The harness: starts the real binary, talks to it over real sockets, counts what is left behind.

A test is a function marked @test; it gets a Host, which says as whom the server runs. It fails by
an exception, is skipped by Skip(reason), and a skip is never a pass.
"""
import base64, contextlib, fnmatch, http.client, json, os, pwd, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time, traceback

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BASIC = 'Basic ' + base64.b64encode(b'arena:omniarena').decode()
TESTS = []
# Most tests are about the jail, not about the policy: these programs may run in them, even in strict.
PROGRAMS = '''ls cat echo pwd head tail wc grep find sort uniq date whoami python3 sh bash env id sleep dd true false test rm mkdir
    touch chmod cp mv ln mkfifo seq yes tr cut sed awk od cmp kill nice nohup setsid timeout xargs tee base64 perl uname hostname
    df stat readlink dirname basename mknod truncate split sync stty tty ps nproc getconf printf expr mktemp no-such-program'''
UNIQUE = '%07d' % os.getpid()  # stands for '@' in commands, so that two runs at once do not see each other's


class Skip(Exception):
    pass


def test(fn):
    TESTS.append(fn)
    return fn


def check(cond, *what):
    if not cond:
        raise AssertionError(' '.join(str(w) for w in what))


def equal(got, want, *what):
    if got != want:
        raise AssertionError('%s: got %.600r, want %.600r' % (' '.join(str(w) for w in what), got, want))


def until(fn, seconds=10, what='condition'):
    """Waits for fn() to be true; how long that takes is not judged beyond 'not forever'."""
    end = time.monotonic() + seconds
    while not fn():
        check(time.monotonic() < end, 'never came true:', what)
        time.sleep(0.02)


class Host:
    """As whom servers run: 'root', 'user' for an unprivileged account, or 'sanitized': root, with the
    build that checks every address and every integer."""

    def __init__(self, name, work):
        self.name, self.work = name, work
        self.root = name != 'user'
        self.sanitized = name == 'sanitized'
        self.account = pwd.getpwnam('nobody') if os.geteuid() == 0 and not self.root else None
        self.ids = dict(user=self.account.pw_uid, group=self.account.pw_gid, extra_groups=[]) if self.account else {}

    def server(self, *flags, **kw):
        return Server(self, flags, **kw)

    def folder(self):
        """A new folder that the server's user owns."""
        path = tempfile.mkdtemp(dir=self.work)
        os.chmod(path, 0o700)
        if self.account:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)
        return path

    def policy(self):
        """The policy file that a server has unless its test brings one; servers write to it."""
        return self.file('[blacklist]\n[whitelist]\n%s\n' % '\n'.join(PROGRAMS.split()))

    def file(self, text, mode=0o600):
        path = os.path.join(self.folder(), 'file')
        with open(path, 'w') as f:
            f.write(text)
        os.chmod(path, mode)
        if self.account:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)
        return path


class Server:
    def __init__(self, host, flags=(), binary='omniarena', env=None, auth=BASIC, wrap=(), ready=True, port=0, config=True):
        # config: the wide policy of most tests, False: an empty one, which is the defaults;
        # None: the default place, which must not be the host's own
        self.auth, self.log_lines = auth, []
        if host.sanitized:
            if binary != 'omniarena' or wrap:
                raise Skip('a build of its own')
            # leaks: everything is taken once and kept to the end
            binary, env = 'omniarena-sanitized', {'ASAN_OPTIONS': 'detect_leaks=0', **(env or {})}
        # nothing is limited unless a test asks for it; what is kept, is kept in folders of its own
        self.folder = host.folder()
        self.audit_log, self.state_dir = os.path.join(self.folder, 'audit.log'), os.path.join(self.folder, 'state')
        limits = {'OMNIARENA_MAX_RPS': '0', 'OMNIARENA_MAX_RATE_PER_AGENT': '0'}
        if config is not None:
            limits.update(OMNIARENA_AUDIT_LOG=self.audit_log, OMNIARENA_STATE_DIR=self.state_dir)
        env = {**limits, **(env or {})}
        self.proc = subprocess.Popen(
            [*wrap, os.path.join(host.work, binary), '--port', str(port), *([] if '--config' in flags or config is None else ['--config', host.policy() if config else host.file('')]), *flags], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd='/', env={'PATH': os.environ['PATH'], **(env or {})}, **host.ids)
        self.pid = self.proc.pid
        self.port = None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if ready:
            until(lambda: self.port or self.proc.poll() is not None, what='server is listening')
            check(self.port, 'server did not start:', self.log())

    def _read(self):
        for line in self.proc.stderr:
            self.log_lines.append(line.decode('utf-8', 'replace').rstrip('\n'))
            m = re.search(r'listening on http://\S+:(\d+), isolation', self.log_lines[-1])
            if m:
                self.port = int(m.group(1))

    def log(self):
        return '\n'.join(self.log_lines)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(15)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
        self.reader.join(5)
        check('Sanitizer' not in self.log() and 'runtime error' not in self.log(), self.log())
        return self.proc.returncode

    def wait(self, seconds=15):
        """Exit status of a server that is to end by itself."""
        status = self.proc.wait(seconds)
        self.reader.join(5)
        return status

    def connect(self, timeout=30):
        s = socket.create_connection(('127.0.0.1', self.port), timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def request(self, method, path, body=None, headers=None, auth=True, timeout=30, conn=None):
        """(status, headers, body bytes)"""
        c = conn or http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        h = dict(headers or {})
        if auth and 'Authorization' not in h:
            h['Authorization'] = self.auth
        c.request(method, path, body, h)
        r = c.getresponse()
        data = r.read()
        if not conn:
            c.close()
        return r.status, r.headers, data

    def json(self, method, path, body=None, status=200, **kw):
        got, headers, data = self.request(method, path, body, **kw)
        equal(got, status, method, path, data[:300])
        equal(headers['Content-Type'], 'application/json')
        check(data.endswith(b'\n'), 'no newline at the end')
        return json.loads(data.decode('utf-8'))

    def post(self, fields, status=200, **kw):
        """POST /api/exec with these fields"""
        return self.json('POST', '/api/exec', json.dumps(fields), status=status, **kw)

    def run(self, cmd, **fields):
        kw = {k: fields.pop(k) for k in ('conn', 'timeout') if k in fields}
        return self.post({'cmd': cmd.replace('@', UNIQUE), **fields}, **kw)

    def ok(self, cmd, **fields):
        """stdout of a command that must succeed"""
        r = self.run(cmd, **fields)
        check(r['ok'] and r['exit_code'] == 0, cmd, r)
        return r['stdout']

    def health(self, **kw):
        return self.json('GET', '/api/health', **kw)

    def warden(self):
        pids = children(self.pid)
        equal(len(pids), 1, 'children of arena')
        return pids[0]

    def settled(self):
        """All warm cells are there and nothing runs."""
        def full():
            h = self.health()
            return h['running'] == 0 and h['warm_cells'] >= 4 and len(tree(self.pid)) == 2 + 2 * h['warm_cells']
        until(full, what='warm cells are ready, spent ones gone')


# ---- what the host shows ----

def children(pid):
    out = []
    for p in pids():
        try:
            with open('/proc/%d/stat' % p) as f:
                if int(f.read().rsplit(')', 1)[1].split()[1]) == pid:
                    out.append(p)
        except (OSError, IndexError):
            pass
    return out


def pids():
    return [int(p) for p in os.listdir('/proc') if p.isdigit()]


def tree(pid):
    """pid and all that descend from it"""
    parent = {}
    for p in pids():
        try:
            with open('/proc/%d/stat' % p) as f:
                parent[p] = int(f.read().rsplit(')', 1)[1].split()[1])
        except (OSError, IndexError):
            pass
    found, more = {pid}, True
    while more:
        new = {p for p, pp in parent.items() if pp in found} - found
        found |= new
        more = bool(new)
    return found


def alive(pid):
    """Not when it is a zombie that only waits for init."""
    try:
        with open('/proc/%d/stat' % pid) as f:
            return f.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except (OSError, IndexError):
        return False


def status(pid):
    with open('/proc/%d/status' % pid) as f:
        return dict(line.rstrip('\n').split(':\t', 1) for line in f if ':\t' in line)


def having(text):
    """Pids whose command line has text in it (zombies have none), but not our own."""
    text, out = text.replace('@', UNIQUE), []
    for p in pids():
        try:
            with open('/proc/%d/cmdline' % p, 'rb') as f:
                if text.encode() in f.read() and p != os.getpid():
                    out.append(p)
        except OSError:
            pass
    return out


def fds(pid):
    out = {}
    for f in os.listdir('/proc/%d/fd' % pid):
        with contextlib.suppress(FileNotFoundError):  # closed since: a connection that has just ended
            out[int(f)] = os.readlink('/proc/%d/fd/%s' % (pid, f))
    return out


def cgroups(warden):
    """The cgroup folders of one server, in every hierarchy: they are named after its warden."""
    out = set()
    for base, dirs, _ in os.walk('/sys/fs/cgroup'):
        out |= {p for p in (os.path.join(base, d) for d in dirs) if re.search(r'/omniarena-%d(/|$)' % warden, p)}
    return out


def mounts():
    with open('/proc/self/mountinfo') as f:
        return sorted(path for path in (line.split()[4] for line in f) if 'omniarena-test-' not in path)  # other tests'


# ---- the runner ----

def side_by_side(name, part, argvs):
    """Runs ourselves with each of these arguments at once, as most tests wait for something; their counts, each in a line that
    begins with part, become one line that begins with name. One that broke before it could count is a failure."""
    runners = [subprocess.Popen([sys.executable, '-B', sys.argv[0], *a], stdout=subprocess.PIPE, text=True) for a in argvs]
    counts = [0, 0, 0]
    for r in runners:
        said = False
        for line in r.stdout:
            m = re.match(part + r': (\d+) passed, (\d+) failed, (\d+) skipped', line)
            said = said or bool(m)
            if m:
                counts = [a + int(b) for a, b in zip(counts, m.groups())]
            else:
                print(line, end='', flush=True)
        r.wait()
        counts[1] += not said
    print('%s: %d passed, %d failed, %d skipped' % (name, *counts))
    return 1 if counts[1] else 0


def main():
    """As root a runner for each host."""
    args = sys.argv[1:]
    if args[:1] == ['--as']:
        return run(args[1].split(','), args[2:])
    groups = ['root', 'user', 'sanitized'] if os.geteuid() == 0 else ['user']
    return side_by_side('whole program', 'runner', [['--as', g, *args] for g in groups])


def run(names, args, part='runner'):
    passed = failed = skipped = 0
    work = tempfile.mkdtemp(prefix='omniarena-test-')
    os.chmod(work, 0o755)
    for name in os.listdir(TOP):
        if name == 'omniarena' or name.startswith('omniarena-'):
            shutil.copy(os.path.join(TOP, name), work)
            os.chmod(os.path.join(work, name), 0o755)
    if not os.path.exists(os.path.join(work, 'omniarena-sanitized')) and 'sanitized' in names:
        print('SKIP  everything with the sanitizers: this compiler has none')
        names.remove('sanitized')
        skipped += 1
    if os.geteuid() != 0:
        print('SKIP  everything as root: not started as root')
        skipped += 1
    try:
        for name in names:
            host = Host(name, work)
            for fn in TESTS:
                full = '%s.%s.%s' % (name, fn.__module__, fn.__name__)
                if args and not any(fnmatch.fnmatch(full, a) or a in full for a in args):
                    continue
                begun = time.monotonic()
                try:
                    fn(host)
                    passed += 1
                    print('ok    %s (%.1f s)' % (full, time.monotonic() - begun), flush=True)
                except Skip as e:
                    skipped += 1
                    print('SKIP  %s: %s' % (full, e), flush=True)
                except Exception as e:
                    if isinstance(e, PermissionError) and os.geteuid() != 0 and str(e.filename).startswith('/proc/'):
                        skipped += 1  # the server is not dumpable, so that its own user can't look either
                        print('SKIP  %s: only root can look into %s' % (full, e.filename), flush=True)
                        continue
                    failed += 1
                    print('FAIL  %s\n%s' % (full, traceback.format_exc()), flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print('%s: %d passed, %d failed, %d skipped' % (part, passed, failed, skipped))
    return 1 if failed else 0
