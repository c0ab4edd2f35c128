"""The machine for users' handlers finds ten broken ones, and blames none of five right ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from mcp import MCPError

import mcpconn
from mcpconn import handlers
from mcpconn.testing.history import Said
from mcpconn.testing.machine import SETTINGS, HandlerMachine
from tests.properties.sequences import Rule, on, play

# The SDK leaves response bodies unfinished, and trio warns of that; see tests/support.py.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2:ResourceWarning")

CHARGE = on("call", server=0, tool=0, seconds=1)
TROUBLES: tuple[Rule, ...] = (
    CHARGE,
    on("advance", seconds=2.0),
    on("fail_calls", fault="drop after", server=0, times=1),
    CHARGE,
    on("advance", seconds=6.0),
    on("forget", server=0),
    CHARGE,
    on("advance", seconds=6.0),
    on("take_down", server=0),
    CHARGE,
    on("wait_long", seconds=310.0),
    CHARGE,
    on("bring_up", server=0),
    on("wait_long", seconds=310.0),
    CHARGE,
    on("advance", seconds=6.0),
)
"""A call that is answered, one that ran unheard, one on a forgotten session, two that never left, and one more."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def machine(handle: Any) -> type[HandlerMachine]:
    class Machine(HandlerMachine):
        tools = ("charge",)

        async def handle(self, manager: Any, server: str, tool: str, arguments: dict[str, Any]) -> Any:
            return await handle(manager, server, tool, arguments)

    return Machine


# -- broken


async def misspelt(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    return await managr.call_tool(server, tool, arguments)  # type: ignore[name-defined]  # noqa: F821


async def misspelt_when_it_fails(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    try:
        return await manager.call_tool(server, tool, arguments)
    except mcpconn.CallFailed as error:
        raise Said(error.outcom, str(error)) from None  # type: ignore[attr-defined]


async def reads_what_is_not_there(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    result = await manager.call_tool(server, tool, arguments)
    return result.structured_content["receipt"]


async def words_of_its_own(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    try:
        return await manager.call_tool(server, tool, arguments)
    except mcpconn.CallFailed as error:
        raise RuntimeError("the shop is closed") from error


async def tries_again(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    try:
        return await manager.call_tool(server, tool, arguments)
    except mcpconn.CallFailed:
        return await manager.call_tool(server, tool, arguments)


async def says_it_is_safe(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    return await manager.call_tool(server, tool, arguments, idempotent=True)


async def always_not_run(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    try:
        return await manager.call_tool(server, tool, arguments)
    except MCPError as error:
        raise Said("not_run") from error


async def always_ran(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    try:
        return await manager.call_tool(server, tool, arguments)
    except MCPError as error:
        raise Said("ran") from error


async def makes_an_answer_up(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    try:
        return await manager.call_tool(server, tool, arguments)
    except MCPError:
        return "charged"


async def never_answers(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    try:
        return await manager.call_tool(server, tool, arguments)
    except mcpconn.CallFailed:
        await anyio.sleep_forever()


BROKEN = (
    misspelt,
    misspelt_when_it_fails,
    reads_what_is_not_there,
    words_of_its_own,
    tries_again,
    says_it_is_safe,
    always_not_run,
    always_ran,
    makes_an_answer_up,
    never_answers,
)


# -- right


async def plain(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    return await manager.call_tool(server, tool, arguments)


async def says_what_is_known(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    try:
        return await manager.call_tool(server, tool, arguments)
    except mcpconn.CallFailed as error:
        raise Said(error.outcome, str(error)) from None


async def tries_again_what_did_not_run(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    try:
        return await manager.call_tool(server, tool, arguments)
    except mcpconn.CallFailed as error:
        if error.outcome != "not_run":
            raise
        return await manager.call_tool(server, tool, arguments)


async def answers_in_json(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    answer = json.loads(await handlers.call_tool(manager, server, tool)(arguments))
    if "error" in answer:
        raise Said(answer["outcome"], answer["error"])
    return answer


async def answers_with_a_result(manager: Any, server: str, tool: str, arguments: Any) -> Any:
    result = await handlers.call_tool_result(manager, server, tool, arguments)
    if result.is_error:
        raise Said((result.meta or {})["mcpconn/outcome"])
    return result


RIGHT = (plain, says_what_is_known, tries_again_what_did_not_run, answers_in_json, answers_with_a_result)


def named(function: Any) -> str:
    return str(function.__name__)


@pytest.mark.parametrize("handler", BROKEN, ids=named)
def test_a_broken_handler_is_found(handler: Any) -> None:
    with pytest.raises(AssertionError):
        play(machine(handler), TROUBLES)


SEARCH = settings(SETTINGS, phases=[Phase.generate], derandomize=True, database=None, print_blob=False)
"""As a user's test searches, without the shrinking."""


@pytest.mark.parametrize("handler", BROKEN, ids=named)
def test_a_broken_handler_is_found_by_search(handler: Any) -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine(handler), settings=SEARCH)


@pytest.mark.parametrize("handler", RIGHT, ids=named)
def test_a_search_spares_a_right_handler(handler: Any) -> None:
    run_state_machine_as_test(machine(handler), settings=settings(SEARCH, max_examples=10))


@pytest.mark.parametrize("handler", RIGHT, ids=named)
def test_a_right_handler_is_not_blamed(handler: Any) -> None:
    play(machine(handler), TROUBLES)


def test_a_handlers_bug_names_its_exception() -> None:
    with pytest.raises(AssertionError, match=r"no bug in the handler: .*NameError"):
        play(machine(misspelt), (CHARGE, on("advance", seconds=2.0)))


@pytest.mark.parametrize("outcome", ["", "perhaps", "answered"])
def test_only_real_outcomes_can_be_said(outcome: str) -> None:
    with pytest.raises(ValueError, match="not_run, unknown or ran"):
        Said(outcome)
