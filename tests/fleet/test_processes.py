"""Replicas as processes that are killed, paused, woken and replaced."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcpconn.keys import IDEMPOTENCY_KEY, NEW_SESSION, OUTCOME
from tests.fleet.conftest import Balancer
from tests.fleet.load import ANSWERED, Load
from tests.fleet.processes import Fleet, fleet, needs_haproxy
from tests.fleet.soak import soak
from tests.redis_server import needs_redis, redis_server

pytestmark = pytest.mark.anyio

SAFETY = 120.0
MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
TOOLS = pytest.mark.parametrize("tool", ["http__remember", "child__remember"], ids=["http", "child"])


@asynccontextmanager
async def client(made: Fleet, balancer: Balancer, mode: Any = "legacy") -> AsyncIterator[Client]:
    """A bare client whose requests go where `balancer` says."""
    http = httpx2.AsyncClient(transport=balancer, timeout=httpx2.Timeout(10, read=60))
    async with http, Client(streamable_http_client(made.url, http_client=http), mode=mode) as found:
        yield found


def at(made: Fleet, *numbers: int) -> list[str]:
    """The addresses of replicas."""
    return [f"http://127.0.0.1:{made.ports[number]}/mcp" for number in numbers]


def said(result: Any) -> tuple[str, Any]:
    """The outcome of a call, and its text."""
    meta = result.meta or {}
    text = result.content[0].text
    return (str(meta.get(OUTCOME)), text) if result.is_error else ("answered", json.loads(text))


@TOOLS
async def test_after_an_owner_is_killed_the_next_call_says_so(tmp_path, tool):
    with anyio.fail_after(SAFETY):
        async with fleet(tmp_path, count=2) as made:
            balancer = Balancer(at(made, 0))
            async with client(made, balancer) as one:
                _, before = said(await one.call_tool(tool, {"id": "a"}))
                balancer.urls = at(made, 1)
                assert said(await one.call_tool(tool, {"id": "b"}))[1] == {**before, "ran": ["a", "b"]}
                await made.kill(0)
                result = await one.call_tool(tool, {"id": "c"})
                outcome, after = said(result)
                assert (outcome, after["ran"]) == ("answered", ["c"])
                assert "new one" in dict(result.meta or {})[NEW_SESSION]
                assert after["session"] != before["session"]
                again = await one.call_tool(tool, {"id": "d"})
                assert said(again)[1]["ran"] == ["c", "d"]
                assert NEW_SESSION not in dict(again.meta or {})
            assert set(made.ran().values()) == {1}


@TOOLS
@MODES
async def test_an_owner_that_is_paused_and_woken_is_one_no_more(tmp_path, tool, mode):
    with anyio.fail_after(SAFETY):
        async with fleet(tmp_path, count=2) as made:
            balancer = Balancer(at(made, 0))
            async with client(made, balancer, mode) as one:
                await one.list_tools()
                _, before = said(await one.call_tool(tool, {"id": "a"}))
                balancer.urls = at(made, 1)
                told: list[str] = []

                async def slow() -> None:
                    meta: Any = {IDEMPOTENCY_KEY: "slow"}
                    told.append(said(await one.call_tool(tool, {"id": "slow", "seconds": 2}, meta=meta))[0])

                async with anyio.create_task_group() as group:
                    group.start_soon(slow)
                    await made.has_run("slow")
                    made.signal(0, signal.SIGSTOP)
                assert told == ["unknown"]
                result = await one.call_tool(tool, {"id": "b"})
                assert said(result)[1]["ran"] == ["b"]
                assert NEW_SESSION in dict(result.meta or {})
                made.signal(0, signal.SIGCONT)
                # Whichever replica is asked now, there is one session, the successor's.
                balancer.urls = at(made, 0, 1)
                for name in "cdef":
                    outcome, after = said(await one.call_tool(tool, {"id": name}))
                    assert outcome == "answered"
                assert after["ran"] == list("bcdef")
                assert after["session"] != before["session"]
            assert set(made.ran().values()) == {1}
            # Nothing was written to the predecessor's session after it was taken over.
            lines = [json.loads(line) for line in made.journal.read_text().splitlines()]
            assert [call for session, call in lines if session == before["session"]] == ["a", "slow"]


@MODES
async def test_a_key_at_another_replica_runs_once(tmp_path, mode):
    with anyio.fail_after(SAFETY):
        async with fleet(tmp_path, count=2) as made:

            async def call(number: int, key: str, seconds: float) -> tuple[str, Any]:
                meta: Any = {IDEMPOTENCY_KEY: key}
                async with client(made, Balancer(at(made, number)), mode) as one:
                    arguments = {"id": key, "seconds": seconds}
                    return said(await one.call_tool("http__remember", arguments, meta=meta))

            told: list[Any] = []

            async def tell(number: int, key: str, seconds: float) -> None:
                try:
                    told.append(await call(number, key, seconds))
                except Exception:
                    told.append("broken")

            async with anyio.create_task_group() as group:
                group.start_soon(tell, 0, "during", 2.0)
                await made.has_run("during")
                group.start_soon(tell, 1, "during", 2.0)
            assert told[0] == told[1]
            assert told[0][0] == "answered"
            assert await call(1, "during", 2.0) == told[0]
            told.clear()
            async with anyio.create_task_group() as group:
                group.start_soon(tell, 0, "death", 30.0)
                await made.has_run("death")
                await made.kill(0)
            assert told == ["broken"]
            assert (await call(1, "death", 30.0))[0] == "unknown"
            assert made.ran() == {"during": 1, "death": 1}


class OtherClock(Fleet):
    """The last replica has a wall clock that is wrong."""

    seconds = 0.0

    def command(self, number: int) -> list[str]:
        command = super().command(number)
        if number < len(self.ports) - 1:
            return command
        return [*command[:2], "tests.fleet.other_clock", str(self.seconds), *command[3:]]


@needs_redis
@MODES
@pytest.mark.parametrize("seconds", [-90.0, 90.0], ids=["behind", "ahead"])
async def test_a_replica_with_another_clock_serves_as_the_others_do(tmp_path, mode, seconds):
    async def blue(context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"colour": "blue"})

    kind = type("Clock", (OtherClock,), {"seconds": seconds})
    with anyio.fail_after(SAFETY), redis_server(tmp_path / "redis") as redis:
        async with fleet(tmp_path, count=2, kind=kind, store=redis.url) as made:
            http = httpx2.AsyncClient(transport=Balancer(at(made, 0, 1)), timeout=httpx2.Timeout(10, read=60))
            transport = streamable_http_client(made.url, http_client=http)
            async with http, Client(transport, mode=mode, elicitation_callback=blue) as one:
                for name in "abcdef":
                    outcome, after = said(await one.call_tool("http__remember", {"id": name}))
                    assert outcome == "answered"
                assert after["ran"] == list("abcdef")
                for name in ("ask", "ask again"):
                    assert said(await one.call_tool("http__ask", {"id": name}))[1]["colour"] == "blue"
                meta: Any = {IDEMPOTENCY_KEY: "k"}
                told = [said(await one.call_tool("http__remember", {"id": "k"}, meta=meta)) for _ in range(2)]
                assert told[0] == told[1]
                await made.kill(0)
                http._transport.urls = at(made, 1)  # type: ignore[attr-defined]
                assert said(await one.call_tool("http__remember", {"id": "g"}))[0] == "answered"
            assert set(made.ran().values()) == {1}


class OtherKeys(Fleet):
    """A replica can be started with a key file of its own."""

    keys: Path | None = None

    def command(self, number: int) -> list[str]:
        return [*super().command(number), *(["--sealing-keys", str(self.keys)] if self.keys else [])]


@needs_redis
async def test_a_replica_with_other_sealing_keys_does_not_start(tmp_path):
    keys = tmp_path / "other keys"
    keys.write_text("ab" * 32 + "\n", encoding="ascii")
    keys.chmod(0o600)
    with anyio.fail_after(SAFETY), redis_server(tmp_path / "redis") as redis:
        async with fleet(tmp_path, count=2, kind=OtherKeys, store=redis.url) as made:
            assert isinstance(made, OtherKeys)
            async with client(made, Balancer(at(made, 0))) as one:
                await one.call_tool("http__remember", {"id": "a"})
                await made.kill(1)
                made.keys = keys
                with pytest.raises(AssertionError, match="has ended"):
                    await made.start(1)
                assert "Give all replicas the same key file" in (tmp_path / "replica1.log").read_text()
                assert said(await one.call_tool("http__remember", {"id": "b"}))[1]["ran"] == ["a", "b"]
                # With the key of the others first in its file it starts, and serves as they do.
                keys.write_text((tmp_path / "state" / "keys").read_text() + "ab" * 32 + "\n")
                await made.start(1)
            async with client(made, Balancer(at(made, 0, 1))) as one:
                for name in "cd":
                    assert said(await one.call_tool("http__remember", {"id": name}))[0] == "answered"


@needs_haproxy()
async def test_replicas_are_killed_and_replaced_under_load(tmp_path):
    async with fleet(tmp_path) as made:
        load = await soak(made, seconds=12, clients=12, between=1.0)
        assert load.problems(made.ran()) == []
        assert load.count(made.ran())[ANSWERED] > 50
        assert any("SIGKILL" in what for _, what in made.timeline)


@needs_haproxy()
@pytest.mark.parametrize("keepalive", [True, False], ids=["kept connections", "a connection each"])
async def test_rolling_restarts_with_other_keys_lose_no_request(tmp_path, keepalive):
    async with fleet(tmp_path, count=2, keepalive=keepalive) as made:
        load = Load(made.url)
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(load.client, f"c{number}", "auto" if number % 2 else "legacy")
            for names, timeout in ((("k1", "k2"), 20.0), (("k2", "k1"), 21.0)):
                made.write_keys(*names)
                made.write_config(timeout=timeout)
                await made.roll()
            load.stopping = True
        assert load.problems(made.ran()) == []
        assert not load.words, "what was said of calls that were not answered"
        assert load.count(made.ran())[ANSWERED] == len(load.told) > 100
