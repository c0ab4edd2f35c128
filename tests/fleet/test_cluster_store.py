"""The promises of a store, kept by Redis on both event loops, and by a cluster of three."""

from __future__ import annotations

import pytest

from mcpconn.gateway.fleet.revocations import KEPT
from mcpconn.redis.records import log_keys
from mcpconn.redis.scripts import Script
from tests.gateway import test_store as promises
from tests.gateway.test_store import KEY, Time, shared
from tests.redis_server import needs_redis, redis_cluster, redis_server

pytestmark = [pytest.mark.anyio, needs_redis]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    """The store works on both, although the gateway is served on asyncio alone."""
    return request.param


@pytest.fixture(scope="module")
def one_server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield f"redis+cluster://127.0.0.1:{nodes[0].port}"


@pytest.fixture
def time():
    return Time()


@pytest.fixture(params=["one_server", "cluster"])
async def store(request, time):
    async with shared(request.getfixturevalue(request.param), time) as made:
        yield made


FILL = Script("""
for number = 2, tonumber(ARGV[2]) do redis.call('RPUSH', KEYS[2], number) end
redis.call('HSET', KEYS[1], 'last', ARGV[2])
return {string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')}
""")
"""Appends to a log that has one entry until it has as many as asked for; one by one they would take 10 s."""


async def test_the_longest_log_is_read_whole(store):
    await store.append(KEY, b"1", ttl=60, keep=KEPT)
    await store.link.run(FILL, log_keys(store.link, *KEY), KEPT)
    assert await store.entries(KEY, after=0) == [(number, b"%d" % number) for number in range(1, KEPT + 1)]
    assert await store.entries(KEY, after=KEPT - 1) == [(KEPT, b"%d" % KEPT)]


# Each promise once more, by the name that it has there.
globals().update(
    {
        name: promise
        for name, promise in vars(promises).items()
        if name.startswith("test_") and "store" in promise.__code__.co_varnames[: promise.__code__.co_argcount]
    }
)
