"""Clients that come and go, each with a child process of its own: `python -m tests.gateway.churn --clients 1000`.

With `--vanish` they do not end their sessions: each cuts its sockets, as a process does that is killed, while it
listens to its event stream, between two calls, or in the middle of one.
"""

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

from mcpconn.gateway import Settings
from mcpconn.gateway.capacity import Capacity
from tests.gateway.chaos.server import __file__ as server
from tests.gateway.chaos.verdict import lines
from tests.gateway.conftest import Gateway, gateway
from tests.gateway.crowd import Bare
from tests.support import text_of

AT_ONCE = 8
"""Clients that are there at the same time."""
IDLE = 2.0
"""Seconds after which what a vanished client had is closed, in place of 15 and 30 minutes."""


@dataclass
class Left:
    """What is left when all clients are gone, beyond what there was before the first."""

    children: int
    descriptors: int
    tasks: int
    sessions: int
    shared: int
    """Children that more than one client used."""
    most: int
    """Children there were at once."""

    @property
    def anything(self) -> bool:
        """Whether anything is left, or was shared."""
        return max(self.children, self.descriptors, self.tasks, self.sessions, self.shared) > 0


async def visit(made: Gateway, number: int) -> None:
    """A client that calls a tool and says goodbye."""
    mode: Any = "legacy" if number % 2 else "auto"
    async with Client(made.url, mode=mode) as one:
        arguments = {"id": str(number), "canary": "one person" if mode == "auto" else str(number), "seconds": 0}
        assert text_of(await one.call_tool("child__charge", arguments)).startswith(f"{number} ")


async def vanish(made: Gateway, number: int) -> None:
    """A legacy client that calls a tool and cuts its sockets."""
    port = int(made.url.split(":")[2].partition("/")[0])
    calling, listening = await Bare.connect(port), await Bare.connect(port)
    await calling.begin(listen=False)
    listening.session = calling.session
    if number % 3 == 0:
        await listening.ask("GET")
    arguments = {"id": str(number), "canary": str(number), "seconds": 0}
    call = {"id": 2, "method": "tools/call", "params": {"name": "child__charge", "arguments": arguments}}
    assert f"{number} " in await calling.ask("POST", call)
    if number % 3 == 1:
        # In the middle of a call: that one goes on, as for any client that may come back for its answer.
        arguments = {"id": f"{number} again", "canary": str(number), "seconds": 0.2}
        await calling.send("POST", {**call, "id": 3, "params": {"name": "child__charge", "arguments": arguments}})
    for each in (calling, listening):
        each.close()


async def come_and_go(folder: Path, clients: int, *, vanishing: bool = False) -> Left:
    """Let so many clients call a stdio server once, each in a session of its own.

    Args:
        folder: An empty folder.
        clients: How many; every second one speaks the legacy protocol, and has a child of its own.
        vanishing: All speak the legacy protocol, and none ends its session.
    """
    pids, journal, own = folder / "pids", folder / "child.jsonl", psutil.Process(os.getpid())
    pids.mkdir()
    entry = {"command": sys.executable, "args": [server, "--journal", str(journal), "--pids", str(pids)]}
    most = 0

    limits = Capacity(connection_idle=IDLE, session_idle=IDLE) if vanishing else Capacity()

    async with gateway(more={"child": entry}, settings=Settings(limits=limits), safety=3600) as made:

        async def client(number: int) -> None:
            nonlocal most
            async with limit:
                await (vanish if vanishing else visit)(made, number)
                most = max(most, len(own.children(recursive=True)))

        async def settled() -> tuple[int, ...]:
            # What a client leaves behind ends a little later than the client.
            with anyio.move_on_after(30):
                # Processes and sockets have no event for it.
                while any(now > then for now, then in zip(measured(), start, strict=True)):  # noqa: ASYNC110
                    await anyio.sleep(0.1)
            return measured()

        def measured() -> tuple[int, ...]:
            sessions = len(made.app.endpoint("").sessions)
            return len(own.children(recursive=True)), own.num_fds(), len(asyncio.all_tasks()), sessions

        limit = anyio.CapacityLimiter(AT_ONCE)
        # The first ones warm up what is made once: the modern clients' child, pools, caches.
        await client(0)
        await client(1)
        await anyio.sleep(3 * IDLE if vanishing else 1)
        start = measured()
        async with anyio.create_task_group() as group:
            for number in range(2, clients):
                group.start_soon(client, number)
        children, descriptors, tasks, sessions = await settled()
    users: dict[int, set[str]] = {}
    for run in lines(journal):
        users.setdefault(run["pid"], set()).add(run["canary"])
    shared = sum(len(canaries) > 1 for canaries in users.values())
    return Left(
        children - start[0], descriptors - start[1], tasks - start[2], sessions - start[3], shared=shared, most=most
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.gateway.churn", description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--vanish", action="store_true", help="they do not end their sessions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        left = anyio.run(lambda: come_and_go(Path(folder), options.clients, vanishing=options.vanish))
    sys.stdout.write(f"{options.clients} clients: {left}\n")
    return 1 if left.anything else 0


if __name__ == "__main__":
    sys.exit(main())
