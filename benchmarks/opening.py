"""Sessions that are opened: many at the start, and a new one after the server has forgotten the last.

The floor is the SDK's client with a TLS context that all clients share, told the era. Beside the time there is the
processor time of the client's process, which other work on the machine changes less.
"""

from __future__ import annotations

import gc
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx2
from mcp import Client

from benchmarks.calls import ARGUMENTS, warm, work
from benchmarks.fleet import bare_server
from benchmarks.measure import Report, alternate, ratio
from benchmarks.recovery import FORGETFUL
from benchmarks.servers import one, running
from mcpconn import Connection, Manager, Policy, State

CONNECTIONS = 300
AT_ONCE = 64
"""Dials at once: the manager's limit, allowed here for one origin too."""
POLICY = Policy(dials_per_origin=AT_ONCE)
WAITING = 100
"""Calls that wait for one recovery."""


async def opening(quick: bool) -> Report:
    """Three hundred connections, to as many servers and to one."""
    report = Report()
    many = 40 if quick else CONNECTIONS
    tls = httpx2.create_ssl_context()
    for servers_count, target in ((many, 1.0), (1, 1.3)):
        with running("scripted", count=servers_count) as servers:
            urls = (servers.urls * many)[:many]
            sides = {"ours": partial(_ours, urls), "bare": partial(_bare, urls, tls)}
            took: dict[str, list[float]] = {name: [] for name in sides}
            spent: dict[str, list[float]] = {name: [] for name in sides}
            for turn in range(4 if quick else 8):
                for name in sorted(sides, reverse=turn % 2 == 1):
                    gc.collect()
                    processor = time.process_time()
                    took[name].append(await sides[name]())
                    spent[name].append(time.process_time() - processor)
        to = "as many servers" if servers_count > 1 else "one server"
        report.compare(
            f"start of {many} connections to {to}, the era unknown", ratio(took["ours"], took["bare"]), target=target
        )
        report.compare("the same, start and end: processor time", ratio(spent["ours"], spent["bare"]))
    return report


async def _ours(urls: list[str]) -> float:
    began = time.perf_counter()
    async with Manager({f"s{number}": {"url": url} for number, url in enumerate(urls)}, policy=POLICY) as manager:
        await manager.wait_ready()
        took = time.perf_counter() - began
        assert all(connection.state.value == "ready" for connection in manager.values())
    return took


async def _bare(urls: list[str], tls: ssl.SSLContext) -> float:
    began = time.perf_counter()
    slots = anyio.CapacityLimiter(AT_ONCE)
    over, everybody = anyio.Event(), anyio.Event()
    left = len(urls)

    async def connect(url: str) -> None:
        nonlocal left
        async with AsyncExitStack() as stack:
            async with slots:
                await stack.enter_async_context(_client(url, tls))
            left -= 1
            if not left:
                everybody.set()
            await over.wait()

    async with anyio.create_task_group() as group:
        for url in urls:
            group.start_soon(connect, url)
        await everybody.wait()
        took = time.perf_counter() - began
        over.set()
    return took


@asynccontextmanager
async def _client(url: str, tls: ssl.SSLContext) -> AsyncIterator[Client]:
    async with AsyncExitStack() as stack:
        transport = await bare_server(url, tls, stack)
        yield await stack.enter_async_context(Client(transport, mode="legacy"))


async def reopening(quick: bool) -> Report:
    """A call on an expired session, alone and with a hundred others, against a new session and the call."""
    report = Report()
    tls = httpx2.create_ssl_context()
    with one("scripted") as servers:
        async with Connection({"url": servers.url, "mode": "legacy"}, policy=FORGETFUL) as ours:
            await warm(ours)

            async def again() -> None:
                async with _client(servers.url, tls) as client:
                    await client.call_tool("add", ARGUMENTS)

            async def forget() -> None:
                # The last recovery opens its event stream beside its call. That must not be a part of the next one.
                await anyio.wait_all_tasks_blocked()
                servers.ask("forget")

            sides = {"ours": work(ours), "bare": again}
            took = await alternate(sides, calls=40 if quick else 320, rounds=8, before=forget)
            report.compare(
                "recovery of an expired session, against a new session and the call",
                ratio(took["ours"], took["bare"]),
                target=1.05,
            )
            await _crowd(report, ours, forget, quick)
    return report


async def _crowd(report: Report, ours: Connection, forget: Callable[[], Awaitable[None]], quick: bool) -> None:
    """A hundred calls that wait while the session is opened anew, and a hundred that were all sent on the old one.

    What a hundred calls cost by themselves is measured on a live session.
    """
    last: dict[str, list[float]] = {"waiting": [], "sent": [], "live": [], "one": []}

    async def call() -> None:
        await ours.call_tool("add", ARGUMENTS)

    async def together(count: int, *, wait: bool = False) -> float:
        began = time.perf_counter()
        async with anyio.create_task_group() as group:
            if wait:
                # The call that finds the session expired.
                group.start_soon(call)
                while ours.state is State.READY:
                    await anyio.lowlevel.checkpoint()
            for _ in range(count):
                group.start_soon(call)
        return time.perf_counter() - began

    for _ in range(4 if quick else 16):
        last["live"].append(await together(WAITING))
        await forget()
        last["one"].append(await together(1))
        await forget()
        last["waiting"].append(await together(WAITING, wait=True))
        await forget()
        last["sent"].append(await together(WAITING))
    alone = [live + one for live, one in zip(last["live"], last["one"], strict=True)]
    report.compare(
        f"recovery while {WAITING} calls wait: the last answered, against one recovery and {WAITING} calls",
        ratio(last["waiting"], alone),
        target=1.3,
    )
    report.compare("the same, against the recovery of one call", ratio(last["waiting"], last["one"]))
    report.compare(
        f"{WAITING} calls that were all sent on the expired session, and are sent again", ratio(last["sent"], alone)
    )


GROUPS: dict[str, Callable[[bool], Any]] = {"opening": opening, "reopening": reopening}
