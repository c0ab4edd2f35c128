"""Many connections at once: how fast they start, what they weigh, what they cost while nobody calls."""

from __future__ import annotations

import gc
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from benchmarks.apart import child, rss
from benchmarks.measure import Report, ratio
from benchmarks.recovery import listed
from benchmarks.servers import running
from mcpconn import Manager, Policy, State

FLEET = 1000
AT_ONCE = 50
"""Bare clients opened at once; more than a listener's queue would only wait for each other's retries."""
PATIENT = Policy(dials_per_origin=64)
"""All connections of a benchmark go to one server, which stands for many."""


# -- start


async def start(quick: bool) -> Report:
    """A hundred servers, one of them hanging and one refusing."""
    report = Report()
    good = 18 if quick else 98
    with running("scripted", count=good) as servers, _hanging() as hanging, _refusing() as refusing:
        sides: dict[str, Callable[[], Awaitable[float]]] = {
            "ours": lambda: _start_manager([*servers.urls, hanging, refusing], good),
            "bare": lambda: _start_bare(servers.urls),
            # What is left of a bare client's start where it does not make a TLS context of its own.
            "frugal": lambda: _start_bare(servers.urls, tls=httpx2.create_ssl_context()),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(2 if quick else 6):
            for name in sorted(sides, reverse=turn % 2 == 1):
                gc.collect()
                times[name].append(await sides[name]())
    report.compare(
        f"start of {good + 2} servers, one hanging, one refusing: {good} ready, against {good} bare clients",
        ratio(times["ours"], times["bare"]),
        target=0.12,
    )
    report.compare("the same, against bare clients that share one TLS context", ratio(times["ours"], times["frugal"]))
    return report


async def _start_manager(urls: list[str], good: int) -> float:
    began = time.perf_counter()
    ready = anyio.Event()
    seen = 0

    def count(change: Any) -> None:
        nonlocal seen
        seen += change.target is State.READY
        if seen >= good:
            ready.set()

    manager = Manager({f"s{number}": {"url": url, "drain_timeout": 0.2} for number, url in enumerate(urls)})
    manager.subscribe(count)
    async with manager:
        await ready.wait()
        return time.perf_counter() - began


async def _start_bare(urls: list[str], tls: ssl.SSLContext | None = None) -> float:
    began = time.perf_counter()
    async with AsyncExitStack() as stack:
        clients: list[Client] = []

        async def connect(url: str, *, task_status: Any) -> None:
            async with AsyncExitStack() as own:
                clients.append(await own.enter_async_context(Client(await bare_server(url, tls, own))))
                task_status.started()
                await over.wait()

        over = anyio.Event()
        group = await stack.enter_async_context(anyio.create_task_group())
        async with anyio.create_task_group() as together:
            for url in urls:
                together.start_soon(group.start, connect, url)
        took = time.perf_counter() - began
        over.set()
    return took


async def bare_server(url: str, tls: ssl.SSLContext | None, stack: AsyncExitStack) -> Any:
    """What to give a bare client: the URL, or a transport whose TLS context is not its own."""
    if tls is None:
        return url
    http = await stack.enter_async_context(httpx2.AsyncClient(verify=tls, timeout=60))
    return streamable_http_client(url, http_client=http)


class _hanging:
    """A server that takes connections and says nothing."""

    def __enter__(self) -> str:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(64)
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/mcp"

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class _refusing(_hanging):
    """An address if nobody listens."""

    def __enter__(self) -> str:
        url = super().__enter__()
        self._socket.close()
        return url


# -- memory and idle cost


@asynccontextmanager
async def ready(url: str, count: int) -> AsyncIterator[tuple[Manager, float]]:
    """Connections of one manager, ready and listed, and the bytes that each of them holds."""
    before = rss()
    async with Manager({f"s{number}": {"url": url} for number in range(count)}, policy=PATIENT) as manager:
        await manager.wait_ready()
        for connection in manager.values():
            await listed(connection)
        yield manager, (rss() - before) / count


async def ours_ready(url: str, count: int, idle: float = 0.0) -> dict[str, float]:
    """The weight of connections, and what they cost while nobody calls."""
    async with ready(url, count) as (manager, weight):
        used = 0.0
        if idle:
            # The server closes the sockets of the handshakes after a while; that is not what is asked here.
            await anyio.sleep(5)
            began = time.process_time()
            await anyio.sleep(idle)
            used = (time.process_time() - began) / idle
        assert all(connection.state is State.READY for connection in manager.values())
    return {"bytes": weight, "cpu": used}


async def bare_ready(url: str, count: int, *, frugal: bool = False) -> dict[str, float]:
    """The same number of bare clients; frugal ones share one TLS context."""
    tls = httpx2.create_ssl_context() if frugal else None
    before = rss()
    slots = anyio.CapacityLimiter(AT_ONCE)
    over = anyio.Event()
    open_now = 0
    everybody = anyio.Event()

    async def connect() -> None:
        nonlocal open_now
        async with AsyncExitStack() as stack:
            async with slots:
                client = await stack.enter_async_context(Client(await bare_server(url, tls, stack)))
                await client.list_tools()
            open_now += 1
            if open_now == count:
                everybody.set()
            await over.wait()

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(connect)
        await everybody.wait()
        weight = (rss() - before) / count
        over.set()
    return {"bytes": weight}


async def memory(quick: bool) -> Report:
    """A thousand ready connections in one process, against a thousand bare clients; and their idle cost."""
    report = Report()
    count = 100 if quick else FLEET
    with running("scripted") as servers:
        ours = child(__name__, "ours_ready", url=servers.url, count=count, idle=3 if quick else 10)
    with running("scripted") as servers:
        bare = child(__name__, "bare_ready", url=servers.url, count=count)
    with running("scripted") as servers:
        frugal = child(__name__, "bare_ready", url=servers.url, count=count, frugal=True)
    for name, other, target in (
        (f"memory of {count} ready HTTP connections, against bare clients", bare, 0.10),
        ("the same, against bare clients that share one TLS context", frugal, None),
    ):
        report.add(
            name,
            ours["bytes"] / other["bytes"],
            "x",
            target=target,
            note=f"{ours['bytes'] / 1024:.0f} KiB a connection against {other['bytes'] / 1024:.0f} KiB",
        )
    report.add(f"idle cost of {count} ready connections", ours["cpu"] * 100, "% of a core", target=0.5)
    return report


GROUPS: dict[str, Callable[[bool], Any]] = {"start": start, "memory": memory}
