"""`server/discover` in one opening of a session: whether it was sent, and its result, in time or late."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from mcp_types import (
    UNSUPPORTED_PROTOCOL_VERSION,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from mcp_types.version import LATEST_MODERN_VERSION, MODERN_PROTOCOL_VERSIONS

from mcpconn.flag import Flag
from mcpconn.wire.messages import same_id

MUTE_AFTER_OUTPUT = 3.0
"""Seconds for the answer to `server/discover` of a child that has written something and is therefore running."""
MUTE = 10.0
"""The same for a child that has written nothing and may still be loading: the SDK's own limit for `server/discover`."""


class Discovery:
    """The question for a server's era.

    An answer that comes late still counts. By then the SDK has sent `initialize`, which a modern server refuses. The
    SDK asks once more if the refusal names a known version (-32022), so the refusal is rewritten to do that.
    """

    def __init__(self, allowed: float) -> None:
        """
        Args:
            allowed: Seconds that the whole dial may take.
        """
        self.allowed = allowed
        self.asked = Flag()
        """`server/discover` was passed to the transport."""
        self.settled = Flag()
        """It was answered, or the wait for it has ended."""
        self.initializing = Flag()
        """`initialize` was passed to the transport."""
        self.shaken = Flag()
        """The handshake is done."""
        self.answered = False
        """Answered by the server with a result or a JSON-RPC error."""
        self.refused = False
        """The answer was an error by which a server of the legacy era is known."""
        self.mute = False
        """It was not answered in time."""
        self.modern: Sequence[str] = ()
        """The modern versions in an answer that came too late."""
        self.cut = False
        """The child read the request and exited, or did not answer `initialize` either."""
        self._id: RequestId | None = None
        self._initialize_id: RequestId | None = None

    @property
    def patience(self) -> float:
        """Seconds for the answer. In a short dial, half of the time is reserved for `initialize`."""
        return min(MUTE, self.allowed / 2)

    @property
    def patience_after_output(self) -> float:
        """The same, once the child has written something."""
        return min(MUTE_AFTER_OUTPUT, self.allowed / 4)

    def sent(self, message: JSONRPCMessage) -> None:
        """Record a message that is passed to the transport."""
        if isinstance(message, JSONRPCRequest) and message.method == "server/discover":
            # A dial may send it twice; the latest request counts.
            self._id, self.mute = message.id, False
            self.asked.set()
        elif isinstance(message, JSONRPCRequest) and message.method == "initialize":
            self._initialize_id = message.id
            self.initializing.set()

    def heard(self, message: JSONRPCMessage) -> JSONRPCMessage:
        """Handle a message from the server. Returns the message for the session."""
        if isinstance(message, (JSONRPCResponse, JSONRPCError)):
            if self._id is not None and same_id(message.id, self._id):
                # Any answer, even a late one, determines the era, so the next dial need not ask.
                self.answered = True
                # With this code a modern server names the versions that it supports.
                self.refused = isinstance(message, JSONRPCError) and message.error.code != UNSUPPORTED_PROTOCOL_VERSION
                self.settled.set()
                # By now the SDK has sent `initialize`. The versions are kept for its refusal.
                if (self.mute or self.initializing.is_set()) and isinstance(message, JSONRPCResponse):
                    self.modern = _modern(message.result.get("supportedVersions"))
            elif self.modern and isinstance(message, JSONRPCError) and same_id(message.id, self._initialize_id or ""):
                # In the form that tells the SDK that the server is modern, so that it opens the session in that era.
                data = {"supported": list(self.modern), "requested": LATEST_MODERN_VERSION}
                error = ErrorData(code=UNSUPPORTED_PROTOCOL_VERSION, message=message.error.message, data=data)
                return JSONRPCError(jsonrpc="2.0", id=message.id, error=error)
        return message

    async def overdue(self, spoke: anyio.Event | None = None) -> RequestId | None:
        """Wait for the answer. Returns the id of the request if the time is over; None if it was answered.

        Args:
            spoke: Set when the server has written anything, and so is running.
        """
        # A dial with a known era never sends the request; then this waits until `finish`.
        await self.asked.wait()
        with anyio.move_on_after(self.patience) as scope:
            async with anyio.create_task_group() as group:
                if spoke is not None:
                    group.start_soon(self._shorten, spoke, scope)
                await self.settled.wait()
                group.cancel_scope.cancel()
        # The event is checked, not the scope, because the answer may have come at the moment of the deadline.
        if self.settled.is_set():
            return None
        self.give_up()
        return self._id

    async def _shorten(self, spoke: anyio.Event, scope: anyio.CancelScope) -> None:
        await spoke.wait()
        scope.deadline = min(scope.deadline, anyio.current_time() + self.patience_after_output)

    def give_up(self) -> None:
        """Stop waiting for its answer."""
        self.mute = True
        self.settled.set()

    def finish(self) -> None:
        """The handshake is done: end all waits."""
        for event in (self.asked, self.settled, self.initializing, self.shaken):
            event.set()


def _modern(versions: object) -> list[str]:
    return [each for each in versions if each in MODERN_PROTOCOL_VERSIONS] if isinstance(versions, list) else []
