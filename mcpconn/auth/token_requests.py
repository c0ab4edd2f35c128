"""Sends the requests of an OAuth flow, and turns whatever comes back into a value or an error of our own.

No exception of another library leaves this module, nor is one the cause or context of what does: their texts can
hold a header, a body, a token. What is known of them (the host, the kind of failure, the system's words for a
refused connect) is said instead.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, unquote

import anyio
import httpx2
from mcp.shared.auth import OAuthToken

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.token_response import Busy, Refused, Unreadable, read
from mcpconn.errors import ConfigError
from mcpconn.sdk.http import NOT_WRITTEN

Fetch = Callable[[httpx2.Request], Awaitable[httpx2.Response]]
"""Sends one request, follows no redirect, and reads the answer."""

TIMEOUT = 20.0
"""Seconds for one request of a flow, redirects and the whole answer included: one that trickles in ends, too."""
GRACE = 2.0
"""Seconds that a token request still gets when its connection is closed: the answer may be the only copy of the
new tokens, and the old ones are worth nothing once it was sent."""
BODY_LIMIT = 1024 * 1024
"""Bytes of an answer that are read. Metadata of the largest providers are some 10 KiB."""
REDIRECTS = 5
"""Redirects followed within an origin: the SDK's limit."""
RETRY_AFTER_LIMIT = 3600.0
"""Seconds. A longer Retry-After is taken for this."""
VERSION_HEADER = "mcp-protocol-version"
SECRET_FIELDS = frozenset(
    {"refresh_token", "client_secret", "code", "code_verifier", "assertion", "client_assertion", "subject_token"}
)


class NoAnswer(CredentialsUnavailable):
    """A request was not answered, or its answer could not be read."""

    def __init__(self, text: str, *, written: bool) -> None:
        super().__init__(text)
        self.written = written
        """The request may have been carried out: tokens may have been issued that were never received."""


async def default_fetch(request: httpx2.Request) -> httpx2.Response:
    """Send a request with a client made for it."""
    async with httpx2.AsyncClient(timeout=TIMEOUT) as client:
        return await send(client, request)


async def send(client: httpx2.AsyncClient, request: httpx2.Request) -> httpx2.Response:
    """Send a request and read its answer, `BODY_LIMIT` bytes of it at most. Follows no redirect.

    Raises:
        httpx2.RequestError: there was no answer.
    """
    response = await client.send(request, stream=True, follow_redirects=False)
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > BODY_LIMIT:
                raise httpx2.ReadError(f"more than {BODY_LIMIT} bytes", request=request)
    finally:
        await response.aclose()
    # The body is decoded already: it goes on without the headers that say how it was sent.
    kept = [
        (name, value)
        for name, value in response.headers.multi_items()
        if name.lower() not in ("content-encoding", "content-length", "transfer-encoding")
    ]
    whole = httpx2.Response(response.status_code, headers=kept, content=bytes(body), request=request)
    whole.next_request = response.next_request
    return whole


async def ask(request: httpx2.Request, fetch: Fetch) -> httpx2.Response:
    """Send a request of a flow; redirects are followed as the SDK follows them, within the origin.

    Raises:
        NoAnswer: there was no answer.
        CredentialsRefused: the environment's settings keep the request from being sent.
    """
    failed: CredentialsUnavailable | CredentialsRefused
    cause: Exception | None = None
    try:
        with anyio.fail_after(TIMEOUT):
            response = await fetch(request)
            for _ in range(REDIRECTS):
                onward = within_origin(response)
                if onward is None:
                    break
                response = await fetch(onward)
            return response
    except TimeoutError:
        failed = NoAnswer(f"{_place(request)}: no answer within {TIMEOUT:g} s", written=True)
    except ConfigError as error:
        # A proxy or a certificate file that the environment names and that is none: no server is to blame.
        failed, cause = CredentialsRefused(str(error)), ConfigError(str(error))
    except (httpx2.RequestError, httpx2.StreamError, httpx2.InvalidURL) as error:
        words, untrusted = _words(error)
        failed = NoAnswer(f"{_place(request)}: {words}", written=not isinstance(error, NOT_WRITTEN))
        # Its type makes the failure one of the configuration: waiting does not make a certificate good.
        cause = ssl.SSLCertVerificationError(1, str(failed)) if untrusted else None
    # Outside the handler, so that the library's exception is not the context of this one.
    raise failed from cause


def within_origin(response: httpx2.Response) -> httpx2.Request | None:
    """The request that follows a redirect, if it is one that may be followed with what the request holds.

    That is when it keeps the method and stays within the origin, or goes from http to https on the same host and
    the default ports, and brings no userinfo of its own.
    """
    onward = response.next_request
    if onward is None or onward.method != response.request.method:
        return None
    here, there = response.request.url, onward.url
    if there.userinfo and there.userinfo != here.userinfo:
        return None
    upgraded = (here.scheme, here.port, there.scheme, there.port) == ("http", None, "https", None)
    same = (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)
    return onward if same or (upgraded and here.host == there.host) else None


async def request_tokens(request: httpx2.Request, fetch: Fetch) -> OAuthToken | Refused:
    """Send a token request.

    Returns:
        Tokens, or how they were refused.

    Raises:
        CredentialsUnavailable: nothing was decided; `NoAnswer` where something may have been.
    """
    # Some answer form-encoded unless they are asked (GitHub).
    request.headers.setdefault("accept", "application/json")
    response = await ask(request, fetch)
    try:
        outcome = read(response, secrets=secrets_of(request), retry_after=retry_after(response))
    except Unreadable as error:
        failed = NoAnswer(
            f"{_place(request)}: the answer cannot be used ({error})",
            # A page, a redirect, a wrong address: none of them is what a server says that has issued tokens.
            written=response.status_code < 300,
        )
    else:
        if isinstance(outcome, Busy):
            raise CredentialsUnavailable(f"{_place(request)}: {outcome.said}", retry_after=outcome.retry_after)
        return outcome
    raise failed


def refusal(status: int, challenge: str | None) -> httpx2.Response:
    """The refusal that a request met, for a flow that is fed it afterwards."""
    return httpx2.Response(status, headers={"www-authenticate": challenge} if challenge else {})


def is_busy(response: httpx2.Response) -> bool:
    """Whether the answer means "not now"."""
    return response.status_code in (408, 425, 429) or response.status_code >= 500


def is_token_request(request: httpx2.Request) -> bool:
    """Whether the answer to `request` holds tokens. The registration of a client is JSON (RFC 7591)."""
    return request.method == "POST" and "x-www-form-urlencoded" in request.headers.get("content-type", "")


def retry_after(response: httpx2.Response) -> float | None:
    """Retry-After in seconds from now (RFC 9110, 10.2.3): a number of seconds, or a date."""
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        if value.isascii() and value.replace(".", "", 1).isdigit():
            return min(float(value), RETRY_AFTER_LIMIT)
        when = parsedate_to_datetime(value)
        when = when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)
        return min(max(0.0, (when - datetime.now(timezone.utc)).total_seconds()), RETRY_AFTER_LIMIT)
    except (ValueError, TypeError, OverflowError):
        return None


def secrets_of(request: httpx2.Request) -> set[str]:
    """What a request of a flow holds that must not be shown, should the answer repeat it."""
    found: set[str] = set()
    if is_token_request(request):
        found.update(
            value for key, value in parse_qsl(request.content.decode("utf-8", "replace")) if key in SECRET_FIELDS
        )
    found.update(_of_basic(request.headers.get("authorization", "")))
    return {value for value in found if value}


def _of_basic(header: str) -> Iterator[str]:
    """`client_secret_basic`: the header's value, and the secret inside it (RFC 6749, 2.3.1)."""
    scheme, _, value = header.partition(" ")
    if value:
        yield value
    if scheme.lower() == "basic":
        try:
            secret = base64.b64decode(value).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return
        yield secret
        yield unquote(secret)


def _place(request: httpx2.Request) -> str:
    """Where a request went, without userinfo, path and query."""
    url = request.url
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}"


def _words(error: Exception) -> tuple[str, bool]:
    """What is known of an error of httpx2, and whether the reason is a certificate that is not trusted."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({getattr(behind, 'verify_message', None) or 'not valid'})", True
        if isinstance(behind, ssl.SSLError):
            return "no TLS connection could be made", False
        if isinstance(behind, OSError) and behind.strerror:
            return behind.strerror.lower(), False
        behind = behind.__cause__ or behind.__context__
    known = {
        "ConnectError": "cannot be connected to",
        "ConnectTimeout": "cannot be connected to in time",
        "ReadTimeout": "no answer in time",
        "RemoteProtocolError": "the connection was closed before the answer was complete",
        "ReadError": "the connection was cut before the answer was complete",
        "DecodingError": "the answer is compressed in a way that cannot be read",
        "UnsupportedProtocol": "not an http or https URL",
    }
    return known.get(type(error).__name__, f"no answer ({type(error).__name__})"), False
