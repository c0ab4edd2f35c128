"""What is too large for one event of the SDK's client: notifications are cut, answers go out as JSON if possible."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import pytest
from mcp import Client

from mcpconn.gateway.requests import large_tools
from mcpconn.gateway.requests.large_tools import LARGE
from mcpconn.gateway.rewrite import CUT, LONGEST_TEXT, notification
from mcpconn.testing import Script, ScriptedTool
from mcpconn.testing.scripted.steps import Sleep
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


class Talk:
    """A tool that reports progress, and answers when its client has heard it."""

    def __init__(self, message: str, answer: str, *, waits: bool = True) -> None:
        self.heard: list[str | None] = []
        self._message, self._answer, self._waits = message, answer, waits

    def script(self, era: Any) -> Script:
        return Script(tools=[ScriptedTool("talk", self._run)], era=era, answer="sse")

    def _run(self, arguments: Mapping[str, Any]) -> Generator[Any, None, object]:
        yield Progress(1, message=self._message)
        while self._waits and not self.heard:
            yield Sleep(0.01)
        if not self._waits:
            yield Sleep(0.1)  # time for a notification that should not go out
        return self._answer

    async def note(self, progress: float, total: float | None, message: str | None) -> None:
        self.heard.append(message)


@ERAS
@MODES
async def test_a_long_progress_message_is_cut_and_its_call_answered(mode: Any, era: Any) -> None:
    talk = Talk(BODY, "done")
    async with gateway(talk.script(era)) as made, Client(made.url, mode=mode) as client:
        assert text_of(await client.call_tool("a__talk", {}, progress_callback=talk.note)) == "done"
    assert talk.heard == [BODY[:LONGEST_TEXT] + CUT]


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
    talk = Talk("on the way", BODY, waits=False)
    large_tools.remember(("a", "talk"))
    async with gateway(talk.script(era)) as made, Client(made.url, mode=mode) as client:
        assert text_of(await client.call_tool("a__talk", {}, progress_callback=talk.note)) == BODY
    assert talk.heard == []
