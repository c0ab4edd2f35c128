"""`/metrics` of a gateway: a series for each server, however many clients come and go, and counts that only grow."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx2
import pytest
from mcp import Client
from prometheus_client.parser import text_string_to_metric_families

from mcpconn.gateway import Settings
from mcpconn.gateway.metrics import BUCKETS, Requests
from mcpconn.testing import HttpServer, Script
from tests.gateway.conftest import Gateway, gateway

pytestmark = pytest.mark.anyio

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(made: Gateway) -> Samples:
    """Every sample, by its name and its labels."""
    async with httpx2.AsyncClient() as http:
        text = (await http.get(made.url.removesuffix("/mcp") + "/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


ANSWERED = ("mcpconn_calls_total", (("connection", "a"), ("outcome", "answered")))


async def test_counts_of_clients_that_left_stay_their_servers():
    async with gateway(Script()) as made:
        async with Client(made.url, mode="legacy") as client:
            await made.app.manager["a"].catalog.refresh()
            await client.session.call_tool("a__add", {"a": 1, "b": 2})
            before = (await scrape(made))[ANSWERED]
            await client.session.call_tool("a__add", {"a": 1, "b": 2})
            samples = await scrape(made)
            assert samples[ANSWERED] == before + 1
            assert of(samples, "mcpconn_connections", connection="a", state="ready") == 2
            assert {dict(labels).get("connection", "a") for _, labels in samples} == {"a"}
        while any("#" in name for name in made.app.manager):
            await anyio.lowlevel.checkpoint()
        samples = await scrape(made)
        assert samples[ANSWERED] == before + 1
        assert of(samples, "mcpconn_connections", connection="a", state="ready") == 1
        assert of(samples, "mcpconn_connection_state", connection="a", state="ready") == 1
        assert made.app._metrics._held == {made.app.manager["a"]}


async def test_a_changed_server_keeps_its_counts(tmp_path: Path):
    path = tmp_path / "mcp.json"
    async with HttpServer(Script()) as server, gateway(more={"a": {"url": server.url}}) as made:
        async with Client(made.url, mode="legacy") as client:
            await client.session.call_tool("a__add", {"a": 1, "b": 2})
            before = (await scrape(made))[ANSWERED]
            path.write_text(json.dumps({"mcpServers": {"a": {"url": server.url, "headers": {"x": "1"}}}}))
            made.app.reload(path)
            await client.session.call_tool("a__add", {"a": 1, "b": 2})
        samples = await scrape(made)
        assert samples[ANSWERED] > before
        # The server's own connection and the client's, before and after the change.
        assert of(samples, "mcpconn_transitions_total", connection="a", event="connect") == 4


async def test_requests_and_sessions_of_the_gateway_are_told():
    async with gateway(Script()) as made:
        async with Client(made.url, mode="legacy") as client:
            await client.session.call_tool("a__add", {"a": 1, "b": 2})
            samples = await scrape(made)
            assert of(samples, "mcpconn_gateway_sessions") == 1
            assert of(samples, "mcpconn_gateway_requests_total", method="POST", status="200") == 3
            assert of(samples, "mcpconn_gateway_request_seconds_count") == 4
            assert of(samples, "mcpconn_gateway_draining") == 0
        async with httpx2.AsyncClient() as http:
            await http.request("SPACEJUMP", made.url)
        samples = await scrape(made)
        assert of(samples, "mcpconn_gateway_requests_total", method="other", status="405") == 1
        assert of(samples, "mcpconn_gateway_requests_in_flight") == 0
        assert of(samples, "mcpconn_gateway_sessions") == 0
        made.app.drain()
        assert of(await scrape(made), "mcpconn_gateway_draining") == 1


async def test_lost_audit_lines_are_counted():
    async with gateway(Script(), settings=Settings(audit=Path("/dev/full"))) as made, Client(made.url) as client:
        await client.session.call_tool("a__add", {"a": 1, "b": 2})
        assert of(await scrape(made), "mcpconn_gateway_audit_failures_total") == 2


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.005, 0), (0.006, 1), (60.0, 12), (61.0, 13)])
async def test_a_request_is_in_its_times_bucket(seconds: float, bucket: int):
    now = 0.0
    told = Requests(lambda: now)

    async def send(message: object) -> None: ...

    with told.counted("POST", send) as counting:
        await counting({"type": "http.response.start", "status": 200, "headers": []})
        now += seconds
        await counting({"type": "http.response.body", "body": b""})
    assert [index for index, count in enumerate(told.buckets) if count] == [bucket]
    assert len(told.buckets) == len(BUCKETS) + 1
    assert told.seconds == pytest.approx(seconds)
