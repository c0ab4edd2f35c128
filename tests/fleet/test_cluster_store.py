"""The promises of a store, kept by Redis on both event loops, and by a cluster of three."""

from __future__ import annotations

import pytest

from tests.gateway import test_store as promises
from tests.gateway.test_store import Time, shared
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


# Each promise once more, by the name that it has there.
globals().update(
    {
        name: promise
        for name, promise in vars(promises).items()
        if name.startswith("test_") and "store" in promise.__code__.co_varnames[: promise.__code__.co_argcount]
    }
)
