"""What a client asked for beyond one request: subscriptions, the log level, roots, streams of events.

A subscription belongs to the upstream connection that its client's calls use: an update of that connection's reaches
those who asked on it, and nobody else, because another connection's resource of the same name may be another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from mcp import MCPError
from mcp.client.subscriptions import SubscriptionLost

from mcpconn.connection import Connection
from mcpconn.core.states import State
from mcpconn.errors import McpConnError
from mcpconn.gateway.downstream import Call, Context, Downstream
from mcpconn.gateway.extras import Extras
from mcpconn.gateway.outcomes import refused
from mcpconn.gateway.relay import Relay
from mcpconn.gateway.rewrite import Json
from mcpconn.gateway.upstreams import Upstreams, speaks_modern

LISTEN_AGAIN = 1.0
"""Seconds before a modern server's stream of events is opened again. The connection's own waits come on top."""


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
            self._relay.later(partial(self._try_watch, Call(ctx, client, server), server, uri, client.sid))

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
        try:
            await self._unwatch(connection, uri, call.client.sid or "")
        except MCPError as error:
            raise refused(error) from None
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

    def listen(self, ctx: Context, token: str, uris: list[str]) -> None:
        """A stream of events wants to be told of these resources, for as long as the relay knows its token."""
        client = Downstream.of(ctx)
        for public in uris:
            call = Call(ctx, client, "")
            try:
                server, uri = self._located(call, public)
            except MCPError:
                # As the SDK's server has it: a stream may name what does not exist, and hears nothing of it.
                continue
            self._relay.later(partial(self._try_watch, call, server, uri, token))

    # -- watching

    async def _try_watch(self, call: Call, server: str, uri: str, token: str) -> None:
        try:
            await self._watch(call, server, uri, token)
        except (McpConnError, MCPError):
            return

    async def _watch(self, call: Call, server: str, uri: str, token: str) -> None:
        connection = await self._connection(call, server)
        if not self._relay.watch(connection.name, uri, token):
            return
        self._relay.later(partial(self._keep, connection, uri))
        await connection.wait_ready(connection.policy.call_timeout)
        if speaks_modern(connection):
            self._relay.later(partial(self._follow, connection, server, uri))
        else:
            await connection.watch_resource(uri)

    async def _keep(self, connection: Connection, uri: str) -> None:
        """Keep a connection for as long as anybody watches something on it, though nobody calls anything."""
        while self._relay.watched(connection.name, uri) and self._upstreams.reused(connection.name):  # noqa: ASYNC110 - a lease
            await anyio.sleep(self._upstreams.idle / 3)

    async def _unwatch(self, connection: Connection, uri: str, token: str) -> None:
        # A modern server's stream ends by itself, when nobody watches any more.
        if self._relay.unwatch(connection.name, uri, token) and not speaks_modern(connection):
            await connection.unwatch_resource(uri)

    async def _follow(self, connection: Connection, server: str, uri: str) -> None:
        """Hear of a modern server's resource for as long as anybody watches it on this connection."""
        again = False
        while self._relay.watched(connection.name, uri) and connection.state is not State.CLOSED:
            try:
                async with connection.listen(resource_subscriptions=[uri]) as events:
                    if again:
                        # What happened in between was heard by nobody.
                        await self._relay.updated(server, connection.name, uri)
                    async for _ in events:
                        await self._relay.updated(server, connection.name, uri)
                        if not self._relay.watched(connection.name, uri):
                            return
            except (McpConnError, MCPError, SubscriptionLost):
                pass
            again = True
            await anyio.sleep(LISTEN_AGAIN)
