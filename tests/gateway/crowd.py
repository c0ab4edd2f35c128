"""A crowd before the gateway, and a client that is served throughout: `python -m tests.gateway.crowd --clients 10000`.

Each of the crowd is a bare socket in a process of its own: it opens a session and an event stream, and then does
nothing (`--clients`), or it asks for a large answer and reads one byte a second of it (`--slow`). The gateway is
`mcpconn serve` in a third process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import psutil
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.serve import allow_files
from mcpconn.testing import HttpServer, Script, ScriptedTool
from tests.gateway.processes import over_http
from tests.support import text_of

AT_ONCE = 50
"""Clients of a process that open their sessions at the same time."""
LARGE = 8_000_000
"""Bytes of a large answer: more than the 4 MB that Linux takes of it into the buffer of a socket (`tcp_wmem`)."""
OVER = 50
"""Clients that come when there are as many as may be."""


def request(method: str, message: dict[str, Any] | None = None, *, session: str = "", key: str = "") -> bytes:
    """One HTTP request."""
    body = json.dumps({"jsonrpc": "2.0", **message}) if message is not None else ""
    head = f"{method} /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json, text/event-stream\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
    head += f"mcp-session-id: {session}\r\n" if session else ""
    head += f"authorization: Bearer {key}\r\n" if key else ""
    return f"{head}\r\n{body}".encode()


INITIALIZE = {
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
INITIALIZED = {"method": "notifications/initialized"}
CALL = {"id": 2, "method": "tools/call", "params": {"name": "a__large", "arguments": {}}}


def say(line: str) -> None:
    """Tell whoever started this command."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Refused(Exception):
    """The gateway answered with an error."""


class Bare:
    """A client that is one socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader, self._writer, self._key = reader, writer, key
        self.session = ""

    @classmethod
    async def connect(cls, port: int, key: str = "") -> Bare:
        made = socket.socket()
        # Small buffers: what a slow reader does not read must wait in the gateway, and not in the system or here.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=made, limit=16 * 1024), key)

    async def send(self, method: str, message: dict[str, Any] | None = None) -> None:
        """A request whose answer is not waited for."""
        self._writer.write(request(method, message, session=self.session, key=self._key))
        await self._writer.drain()

    async def ask(self, method: str, message: dict[str, Any] | None = None) -> str:
        """A request; returns its answer's head, and its body if it is no event stream."""
        await self.send(method, message)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        body = ""
        if method == "POST" and "chunked" in head:
            body = (await self._reader.readuntil(b"\r\n0\r\n\r\n")).decode()
        elif "content-length: " in head:
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            body = (await self._reader.readexactly(length)).decode()
        if not head.startswith("HTTP/1.1 20"):
            raise Refused(head + body)
        return head + body

    async def begin(self, *, listen: bool = True) -> None:
        """Open a session and, if asked, its event stream."""
        opened = await self.ask("POST", INITIALIZE)
        self.session = opened.partition("mcp-session-id: ")[2].partition("\r\n")[0]
        await self.ask("POST", INITIALIZED)
        if listen:
            await self.ask("GET")

    async def dawdle(self, seconds: float = 1.0) -> int:
        """Ask for a large answer and read a byte each `seconds`, until the gateway ends it. Returns the bytes read."""
        self._writer.write(request("POST", CALL, session=self.session, key=self._key))
        count = 0
        try:
            while await self._reader.read(1):
                count += 1
                await anyio.sleep(seconds)
        except OSError:
            pass
        return count

    def close(self) -> None:
        """Vanish without a word."""
        self._writer.transport.abort()


async def hold(port: int, clients: int, *, slow: bool, key: str, within: float) -> None:
    """One process of the crowd: prints what became of its clients, and holds them until stdin ends."""
    allow_files()
    told: Counter[str] = Counter()
    held: list[Bare] = []
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def come() -> None:
        async with limit:
            try:
                one = await Bare.connect(port, key)
                held.append(one)
                await one.begin(listen=not slow)
                told["held"] += 1
            except (Refused, OSError, asyncio.IncompleteReadError) as error:
                told[str(error).partition("\r\n")[0] or type(error).__name__] += 1

    async def leave() -> None:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        os._exit(0)

    async with anyio.create_task_group() as group:
        group.start_soon(leave)
        with anyio.move_on_after(within):
            async with anyio.create_task_group() as coming:
                for _ in range(clients):
                    coming.start_soon(come)
        if late := clients - told.total():
            told["did not come in time"] = late
        say(json.dumps(told))
        if slow:
            for one in held:
                group.start_soon(one.dawdle)


@dataclass
class Seen:
    """What the client saw that is served throughout."""

    calls: int = 0
    failed: list[str] = field(default_factory=list)
    longest: float = 0.0

    def __str__(self) -> str:
        failed = f"{len(self.failed)} failed {self.failed[:3]}"
        return f"the other client: {self.calls} calls, {failed}, longest {self.longest:.2f} s"

    async def probe(self, url: str, headers: dict[str, str]) -> None:
        """Call a tool twice a second, as a legacy and as a modern client in turn."""
        async with AsyncExitStack() as stack:
            clients = []
            modes: tuple[Any, ...] = ("legacy", "auto")
            for mode in modes:
                http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=60))
                transport = streamable_http_client(url, http_client=http)
                clients.append(await stack.enter_async_context(Client(transport, mode=mode)))
            while True:
                began = time.monotonic()
                try:
                    result = await clients[self.calls % 2].call_tool("a__add", {"a": self.calls, "b": 0})
                    assert text_of(result) == str(self.calls)
                except Exception as error:
                    self.failed.append(f"{type(error).__name__}: {error}")
                self.longest = max(self.longest, time.monotonic() - began)
                self.calls += 1
                await anyio.sleep(0.5)


@dataclass
class World:
    """A gateway's process, its crowd, and the client that is served throughout."""

    process: psutil.Process
    port: int
    seen: Seen
    key: str
    within: float = 3600.0
    """Seconds for all clients of a crowd to come."""

    def memory(self) -> int:
        """Bytes that the gateway has in memory."""
        return int(self.process.memory_info().rss)

    def worked(self) -> float:
        """Seconds that the gateway has used a processor."""
        times = self.process.cpu_times()
        return times.user + times.system

    def sockets(self) -> int:
        """Files that the gateway has open."""
        return self.process.num_fds()

    @asynccontextmanager
    async def crowd(self, clients: int, *, processes: int, slow: bool = False) -> AsyncIterator[Counter[str]]:
        """So many clients; returns what became of them, and lets them vanish at the end of the block."""
        counts: Counter[str] = Counter()
        async with AsyncExitStack() as stack:
            begun = []
            for number in range(processes):
                share = clients // processes + (number < clients % processes)
                command = [sys.executable, "-m", "tests.gateway.crowd", "--hold", str(share), "--port", str(self.port)]
                command += ["--within", str(self.within), *(["--as-slow"] if slow else [])]
                env = {**os.environ, "CROWD_KEY": self.key}
                process = await anyio.open_process(command, stderr=None, env=env)
                stack.push_async_callback(process.aclose)
                stack.callback(process.kill)
                begun.append(process)
            for process in begun:
                assert process.stdout is not None
                line = b""
                while not line.endswith(b"\n"):
                    line += await process.stdout.receive()
                counts.update(json.loads(line))
            yield counts


@asynccontextmanager
async def world(
    folder: Path, limits: dict[str, float] | None = None, *, with_keys: bool = False, within: float = 3600.0
) -> AsyncIterator[World]:
    """`mcpconn serve` before a scripted server, and a client in front that is served throughout.

    Args:
        folder: An empty folder.
        limits: `gateway.limits`.
        with_keys: The crowd has a key, and the other client another.
        within: Seconds for all clients of a crowd to come.
    """
    large = ScriptedTool("large", lambda arguments: "x" * LARGE)
    async with HttpServer(Script(tools=[*Script().tools.values(), large])) as server:
        section: dict[str, Any] = {"limits": limits or {}}
        keys = ["", ""]
        if with_keys:
            section["access"] = {"keys": "keys.json"}
            keys = [KeyFile(folder / "keys.json").add(name) for name in ("crowd", "other")]
        content = {"mcpServers": {"a": {"url": server.url}}, "gateway": section}
        async with over_http(folder, content) as (process, url), anyio.create_task_group() as group:
            seen = Seen()
            headers = {"authorization": f"Bearer {keys[1]}"} if with_keys else {}
            group.start_soon(seen.probe, url, headers)
            port = int(url.split(":")[2].partition("/")[0])
            yield World(psutil.Process(process.pid), port, seen, keys[0], within)
            group.cancel_scope.cancel()


async def refusals(port: int, clients: int, key: str = "") -> Counter[str]:
    """What clients are told that come when there are as many as may be."""
    told: Counter[str] = Counter()
    held = []
    for _ in range(clients):
        held.append(one := await Bare.connect(port, key))
        try:
            await one.begin()
            told["served"] += 1
        except Refused as error:
            head, _, body = str(error).partition("\r\n\r\n")
            retry = head.lower().partition("retry-after: ")[2].partition("\r\n")[0]
            why = json.loads(body)["error"]["message"] if body else head
            told[f"{head.splitlines()[0]}, Retry-After {retry or 'missing'}, {why}"] += 1
    for one in held:
        one.close()
    return told


async def idle_clients(
    folder: Path,
    clients: int,
    *,
    processes: int,
    by_sockets: bool,
    one_principal: bool,
    within: float,
    rest: float = 10,
    over: int = OVER,
) -> bool:
    """A crowd that does nothing. Prints what it cost; returns whether all was as it should be."""
    limits: dict[str, float] = {"sockets": clients + over // 2} if by_sockets else {"sessions": clients + over // 2}
    if one_principal:
        limits = {"sessions_per_principal": clients}
    async with world(folder, limits, with_keys=one_principal, within=within) as made:
        async with made.crowd(1, processes=1):
            before, files = made.memory(), made.sockets()
        began, worked = time.monotonic(), made.worked()
        async with made.crowd(clients, processes=processes) as counts:
            took, memory, worked = time.monotonic() - began, made.memory(), made.worked() - worked
            came = counts["held"]
            busy = made.process.cpu_percent()
            await anyio.sleep(rest)
            busy = made.process.cpu_percent()
            say(f"{clients} clients in {took:.0f} s: {dict(counts)}")
            say(f"processor: {1000 * worked / came:.1f} ms a client")
            say(f"memory: {(memory - before) / came / 1000:.0f} KB a client, {memory / 1e6:.0f} MB in all")
            say(f"processor while all are idle: {busy:.0f} % of one core")
            told: Counter[str] = Counter()
            told += await refusals(made.port, over, made.key)
            say(f"beyond the limit: {dict(told)}")
        with anyio.move_on_after(60):
            while made.sockets() > files + 5:  # noqa: ASYNC110 - another process has no event for it
                await anyio.sleep(0.2)
        say(f"files: {files} before, {made.sockets()} after all have vanished")
        after: Counter[str] = Counter()
        with anyio.move_on_after(60):
            # A stream whose socket is closed ends a moment later, and its session is in use until then.
            while after["served"] < over:
                after = await refusals(made.port, over, made.key)
        say(f"afterwards: {dict(after)}; memory {made.memory() / 1e6:.0f} MB")
        seen = made.seen
        say(str(seen))
        return (
            counts["held"] == clients and not seen.failed and after["served"] == over and told.total() > told["served"]
        )


async def slow_clients(folder: Path, clients: int, *, processes: int, seconds: float = 150) -> bool:
    """A crowd that reads a byte a second. Prints what it cost; returns whether all was as it should be."""
    async with world(folder) as made:
        async with made.crowd(1, processes=1):
            before, files = made.memory(), made.sockets()
        began, most, cut = time.monotonic(), 0, 0.0
        async with made.crowd(clients, processes=processes, slow=True) as counts:
            say(f"{clients} clients that read one byte a second of {LARGE} bytes: {dict(counts)}")
            start = time.monotonic()
            while time.monotonic() - start < seconds and not cut:
                most = max(most, made.memory())
                await anyio.sleep(0.5)
                # The session of each goes on, and with it a socket to the server.
                if time.monotonic() - start > 20 and made.sockets() <= files + clients + 5:
                    cut = time.monotonic() - start
            say(
                f"memory: {before / 1e6:.0f} MB before, {most / 1e6:.0f} MB at most, {made.memory() / 1e6:.0f} MB after"
            )
            say(
                f"all were cut after {cut:.0f} s"
                if cut
                else f"NOT CUT: {made.sockets() - files - clients} sockets are left"
            )
        seen = made.seen
        say(str(seen))
        say(f"in all {time.monotonic() - began:.0f} s")
        return bool(cut) and not seen.failed


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.gateway.crowd", description=__doc__)
    parser.add_argument("--clients", type=int, default=0, help="idle clients")
    parser.add_argument("--slow", type=int, default=0, help="clients that read one byte a second")
    parser.add_argument("--processes", type=int, default=2, help="processes of the crowd")
    parser.add_argument("--within", type=float, default=3600.0, help="seconds for all of them to come")
    parser.add_argument("--sockets", action="store_true", help="the limit that is reached is that of sockets")
    parser.add_argument("--one-principal", action="store_true", help="all have one key")
    parser.add_argument("--hold", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--as-slow", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold:
        key = os.environ.get("CROWD_KEY", "")
        anyio.run(lambda: hold(options.port, options.hold, slow=options.as_slow, key=key, within=options.within))
        return 0
    allow_files()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        if options.clients:
            (path := Path(folder, "idle")).mkdir()
            good &= anyio.run(
                lambda: idle_clients(
                    path,
                    options.clients,
                    processes=options.processes,
                    by_sockets=options.sockets,
                    one_principal=options.one_principal,
                    within=options.within,
                )
            )
        if options.slow:
            (path := Path(folder, "slow")).mkdir()
            good &= anyio.run(lambda: slow_clients(path, options.slow, processes=options.processes))
    say("as it should be" if good else "NOT as it should be")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
