"""Sessions of legacy clients that outlive the gateway's process.

The SDK's server keeps a session in memory, and a client whose server forgot it gets "Session not found" indefinitely.
So a layer in front of it hands out session ids of its own: what the client said in `initialize`, whom it is for and
when, sealed (see `seal`). An id that this process does not know is opened, checked, and the handshake is retried with
the SDK's server in the client's place. What came after the handshake (log level, subscriptions) is in the store.

Every refusal is the same 404, as if the session had never been: a forged id, another principal's, an expired or a
deleted one. Clients of the 2026-07-28 protocol keep no session and pass through.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcpconn.gateway.capacity import Capacity
from mcpconn.gateway.clients.live_sessions import LiveSession, LiveSessions
from mcpconn.gateway.clients.replicas import Replicas
from mcpconn.gateway.clients.session_ids import Failures, Opened, Session, SessionIds, pack
from mcpconn.gateway.clients.session_requests import BARE, NoRoom, initialize_params, not_found, serve
from mcpconn.gateway.http.asgi import Streams, header, on_start, refuse, replay, request, with_header
from mcpconn.gateway.http.bodies import Bodies, BodyRefused
from mcpconn.gateway.principals import ANONYMOUS, Principal, principal_of
from mcpconn.gateway.store import Store, StoreUnavailable
from mcpconn.seal import Sealer

SESSION_HEADER = b"mcp-session-id"
VERSION_HEADER = b"mcp-protocol-version"
SCOPE_KEY = "mcpconn.session"
"""Where a request's session is left in its ASGI scope, for the handlers behind."""
OTHER_KEYS = "This process of the gateway has other sealing keys than the rest, and cannot open the session"


class Sessions:
    """The layer: an ASGI application in front of the SDK's."""

    def __init__(
        self,
        app: ASGIApp,
        modern: Callable[[Scope, Receive, Send, bytes], Awaitable[None]],
        *,
        view: str,
        sealer: Sealer,
        store: Store,
        ended: Callable[[Session], Awaitable[None]],
        bodies: Bodies | None = None,
        replicas: Replicas | None = None,
        at_most: int = Capacity.sessions,
        per_principal: int = Capacity.sessions_per_principal,
        idle: float = Capacity.session_idle,
        now: Callable[[], float] = anyio.current_time,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            app: The SDK's server, without authentication and without an idle timeout of its own.
            modern: The same for requests of the 2026-07-28 protocol, whose body is passed as well.
            view: Name of the view it serves; an id of one view is nothing to another.
            sealer: Seals session ids.
            store: Deleted ids, and what an id has no room for.
            ended: Called with a session that was put away or deleted.
            bodies: Reads requests' bodies.
            replicas: The other replicas; None if this process is the whole gateway.
            at_most: Sessions held open at once.
            per_principal: Sessions of one principal held open at once.
            idle: Seconds without a request after which a session is put away.
            now: Monotonic seconds.
            wall: Seconds since 1970, the same for all processes of the gateway.
        """
        self._app = app
        self._modern = modern
        self._view = view
        self._ids = SessionIds(view, sealer, store, wall=wall)
        self._failures = Failures(now)
        self._bodies = bodies or Bodies()
        self._ended = ended
        self._replicas = replicas
        self._at_most = at_most
        self._per_principal = per_principal
        self._idle = idle
        self._now = now
        self._live = LiveSessions(now)
        self._opening: dict[str, anyio.Event] = {}
        self._streams = Streams()

    def __len__(self) -> int:
        """Sessions held open by this process."""
        return len(self._live)

    def has_stream(self, sid: str) -> bool:
        """Whether the session's client listens to its event stream now."""
        live = self._live.get(sid)
        return live is not None and live.streams > 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        rest = receive
        try:
            # Of every method, also of a GET whose body is empty: a try to forward the request waits for the client's
            # disconnect, which would consume the body before the handler of the request reads it.
            body = await self._bodies.read(scope, receive)
            receive = replay(body, rest)
        except BodyRefused as refusal:
            # The rest of the body may not have been read, so the connection cannot be used again.
            await refuse(send, refusal.status, refusal.text, headers=(("connection", "close"),))
            return
        version = header(scope, VERSION_HEADER)
        if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            if self._replicas is None:
                await self._modern(scope, receive, send, body)
                return

            async def pass_on(receive: Receive, send: Send) -> None:
                # A copy for each try, so that one that was given up does not find the go-ahead of the next.
                await self._modern({**scope}, replay(body, receive), send, body)

            await self._replicas.route_modern(self._view, scope, rest, send, body, pass_on)
            return
        sealed = header(scope, SESSION_HEADER)
        if sealed is None:
            await serve(send, self._open(scope, receive, send, body))
            return
        opened = self._ids.open(sealed, principal_of(scope))
        if opened is None:
            await self._not_opened(scope, send)
        elif self._replicas is None:
            await serve(send, self._resume(scope, receive, send, opened, body))
        else:

            async def resume(receive: Receive, send: Send) -> None:
                await serve(send, self._resume(scope, replay(body, receive), send, opened, body))

            await self._replicas.route_session(opened.session, scope, rest, send, body, resume)

    async def serve_owned(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """Serve a request that another replica has sent here, because this one holds its session."""
        opened = self._ids.open(header(scope, SESSION_HEADER) or "", principal_of(scope))
        if opened is None:
            await not_found(send)
        else:
            await serve(send, self._resume(scope, receive, send, opened, body))

    # -- a new session

    async def _open(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        params = initialize_params(body) if scope["method"] == "POST" else None
        if params is None:
            # Any other request without an id is refused by the SDK's server.
            await self._app(scope, receive, send)
            return
        principal = principal_of(scope)
        session = Session(secrets.token_urlsafe(18), principal, self._view)
        live = LiveSession(session, "")
        if self._replicas is not None:
            await self._replicas.begin(session)
        text = await self._ids.make(Opened.of(session, self._ids.now(), params))
        await self._make_room(principal, scope)

        def change(message: Message) -> Message:
            headers = [pair for pair in message["headers"] if pair[0].lower() != SESSION_HEADER]
            inner = next((value for name, value in message["headers"] if name.lower() == SESSION_HEADER), None)
            if message["status"] == 503:
                # The SDK's server has as many as it may, with those that are being opened: it is refused as here.
                return {**message, "headers": [*headers, (b"retry-after", b"5")]}
            if inner is None or message["status"] >= 400:
                return message
            live.inner = inner.decode("latin-1")
            self._live.add(live)
            return {**message, "headers": [*headers, (SESSION_HEADER, text.encode("ascii"))]}

        try:
            await self._app({**scope, SCOPE_KEY: session}, receive, on_start(send, change))
        finally:
            if not live.inner:
                await self._ended(session)

    # -- a session that there is

    async def _resume(self, scope: Scope, receive: Receive, send: Send, opened: Opened, body: bytes) -> None:
        if scope["method"] == "DELETE":
            await self._delete(scope, send, opened)
            return
        # The SDK's server may have lost the session (it ends one that crashed): then it is opened again, once.
        for last in (False, True):
            live = await self._find(scope, opened)
            if live is None:
                await not_found(send)
                return
            again = replay(body, receive) if last else receive
            if await self._serve(live, scope, again, send, pass_404=last):
                return
            self._live.remove(live)
            await self._ended(live.session)

    async def _not_opened(self, scope: Scope, send: Send) -> None:
        if self._failures.exceeded((scope.get("client") or ("",))[0]):
            await refuse(send, 429, "Too many unknown session ids", headers=(("retry-after", "1"),))
        elif self._ids.other_keys:
            # It may be another replica's: a 404 would end the session for its client.
            await refuse(send, 503, OTHER_KEYS, headers=(("retry-after", "1"),))
        else:
            await not_found(send)

    async def _find(self, scope: Scope, opened: Opened) -> LiveSession | None:
        """The session, opened again if this process does not hold it. None if it was deleted.

        Raises:
            NoRoom: too many are open.
        """
        sid = opened.session.sid
        while (opening := self._opening.get(sid)) is not None:
            await opening.wait()
        live = self._live.get(sid)
        if live is not None:
            return live
        self._opening[sid] = anyio.Event()
        try:
            params = await self._params(opened)
            if params is None:
                return None
            await self._make_room(opened.session.principal, scope)
            return await self._handshake(scope, opened.session, params)
        finally:
            self._opening.pop(sid).set()

    async def _params(self, opened: Opened) -> dict[str, Any] | None:
        try:
            return await self._ids.params(opened)
        except StoreUnavailable:
            # Without its store a gateway goes on with what the id says: that the session was deleted is known for now
            # to the process alone that deleted it.
            if (params := opened.params) is None:
                raise
            return params

    async def _handshake(self, scope: Scope, session: Session, params: Any) -> LiveSession:
        """Initialize a session with the SDK's server, in the place of the client that did it once."""
        live = LiveSession(session, "")
        inside = {**scope, SCOPE_KEY: session}
        headers = {b"content-type": "application/json", b"accept": "application/json, text/event-stream"}
        try:
            asked = pack({"jsonrpc": "2.0", "id": "mcpconn-reopen", "method": "initialize", "params": params})
            status, answered = await request(self._app, inside, method="POST", headers=headers, body=asked)
            inner = answered.get(SESSION_HEADER)
            if status < 400 and inner is not None:
                live.inner = inner
                told = pack({"jsonrpc": "2.0", "method": "notifications/initialized"})
                await request(self._app, inside, method="POST", headers={**headers, SESSION_HEADER: inner}, body=told)
                self._live.add(live)
                return live
            # The SDK's server has as many sessions as it may. The id stays good, so it must not be a 404.
            raise NoRoom
        finally:
            if session.sid not in self._live:
                await self._ended(session)

    async def _serve(self, live: LiveSession, scope: Scope, receive: Receive, send: Send, *, pass_404: bool) -> bool:
        """Pass a request on. False, and nothing was sent, if the SDK's server does not know the session."""
        lost = False
        stream = scope["method"] == "GET"

        def change(message: Message) -> Message | None:
            nonlocal lost
            if message["status"] == 404 and not pass_404:
                lost = True
                return None
            # The client keeps the id that it has; the SDK's own means nothing to it.
            return {**message, "headers": [pair for pair in message["headers"] if pair[0].lower() != SESSION_HEADER]}

        self._live.begin(live, stream=stream)
        inside = with_header(scope, SESSION_HEADER, live.inner)
        inside[SCOPE_KEY] = live.session
        try:
            if stream:
                await self._streams.run(self._app, inside, receive, on_start(send, change))
            else:
                await self._app(inside, receive, on_start(send, change))
        finally:
            self._live.end(live, stream=stream)
        return not lost

    # -- the end

    def end_streams(self) -> None:
        """End every event stream cleanly, now and from now on. The sessions go on."""
        self._streams.end()

    async def _delete(self, scope: Scope, send: Send, opened: Opened) -> None:
        if await self._ids.deleted(opened):
            await not_found(send)
            return
        # First in the store: a process that dies right after it must not bring the session back.
        await self._ids.delete(opened)
        live = self._live.get(opened.session.sid)
        if live is not None:
            await self._put_away(live, scope)
        elif self._replicas is not None:
            await self._replicas.session_released(opened.session.sid)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def put_away(self, sid: str) -> None:
        """Close a session here, if it is open. Its id stays good."""
        if (live := self._live.get(sid)) is not None:
            await self._put_away(live, BARE)

    async def sweep(self) -> None:
        """Put away sessions that were idle for too long, for as long as the gateway runs."""
        while True:
            oldest = self._live.first_idle()
            await anyio.sleep(self._idle if oldest is None else max(1.0, oldest + self._idle - self._now()))
            for live in self._live.idle_since(self._now() - self._idle):
                # Ending one takes a while, in which another may have come into use.
                if not live.requests:
                    await self._put_away(live, BARE)

    async def _make_room(self, principal: Principal, scope: Scope) -> None:
        """Put an idle session away if as many are open as may be.

        If a principal has reached its limit, one of its own sessions is ended. If the gateway has, the principal with
        most of them gives way, so that one principal's sessions do not cost others theirs.

        Raises:
            NoRoom: none of them is idle.
        """
        own = self._live.count(principal) >= self._per_principal
        if not own and len(self._live) < self._at_most:
            return
        if own:
            found = self._live.idle_of(principal)
            # Anonymous clients are many behind one name: for them the gateway's own limit counts.
            anonymous = principal == ANONYMOUS and len(self._live) < self._at_most
        else:
            found = self._live.idle_of_most()
            anonymous = False
        if found is not None:
            await self._put_away(found, scope)
        elif not anonymous:
            raise NoRoom

    async def _put_away(self, live: LiveSession, scope: Scope) -> None:
        """Close a session here. Its id stays good, unless it is marked as deleted in the store."""
        self._live.remove(live)
        with anyio.CancelScope(shield=True):
            await request(
                self._app, {**scope, SCOPE_KEY: live.session}, method="DELETE", headers={SESSION_HEADER: live.inner}
            )
            await self._ended(live.session)
            if self._replicas is not None:
                await self._replicas.session_released(live.session.sid)
