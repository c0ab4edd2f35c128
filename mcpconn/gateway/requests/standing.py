"""What a client asked for beyond one request: subscriptions, the log level, roots, streams of events.

A subscription belongs to the upstream connection that its client's calls use: an update of that connection's reaches
only the clients that subscribed on it, because another connection may have a different resource with the same name. If
the connection is closed while clients watch (its server's entry was changed), they watch on its successor, and
are notified of an update, because they may have missed one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio
from mcp import MCPError
from mcp.client.subscriptions import Subscription, SubscriptionLost

from mcpconn.connection import Connection
from mcpconn.core.states import State
from mcpconn.errors import McpConnError
from mcpconn.gateway.clients.downstream import Call, Context, Downstream
from mcpconn.gateway.clients.extras import Extras
from mcpconn.gateway.outcomes import refused
from mcpconn.gateway.rewrite import Json
from mcpconn.gateway.servers.eras import speaks_modern
from mcpconn.gateway.servers.relay import LISTENER, Relay
from mcpconn.gateway.servers.upstreams import Upstreams
from mcpconn.gateway.servers.watches import Watch, Watcher

AGAIN, AGAIN_MAXIMUM = 1.0, 60.0
"""Seconds before a subscription, or a modern server's stream of events, is tried again: doubled each time, to a limit.
The connection's own waits come on top."""
LISTEN_PATIENCE = 2.0
"""Seconds that the answer to a client's subscription waits for its server's: what is not subscribed to by then is
subscribed to later, and its client is then notified of an update, because it may have missed one."""


class Standing:
    """The standing wishes of one view's clients."""

    def __init__(
        self,
        view: str,
        *,
        relay: Relay,
        upstreams: Upstreams,
        extras: Extras,
        located: Callable[[Call, str], tuple[str, str]],
        connection: Callable[[Call, str], Awaitable[Connection]],
    ) -> None:
        """
        Args:
            view: The view's name.
            relay: Passes on what servers send.
            upstreams: The connections.
            extras: What a legacy session keeps over a restart of the gateway.
            located: The server and the own URI of a public one; raises `MCPError` if there is none.
            connection: The connection of a client's to a server.
        """
        self._view = view
        self._relay = relay
        self._upstreams = upstreams
        self._extras = extras
        self._located = located
        self._connection = connection

    # -- legacy clients

    async def initialized(self, ctx: Context) -> None:
        """A legacy session has begun, or was opened again: it gets its level and subscriptions back."""
        client = Downstream.of(ctx)
        if client.sid is None:
            return
        channel = self._relay.attach(client.sid, ctx.session, client.principal, self._view)
        kept = await self._extras.get(client.sid)
        channel.level = kept.level
        for server, uri in kept.subscriptions:
            # Beside the client's request: its server may be away, and comes back without it.
            call = Call(ctx, client, server)
            self._relay.later(partial(self._watch_until, call, server, uri, client.sid, missed=True))

    async def subscribe(self, call: Call, params: Json) -> Json:
        """`resources/subscribe`."""
        server, uri = self._located(call, str(params.get("uri", "")))
        try:
            await self._watch(call, server, uri, call.client.sid or "")
        except MCPError as error:
            raise refused(error) from None
        if call.client.sid is not None:
            await self._extras.subscribe(call.client.sid, server, uri)
        return {}

    async def unsubscribe(self, call: Call, params: Json) -> Json:
        """`resources/unsubscribe`."""
        server, uri = self._located(call, str(params.get("uri", "")))
        connection = await self._connection(call, server)
        if call.client.sid is not None:
            await self._extras.unsubscribe(call.client.sid, server, uri)
        if (watch := self._relay.watches.find(connection, uri)) is not None:
            self._relay.watches.remove(watch, call.client.sid or "")
            if watch.over.is_set():
                await watch.done.wait()
        return {}

    async def set_level(self, call: Call, params: Json) -> Json:
        """`logging/setLevel`."""
        level = str(params.get("level", ""))
        sid = call.client.sid
        if sid is not None and (channel := self._relay.channels.get(sid)) is not None:
            channel.level = level
            await self._extras.set_level(sid, level)
            for connection in self._upstreams.of_session(sid):
                self._relay.later(partial(self._upstreams.set_level, connection, level))
        return {}

    async def roots_changed(self, ctx: Context) -> None:
        """`notifications/roots/list_changed`."""
        sid = Downstream.of(ctx).sid
        for connection in self._upstreams.of_session(sid or ""):
            try:
                await connection.tell_roots_changed()
            except McpConnError:
                # It has no session now; the next one asks for the roots itself.
                continue

    # -- modern clients

    async def listen(self, ctx: Context, token: str, uris: list[str]) -> None:
        """A stream of events wants to be notified of these resources, for as long as the relay knows its token.

        Returns when their servers were told, or after `LISTEN_PATIENCE`.
        """
        client = Downstream.of(ctx)
        begun: list[anyio.Event] = []
        for public in uris:
            call = Call(ctx, client, "")
            try:
                server, uri = self._located(call, public)
            except MCPError:
                # As the SDK's server has it: a stream may name what does not exist, and hears nothing of it.
                continue
            begun.append(first := anyio.Event())
            self._relay.later(partial(self._watch_until, call, server, uri, token, first=first))
        with anyio.move_on_after(LISTEN_PATIENCE):
            for first in begun:
                await first.wait()

    # -- watching

    async def _watch_until(
        self,
        call: Call,
        server: str,
        uri: str,
        token: str,
        *,
        missed: bool = False,
        first: anyio.Event | None = None,
    ) -> None:
        """Watch a resource for a client, however long its server is away.

        Args:
            call: Stands for the client.
            server: Whose resource it is.
            uri: The server's own.
            token: The client's session, or its stream of events.
            missed: The client may have missed an update already.
            first: Set when the server was told, or refused.
        """
        began, pause = anyio.current_time(), AGAIN
        try:
            while self._relay.knows(token):
                try:
                    await self._watch(call, server, uri, token)
                except McpConnError:
                    # It is away, or no longer in the file, to which it may return: the client is not asked again.
                    await anyio.sleep(pause)
                    pause = min(2 * pause, AGAIN_MAXIMUM)
                    continue
                except MCPError:
                    # The server refuses it, or this client: it would do so again.
                    return
                if missed or anyio.current_time() - began > LISTEN_PATIENCE:
                    await self._relay.tell_updated(token, server, uri, uri)
                return
        finally:
            if first is not None:
                first.set()

    async def _watch(self, call: Call, server: str, uri: str, token: str) -> None:
        connection = await self._connection(call, server)
        self._relay.use(connection, call.client)
        watches = self._relay.watches
        # If only a listener that no longer exists were notified, the subscription would never end.
        if token.startswith(LISTENER) and not self._relay.knows(token):
            return
        begins = watches.find(connection, uri) is None
        again = partial(self._watch_until, call, server, uri, token, missed=True)
        watch = watches.add(connection, uri, Watcher(token, call.client.principal, again))
        if begins:
            self._relay.later(partial(self._hold, watch, server))
        try:
            await connection.wait_ready(connection.policy.call_timeout)
            async with watch.lock:
                if watch.active:
                    return
                if speaks_modern(connection):
                    opened = anyio.Event()
                    self._relay.later(partial(self._follow, watch, server, opened))
                    with anyio.move_on_after(LISTEN_PATIENCE):
                        await opened.wait()
                else:
                    await connection.watch_resource(uri)
                watch.active = True
        except BaseException:
            watches.remove(watch, token)
            raise

    async def _hold(self, watch: Watch, server: str) -> None:
        """Keep a connection as long as any client watches the resource on it; afterwards unsubscribe.

        Args:
            watch: The resource.
            server: Whose it is.
        """
        connection = watch.connection
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._lease, connection)
                group.start_soon(_when, connection.ended, group.cancel_scope.cancel)
                await watch.over.wait()
                group.cancel_scope.cancel()
            if not watch.over.is_set():
                # It was closed: what is still wanted is wanted on the connection that replaces it.
                for watcher in tuple(watch.watchers.values()):
                    self._relay.watches.remove(watch, watcher.token)
                    self._relay.later(watcher.again)
                return
            async with watch.lock:
                if not watch.active or speaks_modern(connection) or connection.state is State.CLOSED:
                    # A modern server's stream has ended by itself.
                    return
                if (successor := self._relay.watches.find(connection, watch.uri)) is not None:
                    # A client already watches it again, so the server's subscription continues.
                    successor.active = True
                    return
                with suppress(MCPError):
                    await connection.unwatch_resource(watch.uri)
        finally:
            self._relay.watches.ended(watch)

    async def _lease(self, connection: Connection) -> None:
        """Renew a connection's lease while no calls are made on it. The servers' own connections need no lease."""
        with suppress(McpConnError):
            while self._upstreams.reused(connection.name) is connection:  # noqa: ASYNC110 - a lease
                await anyio.sleep(self._upstreams.idle / 3)

    async def _follow(self, watch: Watch, server: str, opened: anyio.Event) -> None:
        """Listen to a modern server's resource as long as any client watches it on this connection.

        Args:
            watch: The resource.
            server: Whose it is.
            opened: Set when the server's stream is open.
        """
        connection, pause = watch.connection, AGAIN
        patience = anyio.current_time() + LISTEN_PATIENCE
        missed = False
        while not watch.over.is_set() and connection.state is not State.CLOSED:
            with suppress(McpConnError, MCPError, SubscriptionLost):
                async with connection.listen(resource_subscriptions=[watch.uri]) as events:
                    pause = AGAIN
                    if missed or anyio.current_time() > patience:
                        # Updates before the stream was open were missed.
                        await self._relay.updated(server, connection, watch.uri)
                    opened.set()
                    await self._read(watch, server, events)
            missed = True
            with anyio.move_on_after(pause):
                await watch.over.wait()
            pause = min(2 * pause, AGAIN_MAXIMUM)

    async def _read(self, watch: Watch, server: str, events: Subscription) -> None:
        """Pass on the events of a stream until it ends or no client watches. It may be silent indefinitely."""
        async with anyio.create_task_group() as group:
            group.start_soon(_when, watch.over.wait, group.cancel_scope.cancel)
            # In a task group it would become an exception group. A stream that is lost is opened again.
            with suppress(McpConnError, MCPError, SubscriptionLost):
                async for _ in events:
                    await self._relay.updated(server, watch.connection, watch.uri)
            group.cancel_scope.cancel()


async def _when(happens: Callable[[], Awaitable[None]], then: Callable[[], None]) -> None:
    await happens()
    then()
