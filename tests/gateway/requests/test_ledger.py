"""A call with a key runs once, whatever happens between its sending and its answer."""

from __future__ import annotations

from time import monotonic
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mcpconn.gateway.principals import Principal
from mcpconn.gateway.requests.ledger import ANSWER_LIMIT, Ledger, Superseded
from mcpconn.gateway.requests.ledger_entries import LedgerRefused, Outcome, fingerprint_of
from mcpconn.gateway.store import MemoryStore, StoreFull, StoreUnavailable
from mcpconn.redis.standing import Standing

pytestmark = pytest.mark.anyio

ALICE, BOB = Principal("alice"), Principal("bob")
CALL = fingerprint_of("tools/call", "shop", {"name": "charge", "arguments": {"a": 1, "b": 2}})
ANSWER: dict[str, Any] = {"result": {"content": []}}


class Time:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def store(time):
    return MemoryStore(now=time)


@pytest.fixture
def ledger(store, time):
    return Ledger(store, ttl=100, sleep=time.sleep)


async def sent(ledger, key="k", principal=ALICE, fingerprint=CALL):
    entry, found = await ledger.look(principal, key, fingerprint)
    assert found.outcome is Outcome.NEW
    await ledger.send(entry)
    return entry


async def look(ledger, key="k", principal=ALICE, fingerprint=CALL):
    return (await ledger.look(principal, key, fingerprint))[1]


async def test_an_answer_is_given_again(ledger):
    await ledger.answer(await sent(ledger), ANSWER)
    found = await look(ledger)
    assert (found.outcome, found.answer) == (Outcome.ANSWERED, ANSWER)


async def test_of_two_senders_one_wins(ledger, store, time):
    other = Ledger(store, ttl=100, sleep=time.sleep)
    first, _ = await ledger.look(ALICE, "k", CALL)
    second, _ = await other.look(ALICE, "k", CALL)
    await ledger.send(first)
    with pytest.raises(Superseded):
        await other.send(second)
    await ledger.send(first)  # a retry of the same call


async def test_who_comes_during_a_call_joins_it(ledger):
    entry = await sent(ledger)
    results = []

    async def join():
        results.append(await look(ledger))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(join)
        await anyio.wait_all_tasks_blocked()
        assert results == []
        await ledger.answer(entry, ANSWER)
    assert [each.answer for each in results] == [ANSWER] * 3


class Deaf(MemoryStore):
    """Its answers can be lost, or late, after a write was done."""

    lost = 0
    held: anyio.Event | None = None

    async def add(self, key, value, *, ttl, limit=None):
        version = await super().add(key, value, ttl=ttl, limit=limit)
        if self.held is not None:
            await self.held.wait()
        if self.lost:
            self.lost -= 1
            raise StoreUnavailable("the answer was lost")
        return version


async def test_who_comes_while_the_record_is_written_joins(time):
    store = Deaf(now=time)
    ledger = Ledger(store, ttl=100, sleep=time.sleep)
    entry, _ = await ledger.look(ALICE, "k", CALL)
    store.held = anyio.Event()
    results = []

    async def join():
        results.append(await look(ledger))

    async with anyio.create_task_group() as group:
        group.start_soon(ledger.send, entry)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(join)
        await anyio.wait_all_tasks_blocked()
        assert results == []
        store.held.set()
        await anyio.wait_all_tasks_blocked()
        await ledger.answer(entry, ANSWER)
    assert results[0].answer == ANSWER


@pytest.mark.parametrize("how", ["its answer is lost", "it is cancelled"])
async def test_a_record_of_what_was_not_sent_is_withdrawn(time, how):
    store = Deaf(now=time)
    ledger, other = Ledger(store, ttl=100, sleep=time.sleep), Ledger(store, ttl=100, sleep=time.sleep)
    entry, _ = await ledger.look(ALICE, "k", CALL)
    await store.put(ledger._lease(ledger.owner), b"", ttl=1000)
    if how == "it is cancelled":
        store.held = anyio.Event()
        with anyio.move_on_after(0) as late:
            await ledger.send(entry)
        assert late.cancelled_caught
        store.held = None
    else:
        store.lost = 1
        with pytest.raises(StoreUnavailable):
            await ledger.send(entry)
    assert await store.get(entry.key) is not None
    async with anyio.create_task_group() as group:
        # Otherwise the other process would wait for a call that nobody makes, for as long as this one runs.
        group.start_soon(ledger.own)
        with anyio.fail_after(5):
            assert (await look(other)).outcome is Outcome.NEW
        group.cancel_scope.cancel()


async def test_the_same_process_may_send_what_it_could_not_write(time):
    store = Deaf(now=time)
    ledger = Ledger(store, ttl=100, sleep=time.sleep)
    entry, _ = await ledger.look(ALICE, "k", CALL)
    store.lost = 1
    with pytest.raises(StoreUnavailable):
        await ledger.send(entry)
    await ledger.answer(await sent(ledger), ANSWER)
    assert (await look(ledger)).answer == ANSWER


async def test_a_call_of_another_process_is_joined(ledger, store, time):
    other = Ledger(store, ttl=100, sleep=time.sleep)
    entry = await sent(ledger)
    await store.put(ledger._lease(ledger.owner), b"", ttl=50)
    async with anyio.create_task_group() as group:

        async def answer():
            while time.now < 1:
                await anyio.lowlevel.checkpoint()
            await ledger.answer(entry, ANSWER)

        group.start_soon(answer)
        assert (await look(other)).answer == ANSWER


async def test_a_dead_owner_leaves_the_unknown(ledger, store, time):
    await sent(ledger)
    await store.put(ledger._lease(ledger.owner), b"", ttl=3)
    other = Ledger(store, ttl=100, sleep=time.sleep)
    assert (await look(other)).outcome is Outcome.UNKNOWN
    assert 3 <= time.now < 4


class Forgetful(MemoryStore):
    """It loses its records when it fails over."""

    standing = Standing(epoch="e0")

    def fail_over(self):
        self._records.clear()
        self.standing = Standing(epoch="e1", began=monotonic())


class TestFirstTime:
    """A client says that it sends a call for the first time, and the store fails over."""

    @pytest.fixture
    def store(self, time):
        return Forgetful(now=time)

    async def test_it_is_believed_in_the_epoch_in_which_it_is_said(self, ledger, store):
        store.fail_over()
        assert (await look(ledger)).outcome is Outcome.UNKNOWN
        entry, found = await ledger.look(ALICE, "k", CALL, word="e1", unseen=True)
        assert found.outcome is Outcome.NEW
        await ledger.send(entry)

    async def test_another_may_have_run_and_been_lost_before_the_call_is_sent(self, ledger, store):
        entry, _ = await ledger.look(ALICE, "k", CALL, word="e0", unseen=True)
        store.fail_over()
        with pytest.raises(Superseded):
            await ledger.send(entry)
        assert (await ledger.look(ALICE, "k", CALL, word="e0"))[1].outcome is Outcome.UNKNOWN

    async def test_another_that_is_joined_is_lost_although_it_runs(self, ledger, store, time):
        other = Ledger(store, ttl=100, sleep=time.sleep)
        await sent(other)
        await store.put(other._lease(other.owner), b"", ttl=50)
        async with anyio.create_task_group() as group:

            async def fail_over():
                while time.now < 1:
                    await anyio.lowlevel.checkpoint()
                store.fail_over()

            group.start_soon(fail_over)
            assert (await ledger.look(ALICE, "k", CALL, word="e0"))[1].outcome is Outcome.UNKNOWN
        assert ledger.may_have_sent(ALICE, "k"), "if the store cannot be asked next time"

    async def test_another_that_did_not_run_leaves_the_key_free(self, ledger, store, time):
        store.fail_over()
        other = Ledger(store, ttl=100, sleep=time.sleep)
        entry, _ = await other.look(ALICE, "k", CALL, word="e1")
        await other.send(entry)
        await store.put(other._lease(other.owner), b"", ttl=50)
        async with anyio.create_task_group() as group:

            async def drop():
                while time.now < 1:
                    await anyio.lowlevel.checkpoint()
                await other.drop(entry)

            group.start_soon(drop)
            assert (await ledger.look(ALICE, "k", CALL, word="e1"))[1].outcome is Outcome.NEW
        assert not ledger.may_have_sent(ALICE, "k")


class TestLostWhileItRuns:
    """The store fails over and loses the record of a call that runs in this process."""

    @pytest.fixture
    def store(self, time):
        return Forgetful(now=time)

    async def test_a_copy_that_says_it_is_the_first_joins_it(self, ledger, store):
        entry = await sent(ledger)
        store.fail_over()
        async with anyio.create_task_group() as group:

            async def answer():
                await anyio.wait_all_tasks_blocked()
                await ledger.answer(entry, ANSWER)

            group.start_soon(answer)
            _, found = await ledger.look(ALICE, "k", CALL, word="e1", unseen=True)
        assert (found.outcome, found.answer) == (Outcome.ANSWERED, ANSWER)

    async def test_its_answer_reaches_a_repeat_in_another_process(self, ledger, store, time):
        entry = await sent(ledger)
        store.fail_over()
        await ledger.answer(entry, ANSWER)
        assert (await look(Ledger(store, ttl=100, sleep=time.sleep))).answer == ANSWER

    async def test_another_call_with_its_key_is_refused(self, ledger, store):
        await sent(ledger)
        store.fail_over()
        with pytest.raises(LedgerRefused, match="another call"):
            await ledger.look(ALICE, "k", "another", word="e1")

    async def test_a_key_that_was_seen_before_is_not_new_again(self, ledger, store, time):
        other = Ledger(store, ttl=100, sleep=time.sleep)
        await other.answer(await sent(other), ANSWER)
        assert (await look(ledger)).outcome is Outcome.ANSWERED
        store.fail_over()
        _, found = await ledger.look(ALICE, "k", CALL, word="e1", unseen=True)
        assert found.outcome is Outcome.UNKNOWN


async def test_an_unknown_outcome_stays_unknown(ledger, time):
    await ledger.unknown(await sent(ledger))
    assert (await look(ledger)).outcome is Outcome.UNKNOWN
    time.now += 99
    assert (await look(ledger)).outcome is Outcome.UNKNOWN


async def test_what_did_not_run_may_be_sent_again(ledger):
    await ledger.drop(await sent(ledger))
    await sent(ledger)


async def test_only_the_writer_can_drop_a_record(ledger):
    first = await sent(ledger)
    await ledger.drop(first)
    await sent(ledger)
    await ledger.drop(first)  # late: it must not free the other's record
    entry, _ = await ledger.look(BOB, "k", CALL)
    assert entry.version is None
    assert await ledger._store.get(first.key) is not None


async def test_a_record_expires_after_its_call(ledger, time):
    entry = await sent(ledger)
    time.now += 150
    await ledger.answer(entry, ANSWER)
    time.now += 99
    assert (await look(ledger)).outcome is Outcome.ANSWERED
    time.now += 2
    assert (await look(ledger)).outcome is Outcome.NEW


async def test_a_key_is_its_principals_own(ledger):
    await ledger.answer(await sent(ledger), ANSWER)
    assert (await look(ledger, principal=BOB, fingerprint="another")).outcome is Outcome.NEW


async def test_a_key_names_one_call(ledger):
    await ledger.answer(await sent(ledger), ANSWER)
    with pytest.raises(LedgerRefused, match="another call"):
        await look(ledger, fingerprint="another")


@pytest.mark.parametrize("key", ["", "x" * 257])
async def test_a_key_has_a_length(ledger, key):
    with pytest.raises(LedgerRefused, match="1 to 256"):
        await look(ledger, key)


async def test_a_full_ledger_refuses_and_forgets_nothing(store, time):
    ledger = Ledger(store, ttl=100, records=2, sleep=time.sleep)
    for key in "ab":
        await ledger.answer(await sent(ledger, key), ANSWER)
    entry, _ = await ledger.look(ALICE, "c", CALL)
    with pytest.raises(StoreFull):
        await ledger.send(entry)
    assert (await look(ledger, "a")).answer == ANSWER
    await sent(ledger, principal=BOB)


async def test_a_long_answer_is_remembered_without_its_text(ledger):
    await ledger.answer(await sent(ledger), {"result": {"text": "x" * ANSWER_LIMIT}})
    assert (await look(ledger)).outcome is Outcome.ANSWER_LOST


async def test_the_ledger_keeps_its_name(ledger, store):
    assert await ledger.identity() == await Ledger(store).identity()
    assert await ledger.identity() != await Ledger(MemoryStore()).identity()


def test_a_fingerprint_is_of_what_is_called():
    same = {"arguments": {"b": 2, "a": 1}, "name": "charge", "_meta": {"x": 1}}
    assert fingerprint_of("tools/call", "shop", same) == CALL
    for other in ({"name": "charge", "arguments": {"a": 1}}, {**same, "requestState": "s"}, {**same, "name": "other"}):
        assert fingerprint_of("tools/call", "shop", other) != CALL
    assert fingerprint_of("tools/call", "other", same) != CALL
