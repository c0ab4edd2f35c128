"""The fault proxy does to a connection what it is told to, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest

from mcpconn.testing import FaultProxy, HttpServer, Script
from tests.support import SAFETY

pytestmark = pytest.mark.anyio

BODY = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}


@asynccontextmanager
async def behind() -> AsyncIterator[tuple[FaultProxy, httpx2.AsyncClient, HttpServer]]:
    with anyio.fail_after(SAFETY):
        async with (
            HttpServer(Script()) as server,
            FaultProxy(server) as proxy,
            httpx2.AsyncClient(timeout=httpx2.Timeout(5, read=0.5)) as client,
        ):
            yield proxy, client, server


async def test_without_orders_it_only_carries() -> None:
    async with behind() as (proxy, client, _):
        for _ in range(3):
            response = await client.post(proxy.url, json=BODY)
            assert response.json()["result"]["serverInfo"]["name"] == "scripted"
        assert (proxy.accepted, proxy.open_connections) == (1, 1)


async def test_latency_is_paid_in_both_directions() -> None:
    async with behind() as (proxy, client, _):
        proxy.latency = 0.05
        began = anyio.current_time()
        await client.post(proxy.url, json=BODY)
        assert anyio.current_time() - began >= 0.1


async def test_bandwidth_is_bounded() -> None:
    async with behind() as (proxy, client, _):
        size = len((await client.post(proxy.url, json=BODY)).content)
        proxy.bandwidth = size * 10
        began = anyio.current_time()
        await client.post(proxy.url, json=BODY)
        assert anyio.current_time() - began >= 0.1


async def test_a_truncated_answer_ends_at_its_byte() -> None:
    async with behind() as (proxy, client, _):
        await client.post(proxy.url, json=BODY)
        # More than the headers, and less than the answer.
        proxy.truncate = 250
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post(proxy.url, json=BODY)
        proxy.truncate = 0
        with pytest.raises(httpx2.RemoteProtocolError, match="without sending"):
            await client.post(proxy.url, json=BODY)
        proxy.truncate = None
        assert (await client.post(proxy.url, json=BODY)).is_success


async def test_a_reset_reaches_both_sides() -> None:
    async with behind() as (proxy, client, server):
        assert (await client.post(proxy.url, json=BODY)).is_success
        assert server.open_connections == 1
        proxy.reset()
        while server.open_connections:
            await anyio.lowlevel.checkpoint()
        assert (await client.post(proxy.url, json=BODY)).is_success
        assert proxy.accepted == 2


async def test_a_half_open_connection_is_silent_and_a_new_one_is_not() -> None:
    async with behind() as (proxy, client, server):
        await client.post(proxy.url, json=BODY)
        proxy.half_open()
        with pytest.raises(httpx2.ReadTimeout):
            await client.post(proxy.url, json=BODY)
        assert server.open_connections == 1
        assert (await client.post(proxy.url, json=BODY)).is_success


@pytest.mark.parametrize("kept", [False, True])
async def test_a_servers_end_can_be_hidden(kept: bool) -> None:
    async with behind() as (proxy, _, server):
        proxy.slow_close = 60 if kept else 0
        async with await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
            await stream.send(b"DELETE /mcp HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = await stream.receive()
            while not answer.endswith(b"}}"):
                answer += await stream.receive()
            ended = False
            with anyio.move_on_after(0.1 if kept else SAFETY):
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
                ended = True
            assert ended is not kept
            assert server.open_connections == 0


async def test_new_connections_can_be_refused() -> None:
    async with behind() as (proxy, client, server):
        proxy.refusing = True
        with pytest.raises((httpx2.ReadError, httpx2.ConnectError, httpx2.RemoteProtocolError)):
            await client.post(proxy.url, json=BODY)
        assert server.accepted == 0
        proxy.refusing = False
        assert (await client.post(proxy.url, json=BODY)).is_success


async def test_a_server_that_is_down_is_down_through_the_proxy_as_well() -> None:
    async with behind() as (proxy, client, server):
        await server.stop()
        with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
            await client.post(proxy.url, json=BODY)
        await server.start()
        assert (await client.post(proxy.url, json=BODY)).is_success
