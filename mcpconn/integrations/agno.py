"""agno: a toolkit on a `Connection`.

    agent = Agent(model=..., tools=[toolkit(manager["shop"])])

The tools are listed when the toolkit is connected, as agno does for every MCP server: the next run of the agent sees a
changed list after `await toolkit.build_tools()`.
"""

from __future__ import annotations

from typing import Any

from agno.tools.mcp import MCPTools

from mcpconn.connection import Connection
from mcpconn.handlers.tool_results import TIMEOUT
from mcpconn.integrations.session import Session


def toolkit(connection: Connection, *, timeout: float = TIMEOUT, **options: Any) -> MCPTools:
    """agno's own toolkit, on a long-lived session.

    Args:
        connection: Must run for as long as the agent does.
        timeout: Seconds for a tool call, including waiting and reconnecting.
        options: Arguments of `agno.tools.mcp.MCPTools`, such as `include_tools`.
    """
    options.setdefault("name", connection.name)
    return MCPTools(session=Session(connection, timeout=timeout), **options)
