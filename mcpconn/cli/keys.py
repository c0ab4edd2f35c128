"""`mcpconn key`: keys of the gateway's clients."""

from __future__ import annotations

import sys
from pathlib import Path

from mcpconn.cli.failures import USAGE, CliError
from mcpconn.cli.output import say
from mcpconn.gateway.access.config import parse_access
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.config import read_section


def add(config: Path, name: str) -> None:
    """Make a key: its text on standard output, everything else on standard error.

    Raises:
        CliError: the configuration names no file for keys.
        ConfigError: the name cannot be used, or a file cannot be read or written.
    """
    keys = _file(config)
    made = keys.add(name)
    say(f"the key of {name}; it is not stored, and {keys.path} has its hash:")
    sys.stdout.write(made + "\n")


def names(config: Path) -> None:
    """Names of all keys, a line each."""
    for name in _file(config).names():
        sys.stdout.write(name + "\n")


def remove(config: Path, name: str) -> None:
    """Revoke a key."""
    _file(config).remove(name)
    say(f"the key of {name} is no longer accepted")


def _file(config: Path) -> KeyFile:
    section = read_section(config)
    access = section.get("access") if isinstance(section, dict) else None
    keys = parse_access(access, folder=config.parent).keys
    if keys is None:
        raise CliError(
            f'{config}: name a file for keys in it: "gateway": {{"access": {{"keys": "clients.json"}}}}', USAGE
        )
    return keys
