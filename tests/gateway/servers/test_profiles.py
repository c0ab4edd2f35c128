"""A server that lists by what its client can do: each client sees what it would see without the gateway."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp.server.lowlevel import Server

from tests.gateway.conftest import gateway
from tests.gateway.questions import Context, answers, serving

pytestmark = pytest.mark.anyio

CLIENTS = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
SERVERS = pytest.mark.parametrize("server_mode", ["legacy", "auto"], ids=["legacy server", "modern server"])


class ByCapability:
    """Lists a tool for each thing that its client can do."""

    def __init__(self, *, picky: bool = True) -> None:
        self.picky = picky
        self.listed: Counter[tuple[str, ...]] = Counter()
        """How often the tools were listed, by what the client could do."""
        self.more: list[str] = []

    def server(self) -> Server[Any]:
        async def tools(ctx: Context, params: Any) -> types.ListToolsResult:
            said = ctx.session.client_capabilities
            able = tuple(name for name in ("sampling", "elicitation", "roots") if getattr(said, name, None) is not None)
            self.listed[able] += 1
            names = ["plain", *self.more, *(f"needs-{name}" for name in (able if self.picky else ()))]
            return types.ListToolsResult(
                tools=[types.Tool(name=name, input_schema={"type": "object"}) for name in names]
            )

        async def call(ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
            return types.CallToolResult(content=[types.TextContent(type="text", text=params.name)])

        return Server("by-capability", on_list_tools=tools, on_call_tool=call)


async def names(client: Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


@CLIENTS
@SERVERS
async def test_a_tool_is_listed_for_those_who_can(mode, server_mode):
    server, everything = ByCapability(), answers("ann")
    sampling: Any = {"sampling_callback": everything["sampling_callback"]}
    async with (
        serving(server, server_mode) as url,
        gateway(more={"s": {"url": url, "mode": server_mode}}) as made,
        Client(made.url, mode=mode) as plain,
        Client(made.url, mode=mode, **sampling) as able,
        Client(made.url, mode=mode, **everything) as all_of_it,
    ):
        with anyio.fail_after(20):
            while "s__needs-roots" not in await names(all_of_it):
                pass
            while "s__needs-sampling" not in await names(able):
                pass
        assert await names(plain) == {"s__plain"}
        assert await names(able) == {"s__plain", "s__needs-sampling"}
        assert await names(all_of_it) == {
            "s__plain",
            *(f"s__needs-{name}" for name in ("sampling", "elicitation", "roots")),
        }
        assert not (await all_of_it.call_tool("s__needs-roots", {})).is_error
        before = dict(server.listed)
        for _ in range(3):
            await names(all_of_it)
        assert server.listed == before, "lists are kept"


@CLIENTS
async def test_a_server_that_lists_the_same_for_all_is_asked_once(mode):
    server = ByCapability(picky=False)
    async with serving(server) as url, gateway(more={"s": {"url": url}}) as made:
        for _ in range(3):
            async with Client(made.url, mode=mode, **answers("ann")) as client:
                assert await names(client) == {"s__plain"}
                await made.app.manager["s"].catalog.wait_until_listed()
        with anyio.fail_after(10):
            while len(made.app.manager) > 1:
                await anyio.lowlevel.checkpoint()
    assert server.listed[("sampling", "elicitation", "roots")] == 1
