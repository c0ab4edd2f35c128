"""The client of one request: its identity, its capabilities, and how to reach it during the request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import anyio
import mcp_types as types
from anyio.lowlevel import checkpoint
from mcp.server.context import ServerRequestContext
from mcp.shared.message import ServerMessageMetadata
from mcp_types import LOG_LEVEL_META_KEY
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcpconn.gateway.access.credentials import Inbound, inbound_of
from mcpconn.gateway.access.rights import EVERYTHING, Rights, rights_of
from mcpconn.gateway.clients.parked import Parked
from mcpconn.gateway.clients.session_ids import Session
from mcpconn.gateway.clients.sessions import SCOPE_KEY
from mcpconn.gateway.http.notes import arrived_in
from mcpconn.gateway.principals import ANONYMOUS, Principal, principal_of
from mcpconn.gateway.rewrite import notification, shortened
from mcpconn.observe import log

Context = ServerRequestContext[Any, Any]

TASKS = "io.modelcontextprotocol/tasks"
"""The extension by which a modern server may answer a call with a task (SEP-2663)."""

ABILITIES = ("sampling", "elicitation", "roots")
"""Capabilities of a client that decide which questions a server may ask it."""
WAITING = 1024
"""Notifications of one call that wait for its client. A burst that a client has not read yet is no slow client."""
WAITING_SIZE = 1024 * 1024
"""Characters of them in all: one of the largest events that the SDK's client takes."""


@dataclass(frozen=True)
class Downstream:
    """The properties of a client that determine the upstream connection of its calls."""

    principal: Principal
    sid: str | None
    """The downstream session; None for modern clients, which keep none."""
    abilities: frozenset[str]
    """Which of `ABILITIES` it has."""
    rights: Rights = field(default=EVERYTHING, compare=False)
    """What it may use."""
    inbound: Inbound | None = field(default=None, compare=False, repr=False)
    """The token that its request came with, if it is one that can be exchanged."""
    tasks: bool = field(default=False, compare=False)
    """It takes a task for an answer: it declares the extension of the 2026-07-28 protocol (see `modern_tasks`)."""

    arrived: str | None = field(default=None, compare=False)
    """The epoch of the store in which its request arrived (see `notes`)."""

    @property
    def expires(self) -> float | None:
        """When its access token expires, in seconds since 1970; None if it came without one."""
        return self.inbound.expires if self.inbound is not None else None

    @classmethod
    def of(cls, ctx: Context) -> Downstream:
        """The client that sent a request."""
        scope: dict[str, Any] = dict(ctx.request.scope) if ctx.request is not None else {}
        session: Session | None = scope.get(SCOPE_KEY)
        capabilities = ctx.session.client_capabilities
        declared = {name for name in ABILITIES if getattr(capabilities, name, None) is not None}
        if session is not None:
            principal, tasks = session.principal, False
            sid: str | None = session.sid
        else:
            principal = principal_of(scope) if scope else ANONYMOUS
            # Over stdio there is one client, for as long as the process runs: that is a session, too.
            sid = "stdio" if ctx.request is None and not is_modern(ctx) else None
            tasks = is_modern(ctx) and capabilities is not None and TASKS in (capabilities.extensions or {})
        return cls(principal, sid, frozenset(declared), rights_of(scope), inbound_of(scope), tasks, arrived_in(scope))


EVERYBODY = Downstream(Principal("everybody", issuer="mcpconn"), None, frozenset(ABILITIES))
"""Represents the client of a shared connection, which is known only per call."""


@dataclass(eq=False)
class Call:
    """A request of a client while it is being forwarded."""

    ctx: Context
    client: Downstream
    server: str
    parked: Parked | None = None
    """Asks a modern client during the call; None if that is not possible."""
    task: str | None = None
    """The task whose result is waited for, as its client knows it."""
    quiet: bool = False
    """Nothing may go out before the answer, which would have to be an event of a stream then (see `large`)."""
    waiting: int = 0
    """Notifications that wait until the client takes them."""
    waiting_size: int = 0
    """Characters of their texts, as far as they are more than a line."""
    lost: int = 0
    """Notifications that were dropped, because too many were waiting."""
    _all_sent: anyio.Event | None = None
    """Set when none is waiting any more."""

    @property
    def full(self) -> bool:
        """Whether no more notifications may wait for the client."""
        return self.waiting >= WAITING

    @property
    def progress(self) -> Any:
        """Passes progress on to the client; None if it did not ask for any."""
        if self.quiet or (self.ctx.meta or {}).get("progress_token") is None:
            return None

        async def report(progress: float, total: float | None, message: str | None) -> None:
            message = shortened(message) if message is not None else None
            with self._room(message) as fits:
                if fits:
                    await self.ctx.session.report_progress(progress, total, message)

        return report

    @contextmanager
    def _room(self, content: object) -> Iterator[bool]:
        """Whether a notification may wait for the client; it counts as waiting for as long as the block runs.

        The SDK hands on each notification in a task of its own. If a client reads slowly, these would pile up with all
        that they carry for as long as its call runs. What exceeds the limits is dropped: log messages and progress may
        be, and no answer is among them.
        """
        # Nothing waits on a client that reads, so its notifications are not measured.
        size = len(str(content)) if self.waiting else 0
        if self.full or self.waiting_size + size > WAITING_SIZE:
            self.lost += 1
            yield False
            return
        self.waiting += 1
        self.waiting_size += size
        try:
            yield True
        finally:
            self.waiting -= 1
            self.waiting_size -= size
            if not self.waiting and self._all_sent is not None:
                self._all_sent.set()

    async def heard(self) -> None:
        """Return when what the server said before its answer is on its way to the client."""
        meta = self.ctx.meta or {}
        if is_modern(self.ctx) and (LOG_LEVEL_META_KEY in meta or "progress_token" in meta):
            # The SDK starts a task for each notification. They were started before the one that waits for the answer
            # was woken.
            await checkpoint()

    async def told(self) -> None:
        """Return when nothing waits for the client any more. A modern client's stream ends with its answer."""
        while self.waiting:
            self._all_sent = anyio.Event()
            await self._all_sent.wait()

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification on the stream of this request."""
        if self.quiet:
            return
        sent = notification(params)
        with self._room(sent) as fits:
            if fits:
                await self.ctx.session.send_notification(
                    RawNotification(method=method, params=sent),  # type: ignore[arg-type]
                    related_request_id=self.ctx.request_id,
                )

    def report_lost(self) -> None:
        """Log how many notifications the client was not sent during this call."""
        if self.lost:
            log.warning(
                "gateway.notifications_dropped",
                server=self.server,
                method=self.ctx.method,
                dropped=self.lost,
                why=f"the server sends them faster than the client reads, of which at most {WAITING} wait",
                do="raise the log level that the client asks for",
            )

    async def ask(self, request: types.ServerRequest, result: type[Any]) -> Any:
        """Send a request to a legacy client on the stream of this request, and return its answer."""
        related = ServerMessageMetadata(related_request_id=self.ctx.request_id)
        return await self.ctx.session.send_request(request, result, metadata=related)


class RawNotification(types.Notification[dict[str, Any] | None, str]):
    """A notification that is passed on as it came."""


CALL: ContextVar[Call | None] = ContextVar("mcpconn_gateway_call", default=None)
"""The request on whose behalf the present code runs. The SDK runs the callbacks of a request in the context of its
sender, so a server's question finds its client: exactly over HTTP, in both eras."""


@asynccontextmanager
async def current(call: Call) -> AsyncIterator[None]:
    """Run the block for a request. At its end, all that the client is to hear before the answer has been sent."""
    token = CALL.set(call)
    try:
        try:
            yield
        finally:
            await call.told()
    finally:
        CALL.reset(token)
        call.report_lost()


def is_modern(ctx: Context) -> bool:
    """Whether the client speaks the 2026-07-28 protocol, which has no sessions and no requests of servers."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
