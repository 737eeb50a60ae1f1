"""Whole-program tests: the real binary, the real kernel. test/whole.py [PATTERN...]"""
import sys
import arena, test_audit, test_cli, test_exec, test_http, test_jail, test_life, test_limits, test_mcp, test_policy

sys.exit(arena.main())
