"""Selects and reads the configuration file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from mcpconn import mcpjson
from mcpconn.cli.failures import USAGE, CliError
from mcpconn.cli.hiding import know
from mcpconn.cli.output import say
from mcpconn.config import ServerConfig

VARIABLE = "MCPCONN_CONFIG"
DEFAULT = Path("mcp.json")
ELSEWHERE = (".mcp.json", ".cursor/mcp.json", ".vscode/mcp.json")
"""The configuration files of editors. They are not read by default, because they may start unintended programs."""


def path_of(given: Path | None) -> Path:
    """The given file, or the one in MCPCONN_CONFIG, or mcp.json.

    Raises:
        CliError: it does not exist; the message says how to name another.
    """
    path = given or Path(os.environ.get(VARIABLE) or DEFAULT)
    if path.is_file():
        return path
    if given is not None or os.environ.get(VARIABLE):
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        origin = "" if given is not None else f" (from {VARIABLE})"
        raise CliError(f"the configuration file {path}{origin} {what}", USAGE)
    found = next((each for each in ELSEWHERE if Path(each).is_file()), None)
    hint = f"there is {found}: name it" if found else "name one"
    raise CliError(f"there is no mcp.json here; {hint} with --config FILE, or set {VARIABLE}", USAGE)


def load(given: Path | None, *, strict: bool = False) -> dict[str, ServerConfig]:
    """The servers of the file, including disabled ones and those with invalid entries.

    Raises:
        CliError: there is no file, or no server in it.
        ConfigError: it cannot be used; or, with `strict`, one of its entries cannot.
    """
    path = path_of(given)
    servers = mcpjson.load(path, strict=strict)
    for note in servers.notes:
        say(f"note: {path}: {note}")
    if not servers:
        raise CliError(f"{path}: there are no servers in it", USAGE)
    for config in servers.values():
        know(config.redactor)
    return servers


def say_notes(servers: Mapping[str, ServerConfig]) -> None:
    """Print notes about how entries were interpreted."""
    for name, config in servers.items():
        for note in config.notes if not config.disabled else ():
            say(f"note: {name}: {note}")


def pick(servers: dict[str, ServerConfig], names: list[str]) -> dict[str, ServerConfig]:
    """The servers with these names, or all.

    Raises:
        CliError: one does not exist, or is disabled.
    """
    for name in names:
        if name not in servers:
            close = get_close_matches(name, servers, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known servers: {', '.join(sorted(servers))}"
            raise CliError(f"no server named {name!r}; {hint}", USAGE)
        if servers[name].disabled:
            raise CliError(f"server {name!r} is disabled in the configuration; remove `disabled` to use it", USAGE)
    return {name: servers[name] for name in names} if names else servers
