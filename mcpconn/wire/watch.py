"""The wire layer's observations of one session besides its answers: its end, doubts, and dropped messages."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import (
    JSONRPCMessage,
    JSONRPCRequest,
)

from mcpconn.core.attempt import Attempt
from mcpconn.core.decide import RETURNED_LIMIT
from mcpconn.core.failures import Evidence
from mcpconn.core.stream import StreamRecord
from mcpconn.wire.discovery import Discovery
from mcpconn.wire.messages import Made
from mcpconn.wire.stderr import Stderr
from mcpconn.wire.waiting import Item, Waiting

logger = logging.getLogger("mcpconn")


def _verbatim(text: str) -> str:
    return text


class Watch:
    """The observations of one session, shared by its streams, its HTTP client and its child."""

    def __init__(
        self,
        idle_failure: Callable[[Evidence], None],
        redact: Callable[[str], str] = _verbatim,
        name: str = "",
        chance: Callable[[], float] = lambda: 0.0,
        discovery: Discovery | None = None,
    ) -> None:
        """
        Args:
            idle_failure: Called with failures of the session that no call observes.
            redact: Hides secrets in what a server said.
            name: Of the connection, for the log.
            chance: A random number from 0 to 1, for the waits before the event stream is reopened.
            discovery: The `server/discover` request of the dial.
        """
        self.idle_failure = idle_failure
        self.redact = redact
        """Replaces secrets in a server's text. Apply it before the text is truncated."""
        self.discovery = discovery or Discovery(math.inf)
        self.name = name
        self.dropped = 0
        """The number of messages that were read but not passed on."""
        self.ended = False
        """Whether the transport has ended, so that no answer can come."""
        self.lost = False
        """Whether the session is known to be lost, so that no DELETE is sent."""
        self.reason: BaseException | None = None
        """Why the transport ended, if known."""
        self.stream = StreamRecord(chance)
        """The session's event stream, which is reopened for as long as the session lasts."""
        self.doubt: BaseException | None = None
        """Why the server may be gone: the child has exited, but its pipes are open. Cleared by the next message."""
        self.proof: BaseException = anyio.EndOfStream()
        """The proof that follows if a probe is not answered."""
        self.stderr = Stderr()
        """What the child wrote to stderr."""
        self.pid: int | None = None
        """The child's process id; None if there is no child."""
        self.sever: Callable[[BaseException], None] = lambda _: None
        """Ends the transport for this reason: its session and calls are notified at once."""
        self.recall: Callable[[], None] = lambda: None
        """Withdraws unsent messages, which can then be sent on the next session."""
        self._probes: set[anyio.CancelScope] = set()
        self.session_id: str | None = None
        """The id that the server has assigned to the session (Streamable HTTP, legacy era)."""
        self.passes = False
        """Whether all messages pass these streams, so that a message that was not seen here was not received."""
        self.waiting = Waiting(redact)
        """The sent requests without an answer."""

    def end(self) -> None:
        """The read stream has ended."""
        # Both streams of a transport report the end; the session is notified once.
        if self.ended:
            return
        self.ended = True
        # The component that knows the reason sets it before the end: an exit status, a reset.
        reason = self.reason or anyio.EndOfStream()
        self.idle_failure(Evidence(exception=reason, from_wire=False, phase="idle"))

    def suspect(self, reason: BaseException, proof: BaseException) -> None:
        """The server may be gone. Probes in progress have one more second for their answer.

        Args:
            reason: Why.
            proof: The evidence that follows if no probe is answered.
        """
        self.doubt, self.proof = reason, proof
        for probe in self._probes:
            # A process that has exited will not answer. One second allows for an answer that is already in the pipe.
            probe.deadline = min(probe.deadline, anyio.current_time() + RETURNED_LIMIT)
        self.idle_failure(Evidence(exception=reason, from_wire=False, phase="idle"))

    async def probing(self, probe: Awaitable[None]) -> None:
        """Await the answer to a probe, for at most one second after a doubt arises.

        Raises:
            TimeoutError: a doubt arose, and none came in time.
        """
        with anyio.CancelScope() as scope:
            self._probes.add(scope)
            try:
                await probe
            finally:
                self._probes.discard(scope)
            return
        raise TimeoutError

    def drop(self, why: str) -> None:
        """Count a dropped message. The first one of a session is logged for the server's operator."""
        self.dropped += 1
        # A server that prints to stdout does so for every request: one warning is enough.
        level = logging.WARNING if self.dropped == 1 else logging.DEBUG
        logger.log(level, "message.dropped connection=%s why=%r", self.name, why)

    def sent(self, message: JSONRPCMessage, attempt: Attempt | None) -> None:
        """`message` is about to be sent, for the attempt that `attempt` records."""
        if not self.discovery.shaken.is_set():
            self.discovery.sent(message)
        if isinstance(message, JSONRPCRequest):
            self.waiting.add(message, attempt or Attempt("call"))
        else:
            self.waiting.note_other()

    def received(self, item: Item, *, shared: bool) -> Item:
        """Record the evidence in `item`. Arguments and result are those of `Waiting.received`."""
        # Any message shows that the server is still there.
        self.doubt = None
        if not self.discovery.shaken.is_set() and isinstance(item, SessionMessage) and not isinstance(item, Made):
            heard = self.discovery.heard(item.message)
            # A copy is made only if the message changes: the same object keeps its metadata and costs nothing.
            item = item if heard is item.message else replace(item, message=heard)
        return self.waiting.received(item, shared=shared)
