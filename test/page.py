"""The dashboard in a real browser, on the real server. test/page.py [PATTERN...]"""
import os, sys
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
    return arena.side_by_side('page', 'page', [['--part', n, *args] for n in '01'])


sys.exit(main())
