"""`ServerConfig`: the validated settings of one server."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, WrapValidator

from mcpconn import checks
from mcpconn.dialects.hosts import IN_CODE, Host
from mcpconn.dialects.outside import complete
from mcpconn.dialects.translate import snake, translate
from mcpconn.errors import ConfigError
from mcpconn.login import Login
from mcpconn.policy import Policy
from mcpconn.redact.places import (
    redact_url,
    secrets_of_args,
    secrets_of_env,
    secrets_of_headers,
    secrets_of_inherited,
    secrets_of_url,
)
from mcpconn.redact.redactor import Redactor
from mcpconn.tls import TlsSettings
from mcpconn.validate import NEVER, Count, Limit, Seconds, Text, settings

_OF_THE_LIBRARY = frozenset({"name", "notes", "problem"})
"""Fields that an entry cannot set."""
_ONLY_IN_CODE = frozenset({"server", "http_transport", "options"})
"""Fields whose values are objects."""
_TLS = tuple(item.name for item in fields(TlsSettings))
_POLICY_NAMES = {"timeout": "call_timeout"}
"""Fields of this class that have a different name in `Policy`."""
_OF_POLICY = tuple(
    (item.name, next((key for key, name in _POLICY_NAMES.items() if name == item.name), item.name))
    for item in fields(Policy)
)
"""The fields of `Policy`, and what they are called here."""
_SHARED_TLS = TlsSettings()


@settings
class ServerConfig:
    """The settings of one server. Set exactly one of `url`, `command` and `server`.

    Immutable; use `dataclasses.replace` for a variant.

    Raises:
        ConfigError: none or several of them are set, or a value is invalid. `server` and `key` say which.
    """

    url: Annotated[str, AfterValidator(checks.url)] | None = None
    """Address of an MCP endpoint over Streamable HTTP, or SSE with `transport="sse"`."""
    command: Annotated[Text, AfterValidator(checks.command)] | None = None
    """Program to run as a stdio server."""
    server: Annotated[Any, AfterValidator(checks.server)] = None
    """A server object of the SDK (`mcp.server.Server` or `MCPServer`), to be run in this process; or a `Transport`,
    which is opened once, for one session; or a function that returns a new `Transport` for each session."""
    args: Annotated[Sequence[Text], AfterValidator(tuple)] = ()
    """Arguments of `command`."""
    env: Annotated[Mapping[Text, Text], AfterValidator(checks.environment)] | None = None
    """Environment variables for `command`, in addition to the few that the SDK passes on."""
    inherit_env: Annotated[bool | Sequence[str], WrapValidator(checks.inherited_names)] = False
    """Pass on the variables of this process: all of them, or those with these names. `*` matches any characters, as in
    `*_PROXY`; case is ignored. `env` overrides them."""
    cwd: Annotated[Text, BeforeValidator(checks.path)] | None = None
    """Directory to run `command` in."""
    headers: Annotated[Mapping[str, str], AfterValidator(checks.headers)] | None = None
    """HTTP headers for every request."""
    auth: Annotated[Any, AfterValidator(checks.auth)] = None
    """Credentials: a bearer token, a login by OAuth (`client_id`, `client_secret`, `scopes`, `redirect_uri`), or in
    code what `mcpconn.auth` describes."""
    encoding: Annotated[str, AfterValidator(checks.encoding)] = "utf-8"
    """The encoding of what `command` reads and writes. The protocol's is UTF-8."""
    encoding_errors: Literal["strict", "ignore", "replace"] = "strict"
    """How to handle a character that cannot be encoded, or a byte that cannot be decoded: see `codecs`. With `strict`
    the message that contains it is an error, and the session continues."""
    verify: bool = True
    """Verify the server's certificate. False: anyone on the network path can read and change everything that is
    sent."""
    ca_file: Annotated[Text, BeforeValidator(checks.path)] | None = None
    """A PEM file with the certificate authorities to trust for this server, instead of the system's."""
    client_cert: Annotated[Text, BeforeValidator(checks.path)] | None = None
    """A PEM file with the certificate that identifies this client, and its private key unless `client_key` has it."""
    client_key: Annotated[Text, BeforeValidator(checks.path)] | None = None
    """A PEM file with the private key of `client_cert`."""
    client_key_password: Text | None = None
    """The password of that key."""
    transport: Annotated[str, AfterValidator(checks.transport)] | None = None
    """`stdio`, `http` or `sse`; derived from `url` and `command` by default."""
    mode: Annotated[str, AfterValidator(checks.mode)] = "auto"
    """How to negotiate the protocol version, as in `mcp.Client`: `auto`, `legacy`, or a modern version; or
    `prefer-legacy`, which uses a modern version only if the server supports no other."""
    lazy: bool = False
    """Connect at the first call instead of immediately."""
    disabled: bool = False
    """Ignore this server."""
    timeout: Limit | None = None
    """Deadline of a call. See `Policy.call_timeout`, and `Policy` for the following fields, which have the same
    names."""
    connect_timeout: Seconds | None = None
    start_timeout: Seconds | None = None
    probe_timeout: Seconds | None = None
    drain_timeout: Seconds | None = None
    keepalive: Limit | None = None
    idle_timeout: Limit | None = None
    max_lifetime: Limit | None = None
    max_in_flight: Count | None = None
    max_waiting: Count | None = None
    catalog: Literal["eager", "lazy", "off"] = "lazy"
    """When to list the server's tools, resources and prompts: `eager` at each connect; `lazy` once they are needed, for
    example by `list_tools` or a subscriber; `off` only by `catalog.refresh()`."""
    engine: Literal["direct", "httpx"] = "direct"
    """The HTTP client: `direct`, the engine of this package, or `httpx`, that of httpx2."""
    http_transport: Any = None
    """An `httpx2.AsyncBaseTransport` to use instead of the network: a different engine, or a test's script."""
    options: Mapping[str, Any] | None = None
    """Arguments for this server's `mcp.Client` (callbacks and so on), in addition to the manager's."""
    name: str = field(default="", compare=False)
    """The name in messages."""
    problem: str | None = None
    """Why this entry is invalid. A server with a problem is `failed` from the beginning, and is never dialled."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Notes for users about how the entry was interpreted."""

    def __post_init__(self) -> None:
        if self.problem is not None:
            return
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
        self._check_tls()

    def _check_tls(self) -> None:
        settings = self.tls
        if settings is None:
            return
        given = next(key for key in _TLS if getattr(self, key) != getattr(TlsSettings(), key))
        if self.url is None:
            raise self.error(f"{given} is for servers with a url", given)
        if self.ca_file is not None and not self.verify:
            raise self.error("ca_file is of no use if verify is false; remove one of them", "ca_file")
        if self.client_cert is None and (self.client_key or self.client_key_password) is not None:
            raise self.error("client_key belongs to a client_cert, and there is none", "client_key")
        try:
            settings.check()
        except ValueError as error:
            raise self.error(str(error), str(error).partition(" ")[0]) from None

    @property
    def kind(self) -> str:
        """How the server is reached: `stdio`, `http`, `sse`, `memory`, or by a given `transport`; `unknown` if its
        entry is invalid."""
        if self.problem is not None:
            return "unknown"
        if self.transport is not None and self.server is None:
            return self.transport
        if self.server is not None:
            return "memory" if checks.is_server(self.server) else "transport"
        return "http" if self.url is not None else "stdio"

    def error(self, what: str, key: str | None = None) -> ConfigError:
        """A `ConfigError` that names this server."""
        return ConfigError(f"server {self.name!r}: {what}", server=self.name, key=key)

    def policy(self, base: Policy) -> Policy:
        """`base` with this server's overrides."""
        changes: dict[str, Any] = {}
        for name, own in _OF_POLICY:
            value = getattr(self, own, None)
            if value is not None:
                changes[name] = None if value == NEVER else value
        return replace(base, **changes) if changes else base

    @property
    def tls(self) -> TlsSettings | None:
        """This server's own TLS settings; None: it shares those of the program."""
        settings = TlsSettings(**{key: getattr(self, key) for key in _TLS})
        return settings if settings != _SHARED_TLS else None

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables for `command` in addition to the few that the SDK passes on: those inherited from `environ`,
        and `env`."""
        return {**self._inherited(environ), **(self.env or {})}

    def _inherited(self, environ: Mapping[str, str]) -> dict[str, str]:
        if isinstance(self.inherit_env, bool):
            return dict(environ) if self.inherit_env else {}
        patterns = [pattern.upper() for pattern in self.inherit_env]
        return {
            name: value
            for name, value in environ.items()
            if any(fnmatchcase(name.upper(), pattern) for pattern in patterns)
        }

    # -- location

    @property
    def endpoint(self) -> str:
        """The URL that requests are sent to, without the userinfo, because HTTP libraries log the URL of each
        request."""
        assert self.url is not None
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()

    @property
    def request_headers(self) -> dict[str, str]:
        """The headers of every request: the given headers, and Basic credentials for the userinfo of the URL.

        As in httpx2, the userinfo overrides an Authorization header.
        """
        credentials = checks.userinfo_headers(self.url or "")
        given = {name: value for name, value in (self.headers or {}).items() if name.lower() != "authorization"}
        return {**given, **credentials} if credentials else dict(self.headers or {})

    @property
    def origin(self) -> str:
        """The key by which dials are limited: host and port of a URL, or the program of a command."""
        if self.url is not None:
            parts = urlsplit(self.url)
            return f"{parts.scheme}://{parts.hostname}:{parts.port or ''}"
        # A server with a problem shares its origin with no other.
        return self.command or (f"unknown:{self.name}" if self.problem is not None else "memory")

    @property
    def route(self) -> tuple[Hashable, Hashable] | None:
        """The keys under which a refused dial is shared with other connections: the port, and the URL. None: not
        shared.

        An address that is reached through a different transport counts as a different port.
        """
        if self.url is None:
            return None
        way = id(self.http_transport) if self.http_transport is not None else None
        return (self.origin, way), (self.endpoint, way)

    @property
    def address(self) -> str:
        """The server's address for display, without secrets."""
        if self.url is not None:
            return redact_url(self.url)
        if self.problem is not None:
            return "unknown"
        if self.kind == "transport":
            return f"transport {_name_of(self.server)}"
        if self.command is not None:
            # Some users put the arguments, including secrets, into `command`.
            return Redactor(secrets_of_args(self.command.split()))(self.command)
        return f"in-process {type(self.server).__name__}"

    @property
    def label(self) -> str:
        """A default name for a server without a name: its host, or its program."""
        if self.url is not None:
            return self.address.partition("://")[2].partition("/")[0]
        if self.kind == "transport":
            return _name_of(self.server)
        return (self.address if self.command is not None else "in-process").replace("\\", "/").rpartition("/")[2]

    # -- secrets

    @property
    def redactor(self) -> Redactor:
        """A new redactor for everything in this configuration that may be secret."""
        secrets = secrets_of_args((*(self.command or "").split(), *self.args))
        if self.url is not None:
            secrets |= secrets_of_url(self.url)
            secrets |= secrets_of_headers(self.headers or {}) | secrets_of_headers(self.request_headers)
        secrets |= secrets_of_env(self.env or {}) | secrets_of_inherited(self._inherited(os.environ))
        if self.client_key_password is not None:
            secrets.add(self.client_key_password)
        if isinstance(self.auth, str):
            secrets.add(self.auth)
        elif isinstance(self.auth, Login) and self.auth.client_secret is not None:
            secrets.add(self.auth.client_secret)
        return Redactor(secrets)

    def __repr__(self) -> str:
        if self.problem is not None:
            return f"<ServerConfig {self.name!r} cannot be used: {self.problem}>"
        extra = "".join(f", {key}={sorted(getattr(self, key))}" for key in ("headers", "env") if getattr(self, key))
        return f"<ServerConfig {self.name!r} {self.kind} {self.address}{extra}>"

    @classmethod
    def parse(cls, name: str, entry: Any) -> ServerConfig:
        """A configuration from anything that `mcp.Client` accepts, or from an entry of an mcp.json.

        Args:
            name: Name of the server.
            entry: A `ServerConfig`, a mapping, a URL, `StdioServerParameters`, a server object, a `Transport`, or a
                function that returns a `Transport`.

        Raises:
            ConfigError: names the server and the key.
        """
        if isinstance(entry, ServerConfig):
            return entry if entry.name == name else replace(entry, name=name)
        if isinstance(entry, Mapping):
            return cls.from_entry(name, entry)
        if isinstance(entry, str):
            return cls(name=name, url=entry)
        if hasattr(entry, "command") and hasattr(entry, "args"):
            return cls(
                name=name,
                command=entry.command,
                args=entry.args,
                env=entry.env,
                cwd=entry.cwd,
                encoding=getattr(entry, "encoding", "utf-8"),
                encoding_errors=getattr(entry, "encoding_error_handler", "strict"),
            )
        if entry is not None and (checks.is_transport(entry) or checks.is_server(entry) or callable(entry)):
            return cls(name=name, server=entry)
        raise ConfigError(f"server {name!r}: expected a mapping, not {type(entry).__name__}", server=name)

    @classmethod
    def from_entry(
        cls,
        name: str,
        entry: Mapping[Any, Any],
        *,
        host: Host = IN_CODE,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        expand: Callable[[Any, str], Any] | None = None,
    ) -> ServerConfig:
        """A configuration from an entry in a host's format.

        Args:
            name: Name of the server.
            entry: Its keys and values.
            host: The host whose file contains the entry. In code, a `timeout` is in seconds and objects are allowed.
            environ: Resolves values that are names of variables; the process's environment by default.
            folder: The base of relative paths of env files; the current folder by default.
            expand: Replaces variables in a value.

        Raises:
            ConfigError: names the server and the key.
        """
        known = frozenset(item.name for item in fields(cls)) - _OF_THE_LIBRARY
        if host is not IN_CODE:
            known -= _ONLY_IN_CODE
        try:
            read = translate(entry, host, known, expand)
            values = complete(read, os.environ if environ is None else environ, folder or Path())
        except ValueError as error:
            key = getattr(error, "key", None)
            raise ConfigError(f"server {name!r}: {error}", server=name, key=key) from None
        try:
            return cls(name=name, notes=tuple(read.notes), **values)
        except ConfigError as error:
            written = read.written.get(error.key or "")
            if written is None or snake(written) == error.key:
                raise
            raise ConfigError(f"{error} (given as {written!r})", server=name, key=error.key) from None


def _name_of(transport: Any) -> str:
    """The name of a transport, or of the function that creates one."""
    # contextlib's context managers record the function that created them.
    made_by = getattr(transport, "func", transport)
    name = getattr(made_by, "__name__", type(transport).__name__)
    return "transport" if name == "<lambda>" else str(name)
