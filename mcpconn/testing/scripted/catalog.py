"""What a scripted server offers in addition to tool calls: lists, resources, prompts, completions.

Standard library only, and free of side effects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcpconn.testing.scripted.steps import Message
from mcpconn.testing.scripted.tools import RpcError, ScriptedTool

LEGACY_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSION = "2026-07-28"

_RESOURCES = {"memo://welcome": "Welcome!", "memo://rules": "Be precise.", "memo://status": "All is well."}
_PROMPTS = {"greet": "Greet {name}.", "summarise": "Summarise {name}."}
_TEMPLATE = "memo://people/{name}"
_NAMES = ("alice", "albert", "bob")

_CACHEABLE = frozenset(
    {
        "server/discover",
        "tools/list",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "prompts/list",
    }
)


class Catalog:
    """The content of a scripted server."""

    def __init__(self, tools: Sequence[ScriptedTool], *, modern: bool, page_size: int | None) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self.modern = modern
        self.page_size = page_size
        self.ttl_ms = 0
        """For how many milliseconds clients may cache lists and resources (modern)."""

    def answer(self, method: str, params: Mapping[str, Any]) -> Message:
        """The result of a request without side effects.

        Raises:
            RpcError: The method or something it names does not exist.
        """
        result = self._answer(method, params)
        if self.modern:
            result.setdefault("resultType", "complete")
            if method in _CACHEABLE:
                result.setdefault("ttlMs", self.ttl_ms)
                result.setdefault("cacheScope", "private")
        return result

    def _answer(self, method: str, params: Mapping[str, Any]) -> Message:
        if method == "tools/list":
            return self._page("tools", [tool.listed() for tool in self.tools.values()], params)
        if method == "resources/list":
            listed = [{"uri": uri, "name": uri.rpartition("/")[2]} for uri in _RESOURCES]
            return self._page("resources", listed, params)
        if method == "resources/templates/list":
            return self._page("resourceTemplates", [{"uriTemplate": _TEMPLATE, "name": "people"}], params)
        if method == "resources/read":
            return self._read(str(params.get("uri")))
        if method == "prompts/list":
            prompts = [{"name": name, "arguments": [{"name": "name"}]} for name in _PROMPTS]
            return self._page("prompts", prompts, params)
        if method == "prompts/get":
            return self._prompt(params)
        if method == "completion/complete":
            prefix = str(params.get("argument", {}).get("value", ""))
            values = [name for name in _NAMES if name.startswith(prefix)]
            return {"completion": {"values": values, "total": len(values), "hasMore": False}}
        if method == "server/discover" and self.modern:
            return self._discover()
        raise RpcError(-32601, f"Method not found: {method}")

    def initialized(self, requested: str, newest: str) -> Message:
        """The result of `initialize`: the requested version if this server speaks it, else its newest."""
        known = requested in LEGACY_VERSIONS and requested <= newest
        return {
            "protocolVersion": requested if known else newest,
            "capabilities": self._capabilities(),
            "serverInfo": {"name": "scripted", "version": "1"},
        }

    def _capabilities(self) -> Message:
        capabilities: Message = {
            "tools": {"listChanged": True},
            "resources": {"subscribe": True, "listChanged": True},
            "prompts": {"listChanged": True},
            "completions": {},
        }
        if not self.modern:
            capabilities["logging"] = {}
        return capabilities

    def _discover(self) -> Message:
        return {
            "supportedVersions": [MODERN_VERSION],
            "capabilities": self._capabilities(),
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "scripted", "version": "1"}},
        }

    def _page(self, key: str, items: list[Message], params: Mapping[str, Any]) -> Message:
        """One page of a list; the cursor is the index of the next item."""
        if self.page_size is None:
            return {key: items}
        cursor = str(params.get("cursor") or "0")
        if not cursor.isdecimal():
            raise RpcError(-32602, "Invalid cursor")
        start, end = int(cursor), int(cursor) + self.page_size
        page: Message = {key: items[start:end]}
        if end < len(items):
            page["nextCursor"] = str(end)
        return page

    def _read(self, uri: str) -> Message:
        prefix = _TEMPLATE.partition("{")[0]
        text = f"A person called {uri[len(prefix) :]}." if uri.startswith(prefix) else _RESOURCES.get(uri)
        if text is None:
            raise RpcError(-32602 if self.modern else -32002, "Resource not found", {"uri": uri})
        return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": text}]}

    def _prompt(self, params: Mapping[str, Any]) -> Message:
        template = _PROMPTS.get(str(params.get("name")))
        if template is None:
            raise RpcError(-32602, "Unknown prompt")
        name = (params.get("arguments") or {}).get("name", "the reader")
        text = template.format(name=name)
        return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}
