"""The machine for users' handlers: what its page shows is what it finds."""

from __future__ import annotations

import ast
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from mcpconn import CallFailed, NotReady
from mcpconn.testing.clock import Spinning, VirtualLoop
from mcpconn.testing.history import HistoryError
from mcpconn.testing.machine import SETTINGS, HandlerMachine, SandboxMachine, told_alone
from tests.docs_src.conftest import HOWTO, load
from tests.properties.sequences import Rule, on, play

# The SDK leaves response bodies unfinished, and trio warns of that; see tests/support.py.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2:ResourceWarning")

BUYING: type[SandboxMachine] = load(HOWTO / "test_my_handler_machine.py").Buying
SHOWN = (HOWTO / "test_my_handler_machine.console").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Logs of hundreds of outages say nothing about these tests."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def shown() -> list[Rule]:
    """The sequence of rules on the page."""
    found = []
    for line in re.findall(r"^(state\.\w+\(.*\))$", SHOWN, re.MULTILINE):
        call = ast.parse(line, mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Attribute)
        arguments = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
        found.append(on(call.func.attr, **arguments))
    assert found.pop() == on("teardown")
    return found


def test_the_page_shows_the_sequence_that_breaks_the_handler() -> None:
    with pytest.raises(HistoryError) as failed:
        play(BUYING, shown())
    assert f"{failed.value}\n" in SHOWN


def test_the_same_sequence_does_not_break_a_handler_that_leaves_it_to_mcpconn() -> None:
    class Plain(HandlerMachine):
        tools = ("charge",)

    play(Plain, shown())


def test_the_bug_of_the_page_is_found() -> None:
    found = settings(SETTINGS, max_examples=300, phases=[Phase.generate], derandomize=True, database=None)
    with pytest.raises(HistoryError):
        run_state_machine_as_test(BUYING, settings=settings(found, print_blob=False))


def told(problem: BaseException, *notes: str) -> str:
    """What pytest shows of a machine's failure."""

    def run(case: Any) -> None:
        logging.getLogger("mcpconn").warning("nobody wants to read this")
        for note in notes:
            problem.add_note(note)
        raise problem

    with pytest.raises(pytest.fail.Exception) as failed:
        told_alone(run)(None)
    assert not failed.value.pytrace, "frames of hypothesis would stand before it"
    assert failed.value.__context__ is None, "another exception would stand before it"
    return str(failed.value)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with 3.11; before, hypothesis prints them")
def test_a_failure_is_told_in_the_lines_that_matter(caplog: pytest.LogCaptureFixture) -> None:
    problem = HistoryError([])
    assert told(problem, "state = Buying()", "state.teardown()").strip().splitlines() == [
        "state = Buying()",
        "state.teardown()",
    ]
    assert caplog.text == ""
    assert not logging.getLogger("mcpconn").disabled


def test_a_bug_keeps_its_traceback() -> None:
    def run(case: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        told_alone(run)(None)


def test_a_machine_has_settings_of_its_own() -> None:
    assert BUYING.TestCase.settings is SETTINGS
    assert HandlerMachine.TestCase.settings is SETTINGS


def test_a_handler_that_tries_again_without_a_wait_is_found_spinning() -> None:
    class Impatient(HandlerMachine):
        async def handle(self, manager: Any, server: str, tool: str, arguments: dict[str, Any]) -> Any:
            while True:
                try:
                    return await manager.call_tool(server, tool, arguments)
                except CallFailed:
                    await anyio.lowlevel.checkpoint()

    # While it waits for the server, time passes; once the connection has failed, it is told so at once.
    rules = [on("take_down", server=0), on("call", server=0, tool=0, seconds=1), on("wait_long", seconds=65.0)]
    with pytest.raises(Spinning, match="1,000 rounds of the event loop, and no time passes"):
        play(Impatient, rules)
    # hypothesis repeats it some hundred times to make its story shorter: that must not take minutes.
    with pytest.raises(Spinning, match="200 rounds"):
        play(Impatient, rules)


def test_a_handler_that_never_waits_is_found_spinning() -> None:
    class Insistent(HandlerMachine):
        async def handle(self, manager: Any, server: str, tool: str, arguments: dict[str, Any]) -> Any:
            while True:
                try:
                    return await manager.call_tool(server, tool, arguments, wait=False)
                except NotReady:
                    await anyio.lowlevel.checkpoint()

    # Its connection waits for time to pass before it dials again, and time passes only if everybody waits.
    rules = [on("take_down", server=0), on("call", server=0, tool=0, seconds=1), on("forget", server=0)]
    with pytest.raises(Spinning, match="no time passes"):
        play(Insistent, [*rules, on("call", server=0, tool=0, seconds=1), on("advance", seconds=2.0)])


def test_time_that_passes_is_no_spinning() -> None:
    async def main() -> float:
        for _ in range(20):
            for _ in range(1000):
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(1)
        return anyio.current_time()

    loop = VirtualLoop()
    try:
        assert loop.run_until_complete(main()) == pytest.approx(20)
    finally:
        loop.close()


EXAMPLES = load(HOWTO / "test_my_handler_text.py")


@pytest.mark.parametrize("name", [name for name in vars(EXAMPLES) if name.startswith("test_")])
def test_the_example_of_strategies_passes(name: str) -> None:
    getattr(EXAMPLES, name)()
