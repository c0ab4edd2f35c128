"""A server that forgot the session says so in words that nobody listed: the connection finds out all the same.

Over real sockets, in every way of `mcpconn.testing.EXPIRIES`. `charge` is not idempotent, and the server counts
its executions. What takes time is in test_convergence_timing.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp_types import PromptReference

from mcpconn import CallFailed, Connection, FailureKind, Manager, OutcomeUnknown, State, handlers
from mcpconn.testing import EXPIRIES, HttpServer, Script
from mcpconn.testing.scripted import faults
from mcpconn.testing.scripted.expiries import LISTED, UNLISTED
from mcpconn.testing.scripted.steps import error_reply
from tests.hosts import Surface, hosting
from tests.support import SAFETY, UNFINISHED_STREAMS, quiet, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

TRIES = 8
"""Calls in a row, without a pause, of which one must be answered. A probe takes a few of them."""
CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "tools/call": lambda on: on.call_tool("charge", {"amount": 5}),
    "tools/list": lambda on: on.list_tools(cache_mode="bypass"),
    "resources/read": lambda on: on.read_resource("memo://welcome"),
    "resources/list": lambda on: on.list_resources(cache_mode="bypass"),
    "prompts/get": lambda on: on.get_prompt("greet", {"name": "Ada"}),
    "prompts/list": lambda on: on.list_prompts(cache_mode="bypass"),
}
REJECTED = [name for name in EXPIRIES if name in LISTED or (name[0] == "4" and name not in {"408"})]
"""Ways in which a server refuses a request before anything runs."""
AT_ONCE = [
    name
    for name in (*REJECTED, "200 no active session", "200 not initialized", "307 to itself")
    # The page may be a proxy's, which may hide anything; -32603 says that something went wrong inside.
    if name not in {"404 as a web page", "404 in plain text", "400 internal error"}
]
"""Ways after which a call that is not safe is retried on the next session, and answered."""


async def answered(call: Callable[[], Awaitable[Any]]) -> tuple[Any, list[Exception]]:
    """Call until an answer comes. The answer, and what went wrong before."""
    errors: list[Exception] = []
    for _ in range(TRIES):
        try:
            return await call(), errors
        except MCPError as error:
            errors.append(error)
    raise AssertionError(f"not answered in {TRIES} calls: {errors}")


@pytest.mark.parametrize("answer", ["json", "sse"])
@pytest.mark.parametrize("expiry", EXPIRIES)
async def test_a_refusal_in_any_words_is_found_out(expiry: str, answer: Any) -> None:
    script = Script(expiry=expiry, answer=answer, get_stream="405")
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection({"url": server.url}, name="srv") as connection:
            assert text_of(await connection.call_tool("charge", {"amount": 1})) == "charged 1"
            script.forget_sessions()
            result, errors = await answered(lambda: connection.call_tool("charge", {"amount": 5}))
            assert text_of(result) == "charged 5"
            # Nothing was done twice, and nobody was told that nothing was done where it was not known.
            assert script.executions["charge"] == 2
            assert all(type(error) is MCPError or isinstance(error, CallFailed) for error in errors)
            assert (errors == []) is (expiry in AT_ONCE)
            assert (connection.state, connection.epoch, script.count("initialize")) == (State.READY, 2, 2)
            assert connection.last_failure is not None
            assert connection.last_failure.proof or connection.last_failure.kind is not FailureKind.SESSION_EXPIRED


@pytest.mark.parametrize("expiry", UNLISTED)
async def test_a_safe_call_is_answered_at_once_or_after_one_error(expiry: str) -> None:
    script = Script(expiry=expiry)
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection({"url": server.url}, name="srv") as connection:
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 1}, idempotent=True)) == "2"
            script.forget_sessions()
            call = partial(connection.call_tool, "add", {"a": 2, "b": 3}, idempotent=True)
            result, errors = await answered(call)
            assert text_of(result) == "5"
            # With the codes that are an application's own, the first error is taken for one.
            assert len(errors) <= 1
            assert script.executions["add"] == 2


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize(
    "expiry", ["200", "400 and nothing", "404 in JSON of its own", "200 method not found", "202 and nothing"]
)
async def test_every_method_of_a_manager_finds_the_next_session(expiry: str, method: str) -> None:
    script = Script(expiry=expiry, get_stream="405")
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Manager({"srv": {"url": server.url}}) as manager:
            connection = manager["srv"]
            await CALLS[method](connection)
            script.forget_sessions()
            _, errors = await answered(lambda: CALLS[method](connection))
            assert len(errors) <= 2
            assert (connection.state, connection.epoch) == (State.READY, 2)


@pytest.mark.parametrize("surface", ["Manager", "SyncManager"])
@pytest.mark.parametrize(
    "expiry", ["200", "400 and nothing", "403 another user's session", "422", "500 internal error"]
)
async def test_a_handler_finds_the_next_session(expiry: str, surface: Surface) -> None:
    script = Script(expiry=expiry, get_stream="405")
    async with HttpServer(script) as server, hosting(surface, {"srv": {"url": server.url}}) as host:
        await host.tool("charge", {"amount": 1})
        script.forget_sessions()
        answers = [await host.tool("charge", {"amount": 5})]
        while "error" in answers[-1]:
            # What ran before an internal error is unknown.
            assert (expiry, answers[-1]["outcome"]) == ("500 internal error", "unknown")
            assert len(answers) < TRIES
            answers.append(await host.tool("charge", {"amount": 5}))
        assert answers[-1] == {"result": "charged 5"}
        assert script.executions["charge"] == 2


@pytest.mark.parametrize("engine", ["direct", "httpx"])
@pytest.mark.parametrize("expiry", ["400 and nothing", "410 in JSON-RPC", "200 and nothing", "an empty event stream"])
async def test_either_engine_tells_the_same(expiry: str, engine: str) -> None:
    script = Script(expiry=expiry, get_stream="405")
    with anyio.fail_after(SAFETY):
        async with (
            HttpServer(script) as server,
            Connection({"url": server.url, "engine": engine}, name="srv") as connection,
        ):
            await connection.call_tool("charge", {"amount": 1})
            script.forget_sessions()
            result, _ = await answered(lambda: connection.call_tool("charge", {"amount": 5}))
            assert (text_of(result), script.executions["charge"], connection.epoch) == ("charged 5", 2, 2)


# -- an expired session, said in other words than its probe's


REFUSALS = [
    "Invalid params: Invalid or expired session",
    "Invalid or expired session.",
    "Bad Request: No valid session ID provided",
    "Not Found: session 7f3a-22 not found",
    "Session not found: 7f3a-22",
    "Your session has expired!",
]
PROBES = ["404", "404-empty", "404-text", "400", "400 and nothing", "404 in JSON of its own", "500 internal error"]


class Worded(Script):
    """A server that words the refusal of a call in one way, and of everything else in another."""

    def __init__(self, message: str, probe: str, *, code: int = -32602) -> None:
        super().__init__(expiry=probe, get_stream="405")
        self._message, self._code = message, code

    def _refusal(self, http_method: str, message: Any, headers: Any) -> Any:
        known = headers.get("mcp-session-id") in self.states or message.get("method") == "initialize"
        if message.get("method") in ("tools/call", "resources/read", "prompts/get") and not known:
            return error_reply(200, message["id"], self._code, self._message)
        return super()._refusal(http_method, message, headers)


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("message", REFUSALS)
async def test_refusals_may_differ_from_probes(message: str, probe: str) -> None:
    script = Worded(message, probe)
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection({"url": server.url}, name="srv") as connection:
            await connection.call_tool("charge", {"amount": 1})
            calls = script.count("tools/call")
            script.forget_sessions()
            assert text_of(await connection.call_tool("charge", {"amount": 5})) == "charged 5"
            assert script.count("tools/call") - calls == 2
            assert (script.executions["charge"], script.count("initialize")) == (2, 2)


@pytest.mark.parametrize("surface", ["Manager", "SyncManager"])
async def test_a_refusal_in_other_words_is_met_by_handlers_of_all_kinds(surface: Surface) -> None:
    script = Worded(REFUSALS[0], "404")
    async with HttpServer(script) as server, hosting(surface, {"srv": {"url": server.url}}) as host:
        for ask in (
            lambda: host.tool("charge", {"amount": 5}),
            lambda: host.ask(handlers.read_resource(host.manager, "srv"), {"uri": "memo://welcome"}),
            lambda: host.ask(handlers.get_prompt(host.manager, "srv"), {"name": "greet", "arguments": {"name": "A"}}),
        ):
            await ask()
            script.forget_sessions()
            assert "result" in await ask()
        assert script.executions["charge"] == 2


@pytest.mark.parametrize(
    "message",
    [
        "Checkout failed: session expired",
        "session expired while charging",
        "the shop's session expired",
        "sess\u0456on expired",
    ],
)
async def test_a_longer_sentence_stays_unknown_and_is_not_retried(message: str) -> None:
    script = Worded(message, "404", code=-32603)
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection({"url": server.url}, name="srv") as connection:
            await connection.call_tool("charge", {"amount": 1})
            calls = script.count("tools/call")
            script.forget_sessions()
            with pytest.raises(OutcomeUnknown):
                await connection.call_tool("charge", {"amount": 5})
            assert script.count("tools/call") - calls == 1
            assert text_of(await connection.call_tool("charge", {"amount": 5})) == "charged 5"
            assert connection.epoch == 2


# -- a healthy server


@pytest.mark.parametrize("message", ["Session expired", "Invalid params: Invalid or expired session"])
async def test_a_tool_that_sounds_like_a_refusal_keeps_its_session_and_its_words(message: str) -> None:
    script = Script(get_stream="405")
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection({"url": server.url}, name="srv") as connection:
            await connection.call_tool("add", {"a": 1, "b": 1})
            script.inject(faults.rpc_error(-32602, message))
            with pytest.raises(MCPError) as caught:
                await connection.call_tool("charge", {"amount": 5})
            assert type(caught.value) is MCPError
            assert caught.value.error.message == message
            await quiet(connection)
            assert (connection.epoch, script.executions["charge"]) == (1, 1)


@pytest.mark.parametrize("status", [400, 405, 406, 410, 422, 500])
async def test_a_request_refused_for_its_own_sake_costs_one_ping_and_no_session(status: int) -> None:
    script = Script(get_stream="405")
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection({"url": server.url}, name="srv") as connection:
            await connection.call_tool("add", {"a": 1, "b": 1})
            script.inject(faults.status(status))
            with pytest.raises(MCPError):
                await connection.call_tool("charge", {"amount": 5})
            await quiet(connection)
            assert script.count("ping") == 1
            assert (connection.state, connection.epoch) == (State.READY, 1)


async def test_an_unknown_method_of_a_legacy_server_costs_no_session() -> None:
    script = Script(get_stream="405")
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection({"url": server.url}, name="srv") as connection:
            await connection.call_tool("add", {"a": 1, "b": 1})
            unknown = faults.rpc_error(-32601, "Method not found", http_status=404, ran=False)
            script.inject(unknown, method="completion/complete", times=None)
            ref = PromptReference(type="ref/prompt", name="greet")
            for _ in range(5):
                with pytest.raises(MCPError) as caught:
                    await connection.complete(ref, {"name": "name", "value": "al"})
                assert caught.value.error.code == -32601
            await quiet(connection)
            assert (connection.epoch, script.count("initialize")) == (1, 1)
            assert script.count("ping") == 1
