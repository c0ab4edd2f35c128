"""Passes a server's messages to the right client: questions, log messages, changed lists, updated resources.

A callback finds the request on whose behalf it runs by `CALL`. Without one (a legacy child over stdio sends what it
likes when it likes) it is for the one client of its connection, on the stream of a request that is in flight there, if
there is one. If the connection is shared, or several requests of modern clients are in flight on it, the message is
dropped, because it must not reach a client that it does not belong to. A log message of a shared child goes to its
client as long as that is the only one to have used the child (see `sole_user`), and then to the gateway's own log
alone.

A legacy client that listens to its event stream is notified at once. Otherwise notifications wait for its next request
and are sent on that stream, the latest of each kind.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, cast
from weakref import WeakSet

import mcp_types as types
from mcp import MCPError
from mcp.server.connection import allowed_log_levels
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp_types import INVALID_REQUEST
from pydantic import BaseModel

from mcpconn.callbacks import current_connection
from mcpconn.connection import Connection
from mcpconn.gateway.background import Background
from mcpconn.gateway.clients.downstream import CALL, EVERYBODY, Call, Downstream, RawNotification, is_modern
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.rewrite import OURS, PROTOCOLS, RELATED_TASK, without
from mcpconn.gateway.rewrite import notification as rewritten
from mcpconn.gateway.servers.log_levels import LEVELS
from mcpconn.gateway.servers.pending import Pending
from mcpconn.gateway.servers.sole_user import SoleUsers, identity
from mcpconn.gateway.servers.watches import Watches
from mcpconn.observe import log

LISTENER = "listener "
"""What the token of a stream of events begins with. The id of a session does not."""
LOGGED = 1000
"""Characters of a log message that go into the gateway's own log."""

_CHANGED: dict[str, tuple[str, ServerEvent]] = {
    "tools": ("notifications/tools/list_changed", ToolsListChanged()),
    "prompts": ("notifications/prompts/list_changed", PromptsListChanged()),
    "resources": ("notifications/resources/list_changed", ResourcesListChanged()),
    "templates": ("notifications/resources/list_changed", ResourcesListChanged()),
}


class Channel:
    """How to reach one legacy client between its requests."""

    def __init__(self, session: ServerSession, principal: Principal, view: str) -> None:
        self.session = session
        self.principal = principal
        self.view = view
        self.level: str | None = None
        """The least level of log messages it asked for; None: it did not say."""
        self.sending = False
        """A task sends what is pending."""
        self.pending = Pending()


class Relay:
    """Passes on unsolicited messages of servers."""

    def __init__(
        self, *, listens: Callable[[str], bool], uri: Callable[[str, str, str], str], group: Background
    ) -> None:
        """
        Args:
            listens: Whether the client of a session has its event stream open.
            uri: The public URI, in a view, of a server's own.
            group: Runs tasks that send without a caller waiting for them.
        """
        self.relist: Callable[[str, Downstream, Any], None] = lambda server, client, notification: None
        """Called with every notification on a client's connection. If it says that a list has changed, the connection
        that lists has to hear of it: many servers tell only the session whose call changed it."""
        self._listens = listens
        self._uri = uri
        self._group = group
        self.channels: dict[str, Channel] = {}
        """Of legacy sessions, by id."""
        self._listeners: dict[str, tuple[str, Principal | None, InMemorySubscriptionBus]] = {}
        self.watches = Watches()
        """The resources that sessions and listeners asked to be notified of."""
        self._sole = SoleUsers()
        self._heard: WeakSet[Connection] = WeakSet()
        # By connection, the requests that its server has not answered yet.
        self._in_flight: dict[str, list[Call]] = {}

    @asynccontextmanager
    async def during(self, call: Call, connection: Connection) -> AsyncIterator[None]:
        """A server has a request of a client's, for as long as the block runs."""
        self._sole.note(connection, call.client)
        calls = self._in_flight.setdefault(connection.name, [])
        calls.append(call)
        try:
            try:
                yield
            finally:
                await call.heard()
        finally:
            # Once more: the call may have been retried on a later session.
            self._sole.note(connection, call.client)
            calls.remove(call)
            if not calls:
                self._in_flight.pop(connection.name, None)

    def _call(self, client: Downstream) -> Call | None:
        """The request on whose behalf the current code runs, if it can be determined.

        Over stdio the request is not known, but its connection is: a session's is for one client, and a principal's
        has often one request in flight.
        """
        known = CALL.get()
        if known is not None or client is EVERYBODY:
            return known
        calls = self._in_flight.get(current_connection().name, ())
        certain = len(calls) == 1 or client.sid is not None
        return calls[-1] if calls and certain else None

    # -- what a connection is given

    def callbacks(self, server: str, client: Downstream) -> dict[str, Any]:
        """Arguments of `mcp.Client` for a connection of `client` to `server`.

        A connection of `EVERYBODY` can do what any client can; the one whose call it is, but cannot, refuses.
        """

        async def sampling(_: Any, params: types.CreateMessageRequestParams) -> Any:
            tools = params.tools is not None or params.tool_choice is not None
            answer = types.CreateMessageResultWithTools if tools else types.CreateMessageResult
            return await self._ask(client, types.CreateMessageRequest(params=params), answer)

        async def elicitation(_: Any, params: types.ElicitRequestParams) -> Any:
            if isinstance(params, types.ElicitRequestURLParams) and params.elicitation_id is None:
                # The modern era has no such id, and legacy clients refuse a question without one.
                params = params.model_copy(update={"elicitation_id": secrets.token_urlsafe(12)})
            return await self._ask(client, types.ElicitRequest(params=params), types.ElicitResult)

        async def roots(_: Any) -> Any:
            return await self._ask(client, types.ListRootsRequest(), types.ListRootsResult)

        async def logging(params: types.LoggingMessageNotificationParams) -> None:
            await self._log(client, params)

        async def message(notification: Any) -> None:
            await self._message(server, client, notification)

        questions = {
            "sampling": ("sampling_callback", sampling),
            "elicitation": ("elicitation_callback", elicitation),
            "roots": ("list_roots_callback", roots),
        }
        able = dict(entry for ability, entry in questions.items() if ability in client.abilities)
        return {**able, "logging_callback": logging, "message_handler": message}

    def hear_child(self, server: str, child: Connection) -> None:
        """Pass on the notifications of a child that all clients share. The manager made its connection, without
        callbacks."""
        if child not in self._heard:
            self._heard.add(child)
            child.on_notification(partial(self._shared_child, server))

    async def _shared_child(self, server: str, notification: Any) -> None:
        if not isinstance(notification, types.LoggingMessageNotification):
            await self._message(server, EVERYBODY, notification)
            return
        connection = current_connection()
        calls = self._in_flight.get(connection.name, ())
        alone = self._sole.alone(connection)
        if alone is not None and all(identity(call.client) == alone for call in calls):
            await self._send_log(alone, calls[-1] if len(calls) == 1 else None, notification.params)
        else:
            said = connection.redact(str(notification.params.data))[:LOGGED]
            log.debug("gateway.server_log", server=server, level=notification.params.level, said=said)

    async def _ask(self, client: Downstream, question: Any, answer: type[BaseModel]) -> Any:
        """Ask the client. An error of its own is the answer, too."""
        call = self._call(client)
        if call is not None and client is EVERYBODY and _ability(question) not in call.client.abilities:
            return types.ErrorData(code=INVALID_REQUEST, message=f"this client supports no {_ability(question)}")
        question = _next_hop(question, call)
        try:
            if call is not None and call.parked is not None:
                return answer.model_validate(await call.parked.ask(question), by_name=False)
            if call is not None:
                return await call.ask(question, answer)
            channel = self.channels.get(client.sid or "")
            if channel is None:
                return types.ErrorData(code=INVALID_REQUEST, message="no client is connected that could be asked")
            return await channel.session.send_request(question, answer)
        except MCPError as error:
            return error.error

    def level_of(self, call: Call) -> str | None:
        """The least level of log messages that a client wants during a call; None: it did not say."""
        if is_modern(call.ctx):
            return cast("str | None", (call.ctx.meta or {}).get(types.LOG_LEVEL_META_KEY))
        channel = self.channels.get(call.client.sid or "")
        return channel.level if channel is not None else None

    async def _log(self, client: Downstream, params: types.LoggingMessageNotificationParams) -> None:
        call = self._call(client)
        # On a shared connection only the call itself says whom a message is for.
        owner = call.client if client is EVERYBODY and call is not None else client
        await self._send_log(owner.sid or "", call, params)

    async def _send_log(self, sid: str, call: Call | None, params: types.LoggingMessageNotificationParams) -> None:
        """Send a log message to one client, if it wants messages of this level.

        Args:
            sid: Its session; a modern client has none, and is told during a call only.
            call: A call of this client's, on whose stream the message goes out.
            params: The message.
        """
        if not self._wants(sid, call, params.level):
            return
        if call is not None and call.full:
            # Before anything is done about it: a server that logs faster than the client reads goes on doing so.
            call.lost += 1
            return
        dumped = params.model_dump(by_alias=True, mode="json", exclude_none=True)
        if call is not None:
            await call.notify("notifications/message", dumped)
        else:
            await self._send(sid, "notifications/message", dumped)

    def _wants(self, sid: str, call: Call | None, level: types.LoggingLevel) -> bool:
        """Whether a client wants log messages of this level, and can be told."""
        if call is not None and is_modern(call.ctx):
            return level in allowed_log_levels(call.ctx.protocol_version, call.ctx.meta)
        channel = self.channels.get(sid)
        return channel is not None and LEVELS.index(level) >= LEVELS.index(channel.level or "debug")

    async def _message(self, server: str, client: Downstream, notification: Any) -> None:
        if isinstance(notification, types.ResourceUpdatedNotification):
            await self.updated(server, current_connection(), str(notification.params.uri))
        elif isinstance(notification, types.ElicitCompleteNotification) and client.sid is not None:
            dumped = notification.model_dump(by_alias=True, mode="json", exclude_none=True)
            await self._send(client.sid, dumped["method"], dumped["params"])
        elif client is not EVERYBODY or current_connection().name != server:
            # The connection that lists, which has the server's own name, has heard it itself.
            self.relist(server, client, notification)

    def later(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something beside the requests, for as long as the gateway runs."""
        self._group.start_soon(task)

    # -- sessions of legacy clients

    def attach(self, sid: str, session: ServerSession, principal: Principal, view: str) -> Channel:
        """A legacy client has initialized its session, or the gateway did it in its place."""
        known = self.channels.get(sid)
        channel = Channel(session, principal, view)
        if known is not None:
            channel.level, channel.pending = known.level, known.pending
        self.channels[sid] = channel
        return channel

    def detach(self, sid: str) -> None:
        """A session has ended here."""
        self.channels.pop(sid, None)
        self.watches.forget(sid)

    async def flush(self, call: Call) -> None:
        """Send what has waited for this client, on the stream of its present request."""
        channel = self.channels.get(call.client.sid or "")
        if channel is None or channel.sending or self._listens(call.client.sid or ""):
            return
        while channel.pending:
            method, params = channel.pending.take()
            await call.notify(method, params)

    async def _send(self, sid: str, method: str, params: Mapping[str, Any]) -> None:
        """Have a notification sent, and do not wait for it: a client that reads slowly must not hold up the others."""
        channel = self.channels.get(sid)
        if channel is None:
            return
        channel.pending.put(method, rewritten(params))
        if self._listens(sid) and not channel.sending:
            channel.sending = True
            self._group.start_soon(self._send_pending, sid, channel)

    async def _send_pending(self, sid: str, channel: Channel) -> None:
        try:
            while channel.pending and self._listens(sid):
                method, params = channel.pending.take()
                notification = RawNotification(method=method, params=dict(params))
                await channel.session.send_notification(notification)  # type: ignore[arg-type]
        except Exception as error:  # its stream has ended in between; the client hears of it by its next request
            log.debug("gateway.notify_failed", error=type(error).__name__)
        finally:
            channel.sending = False

    # -- changes

    def use(self, connection: Connection, client: Downstream) -> None:
        """A client asks something of a connection beside its requests: it subscribes to a resource."""
        self._sole.note(connection, client)

    def knows(self, token: str) -> bool:
        """Whether the session or the stream of events is still there."""
        return token in self.channels or token in self._listeners

    async def updated(self, server: str, connection: Connection, uri: str) -> None:
        """A resource has changed: tell those who asked on this connection."""
        for token, watched in self.watches.updated(connection, uri):
            await self.tell_updated(token, server, watched, uri)

    async def tell_updated(self, token: str, server: str, watched: str, uri: str) -> None:
        """Tell one client that a resource has changed.

        Args:
            token: Its session, or its stream of events.
            server: Whose resource it is.
            watched: The server's own URI that the client asked for; a stream of events hears of this one only.
            uri: The server's own URI of what has changed: the same, or a part of it.
        """
        if (channel := self.channels.get(token)) is not None:
            public = self._uri(channel.view, server, uri)
            await self._send(token, "notifications/resources/updated", {"uri": public})
        elif (listener := self._listeners.get(token)) is not None:
            view, _, bus = listener
            await bus.publish(ResourceUpdated(uri=self._uri(view, server, watched)))

    def changed(self, kind: str, views: set[str], principal: Principal | None = None) -> None:
        """A list of these views has changed. Called from a listener, so it is sent later.

        Args:
            kind: The catalogue's name of the list.
            views: Names of the views.
            principal: The only user of the list; None: all clients share it.
        """
        self._group.start_soon(self._tell_changed, kind, views, principal)

    async def _tell_changed(self, kind: str, views: set[str], principal: Principal | None = None) -> None:
        method, event = _CHANGED[kind]
        for sid, channel in tuple(self.channels.items()):
            if channel.view in views and principal in (None, channel.principal):
                try:
                    await self._send(sid, method, {})
                except Exception as error:  # one client's stream must not keep the news from the others
                    log.debug("gateway.notify_failed", error=type(error).__name__)
        for of_view, whose, bus in tuple(self._listeners.values()):
            if of_view in views and principal in (None, whose):
                await bus.publish(event)

    @contextmanager
    def listener(self, view: str, principal: Principal | None = None) -> Iterator[tuple[str, InMemorySubscriptionBus]]:
        """The token and the events of one listening stream of a principal's, for as long as it lasts."""
        token, bus = f"{LISTENER}{secrets.token_hex(8)}", InMemorySubscriptionBus()
        self._listeners[token] = (view, principal, bus)
        try:
            yield token, bus
        finally:
            del self._listeners[token]
            self.watches.forget(token)


def _next_hop(question: Any, call: Call | None) -> Any:
    """A question with the `_meta` of the next hop: progress tokens and ids of tasks are each hop's own."""
    params = question.params
    if params is None or not params.meta:
        return question
    meta = without(params.meta, PROTOCOLS, OURS)
    meta.pop("progress_token", None)
    if call is not None and call.task is not None:
        meta[RELATED_TASK] = {"taskId": call.task}
    return question.model_copy(update={"params": params.model_copy(update={"meta": meta or None})})


def _ability(question: types.ServerRequest) -> str:
    """The capability that a client needs to answer a question."""
    return {"sampling/createMessage": "sampling", "elicitation/create": "elicitation"}.get(question.method, "roots")
