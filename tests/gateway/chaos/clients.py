"""A bare client of the chaos run: it calls, writes down what it was told, and looks at every byte that reaches it."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from mcpconn.gateway.outcomes import OUTCOME
from mcpconn.keys import IDEMPOTENCY_KEY
from tests.gateway.chaos.world import SERVERS

CANARY = re.compile(rb"canary-\d\d-[0-9a-f]{12}")
TAIL = 32
"""Bytes of one piece that are looked at again together with the next."""
LONGEST = 90.0
"""Seconds after which a client gives a call up; the gateway's own deadline is 60 s."""


@dataclass
class Said:
    """One call, by whatever name and key, and what its client was told at each attempt."""

    id: str
    client: str
    server: str
    tool: str
    keyed: bool
    told: list[str] = field(default_factory=list)
    """`answered`, `not_run`, `unknown`, `ran`, `broken` (no answer: the connection broke), or an error's text."""
    text: str = ""
    """Of the answer."""


class ChaosClient:
    """One user with a key, and one connection at a time."""

    def __init__(self, number: int, url: str, key: str, *, mode: Any, seed: int) -> None:
        self.name = f"client-{number:02}"
        self.canary = f"canary-{number:02}-{secrets.token_hex(6)}"
        self._url, self._key, self._mode = url, key, mode
        self._random = Random(f"{seed} {number}")
        self.calls: list[Said] = []
        self.foreign: Counter[bytes] = Counter()
        """Canaries of others that reached it."""
        self.received = 0
        """Bytes."""
        self.opened = 0
        """Connections that it has opened."""
        self.over = anyio.Event()

    async def run(self) -> None:
        """Call until `over`; then call each server once more on the connection that there is."""
        last = False
        while not last:
            try:
                async with self._connected() as client:
                    failures = 0
                    while failures < 2 and not last:
                        last = self.over.is_set()
                        servers = SERVERS if last else (self._random.choice(SERVERS),)
                        for server in servers:
                            said = await self._call(client, server)
                            failures = failures + 1 if said.told[-1] == "broken" else 0
                        await anyio.sleep(self._random.uniform(0, 1))
            except Exception:
                # A bare client's connection ends like this when the process behind it is killed.
                await anyio.sleep(0.2)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        headers = {"authorization": f"Bearer {self._key}"}
        timeout = httpx2.Timeout(30, read=300)
        async with httpx2.AsyncClient(transport=_Watched(self), headers=headers, timeout=timeout) as http:
            transport = streamable_http_client(self._url, http_client=http)
            with anyio.fail_after(LONGEST) as opening:
                async with Client(transport, mode=self._mode) as client:
                    opening.deadline = float("inf")
                    self.opened += 1
                    yield client

    async def _call(self, client: Client, server: str) -> Said:
        tool = self._random.choices(("charge", "look", "remember"), (6, 2, 2))[0]
        if server == "new" and tool == "remember":
            # A modern server keeps no session.
            tool = "charge"
        keyed = tool == "charge" and self._random.random() < 0.4
        said = Said(secrets.token_hex(8), self.name, server, tool, keyed)
        self.calls.append(said)
        for _ in range(4 if keyed else 1):
            await self._attempt(client, said)
            if said.told[-1] in ("answered", "ran"):
                break
        return said

    async def _attempt(self, client: Client, said: Said) -> None:
        arguments = {"id": said.id, "canary": self.canary, "seconds": self._random.choice((0, 0.05, 0.5))}
        meta: Any = {IDEMPOTENCY_KEY: said.id} if said.keyed else None
        # Until it is known better: what is never heard of again may have run.
        said.told.append("broken")
        try:
            with anyio.move_on_after(LONGEST):
                result = await client.call_tool(
                    f"{said.server}__{said.tool}", arguments, meta=meta, progress_callback=_progress
                )
                told = (result.meta or {}).get(OUTCOME)
                said.text = str(getattr(result.content[0], "text", "")) if result.content else ""
                said.told[-1] = str(told or f"error: {said.text}") if result.is_error else "answered"
        except MCPError as error:
            data = error.error.data
            told = data.get(OUTCOME) if isinstance(data, dict) else None
            if told is not None:
                said.told[-1] = str(told)
            elif error.error.code != -32000:
                said.told[-1] = f"error: {error.error.code} {error.error.message}"

    def look(self, data: bytes) -> None:
        """Look at bytes that came."""
        for found in CANARY.findall(data):
            if found != self.canary.encode():
                self.foreign[found] += 1


async def _progress(progress: float, total: float | None, message: str | None) -> None:
    """The message was looked at when it came."""


class _Watched(httpx2.AsyncBaseTransport):
    """Shows a client's user every byte of every answer."""

    def __init__(self, client: ChaosClient) -> None:
        self._client = client
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        for name, value in response.headers.raw:
            self._client.look(name + b": " + value)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_WatchedStream(response.stream, self._client),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _WatchedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, client: ChaosClient) -> None:
        self._inner, self._client = inner, client

    async def __aiter__(self) -> AsyncIterator[bytes]:
        tail = b""
        async for piece in self._inner:
            self._client.received += len(piece)
            self._client.look(tail + piece)
            tail = (tail + piece)[-TAIL:]
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
