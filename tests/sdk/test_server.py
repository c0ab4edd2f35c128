"""A canary for each inner working of the SDK's server over HTTP that `mcpconn.sdk.server` replaces."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from mcp.server._streamable_http_modern import handle_modern_request
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher

from mcpconn.sdk.server import SessionManager, Transport


@pytest.mark.parametrize(
    ("theirs", "ours", "name"),
    [
        (StreamableHTTPSessionManager, SessionManager, "_admit_session"),
        (StreamableHTTPServerTransport, Transport, "_handle_post_request"),
        (StreamableHTTPServerTransport, Transport, "connect"),
        (StreamableHTTPServerTransport, Transport, "terminate"),
    ],
)
def test_what_is_replaced_takes_the_same_arguments(theirs: Any, ours: Any, name: str) -> None:
    assert list(inspect.signature(getattr(theirs, name)).parameters) == list(
        inspect.signature(getattr(ours, name)).parameters
    )


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (StreamableHTTPSessionManager._handle_stateful_request, "self._admit_session(requestor)"),
        (StreamableHTTPSessionManager._serve_opening_request, "async with http_transport.connect() as streams:"),
        (StreamableHTTPSessionManager._discard_session, "await transport.terminate()"),
        (
            StreamableHTTPServerTransport._handle_request,
            "await self._handle_post_request(",
        ),
        (StreamableHTTPServerTransport._terminate_unanswered_request, "self._write_stream.send(SessionMessage("),
        (StreamableHTTPServerTransport._handle_get_request, "self._request_streams[GET_STREAM_KEY] ="),
        (
            StreamableHTTPSessionManager._handle_request,
            "self.app, self.security_settings, self.json_response, self._lifespan_state, scope, receive, send",
        ),
        # No task that watches the client, and no stream, if its third argument is true.
        (handle_modern_request, 'if json_response and req.method != "subscriptions/listen":'),
        (JSONRPCDispatcher.run, "async with self._write_stream:"),
        (JSONRPCDispatcher._write, "await self._write_stream.send(SessionMessage("),
    ],
)
def test_what_is_replaced_is_used_as_before(where: Any, what: str) -> None:
    assert what in inspect.getsource(where)


@pytest.mark.parametrize(
    "name",
    [
        "_validate_accept_header",
        "_check_content_type",
        "_validate_request_headers",
        "_create_error_response",
        "_create_json_response",
        "_message_metadata",
        "_clean_up_memory_streams",
    ],
)
def test_what_a_replaced_method_calls_is_there(name: str) -> None:
    assert callable(getattr(StreamableHTTPServerTransport, name))
