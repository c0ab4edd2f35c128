"""What a scripted server refuses, as servers of each era do: requests no correct client sends."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from mcpconn.testing import Received, Script, Send

KEY = "io.modelcontextprotocol"
ENVELOPE = {f"{KEY}/protocolVersion": "2026-07-28", f"{KEY}/clientCapabilities": {}}


def decided(script: Script, message: Any, headers: dict[str, str] | None = None, method: str = "POST") -> Any:
    """Status and JSON of the answer to one HTTP request."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    reply = script.decide(method, headers or {}, body)
    content = b"".join(step.data for step in reply.steps if isinstance(step, Send))
    return reply.status, json.loads(content) if content else None


def request(method: str, request_id: int = 7, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def modern(method: str = "tools/call", **changes: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """A correct request of 2026-07-28, but for `changes` of its headers."""
    message = request(method, name="add", arguments={"a": 1, "b": 2}, _meta=dict(ENVELOPE))
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method, "mcp-name": "add"}
    return message, {**headers, **changes}


def test_a_correct_modern_request_is_served() -> None:
    status, answer = decided(Script(era="modern"), *modern())
    assert (status, answer["result"]["content"][0]["text"]) == (200, "3")


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"mcp-protocol-version": "2025-11-25"}, -32020, "MCP-Protocol-Version does not match"),
        ({"mcp-method": "tools/list"}, -32020, "Mcp-Method does not match"),
        ({"mcp-name": "charge"}, -32020, "Mcp-Name does not match"),
    ],
)
def test_a_header_that_contradicts_the_body_is_refused_and_nothing_runs(
    changes: dict[str, str], code: int, text: str
) -> None:
    script = Script(era="modern")
    status, answer = decided(script, *modern(**changes))
    assert (status, answer["id"], answer["error"]["code"]) == (400, 7, code)
    assert text in answer["error"]["message"]
    assert script.calls == []


def test_a_request_without_the_modern_envelope_is_refused() -> None:
    message, headers = modern()
    del message["params"]["_meta"][f"{KEY}/clientCapabilities"]
    status, answer = decided(Script(era="modern"), message, headers)
    assert (status, answer["error"]["code"]) == (400, -32602)
    assert answer["error"]["message"] == f"Missing _meta keys: {KEY}/clientCapabilities"


def test_an_unknown_version_is_refused_with_the_known_one() -> None:
    message, headers = modern(**{"mcp-protocol-version": "2031-01-01"})
    message["params"]["_meta"][f"{KEY}/protocolVersion"] = "2031-01-01"
    status, answer = decided(Script(era="modern"), message, headers)
    assert status == 400
    assert answer["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2031-01-01"}


@pytest.mark.parametrize(
    ("era", "method", "status"), [("modern", "GET", 405), ("modern", "DELETE", 405), ("legacy", "PUT", 405)]
)
def test_a_method_of_http_that_the_era_does_not_know_is_refused(
    era: Literal["legacy", "modern"], method: str, status: int
) -> None:
    assert decided(Script(era=era), b"", method=method) == (status, None)


@pytest.mark.parametrize("body", [b"no json", b"[]", b"7", b'{"params": 1}', b"[" * 100_000])
def test_what_is_no_message_is_a_parse_error(body: bytes) -> None:
    status, answer = decided(Script(), body)
    assert (status, answer["error"]["code"]) == (400, -32700)


def test_a_request_without_the_session_of_its_server_is_refused() -> None:
    status, answer = decided(Script(), request("tools/list"))
    assert (status, answer["error"]["message"]) == (400, "Bad Request: Missing session ID")


def test_a_protocol_version_that_the_legacy_era_does_not_have_is_refused() -> None:
    script = Script(sessions=False)
    status, answer = decided(script, request("tools/list"), {"mcp-protocol-version": "1999-01-01"})
    assert status == 400
    assert "Unsupported protocol version: 1999-01-01" in answer["error"]["message"]
    # There is no session that could be ended.
    assert decided(script, b"", method="DELETE") == (405, None)


@pytest.mark.parametrize(
    ("method", "params", "code", "text"),
    [
        ("tools/list", {"cursor": "soon"}, -32602, "Invalid cursor"),
        ("resources/read", {"uri": "scripted://nowhere"}, -32002, "Resource not found"),
        ("prompts/get", {"name": "insult"}, -32602, "Unknown prompt"),
        ("tools/dance", {}, -32601, "Method not found: tools/dance"),
    ],
)
def test_what_does_not_exist_is_an_error_of_the_application(
    method: str, params: dict[str, Any], code: int, text: str
) -> None:
    script = Script(sessions=False, page_size=2)
    status, answer = decided(script, request(method, **params))
    assert (status, answer["error"]["code"], answer["error"]["message"]) == (200, code, text)


def test_a_modern_child_knows_no_handshake() -> None:
    script = Script(era="modern")
    (refusal,) = script.exchange(request("initialize"))
    assert refusal["error"] == {"code": -32601, "message": "Method not found: initialize"}  # type: ignore[index]
    (missing,) = script.exchange(request("tools/dance"))
    assert missing["error"]["code"] == -32601  # type: ignore[index]
    assert list(script.exchange({"jsonrpc": "2.0", "method": "notifications/cancelled"})) == []
    assert [seen for seen in script.requests if seen.rpc_method == "initialize"] == [
        Received("STDIO", "initialize", None, None)
    ]
