"""A call that still waits for its server when its owner is lost did not run, and is routed again."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mcpconn.gateway import MemoryStore
from mcpconn.gateway.fleet import routing
from mcpconn.gateway.fleet.forwarding import Lost, NotDelivered
from mcpconn.gateway.fleet.go_ahead import ASK, DATA, AskedGoAhead, Frames, GoAhead, frame
from mcpconn.gateway.fleet.membership import OwnershipLost, Replica
from mcpconn.gateway.fleet.ownership import Owner
from mcpconn.gateway.fleet.replies import Reply
from mcpconn.gateway.fleet.routing import Routing
from mcpconn.keys import FIRST, IDEMPOTENCY_KEY, OUTCOME
from tests.fleet.conftest import Balancer, Replicas, replicas
from tests.fleet.stateful import Stateful
from tests.fleet.test_forwarding import MODES
from tests.gateway.conftest import Gateway, served

pytestmark = pytest.mark.anyio


class Late:
    """A server that accepts connections from the beginning, and reads them only when it is told to."""

    def __init__(self) -> None:
        self.stateful = Stateful()
        self.answers = anyio.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/mcp"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(self._run)
            try:
                yield
            finally:
                group.cancel_scope.cancel()
                self._listening.close()

    async def _run(self) -> None:
        await self.answers.wait()
        server = self.stateful.server()
        app = server.streamable_http_app()
        async with server.session_manager.run(), served(app, self._listening):
            await anyio.sleep_forever()


@asynccontextmanager
async def fleet() -> AsyncIterator[tuple[Replicas, Late, MemoryStore]]:
    """Two replicas before a legacy server that does not answer yet."""
    late, store = Late(), MemoryStore()
    async with late.running(), replicas({"s": {"url": late.url, "mode": "legacy"}}, count=2, store=store) as made:
        yield made, late, store


async def loses_its_lease(owner: Gateway, store: MemoryStore) -> None:
    """As if it had been paused for longer than that."""
    assert owner.app.fleet is not None
    membership = owner.app.fleet.membership
    assert await store.delete(membership.key(membership.name))
    await membership.renew()


async def is_cut_off(owner: Gateway, store: MemoryStore) -> None:
    """Connections from the other replicas break and its lease is over, but its calls still wait."""
    assert owner.app.fleet is not None
    await owner.app.fleet._port.aclose()
    await owner.app.fleet.membership.leave()


LOSSES = pytest.mark.parametrize("lose", [loses_its_lease, is_cut_off], ids=["lease", "link"])


@LOSSES
@MODES
async def test_calls_that_wait_for_their_server_outlive_their_owner(mode, lose):
    told: dict[str, Any] = {}
    async with fleet() as (made, late, store):
        balancer = Balancer([made[0].url])
        async with made.client(balancer=balancer, mode=mode) as client, anyio.create_task_group() as group:

            async def call(name: str) -> None:
                told[name] = await client.call_tool("s__remember", {"id": name})

            group.start_soon(call, "direct")
            owner = made[0].app.fleet
            assert owner is not None
            while not owner.ownership.keys or not owner._routing._serving:
                await anyio.lowlevel.checkpoint()
            balancer.urls = [made[1].url]
            group.start_soon(call, "forwarded")
            while not owner.listener.running:
                await anyio.lowlevel.checkpoint()
            await lose(made[0], store)
            late.answers.set()
            # An owner that is cut off has nobody to give its own clients' calls to.
            expected = {"forwarded", "direct"} if lose is loses_its_lease else {"forwarded"}
            while not expected <= set(told):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    for name in expected:
        assert not told[name].is_error
        assert late.stateful.ran[name] == 1


async def test_an_unanswered_call_is_not_sent():
    asked: list[str] = []

    async def question() -> None:
        asked.append("asked")

    go_ahead = AskedGoAhead(question)
    async with anyio.create_task_group() as group:

        async def refused() -> None:
            with pytest.raises(OwnershipLost) as lost:
                await go_ahead.ask()
            assert lost.value.told == "not_run"

        group.start_soon(refused)
        while not asked:
            await anyio.lowlevel.checkpoint()
        go_ahead.answer(False)
    go_ahead.answer(True)
    with pytest.raises(OwnershipLost):
        await go_ahead.ask()
    assert asked == ["asked"]


async def test_a_go_ahead_that_was_given_cannot_be_withdrawn():
    async def question() -> None:
        go_ahead.answer(True)

    go_ahead = AskedGoAhead(question)
    await go_ahead.ask()
    await go_ahead.ask()
    assert not go_ahead.withdraw()
    other = GoAhead()
    assert other.withdraw()
    with pytest.raises(OwnershipLost):
        await other.ask()


async def test_frames_may_arrive_in_pieces():
    frames, found = Frames(), []
    for byte in frame(ASK) + frame(DATA, b"abc" * 100):
        frames.feed(bytes([byte]))
        while (each := frames.next()) is not None:
            found.append(each)
    assert found == [(ASK, b""), (DATA, b"abc" * 100)]


def body(meta: dict[str, Any], **params: Any) -> bytes:
    return json.dumps({"id": 1, "method": "tools/call", "params": {"name": "a", "_meta": meta, **params}}).encode()


class Client:
    """What a client gets."""

    def __init__(self) -> None:
        self.text = b""
        self.heads = 0

    async def send(self, message: Any) -> None:
        self.heads += message["type"] == "http.response.start"
        self.text += message.get("body", b"")


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (body({}), "not_run"),
        (body({IDEMPOTENCY_KEY: "k", FIRST: True}), "not_run"),
        (body({IDEMPOTENCY_KEY: "k"}), "unknown"),
        (body({}, requestState="s"), "unknown"),
    ],
    ids=["no key", "a new key", "a key sent before", "an answer to a question"],
)
async def test_not_run_is_said_of_a_call_and_not_of_a_request(sent, told):
    client = Client()
    await Reply(client.send, "POST", sent).end_not_run()
    assert json.loads(client.text)["result"]["_meta"][OUTCOME] == told


async def test_a_list_that_is_not_served_has_no_outcome():
    # The SDK's client lists the tools within `call_tool`, after the call has run.
    client = Client()
    await Reply(client.send, "POST", json.dumps({"id": 1, "method": "tools/list"}).encode()).end_not_run()
    assert "data" not in json.loads(client.text)["error"]


def head(kind: bytes, status: int = 200) -> Any:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]}


@pytest.mark.parametrize(
    ("second", "pieces", "seen"),
    [
        (head(b"text/event-stream"), [b"data: 2\n\n"], b"data: 1\n\ndata: 2\n\n"),
        (head(b"application/json"), [b'{"a"', b":1}"], b'data: 1\n\nevent: message\r\ndata: {"a":1}\r\n\r\n'),
    ],
    ids=["a stream", "JSON"],
)
async def test_an_answer_follows_what_another_replica_began(second, pieces, seen):
    client = Client()
    reply = Reply(client.send, "POST", body({}))
    await reply(head(b"text/event-stream"))
    await reply({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
    assert reply.can_follow
    await reply(second)
    for number, piece in enumerate(pieces, 1):
        await reply({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})
    assert (client.heads, client.text, reply.complete) == (1, seen, True)


async def test_a_refusal_after_a_stream_began_is_not_run():
    client = Client()
    reply = Reply(client.send, "POST", body({}))
    await reply(head(b"text/event-stream"))
    await reply(head(b"application/json", 404))
    await reply({"type": "http.response.body", "body": b"{}"})
    assert b'"mcpconn/outcome":"not_run"' in client.text


async def test_a_refusal_of_a_second_try_does_not_speak_for_the_first():
    client = Client()
    reply = Reply(client.send, "POST", body({}))
    await reply(head(b"text/event-stream"))
    reply.may_have_run = True
    await reply(head(b"application/json", 404))
    assert b'"mcpconn/outcome":"unknown"' in client.text


async def test_a_json_answer_that_was_cut_takes_nothing_else():
    reply = Reply(Client().send, "POST", body({}))
    await reply(head(b"application/json"))
    assert not reply.can_follow


async def test_not_run_is_not_said_of_a_call_that_was_lost_before(monkeypatch: pytest.MonkeyPatch):
    client, elsewhere = Client(), Owner("k", Replica("r", "127.0.0.1:1"), 1, mine=False)
    tries: list[Exception] = [Lost("it is gone"), NotDelivered("nobody"), NotDelivered("nobody")]

    class Lossy(Routing):
        async def owner(self, key: str, *, number: int | None = None) -> Owner:
            return elsewhere

        async def _forward(self, *_: Any, **__: Any) -> None:
            if len(tries) == 1:
                monkeypatch.setattr(routing, "PATIENCE", 0.0)
            raise tries.pop(0)

    async def nothing(*_: Any) -> None: ...

    made: Any = Lossy(UnknownOwners(), None, None, taken_over=nothing, not_mine=nothing)  # type: ignore[arg-type]
    monkeypatch.setattr(routing, "PAUSE", 0.0)
    scope = {"method": "POST", "headers": []}
    more: Any = {"action": "session", "view": "", "body": body({}), "local": nothing, "repeatable": lambda: True}
    await made.route("k", scope, nothing, client.send, **more)
    assert b'"mcpconn/outcome":"unknown"' in client.text


class UnknownOwners:
    """Forgets owners."""

    def forget(self, owner: Owner) -> None:
        """Nothing is known of it."""


async def test_a_call_that_was_withdrawn_does_not_end_the_next_try():
    ended: list[str] = []
    go_ahead = GoAhead()
    go_ahead.lose = lambda: ended.append("ended")
    assert go_ahead.withdraw()
    go_ahead.take_back()
    assert not ended
    other = GoAhead()
    other.lose = lambda: ended.append("ended")
    await other.ask()
    other.take_back()
    assert (ended, other.withdrawn) == (["ended"], True)
