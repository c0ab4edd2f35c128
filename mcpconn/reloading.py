"""Applies a configuration file to a running manager."""

from __future__ import annotations

from collections.abc import Container, Mapping

from mcpconn.config import ServerConfig


def difference(
    present: Mapping[str, ServerConfig], servers: Mapping[str, ServerConfig], *, keep: Container[str]
) -> dict[str, list[str]]:
    """Names by what has to be done: `added` has to be connected, `removed` closed, `changed` both; `unchanged` nothing.

    Args:
        present: The configurations of the manager's connections.
        servers: The servers of the file, including disabled ones, which are not to be there.
        keep: Names of connections that are in no file.
    """
    wanted = {name: config for name, config in servers.items() if not config.disabled}
    result: dict[str, list[str]] = {"added": [], "removed": [], "changed": [], "unchanged": []}
    result["removed"] = [name for name in present if name not in wanted and name not in keep]
    for name, config in wanted.items():
        what = "added" if name not in present else "unchanged" if present[name] == config else "changed"
        result[what].append(name)
    return result
