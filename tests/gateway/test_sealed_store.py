"""A store on another machine, and processes whose sealing keys differ or are being changed."""

from __future__ import annotations

import pytest

from mcpconn.errors import ConfigError
from mcpconn.gateway import MemoryStore
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.requests.keyed import look_up
from mcpconn.gateway.requests.ledger import Ledger
from mcpconn.gateway.requests.ledger_entries import fingerprint_of
from mcpconn.gateway.store import Key, StoreUnavailable
from mcpconn.gateway.store.base import Unreadable
from mcpconn.gateway.store.sealed import SealedStore
from mcpconn.seal import KeyRing

pytestmark = pytest.mark.anyio

OLD, NEW = bytes(32), bytes(range(32))
CALL = fingerprint_of("tools/call", "shop", {"name": "charge"})
ALICE = Principal("alice")
KEY = Key("g", "n")


@pytest.fixture
def shared():
    return MemoryStore()


async def test_what_other_keys_have_sealed_is_reported(shared):
    here, there = SealedStore(shared, KeyRing([OLD])), SealedStore(shared, KeyRing([NEW]))
    await there.put(KEY, b"value", ttl=60)
    assert not here.standing.other_keys
    with pytest.raises(Unreadable):
        await here.get(KEY)
    assert here.standing.other_keys
    assert not there.standing.other_keys


async def test_an_entry_of_other_keys_does_not_hide_the_rest(shared):
    here, there = SealedStore(shared, KeyRing([OLD])), SealedStore(shared, KeyRing([NEW]))
    for store, value in ((here, b"1"), (there, b"2"), (here, b"3")):
        await store.append(KEY, value, ttl=60, keep=10)
    found = await here.entries(KEY, after=0)
    assert [value for _, value in found] == [b"1", b"3"]
    assert [value for _, value in await here.entries(KEY, after=found[0][0])] == [b"3"]


async def test_the_ledger_outlives_a_change_of_keys(shared):
    names = []
    for ring in ([OLD], [OLD, NEW], [NEW, OLD], [NEW]):
        ledger = Ledger(SealedStore(shared, KeyRing(ring)))
        await look_up(ledger, shared=True)
        names.append(await ledger.identity())
    assert len(set(names)) == 1


async def test_a_replica_with_other_keys_does_not_start(shared):
    await Ledger(SealedStore(shared, KeyRing([OLD]))).identity()
    with pytest.raises(ConfigError, match="Give all replicas the same key file"):
        await look_up(Ledger(SealedStore(shared, KeyRing([NEW]))), shared=True)


async def test_a_single_gateway_with_other_keys_starts_without_a_ledger(shared):
    await Ledger(SealedStore(shared, KeyRing([OLD]))).identity()
    ledger = Ledger(SealedStore(shared, KeyRing([NEW])))
    await look_up(ledger, shared=False)
    assert ledger.advertised() is None


async def test_a_record_that_cannot_be_read_may_be_of_a_call_that_ran(shared):
    ledger = Ledger(SealedStore(shared, KeyRing([OLD])))
    entry, _ = await ledger.look(ALICE, "k", CALL)
    await ledger.send(entry)
    other = Ledger(SealedStore(shared, KeyRing([NEW])))
    with pytest.raises(StoreUnavailable):
        await other.look(ALICE, "k", CALL)
    assert other.may_have_sent(ALICE, "k")
