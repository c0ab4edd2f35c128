"""What a call costs, against `mcp.Client`: in process, over loopback HTTP, and with many callers at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
from mcp import Client
from mcp.server import MCPServer

from benchmarks.measure import Ratio, Report, Work, alternate, ratio, shares
from benchmarks.servers import one
from mcpconn import Connection

ARGUMENTS = {"a": 1, "b": 2}
CALLERS = 50
SERVERS = (("scripted", "json"), ("sdk", "json"), ("sdk", "sse"))
ERAS = {"legacy": "legacy", "modern": "auto"}
"""The SDK's connect mode for each era."""


def adder() -> MCPServer:
    """A server with one tool, to be run in this process."""
    server = MCPServer("benchmark", log_level="WARNING")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return server


def work(client: Any) -> Work:
    """One call."""
    return lambda: client.call_tool("add", ARGUMENTS)


async def warm(*clients: Any) -> None:
    """Let everything that happens only once happen."""
    for client in clients:
        for _ in range(30):
            await client.call_tool("add", ARGUMENTS)


async def in_process(quick: bool) -> Report:
    """A call of a server in this process."""
    report = Report()
    server = adder()
    async with Client(server) as bare, Connection(server) as ours:
        await warm(bare, ours)
        took = await alternate({"bare": work(bare), "ours": work(ours)}, calls=400 if quick else 4000, rounds=8)
        report.notes.append(f"A call of a server in this process, both ends of it: {await shares(work(ours), 300)}.")
    found = ratio(took["ours"], took["bare"])
    report.compare("a call, in-process server", found, target=1.05)
    report.add("a call, in-process server: more", found.more * 1e6, "µs", target=25.0)
    report.series["overhead"] = [["in process", found.theirs, found.ours]]
    return report


async def loopback(quick: bool) -> Report:
    """A call over HTTP, with both engines."""
    report = Report()
    overhead: list[list[Any]] = []
    for kind, answer in SERVERS:
        for era, mode in ERAS.items():
            direct, httpx = await _over_http(kind, answer, era, mode, quick)
            where = f"{kind} server, {era}, {answer}"
            # The server's own time is the same on both sides; only where it is small can the client's be halved.
            bound = 0.75 if kind == "scripted" else 1.0
            for engine, found, target in (("default", direct, bound), ("httpx", httpx, None)):
                report.compare(f"a call, {where}, {engine} engine", found, target=target)
            overhead.append([where, direct.theirs, direct.ours, httpx.ours])
    report.notes += await _profiles()
    report.series["overhead"] = overhead
    return report


async def _profiles() -> list[str]:
    """Where a client's time goes: the bare one's, and ours with either engine."""
    notes = []
    with one("scripted") as servers:
        async with (
            Client(servers.url, mode="legacy") as bare,
            Connection({"url": servers.url, "mode": "legacy"}) as direct,
            Connection({"url": servers.url, "mode": "legacy", "engine": "httpx"}) as httpx,
        ):
            await warm(bare, direct, httpx)
            for name, client in (("`mcp.Client`", bare), ("mcpconn", direct), ("mcpconn with httpx2", httpx)):
                notes.append(f"A call over HTTP, {name}: {await shares(work(client), 200)}.")
    return notes


async def _over_http(kind: str, answer: str, era: str, mode: str, quick: bool) -> tuple[Ratio, Ratio]:
    with one(kind, answer, era) as servers:
        async with AsyncExitStack() as stack:
            bare = await stack.enter_async_context(Client(servers.url, mode=mode))
            direct, httpx = [
                await stack.enter_async_context(Connection({"url": servers.url, "mode": mode, "engine": engine}))
                for engine in ("direct", "httpx")
            ]
            await warm(bare, direct, httpx)
            took = await alternate(
                {"bare": work(bare), "direct": work(direct), "httpx": work(httpx)},
                calls=200 if quick else 2000,
                rounds=8,
            )
    return ratio(took["direct"], took["bare"]), ratio(took["httpx"], took["bare"])


async def throughput(quick: bool) -> Report:
    """Many callers at once on one connection."""
    report = Report()
    calls = 500 if quick else 3000
    for kind, answer in SERVERS[:2]:
        for era, mode in ERAS.items():
            with one(kind, answer, era) as servers:
                async with (
                    Client(servers.url, mode=mode) as bare,
                    Connection({"url": servers.url, "mode": mode}) as ours,
                ):
                    await warm(bare, ours)
                    rates: dict[str, list[float]] = {"bare": [], "ours": []}
                    for turn in range(6):
                        sides = [("bare", bare), ("ours", ours)]
                        for name, client in sides if turn % 2 else reversed(sides):
                            rates[name].append(await rate(work(client), calls // 6))
            ratios = [mine / other for mine, other in zip(rates["ours"], rates["bare"], strict=True)]
            ours_rate, bare_rate = statistics.median(rates["ours"]), statistics.median(rates["bare"])
            report.add(
                f"throughput, {CALLERS} callers, {kind} server, {era}",
                statistics.median(ratios),
                "x",
                least=1.0,
                note=f"{ours_rate:.0f} calls/s against {bare_rate:.0f}",
                spread=(min(ratios), max(ratios)),
            )
    return report


async def rate(call: Work, calls: int) -> float:
    """Calls a second, with many callers."""
    left = calls

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(caller)
    return calls / (time.perf_counter() - began)


GROUPS: dict[str, Callable[[bool], Any]] = {
    "in-process": in_process,
    "loopback": loopback,
    "throughput": throughput,
}
