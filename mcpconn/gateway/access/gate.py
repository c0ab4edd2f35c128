"""The layer in front of the endpoints: identifies the principal of a request, checks its rights, and ends its
streams."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlsplit

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from mcpconn.errors import ConfigError
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.credentials import INBOUND_KEY, Identity, NotNow, Refused
from mcpconn.gateway.access.keys import PREFIX, hash_of, principal_of_key
from mcpconn.gateway.access.limits import Limits, TooMany
from mcpconn.gateway.access.rights import RIGHTS_KEY, Rights
from mcpconn.gateway.http.asgi import header, refuse, replay, until
from mcpconn.gateway.http.bodies import Bodies, BodyRefused
from mcpconn.gateway.principals import ANONYMOUS, SCOPE_KEY, Principal
from mcpconn.observe import log

METADATA = "/.well-known/oauth-protected-resource"
"""RFC 9728, section 3: the resource's path follows."""
AGAIN = 5
"""Seconds after which a client may try again while an issuer's keys are not loaded."""
LOOK = 0.25
"""Seconds between looks at the key file for the sake of open streams and of other replicas. A look is one `stat`; all
replicas have to refuse a key within a second of its removal, and each adds up to 0.5 s until it hears of it."""


class Gate:
    """Checks the credential of every request, and assigns its principal and rights."""

    def __init__(
        self,
        app: ASGIApp,
        settings: AccessSettings,
        *,
        view: Callable[[Scope], str | None],
        bodies: Bodies,
        public_url: str | None = None,
        ended: Callable[[Principal], None] = lambda principal: None,
        now: Callable[[], float] = anyio.current_time,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            app: The endpoints.
            settings: Who is let in.
            view: The view that a request is for; None if it is for no endpoint.
            bodies: Reads the bodies of requests that are counted.
            public_url: The gateway's own address for clients, without a path: for metadata and challenges. None: what
                a request says in its Host header.
            ended: Called with a principal whose key was removed, to end everything that belongs to it.
            now: Monotonic seconds.
            wall: Seconds since 1970, as in the tokens.
        """
        self._app = app
        self.settings = settings
        """May be replaced while the gateway runs; the next request is judged by the new ones."""
        self._view = view
        self._bodies = bodies
        self._public_url = public_url.rstrip("/") if public_url else None
        self._ended = ended
        self._wall = wall
        self.limits = Limits(now)
        """What principals with a limit use at present."""
        self._known: dict[str, str] = {}
        self._refused: set[str] = set()
        self.removed: Callable[[str], None] = lambda key_hash: None
        """Called with the hash of each key that is removed from the file."""
        self._streams: defaultdict[Principal, set[anyio.Event]] = defaultdict(set)

    async def watch(self) -> None:
        """While the gateway runs, end everything that belongs to removed keys."""
        while True:
            known, keys = self._known, self.settings.keys
            try:
                present = keys.hashes() if keys is not None else {}
            except ConfigError as error:
                log.error("gateway.keys_unusable", error=str(error))
                present = {}
            else:
                for key_hash in known.keys() - present.keys():
                    self.removed(key_hash)
            # A name may have got a new key since the last check; everything that the old key opened still ends.
            left = {name for _, name in known.items() & present.items()}
            for name in set(known.values()) - left:
                self.revoke(principal_of_key(name))
            self._known = present
            await anyio.sleep(LOOK)

    def refuse(self, key_hash: str) -> None:
        """A key was removed in another process: it is refused here, even if this process's file contains it."""
        self._refused.add(key_hash)
        name = self._known.get(key_hash)
        if name is not None and list(self._known.values()).count(name) == 1:
            self.revoke(principal_of_key(name))

    def revoke(self, principal: Principal) -> None:
        """End the streams of a principal that may not go on."""
        for event in tuple(self._streams.get(principal, ())):
            event.set()
        self._ended(principal)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(METADATA) and self.settings.issuers:
            await self._metadata(scope, send)
            return
        view = self._view(scope) if scope["type"] == "http" else None
        if view is None or not self.settings.asks:
            await self._app(scope, receive, send)
            return
        identity = await self._identity(scope, send)
        if identity is None:
            return
        rights = self.rights(identity)
        if rights is None or not rights.view(view):
            await refuse(send, 403, "Your credential gives no access to this endpoint")
            return
        leave = _nothing
        try:
            if rights.limited and scope["method"] == "POST":
                body = await self._bodies.read(scope, receive)
                receive = replay(body, receive)
                # An answer to a server's question, or a notification, is never held back: a call may wait for it.
                if _is_request(body):
                    leave = self.limits.enter(identity.principal, rights)
        except BodyRefused as refusal:
            await refuse(send, refusal.status, refusal.text, headers=(("connection", "close"),))
            return
        except TooMany as error:
            retry = (("retry-after", str(error.retry_after)),)
            await refuse(send, 429, f"Too many requests: {error}", headers=retry)
            return
        try:
            await self._pass(scope, receive, send, identity, rights)
        finally:
            leave()

    def rights(self, identity: Identity) -> Rights | None:
        """The rights of a credential's owner; None: no access."""
        return next((each for each in self.settings.rules if each.fits(identity.principal, identity.scopes)), None)

    def knows(self, principal: Principal) -> bool:
        """Whether a principal's key, if it has one, has not been removed."""
        if principal == ANONYMOUS:
            return not self.settings.asks
        if principal.issuer:
            return any(each.issuer == principal.issuer for each in self.settings.issuers)
        keys = self.settings.keys
        return keys is not None and any(principal_of_key(name) == principal for name in keys.names())

    async def _pass(self, scope: Scope, receive: Receive, send: Send, identity: Identity, rights: Rights) -> None:
        left = {SCOPE_KEY: identity.principal, RIGHTS_KEY: rights, INBOUND_KEY: identity.inbound}
        scope = {**scope, **left}
        if scope["method"] != "GET" and header(scope, b"mcp-method") != "subscriptions/listen":
            # A call that was accepted is completed, even if its token expires in the meantime.
            await self._app(scope, receive, send)
            return
        ending = anyio.Event()
        streams = self._streams[identity.principal]
        streams.add(ending)
        try:
            async with anyio.create_task_group() as group:
                if identity.expires is not None:
                    group.start_soon(_set_after, ending, identity.expires - self._wall())
                await until(ending, self._app, scope, receive, send)
                group.cancel_scope.cancel()
        finally:
            streams.discard(ending)
            if not streams:
                self._streams.pop(identity.principal, None)

    async def _identity(self, scope: Scope, send: Send) -> Identity | None:
        """Who sent the request; None if it was refused."""
        scheme, _, credential = (header(scope, b"authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not credential.strip():
            await self._challenge(scope, send, None)
            return None
        try:
            return await self.identify(credential.strip())
        except Refused as error:
            await self._challenge(scope, send, str(error))
        except NotNow as error:
            await refuse(send, 503, f"Tokens cannot be checked now: {error}", headers=(("retry-after", str(AGAIN)),))
        except ConfigError as error:
            log.error("gateway.keys_unusable", error=str(error))
            await refuse(send, 503, "Keys cannot be checked now", headers=(("retry-after", str(AGAIN)),))
        return None

    def identify(self, credential: str) -> Awaitable[Identity]:
        """The principal of a key or token.

        Raises:
            Refused: it opens nothing.
            NotNow: it cannot be checked at the moment.
            ConfigError: the key file cannot be read.
        """
        if self.settings.keys is not None and (credential.startswith(PREFIX) or not self.settings.issuers):
            return _at_once(self._identify_key, credential)
        return self.settings.tokens.identify(credential)

    def _identify_key(self, key: str) -> Identity:
        if hash_of(key) in self._refused:
            raise Refused("the key is unknown or was removed")
        assert self.settings.keys is not None
        return self.settings.keys.identify(key)

    async def _challenge(self, scope: Scope, send: Send, reason: str | None) -> None:
        """401 with what a client needs to get a credential (RFC 6750, section 3; RFC 9728, section 5.1)."""
        fields = []
        if reason is not None:
            fields += ['error="invalid_token"', f'error_description="{reason}"']
        if self.settings.issuers:
            fields.append(f'resource_metadata="{self.origin(scope)}{METADATA}{quote(scope["path"])}"')
        challenge = "Bearer" + (" " + ", ".join(fields) if fields else "")
        text = f"The credential is refused: {reason}" if reason else "A bearer key or token is needed"
        await refuse(send, 401, text, headers=(("www-authenticate", challenge),))

    async def _metadata(self, scope: Scope, send: Send) -> None:
        """Protected Resource Metadata (RFC 9728)."""
        resource = scope["path"].removeprefix(METADATA)
        content = {
            "resource": self.settings.issuers[0].audience if not resource else f"{self.origin(scope)}{resource}",
            "authorization_servers": [each.issuer for each in self.settings.issuers],
            "bearer_methods_supported": ["header"],
        }
        body = json.dumps(content).encode()
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            # Clients in browsers read it from other origins; nothing in it is secret.
            (b"access-control-allow-origin", b"*"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    def origin(self, scope: Scope) -> str:
        """The gateway's own address for clients, without a path."""
        if self._public_url is not None:
            return self._public_url
        host = header(scope, b"host") or ""
        # What is no host name must not get into a header.
        host = host if urlsplit(f"//{host}").netloc == host and host.isprintable() and '"' not in host else "localhost"
        return f"{scope.get('scheme', 'http')}://{host}"


def _is_request(body: bytes) -> bool:
    """Whether a message wants an answer. What cannot be read is counted as one; the endpoint will refuse it."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return True
    return not isinstance(message, dict) or ("method" in message and "id" in message)


async def _at_once(identify: Callable[[str], Identity], credential: str) -> Identity:
    return identify(credential)


async def _set_after(event: anyio.Event, seconds: float) -> None:
    await anyio.sleep(max(0.0, seconds))
    event.set()


def _nothing() -> None:
    """Nothing was counted."""
