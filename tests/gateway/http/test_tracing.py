"""A client's trace goes through the gateway to the server, in `_meta` and in headers."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from opentelemetry import trace

from mcpconn.testing import Script, ScriptTransport
from mcpconn.wire.trace import trace_headers
from tests.gateway.conftest import gateway
from tests.support import text_of
from tests.tracing import spans

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"], ids=["legacy server", "modern server"])
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Seeing(ScriptTransport):
    """Keeps head and body of the tool calls that reach the server."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.calls: list[tuple[httpx2.Headers, Any]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        if b'"tools/call"' in body:
            self.calls.append((request.headers, json.loads(body)))
        return await super().handle_async_request(request)


@MODES
@ERAS
async def test_spans_form_one_line_from_client_to_server(mode, era):
    exporter = spans()
    seen = Seeing(Script(era=era))
    more = {"a": {"url": "http://shop.test/mcp", "http_transport": seen}}
    async with gateway(more=more) as made, Client(made.url, mode=mode) as client:
        await client.call_tool("a__add", {"a": 1, "b": 1})
        exporter.clear()
        with trace.get_tracer("test").start_as_current_span("host") as host:
            assert text_of(await client.call_tool("a__add", {"a": 1, "b": 2})) == "3"
    found = {span.context.span_id: span for span in exporter.get_finished_spans() if span.context is not None}
    headers, body = seen.calls[-1]
    parent = headers["traceparent"]
    assert body["params"]["_meta"]["traceparent"] == parent
    trace_id, span_id = int(parent.split("-")[1], 16), int(parent.split("-")[2], 16)
    assert trace_id == host.get_span_context().trace_id
    line = []
    while span_id != host.get_span_context().span_id:
        span = found[span_id]
        line.append(span.name)
        assert span.parent is not None
        span_id = span.parent.span_id
    assert line == [
        "MCP send tools/call add",
        "mcpconn tools/call add",
        "tools/call a__add",
        "MCP send tools/call a__add",
    ]


@MODES
async def test_a_trace_in_headers_is_continued(mode):
    seen = Seeing(Script())
    more = {"a": {"url": "http://shop.test/mcp", "http_transport": seen}}
    async with (
        gateway(more=more) as made,
        httpx2.AsyncClient(headers={"traceparent": PARENT}, timeout=30) as http,
        Client(streamable_http_client(made.url, http_client=http), mode=mode) as client,
    ):
        # The client's own span is in `_meta` and counts for more; without one the header does.
        await client.call_tool("a__add", {"a": 1, "b": 2})
        call: dict[str, Any] = {"name": "a__add", "arguments": {"a": 1, "b": 2}}
        body = {"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": INITIALIZE}
        headers = {"accept": "application/json, text/event-stream"}
        opened = await http.post(made.url, json=body, headers=headers)
        headers["mcp-session-id"] = opened.headers["mcp-session-id"]
        body = {"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": call}
        assert (await http.post(made.url, json=body, headers=headers)).status_code == 200
    assert seen.calls[-1][0]["traceparent"].split("-")[1] == PARENT.split("-")[1]


INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


@pytest.mark.parametrize("parent", [None, 1, "", "00-x-y-01", PARENT + "\r\nx: y", {"a": 1}])
def test_what_is_no_trace_is_no_header(parent):
    assert trace_headers({"_meta": {"traceparent": parent}}) == {}
    assert trace_headers({"_meta": parent}) == {}


def test_a_state_goes_along_if_a_header_can_hold_it():
    assert trace_headers({"_meta": {"traceparent": PARENT, "tracestate": "a=1"}})["tracestate"] == "a=1"
    assert "tracestate" not in trace_headers({"_meta": {"traceparent": PARENT, "tracestate": "a=1\n"}})
    assert trace_headers(None) == {}
