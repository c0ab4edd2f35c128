"""A view: a named choice of servers and tools, with an endpoint of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mcpconn.errors import ConfigError
from mcpconn.gateway.sections import BOOL, STRINGS, Section, number_kind
from mcpconn.names import DEFAULT_LENGTH, SHORTEST_LENGTH

PATH = "/mcp"
LONGEST_LENGTH = 128
KINDS = {
    **dict.fromkeys(("servers", "allow", "deny"), STRINGS),
    "prefix": BOOL,
    "name_length": number_kind(
        f"must be a whole number from {SHORTEST_LENGTH} to {LONGEST_LENGTH}",
        above=SHORTEST_LENGTH - 1,
        most=LONGEST_LENGTH,
        whole=True,
    ),
}


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
    if not name or not all(character.isalnum() or character in "-_." for character in name):
        raise ConfigError(f"gateway.views: {name!r} cannot be part of a path; use letters, digits, - _ .", key="views")
    where = f"gateway.views.{name}"
    view = View(name=name, **Section(where, entry, KINDS).values(KINDS))
    for server in view.servers or ():
        if server not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"{where}: there is no server {server!r}; known: {names}", key="servers")
    if not view.prefix and len(view.servers if view.servers is not None else known) != 1:
        raise ConfigError(f"{where}: prefix: false needs exactly one server", key="prefix")
    return view
