"""Server-sent events, read from bytes (HTML standard, 9.2.6)."""

from __future__ import annotations

from dataclasses import dataclass

from mcpconn.wire.messages import ENDS, MessageTooLarge, Unreadable, unreadable


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    data: bytes
    type: str
    id: bytes | None
    """The stream's last event id, if this event or an earlier one has set one."""
    retry: int | None
    """Milliseconds that the server asks the client to wait after the end of the stream."""
    error: Unreadable | None = None
    """It was too large and was skipped."""


class EventReader:
    """Assembles events from chunks. The cost is proportional to the data, regardless of how it is split."""

    def __init__(self, limit: int, *, skip: bool = False) -> None:
        """
        Args:
            limit: Bytes of one event, or of one line.
            skip: Skip an event above the limit, so that the stream can continue. Otherwise it is refused.
        """
        self._limit = limit
        self._skip = skip
        self._rest: list[bytes] = []
        """The beginning of an incomplete line, in pieces."""
        self._rest_size = 0
        self._after_cr = False
        self._begun = False
        self._id: bytes | None = None
        self._clear()

    def _clear(self) -> None:
        self._data: list[bytes] = []
        self._type = b""
        self._retry: int | None = None
        self._size = 0
        self._pending = False
        self._skipped: Unreadable | None = None
        """The error for the event that is being skipped."""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes. A skipped event is reported at its end.

        Raises:
            MessageTooLarge: an event is above the limit.
        """
        if self._after_cr and chunk:
            # A line end of two characters may be cut in the middle.
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        if not end:
            self._keep(chunk)
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = b"".join((*self._rest, chunk[:end])).splitlines()
        self._rest, self._rest_size = [], 0
        if not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        events = [event for line in lines if (event := self._line(line)) is not None]
        self._keep(chunk[end:])
        return events

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._rest.append(piece)
            self._rest_size += len(piece)
        self._check()

    def _check(self) -> None:
        if self._size + self._rest_size <= self._limit:
            return
        text = f"the answer is larger than {self._limit} bytes"
        if not self._skip:
            raise MessageTooLarge(text)
        rest = b"".join(self._rest)
        if self._skipped is None:
            name, _, value = rest.partition(b":")
            begun = [*self._data, value.removeprefix(b" ")] if name == b"data" else self._data
            self._skipped = unreadable(text, b"\n".join(begun)[:ENDS], MessageTooLarge)
        # The rest of the line lacks the field name at its beginning, but its end is still useful.
        self._rest = [b"data:" + rest[-ENDS:]] if rest else []
        self._rest_size = sum(map(len, self._rest))
        self._data, self._size = [self._data[-1][-ENDS:]] if self._data else [], 0

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
            self._check()
        elif name == b"event":
            self._type = value
        elif name == b"id" and b"\0" not in value:
            self._id = value or None
        elif name == b"retry" and value.isdigit():
            self._retry = min(int(value[:9]), RETRY_LIMIT)
        else:
            return None
        self._pending = True
        return None

    def _dispatch(self) -> Event | None:
        if not self._pending:
            return None
        data, error = b"\n".join(self._data), self._skipped
        if error is not None and error.answers is None and not error.asks:
            # The end may contain the id of the request that it answers. It is not the beginning of a line, even if it
            # looks like one.
            error = unreadable(str(error), b"..." + data, MessageTooLarge)
        name = self._type.decode("utf-8", "replace") or "message"
        event = Event(b"" if error else data, name, self._id, self._retry, error)
        self._clear()
        return event


RETRY_LIMIT = 3_600_000
"""Maximum `retry` in milliseconds that is accepted: one hour. No call has a longer deadline."""
