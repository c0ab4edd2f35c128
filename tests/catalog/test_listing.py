"""Reading one list: pages, and pagings that never end."""

from __future__ import annotations

from typing import Any

import mcp_types as types
import pytest

from mcpconn.catalog.listing import PAGES, collect
from mcpconn.cli.connect import list_tools
from mcpconn.testing import Script
from tests.support import UNFINISHED_STREAMS, served

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


class Paged:
    """Lists one tool a page; `following` says which cursor comes with page 1, 2 and so on."""

    def __init__(self, *following: str | None) -> None:
        self.following = following
        self.asked: list[str | None] = []

    async def __call__(self, cursor: str | None) -> types.ListToolsResult:
        self.asked.append(cursor)
        page = len(self.asked)
        tool = types.Tool(name=f"tool{page}", input_schema={"type": "object"})
        following = self.following[page - 1] if page <= len(self.following) else f"page{page}"
        return types.ListToolsResult(tools=[tool], next_cursor=following)


async def test_the_last_page_completes_a_listing() -> None:
    fetch = Paged("a", "b", None)
    found = await collect(fetch, "tools")
    assert (list(found.entries), found.complete) == (["tool1", "tool2", "tool3"], True)
    assert fetch.asked == [None, "a", "b"]


async def test_an_empty_cursor_ends_a_listing() -> None:
    fetch = Paged("")
    assert (await collect(fetch, "tools")).complete
    assert fetch.asked == [None]


@pytest.mark.parametrize("circle", [("a", "a"), ("a", "b", "a"), ("a", "b", "c", "b")])
async def test_a_repeated_cursor_ends_a_listing(circle: tuple[str, ...]) -> None:
    fetch = Paged(*circle)
    found = await collect(fetch, "tools")
    assert len(fetch.asked) == len(circle)
    assert not found.complete


async def test_a_paging_that_never_ends_is_left_after_a_hundred_pages() -> None:
    fetch = Paged()
    found = await collect(fetch, "tools")
    assert len(fetch.asked) == len(found.entries) == PAGES
    assert not found.complete


async def test_the_command_line_lists_each_tool_once_when_pages_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script()

    def page(key: str, items: list[Any], params: Any) -> dict[str, Any]:
        return {key: items, "nextCursor": {None: "a", "a": "b", "b": "a"}[params.get("cursor")]}

    monkeypatch.setattr(script.service.catalog, "_page", page)
    async with served(script, warm=False) as (connection, _):
        assert len(await list_tools(connection)) == len(script.tools)
        assert script.count("tools/list") == 3
