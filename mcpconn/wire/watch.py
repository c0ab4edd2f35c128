"""What the wire notices about one session besides its answers: its end, doubts, what is dropped."""

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
    """What the wire has noticed about one session, shared by its streams, its HTTP client and its child."""

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
            idle_failure: Told what happened to the session while no call was there to fail.
            redact: Hides secrets in what a server said.
            name: Of the connection, for the log.
            chance: A random number from 0 to 1, for the waits before the event stream is reopened.
            discovery: What is being asked about the server's era.
        """
        self.idle_failure = idle_failure
        self.redact = redact
        """Hides secrets in what a server said. To be used before a text is cut."""
        self.discovery = discovery or Discovery(math.inf)
        self.name = name
        self.dropped = 0
        """Messages that were read and not passed on."""
        self.ended = False
        """The transport has ended: no answer can come any more."""
        self.lost = False
        """The session is known to be gone: do not end it with a DELETE."""
        self.reason: BaseException | None = None
        """Why the transport ended, where somebody knows."""
        self.stream = StreamRecord(chance)
        """The session's event stream, which is reopened for as long as the session lives."""
        self.doubt: BaseException | None = None
        """The child has ended, and its pipes have not: why nobody may be there. Gone with the next message."""
        self.proof: BaseException = anyio.EndOfStream()
        """What that will have been if a probe is not answered."""
        self.stderr = Stderr()
        """What the child wrote to stderr."""
        self.pid: int | None = None
        """The child's process id; None if there is no child."""
        self.sever: Callable[[BaseException], None] = lambda _: None
        """Ends the transport for this reason: its session and the calls on it are told at once."""
        self.recall: Callable[[], None] = lambda: None
        """Takes back what was not handed over yet: it can be sent to the next session."""
        self._probes: set[anyio.CancelScope] = set()
        self.session_id: str | None = None
        """The id that the server has given the session (Streamable HTTP, legacy era)."""
        self.passes = False
        """All messages pass these streams, so that what was not seen here was not received."""
        self.waiting = Waiting(redact)
        """The requests that were sent and not answered."""

    def end(self) -> None:
        """The read stream has ended."""
        # Both ends of a transport report their end; the session is told once.
        if self.ended:
            return
        self.ended = True
        # The reason is set before the end by whoever knows it: an exit status, a reset.
        reason = self.reason or anyio.EndOfStream()
        self.idle_failure(Evidence(exception=reason, from_wire=False, phase="idle"))

    def suspect(self, reason: BaseException, proof: BaseException) -> None:
        """Nobody may be there any more. Probes that are under way have a second left for their answer.

        Args:
            reason: Why.
            proof: What that will have been if no probe is answered.
        """
        self.doubt, self.proof = reason, proof
        for probe in self._probes:
            # A process that has ended does not answer later. One second is for an answer that is in the pipe.
            probe.deadline = min(probe.deadline, anyio.current_time() + RETURNED_LIMIT)
        self.idle_failure(Evidence(exception=reason, from_wire=False, phase="idle"))

    async def probing(self, probe: Awaitable[None]) -> None:
        """Await the answer to a probe, for a second at most once there is a doubt.

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
        """A message is not passed on. The first of a session is worth a line to whoever runs the server."""
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
        """Write down what `item` says. Takes and returns what `Waiting.received` does."""
        # Any message shows that somebody is there.
        self.doubt = None
        if not self.discovery.shaken.is_set() and isinstance(item, SessionMessage) and not isinstance(item, Made):
            heard = self.discovery.heard(item.message)
            # A copy only if there is something else to show: the same object keeps its metadata, and costs nothing.
            item = item if heard is item.message else replace(item, message=heard)
        return self.waiting.received(item, shared=shared)
