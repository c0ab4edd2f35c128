"""What credentials are to a connection, and the two simplest kinds: a token, and a callable that has one."""

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
    """What a connection asks of credentials. One object may serve many connections."""

    async def headers(self) -> Mapping[str, str]:
        """Headers for the next request. Asked for each request, so this should not take long.

        Raises:
            Exception: they cannot be obtained now. The request is not sent, and the connection tries again later.
        """

    async def refresh(self, challenge: str | None) -> bool:
        """Renew what `headers` gives: a server has refused it.

        Called once for a refusal, however many calls met it, and by one connection at a time; with other
        connections of the same credentials, only where `headers` still gives what was refused.

        Args:
            challenge: The server's WWW-Authenticate header.

        Returns:
            False if only a person can: the connection is `failed` then, until `update_credentials()`.

        Raises:
            CredentialsRefused: the same, and its text says what the person must do.
            Exception: it could not be tried now, and is tried again after a wait.
        """


class CredentialsRefused(Exception):
    """The credentials cannot be renewed without a person. The text says what that person must do."""

    trouble = Trouble.CREDENTIALS_REFUSED


class CredentialsUnavailable(httpx2.ConnectError):
    """The credentials cannot be obtained now: their source, or the authorization server, does not answer.

    An error of connecting, because that is what it is to the request: it was not sent, and can be sent later.
    """

    trouble = Trouble.CREDENTIALS_UNAVAILABLE

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """
        Args:
            message: What does not answer, for people.
            retry_after: Seconds it asks to wait before the next try.
        """
        super().__init__(message)
        self.retry_after = retry_after


def as_headers(given: Given) -> Mapping[str, str]:
    """Headers for a token, which often comes from a file and ends in a newline; headers as they are.

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
    """A refusal is looked into (the connection is probed) rather than answered by a refresh."""

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

    It is called when credentials are first needed, and again when a server refuses them: a callable that asks
    a token service would otherwise be a request to that service for every request. Where it is cheap and knows
    of new tokens before the server refuses the old one (a file that another process keeps up to date), use
    `cached=False`, and it is called for every request.
    """

    def __init__(self, source: Source, *, cached: bool = True) -> None:
        """
        Args:
            source: Returns a token or headers. It runs on the event loop; make it async if it waits.
            cached: Keep what it returned until that is refused.
        """
        self._source = source
        self._cached = cached
        self._last: Mapping[str, str] | None = None
        self._lock = anyio.Lock()

    async def headers(self) -> Mapping[str, str]:
        """What the callable returned last, or returns now."""
        if self._last is not None and self._cached:
            return self._last
        async with self._lock:
            if self._last is None or not self._cached:
                self._last = await self._ask()
            return self._last

    async def refresh(self, challenge: str | None) -> bool:
        """Call it again. The same answer as before is no renewal."""
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
    """Credentials in `status()`: their kind, and what they wait for. Not the credentials."""

    kind: Required[str]
    """The name of their class."""
    issuer: str | None
    """The authorization server, without secrets."""
    expires_at: float | None
    """When the access token expires, in seconds since 1970."""
    waiting: str | None
    """Who holds up the renewal, if that takes long."""
