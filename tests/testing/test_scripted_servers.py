"""The scripted servers against the real MCP client."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
import trio
import trio.testing
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import PromptReference

from mcpconn.testing import STDIO_SERVER, Fault, HttpServer, Received, Reply, Script, ScriptedTool, ScriptTransport
from mcpconn.testing.scripted import faults, hostile

pytestmark = [
    pytest.mark.anyio,
    # httpx2 and the SDK's client leave async generators of a response body unfinished; trio warns of that.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2:ResourceWarning"),
    # The SDK calls requests that only earlier versions have deprecated.
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
]

POST = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@pytest.fixture(params=["http", "inproc"])
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def connected(script: Script, wire: str = "inproc", **options: Any) -> AsyncIterator[Client]:
    """A real client of the script; fails instead of hanging."""
    with anyio.fail_after(20):
        async with AsyncExitStack() as stack:
            if wire == "http":
                server = await stack.enter_async_context(HttpServer(script))
                yield await stack.enter_async_context(Client(server.url, **options))
            else:
                http = await stack.enter_async_context(httpx2.AsyncClient(transport=ScriptTransport(script)))
                transport = streamable_http_client("http://scripted/mcp", http_client=http)
                yield await stack.enter_async_context(Client(transport, **options))


@asynccontextmanager
async def raw(script: Script, wire: str, read: float = 5.0) -> AsyncIterator[httpx2.AsyncClient]:
    """A plain HTTP client of the script."""
    timeout = httpx2.Timeout(5.0, read=read)
    with anyio.fail_after(max(20, 10 * read)):
        if wire == "inproc":
            transport = ScriptTransport(script)
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://scripted", timeout=timeout, headers=POST
            ) as client:
                yield client
        else:
            async with (
                HttpServer(script) as server,
                httpx2.AsyncClient(base_url=server.url.removesuffix("/mcp"), timeout=timeout, headers=POST) as client,
            ):
                yield client


def call(name: str = "charge", request_id: int = 7, **arguments: Any) -> dict[str, Any]:
    """A `tools/call` request."""
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


def text_of(result: Any) -> str:
    """The text of a tool result."""
    return str(result.content[0].text)


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("answer", ["json", "sse"])
async def test_everything_the_client_can_ask(wire: str, era: Any, answer: Any) -> None:
    script = Script(era=era, answer=answer, event_ids=answer == "sse")
    async with connected(script, wire) as client:
        tools = await client.list_tools()
        assert [tool.name for tool in tools.tools] == list(script.tools)
        assert tools.tools[0].annotations is not None
        assert tools.tools[0].annotations.read_only_hint
        assert tools.tools[1].annotations is None
        assert text_of(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
        assert text_of(await client.call_tool("charge", {"amount": 5})) == "charged 5"
        assert text_of(await client.call_tool("slow", {"seconds": 0.01})) == "slept 0.01"
        expired = await client.call_tool("session_expired_result")
        assert expired.is_error
        assert text_of(expired) == "session expired"
        with pytest.raises(MCPError, match="shopping session expired"):
            await client.call_tool("shopping")
        resources = await client.list_resources()
        read = await client.read_resource(resources.resources[0].uri)
        assert read.contents[0].uri == resources.resources[0].uri
        assert len((await client.list_resource_templates()).resource_templates) == 1
        assert (await client.list_prompts()).prompts[0].name == "greet"
        prompt = await client.get_prompt("greet", {"name": "Ada"})
        assert prompt.messages[0].content.text == "Greet Ada."  # type: ignore[union-attr]
        reference = PromptReference(type="ref/prompt", name="greet")
        completed = await client.complete(reference, {"name": "name", "value": "al"})
        assert completed.completion.values == ["alice", "albert"]
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool("missing")
    assert script.executions == {
        "add": 1,
        "charge": 1,
        "slow": 1,
        "session_expired_result": 1,
        "shopping": 1,
    }
    assert script.calls[1].arguments == {"amount": 5}
    assert script.count("server/discover") == 1
    assert script.count("initialize") == (era == "legacy")
    # The client ended its session.
    assert script.sessions == set()


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_progress_travels_on_event_streams(wire: str, era: Any) -> None:
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with connected(Script(era=era, answer="sse"), wire) as client:
        await client.call_tool("progress", {"steps": 3}, progress_callback=note)
    assert seen == [1, 2, 3]


async def test_lists_in_pages() -> None:
    script = Script(page_size=3)
    async with connected(script) as client:
        names: list[str] = []
        cursor: str | None = None
        while True:
            page = await client.list_tools(cursor=cursor)
            names += [tool.name for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                break
    assert names == list(script.tools)
    assert script.count("tools/list") == 3


async def test_legacy_only_requests(wire: str) -> None:
    script = Script()
    async with connected(script, wire, mode="legacy") as client:
        await client.session.send_ping()
        await client.session.set_logging_level("warning")
        await client.session.subscribe_resource("memo://status")
        (state,) = script.states.values()
        assert state.log_level == "warning"
        assert state.subscriptions == {"memo://status"}
        await client.session.unsubscribe_resource("memo://status")
        assert state.subscriptions == set()


async def test_sessionless_and_older_version() -> None:
    script = Script(sessions=False, version="2025-06-18")
    async with connected(script) as client:
        assert client.protocol_version == "2025-06-18"
        assert text_of(await client.call_tool("add", {"a": 1, "b": 1})) == "2"
    assert script.requests[0] == Received("POST", "server/discover", None, 400)


async def test_own_tools() -> None:
    tool = ScriptedTool("boom", lambda arguments: arguments["missing"])
    async with connected(Script(tools=[tool])) as client:
        result = await client.call_tool("boom")
    assert result.is_error
    assert "KeyError" in text_of(result)


@pytest.mark.parametrize(
    ("expiry", "status", "text"),
    [
        ("404", 404, "Session not found"),
        ("404-empty", 404, "Session terminated"),
        ("404-text", 404, "Session terminated"),
        ("200", 200, "expired session"),
        ("400", 400, "No valid session ID"),
        ("400-no-id", 400, "No valid session ID"),
    ],
)
async def test_forgotten_sessions(wire: str, expiry: Any, status: int, text: str) -> None:
    script = Script(expiry=expiry, get_stream="405")
    async with connected(script, wire, mode="legacy") as client:
        await client.call_tool("charge")
        script.forget_sessions()
        with pytest.raises(MCPError, match=text):
            await client.call_tool("charge")
        with pytest.raises(MCPError, match=text):
            await client.session.send_ping()
    assert [seen.status for seen in script.requests if seen.rpc_method == "ping"] == [status]
    assert script.executions["charge"] == 1


async def test_a_cut_stream_is_resumed(wire: str) -> None:
    script = Script(answer="sse", event_ids=True, retry_ms=0)
    async with connected(script, wire) as client:
        script.inject(faults.cut_stream())
        assert text_of(await client.call_tool("charge", {"amount": 2})) == "charged 2"
    assert script.executions == {"charge": 1}


async def test_a_cut_stream_without_ids_is_lost(wire: str) -> None:
    script = Script(answer="sse")
    async with connected(script, wire) as client:
        script.inject(faults.cut_stream())
        with pytest.raises(MCPError, match="without a response"):
            await client.call_tool("charge")
    assert script.executions == {"charge": 1}


async def test_notifications_on_a_standing_stream(wire: str) -> None:
    script = Script()
    seen: list[Any] = []
    opened, told = anyio.Event(), anyio.Event()

    async def handle(message: Any) -> None:
        seen.append(message.method)
        told.set()

    def watch(received: Received) -> None:
        if received.http_method == "GET":
            opened.set()

    script.on_request = watch
    async with connected(script, wire, message_handler=handle) as client:
        await client.session.subscribe_resource("memo://status")
        await opened.wait()
        script.notify("notifications/resources/updated", {"uri": "memo://rules"})
        script.notify("notifications/resources/updated", {"uri": "memo://status"})
        await told.wait()
        assert script.streams.count == 1
    assert seen == ["notifications/resources/updated"]


async def test_listening_in_the_modern_era(wire: str) -> None:
    script = Script(era="modern")
    async with connected(script, wire) as client, client.listen(tools_list_changed=True) as subscription:
        script.notify("notifications/prompts/list_changed")
        script.notify("notifications/tools/list_changed")
        async for event in subscription:
            assert type(event).__name__ == "ToolsListChanged"
            script.streams.close(graceful=True)
    assert script.streams.count == 0


@pytest.mark.parametrize(
    ("fault", "error", "ran"),
    [
        (faults.drop_before(), httpx2.ReadError, 0),
        (faults.drop_after(), httpx2.ReadError, 1),
        (faults.hang(), httpx2.ReadTimeout, 0),
        (faults.hang_after(), httpx2.ReadTimeout, 1),
        (faults.cut_stream(), httpx2.RemoteProtocolError, 1),
        (faults.cut_stream(reset=True), httpx2.ReadError, 1),
        (faults.slow(30), httpx2.ReadTimeout, 1),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else None,
)
async def test_broken_connections(wire: str, fault: Fault, error: type[Exception], ran: int) -> None:
    script = Script(sessions=False)
    armed = script.inject(fault, tool="charge")
    async with raw(script, wire, read=0.2) as client:
        assert (await client.post("/mcp", json=call("add", a=1, b=1))).status_code == 200
        with pytest.raises(error):
            await client.post("/mcp", json=call())
        assert script.executions["charge"] == ran
        assert (await client.post("/mcp", json=call())).json()["result"]["content"]
    assert armed.used == 1
    assert script.executions["charge"] == ran + 1


@pytest.mark.parametrize(
    ("fault", "status", "ran"),
    [
        (faults.unauthorized(), 401, 0),
        (faults.forbidden(), 403, 0),
        (faults.rate_limited(2), 429, 0),
        (faults.unavailable(), 503, 0),
        (faults.bad_gateway(ran=True), 502, 1),
        (faults.server_error(), 500, 0),
        (faults.not_found_html(), 404, 0),
        (faults.expired_404(), 404, 0),
        (faults.expired_404(body=False), 404, 0),
        (faults.expired_200(), 200, 0),
        (faults.expired_400(with_id=False), 400, 0),
        (faults.accepted_202(), 202, 1),
        (faults.rpc_error(-32603, "no", http_status=500), 500, 1),
        (hostile.garbage(), 200, 1),
        (hostile.html_200(), 200, 1),
        (hostile.wrong_id(), 200, 1),
        (hostile.duplicate_response(), 200, 1),
        (hostile.huge_body(300_000), 200, 1),
        (hostile.huge_error(300_000), 200, 1),
        (hostile.invalid_utf8(), 200, 1),
        (hostile.forged_evidence(), 200, 1),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else None,
)
async def test_bad_answers(wire: str, fault: Fault, status: int, ran: int) -> None:
    script = Script(sessions=False)
    script.inject(fault, method=None)
    async with raw(script, wire) as client:
        response = await client.post("/mcp", json=call())
        assert response.status_code == status
        assert script.requests[-1].status == status
        assert script.executions["charge"] == ran
        if fault.name.startswith("huge"):
            assert len(response.content) == 300_000
            assert response.json()["id"] == 7


@pytest.mark.parametrize("fault", [hostile.endless_body(), hostile.endless_event()], ids=lambda f: f.name)
async def test_endless_answers_end_with_the_client(wire: str, fault: Fault) -> None:
    script = Script(sessions=False)
    script.inject(fault)
    async with raw(script, wire) as client:
        async with client.stream("POST", "/mcp", json=call()) as response:
            received = 0
            async with aclosing(response.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    received += len(chunk)
                    if received > 1_000_000:
                        break
        assert (await client.post("/mcp", json=call())).status_code == 200


async def test_until_cleared_and_by_http_method() -> None:
    script = Script(sessions=False)
    script.inject(faults.bad_gateway(), times=None)
    script.inject(faults.forbidden(), method="GET")
    async with raw(script, "inproc") as client:
        for _ in range(3):
            assert (await client.post("/mcp", json=call())).status_code == 502
        script.clear()
        assert (await client.post("/mcp", json=call())).status_code == 200
        script.inject(faults.forbidden(), method="GET")
        assert (await client.get("/mcp")).status_code == 403
    assert script.count("GET") == 1


async def test_the_get_stream_can_close_at_once(wire: str) -> None:
    async with raw(Script(sessions=False, get_stream="closing"), wire) as client:
        for _ in range(2):
            response = await client.get("/mcp")
            assert response.headers["content-type"] == "text/event-stream"
            assert response.content == b""


async def test_stop_and_start_on_the_same_port() -> None:
    script = Script(sessions=False)
    async with HttpServer(script) as server, httpx2.AsyncClient(headers=POST) as client:
        url = server.url
        assert (await client.post(url, json=call())).status_code == 200
        assert server.open_connections == 1
        await server.stop()
        assert server.open_connections == 0
        with pytest.raises(httpx2.ConnectError):
            await client.post(url, json=call())
        await server.start()
        assert server.url == url
        assert (await client.post(url, json=call())).status_code == 200
        await server.reset_connections()
        assert server.open_connections == 0
        assert server.accepted == 2


async def test_an_exception_leaves_a_server_as_is() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with HttpServer(Script()):
            raise ValueError("mine")
    with anyio.move_on_after(0.01) as scope:
        async with HttpServer(Script()):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_broken_plan_is_reported() -> None:
    def plan(exchange: object) -> Reply:
        raise LookupError("no plan")

    script = Script(sessions=False)
    script.inject(Fault("broken", plan))
    with pytest.RaisesGroup(pytest.RaisesExc(LookupError, match="no plan"), flatten_subgroups=True):
        async with HttpServer(script) as server, httpx2.AsyncClient(headers=POST) as client:
            await client.post(server.url, json=call())


def test_time_may_be_virtual() -> None:
    async def main() -> None:
        async with raw(Script(sessions=False), "inproc", read=2000) as client:
            await client.post("/mcp", json=call("slow", seconds=1000))
            with pytest.raises(httpx2.ReadTimeout):
                await client.post("/mcp", json=call("slow", seconds=3000))
            assert trio.current_time() - start == 3000

    clock = trio.testing.MockClock(autojump_threshold=0)
    start = clock.current_time()
    trio.run(main, clock=clock)


async def test_leaving_clients_are_noticed() -> None:
    script = Script(sessions=False)
    script.inject(faults.hang())
    arrived = anyio.Event()
    script.on_request = lambda received: arrived.set()
    with anyio.fail_after(10):
        async with HttpServer(script) as server, anyio.create_task_group() as tasks:
            client = httpx2.AsyncClient(headers=POST)
            tasks.start_soon(lambda: client.post(server.url, json=call()))
            await arrived.wait()
            assert server.open_connections == 1
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await client.aclose()
                while server.open_connections:
                    await anyio.lowlevel.checkpoint()


async def test_the_inproc_server_can_go_down() -> None:
    transport = ScriptTransport(Script(sessions=False))
    failed = anyio.Event()
    async with httpx2.AsyncClient(transport=transport, base_url="http://scripted") as client:
        transport.down = True
        with pytest.raises(httpx2.ConnectError):
            await client.post("/mcp", json=call())
        assert transport.refused == 1
        transport.down = False

        async def hung() -> None:
            with pytest.raises(httpx2.ReadError):
                await client.post("/mcp", json=call("slow", seconds=100))
            failed.set()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hung)
                while not transport.waiting:
                    await anyio.lowlevel.checkpoint()
                transport.drop()
    assert failed.is_set()


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_stdio(era: str, tmp_path: Any) -> None:
    counts, pid = tmp_path / "counts", tmp_path / "pid"
    arguments = [str(STDIO_SERVER), "--era", era, "--tools", "charge,slow", "--count-file", str(counts)]
    arguments += ["--pid-file", str(pid), "--die-on", "charge"]
    parameters = StdioServerParameters(command=sys.executable, args=arguments)
    with anyio.fail_after(20):
        async with Client(stdio_client(parameters)) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["charge", "slow"]
            await client.call_tool("slow", {"seconds": 0.01})
            with pytest.raises(MCPError):
                await client.call_tool("charge")
    assert counts.read_text() == "slow\ncharge\n"
    assert pid.read_text().isdecimal()
