"""The fault table of the core through the gateway: its clients are told what the library's callers are told.

Every fault is met twice, by `mcpconn.Connection` and by a bare client of the gateway, each with a server of its own.
"""

from __future__ import annotations

from typing import Any, Literal

import anyio
import pytest
from mcp import MCPError

from mcpconn import CallFailed, Connection
from mcpconn.gateway.outcomes import OUTCOME
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.clock import virtual_backend, virtual_clock
from mcpconn.testing.named_faults import FAULTS
from tests.gateway.inside import FRONTS, inside
from tests.support import UNFINISHED_STREAMS, quiet, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

SAFETY = 3600.0
"""Virtual seconds."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The gateway is served on asyncio alone."""
    return virtual_backend("asyncio")


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Literal["legacy", "modern"]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def told(call: Any) -> str:
    """What a caller was told, in a form in which both can be compared."""
    try:
        result = await call
    except CallFailed as error:
        return error.outcome
    except MCPError as error:
        return f"error {error.error.code} {error.error.message}"
    outcome = (result.meta or {}).get(OUTCOME)
    return str(outcome) if outcome is not None else f"{result.is_error} {text_of(result)}"


def arguments(tool: str) -> dict[str, Any]:
    return {"a": 2, "b": 3} if tool == "add" else {"amount": 5}


async def by_library(script: Script, tool: str, fault: str) -> tuple[str, int, str]:
    transport = ScriptTransport(script)
    config = {"url": "http://scripted/mcp", "http_transport": transport}
    async with Connection(config, name="srv", clock=virtual_clock(1)) as connection:
        await connection.call_tool("add", {"a": 1, "b": 1})
        await quiet(connection)
        script.inject(FAULTS[fault]())
        said = await told(connection.call_tool(tool, arguments(tool)))
        ran = script.executions[tool]
        await quiet(connection)
        return said, ran, await told(connection.call_tool("charge", {"amount": 1}))


async def by_gateway(script: Script, tool: str, fault: str, front: str) -> tuple[str, int, str]:
    async with inside(script) as made, made.client(front) as client:
        await client.list_tools()
        await client.call_tool("a__add", {"a": 1, "b": 1})
        script.inject(FAULTS[fault]())
        said = await told(client.call_tool(f"a__{tool}", arguments(tool)))
        ran = script.executions[tool]
        await anyio.sleep(30)
        return said, ran, await told(client.call_tool("a__charge", {"amount": 1}))


@pytest.mark.parametrize("tool", ["add", "charge"])
@pytest.mark.parametrize("fault", FAULTS, ids=list(FAULTS))
async def test_a_client_gets_the_librarys_words(fault: str, tool: str, era: Any, front: str) -> None:
    with anyio.fail_after(SAFETY):
        expected = await by_library(Script(era=era), tool, fault)
        script = Script(era=era)
        found = await by_gateway(script, tool, fault, front)
    assert found == expected
    assert script.executions["charge"] <= 2
    assert found[2] == "False charged 1"
