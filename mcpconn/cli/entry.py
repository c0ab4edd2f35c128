"""The entry point of the console script. It explains how to install missing packages instead of failing at an
import."""

from __future__ import annotations

import sys

NEEDED = ("typer", "rich")
MISSING = (
    "mcpconn: the command line needs {name}, which is not installed; pip install '.[cli]' in a clone of mcpconn, or "
    "pip install {name}"
)


def main() -> int:
    """Run the command line; returns its exit status."""
    try:
        from mcpconn.cli.more import app
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in NEEDED:
            raise
        sys.stderr.write(MISSING.format(name=name) + "\n")
        return 1
    app(prog_name="mcpconn")
    return 0
