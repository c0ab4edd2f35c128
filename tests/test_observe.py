"""What an operator sees: log lines, metrics, spans, status. And what nobody sees: secrets."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import pytest
from mcp import MCPError
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mcpconn import CallFailed, Connection, ConnectionFailed, Manager, OutcomeUnknown, Policy
from mcpconn.core import Backoff
from mcpconn.testing import HttpServer, Script
from mcpconn.testing.scripted import faults
from tests.support import SAFETY, quiet, served
from tests.tracing import spans

pytestmark = pytest.mark.anyio

TOKEN = "sk-live-51H8xQz7pLm3nRtY9wVb2KdE"
PASSWORD = "correct-horse-battery-42"


def events(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """The names of the events on the library's log, from a level on."""
    records = [record for record in caplog.records if record.name == "mcpconn" and record.levelno >= level]
    return [record.getMessage().split()[0] for record in records]


async def test_success_logs_nothing_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Script()) as (connection, _):
        caplog.clear()
        caplog.set_level(logging.INFO, "mcpconn")
        await connection.call_tool("add", {"a": 1, "b": 2})
        assert events(caplog) == []
        caplog.set_level(logging.DEBUG, "mcpconn")
        await connection.call_tool("add", {"a": 1, "b": 2})
        assert events(caplog, logging.DEBUG) == ["call.finished"]


async def test_a_recovery_is_a_warning_a_replay_and_an_info_with_how_long_it_took(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script()
    async with served(script) as (connection, _):
        caplog.clear()
        caplog.set_level(logging.INFO, "mcpconn")
        script.forget_sessions()
        await connection.call_tool("charge", {"amount": 1})
        lines = {record.getMessage().split()[0]: record for record in caplog.records if record.name == "mcpconn"}
        assert lines["connection.reconnecting"].levelno == logging.WARNING
        assert lines["connection.recovered"].levelno == logging.INFO
        assert "elapsed=" in lines["connection.recovered"].getMessage()
        replayed = lines["call.replayed"].getMessage()
        for field in ("connection=srv", "epoch=1", "attempt=1", "kind=session_expired", "delivery=rejected"):
            assert field in replayed
        fields = vars(lines["connection.recovered"])["mcpconn"]
        assert {"connection", "epoch", "from", "to", "on", "elapsed"} <= fields.keys()


async def test_a_failed_connection_is_an_error_that_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mcpconn")
    with anyio.fail_after(SAFETY), pytest.raises(ConnectionFailed):
        async with Connection({"command": "/no/such/program"}, name="gone"):
            pass
    (failed,) = [record for record in caplog.records if record.levelno == logging.ERROR and record.name == "mcpconn"]
    assert "connection.failed" in failed.getMessage()
    assert "fix the server's configuration" in failed.getMessage()


async def test_a_server_that_stays_down_is_told_less_and_less_often(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mcpconn")
    policy = Policy(patience=30, min_attempts=20, backoff=Backoff(initial=0.001, factor=1, maximum=0.001))
    with anyio.fail_after(SAFETY):
        async with Manager({"down": {"url": "http://127.0.0.1:9/mcp"}}, policy=policy) as manager:
            while manager["down"]._lifecycle.schedule.attempts < 9:
                await manager["down"]._lifecycle.changed()
    lines = [each for each in caplog.records if each.getMessage().startswith("connection.connecting")]
    told = [vars(each)["mcpconn"]["attempt"] for each in lines if each.levelno == logging.WARNING]
    assert told[:4] == [1, 2, 4, 8]
    assert len(lines) > len(told)
    # It was never connected, so it does not reconnect.
    assert not [each for each in caplog.records if "reconnecting" in each.getMessage()]


async def test_the_wait_that_is_told_is_the_one_that_waiting_calls_have(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "mcpconn")
    policy = Policy(backoff=Backoff(initial=50, factor=1, maximum=50), waiting_ceiling=0.01)
    with anyio.fail_after(SAFETY):
        async with Manager({"down": {"url": "http://127.0.0.1:9/mcp"}}, policy=policy) as manager:
            with pytest.raises(CallFailed):
                await manager.call_tool("down", "add", timeout=1)
    (first, *_) = [each for each in caplog.records if each.getMessage().startswith("connection.connecting")]
    assert vars(first)["mcpconn"]["wait"] < 1


async def test_a_failed_call_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    script = Script()
    async with served(script) as (connection, _):
        caplog.clear()
        caplog.set_level(logging.INFO, "mcpconn")
        script.inject(faults.drop_after())
        with pytest.raises(OutcomeUnknown):
            await connection.call_tool("charge", {"amount": 1})
        assert events(caplog, logging.WARNING) == ["call.failed"]


async def test_no_secret_is_shown_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    """Tokens in the URL, the headers and the environment, echoed by a server that fails in every way."""
    caplog.set_level(logging.DEBUG, "mcpconn")
    script = Script()
    shown: list[str] = []
    async with HttpServer(script) as server:
        url = server.url.replace("http://", f"http://user:{PASSWORD}@") + f"?api_key={TOKEN}"
        servers = {
            "http": {"url": url, "headers": {"Authorization": f"Bearer {TOKEN}", "X-Key": PASSWORD}},
            "stdio": {"command": "/no/such/program", "env": {"API_KEY": TOKEN}, "args": ["--password", PASSWORD]},
        }
        with anyio.fail_after(SAFETY):
            async with Manager(servers) as manager:
                await manager.wait_ready()
                shown += [repr(manager), json.dumps(manager.status())]
                for connection in manager.values():
                    shown += [repr(connection), repr(connection.config), str(connection.last_failure)]
                bodies = [f"denied for {TOKEN}", json.dumps({"error": {"code": -32603, "message": f"bad {PASSWORD}"}})]
                for code in (400, 401, 403, 404, 500):
                    for body in bodies:
                        kind = "application/json" if body.startswith("{") else "text/plain"
                        script.inject(faults.status(code, body=body.encode(), content_type=kind))
                        try:
                            await manager.call_tool("http", "charge", {"amount": 1}, timeout=5)
                        except CallFailed as error:
                            shown += [str(error), repr(error), repr(error.failure)]
                        except MCPError:
                            # The application's own error arrives untouched: what it says is between the two.
                            continue
                        await quiet(manager["http"])
                shown.append(json.dumps(manager.status()))
    shown += [record.getMessage() for record in caplog.records if record.name == "mcpconn"]
    assert len(shown) > 20
    for text in shown:
        assert TOKEN not in text
        assert PASSWORD not in text


async def test_status_is_plain_data(caplog: pytest.LogCaptureFixture) -> None:
    script = Script()
    async with served(script) as (connection, _):
        script.forget_sessions()
        await connection.call_tool("add", {"a": 1, "b": 1})
        status = json.loads(json.dumps(connection.status()))
        assert status["state"] == "ready"
        assert (status["epoch"], status["era"]) == (2, "legacy")
        assert status["last_failure"]["kind"] == "session_expired"
        assert [change["event"] for change in status["transitions"]] == [
            "connect",
            "established",
            "lost",
            "established",
        ]
        assert status["counts"]["replayed"] == 1
        assert (status["waiting"], status["retry_in"]) == (0, None)
        assert status["in_flight"] <= 1  # the catalogue may be listing
        assert status["server"]["name"]


@pytest.fixture(scope="module")
def readers() -> tuple[InMemoryMetricReader, InMemorySpanExporter]:
    """OpenTelemetry's SDK, for the rest of the process: its API lets providers be set once."""
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    return reader, spans()


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    """The data points of each instrument."""
    found: dict[str, list[Any]] = {}
    data: Any = reader.get_metrics_data()
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            if scope.scope.name == "mcpconn":
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
    return found


async def test_metrics_and_spans_tell_of_a_call(
    readers: tuple[InMemoryMetricReader, InMemorySpanExporter],
) -> None:
    reader, exporter = readers
    script = Script()
    # A name of its own: connections of other tests are watched until nobody holds them any more.
    async with served(script, name="measured") as (connection, _):
        exporter.clear()
        script.forget_sessions()
        await connection.call_tool("charge", {"amount": 1})
        found = points(reader)
        (state,) = [
            point for point in found["mcpconn.connection.state"] if point.attributes["connection"] == "measured"
        ]
        assert state.attributes["state"] == "ready"
        assert any(point.attributes["event"] == "lost" for point in found["mcpconn.connection.transitions"])
        assert any(point.attributes["kind"] == "session_expired" for point in found["mcpconn.connection.recovery"])
        assert any(point.attributes["kind"] == "session_expired" for point in found["mcpconn.call.replays"])
        assert any(point.attributes["outcome"] == "established" for point in found["mcpconn.connection.dials"])
        assert any(point.attributes["outcome"] == "answered" for point in found["mcpconn.calls"])
        assert found["mcpconn.call.duration"]
        assert found["mcpconn.call.blocked"]
        assert {"mcpconn.calls.in_flight", "mcpconn.calls.waiting"} <= found.keys()
        spans = {span.name: span for span in exporter.get_finished_spans()}
        whole = spans["mcpconn tools/call charge"]
        assert [event.name for event in whole.events] == ["mcpconn.replay", "mcpconn.waited"]
        assert whole.attributes is not None
        assert whole.attributes["mcpconn.outcome"] == "answered"
        assert whole.attributes["mcpconn.attempts"] == 2
        inner = [span for span in exporter.get_finished_spans() if span.name == "MCP send tools/call charge"]
        assert len(inner) == 2
        for span in inner:
            assert span.parent is not None
            assert whole.context is not None
            assert span.parent.span_id == whole.context.span_id
