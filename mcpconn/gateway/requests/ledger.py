"""The records of calls that must not run twice: at most one run, and its answer afterwards.

A client that puts `mcpconn/idempotencyKey` into a call's `_meta` may send the call again after a lost answer. The
ledger runs it once. For each key of each principal it keeps one record, changed by compare-and-set only:

    (none) --send--> sent --answer--> answered      a repeated request gets the answer
                     sent --drop----> (none)        it certainly did not run: the key is free again
                     sent, and its owner is dead    the outcome is unknown until the record expires

`send` is called after the wait for the server and immediately before the request goes to the transport, so that a call
which was never sent leaves no record. The loser of that race joins the winner. An unexpired record is never evicted: a
full ledger refuses calls with a key. If the store cannot answer, the call is refused too; nothing is guessed.

If the store fails between `send` and the end, the client's answer does not change. The result is kept here, returned to
repeats that reach this process, and written as soon as the store is available.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from mcpconn.gateway.principals import Principal
from mcpconn.gateway.requests.ledger_entries import Entry, Found, LedgerRefused, Outcome, packed, told
from mcpconn.gateway.store import Key, Record, Store, StoreFull, StoreUnavailable
from mcpconn.gateway.store.base import Unreadable
from mcpconn.observe import log

TTL = 3600.0
"""Seconds a record is kept, counted from the end of its call. A client repeats within half of it."""
ANSWER_LIMIT = 256 * 1024
"""Maximum bytes of a stored answer. For a longer one the ledger records only that the tool ran."""
RECORDS = 10_000
"""Records of one principal."""
LONGEST_KEY = 256
"""Characters of an idempotency key."""
LEASE = 3.0
"""Seconds after which a process that has stopped renewing its lease counts as dead."""
LATE = 10.0
"""Seconds for which a write that failed may still arrive at the store: twice its longest time limit."""
LOOK = 0.1
"""Seconds between looks at a call that another process runs."""
REMEMBERED = 20_000
"""Number of keys of sent calls that this process remembers, its own and others, in case the store is unavailable."""
CANCEL_CHANNEL = "ledger/cancel"
"""Where processes tell each other of calls to be cancelled."""


class Superseded(Exception):
    """Another request with this key was sent first. Nothing was sent for this one; it can join the other."""


class Ledger:
    """The ledger of one gateway process, on a store that it may share with others."""

    NAME = Key("ledger", "id")
    """Where the ledger's id is kept."""

    def __init__(
        self,
        store: Store,
        *,
        ttl: float = TTL,
        records: int = RECORDS,
        sleep: Callable[[float], Any] = anyio.sleep,
    ) -> None:
        """
        Args:
            store: Keeps the records.
            ttl: Seconds a record is kept after its call has ended.
            records: Records of one principal; one more is refused.
            sleep: Waits between looks; tests give their own.
        """
        self._store = store
        self.ttl = ttl
        self._records = records
        self._sleep = sleep
        self.owner = secrets.token_hex(8)
        """This process, in the records of what it has sent."""
        self._identity: str | None = None
        self._entries: dict[Key, Entry] = {}
        self._writing: dict[Entry, anyio.Event] = {}
        # Key and token of records that may have been written although nothing was sent, and until when to look for it.
        self._withdrawn: dict[tuple[Key, str], float] = {}
        # Ends that the store did not take yet: the value to write, or None to delete the record.
        self._unwritten: dict[Key, tuple[Entry, bytes | None]] = {}
        # The keys of calls that were sent, by this process or another, and the epoch in which that was last seen.
        self._sent: OrderedDict[Key, str] = OrderedDict()

    async def identity(self) -> str:
        """The ledger's id, which a client sees: the same as long as the store keeps its records."""
        key = self.NAME
        await self._store.add(key, secrets.token_hex(8).encode(), ttl=10 * 365 * 86_400.0)
        record = await self._store.get(key)
        assert record is not None
        if self._identity is None:
            # Sealed again, with the present first key: after a change of keys the old one is dropped some day.
            await self._store.swap(key, record.version, record.value, ttl=10 * 365 * 86_400.0)
        self._identity = record.value.decode("ascii")
        return self._name(self._identity)

    def _name(self, identity: str) -> str:
        # After a loss it is another ledger: who repeats a call that was sent before is told that it may have run.
        epoch = self._store.standing.epoch
        return f"{identity}.{epoch}" if epoch else identity

    def advertised(self) -> dict[str, Any] | None:
        """The ledger's description for clients; None if there is none, or until the store has answered once."""
        if self._identity is None or self._store.standing.unfit is not None:
            return None
        return {"id": self._name(self._identity), "ttl": self.ttl}

    async def own(self) -> None:
        """Keep this process's lease, for as long as it runs. Calls it has sent are `unknown` once the lease ends.

        Writes down, too, what the store did not take before.
        """
        while True:
            began = time.monotonic()
            try:
                await self._store.put(self._lease(self.owner), b"", ttl=LEASE)
                if self._identity is None:
                    await self.identity()
                for place in tuple(self._unwritten):
                    await self._write_end(place)
                for place, _ in tuple(self._withdrawn):
                    await self._withdraw(place)
            except StoreUnavailable as error:
                log.warning("gateway.store_unavailable", error=str(error))
            # A store may take seconds to answer: its time counts, or the lease would end between two renewals.
            await self._sleep(max(0.0, began + LEASE / 3 - time.monotonic()))

    async def alive(self, owner: str) -> bool:
        """Whether a process is still running according to its lease.

        Raises:
            StoreUnavailable: it cannot be known.
        """
        return await self._store.get(self._lease(owner)) is not None

    async def obey(self) -> None:
        """Cancel what other processes ask this one to cancel, for as long as it runs."""
        while True:
            try:
                async with self._store.subscribe(CANCEL_CHANNEL) as hints:
                    async for hint in hints:
                        group, _, name = hint.decode("utf-8", "replace").partition(" ")
                        self._cancel(Key(group, name))
            except StoreUnavailable:
                await self._sleep(LEASE)

    async def cancel(self, principal: Principal, key: str) -> bool:
        """Cancel a running call, here or in another process. Returns whether there is one."""
        place = self._place(principal, key)
        if self._cancel(place):
            return True
        record = await self._store.get(place)
        if record is None or not (owner := json.loads(record.value).get("owner")) or owner == self.owner:
            return False
        await self._store.publish(CANCEL_CHANNEL, f"{place.group} {place.name}".encode())
        return True

    def _cancel(self, place: Key) -> bool:
        entry = self._entries.get(place)
        if entry is None or entry.cancel is None:
            return False
        entry.cancel()
        return True

    def may_have_sent(self, principal: Principal, key: str) -> bool:
        """Whether a call with this key was sent, as far as this process remembers."""
        return self._place(principal, key) in self._sent

    @staticmethod
    def _place(principal: Principal, key: str) -> Key:
        return Key(f"ledger/{principal.digest}", hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest())

    @property
    def epoch(self) -> str:
        """The store's, as far as this process knows: another one later means that records may have been lost."""
        return self._store.standing.epoch

    async def look(
        self, principal: Principal, key: str, fingerprint: str, *, word: str | None = None, unseen: bool = False
    ) -> tuple[Entry, Found]:
        """What is known about a call before it is run. A running call is awaited.

        Args:
            principal: Who calls. Another principal's use of the same key is another call.
            key: The client's idempotency key.
            fingerprint: Of what is called (see `fingerprint_of`).
            word: The `epoch` in which the request arrived whose client says that it sends the call for the first time,
                or that of the ledger that had the call from the start. Then a record that is missing was not lost
                before that epoch. Once it is over the word means nothing: meanwhile the same call may have come to
                another process, and its record may be what was lost. None: the client has not said so.
            unseen: It says so, and nothing contradicts it. Then the store is not asked: `send` adds the record, and
                raises `Superseded` if there is one after all.

        Raises:
            LedgerRefused: the key was used for another call, or is no key.
            StoreUnavailable: nothing is known; nothing may be run.
        """
        self._check()
        if not 0 < len(key) <= LONGEST_KEY:
            raise LedgerRefused(f"an idempotency key has 1 to {LONGEST_KEY} characters")
        place = self._place(principal, key)
        while True:
            if unseen and word == self.epoch and place not in self._sent and place not in self._entries:
                return Entry(place, fingerprint, word), Found(Outcome.NEW)
            if (unwritten := self._unwritten.get(place)) is not None:
                if (value := unwritten[1]) is not None:
                    return Entry(place, fingerprint), told(json.loads(value), fingerprint)
                await self._write_end(place)
            await self._withdraw(place)
            epoch = self.epoch
            try:
                record = await self._store.get(place)
            except Unreadable:
                # A process with other keys has written it: the call may have run there.
                self._remember(place, epoch)
                raise
            if record is None:
                if (running := self._entries.get(place)) is not None:
                    # The store has lost its record. Its answer is written all the same, and found by the next look.
                    if (asked := running.told(fingerprint)) is not None:
                        return running, asked
                    await running.changed.wait()
                    continue
                entry = Entry(place, fingerprint, self.epoch)
                # A record that was seen in this epoch was deleted by its owner, because the call did not run.
                lost = word != entry.epoch or self._sent.get(place, entry.epoch) != entry.epoch
                if lost and self._store.standing.doubtful(self.ttl):
                    return entry, Found(Outcome.UNKNOWN)
                self._sent.pop(place, None)
                return entry, Found(Outcome.NEW)
            self._remember(place, epoch)
            found = await self._read(place, record, fingerprint)
            if found is not None:
                return Entry(place, fingerprint), found

    def _check(self) -> None:
        if (why := self._store.standing.unfit) is not None:
            raise StoreUnavailable(f"no ledger is kept in this store, because {why}")

    async def _read(self, place: Key, record: Record, fingerprint: str) -> Found | None:
        """What a record says; None after a wait for the call that it is about."""
        content = json.loads(record.value)
        known = told(content, fingerprint)
        if content["state"] == "answered" or not content["owner"]:
            return known
        if content["owner"] == self.owner:
            written = next((event for each, event in self._writing.items() if each.key == place), None)
            if written is not None:
                await written.wait()
                return None
            entry = self._entries.get(place)
            if entry is None or entry.version != record.version:
                # It ended between the two looks, or its end could not be written.
                fresh = await self._store.get(place)
                return known if fresh == record and place not in self._unwritten else None
            if (asked := entry.told(fingerprint)) is not None:
                return asked
            await entry.changed.wait()
            return None
        if not await self.alive(content["owner"]):
            # The record may have been written after it was read, in the last moment of its owner.
            return known if await self._store.get(place) == record else None
        await self._sleep(LOOK)
        return None

    async def send(self, entry: Entry) -> None:
        """The request goes to the transport now. Calling it again for a retry of the same call changes nothing.

        Raises:
            Superseded: another sent it first: send nothing, and look again.
            StoreFull: the ledger is full.
            StoreUnavailable: the record may or may not have been written; nothing may be sent.
        """
        if entry.version is not None:
            return
        self._check()
        await self._write_sent(entry)
        if entry.version is None:
            raise Superseded
        if self.epoch != entry.epoch:
            # Another process may have written the same key since the look, and the store may have lost that.
            entry.version = None
            self._not_sent(entry)
            await self._withdraw(entry.key)
            raise Superseded
        self._entries[entry.key] = entry
        self._remember(entry.key, entry.epoch)

    def _remember(self, place: Key, epoch: str) -> None:
        self._sent[place] = epoch
        self._sent.move_to_end(place)
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)

    async def _write_sent(self, entry: Entry) -> None:
        # A request that comes meanwhile waits for this, because the record may exist already although its owner is not
        # yet known.
        self._writing[entry] = written = anyio.Event()
        entry.token = secrets.token_hex(8)
        content = {"state": "sent", "fingerprint": entry.fingerprint, "owner": self.owner, "token": entry.token}
        try:
            # The record outlives the longest call by far; its end resets the expiry.
            entry.version = await self._store.add(entry.key, packed(content), ttl=2 * self.ttl, limit=self._records)
        except StoreFull:
            raise
        except BaseException:
            # Failed or cancelled: nothing is sent, but the record may be there. Left alone, it would say "sent" in the
            # name of a process that runs, and requests at other processes would wait for its end.
            self._not_sent(entry)
            raise
        finally:
            del self._writing[entry]
            written.set()

    def _not_sent(self, entry: Entry) -> None:
        self._withdrawn[entry.key, entry.token] = time.monotonic() + LATE

    async def _withdraw(self, place: Key) -> None:
        """Delete the record of a call that was not sent although its record was, or may have been, written."""
        for key, token in [each for each in self._withdrawn if each[0] == place]:
            record = await self._store.get(place)
            if record is not None and json.loads(record.value).get("token") == token:
                await self._store.delete(place, version=record.version)
            elif time.monotonic() < self._withdrawn.get((key, token), 0.0):
                # The write may still be on its way to a store that is slow.
                continue
            self._withdrawn.pop((key, token), None)

    async def answer(self, entry: Entry, answer: Mapping[str, Any]) -> None:
        """The call was answered: by a result, a tool's own error, or an error of the server's application."""
        content: dict[str, Any] = {"state": "answered", "fingerprint": entry.fingerprint, "answer": answer}
        value = packed(content)
        if len(value) > ANSWER_LIMIT:
            value = packed({**content, "answer": None})
        await self._close(entry, value)

    async def unknown(self, entry: Entry) -> None:
        """The call was sent, and no answer will come: it may have run."""
        await self._close(entry, packed({"state": "sent", "fingerprint": entry.fingerprint, "owner": ""}))

    async def drop(self, entry: Entry) -> None:
        """It is certain that the call did not run: its key is free again."""
        await self._close(entry, None)

    async def _close(self, entry: Entry, value: bytes | None) -> None:
        """Write the end of a call. Never raises, because the call's outcome does not depend on it."""
        if entry.version is None:
            return
        self._unwritten[entry.key] = (entry, value)
        try:
            await self._write_end(entry.key)
        except StoreUnavailable as error:
            log.warning("gateway.ledger_not_written", call=entry.key.name, error=str(error))
        finally:
            if self._entries.get(entry.key) is entry:
                del self._entries[entry.key]
            entry.end()

    async def _write_end(self, place: Key) -> None:
        entry, value = self._unwritten.get(place, (None, None))
        if entry is None:
            # Another task has written it meanwhile.
            return
        assert entry.version is not None
        if value is None:
            await self._store.delete(place, version=entry.version)
            self._sent.pop(place, None)
        else:
            # If an earlier attempt was written although it failed, the version is another one: nothing to do. If the
            # store has lost the record, the end is added.
            if await self._store.swap(place, entry.version, value, ttl=self.ttl) is None:
                await self._store.add(place, value, ttl=self.ttl)
        if self._unwritten.get(place) == (entry, value):
            del self._unwritten[place]

    @staticmethod
    def _lease(owner: str) -> Key:
        return Key("ledger", f"owner/{owner}")
