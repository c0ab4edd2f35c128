"""The `credentials` of a server in the `gateway` section: which credentials the server receives."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from mcpconn.errors import ConfigError
from mcpconn.gateway.access.jwks import check_url
from mcpconn.gateway.secret_files import read_secret
from mcpconn.gateway.sections import STRING, STRINGS, Section

SHARED, LOGIN, EXCHANGE = "shared", "login", "exchange"
EXCHANGE_KEYS = (
    *("token_endpoint", "client_id", "client_secret_env", "client_secret_file"),
    *("audience", "resource", "scopes"),
)
SCOPES = replace(STRINGS, fits=lambda value: STRINGS.fits(value) and all(value))


@dataclass(frozen=True)
class UserLogin:
    """Each user logs in at the server, by OAuth. If a client is already registered, the entry's `auth` names it."""


@dataclass(frozen=True)
class TokenExchange:
    """Each user's token is exchanged for one for the server (RFC 8693)."""

    token_endpoint: str
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    audience: str | None = None
    """The upstream's name at the authorization server (`audience`)."""
    resource: str | None = None
    """The upstream's URI; None: its entry's URL."""
    scopes: tuple[str, ...] = ()


UserCredentials = UserLogin | TokenExchange


class UpstreamAuthSettings(Protocol):
    """The part of the gateway's settings that decides which credentials its servers receive."""

    @property
    def credentials(self) -> Mapping[str, UserCredentials]:
        """Servers that receive their users' own credentials, and how these are obtained."""

    @property
    def allowed_addresses(self) -> tuple[str, ...]:
        """Private hosts and networks that may be contacted if a server names them in its metadata."""


def parse_credentials(where: str, value: Any, *, server: str, folder: Path) -> UserCredentials | None:
    """Parse a server's `credentials`. None: all users share the credentials of its entry.

    Args:
        where: The key, for errors.
        value: Its value.
        server: The server's name.
        folder: Base of relative paths.

    Raises:
        ConfigError: names the key and the fix.
    """
    if value == SHARED:
        return None
    if value == LOGIN:
        return UserLogin()
    if not isinstance(value, Mapping) or set(value) != {EXCHANGE}:
        raise ConfigError(
            f'{where} must be "{SHARED}", "{LOGIN}" or {{"{EXCHANGE}": {{...}}}}', server=server, key="credentials"
        )
    where, entry = f"{where}.{EXCHANGE}", value[EXCHANGE]
    given = Section(where, entry, EXCHANGE_KEYS, server=server)
    scopes = given.get("scopes", SCOPES, ())
    texts = {key: given.require(key, STRING) for key in entry if key != "scopes"}
    if "token_endpoint" not in texts:
        raise ConfigError(f"{where}.token_endpoint is missing: the URL that exchanges tokens", server=server)
    check_url(texts["token_endpoint"], f"{where}.token_endpoint")
    secret = _secret(where, texts, folder)
    if secret is not None and "client_id" not in texts:
        raise ConfigError(f"{where}: a client secret needs a client_id", server=server, key="client_id")
    kept = {key: texts.get(key) for key in ("client_id", "audience", "resource")}
    return TokenExchange(texts["token_endpoint"], client_secret=secret, scopes=scopes, **kept)


def _secret(where: str, texts: Mapping[str, str], folder: Path) -> str | None:
    """The client's secret. It is in a separate file, because configuration files are shown and shared."""
    if (name := texts.get("client_secret_env")) is not None:
        if not os.environ.get(name):
            raise ConfigError(f"{where}.client_secret_env: the variable {name} is not set", key="client_secret_env")
        return os.environ[name]
    if (path := texts.get("client_secret_file")) is None:
        return None
    key = "client_secret_file"
    return read_secret(path, where=f"{where}.{key}", key=key, folder=folder)
