"""What a user can do with everything that another user was given: session, state, cursor, key, call, stream, request.

Another's is answered as if it had never been, nothing runs, and what it belongs to goes on.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import MCPError
from mcp.server import MCPServer

from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.rights import Rights
from mcpconn.keys import CANCEL, IDEMPOTENCY_KEY
from mcpconn.testing import Script
from tests.gateway.access.test_gate import ACCEPT, client, post, session
from tests.gateway.asking import asking
from tests.gateway.clients.test_parked import Person
from tests.gateway.conftest import gateway
from tests.support import text_of

pytestmark = pytest.mark.anyio

CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "a__charge", "arguments": {}}}
ASK: dict[str, Any] = {"allow_input_required": True}


def settings(keys: KeyFile, *rules: Rights, **options: Any) -> Settings:
    return Settings(access=AccessSettings(keys, (), rules or (Rights(),)), **options)


@dataclass
class Slow:
    """A server whose tool `slow` runs until it is let go."""

    began: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    def server(self) -> MCPServer:
        made = MCPServer("slow", log_level="CRITICAL")

        @made.tool()
        async def slow() -> str:
            self.began.set()
            await self.go.wait()
            return "done"

        return made


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_anothers_session_id_opens_nothing(keys, method):
    ann, bob = keys.add("ann"), keys.add("bob")
    script = Script()
    async with gateway(script, settings=settings(keys)) as made, httpx2.AsyncClient(timeout=30) as http:
        of_ann = await session(made, ann)
        headers = {**ACCEPT, **of_ann, "authorization": f"Bearer {bob}"}
        answer = await http.request(method, made.url, headers=headers, json=CALL if method == "POST" else None)
        assert answer.status_code == 404
        assert script.executions["charge"] == 0
        assert (await post(made, CALL, ann, **of_ann)).status_code == 200
        assert script.executions["charge"] == 1


async def test_a_last_event_id_gives_nothing_of_anothers_stream(keys):
    ann, bob = keys.add("ann"), keys.add("bob")
    async with gateway(Script(), settings=settings(keys)) as made, httpx2.AsyncClient(timeout=30) as http:
        of_ann, of_bob = await session(made, ann), await session(made, bob)
        answered = await post(made, CALL, ann, **of_ann)
        assert "charged" in answered.text
        (event,) = [line.partition(":")[2].strip() for line in answered.text.splitlines() if line.startswith("id:")][:1]
        for of in (of_ann, of_bob):
            headers = {**of, "accept": "text/event-stream", "last-event-id": event, "authorization": f"Bearer {bob}"}
            async with http.stream("GET", made.url, headers=headers) as stream:
                if stream.status_code >= 400:
                    continue
                with anyio.move_on_after(0.5):
                    async for chunk in stream.aiter_text():
                        assert "charged" not in chunk


async def test_anothers_request_id_cancels_nothing(keys):
    ann, bob = keys.add("ann"), keys.add("bob")
    slow = Slow()
    slow_call = {**CALL, "params": {"name": "s__slow", "arguments": {}}}
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
    async with gateway(settings=settings(keys), more={"s": slow.server()}) as made:
        of_ann, of_bob = await session(made, ann), await session(made, bob)
        answers: list[httpx2.Response] = []

        async def call() -> None:
            answers.append(await post(made, slow_call, ann, **of_ann))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await slow.began.wait()
            assert (await post(made, cancel, bob, **of_bob)).status_code == 202
            assert (await post(made, cancel, bob, **of_ann)).status_code == 404
            slow.go.set()
        assert "done" in answers[0].text


async def test_a_state_of_a_parked_call_is_its_callers_alone(keys):
    ann, bob = keys.add("ann"), keys.add("bob")
    async with asking() as server, AsyncExitStack() as stack:
        more = {"q": {"url": server.url, "mode": "legacy"}}
        made = await stack.enter_async_context(gateway(more=more, settings=settings(keys)))
        of_ann = await stack.enter_async_context(client(made, ann, **Person().options))
        of_bob = await stack.enter_async_context(client(made, bob, **Person().options))
        asked: Any = await of_ann.session.call_tool("q__elicit", {"times": 1}, **ASK)
        answer = {key: types.ElicitResult(action="accept", content={"word": "mine"}) for key in asked.input_requests}
        options: dict[str, Any] = {"input_responses": answer, "request_state": asked.request_state, **ASK}
        with pytest.raises(MCPError, match="requestState") as refused:
            await of_bob.session.call_tool("q__elicit", {"times": 1}, **options)
        assert refused.value.error.code == types.INVALID_PARAMS
        assert server.ran["elicit"] == 1
        assert server.finished["elicit"] == 0
        assert text_of(await of_ann.session.call_tool("q__elicit", {"times": 1}, **options)) == "mine"


async def test_a_key_or_call_id_of_another_names_no_call(keys):
    ann, bob = keys.add("ann"), keys.add("bob")
    script = Script()
    async with (
        gateway(script, settings=settings(keys)) as made,
        client(made, ann) as of_ann,
        client(made, bob) as of_bob,
    ):
        meta: Any = {IDEMPOTENCY_KEY: "the-key"}
        first = await of_ann.call_tool("a__charge", {"amount": 1}, meta=meta)
        call = (first.meta or {}).get("mcpconn/call")
        for key in ("the-key", *([call] if call else [])):
            again: Any = {IDEMPOTENCY_KEY: key}
            # For Bob it is a new call, whatever Ann did under this name: nothing of hers can be read out of it.
            mine = await of_bob.call_tool("a__charge", {"amount": 2}, meta=again)
            assert not mine.is_error
            assert text_of(mine) != text_of(first)
        ran = script.executions["charge"]
        assert text_of(await of_ann.call_tool("a__charge", {"amount": 1}, meta=meta)) == text_of(first)
        assert script.executions["charge"] == ran


async def test_a_key_of_another_cancels_no_call(keys):
    ann, bob = keys.add("ann"), keys.add("bob")
    slow = Slow()
    async with (
        gateway(settings=settings(keys), more={"s": slow.server()}) as made,
        client(made, ann, "legacy") as of_ann,
    ):
        of_bob = await session(made, bob)
        said: list[str] = []

        async def call() -> None:
            meta: Any = {IDEMPOTENCY_KEY: "the-key"}
            said.append(text_of(await of_ann.call_tool("s__slow", {}, meta=meta)))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await slow.began.wait()
            cancel = {"jsonrpc": "2.0", "id": 9, "method": CANCEL, "params": {"key": "the-key"}}
            answer = await post(made, cancel, bob, **of_bob)
            assert '"cancelled":false' in answer.text.replace(" ", "")
            slow.go.set()
        assert said == ["done"]


async def test_a_cursor_of_another_is_refused(keys):
    ann, bob = keys.add("ann"), keys.add("bob")
    server = MCPServer("many", log_level="CRITICAL")
    for number in range(250):
        server.add_tool(lambda: "x", name=f"tool{number}")
    async with (
        gateway(settings=settings(keys), more={"m": server}) as made,
        client(made, ann) as of_ann,
        client(made, bob) as of_bob,
    ):
        cursor = (await of_ann.list_tools()).next_cursor
        assert cursor is not None
        with pytest.raises(MCPError, match="cursor") as refused:
            await of_bob.list_tools(cursor=cursor)
        assert refused.value.error.code == types.INVALID_PARAMS
        assert len((await of_ann.list_tools(cursor=cursor)).tools) == 50


# -- a flood


async def test_a_flood_takes_no_slot_and_no_place_of_anothers(keys):
    """All share one upstream session with three slots; who floods may hold two of them, and no place in its queue."""
    ann, bob = keys.add("ann"), keys.add("bob")
    began, go = asyncio.Semaphore(0), asyncio.Event()
    running = highest = 0
    server = MCPServer("slow", log_level="CRITICAL")

    @server.tool()
    async def slow() -> str:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        began.release()
        await go.wait()
        running -= 1
        return "done"

    @server.tool()
    async def quick() -> str:
        return "quick"

    rules = (Rights(who=("key:ann",), concurrent=2), Rights())
    more = {"s": {"server": server, "max_in_flight": 3}}
    async with gateway(settings=settings(keys, *rules, scopes={"s": "shared"}), more=more) as made:
        of_ann = await session(made, ann)
        codes: list[int] = []

        async def flood(number: int) -> None:
            call = {**CALL, "id": number, "params": {"name": "s__slow", "arguments": {}}}
            answer = await post(made, call, ann, **of_ann)
            codes.append(answer.status_code)
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1

        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(flood, 100 + number)
            for _ in range(2):
                await began.acquire()
            async with anyio.create_task_group() as flooding:
                for number in range(50):
                    flooding.start_soon(flood, 200 + number)
            assert codes == [429] * 50
            assert sum(each.status()["waiting"] for each in made.app.manager.values()) == 0
            async with client(made, bob) as of_bob:
                for _ in range(5):
                    assert text_of(await of_bob.call_tool("s__quick", {})) == "quick"
            go.set()
        assert codes[50:] == [200, 200]
        assert highest == 2
