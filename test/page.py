"""The dashboard in a real browser, on the real server. test/page.py [PATTERN...]"""
import os, re, subprocess, sys
import arena, page_base, page_see, page_use, page_all


def part(which, args):
    """Every second test, in a browser of its own."""
    arena.TESTS[:] = arena.TESTS[which::2]
    try:
        return arena.run(['root' if os.geteuid() == 0 else 'user'], args, 'page')
    finally:
        page_base.b.quit()


def main():
    """Two browsers side by side, as most tests wait for something."""
    args = sys.argv[1:]
    if args[:1] == ['--part']:
        return part(int(args[1]), args[2:])
    parts = [subprocess.Popen([sys.executable, '-B', __file__, '--part', str(n), *args], stdout=subprocess.PIPE, text=True) for n in (0, 1)]
    counts, said = [0, 0, 0], 0
    for p in parts:
        for line in p.stdout:
            if m := re.match(r'page: (\d+) passed, (\d+) failed, (\d+) skipped', line):
                counts, said = [a + int(n) for a, n in zip(counts, m.groups())], said + 1
            else:
                print(line, end='', flush=True)
        p.wait()
    counts[1] += len(parts) - said  # one that broke before it could count
    print('page: %d passed, %d failed, %d skipped' % tuple(counts))
    return 1 if counts[1] else 0


sys.exit(main())
