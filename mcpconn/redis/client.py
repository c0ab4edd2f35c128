"""The one module that knows `coredis`: its clients, their commands and their errors.

It relies on this behaviour of coredis 6.9: a client is an asynchronous context manager that lives in the task that
entered it, and can be used by any task meanwhile; a request that is cancelled leaves its connection usable;
`ensure_replication` sends WAIT on the connection of the write. Two things are guarded against: a retry policy would run
a script a second time after a lost answer, so there is none; and an attempt to connect that is cancelled, or fails at
the Sentinels, permanently uses up a place in the pool, so a client that has failed is replaced as a whole (see `link`).
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
"""Maximum number of connections (in a Cluster, to each node). Requests share them, so a few carry thousands a
second."""

# coredis logs each failed attempt to connect with its traceback. mcpconn logs one line instead. Without this handler,
# Python would print the library's records as well.
logging.getLogger("coredis").addHandler(logging.NullHandler())

GONE = (LostConnection, SentinelError, RedisClusterError, ReadOnlyError, TimeoutError, OSError, RuntimeError)
"""Errors after which a client is replaced, because its connections or its knowledge of the servers are out of date."""
REFUSED = (RedisError,)
"""Errors that concern one command only."""
NOT_REPLICATED = ReplicationError


def client_of(address: Address) -> AbstractAsyncContextManager[Client]:
    """A client for an address, to be entered by the task that owns it.

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
    """Run a script, and wait until `copies` replicas have acknowledged its writes.

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
            # The server was restarted, or is a primary that has never run the script. Nothing was executed.
            return await client.eval(script.text, keys, arguments)


async def load(client: Client, scripts: Iterable[Script]) -> None:
    """Load scripts into the server, so that none has to be sent a second time with its text."""
    async with anyio.create_task_group() as group:
        for script in scripts:
            group.start_soon(_load, client, script)


async def _load(client: Client, script: Script) -> None:
    await client.script_load(script.text)


async def facts(client: Client) -> list[dict[str, str]]:
    """The INFO of each primary, and its settings if it reveals them."""
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
        # Managed services and tight ACLs forbid CONFIG. INFO has everything except appendfsync.
        return said
    return said | {_text(name): _text(value) for name, value in settings.items()}


async def listen(client: Client, channel: str, heard: Callable[[], None]) -> None:
    """Call `heard` when the subscription to a channel has been requested, and for each message, until it is lost.

    It uses a connection of its own, which is closed afterwards. (coredis's own class for this does not end cleanly when
    cancelled on trio, and reconnects without notice.)
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
