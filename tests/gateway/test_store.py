"""What a store promises, for every store there is."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from mcpconn.errors import ConfigError
from mcpconn.gateway.store import FileStore, Key, MemoryStore, RedisStore, StoreFull, StoreUnavailable
from mcpconn.gateway.store.lease import Lease, Leases
from tests.redis_server import needs_redis, redis_server

pytestmark = pytest.mark.anyio

KEY = Key("group", "name")
START = 1000.0


class Time:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture(scope="module")
def one_server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@asynccontextmanager
async def shared(url: str, time: Time) -> AsyncIterator[RedisStore]:
    """A store on a server that other tests use, too: it has keys of its own."""
    async with RedisStore(f"{url}?prefix={secrets.token_hex(4)}", ahead=lambda: time.now - START) as made:
        yield made


@pytest.fixture(params=["memory", "file", pytest.param("one_server", marks=needs_redis)])
async def store(request, tmp_path, time):
    if request.param == "one_server":
        async with shared(request.getfixturevalue("one_server"), time) as made:
            yield made
    elif request.param == "memory":
        yield MemoryStore(now=time)
    else:
        file = FileStore(tmp_path / "d" / "store.db", wall=time)
        yield file
        await file.aclose()


async def test_what_is_put_is_got(store):
    version = await store.put(KEY, b"one", ttl=10)
    assert await store.get(KEY) == (b"one", version)
    assert await store.get(Key("other", "name")) is None


async def test_only_one_of_two_adds_succeeds(store):
    assert await store.add(KEY, b"one", ttl=10) is not None
    assert await store.add(KEY, b"two", ttl=10) is None
    assert (await store.get(KEY)).value == b"one"


async def test_a_swap_needs_the_present_version(store):
    first = await store.put(KEY, b"one", ttl=10)
    second = await store.swap(KEY, first, b"two", ttl=10)
    assert second is not None
    assert await store.swap(KEY, first, b"three", ttl=10) is None
    assert await store.get(KEY) == (b"two", second)


async def test_a_version_is_never_used_twice(store):
    first = await store.put(KEY, b"one", ttl=10)
    await store.delete(KEY)
    assert await store.add(KEY, b"one", ttl=10) != first
    assert await store.swap(KEY, first, b"two", ttl=10) is None


async def test_delete_says_whether_it_deleted(store):
    version = await store.put(KEY, b"one", ttl=10)
    assert not await store.delete(KEY, version=version + 1)
    assert await store.delete(KEY, version=version)
    assert not await store.delete(KEY)


async def test_what_has_expired_was_never_there(store, time):
    version = await store.put(KEY, b"one", ttl=10)
    time.now += 10
    assert await store.get(KEY) is None
    assert await store.swap(KEY, version, b"two", ttl=10) is None
    assert not await store.delete(KEY)
    assert await store.add(KEY, b"three", ttl=10) is not None


async def test_writing_again_prolongs(store, time):
    await store.put(KEY, b"one", ttl=10)
    time.now += 8
    await store.put(KEY, b"two", ttl=10)
    time.now += 8
    assert (await store.get(KEY)).value == b"two"


async def test_a_full_group_evicts_nothing(store, time):
    for name in "ab":
        assert await store.add(Key("group", name), b"", ttl=10, limit=2)
    with pytest.raises(StoreFull):
        await store.add(Key("group", "c"), b"", ttl=10, limit=2)
    assert await store.add(Key("other", "c"), b"", ttl=10, limit=2)
    assert await store.add(Key("group", "a"), b"", ttl=10, limit=2) is None
    time.now += 10
    assert await store.add(Key("group", "c"), b"", ttl=10, limit=2)


async def test_a_log_is_numbered_and_bounded(store):
    assert [await store.append(KEY, bytes([n]), ttl=10, keep=3) for n in range(5)] == [1, 2, 3, 4, 5]
    assert await store.entries(KEY, after=0) == [(3, b"\2"), (4, b"\3"), (5, b"\4")]
    assert await store.entries(KEY, after=4) == [(5, b"\4")]
    assert await store.entries(Key("group", "other"), after=0) == []


async def test_a_log_expires_as_a_whole(store, time):
    await store.append(KEY, b"one", ttl=10, keep=3)
    time.now += 8
    await store.append(KEY, b"two", ttl=10, keep=3)
    time.now += 8
    assert [value for _, value in await store.entries(KEY, after=0)] == [b"one", b"two"]
    time.now += 10
    assert await store.entries(KEY, after=0) == []


async def test_a_file_outlives_its_process(tmp_path):
    path = tmp_path / "store.db"
    first = FileStore(path)
    version = await first.put(KEY, b"one", ttl=60)
    second = FileStore(path)  # as after SIGKILL: the first was never closed
    assert await second.get(KEY) == (b"one", version)
    assert await second.swap(KEY, version, b"two", ttl=60) is not None
    assert await first.swap(KEY, version, b"three", ttl=60) is None
    await first.aclose()
    await second.aclose()


ADDER = """
import sys, anyio
from mcpconn.gateway.store import FileStore, Key
async def main():
    store = FileStore(sys.argv[1])
    won = 0
    for n in range(100):
        won += await store.add(Key("g", str(n)), b"", ttl=60) is not None
    print(won)
anyio.run(main)
"""


async def test_of_several_processes_one_wins(tmp_path):
    command = [sys.executable, "-c", ADDER, str(tmp_path / "store.db")]

    async def run(results):
        results.append(int((await anyio.run_process(command)).stdout))

    results: list[int] = []
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(run, results)
    assert sum(results) == 100


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
async def test_only_the_owner_can_read_the_file(tmp_path):
    store = FileStore(tmp_path / "d" / "store.db")
    await store.put(KEY, b"secret", ttl=10)
    modes = {each.name: each.stat().st_mode & 0o777 for each in (tmp_path / "d").iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    await store.aclose()


async def test_a_file_that_is_no_store_is_named(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(ConfigError, match=r"store\.db: the store cannot be opened"):
        FileStore(path)


async def test_a_closed_file_says_so(tmp_path):
    store = FileStore(tmp_path / "store.db")
    await store.aclose()
    with pytest.raises(StoreUnavailable):
        await store.get(KEY)


# -- hints


async def test_a_hint_reaches_earlier_subscribers(store):
    await store.publish("channel", b"before")
    async with store.subscribe("channel") as hints:
        await store.publish("other", b"elsewhere")
        await store.publish("channel", b"one")
        await store.publish("channel", b"two")
        with anyio.fail_after(10):
            assert [await hints.__anext__(), await hints.__anext__()] == [b"one", b"two"]


async def test_each_subscriber_gets_each_hint(store):
    async with store.subscribe("channel") as first, store.subscribe("channel") as second:
        await store.publish("channel", b"one")
        with anyio.fail_after(10):
            assert await first.__anext__() == await second.__anext__() == b"one"


async def test_a_slow_subscriber_loses_the_oldest(store):
    async with store.subscribe("channel") as hints:
        for number in range(300):
            await store.publish("channel", b"%d" % number)
        got: list[int] = []
        with anyio.fail_after(10):
            while got[-1:] != [299]:
                got.append(int(await hints.__anext__()))
    assert got == sorted(set(got)), "what comes is in order, and the newest is there"
    # The reader of Redis may be behind when the first is taken: then some that come after it are dropped.
    if not isinstance(store, RedisStore):
        assert got == list(range(300 - 256, 300))


# -- leases


LEASE = Key("leases", "thing")


async def taken(leases: Leases, holder: bytes) -> Lease:
    lease = await leases.take(LEASE, holder, ttl=10)
    assert lease is not None
    return lease


async def test_a_lease_has_one_holder_at_a_time(store, time):
    first, second = Leases(store, now=time), Leases(store, now=time)
    lease = await taken(first, b"a")
    assert lease.held
    assert await second.take(LEASE, b"b", ttl=10) is None
    assert await second.holder(LEASE) == b"a"
    await first.release(lease)
    assert not lease.held
    assert await second.take(LEASE, b"b", ttl=10) is not None


async def test_a_renewed_lease_does_not_expire(store, time):
    leases = Leases(store, now=time)
    lease = await taken(leases, b"a")
    number = lease.number
    for _ in range(5):
        time.now += 8
        assert await leases.renew(lease, ttl=10)
    assert lease.held
    assert lease.number == number
    assert await leases.take(LEASE, b"b", ttl=10) is None


async def test_a_holder_that_slept_knows_it_lost(store, time):
    leases = Leases(store, now=time)
    lease = await taken(leases, b"a")
    time.now += 10
    assert not lease.held, "by its own clock, without asking anybody"
    successor = await taken(leases, b"b")
    assert successor.number > lease.number
    assert not await leases.renew(lease, ttl=10)
    await leases.release(lease)
    assert await leases.holder(LEASE) == b"b", "who lost a lease cannot give up another's"


async def test_a_number_grows_with_each_holder(store, time):
    leases = Leases(store, now=time)
    numbers = []
    for _ in range(5):
        lease = await taken(leases, b"a")
        await leases.renew(lease, ttl=10)
        numbers.append(lease.number)
        await leases.release(lease)
    assert numbers == sorted(set(numbers))


# -- at once


async def test_of_many_swaps_at_once_one_succeeds(store):
    version = await store.put(KEY, b"", ttl=10)
    won = []

    async def swap(value: bytes) -> None:
        if await store.swap(KEY, version, value, ttl=10) is not None:
            won.append(value)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(swap, b"%d" % number)
    assert len(won) == 1
    assert (await store.get(KEY)).value == won[0]


async def test_a_limit_holds_for_adds_at_once(store):
    full = []

    async def add(number: int) -> None:
        try:
            await store.add(Key("group", str(number)), b"", ttl=10, limit=5)
        except StoreFull:
            full.append(number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(add, number)
    assert len(full) == 15


async def test_several_logs_grow_in_one_step(store):
    other = Key("other", "log")
    await store.append(KEY, b"0", ttl=10, keep=3)
    await store.append_all({KEY: [b"1", b"2", b"3"], other: [b"a"]}, ttl=10, keep=3)
    assert await store.entries(KEY, after=0) == [(2, b"1"), (3, b"2"), (4, b"3")]
    assert await store.entries(other, after=0) == [(1, b"a")]
    await store.append_all({other: [b"%d" % number for number in range(5)]}, ttl=10, keep=3)
    assert await store.entries(other, after=0) == [(4, b"2"), (5, b"3"), (6, b"4")]
    assert await store.append(other, b"b", ttl=10, keep=3) == 7


async def test_concurrent_entries_are_all_kept(store):
    numbers = []

    async def append(value: bytes) -> None:
        numbers.append(await store.append(KEY, value, ttl=10, keep=50))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(append, b"%d" % number)
    assert sorted(numbers) == list(range(1, 21))
    assert len(await store.entries(KEY, after=0)) == 20


@pytest.mark.parametrize("value", [b"", b"\0\xff" * 10, b"x" * 300_000], ids=["empty", "binary", "long"])
async def test_a_value_is_any_bytes(store, value):
    await store.put(KEY, value, ttl=10)
    assert (await store.get(KEY)).value == value


@pytest.mark.parametrize("name", ["", "a b", "ü", "{a}:*?[]", "x" * 300, "\n"])
async def test_a_name_is_any_text(store, name):
    key = Key(name, name)
    await store.put(key, b"v", ttl=10)
    assert (await store.get(key)).value == b"v"
    assert await store.get(Key(name, name + "x")) is None
    await store.append(key, b"e", ttl=10, keep=3)
    assert await store.entries(key, after=0) == [(1, b"e")]


async def test_a_version_grows_over_expiry(store, time):
    first = await store.put(KEY, b"one", ttl=10)
    time.now += 100
    await store.get(KEY)
    second = await store.add(KEY, b"two", ttl=10)
    assert second > first


async def test_a_failed_write_spares_the_file(tmp_path):
    store = FileStore(tmp_path / "store.db")
    with pytest.raises(StoreUnavailable):
        await store._run(lambda database: database.execute("no such statement"))
    assert await store.put(KEY, b"one", ttl=10)
    await store.aclose()
