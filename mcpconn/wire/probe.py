"""The requests that test whether a server knows a session. They change nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mcp import ClientSession
from mcp_types import (
    ClientRequest,
    EmptyResult,
    ListPromptsRequest,
    ListResourcesRequest,
    ListToolsRequest,
    PingRequest,
    Result,
    ServerCapabilities,
    ToolsCapability,
)
from pydantic import ValidationError

from mcpconn.core.failures import Era
from mcpconn.wire.messages import Unreadable

DISCOVER = "server/discover"
PING = "ping"
REQUESTS: dict[str, ClientRequest] = {
    PING: PingRequest(),
    "tools/list": ListToolsRequest(),
    "prompts/list": ListPromptsRequest(),
    "resources/list": ListResourcesRequest(),
}


class Listed(Result):
    """The required field of a listing's result."""

    tools: list[Any] | None = None
    prompts: list[Any] | None = None
    resources: list[Any] | None = None


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
            await session.send_request(REQUESTS[method], EmptyResult)
        return
    # Not `session.list_tools`: the first page of a listing is not the list of tools that the session keeps.
    try:
        found = await session.send_request(REQUESTS[method], Listed)
    except ValidationError:
        found = Listed()
    if getattr(found, method.partition("/")[0]) is None:
        raise Unreadable(f"{method} was answered with a result that holds no list")
