"""The `gateway` section of a configuration file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from mcpconn import mcpjson
from mcpconn.asgi import Access
from mcpconn.config import ServerConfig
from mcpconn.errors import ConfigError
from mcpconn.gateway.access.config import AccessSettings, parse_access
from mcpconn.gateway.capacity import Capacity, parse_limits
from mcpconn.gateway.outside import parse_dashboard
from mcpconn.gateway.sections import BOOL, STRING, STRINGS, Kind, Section, path_kind
from mcpconn.gateway.servers.upstreams import Scope
from mcpconn.gateway.upstream_auth.addresses import AllowedAddresses
from mcpconn.gateway.upstream_auth.config import SHARED, UserCredentials, parse_credentials
from mcpconn.gateway.views import View, parse_views
from mcpconn.mcpjson.hosts import find
from mcpconn.mcpjson.reading import read

SCOPES = get_args(Scope)
KEYS = ("views", "servers", "name", "access", "dashboard", "audit", "allowed_addresses", "limits")
SERVER_KEYS = ("scope", "gateway", "credentials")
SCOPE = Kind(lambda value: value in SCOPES, f"must be one of {', '.join(SCOPES)}")
SERVERS = Kind(lambda value: isinstance(value, Mapping), "must map names of servers to their settings")
ADDRESSES = replace(STRINGS, what="must be a list of hosts, addresses and networks")


@dataclass(frozen=True)
class Settings:
    """How the gateway shows its servers."""

    views: Mapping[str, View] = field(default_factory=lambda: {"": View()})
    """By name; the one of everything has none."""
    scopes: Mapping[str, Scope] = field(default_factory=dict)
    """Who shares a session with a server: `client`, `user` or `shared`, where it is not the default."""
    trusted: frozenset[str] = frozenset()
    """Servers that are mcpconn gateways, whose `mcpconn/` keys are passed on."""
    name: str = "mcpconn"
    """The gateway's name."""
    access: AccessSettings = field(default_factory=AccessSettings)
    """The access rules."""
    dashboard: Access = field(default_factory=Access)
    """Access to the dashboard and the metrics."""
    audit: Path | None = None
    """Where a line for each call is written; None: nowhere."""
    audit_arguments: bool = False
    """Whether the lines have the calls' arguments."""
    credentials: Mapping[str, UserCredentials] = field(default_factory=dict)
    """Servers that receive their users' own credentials, and how these are obtained."""
    allowed_addresses: tuple[str, ...] = ()
    """Private hosts and networks that may be contacted if a server names them in its metadata."""
    limits: Capacity = field(default_factory=Capacity)
    """How much is held at once."""

    def of_server(self, server: str) -> tuple[object, ...]:
        """What is said of a server, to be compared."""
        return self.scopes.get(server), self.credentials.get(server), server in self.trusted


def parse_settings(section: Any, known: tuple[str, ...], *, folder: Path = Path()) -> Settings:
    """The settings in a `gateway` section.

    Args:
        section: Its value; None if there is none.
        known: Names of the configured servers.
        folder: The file's folder; relative paths begin there.

    Raises:
        ConfigError: names the key and the fix.
    """
    if section is None:
        return Settings()
    given = Section("gateway", section, KEYS)
    name = given.get("name", STRING, "mcpconn")
    servers = given.get("servers", SERVERS, {})
    scopes: dict[str, Scope] = {}
    trusted = set()
    credentials: dict[str, UserCredentials] = {}
    for server, entry in servers.items():
        where = f"gateway.servers.{server}"
        if server not in known:
            raise ConfigError(f"{where}: there is no such server; known: {', '.join(sorted(known))}", key="servers")
        own = Section(where, entry, SERVER_KEYS, server=server)
        if "scope" in entry:
            scopes[server] = own.require("scope", SCOPE)
        if own.get("gateway", BOOL, False):
            trusted.add(server)
        found = parse_credentials(
            f"{where}.credentials", entry.get("credentials", SHARED), server=server, folder=folder
        )
        if found is not None:
            if scopes.get(server) == "shared":
                raise ConfigError(
                    f"{where}: a session that all share cannot have each user's own credentials; remove `scope`",
                    server=server,
                    key="scope",
                )
            credentials[server] = found
    access = parse_access(section.get("access"), folder=folder)
    dashboard = parse_dashboard(section.get("dashboard"), folder=folder)
    audit, arguments = _audit(section.get("audit"), folder)
    views = parse_views(section.get("views"), known)
    addresses = given.get("allowed_addresses", ADDRESSES, ())
    AllowedAddresses(addresses)
    limits = parse_limits(section.get("limits"))
    return Settings(
        views, scopes, frozenset(trusted), name, access, dashboard, audit, arguments, credentials, addresses, limits
    )


def _audit(section: Any, folder: Path) -> tuple[Path | None, bool]:
    """A path, or a mapping of `file` and `arguments`."""
    if section is None:
        return None, False
    entry = {"file": section} if isinstance(section, str) else section
    if not isinstance(entry, Mapping):
        raise ConfigError("gateway.audit must be the path of a file, or a mapping", key="audit")
    given = Section("gateway.audit", entry, ("file", "arguments"))
    return given.require("file", path_kind(folder)), given.get("arguments", BOOL, False)


def read_section(path: Path) -> Any:
    """The `gateway` section of a file, in any format that servers are read from; None if it has none.

    A server's `scope` and `gateway` may stand in its own entry, too.

    Raises:
        ConfigError: the file cannot be read.
    """
    content = read(path)
    if not isinstance(content, Mapping):
        return None
    section = content.get("gateway")
    entries = find(content, path).entries
    said = {
        name: {key: entry[key] for key in SERVER_KEYS if key in entry}
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and not entry.keys().isdisjoint(SERVER_KEYS)
    }
    if not said or not (section is None or isinstance(section, Mapping)):
        return section
    servers = (section or {}).get("servers", {})
    if not isinstance(servers, Mapping) or not all(isinstance(servers.get(name, {}), Mapping) for name in said):
        # Left as it is for `parse_settings`, which names the mistake.
        return section
    # The section overrides the entry, which may have been written for a different host.
    merged = {name: {**keys, **servers.get(name, {})} for name, keys in said.items()}
    return {**(section or {}), "servers": {**servers, **merged}}


def loaded(
    servers: str | os.PathLike[str] | Mapping[str, Any], settings: Settings | None
) -> tuple[mcpjson.Servers, Settings]:
    """The servers of a file or a mapping, and how they are shown.

    Args:
        servers: The file or the mapping.
        settings: Used in place of the file's section, if they are given.

    Raises:
        ConfigError: one of them cannot be used.
    """
    if isinstance(servers, mcpjson.Servers):
        return servers, settings or Settings()
    if isinstance(servers, Mapping):
        parsed = {name: ServerConfig.parse(name, entry) for name, entry in servers.items()}
        return mcpjson.Servers(parsed), settings or Settings()
    found, path = mcpjson.load(servers), Path(servers)
    return found, settings or parse_settings(read_section(path), tuple(found), folder=path.parent)
