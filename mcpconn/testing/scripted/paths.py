"""Where the programs in this package are."""

from __future__ import annotations

from pathlib import Path

STDIO_SERVER = Path(__file__).resolve().with_name("stdio_server.py")
"""The scripted stdio server; run it with `sys.executable`."""
