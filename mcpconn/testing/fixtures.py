"""pytest fixtures: a scripted MCP server in the process or on a socket, a manager of it, and virtual time.

    pytest_plugins = ["mcpconn.testing.fixtures"]
    pytestmark = pytest.mark.anyio

    async def test_my_host(mcp_manager, mcp_script):
        mcp_script.forget_sessions()
        await my_host(mcp_manager)

The fixtures are registered only by that first line, or by `-p mcpconn.testing.fixtures`. All fixtures of one test share
one script. The asynchronous ones run in anyio's pytest plugin, which comes with anyio: on both of its event loops
unless an `anyio_backend` fixture says otherwise, and in virtual time if that returns `mcp_virtual_backend`.
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
    """Report in the summary that trio is not installed, so that only asyncio was tested."""
    if not HAS_TRIO:
        terminalreporter.write_line("mcpconn: trio is not installed, so only asyncio was tried (pip install trio)")


@pytest.fixture
def mcp_script() -> Script:
    """A `Script`: a correct server with the tools `add`, `charge` and others, until it is told to misbehave.

    Override it if your server has other tools.
    """
    return Script()


@pytest.fixture
def mcp_transport(mcp_script: Script) -> ScriptTransport:
    """The server inside the process: the `http_transport` of a server's configuration. Works in virtual time."""
    return ScriptTransport(mcp_script)


@pytest.fixture
async def mcp_server(mcp_script: Script) -> AsyncIterator[HttpServer]:
    """The server, running on a real socket: connect to `mcp_server.url`.

    Raises:
        RuntimeError: the test runs in virtual time, which does not wait for sockets.
    """
    if _time_is_virtual():
        raise RuntimeError("mcp_server is a real socket, and time is virtual here: take mcp_manager or mcp_transport")
    async with HttpServer(mcp_script) as server:
        yield server


@pytest.fixture
async def mcp_manager(mcp_transport: ScriptTransport) -> AsyncIterator[Manager]:
    """A `Manager` that is connected to one in-process server, named `server`.

    In virtual time its jitter is the same in every run.
    """
    servers = {"server": {"url": "http://server.test/mcp", "http_transport": mcp_transport}}
    clock = virtual_clock(seed=0) if _time_is_virtual() else None
    async with Manager(servers, clock=clock) as manager:
        await manager["server"].wait_ready()
        yield manager


@pytest.fixture
def mcp_history(mcp_script: Script) -> Iterator[History]:
    """A `History` that is compared with what the server ran at the end of the test."""
    history = History()
    yield history
    history.check(mcp_script)


@pytest.fixture(params=BACKENDS)
def mcp_virtual_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """asyncio, and trio if it is installed, in virtual time: return it from your `anyio_backend` fixture."""
    return virtual_backend(request.param)


def _time_is_virtual() -> bool:
    try:
        return isinstance(asyncio.get_running_loop(), VirtualLoop)
    except RuntimeError:
        # No other library can be running here but trio.
        trio = sys.modules["trio"]
        testing = sys.modules.get("trio.testing")
        return testing is not None and isinstance(trio.lowlevel.current_clock(), testing.MockClock)
