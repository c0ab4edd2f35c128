"""The waiting requests of one session, and the evidence in their answers.

Each request is registered with the record of its attempt, and removed when it is answered or cancelled. So an error is
known to come from the server because it was parsed from received bytes for this request; an error that the SDK or a
transport created locally was not, regardless of its text.
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
"""Notifications that show that some request is being processed, but not which one."""


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
        """Requests that wait for as long as the session lasts (`subscriptions/listen`)."""
        self._named: set[RequestId] = set()
        """String ids of requests. The others are increasing numbers."""
        self._highest = 0
        self.doubted: RequestId | None = None
        """The only request that was waiting when an answer to no request came. It may be the answer to this one, with a
        wrong id."""
        self._discovering: RequestId | None = None
        """The request for the server's era."""
        self._quiet_since = 0
        """The highest id when the last message other than a request was sent. An answer without an id may belong to
        that message."""

    def add(self, message: JSONRPCRequest, attempt: Attempt) -> None:
        """Register a request that is about to be sent, for the attempt that `attempt` records."""
        key = coerce_request_id(message.id)
        if isinstance(key, int):
            self._highest = max(self._highest, key)
        else:
            self._named.add(key)
        if message.method == "subscriptions/listen":
            self._listening.add(key)
        elif message.method == "server/discover":
            self._discovering = key
        # By the id as the SDK compares it: a text of digits is a number there.
        self._records[key] = attempt

    def note_other(self) -> None:
        """Record another message that is about to be sent, which expects no answer."""
        self._quiet_since = self._highest

    def give_up(self, request_id: RequestId) -> None:
        """The caller no longer waits for this answer. A late answer is not reported."""
        self._strike(coerce_request_id(request_id))

    def _strike(self, key: RequestId) -> Attempt | None:
        self._listening.discard(key)
        if key == self.doubted:
            self.doubted = None
        return self._records.pop(key, None)

    def _never_sent(self, key: RequestId) -> bool:
        """Whether no request had this id: not even one that was answered, or given up, before."""
        return key > self._highest if isinstance(key, int) else key not in self._named

    def received(self, item: Item, *, shared: bool) -> Item:
        """Record the evidence in `item` about the waiting requests.

        Args:
            item: What came over the transport.
            shared: All requests have their answers on this one stream.

        Returns:
            The message for the session: `item`, or the failure of a request to which `item` was an invalid answer.
        """
        # On a request's own stream the transport knows the request. On a shared stream only the message can tell.
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
        # An id that was never sent cannot be a late answer. Answered ids are not suspicious.
        if shared and (key is None or self._never_sent(key)):
            # JSON-RPC 2.0, 5: the id is null if the server could not make it out in the request.
            return self._anonymous(item)
        # Removed first, so that a second answer with this id has no caller.
        attempt = self._strike(key) if key is not None else None
        if attempt is not None and not isinstance(item, Made):
            attempt.answered = True
            if isinstance(message, JSONRPCError):
                attempt.code, attempt.message = message.error.code, self._redact(message.error.message)
                attempt.from_wire = True
        return item

    def _anonymous(self, item: Item) -> Item:
        """An answer to an unknown request. If only one request is waiting, the answer may be meant for it.

        The request is doubted, and goes on waiting for a moment (`WatchedRead`): if its own answer follows, the first
        one was a stray, and no call is lost.
        """
        # A subscription waits for as long as the session lasts, so a single answer is not attributed to it.
        waiting = [key for key in self._records if key not in self._listening]
        alone = waiting[0] if len(waiting) == 1 else None
        if not isinstance(alone, int) or alone <= self._quiet_since:
            return item
        if self.doubted is None:
            self.doubted = alone
        # A server of the legacy era may refuse this request without its id. `initialize` follows at once, as each dial
        # of such a server would take longer otherwise; the request's own answer still counts if it comes later.
        return item if alone != self._discovering else self.condemn() or item

    def condemn(self) -> Item | None:
        """The doubted request gets no other answer. Returns its failure; None if no request is doubted."""
        if self.doubted is None:
            return None
        return self._unreadable(Unreadable("the answer does not name the request", answers=self.doubted))

    def _unreadable(self, error: Unreadable) -> Item:
        """A broken answer is attributed to its request, if that can be determined."""
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
            key = None if token is None else coerce_request_id(token)
            attempt = self._records.get(key) if key is not None else None
            if attempt is not None:
                attempt.progressed = True
                if key == self.doubted:
                    # The server knows the id of the request and is processing it.
                    self.doubted = None
        elif shared and (isinstance(message, JSONRPCRequest) or message.method in RUNNING):
            # One of the waiting requests is being processed. It is unknown which one, so it may be any of them.
            for attempt in self._records.values():
                attempt.progressed = True
