"""A server that asks its client in the middle of a call: the SDK's own, on a real socket, with a journal."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    InputRequiredResult,
    SamplingMessage,
    TextContent,
)
from pydantic import BaseModel

from tests.gateway.conftest import served


class Answer(BaseModel):
    word: str


class Asking:
    """What the server saw."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ran: Counter[str] = Counter()
        """How often each tool began."""
        self.finished: Counter[str] = Counter()
        self.was_cancelled = anyio.Event()


@asynccontextmanager
async def asking() -> AsyncIterator[Asking]:
    """The server; connect to it with `"mode": "legacy"` to have it ask by requests of its own."""
    accepting = socket.create_server(("127.0.0.1", 0))
    seen = Asking(f"http://127.0.0.1:{accepting.getsockname()[1]}/mcp")
    server = MCPServer("asking")

    @asynccontextmanager
    async def noted(name: str) -> AsyncIterator[None]:
        seen.ran[name] += 1
        try:
            yield
        except anyio.get_cancelled_exc_class():
            seen.was_cancelled.set()
            raise
        seen.finished[name] += 1

    @server.tool()
    async def elicit(ctx: Context[Any, Any], times: int = 1) -> str:
        async with noted("elicit"):
            words = []
            for number in range(times):
                result = await ctx.elicit(f"word {number}?", Answer)
                words.append(result.data.word if result.action == "accept" else result.action)
            return " ".join(words)

    @server.tool()
    async def rounds(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        async with noted("rounds"):
            if ctx.input_responses is None:
                params = ElicitRequestFormParams(message="word?", requested_schema=Answer.model_json_schema())
                return InputRequiredResult(input_requests={"q": ElicitRequest(params=params)}, request_state="s")
            answer: Any = ctx.input_responses["q"]
            return str((answer.content or {}).get("word"))

    @server.tool()
    async def sample(ctx: Context[Any, Any], times: int = 1) -> str:
        async with noted("sample"):
            texts = []
            for number in range(times):
                message = SamplingMessage(role="user", content=TextContent(type="text", text=f"say {number}"))
                request = CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=10))
                result: Any = await ctx.session.send_request(
                    request, CreateMessageResult, metadata=ServerMessageMetadata(related_request_id=ctx.request_id)
                )
                texts.append(result.content.text)
            return " ".join(texts)

    app = server.streamable_http_app()
    async with server.session_manager.run(), served(app, accepting):
        yield seen
