"""The same host with the fixtures of mcpconn: on a socket, and through an hour."""

from typing import Any

import anyio
import pytest

import mcpconn
from mcpconn.testing import HttpServer, Script, ScriptTransport
from mcpconn.testing.history import History
from mcpconn.testing.scripted import faults

pytest_plugins = ["mcpconn.testing.fixtures"]
pytestmark = pytest.mark.anyio


async def test_a_server_on_a_socket(mcp_server: HttpServer, mcp_script: Script) -> None:
    async with mcpconn.Manager({"shop": {"url": mcp_server.url}}) as manager:
        await manager["shop"].wait_ready()
        await mcp_server.reset_connections()
        mcp_script.forget_sessions()
        await manager.call_tool("shop", "charge", {"amount": 5})
    assert mcp_script.executions["charge"] == 1


class TestInVirtualTime:
    @pytest.fixture
    def anyio_backend(self, mcp_virtual_backend: tuple[str, dict[str, Any]]) -> Any:
        return mcp_virtual_backend

    async def test_an_hour_without_the_server(
        self, mcp_manager: mcpconn.Manager, mcp_transport: ScriptTransport
    ) -> None:
        mcp_transport.down = True
        mcp_transport.script.forget_sessions()
        began = anyio.current_time()
        with pytest.raises(mcpconn.CallFailed) as failed:
            await mcp_manager.call_tool("server", "charge", {"amount": 5}, timeout=10)
        assert failed.value.outcome == "not_run"
        assert anyio.current_time() - began == pytest.approx(10)
        await anyio.sleep(3600)
        mcp_transport.down = False
        await anyio.sleep(400)  # longer than between two looks at a failed server
        assert mcp_manager["server"].state == "ready"

    async def test_every_caller_is_told_the_truth(
        self, mcp_manager: mcpconn.Manager, mcp_script: Script, mcp_history: History
    ) -> None:
        mcp_script.inject(faults.drop_after(), times=3)

        async def charge() -> None:
            call = mcp_history.call("charge", {"amount": 5})
            try:
                with call:
                    call.answer = await mcp_manager.call_tool(
                        "server", call.tool, call.arguments
                    )
            except mcpconn.OutcomeUnknown:
                return

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(charge)
        assert mcp_history.outcomes() == {"answered": 7, "unknown": 3}
