"""pytest fixtures: a scripted MCP server in the process or on a socket, a manager of it, and virtual time.

    pytest_plugins = ["mcpconn.testing.fixtures"]
    pytestmark = pytest.mark.anyio

    async def test_my_host(mcp_manager, mcp_script):
        mcp_script.forget_sessions()
        await my_host(mcp_manager)

Nothing is registered without that first line, or `-p mcpconn.testing.fixtures`. All fixtures of one test share one
script. The asynchronous ones run in anyio's pytest plugin, which comes with anyio: on both of its event loops
unless an `anyio_backend` fixture says otherwise, and in virtual time where that returns `mcp_virtual_backend`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from mcpconn.manager import Manager
from mcpconn.testing.clock import VirtualLoop, virtual_backend, virtual_clock
from mcpconn.testing.history import History
from mcpconn.testing.scripted.http import HttpServer
from mcpconn.testing.scripted.inproc import ScriptTransport
from mcpconn.testing.scripted.script import Script

try:
    import pytest
except ImportError as error:  # pragma: no cover - seen in a process without it: tests/testing/test_fixtures.py
    raise ImportError("mcpconn.testing.fixtures needs pytest: pip install pytest") from error


HAS_TRIO = importlib.util.find_spec("trio") is not None
BACKENDS = ["asyncio", *(["trio"] if HAS_TRIO else [])]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say that half of the event loops was not tried, at the end, where it is read."""
    if not HAS_TRIO:
        terminalreporter.write_line("mcpconn: trio is not installed, so only asyncio was tried (pip install trio)")


@pytest.fixture
def mcp_script() -> Script:
    """A `Script`: a correct server with the tools `add`, `charge` and others, until it is told to misbehave.

    Override it where your server has other tools.
    """
    return Script()


@pytest.fixture
def mcp_transport(mcp_script: Script) -> ScriptTransport:
    """The server inside the process: the `http_transport` of a server's configuration. Works in virtual time."""
    return ScriptTransport(mcp_script)


@pytest.fixture
async def mcp_server(mcp_script: Script) -> AsyncIterator[HttpServer]:
    """The server on a real socket, started: connect to `mcp_server.url`.

    Raises:
        RuntimeError: the test runs in virtual time, which would run ahead of the socket.
    """
    if _time_is_virtual():
        raise RuntimeError("mcp_server is a real socket, and time is virtual here: take mcp_manager or mcp_transport")
    async with HttpServer(mcp_script) as server:
        yield server


@pytest.fixture
async def mcp_manager(mcp_transport: ScriptTransport) -> AsyncIterator[Manager]:
    """A `Manager` of one server, named `server`, inside the process, which is connected.

    In virtual time its jitter is the same in every run.
    """
    servers = {"server": {"url": "http://server.test/mcp", "http_transport": mcp_transport}}
    clock = virtual_clock(seed=0) if _time_is_virtual() else None
    async with Manager(servers, clock=clock) as manager:
        await manager["server"].wait_ready()
        yield manager


@pytest.fixture
def mcp_history(mcp_script: Script) -> Iterator[History]:
    """A `History` that is compared with what the server ran, when the test is over."""
    history = History()
    yield history
    history.check(mcp_script)


@pytest.fixture(params=BACKENDS)
def mcp_virtual_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """asyncio, and trio where it is installed, in virtual time: return it from an `anyio_backend` fixture of yours."""
    return virtual_backend(request.param)


def _time_is_virtual() -> bool:
    try:
        return isinstance(asyncio.get_running_loop(), VirtualLoop)
    except RuntimeError:
        # trio: nobody else could be running here.
        trio = sys.modules["trio"]
        testing = sys.modules.get("trio.testing")
        return testing is not None and isinstance(trio.lowlevel.current_clock(), testing.MockClock)
