"""Answers that are none, and words that prove nothing: on every transport, both engines, both eras, real sockets."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.server import MCPServer

from mcpconn import CallFailed, CallTimeout, Connection, FailureKind, OutcomeUnknown, Policy
from mcpconn.testing import STDIO_SERVER, HttpServer, Script, SseScript, default_tools
from mcpconn.testing.history import History
from mcpconn.testing.scripted import faults, hostile
from tests.support import SAFETY, UNFINISHED_STREAMS, Seen, quiet, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

K = FailureKind
TOOLS = (*default_tools(), *hostile.lying_tools())
LIMITED = Policy(max_message_size=1_000_000)
TRANSPORTS = [
    *(
        f"{era} {answer} {engine}"
        for era in ("legacy", "modern")
        for answer in ("json", "stream")
        for engine in ("direct", "httpx")
    ),
    "legacy sse direct",
    "legacy sse httpx",
    "legacy stdio",
    "modern stdio",
]


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Ran:
    """How often the server ran a tool."""

    def __init__(self, script: Script | None, path: Path) -> None:
        self._script = script
        self._path = path

    def times(self, tool: str) -> int:
        if self._script is not None:
            return self._script.executions[tool]
        return self._path.read_text().split().count(tool) if self._path.exists() else 0


@asynccontextmanager
async def connected(transport: str, folder: Path, **options: Any) -> AsyncIterator[tuple[Connection, Ran]]:
    """A connection to a server with lying tools, which has made a call."""
    era, kind, *engine = transport.split()
    options.setdefault("policy", LIMITED)
    path = folder / "executed"
    with anyio.fail_after(SAFETY):
        if kind == "stdio":
            names = ",".join(tool.name for tool in TOOLS)
            args = [str(STDIO_SERVER), "--era", era, "--tools", names, "--count-file", str(path)]
            async with Connection({"command": sys.executable, "args": args}, **options) as connection:
                await warm(connection)
                yield connection, Ran(None, path)
            return
        answer: Any = "sse" if kind == "stream" else "json"
        legacy: Any = era
        script = SseScript(tools=TOOLS) if kind == "sse" else Script(era=legacy, answer=answer, tools=TOOLS)
        config: dict[str, Any] = {"engine": engine[0], "transport": "sse" if kind == "sse" else "http"}
        async with HttpServer(script) as server, Connection({"url": server.url, **config}, **options) as connection:
            await warm(connection)
            yield connection, Ran(script, path)


async def warm(connection: Connection) -> None:
    assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
    await quiet(connection)


# -- what is no answer


NO_ANSWER = ("no JSON",)
"""Where all answers come on one stream, this may be anything: servers print banners there, too."""


@pytest.mark.parametrize("how", sorted(hostile.SPOILED))
async def test_a_non_answer_is_unknown_at_once(transport: str, how: str, tmp_path: Path) -> None:
    shared = "stdio" in transport or " sse " in transport
    left_waiting = shared and how in NO_ANSWER
    async with connected(transport, tmp_path) as (connection, ran):
        seen = Seen(connection)
        with pytest.raises(CallTimeout if left_waiting else OutcomeUnknown) as caught:
            await connection.call_tool("spoiled", {"how": how}, timeout=0.2 if left_waiting else 15)
        assert caught.value.outcome == "unknown"
        if not left_waiting:
            assert caught.value.failure.kind in (K.PROTOCOL, K.TRANSPORT_LOST)
            assert not isinstance(caught.value, CallTimeout)
        assert "receipt" not in str(caught.value)
        assert ran.times("spoiled") == 1
        assert text_of(await connection.call_tool("add", {"a": 2, "b": 1})) == "3"
        assert (seen.events.count("lost"), connection.epoch) == (0, 1)


@pytest.mark.parametrize("how", ["foreign id", "null id", "half a surrogate in a result"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_that_does_no_harm_is_made_again_after_one(how: str, stream: bool) -> None:
    script = Script()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            await warm(connection)
            script.inject(hostile.spoiled(how, stream=stream))
            assert text_of(await connection.call_tool("add", {"a": 2, "b": 1})) == "3"
            assert script.executions["add"] == 3


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", sorted(hostile.SPOILED))
async def test_the_history_of_such_calls_is_true(how: str, stream: bool) -> None:
    script, history = Script(), History()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url, policy=LIMITED) as connection:
            await warm(connection)
            script.inject(hostile.spoiled(how, stream=stream))
            with pytest.raises(OutcomeUnknown), history.call("charge") as call:
                call.answer = await connection.call_tool("charge", call.arguments)
            assert len(script.spoiled) == 1
            history.check(script)


async def test_one_callers_broken_answer_does_not_end_the_calls_beside_it(transport: str, tmp_path: Path) -> None:
    async with connected(transport, tmp_path) as (connection, ran):
        outcomes: list[str] = []

        async def call(how: str) -> None:
            try:
                await connection.call_tool("spoiled", {"how": how})
            except CallFailed as error:
                outcomes.append(error.outcome)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(call, "half a surrogate in an error")
            answers = [await connection.call_tool("add", {"a": number, "b": 0}) for number in range(20)]
        assert [text_of(answer) for answer in answers] == [str(number) for number in range(20)]
        assert (outcomes, ran.times("spoiled"), connection.epoch) == (["unknown"] * 5, 5, 1)


# -- words


WORDS = [
    (-32600, "Redirect to the receipt page failed"),
    (-32600, "server answered a request with 202 Accepted"),
    (-32600, "Unexpected content type: application/pdf"),
    (-32700, "Failed to parse the receipt"),
    (-32001, "Request 'tools/call' timed out"),
    (-32001, "Timed out after 5s waiting for 'tools/call'"),
    (-32000, "SSE stream of receipts ended"),
    (-32000, "Connection refused"),
    (-32603, "Server returned an error response"),
    (-32602, "request cancelled"),
]


@pytest.mark.parametrize(("code", "words"), WORDS)
async def test_a_tools_error_stays_the_tools(transport: str, code: int, words: str, tmp_path: Path) -> None:
    async with connected(transport, tmp_path) as (connection, ran):
        seen = Seen(connection)
        with pytest.raises(MCPError) as caught:
            await connection.call_tool("refused", {"code": code, "message": words, "data": {"written": False}})
        assert not isinstance(caught.value, CallFailed)
        assert (caught.value.error.code, caught.value.error.message) == (code, words)
        assert ran.times("refused") == 1
        # Some of these make the session suspect: it is asked, and stays.
        await quiet(connection)
        assert set(seen.events) <= {"suspected"}


@pytest.mark.parametrize(("code", "words"), WORDS)
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_in_process_it_is_the_tools_as_well(mode: str, code: int, words: str) -> None:
    server: MCPServer[Any] = MCPServer("lying")

    @server.tool()
    async def refused() -> str:
        raise MCPError(code, words)

    async with Connection({"server": server, "mode": mode}) as connection:
        with pytest.raises(MCPError) as caught:
            await connection.call_tool("refused")
        assert not isinstance(caught.value, CallFailed)
        assert (caught.value.error.code, caught.value.error.message) == (code, words)


@pytest.mark.parametrize("words", ["Connection closed", "Session terminated before the request completed"])
async def test_a_server_that_says_that_it_closes_is_asked_and_not_believed(
    transport: str, words: str, tmp_path: Path
) -> None:
    async with connected(transport, tmp_path) as (connection, ran):
        with pytest.raises(MCPError) as caught:
            await connection.call_tool("refused", {"code": -32000, "message": words})
        assert getattr(caught.value, "outcome", "unknown") == "unknown"
        await quiet(connection)
        assert ran.times("refused") == 1
        assert text_of(await connection.call_tool("add", {"a": 2, "b": 1})) == "3"


# -- the SDK's own timeout


async def test_a_read_timeout_is_a_call_timeout(transport: str, tmp_path: Path) -> None:
    async with connected(transport, tmp_path) as (connection, _):
        with pytest.raises(CallTimeout, match="timed out") as caught:
            await connection.call_tool("slow_charge", {"seconds": 60}, 0.1)
        assert caught.value.outcome == "unknown"
        await quiet(connection)
        assert connection.epoch == 1


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_read_timeout_ends_so_in_process(mode: str) -> None:
    server: MCPServer[Any] = MCPServer("slow")

    @server.tool()
    async def wait() -> str:
        await anyio.sleep_forever()
        return "never"

    async with Connection({"server": server, "mode": mode}) as connection:
        with pytest.raises(CallTimeout) as caught:
            await connection.call_tool("wait", {}, 0.05)
        assert caught.value.outcome == "unknown"


# -- what cannot be sent


@pytest.mark.parametrize("value", [int("7" * 4000) ** 2, "half a pair: \ud83d"], ids=["digits", "text"])
async def test_an_unsendable_call_fails_its_caller_alone(transport: str, value: Any, tmp_path: Path) -> None:
    async with connected(transport, tmp_path) as (connection, ran):
        seen = Seen(connection)
        async with anyio.create_task_group() as group:
            group.start_soon(connection.call_tool, "slow", {"seconds": 0.2})
            for _ in range(4):
                with pytest.raises(ValueError, match=r"cannot be sent|surrogate"):
                    await connection.call_tool("charge", {"amount": value})
            assert text_of(await connection.call_tool("add", {"a": 2, "b": 1})) == "3"
        assert ran.times("charge") == 0
        assert (seen.events, connection.epoch) == ([], 1)


# -- too much


@pytest.mark.parametrize("engine", ["direct", "httpx"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_an_oversized_resource_is_not_called_a_tool(era: Any, engine: str) -> None:
    script = Script(era=era)
    with anyio.fail_after(SAFETY):
        async with (
            HttpServer(script) as server,
            Connection({"url": server.url, "engine": engine}, policy=Policy(max_message_size=20_000)) as connection,
        ):
            await warm(connection)
            script.inject(hostile.huge_body(50_000), method="resources/read", times=None)
            with pytest.raises(OutcomeUnknown, match=r"20000 bytes.*resources/read was not answered") as caught:
                await connection.read_resource("memo://welcome")
            assert "tool" not in str(caught.value)
            script.inject(faults.hang(), method="resources/list", times=None)
            with pytest.raises(CallTimeout) as timeout:
                await connection.list_resources(cache_mode="refresh", timeout=0.05)
            assert "tool" not in str(timeout.value)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_of_many_values_is_unread(stream: bool) -> None:
    script = Script()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            await warm(connection)
            script.inject(hostile.many_values(30_000))
            with pytest.raises(OutcomeUnknown, match="more than 20000 items"):
                await connection.call_tool("charge")
            script.inject(hostile.many_values(400_000, item="{}"))
            with pytest.raises(OutcomeUnknown, match="more than"):
                await connection.call_tool("charge")
            assert script.executions["charge"] == 2
