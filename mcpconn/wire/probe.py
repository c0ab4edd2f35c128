"""The requests that ask a server whether it knows a session, and change nothing."""

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
    """What has to be there of a listing, whatever is in it."""

    tools: list[Any] | None = None
    prompts: list[Any] | None = None
    resources: list[Any] | None = None


def probe_methods(era: Era, capabilities: ServerCapabilities | None) -> tuple[str, ...]:
    """The methods to ask with: one that costs the server nothing, then the first listing that it advertises.

    Args:
        era: The era of the session.
        capabilities: What the server says that it can do. None if that is unknown: then it is asked for its tools.
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
    """Send one of `probe_methods`. Any result will do for a `ping`; a listing has to have its list.

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
