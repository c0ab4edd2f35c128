"""An authorization server and a guard before an MCP server, as one function from requests to answers."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Mapping
from threading import Lock
from urllib.parse import parse_qsl, urlsplit

import httpx2

from mcpconn.testing import Script, ScriptTransport, Send
from tests.threaded_http import QuietHandler, ThreadedHttp

Answer = tuple[int, dict[str, str], bytes]

ORIGIN = "http://scripted"


class AuthServer:
    """Issues tokens, and knows which are valid. A refresh token is good for one use.

    Using it twice revokes the access token and the refresh token that came of the first use (RFC 9700, 4.14.2).
    """

    def __init__(self, origin: str = ORIGIN, *, expires_in: int | None = 3600) -> None:
        self.origin = origin
        self.expires_in = expires_in
        self.counts: Counter[str] = Counter()
        """Requests by grant type or path, and reused refresh tokens."""
        self.valid: set[str] = set()
        """Access tokens that the MCP server accepts."""
        self.status: int | None = None
        """Answer token requests with this status."""
        self.error: dict[str, str] | None = None
        """Refuse token requests with this body."""
        self.scope: str | None = None
        """Scope of the tokens to come, where it is not what was asked for."""
        self.scopes: dict[str, str] = {}
        """Scope of each access token."""
        self.rotates = True
        """A refresh comes with another refresh token, and the one that was used is used up."""
        self.clients: set[str] | None = None
        """Ids of the clients that are registered; None: no client is looked at."""
        self.unknown_client: Answer = as_json(401, {"error": "invalid_client"})
        """What a client is told that is not registered."""
        self.dress: Callable[[dict[str, object]], Answer] = lambda tokens: as_json(200, tokens)
        """How tokens are put into an answer."""
        self.serial = 0
        """Number of the tokens issued last."""
        self._refresh: dict[str, str] = {}
        self._spent: dict[str, list[str]] = {}
        self._lock = Lock()

    def issue(self, scope: str = "") -> dict[str, object]:
        """New tokens, as a token response."""
        self.serial += 1
        access, refresh = f"access-{self.serial:04}-secret", f"refresh-{self.serial:04}-secret"
        self.valid.add(access)
        self._refresh[refresh] = access
        self.scopes[access] = self.scope if self.scope is not None else scope
        tokens: dict[str, object] = {"access_token": access, "refresh_token": refresh, "token_type": "Bearer"}
        if self.expires_in is not None:
            tokens["expires_in"] = self.expires_in
        return tokens

    def revoke_access(self) -> None:
        """Accept no access token issued so far. Refresh tokens stay good."""
        self.valid.clear()

    def revoke_all(self) -> None:
        """Accept nothing issued so far."""
        self.valid.clear()
        self._refresh.clear()

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """The answer to a request that is not for the MCP server; None for one that is, and may pass."""
        with self._lock:
            if path.startswith("/.well-known/oauth-protected-resource"):
                self.counts["resource"] += 1
                return as_json(200, {"resource": f"{self.origin}/mcp", "authorization_servers": [self.origin]})
            if path.startswith("/.well-known/"):
                self.counts["metadata"] += 1
                return as_json(200, self.metadata())
            if path == "/as/register":
                self.counts["register"] += 1
                client = f"client-{self.counts['register']}"
                if self.clients is not None:
                    self.clients.add(client)
                return as_json(201, {**json.loads(body), "client_id": client})
            if path == "/as/token":
                return self._token(dict(parse_qsl(body.decode())), headers)
            return self.guard(headers, f"{self.origin}/.well-known/oauth-protected-resource")

    def metadata(self) -> dict[str, object]:
        """What it publishes about itself."""
        return {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/as/authorize",
            "token_endpoint": f"{self.origin}/as/token",
            "registration_endpoint": f"{self.origin}/as/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
        }

    def _token(self, form: dict[str, str], headers: Mapping[str, str]) -> Answer:
        self.counts[form["grant_type"]] += 1
        given = {name.lower(): value for name, value in headers.items()}.get("authorization", "")
        basic = b64decode(given.removeprefix("Basic ")).decode().partition(":")[0] if given else ""
        if self.clients is not None and form.get("client_id", basic) not in self.clients:
            return self.unknown_client
        if self.status is not None:
            return self.status, {}, b""
        if self.error is not None:
            return as_json(400, self.error)
        if form["grant_type"] == "refresh_token":
            return self._refreshed(form["refresh_token"])
        # The codes of these tests say what was asked for at the login.
        return self.dress(self.issue(form.get("scope") or form.get("code", "").partition(":")[2]))

    def _refreshed(self, token: str) -> Answer:
        if token in self._spent:
            self.counts["reused"] += 1
            for access, refresh in zip(*[iter(self._spent[token])] * 2, strict=True):
                self.valid.discard(access)
                self._refresh.pop(refresh, None)
            return as_json(400, {"error": "invalid_grant", "error_description": f"{token} was used before"})
        access = self._refresh.pop(token, None) if self.rotates else self._refresh.get(token)
        if access is None:
            return as_json(400, {"error": "invalid_grant", "error_description": f"{token} is not known"})
        self.valid.discard(access)
        tokens = self.issue(self.scopes.get(access, ""))
        if not self.rotates:
            del self._refresh[str(tokens.pop("refresh_token"))]
            self._refresh[token] = str(tokens["access_token"])
            return self.dress(tokens)
        self._spent[token] = [str(tokens["access_token"]), str(tokens["refresh_token"])]
        return self.dress(tokens)

    def guard(self, headers: Mapping[str, str], metadata: str) -> Answer | None:
        """The refusal of a request to the MCP server; None if its token is good."""
        token = {name.lower(): value for name, value in headers.items()}.get("authorization", "").removeprefix(
            "Bearer "
        )
        if token in self.valid:
            return None
        self.counts["refused"] += 1
        challenge = f'Bearer error="invalid_token", resource_metadata="{metadata}"'
        # As some servers do, it says the token back.
        return 401, {"www-authenticate": challenge, "content-type": "text/plain"}, f"bad token {token}".encode()


def as_json(status: int, body: Mapping[str, object]) -> Answer:
    """An answer in JSON."""
    return status, {"content-type": "application/json"}, json.dumps(body).encode()


class Guarded(httpx2.AsyncBaseTransport):
    """The authorization server and the guard inside the process, before a scripted MCP server."""

    def __init__(self, server: AuthServer, inner: ScriptTransport) -> None:
        self.server = server
        self.inner = inner
        self.down = False
        """The authorization server cannot be reached. The MCP server can."""
        self.seen: list[str] = []
        """The Authorization header of each request to the MCP server."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        path = request.url.path
        if path != "/mcp" and self.down:
            raise httpx2.ConnectError("refused", request=request)
        if path == "/mcp":
            self.seen.append(request.headers.get("authorization", ""))
        answer = self.server.answer(request.method, path, dict(request.headers), body)
        if answer is None:
            return await self.inner.handle_async_request(request)
        status, headers, content = answer
        return httpx2.Response(status, headers=headers, content=content, request=request)


class ServedAuth:
    """The same on a real port, in threads, for other processes."""

    def __init__(
        self,
        server: AuthServer,
        script: Script,
        *,
        sending: Callable[[str, Mapping[str, str], int], None] = lambda path, headers, status: None,
    ) -> None:
        """
        Args:
            server: Issues the tokens.
            script: The MCP server. It must answer everything at once: no streams, no faults that wait.
            sending: Called before an answer is sent, with the request's path and headers, in lower case, and the
                answer's status. It may take its time: every request has a thread of its own.
        """
        one_at_a_time = Lock()

        def scripted(method: str, headers: dict[str, str], body: bytes) -> Answer:
            with one_at_a_time:
                reply = script.decide(method, headers, body)
                content = b"".join(step.data for step in reply.steps if isinstance(step, Send))
            return reply.status or 500, dict(reply.headers), content

        class Handler(QuietHandler):
            def _serve(self) -> None:
                body = self.body()
                answer = server.answer(self.command, urlsplit(self.path).path, dict(self.headers), body)
                status, headers, content = answer or scripted(self.command, dict(self.headers), body)
                headers = {name: value for name, value in headers.items() if name != "content-length"}
                asked = {name.lower(): value for name, value in self.headers.items()}
                sending(urlsplit(self.path).path, asked, status)
                self.reply(status, headers, content)

            do_GET = do_POST = do_DELETE = _serve

        self._http = ThreadedHttp(Handler)
        server.origin = f"http://{self._http.host}"

    def __enter__(self) -> None:
        self._http.start()

    def __exit__(self, *exc: object) -> None:
        self._http.close()
