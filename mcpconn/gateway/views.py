"""A view: a named choice of servers and tools, with an endpoint of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mcpconn.errors import ConfigError
from mcpconn.names import DEFAULT_LENGTH, SHORTEST_LENGTH

PATH = "/mcp"


@dataclass(frozen=True, kw_only=True)
class View:
    """What one endpoint of the gateway shows. Its path is `/mcp/NAME`; the view without a name is at `/mcp`."""

    name: str = ""
    servers: tuple[str, ...] | None = None
    """Names of its servers; None: all of them."""
    allow: tuple[str, ...] = ("*",)
    """Tools it shows, as `server/tool` with `*` for any text."""
    deny: tuple[str, ...] = ()
    """Tools it does not show, in the same form. It overrides `allow`."""
    prefix: bool = True
    """False leaves names and URIs as the server has them; only for a view of one server."""
    name_length: int = DEFAULT_LENGTH
    """Characters of a public name."""

    def shows(self, server: str, tool: str) -> bool:
        """Whether a tool of a server can be seen and called through this view."""
        text = f"{server}/{tool}"
        return _any(self.allow, text) and not _any(self.deny, text)


def view_of(scope: Mapping[str, Any]) -> str | None:
    """The view that a request's path names; None if it is the path of no endpoint."""
    # A mounted application's path begins after the path that it is mounted at.
    path: str = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/")
    if path == PATH:
        return ""
    return path.removeprefix(f"{PATH}/") if path.startswith(f"{PATH}/") else None


def _any(patterns: Sequence[str], text: str) -> bool:
    return any(pattern == "*" or fnmatchcase(text, pattern) for pattern in patterns)


def parse_views(section: Any, known: Sequence[str]) -> dict[str, View]:
    """The views of a `gateway` section, by name; the one of everything is always among them.

    Args:
        section: The value of `views`: a mapping of names to mappings.
        known: Names of the configured servers.

    Raises:
        ConfigError: names the view and the key.
    """
    views = {"": View()}
    if section is None:
        return views
    if not isinstance(section, dict):
        raise ConfigError("gateway.views must be a mapping of names to views", key="views")
    for name, entry in section.items():
        views[name] = _parse(name, entry, known)
    return views


def _parse(name: str, entry: Any, known: Sequence[str]) -> View:
    def fail(what: str, key: str) -> ConfigError:
        return ConfigError(f"gateway.views.{name}: {what}", key=key)

    if not name or not all(character.isalnum() or character in "-_." for character in name):
        raise ConfigError(f"gateway.views: {name!r} cannot be part of a path; use letters, digits, - _ .", key="views")
    if not isinstance(entry, dict):
        raise fail("must be a mapping", "views")
    fields: dict[str, Callable[[Any], Any]] = {
        "servers": _texts,
        "allow": _texts,
        "deny": _texts,
        "prefix": _bool,
        "name_length": _length,
    }
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in fields:
            raise fail(f"unknown key {key!r}; known: {', '.join(fields)}", key)
        try:
            values[key] = fields[key](value)
        except ValueError as error:
            raise fail(f"{key} {error}", key) from None
    for server in values.get("servers") or ():
        if server not in known:
            raise fail(f"there is no server {server!r}; known: {', '.join(sorted(known)) or 'none'}", "servers")
    view = View(name=name, **values)
    if not view.prefix and len(view.servers if view.servers is not None else known) != 1:
        raise fail("prefix: false needs exactly one server", "prefix")
    return view


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("must be a list of strings")
    return tuple(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _length(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not SHORTEST_LENGTH <= value <= 128:
        raise ValueError(f"must be a whole number from {SHORTEST_LENGTH} to 128")
    return value
