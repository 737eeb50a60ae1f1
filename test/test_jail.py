"""From inside a cell: what can be seen, touched and called. The probes are Python programs that run
in the cell and report as JSON; they try, and the errno tells (bubblewrap's try-syscall technique:
bad pointers and fds, so that a call that gets through harms nothing: EFAULT or EBADF would show it)."""
import json, platform, textwrap
from arena import *


def probe(s, code, **fields):
    r = s.run('exec python3 -', stdin=textwrap.dedent(code), **fields)
    check(r['exit_code'] == 0, r)
    return json.loads(r['stdout'])


@test
def health_tells_the_truth(host):
    if host.sanitized:
        raise Skip('its runtime needs address space without limit')
    with host.server() as s:
        h = s.health()
        equal(h['isolation'], 'kernel')
        layers = h['layers']
        equal(layers.pop('policy'), True)
        landlock = os.path.exists('/sys/kernel/security/lsm') and 'landlock' in open('/sys/kernel/security/lsm').read()
        equal({k: v for k, v in layers.items() if k not in ('cgroup', 'landlock')},
              dict.fromkeys(('netns', 'mountns', 'pidns', 'rlimits', 'no_new_privs', 'seccomp', 'userns'), True))
        check(layers['landlock'] or not landlock, h)
        if host.root:
            check(layers['cgroup'], 'this host has cgroups that root may use:', h)
        equal(set(h['missing']), {k for k, v in layers.items() if not v})
        # and is what a cell finds
        text = s.ok('cat /proc/self/status /proc/self/limits; readlink /proc/self/ns/*')
        st = dict(line.split(':\t', 1) for line in text.splitlines() if ':\t' in line)
        equal((st['NoNewPrivs'], st['Seccomp'], st['CapInh'], st['CapPrm'], st['CapEff'], st['CapBnd'], st['CapAmb']), ('1', '2') + ('0' * 16,) * 5)
        check(int(st['Seccomp_filters']) >= 1 and int(st['Uid'].split()[0]) == 1000, st)
        for ns in ('net', 'mnt', 'pid', 'user', 'ipc', 'uts', 'cgroup'):
            mine = os.readlink('/proc/self/ns/' + ns)
            check(ns + ':[' in text and mine not in text, ns, 'is the host\'s')
        rows = {line[:26].strip(): line[26:].split() for line in text.splitlines() if line.startswith('Max ')}
        equal([rows['Max ' + k][1] for k in ('cpu time', 'address space', 'file size', 'open files', 'core file size', 'processes', 'msgqueue size')],
              ['5', str(64 << 20), str(10 << 20), '32', '0', '6', '0'])
        limits = h['limits']
        equal((limits['timeout_ms'], limits['max_mem_mb'], limits['max_cpu_sec'], limits['max_processes'], limits['max_file_mb'],
               limits['max_open_files']), (5000, 64, 5, 5, 10, 32))
        equal(s.ok('cat /proc/self/oom_score_adj; umask'), '500\n0022\n')
        equal(h['binary_bytes'], os.path.getsize(os.path.join(host.work, 'omniarena')))


@test
def no_network(host):
    with host.server() as s:
        got = probe(s, '''
            import json, socket
            out = {'families': {}, 'net': open('/proc/net/dev').read()}
            for f in range(0, 50):
                for t in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
                    try:
                        socket.socket(f, t); out['families'][f] = 'made'
                    except OSError as e:
                        out['families'].setdefault(f, e.errno)
            a, b = socket.socketpair()
            a.send(b'pair'); out['pair'] = b.recv(9).decode()
            try:
                a.connect('\\0abstract'); out['connect'] = 0
            except OSError as e:
                out['connect'] = e.errno
            print(json.dumps(out))''')
        equal(set(got['families'].values()), {1}, 'socket(2) must be EPERM for every family')
        equal((got['pair'], got['connect']), ('pair', 1))
        names = [line.split(':')[0].strip() for line in got['net'].splitlines()[2:]]
        check(set(names) <= {'lo', 'sit0', 'tunl0', 'ip6tnl0', 'gre0', 'gretap0', 'erspan0', 'ip_vti0', 'ip6_vti0', 'ip6gre0'}, names)


@test
def no_files_of_the_host(host):
    secret = host.file('hidden')
    with host.server() as s:
        got = probe(s, '''
            import json, os, sys
            out = {'root': sorted(os.listdir('/')), 'etc': sorted(os.listdir('/etc')), 'dev': sorted(os.listdir('/dev')), 'pids': [], 'fds': {}}
            out['open'] = {}
            for p in ('/etc/shadow', '/etc/hostname', '/root', '/home', '/var', '/run', '/sys', '/boot', '/opt', '/srv', '/mnt/x', '%s',
                      '/proc/1/root', '/proc/1/environ', '/proc/1/fd', '/proc/self/root/../etc/shadow', '/proc/kcore', '/proc/keys', '/proc/kallsyms'):
                try:
                    fd = os.open(p, os.O_RDONLY); out['open'][p] = len(os.read(fd, 9)) if not os.path.isdir(p) else os.listdir(p)
                except OSError as e:
                    out['open'][p] = 'no'
            out['pids'] = [int(p) for p in os.listdir('/proc') if p.isdigit()]
            out['me'] = os.getpid()
            for f in os.listdir('/proc/self/fd'):
                try: out['fds'][f] = os.readlink('/proc/self/fd/' + f)
                except OSError: pass  # the listing's own
            out['env'] = sorted(os.environ)
            out['mounts'] = [l.split()[4:6] for l in open('/proc/self/mountinfo')]
            print(json.dumps(out))''' % secret)
        check(set(got['root']) <= {'bin', 'dev', 'etc', 'lib', 'lib32', 'lib64', 'libx32', 'mnt', 'proc', 'sbin', 'tmp', 'usr'}, got['root'])
        check(set(got['etc']) <= {'alternatives', 'group', 'ld.so.cache', 'passwd', 'ld-musl-x86_64.path', 'ld-musl-aarch64.path'}, got['etc'])
        equal(got['dev'], ['fd', 'full', 'null', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'urandom', 'zero'])
        equal({k: v for k, v in got['open'].items() if v not in ('no', 0, [])}, {}, 'files of the host')
        equal(got['pids'], [got['me']], 'processes')
        equal(sorted(f for f, to in got['fds'].items() if not to.startswith('/proc/')), ['0', '1', '2'])
        check(all(got['fds'][f].startswith('pipe:') for f in '012'), got['fds'])
        equal(got['env'], ['HOME', 'LANG', 'LC_CTYPE', 'LOGNAME', 'PATH', 'PWD', 'TMPDIR', 'USER'] if 'LC_CTYPE' in got['env'] else
              ['HOME', 'LANG', 'LOGNAME', 'PATH', 'PWD', 'TMPDIR', 'USER'])
        for point, options in got['mounts']:
            if point != '/tmp' and not point.startswith(('/dev/', '/proc/')):
                check('ro' in options.split(',') and 'nosuid' in options.split(','), point, options)


@test
def nothing_of_the_daemon(host):
    """No variable, no argument, no memory of the daemon's is to be had in a cell."""
    if host.sanitized:
        raise Skip('its memory is too large to look through')
    with host.server('--token-file', host.file('a-token-of-my-own-1234\n'), env={'MARK': 'm4rk-in-environment'}) as s:
        equal(s.ok('cat /proc/*/environ /proc/*/cmdline | tr -c "[:print:]" " " | grep -c "[m]4rk-in\\|[m]y-own" || true'), '0\n')
        for p in tree(s.pid):
            try:
                check(b'm4rk-in' not in open('/proc/%d/environ' % p, 'rb').read(), p, 'shows the environment')
            except OSError:
                pass
        s.settled()
        for p in tree(s.pid) - {s.pid}:  # and the token is in no process but arena
            try:
                with open('/proc/%d/maps' % p) as m, open('/proc/%d/mem' % p, 'rb', 0) as mem:
                    for line in m:
                        lo, hi = (int(x, 16) for x in line.split()[0].split('-'))
                        if 'rw' in line:
                            mem.seek(lo)
                            check(b'a-token-of-my-own' not in mem.read(hi - lo), 'the token is in process', p)
            except PermissionError:
                check(not host.root, 'root can read its children')
            except OSError:
                check(not alive(p), p, 'lives and can\'t be read')


@test
def nothing_writable(host):
    with host.server() as s:
        got = probe(s, '''
            import json, os, stat
            out = {'made': [], 'written': [], 'chmod': []}
            for base, dirs, files in os.walk('/', onerror=None):
                if base == '/tmp' or base.startswith('/tmp/'): dirs[:] = []; continue
                if base.startswith('/proc/') and base.count('/') > 3: dirs[:] = []
                if base.startswith('/usr/') and base.count('/') > 4: dirs[:] = []
                try:
                    os.close(os.open(os.path.join(base, '.made'), os.O_CREAT | os.O_WRONLY)); out['made'].append(base)
                except OSError: pass
                for f in files[:200]:
                    p = os.path.join(base, f)
                    if os.path.islink(p): continue
                    try: os.chmod(p, 0o777); out['chmod'].append(p)
                    except OSError: pass
                    if base.startswith('/usr'): continue
                    try: os.close(os.open(p, os.O_WRONLY | os.O_NONBLOCK)); out['written'].append(p)
                    except OSError: pass
            print(json.dumps(out))''')
        equal(got['made'], [], 'files could be made in')
        own = [p for p in got['written'] if not re.match(r'/proc/(self|thread-self|\d+)/', p)]
        check(set(own) <= {'/dev/null', '/dev/zero', '/dev/full', '/dev/random', '/dev/urandom'}, 'could be opened for writing:', own)
        equal(s.ok('echo x > /proc/sys/kernel/core_pattern; echo x > /proc/sysrq-trigger; echo 1 > /proc/self/oom_score_adj; '
                   'echo $?; touch /dev/shm/x; ls /tmp').split()[-1], 'x')


@test
def not_executable(host):
    """Strict: what is written in the cell can't be executed by any of the known ways."""
    with host.server() as s:
        got = probe(s, '''
            import json, os, shutil, subprocess, ctypes, mmap
            out = {}
            shutil.copy('/bin/true', '/tmp/t'); os.chmod('/tmp/t', 0o755)
            def attempt(name, fn):
                try: fn(); out[name] = 'ran'
                except OSError as e: out[name] = e.errno
            attempt('execve', lambda: subprocess.run(['/tmp/t'], check=True))
            fd = os.open('/tmp/t', os.O_RDONLY)
            attempt('fd', lambda: subprocess.run(['/proc/self/fd/%d' % fd], pass_fds=[fd], check=True))
            attempt('memfd', lambda: os.memfd_create('x'))
            attempt('mmap', lambda: mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))
            print(json.dumps(out))''')
        equal([k for k, v in got.items() if v == 'ran'], [], got)


NUMBERS = '/usr/include/asm-generic/unistd.h' if platform.machine() == 'aarch64' else '/usr/include/x86_64-linux-gnu/asm/unistd_64.h'

# name: arguments that do harm to nobody if the call is let through
REFUSED = {
    'socket': (2, 1, 0), 'connect': (-1, 0, 0), 'accept': (-1, 0, 0), 'accept4': (-1, 0, 0, 0), 'bind': (-1, 0, 0), 'listen': (-1, 0),
    'socketpair': (2, 1, 0, 0), 'ptrace': (0, 0, 0, 0), 'process_vm_readv': (-1, 0, 0, 0, 0, 0),
    'process_vm_writev': (-1, 0, 0, 0, 0, 0), 'reboot': (0, 0, 0, 0), 'kexec_load': (0, 0, 0, 0), 'kexec_file_load': (-1, -1, 0, 0, 0),
    'init_module': (0, 0, 0), 'finit_module': (-1, 0, 0), 'delete_module': (0, 0), 'mount': (0, 0, 0, 0, 0), 'umount2': (0, 0),
    'pivot_root': (0, 0), 'chroot': (0,), 'open_tree': (-1, 0, 0), 'move_mount': (-1, 0, -1, 0, 0), 'fsopen': (0, 0), 'fsconfig': (-1, 0, 0, 0, 0),
    'fsmount': (-1, 0, 0), 'fspick': (-1, 0, 0), 'mount_setattr': (-1, 0, 0, 0, 0), 'setns': (-1, 0), 'unshare': (0x10000000,),
    'keyctl': (0, 0, 0, 0, 0), 'add_key': (0, 0, 0, 0, 0), 'request_key': (0, 0, 0, 0), 'bpf': (0, 0, 0), 'perf_event_open': (0, 0, 0, 0, 0),
    'userfaultfd': (0,), 'io_uring_setup': (0, 0), 'io_uring_enter': (-1, 0, 0, 0, 0, 0), 'io_uring_register': (-1, 0, 0, 0),
    'open_by_handle_at': (-1, 0, 0), 'name_to_handle_at': (-1, 0, 0, 0, 0), 'swapon': (0, 0), 'swapoff': (0,), 'acct': (1,), 'quotactl': (0, 0, 0, 0),
    'settimeofday': (1, 1), 'clock_settime': (0, 1), 'adjtimex': (1,), 'clock_adjtime': (0, 1), 'iopl': (3,), 'ioperm': (0, 1, 1),
    'personality': (0x0040000,), 'syslog': (2, 0, 0), 'sethostname': (0, 0), 'setdomainname': (0, 0), 'vhangup': (), 'modify_ldt': (1, 0, 0),
    'clone': (0x10000000 | 17, 0, 0, 0, 0), 'clone3': (0, 0), 'kcmp': (1, 1, 0, 0, 0), 'lookup_dcookie': (0, 0, 0), 'fanotify_init': (0, 0),
    'io_setup': (0, 0), 'vmsplice': (-1, 0, 0, 0), 'pidfd_getfd': (-1, -1, 0), 'process_madvise': (-1, 0, 0, 0, 0), 'move_pages': (0, 0, 0, 0, 0, 0),
    'migrate_pages': (0, 0, 0, 0), 'mq_open': (0, 0, 0, 0), 'nfsservctl': (0, 0, 0), 'quotactl_fd': (-1, 0, 0, 0), 'memfd_secret': (0,),
    'memfd_create': (0, 0), 'mbind': (0, 0, 0, 0, 0, 0), 'set_mempolicy': (0, 0, 0), 'inotify_add_watch': (-1, 0, 0),
}
# the number itself in a higher half, and arguments of which the kernel reads 32 bits
TRICKS = [('fcntl', (0, 1024, 1)), ('fcntl', (0, 0xdead00000400, 1)), ('setpriority', (2, 0, 5)), ('setpriority', (0, 1, 5)),
          ('prlimit64', (1, 0, 0, 0)), ('ioctl', (-1, 0x5412, 0)), ('ioctl', (-1, 0x541c, 0)), ('ioctl', (-1, 0xdead00005412, 0)), ('clone', (0x7f00000010000011, 0, 0, 0, 0)),
          ('socketpair', (0x100000002, 1, 0, 0)), ('personality', (0xdead00040000,))]


def numbers():
    if not os.path.exists(NUMBERS):
        raise Skip(NUMBERS + ' is not there (package linux-libc-dev)')
    text = open(NUMBERS).read()
    return {m.group(1): int(m.group(2)) for m in re.finditer(r'#define __NR(?:3264)?_(\w+)\s+(\d+)', text)}


@test
def refused_calls(host):
    nr = numbers()
    calls = [(n, nr[n], a) for n, a in REFUSED.items() if n in nr] + [(n, nr[n], a) for n, a in TRICKS]
    check(len(calls) > 60, len(calls))
    with host.server() as s:
        got = probe(s, '''
            import ctypes, json
            libc = ctypes.CDLL(None, use_errno=True)
            libc.syscall.restype = ctypes.c_long
            out = []
            for name, nr, args in %r:
                ctypes.set_errno(0)
                r = libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(a if a < 1 << 63 else a - (1 << 64)) for a in args])
                out.append([name, list(args), r, ctypes.get_errno()])
            print(json.dumps(out))''' % (calls,))
        open_calls = [(g[0], g[2:]) for g in got if not (g[2] == -1 and g[3] in (1, 38))]
        equal(open_calls, [], 'calls that got through (name, [result, errno])')
        equal([g[3] for g in got if g[0] == 'clone3'], [38], 'clone3 is ENOSYS, so that libraries fall back')


@test
def foreign_calls(host):
    """int 0x80 and x32 reach other tables of calls: they kill."""
    if platform.machine() != 'x86_64':
        raise Skip('there are no i386 and x32 calls on ' + platform.machine())
    with host.server() as s:
        for name, code in (('int 0x80 getpid', b'\xb8\x14\0\0\0\xcd\x80\xc3'), ('x32 getpid', b'\xb8\x27\0\0\x40\x0f\x05\xc3')):
            r = s.run('exec python3 -', stdin='import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(%r)\n'
                      'f = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nprint(f())\n' % code)
            # a kernel without that door at all kills in its own way
            check(r['signal'] in ('SIGSYS', 'SIGSEGV') and r['stdout'] == '', name, r)


@test
def waiting_cells_have_no_privilege(host):
    """Process 1 and the child beside it, before any command: nothing that a command could borrow."""
    with host.server() as s:
        s.settled()
        cells = tree(s.pid) - {s.pid, s.warden()}
        check(len(cells) >= 8, cells)
        for p in cells:
            st = status(p)
            equal((st['CapInh'], st['CapPrm'], st['CapEff'], st['CapBnd'], st['CapAmb'], st['NoNewPrivs'], st['Seccomp']), ('0' * 16,) * 5 + ('1', '2'), p)
            if os.geteuid() == 0:  # proc(5): the files of what is not dumpable are root's
                equal(os.stat('/proc/%d/mem' % p).st_uid, 0, 'dumpable', p)
        if os.geteuid() == 0:
            equal({os.stat('/proc/%d/mem' % p).st_uid for p in (s.pid, s.warden())}, {0}, 'arena and warden are dumpable')


@test
def cells_apart(host):
    """Two cells at once can neither see nor signal one another, and have uids of their own where uids can be had."""
    with host.server() as s:
        a = threading.Thread(target=s.run, args=('exec sleep 2.345@',))
        b = threading.Thread(target=s.run, args=('exec sleep 2.345@',))
        a.start(), b.start()
        until(lambda: len(having('2.345@')) == 2, what='two commands run')
        uids = {status(p)['Uid'].split()[0] for p in having('2.345@')}
        equal(len(uids), 2 if host.root else 1)
        if host.root:
            check(all(0x70000000 <= int(u) < 0x80000000 for u in uids), uids)
        equal(s.ok('ps ax 2>/dev/null | grep -c "[2].345"; kill -9 -1; echo'), '0\n\n')
        equal(len(having('2.345@')), 2)
        a.join(), b.join()


@test
def system_v_and_queues(host):
    """Memory that no limit counts is refused where no cgroup holds it."""
    with host.server() as s:
        cgroup = s.health()['layers']['cgroup']
        got = probe(s, '''
            import ctypes, json
            libc = ctypes.CDLL(None, use_errno=True)
            r = libc.shmget(0, 4096, 0o1600)
            print(json.dumps([r, ctypes.get_errno()]))''')
        check((got[0] >= 0) == cgroup and (cgroup or got[1] == 1), got)


@test
def masks_do_not_trust_the_hosts_own(host):
    '''Where a service manager has covered files of /proc for the server, a cell's fresh /proc still has them open.'''
    if not host.root or host.sanitized:
        raise Skip('needs mounts of its own around the server')
    cover = 'touch /dev/shm/cover.$$ && chmod 0 /dev/shm/cover.$$ && mount --bind /dev/shm/cover.$$ /proc/kallsyms && rm /dev/shm/cover.$$; exec "$@"'
    with host.server('--profile', '1', wrap=['unshare', '-m', 'sh', '-c', cover, 'sh']) as s:
        equal(s.run('cat /proc/kallsyms | head -c 30')['stdout'], '')
