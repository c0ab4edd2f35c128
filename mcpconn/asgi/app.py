"""The routes of the status page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mcpconn import diagram
from mcpconn.asgi.access import COOKIE, Access, Guard, own_page, set_cookie
from mcpconn.asgi.feed import Feed, TooManyReaders
from mcpconn.asgi.metrics import MetricsUnavailable, render
from mcpconn.asgi.rows import History, summary
from mcpconn.connection import Connection
from mcpconn.core.states import State
from mcpconn.errors import CallFailed, McpConnError, UnknownServer
from mcpconn.manager import Manager
from mcpconn.runtime.clock import Clock

PAGE = Path(__file__).parent / "page"
HEADERS = {
    # Allows only this server's own files, so that text that became markup could neither run nor send anything.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
SOON = 0.1
"""Seconds that an action waits for its effect."""
ASKS = "<p>Log in with the key of this page.</p>"
REFUSES = '<p class="refused" role="alert">This key is not valid here.</p>'
"""What stands in place of `ASKS` once a key was refused."""
LOGIN_BODY = 4096
"""Bytes of a login's form."""

Handler = Callable[[Request], Awaitable[Response]]


def status_app(manager: Manager, *, access: Access | None = None, clock: Clock | None = None) -> StatusApp:
    """A page that shows a manager's connections live, with their data and metrics; mounts into any ASGI application.

        app.mount("/connections", status_app(manager))

    | path | answer |
    |---|---|
    | `/` | the page |
    | `/status` | `Manager.status()` as JSON |
    | `/events` | the rows of the page and every transition, as server-sent events |
    | `/connections/NAME` | one connection's status, with the last lines of its child's stderr |
    | `/metrics` | Prometheus's format; needs the extra `metrics` |
    | `/healthz`, `/readyz` | 200 while the process serves; 503 from `/readyz` once `drain` was called |

    It must be served by the event loop that the manager runs in.

    Args:
        manager: The manager whose connections are shown.
        access: The access rules. By default only clients on this machine have access, to the page and the actions.
        clock: Time, for tests.
    """
    return StatusApp(manager, access=access, clock=clock)


class StatusApp:
    """See `status_app`."""

    def __init__(
        self,
        manager: Manager,
        *,
        access: Access | None = None,
        clock: Clock | None = None,
        metrics: Callable[[], tuple[bytes, str]] | None = None,
        degraded: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._manager = manager
        self._render = metrics or partial(render, manager)
        self._guard = Guard(access or Access())
        self._history = History(manager, wall=(clock or Clock()).wall)
        self._degraded = degraded
        self._feed = Feed(manager, self._history, degraded)
        self._draining = False
        files = {name: _file(name) for name in sorted(path.name for path in PAGE.iterdir()) if "." in name}
        self._app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/login", self._login, methods=["GET", "POST"]),
                Route("/logout", self._logout, methods=["POST"]),
                *(Route(f"/page/{name}", handler) for name, handler in files.items() if not name.endswith(".html")),
                Route("/machine.svg", self._reading(_machine)),
                Route("/status", self._reading(self._status)),
                Route("/events", self._reading(self._events)),
                Route("/metrics", self._reading(self._metrics)),
                Route("/connections/{name:path}/{action}", self._act, methods=["POST"]),
                Route("/connections/{name:path}", self._reading(self._detail)),
                Route("/healthz", _healthz),
                Route("/readyz", self._readyz),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, _with_headers(send))

    def drain(self) -> None:
        """Start to shut down: event streams end now, and `/readyz` returns 503."""
        self._draining = True
        self._feed.end()

    # -- who

    def _reading(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            if self._guard.right(request) is None:
                return self._refused(request)
            return await handler(request)

        return guarded

    def _refused(self, request: Request) -> Response:
        if self._guard.access.open:
            return PlainTextResponse(
                "The status page answers clients on this machine only. Give it keys to answer others: "
                "status_app(manager, access=Access(read_key=...))\n",
                403,
            )
        return PlainTextResponse("A key is needed.\n", 401, headers={"www-authenticate": "Bearer"})

    async def _page(self, request: Request) -> Response:
        right = self._guard.right(request)
        if right is None:
            return self._refused(request) if self._guard.access.open else _to(request, "login")
        return FileResponse(PAGE / "index.html", media_type="text/html")

    async def _login(self, request: Request) -> Response:
        if request.method == "GET":
            return FileResponse(PAGE / "login.html", media_type="text/html")
        body = b""
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > LOGIN_BODY:
                    return PlainTextResponse("The form is too long.\n", 413)
        key = parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0]
        token = self._guard.log_in(key.strip())
        if token is None:
            page = (PAGE / "login.html").read_text(encoding="utf-8").replace(ASKS, REFUSES)
            return HTMLResponse(page, 401)
        answer = _to(request, "")
        set_cookie(answer, token)
        return answer

    async def _logout(self, request: Request) -> Response:
        if not own_page(request):
            return _foreign()
        self._guard.log_out(request)
        answer = Response(status_code=204)
        answer.delete_cookie(COOKIE, secure=True, httponly=True, samesite="strict")
        return answer

    # -- what

    async def _status(self, request: Request) -> Response:
        return JSONResponse(
            {
                "may_act": self._guard.right(request) == "act",
                "login": not self._guard.access.open,
                "summary": summary(self._manager),
                "connections": self._manager.status(),
            }
        )

    async def _detail(self, request: Request) -> Response:
        try:
            connection = self._connection(request)
        except UnknownServer as error:
            return PlainTextResponse(f"{error}\n", 404)
        return JSONResponse(
            {**connection.status(), "may_act": self._guard.right(request) == "act", "disabled": _disabled(connection)}
        )

    async def _events(self, request: Request) -> Response:
        events = self._feed.events()
        try:
            first = await anext(events)
        except TooManyReaders:
            return PlainTextResponse("Too many pages are open on this host; close one.\n", 503)
        # `x-accel-buffering` keeps nginx from holding events back.
        return StreamingResponse(
            _chain(first, events), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
        )

    async def _metrics(self, request: Request) -> Response:
        try:
            content, media_type = self._render()
        except MetricsUnavailable as error:
            return PlainTextResponse(f"{error}\n", 501)
        return Response(content, media_type=media_type)

    async def _readyz(self, request: Request) -> Response:
        # Unreachable servers do not make it fail: a restart of this host would not help.
        counts = summary(self._manager)
        body: dict[str, Any] = {"ready": not self._draining, "connections": counts}
        # So is what the host works without for a while. Why is for those who may look at the page.
        if degraded := sorted(self._degraded()):
            body["degraded"] = degraded
        return JSONResponse(body, 503 if self._draining else 200)

    # -- actions

    async def _act(self, request: Request) -> Response:
        right = self._guard.right(request)
        if right is None:
            return self._refused(request)
        if "authorization" not in request.headers and not own_page(request):
            return _foreign()
        if right != "act":
            return PlainTextResponse("Your key is for reading only.\n", 403)
        action = _ACTIONS.get(request.path_params["action"])
        if action is None:
            return PlainTextResponse(f"No such action; known: {', '.join(_ACTIONS)}\n", 404)
        try:
            await action(self._manager, self._connection(request))
        except UnknownServer as error:
            return PlainTextResponse(f"{error}\n", 404)
        except McpConnError as error:
            return PlainTextResponse(f"{error}\n", 409)
        return Response(status_code=204)

    def _connection(self, request: Request) -> Connection:
        return self._manager[request.path_params["name"]]


async def _reconnect(manager: Manager, connection: Connection) -> None:
    # The page shows the result; the response only reports an immediate refusal.
    with suppress(CallFailed):
        await connection.reconnect(timeout=SOON)


async def _disable(manager: Manager, connection: Connection) -> None:
    manager.disable(connection.name)


async def _enable(manager: Manager, connection: Connection) -> None:
    manager.enable(connection.name)


_ACTIONS = {"reconnect": _reconnect, "disable": _disable, "enable": _enable}


def _disabled(connection: Connection) -> bool:
    return connection.state is State.CLOSED


async def _machine(request: Request) -> Response:
    # Its colours come from the page's style sheet, which knows dark from light; a style of its own would be refused.
    picture = re.sub(r"<style>.*?</style>", "", diagram.svg(), flags=re.DOTALL)
    return Response(picture, media_type="image/svg+xml")


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _chain(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for event in rest:
        yield event


def _file(name: str) -> Handler:
    async def handler(request: Request) -> Response:
        return FileResponse(PAGE / name)

    return handler


def _foreign() -> Response:
    return PlainTextResponse("Actions are accepted only from this server's own page.\n", 403)


def _to(request: Request, path: str) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/{path}", 303)


def _with_headers(send: Send) -> Send:
    fields = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *fields]}
        await send(message)

    return sending
