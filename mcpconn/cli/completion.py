"""Shell completion: names of servers, and of tools from their last listing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mcpconn import mcpjson
from mcpconn.cli.config import path_of
from mcpconn.cli.connect import Checked
from mcpconn.cli.targets import file_and_words
from mcpconn.config import ServerConfig
from mcpconn.login import state_directory

LONGEST = 1024 * 1024
"""Bytes of a file of names."""


def server(ctx: object, incomplete: str) -> list[str]:
    """Names of servers. Errors are suppressed, because they could not be shown."""
    servers, _ = _servers(ctx)
    return [name for name in servers if name.startswith(incomplete)]


def call(ctx: object, args: list[str], incomplete: str) -> list[str]:
    """The words of `call`: a server, then one of its tools, as `check` or `tools` found them last.

    A server is not started for the sake of a key.
    """
    servers, words = _servers(ctx)
    if not words:
        return [name for name in servers if name.startswith(incomplete)]
    config = servers.get(words[0])
    if len(words) > 1 or config is None:
        return []
    return [tool for tool in _remembered(config) if tool.startswith(incomplete)]


def remember(results: Iterable[Checked]) -> None:
    """Store the names of the listed tools. A failure to store them is not an error of the command."""
    for each in results:
        if each.tools:
            with suppress(OSError):
                path = _file(each.config)
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.write_text(json.dumps([tool.name for tool in each.tools]), "utf-8")


def _remembered(config: ServerConfig) -> list[str]:
    try:
        path = _file(config)
        names: Any = json.loads(path.read_text("utf-8")) if path.stat().st_size <= LONGEST else []
    except (OSError, ValueError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _file(config: ServerConfig) -> Path:
    """The key depends on the server's address, not on its name. It contains no secrets, not even hashed."""
    what = json.dumps([config.address, *(config.redactor(each) for each in config.args)])
    return state_directory() / "tools" / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"


def _servers(ctx: object) -> tuple[dict[str, ServerConfig], list[str]]:
    """The servers of the selected file, and the words after the file."""
    given = getattr(ctx, "params", {})
    words = next((given[name] for name in ("words", "servers", "names") if given.get(name)), ())
    path, rest = file_and_words([str(each) for each in words], given.get("config"))
    try:
        return dict(mcpjson.load(path_of(path))), rest
    except Exception:
        return {}, rest
