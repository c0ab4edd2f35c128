"""What `mcp.Client` takes, where it takes it: arguments, their mistakes, transports, and what is raised."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPDeprecationWarning, MCPError, StdioServerParameters
from mcp.client.caching import CacheConfig, InMemoryResponseCacheStore
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer

from mcpconn import (
    ArgumentError,
    CallFailed,
    ConfigError,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    FailureKind,
    InvalidResult,
    Manager,
    NotRunning,
    Policy,
    State,
)
from mcpconn.testing import STDIO_SERVER, HttpServer, Script
from mcpconn.testing.scripted import faults, hostile
from tests.support import SAFETY, UNFINISHED_STREAMS, text_of, until

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

ADD: Any = ("add", {"a": 1, "b": 1})


def demo() -> MCPServer:
    server = MCPServer("demo")

    @server.tool()
    def add(a: int, b: int) -> str:
        return str(a + b)

    return server


# -- arguments


async def test_mode_is_an_argument() -> None:
    async with Connection(demo(), mode="legacy") as connection:
        assert connection.protocol_version == "2025-11-25"
    async with Connection(demo(), mode="2026-07-28") as connection:
        assert connection.protocol_version == "2026-07-28"
    servers = {"one": {"server": demo()}, "two": {"server": demo(), "mode": "2026-07-28"}}
    async with Manager(servers, mode="legacy") as manager:
        for name, version in (("one", "2025-11-25"), ("two", "2026-07-28")):
            await manager[name].wait_ready()
            assert manager[name].protocol_version == version


async def test_a_known_discover_result_is_adopted_without_asking() -> None:
    async with Connection(demo()) as connection:
        known = connection.session.discover_result
    script = Script(era="modern")
    async with (
        HttpServer(script) as server,
        Connection(server.url, mode="2026-07-28", prior_discover=known) as connection,
    ):
        assert connection.session.discover_result is known
        assert text_of(await connection.call_tool(*ADD)) == "2"
        assert script.count("server/discover") == 0


class Nameless:
    """No extension: it has no identifier."""


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"mode": "2025-06-18"}, ValueError, "handshake-era version; use mode='legacy'"),
        ({"mode": "tomorrow"}, ValueError, "mode must be 'legacy', 'auto', or one of"),
        ({"extensions": [Nameless()]}, ValueError, "has no `identifier`"),
        ({"extensions": {"a/b": {}}}, TypeError, "extensions= takes a sequence"),
        (
            {"cache": CacheConfig(store=InMemoryResponseCacheStore(), partition="p")},
            ValueError,
            "requires CacheConfig.target_id",
        ),
        ({"sampling": print}, TypeError, "unknown option 'sampling'"),
    ],
)
def test_mistakes_are_told_by_constructors(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    for make in (lambda: Connection(demo(), **arguments), lambda: Manager({"srv": {"server": demo()}}, **arguments)):
        with pytest.raises(error, match=words) as caught:
            make()
        assert isinstance(caught.value, ConfigError)
        assert isinstance(caught.value, ArgumentError) == (error is TypeError)


def test_the_fields_of_a_client_are_there() -> None:
    on_sampling: Any = print
    params = StdioServerParameters(command="uv", args=["run"])
    info = types.Implementation(name="me", version="1")
    bare = Client(params, sampling_callback=on_sampling, client_info=info, mode="legacy", log_level="info")
    same = Connection(params, sampling_callback=on_sampling, client_info=info, mode="legacy", log_level="info")
    fields = [name for name in Client.__dataclass_fields__ if not name.startswith("_")]
    assert len(fields) > 12
    for name in fields:
        if name != "cache":
            assert getattr(same, name) == getattr(bare, name), name
    assert same.cache == bare.cache == CacheConfig()
    assert Connection(params, cache=None).cache is None


async def test_a_store_of_the_users_serves_clients_and_connections_of_one_url() -> None:
    script, store = Script(era="modern"), InMemoryResponseCacheStore()
    script.service.catalog.ttl_ms = 60_000
    cache = CacheConfig(store=store, partition="me")
    async with HttpServer(script) as server:
        async with Client(server.url, cache=cache) as client:
            await client.list_prompts()
        async with Connection(server.url, cache=cache) as connection:
            assert [prompt.name for prompt in (await connection.list_prompts()).prompts]
    assert script.count("prompts/list") == 1


async def test_cached_responses_outlive_a_session() -> None:
    script = Script(era="modern")
    script.service.catalog.ttl_ms = 60_000
    async with (
        HttpServer(script) as server,
        Connection({"url": server.url, "catalog": "off"}) as connection,
    ):
        await connection.list_prompts()
        await connection.reconnect()
        await connection.list_prompts()
        assert (connection.epoch, script.count("prompts/list")) == (2, 1)


# -- transports


async def test_a_transport_object_is_one_session_and_its_loss_is_said() -> None:
    script = Script()
    with anyio.fail_after(SAFETY):
        async with (
            HttpServer(script) as server,
            Connection(streamable_http_client(server.url), name="given") as connection,
        ):
            assert text_of(await connection.call_tool(*ADD)) == "2"
            script.forget_sessions()
            with pytest.raises(CallFailed):
                await connection.call_tool("charge", {"amount": 1})
            await until(connection, lambda: connection.state is State.FAILED)
            with pytest.raises(ConnectionFailed, match="give a function that returns a new transport") as caught:
                await connection.call_tool(*ADD)
            assert caught.value.outcome == "not_run"
            assert caught.value.failure.kind is FailureKind.CONFIG
            assert caught.value.retry_in is None
    assert script.executions["charge"] == 0


async def test_a_factory_of_transports_is_asked_for_each_session() -> None:
    script, made = Script(), []

    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, httpx2.AsyncClient() as http:

            def factory() -> Any:
                made.append(1)
                return streamable_http_client(server.url, http_client=http)

            async with Connection(factory, name="given") as connection:
                assert text_of(await connection.call_tool(*ADD)) == "2"
                script.forget_sessions()
                assert text_of(await connection.call_tool(*ADD)) == "2"
                await connection.reconnect()
                assert text_of(await connection.call_tool(*ADD)) == "2"
                assert len(made) == connection.epoch == 3
                assert connection.status()["transport"] == "transport"


async def test_a_stdio_transport_object_is_taken() -> None:
    transport = stdio_client(StdioServerParameters(command=sys.executable, args=[str(STDIO_SERVER)]))
    with anyio.fail_after(SAFETY):
        async with Connection(transport) as connection:
            assert text_of(await connection.call_tool(*ADD)) == "2"


async def test_a_factory_of_nothing_is_told_so() -> None:
    with pytest.raises(ConnectionFailed, match="made a int, which is not a transport"):
        async with Connection(lambda: 3):
            pass


async def test_a_transport_that_cannot_be_opened_fails_at_once_with_its_error() -> None:
    with anyio.fail_after(SAFETY), pytest.raises(ConnectionFailed) as caught:
        async with Connection(streamable_http_client("http://127.0.0.1:9/mcp")):
            pass
    assert isinstance(caught.value.__cause__, httpx2.ConnectError)


ECHO = """
import json, sys
sys.stdin.reconfigure(encoding={encoding!r}); sys.stdout.reconfigure(encoding={encoding!r}, newline="\\n")
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        result = {{"protocolVersion": "2025-11-25", "capabilities": {{"tools": {{}}}},
                  "serverInfo": {{"name": "echo", "version": "1"}}}}
    else:
        said = message["params"]["arguments"]["text"]
        result = {{"content": [{{"type": "text", "text": said}}]}}
    print(json.dumps({{"jsonrpc": "2.0", "id": message["id"], "result": result}}, ensure_ascii=False), flush=True)
"""


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16-le"])
async def test_a_child_may_speak_another_encoding(encoding: str, tmp_path: Path) -> None:
    program = tmp_path / "echo.py"
    program.write_text(ECHO.format(encoding=encoding), encoding="utf-8")
    params = StdioServerParameters(command=sys.executable, args=[str(program)], encoding=encoding)
    with anyio.fail_after(SAFETY):
        async with Connection(params, mode="legacy") as connection:
            assert text_of(await connection.call_tool("echo", {"text": "Zoë €"})) == "Zoë €"
            if encoding == "cp1252":
                with pytest.raises(UnicodeEncodeError):
                    await connection.call_tool("echo", {"text": "☃"})
                assert text_of(await connection.call_tool("echo", {"text": "after"})) == "after"
                assert connection.epoch == 1


async def test_what_an_encoding_cannot_express_is_replaced_if_that_is_wanted(tmp_path: Path) -> None:
    program = tmp_path / "echo.py"
    program.write_text(ECHO.format(encoding="ascii"), encoding="utf-8")
    params = StdioServerParameters(
        command=sys.executable, args=[str(program)], encoding="ascii", encoding_error_handler="replace"
    )
    with anyio.fail_after(SAFETY):
        async with Connection(params, mode="legacy") as connection:
            assert text_of(await connection.call_tool("echo", {"text": "Zoë"})) == "Zo?"


# -- what is raised


async def test_the_first_connect_keeps_the_cause() -> None:
    with pytest.raises(ConnectionFailed) as caught:
        async with Connection({"command": "no-such-program-anywhere"}):
            pass
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    policy = Policy(patience=0.01, min_attempts=1)
    for engine in ("direct", "httpx"):
        with pytest.raises(ConnectionFailed) as caught:
            async with Connection({"url": "http://127.0.0.1:9/mcp", "engine": engine}, policy=policy):
                pass
        assert isinstance(caught.value.__cause__, httpx2.ConnectError), engine


async def test_outside_of_its_block_a_connection_raises_a_runtime_error() -> None:
    connection = Connection(demo())
    uses: list[Callable[[], Any]] = [
        lambda: connection.session,
        lambda: connection.server_info,
        lambda: connection.protocol_version,
    ]
    calls: list[Callable[[], Awaitable[Any]]] = [lambda: connection.call_tool(*ADD), connection.list_tools]
    for use in uses:
        with pytest.raises(RuntimeError) as early:
            use()
        assert isinstance(early.value, NotRunning)
    for call in calls:
        with pytest.raises(RuntimeError):
            await call()
    async with connection:
        with pytest.raises(RuntimeError, match="cannot reenter"):
            await connection.__aenter__()
    for use in uses:
        with pytest.raises(RuntimeError) as late:
            use()
        assert isinstance(late.value, ConnectionClosed)
    for call in calls:
        with pytest.raises(RuntimeError):
            await call()
    with pytest.raises(RuntimeError):
        await connection.__aenter__()


async def test_removed_methods_warn_as_in_the_sdk() -> None:
    script = Script()
    async with HttpServer(script) as server, Connection(server.url, mode="legacy") as connection:
        calls: dict[str, tuple[Any, ...]] = {
            "send_ping": (),
            "set_logging_level": ("info",),
            "subscribe_resource": ("memo://welcome",),
            "unsubscribe_resource": ("memo://welcome",),
            "send_progress_notification": ("token", 0.5),
            "send_roots_list_changed": (),
        }
        for name, arguments in calls.items():
            words = getattr(getattr(Client, name), "__deprecated__")  # noqa: B009 - set by the decorator
            with pytest.warns(MCPDeprecationWarning) as caught:
                await getattr(connection, name)(*arguments)
            assert [str(one.message) for one in caught] == [words]
            assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await connection.ping()
            await connection.set_level("info")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (faults.unavailable(), types.INTERNAL_ERROR),
        (faults.forbidden(), types.INTERNAL_ERROR),
        (faults.accepted_202(), types.INVALID_REQUEST),
    ],
)
async def test_http_failures_have_the_codes_that_the_sdk_gives_them(fault: Any, code: int) -> None:
    script = Script()
    async with HttpServer(script) as server, Connection(server.url) as connection:
        await connection.call_tool(*ADD)
        script.inject(fault, method="tools/call")
        with pytest.raises(CallFailed) as caught:
            await connection.call_tool("charge", {"amount": 1})
        assert caught.value.code == code


async def test_a_url_without_a_server_has_the_codes_that_the_sdk_gives_it() -> None:
    script = Script()
    script.inject(faults.not_found_html(), times=None, method=None)
    async with HttpServer(script) as server:
        url = server.url
        with pytest.raises(ConnectionFailed) as ours:
            async with Connection(url):
                pass
        with pytest.raises(Exception) as theirs:  # noqa: PT011 - in a group, or not
            async with Client(url, mode="legacy"):
                pass
        assert theirs.group_contains(MCPError) or isinstance(theirs.value, MCPError)
        assert ours.value.code == types.METHOD_NOT_FOUND


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_server_in_process_raises_its_exceptions_here_if_asked_to(mode: str) -> None:
    from mcp.server import Server

    async def broken(ctx: Any, params: Any) -> Any:
        raise LookupError("no such shelf")

    server = Server("broken", on_call_tool=broken)
    with anyio.fail_after(SAFETY):
        async with Connection(server, mode=mode, raise_exceptions=True) as connection:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - itself, or as the cause
                await connection.call_tool("any")
            assert any("no such shelf" in str(error) for error in chain(caught.value))


def chain(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None:
        found.append(error)
        found.extend(getattr(error, "exceptions", ()))
        error = error.__cause__
    return found


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("answer", ["json", "sse"])
async def test_a_result_of_the_wrong_shape_says_that_the_tool_ran(era: Any, answer: Any) -> None:
    script = Script(era=era, answer=answer)
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            await connection.call_tool(*ADD)
            for tool, arguments in (("charge", {"amount": 1}), ADD):
                ran = script.executions[tool]
                script.inject(hostile.wrong_shape("sk-secret"))
                with pytest.raises(InvalidResult, match=r"the result is not a valid .*the tool ran") as caught:
                    await connection.call_tool(tool, arguments)
                error = caught.value
                assert isinstance(error, MCPError)
                assert isinstance(error, CallFailed)
                assert (error.outcome, error.attempts) == ("ran", 1)
                assert error.failure.kind is FailureKind.PROTOCOL
                assert "sk-secret" not in str(error)
                # Not even where that is harmless: the server would answer the same.
                assert script.executions[tool] == ran + 1
            assert text_of(await connection.call_tool(*ADD)) == "2"
            assert connection.epoch == 1


async def test_arguments_of_the_wrong_type_are_the_callers_own_error() -> None:
    async with Connection(demo()) as connection:
        with pytest.raises(ValueError, match="CallToolRequestParams") as caught:
            await connection.call_tool(3)  # type: ignore[arg-type]
        assert not isinstance(caught.value, CallFailed)
