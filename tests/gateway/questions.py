"""A server whose tools ask their client something before they answer, in either era; and clients that answer."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.gateway.conftest import served

Context = ServerRequestContext[Any, Any]

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
QUESTIONS: dict[str, Any] = {
    "form": types.ElicitRequest(params=types.ElicitRequestFormParams(message="Colour?", requested_schema=SCHEMA)),
    "url": types.ElicitRequest(
        params=types.ElicitRequestURLParams(message="Log in", url="https://login.test/x", elicitation_id="e1")
    ),
    "sample": types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(
            messages=[types.SamplingMessage(role="user", content=types.TextContent(type="text", text="Hello"))],
            max_tokens=10,
        )
    ),
    "roots": types.ListRootsRequest(),
}
RESULTS: dict[str, Any] = {
    "form": types.ElicitResult,
    "url": types.ElicitResult,
    "sample": types.CreateMessageResult,
    "roots": types.ListRootsResult,
}


def said(kind: str, answer: Any) -> str:
    """What a tool makes of an answer."""
    if kind == "form":
        return f"{answer.action} {(answer.content or {}).get('colour')}"
    if kind == "url":
        return str(answer.action)
    if kind == "sample":
        return str(answer.content.text)
    return " ".join(str(root.uri) for root in answer.roots)


class Asking:
    """Counts what ran: `begun` when a tool is called, `ended` when it has its answers."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.cancelled = anyio.Event()

    def server(self) -> Server[Any]:
        return Server("asking", on_list_tools=self._list, on_call_tool=self._call)

    async def _list(self, ctx: Context, params: Any) -> types.ListToolsResult:
        names = [*QUESTIONS, "twice"]
        return types.ListToolsResult(tools=[types.Tool(name=name, input_schema={"type": "object"}) for name in names])

    async def _call(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        kind = params.name
        kinds = ["form", "form"] if kind == "twice" else [kind]
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return self._modern(kind, kinds, params)
        self.begun[kind] += 1
        try:
            texts = []
            for each in kinds:
                answer = await ctx.session.send_request(QUESTIONS[each], RESULTS[each], metadata=_related(ctx))
                texts.append(said(each, answer))
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        self.ended[kind] += 1
        return _text(", ".join(texts))

    def _modern(self, kind: str, kinds: list[str], params: types.CallToolRequestParams) -> Any:
        """Each round is a request of its own; what was answered so far is in the state."""
        so_far = [text for text in (params.request_state or "").split(", ") if text]
        if params.input_responses is None:
            self.begun[kind] += 1
        else:
            answer = params.input_responses["q"]
            each = kinds[len(so_far)]
            so_far.append(said(each, RESULTS[each].model_validate(answer, from_attributes=True)))
        if len(so_far) == len(kinds):
            self.ended[kind] += 1
            return _text(", ".join(so_far))
        question = QUESTIONS[kinds[len(so_far)]]
        return types.InputRequiredResult(input_requests={"q": question}, request_state=", ".join(so_far))


def _related(ctx: Context) -> Any:
    return ServerMessageMetadata(related_request_id=ctx.request_id)


def _text(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


class _Serves(Protocol):
    def server(self) -> Server[Any]: ...


def modern_only(app: ASGIApp) -> ASGIApp:
    """A server that refuses clients of the older era: the SDK's serves both."""

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        modern = MODERN_PROTOCOL_VERSIONS
        if scope["type"] != "http" or Request(scope).headers.get("mcp-protocol-version") in modern:
            await app(scope, receive, send)
            return
        request = Request(scope, receive)
        body = await request.body()
        error = {"code": -32022, "message": "Unsupported protocol version", "data": {"supported": ["2026-07-28"]}}
        named = json.loads(body).get("id") if body else None
        await JSONResponse({"jsonrpc": "2.0", "id": named, "error": error}, 400)(scope, receive, send)

    return refusing


@asynccontextmanager
async def serving(asking: _Serves, server_mode: str = "both") -> AsyncIterator[str]:
    """The URL of the server. `auto` has it speak the modern era alone, anything else both."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = asking.server()
    app: ASGIApp = server.streamable_http_app()
    app = modern_only(app) if server_mode == "auto" else app
    async with server.session_manager.run(), served(app, listening):
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"


def answers(name: str) -> dict[str, Any]:
    """Callbacks of a client that answers with its own name."""

    async def elicit(ctx: Any, params: Any) -> types.ElicitResult:
        content: Any = {"colour": name} if params.mode == "form" else None
        return types.ElicitResult(action="accept", content=content)

    async def sample(ctx: Any, params: Any) -> types.CreateMessageResult:
        text = types.TextContent(type="text", text=f"said {name}")
        return types.CreateMessageResult(role="assistant", content=text, model="m")

    async def roots(ctx: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root.model_validate({"uri": f"file:///{name}"})])

    return {"elicitation_callback": elicit, "sampling_callback": sample, "list_roots_callback": roots}
