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
"""Seconds for notifying a server over HTTP of the end of a session, if closing leaves no more time."""


class ClientLink:
    """One open session: the SDK's client, and the wire layer's knowledge about it."""

    def __init__(self, client: Client, watch: Watch, *, ending: float = GOODBYE, local: bool = False) -> None:
        """
        Args:
            client: The SDK's client, entered.
            watch: The observations of the wire layer.
            ending: See the attribute.
            local: Whether the server is in this process.
        """
        self.client = client
        # Kept here because the client's properties raise after its end, and it may end at any time.
        self._session = client.session
        self._watch = watch
        self.ending = ending
        """Seconds for ending the session after its calls are over, in addition to the rest of the drain timeout."""
        version = client.protocol_version
        self.version: str = version
        self.server_info: Implementation | None = client.server_info
        """The server's name and version."""
        self.capabilities: ServerCapabilities | None = client.server_capabilities
        """The server's capabilities. None: `mode` names a modern version, so there was no handshake."""
        if client.mode in MODERN_PROTOCOL_VERSIONS and client.prior_discover is None:
            self.capabilities = None
        self.era: Era = "modern" if version in MODERN_PROTOCOL_VERSIONS else "legacy"
        self.stream = watch.stream
        self.pid = watch.pid
        """The process id of its child; None if there is no child."""
        sdk.validate_known(client.session, listing=local)

    @property
    def forgettable(self) -> bool:
        """Whether the server assigned a session id over HTTP, so that it can forget the session unnoticed."""
        return self._watch.session_id is not None

    @property
    def session_id(self) -> str | None:
        """The id that the server assigned to the session over HTTP; None if it assigned none."""
        return self._watch.session_id

    @property
    def ended(self) -> BaseException | None:
        """Why the transport has ended; None if it has not ended."""
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
        """What is wrong with the result of an attempt, if `error` means that the result has the wrong shape."""
        raises = self.client.raise_exceptions
        words = misfit(error, attempt, streams=self._watch.passes, raises=raises)
        return None if words is None else self._watch.redact(words)

    def restore_tools(self, tools: Sequence[Tool]) -> None:
        """Pass on the tools of the last session, which determine the arguments that are also sent as headers."""
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
        """Ask the server for its capabilities (modern era).

        Raises:
            Exception: it does not answer.
        """
        raw = await self._session.send_discover(self.version)
        return DiscoverResult.model_validate(raw).capabilities

    @property
    def doubt(self) -> Evidence | None:
        """Why the server may be gone although the transport has not ended; None if there is no such evidence."""
        reason = self._watch.doubt
        return None if reason is None else Evidence(exception=reason, from_wire=False, phase="idle")

    def mark_lost(self) -> None:
        """The session is known to be lost: exit it without notifying the server."""
        self._watch.lost = True
        self._watch.recall()
        if self._watch.doubt is not None:
            # The process has ended and there was no answer. Calls in flight must not wait for their deadlines.
            self._watch.sever(self._watch.proof)

    @property
    def probes(self) -> tuple[str, ...]:
        """The methods for probing this session."""
        return probe_methods(self.era, self.capabilities)

    async def probe(self, method: str) -> None:
        """Ask the server on this session with one of `probes`.

        Raises:
            Exception: it was refused, or not answered.
        """
        await self._watch.probing(send_probe(self._session, method, self.version))
