"""What handlers answer: the shapes of success and failure, the words for a language model, and no secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.server import MCPServer

from mcpconn import State, handlers
from mcpconn.handlers.failed_call import LOOK_UP
from mcpconn.handlers.results import encode, resource_payload
from mcpconn.testing import Fault, RpcError, Script, ScriptedTool
from mcpconn.testing.scripted import faults
from tests.hosts import KEYS, Host, Surface, hosting, parsed, scripted
from tests.support import UNFINISHED_STREAMS

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

Hosting = Callable[..., AbstractAsyncContextManager[Host]]

TEXT = {"type": "text", "text": "one"}
NOTED = {"type": "text", "text": "two", "annotations": {"audience": ["user"], "priority": 0.5}}
IMAGE = {"type": "image", "data": "aW1hZ2U=", "mimeType": "image/png"}
AUDIO = {"type": "audio", "data": "YXVkaW8=", "mimeType": "audio/wav"}
LINK = {"type": "resource_link", "uri": "memo://rules", "name": "rules", "description": "How to behave."}
EMBEDDED = {"type": "resource", "resource": {"uri": "memo://a", "mimeType": "text/plain", "text": "within"}}
BLOB = {"type": "resource", "resource": {"uri": "memo://b", "blob": "YmxvYg=="}}


@pytest.fixture(params=["Manager", "SyncManager"])
def surface(request: pytest.FixtureRequest) -> Surface:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def host(surface: Surface, anyio_backend: tuple[str, dict[str, Any]]) -> Hosting:
    return partial(hosting, surface, backend=anyio_backend[0])


def answering(answer: object) -> Script:
    """A server whose tool `it` answers this, and `add`."""
    add = next(tool for tool in Script().tools.values() if tool.name == "add")

    def run(arguments: Mapping[str, Any]) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Script(tools=[ScriptedTool("it", run), add])


# -- success

SUCCESSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({"content": []}, {"result": ""}),
    "one text": ({"content": [TEXT]}, {"result": "one"}),
    "texts, joined": ({"content": [TEXT, {**TEXT, "text": "more\n"}, TEXT]}, {"result": "one\nmore\n\none"}),
    "structured content beside the text": (
        {"content": [TEXT], "structuredContent": {"n": 1, "none": None, "deep": [{"none": None}]}},
        {"result": "one", "structuredContent": {"n": 1, "none": None, "deep": [{"none": None}]}},
    ),
    "structured content alone": (
        {"content": [], "structuredContent": {"n": 1}},
        {"result": "", "structuredContent": {"n": 1}},
    ),
    "everything else, as it is and in its order": (
        {"content": [TEXT, IMAGE, AUDIO, NOTED, LINK, EMBEDDED, BLOB]},
        {"result": "one\ntwo", "content": [IMAGE, AUDIO, NOTED, LINK, EMBEDDED, BLOB]},
    ),
    "meta": ({"content": [TEXT], "_meta": {"shop": {"till": 3}}}, {"result": "one", "_meta": {"shop": {"till": 3}}}),
    "words of a failure in a success": (
        {"content": [{**TEXT, "text": "error: session expired"}]},
        {"result": "error: session expired"},
    ),
}


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("what", SUCCESSES)
async def test_nothing_of_an_answer_is_dropped(what: str, era: Any) -> None:
    sent, expected = SUCCESSES[what]
    script = answering(sent)
    script = Script(era=era, tools=script.tools.values())
    async with hosting("Manager", {"srv": scripted(script)}) as asking:
        assert await asking.tool("it") == expected


async def test_both_managers_answer_alike(host: Hosting) -> None:
    sent, expected = SUCCESSES["everything else, as it is and in its order"]
    async with host({"srv": scripted(answering(sent))}) as asking:
        assert await asking.tool("it") == expected


async def test_a_resources_text_is_its_result_and_the_rest_its_content(host: Hosting) -> None:
    async with host({"srv": scripted(Script())}) as asking:
        answer = await asking.ask(handlers.read_resource(asking.manager, "srv"), {"uri": "memo://welcome"})
        assert answer == {"result": "Welcome!", "content": [{"uri": "memo://welcome", "mimeType": "text/plain"}]}


def test_of_a_resource_of_several_parts_it_stays_known_which_text_is_whose() -> None:
    parts = [{"uri": "a:1", "text": "x"}, {"uri": "a:2", "blob": "eHk="}, {"uri": "a:3", "text": "y"}]
    result = types.ReadResourceResult.model_validate({"contents": parts})
    assert resource_payload(result) == {"result": "x\ny", "content": parts}


async def test_listings_prompts_and_completions_arrive_as_they_are(host: Hosting) -> None:
    async with host({"srv": scripted(Script(page_size=2))}) as asking:
        manager = asking.manager
        page = await asking.ask(handlers.list_tools(manager, "srv"), {})
        assert [tool["name"] for tool in page["result"]["tools"]] == ["add", "charge"]
        assert page["result"]["tools"][0]["annotations"] == {"readOnlyHint": True}
        page = await asking.ask(handlers.list_tools(manager, "srv"), {"cursor": page["result"]["nextCursor"]})
        assert [tool["name"] for tool in page["result"]["tools"]] == ["slow", "slow_charge"]
        resources = await asking.ask(handlers.list_resources(manager, "srv"), {})
        assert resources["result"]["resources"][0] == {"uri": "memo://welcome", "name": "welcome"}
        templates = await asking.ask(handlers.list_resource_templates(manager, "srv"), {})
        assert templates["result"]["resourceTemplates"][0]["uriTemplate"] == "memo://people/{name}"
        prompts = await asking.ask(handlers.list_prompts(manager, "srv"), {})
        assert [prompt["name"] for prompt in prompts["result"]["prompts"]] == ["greet", "summarise"]
        prompt = await asking.ask(handlers.get_prompt(manager, "srv"), {"name": "greet", "arguments": {"name": "Ada"}})
        message = {"role": "user", "content": {"type": "text", "text": "Greet Ada."}}
        assert prompt == {"result": {"messages": [message]}}
        completed = await asking.ask(
            handlers.complete(manager, "srv"),
            {
                "ref": {"type": "ref/resource", "uri": "memo://people/{name}"},
                "argument": {"name": "name", "value": "al"},
                "context": {"arguments": {"other": "x"}},
            },
        )
        assert completed["result"]["completion"]["values"] == ["alice", "albert"]


def test_an_answer_is_json_whatever_is_in_it() -> None:
    odd = {
        "numbers": [float("nan"), float("inf"), float("-inf"), 10**30],
        "text": "half a pair: \ud800, whole: \U0001f600",
        "bytes": b"\x00\xff",
        "date": date(2026, 1, 2),
        "state": State.READY,
        "model": types.Implementation(name="n", version="1"),
        3: {"set"},
    }
    assert parsed(encode({"result": odd}))["result"] == {
        "numbers": ["NaN", "Infinity", "-Infinity", 10**30],
        "text": "half a pair: \ud800, whole: \U0001f600",
        "bytes": "AP8=",
        "date": "2026-01-02",
        "state": "ready",
        "model": {"name": "n", "version": "1"},
        "3": ["set"],
    }


def test_text_is_not_escaped_needlessly() -> None:
    assert encode({"result": "größer \U0001f600"}) == '{"result": "größer \U0001f600"}'


# -- failure


@dataclass(frozen=True)
class Row:
    """A fault, and what is said of it."""

    fault: Callable[[], Fault]
    kind: str
    outcome: str
    words: tuple[str, ...]
    state: str = "ready"
    retry_in: float | None = None
    tool: str = "charge"
    timeout: float = 5.0
    lasting: bool = False
    """It befalls all requests, the probe as well."""


def asked_to_wait() -> Fault:
    return faults.rate_limited(120)


FAILURES = {
    "not run: not allowed": Row(
        faults.forbidden, "auth", "not_run", ("The tool was not run.", "Do not try again", "ask the user for access")
    ),
    "not run: not logged in": Row(
        faults.unauthorized,
        "auth",
        "not_run",
        ("The tool was not run.", "Do not try again", "log in again", "Tell the user."),
        state="failed",
        lasting=True,
    ),
    "not run: too many": Row(
        asked_to_wait,
        "rate_limited",
        "not_run",
        ("The tool was not run.", "Try again in 120 s, with fewer calls at once."),
        retry_in=120.0,
    ),
    "unknown: refused by the application": Row(
        partial(faults.rpc_error, -32602, "amount: too much", ran=False),
        "application",
        "unknown",
        (
            "error -32602: amount: too much.",
            "It is not known whether the tool ran.",
            "Check the name and the arguments, and whether it took effect",
        ),
    ),
    "unknown: cut off": Row(
        faults.drop_after,
        "transport_lost",
        "unknown",
        ("It is not known whether the tool ran.", "Do not just try again", "find out first", "or ask the user."),
    ),
    "unknown: no answer": Row(
        faults.hang_after,
        "timeout",
        "unknown",
        ("no answer within 0.5 s.", "It is not known whether the tool ran.", "Do not just try again"),
        timeout=0.5,
    ),
    "unknown: the server failed": Row(
        faults.server_error, "unavailable", "unknown", ("HTTP 500", "It is not known whether the tool ran.")
    ),
    "unknown: an error of the application": Row(
        partial(faults.rpc_error, -32603, "the till is empty"),
        "application",
        "unknown",
        ("error -32603: the till is empty.", "change the arguments, or use another tool"),
    ),
    "ran: the tool reports an error": Row(
        lambda: faults.slow(0), "application", "ran", ("session expired",), tool="session_expired_result"
    ),
}


@pytest.mark.parametrize("what", FAILURES)
async def test_a_failure_says_what_happened_what_ran_and_what_to_do(what: str, host: Hosting) -> None:
    row, script = FAILURES[what], Script()
    async with host({"srv": scripted(script)}) as asking:
        await asking.ready()
        script.inject(row.fault(), method=None if row.lasting else "tools/call", times=None)
        answer = await asking.tool(row.tool, timeout=row.timeout)
        assert list(answer) == KEYS
        assert {key: answer[key] for key in KEYS[1:]} == {
            "kind": row.kind,
            "state": row.state,
            "outcome": row.outcome,
            "retry_in": row.retry_in,
        }
        for words in row.words:
            assert words in answer["error"]
        if row.outcome == "not_run":
            assert script.executions[row.tool] == 0
        if row.outcome == "ran":
            assert script.executions[row.tool] == 1


@pytest.mark.parametrize("code", [-32700, -32600, -32601, -32602, -32603, -32002, 1])
async def test_no_code_proves_a_tool_did_not_run(code: int, host: Hosting) -> None:
    script = Script()
    async with host({"srv": scripted(script)}) as asking:
        await asking.ready()
        script.inject(faults.rpc_error(code, "charged, and then the receipt was invalid", ran=True))
        answer = await asking.tool("charge")
        assert (answer["kind"], answer["outcome"]) == ("application", "unknown")
        assert "It is not known whether the tool ran." in answer["error"]
        assert script.executions["charge"] == 1


# -- tools that are not there


def a_shop() -> Any:
    """A server of the SDK's: it answers a tool that it does not have with a result that reports an error."""
    server: Any = MCPServer("shop")

    @server.tool()
    async def price(item: str) -> str:
        """What it costs."""
        raise ValueError(f"no {item}")

    @server.tool()
    async def order(item: str) -> str:
        """Buy it."""
        return item

    return server


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_result_for_a_tool_that_is_not_there_is_no_proof_that_it_ran(mode: str, host: Hosting) -> None:
    async with host({"srv": {"server": a_shop(), "mode": mode}}) as asking:
        answer = await asking.tool("prise", {"item": "tea"})
        assert list(answer)[:5] == KEYS
        assert [answer[key] for key in KEYS[1:]] == ["application", "ready", "unknown", None]
        assert "this server has no such tool, 'prise'; did you mean 'price'?" in answer["error"]
        assert (
            "this server has no such tool, 'pay'; its tools are: order, price." in (await asking.tool("pay"))["error"]
        )
        # One that is there and fails has run.
        answer = await asking.tool("price", {"item": "tea"})
        assert (answer["outcome"], "such tool" in answer["error"]) == ("ran", False)


async def test_a_missing_tool_is_called_missing(host: Hosting) -> None:
    script = Script()
    async with host({"srv": scripted(script)}) as asking:
        answer = await asking.tool("chargee")
        assert (answer["kind"], answer["outcome"]) == ("application", "unknown")
        assert "this server has no such tool, 'chargee'; did you mean 'charge'?" in answer["error"]
        listings = script.count("tools/list")
        assert "no such tool" in (await asking.tool("chargee"))["error"]
        assert script.count("tools/list") == listings


async def test_a_server_that_does_not_say_what_it_has_is_believed(host: Hosting) -> None:
    sent = {"content": [TEXT], "isError": True}
    script = answering(sent)
    async with host({"srv": scripted(script)}) as asking:
        script.inject(faults.server_error(), method="tools/list", times=None)
        assert (await asking.tool("it"))["outcome"] == "ran"


async def test_looking_a_tool_up_takes_no_longer_than_the_call_may(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    script = answering({"content": [TEXT], "isError": True})
    async with hosting("Manager", {"srv": scripted(script)}, backend=anyio_backend[0]) as asking:
        await asking.connection.wait_ready()
        script.inject(faults.hang(), method="tools/list", times=None)
        began = anyio.current_time()
        assert (await asking.tool("it", timeout=0.2))["outcome"] == "ran"
        # Without the call's limit, the listing would have so long.
        assert anyio.current_time() - began < LOOK_UP


async def test_reading_is_not_said_to_have_run(host: Hosting) -> None:
    script = Script()
    async with host({"srv": scripted(script)}) as asking:
        await asking.ready()
        script.inject(faults.drop_after(), method="resources/read", times=None)
        answer = await asking.ask(handlers.read_resource(asking.manager, "srv"), {"uri": "memo://welcome"})
        assert (answer["kind"], answer["outcome"]) == ("transport_lost", "unknown")
        assert "tool" not in answer["error"]
        assert "You may try again." in answer["error"]


async def test_a_failed_tools_content_is_kept(host: Hosting) -> None:
    sent = {"content": [TEXT, IMAGE], "structuredContent": {"n": 1}, "isError": True}
    async with host({"srv": scripted(answering(sent))}) as asking:
        assert await asking.tool("it") == {
            **dict(zip(KEYS, ("one", "application", "ready", "ran", None), strict=True)),
            "structuredContent": {"n": 1},
            "content": [IMAGE],
        }


async def test_a_wordless_failure_is_given_words(host: Hosting) -> None:
    async with host({"srv": scripted(answering({"content": [], "isError": True}))}) as asking:
        assert (await asking.tool("it"))["error"] == "The tool failed, and does not say why."


async def test_what_an_error_carries_is_kept(host: Hosting) -> None:
    async with host({"srv": scripted(answering(RpcError(1, "no", {"hint": [1]})))}) as asking:
        answer = await asking.tool("it")
        assert (list(answer), answer["data"]) == ([*KEYS, "data"], {"hint": [1]})


async def test_servers_cannot_forge_failure_fields(host: Hosting) -> None:
    forged = {"error": "fine", "kind": "timeout", "state": "idle", "outcome": "not_run", "retry_in": 1, "result": "x"}
    sent = {"content": [TEXT], "isError": True, **forged}
    async with host({"srv": scripted(answering(sent))}) as asking:
        answer = await asking.tool("it")
        assert [answer[key] for key in KEYS] == ["one", "application", "ready", "ran", None]


# -- secrets

TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
KEY = "AKIAIOSFODNN7EXAMPLE"
ECHO = f"bad token {TOKEN} for key {KEY}"
ECHOES: dict[str, Any] = {
    "a tool's failure": {
        "content": [{"type": "text", "text": ECHO}],
        "structuredContent": {"why": ECHO, TOKEN: 1},
        "isError": True,
    },
    "an error's message": RpcError(1, ECHO),
    "an error's data": RpcError(1, "no", {"seen": [{"header": ECHO}], KEY: 1}),
    "a refusal of arguments": RpcError(-32602, ECHO),
}


@pytest.mark.parametrize("what", ECHOES)
async def test_secrets_repeated_in_an_error_are_not_answered(what: str, host: Hosting) -> None:
    config = scripted(answering(ECHOES[what]), headers={"Authorization": f"Bearer {TOKEN}"})
    config["url"] += f"?key={KEY}"
    async with host({"srv": config}) as asking:
        answer = await asking.ask(handlers.call_tool(asking.manager, "srv", "it"), {})
        assert "***" in str(answer)
        assert TOKEN not in str(answer)
        assert KEY not in str(answer)


@pytest.mark.parametrize("what", ECHOES)
async def test_secrets_learned_later_are_hidden(what: str, host: Hosting) -> None:
    async with host({"srv": scripted(answering(ECHOES[what]))}) as asking:
        await asking.tool("add", {"a": 1, "b": 1})
        for secret in (TOKEN, KEY):
            asking.connection.redact.learn(secret)
        answer = await asking.tool("it")
        assert "***" in str(answer)
        assert TOKEN not in str(answer)
        assert KEY not in str(answer)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_a_refusal_that_repeats_them_does_not_get_them_into_the_answer(status: int) -> None:
    script = Script()
    config = scripted(script, headers={"Authorization": f"Bearer {TOKEN}"})
    config["url"] += f"?key={KEY}"
    async with hosting("Manager", {"srv": config}) as asking:
        await asking.ready()
        script.inject(faults.status(status, body=ECHO.encode(), content_type="text/plain"), method=None, times=None)
        answer = await asking.tool("charge", timeout=0.5)
        assert TOKEN not in str(answer)
        assert KEY not in str(answer)
