"""`ServerConfig`: one server, as a person wrote it down, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields, replace
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from mcpconn import checks
from mcpconn.errors import ConfigError
from mcpconn.policy import Policy
from mcpconn.redact import (
    Redactor,
    redact_url,
    secrets_of_args,
    secrets_of_env,
    secrets_of_headers,
    secrets_of_url,
)
from mcpconn.validate import NEVER, Count, Limit, Seconds, Text, settings, unknown_key

_SPELLINGS = {"type": "transport", "disable": "disabled"}
_POLICY_NAMES = {"timeout": "call_timeout"}
"""Fields of this class that have another name in `Policy`."""


@settings
class ServerConfig:
    """One server. Exactly one of `url`, `command` and `server` says where it is.

    Immutable; use `dataclasses.replace` for a variant.

    Raises:
        ConfigError: neither or several of them, or a value that cannot be used. `server` and `key` say which.
    """

    url: Annotated[str, AfterValidator(checks.url)] | None = None
    """Address of an MCP endpoint over Streamable HTTP, or SSE with `transport="sse"`."""
    command: Annotated[Text, AfterValidator(checks.command)] | None = None
    """Program to run as a stdio server."""
    server: Any = None
    """A server object of the SDK (`mcp.server.Server` or `MCPServer`), to be run in this process."""
    args: Annotated[Sequence[Text], AfterValidator(tuple)] = ()
    """Arguments of `command`."""
    env: Annotated[Mapping[Text, Text], AfterValidator(checks.environment)] | None = None
    """Environment of `command`, on top of the few variables the SDK passes on."""
    cwd: Annotated[Text, BeforeValidator(checks.path)] | None = None
    """Directory to run `command` in."""
    headers: Annotated[Mapping[str, str], AfterValidator(checks.headers)] | None = None
    """HTTP headers for every request."""
    auth: Annotated[Any, AfterValidator(checks.auth)] = None
    """Credentials: a bearer token, or what `mcpconn.auth` describes."""
    transport: Annotated[str, AfterValidator(checks.transport)] | None = None
    """`stdio`, `http` or `sse`; made out from `url` and `command` if it is not given."""
    mode: Annotated[str, AfterValidator(checks.mode)] = "auto"
    """How to agree on a protocol version, as in `mcp.Client`: `auto`, `legacy`, or a modern version."""
    lazy: bool = False
    """Connect at the first call rather than at once."""
    disabled: bool = False
    """Leave this server out."""
    timeout: Limit | None = None
    """Deadline of a call. See `Policy.call_timeout`; so for the fields below, which have the names of the policy's."""
    connect_timeout: Seconds | None = None
    probe_timeout: Seconds | None = None
    drain_timeout: Seconds | None = None
    keepalive: Limit | None = None
    idle_timeout: Limit | None = None
    max_lifetime: Limit | None = None
    max_in_flight: Count | None = None
    max_waiting: Count | None = None
    catalog: Literal["eager", "lazy", "off"] = "lazy"
    """When the server's tools, resources and prompts are listed: `eager` at each connect; `lazy` from when something
    needs them, such as `list_tools` or a subscriber; `off` only by `catalog.refresh()`."""
    engine: Literal["direct", "httpx"] = "direct"
    """What sends HTTP: `direct`, the engine of this package, or `httpx`, httpx2's own."""
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
        if self.url is not None and self.transport == "stdio":
            raise self.error("transport is stdio, but a url is given; use http or sse", "transport")
        if self.command is not None and self.transport in ("http", "sse"):
            raise self.error(f"transport is {self.transport}, but a command is given; use stdio", "transport")
        if self.url is None and self.auth is not None:
            raise self.error("auth is for servers with a url; give others their secrets in env", "auth")

    @property
    def kind(self) -> str:
        """How the server is reached: `stdio`, `http`, `sse` or `memory`."""
        if self.transport is not None and self.server is None:
            return self.transport
        return "http" if self.url is not None else "stdio" if self.command is not None else "memory"

    def error(self, what: str, key: str | None = None) -> ConfigError:
        """A `ConfigError` that names this server."""
        return ConfigError(f"server {self.name!r}: {what}", server=self.name, key=key)

    def policy(self, base: Policy) -> Policy:
        """`base` with what this server says otherwise."""
        changes: dict[str, Any] = {}
        for item in fields(Policy):
            own = next((key for key, name in _POLICY_NAMES.items() if name == item.name), item.name)
            value = getattr(self, own, None)
            if value is not None:
                changes[item.name] = None if value == NEVER else value
        return replace(base, **changes) if changes else base

    # -- where it is

    @property
    def endpoint(self) -> str:
        """The URL that requests are sent to. The userinfo is not in it: HTTP libraries log the URL of each request."""
        assert self.url is not None
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()

    @property
    def request_headers(self) -> dict[str, str]:
        """The headers of every request: those that were given, and Basic credentials for the userinfo of the URL.

        As in httpx2, the userinfo goes before an Authorization header.
        """
        credentials = checks.userinfo_headers(self.url or "")
        given = {name: value for name, value in (self.headers or {}).items() if name.lower() != "authorization"}
        return {**given, **credentials} if credentials else dict(self.headers or {})

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

    # -- what is secret

    @property
    def redactor(self) -> Redactor:
        """A new redactor that knows everything in this configuration that may be secret."""
        secrets = secrets_of_args(self.args)
        if self.url is not None:
            secrets |= secrets_of_url(self.url)
            secrets |= secrets_of_headers(self.headers or {}) | secrets_of_headers(self.request_headers)
        secrets |= secrets_of_env(self.env or {})
        if isinstance(self.auth, str):
            secrets.add(self.auth)
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
            return cls(name=name, command=entry.command, args=entry.args, env=entry.env, cwd=entry.cwd)
        if entry is not None and hasattr(entry, "run"):
            return cls(name=name, server=entry)
        raise ConfigError(f"server {name!r}: expected a mapping, not {type(entry).__name__}", server=name)

    @classmethod
    def _from_mapping(cls, name: str, entry: Mapping[str, Any]) -> ServerConfig:
        values: dict[str, Any] = {}
        known = [item.name for item in fields(cls) if item.name != "name"]
        for key, value in entry.items():
            target = _SPELLINGS.get(key, key)
            if target not in known:
                what = unknown_key(str(key), [*known, *_SPELLINGS])
                raise ConfigError(f"server {name!r}: {what}", server=name, key=str(key))
            if target in values:
                raise ConfigError(f"server {name!r}: {target} is given twice, as {key!r} too", server=name, key=key)
            values[target] = value
        return cls(name=name, **values)
