"""Readable information from the headers of a refusal: why credentials were refused, what a proxy requires, what is
allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx2

from mcpconn.redact.redactor import Redactor

LIMIT = 200
"""Characters of one header that are shown."""

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9_-]*)(?:\s|$)")
_PARAMETER = re.compile(
    r"""(?:^|[\s,])(?P<name>error_description|error|scope)\s*=\s*
                            (?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+))""",
    re.VERBOSE | re.IGNORECASE,
)


def hint(response: httpx2.Response, redact: Redactor) -> str | None:
    """The information that the headers of `response` add to its status. None if they add nothing.

    Args:
        response: Of status 400 or more.
        redact: Replaces secrets, before anything is truncated.
    """
    status = response.status_code
    parts: list[str] = []
    if status in (401, 403):
        parts = [_challenge(value) for value in response.headers.get_list("www-authenticate")]
    elif status == 407:
        parts = [_challenge(value) for value in response.headers.get_list("proxy-authenticate")]
    elif status == 405 and response.headers.get("allow"):
        parts = [f"it allows {response.headers['allow']}"]
    text = " ".join(redact("; ".join(part for part in parts if part)).split())
    text = "".join(character for character in text if character.isprintable())
    return (text[:LIMIT] + "..." if len(text) > LIMIT else text) or None


def _challenge(value: str) -> str:
    """A challenge in words (RFC 9110, 11.6.1; RFC 6750, 3): `invalid_token: it has expired; scope files:read`."""
    said = {match["name"].lower(): _unquoted(match) for match in _PARAMETER.finditer(value)}
    return "; ".join(_sentences(said, value))


def _sentences(said: dict[str, str], value: str) -> Iterator[str]:
    error, description = said.get("error", ""), said.get("error_description", "")
    if error or description:
        yield ": ".join(part for part in (error, description) if part)
    if said.get("scope"):
        yield f"scope {said['scope']}"
    if not said.get("error") and not description and (scheme := _SCHEME.match(value)):
        # Otherwise the scheme at least tells the kind of credentials that is required. The realm is not shown, because
        # it can be an internal name.
        yield f"it wants {scheme[1]} credentials"


def _unquoted(match: re.Match[str]) -> str:
    quoted = match["quoted"]
    return re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else match["plain"]
