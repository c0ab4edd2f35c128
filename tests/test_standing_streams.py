"""Streams on which a server says what belongs to no request: kept open for as long as the session lives.

The legacy era's is a GET, the modern era's `subscriptions/listen`. All of this is in virtual time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal

import anyio
import mcp_types as types
import pytest

from mcpconn import Connection, Policy, State
from mcpconn.catalog.listing import LISTS
from mcpconn.catalog.schedule import GAP_INTERVAL, STREAM_PATIENCE
from mcpconn.core.stream import JITTER, REOPEN_CEILING, SILENCE, StreamStatus
from mcpconn.testing import Script, ScriptedTool, ScriptTransport, clock
from mcpconn.testing.scripted import faults
from mcpconn.testing.scripted.steps import Reply, Send, Sleep
from tests.support import Seen, text_of

Era = Literal["legacy", "modern"]
Act = Callable[["Scene"], Awaitable[None]]
OPENING = {"legacy": "GET", "modern": "subscriptions/listen"}
"""The request that opens the stream of each era."""


class Scene:
    """A connection to a script, and when its stream was asked for."""

    def __init__(self, connection: Connection, script: Script, transport: ScriptTransport, times: list[float]) -> None:
        self.connection = connection
        self.script = script
        self.transport = transport
        self.openings = times
        """When each request for the stream arrived, in seconds since the first."""
        self.seen = Seen(connection)

    @property
    def stream(self) -> StreamStatus:
        stream = self.connection.status()["stream"]
        assert stream is not None
        return stream

    @property
    def waits(self) -> list[float]:
        return [later - sooner for sooner, later in zip(self.openings, self.openings[1:], strict=False)]

    def cut(self) -> None:
        """Reset the stream."""
        self.transport.drop()

    async def healthy(self) -> None:
        """The session was never given up, and answers."""
        assert text_of(await self.connection.call_tool("charge")) == "charged 1"
        assert self.connection.state is State.READY
        assert self.seen.events == []


def play(
    backend: str, script: Script, act: Act, *, arm: Callable[[Script], object] | None = None, **config: Any
) -> None:
    """Run `act` with a connection, in virtual time. It lists eagerly, so that a modern stream is opened, too."""

    async def main() -> None:
        times: list[float] = []
        method = OPENING[script.era]

        def heard(received: Any) -> None:
            if method in (received.rpc_method, received.http_method):
                times.append(anyio.current_time() - began)

        began = anyio.current_time()
        script.on_request = heard
        if arm is not None:
            arm(script)
        transport = ScriptTransport(script)
        entry = {"url": "http://scripted/mcp", "http_transport": transport, "catalog": "eager", "mode": script.era}
        if script.era == "modern":
            entry["mode"] = "auto"
        handler = config.pop("message_handler", None)
        options = {"message_handler": handler} if handler is not None else {}
        policy = config.pop("policy", Policy())
        async with Connection({**entry, **config}, name="srv", policy=policy, **options) as connection:
            await act(Scene(connection, script, transport, times))

    clock.run(main, backend=backend)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Era:
    return request.param  # type: ignore[no-any-return]


def within(wait: float, expected: float) -> bool:
    return expected <= wait <= expected * (1 + JITTER) + 0.01


# -- reopening


@pytest.mark.parametrize("retry_ms", [None, 0, 10])
def test_a_stream_that_ends_at_once_is_reopened_ever_more_slowly(backend: str, retry_ms: int | None) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(600)
        expected = [1, 2, 4, 8, 16, 32, *[REOPEN_CEILING] * 20]
        assert len(scene.waits) > 10
        assert all(within(wait, least) for wait, least in zip(scene.waits, expected, strict=False)), scene.waits
        await scene.healthy()

    play(backend, Script(get_stream="closing", retry_ms=retry_ms), act)


def test_a_stream_is_reopened_after_a_cut(backend: str, era: Era) -> None:
    async def act(scene: Scene) -> None:
        for cuts in range(1, 11):
            await anyio.sleep(100)
            assert scene.stream["state"] == "open"
            scene.cut()
            await anyio.sleep(0.1)
            assert scene.stream["state"] == "waiting"
            await anyio.sleep(2)
            # It had lived for longer than 30 s.
            assert within(scene.openings[-1] - 102.1 * cuts + 2.1, 1)
        assert len(scene.openings) == 11
        assert scene.script.streams.count == 1
        await scene.healthy()

    play(backend, Script(era=era), act)


REFUSALS = [
    faults.status(409),
    faults.server_error(),
    faults.unavailable(),
    faults.rate_limited(0),
    faults.not_found_html(),
    faults.status(400, body=b"not now", content_type="text/plain"),
    faults.status(401),
    faults.forbidden(),
    faults.status(200, body=b"<html>", content_type="text/html"),
    faults.drop_before(),
]


@pytest.mark.parametrize("fault", REFUSALS, ids=lambda fault: fault.name)
def test_a_refused_stream_is_asked_for_again(backend: str, fault: faults.Fault) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(20)
        assert within(scene.waits[0], 1)
        assert within(scene.waits[1], 2)
        assert within(scene.waits[2], 4)
        assert scene.stream["state"] == "open"
        assert scene.stream["reason"] is not None
        assert scene.connection.epoch == 1
        assert text_of(await scene.connection.call_tool("charge")) == "charged 1"

    play(backend, Script(), act, arm=lambda script: script.inject(fault, method="GET", times=3))


def test_a_longer_wait_is_granted(backend: str) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(60)
        assert within(scene.waits[0], 30)

    play(backend, Script(), act, arm=lambda script: script.inject(faults.rate_limited(30), method="GET"))


def test_405_is_final_for_the_session(backend: str) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(3600)
        assert len(scene.openings) == 1
        assert scene.stream == {"state": "refused", "opened": 0, "reason": "HTTP 405", "retry_in": None}
        await scene.connection.reconnect()
        await anyio.sleep(1)
        assert len(scene.openings) == 2

    play(backend, Script(get_stream="405"), act)


def test_a_modern_server_without_subscriptions_is_asked_once(backend: str) -> None:
    unknown = faults.rpc_error(-32601, "Method not found", http_status=404, ran=False)

    async def act(scene: Scene) -> None:
        await anyio.sleep(3600)
        assert len(scene.openings) == 1
        assert scene.stream["state"] == "refused"
        await scene.healthy()

    play(
        backend,
        Script(era="modern"),
        act,
        arm=lambda script: script.inject(unknown, method="subscriptions/listen", times=None),
    )


def test_an_outage_ends_no_stream(backend: str, era: Era) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(60)
        scene.transport.down = True
        scene.cut()
        await anyio.sleep(300)
        scene.transport.down = False
        await anyio.sleep(100)
        assert scene.stream["state"] == "open"
        assert text_of(await scene.connection.call_tool("charge")) == "charged 1"

    # Without keepalive, which would notice the outage: the stream alone is meant here.
    play(backend, Script(era=era), act, keepalive=False)


# -- it proves nothing


def test_a_stream_that_is_always_404_costs_one_probe_and_no_session(backend: str) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(3600)
        assert scene.script.count("ping") == 1
        assert (scene.connection.epoch, scene.script.count("initialize")) == (1, 1)

    refused = faults.rpc_error(-32600, "Session not found", http_status=404, ran=False)
    arm = lambda script: script.inject(refused, method="GET", times=None)  # noqa: E731 - as the others'
    play(backend, Script(), act, arm=arm, keepalive=False)


def test_a_forgotten_session_is_found_by_its_stream_before_a_caller_finds_it(backend: str) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(60)
        scene.script.forget_sessions()
        scene.script.streams.close()
        await anyio.sleep(5)
        assert scene.seen.events == ["suspected", "lost", "established"]
        assert text_of(await scene.connection.call_tool("charge")) == "charged 1"
        assert scene.script.executions["charge"] == 1
        assert scene.connection.status()["counts"].get("replayed", 0) == 0

    # Without keepalive, whose own probe could come in the same moment.
    play(backend, Script(), act, keepalive=False)


# -- silence


def test_with_keepalive_a_silent_stream_is_reopened_after_five_minutes(backend: str, era: Era) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(SILENCE * 4 + 20)
        assert len(scene.openings) == 5
        assert all(within(wait, SILENCE + 1) for wait in scene.waits)
        assert scene.script.streams.count == 1
        await scene.healthy()

    play(backend, Script(era=era), act, keepalive=60.0)


def test_without_keepalive_a_stream_may_stay_silent(backend: str, era: Era) -> None:
    async def act(scene: Scene) -> None:
        # Many times the silence after which a stream with keepalive is asked for again.
        await anyio.sleep(12 * SILENCE)
        assert len(scene.openings) == 1
        await scene.healthy()

    play(backend, Script(era=era), act)


def test_with_keepalive_a_stream_that_is_never_answered_is_asked_for_again(backend: str) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(SILENCE + 5)
        assert scene.stream["state"] == "open"
        assert len(scene.openings) == 2

    play(backend, Script(), act, arm=lambda script: script.inject(faults.hang(), method="GET"), keepalive=60.0)


# -- listing, when the stream is open


def listed(script: Script) -> dict[str, int]:
    counts = {kind: script.count(rpc) for kind, (rpc, _) in LISTS.items()}
    return {kind: count for kind, count in counts.items() if count}


def late(seconds: float) -> faults.Fault:
    """The stream is opened, and takes its time for that."""

    def plan(exchange: faults.Exchange) -> Reply:
        def steps() -> Any:
            yield Sleep(seconds)
            yield from exchange.answer.steps

        return replace(exchange.answer, steps=steps())

    return faults.Fault("late", plan, after=True)


def tool(name: str) -> ScriptedTool:
    return ScriptedTool(name, lambda arguments: "ok")


def test_what_changes_before_the_stream_is_open_is_listed(backend: str, era: Era) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(0.25)
        assert listed(scene.script) == {}
        scene.script.tools["early"] = tool("early")
        scene.script.notify("notifications/tools/list_changed", {})
        await anyio.sleep(2)
        assert "early" in scene.connection.catalog.tools
        # And once only.
        await anyio.sleep(600)
        assert listed(scene.script) == dict.fromkeys(LISTS, 1)

    play(backend, Script(era=era), act, arm=lambda script: script.inject(late(0.5), method=OPENING[era]))


def test_a_listing_waits_1_s_for_the_stream(backend: str, era: Era) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(STREAM_PATIENCE + 0.5)
        assert listed(scene.script) == dict.fromkeys(LISTS, 1)
        scene.script.tools["missed"] = tool("missed")
        await anyio.sleep(10)
        # Opened after that listing, it may have missed a change.
        assert "missed" in scene.connection.catalog.tools

    play(backend, Script(era=era), act, arm=lambda script: script.inject(late(5), method=OPENING[era]))


def test_a_refused_stream_delays_no_listing(backend: str) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(0.3)
        assert listed(scene.script) == dict.fromkeys(LISTS, 1)

    play(backend, Script(get_stream="405"), act)


# -- gaps


def test_a_gap_is_followed_by_a_listing(backend: str, era: Era) -> None:
    script = Script(era=era)
    capabilities = script.service.catalog._capabilities()
    del capabilities["prompts"]["listChanged"]
    script.service.catalog._capabilities = lambda: capabilities  # type: ignore[method-assign]

    async def act(scene: Scene) -> None:
        await anyio.sleep(100)
        script.tools["missed"] = tool("missed")
        scene.cut()
        await anyio.sleep(3)
        assert "missed" in scene.connection.catalog.tools
        assert listed(script) == {"tools": 2, "resources": 2, "templates": 2, "prompts": 1}

    play(backend, script, act)


def test_while_the_stream_is_away_what_was_listed_is_stale(backend: str, era: Era) -> None:
    async def act(scene: Scene) -> None:
        catalog = scene.connection.catalog
        await anyio.sleep(100)
        assert not catalog.stale
        scene.cut()
        await anyio.sleep(0.5)
        assert catalog.stale
        await anyio.sleep(3)
        assert not catalog.stale
        # The second gap of a minute: listed at the end of it, and stale until then.
        scene.cut()
        await anyio.sleep(5)
        assert catalog.stale
        # Unless somebody asks.
        assert await catalog.refresh()
        assert not catalog.stale

    play(backend, Script(era=era), act)


def test_gaps_cause_one_listing_a_minute_and_none_is_forgotten(backend: str, era: Era) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(100)
        for _ in range(20):
            scene.cut()
            await anyio.sleep(5)
        after = scene.script.count("tools/list")
        assert 2 <= after - 1 <= 100 / GAP_INTERVAL + 2
        scene.script.tools["missed"] = tool("missed")
        scene.cut()
        await anyio.sleep(2 * GAP_INTERVAL)
        assert "missed" in scene.connection.catalog.tools
        await anyio.sleep(3600)
        assert scene.script.count("tools/list") <= after + 2

    play(backend, Script(era=era), act)


def test_after_a_gap_those_who_watch_resources_are_told_to_read(backend: str) -> None:
    told: list[tuple[float, str]] = []

    async def handler(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            told.append((anyio.current_time(), str(message.params.uri)))

    async def act(scene: Scene) -> None:
        await anyio.sleep(1)
        await scene.connection.subscribe_resource("memo://rules")
        await anyio.sleep(100)
        assert told == []
        for _ in range(20):
            scene.cut()
            await anyio.sleep(5)
        assert {uri for _, uri in told} == {"memo://rules"}
        assert 2 <= len(told) <= 3
        assert listed(scene.script) == {}

    play(backend, Script(), act, message_handler=handler, catalog="lazy")


def test_a_message_after_many_gaps_is_heard(backend: str) -> None:
    told: list[str] = []

    async def handler(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            told.append(str(message.params.uri))

    async def act(scene: Scene) -> None:
        await scene.connection.subscribe_resource("memo://rules")
        for _ in range(5):
            await anyio.sleep(40)
            scene.cut()
        await anyio.sleep(200)
        told.clear()
        scene.script.notify("notifications/resources/updated", {"uri": "memo://rules"})
        await anyio.sleep(1)
        assert told == ["memo://rules"]

    play(backend, Script(), act, message_handler=handler, catalog="lazy")


def test_an_event_above_the_limit_costs_the_stream_and_no_more(backend: str) -> None:
    huge = b"data: " + b"x" * 5000 + b"\n\n"

    def plan(exchange: faults.Exchange) -> Reply:
        return Reply(200, faults.SSE_HEADERS, (Send(huge),))

    async def act(scene: Scene) -> None:
        await anyio.sleep(10)
        assert scene.stream == {"state": "open", "opened": 2, "reason": "the server ended it", "retry_in": None}
        await scene.healthy()

    play(
        backend,
        Script(),
        act,
        arm=lambda script: script.inject(faults.Fault("huge", plan), method="GET"),
        policy=Policy(max_message_size=4096),
    )


# -- sessions


def test_the_stream_of_a_session_that_was_given_up_is_not_reopened(backend: str, era: Era) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(60)
        await scene.connection.reconnect()
        await anyio.sleep(600)
        assert len(scene.openings) == 2
        assert scene.script.streams.count == 1
        assert scene.stream["opened"] == 1

    play(backend, Script(era=era), act)


@pytest.mark.parametrize("catalog", ["lazy", "off"])
def test_a_modern_stream_is_opened_when_a_list_is_needed(backend: str, catalog: str) -> None:
    async def act(scene: Scene) -> None:
        await anyio.sleep(60)
        assert (scene.openings, scene.connection.status()["stream"]) == ([], None)
        await scene.connection.list_tools()
        await anyio.sleep(60)
        assert len(scene.openings) == (1 if catalog == "lazy" else 0)

    play(backend, Script(era="modern"), act, catalog=catalog)
