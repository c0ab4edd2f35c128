"""An upstream whose users log in: an MCP server and its authorization server, on one real port.

It knows whose each token is, and its tool `whoami` says whose token a call came with.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import jwt
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import ToolAnnotations
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


class Cloud:
    """The upstream. What it counts and sees is there for tests to look at."""

    def __init__(self, *, expires_in: int = 3600) -> None:
        self.origin = ""
        self.expires_in = expires_in
        self.counts: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        """Calls of `whoami`, by user."""
        self.users: dict[str, str] = {}
        """Whose an access token is; one that is not here is refused."""
        self.refresh: dict[str, str] = {}
        self.spent: dict[str, str] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.clients: set[str] = set()
        self.seen: list[str] = []
        """Head and body of every request to the MCP server."""
        self.asked: list[str] = []
        """The same for the authorization server."""
        self.sessions: dict[str, str] = {}
        """Whose a session is; one whose token was taken back is none any more."""
        self.metadata_changes: dict[str, Any] = {}
        self.resource_changes: dict[str, Any] = {}
        self.iss: str | None = None
        """What the authorization response calls its issuer; None: the truth."""
        self.challenge: str | None = None
        """What a refused request is told; None: the truth."""
        self.busy = 0
        """Token requests that are answered 503."""
        self.subjects: set[str] | None = None
        """Whose tokens are exchanged; None: everybody's."""
        self._mcp = self._server()

    def _server(self) -> ASGIApp:
        server = MCPServer("cloud", log_level="CRITICAL")

        @server.tool(annotations=ToolAnnotations(read_only_hint=True))
        async def whoami(ctx: Context) -> str:
            request = ctx.request_context.request
            assert request is not None
            user = self.users[request.headers["authorization"].removeprefix("Bearer ")]
            self.calls[user] += 1
            return user

        @server.tool()
        async def charge(ctx: Context) -> str:
            self.counts["charge"] += 1
            return "charged"

        self.manager = server
        return server.streamable_http_app()

    # -- tokens

    def issue(self, user: str, *, refresh: bool = True) -> dict[str, Any]:
        """Tokens of a user, as a token response."""
        access = f"access-{user}-{secrets.token_hex(8)}"
        self.users[access] = user
        tokens = {"access_token": access, "token_type": "Bearer", "expires_in": self.expires_in}
        if refresh:
            tokens["refresh_token"] = f"refresh-{user}-{secrets.token_hex(8)}"
            self.refresh[str(tokens["refresh_token"])] = user
        return tokens

    def revoke_access(self, user: str) -> None:
        """Take a user's access tokens back. The refresh token stays good."""
        self.users = {token: whose for token, whose in self.users.items() if whose != user}
        self.sessions = {session: whose for session, whose in self.sessions.items() if whose != user}

    def revoke(self, user: str) -> None:
        """Take all of a user's tokens back."""
        self.revoke_access(user)
        self.refresh = {token: whose for token, whose in self.refresh.items() if whose != user}

    # -- the ASGI application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        path = request.url.path
        if path == "/mcp":
            await self._guarded(request, scope, send)
            return
        body = (await request.body()).decode()
        self.asked.append(f"{request.method} {request.url} {sorted(request.headers.items())} {body}")
        await (await self._authorization(request, path))(scope, receive, send)

    async def _guarded(self, request: Request, scope: Scope, send: Send) -> None:
        body = await request.body()
        self.seen.append(f"{sorted(request.headers.items())} {body.decode()}")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.users:
            self.counts["refused"] += 1
            challenge = (
                self.challenge or f'Bearer resource_metadata="{self.origin}/.well-known/oauth-protected-resource/mcp"'
            )
            await JSONResponse({"token": token}, 401, {"www-authenticate": challenge})(scope, request.receive, send)
            return
        given = False

        async def receive() -> Any:
            nonlocal given
            if given:
                return await request.receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def note(message: Any) -> None:
            if message["type"] == "http.response.start":
                asked = request.headers.get("mcp-session-id")
                for name, value in message["headers"]:
                    if name == b"mcp-session-id" and asked is None:
                        self.sessions[value.decode()] = self.users.get(token, "")
                if scope["method"] == "DELETE" and message["status"] < 300:
                    self.sessions.pop(asked or "", None)
            await send(message)

        await self._mcp(scope, receive, note)

    async def _authorization(self, request: Request, path: str) -> Response:
        if path.startswith("/.well-known/oauth-protected-resource"):
            found = {"resource": f"{self.origin}/mcp", "authorization_servers": [self.origin]}
            return JSONResponse({**found, **self.resource_changes})
        if path.startswith("/.well-known/"):
            return JSONResponse({**self.metadata(), **self.metadata_changes})
        if path == "/as/register":
            self.counts["register"] += 1
            client = f"client-{self.counts['register']}"
            self.clients.add(client)
            return JSONResponse({**(await request.json()), "client_id": client}, 201)
        if path == "/as/authorize":
            return self._authorize(request)
        if path == "/as/token":
            form = dict(await request.form())
            return self._token({key: str(value) for key, value in form.items()}, request)
        return Response(status_code=404)

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/as/authorize",
            "token_endpoint": f"{self.origin}/as/token",
            "registration_endpoint": f"{self.origin}/as/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }

    def _authorize(self, request: Request) -> Response:
        """The page of the authorization server: the header `x-user` says who is at the browser, and consents."""
        asked = dict(request.query_params)
        user = request.headers.get("x-user")
        if asked["client_id"] not in self.clients:
            return Response("unknown client", 400)
        back = f"{asked['redirect_uri']}?state={asked['state']}&iss={self.iss or self.origin}"
        if user is None:
            return RedirectResponse(f"{back}&error=access_denied", 302)
        code = secrets.token_urlsafe(8)
        self.codes[code] = {**asked, "user": user}
        return RedirectResponse(f"{back}&code={code}", 302)

    def _token(self, form: dict[str, str], request: Request) -> Response:
        self.counts[form["grant_type"]] += 1
        if self.busy:
            self.busy -= 1
            return Response(status_code=503)
        if form["grant_type"] == EXCHANGE:
            return self._exchange(form)
        if form.get("client_id") not in self.clients:
            return JSONResponse({"error": "invalid_client"}, 401)
        if form["grant_type"] == "refresh_token":
            return self._refresh(form["refresh_token"])
        begun = self.codes.pop(form["code"], None)
        proof = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if (
            begun is None
            or begun["code_challenge"] != proof
            or (begun["redirect_uri"], begun["client_id"]) != (form["redirect_uri"], form["client_id"])
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse(self.issue(begun["user"]))

    def _refresh(self, token: str) -> Response:
        if token in self.spent:
            self.counts["reused"] += 1
            self.revoke(self.spent[token])
            return JSONResponse({"error": "invalid_grant"}, 400)
        user = self.refresh.pop(token, None)
        if user is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        self.spent[token] = user
        self.counts[f"refreshed {user}"] += 1
        self.revoke_access(user)
        return JSONResponse(self.issue(user))

    def _exchange(self, form: dict[str, str]) -> Response:
        claims = jwt.decode(form["subject_token"], options={"verify_signature": False})
        user = claims["sub"]
        if self.subjects is not None and user not in self.subjects:
            return JSONResponse({"error": "invalid_grant", "error_description": form["subject_token"]}, 400)
        self.counts[f"exchanged {user}"] += 1
        issued = {
            **self.issue(user, refresh=False),
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }
        return JSONResponse(issued)


@asynccontextmanager
async def serving(cloud: Cloud) -> AsyncIterator[Cloud]:
    """The upstream on a port of its own, for as long as the block runs."""
    config = uvicorn.Config(cloud, host="127.0.0.1", port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    async with cloud.manager.session_manager.run(), anyio.create_task_group() as group:
        listening = config.bind_socket()
        cloud.origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        group.start_soon(server._serve, [listening])
        while not server.started:
            await anyio.lowlevel.checkpoint()
        try:
            yield cloud
        finally:
            server.should_exit = server.force_exit = True
