"""agno: a toolkit on a `Connection`.

    agent = Agent(model=..., tools=[toolkit(manager["shop"])])

The tools are listed when the toolkit is connected, as agno does for every MCP server: the next run of the agent sees a
changed list after `await toolkit.build_tools()`.
"""

from __future__ import annotations

from agno.tools.mcp import MCPTools
from typing_extensions import TypedDict, Unpack

from mcpconn.connection import Connection
from mcpconn.handlers.tool_results import TIMEOUT
from mcpconn.integrations.session import Session


class ToolkitOptions(TypedDict, total=False):
    """The arguments of `agno.tools.mcp.MCPTools` that do not concern how a server is reached."""

    name: str
    """The toolkit's name; by default the connection's."""
    include_tools: list[str] | None
    """The only tools that the agent gets, by the server's names."""
    exclude_tools: list[str] | None
    """Tools that the agent does not get."""
    tool_name_prefix: str | None
    """Put before each name, with an underscore."""
    instructions: str | None
    """Said to the model about these tools."""
    add_instructions: bool
    """Whether `instructions` are said."""
    requires_confirmation_tools: list[str] | None
    """Tools that a person confirms before they run."""
    external_execution_required_tools: list[str] | None
    """Tools that the host runs itself, outside of the agent."""
    stop_after_tool_call_tools: list[str] | None
    """Tools after which the run ends."""
    show_result_tools: list[str] | None
    """Tools whose result is shown to the user."""
    cache_results: bool
    """Whether agno answers a repeated call from its own cache."""
    cache_ttl: int
    """Seconds for which a cached result is used."""
    cache_dir: str | None
    """Where cached results are kept."""


def toolkit(connection: Connection, *, timeout: float = TIMEOUT, **options: Unpack[ToolkitOptions]) -> MCPTools:
    """agno's own toolkit, on a long-lived session.

    Args:
        connection: Must run for as long as the agent does.
        timeout: Seconds for a tool call, including waiting and reconnecting.
        options: What the agent gets, and how it uses it: see `ToolkitOptions`.
    """
    options.setdefault("name", connection.name)
    return MCPTools(session=Session(connection, timeout=timeout), **options)
