"""Access to the status page and its actions.

A page that shows a host's connections is reached by three kinds of client: a person's browser, which carries its
cookies into every request that any page makes; a program such as `mcpconn watch --attach` or Prometheus, which sends
a key; and, on a loopback listener, anything that runs on this machine, including web pages of other sites.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from mcpconn.loopback import is_loopback

COOKIE = "__Host-mcpconn"
"""The prefix makes browsers insist on `Secure`, on `Path=/` and on no `Domain` (RFC 6265bis, 4.1.3.2). They accept
http://localhost as secure."""
ACTION_HEADER = "x-mcpconn-action"
"""A header that no form and no page of another site can send without this server's permission (Fetch standard,
CORS)."""
LOGIN_LIFETIME = 12 * 3600.0
"""Seconds after which a person has to log in again."""
LOGINS = 1000
"""Logins kept at once; the oldest is forgotten beyond that."""
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Headers of a reverse proxy: behind one, the peer's address is not the client's."""


@dataclass(frozen=True)
class Access:
    """The keys of a status page.

    Without keys, only clients on this machine have access, under its own name, and they may do everything that
    `allow_actions` allows.
    """

    read_key: str | None = field(default=None, repr=False)
    """Gives access to the page, the data and the metrics."""
    act_key: str | None = field(default=None, repr=False)
    """Gives access to the same, and to the actions. None: actions are disabled, unless there is no `read_key`
    either."""
    allow_actions: bool = True
    """False disables actions for all clients."""

    def __post_init__(self) -> None:
        for name in ("read_key", "act_key"):
            key = getattr(self, name)
            if key is not None and (not isinstance(key, str) or len(key) < 16):
                raise ValueError(f"{name} must be a string of 16 characters or more: whoever has it can open the page")

    @property
    def open(self) -> bool:
        """Whether no key is required."""
        return self.read_key is None and self.act_key is None

    def right_of(self, key: str) -> str | None:
        """The access that a key gives: "act", "read", or None."""
        if _same(key, self.act_key):
            return "act" if self.allow_actions else "read"
        return "read" if _same(key, self.read_key) else None


class Guard:
    """Decides on requests; remembers logins in this process."""

    def __init__(self, access: Access, *, now: Callable[[], float] = monotonic) -> None:
        self.access = access
        self._now = now
        self._logins: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def right(self, request: Request) -> str | None:
        """The access of a request: "act", "read", or None."""
        if self.access.open:
            if not _from_this_machine(request):
                return None
            return "act" if self.access.allow_actions else "read"
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.access.right_of(key.strip())
        return self._login_of(request.cookies.get(COOKIE))

    def log_in(self, key: str) -> str | None:
        """A new cookie's value for a valid key; None for an invalid one."""
        right = self.access.right_of(key)
        if right is None:
            return None
        token = secrets.token_urlsafe(32)
        self._logins[_digest(token)] = right, self._now() + LOGIN_LIFETIME
        while len(self._logins) > LOGINS:
            self._logins.popitem(last=False)
        return token

    def log_out(self, request: Request) -> None:
        """Forget the login of a request."""
        self._logins.pop(_digest(request.cookies.get(COOKIE, "")), None)

    def _login_of(self, token: str | None) -> str | None:
        if token is None:
            return None
        right, until = self._logins.get(_digest(token), (None, 0.0))
        return right if self._now() < until else None


def set_cookie(response: Response, token: str) -> None:
    """Give a browser its login. `Strict`: no other site's link or form brings it along."""
    response.set_cookie(COOKIE, token, max_age=int(LOGIN_LIFETIME), httponly=True, secure=True, samesite="strict")


def own_page(request: Request) -> bool:
    """Whether a page of this server requested an action, according to its origin and the header."""
    origin = request.headers.get("origin")
    if origin is None or ACTION_HEADER not in request.headers:
        return False
    return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower() != ""


def _from_this_machine(request: Request) -> bool:
    """Whether client and server name are this machine. The name matters as much: a foreign site whose DNS entry was
    changed to 127.0.0.1 reaches a loopback listener from its visitors' browsers (DNS rebinding)."""
    if any(name in request.headers for name in FORWARDED):
        return False
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return is_loopback(host) and request.client is not None and is_loopback(request.client.host)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _same(given: str, wanted: str | None) -> bool:
    # Digests have a fixed length, so the comparison takes constant time.
    return wanted is not None and hmac.compare_digest(_digest(given), _digest(wanted))
