"""The policy: what the parser says (test/corpus), what the server does with it, and what the jail keeps when the
parser is switched off."""
import ctypes, select, shutil, signal, stat, struct, textwrap
from arena import *

LETTERS = {'n': '\n', 't': '\t', '\\': '\\'}


def corpus():
    """(strict's code, moderate's code, class, command line)"""
    with open(os.path.join(TOP, 'test', 'corpus')) as f:
        for line in f:
            if line.strip() and not line.startswith('#'):
                strict, moderate, kind, text = line.rstrip('\n').split('\t', 3)
                yield strict, moderate, kind, re.sub(r'\\(.)', lambda m: LETTERS[m.group(1)], text)


def judge(s, cmd, **fields):
    return s.json('POST', '/api/policy/test', json.dumps({'cmd': cmd, **fields}), **({'conn': s.kept} if hasattr(s, 'kept') else {}))


@test
def corpus_is_judged_right(host):
    with host.server(config=False) as s:
        s.kept = http.client.HTTPConnection('127.0.0.1', s.port, timeout=30)
        wrong, n = [], 0
        for strict, moderate, kind, text in corpus():
            n += 1
            for profile, want in ((0, strict), ('moderate', moderate), (2, 'ok')):
                r = judge(s, text, profile=profile)
                if (r['code'], r['allowed']) != (want, want == 'ok'):
                    wrong.append((profile, want, r['code'], r['reason'], text))
                if want == 'blacklist':
                    check(r['rule'], 'no rule is named for', text)
                elif want in ('whitelist', 'syntax'):
                    check(r['reason'], 'no reason is given for', text)
        check(not wrong, len(wrong), 'of', n, 'wrong:', *wrong[:5])
        check(n >= 400, n, 'cases')
        h = s.health()
        equal((h['total_execs'], h['blocked_cmds']), (0, 0), 'a test of a line is counted')


@test
def what_a_judgement_says(host):
    with host.server(config=False) as s:
        r = judge(s, "env A=1 w'g'et -q x | sort; cd /tmp")
        equal((r['ok'], r['allowed'], r['code'], r['rule'], r['program'], r['profile'], r['undecidable']), (True, False, 'blacklist', 'wget', 'wget', 0, False))
        equal(r['commands'], ['env', 'wget', 'sort', 'cd'])
        r = judge(s, 'perl -e 1')
        equal((r['code'], r['rule'], r['program']), ('whitelist', None, 'perl'))
        r = judge(s, '$X y')
        equal((r['code'], r['commands'], r['undecidable']), ('whitelist', [], True))
        r = judge(s, 'wget x', profile='permissive')
        equal((r['allowed'], r['code'], r['would_block'], r['rule']), (True, 'ok', 'blacklist', 'wget'))
        equal(len(judge(s, ';'.join('a%d' % i for i in range(500)))['commands']), 256)
        check(judge(s, ';'.join('a%d' % i for i in range(500)))['commands_truncated'])
        equal(judge(s, 'ls ' + 'x' * 65533)['code'], 'ok')
        for body, code in (('{}', 'bad_request'), ('{"cmd":5}', 'bad_request'), ('{"cmd":""}', 'bad_request'), ('{"cmd":"a\\u0000b"}', 'bad_request'),
                           ('{"cmd":"ls","profile":3}', 'bad_request'), ('{"cmd":"ls","profile":"lax"}', 'bad_request'), ('{"cmd":"ls","profile":null}', 'bad_request'),
                           (json.dumps({'cmd': 'x' * 65537}), 'bad_request'), ('{"cmd":"ls","cmd":"ls"}', 'bad_request'), ('{', 'bad_json')):
            equal(s.json('POST', '/api/policy/test', body, status=400)['code'], code, body[:60])


@test
def refusals_name_rule_and_program(host):
    with host.server(config=False) as s:
        r = s.post({'cmd': 'ls; curl x'}, 403)
        equal((r['ok'], r['error'], r['code'], r['rule'], r['program']), (False, 'command blocked by blacklist', 'blacklist', 'curl', 'curl'))
        r = s.post({'cmd': 'ls | perl'}, 403)
        equal((r['error'], r['code'], r['program'], 'python3' in r['allowed']), ('command blocked by whitelist', 'whitelist', 'perl', True))
        r = s.post({'cmd': 'ls "'}, 403)
        equal((r['code'], 'quote' in r['reason']), ('syntax', True))
        # argv is judged without the grammar: what looks like a shell's syntax is a word
        equal(s.post({'argv': ['echo', 'a;wget x', '$(curl)']})['stdout'], 'a;wget x $(curl)\n')
        equal(s.post({'argv': ['/usr/bin/wget', 'x']}, 403)['rule'], 'wget')
        equal(s.post({'argv': ['cd', '/']}, 403)['code'], 'whitelist', 'there are no builtins without a shell')
        equal(s.post({'argv': ['find', '/', '-exec', 'nc', ';']}, 403)['rule'], 'nc')
        equal(s.post({'argv': ['python3', '-c', 'print(1)']})['stdout'], '1\n')
        equal(s.post({'cmd': 'ls', 'env': {'BASH_ENV': '/tmp/x'}}, 403)['code'], 'whitelist')
        equal(s.post({'cmd': 'ls', 'env': {'LC_ALL': 'C'}})['exit_code'], 0)
        h = s.health()
        equal((h['blocked_cmds'], h['total_execs']), (7, 3))


@test
def profiles(host):
    if host.sanitized:
        raise Skip('its runtime needs address space without limit')
    want = {0: ('strict', 5000, 64, 5, 5, 10, 32), 1: ('moderate', 30000, 256, 30, 10, 100, 128), 2: ('permissive', 300000, 1024, 300, 50, 1024, 512)}
    with host.server(config=False) as s:
        for given in (1, 2, 'moderate', 'strict', 'permissive', 0, 1):
            i = given if isinstance(given, int) else [k for k in want if want[k][0] == given][0]
            name, ms, mb, cpu, procs, file_mb, files = want[i]
            r = s.json('POST', '/api/profile', json.dumps({'profile': given}))
            equal(r, {'ok': True, 'profile': i, 'timeout_ms': ms, 'max_mem_mb': mb, 'max_cpu_sec': cpu})
            rows = {l[:26].strip(): l[26:].split() for l in s.ok('cat /proc/self/limits').splitlines() if l.startswith('Max ')}
            cgroup = s.health()['layers']['cgroup']
            space = (4 * (mb << 20) + (4 << 30)) if cgroup and i else mb << 20
            equal([int(rows['Max ' + k][1]) for k in ('cpu time', 'address space', 'file size', 'open files', 'processes')],
                  [cpu, space, file_mb << 20, files, procs + 1], name)
            h = s.health()
            equal((h['profile'], h['profile_id'], h['limits']['timeout_ms'], h['limits']['max_mem_mb']), (name, i, ms, mb))
            df = s.ok('python3 -c "import os; v = os.statvfs(\'/tmp\'); print(v.f_blocks * v.f_frsize >> 20, v.f_flag & 8)"').split()
            equal(df, [str(mb // 2), '8' if i == 0 else '0'], 'size of /tmp, noexec')
        for bad in ('{}', '{"profile":3}', '{"profile":-1}', '{"profile":"x"}', '{"profile":1.0}', '{"profile":[]}', '{"profile":true}'):
            equal(s.json('POST', '/api/profile', bad, status=400)['code'], 'bad_request', bad)
        equal(s.health()['profile_id'], 1)
        # commands that run keep what they were started with
        slow = threading.Thread(target=lambda: out.append(s.run('sleep 1; cat /proc/self/limits | grep open')))
        out = []
        slow.start()
        until(lambda: s.health()['running'], what='it runs')
        s.json('POST', '/api/profile', '{"profile":0}')
        equal('32' in s.ok('grep open /proc/self/limits'), True)
        slow.join()
        check('128' in out[0]['stdout'], out)


@test
def agents_have_their_profiles(host):
    config = host.file('[config]\nprofile=strict\n[agent dev]\nprofile=1\n[agent ops]\nprofile = permissive\ntoken=ops-token-0123456789\n')
    with host.server('--config', config, config=False) as s:
        def run(agent, cmd, status=200, auth=None):
            h = {'X-Agent': agent} if agent else {}
            if auth:
                h['Authorization'] = auth
            return s.post({'cmd': cmd}, status, headers=h)
        equal(run(None, 'perl -e 1', 403)['code'], 'whitelist')
        equal(run('other', 'perl -e 1', 403)['code'], 'whitelist')
        equal(run('dev', 'perl -e "print 1"')['stdout'], '1')
        equal(run('dev', 'wget x', 403)['code'], 'blacklist')
        r = run('ops', 'true', 403)
        equal(r['code'], 'capability', 'a name with a token of its own is taken by a header')
        mine = 'Bearer ops-token-0123456789'
        equal(run('ops', 'grep open /proc/self/limits', auth=mine)['stdout'].split()[3], '512')
        equal(run(None, 'grep open /proc/self/limits', auth=mine)['stdout'].split()[3], '512')
        equal(run('dev', 'true', 403, auth=mine)['code'], 'capability')
        equal(run('a b', 'true', 400)['code'], 'bad_request')
        equal(run('a' * 64, 'true', 400)['code'], 'bad_request')
        for path, body in (('/api/profile', '{"profile":2}'), ('/api/policy/reload', ''),
                           ('/api/policy', '{"action":"add","list":"whitelist","pattern":"perl"}')):
            equal(s.json('POST', path, body, status=403, headers={'Authorization': mine})['code'], 'capability', path)
        equal(len(s.json('GET', '/api/policy', headers={'Authorization': mine})['whitelist']), 14)
        equal(judge(s, 'perl')['code'], 'whitelist')
        equal(s.json('POST', '/api/policy/test', '{"cmd":"perl"}', headers={'X-Agent': 'dev'})['code'], 'ok')


@test
def allow_shrinks(host):
    with host.server(config=False) as s:
        equal(s.run('ls /; cat /etc/group | wc -l; cd /; exit 0', allow=['ls', 'cat', 'wc'])['exit_code'], 0)
        equal(s.post({'cmd': 'ls; cat x', 'allow': ['ls']}, 403)['program'], 'cat')
        equal(s.post({'cmd': 'perl', 'allow': ['perl']}, 403)['program'], 'perl', 'it widens')
        equal(s.post({'argv': ['cat', '/dev/null'], 'allow': []}, 403)['code'], 'whitelist')
        equal(s.run('echo a; test -d /', allow=['echo'])['stdout'], 'a\n')
        if s.health()['layers']['landlock']:
            # and the jail keeps it
            probe = 'import os\nfor p in ("cat", "ls"):\n  try:\n    print(p, os.spawnv(os.P_WAIT, "/bin/" + p, [p, "/dev/null"]))\n  except OSError as e:\n    print(p, e.errno)\n'
            out = s.ok('python3 -', stdin=probe, allow=['python3', 'ls'])
            check('cat 127\n' in out and 'ls 0\n' in out, out)
            check('cat 0\n' in s.ok('python3 -', stdin=probe))
        s.json('POST', '/api/profile', '{"profile":1}')
        equal(s.post({'cmd': 'perl -e 1; ls', 'allow': ['ls']}, 403)['program'], 'perl')
        equal(s.run('perl -e 1', allow=['perl'])['exit_code'], 0)
        equal(s.post({'cmd': '$X', 'allow': ['ls']}, 403)['code'], 'whitelist')
        for bad in (['a/b'], [''], [1], 'ls', ['..'], ['a'] * 300, ['x' * 201]):
            equal(s.post({'cmd': 'ls', 'allow': bad}, 400)['code'], 'bad_request', str(bad)[:40])


@test
def lists_change(host):
    text = '# first\n[config]\n# the port\nprofile=0\n\n[whitelist] # programs\nls\n  cat  # reads\n# end\n'
    config = host.file(text, 0o640)
    with host.server('--config', config, config=False) as s:
        p = s.json('GET', '/api/policy')
        equal((p['whitelist'], len(p['blacklist']), p['profile']), (['ls', 'cat'], 17, 0))
        equal(s.post({'cmd': 'wc x'}, 403)['program'], 'wc')
        r = s.json('POST', '/api/policy', '{"action":"add","list":"whitelist","pattern":"wc"}')
        equal((r['ok'], r['whitelist'], r['persisted']), (True, ['ls', 'cat', 'wc'], True))
        equal(s.ok('wc -c /dev/null'), '0 /dev/null\n')
        equal(open(config).read(), text.replace('cat  # reads\n', 'cat  # reads\nwc\n'))
        equal(stat.S_IMODE(os.stat(config).st_mode), 0o640)
        r = s.json('POST', '/api/policy', '{"action":"remove","list":"whitelist","pattern":"cat"}')
        equal((r['whitelist'], r['persisted']), (['ls', 'wc'], True))
        equal(open(config).read(), text.replace('  cat  # reads\n', 'wc\n'))
        equal(s.post({'cmd': 'cat x'}, 403)['program'], 'cat')
        r = s.json('POST', '/api/policy', '{"action":"add","list":"blacklist","pattern":"ls --color"}')
        equal((len(r['blacklist']), 'ls --color' in r['blacklist']), (18, True))
        check('[blacklist]\nrm -rf /\n' in open(config).read(), 'the defaults that are in force are written down')
        equal(s.post({'cmd': 'ls --color'}, 403)['rule'], 'ls --color')
        equal(s.run('ls')['exit_code'], 0)
        for bad in ({}, {'action': 'add'}, {'action': 'put', 'list': 'whitelist', 'pattern': 'x'}, {'action': 'add', 'list': 'grey', 'pattern': 'x'},
                    {'action': 'add', 'list': 'whitelist', 'pattern': ''}, {'action': 'add', 'list': 'whitelist', 'pattern': 'a\nb'},
                    {'action': 'add', 'list': 'whitelist', 'pattern': 'a;b'}, {'action': 'add', 'list': 'blacklist', 'pattern': '[x]'},
                    {'action': 'remove', 'list': 'whitelist', 'pattern': 'nosuch'}, {'action': 'add', 'list': 'whitelist', 'pattern': 'x' * 300}):
            equal(s.json('POST', '/api/policy', json.dumps(bad), status=400)['code'], 'bad_request', bad)
        equal(sorted(os.listdir(os.path.dirname(config))), ['file'], 'nothing is left beside the file')
        # another server finds what was saved
        with host.server('--config', config, config=False) as other:
            equal(other.json('GET', '/api/policy')['whitelist'], ['ls', 'wc'])


@test
def reload(host):
    config = host.file('[whitelist]\nls\n[config]\nprofile=1\n')
    with host.server('--config', config, config=False) as s:
        def write(text):
            with open(config, 'w') as f:
                f.write(text)
        equal(s.health()['profile_id'], 1)
        write('[whitelist]\ncat\nwc\n[blacklist]\nnc\n[config]\nprofile=strict\ntimeout_ms=1234\n')
        r = s.json('POST', '/api/policy/reload', '')
        equal(r, {'ok': True, 'blacklist_count': 1, 'whitelist_count': 2, 'profile': 0, 'restart_needed': False})
        equal(s.post({'cmd': 'ls'}, 403)['program'], 'ls')
        equal(s.health()['limits']['timeout_ms'], 1234)
        for bad, at in (('[whitelist]\nls\n[oops]\n', ':3: '), ('[config]\nprofile=9\n', ':2: '), ('[config]\nno_such=1\n', ':2: '), ('x=1\n', ':1: '),
                        ('[config]\n\n# c\nport=99999999\n', ':4: '), ('[whitelist]\na;b\n', ':2: '), ('[agent a b]\n', ':1: '), ('[agent a]\nrate=x\n', ':2: '),
                        ('[config]\nprofile\n', ':2: '), ('[agent a]\n[agent a]\n', ':2: '), ('[agent a]\ntoken=short\n', ':2: '), ('[config]\nprofile=1\x01\n', ':2: '),
                        ('#' * 70000, 'larger than 64 KiB')):
            write(bad)
            r = s.json('POST', '/api/policy/reload', '', status=400)
            equal((r['code'], config in r['error'] and at in r['error']), ('bad_request', True), bad[:40], r['error'])
            equal(s.json('GET', '/api/policy')['whitelist'], ['cat', 'wc'], 'after', bad[:40])
            check('short' not in r['error'], 'a token is shown')
        write('[whitelist]\ndate\n[config]\nmax_running=7\n')
        equal(s.json('POST', '/api/policy/reload', '')['restart_needed'], True)
        equal(s.ok('date +x'), 'x\n')
        write('[whitelist]\npwd\n')
        s.proc.send_signal(signal.SIGHUP)
        until(lambda: s.json('GET', '/api/policy')['whitelist'] == ['pwd'], what='SIGHUP reads it anew')
        write('[whitelist\n')
        s.proc.send_signal(signal.SIGHUP)
        until(lambda: any(':1: ' in l for l in s.log_lines), what='a faulty file is told')
        equal(s.ok('pwd'), '/tmp\n')
        os.unlink(config)
        equal(s.json('POST', '/api/policy/reload', '')['whitelist_count'], 14, 'the defaults')
        r = s.json('POST', '/api/policy', '{"action":"add","list":"whitelist","pattern":"id"}')
        equal((r['persisted'], open(config).read().startswith('[whitelist]\nls\n')), (True, True))
        s.ok('id')


@test
def can_not_be_saved(host):
    folder = host.folder()
    with host.server('--config', host.file('[whitelist]\nls\n'), config=False) as s:
        pass
    os.mkdir(os.path.join(folder, 'sub'))
    config = os.path.join(folder, 'sub', 'policy.conf')
    with open(config, 'w') as f:
        f.write('[whitelist]\nls\n')
    os.chmod(config, 0o644)
    os.chmod(os.path.join(folder, 'sub'), 0o755)
    with host.server('--config', config, config=False) as s:
        shutil.rmtree(os.path.join(folder, 'sub'))
        with open(os.path.join(folder, 'sub'), 'w'):
            pass  # what was a folder is a file: not even root can write below it
        r = s.json('POST', '/api/policy', '{"action":"add","list":"whitelist","pattern":"cat"}')
        equal((r['ok'], r['persisted'], r['whitelist'], len(r['persisted_why']) > 20), (True, False, ['ls', 'cat'], True), r)
        equal(s.ok('cat /dev/null'), '', 'in force all the same')


@test
def default_place(host):
    if host.root:
        raise Skip('root\'s default place is the host\'s own')
    home = host.folder()
    with host.server(env={'HOME': home}, config=None) as s:
        r = s.json('POST', '/api/policy', '{"action":"add","list":"whitelist","pattern":"id"}')
        equal(r['persisted'], True, r)
        s.ok('id')
    with open(home + '/.config/omniarena/policy.conf') as f:
        check(f.read().endswith('python3\nid\n'), 'what was saved')
    with host.server(env={'HOME': home}, config=None) as s:
        s.ok('id')


@test
def command_line(host):
    if host.sanitized:
        raise Skip('the same code')
    binary = os.path.join(host.work, 'omniarena')
    def run(*args, **env):
        p = subprocess.run([binary, *args], capture_output=True, text=True, env={'PATH': os.environ['PATH'], **env}, timeout=20, **host.ids)
        return p.returncode, p.stdout, p.stderr
    equal(run('check', 'ls -la | grep x')[:2], (0, 'allowed\nprograms: ls grep\n'))
    code, out, err = run('check', 'env nice wget x')
    equal((code, 'blacklist' in out, 'rule wget' in out, 'programs: env nice wget' in out), (1, True, True, True), out)
    code, out, err = run('check', 'cat "')
    equal((code, 'syntax' in out), (1, True))
    equal(run('check', '--profile', '1', 'perl')[0], 0)
    equal(run('check', 'perl', OMNIARENA_PROFILE='moderate')[0], 0)
    equal(run('check', '--profile=strict', 'perl', OMNIARENA_PROFILE='moderate')[0], 1, 'a flag wins over the environment')
    config = host.file('[whitelist]\nperl\n[config]\nprofile=0\n')
    equal(run('check', '--config', config, 'perl')[0], 0)
    equal(run('check', '--config', config, 'ls')[0], 1)
    equal(run('check', '--config', config, 'ls', OMNIARENA_PROFILE='2')[0], 0, 'the environment wins over the file')
    code, out, err = run('check', 'ls', HOME='/root')
    equal((code, err.count('\n')), (0, 0 if host.root else 1), 'the folder of whoever started it is closed to it')
    equal(run('check', 'ls\x1b[2J')[1].count('\x1b'), 0, 'a name moves the cursor')
    for args in (('check',), ('check', 'a', 'b'), ('frob',), ('--nosuch', '1'), ('--profile', '7'), ('--profile',), ('check', ''), ('--config', '/no/such/file'), ('--max-rps', 'x')):
        code, out, err = run(*args)
        equal((code, err.startswith('omniarena: '), err.count('\n')), (2, True, 1), args, err)
    equal(run('--check-config', '--config', config)[0], 0)
    bad = host.file('[whitelist]\nls\n[config]\nprofile=7\n')
    for args in (('--check-config', '--config', bad), ('--config', bad), ('check', '--config', bad, 'ls')):
        code, out, err = run(*args)
        equal((code, bad + ':4: ' in err), (2, True), args, err)
    sample = os.path.join(TOP, 'contrib', 'policy.conf')
    with open(sample) as f:
        text = f.read()
    equal(run('--check-config', '--config', host.file(text))[0], 0, 'the sample file')
    every = host.file(re.sub(r'(?m)^#([a-z_]+=|\[)', r'\1', text))
    code, out, err = run('--check-config', '--config', every)
    equal((code, '1 agents' in out), (0, True), 'the sample file with everything in it', err)


# ---- what the jail keeps ----

@test
def only_these_programs(host):
    with host.server(config=False) as s:
        s.ok('ls')
        h = s.health()
        equal(h['whitelist_enforcement_why'] is None, h['whitelist_enforcement'] == 'kernel')
        if 'busybox' not in os.path.realpath('/bin/sh') and not os.path.realpath('/bin/ls').endswith('coreutils'):
            equal(h['whitelist_enforcement'], 'kernel', h['whitelist_enforcement_why'])
        found = set(s.ok('for d in /bin /sbin /usr/bin /usr/sbin /usr/local/bin /usr/local/sbin /usr/games; do ls $d/ 2> /dev/null; done').split())
        allowed = set(s.json('GET', '/api/policy')['whitelist'])
        check(found - allowed <= {'sh'}, 'more programs are there:', found - allowed)
        # every ELF program of the host that a cell can see, executed and given to the loader
        tried = json.loads(s.ok('python3 -', stdin=textwrap.dedent('''
            import json, os, random, subprocess, time
            loader = [p for p in ('/lib64/ld-linux-x86-64.so.2', '/lib/ld-linux-aarch64.so.1', '/lib/ld-musl-x86_64.so.1', '/lib/ld-musl-aarch64.so.1') if os.path.exists(p)]
            programs, end = [], time.monotonic() + 2.5
            for top in ('/usr/lib', '/usr/libexec', '/usr/share', '/usr/local', '/lib'):
                for folder, _, names in os.walk(top):
                    for n in names if time.monotonic() < end - 1 else []:
                        p = os.path.join(folder, n)
                        try:
                            if '.so' not in n and not os.path.islink(p) and os.access(p, os.X_OK) and open(p, 'rb').read(4) == b'\\x7fELF':
                                programs.append(p)
                        except OSError:
                            pass
            random.seed(1)
            ran = []
            for p in random.sample(programs, min(len(programs), 150)):
                for argv in [[p, '--version']] + [[l, p, '--version'] for l in loader]:
                    if time.monotonic() > end:
                        break
                    try:
                        r = subprocess.run(argv, capture_output=True, timeout=1)
                        if b'failed to map' not in r.stderr and b'loading shared libraries' not in r.stderr and b'rror loading' not in r.stderr and b'annot load' not in r.stderr:
                            ran.append((argv, r.returncode, r.stderr.decode('latin1')[:80]))
                    except OSError:
                        pass
                    except subprocess.TimeoutExpired:
                        ran.append((argv, 'runs', ''))
            print(json.dumps({'programs': len(programs), 'ran': ran}))
        ''')))
        check(not tried['ran'], 'programs of the host run:', tried)
        # nothing that is written is a program
        r = s.run('cat /bin/cat > x; python3 -c "import os; os.chmod(\'x\', 0o755); os.execv(\'./x\', [\'x\'])"')
        check('Permission denied' in r['stderr'] or r['exit_code'] == 1, r)


@test
def links_scripts_and_interpreters(host):
    if not os.access('/usr/local/bin', os.W_OK):
        raise Skip('programs of our own can be put into /usr/local/bin by root only')
    name = 'oa%s' % UNIQUE
    paths = ['/usr/local/bin/%s-%s' % (name, k) for k in ('script', 'link', 'envscript', 'hard')] + ['/usr/local/lib/%s' % name]
    try:
        with open(paths[0], 'w') as f:
            f.write('#!/usr/bin/perl\nprint "script\\n";\n')
        with open(paths[2], 'w') as f:
            f.write('#! /usr/bin/env -S python3\nprint("env")\n')
        os.mkdir(paths[4])
        shutil.copy('/bin/true', paths[4] + '/real')
        shutil.copy('/bin/echo', paths[3])
        os.link(paths[3], paths[3] + '2')
        os.symlink('../lib/%s/real' % name, paths[1])
        for p in (paths[0], paths[2], paths[4] + '/real'):
            os.chmod(p, 0o755)
        config = host.file('[whitelist]\n%s\npython3\nls\n[blacklist]\n%s-hard\n' % ('\n'.join('%s-%s' % (name, k) for k in ('script', 'link', 'envscript', 'missing')), name))
        with host.server('--config', config, config=False) as s:
            equal(s.ok(name + '-script'), 'script\n', 'a script whose interpreter is not in the list')
            equal(s.ok(name + '-envscript'), 'env\n')
            equal(s.run(name + '-link')['exit_code'], 0, 'a link out of the folders')
            equal(s.run(name + '-missing')['exit_code'], 127)
            probe = 'import subprocess\nfor p in ("/usr/bin/awk", "%s", "/usr/bin/perl", "%s/real"):\n  try: print(subprocess.run([p, "-e", "1"]).returncode)\n  except OSError as e: print(e.strerror)\n' % (paths[3], paths[4])
            out = s.ok('python3 -', stdin=probe).splitlines()
            equal(out[:2], ['No such file or directory'] * 2)
            s.json('POST', '/api/profile', '{"profile":1}')
            # a name that the rule does not match, and the same file: covered too
            equal(s.run(name + '-hard2 x')['exit_code'], 127)
            equal(s.run('/usr/local/bin/%s-hard? x' % name)['exit_code'], 126)
    finally:
        for p in paths[:4] + [paths[3] + '2']:
            if os.path.lexists(p):
                os.unlink(p)
        shutil.rmtree(paths[4], ignore_errors=True)


@test
def a_folder_without_libraries(host):
    """/usr/local has programs and no library, so that all of it is without exec, but for its allowed programs."""
    if host.name != 'root':
        raise Skip('needs mounts of its own around the server')
    around = 'mount -t tmpfs t /usr/local && mkdir -p /usr/local/bin /usr/local/lib/x && cp /bin/echo /usr/local/bin/oaecho && cp /bin/true /usr/local/lib/x/prog && exec "$@"'
    with host.server('--config', host.file('[whitelist]\noaecho\npython3\n'), wrap=('unshare', '-m', 'sh', '-c', around, 'sh')) as s:
        equal(s.ok('oaecho works'), 'works\n')
        r = s.run('python3 -c "import os; os.execv(\'/usr/local/lib/x/prog\', [\'prog\'])"')
        check('Permission denied' in r['stderr'], r)
        equal(s.health()['whitelist_enforcement'], 'kernel')


@test
def moderate_covers(host):
    with host.server('--profile', 'moderate', config=False) as s:
        there = [p for p in ('wget', 'curl', 'nc', 'ssh', 'sudo', 'su', 'mount', 'reboot', 'shutdown', 'iptables', 'mkfs.ext4') if shutil.which(p, path='/bin:/sbin:/usr/bin:/usr/sbin')]
        check(there, 'this host has none of the forbidden programs')
        for p in there:
            equal(s.run("X=%s; $X --version" % p)['exit_code'], 127, p)
            path = shutil.which(p, path='/bin:/sbin:/usr/bin:/usr/sbin')
            check('ELF' not in s.run('head -c4 %s' % path)['stdout'], p, 'can be read')
        equal(s.run('X=perl; $X -e 1')['exit_code'], 0)
        s.json('POST', '/api/policy', '{"action":"add","list":"blacklist","pattern":"perl"}')
        equal(s.run('X=perl; $X -e 1')['exit_code'], 127, 'a list that changes')
        s.json('POST', '/api/policy', '{"action":"remove","list":"blacklist","pattern":"perl"}')
        equal(s.run('X=perl; $X -e 1')['exit_code'], 0)
        s.json('POST', '/api/profile', '{"profile":2}')
        check(s.run('%s --version' % there[0])['exit_code'] not in (126, 127), 'permissive covers')


class Executions:
    """Which files the processes of these uids execute, from fanotify(7): the kernel waits for our answer, so
    that nothing is missed."""

    def __init__(self, uids):
        self.uids, self.seen = uids, []
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.fanotify_init(0x4 | 0x1, os.O_RDONLY | os.O_LARGEFILE)  # FAN_CLASS_CONTENT, FAN_CLOEXEC
        if self.fd < 0:
            raise Skip('fanotify_init: %s' % os.strerror(ctypes.get_errno()))
        libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
        for where in {os.stat(p).st_dev: p for p in ('/usr/bin', '/usr/lib')}.values():
            # FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN_EXEC_PERM
            if libc.fanotify_mark(self.fd, 0x1 | 0x100, 0x40000, -100, where.encode()) < 0:
                os.close(self.fd)
                raise Skip('fanotify_mark: %s' % os.strerror(ctypes.get_errno()))
        self.stop, self.wake = os.pipe()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        while self.stop not in select.select([self.fd, self.stop], [], [])[0]:
            data = os.read(self.fd, 65536)
            while data:
                n, _, _, _, mask, fd, pid = struct.unpack_from('IBBHQii', data)
                try:
                    uid = os.stat('/proc/%d' % pid).st_uid
                    if uid in self.uids or int(status(pid)['Uid'].split()[1]) in self.uids:
                        self.seen.append((os.readlink('/proc/self/fd/%d' % fd), os.fstat(fd).st_ino))
                except OSError:
                    pass
                os.write(self.fd, struct.pack('iI', fd, 1))  # FAN_ALLOW
                os.close(fd)
                data = data[n:]

    def close(self):
        os.write(self.wake, b'x')
        self.thread.join()
        for fd in (self.fd, self.stop, self.wake):
            os.close(fd)


@test
def jail_alone_keeps_strict(host):
    """Each line that strict blocks, with the parser switched off: no program outside the list is started."""
    if host.name != 'root':
        raise Skip('fanotify on a file system is root\'s')
    def allowed(names):
        real = {os.stat(os.path.join(d, n)).st_ino for n in names for d in ('/usr/local/bin', '/usr/bin', '/bin') if os.path.exists(os.path.join(d, n))}
        return lambda seen: seen[1] in real or re.search(r'/ld-(linux|musl)[^/]*$|/ld-[0-9.]+\.so$', seen[0])
    with host.server(config=False, binary='omniarena-unjudged') as s:
        names = s.json('GET', '/api/policy')['whitelist'] + ['sh']
        may = allowed(names)
        base = int(s.ok('cat /proc/self/uid_map').split()[1])
        s.settled()
        watch = Executions(range(base & ~255, (base & ~255) + 256))
        try:
            conn = http.client.HTTPConnection('127.0.0.1', s.port, timeout=30)
            s.run('perl -e 1', conn=conn)
            check(not [p for p in watch.seen if not may(p)], watch.seen)
            n = 0
            for strict, _, kind, text in corpus():
                if strict == 'ok':
                    continue
                n += 1
                del watch.seen[:]
                s.post({'cmd': text, 'timeout_ms': 1500}, conn=conn)
                bad = [p for p in watch.seen if not may(p)]
                check(not bad, 'started:', bad, 'by', text)
            check(n >= 200, n, 'lines')
            # the same eyes see such programs where they are not kept out
            del watch.seen[:]
            s.json('POST', '/api/profile', '{"profile":2}')
            s.run('perl -e 1; wget --version', conn=conn)
            check([p for p in watch.seen if 'perl' in p[0]], 'the test sees nothing:', watch.seen)
        finally:
            watch.close()


@test
def profiles_side_by_side(host):
    """Agents of three profiles at once, while the lists change under them: each finds its own limits."""
    config = host.file('[agent a]\nprofile=0\n[agent b]\nprofile=1\n[agent c]\nprofile=2\n')
    files = {'a': '32', 'b': '128', 'c': '512'}
    with host.server('--config', config, '--max-running', '6', config=False) as s:
        wrong = []

        def client(k):
            agent, conn = 'abc'[k % 3], http.client.HTTPConnection('127.0.0.1', s.port, timeout=60)
            for _ in range(40):
                status, _, data = s.request('POST', '/api/exec', json.dumps({'cmd': 'grep open /proc/self/limits'}), {'X-Agent': agent}, conn=conn)
                r = json.loads(data)
                if status == 429:  # a slow machine; who asks again is served
                    continue
                if status != 200 or r['stdout'].split()[3] != files[agent]:
                    wrong.append((agent, status, r))
        threads = [threading.Thread(target=client, args=(k,)) for k in range(6)]
        [t.start() for t in threads]
        for i in range(20):
            s.json('POST', '/api/policy', json.dumps({'action': 'remove' if i % 2 else 'add', 'list': 'whitelist', 'pattern': 'uname'}))
            s.json('POST', '/api/profile', json.dumps({'profile': i % 3}))
            time.sleep(0.02)
        [t.join() for t in threads]
        check(not wrong, len(wrong), wrong[:2])
        equal(len(s.json('GET', '/api/policy')['whitelist']), 14)
        s.json('POST', '/api/profile', '{"profile":1}')
        s.settled()
