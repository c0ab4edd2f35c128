"""The forms in which a secret may appear: unchanged, URL-encoded, in base64, escaped for JSON, Python or HTML."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote

SHORTEST_SECRET = 6
"""Minimum length of values that are replaced: "1" and "true" are everywhere and are not secrets."""
WITHIN_BASE64 = 12
"""Bytes of a secret that is looked for within longer base64. A shorter one has too few characters of its own there."""
SCHEMES = frozenset({"basic", "bearer", "token", "apikey", "api-key", "key", "digest", "dpop", "negotiate"})
"""First words of an Authorization header that are followed by the credentials (RFC 9110, 11.4, and common others)."""


def forms_of(secret: str) -> set[str]:
    """All texts that reveal `secret`: all forms of all its parts."""
    return {form for part in parts_of(secret) for form in _forms(part) if len(form) >= SHORTEST_SECRET}


def parts_of(secret: str) -> set[str]:
    """`secret`, and what is secret in it by itself: a token without its scheme, the password of Basic credentials."""
    parts = {secret, secret.strip()}
    scheme, _, rest = secret.strip().partition(" ")
    if rest and scheme.lower() in SCHEMES:
        # "Bearer abc": the scheme is no secret, and servers echo the token without it.
        parts.add(rest.strip())
    if scheme.lower() == "basic":
        parts.update(_of_basic(rest.strip()))
    return parts


def basic(user: str, password: str) -> str:
    """The value of an Authorization header for a user and a password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogatepass")).decode("ascii")


def _of_basic(encoded: str) -> Iterator[str]:
    try:
        decoded = base64.b64decode(encoded, validate=True).decode("utf-8")
    except ValueError:
        return
    yield decoded
    yield decoded.partition(":")[2]


def _forms(text: str) -> Iterator[str]:
    yield text
    data = text.encode("utf-8", "surrogatepass")
    yield from _in_base64(data)
    yield unquote(text)
    for escaped in (quote(data, safe=""), quote(data), quote_plus(data)):
        yield escaped
        # RFC 3986, 2.1, wants upper case; not every program knows.
        yield _lower_escapes(escaped)
    for ascii_only in (True, False):
        dumped = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield dumped
        # PHP's JSON escapes slashes, and base64 has slashes.
        yield dumped.replace("/", "\\/")
        # JSON in a string of JSON.
        yield json.dumps(dumped, ensure_ascii=ascii_only)[1:-1]
    yield repr(text)[1:-1]
    escaped = html.escape(text)
    yield escaped
    yield escaped.replace("&#x27;", "&#39;")


def _in_base64(data: bytes) -> Iterator[str]:
    """`data` in base64, by itself and within something longer, as a token is in the Basic credentials `user:token`.

    Base64 turns three bytes into four characters, so there are three ways to stand in it. The characters at either
    end that depend on the neighbours too are left out.
    """
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(data).decode("ascii")
        yield encoded
        yield encoded.rstrip("=")
        if len(data) < WITHIN_BASE64:
            continue
        for before in range(3):
            whole = encode(b"\0" * before + data).decode("ascii").rstrip("=")
            rest = (before + len(data)) % 3
            yield whole[(0, 2, 3)[before] : len(whole) - (1 if rest else 0)]


def _lower_escapes(text: str) -> str:
    head, *rest = text.split("%")
    return "%".join([head, *(piece[:2].lower() + piece[2:] for piece in rest)])
