"""The dashboard in a real browser, on the real server. test/page.py [PATTERN...]"""
import os, sys
import arena, page_base, page_see, page_use, page_all

try:
    sys.exit(arena.run(['root' if os.geteuid() == 0 else 'user'], sys.argv[1:], 'page'))
finally:
    page_base.b.quit()
