"""Connects to servers once, for a person at a terminal: quickly, and with the reason of failures."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import mcp_types as types
from mcp.shared.exceptions import MCPError
from rich.text import Text

from mcpconn.catalog.listing import collect
from mcpconn.cli.failures import fix
from mcpconn.cli.hiding import know
from mcpconn.cli.output import live, one_line
from mcpconn.config import ServerConfig
from mcpconn.connection import Connection
from mcpconn.core.states import Event, State
from mcpconn.errors import CallFailed
from mcpconn.manager import Manager
from mcpconn.policy import Policy
from mcpconn.runtime.journal import Change

TIMEOUT = 20.0
"""Seconds for a dial, and for a listing: the library's own connect timeout."""
SHOWN_LINES = 10
"""Lines of stderr that are shown of a child that failed."""
DRAIN = 1.0
"""Seconds for ending sessions. A person who has pressed Ctrl-C should not have to wait for a slow server."""


@dataclass
class Checked:
    """The result of connecting to one server."""

    name: str
    config: ServerConfig
    state: str
    era: str | None = None
    version: str | None = None
    server: types.Implementation | None = None
    tools: list[types.Tool] | None = None
    """None: the server offers none, or its tools were not listed."""
    connected_in: float | None = None
    """Seconds from the first dial to the end of the handshake."""
    why: str | None = None
    """Why it failed, as text."""
    kind: str | None = None
    fix: str | None = None
    stderr: Sequence[str] = ()
    """The last lines of stderr of a failed child."""
    finished: bool = False
    """False if the command ended before the answer."""

    @property
    def ok(self) -> bool:
        """Whether there was no error; a disabled server is not an error."""
        return self.why is None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "state": self.state,
            "transport": self.config.kind,
            "address": self.config.address,
            "era": self.era,
            "protocol_version": self.version,
            "server": {"name": self.server.name, "version": self.server.version} if self.server else None,
            "tools": len(self.tools) if self.tools is not None else None,
            "connect_seconds": round(self.connected_in, 3) if self.connected_in is not None else None,
            "notes": list(self.config.notes),
            "failure": {"kind": self.kind, "summary": self.why, "fix": self.fix} if self.why else None,
            "stderr": list(self.stderr),
        }


def once(timeout: float | None, wait: float) -> Policy:
    """A policy for connecting at once.

    Args:
        timeout: Seconds for a dial, and for a call that lists. None: the library's own, which give a command that
            is started for the first time longer.
        wait: Seconds to keep trying; 0 means one attempt.
    """
    start = Policy().start_timeout if timeout is None else timeout
    timeout = TIMEOUT if timeout is None else timeout
    return Policy(
        connect_timeout=timeout,
        start_timeout=start,
        call_timeout=timeout,
        patience=max(wait, 1e-6),
        min_attempts=1,
        drain_timeout=DRAIN,
    )


@asynccontextmanager
async def managed(servers: Mapping[str, ServerConfig], policy: Policy, **options: Any) -> AsyncIterator[Manager]:
    """A manager for these servers, with the progress of their connecting on a terminal."""
    manager = Manager(servers, policy=policy, **options)
    for connection in manager.values():
        # It learns more secrets while it runs.
        know(connection.redact)
    with progress(manager):
        async with manager:
            yield manager


@contextmanager
def progress(manager: Manager) -> Iterator[None]:
    """Show the pending servers and the output of starting ones; on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    with live(_Waiting(manager)):
        yield


DECIDED = (State.READY, State.FAILED, State.CLOSED)


class _Waiting:
    """The pending servers. rich reads the text several times a second, from its own thread."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def __rich__(self) -> Text:
        connections = self._manager.items()
        waiting = [(name, each) for name, each in connections if each.state not in DECIDED]
        done = len(connections) - len(waiting)
        shown = ", ".join(_named(name, connection) for name, connection in waiting[:3])
        more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
        # Not a str, which would be interpreted as markup: a server may be called "[red]".
        return Text(f"connecting: {done} of {len(connections)}; waiting for {shown}{more}" if waiting else "asking")


def _named(name: str, connection: Connection) -> str:
    return one_line(f"{name} ({connection.progress})" if connection.progress else name)


async def check(
    servers: Mapping[str, ServerConfig],
    *,
    timeout: float | None = None,
    wait: float = 0.0,
    done: Callable[[Checked], None] = lambda result: None,
) -> list[Checked]:
    """Connect to all servers at once, and list their tools.

    Args:
        servers: By name.
        timeout: Seconds for a dial, and for the listing; None: as `once`.
        wait: Seconds to keep trying; 0 means one attempt.
        done: Called with each result as soon as it is known.
    """
    results = {
        name: Checked(name, config, "disabled" if config.disabled else "idle") for name, config in servers.items()
    }
    connected: dict[str, float] = {}

    def note(change: Change) -> None:
        if change.event is Event.ESTABLISHED:
            connected.setdefault(change.server, change.elapsed)

    async def one(connection: Connection, result: Checked) -> None:
        await _check(connection, result)
        result.connected_in, result.finished = connected.get(result.name), True
        done(result)

    for result in results.values():
        if result.config.disabled:
            result.finished = True
            done(result)
    async with managed(servers, once(timeout, wait)) as manager:
        manager.subscribe(note)
        async with anyio.create_task_group() as group:
            for name, connection in manager.items():
                group.start_soon(one, connection, results[name])
    return list(results.values())


async def _check(connection: Connection, result: Checked) -> None:
    try:
        await connection.wait_ready()
        status = connection.status()
        result.era, result.version = status["era"], status["protocol_version"]
        result.server = connection.server_info
        if connection.server_capabilities.tools is not None:
            result.tools = await list_tools(connection)
    except CallFailed as error:
        result.why, result.kind = one_line(error.failure.summary), error.failure.kind.value
        result.fix, result.stderr = fix(error.failure, result.name), connection.stderr[-SHOWN_LINES:]
    except MCPError as error:
        result.why, result.kind = one_line(f"tools/list: {error}"), "application"
    result.state = connection.state.value


async def list_tools(connection: Connection) -> list[types.Tool]:
    """All pages of a server's tools."""
    found = await collect(lambda cursor: connection.list_tools(cursor=cursor), "tools")
    return list(found.entries.values())
