"""What a bare client of each gateway is told when something behind it, or the gateway itself, dies."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.to_thread
from mcp import Client
from mcp.client.sse import sse_client

from benchmarks.gateways.catalog import Gateway
from benchmarks.gateways.running import Running, before_server
from benchmarks.gateways.upstream import Upstream

PATIENCE = 20.0
"""Seconds that a call may take. Longer is told as no answer."""
TRIES = 5
PAUSE = 1.0
"""After an error, a client tries so often, with so many seconds between; then the gateway counts as dead to it."""
AWAY = 3.0
WHOLE = 180.0
"""Seconds for one row of one gateway, the gateway's starts included."""
COUNTED = 20
LISTS = 60.0
"""Seconds that a gateway may take to list the tools."""
TOOLS = ("add", "count", "charge")
OUTCOME = "mcpconn/outcome"


class Caller:
    """A bare client of a gateway, which finds tools by the end of their names."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._names: dict[str, str] = {}

    async def learn(self) -> None:
        """List the tools. A gateway may listen before it knows them.

        Raises:
            RuntimeError: it does not list them in time.
        """
        deadline = time.monotonic() + LISTS
        while len(self._names) < len(TOOLS):
            for tool in (await self._client.list_tools()).tools:
                self._names |= {own: tool.name for own in TOOLS if tool.name.endswith(own)}
            if time.monotonic() > deadline:
                raise RuntimeError("it does not list the server's tools")
            await anyio.sleep(0.1)

    async def call(self, tool: str, **arguments: Any) -> str:
        """What came of a call, in words: `= ANSWER`, or what kind of failure the client was told."""
        try:
            with anyio.fail_after(PATIENCE):
                result = await self._client.session.call_tool(self._names[tool], arguments)
        except TimeoutError:
            return "no answer"
        except Exception as error:
            return f"error: {str(error) or type(error).__name__}"[:160]
        text = "".join(getattr(block, "text", "") for block in result.content)
        if result.is_error:
            outcome = (result.meta or {}).get(OUTCOME)
            return f"{outcome} (for programs, too)" if outcome else f"error: {text}"[:160]
        return f"= {text}"

    async def after(self, tool: str = "add", **arguments: Any) -> str:
        """What comes of calling, and calling again after errors."""
        first = await self.call(tool, **arguments or {"a": 1, "b": 2})
        if first.startswith("="):
            return "answers"
        last = first
        for attempt in range(TRIES):
            await anyio.sleep(PAUSE)
            last = await self.call(tool, **arguments or {"a": 1, "b": 2})
            if last.startswith("="):
                return f"{_short(first)}; call {attempt + 2} is answered"
        return f"dead ({last.removeprefix('error: ')[:60]})"


def _short(told: str) -> str:
    return "error" if told.startswith("error") else told


async def caller(stack: AsyncExitStack, url: str, mode: Any = "legacy", *, sse: bool = False) -> Caller:
    """A client that is open and knows the tools."""
    deadline = time.monotonic() + LISTS
    while True:
        # Over SSE there is no modern era, and the SDK's client does not find that out.
        client = Client(sse_client(url), mode="legacy") if sse else Client(url, mode=mode)
        try:
            made = Caller(await stack.enter_async_context(client))
            break
        except Exception:
            # mcp-hub answers 500 until it has connected to its servers.
            if time.monotonic() > deadline:
                raise
            await anyio.sleep(0.2)
    await made.learn()
    return made


async def forgotten(running: Running, server: Upstream) -> str:
    """The server has forgotten its sessions."""
    async with AsyncExitStack() as stack:
        client = await caller(stack, running.url, sse=running.gateway.sse)
        await client.call("add", a=1, b=2)
        server.ask("forget")
        return await client.after()


async def away(running: Running, server: Upstream) -> str:
    """The server is away for 3 s when a call comes."""
    async with AsyncExitStack() as stack:
        client = await caller(stack, running.url, sse=running.gateway.sse)
        await client.call("add", a=1, b=2)
        server.kill()
        began = time.monotonic()

        async def come_back() -> None:
            await anyio.sleep(AWAY)
            await anyio.to_thread.run_sync(server.start)

        async with anyio.create_task_group() as group:
            group.start_soon(come_back)
            first = await client.call("add", a=1, b=2)
            took = time.monotonic() - began
        if first.startswith("="):
            return "answers" if took >= AWAY else f"answers after {took:.1f} s, before the server is back"
        later = await client.after()
        return f"{_short(first)}; later {later}"


async def killed(running: Running, server: Upstream) -> str:
    """The server dies after the tool ran and before it answered."""
    async with AsyncExitStack() as stack:
        client = await caller(stack, running.url, sse=running.gateway.sse)
        await client.call("charge")
        before = server.runs()
        server.ask("arm")

        async def come_back() -> None:
            await anyio.to_thread.run_sync(server.wait)
            server.kill()
            await anyio.to_thread.run_sync(server.start)

        async with anyio.create_task_group() as group:
            group.start_soon(come_back)
            told = await client.call("charge")
        ran = server.runs() - before
        return f"{_short(told)}; ran {ran} x; then {await client.after()}"


async def restarted(running: Running, server: Upstream, mode: str = "legacy") -> str:
    """The gateway is killed by SIGKILL and started again."""
    async with AsyncExitStack() as stack:
        client = await caller(stack, running.url, mode, sse=running.gateway.sse)
        await client.call("add", a=1, b=2)
        running.kill()
        await anyio.to_thread.run_sync(running.start)
        return await client.after()


async def restarted_modern(running: Running, server: Upstream) -> str:
    """The same with a client that speaks the newest protocol the gateway does."""
    return await restarted(running, server, "auto")


async def state(running: Running, server: Upstream) -> str:
    """Whether one client sees what another did, and its own."""
    async with AsyncExitStack() as stack:
        one = await caller(stack, running.url, sse=running.gateway.sse)
        other = await caller(stack, running.url, sse=running.gateway.sse)
        seen = [await one.call("count"), await one.call("count"), await other.call("count"), await one.call("count")]
    said: dict[tuple[str, ...], str] = {
        ("= 1", "= 2", "= 1", "= 3"): "no; A keeps its own",
        ("= 1", "= 2", "= 3", "= 4"): "yes",
        ("= 1", "= 1", "= 1", "= 1"): "no; A's own is lost with each call",
    }
    return said.get(tuple(seen), ", ".join(seen))


async def requests(running: Running, server: Upstream) -> str:
    """Requests that the server receives for one call."""
    counts = []
    async with AsyncExitStack() as stack:
        for mode in ("legacy", "auto"):
            client = await caller(stack, running.url, mode, sse=running.gateway.sse)
            for _ in range(3):
                await client.call("add", a=1, b=2)
            server.ask("requests")
            for _ in range(COUNTED):
                await client.call("add", a=1, b=2)
            counts.append(len(server.ask("requests")) / COUNTED)
    return " / ".join(f"{count:g}" for count in counts)


PROMISES: dict[str, Callable[[Running, Upstream], Awaitable[str]]] = {
    "session forgotten": forgotten,
    "server away 3 s": away,
    "killed after the tool ran": killed,
    "gateway killed and restarted, legacy client": restarted,
    "the same, modern client": restarted_modern,
    "B sees A's state": state,
    "upstream requests a call, legacy / modern client": requests,
}


async def try_all(gateway: Gateway) -> dict[str, str]:
    """Every promise, each with processes of its own."""
    found = {}
    for name, measure in PROMISES.items():
        try:
            with before_server(gateway) as (running, server), anyio.fail_after(WHOLE):
                found[name] = await measure(running, server)
        except Exception as error:
            while getattr(error, "exceptions", None):
                error = error.exceptions[0]  # type: ignore[attr-defined]
            found[name] = f"not measured: {type(error).__name__}: {error}"[:200]
        print(f"{gateway.name}: {name}: {found[name]}", flush=True)
    return found
