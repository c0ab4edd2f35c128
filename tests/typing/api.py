"""The public API as its users write it. Read by mypy and pyright in strict mode; never run.

A line with `type: ignore` must be an error: both checkers report an ignore that is not needed.
"""

from __future__ import annotations

from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult, ListToolsResult
from typing_extensions import assert_type

import mcpconn
from mcpconn import Connection, ConnectionContext, Manager, Outcome, Policy, SyncManager
from mcpconn.integrations import Session
from mcpconn.integrations.agent_framework import function_tools  # pyright: ignore[reportUnknownVariableType]
from mcpconn.integrations.agno import toolkit  # pyright: ignore[reportUnknownVariableType]
from mcpconn.integrations.fastmcp import ManagedTransport
from mcpconn.integrations.google_adk import ManagedToolset
from mcpconn.integrations.openai_agents import ConnectedServer
from mcpconn.status import ConnectionStatus, ManagerStatus

SERVERS = {"fs": {"command": "server"}}


async def elicit(context: ConnectionContext, params: ElicitRequestParams) -> ElicitResult:
    assert_type(context.connection, Connection)
    assert_type(mcpconn.current_connection(), Connection)
    return ElicitResult(action="decline")


async def progress(progress: float, total: float | None, message: str | None) -> None: ...


def plain_progress(progress: float, total: float | None, message: str | None) -> None: ...


async def managers() -> None:
    async with Manager(SERVERS, policy=Policy(), elicitation_callback=elicit) as manager:
        assert_type(await manager.call_tool("fs", "read", {"path": "a"}, timeout=3), CallToolResult)
        await manager.call_tool("fs", "read", timeout=None, idempotent=True, wait=False, progress_callback=progress)
        assert_type(await manager.list_tools("fs", cursor=None, timeout=3), ListToolsResult)
        assert_type(manager.status(), ManagerStatus)
        assert_type(manager["fs"], Connection)
        assert_type(manager.status()["fs"]["epoch"], int)

        await manager.call_tool("fs", "read", timout=3)  # type: ignore[call-arg]
        await manager.call_tool("fs", "read", timeout="3")  # type: ignore[arg-type]
        await manager.list_tools("fs", timout=3)  # type: ignore[call-arg]
        await manager.read_resource("fs", "memo://a", idempotent="no")  # type: ignore[arg-type]
        await manager.get_prompt("fs", "greet", progress_callback=progress)  # type: ignore[call-arg]
        manager.status()["fs"]["epochs"]  # type: ignore[typeddict-item]
    Manager(SERVERS, sampling=elicit)  # type: ignore[call-arg]
    Manager.from_file("mcp.json", polcy=Policy())  # type: ignore[call-arg]


async def sessions(connection: Connection) -> None:
    session = Session(connection)
    assert_type(await session.call_tool("add", {"a": 1}, progress_callback=progress), CallToolResult)
    await session.get_prompt("greet", allow_input_required=True, timeout=3)
    await session.call_tool("add", timout=3)  # type: ignore[call-arg]
    await session.read_resource("memo://a", timout=3)  # type: ignore[call-arg]
    await session.send_ping(timeout="3")  # type: ignore[arg-type]


async def connections() -> None:
    async with Connection("https://example.com/mcp", elicitation_callback=elicit) as connection:
        assert_type(await connection.call_tool("add", {"a": 1}, timeout=3), CallToolResult)
        assert_type(await connection.list_tools(timeout=3), ListToolsResult)
        assert_type(connection.status(), ConnectionStatus)
        async with connection.listen(tools_list_changed=True, timeout=3) as events:
            async for _ in events:
                pass

        await connection.call_tool("add", timout=3)  # type: ignore[call-arg]
        await connection.list_tools(timout=3)  # type: ignore[call-arg]
        await connection.complete(None, {}, timeout=3)  # type: ignore[arg-type]
        await connection.send_ping(wait="yes")  # type: ignore[arg-type]
    Connection("https://example.com/mcp", elicitation_callback=plain_progress)  # type: ignore[arg-type]


def threads() -> None:
    with SyncManager(SERVERS, backend="trio") as manager:
        assert_type(manager.call_tool("fs", "read", progress_callback=plain_progress), CallToolResult)
        assert_type(manager["fs"].status(), ConnectionStatus)
        manager.call_tool("fs", "read", timout=3)  # type: ignore[call-arg]
        manager["fs"].list_tools(timout=3)  # type: ignore[call-arg]
        manager["fs"].call_tool("read", timeout="3")  # type: ignore[arg-type]


async def handlers() -> None:
    manager = Manager(SERVERS)
    handler = mcpconn.handlers.call_tool(manager, "fs", "read", timeout=30)
    assert_type(await handler({"path": "a"}), str)
    mcpconn.handlers.call_tool(manager, "fs", "read", timout=30)  # type: ignore[call-overload]


def outcomes(error: mcpconn.CallFailed) -> bool:
    assert_type(error.outcome, Outcome)
    return error.outcome is Outcome.NOT_RUN or error.outcome == "unknown"


async def integrations(manager: Manager) -> None:
    toolkit(manager["fs"], include_tools=["read"], cache_ttl=60, timeout=3)
    toolkit(manager["fs"], include_tols=["read"])  # type: ignore[call-arg]
    toolkit(manager["fs"], cache_ttl="60")  # type: ignore[arg-type]
    await function_tools(manager, approval_mode="always_require")
    await function_tools(manager, approval_mode="sometimes")  # type: ignore[arg-type]
    ConnectedServer(manager["fs"], use_structured_content=True)
    ConnectedServer(manager["fs"], use_structured="yes")  # type: ignore[call-arg]
    ManagedToolset(manager, tool_name_prefix="x")
    ManagedToolset(manager, prefix="x")  # type: ignore[call-arg]
    ManagedTransport(manager, prefix=True)
    ManagedTransport(manager, prefix="yes")  # type: ignore[arg-type]
