"""Calls from the server reach their callbacks on every session, and know their connection."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import mcp_types as types
import pytest
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from pydantic import BaseModel

from mcpconn import ConfigError, Connection, ConnectionContext, Manager, current_connection
from tests.support import SAFETY, text_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
]

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Answer(BaseModel):
    colour: str


def asking() -> MCPServer[Any]:
    """A server whose tools ask their client."""
    server = MCPServer("asking")

    @server.tool()
    async def favourite(ctx: Context[Any]) -> str:
        result = await ctx.elicit("Which colour?", Answer)
        return getattr(getattr(result, "data", None), "colour", "none")

    @server.tool()
    async def multi(ctx: Context[Any]) -> str | types.InputRequiredResult:
        if ctx.input_responses is None:
            schema = {"type": "object", "properties": {"colour": {"type": "string"}}}
            params = types.ElicitRequestFormParams(message="Which colour?", requested_schema=schema)
            return types.InputRequiredResult(input_requests={"colour": types.ElicitRequest(params=params)})
        answer: Any = ctx.input_responses["colour"]
        return str(answer.content["colour"])

    @server.tool()
    async def report(ctx: Context[Any]) -> str:
        await ctx.info("working")
        return "done"

    return server


LEGACY = {"server": asking(), "mode": "legacy"}


@asynccontextmanager
async def asgi(server: MCPServer[Any]) -> AsyncIterator[str]:
    """The server under uvicorn, in a thread of its own: what it sends while a call runs must be streamed."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()[:2]
    # Made by the thread, too: anyio's locks belong to the event loop that they are made under.
    config = uvicorn.Config(server.streamable_http_app, factory=True, log_level="critical", lifespan="on", ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://{host}:{port}/mcp"
    finally:
        running.should_exit = True
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(thread.join)
        listener.close()


async def elicit(context: ConnectionContext, params: Any) -> types.ElicitResult:
    assert current_connection() is context.connection
    return types.ElicitResult(action="accept", content={"colour": f"{WHO.get()} on {context.connection.name}"})


async def test_a_callback_is_told_its_connection_and_works_on_every_session() -> None:
    with anyio.fail_after(SAFETY):
        async with Connection(LEGACY, name="one", elicitation_callback=elicit) as connection:
            for _ in range(2):
                assert text_of(await connection.call_tool("favourite", {})) == "nobody on one"
                await connection.reconnect()
            assert connection.epoch == 3


async def test_modern_callbacks_run_in_their_calls_context() -> None:
    with anyio.fail_after(SAFETY):
        async with Connection(asking(), name="one", elicitation_callback=elicit) as connection:
            for who in ("alice", "bob"):
                WHO.set(who)
                assert text_of(await connection.call_tool("multi", {})) == f"{who} on one"


async def test_legacy_callbacks_over_http_run_in_their_calls_context() -> None:
    with anyio.fail_after(SAFETY):
        async with (
            asgi(asking()) as url,
            Connection({"url": url, "mode": "legacy"}, name="one", elicitation_callback=elicit) as connection,
        ):
            for who in ("alice", "bob"):
                WHO.set(who)
                assert text_of(await connection.call_tool("favourite", {})) == f"{who} on one"


async def test_a_servers_callbacks_go_first() -> None:
    async def other(context: ConnectionContext, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"colour": f"its own on {context.connection.name}"})

    servers = {
        "shared": {"server": asking(), "mode": "legacy"},
        "own": {"server": asking(), "mode": "legacy", "options": {"elicitation_callback": other}},
    }
    with anyio.fail_after(SAFETY):
        async with Manager(servers, elicitation_callback=elicit) as manager:
            assert text_of(await manager.call_tool("shared", "favourite")) == "nobody on shared"
            assert text_of(await manager.call_tool("own", "favourite")) == "its own on own"


async def test_callbacks_without_a_context_can_ask_for_their_connection() -> None:
    logged: list[tuple[str, Any]] = []
    seen: list[str] = []

    async def logging_callback(params: types.LoggingMessageNotificationParams) -> None:
        logged.append((current_connection().name, params.data))

    async def message_handler(message: Any) -> None:
        seen.append(f"{current_connection().name} {type(message).__name__}")

    with anyio.fail_after(SAFETY):
        async with Connection(
            {"server": asking(), "mode": "legacy"},
            name="one",
            logging_callback=logging_callback,
            message_handler=message_handler,
        ) as connection:
            await connection.call_tool("report", {})
            await anyio.wait_all_tasks_blocked()
            assert logged == [("one", "working")]
            assert "one LoggingMessageNotification" in seen


async def test_listeners_hear_notifications_of_every_session(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def plain(notification: types.ServerNotification) -> None:
        heard.append(f"plain {current_connection().name} {type(notification).__name__}")

    async def later(notification: types.ServerNotification) -> None:
        heard.append(f"async {type(notification).__name__}")

    with anyio.fail_after(SAFETY):
        async with Manager({"one": {"server": asking(), "mode": "legacy"}}) as manager:
            connection = manager["one"]
            stop = connection.on_notification(plain)
            connection.on_notification(later)
            await connection.call_tool("report", {})
            await anyio.wait_all_tasks_blocked()
            assert heard == ["plain one LoggingMessageNotification", "async LoggingMessageNotification"]
            stop()
            stop()
            await connection.reconnect()
            heard.clear()
            await connection.call_tool("report", {})
            await anyio.wait_all_tasks_blocked()
            assert heard == ["async LoggingMessageNotification"]
    assert "listener.raised" not in caplog.text


async def test_raising_listeners_harm_no_other(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def broken(notification: types.ServerNotification) -> None:
        raise RuntimeError("a fault of the host's")

    async def handler(message: Any) -> None:
        heard.append("handler")

    with anyio.fail_after(SAFETY):
        async with Connection({"server": asking(), "mode": "legacy"}, message_handler=handler) as connection:
            connection.on_notification(broken)
            connection.on_notification(lambda notification: heard.append("listener"))
            await connection.call_tool("report", {})
            await anyio.wait_all_tasks_blocked()
    assert heard == ["listener", "handler"]
    assert caplog.text.count("listener.raised") == 1


def test_there_is_no_current_connection_outside_of_callbacks() -> None:
    with pytest.raises(LookupError, match="in callbacks only"):
        current_connection()


def test_an_option_that_mcps_client_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'sampling'.*sampling_callback"):
        Connection("https://a.example/mcp", sampling=elicit)  # type: ignore[call-arg]


@pytest.mark.parametrize("what", ["log", "progress"])
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_call_can_be_cancelled_whatever_its_callbacks_wait_for(mode: str, what: str) -> None:
    server: MCPServer[Any] = MCPServer("busy")

    @server.tool()
    async def busy(ctx: Context[Any]) -> str:
        # It awaits nothing but its client. In process that is the callbacks below, in the caller's own task.
        for _ in range(1000):
            if what == "log":
                await ctx.info("still busy")
            else:
                await ctx.report_progress(1, 2)
        return "done"

    scope = anyio.CancelScope()
    called = 0

    def callback() -> None:
        nonlocal called
        called += 1
        scope.cancel()

    async def handler(message: Any) -> None:
        callback()

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        callback()

    options: dict[str, Any] = {"log_level": "info", "message_handler": handler}
    with anyio.fail_after(SAFETY):
        async with Connection({"server": server, "mode": mode}, **options) as connection:
            with scope:
                await connection.call_tool("busy", progress_callback=progress)
    assert scope.cancelled_caught
    assert called < 1000


# Before 3.11 a task does not know whether it was cancelled: see `mcpconn.runtime.native.being_cancelled`.
@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.Task.cancelling came with 3.11")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_progress_cannot_cancel_calls(mode: str, anyio_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    server: MCPServer[Any] = MCPServer("busy")

    @server.tool()
    async def busy(ctx: Context[Any]) -> str:
        await ctx.report_progress(1, 2)
        return "done"

    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    gone.cancel()

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        await gone

    with anyio.fail_after(SAFETY):
        async with Connection({"server": server, "mode": mode}) as connection:
            assert text_of(await connection.call_tool("busy", progress_callback=progress)) == "done"
            assert connection.epoch == 1
    assert "the callback raised a cancellation although it was not cancelled" in caplog.text
