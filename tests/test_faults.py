"""One fault at a time, on a connection that has already made a call: what its caller gets, and what ran.

Over real sockets, in both eras, with answers as JSON and as event streams. `add` is annotated readOnlyHint;
`charge` is not idempotent, and the server counts its executions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from mcp import MCPError

from mcpconn import CallFailed, CallTimeout, ConnectionFailed, FailureKind, OutcomeUnknown, State
from mcpconn.testing import Expiry, Fault, Script
from mcpconn.testing.scripted import faults, hostile
from tests.support import UNFINISHED_STREAMS, Seen, idle, quiet, served, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

EXPIRIES: tuple[Expiry, ...] = ("404", "404-empty", "404-text", "200", "400", "400-no-id")
Era = Literal["legacy", "modern"]
Answer = Literal["json", "sse"]


@pytest.fixture(params=["json", "sse"])
def answer(request: pytest.FixtureRequest) -> Answer:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Era:
    return request.param  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Row:
    """A fault, the kind of failure it is, and whether the tool has run by then."""

    make: Callable[[], Fault]
    kind: FailureKind
    ran: bool


K = FailureKind
UNKNOWN = {
    "500": Row(faults.server_error, K.UNAVAILABLE, ran=False),
    "502": Row(faults.bad_gateway, K.UNAVAILABLE, ran=False),
    "503": Row(faults.unavailable, K.UNAVAILABLE, ran=False),
    "503 after it ran": Row(lambda: faults.unavailable(ran=True), K.UNAVAILABLE, ran=True),
    "reset before": Row(faults.drop_before, K.TRANSPORT_LOST, ran=False),
    "reset after": Row(faults.drop_after, K.TRANSPORT_LOST, ran=True),
    "stream cut": Row(faults.cut_stream, K.TRANSPORT_LOST, ran=True),
    "stream ended": Row(lambda: faults.cut_stream(clean=True), K.TRANSPORT_LOST, ran=True),
    "stream reset": Row(lambda: faults.cut_stream(reset=True), K.TRANSPORT_LOST, ran=True),
    "garbage": Row(hostile.garbage, K.PROTOCOL, ran=True),
    "html": Row(hostile.html_200, K.CONFIG, ran=True),
    "202": Row(faults.accepted_202, K.PROTOCOL, ran=True),
}
"""Faults after which the outcome is unknown."""


def handshakes(script: Script) -> int:
    return script.count("initialize")


@pytest.mark.parametrize("tool", ["add", "charge"])
@pytest.mark.parametrize("expiry", EXPIRIES)
async def test_a_forgotten_session_costs_one_initialize_and_nothing_else(
    expiry: Expiry, tool: str, answer: Answer
) -> None:
    script = Script(answer=answer, expiry=expiry)
    async with served(script) as (connection, _):
        script.forget_sessions()
        result = await connection.call_tool(tool, {"a": 2, "b": 3, "amount": 5})
        assert text_of(result) == ("5" if tool == "add" else "charged 5")
        assert script.executions[tool] == (2 if tool == "add" else 1)
        assert handshakes(script) == 2
        assert script.count("server/discover") == 1
        assert (connection.state, connection.epoch) == (State.READY, 2)
        assert connection.last_failure is not None
        assert connection.last_failure.kind is K.SESSION_EXPIRED
        assert connection.status()["counts"]["replayed"] == 1


@pytest.mark.parametrize("fault", UNKNOWN)
async def test_a_read_only_tool_answers_although_its_first_answer_was_lost(
    fault: str, era: Era, answer: Answer
) -> None:
    script, row = Script(era=era, answer=answer), UNKNOWN[fault]
    async with served(script) as (connection, _):
        before = handshakes(script)
        armed = script.inject(row.make())
        result = await connection.call_tool("add", {"a": 2, "b": 3})
        await quiet(connection)
        assert text_of(result) == "5"
        assert armed.used == 1
        assert script.executions["add"] == (3 if row.ran else 2)
        assert handshakes(script) == before
        assert (connection.state, connection.epoch) == (State.READY, 1)
        assert idle(connection)


@pytest.mark.parametrize("fault", UNKNOWN)
async def test_a_lost_answer_is_not_retried_unless_idempotent(fault: str, era: Era, answer: Answer) -> None:
    script, row = Script(era=era, answer=answer), UNKNOWN[fault]
    probe = "ping" if era == "legacy" else "server/discover"
    async with served(script) as (connection, _):
        before, probes = handshakes(script), script.count(probe)
        script.inject(row.make())
        with pytest.raises(OutcomeUnknown, match=r"srv: .*the tool may have run") as caught:
            await connection.call_tool("charge", {"amount": 5})
        await quiet(connection)
        error = caught.value
        assert isinstance(error, MCPError)
        assert error.failure.kind is row.kind
        assert (error.outcome, error.attempts, error.state) == ("unknown", 1, State.READY)
        assert script.executions["charge"] == int(row.ran)
        assert handshakes(script) == before
        assert script.count(probe) - probes == 1
        assert (connection.state, connection.epoch) == (State.READY, 1)
        assert text_of(await connection.call_tool("charge", {"amount": 1})) == "charged 1"
        assert script.executions["charge"] == int(row.ran) + 1


async def test_the_caller_can_say_that_running_a_tool_twice_does_no_harm(era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        script.inject(faults.drop_after())
        result = await connection.call_tool("charge", {"amount": 5}, idempotent=True)
        assert text_of(result) == "charged 5"
        assert script.executions["charge"] == 2


async def test_the_caller_can_say_that_running_a_read_only_tool_twice_does_harm(era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        script.inject(faults.drop_after())
        with pytest.raises(OutcomeUnknown):
            await connection.call_tool("add", {"a": 1, "b": 1}, idempotent=False)
        assert script.executions["add"] == 2


@pytest.mark.parametrize("tool", ["add", "charge"])
async def test_a_second_failure_is_the_callers(tool: str, era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        armed = script.inject(faults.drop_after(), times=None)
        with pytest.raises(OutcomeUnknown) as caught:
            await connection.call_tool(tool, {"a": 1, "b": 1})
        assert armed.used == caught.value.attempts == (2 if tool == "add" else 1)


@pytest.mark.parametrize("fault", [faults.rate_limited(0.05), faults.unavailable(0.05)], ids=["429", "503"])
@pytest.mark.parametrize("tool", ["add", "charge"])
async def test_retry_after_is_waited_for_in_full(tool: str, fault: Fault, era: Era) -> None:
    # Whole seconds are tried in virtual time, in test_timing.py.
    script = Script(era=era)
    async with served(script) as (connection, _):
        before = handshakes(script)
        script.inject(fault)
        if tool == "charge" and "503" in fault.name:
            with pytest.raises(OutcomeUnknown, match=r"asks to wait 0.05 s") as caught:
                await connection.call_tool("charge", {"amount": 5})
            assert caught.value.retry_in == pytest.approx(0.05)
            assert script.executions["charge"] == 0
        else:
            started = connection._shared.clock.now()
            assert text_of(await connection.call_tool(tool, {"a": 2, "b": 3, "amount": 5})) in ("5", "charged 5")
            assert connection._shared.clock.now() - started >= 0.05
            assert script.executions[tool] == (2 if tool == "add" else 1)
        await quiet(connection)
        assert (handshakes(script), connection.epoch) == (before, 1)


@pytest.mark.parametrize("tool", ["add", "charge"])
async def test_a_401_with_nothing_to_refresh_fails_the_connection_after_one_dial(tool: str, era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        seen, before = Seen(connection), handshakes(script)
        script.inject(faults.unauthorized(), method=None, times=None)
        with pytest.raises(CallFailed) as caught:
            await connection.call_tool(tool, {"a": 1, "b": 1})
        await quiet(connection)
        assert (caught.value.failure.kind, caught.value.outcome) == (K.AUTH, "not_run")
        assert not isinstance(caught.value, OutcomeUnknown)
        assert script.executions[tool] == (1 if tool == "add" else 0)
        # Servers refuse a forgotten session so, too. A dial with the same credentials tells the two apart.
        assert seen.events == ["suspected", "lost", "give_up"]
        assert handshakes(script) <= before + 1
        with pytest.raises(ConnectionFailed, match="log in again") as refused:
            await connection.call_tool(tool, {"a": 1, "b": 1})
        assert (refused.value.failure.kind, refused.value.retry_in) == (K.AUTH, None)
        script.clear()
        await connection.reconnect()
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"


@pytest.mark.parametrize("tool", ["add", "charge"])
async def test_a_401_for_one_tool_is_that_calls(tool: str, era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        seen = Seen(connection)
        script.inject(faults.unauthorized())
        with pytest.raises(CallFailed) as caught:
            await connection.call_tool(tool, {"a": 1, "b": 1})
        await quiet(connection)
        assert caught.value.failure.kind is K.AUTH
        assert seen.events == ["suspected"]
        assert (connection.state, connection.epoch) == (State.READY, 1)


@pytest.mark.parametrize("tool", ["add", "charge"])
async def test_a_403_is_that_calls_alone(tool: str, era: Era, answer: Answer) -> None:
    script = Script(era=era, answer=answer)
    async with served(script) as (connection, _):
        seen = Seen(connection)
        script.inject(faults.forbidden())
        with pytest.raises(CallFailed) as caught:
            await connection.call_tool(tool, {"a": 1, "b": 1})
        assert (caught.value.failure.kind, caught.value.outcome) == (K.AUTH, "not_run")
        assert not isinstance(caught.value, OutcomeUnknown)
        await quiet(connection)
        assert seen.events == ["suspected"]
        assert connection.epoch == 1
        assert script.executions[tool] == (1 if tool == "add" else 0)
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"


@pytest.mark.parametrize("fault", [faults.hang, faults.hang_after], ids=["not run", "run"])
@pytest.mark.parametrize("tool", ["add", "charge"])
async def test_an_unanswered_call_is_followed_by_a_probe(tool: str, fault: Callable[[], Fault], era: Era) -> None:
    script = Script(era=era)
    probe = "ping" if era == "legacy" else "server/discover"
    async with served(script) as (connection, _):
        seen, probes, ran = Seen(connection), script.count(probe), script.executions[tool]
        now = connection._shared.clock.now
        script.inject(fault())
        started = now()
        with pytest.raises(CallTimeout, match=r"no answer within 0.1 s; the tool may have run") as caught:
            await connection.call_tool(tool, {"a": 1, "b": 1}, timeout=0.1)
        assert 0.1 <= now() - started <= 0.6
        await quiet(connection)
        assert (caught.value.failure.kind, caught.value.outcome) == (K.TIMEOUT, "unknown")
        assert isinstance(caught.value, TimeoutError)
        assert script.executions[tool] - ran == int(fault is faults.hang_after)
        assert seen.events == ["suspected"]
        assert script.count(probe) == probes + 1
        assert (connection.state, connection.epoch) == (State.READY, 1)
        assert idle(connection)


async def test_a_tools_own_words_about_an_expired_session_are_an_answer(era: Era, answer: Answer) -> None:
    script = Script(era=era, answer=answer)
    async with served(script) as (connection, _):
        seen = Seen(connection)
        result = await connection.call_tool("session_expired_result")
        assert result.is_error
        assert text_of(result) == "session expired"
        assert seen.events == []
        assert script.executions["session_expired_result"] == 1


async def test_an_error_like_an_expired_session_is_probed(era: Era, answer: Answer) -> None:
    script = Script(era=era, answer=answer)
    async with served(script) as (connection, _):
        seen, before = Seen(connection), handshakes(script)
        with pytest.raises(MCPError) as caught:
            await connection.call_tool("shopping")
        await quiet(connection)
        assert not isinstance(caught.value, CallFailed)
        assert caught.value.error.code == -32603
        assert caught.value.error.message == "Tool failed: the user's shopping session expired"
        assert script.executions["shopping"] == 1
        assert seen.events == ["suspected"]
        assert (handshakes(script), connection.epoch) == (before, 1)


@pytest.mark.parametrize(
    ("code", "message"),
    [(-32602, "Unknown tool: nothing"), (-32000, "Tool failed to execute"), (-32603, "Missing parameter"), (1, "")],
)
async def test_an_application_error_is_unchanged(code: int, message: str, era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        seen = Seen(connection)
        script.inject(faults.rpc_error(code, message, {"hint": [1]}))
        with pytest.raises(MCPError) as caught:
            await connection.call_tool("charge")
        assert type(caught.value) is MCPError
        assert caught.value.error.model_dump() == {"code": code, "message": message, "data": {"hint": [1]}}
        await quiet(connection)
        # A reserved code may be about the session; a probe has found that it is not.
        assert seen.events == (["suspected"] if code in (-32000, -32603) else [])
        assert connection.epoch == 1
        assert script.executions["charge"] == 1


@pytest.mark.parametrize("count", [2, 5])
async def test_faults_one_after_another_are_survived_one_by_one(count: int, era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        for number in range(count):
            script.inject(faults.drop_after() if number % 2 else faults.bad_gateway())
            assert text_of(await connection.call_tool("add", {"a": number, "b": 1})) == str(number + 1)
        assert connection.epoch == 1


METHODS: dict[str, Callable[[Any], Any]] = {
    "tools/list": lambda c: c.list_tools(),
    "resources/list": lambda c: c.list_resources(),
    "resources/templates/list": lambda c: c.list_resource_templates(),
    "resources/read": lambda c: c.read_resource("memo://rules"),
    "prompts/list": lambda c: c.list_prompts(),
    "prompts/get": lambda c: c.get_prompt("greet", {"name": "Ada"}),
}


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_follows_the_same_rules(method: str, era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        before = script.count(method)
        script.inject(faults.drop_after(), method=method)
        assert await METHODS[method](connection) is not None
        assert script.count(method) == before + 2
        await quiet(connection)
        script.forget_sessions()
        assert await METHODS[method](connection) is not None
        assert connection.epoch == (2 if era == "legacy" else 1)
