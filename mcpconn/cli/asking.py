"""The requests and the output of `resources`, `read`, `prompts`, `prompt` and `ping`."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import anyio
import mcp_types as types
from mcp.shared.exceptions import MCPError
from rich.text import Text

from mcpconn.catalog.listing import collect
from mcpconn.cli.call import block, for_terminal
from mcpconn.cli.connect import managed, once
from mcpconn.cli.failures import FAILED, describe
from mcpconn.cli.output import complain, one_line, print_json, seconds
from mcpconn.cli.rows import Column, Rows
from mcpconn.config import ServerConfig
from mcpconn.connection import Connection
from mcpconn.errors import CallFailed

T = TypeVar("T")
METHOD_NOT_FOUND = -32601


async def of_each(
    servers: Mapping[str, ServerConfig],
    ask: Callable[[Connection], Awaitable[T]],
    *,
    timeout: float | None,
    wait: float,
) -> tuple[dict[str, T], int]:
    """The answer of each server, and the exit status. A failure of one is reported and does not affect the others."""
    answers: dict[str, T] = {}
    failed: dict[str, str] = {}
    async with managed(servers, once(timeout, wait)) as manager:

        async def one(name: str, connection: Connection) -> None:
            try:
                await connection.wait_ready()
                answers[name] = await ask(connection)
            except (CallFailed, MCPError) as error:
                failed[name] = connection.redact(describe(error)[0])

        async with anyio.create_task_group() as group:
            for name, connection in manager.items():
                group.start_soon(one, name, connection)
    for name, why in failed.items():
        complain(why if why.startswith(f"{name}: ") else f"{name}: {why}")
    return {name: answers[name] for name in servers if name in answers}, FAILED if failed else 0


async def resources(connection: Connection) -> list[types.Resource | types.ResourceTemplate]:
    """All resources, and all templates of them."""
    if connection.server_capabilities.resources is None:
        return []
    listed = await collect(lambda cursor: connection.list_resources(cursor=cursor), "resources")
    try:
        more = await collect(lambda cursor: connection.list_resource_templates(cursor=cursor), "templates")
    except CallFailed:
        raise
    except MCPError as error:
        if error.code != METHOD_NOT_FOUND:
            raise
        return list(listed.entries.values())
    return [*listed.entries.values(), *more.entries.values()]


async def prompts(connection: Connection) -> list[types.Prompt]:
    """All prompts."""
    if connection.server_capabilities.prompts is None:
        return []
    listed = await collect(lambda cursor: connection.list_prompts(cursor=cursor), "prompts")
    return list(listed.entries.values())


async def ping(connection: Connection) -> float:
    """Seconds that an answer takes."""
    began = time.perf_counter()
    if connection.status()["era"] == "modern":
        # There is no ping since 2026-07-28, so this sends the cheapest request that every server supports.
        await connection.list_tools()
    else:
        await connection.send_ping()
    return time.perf_counter() - began


def print_resources(found: Mapping[str, Sequence[types.Resource | types.ResourceTemplate]], *, as_json: bool) -> None:
    """A row for each resource."""
    if as_json:
        print_json({name: _dumped(each) for name, each in found.items()})
        return
    listed = [(name, each) for name, several in found.items() for each in several]
    uris = [str(each.uri if isinstance(each, types.Resource) else each.uri_template) for _, each in listed]
    _print(
        ("server", "resource", "type", "what it is"),
        [
            (name, uri, each.mime_type or "-", each.description or each.title or each.name)
            for (name, each), uri in zip(listed, uris, strict=True)
        ],
    )


def print_prompts(found: Mapping[str, Sequence[types.Prompt]], *, as_json: bool) -> None:
    """A row for each prompt, with its arguments."""
    if as_json:
        print_json({name: _dumped(each) for name, each in found.items()})
        return
    rows = [
        (name, _signature(each), each.description or each.title or "")
        for name, several in found.items()
        for each in several
    ]
    _print(("server", "prompt", "what it is"), rows)


def print_pings(found: Mapping[str, float], *, as_json: bool) -> None:
    """A row for each server that answered."""
    if as_json:
        print_json({name: round(each, 6) for name, each in found.items()})
    else:
        _print(("server", "answered in"), [(name, seconds(each)) for name, each in found.items()])


def print_contents(result: types.ReadResourceResult, *, as_json: bool) -> None:
    """The contents of a resource: text unchanged, and the size of binary data."""
    if as_json:
        print_json(result.model_dump(mode="json", by_alias=True, exclude_none=True))
        return
    for each in result.contents:
        wrapped = types.EmbeddedResource(type="resource", resource=each)
        sys.stdout.write(for_terminal(block(wrapped)))
        if not block(wrapped).endswith("\n"):
            sys.stdout.write("\n")


def print_messages(result: types.GetPromptResult, *, as_json: bool) -> None:
    """The messages of a prompt, each with its role."""
    if as_json:
        print_json(result.model_dump(mode="json", by_alias=True, exclude_none=True))
        return
    for message in result.messages:
        sys.stdout.write(f"{message.role}: {for_terminal(block(message.content))}\n")


def _signature(prompt: types.Prompt) -> str:
    given = ", ".join(each.name + ("" if each.required else "?") for each in prompt.arguments or ())
    return f"{prompt.name}({given})"


def _print(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    cells = [[one_line(cell) for cell in row] for row in rows]
    # The first two columns are meant for copying.
    table = Rows(
        *(
            Column(heading, max(len(heading), *(len(row[index]) for row in cells)), whole=index < 2)
            for index, heading in enumerate(headings)
        )
    )
    for row in cells:
        table.add(*(Text(cell) for cell in row))


def _dumped(items: Sequence[Any]) -> list[Any]:
    return [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in items]
