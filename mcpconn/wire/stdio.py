"""A stdio server: a child process whose end is detected, explained and enforced.

The SDK's stdio transport does not tell an idle client that its child died, does not say with what status, and
passes stderr through to the host's terminal.

What ends a session here:

    stdout ends                    no answer can come any more
    stdin has no reader            the same, though a process that the child started may hold stdout open
    the process ends, its pipes    a suspicion, since launchers exit while the real server serves on: the session
    do not                         is probed at once, for a second. Until the handshake, what counts is the status
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup
from mcp_types import REQUEST_TIMEOUT

from mcpconn.wire.child import CannotStart, Child, ChildExited, start_child
from mcpconn.wire.incoming import Incoming
from mcpconn.wire.messages import Limits, made
from mcpconn.wire.outbox import Outbox
from mcpconn.wire.stderr import Stderr
from mcpconn.wire.transcoding import Transcoder
from mcpconn.wire.watch import Watch
from mcpconn.wire.watchdog import Watchdog

LAST_WORDS = 0.2
"""Seconds for reading the last of stderr once stdout has ended: it explains the end."""
STATUS = 1.0
"""Seconds for a process whose stdout has ended to exit, so that its status is known."""
END_OF_OUTPUT = 0.1
"""Seconds from a process's end to the end of its stdout, if no other process holds it open."""
DEAD = 1.0
"""Seconds for a handshake after the process exited with an error while another process holds its pipes."""
WEDGED = 5.0
"""Seconds for the answer to `initialize` of a child that left `server/discover` unanswered, from the moment at which it
has read the request. Until then it may be a launcher that loads its server."""
LOOK = 0.1
"""Seconds between checks whether it has."""


class Mute(TimeoutError):
    """A child that read `server/discover`, and then answered nothing at all."""


@asynccontextmanager
async def stdio_transport(
    command: str,
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    cwd: str | None,
    watch: Watch,
    watchdog: Watchdog,
    limits: Limits,
    launch: float,
    encoding: str = "utf-8",
    errors: str = "strict",
) -> AsyncIterator[tuple[Any, Any]]:
    """Run a command and talk to it, one JSON-RPC message a line.

    Args:
        command: A program.
        args: Its arguments.
        env: Environment variables on top of the few that the SDK passes on.
        cwd: Its working directory.
        watch: Called with its end.
        watchdog: Ends it if this process is killed.
        limits: Of one line of output.
        launch: Seconds for the handshake once a launcher has ended with 0.
        encoding: Of what it reads and writes.
        errors: How to handle what the encoding cannot express, as in `bytes.decode`.

    Raises:
        CannotStart: there is no such program, or no room for it now.
    """
    # Nothing is awaited between the start of the process and the block that ends it, because a dial that is cancelled
    # at this moment would leave a running child behind.
    child = await start_child(command, args, env=env, cwd=cwd)
    transport = _Transport(child, watch, limits=limits, launch=launch, text=Transcoder.needed(encoding, errors))
    try:
        async with anyio.create_task_group() as group:
            # Started before the watchdog, which may fail, so that the child's output is read in any case.
            transport.start(group)
            try:
                try:
                    # Its process id is the id of its group, because it was started as a group leader.
                    watchdog.guard(child.process.pid)
                except OSError as error:
                    raise CannotStart(error) from error
                yield transport.incoming, transport.outbox
            finally:
                transport.incoming.close()
                with anyio.CancelScope(shield=True):
                    # Sent messages are written before stdin is closed, because servers finish the requests that they
                    # have read.
                    await transport.outbox.flush()
                    await child.stop()
                transport.close()
    finally:
        # Done last, because until here the group may have members.
        watchdog.release(child.process.pid)


class _Transport:
    """The tasks beside one child."""

    def __init__(
        self, child: Child, watch: Watch, *, limits: Limits, launch: float, text: Transcoder | None = None
    ) -> None:
        self._child = child
        self._watch = watch
        self._discovery = watch.discovery
        self._launch = launch
        self.outbox = Outbox(child.stdin, encode=None if text is None else text.encode)
        self.incoming = Incoming(child, child.stdout if text is None else text.reader(child.stdout), limits)
        self._stderr_read = anyio.Event()
        self._scopes: list[anyio.CancelScope] = []
        watch.sever, watch.recall = self.end, self.outbox.recall
        # Created here because the session's watch knows the name and the secrets.
        watch.stderr = child.stderr = Stderr(watch.redact, watch.name)
        watch.pid = child.process.pid

    def start(self, group: TaskGroup) -> None:
        """Begin to read and write."""
        for task in (self._drain, self._read_stderr, self._write, self._wait_for_exit, self._ask):
            # Shielded until `close`, so that the output of an ending child is still read.
            scope = anyio.CancelScope(shield=True)
            self._scopes.append(scope)
            group.start_soon(_within, scope, task)

    def close(self) -> None:
        """End all tasks."""
        for scope in self._scopes:
            # Through their scopes and not through the group, which does not reach what is shielded.
            scope.cancel()

    def end(self, reason: BaseException | None = None) -> None:
        """No further answer can come: tell the session."""
        if self._watch.reason is None:
            self._watch.reason = reason or self._exit(certain=True)
        discovery = self._discovery
        if not (discovery.answered or discovery.shaken.is_set()):
            # Unless it never read the question: then it ended for a reason of its own.
            discovery.cut = discovery.asked.is_set() and self._child.stdin.taken is not False
        # Set before the stream is closed, because readers ask for the reason when it closes.
        self._watch.end()
        self.outbox.close()
        self.incoming.close()

    def _exit(self, *, certain: bool) -> ChildExited:
        return ChildExited(self._child.process.returncode, self._child.stderr.lines, certain=certain)

    # -- tasks

    async def _drain(self) -> None:
        """Once nothing is read any more, read on: a child that still writes must not block on a full pipe while it is
        being ended."""
        await self.incoming.left.wait()
        await self._child.drain_stdout()
        await self._conclude()

    async def _conclude(self) -> None:
        """End the session, with the exit status of the process and its last stderr lines if available."""
        # The pipes close a moment before the process can be collected, and its status says why it ended.
        await self._child.exited(STATUS)
        with anyio.move_on_after(LAST_WORDS):
            await self._stderr_read.wait()
        self.end()

    async def _read_stderr(self) -> None:
        await self._child.drain_stderr()
        self._stderr_read.set()

    async def _write(self) -> None:
        if not await self.outbox.run():
            # No process has stdin open, so there will be no answer.
            await self._conclude()

    async def _wait_for_exit(self) -> None:
        """Wait for the end of the process itself."""
        child, shaken = self._child, self._discovery.shaken
        # On Windows this returns when the pipes are closed, too: launchers are not told from servers there.
        await child.process.wait()
        with anyio.move_on_after(END_OF_OUTPUT):
            await child.silent.wait()
            return
        if not shaken.is_set():
            with anyio.move_on_after(DEAD if child.process.returncode else self._launch):
                await shaken.wait()
                return
            await self._conclude()
        else:
            self._watch.suspect(self._exit(certain=False), self._exit(certain=True))

    async def _ask(self) -> None:
        """Bound the wait for an answer to `server/discover`, and for one to the `initialize` that follows."""
        discovery = self._discovery
        request_id = await discovery.overdue(self._child.spoke)
        if request_id is None:
            return
        self.incoming.put(made(request_id, REQUEST_TIMEOUT, "server/discover was not answered"))
        await discovery.initializing.wait()
        await self._handshake()

    async def _handshake(self) -> None:
        """Return when it is done; end the session if the child reads what it is sent and does not answer."""
        discovery = self._discovery
        patience = min(WEDGED, discovery.allowed / 4)
        since: float | None = None
        while not discovery.shaken.is_set():
            now = anyio.current_time()
            if self._child.stdin.taken is False:
                since = None
            elif since is None:
                since = now
            elif now >= since + patience:
                self.end(Mute("no answer to server/discover, nor to initialize after it"))
                discovery.cut = True
                return
            with anyio.move_on_after(LOOK):
                await discovery.shaken.wait()


async def _within(scope: anyio.CancelScope, task: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await task()
