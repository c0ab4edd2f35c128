"""The events of all sessions on their way into the store: written behind the calls, many in one step.

A call does not wait for the store. Its answer goes to its client at once, and into the store within `DELAY` seconds,
together with what every other session has stored meanwhile. It is needed there only if this process dies and the
client did not get the answer: until it is written it is read from memory. SIGKILL takes the events of the last `DELAY`
seconds; what their clients had not received by then is reported as unknown, as for a call that was still running.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio

from mcpconn.gateway.store import Key, MemoryStore, Store, StoreUnavailable
from mcpconn.observe import log

KEPT = 256
"""Events of one session."""
TTL = 300.0
"""Seconds after its last event for which a session's events are kept. A client comes back within seconds."""
DELAY = 0.2
"""Seconds for which events are gathered before they are written. A write takes the processor for about 0.3 ms, a tenth
of a call, so it should serve several; and a client comes back to a new process only after seconds."""
PATIENCE = 1.0
"""Seconds that a write may take. A healthy store takes milliseconds."""
REST = 5.0
"""Seconds for which nothing is given to a store that did not take events in time: events stay in this process."""


class Event(NamedTuple):
    """One message of a stream."""

    number: int
    """Greater than that of every earlier event of the session."""
    stream: str
    final: bool
    """It is the answer, the last event of its stream."""
    message: bytes | None
    """Its JSON; None if it is too long to be kept in the store."""
    long: str = ""
    """The name of a message that is too long, in the process that has it."""

    def packed(self) -> bytes:
        """For the store: a line of JSON, and the message as it is."""
        # Not as a string inside the JSON, which would be escaped here and parsed again at a replay.
        head = json.dumps([self.number, self.stream, self.final, self.long])
        return head.encode() + b"\n" + (self.message or b"")

    @classmethod
    def unpacked(cls, value: bytes) -> Event:
        """From the store."""
        head, _, message = value.partition(b"\n")
        number, stream, final, long = json.loads(head)
        return cls(number, stream, final, None if long else message, long)


class EventLog:
    """Keeps each session's last events in the store, and in memory what the store does not have yet."""

    def __init__(self, store: Store) -> None:
        """
        Args:
            store: Keeps the events.
        """
        self._store = store
        self._spare = MemoryStore()
        self._rest_until = 0.0
        self._pending: dict[Key, deque[Event]] = {}
        # A batch is here from when it leaves `_pending` until a store has it, so that a reader finds it in between.
        self._writing: list[dict[Key, deque[Event]]] = []
        self._wake: anyio.Event | None = None
        self._hurry = anyio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write behind the calls for as long as the block runs; what is left is written at its end."""
        async with anyio.create_task_group() as group:
            self._wake = anyio.Event()
            group.start_soon(self._write_on)
            try:
                yield
            finally:
                group.cancel_scope.cancel()
                self._wake = None
                with anyio.move_on_after(PATIENCE, shield=True):
                    await self.flush()

    async def append(self, key: Key, event: Event, *, soon: bool = False) -> None:
        """Add an event of a session.

        Args:
            key: The session's log.
            event: The event.
            soon: Write it now instead of with the next batch: its client is not there to receive it.
        """
        self._pending.setdefault(key, deque(maxlen=KEPT)).append(event)
        if self._wake is None:
            # Outside of `running`, and so without a task that would write it later.
            await self.flush()
            return
        self._wake.set()
        if soon:
            self._hurry.set()

    async def entries(self, key: Key) -> Sequence[Event]:
        """A session's events, in order."""
        # First those in memory: what is written while the store is read would otherwise be found in neither place.
        here = [event for batch in (*self._writing, self._pending) for event in batch.get(key, ())]
        try:
            kept = await self._store.entries(key, after=0)
        except StoreUnavailable:
            kept = []
        stored = [Event.unpacked(value) for _, value in (*kept, *await self._spare.entries(key, after=0))]
        # An event whose write was given up may be in the store all the same: then it is found twice.
        return [event for _, event in sorted({event.number: event for event in (*stored, *here)}.items())]

    async def flush(self) -> None:
        """Write what is pending."""
        batch, self._pending = self._pending, {}
        if not batch:
            return
        self._writing.append(batch)
        try:
            packed = {key: [event.packed() for event in events] for key, events in batch.items()}
            if not await self._kept(packed):
                await self._spare.append_all(packed, ttl=TTL, keep=KEPT)
        finally:
            self._writing.remove(batch)

    async def _write_on(self) -> None:
        while self._wake is not None:
            await self._wake.wait()
            with anyio.move_on_after(DELAY):
                await self._hurry.wait()
            self._wake, self._hurry = anyio.Event(), anyio.Event()
            await self.flush()

    async def _kept(self, packed: dict[Key, list[bytes]]) -> bool:
        """Give events to the store. Returns whether it has them."""
        if time.monotonic() < self._rest_until:
            return False
        why = f"no answer within {PATIENCE:g} s"
        try:
            with anyio.move_on_after(PATIENCE):
                await self._store.append_all(packed, ttl=TTL, keep=KEPT)
                return True
        except StoreUnavailable as error:
            why = str(error)
        # The sessions go on: only a stream that is cut now cannot be resumed in another process.
        log.warning("gateway.events_not_kept", error=why)
        self._rest_until = time.monotonic() + REST
        return False
