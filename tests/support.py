"""What several test modules need and nobody else would."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mcpconn import Change, Connection, State
from mcpconn.testing import HttpServer, Received, Script, ScriptTransport

UNFINISHED_STREAMS = pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2:ResourceWarning")
"""For tests with event streams: the SDK stops reading one at its answer and leaves httpx2's generators
unfinished. trio warns of that; the sockets are closed all the same."""

SAFETY = 20.0
"""Seconds after which a test that hangs is ended. Nothing waits for it to pass."""
BUSY = 8.0
"""Seconds that a busy machine may add to something real that waits for nothing. Whatever a test excludes by the time
that something took has to take longer. Exact times are tested in virtual time."""


def text_of(result: Any) -> str:
    """The text of a tool's answer."""
    return str(result.content[0].text)


class Neighbour:
    """Another task of the loop, which counts its turns."""

    def __init__(self) -> None:
        self.turns = 0

    async def run(self) -> None:
        while True:
            self.turns += 1
            await checkpoint()


async def until(connection: Connection, condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds, looking again at each transition and at the end of each call."""
    changed = anyio.Event()
    end = connection.journal.subscribe(lambda _: changed.set())
    try:
        while not condition():
            await changed.wait()
            changed = anyio.Event()
    finally:
        end()


async def quiet(connection: Connection) -> None:
    """Wait until the connection is at rest: no probe is in progress, no dial, and no listing."""
    lifecycle = connection._lifecycle
    while True:
        session = lifecycle.session
        if session is not None and lifecycle.probe.pending() is not None:
            await lifecycle.wait_for_probe(session)
        elif connection.catalog.busy:
            await connection.catalog.wait_until_listed()
        elif connection.state in (State.CONNECTING, State.RECONNECTING):
            await lifecycle.changed()
        else:
            return


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Log nothing: simulated outages fill a log."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def idle(connection: Connection) -> bool:
    """Whether no call holds or awaits anything of the connection."""
    gate = connection._lifecycle.gate
    sessions = [session.in_flight for session in connection._supervisor.dialling.sessions]
    return gate.in_flight == gate.waiting == 0 and not any(sessions)


class Seen:
    """The transitions of a connection, in order."""

    def __init__(self, connection: Connection) -> None:
        self.changes: list[Change] = []
        connection.journal.subscribe(lambda notice: self.changes.append(notice) if isinstance(notice, Change) else None)

    @property
    def events(self) -> list[str]:
        """Their names."""
        return [change.event.value for change in self.changes]


class Requests:
    """Lets a test wait for a request to arrive at the server."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._changed = anyio.Event()
        script.on_request = self._received

    def _received(self, request: Received) -> None:
        self._changed.set()

    async def reach(self, method: str, count: int) -> None:
        while self._script.count(method) < count:
            self._changed = anyio.Event()
            await self._changed.wait()


class Arrivals:
    """Counts the tools that have started on a server, so that a test can act when so many are running."""

    def __init__(self, script: Script) -> None:
        self.count = 0
        self._changed = anyio.Event()
        script.on_execute = lambda _: self._arrived()

    def _arrived(self) -> None:
        self.count += 1
        self._changed.set()

    async def reach(self, count: int) -> None:
        while self.count < count:
            self._changed = anyio.Event()
            await self._changed.wait()


async def sockets_closed(server: HttpServer, *, but: int) -> None:
    """Wait until no more connections than these are open: a server learns later than its client of an end."""
    while server.open_connections > but:
        await checkpoint()


class Openings:
    """Lets a test wait until the current session's event stream was opened so many times."""

    def __init__(self, connection: Connection) -> None:
        session = connection.present()
        assert session is not None
        assert session.link is not None
        self._stream = session.link.stream
        self._changed = anyio.Event()
        self._stream.subscribe(lambda: self._changed.set())

    async def reach(self, count: int) -> None:
        while self._stream.opened < count:
            self._changed = anyio.Event()
            await self._changed.wait()


@asynccontextmanager
async def served(
    script: Script, *, name: str = "srv", warm: bool = True, config: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Connection, HttpServer]]:
    """A connection to the script over a real socket; it has made a call unless told otherwise."""
    with anyio.fail_after(SAFETY):
        async with (
            HttpServer(script) as server,
            Connection({"url": server.url, **(config or {})}, name=name, **options) as connection,
        ):
            if warm:
                await warmed(connection)
            yield connection, server


@asynccontextmanager
async def played(
    script: Script, *, warm: bool = True, config: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Connection, ScriptTransport]]:
    """The same inside the process, where virtual time works."""
    transport = ScriptTransport(script)
    async with Connection(
        {"url": "http://scripted/mcp", "http_transport": transport, **(config or {})}, name="srv", **options
    ) as connection:
        if warm:
            await warmed(connection)
        yield connection, transport


async def warmed(connection: Connection) -> None:
    """Make the call that proves the session, and wait until the connection is at rest."""
    assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
    await quiet(connection)
    assert connection.config.catalog != "eager" or not connection.catalog.stale
