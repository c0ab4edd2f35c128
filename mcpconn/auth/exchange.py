"""Single requests of an OAuth flow: how they are sent, and what their refusals say."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

import httpx2
from mcp.shared._httpx_utils import next_request_within_origin

from mcpconn.auth.credentials import CredentialsUnavailable
from mcpconn.redact import Redactor

Fetch = Callable[[httpx2.Request], Awaitable[httpx2.Response]]
"""Sends one request, follows no redirect, and reads the answer."""

TIMEOUT = 20.0
"""Seconds for one request of a flow."""
GRACE = 2.0
"""Seconds that a token request still gets when its connection is closed: the answer may be the only copy of the
new tokens, and the old ones are worth nothing once it was sent."""
REDIRECTS = 5
"""Redirects followed within an origin: the SDK's limit."""
DESCRIPTION_LIMIT = 200
"""Characters kept of an authorization server's own words."""
VERSION_HEADER = "mcp-protocol-version"
SECRET_FIELDS = frozenset({"refresh_token", "client_secret", "code", "code_verifier", "assertion", "client_assertion"})
_CODE = re.compile(r"[a-z_]{1,40}")


async def default_fetch(request: httpx2.Request) -> httpx2.Response:
    """Send a request with a client made for it."""
    async with httpx2.AsyncClient(timeout=TIMEOUT) as client:
        return await client.send(request, follow_redirects=False)


async def follow(request: httpx2.Request, fetch: Fetch) -> httpx2.Response:
    """Send a request; redirects are followed as the SDK follows them, within the origin.

    Raises:
        CredentialsUnavailable: there was no answer.
    """
    try:
        response = await fetch(request)
        for _ in range(REDIRECTS):
            onward = next_request_within_origin(response)
            if onward is None:
                break
            response = await fetch(onward)
    except httpx2.TransportError as error:
        raise unreachable(request, error) from error
    return response


def unreachable(request: httpx2.Request, error: httpx2.TransportError) -> CredentialsUnavailable:
    """The error for a request that was not answered."""
    return CredentialsUnavailable(f"{request.url.host} cannot be reached: {type(error).__name__}")


def refusal(status: int, challenge: str | None) -> httpx2.Response:
    """The refusal that a request met, for a flow that is fed it afterwards."""
    return httpx2.Response(status, headers={"www-authenticate": challenge} if challenge else {})


def is_busy(response: httpx2.Response) -> bool:
    """Whether the answer means "not now"."""
    return response.status_code == 429 or response.status_code >= 500


def is_token_request(request: httpx2.Request) -> bool:
    """Whether the answer to `request` holds tokens. The registration of a client is JSON (RFC 7591)."""
    return request.method == "POST" and "x-www-form-urlencoded" in request.headers.get("content-type", "")


def reason(request: httpx2.Request, response: httpx2.Response) -> str:
    """What a refusal of an authorization server says (RFC 6749, 5.2): code and description, without our secrets."""
    try:
        body = json.loads(response.content)
        code, description = str(body["error"]), str(body.get("error_description", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"HTTP {response.status_code}"
    if not _CODE.fullmatch(code):
        return f"HTTP {response.status_code}"
    secrets = [value for key, value in parse_qsl(request.content.decode("utf-8", "replace")) if key in SECRET_FIELDS]
    said = Redactor(secrets)(" ".join(description.split())[:DESCRIPTION_LIMIT])
    return f"{code} ({said})" if said else code
