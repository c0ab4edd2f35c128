"""What is too large for one event of the SDK's client: notifications are cut, answers go out as JSON if possible."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import pytest
from mcp import Client

from mcpconn.gateway.requests import large_tools
from mcpconn.gateway.requests.large import LARGE
from mcpconn.gateway.rewrite import CUT, LONGEST_TEXT, notification
from mcpconn.testing import Script, ScriptedTool
from mcpconn.testing.scripted.tools import Progress
from tests.gateway.conftest import gateway
from tests.support import text_of

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"], ids=["legacy server", "modern server"])
BODY = "y" * (2 * LARGE)


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tool is known for its large answers."""
    monkeypatch.setattr(large_tools, "_known", type(large_tools._known)())


def talks(message: str, answer: str) -> Any:
    """A tool that reports progress before it answers."""

    def run(arguments: Mapping[str, Any]) -> Generator[Progress, None, object]:
        yield Progress(1, message=message)
        return answer

    return run


@ERAS
@MODES
async def test_a_long_progress_message_is_cut_and_its_call_answered(mode: Any, era: Any) -> None:
    script = Script(tools=[ScriptedTool("talk", talks(BODY, "done"))], era=era)
    heard: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        assert text_of(await client.call_tool("a__talk", {}, progress_callback=note)) == "done"
    assert heard == [BODY[:LONGEST_TEXT] + CUT]


def test_a_long_log_message_is_cut_whatever_its_type() -> None:
    assert notification({"level": "info", "data": {"a": 1}}) == {"level": "info", "data": {"a": 1}}
    cut = notification({"level": "info", "data": {"a": BODY}, "logger": "l"})
    assert cut["logger"] == "l"
    assert cut["data"].endswith(CUT)
    assert len(cut["data"]) == LONGEST_TEXT + len(CUT)


@ERAS
@MODES
async def test_a_first_large_answer_arrives_if_the_name_says_so(mode: Any, era: Any) -> None:
    """The tool has no annotations."""
    script = Script(tools=[ScriptedTool("get_image", lambda _: BODY)], era=era)
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        assert text_of(await client.call_tool("a__get_image", {})) == BODY
    assert script.executions["get_image"] == 1


@ERAS
@MODES
async def test_progress_costs_no_large_answer_of_a_known_tool(mode: Any, era: Any) -> None:
    script = Script(tools=[ScriptedTool("walk", talks("on the way", BODY))], era=era)
    large_tools.remember(("a", "walk"))

    async def note(progress: float, total: float | None, message: str | None) -> None:
        pass

    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        assert text_of(await client.call_tool("a__walk", {}, progress_callback=note)) == BODY
