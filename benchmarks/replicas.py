"""Replicas of the gateway that share a Redis: calls a second for one, two and three, and what a call costs the store.

`python -m benchmarks.replicas [--seconds 10]`. It needs redis-server. Load, replicas, Redis and the server behind share
this machine's cores, so the calls a second say how the work grows with the number of replicas, not what a replica on a
machine of its own can do.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcpconn.keys import IDEMPOTENCY_KEY
from tests.fleet.conftest import Balancer
from tests.fleet.processes import Fleet, fleet
from tests.redis_server import RedisServer

TOOL = "http__remember"
"""Of a server that keeps state for each session: each session has one owner, and other replicas forward to it."""
CLIENTS = 8
"""Clients that call at once, half of each era."""
WARM = 5
"""Calls of each client before anything is measured."""
COUNTED = 300
"""Calls of one client whose store operations are counted. The replicas' own, some ten a second, are subtracted."""
IDLE = 3.0
"""Seconds for which the replicas' own operations are counted."""


@asynccontextmanager
async def _client(made: Fleet, replicas: list[int], mode: Any) -> AsyncIterator[Client]:
    """A client whose requests go to these replicas in turn, without a balancer's process between."""
    urls = [f"http://127.0.0.1:{made.ports[number]}/mcp" for number in replicas]
    http = httpx2.AsyncClient(transport=Balancer(urls), timeout=httpx2.Timeout(30, read=300))
    async with http, Client(streamable_http_client(urls[0], http_client=http), mode=mode) as client:
        await client.list_tools()
        for number in range(WARM):
            await client.call_tool(TOOL, {"id": f"warm {number}"})
        yield client


async def _rate(made: Fleet, seconds: float, *, sticky: bool) -> float:
    """Calls a second of all clients together."""
    count = len(made.ports)
    done = 0
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(CLIENTS):
            chosen = [number % count] if sticky else [(number + step) % count for step in range(count)]
            clients.append(await stack.enter_async_context(_client(made, chosen, "auto" if number % 2 else "legacy")))
        began = time.monotonic()

        async def call(client: Client, name: int) -> None:
            nonlocal done
            for number in itertools.count():
                if time.monotonic() - began > seconds:
                    return
                result = await client.call_tool(TOOL, {"id": f"{name} {number}"})
                assert not result.is_error, result
                done += 1

        async with anyio.create_task_group() as calling:
            for name, client in enumerate(clients):
                calling.start_soon(call, client, name)
        elapsed = time.monotonic() - began
    return done / elapsed


def _operations(redis: RedisServer) -> int:
    """Requests that Redis has answered, without those inside scripts and those of this program."""
    said = redis.ask("INFO", "commandstats")
    names = ("evalsha", "eval", "wait")
    return sum(int(calls) for name, calls in re.findall(r"cmdstat_(\w+):calls=(\d+)", said) if name in names)


async def _store_operations(made: Fleet, redis: RedisServer, mode: str, *, key: bool) -> float:
    """Store operations a call, on an established session at its owner."""
    async with _client(made, [0], mode) as client:
        before = _operations(redis)
        await anyio.sleep(IDLE)
        idle = (_operations(redis) - before) / IDLE
        before, began = _operations(redis), time.monotonic()
        for number in range(COUNTED):
            meta: Any = {IDEMPOTENCY_KEY: f"{began} {number}"} if key else None
            result = await client.call_tool(TOOL, {"id": f"{began} {number}"}, meta=meta)
            assert not result.is_error, result
        elapsed = time.monotonic() - began
        return (_operations(redis) - before - idle * elapsed) / COUNTED


async def measure(seconds: float) -> None:
    """Measure, and print a table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        redis = RedisServer(folder / "redis").start()
        stack.callback(redis.kill)
        print("replicas  calls/s, each client at one replica  calls/s, each client at all in turn")
        for count in (1, 2, 3):
            place = folder / str(count)
            place.mkdir()
            async with fleet(place, count=count, store=f"{redis.url}?prefix=r{count}") as made:
                rates = [await _rate(made, seconds, sticky=sticky) for sticky in (True, False)]
                print(f"{count:8}  {rates[0]:35.0f}  {rates[1]:35.0f}", flush=True)
                if count > 1:
                    continue
                costs = {
                    f"{mode} client{', with a key' if key else ''}": await _store_operations(
                        made, redis, {"legacy": "legacy", "modern": "auto"}[mode], key=key
                    )
                    for mode in ("legacy", "modern")
                    for key in (False, True)
                }
        print("store operations a call, on an established session at its owner:")
        for name, cost in costs.items():
            print(f"  {cost:5.2f}  {name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each figure")
    sys.exit(anyio.run(measure, parser.parse_args().seconds))
