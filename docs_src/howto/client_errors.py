"""What code around a bare client catches, and what it can tell now."""

from mcp import MCPError

import mcpconn


async def charge(client: mcpconn.Connection, amount: int) -> str:
    try:
        await client.call_tool("charge", {"amount": amount}, timeout=10)
    except mcpconn.OutcomeUnknown:
        return "perhaps charged: look it up before you try again"
    except mcpconn.ConnectionFailed as error:
        return f"not charged; next try in {error.retry_in} s"
    except mcpconn.CallFailed as error:
        return f"{error.outcome}: {error.failure.kind}"
    except MCPError as error:
        return f"the server's own error {error.code}"
    return "charged"
