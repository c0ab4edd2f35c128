"""What it costs to recover: requests and time, alone and in a stampede, and after an outage."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp_types.version import LATEST_HANDSHAKE_VERSION

from benchmarks.calls import ARGUMENTS, warm, work
from benchmarks.measure import Report, Work, alternate, ratio, shares, span
from benchmarks.servers import one, running
from mcpconn import Connection, Manager, Policy

CROWD = 1000
OUTAGE = 5.0
"""Seconds for which the servers are away."""
FORGETFUL = Policy(proven_after=0.001)
"""For servers that are made to forget their sessions repeatedly: without it that would be noticed, and dialling
slowed down."""
CATALOGUE = {"tools/list", "resources/list", "resources/templates/list", "prompts/list"}
"""Listed beside the first calls of a session; nobody waits for it."""


async def listed(connection: Connection) -> None:
    """Return when the catalogue is that of the current session. From then on each session lists it."""
    await connection.catalog.ensure()


async def expired(quick: bool) -> Report:
    """A call on an expired session: its requests, and its time against what a user would write by hand."""
    report = Report()
    with one("scripted") as servers:
        async with (
            Connection({"url": servers.url, "mode": "legacy"}, policy=FORGETFUL) as ours,
            httpx2.AsyncClient(timeout=None) as http,
        ):
            await warm(ours)
            await listed(ours)
            servers.ask("requests")
            servers.ask("forget")
            await work(ours)()
            await listed(ours)
            # The event stream of the new session is opened beside the calls, too.
            path = [seen for seen in servers.ask("requests") if seen not in CATALOGUE | {"GET", "DELETE"}]
            report.add(
                "recovery, expired session: requests to the answer",
                len(path),
                "",
                target=4,
                least=4,
                note=", ".join(path),
            )

            async def forget() -> None:
                # The listing of the last recovery must neither be timed nor be refused.
                await listed(ours)
                servers.ask("forget")

            took = await alternate(
                {
                    "ours": work(ours),
                    "by hand": lambda: by_hand(servers.url),
                    "requests": lambda: four_requests(http, servers.url),
                },
                calls=40 if quick else 320,
                rounds=8,
                before=forget,
            )
            live = await alternate({"live": work(ours)}, calls=400, rounds=8)
            report.notes.append(
                f"Recovery of an expired session, on the client's side: {await shares(work(ours), 50, before=forget)}. "
                f"A call on a live session takes {span(statistics.median(live['live']))}, the four requests by "
                f"themselves {span(statistics.median(took['requests']))}."
            )
    against_hand, against_requests = ratio(took["ours"], took["by hand"]), ratio(took["ours"], took["requests"])
    report.compare("recovery, expired session: time against a new bare client", against_hand, target=0.35)
    report.compare("recovery, expired session: time against its four bare requests", against_requests, target=1.3)
    report.series["recovery"] = {"expired session": against_hand.ours, "the same by hand": against_hand.theirs}
    return report


async def by_hand(url: str) -> None:
    """What one would write: the call has failed, so make a new client and call again."""
    async with Client(url, mode="legacy") as client:
        await client.call_tool("add", ARGUMENTS)


async def four_requests(http: httpx2.AsyncClient, url: str) -> None:
    """The bytes of a recovery, and nothing else: refused, initialize, initialized, answered."""
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}

    async def post(session: str | None, method: str, params: Any = None, number: int | None = 1) -> httpx2.Response:
        message = {"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})}
        if number is not None:
            message["id"] = number
        extra = {"mcp-session-id": session, "mcp-protocol-version": LATEST_HANDSHAKE_VERSION} if session else {}
        return await http.post(url, content=json.dumps(message), headers={**headers, **extra})

    call = {"name": "add", "arguments": ARGUMENTS}
    assert (await post("forgotten", "tools/call", call)).status_code == 404
    hello = {
        "protocolVersion": LATEST_HANDSHAKE_VERSION,
        "capabilities": {},
        "clientInfo": {"name": "bare", "version": "1"},
    }
    session = (await post(None, "initialize", hello)).headers["mcp-session-id"]
    await post(session, "notifications/initialized", number=None)
    assert b'"result"' in (await post(session, "tools/call", call)).content


async def restarted(quick: bool) -> Report:
    """The modern era: a server restarted between two calls."""
    report = Report()
    with one("scripted", era="modern") as servers:
        async with Connection({"url": servers.url}) as ours:
            await warm(ours)
            await listed(ours)
            most, times = [], []
            for _ in range(5 if quick else 30):
                servers.ask("stop")
                servers.ask("start")
                servers.ask("requests")
                began = time.perf_counter()
                await work(ours)()
                times.append(time.perf_counter() - began)
                most.append([seen for seen in servers.ask("requests") if seen not in CATALOGUE])
    worst = max(most, key=len)
    report.add(
        "recovery, modern era, server restarted: requests to the answer",
        len(worst),
        "",
        target=2,
        note=f"{', '.join(worst)}; {span(statistics.median(times))} at the median",
    )
    report.series["recovery"] = {"restarted, modern era": statistics.median(times)}
    return report


async def stampede(quick: bool) -> Report:
    """A thousand calls at once on an expired session."""
    report = Report()
    crowd = 200 if quick else CROWD
    live: list[float] = []
    dead: list[float] = []
    handshakes: list[float] = []
    ends: list[float] = []
    initializes, least = 0, crowd
    with one("scripted") as servers:
        async with Connection({"url": servers.url, "mode": "legacy"}, policy=FORGETFUL) as ours:
            await warm(ours)
            await listed(ours)
            for turn in range(3 if quick else 7):
                live_ends = await together(work(ours), crowd)
                live.append(live_ends[-1])
                servers.ask("requests")
                servers.ask("forget")
                ends = await together(work(ours), crowd)
                dead.append(ends[-1])
                least = min(least, len(ends))
                await listed(ours)
                initializes = max(initializes, Counter(servers.ask("requests"))["initialize"])
                began = time.perf_counter()
                await ours.reconnect()
                handshakes.append(time.perf_counter() - began)
                await listed(ours)
                if turn == 0:
                    live.clear()
                    dead.clear()
    report.add(f"stampede of {crowd}: calls of initialize", initializes, "", target=1, least=1)
    report.add(f"stampede of {crowd}: answered", least, "", least=crowd)
    handshake = statistics.median(handshakes)
    allowed = [seconds + handshake for seconds in live]
    found = ratio(dead, allowed)
    report.compare(
        f"stampede of {crowd}: time against a live session and one handshake",
        found,
        target=1.25,
        note=f"{found}, of which {span(handshake)} are the handshake",
    )
    report.series["stampede"] = {"expired": ends, "live": live_ends}
    return report


async def together(call: Work, count: int) -> list[float]:
    """Make calls at once. When each was answered, in seconds from the start, in order."""
    ends: list[float] = []
    began = time.perf_counter()

    async def one_call() -> None:
        await call()
        ends.append(time.perf_counter() - began)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one_call)
    return ends


async def outage(quick: bool) -> Report:
    """Servers that come back after some seconds, with a call waiting for each: how long until it is answered."""
    report = Report()
    waits: list[float] = []
    with running("scripted", count=20) as servers:
        config = {f"s{number}": {"url": url} for number, url in enumerate(servers.urls)}
        async with Manager(config) as manager:
            await manager.wait_ready()
            for _ in range(1 if quick else 4):
                await warm(*manager.values())
                servers.ask("stop")
                ends: list[float] = []
                async with anyio.create_task_group() as group:
                    for connection in manager.values():
                        group.start_soon(answered, connection, ends)
                    await anyio.sleep(OUTAGE)
                    back = servers.ask("start")
                waits += [end - back for end in ends]
    waits.sort()
    report.add(
        f"server back after {OUTAGE:g} s: listening to first answer",
        statistics.median(waits),
        "s",
        target=1.0,
        note=f"median of {len(waits)}; nine of ten within {span(waits[len(waits) * 9 // 10])}",
        spread=(waits[0], waits[-1]),
    )
    report.series["recovery"] = {"back after an outage": statistics.median(waits)}
    return report


async def answered(connection: Connection, ends: list[float]) -> None:
    """Call, and note when it was answered."""
    await connection.call_tool("add", ARGUMENTS, timeout=60, idempotent=True)
    ends.append(time.monotonic())


GROUPS: dict[str, Callable[[bool], Any]] = {
    "expired": expired,
    "restarted": restarted,
    "stampede": stampede,
    "outage": outage,
}
