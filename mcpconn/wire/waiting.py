"""The requests of one session that wait for their answers, and what is known from the answers.

Each request is entered with the record of the attempt it belongs to, and struck off when it is answered or given
up. So an error is known to be the server's because bytes that were read and parsed held it, for this request; one
that the SDK or a transport made up on this side never was in any, whatever its text says.
"""

from __future__ import annotations

from collections.abc import Callable

from mcp.shared.dispatcher import as_request_id, coerce_request_id
from mcp.shared.message import SessionMessage
from mcp_types import (
    CONNECTION_CLOSED,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)

from mcpconn.core.attempt import Attempt
from mcpconn.wire.messages import Made, Unreadable, made

Item = SessionMessage | Exception
"""What a read stream yields: a message, or an error that belongs to none."""

RUNNING = frozenset({"notifications/message"})
"""Notifications that say that some request is being worked on, but not which."""


class Waiting:
    """The requests that wait."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        """
        Args:
            redact: Hides secrets in what the server said, before it becomes evidence.
        """
        self._redact = redact
        self._records: dict[RequestId, Attempt] = {}
        self._listening: set[RequestId] = set()
        """Those among them that wait for as long as the session lives (`subscriptions/listen`)."""
        self._named: set[RequestId] = set()
        """Ids of requests that are texts. The others are numbers, and rise."""
        self._highest = 0
        self._quiet_since = 0
        """The highest id when something else than a request was sent last. That may be what is answered without an
        id, rightly or not."""

    def add(self, message: JSONRPCRequest, attempt: Attempt) -> None:
        """A request is about to be sent, for the attempt that `attempt` records."""
        key = coerce_request_id(message.id)
        if isinstance(key, int):
            self._highest = max(self._highest, key)
        else:
            self._named.add(key)
        if message.method == "subscriptions/listen":
            self._listening.add(key)
        # By the id as the SDK compares it: a text of digits is a number there.
        self._records[key] = attempt

    def note_other(self) -> None:
        """Something else is about to be sent, for which no answer is due."""
        self._quiet_since = self._highest

    def give_up(self, request_id: RequestId) -> None:
        """Nobody waits for this answer any more. One that comes all the same is no longer news."""
        self._strike(coerce_request_id(request_id))

    def _strike(self, key: RequestId) -> Attempt | None:
        self._listening.discard(key)
        return self._records.pop(key, None)

    def _never_sent(self, key: RequestId) -> bool:
        """Whether no request had this id: not even one that was answered, or given up, before."""
        return key > self._highest if isinstance(key, int) else key not in self._named

    def received(self, item: Item, *, shared: bool) -> Item:
        """Write down what `item` says about the requests that wait.

        Args:
            item: What came over the transport.
            shared: All requests have their answers on this one stream.

        Returns:
            What the session should see: `item`, or the end of a request that `item` was a failed answer to.
        """
        # On a stream of its own the transport knows whose answer it was. On a shared one only the message can say.
        if isinstance(item, Unreadable):
            return self._unreadable(item) if shared else item
        if not isinstance(item, SessionMessage):
            return item
        message = item.message
        if isinstance(message, (JSONRPCResponse, JSONRPCError)):
            return self._answered(item, message, shared)
        self._note_running(message, shared)
        return item

    def _answered(self, item: SessionMessage, message: JSONRPCResponse | JSONRPCError, shared: bool) -> Item:
        key = None if message.id is None else coerce_request_id(message.id)
        # An id that was never sent cannot be a late answer. Ids that were answered before are not suspicious.
        if shared and (key is None or self._never_sent(key)):
            # JSON-RPC 2.0, 5: the id is null if the server could not make it out in the request.
            return self._anonymous(item)
        # Struck off first: from here on a second answer with this id has no caller.
        attempt = self._strike(key) if key is not None else None
        if attempt is not None and not isinstance(item, Made):
            attempt.answered = True
            if isinstance(message, JSONRPCError):
                attempt.code, attempt.message = message.error.code, self._redact(message.error.message)
                attempt.from_wire = True
        return item

    def _anonymous(self, item: Item) -> Item:
        """An answer to no request that there is or was. If only one request waits, it was meant for that."""
        # A subscription waits for as long as the session lives, and is not what a single answer is for.
        waiting = [key for key in self._records if key not in self._listening]
        alone = waiting[0] if len(waiting) == 1 else None
        if not isinstance(alone, int) or alone <= self._quiet_since:
            return item
        return self._unreadable(Unreadable("the answer does not name the request", answers=alone))

    def _unreadable(self, error: Unreadable) -> Item:
        """A broken answer is its caller's, if it can be made out whose it was."""
        if error.anonymous:
            return self._anonymous(error)
        key = None if error.answers is None or error.asks else coerce_request_id(error.answers)
        attempt = self._strike(key) if key is not None else None
        if key is None or attempt is None:
            return error
        attempt.exception = error
        return made(key, CONNECTION_CLOSED, str(error))

    def _note_running(self, message: JSONRPCRequest | JSONRPCNotification, shared: bool) -> None:
        if message.method == "notifications/progress":
            token = as_request_id((message.params or {}).get("progressToken"))
            attempt = self._records.get(coerce_request_id(token)) if token is not None else None
            if attempt is not None:
                attempt.progressed = True
        elif shared and (isinstance(message, JSONRPCRequest) or message.method in RUNNING):
            # One of the requests that wait is being worked on. Which one is not said, so it may be any of them.
            for attempt in self._records.values():
                attempt.progressed = True
