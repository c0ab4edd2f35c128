"""openai-agents: a `Connection` as one of an agent's `mcp_servers`.

    agent = Agent(name="clerk", mcp_servers=[ConnectedServer(manager["shop"])])

Its tools are listed at the start of each turn, from the connection's catalogue, so changes take effect at once. A
failed call reaches the model as a result with mcpconn's text: the framework's own text for an exception ends in "Please
try again".
"""

from __future__ import annotations

from typing import Any, cast

from agents import AgentBase, RunContextWrapper, ToolInputGuardrail, ToolOutputGuardrail
from agents.mcp import MCPServer, MCPToolCustomDataExtractor, MCPToolMetaResolver
from agents.mcp.server import RequireApprovalSetting
from agents.tool import ToolErrorFunction
from mcp_types import (
    CallToolResult,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    RequestParamsMeta,
    Tool,
)
from typing_extensions import TypedDict, Unpack

from mcpconn.connection import Connection
from mcpconn.handlers.tool_results import TIMEOUT, connection_result


class ServerOptions(TypedDict, total=False):
    """The arguments of `agents.mcp.MCPServer`, which its documentation describes."""

    use_structured_content: bool
    require_approval: RequireApprovalSetting
    failure_error_function: ToolErrorFunction | None
    tool_meta_resolver: MCPToolMetaResolver | None
    custom_data_extractor: MCPToolCustomDataExtractor | None
    tool_input_guardrails: list[ToolInputGuardrail[Any]] | None
    tool_output_guardrails: list[ToolOutputGuardrail[Any]] | None


class ConnectedServer(MCPServer):
    """An MCP server of an agent, on a connection that the host owns."""

    def __init__(self, connection: Connection, *, timeout: float = TIMEOUT, **options: Unpack[ServerOptions]) -> None:
        """
        Args:
            connection: Must run for as long as the agent does.
            timeout: Seconds for a tool call, including waiting and reconnecting.
            options: How the framework treats the server: see `ServerOptions`.
        """
        super().__init__(**options)
        self._connection = connection
        self._timeout = timeout

    @property
    def name(self) -> str:
        """The connection's name."""
        return self._connection.name

    async def connect(self) -> None:
        """Does nothing, because the host has connected. `list_tools` waits for a connection that is not ready yet."""

    async def cleanup(self) -> None:
        """Does nothing, because the host closes the connection."""

    async def list_tools(
        self, run_context: RunContextWrapper[Any] | None = None, agent: AgentBase | None = None
    ) -> list[Tool]:
        """The server's tools; raises `CallFailed` if they were never listed and the server is unreachable."""
        catalog = self._connection.catalog
        if "tools" not in catalog.listed:
            await self._connection.wait_ready(self._timeout)
            await catalog.ensure(("tools",))
        return list(catalog.tools.values())

    @property
    def cached_tools(self) -> list[Tool] | None:
        """The currently known tools."""
        return list(self._connection.catalog.tools.values()) or None

    async def call_tool(
        self, tool_name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None = None
    ) -> CallToolResult:
        """Call a tool; a failure is returned as a result with a text."""
        sent = cast("RequestParamsMeta | None", meta)
        return await connection_result(self._connection, tool_name, arguments, timeout=self._timeout, meta=sent)

    async def list_prompts(self) -> ListPromptsResult:
        """As `Connection.list_prompts`."""
        return await self._connection.list_prompts()

    async def get_prompt(self, name: str, arguments: dict[str, Any] | None = None) -> GetPromptResult:
        """As `Connection.get_prompt`."""
        return await self._connection.get_prompt(name, arguments)

    async def list_resources(self, cursor: str | None = None) -> ListResourcesResult:
        """As `Connection.list_resources`."""
        return await self._connection.list_resources(cursor=cursor)

    async def list_resource_templates(self, cursor: str | None = None) -> ListResourceTemplatesResult:
        """As `Connection.list_resource_templates`."""
        return await self._connection.list_resource_templates(cursor=cursor)

    async def read_resource(self, uri: str) -> ReadResourceResult:
        """As `Connection.read_resource`."""
        return await self._connection.read_resource(uri)
