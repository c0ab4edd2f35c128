"""The one module that knows `coredis`: its clients, their commands and their errors.

What is relied on (coredis 6.9): a client is an asynchronous context manager that lives in the task which entered it,
and is used by any task meanwhile; a request that is cancelled leaves its connection usable; `ensure_replication` sends
WAIT on the connection of the write. Two things are guarded against: a retry policy would run a script a second time
after a lost answer, so there is none; and an attempt to connect that is cancelled, or fails at the Sentinels, takes a
place of the pool with it, so a client that has failed is replaced as a whole (see `link`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from typing import Any, TypeAlias

import anyio
import coredis
from coredis.connection import TCPLocation
from coredis.exceptions import (
    ConnectionError as LostConnection,
)
from coredis.exceptions import (
    NoScriptError,
    ReadOnlyError,
    RedisClusterError,
    RedisError,
    ReplicationError,
    SentinelError,
)
from coredis.retry import NoRetryPolicy

from mcpconn.redis.address import Address
from mcpconn.redis.scripts import Script

Client: TypeAlias = "coredis.Redis[bytes] | coredis.RedisCluster[bytes]"

CONNECT_TIMEOUT = 5.0
"""Seconds for a TCP and TLS handshake."""
CONNECTIONS = 32
"""Connections at most, in a Cluster to each node. Requests share them, so a few carry thousands a second."""

# coredis logs each failed attempt to connect with its traceback. Here it becomes one line that says what it means;
# without a handler of its own, Python would print the library's as well.
logging.getLogger("coredis").addHandler(logging.NullHandler())

GONE = (LostConnection, SentinelError, RedisClusterError, ReadOnlyError, TimeoutError, OSError, RuntimeError)
"""Errors after which a client is replaced: its connections, or what it knows of the servers, are out of date."""
REFUSED = (RedisError,)
"""What a server says of one command."""
NOT_REPLICATED = ReplicationError


def client_of(address: Address) -> AbstractAsyncContextManager[Client]:
    """A client for an address, to be entered by the task that keeps it.

    Raises:
        ConfigError: the certificates of the address cannot be used.
    """
    settings: dict[str, Any] = {
        "username": address.user,
        "password": address.password,
        "ssl_context": address.ssl_context(),
        "connect_timeout": CONNECT_TIMEOUT,
        "retry_policy": NoRetryPolicy(),
    }
    nodes = [TCPLocation(host, port) for host, port in address.hosts]
    if address.kind == "cluster":
        return coredis.RedisCluster(
            startup_nodes=nodes, max_connections=CONNECTIONS, max_connections_per_node=True, **settings
        )
    settings |= {"db": address.database, "max_connections": CONNECTIONS}
    if address.kind == "sentinel":
        return _by_sentinels(address, nodes, settings)
    return coredis.Redis(nodes[0].host, nodes[0].port, **settings)


@asynccontextmanager
async def _by_sentinels(address: Address, nodes: list[TCPLocation], settings: dict[str, Any]) -> AsyncIterator[Client]:
    policy = settings.pop("retry_policy")
    asking = {
        "username": address.sentinel_user,
        "password": address.sentinel_password,
        "ssl_context": settings["ssl_context"],
        "connect_timeout": CONNECT_TIMEOUT,
    }
    sentinel: coredis.Sentinel[bytes] = coredis.Sentinel(nodes, sentinel_kwargs=asking, retry_policy=policy, **settings)
    async with sentinel, sentinel.primary_for(address.service) as client:
        yield client


async def run(
    client: Client, script: Script, keys: list[str], arguments: Iterable[Any], *, copies: int, wait: int
) -> Any:
    """Run a script, and wait until so many replicas have what it wrote.

    Args:
        client: An entered client.
        script: The script.
        keys: Its keys, all of one slot.
        arguments: Its arguments.
        copies: Replicas that must have acknowledged the write.
        wait: Milliseconds to wait for them.
    """
    arguments = list(arguments)
    with client.ensure_replication(copies, wait) if copies else nullcontext():
        try:
            return await client.evalsha(script.sha, keys, arguments)
        except NoScriptError:
            # A server that was restarted, or a primary that never ran it. Nothing has happened.
            return await client.eval(script.text, keys, arguments)


async def load(client: Client, scripts: Iterable[Script]) -> None:
    """Have a server know scripts by their names, so that no request has to be sent twice."""
    async with anyio.create_task_group() as group:
        for script in scripts:
            group.start_soon(_load, client, script)


async def _load(client: Client, script: Script) -> None:
    await client.script_load(script.text)


async def facts(client: Client) -> list[dict[str, str]]:
    """What each primary says of itself in INFO, and of its settings as far as it tells them."""
    if isinstance(client, coredis.RedisCluster):
        found = []
        for node in client.primaries:
            async with node as each:
                found.append(await _facts(each))
        return found
    return [await _facts(client)]


async def _facts(client: coredis.Redis[bytes]) -> dict[str, str]:
    said = {str(name): str(value) for name, value in (await client.info()).items()}
    try:
        settings = await client.config_get(["appendonly", "appendfsync", "maxmemory-policy"])
    except RedisError:
        # Managed services and tight ACLs forbid CONFIG. INFO says all but appendfsync.
        return said
    return said | {_text(name): _text(value) for name, value in settings.items()}


async def listen(client: Client, channel: str, heard: Callable[[], None]) -> None:
    """Call `heard` when the subscription to a channel is asked for, and for each message of it, until it is lost.

    It has a connection of its own, which is given up afterwards. (coredis's own class for it does not end cleanly when
    it is cancelled on trio, and reconnects behind our back.)
    """
    async with client.connection_pool.acquire() as connection:
        try:
            connection.send_command(b"SUBSCRIBE", channel.encode())
            heard()
            async with aclosing(connection.push_messages) as messages:
                async for _ in messages:
                    heard()
        except LostConnection:
            pass
        finally:
            connection.invalidate()


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
