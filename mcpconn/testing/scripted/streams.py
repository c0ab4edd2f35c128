"""The event streams of a scripted server: what is open, what can be replayed. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcpconn.testing.scripted.steps import Feed, Follow, Hang, Message, Send, Sleep, Step, Verbatim, encode, sse_event

Item = Message | Verbatim | Sleep | Follow
"""A message of the server, or a pause before the next one."""

SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"

_LIST_FILTERS = {
    "notifications/tools/list_changed": "toolsListChanged",
    "notifications/prompts/list_changed": "promptsListChanged",
    "notifications/resources/list_changed": "resourcesListChanged",
}

Stamp = Callable[[str, Message], "Message | None"]
"""Turns a notification into the form one stream carries, or None if it does not carry it."""


@dataclass
class Recording:
    """The events of one answer stream, kept so that a cut stream can be resumed."""

    name: str
    events: list[bytes] = field(default_factory=list)
    complete: bool = False

    def add(self, data: bytes, *, retry_ms: int | None = None) -> bytes:
        """Record one event and return it framed, with its id."""
        event = sse_event(data, event_id=f"{self.name}-{len(self.events)}", retry_ms=retry_ms)
        self.events.append(event)
        return event


class Streams:
    """Open event streams and recorded answers."""

    def __init__(self) -> None:
        self._open: list[tuple[Feed, Stamp]] = []
        self._recordings: dict[str, Recording] = {}

    @property
    def count(self) -> int:
        """How many standing event streams are open."""
        return len(self._open)

    def record(self, retry_ms: int | None) -> Recording:
        """Begin to record one answer stream, which opens with an empty event so that it has an id."""
        recording = Recording(f"stream{len(self._recordings) + 1}")
        recording.add(b"", retry_ms=retry_ms)
        self._recordings[recording.name] = recording
        return recording

    def replay(self, last_event_id: str) -> Iterator[Step]:
        """Everything recorded after the given event."""
        name, _, index = last_event_id.rpartition("-")
        recording = self._recordings.get(name)
        if recording is None or not index.isdecimal():
            return
        yield Send(b"".join(recording.events[int(index) + 1 :]))
        if not recording.complete:
            # The answer is still being produced elsewhere, so the stream stays open.
            yield Hang()

    def follow(self, stamp: Stamp) -> Iterator[Follow]:
        """Keep one stream open and deliver notifications to it."""
        feed = Feed()
        self._open.append((feed, stamp))
        try:
            yield Follow(feed)
        finally:
            self._open = [entry for entry in self._open if entry[0] is not feed]

    def notify(self, method: str, params: Message) -> None:
        """Deliver a notification to every stream that carries it."""
        for feed, stamp in self._open:
            stamped = stamp(method, params)
            if stamped is not None:
                message = {"jsonrpc": "2.0", "method": method, "params": stamped}
                feed.push(sse_event(encode(message)))

    def close(self, *, graceful: bool = False) -> None:
        """End every standing stream; with `graceful`, `subscriptions/listen` is answered first."""
        for feed, _ in tuple(self._open):
            feed.close(graceful=graceful)


def honoured(params: Mapping[str, Any]) -> Message:
    """The part of a `subscriptions/listen` filter the server agrees to: all of it, minus empty entries."""
    wanted = params.get("notifications") or {}
    return {key: value for key, value in wanted.items() if value}


def listen_stamp(subscription_id: object, accepted: Message) -> Stamp:
    """Carry only what a `subscriptions/listen` request asked for, tagged with its id."""

    def stamp(method: str, params: Message) -> Message | None:
        if method == "notifications/resources/updated":
            carried = params.get("uri") in accepted.get("resourceSubscriptions", ())
        else:
            carried = bool(accepted.get(_LIST_FILTERS.get(method, "")))
        return {**params, "_meta": {SUBSCRIPTION_KEY: subscription_id}} if carried else None

    return stamp


def session_stamp(subscribed: set[str]) -> Stamp:
    """Carry everything, except updates of resources the session has not subscribed to."""

    def stamp(method: str, params: Message) -> Message | None:
        unwanted = method == "notifications/resources/updated" and params.get("uri") not in subscribed
        return None if unwanted else params

    return stamp


def json_steps(items: Iterator[Item]) -> Iterator[Step]:
    """Answer with one JSON body, which has no room for notifications."""
    for item in items:
        if isinstance(item, Verbatim):
            yield Send(item.data)
        elif not isinstance(item, dict):
            yield item
        elif "id" in item:
            yield Send(encode(item))


def event_steps(items: Iterator[Item], recording: Recording | None) -> Iterator[Step]:
    """Answer with an event stream of every message."""
    yield Send(recording.events[0] if recording is not None else b"")
    for item in items:
        if isinstance(item, (dict, Verbatim)):
            data = item.data if isinstance(item, Verbatim) else encode(item)
            yield Send(recording.add(data) if recording is not None else sse_event(data))
        else:
            yield item
    if recording is not None:
        recording.complete = True
