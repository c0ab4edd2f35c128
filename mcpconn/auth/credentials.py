"""The protocol of credentials, and the two simplest kinds: a token, and a callable that returns one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, runtime_checkable

import anyio
import httpx2
from typing_extensions import Required, TypedDict

from mcpconn.core.failures import Trouble

Given = str | Mapping[str, str]
"""A bearer token, or headers."""
Source = Callable[[], Given | Awaitable[Given]]


@runtime_checkable
class Credentials(Protocol):
    """The protocol that a connection uses. One object may serve many connections."""

    async def headers(self) -> Mapping[str, str]:
        """Headers for the next request. Called for each request, so it should be fast.

        Raises:
            Exception: they cannot be obtained now. The request is not sent, and the connection tries again later.
        """

    async def refresh(self, challenge: str | None) -> bool:
        """Renew the credentials that `headers` returns, because a server has refused them.

        Called once per refusal, regardless of the number of refused calls, and by one connection at a time. If other
        connections use the same credentials, it is called only if `headers` still returns the refused ones.

        Args:
            challenge: The server's WWW-Authenticate header.

        Returns:
            False if only a person can: the connection is `failed` then, until `update_credentials()`.

        Raises:
            CredentialsRefused: only a person can renew them; the text says what the person must do.
            Exception: renewal is impossible at the moment, and is tried again after a wait.
        """


class CredentialsRefused(Exception):
    """Only a person can renew the credentials. The text says what the person must do."""

    trouble = Trouble.CREDENTIALS_REFUSED


class CredentialsUnavailable(httpx2.ConnectError):
    """The credentials are temporarily unavailable: their source, or the authorization server, does not answer.

    It counts as a connect error, because the request was not sent and can be sent later.
    """

    trouble = Trouble.CREDENTIALS_UNAVAILABLE

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """
        Args:
            message: What does not answer, as text.
            retry_after: Seconds to wait before the next attempt.
        """
        super().__init__(message)
        self.retry_after = retry_after


def as_headers(given: Given) -> Mapping[str, str]:
    """Headers for a token, which often comes from a file and ends in a newline; a mapping of headers is returned
    unchanged.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(given, str):
        return {"Authorization": f"Bearer {given.strip()}"}
    if not isinstance(given, Mapping):
        raise TypeError(f"credentials must be a token or a mapping of headers, not {type(given).__name__}")
    return dict(given)


class StaticBearer:
    """A bearer token that only a person can renew."""

    renewable = False
    """A refusal leads to a probe of the connection instead of a refresh."""

    def __init__(self, token: str) -> None:
        self._headers = as_headers(token)

    async def headers(self) -> Mapping[str, str]:
        """The token."""
        return self._headers

    async def refresh(self, challenge: str | None) -> bool:
        """There is nothing to renew."""
        return False

    def __repr__(self) -> str:
        return "<StaticBearer>"


class FromCallable:
    """Credentials from a callable, sync or async, that returns a token or headers.

    It is called when credentials are first needed, and again when a server refuses them, because a callable that
    queries a token service would otherwise query it for every request. If the call is cheap and new tokens appear
    before the server refuses the old one (a file that another process keeps up to date), use `cached=False`: then it is
    called for every request.
    """

    def __init__(self, source: Source, *, cached: bool = True) -> None:
        """
        Args:
            source: Returns a token or headers. It runs on the event loop; make it async if it waits.
            cached: Keep the returned value until it is refused.
        """
        self._source = source
        self._cached = cached
        self._last: Mapping[str, str] | None = None
        self._lock = anyio.Lock()

    async def headers(self) -> Mapping[str, str]:
        """The last value of the callable, or a new one."""
        if self._last is not None and self._cached:
            return self._last
        async with self._lock:
            if self._last is None or not self._cached:
                self._last = await self._ask()
            return self._last

    async def refresh(self, challenge: str | None) -> bool:
        """Call it again. The same value as before is not a renewal."""
        refused = self._last
        async with self._lock:
            if self._last is refused:
                self._last = await self._ask()
            return self._last != refused

    def forget(self) -> None:
        """Call it again for the next request."""
        self._last = None

    async def _ask(self) -> Mapping[str, str]:
        given = self._source()
        return as_headers(await given if inspect.isawaitable(given) else given)

    def __repr__(self) -> str:
        return f"<FromCallable {getattr(self._source, '__name__', type(self._source).__name__)}>"


class CredentialsStatus(TypedDict, total=False):
    """Credentials in `status()`: their kind, and what they are waiting for; not the credentials themselves."""

    kind: Required[str]
    """The name of their class."""
    issuer: str | None
    """The authorization server, without secrets."""
    expires_at: float | None
    """When the access token expires, in seconds since 1970."""
    waiting: str | None
    """Which process delays the renewal, if it takes long."""
