"""Clients that come and go, each with a child process of its own: `python -m tests.gateway.churn --clients 1000`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import psutil
from mcp import Client

from tests.gateway.chaos.server import __file__ as server
from tests.gateway.chaos.verdict import lines
from tests.gateway.conftest import gateway
from tests.support import text_of

AT_ONCE = 8
"""Clients that are there at the same time."""


@dataclass
class Left:
    """What is left when all clients are gone, beyond what there was before the first."""

    children: int
    descriptors: int
    tasks: int
    shared: int
    """Children that more than one client used."""
    most: int
    """Children there were at once."""


async def come_and_go(folder: Path, clients: int) -> Left:
    """Let so many clients call a stdio server once, each in a session of its own.

    Args:
        folder: An empty folder.
        clients: How many; every second one speaks the legacy protocol, and has a child of its own.
    """
    pids, journal, own = folder / "pids", folder / "child.jsonl", psutil.Process(os.getpid())
    pids.mkdir()
    entry = {"command": sys.executable, "args": [server, "--journal", str(journal), "--pids", str(pids)]}
    most = 0

    async with gateway(more={"child": entry}, safety=3600) as made:

        async def client(number: int) -> None:
            nonlocal most
            mode: Any = "legacy" if number % 2 else "auto"
            async with limit, Client(made.url, mode=mode) as one:
                arguments = {"id": str(number), "canary": "one person" if mode == "auto" else str(number), "seconds": 0}
                assert text_of(await one.call_tool("child__charge", arguments)).startswith(f"{number} ")
                most = max(most, len(own.children(recursive=True)))

        async def settled() -> tuple[int, int, int]:
            # What a client leaves behind ends a little later than the client.
            with anyio.move_on_after(30):
                while (found := measured()) > start:  # noqa: ASYNC110 - processes and sockets have no event for it
                    await anyio.sleep(0.1)
                return found
            return measured()

        def measured() -> tuple[int, int, int]:
            return len(own.children(recursive=True)), own.num_fds(), len(asyncio.all_tasks())

        limit = anyio.CapacityLimiter(AT_ONCE)
        # The first ones warm up what is made once: the modern clients' child, pools, caches.
        await client(0)
        await client(1)
        start = (sys.maxsize, 0, 0)
        await anyio.sleep(1)
        start = measured()
        async with anyio.create_task_group() as group:
            for number in range(2, clients):
                group.start_soon(client, number)
        children, descriptors, tasks = await settled()
    users: dict[int, set[str]] = {}
    for run in lines(journal):
        users.setdefault(run["pid"], set()).add(run["canary"])
    shared = sum(len(canaries) > 1 for canaries in users.values())
    return Left(children - start[0], descriptors - start[1], tasks - start[2], shared, most)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.gateway.churn", description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        left = anyio.run(come_and_go, Path(folder), options.clients)
    sys.stdout.write(f"{options.clients} clients: {left}\n")
    return 1 if max(left.children, left.descriptors, left.tasks, left.shared) > 0 else 0


if __name__ == "__main__":
    sys.exit(main())
