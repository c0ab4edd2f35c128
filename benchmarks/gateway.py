"""A call through the gateway: its time against the direct call's, its processor time against the least there can be.

The least is the SDK's own server whose tools call the same server with the SDK's own client, in one process, with
nothing kept, checked or counted. Run as `python -m benchmarks.gateway PORT URL`, this module is that process.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import anyio.to_thread

from benchmarks.gateways.catalog import GATEWAYS, Gateway
from benchmarks.gateways.promises import Caller, caller
from benchmarks.gateways.running import Running, started_upstream
from benchmarks.measure import Report, alternate, ratio, worked

MODES = {"legacy": "legacy", "modern": "auto"}
"""The SDK's connect mode for the clients of each era. The server is of the legacy era for both."""
BLOCK = 20
"""Calls between two looks at a process's time."""
WARM = 30


def _floor(home: Path, folder: Path, port: int, url: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gateway", str(port), url]


def _on_uvloop(home: Path, folder: Path, port: int, url: str) -> list[str]:
    return [*OURS.command(home, folder, port, url), "--uvloop"]


OURS = GATEWAYS[0]
UVLOOP = Gateway("mcpconn on uvloop", "mcpconn", "own", _on_uvloop)
FLOOR = Gateway("SDK server and client", "mcp", "own", _floor)


async def gateway(quick: bool) -> Report:
    """Both figures, for clients of both eras."""
    report = Report()
    for era, mode in MODES.items():
        with TemporaryDirectory() as folder:
            await _measure(report, era, mode, quick, Path(folder))
    return report


async def _measure(report: Report, era: str, mode: str, quick: bool, folder: Path) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(started_upstream(folder))
        callers = {"direct": await caller(stack, server.url, mode)}
        processes: dict[str, int] = {}
        for side in (OURS, UVLOOP, FLOOR) if find_spec("uvloop") else (OURS, FLOOR):
            place = folder / side.name.replace(" ", "-")
            place.mkdir()
            running = Running(side, place, server.url)
            stack.callback(running.kill)
            await anyio.to_thread.run_sync(running.start)
            processes[side.name] = running.pid
            callers[side.name] = await caller(stack, running.url, mode)
        for each in callers.values():
            for _ in range(WARM):
                await _call(each)
        await _times(report, era, callers, quick)
        await _processor(report, era, callers, processes, quick)
        server.ask("requests")
        for _ in range(BLOCK):
            await _call(callers[OURS.name])
        sent = len(server.ask("requests")) / BLOCK
        report.add(f"upstream requests a call, {era} client", sent, "", target=1.0)


async def _call(of: Caller) -> None:
    told = await of.call("add", a=1, b=2)
    if told != "= 3":
        raise RuntimeError(told)


async def _times(report: Report, era: str, callers: dict[str, Caller], quick: bool) -> None:
    whole: dict[str, list[float]] = {name: [] for name in callers}

    def work(name: str) -> Callable[[], Any]:
        async def call() -> None:
            began = time.perf_counter()
            await _call(callers[name])
            whole[name].append(time.perf_counter() - began)

        return call

    sides = {name: work(name) for name in callers}
    took = await alternate(sides, calls=200 if quick else 1600, rounds=8)
    report.compare(f"a call through the gateway, {era} client", ratio(took[OURS.name], took["direct"]), target=2.2)
    if UVLOOP.name in took:
        report.compare(f"the same on uvloop, {era} client", ratio(took[UVLOOP.name], took["direct"]))
    report.compare(f"a call through the SDK's server and client, {era} client", ratio(took[FLOOR.name], took["direct"]))
    slowest = {name: statistics.quantiles(each, n=100)[98] for name, each in whole.items()}
    figure = slowest[OURS.name] / slowest["direct"]
    report.add(f"a call through the gateway, {era} client: 99 of 100", figure, "x", target=3.0)


async def _processor(
    report: Report, era: str, callers: dict[str, Caller], processes: dict[str, int], quick: bool
) -> None:
    spent: dict[str, list[float]] = {name: [] for name in processes}
    for turn in range(12 if quick else 60):
        names = list(processes)
        for name in names if turn % 2 else reversed(names):
            before = worked(processes[name])
            for _ in range(BLOCK):
                await _call(callers[name])
            spent[name].append((worked(processes[name]) - before) / BLOCK)
    for side, where, target in ((OURS, "", 1.15), (UVLOOP, " on uvloop", None)):
        if side.name in spent:
            found = ratio(spent[side.name], spent[FLOOR.name])
            report.compare(f"processor time a call in the gateway{where}, {era} client", found, target=target)


# -- in the process that is the floor


async def serve(port: int, url: str) -> None:
    """The SDK's server, whose tools call `url` with the SDK's client."""
    import uvicorn
    from mcp import Client
    from mcp.server.lowlevel import Server

    async with Client(url) as client:

        async def call_tool(ctx: Any, params: Any) -> Any:
            return await client.session.call_tool(params.name, params.arguments)

        async def list_tools(ctx: Any, params: Any) -> Any:
            return await client.session.list_tools()

        server: Server[Any] = Server(
            "floor",
            on_call_tool=call_tool,
            on_list_tools=list_tools,
            # Without it each modern call lists the tools first.
            get_tool_input_schema=lambda name: None,
        )
        app = server.streamable_http_app()
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, http="h11")
        await uvicorn.Server(config).serve()


GROUPS: dict[str, Callable[[bool], Any]] = {"gateway": gateway}


if __name__ == "__main__":
    anyio.run(serve, int(sys.argv[1]), sys.argv[2])
