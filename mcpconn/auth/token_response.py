"""Reads what a token endpoint answered: tokens, a refusal, "not now", or something else.

Servers differ from RFC 6749 in every detail: GitHub answers form-encoded and refuses with HTTP 200, Slack says
`"ok": false`, others give `expires_in` as a string or leave it out. All of that is read here, into values of our
own. No other code parses such an answer, because every parser that quotes what it cannot read would put a new
token into an exception; nothing here does, and nothing here quotes more than an error code and a description.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import httpx2
from mcp.shared.auth import OAuthToken

from mcpconn.core.failures import Trouble
from mcpconn.redact.redactor import Redactor

LONGEST_LIFE = 10 * 365 * 86400
"""Seconds. A longer `expires_in` (Infinity, 1e308) is taken for "no end known"."""
DESCRIPTION_LIMIT = 200
"""Characters kept of an authorization server's own words."""

GONE = frozenset({"invalid_client", "unauthorized_client"})
"""Error codes that say the client's registration is not known, or not good for this (RFC 6749, 5.2)."""
NOT_NOW = frozenset(
    {
        # RFC 6749, 4.1.2.1 and RFC 8628, 3.5.
        "temporarily_unavailable",
        "server_error",
        "slow_down",
        # Slack's, GitHub's and Cloudflare's names for the same.
        "ratelimited",
        "rate_limited",
        "rate_limit_exceeded",
        "too_many_requests",
        "service_unavailable",
        "internal_error",
        "internal_server_error",
        "fatal_error",
        "request_timeout",
    }
)
"""Error codes that say nothing about the refresh token."""
BUSY = frozenset({408, 425, 429})
"""HTTP statuses below 500 that mean "not now"."""

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,39}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
"""RFC 6749, A.12 allows spaces as well; no server uses them, and a header cannot end in one."""
NAMED_TYPES = frozenset(
    {
        "application/json",
        "application/problem+json",
        "application/x-www-form-urlencoded",
        "application/xml",
        "text/html",
        "text/plain",
        "text/xml",
    }
)
"""Content types that are named to people. Any other could hold what it likes."""


class Unreadable(Exception):
    """The answer is neither tokens nor a refusal. The text says what it is and quotes nothing of it."""

    trouble = Trouble.UNREADABLE_ANSWER


@dataclass(frozen=True)
class Refused:
    """The authorization server refused."""

    code: str | None
    """Its error code; None if it gave none that can be read."""
    said: str
    """For people: the code with the server's description, or the HTTP status."""
    registration: bool = False
    """It is the client's registration that it does not know, not the token or code."""


@dataclass(frozen=True)
class Busy:
    """The authorization server cannot answer now. Nothing was decided."""

    said: str
    retry_after: float | None = None
    """Seconds the server asks to wait."""


def read(
    response: httpx2.Response, *, secrets: Iterable[str] = (), retry_after: float | None = None
) -> OAuthToken | Refused | Busy:
    """What the answer to a token request amounts to.

    Args:
        response: The answer, its body read.
        secrets: What the request held, and the server may repeat in its description.
        retry_after: Seconds of its Retry-After header.

    Raises:
        Unreadable: it is something else; whether the request was carried out is not known.
    """
    status, fields = response.status_code, fields_of(response)
    code, said = _error(fields, secrets)
    said = said or f"HTTP {status}"
    if status >= 500 or status in BUSY or code in NOT_NOW:
        return Busy(said if code else f"HTTP {status}", retry_after)
    if status < 300 and code is None:
        return _tokens(fields, response)
    if status == 401 or code in GONE or (status == 422 and _names_client(fields)):
        return Refused(code, said, registration=True)
    if code is not None or status == 400:
        if status == 400 and code is None and media_type(response) == "text/html":
            # A proxy's page, or a firewall's. A token endpoint has no web pages.
            raise Unreadable(described(response))
        return Refused(code, said)
    raise Unreadable(described(response))


def plain(response: httpx2.Response, request: httpx2.Request, note: Callable[[str], None]) -> httpx2.Response:
    """The answer to a token request as other parsers expect it: JSON, with the fields of RFC 6749 and no others.

    A refusal, or what cannot be read, becomes one with an error code and no description.
    """
    status: int
    fields: dict[str, Any]
    try:
        outcome = read(response)
    except Unreadable:
        outcome = Refused("unreadable_response", "")
    if isinstance(outcome, OAuthToken):
        for secret in (outcome.access_token, outcome.refresh_token):
            note(secret or "")
        status, fields = 200, outcome.model_dump(mode="json", exclude_none=True)
    elif isinstance(outcome, Busy):
        status, fields = max(response.status_code, 400), {"error": "temporarily_unavailable"}
    else:
        status, fields = max(response.status_code, 400), {"error": outcome.code or "invalid_request"}
    return httpx2.Response(status, json=fields, request=request)


def refused_words(response: httpx2.Response, secrets: Iterable[str] = ()) -> str:
    """A refusal in words: its error code and description where it has them, otherwise what kind of answer it is."""
    return _error(fields_of(response), secrets)[1] or described(response)


def fields_of(response: httpx2.Response) -> dict[str, Any]:
    """The fields of a JSON object or a form, whatever Content-Type says; empty if it is neither."""
    text = response.content.decode("utf-8-sig", "replace").strip()
    try:
        if text.startswith("{"):
            parsed = json.loads(text)
            return parsed if isinstance(parsed, dict) else {}
        if re.match(r"[A-Za-z_]+=", text) and "<" not in text:
            return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=100))
    except (ValueError, RecursionError):
        # Cut, nested too deep, or with numbers of thousands of digits.
        pass
    return {}


def media_type(response: httpx2.Response) -> str:
    """The Content-Type without its parameters."""
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def described(response: httpx2.Response) -> str:
    """An answer in words that quote nothing of it but its status and a well-known content type."""
    if 300 <= response.status_code < 400:
        return redirected(response)
    given = media_type(response)
    kind = given if given in NAMED_TYPES else "another content type" if given else "no content type"
    return f"HTTP {response.status_code}, {len(response.content)} bytes, {kind}"


def redirected(response: httpx2.Response) -> str:
    """A redirect that is not followed, with its target's origin: the rest of the URL may carry state."""
    onward = response.next_request
    where = f" to {onward.url.scheme}://{onward.url.netloc.decode('ascii', 'replace')}" if onward is not None else ""
    return f"HTTP {response.status_code}, a redirect{where}, which is not followed with credentials"


def _error(fields: dict[str, Any], secrets: Iterable[str]) -> tuple[str | None, str]:
    code: Any = fields.get("error")
    description: Any = fields.get("error_description")
    if isinstance(code, dict):
        # Some wrap it: {"error": {"code": "...", "message": "..."}}.
        code, description = code.get("code") or code.get("type"), code.get("message")
    if isinstance(fields.get("access_token"), str) or not isinstance(code, str) or not code:
        return None, ""
    hide = Redactor(secrets)
    if not _CODE.fullmatch(code) or hide(code) != code:
        return "unknown", "an invalid error code"
    # Hidden first, cut afterwards: a secret that is cut in two is not found any more.
    words = hide(" ".join(description.split())) if isinstance(description, str) else ""
    words = "".join(character for character in words if character.isprintable())
    if len(words) > DESCRIPTION_LIMIT:
        words = words[:DESCRIPTION_LIMIT] + "..."
    return code, f"{code} ({words})" if words else code


def _names_client(fields: dict[str, Any]) -> bool:
    """Whether a 422 (FastAPI, Rails) is about the client: nothing else of it is standardised."""
    try:
        return "client" in json.dumps(fields).lower()
    except (ValueError, TypeError, RecursionError):
        return False


def _tokens(fields: dict[str, Any], response: httpx2.Response) -> OAuthToken:
    access = text_of(fields.get("access_token"))
    if access is None:
        raise Unreadable(f"{described(response)}, without an access token")
    kind = fields.get("token_type")
    if isinstance(kind, str) and kind and kind.strip().lower() != "bearer":
        # RFC 6749, 7.1: a client must not use a token whose type it does not understand.
        raise Unreadable(f"{described(response)}, with a token that is not a bearer token")
    scope = fields.get("scope")
    if isinstance(scope, list):
        scope = " ".join(each for each in scope if isinstance(each, str))
    return OAuthToken(
        access_token=access,
        expires_in=seconds(fields.get("expires_in")),
        scope=" ".join(scope.split()) if isinstance(scope, str) and scope.strip() else None,
        refresh_token=text_of(fields.get("refresh_token")),
    )


def text_of(value: object) -> str | None:
    """A token; None if it is none that a header or a form could carry."""
    if not isinstance(value, str):
        return None
    value = value.strip()
    return value if _TOKEN.fullmatch(value) else None


def seconds(value: object) -> int | None:
    """A lifetime in whole seconds.

    None if no end is known: nothing was said, or nothing that could be (a negative number, a word, Infinity).
    0 is such a thing, too. Taken at its word, a token of no seconds would be renewed before each request; the
    server that still accepts it says when it does not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and 1 <= number <= LONGEST_LIFE else None
