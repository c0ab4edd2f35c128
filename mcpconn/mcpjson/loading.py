"""Converts the entries of a file to configurations. An invalid entry becomes one as well, with the reason."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcpconn.config import ServerConfig
from mcpconn.dialects.translate import is_disabled
from mcpconn.errors import ConfigError
from mcpconn.mcpjson.hosts import Found, find, kind_of, workspace_of
from mcpconn.mcpjson.jsonc import Repeating
from mcpconn.mcpjson.reading import read
from mcpconn.mcpjson.variables import Expander, Scope


class Servers(dict[str, ServerConfig]):
    """The servers of a file, by name. `notes` are for users, about how the file was interpreted."""

    def __init__(self, servers: Mapping[str, ServerConfig] | None = None, notes: tuple[str, ...] = ()) -> None:
        super().__init__(servers or {})
        self.notes = notes


def load(path: str | os.PathLike[str], *, environ: Mapping[str, str] | None = None, strict: bool = False) -> Servers:
    """The servers of a configuration file, by name, checked.

    An invalid entry disables only its own server: its `ServerConfig.problem` says why. Other keys that a host keeps in
    the file are ignored.

    Args:
        path: A file in JSON (comments and trailing commas are allowed), TOML or YAML.
        environ: Where variables come from; the process's environment by default.
        strict: Reject the whole file if one entry is invalid or a key is unknown.

    Raises:
        ConfigError: the file cannot be read or understood; or, with `strict`, one of its servers cannot be used. The
            message says where.
    """
    try:
        where = Path(path)
        content = read(where)
    except TypeError:
        raise ConfigError(f"a path to a file is needed, not {type(path).__name__}") from None
    try:
        return _parse(content, environ=os.environ if environ is None else environ, path=where, strict=strict)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}", server=error.server, key=error.key) from None


def parse(
    content: Any, *, environ: Mapping[str, str] | None = None, path: Path | None = None, strict: bool = False
) -> Servers:
    """The servers of a file's content.

    Args:
        content: As JSON, TOML or YAML have it: mappings, lists, strings and numbers.
        environ: Where variables come from; the process's environment by default.
        path: The file it is from: hosts are recognized by it, and relative paths are relative to its folder.
        strict: As for `load`.

    Raises:
        ConfigError: as for `load`.
    """
    return _parse(content, environ=os.environ if environ is None else environ, path=path, strict=strict)


def _parse(content: Any, *, environ: Mapping[str, str], path: Path | None, strict: bool) -> Servers:
    found = find(content, path)
    if strict and (stray := next(iter(found.strays), None)) is not None:
        raise ConfigError(f"unknown key {stray!r} beside the servers", key=stray)
    here = path.absolute().parent if path is not None else Path.cwd()
    scope = Scope(environ, workspace_of(path) if path is not None else here, found.host, here)
    servers: dict[str, ServerConfig] = {}
    for given, entry in found.entries.items():
        name, fault = _name(given)
        try:
            if fault is not None:
                raise ConfigError(f"server {name!r}: {fault}", server=name)
            servers[name] = _server(name, entry, found, scope)
        except ConfigError as error:
            disabled = isinstance(entry, Mapping) and is_disabled(entry)
            if strict and not disabled:
                raise
            servers[name] = ServerConfig(name=name, problem=_without_name(error, name), disabled=disabled)
    return Servers(servers, tuple(found.notes))


def _server(name: str, entry: Any, found: Found, scope: Scope) -> ServerConfig:
    if isinstance(found.entries, Repeating) and found.entries.key == name:
        raise ConfigError(f"server {name!r}: {name!r} is given twice in the same place; keep one", server=name)
    if not isinstance(entry, Mapping):
        raise ConfigError(f"server {name!r}: expected a mapping, not {kind_of(entry)}", server=name)
    if isinstance(entry, Repeating):
        what = f"{entry.key!r} is given twice in the same place; keep one"
        raise ConfigError(f"server {name!r}: {what}", server=name, key=entry.key)
    return ServerConfig.from_entry(
        name,
        entry,
        host=found.host,
        environ=scope.environ,
        folder=scope.folder,
        expand=Expander(scope).expand,
    )


def _name(given: Any) -> tuple[str, str | None]:
    """A server's name as it can be shown, and what is wrong with it."""
    if not isinstance(given, str):
        # YAML: a number, or what looks like one.
        return str(given), None if isinstance(given, int) and not isinstance(
            given, bool
        ) else "the name is not a string"
    if not given.strip():
        return given, "the name is empty"
    if not given.isprintable():
        return given.encode("unicode_escape").decode("ascii"), "the name contains a character that cannot be shown"
    return given, None


def _without_name(error: ConfigError, name: str) -> str:
    return str(error).removeprefix(f"server {name!r}: ")
