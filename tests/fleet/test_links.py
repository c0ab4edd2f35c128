"""The ways to a store: over TLS, as a user of an ACL, by Sentinels through a failover, with a replica."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from mcpconn.gateway.store import Key, RedisStore, StoreUnavailable
from tests.certificates import Authority
from tests.redis_server import DURABLE, RedisServer, free_port, needs_redis, redis_server

pytestmark = [pytest.mark.anyio, needs_redis]

KEY = Key("group", "name")
MAY = "-@all +@read +@write +@scripting +@pubsub +@connection +info +time +wait +config|get"
ACL = f"user default off\nuser gateway on >secret ~mcpconn:* &mcpconn:* {MAY}\n"
"""As docs/howto/fleet.md has it, without what only a Cluster needs."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


async def works(store: RedisStore) -> None:
    """Whether each kind of operation goes through."""
    version = await store.put(KEY, b"one", ttl=60)
    assert await store.swap(KEY, version, b"two", ttl=60)
    await store.append(KEY, b"entry", ttl=60, keep=3)
    async with store.subscribe("channel") as hints:
        await store.publish("channel", b"hint")
        with anyio.fail_after(10):
            assert await anext(hints) == b"hint"
    assert await store.delete(KEY)


async def test_a_user_of_an_acl_needs_no_more_than_the_page_says(tmp_path):
    (tmp_path / "acl").write_text(ACL)
    (tmp_path / "password").write_text("secret\n")
    with redis_server(tmp_path / "redis", *DURABLE, "--aclfile", str(tmp_path / "acl")) as redis:
        url = f"redis://gateway@127.0.0.1:{redis.port}?password_file={tmp_path / 'password'}"
        async with RedisStore(url) as store:
            await works(store)
            assert store.standing.degraded is None
        async with RedisStore(f"redis://gateway:wrong@127.0.0.1:{redis.port}") as store:
            with pytest.raises(StoreUnavailable) as refused:
                await store.get(KEY)
        assert "wrong" not in str(refused.value).replace("WRONGPASS", "")


async def test_over_tls_the_server_is_checked(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("redis")
    port = free_port()
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(authority.file))
    with redis_server(tmp_path / "redis", *DURABLE, *files, "--tls-auth-clients", "no", "--tls-port", str(port)):
        url = f"rediss://127.0.0.1:{port}"
        async with RedisStore(f"{url}?ca={authority.file}") as store:
            await works(store)
        async with RedisStore(url) as store:
            with pytest.raises(StoreUnavailable, match="certificate verify failed"):
                await store.get(KEY)


@pytest.fixture
def pair(tmp_path):
    """A primary and its replica, which has all that the primary has."""
    with redis_server(tmp_path / "a") as primary:
        following = ("--replicaof", "127.0.0.1", str(primary.port))
        with redis_server(tmp_path / "b", *DURABLE, *following) as replica:
            while "state=online" not in primary.ask("INFO", "replication"):
                pass
            yield primary, replica


async def test_a_write_waits_for_the_replica(pair):
    primary, replica = pair
    async with RedisStore(primary.url) as store:
        await works(store)
        replica.pause()
        with pytest.raises(StoreUnavailable, match="replicas have not acknowledged"):
            await store.put(KEY, b"one", ttl=60)
        replica.resume()
        await works(store)


async def test_sentinels_lead_to_the_primary_through_a_failover(tmp_path, pair):
    first, second = pair
    with sentinel(tmp_path / "s", first) as watch:
        async with RedisStore(f"redis+sentinel://127.0.0.1:{watch.port}/main") as store:
            await works(store)
            before = store.standing.epoch
            assert not store.standing.doubtful(60)
            kept = await store.put(KEY, b"one", ttl=600)
            first.kill()
            watch.ask("SENTINEL", "FAILOVER", "main")
            version = await written(store)
            assert version > kept
            assert second.ask("ROLE").startswith("master")
            assert store.standing.epoch != before
            assert store.standing.doubtful(60), "the new primary may lack what was written last"


async def written(store: RedisStore) -> int:
    """Write until the store takes it."""
    while True:
        try:
            return await store.put(KEY, b"two", ttl=600)
        except StoreUnavailable:
            await anyio.lowlevel.checkpoint()


def sentinel(folder: Path, primary: RedisServer):
    """One Sentinel, which is a majority by itself."""
    folder.mkdir()
    config = folder / "sentinel.conf"
    config.write_text(
        f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds main 500\n"
        "sentinel failover-timeout main 5000\n"
    )
    return redis_server(folder, str(config), "--sentinel")
