"""Applies a configuration file to a running manager."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from mcpconn.mcpjson import Servers
from mcpconn.observe import log

if TYPE_CHECKING:
    from mcpconn.manager import Manager


def apply(manager: Manager, servers: Servers, *, keep: Container[str]) -> dict[str, list[str]]:
    """Connect new servers, close removed ones, replace changed ones.

    Args:
        manager: The manager to change.
        servers: The servers of the file, including disabled ones.
        keep: Names of connections that are in no file.

    Returns:
        The names, under `added`, `removed`, `changed` and `unchanged`.
    """
    for note in servers.notes:
        log.warning("config.note", note=note)
    wanted = {name: config for name, config in servers.items() if not config.disabled}
    result: dict[str, list[str]] = {"added": [], "removed": [], "changed": [], "unchanged": []}
    for name in [name for name in manager if name not in wanted and name not in keep]:
        manager.remove(name)
        result["removed"].append(name)
    for name, config in wanted.items():
        present = manager.get(name)
        if present is not None and present.config == config:
            result["unchanged"].append(name)
            continue
        if present is not None:
            manager.remove(name)
        manager.add(name, config)
        result["added" if present is None else "changed"].append(name)
    return result
