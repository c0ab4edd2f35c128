"""Idle sessions of the gateway: their memory and their processor time, against those of the SDK's server alone.

Each client is a socket that has opened a legacy session and listens to its event stream. `python -m
benchmarks.gateway_sessions --sessions 10000` measures as many as that; the benchmark measures fewer.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import anyio.to_thread
import psutil

from benchmarks.gateways.catalog import Gateway
from benchmarks.gateways.running import Running, started_upstream
from benchmarks.measure import Report, worked
from tests.gateway.crowd import Seen, World

SESSIONS = 1000
QUICK = 300
REST = 5.0
"""Seconds after the last client has come, until its traces are gone: events are written, and objects collected."""
WATCHED = 30.0
"""Seconds over which idle processor time is counted: two pings of each event stream."""
WITHIN = 400.0
"""Seconds for all clients of one side to come."""
ROOM = 100
"""Sessions and sockets that are allowed on top."""


def _sdk(many: int) -> Gateway:
    def command(home: Path, folder: Path, port: int, url: str) -> list[str]:
        return [sys.executable, "-m", "benchmarks.gateway_sessions", "--serve", str(port), "--sessions", str(many)]

    return Gateway("SDK server", "mcp", "own", command)


def _ours(many: int) -> Gateway:
    def command(home: Path, folder: Path, port: int, url: str) -> list[str]:
        limits = {"sessions": many + ROOM, "sockets": 2 * many + ROOM}
        content = {"mcpServers": {"a": {"url": url}}, "gateway": {"limits": limits}}
        (folder / "mcp.json").write_text(json.dumps(content))
        serve = ["serve", str(folder / "mcp.json"), "--listen", f"127.0.0.1:{port}", "--state", str(folder / "state")]
        return [sys.executable, "-m", "mcpconn", *serve]

    return Gateway("mcpconn", "mcpconn", "own", command)


async def sessions(quick: bool) -> Report:
    """Both figures, for some of the 10,000."""
    return await measure(QUICK if quick else SESSIONS)


async def measure(many: int) -> Report:
    """Both figures for so many sessions."""
    report = Report()
    with TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            server = stack.enter_context(started_upstream(Path(folder)))
            found = {}
            for side in (_sdk(many), _ours(many)):
                place = Path(folder) / side.name.replace(" ", "-")
                place.mkdir()
                running = Running(side, place, server.url)
                stack.callback(running.kill)
                await anyio.to_thread.run_sync(running.start)
                found[side.name] = await _weigh(running, many)
                running.kill()
    ours, sdk = found["mcpconn"], found["SDK server"]
    names = {"kib": ("memory", "KiB"), "idle": ("processor time while idle", "ms a minute")}
    names |= {"opening": ("processor time of its opening", "ms")}
    for key, (name, unit) in names.items():
        note = f"{ours[key]:.3g} {unit} against {sdk[key]:.3g} {unit}; {many} sessions with event streams"
        target = None if key == "opening" else 1.15
        report.add(f"an idle session of the gateway: {name}", ours[key] / sdk[key], "x", target=target, note=note)
    return report


async def _weigh(running: Running, many: int) -> dict[str, float]:
    """What each of so many idle sessions holds and costs."""
    process = psutil.Process(running.pid)
    world = World(process, running.port, Seen(), "", WITHIN)
    # What is loaded and made at the first use of anything is not a session's.
    async with world.crowd(20, processes=1) as counts:
        assert counts["held"] == 20, counts
    await anyio.sleep(REST)
    before, began = process.memory_full_info().uss, worked(running.pid)
    async with world.crowd(many, processes=1 + many // 4000) as counts:
        assert counts["held"] == many, counts
        opening = worked(running.pid) - began
        await anyio.sleep(REST)
        kib = (process.memory_full_info().uss - before) / many / 1024
        began = worked(running.pid)
        await anyio.sleep(WATCHED)
        idle = (worked(running.pid) - began) / many * 60 / WATCHED * 1000
    return {"kib": kib, "idle": idle, "opening": opening / many * 1000}


async def serve(port: int, many: int) -> None:
    """The SDK's server alone, whose limits are raised to so many sessions."""
    import uvicorn
    from mcp.server.lowlevel import Server
    from mcp.server.transport_security import TransportSecuritySettings

    async def call_tool(ctx: Any, params: Any) -> Any:
        raise NotImplementedError

    async def list_tools(ctx: Any, params: Any) -> Any:
        raise NotImplementedError

    server: Server[Any] = Server("alone", on_call_tool=call_tool, on_list_tools=list_tools)
    # The crowd's `Host` has no port, and the SDK expects one by default.
    security = TransportSecuritySettings(allowed_hosts=["127.0.0.1"])
    app = server.streamable_http_app(session_idle_timeout=None, max_sessions=many + ROOM, transport_security=security)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="warning", access_log=False, http="h11", timeout_keep_alive=600
    )
    await uvicorn.Server(config).serve()


GROUPS = {"sessions": sessions}


def main() -> None:
    """Measure, or be the server that is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway_sessions", description=__doc__)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--serve", type=int, metavar="PORT")
    options = parser.parse_args()
    if options.serve is not None:
        anyio.run(serve, options.serve, options.sessions)
        return
    for row in anyio.run(measure, options.sessions).rows:
        print(f"{row.name:<60} {row.figure:.3f} {row.unit}  {row.note}", flush=True)


if __name__ == "__main__":
    main()
