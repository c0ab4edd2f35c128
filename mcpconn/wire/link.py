"""One open session, as the runtime sees it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import anyio
from mcp import Client
from mcp.client.subscriptions import Subscription
from mcp_types import DiscoverResult, Implementation, ServerCapabilities, Tool
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Era, Evidence, Phase
from mcpconn.sdk import client as sdk
from mcpconn.wire.evidence import evidence_of
from mcpconn.wire.misfits import misfit
from mcpconn.wire.probe import probe_methods, send_probe
from mcpconn.wire.watch import Watch

GOODBYE = 0.3
"""Seconds for telling a server over HTTP that a session ends, where closing has left no more for it."""


class ClientLink:
    """One open session: the SDK's client, and what the wire knows about it."""

    def __init__(self, client: Client, watch: Watch, *, ending: float = GOODBYE, local: bool = False) -> None:
        """
        Args:
            client: The SDK's client, entered.
            watch: What the wire notices.
            ending: See the attribute.
            local: The server is in this process.
        """
        self.client = client
        # Kept here, because the client raises when it is asked after its end, and ends while others look.
        self._session = client.session
        self._watch = watch
        self.ending = ending
        """Seconds that its end has once its calls are over, beside what is left of the drain timeout."""
        version = client.protocol_version
        self.version: str = version
        self.server_info: Implementation | None = client.server_info
        """What the server calls itself."""
        self.capabilities: ServerCapabilities | None = client.server_capabilities
        """What the server can do. None: `mode` names a modern version, and so nobody has asked."""
        if client.mode in MODERN_PROTOCOL_VERSIONS and client.prior_discover is None:
            self.capabilities = None
        self.era: Era = "modern" if version in MODERN_PROTOCOL_VERSIONS else "legacy"
        self.stream = watch.stream
        self.pid = watch.pid
        """The process id of its child; None if there is no child."""
        sdk.validate_known(client.session, listing=local)

    @property
    def forgettable(self) -> bool:
        """The server gave a session id over HTTP: it can forget the session, and nothing here would tell."""
        return self._watch.session_id is not None

    @property
    def session_id(self) -> str | None:
        """The id that the server gave the session over HTTP; None if it gave none."""
        return self._watch.session_id

    @property
    def ended(self) -> BaseException | None:
        """Why the transport has ended; None while it has not."""
        return (self._watch.reason or anyio.EndOfStream()) if self._watch.ended else None

    def new_attempt(self, phase: Phase) -> Attempt:
        """A new record for an attempt on this session."""
        return Attempt(phase, self.era, written=False if self._watch.passes else None)

    def evidence(self, error: BaseException, attempt: Attempt) -> Evidence:
        """The evidence for `error`, which an attempt recorded in `attempt` raised."""
        if attempt.phase == "probe" and self._watch.doubt is not None and isinstance(error, TimeoutError):
            error = self._watch.proof
        return evidence_of(error, attempt, self._watch)

    def misfit(self, error: BaseException, attempt: Attempt) -> str | None:
        """What is wrong with the result of an attempt, if that is what `error` says: it has another shape."""
        raises = self.client.raise_exceptions
        words = misfit(error, attempt, streams=self._watch.passes, raises=raises)
        return None if words is None else self._watch.redact(words)

    def restore_tools(self, tools: Sequence[Tool]) -> None:
        """Hand the tools of the last session on: which of their arguments are sent as headers, too."""
        sdk.restore_tools(self._session, tools)

    def listen(
        self, *, tools_list_changed: bool, resources_list_changed: bool, prompts_list_changed: bool
    ) -> AbstractAsyncContextManager[Subscription]:
        """Open `subscriptions/listen` (modern era); its events are iterated."""
        return self.client.listen(
            tools_list_changed=tools_list_changed,
            resources_list_changed=resources_list_changed,
            prompts_list_changed=prompts_list_changed,
        )

    async def discover(self) -> ServerCapabilities:
        """Ask the server what it can do (modern era).

        Raises:
            Exception: it does not say.
        """
        raw = await self._session.send_discover(self.version)
        return DiscoverResult.model_validate(raw).capabilities

    @property
    def doubt(self) -> Evidence | None:
        """Why nobody may be there any more, though the transport has not ended; None if nothing says so."""
        reason = self._watch.doubt
        return None if reason is None else Evidence(exception=reason, from_wire=False, phase="idle")

    def mark_lost(self) -> None:
        """The session is known to be gone: leave it without a word."""
        self._watch.lost = True
        self._watch.recall()
        if self._watch.doubt is not None:
            # The process has ended, and nobody answered. Calls in flight must not wait for their deadlines.
            self._watch.sever(self._watch.proof)

    @property
    def probes(self) -> tuple[str, ...]:
        """The methods that can be asked whether this session lives."""
        return probe_methods(self.era, self.capabilities)

    async def probe(self, method: str) -> None:
        """Ask the server on this session with one of `probes`.

        Raises:
            Exception: it was refused, or not answered.
        """
        await self._watch.probing(send_probe(self._session, method, self.version))
