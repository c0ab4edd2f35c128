"""A real server that says back whatever it was sent, in every form that real ones use: for tests with canaries."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import anyio
from anyio.abc import SocketAttribute, SocketStream

SESSION = "5e551011-c0de-4dea-b0a7-0123456789ab"
"""A session id: whoever has it can speak in the session."""


@dataclass
class Echo:
    """The server; `mode` says how it answers calls."""

    url: str = ""
    mode: str = "ok"
    heads: list[str] = field(default_factory=list)
    """The request line and headers of every request."""

    def words(self) -> str:
        """What it says: all that it received with the last request, as it is and in other forms, and parts of it."""
        values = [line.partition(" ")[2] for line in self.heads[-1].splitlines()]
        values += [part for value in values for part in value.replace("/", " ").replace("=", " ").split()]
        forms: list[str] = []
        for value in dict.fromkeys(values):
            dumped = json.dumps(value)
            forms += [value, quote(value, safe=""), base64.b64encode(value.encode()).decode(), html.escape(value)]
            forms += [
                dumped,
                json.dumps(dumped),
                repr(value.encode()),
                value[: len(value) - 1],
                value[len(value) // 3 :],
            ]
        return " | ".join(forms)

    def answer(self, message: dict[str, Any]) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        method, call = message.get("method"), message.get("id")
        if call is None:
            return 202, "", b""
        result: dict[str, Any] = {}
        if method == "initialize":
            server = {"name": "echo", "version": "1"}
            capabilities: dict[str, Any] = {"tools": {}}
            result = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": server}
        elif method == "tools/list":
            result = {"tools": [{"name": "say", "inputSchema": {"type": "object"}}]}
        elif method == "tools/call":
            return self._call(call)
        elif method != "ping":
            return 200, "application/json", _error(call, -32601, "Method not found")
        return 200, "application/json", json.dumps({"jsonrpc": "2.0", "id": call, "result": result}).encode()

    def _call(self, call: Any) -> tuple[int, str, bytes]:
        said = self.words()
        result: dict[str, Any]
        status, _, kind = self.mode.partition(" ")
        if self.mode == "ok":
            result = {"content": [{"type": "text", "text": "fine"}]}
            return 200, "application/json", json.dumps({"jsonrpc": "2.0", "id": call, "result": result}).encode()
        if self.mode == "tool error":
            result = {"content": [{"type": "text", "text": said}], "isError": True, "structuredContent": {"said": said}}
            return 200, "application/json", json.dumps({"jsonrpc": "2.0", "id": call, "result": result}).encode()
        if self.mode == "rpc error":
            return 200, "application/json", _error(call, -32000, said, data={said[:500]: said})
        if kind == "json":
            return int(status), "application/json", _error(None, -32600, said)
        return int(status), "text/plain", said.encode()


def _error(call: Any, code: int, message: str, **more: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": call, "error": {"code": code, "message": message, **more}}).encode()


@asynccontextmanager
async def echoing() -> AsyncIterator[Echo]:
    """A running `Echo`."""
    echo = Echo()

    async def serve(client: SocketStream) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with client:
                data = b""
                while True:
                    while b"\r\n\r\n" not in data:
                        data += await client.receive()
                    head, _, data = data.partition(b"\r\n\r\n")
                    text = head.decode("latin-1")
                    length = next(
                        (int(line[15:]) for line in text.lower().split("\r\n") if line[:15] == "content-length:"), 0
                    )
                    while len(data) < length:
                        data += await client.receive()
                    body, data = data[:length], data[length:]
                    echo.heads.append(text)
                    status, kind, answer = (
                        echo.answer(json.loads(body)) if text.startswith("POST") else (405, "text/plain", b"no")
                    )
                    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(answer)}", f"mcp-session-id: {SESSION}"]
                    lines += [f"content-type: {kind}"] if kind else []
                    await client.send("\r\n".join([*lines, "", ""]).encode() + answer)

    async with anyio.create_task_group() as group:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        port = listener.extra(SocketAttribute.local_port)
        echo.url = f"127.0.0.1:{port}"

        async def listen() -> None:
            async with listener:
                await listener.serve(serve, group)

        group.start_soon(listen)
        yield echo
        group.cancel_scope.cancel()
