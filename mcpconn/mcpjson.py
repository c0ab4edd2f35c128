"""Configuration files that people already have: mcp.json of Claude Desktop, Cursor and VS Code, or a bare mapping.

    {"mcpServers": {"fs": {"command": "npx", "args": [...]}}}     Claude Desktop, Cursor
    {"servers": {"fs": {...}}}                                     VS Code
    {"fs": {...}}                                                  bare

`${VAR}` and `${VAR:-default}` (and VS Code's `${env:VAR}`) in any string are replaced from the environment.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcpconn.config import ServerConfig
from mcpconn.errors import ConfigError

WRAPPERS = ("mcpServers", "servers")
IGNORED = frozenset({"$schema", "inputs"})
"""Keys beside the servers that editors write and that say nothing about a server."""

_VARIABLE = re.compile(r"\$\{(?:env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_PLACEHOLDER = re.compile(r"\$\{(?P<what>[^}]*)\}")


def load(path: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None) -> dict[str, ServerConfig]:
    """The servers of a configuration file, by name, checked.

    Args:
        path: A JSON file in one of the three forms.
        environ: Where variables come from; the process's environment by default.

    Raises:
        ConfigError: the file cannot be read, or names a server that cannot be used; the message says where.
    """
    where = Path(path)
    try:
        text = where.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: is not UTF-8 text (byte {error.start})") from error
    try:
        content = json.loads(text, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{where}: line {error.lineno}, column {error.colno}: {error.msg}; the file must be JSON, without comments"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}", server=error.server, key=error.key) from None
    try:
        return parse(content, environ=os.environ if environ is None else environ)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}", server=error.server, key=error.key) from error


def parse(content: Any, *, environ: Mapping[str, str]) -> dict[str, ServerConfig]:
    """The servers of a file's content. Raises ConfigError."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"expected a mapping of servers, not {_kind(content)}")
    wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    entries = content[wrapper] if wrapper else content
    if wrapper is not None and (stray := sorted(set(content) - {wrapper} - IGNORED)):
        raise ConfigError(f"unknown key {stray[0]!r} beside {wrapper!r}", key=stray[0])
    servers = {}
    for name, entry in entries.items():
        if wrapper is None and name in IGNORED:
            continue
        if not isinstance(entry, Mapping):
            raise ConfigError(f"server {name!r}: expected a mapping, not {_kind(entry)}", server=name)
        expanded = {key: _expand(value, name, key, environ) for key, value in entry.items()}
        servers[name] = ServerConfig.parse(name, expanded)
    return servers


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            # JSON lets the last one win silently: a server that vanishes because of a pasted name is a long search.
            raise ConfigError(f"{key!r} is given twice in the same place; keep one", key=key)
        found[key] = value
    return found


def _expand(value: Any, server: str, key: str, environ: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _expand(each, server, f"{key}.{name}", environ) for name, each in value.items()}
    if isinstance(value, list):
        return [_expand(each, server, f"{key}[{index}]", environ) for index, each in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        variable = _VARIABLE.fullmatch(match.group())
        if variable is None:
            raise ConfigError(
                f"server {server!r}: {key}: {match.group()} is not understood; write ${{NAME}} or ${{NAME:-default}}",
                server=server,
                key=key,
            )
        # As in a shell, `:-` stands in for an empty variable, too.
        found = environ.get(variable["name"])
        if variable["default"] is not None:
            return found or variable["default"]
        if found is None:
            raise ConfigError(
                f"server {server!r}: {key}: the environment variable {variable['name']} is not set; "
                f"set it, or write ${{{variable['name']}:-default}}",
                server=server,
                key=key,
            )
        return found

    return _PLACEHOLDER.sub(replace, value)


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")
