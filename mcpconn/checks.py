"""Checks of the fields of a server's entry. Each check returns the normalized value, or raises `ValueError`.

A value that passes cannot fail later for its form: the library that rejects it during a dial would quote it.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from mcpconn import headers as fields
from mcpconn.errors import ConfigError
from mcpconn.login import Login
from mcpconn.redact.forms import basic
from mcpconn.redact.redactor import HIDDEN
from mcpconn.redact.tokens import looks_like_token

PREFER_LEGACY = "prefer-legacy"
"""Try the legacy handshake first, and use the modern protocol if the server refuses it: the reverse of `auto`."""
MODES = ("auto", "legacy", *MODERN_PROTOCOL_VERSIONS)
"""The values that `mcp.Client` accepts as `mode`."""
TRANSPORTS = {
    "stdio": "stdio",
    "local": "stdio",
    "http": "http",
    "https": "http",
    "remote": "http",
    "streaming": "http",
    "httpstream": "http",
    "httpstreamable": "http",
    "streamablehttp": "http",
    "sse": "sse",
}
"""Spellings of `type` and `transport` in the configuration files of hosts, in lower case and without `-` and `_`."""

OTHER_SCHEMES = ("ws", "wss", "unix", "pipe", "npipe", "file", "tcp", "stdio")
"""URL schemes in hosts' files that imply a transport."""
_HOST = re.compile(rb"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%25[\w.-]+)?")
"""A host's name after IDNA, or an address. `httpx2.URL` escapes anything else, into a name that cannot exist in DNS."""


def url(text: str) -> str:
    """An http(s) URL, without surrounding spaces."""
    stripped = text.strip(" \t\r\n\ufeff")
    if (scheme := stripped.partition(":")[0].lower()) in OTHER_SCHEMES and "://" in stripped:
        raise ValueError(f"must be an http or https address; {scheme}:// is not known here")
    try:
        parts = urlsplit(stripped)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        # The library that sends the requests is stricter: control characters, names that IDNA does not allow.
        valid = valid and bool(_HOST.fullmatch(httpx2.URL(stripped).raw_host))
        _ = unquote(parts.netloc, errors="strict").encode("utf-8")
    except (ValueError, httpx2.InvalidURL):
        valid = False
    if not valid:
        # The text is not shown: if it is not a URL, it may be a pasted token.
        raise ValueError("is not a valid http or https address")
    return stripped


def userinfo_headers(text: str) -> dict[str, str]:
    """Basic credentials for the userinfo of a URL, as a header."""
    parts = urlsplit(text)
    if not (parts.username or parts.password):
        return {}
    return {"Authorization": basic(unquote(parts.username or ""), unquote(parts.password or ""))}


def command(text: str) -> str:
    """A program's name or path."""
    if not text.strip():
        raise ValueError("the command is empty")
    # The program is not started by a shell, so a tilde would not be expanded.
    return os.path.expanduser(text.strip())


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Variables that an operating system accepts."""
    for name in env:
        if not name or "=" in name:
            start = name.partition("=")[0]
            shown = HIDDEN if looks_like_token(start) else repr(start)
            raise ValueError(f"{shown}: a variable's name must not be empty or contain =")
    return dict(env)


def inherited_names(given: Any, check: Callable[[Any], Any]) -> bool | tuple[str, ...]:
    """True, False, or a list of names. (Checked here because pydantic's error for a union lists what each member would
    be.)"""
    if isinstance(given, bool):
        return given
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise ValueError("must be true, false, or a list of names")
    return tuple(given)


def headers(given: Mapping[str, str]) -> dict[str, str]:
    """Headers that HTTP can carry."""
    return fields.checked_headers(given)


def auth(given: Any) -> Any:
    """A bearer token that a header can carry, a login, or any other kind of credentials, unchanged."""
    if isinstance(given, Mapping):
        try:
            return Login(**{str(key): value for key, value in given.items()})
        except ConfigError as error:
            raise ValueError(f"must be a token or a login: {str(error).partition(': ')[2]}") from None
    if not isinstance(given, str):
        return given
    token = given.strip()
    # "Bearer abc" is the value of a header; this setting expects the token alone.
    if token[:7].lower() == "bearer ":
        token = token[7:].strip()
    if not token:
        raise ValueError("the token is empty")
    fields.checked_headers({"Authorization": f"Bearer {token}"})
    return token


def transport(text: str) -> str:
    """`stdio`, `http` or `sse`, from any host's name for it."""
    kind = TRANSPORTS.get(text.strip().lower().replace("-", "").replace("_", ""))
    if kind is None:
        raise ValueError("is not known; known: stdio, http, sse")
    return kind


def mode(text: str) -> str:
    """A mode of connecting that the SDK knows, or `PREFER_LEGACY`."""
    if text == PREFER_LEGACY:
        return text
    if text in HANDSHAKE_PROTOCOL_VERSIONS:
        hint = f"; got {text!r} ({text!r} is a handshake-era version; use mode='legacy')"
    elif text not in MODES:
        # The value is not shown: if it is not a version, it may be a secret in the wrong place.
        hint = ""
    else:
        return text
    # The SDK's own text, so that people can search for it.
    raise ValueError(f"must be 'legacy', 'auto', or one of {list(MODERN_PROTOCOL_VERSIONS)}{hint}")


def encoding(text: str) -> str:
    """A text encoding that Python knows."""
    try:
        codecs.lookup(text)
    except LookupError:
        raise ValueError("is not an encoding that Python knows") from None
    return text


def is_transport(given: Any) -> bool:
    """Whether an object is a transport in the SDK's sense: a context manager that yields two streams."""
    return hasattr(type(given), "__aenter__") and hasattr(type(given), "__aexit__")


def is_server(given: Any) -> bool:
    """Whether an object is a server object of the SDK."""
    return hasattr(given, "run") and not is_transport(given)


def server(given: Any) -> Any:
    """A server without an address: a server object, a transport, or a function that returns a transport."""
    if given is None or is_transport(given) or is_server(given) or callable(given):
        return given
    raise ValueError("must be a server object, a transport, or a function that returns a transport")


def path(given: Any) -> Any:
    """A path, with `~` expanded to the home directory."""
    if isinstance(given, os.PathLike):
        given = os.fspath(given)
    return os.path.expanduser(given) if isinstance(given, str) else given
