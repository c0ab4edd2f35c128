"""What a call costs: with 300 tools, a modern client's call lists nothing and parses no schema."""

from __future__ import annotations

from typing import Any

import mcp_types as types
import pytest
from mcp import Client

from mcpconn.gateway.requests.lists import Lists
from mcpconn.testing import Script, ScriptedTool
from tests.gateway.conftest import gateway

pytestmark = pytest.mark.anyio

CALLS = 20


@pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
@pytest.mark.parametrize("era", ["legacy", "modern"], ids=["legacy server", "modern server"])
async def test_a_call_among_many_tools_lists_and_parses_nothing(monkeypatch, mode, era):
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(10)}}
    many = [ScriptedTool(f"t{n}", lambda arguments: "fine", {}, "A tool.", schema) for n in range(300)]
    script = Script(era=era, tools=many)
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        await made.app.manager["a"].catalog.refresh()
        tools = await client.list_tools()
        while tools.next_cursor is not None:
            tools = await client.list_tools(cursor=tools.next_cursor)
        await client.call_tool("a__t7", {"p1": "x"})

        parsed: list[Any] = []
        rendered: list[Any] = []
        real_parse, real_render = types.Tool.model_validate, Lists._render

        def parse(*args: Any, **options: Any) -> Any:
            parsed.append(args)
            return real_parse(*args, **options)

        def render(*args: Any, **options: Any) -> Any:
            rendered.append(args)
            return real_render(*args, **options)

        monkeypatch.setattr(types.Tool, "model_validate", parse)
        monkeypatch.setattr(Lists, "_render", render)
        before, listings = len(script.requests), script.count("tools/list")
        for _ in range(CALLS):
            await client.session.call_tool("a__t7", {"p1": "x"})
        assert len(script.requests) - before == CALLS, "one upstream request a call"
        assert script.count("tools/list") == listings
        assert parsed == rendered == []
