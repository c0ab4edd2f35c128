"""Every place that depends on how the SDK works inside: its private names. Written against mcp 2.3.0.

| name | why | without it |
| --- | --- | --- |
| `mcp.client._memory.InMemoryTransport` | its streams are wrapped | an ImportError: legacy servers in process are out |
| `mcp.shared.direct_dispatcher` raising by itself | tells its own timeout from a server's word | see below |
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from mcp import MCPError
from mcp.client._memory import InMemoryTransport
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

DISPATCHER = "mcp.shared.direct_dispatcher"
"""Where the SDK calls a server in process without streams."""


def in_process(server: Any, *, raise_exceptions: bool) -> AbstractAsyncContextManager[Any]:
    """The streams to a legacy server in this process.

    Args:
        server: An `mcp.server.Server` or `MCPServer`.
        raise_exceptions: As for `mcp.Client`.
    """
    return InMemoryTransport(server, raise_exceptions=raise_exceptions)


def made_by_dispatcher(error: MCPError) -> bool:
    """Whether the SDK's dispatcher for servers in process made `error` up, for want of an answer.

    Server and client share one stack there, and a server may raise an error of the same code and text. The place
    where it was raised tells them apart: the dispatcher's own is raised in its module, a server's deeper down.
    Without a traceback it is taken for the server's, and believed.
    """
    if error.code not in (CONNECTION_CLOSED, REQUEST_TIMEOUT):
        return False
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_globals.get("__name__") == DISPATCHER
