"""What a call costs the store of a fleet, on an established session.

A call waits for nothing; with an idempotency key that its client sends for the first time, it waits for two operations
(the record before it is sent, and its answer). Beside that one event of a legacy client's stream is written, for which
no call waits.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mcpconn.gateway import MemoryStore
from mcpconn.gateway.store import Key
from mcpconn.keys import FIRST, IDEMPOTENCY_KEY
from tests.fleet.conftest import replicas
from tests.fleet.stateful import Stateful
from tests.gateway.questions import serving

pytestmark = pytest.mark.anyio

CALLS = 10
WARM = 4
OPENING = 5
"""Events before the calls, at most: the answers to `initialize` and `tools/list`, and the news that a list has changed,
once for each kind."""
BY_THE_CLOCK = ("replica", "revoked", "ledger", "lists")
"""Groups, without what may follow after a slash, of what replicas do by the clock and after listings, not for calls.
(`ledger/...` is a principal's part of the ledger, and belongs to calls.)"""


class Counting(MemoryStore):
    """Counts the operations on each group of keys."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def of_calls(self) -> Counter[str]:
        """The operations so far that calls asked for."""
        clock = {name for name in self.operations if name in BY_THE_CLOCK or name.startswith("replica/")}
        return Counter({name: count for name, count in self.operations.items() if name not in clock})

    async def get(self, key: Key) -> Any:
        self.operations[key.group] += 1
        return await super().get(key)

    async def put(self, key: Key, value: bytes, *, ttl: float) -> int:
        self.operations[key.group] += 1
        return await super().put(key, value, ttl=ttl)

    async def add(self, key: Key, value: bytes, *, ttl: float, limit: int | None = None) -> int | None:
        self.operations[key.group] += 1
        return await super().add(key, value, ttl=ttl, limit=limit)

    async def swap(self, key: Key, version: int, value: bytes, *, ttl: float) -> int | None:
        self.operations[key.group] += 1
        return await super().swap(key, version, value, ttl=ttl)

    async def delete(self, key: Key, *, version: int | None = None) -> bool:
        self.operations[key.group] += 1
        return await super().delete(key, version=version)

    async def append(self, key: Key, value: bytes, *, ttl: float, keep: int) -> int:
        self.operations[key.group] += 1
        return await super().append(key, value, ttl=ttl, keep=keep)

    async def entries(self, key: Key, *, after: int) -> list[tuple[int, bytes]]:
        self.operations[key.group] += 1
        return await super().entries(key, after=after)


@pytest.mark.parametrize("only", [[0], [0, 1]], ids=["at its owner", "by turns"])
@pytest.mark.parametrize(
    ("meta", "waited"),
    [({}, 0), ({IDEMPOTENCY_KEY: "", FIRST: True}, 2), ({IDEMPOTENCY_KEY: ""}, 3)],
    ids=["no key", "a new key", "a key"],
)
@pytest.mark.parametrize(("mode", "events"), [("auto", 0), ("legacy", 1)], ids=["modern", "legacy"])
async def test_operations_a_call_on_an_established_session(mode, events, meta, waited, only):
    store = Counting()
    async with (
        serving(Stateful()) as url,
        replicas({"s": {"url": url, "mode": "legacy"}}, count=2, store=store) as made,
        made.client(*only, mode=mode) as client,
    ):
        await client.list_tools()

        async def call(name: str) -> None:
            given: Any = {key: value or name for key, value in meta.items()}
            assert not (await client.call_tool("s__remember", {"id": name}, meta=given)).is_error

        for number in range(WARM):
            await call(f"warm {number}")
        before = store.of_calls()
        for number in range(CALLS):
            await call(str(number))
        asked = store.of_calls() - before
    written = sum(count for name, count in asked.items() if name.startswith("events/"))
    # Written behind the calls: those of before may come during the last calls.
    assert written <= events * (OPENING + WARM + CALLS), asked
    assert sum(asked.values()) - written == waited * CALLS, asked
