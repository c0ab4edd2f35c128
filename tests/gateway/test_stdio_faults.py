"""Faults of child processes through the gateway: its clients are told what the library's callers are told.

Every fault is met twice, by a manager and by a bare client of the gateway, each with a child of its own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import anyio
import psutil
import pytest
from mcp import Client
from mcp.client.stdio import stdio_client

from mcpconn import Manager
from tests.gateway.conftest import gateway
from tests.gateway.processes import over_http, over_stdio
from tests.gateway.test_faults import told
from tests.stdio.programs import Told, python, server, shell, telling

pytestmark = pytest.mark.anyio

SAFETY = 50.0
"""Seconds for each of the two: pytest ends a test of more than 120 s, and its process with it."""
FRONTS = ("legacy", "modern", "stdio", "processes")
"""A bare legacy and a bare modern client over HTTP; one over stdin and stdout of `mcpconn serve --stdio`; and a modern
one before `mcpconn serve`, so that client, gateway and server are processes."""
LAUNCHER = "exec 3<&0; $SERVER {options} <&3 3<&- & exit 0"
SHORT = {"timeout": 2.0, "probe_timeout": 0.3, "drain_timeout": 0.3}
"""Settings of an entry whose calls are not answered."""

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]


@pytest.fixture
def anyio_backend() -> str:
    """The gateway is served on asyncio alone."""
    return "asyncio"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a child."""

    entry: Callable[[str], dict[str, Any]]
    """The child's entry, by the arguments of the scripted server."""
    options: str = ""
    """Further arguments of the scripted server; `{tool}` is the tool that is called."""
    before: signal.Signals | None = None
    """What the child is sent before the call."""
    during: signal.Signals | None = None
    """What it is sent while it runs the tool."""
    works: bool = True
    """A call is answered before the fault, and sooner or later after it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """More of the entry."""


def plain(options: str) -> dict[str, Any]:
    return server(*options.split())


def launched(options: str) -> dict[str, Any]:
    return shell(LAUNCHER.format(options=options))


def with_helper(options: str) -> dict[str, Any]:
    return python('subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)', arguments=options.split())


def with_banner(options: str) -> dict[str, Any]:
    return python('print("Server listening on stdio\\n{broken json", flush=True)', arguments=options.split())


FAULTS = {
    "killed while idle": Fault(plain, before=signal.SIGKILL),
    "crashed while idle": Fault(plain, before=signal.SIGSEGV),
    "ended while idle": Fault(plain, before=signal.SIGTERM),
    "killed while it runs a tool": Fault(plain, during=signal.SIGKILL),
    "ended while it runs a tool": Fault(plain, during=signal.SIGTERM),
    "dies after it ran": Fault(plain, "--die-on {tool}"),
    "stopped": Fault(plain, before=signal.SIGSTOP, settings=SHORT),
    "stopped while it runs a tool": Fault(plain, during=signal.SIGSTOP, settings=SHORT),
    "a launcher that exits": Fault(launched),
    "a launcher whose server is killed": Fault(launched, before=signal.SIGKILL),
    "a launcher whose server is killed while it runs a tool": Fault(launched, during=signal.SIGKILL),
    "killed, and its helper holds the pipes": Fault(with_helper, before=signal.SIGKILL),
    "a banner on stdout": Fault(with_banner, before=signal.SIGKILL),
    "never answers": Fault(plain, "--ignore tools/call", works=False, settings=SHORT),
    "exits after the handshake": Fault(plain, "--exit-after-handshake", works=False, settings=SHORT),
    "crashes on start": Fault(plain, "--crash-on-start SyntaxError", works=False, settings=SHORT),
    "no such command": Fault(lambda options: {"command": "no-such-command-anywhere"}, works=False),
    "not a server": Fault(lambda options: {"command": "/bin/cat"}, works=False, settings=SHORT),
}


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Literal["legacy", "modern"]:
    return request.param  # type: ignore[no-any-return]


@asynccontextmanager
async def by_library(config: dict[str, Any]) -> AsyncIterator[Call]:
    async with Manager({"child": config}) as manager:
        yield lambda tool, arguments: manager.call_tool("child", tool, arguments)


@asynccontextmanager
async def by_gateway(front: str, config: dict[str, Any], folder: Path) -> AsyncIterator[Call]:
    content = {"mcpServers": {"child": config}}
    async with _client(front, content, folder) as client:
        yield lambda tool, arguments: client.call_tool(f"child__{tool}", arguments)


@asynccontextmanager
async def _client(front: str, content: dict[str, Any], folder: Path) -> AsyncIterator[Client]:
    if front == "stdio":
        async with Client(stdio_client(over_stdio(folder, content))) as client:
            yield client
    elif front == "processes":
        async with over_http(folder, content) as (_, url), Client(url) as client:
            yield client
    else:
        mode: Any = "legacy" if front == "legacy" else "auto"
        async with gateway(more=content["mcpServers"], safety=SAFETY) as made, Client(made.url, mode=mode) as client:
            yield client


def children(mark: Path) -> set[int]:
    """The running processes of a child's entry, which have a path of the test in their command.

    A gateway has one for lists and one for its client: what happens to a server happens to both.
    """
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        if any(str(mark) in each for each in process.info["cmdline"] or ()):
            found.add(process.pid)
    return found


def strike(mark: Path, number: signal.Signals) -> set[int]:
    """Send all of them a signal."""
    struck = children(mark)
    assert struck
    for each in struck:
        with suppress(ProcessLookupError):
            os.kill(each, number)
    return struck


async def meet(call: Call, fault: Fault, tool: str, ran: Told, *, connections: int) -> tuple[str, int, str]:
    """What a caller is told, how often the tool ran, and what the caller is told of the next call.

    Args:
        call: Calls a tool of the child.
        fault: What happens to the child.
        tool: The tool that is called.
        ran: Written by the tools that have run.
        connections: How many connections have a child of the entry each.
    """
    if fault.works:
        assert await told(call("add", {"a": 1, "b": 1})) == "False 2"
    if fault.before is not None:
        struck = strike(ran.path, fault.before)
        # A call that is made before the end was noticed goes into a pipe that nobody reads, and its outcome is unknown.
        # So each connection has another child first. Another process has no event for it. One more
        # may have been struck while it was ending already, and has no successor.
        again = 0 if fault.before is signal.SIGSTOP else min(len(struck), connections)
        while len(children(ran.path) - struck) < again:  # noqa: ASYNC110
            await anyio.sleep(0.05)
    async with anyio.create_task_group() as group:

        async def strike_later() -> None:
            assert fault.during is not None
            # Looked at once: a line that came between two looks would be waited for in vain.
            while tool not in (lines := ran.lines):
                await ran.until(len(lines) + 1)
            strike(ran.path, fault.during)

        if fault.during is not None:
            group.start_soon(strike_later)
        said = await told(call(tool, {"seconds": 2.0 if fault.during is not None else 0.0}))
        group.cancel_scope.cancel()
    after = await told(call("add", {"a": 2, "b": 3}))
    for _ in range(5 if fault.works else 0):
        if after == "False 5":
            break
        # Until it is certain that nobody is there, a call has to wait for its deadline.
        after = await told(call("add", {"a": 2, "b": 3}))
    return said, ran.lines.count(tool), after


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("tool", ["slow", "slow_charge"], ids=["safe", "unsafe"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
async def test_a_client_gets_the_librarys_words(fault: Fault, tool: str, front: str, era: str, tmp_path: Path) -> None:
    async def found(name: str) -> tuple[str, int, str]:
        folder = tmp_path / name
        folder.mkdir()
        with anyio.fail_after(SAFETY), telling(folder) as ran:
            options = f"--era {era} --count-file {ran.path} {fault.options.format(tool=tool)}"
            config = {**fault.entry(options), **fault.settings}
            chosen = by_library(config) if name == "library" else by_gateway(front, config, folder)
            async with chosen as call:
                # A gateway has one for lists, and one for its client.
                return await meet(call, fault, tool, ran, connections=1 if name == "library" else 2)

    expected = await found("library")
    assert await found("gateway") == expected
    assert tool == "slow" or expected[1] <= 1
    assert not fault.works or expected[2] == "False 5"
