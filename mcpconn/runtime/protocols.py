"""What the runtime requires of the wire layer. The two meet here, and do not import each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Era, Evidence, Phase
from mcpconn.core.stream import StreamRecord


class Link(Protocol):
    """One open session."""

    client: Any
    """The `mcp.Client`."""
    era: Era
    version: str
    capabilities: Any
    """The server's capabilities from the handshake; None if there was no handshake (`mode` names a modern version)."""
    stream: StreamRecord
    """The session's event stream: the standalone one, or `subscriptions/listen`."""
    ending: float
    """Seconds for ending the session after its calls are over, in addition to the rest of the drain timeout."""

    @property
    def forgettable(self) -> bool:
        """Whether the server assigned a session id over HTTP, so that it can forget the session unnoticed."""

    @property
    def session_id(self) -> str | None:
        """The id that the server assigned to the session over HTTP; None if it assigned none."""

    @property
    def ended(self) -> BaseException | None:
        """Why the transport has ended; None if it has not ended."""

    @property
    def doubt(self) -> Evidence | None:
        """Why the server may be gone although the transport has not ended; None if there is no such evidence."""

    def new_attempt(self, phase: Phase) -> Attempt:
        """A new record for an attempt on this session."""

    def evidence(self, error: BaseException, attempt: Attempt) -> Evidence:
        """The evidence for an error that an attempt raised."""

    def misfit(self, error: BaseException, attempt: Attempt) -> str | None:
        """What is wrong with the result of an attempt, if `error` means that the result has the wrong shape."""

    def restore_tools(self, tools: Sequence[Any]) -> None:
        """Pass on what an earlier session learned about the server's tools. Results are not checked against it."""

    def listen(
        self, *, tools_list_changed: bool, resources_list_changed: bool, prompts_list_changed: bool
    ) -> AbstractAsyncContextManager[Any]:
        """Open `subscriptions/listen` (modern era); its events are iterated."""

    async def discover(self) -> Any:
        """Ask the server for its capabilities (modern era)."""

    def mark_lost(self) -> None:
        """The session is known to be lost: exit it without notifying the server."""

    @property
    def probes(self) -> Sequence[str]:
        """The methods for probing this session: a cheap one, then a listing if there is one."""

    async def probe(self, method: str) -> None:
        """Send one of `probes`; raises an exception if it is refused."""


class Dialer(Protocol):
    """Opens sessions to one server."""

    @property
    def patience(self) -> float | None:
        """Seconds for the next dial; None: the policy's `connect_timeout`."""

    @property
    def last_words(self) -> str:
        """What a server that failed to start printed about the reason."""

    @property
    def spent(self) -> bool:
        """No further session can be opened, regardless of the server."""

    def open(self, idle_failure: Callable[[Evidence], None]) -> AbstractAsyncContextManager[Link]:
        """Open a session; exiting the block ends it. Raises an exception with `.evidence` if no session was opened."""

    async def aclose(self) -> None:
        """Close the resources that sessions shared."""


class Renewable(Protocol):
    """Credentials that can be renewed."""

    found: bool
    """Whether the last renewal found that another process had already renewed them. In that case the current ones have
    not been refused yet, and may be renewed if they are."""

    async def refresh(self, challenge: str | None) -> bool:
        """Renew them. False if only a person can. Raises an exception if renewal is impossible at the moment."""
