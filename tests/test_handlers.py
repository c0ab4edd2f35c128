"""Handlers for tool registries: what they do, whatever happens. On both managers and both event loops."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timezone
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcpconn import Manager, State, SyncManager, handlers
from mcpconn.testing import STDIO_SERVER, Expiry, Fault, Script
from mcpconn.testing.scripted import faults
from tests.hosts import ARGS, FACTORIES, Host, Surface, hosting, made, parsed, scripted
from tests.support import SAFETY, UNFINISHED_STREAMS

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

Hosting = Callable[..., AbstractAsyncContextManager[Host]]
METHODS = {
    "call_tool": "tools/call",
    "list_tools": "tools/list",
    "list_resources": "resources/list",
    "list_resource_templates": "resources/templates/list",
    "read_resource": "resources/read",
    "list_prompts": "prompts/list",
    "get_prompt": "prompts/get",
    "complete": "completion/complete",
}


@pytest.fixture(params=["Manager", "SyncManager"])
def surface(request: pytest.FixtureRequest) -> Surface:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def host(surface: Surface, anyio_backend: tuple[str, dict[str, Any]]) -> Hosting:
    return partial(hosting, surface, backend=anyio_backend[0])


# -- what they are


def test_they_are_async_for_a_manager_and_plain_for_a_sync_manager() -> None:
    for factory in FACTORIES:
        for manager, is_async in ((Manager(), True), (SyncManager(), False)):
            handler = made(factory, manager)
            assert inspect.iscoroutinefunction(handler) is is_async
            assert handler.__name__ == ("add" if factory == "call_tool" else factory)


def test_an_unusable_default_timeout_is_refused_at_once() -> None:
    assert inspect.signature(handlers.call_tool).parameters["timeout"].default == 60
    for timeout in (0, -1, float("nan"), float("inf"), True):
        for factory in FACTORIES:
            with pytest.raises(ValueError, match="timeout must be"):
                made(factory, Manager(), timeout=timeout)


@pytest.mark.parametrize("factory", FACTORIES)
async def test_each_waits_for_ready_issues_and_is_replayed_by_the_rules_of_the_core(
    factory: str, host: Hosting
) -> None:
    script = Script()
    async with host({"srv": scripted(script, lazy=True)}) as asking:
        handler, args = made(factory, asking.manager), ARGS.get(factory, {})
        first = await asking.ask(handler, args)
        await asking.ready()
        before = script.count(METHODS[factory])
        script.forget_sessions()
        assert await asking.ask(handler, args) == first
        # Beside it the catalogue may list again.
        assert script.count(METHODS[factory]) >= before + 2
        script.inject(faults.drop_after(), method=METHODS[factory])
        assert await asking.ask(handler, args) == first
        assert asking.connection.epoch == 2
        assert "result" in first


# -- an expired session


@pytest.mark.parametrize("expiry", ["404", "404-empty", "200", "400", "400-no-id"])
async def test_an_expired_sessions_call_is_retried(expiry: Expiry, host: Hosting) -> None:
    script = Script(expiry=expiry)
    async with host({"srv": scripted(script)}) as asking:
        await asking.ready()
        calls = script.count("tools/call")
        script.forget_sessions()
        assert await asking.tool("charge", {"amount": 5}) == {"result": "charged 5"}
        assert (script.count("tools/call") - calls, script.executions["charge"]) == (2, 1)
        assert (script.count("initialize"), asking.connection.epoch) == (2, 2)


@pytest.mark.parametrize(
    ("second", "kind", "outcome"),
    [
        (faults.expired_404, "session_expired", "not_run"),
        (faults.drop_after, "transport_lost", "unknown"),
        (faults.forbidden, "auth", "not_run"),
        (partial(faults.rpc_error, 1, "the shop is closed"), "application", "unknown"),
    ],
    ids=["expired again", "cut", "forbidden", "refused"],
)
async def test_when_the_second_fails_too_its_error_is_returned_and_nothing_loops(
    second: Callable[[], Fault], kind: str, outcome: str, host: Hosting
) -> None:
    script = Script()
    async with host({"srv": scripted(script)}) as asking:
        await asking.ready()
        calls = script.count("tools/call")
        script.inject(faults.expired_404())
        script.inject(second(), times=None)
        answer = await asking.tool("charge", {"amount": 5})
        assert (answer["kind"], answer["outcome"]) == (kind, outcome)
        assert script.count("tools/call") - calls == 2
        if kind == "application":
            assert "the shop is closed" in answer["error"]


async def test_a_tools_own_failure_after_a_reconnect_is_its_answer(host: Hosting) -> None:
    script = Script()
    async with host({"srv": scripted(script)}) as asking:
        await asking.ready()
        calls = script.count("tools/call")
        script.forget_sessions()
        answer = await asking.tool("session_expired_result")
        assert (answer["error"], answer["outcome"]) == ("session expired", "ran")
        assert script.count("tools/call") - calls == 2
        assert script.executions["session_expired_result"] == 1


async def test_twenty_calls_that_meet_it_cause_one_reconnect(host: Hosting) -> None:
    script = Script()
    answers: list[dict[str, Any]] = []
    async with host({"srv": scripted(script)}) as asking:
        await asking.ready()
        calls = script.count("tools/call")
        script.forget_sessions()

        async def ask(amount: int) -> None:
            answers.append(await asking.tool("charge", {"amount": amount}))

        async with anyio.create_task_group() as group:
            for amount in range(20):
                group.start_soon(ask, amount)
        assert sorted(answer["result"] for answer in answers) == sorted(f"charged {amount}" for amount in range(20))
        assert script.executions["charge"] == 20
        # Those that came after the loss was known have waited, and were made once.
        assert 21 <= script.count("tools/call") - calls <= 40
        assert (script.count("initialize"), asking.connection.epoch) == (2, 2)


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("tool", ["session_expired_result", "shopping", "no_such_tool"])
async def test_a_tools_failure_causes_no_reconnect(tool: str, era: Any, host: Hosting) -> None:
    script = Script(era=era)
    async with host({"srv": scripted(script)}) as asking:
        await asking.ready()
        handshakes, calls = script.count("initialize"), script.count("tools/call")
        answer = await asking.tool(tool)
        assert answer["kind"] == "application"
        assert script.count("tools/call") - calls == 1
        assert (script.count("initialize"), asking.connection.epoch) == (handshakes, 1)
        assert asking.connection.state is State.READY


# -- at once


@pytest.mark.parametrize("factory", FACTORIES)
async def test_where_the_manager_is_not_running_there_is_an_error_at_once(factory: str, surface: Surface) -> None:
    script = Script()
    manager = (Manager if surface == "Manager" else SyncManager)({"srv": scripted(script)})
    asking = Host(manager)
    # No deadline could hide a wait: this one is longer than the test may take.
    handler, args = made(factory, manager, timeout=3600), ARGS.get(factory, {})
    with anyio.fail_after(SAFETY):
        before = await asking.ask(handler, args)
        if isinstance(manager, SyncManager):
            await asking.do(lambda: manager.start().close())
        else:
            async with manager:
                pass
        requests = len(script.requests)
        after = await asking.ask(handler, args)
    for answer, state, why in ((before, "idle", "not"), (after, "closed", "the manager was")):
        assert why in answer["error"]
        assert (answer["kind"], answer["state"], answer["outcome"]) == ("unavailable", state, "not_run")
        assert answer["retry_in"] is None
    assert len(script.requests) == requests


@pytest.mark.parametrize("factory", FACTORIES)
async def test_where_the_server_is_not_known_there_is_an_error_at_once(factory: str, host: Hosting) -> None:
    async with host({"other": scripted(Script(), lazy=True)}) as asking:
        handler, args = made(factory, asking.manager, timeout=3600), ARGS.get(factory, {})
        answer = await asking.ask(handler, args)
        assert "no server named 'srv'; known servers: other" in answer["error"]
        assert (answer["kind"], answer["state"], answer["outcome"]) == ("config", None, "not_run")


async def test_a_server_may_come_and_go_after_its_handlers_were_made(host: Hosting) -> None:
    script = Script()
    async with host({}) as asking:
        charge = made("call_tool", asking.manager, tool="charge")
        assert (await asking.ask(charge, {}))["kind"] == "config"

        asking.manager.add("srv", scripted(script))
        assert await asking.ask(charge, {}) == {"result": "charged 1"}
        asking.manager.remove("srv")
        assert (await asking.ask(charge, {}))["kind"] == "config"
        assert script.executions["charge"] == 1


LOOP: dict[str, Any] = {}
LOOP["me"] = LOOP
BAD: list[tuple[str, Any, str]] = [
    ("call_tool", None, "must be an object, not NoneType"),
    ("call_tool", "{}", "must be an object, not str"),
    ("call_tool", {1: 2}, "should be a valid string"),
    ("call_tool", {"a": object()}, "not JSON"),
    ("call_tool", {"a": b"\xff"}, "not JSON"),
    ("call_tool", {"a": "half a pair: \ud800"}, "not JSON"),
    ("call_tool", LOOP, "not JSON"),
    ("list_tools", {"cursr": "1"}, "unknown argument 'cursr'; known: cursor"),
    ("list_resources", {"cursor": 1}, "cursor: "),
    ("list_resource_templates", [], "must be an object, not list"),
    ("read_resource", {}, "uri: Field required"),
    ("read_resource", {"uri": "memo://\udc00"}, "not JSON"),
    ("list_prompts", {"name": "greet"}, "unknown argument 'name'"),
    ("get_prompt", {"name": "greet", "arguments": {"name": 1}}, "arguments.name: "),
    ("complete", {"ref": {"type": "ref/prompt", "name": "greet"}}, "argument: Field required"),
]


@pytest.mark.parametrize(("factory", "args", "why"), BAD, ids=[f"{of}-{why[:20]}" for of, _, why in BAD])
async def test_unusable_arguments_fail_at_once(factory: str, args: Any, why: str, host: Hosting) -> None:
    script = Script()
    async with host({"srv": scripted(script, lazy=True)}) as asking:
        answer = await asking.ask(made(factory, asking.manager), args)
        assert why in answer["error"]
        assert "Correct the arguments and try again." in answer["error"]
        assert (answer["kind"], answer["state"], answer["outcome"]) == ("application", "idle", "not_run")
        assert script.requests == []


async def test_arguments_that_json_has_no_type_for_but_a_text_are_sent_as_that(host: Hosting) -> None:
    script = Script()
    async with host({"srv": scripted(script)}) as asking:
        answer = await asking.tool("charge", {"amount": datetime(2026, 1, 2, tzinfo=timezone.utc)})
        assert answer == {"result": "charged 2026-01-02T00:00:00Z"}


@pytest.mark.parametrize("kind", ["legacy", "modern", "stdio"])
async def test_an_unsendable_text_costs_no_session(kind: str) -> None:
    # A manager's own methods do not look at the arguments first; half a surrogate pair comes from json.loads.
    script = Script(era="modern" if kind == "modern" else "legacy")
    child = {"command": sys.executable, "args": [str(STDIO_SERVER)]}
    with anyio.fail_after(SAFETY):
        async with Manager({"srv": child if kind == "stdio" else scripted(script)}) as manager:
            await manager.call_tool("srv", "add", {"a": 1, "b": 1})
            for _ in range(2):
                with pytest.raises(ValueError, match=r"surrogate"):
                    await manager.read_resource("srv", json.loads(r'"memo://\ud800"'))
            assert (manager["srv"].state, manager["srv"].epoch) == (State.READY, 1)
            assert not (await manager.call_tool("srv", "add", {"a": 1, "b": 1})).is_error


@pytest.mark.parametrize("factory", FACTORIES)
async def test_in_another_thread_than_the_managers_there_is_an_error_at_once(factory: str) -> None:
    async with hosting("Manager", {"srv": scripted(Script())}) as asking:
        await asking.ready()
        handler, args = made(factory, asking.manager, timeout=3600), ARGS.get(factory, {})
        answer = parsed(await anyio.to_thread.run_sync(partial(anyio.run, handler, args)))
        assert "use a SyncManager for calls from threads" in answer["error"]
        assert (answer["kind"], answer["outcome"]) == ("unavailable", "not_run")
        assert asking.connection.epoch == 1
        assert "result" in await asking.tool("add", {"a": 1, "b": 2})
