"""Changes of a manager's connections as server-sent events, for several readers."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import anyio

from mcpconn.asgi.rows import History, news, row
from mcpconn.manager import Manager
from mcpconn.runtime.journal import Notice

TICK = 1.0
"""Seconds between polls of values without notices: calls in flight and waiting."""
TOGETHER = 0.1
"""Seconds for which notices are collected. When a fleet fails, hundreds come at once and are sent together."""
QUIET = 15.0
"""Seconds without an event after which a comment is sent: proxies close connections on which nothing moves."""
TRANSITIONS = 1000
"""Maximum number of transitions queued for a slow reader; beyond that, the oldest are dropped. The rows are correct in
any case."""
READERS = 50
"""Maximum concurrent readers. Each costs one poll of all connections a second."""


class TooManyReaders(Exception):
    """All places are taken."""


class Feed:
    """Where readers of one manager get their events from."""

    def __init__(self, manager: Manager, history: History, degraded: Callable[[], Mapping[str, str]] = dict) -> None:
        self._manager = manager
        self._degraded = degraded
        """What the host works without now, and why, by name."""
        self._history = history
        self._readers = 0
        self._ended = anyio.Event()

    def end(self) -> None:
        """End all streams cleanly, so that a server that shuts down need not wait for its readers to leave."""
        self._ended.set()

    async def events(self) -> AsyncGenerator[str, None]:
        """The events of one reader, in the format of the HTML standard (9.2): first all rows, then what changes.

        Raises:
            TooManyReaders: before the first event.
        """
        if self._readers >= READERS:
            raise TooManyReaders
        self._readers += 1
        told: deque[dict[str, Any]] = deque(maxlen=TRANSITIONS)
        something = anyio.Event()

        def note(notice: Notice) -> None:
            change = news(notice)
            if change is not None:
                told.append(change)
            something.set()

        unsubscribe = self._manager.observe(note)
        try:
            sent: dict[str, dict[str, Any]] = {}
            yield _event("hello", self._everything(sent))
            degraded: Mapping[str, str] = {}
            silent = 0.0
            while not self._ended.is_set():
                with anyio.move_on_after(TICK):
                    await _first(something, self._ended)
                if something.is_set():
                    await anyio.sleep(TOGETHER)
                something = anyio.Event()
                written = False
                changed, gone = self._difference(sent)
                if changed or gone:
                    yield _event("rows", {"rows": changed, "gone": gone})
                    written = True
                while told:
                    yield _event("change", told.popleft())
                    written = True
                if (present := dict(self._degraded())) != degraded:
                    degraded, written = present, True
                    yield _event("degraded", degraded)
                silent = 0.0 if written else silent + TICK
                if silent >= QUIET:
                    silent = 0.0
                    yield ": quiet\n\n"
            yield _event("bye", {})
        finally:
            self._readers -= 1
            unsubscribe()

    def _everything(self, sent: dict[str, dict[str, Any]]) -> dict[str, Any]:
        self._history.keep(self._manager)
        for name, connection in self._manager.items():
            sent[name] = row(connection, self._history.wall())
        return {
            "rows": [{**line, "history": self._history.of(self._manager[name])} for name, line in sent.items()],
        }

    def _difference(self, sent: dict[str, dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
        """The rows that are new or have changed since the last look, and the names of those that are gone."""
        changed = []
        for name, connection in self._manager.items():
            line = row(connection, self._history.wall())
            if sent.get(name) != line:
                sent[name] = line
                changed.append(line)
        gone = [name for name in sent if name not in self._manager]
        for name in gone:
            del sent[name]
        return changed, gone


async def _first(one: anyio.Event, other: anyio.Event) -> None:
    """Return when either event is set."""
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            await other.wait()
            group.cancel_scope.cancel()

        group.start_soon(wait)
        await one.wait()
        group.cancel_scope.cancel()


def _event(name: str, data: Any) -> str:
    # JSON has no raw line breaks: one `data` field holds it.
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
