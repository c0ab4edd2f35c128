"""Determines what may be shown of an exception that other code raised while credentials were obtained or used.

Its text may contain a request or a response: pydantic quotes an invalid value, h11 an invalid header, httpx the URL. A
redactor does not know a token that has just arrived. So the text is shown only if the exception's type guarantees that
it contains none; otherwise only the type's name and other safe information are shown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio
from mcp.client.auth import OAuthFlowError
from pydantic import ValidationError

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.errors import McpConnError
from mcpconn.sdk import oauth as sdk

T = TypeVar("T")

LIMIT = 200
"""Maximum characters of a text that may be shown."""
MOST_FIELDS = 3

QUOTING = (ValueError, TypeError, LookupError, AssertionError, AttributeError, SyntaxError)
"""Types of Python's own whose texts quote the value that is wrong: int("..."), {}["..."]."""
LIBRARIES = frozenset(
    {
        *("aiohttp", "requests", "requests_oauthlib", "urllib", "urllib3", "yarl"),
        *("h11", "h2", "httpcore", "httpcore2", "httpx", "httpx2", "ssl"),
        *("authlib", "botocore", "cryptography", "google", "jose", "jwt", "msal", "oauthlib"),
        *("anyio", "mcp", "mcp_types", "pydantic", "pydantic_core", "trio"),
    }
)
"""Packages whose errors quote requests and responses, or might."""


def words(error: BaseException, hide: Callable[[str], str]) -> str:
    """What is known of `error`, in words.

    Args:
        error: What was raised.
        hide: Replaces the secrets that are known.
    """
    if isinstance(error, (CredentialsRefused, CredentialsUnavailable, McpConnError)):
        return hide(str(error))
    if isinstance(error, OAuthFlowError):
        return sdk.explained(error)
    name = type(error).__name__
    if isinstance(error, ValidationError):
        return f"{name} ({_fields(error)})"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if type(status) is int:
        return f"{name} (HTTP {status})"
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if isinstance(error.filename, str) else ""
        return hide(f"{error.strerror}{where}")
    behind = error.__cause__ or error.__context__
    if isinstance(behind, OSError) and behind.strerror:
        # What a library made of an error of the system: the system quotes nothing.
        return f"{name} ({behind.strerror})"
    library = (type(error).__module__ or "").partition(".")[0]
    if isinstance(error, QUOTING) or library in LIBRARIES or isinstance(error, anyio.BrokenResourceError):
        return name
    text = " ".join(str(error).split())
    # Hidden first: a secret that is cut in two is not found any more.
    text = hide(text)
    return (text[:LIMIT] + "..." if len(text) > LIMIT else text) or name


async def from_host(call: Callable[[], Awaitable[T]], failed: str, hide: Callable[[str], str]) -> T:
    """What `call` returns. It runs code of the host: a store, or credentials.

    Args:
        call: Runs it.
        failed: What it means if it raises, in words.
        hide: Replaces the secrets that are known.

    Raises:
        CredentialsRefused, CredentialsUnavailable: it raised one of them.
        CredentialsUnavailable: it raised something else.
    """
    try:
        return await call()
    except (CredentialsRefused, CredentialsUnavailable):
        raise
    except Exception as error:  # of the host
        text = f"{failed}: {words(error, hide)}"
    # Outside the handler: what was raised may hold a secret, and is no context of this.
    raise CredentialsUnavailable(text)


def _fields(error: ValidationError) -> str:
    """Which fields are wrong in what way: without the values, and without keys that came with them."""
    found: Iterable[str] = (
        f"{each['loc'][0] if each['loc'] and _is_name(each['loc'][0]) else 'a field'}: {each['type']}"
        for each in error.errors(include_url=False, include_context=False, include_input=False)[:MOST_FIELDS]
    )
    return ", ".join(found)


def _is_name(part: object) -> bool:
    return isinstance(part, str) and part.isidentifier() and len(part) <= 40
