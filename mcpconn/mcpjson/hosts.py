"""Identifies a file's host, and finds the servers in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mcpconn.dialects import hosts
from mcpconn.dialects.hosts import UNKNOWN, Host
from mcpconn.dialects.translate import snake
from mcpconn.errors import ConfigError
from mcpconn.mcpjson.jsonc import Repeating

WRAPPERS = ("mcpServers", "mcp_servers", "servers", "context_servers", "amp.mcpServers", "extensions", "mcp")
"""Keys that hold the servers, in the order in which they are looked for."""
_BY_WRAPPER: Mapping[str, Host] = {
    "mcp_servers": hosts.CODEX,
    "context_servers": hosts.ZED,
    "extensions": hosts.GOOSE,
    "mcp": hosts.OPENCODE,
}
_BY_PATH: Mapping[str, Host] = {
    ".gemini": hosts.GEMINI,
    ".qwen": hosts.GEMINI,
    "gemini-extension.json": hosts.GEMINI,
    "cline_mcp_settings.json": hosts.CLINE,
    "mcp_settings.json": hosts.CLINE,
    ".roo": hosts.CLINE,
    ".codex": hosts.CODEX,
    ".continue": hosts.CONTINUE,
    ".kiro": hosts.KIRO,
    ".amazonq": hosts.KIRO,
    "librechat.yaml": hosts.LIBRECHAT,
    "librechat.yml": hosts.LIBRECHAT,
    ".copilot": hosts.COPILOT,
    "mcp-config.json": hosts.COPILOT,
    "kilo.json": hosts.OPENCODE,
    "kilo.jsonc": hosts.OPENCODE,
    "opencode.json": hosts.OPENCODE,
    "opencode.jsonc": hosts.OPENCODE,
    "crush.json": hosts.CRUSH,
    ".crush.json": hosts.CRUSH,
}
"""By the name of the file, or of a folder that it is in."""
_GEMINI_KEYS = frozenset({"httpUrl", "trust", "includeTools", "excludeTools"})
"""Keys that Gemini CLI alone writes into an entry."""
_PLACES = frozenset({"url", "command", "server_url", "http_url", "base_url", "uri", "cmd"})
"""Keys that say where a server is, in snake_case."""
_BUILT_IN = frozenset({"builtin", "platform", "frontend", "inline_python"})
"""Goose's extensions that are no MCP servers of their own."""
_EDITOR_FOLDERS = frozenset(
    {".vscode", ".cursor", ".gemini", ".roo", ".codex", ".continue", ".kiro", ".amazonq", ".zed"}
)


@dataclass
class Found:
    """The servers of a file."""

    host: Host
    entries: dict[Any, Any]
    notes: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    """Other keys beside the servers. Only `strict` rejects them."""


def find(content: Any, path: Path | None) -> Found:
    """The entries of a file's content, as they stand.

    Raises:
        ConfigError: the content is not that of a file with servers.
    """
    if not isinstance(content, Mapping):
        if content is None:
            return Found(UNKNOWN, {})
        raise ConfigError(f"expected a mapping of servers, not {kind_of(content)}")
    wrapper = next((key for key in WRAPPERS if key in content and _holds_servers(key, content[key])), None)
    if wrapper is None:
        return _bare(content, path)
    if isinstance(content, Repeating) and content.key in WRAPPERS:
        raise ConfigError(f"{content.key!r} is given twice in the same place; keep one", key=content.key)
    inner = content[wrapper]
    if wrapper == "mcp" and isinstance(inner, Mapping):
        # VS Code's settings.json: {"mcp": {"servers": {...}}}.
        nested = next((key for key in ("servers", "mcpServers") if isinstance(inner.get(key), Mapping)), None)
        if nested is not None:
            return Found(_host(path, "servers", inner[nested]), _entries(inner[nested], nested))
    entries = _entries(inner, wrapper)
    found = Found(_host(path, wrapper, entries), entries)
    for key in content:
        if key == wrapper or key in ("$schema", "inputs"):
            continue
        found.strays.append(str(key))
        if key == "projects" and isinstance(content[key], Mapping) and _has_servers(content[key]):
            # Claude Code, ~/.claude.json: servers that were added for one folder only.
            found.notes.append("the servers of single projects, in 'projects', are not read")
        elif key in WRAPPERS[:3] and isinstance(content[key], Mapping) and content[key]:
            found.notes.append(f"{key!r} is not read, because there is {wrapper!r} beside it")
        elif close := get_close_matches(str(key), WRAPPERS[:3], n=1, cutoff=0.8):
            found.notes.append(f"{key!r} beside {wrapper!r} is not read; if it is meant as {close[0]!r}, join the two")
    if found.host is hosts.GOOSE:
        found.entries = {name: each for name, each in entries.items() if not _is_built_in(each)}
    return found


def workspace_of(path: Path) -> Path:
    """The folder that `${workspaceFolder}` means in a file: the one that an editor's own folder is in."""
    folder = path.absolute().parent
    return next((each.parent for each in (folder, *folder.parents) if each.name in _EDITOR_FOLDERS), folder)


def _has_servers(projects: Mapping[Any, Any]) -> bool:
    return any(isinstance(each, Mapping) and each.get("mcpServers") for each in projects.values())


def _holds_servers(key: str, value: Any) -> bool:
    if key in ("mcpServers", "mcp_servers", "servers", "context_servers", "amp.mcpServers"):
        # Bare files may have a server of this name.
        return not (isinstance(value, Mapping) and _looks_like_server(value) and not _any_server(value))
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(value.get(inner), Mapping) for inner in ("servers", "mcpServers")) or _any_server(value)


def _any_server(entries: Mapping[Any, Any]) -> bool:
    return any(isinstance(each, Mapping) and _looks_like_server(each) for each in entries.values())


def _looks_like_server(entry: Mapping[Any, Any]) -> bool:
    keys = {snake(key) for key in entry if isinstance(key, str)}
    near = any(get_close_matches(key, ("url", "command"), n=1, cutoff=0.75) for key in keys)
    return bool(_PLACES & keys) or near or entry.get("type") in ("builtin", "platform")


def _is_built_in(entry: Any) -> bool:
    return isinstance(entry, Mapping) and entry.get("type") in _BUILT_IN


def _entries(inner: Any, wrapper: str) -> dict[Any, Any]:
    if inner is None:
        return {}
    if isinstance(inner, Repeating):
        return Repeating(list(inner.items()), inner.key)
    if isinstance(inner, Mapping):
        return dict(inner)
    if isinstance(inner, list):
        return _listed(inner, wrapper)
    raise ConfigError(f"{wrapper} must be a mapping of servers, not {kind_of(inner)}", key=wrapper)


def _listed(entries: list[Any], wrapper: str) -> dict[Any, Any]:
    """Continue and some others have a list, each entry with its `name`."""
    pairs: list[tuple[str, Any]] = []
    for index, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        pairs.append((name if isinstance(name, str) and name else f"{wrapper}[{index}]", entry))
    names = [name for name, _ in pairs]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    return dict(pairs) if twice is None else Repeating(pairs, twice)


def _bare(content: Mapping[Any, Any], path: Path | None) -> Found:
    entries: dict[Any, Any] = {}
    strays: list[str] = []
    for name, entry in content.items():
        if name in ("$schema", "inputs"):
            continue
        if isinstance(entry, Mapping) and (_looks_like_server(entry) or not entry):
            entries[name] = entry
        else:
            strays.append(str(name))
    if isinstance(content, Repeating):
        entries = Repeating(list(entries.items()), content.key)
    found = Found(_host(path, "", entries), entries, strays=strays)
    for name in strays:
        if close := get_close_matches(name, WRAPPERS[:3], n=1, cutoff=0.8):
            found.notes.append(f"{name!r} is not read; did you mean {close[0]!r}?")
    return found


def _host(path: Path | None, wrapper: str, entries: Mapping[Any, Any]) -> Host:
    if path is not None:
        for part in (path.name, *(folder.name for folder in path.absolute().parents)):
            if part in _BY_PATH:
                return _BY_PATH[part]
    if wrapper in _BY_WRAPPER:
        return _BY_WRAPPER[wrapper]
    if any(isinstance(each, Mapping) and _GEMINI_KEYS & each.keys() for each in entries.values()):
        return hosts.GEMINI
    return UNKNOWN


def kind_of(value: Any) -> str:
    """A value of JSON in a word."""
    names = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing" if value is None else "a " + type(value).__name__)
