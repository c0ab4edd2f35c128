"""A transport over HTTP whose server gives one reply, and the record of the request that met it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import anyio
import httpx2
from anyio.lowlevel import checkpoint
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse

from mcpconn import Evidence
from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.redact.redactor import Redactor
from mcpconn.testing import Reply, Script, ScriptTransport, Send
from mcpconn.wire.evidence_client import EvidenceClient
from mcpconn.wire.messages import Limits
from mcpconn.wire.sse import http_sse
from mcpconn.wire.streamable import streamable_http
from mcpconn.wire.streams import watched
from mcpconn.wire.watch import Watch
from tests.support import SAFETY

URL = "http://scripted/mcp"
LIMITS = Limits(10_000, 1000)
REQUEST = JSONRPCRequest(jsonrpc="2.0", id=7, method="tools/call", params={"name": "charge"})
DISCOVER = JSONRPCRequest(jsonrpc="2.0", id=7, method="server/discover", params={})


class Chunks(httpx2.AsyncByteStream):
    """A body in these pieces, then indefinitely the last of them if it is endless."""

    def __init__(self, *pieces: bytes, endless: bool = False) -> None:
        self._pieces = list(pieces)
        self._endless = endless
        self.given = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await checkpoint()
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces[0] if self._endless and len(self._pieces) == 1 else self._pieces.pop(0)
        self.given += len(piece)
        return piece

    async def aclose(self) -> None:
        pass


class Session:
    """Both streams of a session, as the SDK would hold them, and what the wire noted."""

    def __init__(self, handler: Callable[[httpx2.Request], Any], *, limits: Limits = LIMITS) -> None:
        self.signs: list[Evidence] = []
        self.watch = Watch(self.signs.append, Redactor(["sk-secret-value"]))
        self.attempt = Attempt("call", written=False)
        self.requests: list[httpx2.Request] = []
        self.limits = limits
        self.read: Any = None
        self.write: Any = None
        self._handler = handler

    async def _handle(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.requests.append(request)
        reply = self._handler(request)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Reply):
            script = Script()
            script.decide = lambda *_: reply  # type: ignore[method-assign]
            return await ScriptTransport(script).handle_async_request(request)
        response: httpx2.Response = reply if isinstance(reply, httpx2.Response) else await reply
        return response

    def client(self, *, sse: bool = False) -> EvidenceClient:
        transport = httpx2.MockTransport(self._handle)
        return EvidenceClient(redact=Redactor(["sk-secret-value"]), transport=transport, sse=sse)

    async def ask(self, message: JSONRPCMessage = REQUEST) -> JSONRPCResponse | JSONRPCError:
        """Send a request and wait for what the session is handed as its answer."""
        ATTEMPT.set(self.attempt)
        await self.write.send(SessionMessage(message))
        while True:
            item = await self.read.receive()
            assert isinstance(item, SessionMessage), item
            if isinstance(item.message, (JSONRPCResponse, JSONRPCError)):
                return item.message

    @property
    def evidence(self) -> Evidence:
        return self.attempt.evidence()


@asynccontextmanager
async def opened(
    handler: Callable[[httpx2.Request], Any], *, kind: Literal["http", "sse"] = "http", limits: Limits = LIMITS
) -> AsyncIterator[Session]:
    """A session whose server answers each HTTP request with what `handler` returns or raises."""
    session = Session(handler, limits=limits)
    streams: AbstractAsyncContextManager[Any]
    if kind == "http":
        streams = streamable_http(URL, session.client(), session.watch, limits)
    else:
        streams = http_sse(URL, session.client(sse=True), session.watch, limits)
    with anyio.fail_after(SAFETY):
        async with watched(streams, session.watch, final=False, shared=kind == "sse") as (read, write):
            session.read, session.write = read, write
            yield session


def replied(status: int, body: bytes = b"", content_type: str | None = None, **headers: str) -> Reply:
    """A whole reply."""
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    if content_type is not None:
        fields.append(("content-type", content_type))
    return Reply(status, tuple(fields), (Send(body),))


def streamed(*events: bytes, endless: bool = False) -> httpx2.Response:
    """An event stream of these events."""
    pieces = [event + b"\n\n" for event in events]
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Chunks(*pieces, endless=endless))


RESULT = b'{"jsonrpc": "2.0", "id": 7, "result": {"ok": true}}'
