"""What the runtime asks of the wire. The two meet here, and import nothing of each other."""

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
    """What the server can do, as the handshake said; None if there was none (`mode` names a modern version)."""
    stream: StreamRecord
    """Its event stream: the standalone one, or `subscriptions/listen`."""
    ending: float
    """Seconds that its end has once its calls are over, beside what is left of the drain timeout."""

    @property
    def forgettable(self) -> bool:
        """The server gave a session id over HTTP: it can forget the session, and nothing here would tell."""

    @property
    def session_id(self) -> str | None:
        """The id that the server gave the session over HTTP; None if it gave none."""

    @property
    def ended(self) -> BaseException | None:
        """Why the transport has ended; None while it has not."""

    @property
    def doubt(self) -> Evidence | None:
        """Why nobody may be there any more, though the transport has not ended; None if nothing says so."""

    def new_attempt(self, phase: Phase) -> Attempt:
        """A new record for an attempt on this session."""

    def evidence(self, error: BaseException, attempt: Attempt) -> Evidence:
        """The evidence for an error that an attempt raised."""

    def misfit(self, error: BaseException, attempt: Attempt) -> str | None:
        """What is wrong with the result of an attempt, if that is what `error` says: it has another shape."""

    def restore_tools(self, tools: Sequence[Any]) -> None:
        """Hand on what an earlier session learned about the server's tools. No result is checked against it."""

    def listen(
        self, *, tools_list_changed: bool, resources_list_changed: bool, prompts_list_changed: bool
    ) -> AbstractAsyncContextManager[Any]:
        """Open `subscriptions/listen` (modern era); its events are iterated."""

    async def discover(self) -> Any:
        """Ask the server what it can do (modern era)."""

    def mark_lost(self) -> None:
        """The session is known to be gone: leave it without a word."""

    @property
    def probes(self) -> Sequence[str]:
        """The methods that can be asked whether this session lives: one that costs nothing, then a listing if any."""

    async def probe(self, method: str) -> None:
        """Send one of `probes`; raises if it is refused."""


class Dialer(Protocol):
    """Opens sessions to one server."""

    @property
    def patience(self) -> float | None:
        """Seconds that the next dial may take; None: the policy's `connect_timeout`."""

    @property
    def last_words(self) -> str:
        """What a server whose start failed said of the reason."""

    @property
    def spent(self) -> bool:
        """No further session can be opened, whatever the server does."""

    def open(self, idle_failure: Callable[[Evidence], None]) -> AbstractAsyncContextManager[Link]:
        """Open a session; leaving the block ends it. Raises an exception with `.evidence` where none came of it."""

    async def aclose(self) -> None:
        """Close what sessions shared."""


class Renewable(Protocol):
    """Credentials that can be renewed."""

    found: bool
    """The last renewal found that others had renewed them already. Then those that are used now have not been
    refused yet, and may be renewed if they are."""

    async def refresh(self, challenge: str | None) -> bool:
        """Renew them; False where only a person can. Raises where it cannot be tried now."""
