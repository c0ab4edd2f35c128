"""`ServerConfig`: one server, as a person wrote it down, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

from mcpconn.errors import ConfigError
from mcpconn.policy import Policy
from mcpconn.redact import Redactor, redact_url, secrets_of_url

TRANSPORTS = {
    "stdio": "stdio",
    "http": "http",
    "https": "http",
    "streamable-http": "http",
    "streamable_http": "http",
    "streamablehttp": "http",
    "sse": "sse",
}
"""Spellings of `type`/`transport` found in configuration files of hosts, in lower case, and what they mean."""

ENGINES = ("direct", "httpx")
"""What can send HTTP; see `mcpconn.wire.engine`."""

_SPELLINGS = {"type": "transport", "disable": "disabled"}
_POLICY_KEYS = {
    "timeout": "call_timeout",
    "connect_timeout": "connect_timeout",
    "probe_timeout": "probe_timeout",
    "drain_timeout": "drain_timeout",
    "keepalive": "keepalive",
    "idle_timeout": "idle_timeout",
    "max_lifetime": "max_lifetime",
    "max_in_flight": "max_in_flight",
    "max_waiting": "max_waiting",
}


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """One server. Exactly one of `url`, `command` and `server` says where it is.

    Raises:
        ConfigError: neither or several of them, a URL that is not http(s), or a value that cannot be used.
    """

    url: str | None = None
    """Address of an MCP endpoint over Streamable HTTP, or SSE with `transport="sse"`."""
    command: str | None = None
    """Program to run as a stdio server."""
    server: Any = None
    """A server object of the SDK (`mcp.server.Server` or `MCPServer`), to be run in this process."""
    args: Sequence[str] = ()
    """Arguments of `command`."""
    env: Mapping[str, str] | None = None
    """Environment of `command`, on top of the few variables the SDK passes on."""
    cwd: str | None = None
    """Directory to run `command` in."""
    headers: Mapping[str, str] | None = None
    """HTTP headers for every request."""
    auth: Any = None
    """Credentials: see `mcpconn.auth`."""
    transport: str | None = None
    """`stdio`, `http` or `sse`; made out from `url` and `command` where not given."""
    mode: str = "auto"
    """How to agree on a protocol version, as in `mcp.Client`: `auto`, `legacy`, or a modern version."""
    lazy: bool = False
    """Connect at the first call rather than at once."""
    disabled: bool = False
    """Leave this server out."""
    timeout: float | None = None
    """Deadline of a call in seconds, in place of the policy's."""
    connect_timeout: float | None = None
    probe_timeout: float | None = None
    drain_timeout: float | None = None
    keepalive: float | None = None
    idle_timeout: float | None = None
    max_lifetime: float | None = None
    max_in_flight: int | None = None
    max_waiting: int | None = None
    engine: str = "direct"
    """What sends HTTP: `direct`, the fast engine of this package, or `httpx`, httpx2's own."""
    http_transport: Any = None
    """An `httpx2.AsyncBaseTransport` in place of the network: another engine, or a test's script."""
    options: Mapping[str, Any] | None = None
    """Arguments for this server's `mcp.Client` (callbacks and so on), on top of the manager's."""
    name: str = field(default="", compare=False)
    """What messages call it."""

    def __post_init__(self) -> None:
        given = [key for key in ("url", "command", "server") if getattr(self, key) is not None]
        if len(given) != 1:
            what = "neither a url nor a command" if not given else " and ".join(given)
            raise self.error(f"has {what}; give exactly one of url, command and server", given[0] if given else "url")
        kind = TRANSPORTS.get(str(self.transport).lower()) if self.transport is not None else None
        if self.transport is not None and kind is None:
            raise self.error(f"unknown transport {self.transport!r}; known: stdio, http, sse", "transport")
        if self.url is not None:
            self._check_url(self.url)
            if kind == "stdio":
                raise self.error("transport is stdio, but a url is given; use http or sse", "transport")
        elif self.command is not None:
            if not self.command.strip():
                raise self.error("the command is empty", "command")
            if kind in ("http", "sse"):
                raise self.error(f"transport is {kind}, but a command is given; use stdio", "transport")
        if self.engine not in ENGINES:
            raise self.error(f"unknown engine {self.engine!r}; known: {', '.join(ENGINES)}", "engine")
        if isinstance(self.args, str):
            raise self.error("args must be a list of strings, not one string", "args")
        for key in ("env", "headers"):
            self._check_texts(key)
        object.__setattr__(self, "args", tuple(str(value) for value in self.args))
        self.policy(Policy())

    @property
    def kind(self) -> str:
        """How the server is reached: `stdio`, `http`, `sse` or `memory`."""
        if self.transport is not None and self.server is None:
            return TRANSPORTS[self.transport.lower()]
        return "http" if self.url is not None else "stdio" if self.command is not None else "memory"

    def error(self, what: str, key: str | None = None) -> ConfigError:
        """A `ConfigError` that names this server."""
        return ConfigError(f"server {self.name!r}: {what}", server=self.name, key=key)

    def _check_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            # Nothing of the text is shown: what is no URL may be a pasted token.
            raise self.error("url is not a valid http or https address", "url")

    def _check_texts(self, key: str) -> None:
        mapping = getattr(self, key)
        if mapping is None:
            return
        if not isinstance(mapping, Mapping):
            raise self.error(f"{key} must be a mapping of names to strings", key)
        for name, value in mapping.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise self.error(f"{key}.{name} must be a string, not {type(value).__name__}", key)

    def policy(self, base: Policy) -> Policy:
        """`base` with what this server says otherwise."""
        changes = {target: getattr(self, key) for key, target in _POLICY_KEYS.items() if getattr(self, key) is not None}
        for key, target in _POLICY_KEYS.items():
            if target in changes and (
                isinstance(changes[target], bool) or not isinstance(changes[target], (int, float))
            ):
                raise self.error(f"{key} must be a number of seconds", key)
        try:
            return replace(base, **changes) if changes else base
        except ConfigError as error:
            # By the name it has in this configuration.
            key = next(key for key, target in _POLICY_KEYS.items() if target == error.key)
            raise self.error(f"{key}{str(error).partition(str(error.key))[2]}", key) from None

    @property
    def origin(self) -> str:
        """What dials are limited by: host and port of a URL, the program of a command."""
        if self.url is not None:
            parts = urlsplit(self.url)
            return f"{parts.scheme}://{parts.hostname}:{parts.port or ''}"
        return self.command or "memory"

    @property
    def address(self) -> str:
        """Where the server is, for people: no secrets in it."""
        if self.url is not None:
            return redact_url(self.url)
        return self.command or f"in-process {type(self.server).__name__}"

    @property
    def label(self) -> str:
        """A name for a server that has none: its host, or its program."""
        if self.url is not None:
            return self.address.partition("://")[2].partition("/")[0]
        return (self.command or "in-process").replace("\\", "/").rpartition("/")[2]

    @property
    def redactor(self) -> Redactor:
        """Hides everything in this configuration that may be secret."""
        secrets = set(secrets_of_url(self.url)) if self.url else set()
        secrets.update((self.headers or {}).values())
        secrets.update((self.env or {}).values())
        if isinstance(self.auth, str):
            secrets.add(self.auth)
        secrets.update(value.rpartition("=")[2] for value in self.args if len(value) >= 16 or "=" in value)
        return Redactor(secrets)

    def __repr__(self) -> str:
        extra = "".join(f", {key}={sorted(getattr(self, key))}" for key in ("headers", "env") if getattr(self, key))
        return f"<ServerConfig {self.name!r} {self.kind} {self.address}{extra}>"

    @classmethod
    def parse(cls, name: str, entry: Any) -> ServerConfig:
        """A configuration from whatever `mcp.Client` takes, or from an entry of an mcp.json.

        Args:
            name: What the server is called.
            entry: A `ServerConfig`, a mapping, a URL, `StdioServerParameters`, or a server object.

        Raises:
            ConfigError: names the server and the key.
        """
        if isinstance(entry, ServerConfig):
            return entry if entry.name == name else replace(entry, name=name)
        if isinstance(entry, Mapping):
            return cls._from_mapping(name, entry)
        if isinstance(entry, str):
            return cls(name=name, url=entry)
        if hasattr(entry, "command") and hasattr(entry, "args"):
            return cls(
                name=name,
                command=entry.command,
                args=entry.args,
                env=entry.env,
                cwd=entry.cwd and str(entry.cwd),
            )
        if entry is not None and hasattr(entry, "run"):
            return cls(name=name, server=entry)
        raise ConfigError(f"server {name!r}: expected a mapping, not {type(entry).__name__}", server=name)

    @classmethod
    def _from_mapping(cls, name: str, entry: Mapping[str, Any]) -> ServerConfig:
        known = {item.name for item in fields(cls) if item.default is not MISSING} - {"name"}
        values: dict[str, Any] = {}
        for key, value in entry.items():
            target = _SPELLINGS.get(key, key)
            if target not in known:
                from difflib import get_close_matches  # only ever needed here, for a mistake

                close = get_close_matches(str(key), [*known, *_SPELLINGS], n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(sorted(known))}"
                raise ConfigError(f"server {name!r}: unknown key {key!r}{hint}", server=name, key=str(key))
            if target in values:
                raise ConfigError(f"server {name!r}: {target} is given twice, as {key!r} too", server=name, key=key)
            values[target] = value
        for key, kind in (
            ("url", str),
            ("command", str),
            ("cwd", str),
            ("lazy", bool),
            ("disabled", bool),
            ("mode", str),
        ):
            if values.get(key) is not None and not isinstance(values[key], kind):
                raise ConfigError(
                    f"server {name!r}: {key} must be {'true or false' if kind is bool else 'a string'}",
                    server=name,
                    key=key,
                )
        if not isinstance(values.get("args", ()), (list, tuple)):
            raise ConfigError(f"server {name!r}: args must be a list of strings", server=name, key="args")
        return cls(name=name, **values)
