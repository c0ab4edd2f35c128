"""Routes a client's request: to this replica, or to the owner of its state.

A request goes to the owner of its session. If the owner does not take it, or is lost before the request had its
go-ahead (see `go_ahead`), it certainly did not run, and the owner is looked for again. If the owner is lost later, a
request that may be repeated is retried with the next owner; the outcome of any other request is reported as unknown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
from starlette.types import Receive, Scope, Send

from mcpconn.gateway.clients.replicas import Local
from mcpconn.gateway.fleet.envelopes import SESSION, envelope_of
from mcpconn.gateway.fleet.forwarding import AddressRefused, Answer, Forwarding, Lost, NotDelivered, Sent
from mcpconn.gateway.fleet.go_ahead import GoAhead, put_go_ahead
from mcpconn.gateway.fleet.ownership import Owner, Ownership
from mcpconn.gateway.fleet.peers import Peers
from mcpconn.gateway.fleet.replies import Reply, is_stream, unless
from mcpconn.gateway.http.notes import note_earlier_try
from mcpconn.gateway.store import StoreUnavailable
from mcpconn.observe import log

PAUSE = 0.25
"""Seconds before an owner that did not take a request is looked for again; a lease that ends takes up to 3 s."""
PATIENCE = 8.0
"""Seconds for which an owner is looked for that neither takes requests nor is gone. One that was killed or paused is
gone after 3 s, and each try at one that is paused may take 5 s."""
PROGRESS = 1.0
"""Seconds that an owner held a request before it lost it, so that it counts as found. One that loses what it takes at
once is not."""
LEAVING = 1.0
"""Seconds for one byte to the owner when the client has left."""
LONGEST = 60.0
"""Seconds after its arrival in which a request is given to another owner: a call's default deadline."""


class Routing:
    """Routes the requests of one replica."""

    def __init__(
        self,
        ownership: Ownership,
        forwarding: Forwarding,
        peers: Peers,
        *,
        taken_over: Callable[[Owner], Awaitable[None]],
        not_mine: Callable[[str], Awaitable[None]],
    ) -> None:
        """
        Args:
            ownership: Who owns what.
            forwarding: Sends requests to other replicas.
            peers: Knows which of them are gone.
            taken_over: Called with what this replica took over from one that is gone, before it serves it.
            not_mine: Called with what another replica owns: what was opened of it here while the store was away has to
                end.
        """
        self._ownership = ownership
        self._forwarding = forwarding
        self._peers = peers
        self._taken_over = taken_over
        self._not_mine = not_mine
        self._changing: dict[str, anyio.Lock] = {}
        self._serving: dict[str, set[Callable[[], None]]] = {}
        self._ending = anyio.Event()

    def end_streams(self) -> None:
        """End every event stream that comes from another replica cleanly, now and from now on: this one is stopped."""
        self._ending.set()

    async def begin(self, key: str) -> None:
        """A session begins here. If the store is unreachable, it has no owner yet."""
        try:
            await self._ownership.find(key)
        except StoreUnavailable as error:
            log.warning("gateway.store_unavailable", error=str(error))

    async def route(
        self,
        key: str,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        action: str,
        view: str,
        body: bytes,
        local: Local,
        repeatable: Callable[[], bool],
    ) -> None:
        """Serve a request here, or have it served.

        Args:
            key: What it is about.
            scope: The request.
            receive: What comes of the client after the body.
            send: To the client.
            action: How the owner is to take it.
            view: The view it came through.
            body: Its body.
            local: Serves it here; its `receive` gives the body first.
            repeatable: Whether it is harmless to make the request twice.
        """
        reply = Reply(send, scope["method"], body)
        arrived = waiting = anyio.current_time()
        while True:
            owner = await self.owner(key)
            sent, tried = Sent(), anyio.current_time()
            try:
                if owner is None or owner.mine:
                    sent.taken = True
                    put_go_ahead(scope, go_ahead := GoAhead())
                    await self.serve_here(key, reply, lambda: local(receive, reply), go_ahead)
                else:
                    asks = owner.replica.asks and reply.is_call and not repeatable()
                    await self._forward(
                        owner, scope, receive, reply, sent, action=action, view=view, body=body, asks=asks
                    )
                return
            except AddressRefused as error:
                log.error("gateway.fleet_address_refused", error=str(error), owner=_name(owner))
                await reply.end_not_run()
                return
            except NotDelivered as error:
                self._forget(owner)
                log.debug("gateway.fleet_not_delivered", owner=_name(owner), reason=str(error))
                now = anyio.current_time()
                if sent.taken and now - tried > PROGRESS:
                    # It has waited for its server, and for an owner only from now on.
                    waiting = now
                if now - waiting > PATIENCE or now - arrived > LONGEST or not reply.can_follow:
                    await reply.end_not_run()
                    return
                await anyio.sleep(PAUSE)
            except Lost as error:
                self._forget(owner)
                waited = 0.0 if sent.since is None else anyio.current_time() - sent.since
                log.info("gateway.fleet_answer_lost", owner=_name(owner), reason=str(error), waited=round(waited, 3))
                if not reply.can_follow or not (scope["method"] != "POST" or repeatable()):
                    await reply.end_unknown()
                    return
                reply.may_have_run = True
                note_earlier_try(scope)

    def _forget(self, owner: Owner | None) -> None:
        if owner is not None:
            self._ownership.forget(owner)

    async def serve_here(self, key: str, reply: Reply, serve: Callable[[], Awaitable[None]], go_ahead: GoAhead) -> None:
        """Serve a request here, until it is answered or what it is about is lost.

        Args:
            key: What it is about.
            reply: Its answer.
            serve: Serves it.
            go_ahead: The request's.

        Raises:
            NotDelivered: the session was lost before the request went out: it did not run, and will not.
        """
        lost = anyio.Event()

        def lose() -> None:
            # At once: what is written from now on, until the service is cancelled, is not the answer.
            reply.abandoned = not reply.complete
            lost.set()

        serving = self._serving.setdefault(key, set())
        serving.add(lose)
        go_ahead.lose = lose
        try:
            await unless(lost, serve)
        finally:
            # A legacy session runs the call in a task of its own, which may go on after this.
            go_ahead.lose = _nothing
            serving.discard(lose)
            if not serving:
                del self._serving[key]
        if reply.abandoned:
            reply.abandoned = False
            if reply.wants_answer and go_ahead.withdraw():
                raise NotDelivered("this replica has lost the session")
            await reply.end_unknown()

    def in_use(self, key: str) -> bool:
        """Whether a request is being served here."""
        return key in self._serving

    def lose(self, key: str) -> None:
        """This replica has lost what it owned: the clients of what is being served of it are told so."""
        for lose in tuple(self._serving.get(key, ())):
            lose()

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Change an owner, one change at a time, so that what was taken over is complete before another task finds
        it."""
        lock = self._changing.setdefault(key, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._changing.pop(key, None)

    async def owner(self, key: str, *, number: int | None = None) -> Owner | None:
        """The owner; this replica, if it can take it. None if it cannot be known.

        Args:
            key: Of what.
            number: Under which another replica says that this one owns it: only then it is taken.
        """
        try:
            async with self.alone(key):
                if number is not None and self._ownership.mine(key) is None:
                    owner = await self._ownership.accept(key, number)
                else:
                    owner = await self._ownership.find(key)
                if owner is not None and owner.taken:
                    await self._taken_over(owner)
                elif owner is not None and not owner.mine:
                    await self._not_mine(key)
                return owner
        except StoreUnavailable as error:
            log.warning("gateway.store_unavailable", error=str(error))
            return None

    async def _forward(
        self,
        owner: Owner,
        scope: Scope,
        receive: Receive,
        reply: Reply,
        sent: Sent,
        *,
        action: str,
        view: str,
        body: bytes,
        asks: bool,
    ) -> None:
        """Send a request to its owner, and its answer to the client.

        Raises:
            NotDelivered, Lost, AddressRefused: as `Forwarding.send`.
        """
        new = scope["method"] != "POST" or reply.wants_answer
        envelope = envelope_of(owner, scope, action=action, view=view, body=body, new=new, asks=asks)
        failure: Exception | None = None
        watched = anyio.CancelScope()
        async with anyio.create_task_group() as group:

            async def leave_with_client() -> None:
                # The client's end of the connection is passed on by closing ours.
                while (await receive())["type"] != "http.disconnect":
                    pass
                if action == SESSION:
                    # A legacy client that disconnects cancels nothing, and can ask for the answer on another
                    # connection. Nothing will be concluded here from a missing question.
                    with anyio.move_on_after(LEAVING), suppress(Lost):
                        await sent.go_ahead()
                group.cancel_scope.cancel()

            async def end_stream() -> None:
                await self._ending.wait()
                group.cancel_scope.cancel()

            group.start_soon(leave_with_client)
            if scope["method"] == "GET":
                group.start_soon(end_stream)
            try:
                async with (
                    self._peers.watched(owner.replica.name) as watched,
                    self._forwarding.send(owner.replica.address, envelope, body, sent) as answer,
                ):
                    await _pass_on(answer, reply)
            except (NotDelivered, Lost, AddressRefused) as error:
                # Raised outside of the group, which would wrap it.
                failure = error
            group.cancel_scope.cancel()
        if scope["method"] == "GET" and self._ending.is_set():
            await reply.end_unknown()
            return
        if failure is None and watched.cancelled_caught:
            failure = (Lost if sent.may_run else NotDelivered)("its lease has ended")
        if failure is not None:
            raise failure


def _nothing() -> None:
    """The request is served no longer."""


def _name(owner: Owner | None) -> str:
    return "this replica" if owner is None or owner.mine else owner.replica.name


async def _pass_on(answer: Answer, reply: Reply) -> None:
    await reply({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    # Of a stream only whole events: one that is cut in the middle would spoil what is appended to it.
    held, stream = b"", is_stream(answer.headers)
    async for chunk in answer.chunks():
        if not stream:
            await reply({"type": "http.response.body", "body": chunk, "more_body": True})
            continue
        held += chunk
        end = max(held.rfind(b"\r\n\r\n") + 4 if b"\r\n\r\n" in held else 0, held.rfind(b"\n\n") + 2)
        if end > 1:
            await reply({"type": "http.response.body", "body": held[:end], "more_body": True})
            held = held[end:]
    await reply({"type": "http.response.body", "body": held})
