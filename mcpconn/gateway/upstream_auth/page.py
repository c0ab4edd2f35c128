"""The gateway's page at `/login/...`: the browser authenticates as a user, is sent to log in at a server, and returns.

Without authentication, an attacker could send their own link to another person, whose consent at the server would then
give the attacker access as that person. So the link has no effect until a person has typed into a form of this page the
key or token of the user for whom the link was made, and the server's answer is accepted only from the browser that
started the login. A sealed cookie, valid for 10 minutes, identifies the browser.
"""

from __future__ import annotations

import html
import json
import secrets
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mcpconn.gateway.access.credentials import Identity, NotNow, Refused
from mcpconn.gateway.access.gate import Gate
from mcpconn.gateway.principals import ANONYMOUS, Principal
from mcpconn.gateway.store import StoreUnavailable
from mcpconn.gateway.upstream_auth.logins import CALLBACK, GOOD_FOR, Invitation, LoginFailed, Logins
from mcpconn.seal import KeyRing, NotSealedHere

LOGIN = "/login/"
COOKIE = "__Host-mcpconn-login"
"""The prefix makes browsers insist on `Secure`, on `Path=/` and on no `Domain` (RFC 6265bis, 4.1.3.2)."""
LONGEST_FORM = 32 * 1024
"""Maximum size of a form in bytes; a token has at most 16 KiB."""
STYLE = "body{font:1.1em system-ui,sans-serif;max-width:34em;margin:3em auto;padding:0 1em;color-scheme:light dark}"
FIELD = "input{font:inherit;width:100%;box-sizing:border-box;margin:.5em 0}button{font:inherit;padding:.4em 1em}"
HEADERS = {
    # No script runs and nothing is loaded: texts from a server or a browser cannot become markup.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
}


class LoginPage:
    """The ASGI application of the page."""

    def __init__(
        self,
        logins: Logins,
        ring: KeyRing,
        *,
        gate: Gate,
        security: TransportSecuritySettings,
        done: Callable[[Principal, str], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            logins: The logins that the page begins and finishes.
            ring: Seals the cookie.
            gate: Authenticates clients.
            security: The allowed hosts and origins.
            done: Called with a user who has logged in, and the server's name.
            wall: Seconds since 1970.
        """
        self._logins = logins
        self._sealer = ring.sealer("login cookie")
        self._gate = gate
        self._security = TransportSecurityMiddleware(security)
        self._done = done
        self._wall = wall

    async def __call__(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        # Protects against DNS rebinding: a foreign site's host name that resolves to this machine is refused.
        refusal = await self._security.validate_request(request, is_post=False)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        name = path.removeprefix(LOGIN)
        try:
            if name == CALLBACK and request.method == "GET":
                response = await self._came_back(request)
            elif request.method == "GET":
                response = self._form(request, name)
            elif request.method == "POST":
                response = await self._posted(request, name)
            else:
                response = _page(405, "This page is opened by a browser.")
        except LoginFailed as error:
            response = _page(400, str(error))
        except StoreUnavailable:
            response = _page(503, "The gateway cannot reach its store now. Try again in a moment.")
        await response(scope, receive, send)

    # -- the link

    def _form(self, request: Request, name: str) -> Response:
        """The page behind a link. It reveals neither the user nor the server, because anyone may open the link."""
        browser = self._browser(request)
        if browser is not None:
            who = "this machine's user" if browser.principal == ANONYMOUS else str(browser.principal)
            words = f"This browser belongs to {who} here."
            return _page(200, words, _form(""))
        if not self._asks:
            return _page(200, "A server requires you to log in.", _form(""))
        return _page(
            200,
            "A server requires you to log in. First show that this browser is yours: give the key or token that "
            "your client uses for this gateway.",
            _form(_KEY),
        )

    async def _posted(self, request: Request, name: str) -> Response:
        if not self._own_page(request):
            # A foreign page must not authenticate this browser as another user, or begin a login on its behalf.
            return _page(403, "This form is only for the gateway's own page.")
        form = parse_qs(await _body(request), keep_blank_values=True, max_num_fields=10)
        try:
            identity = await self._proof(request, form.get("key", [""])[0].strip())
        except Refused as error:
            return _page(403, f"The key or token was not accepted: {error}.", _form(_KEY))
        except NotNow as error:
            return _page(503, f"Tokens cannot be checked now: {error}. Try again in a moment.")
        if identity is None:
            return _page(401, "Enter the key or token first.", _form(_KEY))
        principal = identity.principal
        invitation = await self._logins.invited(principal, name)
        if invitation is None:
            raise LoginFailed(
                "This link is not one of yours. It was made for another user, was used already, or is older than 10 "
                "minutes. Ask your own client again."
            )
        rights = self._gate.rights(identity)
        if rights is None or not rights.server(invitation.server):
            return _page(403, f"You may not use {invitation.server!r}.")
        address = await self._logins.begin(principal, invitation, self._redirect_uri(request.scope))
        return self._onward(invitation, identity, address)

    def _onward(self, invitation: Invitation, identity: Identity, address: str) -> Response:
        place = urlsplit(address)
        where = html.escape(f"{place.scheme}://{place.netloc}")
        # Not a redirect, because `form-action` would have to name the server's address in advance.
        body = (
            f'<meta http-equiv="refresh" content="0;url={html.escape(address, quote=True)}">'
            f'<p><a rel="noreferrer" href="{html.escape(address, quote=True)}">Go on to {where}</a></p>'
        )
        response = _page(200, f"You log in at {invitation.server} with {place.hostname}.", body)
        until = self._wall() + GOOD_FOR
        if identity.expires is not None:
            until = min(until, identity.expires)
        principal = identity.principal
        cookie = {
            "who": [principal.client, principal.issuer, principal.subject],
            "until": until,
            "nonce": secrets.token_hex(8),
        }
        # With `Lax` the browser sends it with the server's redirect (with `Strict` it would not), and not with forms of
        # foreign pages.
        response.set_cookie(
            COOKIE,
            self._sealer.seal(json.dumps(cookie).encode()),
            max_age=int(GOOD_FOR),
            httponly=True,
            secure=True,
            samesite="lax",
        )
        return response

    # -- the way back

    async def _came_back(self, request: Request) -> Response:
        browser = self._browser(request)
        if browser is None:
            raise LoginFailed(
                "This browser has not shown whose it is in the last 10 minutes, so nothing was done. Open the link of "
                "your client again, in the browser that you log in with."
            )
        asked = request.query_params
        server = await self._logins.finish(
            browser.principal,
            state=asked.get("state", ""),
            code=asked.get("code"),
            iss=asked.get("iss"),
            said=asked.get("error"),
        )
        self._done(browser.principal, server)
        return _page(200, f"You are logged in at {server}. Go back to your client; this page can be closed.")

    # -- whose a browser is

    @property
    def _asks(self) -> bool:
        """Whether clients must authenticate. If not, all users are one person."""
        return self._gate.settings.asks

    async def _proof(self, request: Request, key: str) -> Identity | None:
        if key:
            return await self._gate.identify(key)
        if not self._asks:
            return Identity(ANONYMOUS)
        return self._browser(request)

    def _browser(self, request: Request) -> Identity | None:
        """The user that a browser has authenticated as, by its cookie."""
        sealed = request.cookies.get(COOKIE)
        if sealed is None:
            return None
        try:
            content = json.loads(self._sealer.open(sealed))
        except NotSealedHere:
            return None
        client, issuer, subject = content["who"]
        principal, until = Principal(client, issuer, subject), content["until"]
        if until <= self._wall() or not self._gate.knows(principal):
            return None
        return Identity(principal, expires=until)

    def _own_page(self, request: Request) -> bool:
        """Whether a form was sent by a page of this gateway, by the headers that browsers add to every POST."""
        sent = urlsplit(request.headers.get("origin", "")).netloc.lower()
        return sent != "" and sent == urlsplit(self._gate.origin(request.scope)).netloc.lower()

    def _redirect_uri(self, scope: Scope) -> str:
        return f"{self._gate.origin(scope)}{scope.get('root_path', '')}{LOGIN}{CALLBACK}"


async def _body(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            raise LoginFailed("That is too long for a key or token.")
    return body.decode("utf-8", "replace")


_KEY = '<input type="password" name="key" autocomplete="off" autofocus required aria-label="Key or token">'


def _form(field: str) -> str:
    return f'<form method="post">{field}<button>Go on</button></form>'


def _page(status: int, words: str, body: str = "") -> Response:
    content = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Log in</title><style>{STYLE}{FIELD}</style>'
        f'<meta name="viewport" content="width=device-width"><main><h1>Log in</h1><p>{html.escape(words)}</p>{body}'
        "</main></html>"
    )
    return Response(content, status, headers=HEADERS, media_type="text/html")
