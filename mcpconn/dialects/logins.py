"""How hosts write down credentials: a token, or a login by OAuth and what `Login` calls it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcpconn.dialects.unclear import Unclear

KEYS: Mapping[str, str] = {
    "client_id": "client_id",
    "clientid": "client_id",
    "client_secret": "client_secret",
    "clientsecret": "client_secret",
    "scopes": "scopes",
    "scope": "scopes",
    "oauth_scopes": "scopes",
    "oauth_client_id": "client_id",
    "redirect_uri": "redirect_uri",
    "callback_url": "redirect_uri",
    "callback_port": "redirect_uri",
}
"""Keys of a login, in snake_case, and what they are here. Cursor's are in capitals: CLIENT_ID."""
ELSEWHERE = frozenset({"scopes", "oauth_scopes", "oauth_client_id", "client_id", "client_secret"})
"""Those that stand beside the login in an entry: Codex, Kiro, Copilot CLI, Goose."""
_TOKENS = ("token", "access_token", "bearer_token", "bearer")
_LOGIN_WORDS = frozenset({"oauth", "oauth2", "dynamic_discovery"})
"""Values of `auth` and `authProviderType` that ask for a login and say no more."""
_NOTHING = frozenset({"", "none", "bearer", "basic"})
"""Values of `auth` that say how, and not what."""
_ONLY_THERE = frozenset({"chatgpt", "google_credentials", "service_account_impersonation"})
"""Values of `auth` for which only the host itself has credentials."""
_FLAGS = frozenset({"enabled", "public_client", "oauth_public_client", "type", "grant_type", "client_name"})
"""Keys that need no note: this is how a login is made here."""
_ENDPOINTS = re.compile(
    r"(?:auth|token|registration|issuer|audience|resource|metadata|revocation|response|pkce|code).*"
)
"""Keys by which a host is told what the server says of itself."""
_LOCAL = re.compile(r"http://(?:localhost|127\.0\.0\.1|\[::1\])(?:[:/]|$)")


@dataclass
class Asked:
    """What a key asks for."""

    token: Any = None
    login: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


def asked(key: str, value: Any, snake: Callable[[str], str], *, in_code: bool) -> Asked:
    """What `auth`, `oauth` or one of their kin asks for.

    Args:
        key: As it is written.
        value: Its value.
        snake: From a key to snake_case.
        in_code: It is from a program, which may give credentials of any kind.

    Raises:
        Unclear: it is nothing that is known, or that could be had here.
    """
    plain = snake(key)
    if value is None or value is False:
        return Asked()
    if isinstance(value, Mapping) and in_code and plain == "auth":
        # In the names of `Login`; what is not is said there.
        return Asked(login=dict(value))
    if isinstance(value, Mapping):
        return _mapping(key, value, snake, lenient=plain == "oauth")
    word = value.strip().lower() if isinstance(value, str) else None
    if word in _LOGIN_WORDS or (value is True and plain == "oauth"):
        return Asked(login={})
    if not in_code and word in _ONLY_THERE:
        raise Unclear(f"{key}: {word} is a login that only the host itself can perform", key)
    if plain in ("oauth", "auth_provider_type"):
        raise Unclear(f"{key} must be a mapping, or true or false", key)
    if not in_code and word in _NOTHING:
        return Asked()
    if not in_code and word is None:
        raise Unclear(f"{key} must be a token, or a mapping with a client_id", key)
    return Asked(token=value)


def _mapping(key: str, given: Mapping[Any, Any], snake: Callable[[str], str], *, lenient: bool) -> Asked:
    if given.get("enabled") is False:
        return Asked()
    if snake(key) == "api_key":
        # LibreChat: a key of the administrator's, or one that it asks of each person.
        if given.get("source", "admin") != "admin" or given.get("authorization_type", "bearer") != "bearer":
            raise Unclear(f"{key} is requested from the user by the host; give a header here", key)
        return Asked(token=given.get("key"))
    token = next((given[each] for each in _TOKENS if given.get(each)), None)
    if token is not None:
        return Asked(token=token)
    found = Asked(login=login_of(given, key, snake))
    for inner in given:
        plain = _plain(inner, snake)
        if plain in KEYS or plain in _FLAGS:
            continue
        if not lenient and not _ENDPOINTS.fullmatch(plain):
            raise Unclear(f"{key} must be a token, or a mapping with a client_id; this one is not understood", key)
        found.notes.append(f"{key}.{inner} is not used: the login's parameters are discovered from the server")
    uri = found.login and found.login.get("redirect_uri")
    if isinstance(uri, str) and not _LOCAL.match(uri):
        # Of a host that is a web server itself: the browser would come back to it, and not to this program.
        found.login = {name: each for name, each in (found.login or {}).items() if name != "redirect_uri"}
        found.notes.append(f"{key}: the redirect address is not used: it does not lead to this machine")
    return found


def login_of(given: Mapping[Any, Any], key: str, snake: Callable[[str], str]) -> dict[str, Any]:
    """What a mapping says of a login, in the names of `Login`."""
    login: dict[str, Any] = {}
    for inner, value in given.items():
        plain = _plain(inner, snake)
        if value is None or plain not in KEYS:
            continue
        if plain == "callback_port":
            # Claude Code: always this path.
            value = f"http://localhost:{value}/callback"
        elif KEYS[plain] == "redirect_uri" and isinstance(value, str) and "://" not in value:
            value = f"http://{value}"
        login[KEYS[plain]] = value
    return login


def _plain(key: Any, snake: Callable[[str], str]) -> str:
    return str(key).lower() if str(key).isupper() else snake(str(key))
