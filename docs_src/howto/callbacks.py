"""A host that answers a server's questions, and hears what it says."""

from pathlib import Path
from typing import Any

import mcp_types as types
from pydantic import FileUrl

import mcpconn
from mcpconn.callbacks import ConnectionContext


# --8<-- [start:answers]
async def sample(
    context: ConnectionContext, params: types.CreateMessageRequestParams
) -> types.CreateMessageResult:
    """Ask the model of this host. Here it says how many messages it was given."""
    said = f"{len(params.messages)} message for {context.connection.name}"
    return types.CreateMessageResult(
        role="assistant",
        content=types.TextContent(type="text", text=said),
        model="mine",
    )


async def elicit(
    context: ConnectionContext, params: types.ElicitRequestParams
) -> types.ElicitResult:
    """Ask the user. Here nobody is there, and so the answer is no."""
    return types.ElicitResult(action="decline")


async def roots(context: ConnectionContext) -> types.ListRootsResult:
    """Which folders the server may use."""
    folder = FileUrl(Path.cwd().as_uri())
    return types.ListRootsResult(roots=[types.Root(uri=folder, name="here")])


async def log(params: types.LoggingMessageNotificationParams) -> None:
    """A log message of a server. It has no context: the connection is asked for."""
    print(f"{mcpconn.current_connection().name}: {params.level}: {params.data}")


# --8<-- [end:answers]


# --8<-- [start:use]
async def report(progress: float, total: float | None, message: str | None) -> None:
    print(f"{progress:g} of {total:g}" if total else f"{progress:g}")


async def ask(servers: dict[str, Any]) -> None:
    async with mcpconn.Manager(
        servers,
        sampling_callback=sample,
        elicitation_callback=elicit,
        list_roots_callback=roots,
        logging_callback=log,
        log_level="info",
    ) as manager:
        result = await manager.call_tool(
            "shop", "order", {"item": "pen"}, timeout=30, progress_callback=report
        )
        print(result.structured_content)


# --8<-- [end:use]
