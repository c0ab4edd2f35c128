"""Ten thousand ready connections in one process, to real servers in processes of their own, and an outage of all.

The floor is the SDK's client with one TLS context for all. A bare client keeps a second socket, so the system's limit
on descriptors may allow fewer of them; the figures are for each connection.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from operator import truediv
from typing import Any

import anyio
import anyio.to_thread
import httpx2
from mcp import Client

from benchmarks.apart import child, raise_file_limit, rss
from benchmarks.calls import ARGUMENTS
from benchmarks.fleet import bare_server
from benchmarks.measure import Report
from benchmarks.servers import Servers, running
from mcpconn import Manager, Policy, State

FLEET = 10_000
PROCESSES = 4
EACH = 8
"""Servers in each process. More than the dials at once, divided by those to one origin."""
AT_ONCE = 64
"""Dials at once, of ours and of the bare clients."""
POLICY = Policy(dials=AT_ONCE, dials_per_origin=8)
FEW = 100
SETTLE = 7.0
"""Seconds until the sockets of the handshakes are closed, by either side."""
IDLE = 20.0
AWAY = 5.0
CALLERS = 10
ROUNDS = 4
IN_ORDER = 20
"""Calls that wait for one connection during the outage."""


@contextmanager
def servers() -> Iterator[list[Servers]]:
    """The server processes."""
    with ExitStack() as stack:
        yield [stack.enter_context(running("scripted", count=EACH)) for _ in range(PROCESSES)]


async def rate(count: int) -> float:
    """Calls a second, if there are not many connections."""
    with servers() as found:
        urls = [url for each in found for url in each.urls]
        entries = {f"s{number}": {"url": urls[number % len(urls)]} for number in range(count)}
        async with Manager(entries, policy=POLICY) as manager:
            await manager.wait_ready()
            await anyio.sleep(SETTLE)
            return await _rate(manager, list(manager))


async def ours(count: int, idle: float) -> dict[str, Any]:
    """Start, weight, idle cost, calls, and the outage."""
    with servers() as found:
        urls = [url for each in found for url in each.urls]
        before = rss()
        began = time.perf_counter()
        entries = {f"s{number}": {"url": urls[number % len(urls)]} for number in range(count)}
        async with Manager(entries, policy=POLICY) as manager:
            await manager.wait_ready()
            start = time.perf_counter() - began
            weight, cost = await _rest(before, count, idle)
            names = list(manager)
            some, few = await _alternately(manager, names[:: max(1, count // FEW)][:FEW])
            every = await _rate(manager, names)
            return {
                "start": start,
                "bytes": weight,
                "cpu": cost,
                "rate": some,
                "few": few,
                "every": every,
                **await _outage(manager, found),
            }


async def bare(count: int, idle: float) -> dict[str, Any]:
    """The same of the SDK's clients, as far as they can do it."""
    # Two sockets each, and some descriptors for everything else.
    count = min(count, (raise_file_limit() - 500) // 2)
    tls = httpx2.create_ssl_context()
    with servers() as found:
        urls = [url for each in found for url in each.urls]
        before = rss()
        began = time.perf_counter()
        async with _clients(urls, count, tls):
            start = time.perf_counter() - began
            weight, cost = await _rest(before, count, idle)
        return {"start": start * FLEET / count, "bytes": weight, "cpu": cost, "count": count}


@asynccontextmanager
async def _clients(urls: list[str], count: int, tls: Any) -> AsyncIterator[None]:
    slots, over, everybody = anyio.CapacityLimiter(AT_ONCE), anyio.Event(), anyio.Event()
    left = count

    async def connect(url: str) -> None:
        nonlocal left
        async with AsyncExitStack() as stack:
            async with slots:
                await stack.enter_async_context(Client(await bare_server(url, tls, stack), mode="legacy"))
            left -= 1
            if not left:
                everybody.set()
            await over.wait()

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(connect, urls[number % len(urls)])
        await everybody.wait()
        yield
        over.set()


async def _rest(before: int, count: int, idle: float) -> tuple[float, float]:
    """Bytes of each connection, and the share of a core that all of them use while nobody calls."""
    await anyio.sleep(SETTLE)
    weight = (rss() - before) / count
    began = time.process_time()
    await anyio.sleep(idle)
    return weight, (time.process_time() - began) / idle


async def _rate(manager: Manager, names: list[str]) -> float:
    """Calls a second, over these connections in turn. The first round, which opens sockets, does not count if there is
    a second."""
    turn = 0

    async def caller(until: int) -> None:
        nonlocal turn
        while turn < until:
            turn += 1
            await manager.call_tool(names[turn % len(names)], "add", ARGUMENTS)

    rates = []
    for _ in range(4):
        turn, began, calls = 0, time.perf_counter(), 500
        async with anyio.create_task_group() as group:
            for _ in range(CALLERS):
                group.start_soon(caller, calls)
        rates.append(calls / (time.perf_counter() - began))
    return statistics.median(rates[1:])


async def _alternately(manager: Manager, names: list[str]) -> tuple[list[float], list[float]]:
    """Calls a second over these connections, in turn with as many that are alone in a process. A machine's pace changes
    within the minute that many connections take to start."""
    many, few = [], []
    for _ in range(ROUNDS):
        few.append(await anyio.to_thread.run_sync(lambda: child(__name__, "rate", count=len(names))))
        many.append(await _rate(manager, names))
    return many, few


async def _outage(manager: Manager, found: list[Servers]) -> dict[str, Any]:
    """All servers go away; how long it takes until 99 % are ready after they are back."""
    count, back, enough = len(manager), 0.0, anyio.Event()
    ready: set[str] = set()
    times: list[float] = []
    answered: list[int] = []

    def seen(change: Any) -> None:
        if change.target is State.READY and change.server not in ready:
            ready.add(change.server)
            times.append(time.monotonic())
            if len(ready) >= count * 0.99:
                enough.set()

    async def call(name: str, number: int | None = None) -> None:
        await manager.call_tool(name, "add", ARGUMENTS, timeout=500, idempotent=True)
        if number is not None:
            answered.append(number)

    for each in found:
        each.ask("stop")
    async with anyio.create_task_group() as group:
        # An idle connection learns of an outage from its next call.
        for name in manager:
            group.start_soon(call, name)
        for number in range(IN_ORDER):
            group.start_soon(call, "s0", number)
        await anyio.sleep(AWAY)
        manager.subscribe(seen)
        back = max(each.ask("start") for each in found)
        with anyio.fail_after(400):
            await enough.wait()
    return {"back": times[int(count * 0.99) - 1] - back, "first": times[0] - back, "order": answered}


async def ten_thousand(quick: bool) -> Report:
    """Each side in a process of its own, one after the other."""
    report = Report()
    count, idle = (FLEET // 50, 3.0) if quick else (FLEET, IDLE)
    mine = child(__name__, "ours", count=count, idle=idle)
    theirs = child(__name__, "bare", count=count, idle=idle)
    many = f"{count:,} ready connections"
    report.add(
        f"memory of {many}, against bare clients that share one TLS context",
        mine["bytes"] / theirs["bytes"],
        "x",
        target=1.10,
        note=f"{mine['bytes'] / 1024:.0f} KiB each against {theirs['bytes'] / 1024:.0f} of {theirs['count']:,}",
    )
    report.add(
        f"idle cost of {many}, against bare clients",
        mine["cpu"] / theirs["cpu"],
        "x",
        target=1.10,
        note=f"{mine['cpu'] * 100:.2g} % of a core against {theirs['cpu'] * 100:.2g} of {theirs['count']:,}",
    )
    report.add(
        f"calls/s over {FEW} of {many}, against {FEW} of {FEW}",
        statistics.median(map(truediv, mine["rate"], mine["few"])),
        "x",
        least=0.9,
        note=f"{statistics.median(mine['rate']):.0f} against {statistics.median(mine['few']):.0f}; over all of them, "
        f"each on a new socket, {mine['every']:.0f}",
    )
    report.add(
        f"outage of {many}: 99 % ready again, against their start with the same dial limits",
        mine["back"] / mine["start"],
        "x",
        target=1.5,
        note=f"{mine['back']:.1f} s against {mine['start']:.1f} s; the first after {mine['first']:.2g} s",
    )
    in_order = sum(one < other for one, other in zip(mine["order"], mine["order"][1:], strict=False)) + 1
    report.add("the same: calls that waited, answered in order", in_order, f"of {IN_ORDER}", least=IN_ORDER)
    report.add("the same start, against bare clients", mine["start"] / theirs["start"], "x")
    return report


GROUPS: dict[str, Callable[[bool], Any]] = {"ten_thousand": ten_thousand}
