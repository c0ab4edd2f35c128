"""What a session was told and the next one is told again: log level and subscriptions (legacy era)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
import pytest

from mcpconn import Connection, State
from mcpconn.testing import Script, clock
from mcpconn.testing.scripted import faults
from tests.support import played, text_of

URI = "memo://rules"
Act = Callable[[Connection, list[str]], Awaitable[None]]


def play(backend: str, script: Script, act: Act) -> None:
    """Run `act` with a connection that watches a resource and has set a log level, in virtual time."""

    async def main() -> None:
        told: list[str] = []

        async def handler(message: Any) -> None:
            if isinstance(message, types.ResourceUpdatedNotification):
                told.append(str(message.params.uri))

        async with played(script, message_handler=handler) as (connection, _):
            await connection.subscribe_resource(URI)
            await connection.set_logging_level("warning")
            await anyio.sleep(10)
            await act(connection, told)

    clock.run(main, backend=backend)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def restored(script: Script) -> tuple[set[str], str | None]:
    (session,) = script.sessions
    return script.states[session].subscriptions, script.states[session].log_level


def test_sessions_are_told_before_a_call(backend: str) -> None:
    script = Script()

    async def act(connection: Connection, told: list[str]) -> None:
        script.forget_sessions()
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        assert restored(script) == ({URI}, "warning")
        await anyio.sleep(5)
        assert told == [URI]

    play(backend, script, act)


REFUSALS = [
    faults.rpc_error(-32601, "Method not found", ran=False),
    faults.rpc_error(-32002, "Resource not found", ran=False),
    faults.server_error(),
    faults.bad_gateway(),
    faults.status(400, body=b"no", content_type="text/plain"),
    faults.drop_before(),
]


@pytest.mark.parametrize("fault", REFUSALS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("method", ["resources/subscribe", "logging/setLevel"])
def test_a_refused_subscription_keeps_no_connection_from_its_calls(
    backend: str, method: str, fault: faults.Fault
) -> None:
    script = Script()

    async def act(connection: Connection, told: list[str]) -> None:
        script.forget_sessions()
        script.inject(fault, method=method, times=None)
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1}, timeout=10)) == "2"
        assert connection.state is State.READY
        await anyio.sleep(60)
        assert text_of(await connection.call_tool("charge")) == "charged 1"

    play(backend, script, act)


def test_what_could_not_be_restored_at_once_is_restored_beside_the_calls(backend: str) -> None:
    script = Script()

    async def act(connection: Connection, told: list[str]) -> None:
        script.forget_sessions()
        script.inject(faults.hang(), method="resources/subscribe", times=1)
        began = anyio.current_time()
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        assert anyio.current_time() - began < connection.policy.probe_timeout + 1
        await anyio.sleep(5)
        assert restored(script) == ({URI}, "warning")

    play(backend, script, act)


def test_a_session_that_is_gone_at_its_beginning_is_replaced(backend: str) -> None:
    script = Script()

    async def act(connection: Connection, told: list[str]) -> None:
        script.forget_sessions()
        script.inject(faults.expired_404(), method="logging/setLevel", times=1)
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        assert restored(script) == ({URI}, "warning")
        assert script.count("initialize") == 3

    play(backend, script, act)


def test_what_was_given_up_is_not_restored(backend: str) -> None:
    script = Script()

    async def act(connection: Connection, told: list[str]) -> None:
        await connection.unsubscribe_resource(URI)
        script.forget_sessions()
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        await anyio.sleep(5)
        assert restored(script) == (set(), "warning")
        assert told == []

    play(backend, script, act)


def test_a_handler_that_raises_is_reported_and_harms_nothing(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    script = Script()

    async def main() -> None:
        async def handler(message: Any) -> None:
            raise ValueError("host code")

        async with played(script, message_handler=handler) as (connection, _):
            await connection.subscribe_resource(URI)
            script.forget_sessions()
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            await anyio.sleep(5)
            assert connection.epoch == 2

    clock.run(main, backend=backend)
    assert "handler.raised" in caplog.text
