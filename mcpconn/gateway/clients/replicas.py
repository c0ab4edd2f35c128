"""What the sessions of one process need of the other replicas; `mcpconn.gateway.fleet` has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.types import Receive, Scope, Send

from mcpconn.gateway.clients.session_ids import Session

Local = Callable[[Receive, Send], Awaitable[None]]
"""Serves a request in this process."""


class Replicas(Protocol):
    """The other replicas of the gateway, if there are some: see `mcpconn.gateway.fleet`."""

    async def begin(self, session: Session) -> None:
        """A session begins here."""

    async def route_session(
        self, session: Session, scope: Scope, receive: Receive, send: Send, body: bytes, local: Local
    ) -> None:
        """Serve a request of a session by `local`, or have the replica serve it that holds the session."""

    async def route_modern(
        self, view: str, scope: Scope, receive: Receive, send: Send, body: bytes, local: Local
    ) -> None:
        """The same for a request without a session."""

    async def session_released(self, sid: str) -> None:
        """A session was put away here."""
