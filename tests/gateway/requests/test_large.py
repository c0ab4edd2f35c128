"""Modern clients: a tool that gave a large answer is quiet from then on. Names that say that much is returned."""

from __future__ import annotations

from typing import Any

import pytest

from mcpconn.gateway.requests import large_tools
from mcpconn.gateway.requests.large import decide, noticing
from mcpconn.gateway.requests.large_tools import LARGE

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


async def test_a_modern_tool_with_a_large_event_is_quiet_from_then_on():
    told: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append(await decide(scope, ("a", "walk"), safe=False))
        await send(START)
        await send({"type": "http.response.body", "body": b"y" * (LARGE + 1), "more_body": True})

    async def drop(message: Any) -> None:
        pass

    for _ in range(2):
        await noticing(app, {"type": "http"}, None, drop)  # type: ignore[arg-type]
    assert told == [False, True]


NAMES = {
    "get_image": True,
    "browser_take_screenshot": True,
    "readFile": True,
    "HTMLDump": True,
    "charge": False,
    "getAndDelete": False,
    "run_query": False,
    "write_file": False,
    "getaway": False,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_tells_that_much_is_returned(name):
    assert large_tools.returns_much(name) is NAMES[name]
