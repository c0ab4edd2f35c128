"""How a scripted server refuses requests of the wrong era, version or method. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping

from mcpconn.testing.scripted.catalog import LEGACY_VERSIONS, MODERN_VERSION
from mcpconn.testing.scripted.steps import Message, Reply, body_reply, error_reply

_PROTOCOL_KEY = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
_NAME_PARAM = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def not_allowed(allow: str) -> Reply:
    """Refuse an HTTP method."""
    return body_reply(405, b"", None, {"allow": allow})


def legacy_refusal(headers: Mapping[str, str]) -> Reply | None:
    """Refuse a request that names a protocol version without a handshake."""
    version = headers.get("mcp-protocol-version")
    if version is None or version in LEGACY_VERSIONS:
        return None
    supported = ", ".join(LEGACY_VERSIONS)
    text = f"Bad Request: Unsupported protocol version: {version}. Supported versions: {supported}"
    return error_reply(400, None, -32600, text)


def modern_refusal(message: Message, headers: Mapping[str, str]) -> Reply | None:
    """Refuse a request whose envelope the 2026-07-28 protocol does not accept."""
    request_id, method = message["id"], message["method"]
    params = message.get("params") or {}
    meta = params.get("_meta") or {}
    missing = [key for key in (_PROTOCOL_KEY, _CAPABILITIES_KEY) if key not in meta]
    if missing:
        return error_reply(400, request_id, -32602, f"Missing _meta keys: {', '.join(missing)}")
    if headers.get("mcp-protocol-version") != meta[_PROTOCOL_KEY]:
        return error_reply(400, request_id, -32020, "MCP-Protocol-Version does not match the body")
    if headers.get("mcp-method") != method:
        return error_reply(400, request_id, -32020, "Mcp-Method does not match the body")
    name = params.get(_NAME_PARAM[method]) if method in _NAME_PARAM else None
    sent = headers.get("mcp-name", "")
    # A name outside printable ASCII travels base64-coded; checking that coding is not this server's job.
    if name is not None and sent != name and not sent.startswith("=?base64?"):
        return error_reply(400, request_id, -32020, "Mcp-Name does not match the body")
    if meta[_PROTOCOL_KEY] != MODERN_VERSION:
        return unsupported_version(request_id, meta[_PROTOCOL_KEY])
    return None


def unsupported_version(request_id: object, requested: object) -> Reply:
    """Refuse a protocol version, naming the supported one."""
    data = {"supported": [MODERN_VERSION], "requested": requested}
    return error_reply(400, request_id, -32022, "Unsupported protocol version", data)
