"""Handlers are interrupted, never raise, and never hang: whatever the host, the server and the network do."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import anyio
import pytest
from mcp import MCPError

from mcpconn import Manager, NotRunning, State, SyncManager, handlers
from mcpconn.core.outcome import Outcome
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.clock import virtual_backend
from mcpconn.testing.scripted import faults, hostile
from tests.hosts import ARGS, FACTORIES, Host, Surface, hosting, made, parsed, scripted
from tests.support import BUSY, SAFETY, UNFINISHED_STREAMS, Requests
from tests.test_sync import Waiting, interrupted_after

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

Hosting = Callable[..., AbstractAsyncContextManager[Host]]
LOOP: dict[str, Any] = {}
LOOP["me"] = LOOP


@pytest.fixture(params=["Manager", "SyncManager"])
def surface(request: pytest.FixtureRequest) -> Surface:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def host(surface: Surface, anyio_backend: tuple[str, dict[str, Any]]) -> Hosting:
    return partial(hosting, surface, backend=anyio_backend[0])


# -- interrupts


class Interrupting(ScriptTransport):
    """Raises InterruptedError for the next tool call, as a host's signal handler may do anywhere."""

    armed = False

    async def handle_async_request(self, request: Any) -> Any:
        if self.armed and b"tools/call" in await request.aread():
            self.armed = False
            raise InterruptedError("session expired: the user has sent something new")
        return await super().handle_async_request(request)


async def test_an_interrupt_is_never_taken_for_an_expired_session(host: Hosting) -> None:
    script = Script()
    transport = Interrupting(script)
    async with host({"srv": scripted(script, http_transport=transport)}) as asking:
        await asking.ready()
        calls = script.count("tools/call")
        transport.armed = True
        answer = await asking.tool("charge")
        assert (answer["kind"], answer["outcome"]) == ("cancelled", "unknown")
        assert "interrupted on this side" in answer["error"]
        assert script.count("tools/call") == calls
        assert (script.count("initialize"), asking.connection.epoch) == (1, 1)


async def test_cancellation_goes_through_a_handler_and_leaves_the_session_alone() -> None:
    script = Script()
    async with hosting("Manager", {"srv": scripted(script)}) as asking:
        await asking.ready()
        requests, answers = Requests(script), []
        script.inject(faults.hang())
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def call() -> None:
                    answers.append(await asking.tool("charge"))

                group.start_soon(call)
                await requests.reach("tools/call", 2)
                scope.cancel()
        assert scope.cancelled_caught
        assert answers == []
        assert (await asking.tool("add", {"a": 1, "b": 2}))["result"] == "3"
        assert (script.count("initialize"), asking.connection.epoch) == (1, 1)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ctrl_c_goes_through_a_plain_handler_and_leaves_the_session_alone(backend: str) -> None:
    waiting = Waiting()
    with SyncManager({"srv": {"server": waiting.server}}, backend=backend) as manager:
        handler = handlers.call_tool(manager, "srv", "forever", timeout=3600)
        with interrupted_after(waiting.started), pytest.raises(KeyboardInterrupt):
            handler({})
        assert waiting.ended.wait(SAFETY)
        assert (manager["srv"].state, manager["srv"].epoch) == (State.READY, 1)


def test_what_a_signal_handler_raises_is_a_plain_handlers_answer() -> None:
    def interrupt(*_: object) -> None:
        raise InterruptedError("session expired")

    waiting = Waiting()
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with SyncManager({"srv": {"server": waiting.server}}) as manager:
            handler = handlers.call_tool(manager, "srv", "forever", timeout=3600)
            with interrupted_after(waiting.started):
                answer = parsed(handler({}))
            assert waiting.ended.wait(SAFETY)
            assert (manager["srv"].state, manager["srv"].epoch) == (State.READY, 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (answer["kind"], answer["outcome"]) == ("cancelled", "unknown")


# -- never


EVERYTHING = [
    *(faults.drop_before, faults.drop_after, faults.bad_gateway, faults.server_error, faults.unavailable),
    *(faults.cut_stream, faults.accepted_202, faults.not_found_html, faults.unauthorized, faults.forbidden),
    *(faults.hang, faults.hang_after, faults.rate_limited, faults.expired_200, faults.expired_400),
    *(hostile.garbage, hostile.html_200, hostile.wrong_id, hostile.wrong_shape, hostile.invalid_utf8),
    *(hostile.duplicate_response, hostile.forged_evidence),
]


async def test_a_handler_answers_in_time_and_raises_nothing(host: Hosting) -> None:
    script = Script()
    async with host({"srv": scripted(script)}) as asking:
        await asking.ready()
        for fault in EVERYTHING:
            script.inject(fault(), times=None)
            with anyio.fail_after(BUSY):
                answer = await asking.tool("charge", timeout=0.05)
            assert "error" in answer or fault is hostile.duplicate_response
            script.clear()
        await asking.do(partial(asking.manager["srv"].reconnect, SAFETY))
        assert (await asking.tool("add", {"a": 1, "b": 2}))["result"] == "3"


class Nameless(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


RAISED = [
    RuntimeError(""),
    Nameless(),
    MCPError(1, "no", {"me": LOOP}),
    MCPError(1, "\ud800", {"a": object()}),
    NotRunning("closed"),
    KeyError("srv"),
    TimeoutError(),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_whatever_a_call_raises_is_an_answer(error: Exception) -> None:
    class Raising(Manager):
        async def call_tool(self, *args: Any, **options: Any) -> Any:
            raise error

    class PlainRaising(SyncManager):
        def call_tool(self, *args: Any, **options: Any) -> Any:
            raise error

    for manager in (Raising({"srv": scripted(Script())}), PlainRaising({"srv": scripted(Script())})):
        answer = await Host(manager).tool("add")
        assert answer["outcome"] == ("not_run" if isinstance(error, NotRunning) else "unknown")


async def test_a_loop_that_ends_under_a_call_leaves_its_outcome_unknown() -> None:
    error = NotRunning("the manager's event loop has ended")
    error.outcome = Outcome.UNKNOWN

    class Ended(SyncManager):
        def call_tool(self, *args: Any, **options: Any) -> Any:
            raise error

    answer = await Host(Ended({"srv": scripted(Script())})).tool("charge")
    assert answer["outcome"] == "unknown"
    assert "It is not known whether the tool ran." in answer["error"]


class TestVirtualTime:
    """Without a clock on the wall."""

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
        return virtual_backend(request.param)

    async def test_a_tool_that_never_answers_is_left_after_a_minute(self) -> None:
        script = Script()
        async with Manager({"srv": scripted(script)}) as manager:
            await manager["srv"].wait_ready()
            script.inject(faults.hang_after())
            began = anyio.current_time()
            answer = parsed(await handlers.call_tool(manager, "srv", "charge")({}))
            assert anyio.current_time() - began == pytest.approx(60, abs=0.5)
            assert (answer["kind"], answer["outcome"]) == ("timeout", "unknown")
            assert script.executions["charge"] == 1

    @pytest.mark.parametrize("factory", FACTORIES)
    async def test_a_server_that_is_down_is_waited_for_no_longer_than_the_timeout(self, factory: str) -> None:
        config = scripted(Script())
        config["http_transport"].down = True
        async with Manager({"srv": config}) as manager:
            began = anyio.current_time()
            answer = parsed(await made(factory, manager, timeout=7)(ARGS.get(factory, {})))
            assert anyio.current_time() - began == pytest.approx(7, abs=0.5)
            assert (answer["kind"], answer["state"], answer["outcome"]) == ("timeout", "connecting", "not_run")
            assert "not ready within 7 s" in answer["error"]

    async def test_failed_says_when_it_tries_again(self) -> None:
        config = scripted(Script())
        config["http_transport"].down = True
        async with Manager({"srv": config}) as manager:
            await manager.wait_ready()
            assert manager["srv"].state is State.FAILED
            began = anyio.current_time()
            answer = parsed(await made("call_tool", manager, tool="charge", timeout=3600)({}))
            assert anyio.current_time() == began
            assert (answer["kind"], answer["state"], answer["outcome"]) == ("unavailable", "failed", "not_run")
            assert 0 < answer["retry_in"] <= 36
            (said,) = re.findall(r"Before the next attempt to connect in (\d+) s every call fails", answer["error"])
            assert float(said) == pytest.approx(answer["retry_in"], abs=0.6)
