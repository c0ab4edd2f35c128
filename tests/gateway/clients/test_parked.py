"""A modern client before a legacy server that asks in the middle of a call: the call is parked until it is answered."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import mcp_types as types
import pytest
from mcp import Client, MCPError

from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.tokens import Issuer
from mcpconn.gateway.outcomes import OUTCOME
from mcpconn.keys import IDEMPOTENCY_KEY
from tests.gateway.access.issuer import AUDIENCE, ISSUER, JWKS, Authority
from tests.gateway.access.test_gate import client as client_with
from tests.gateway.asking import Asking, asking
from tests.gateway.conftest import Gateway, gateway

pytestmark = pytest.mark.anyio

SHARED = Settings(scopes={"q": "shared"})


class Person:
    """Answers what a client is asked."""

    def __init__(self, word: str = "yes") -> None:
        self.word = word
        self.asked: list[str] = []

    async def elicit(self, _: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        self.asked.append(params.message)
        return types.ElicitResult(action="accept", content={"word": f"{self.word}{len(self.asked)}"})

    async def sample(self, _: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        self.asked.append("sample")
        text = types.TextContent(type="text", text=f"{self.word}{len(self.asked)}")
        return types.CreateMessageResult(role="assistant", content=text, model="m")

    @property
    def options(self) -> dict[str, Any]:
        return {"elicitation_callback": self.elicit, "sampling_callback": self.sample}


@asynccontextmanager
async def before_asking(
    settings: Settings | None = None, era: str = "legacy", **options: Any
) -> AsyncIterator[tuple[Gateway, Asking]]:
    async with asking() as server:
        more = {"q": {"url": server.url, "mode": era}}
        async with gateway(more=more, settings=settings, **options) as made:
            yield made, server


def text_of(result: types.CallToolResult) -> str:
    assert isinstance(result.content[0], types.TextContent)
    return result.content[0].text


@pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
@pytest.mark.parametrize("tool", ["elicit", "sample"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_question_is_answered_and_the_call_goes_on(mode, tool, times):
    person = Person()
    async with before_asking() as (made, server), Client(made.url, mode=mode, **person.options) as client:
        result = await client.call_tool(f"q__{tool}", {"times": times})
        assert text_of(result) == " ".join(f"yes{number + 1}" for number in range(times))
        assert len(person.asked) == times
        assert server.ran[tool] == server.finished[tool] == 1


async def test_two_clients_are_asked_their_own():
    first, second = Person("a"), Person("b")
    results: dict[str, str] = {}

    async def call(url: str, name: str, person: Person) -> None:
        async with Client(url, **person.options) as client:
            results[name] = text_of(await client.call_tool("q__elicit", {"times": 3}))

    async with before_asking() as (made, _), anyio.create_task_group() as group:
        group.start_soon(call, made.url, "one", first)
        group.start_soon(call, made.url, "two", second)
    assert results == {"one": "a1 a2 a3", "two": "b1 b2 b3"}


@pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
async def test_a_shared_session_asks_the_caller(mode):
    first, second = Person("a"), Person("b")
    async with before_asking(SHARED) as (made, _), AsyncExitStack() as stack:
        one, two, three = [
            await stack.enter_async_context(Client(made.url, mode=mode, **options))
            for options in (first.options, second.options, {})
        ]
        assert text_of(await one.call_tool("q__elicit", {})) == "a1"
        assert text_of(await two.call_tool("q__elicit", {})) == "b1"
        with pytest.raises(MCPError, match="supports no elicitation"):
            await three.call_tool("q__elicit", {})
        assert text_of(await one.call_tool("q__sample", {})) == "a2"
    assert (len(first.asked), len(second.asked)) == (2, 1)


ASK: dict[str, Any] = {"allow_input_required": True}


async def begun(client: Client, meta: Any = None, times: int = 1) -> types.InputRequiredResult:
    asked = await client.session.call_tool("q__elicit", {"times": times}, meta=meta, **ASK)
    assert isinstance(asked, types.InputRequiredResult)
    return asked


async def answered(
    client: Client, asked: types.InputRequiredResult, word: str, meta: Any = None, times: int = 1
) -> Any:
    responses: Any = {
        key: types.ElicitResult(action="accept", content={"word": word}) for key in asked.input_requests or ()
    }
    return await client.session.call_tool(
        "q__elicit", {"times": times}, input_responses=responses, request_state=asked.request_state, meta=meta, **ASK
    )


async def test_an_answer_sent_twice_counts_once():
    async with before_asking() as (made, server), Client(made.url, **Person().options) as client:
        asked = await begun(client)
        first = await answered(client, asked, "one")
        again = await answered(client, asked, "one")
        assert text_of(first) == text_of(again) == "one"
        other = await answered(client, asked, "two")
        assert other.is_error
        assert (other.meta or {})[OUTCOME] == "unknown"
        assert "answered before" in text_of(other)
        assert server.ran["elicit"] == server.finished["elicit"] == 1


async def test_a_parked_call_does_not_outlive_its_gateway():
    async with before_asking() as (made, server), Client(made.url, **Person().options) as client:
        asked = await begun(client)
        await made.replace()
        result = await answered(client, asked, "one")
        assert (result.meta or {})[OUTCOME] == "unknown"
        assert "gateway was restarted" in text_of(result)
        assert server.ran["elicit"] == 1


async def test_an_unanswered_question_is_cancelled_upstream():
    async with before_asking() as (made, server), Client(made.url, **Person().options) as client:
        made.app.parking._expiry = 0.05
        asked = await begun(client)
        await server.was_cancelled.wait()
        late = await answered(client, asked, "one")
        assert (late.meta or {})[OUTCOME] == "unknown"
        assert "expired" in text_of(late)
        assert len(made.app.parking) == 0
        assert server.finished["elicit"] == 0


async def test_calls_that_wait_are_bounded():
    async with before_asking() as (made, _), Client(made.url, **Person().options) as client:
        made.app.parking._per_principal = 2
        waiting = [await begun(client) for _ in range(2)]
        refused: Any = await client.session.call_tool("q__elicit", {"times": 1}, **ASK)
        assert (refused.meta or {})[OUTCOME] == "unknown"
        assert "2 calls wait for an answer" in text_of(refused)
        assert text_of(await answered(client, waiting[0], "one")) == "one"
        assert isinstance(await begun(client), types.InputRequiredResult)


async def test_a_state_of_another_call_is_refused():
    async with before_asking() as (made, _), Client(made.url, **Person().options) as client:
        asked = await begun(client)
        with pytest.raises(MCPError, match="requestState"):
            await client.session.call_tool("q__elicit", {"times": 2}, request_state=asked.request_state, **ASK)


async def test_a_key_asked_again_gets_its_question():
    meta: Any = {IDEMPOTENCY_KEY: "k"}
    async with before_asking() as (made, server), Client(made.url, **Person().options) as client:
        asked = await begun(client, meta)
        again = await begun(client, meta)
        assert again.input_requests == asked.input_requests
        assert text_of(await answered(client, again, "one", meta)) == "one"
        assert text_of(await answered(client, asked, "one", meta)) == "one"
        assert server.ran["elicit"] == server.finished["elicit"] == 1


async def test_a_modern_servers_round_runs_once():
    meta: Any = {IDEMPOTENCY_KEY: "k"}
    async with before_asking(era="2026-07-28") as (made, server), Client(made.url, **Person().options) as client:

        async def call(**options: Any) -> Any:
            return await client.session.call_tool("q__rounds", {}, meta=meta, **ASK, **options)

        asked, again = await call(), await call()
        assert again.input_requests == asked.input_requests
        assert server.ran["rounds"] == 1
        answer = {"q": types.ElicitResult(action="accept", content={"word": "one"})}
        for state in (asked.request_state, again.request_state, asked.request_state):
            assert text_of(await call(input_responses=answer, request_state=state)) == "one"
        assert server.ran["rounds"] == 2
        other = {"q": types.ElicitResult(action="accept", content={"word": "two"})}
        refused = await call(input_responses=other, request_state=asked.request_state)
        assert "used for another call" in text_of(refused)
        assert server.ran["rounds"] == 2


async def test_a_key_of_an_answered_question_has_the_result():
    meta: Any = {IDEMPOTENCY_KEY: "k"}
    person = Person()
    async with before_asking() as (made, server), Client(made.url, **person.options) as client:
        first = await client.call_tool("q__elicit", {"times": 2}, meta=meta)
        again = await client.call_tool("q__elicit", {"times": 2}, meta=meta)
        assert text_of(first) == text_of(again) == "yes1 yes2"
        assert server.ran["elicit"] == 1


async def test_a_parked_call_ends_with_its_clients_token():
    authority = Authority()
    issuer = Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, fetch=authority.fetch)
    settings = Settings(access=AccessSettings(None, (issuer,)))
    async with before_asking(settings) as (made, server):
        # The token has 10 s left, and the parked calls' clock goes on by those.
        token = authority.token("ann", exp=time.time() + 10)
        made.app.parking._wall = lambda: time.time() + 9.9
        async with client_with(made, token, **Person().options) as client:
            asked = await begun(client)
            await server.was_cancelled.wait()
            late = await answered(client, asked, "one")
            assert (late.meta or {})[OUTCOME] == "unknown"
            assert "credential ended" in text_of(late)
    assert server.ran["elicit"] == 1
    assert server.finished["elicit"] == 0


async def test_an_answer_with_a_new_token_is_good_for_the_next_question():
    authority = Authority()
    issuer = Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, fetch=authority.fetch)
    settings = Settings(access=AccessSettings(None, (issuer,)))
    async with before_asking(settings) as (made, server), AsyncExitStack() as stack:
        now = time.time()
        tokens = [authority.token("ann", exp=now + left) for left in (60, 600)]
        old, new = [await stack.enter_async_context(client_with(made, each, **Person().options)) for each in tokens]
        asked = await begun(old, times=2)
        # The first token has expired when the second question is asked.
        made.app.parking._wall = lambda: now + 61
        again = await answered(new, asked, "one", times=2)
        assert isinstance(again, types.InputRequiredResult)
        assert text_of(await answered(new, again, "two", times=2)) == "one two"
        assert server.finished["elicit"] == 1


async def test_parked_calls_end_with_their_key(tmp_path):
    keys = KeyFile(tmp_path / "clients.json")
    ann, bob = keys.add("ann"), keys.add("bob")
    async with before_asking(Settings(access=AccessSettings(keys))) as (made, server), AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(client_with(made, each, **Person().options)) for each in (ann, bob)
        ]
        await begun(first)
        asked = await begun(second)
        keys.remove("ann")
        await server.was_cancelled.wait()
        assert text_of(await answered(second, asked, "one")) == "one"
    assert server.ran["elicit"] == 2
    assert server.finished["elicit"] == 1
