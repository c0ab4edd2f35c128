"""The requests that test whether a server knows a session. They change nothing."""

from __future__ import annotations

from contextlib import suppress

from mcp import ClientSession
from mcp_types import EmptyResult, PingRequest, ServerCapabilities, ToolsCapability
from pydantic import ValidationError

from mcpconn.core.failures import Era
from mcpconn.sdk.client import send_unchecked
from mcpconn.wire.messages import Unreadable

DISCOVER = "server/discover"
PING = "ping"


def probe_methods(era: Era, capabilities: ServerCapabilities | None) -> tuple[str, ...]:
    """The methods to ask with: one that costs the server nothing, then the first listing that it advertises.

    Args:
        era: The era of the session.
        capabilities: The server's capabilities. None if unknown: then its tools are listed.
    """
    if capabilities is None:
        capabilities = ServerCapabilities(tools=ToolsCapability())
    advertised = {
        "tools/list": capabilities.tools,
        "prompts/list": capabilities.prompts,
        "resources/list": capabilities.resources,
    }
    listings = [method for method, offer in advertised.items() if offer is not None]
    return (DISCOVER if era == "modern" else PING, *listings[:1])


async def send_probe(session: ClientSession, method: str, version: str) -> None:
    """Send one of `probe_methods`. For a `ping` any result is sufficient; a listing must contain its list.

    Some gateways answer every request on a session that they have forgotten with an empty result.

    Raises:
        Exception: it was refused, or not answered.
    """
    if method == DISCOVER:
        await session.send_discover(version)
        return
    if method == PING:
        with suppress(ValidationError):
            await session.send_request(PingRequest(), EmptyResult)
        return
    # Unchecked: the SDK would reject the list of a server that knows the session for one tool of a wrong form.
    found = await send_unchecked(session, method, {})
    if not isinstance(found.get(method.partition("/")[0]), list):
        raise Unreadable(f"{method} was answered with a result that holds no list")
