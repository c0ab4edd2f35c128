"""Answers that are too large for one event of a stream, in both eras.

In the 2026-07-28 era the SDK's server answers with JSON, which has no limit, unless something else goes out first. So a
tool that is known for large answers sends no progress and no log messages there. For legacy clients see `responses`.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcpconn.gateway.requests.large_tools import LARGE, Tool, is_known, remember
from mcpconn.gateway.requests.responses import Response

RESPONSE_KEY = "mcpconn.response"
"""Where a request's `Response`, or `Noticed`, is left in its ASGI scope."""


async def decide(scope: Scope, tool: Tool | None, *, safe: bool) -> bool:
    """Say what a request is, as `Response.decide`.

    Returns:
        Whether nothing may go out before its answer (modern era).
    """
    response: Response | Noticed | None = scope.get(RESPONSE_KEY)
    if isinstance(response, Response):
        await response.decide(tool, safe=safe)
    elif response is not None:
        response.tool = tool
        return is_known(tool)
    return False


async def noticing(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run a request of a modern client, and remember its tool if the answer is large and an event of a stream."""
    noticed = Noticed()

    async def notice(message: Message) -> None:
        if len(message.get("body", b"")) > LARGE:
            remember(noticed.tool)
        await send(message)

    await app({**scope, RESPONSE_KEY: noticed}, receive, notice)


class Noticed:
    """The tool that a modern client's request calls, once it is known."""

    __slots__ = ("tool",)

    def __init__(self) -> None:
        self.tool: Tool | None = None
