"""What is measured in a process of its own, so that nothing else is in its memory."""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
from importlib import import_module
from typing import Any

import anyio
import psutil


def child(module: str, function: str, **options: Any) -> Any:
    """Call an async function of a module of benchmarks in a process of its own.

    Args:
        module: Its full name.
        function: Its result must fit into JSON.
        options: Its arguments.
    """
    line = f"from benchmarks import apart; apart.report_of({module!r}, {function!r}, {json.dumps(options)!r})"
    done = subprocess.run([sys.executable, "-c", line], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report_of(module: str, function: str, options: str) -> None:
    """In the child: call it, print what it returns."""
    quiet_logs()
    raise_file_limit()
    work = getattr(import_module(module), function)
    print(json.dumps(anyio.run(lambda: work(**json.loads(options)))), flush=True)


def quiet_logs() -> None:
    """Failures are what is measured here; they need not be read as well."""
    import logging

    for name in ("mcpconn", "transitions", "mcp"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def raise_file_limit(most: int = 65_536) -> int:
    """Allow this process as many descriptors as the system does, and no more than `most`. Returns how many.

    A thousand connections are more sockets than many systems allow by default.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def rss() -> int:
    """Bytes of memory this process holds."""
    gc.collect()
    return psutil.Process(os.getpid()).memory_info().rss
