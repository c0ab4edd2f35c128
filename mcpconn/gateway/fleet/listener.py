"""Accepts requests from other replicas, on a separate listener that clients do not use.

A request is not trusted, and its body is not read, before its envelope is checked. A refused request gets a plain 403
without a reason; the reason is logged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from starlette.types import Message, Receive, Scope, Send

from mcpconn.gateway.fleet.forwarding import ENVELOPE, NOT_MINE, PROOF, SIGNATURE, TIME, NotDelivered
from mcpconn.gateway.fleet.go_ahead import AnsweringBody, AskedGoAhead, FramedAnswer, GoAhead
from mcpconn.gateway.fleet.signing import Envelope, OtherClock, Signer, Unsigned, digest
from mcpconn.gateway.http.asgi import header, refuse, replay, with_header
from mcpconn.gateway.http.bodies import Bodies, BodyRefused
from mcpconn.observe import log

Serve = Callable[[Envelope, bytes, Receive, Send, GoAhead], Awaitable[None]]
"""Raises `NotDelivered` if the request did not run and will not, and nothing was sent of its answer, unless that
consists of frames."""


class Listener:
    """The ASGI application for other replicas."""

    def __init__(
        self,
        signer: Signer,
        *,
        me: Callable[[], str],
        owned: Callable[[Envelope], Awaitable[bool]],
        serve: Serve,
        bodies: Bodies,
    ) -> None:
        """
        Args:
            signer: Checks envelopes and signs answers.
            me: This replica's present name.
            owned: Whether this replica owns what an envelope is about, under the number in it.
            serve: Answers a request whose envelope and body are as they should be.
            bodies: Reads bodies.
        """
        self._signer = signer
        self._me = me
        self._owned = owned
        self._serve = serve
        self._bodies = bodies
        self.running = 0
        """Requests being served."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            text, signature = header(scope, ENVELOPE.encode()), header(scope, SIGNATURE.encode())
            if text is None or signature is None:
                raise Unsigned("it is not signed")
            envelope = self._signer.open(text, signature, me=self._me())
        except Unsigned as error:
            log.warning("gateway.fleet_request_refused", reason=str(error))
            await refuse(send, 403, "Forbidden", headers=self._time(error))
            return
        proven = self._proven(send, envelope)
        self.running += 1
        try:
            if not await self._owned(envelope):
                await refuse(proven, NOT_MINE, "Not the owner")
                return
            await self._take(envelope, scope, receive, proven)
        finally:
            self.running -= 1

    async def _take(self, envelope: Envelope, scope: Scope, receive: Receive, send: Send) -> None:
        if not envelope.asks:
            body = await self._body(envelope, scope, receive, send)
            if body is not None:
                await self._answer(envelope, body, receive, send)
            return
        length = int(header(scope, b"content-length") or 1) - 1
        parts = AnsweringBody(receive, length)
        body = await self._body(envelope, with_header(scope, b"content-length", str(length)), parts.body, send)
        if body is not None:
            await self._answer_asking(envelope, body, parts, FramedAnswer(send))

    async def _body(self, envelope: Envelope, scope: Scope, receive: Receive, send: Send) -> bytes | None:
        """The body of a request; None if it was refused."""
        try:
            # uvicorn says `100 Continue` only now.
            body = await self._bodies.read(scope, receive)
        except BodyRefused as refusal:
            await refuse(send, refusal.status, refusal.text)
            return None
        if digest(body) != envelope.body:
            log.warning("gateway.fleet_request_refused", reason="the body is not the one that was signed")
            await refuse(send, 403, "Forbidden")
            return None
        return body

    async def _answer(self, envelope: Envelope, body: bytes, receive: Receive, send: Send) -> None:
        try:
            await self._serve(envelope, body, replay(body, receive), send, GoAhead())
        except NotDelivered:
            await refuse(send, NOT_MINE, "Not the owner any more")

    async def _answer_asking(self, envelope: Envelope, body: bytes, parts: AnsweringBody, answer: FramedAnswer) -> None:
        go_ahead = AskedGoAhead(answer.ask)
        await answer.begin()
        async with anyio.create_task_group() as group:
            group.start_soon(parts.watch, go_ahead)
            try:
                await self._serve(envelope, body, replay(body, parts.rest), answer, go_ahead)
            except NotDelivered:
                await answer.not_run()
            finally:
                # A call can outlive its request, but not without a go-ahead.
                go_ahead.answer(False)
                group.cancel_scope.cancel()

    def _time(self, error: Unsigned) -> tuple[tuple[str, str], ...]:
        """The time of this clock for a replica whose clock differs, as headers."""
        if not isinstance(error, OtherClock):
            return ()
        now = f"{error.now:.3f}"
        return ((TIME, now), (PROOF, self._signer.prove(error.nonce, 403, now)))

    def _proven(self, send: Send, envelope: Envelope) -> Send:
        """A `send` whose answer shows that it comes from a replica."""

        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                proof = self._signer.prove(envelope.nonce, message["status"])
                message = {**message, "headers": [*message["headers"], (PROOF.encode(), proof.encode())]}
            await send(message)

        return signed
