"""What a configuration file changes in a running manager."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from mcpconn.mcpjson import Servers
from mcpconn.observe import log

if TYPE_CHECKING:
    from mcpconn.manager import Manager


def apply(manager: Manager, servers: Servers, *, keep: Container[str]) -> dict[str, list[str]]:
    """Connect what is new, close what is gone, replace what has changed.

    Args:
        manager: What to change.
        servers: The servers of the file, the disabled ones included.
        keep: Names of connections that belong to no file.

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
