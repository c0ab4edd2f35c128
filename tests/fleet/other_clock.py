"""`mcpconn` with a wall clock that is wrong: `python -m tests.fleet.other_clock SECONDS serve ...`."""

from __future__ import annotations

import sys
import time

AHEAD = float(sys.argv.pop(1))
"""Seconds by which the clock is ahead."""
real, real_ns = time.time, time.time_ns
# Before mcpconn is imported, whose functions have the clock as a default.
time.time = lambda: real() + AHEAD
time.time_ns = lambda: real_ns() + int(AHEAD * 1e9)

from mcpconn.cli import main  # noqa: E402

sys.exit(main())
