"""A sealed session id is its principal's, its view's, and good for a time; everything else is no session."""

from __future__ import annotations

import pytest

from mcpconn.gateway.clients import session_ids
from mcpconn.gateway.clients.session_ids import LIFETIME, LONGEST_ID, Opened, Session, SessionIds
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.store import MemoryStore
from mcpconn.seal import KeyRing

pytestmark = pytest.mark.anyio

ALICE, BOB = Principal("key:alice"), Principal("key:bob")
OLD, NEW = b"o" * 32, b"n" * 32
PARAMS = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


class Wall:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture
def store():
    return MemoryStore()


def ids(store, wall, *secrets: bytes, view: str = "") -> SessionIds:
    return SessionIds(view, KeyRing(secrets or (OLD,)).sealer("session"), store, wall=wall)


def alices(wall: Wall, params=PARAMS) -> Opened:
    return Opened.of(Session("sid", ALICE, ""), wall(), params)


async def test_an_id_is_opened_in_another_process(store, wall):
    text = await ids(store, wall).make(alices(wall))
    opened = ids(store, wall).open(text, ALICE)
    assert opened == alices(wall)
    assert await ids(store, wall).params(opened) == PARAMS


async def test_a_foreign_id_is_no_session(store, wall):
    text = await ids(store, wall).make(alices(wall))
    assert ids(store, wall).open(text, BOB) is None
    assert ids(store, wall, view="calm").open(text, ALICE) is None
    assert ids(store, wall, NEW).open(text, ALICE) is None


async def test_an_expired_id_is_no_session(store, wall):
    text = await ids(store, wall).make(alices(wall))
    wall.now += LIFETIME - 1
    assert ids(store, wall).open(text, ALICE) is not None
    wall.now += 1
    assert ids(store, wall).open(text, ALICE) is None


async def test_an_id_that_was_opened_before_is_judged_anew(store, wall, monkeypatch):
    monkeypatch.setattr(session_ids, "OPENED", 2)
    text = await ids(store, wall).make(alices(wall))
    here = ids(store, wall)
    for _ in range(3):
        assert here.open(text, ALICE) == alices(wall)
        assert here.open(text, BOB) is None
    # Many others do not cost it its session, and do not stay in memory.
    for _ in range(5):
        assert here.open(await here.make(alices(wall)), ALICE) is not None
    assert len(here._opened) == 2
    assert here.open(text, ALICE) == alices(wall)
    wall.now += LIFETIME
    assert here.open(text, ALICE) is None


async def test_a_deleted_id_is_no_session_anywhere(store, wall):
    made = ids(store, wall)
    text = await made.make(alices(wall))
    opened = made.open(text, ALICE)
    assert opened is not None
    await made.delete(opened)
    other = ids(store, wall)
    assert await other.deleted(opened)
    assert await other.params(opened) is None


async def test_rotated_keys_lose_no_session(store, wall):
    before = await ids(store, wall, OLD).make(alices(wall))
    during = await ids(store, wall, OLD, NEW).make(alices(wall))
    after = await ids(store, wall, NEW, OLD).make(alices(wall))
    for text in (before, during):
        assert ids(store, wall, NEW, OLD).open(text, ALICE) is not None
    assert ids(store, wall, OLD, NEW).open(after, ALICE) is not None


async def test_what_is_long_is_in_the_store(store, wall):
    long = {**PARAMS, "clientInfo": {"name": "x" * 10_000, "version": "1"}}
    text = await ids(store, wall).make(alices(wall, long))
    assert len(text) < LONGEST_ID
    opened = ids(store, wall).open(text, ALICE)
    assert opened is not None
    assert opened.params is None
    assert await ids(store, wall).params(opened) == long
