"""A time limit that progress moves, with a maximum. Virtual time, and one real server."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import anyio
import pytest

from mcpconn import CallTimeout, ConfigError, Connection
from mcpconn.testing import HttpServer, Script, ScriptedTool, ScriptTransport, default_tools
from mcpconn.testing.clock import virtual_backend
from mcpconn.testing.scripted.steps import Sleep
from mcpconn.testing.scripted.tools import Progress
from tests.support import SAFETY, UNFINISHED_STREAMS, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


def _busy(arguments: Mapping[str, Any]) -> Generator[Any, None, object]:
    for step in range(int(arguments["steps"])):
        yield Sleep(float(arguments["every"]))
        yield Progress(step + 1)
    return "done"


def busy() -> Script:
    """A server with a tool that reports progress."""
    return Script(answer="sse", tools=(*default_tools(), ScriptedTool("busy", _busy, {}, "Not idempotent.")))


@pytest.mark.parametrize(
    "anyio_backend", [virtual_backend("asyncio"), virtual_backend("trio")], ids=["asyncio", "trio"]
)
async def test_progress_moves_the_limit_to_the_max() -> None:
    script = busy()
    async with Connection({"url": "http://scripted/mcp", "http_transport": ScriptTransport(script)}) as connection:

        async def call(steps: int, every: float, **limits: Any) -> tuple[str, float]:
            began = anyio.current_time()
            try:
                said = text_of(await connection.call_tool("busy", {"steps": steps, "every": every}, **limits))
            except CallTimeout as error:
                said = error.outcome
            return said, anyio.current_time() - began

        # Without it the limit is the limit, whatever is reported.
        assert await call(10, 5, timeout=12) == ("unknown", pytest.approx(12, abs=0.1))
        # Each progress gives another twelve seconds.
        assert await call(10, 5, timeout=12, max_total_timeout=100) == ("done", pytest.approx(50, abs=0.1))
        # Not beyond the maximum.
        assert await call(100, 5, timeout=12, max_total_timeout=60) == ("unknown", pytest.approx(60, abs=0.1))
        # Silence ends it as before.
        assert await call(2, 20, timeout=12, max_total_timeout=60) == ("unknown", pytest.approx(12, abs=0.1))
        # A maximum below the limit is the limit.
        assert await call(10, 5, timeout=30, max_total_timeout=7) == ("unknown", pytest.approx(7, abs=0.1))


async def test_a_callback_is_told_all_the_same() -> None:
    told: list[float] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(progress)

    script = busy()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            arguments = {"steps": 3, "every": 0.02}
            result = await connection.call_tool(
                "busy", arguments, progress_callback=progress, timeout=5, max_total_timeout=10
            )
            assert (text_of(result), told) == ("done", [1, 2, 3])
            with pytest.raises(ConfigError, match="max_total_timeout"):
                await connection.call_tool("busy", arguments, max_total_timeout=-1)
