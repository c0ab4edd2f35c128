"""Calls from the server: sampling, elicitation, roots, logging, notifications. Each callback can find its connection.

The callbacks of `mcp.Client` belong to one session, which ends with the next reconnect. Here they are passed to the
connection once, and work on all its sessions. A callback finds its connection in its context (`context.connection`),
or, if it receives no context, with `current_connection()`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import checkpoint
from mcp.client import ClientRequestContext

from mcpconn.core.attempt import ATTEMPT
from mcpconn.errors import ArgumentError
from mcpconn.runtime.listeners import Report
from mcpconn.runtime.native import awaited
from mcpconn.validate import check_timeout

if TYPE_CHECKING:
    from mcpconn.connection import Connection

WITH_CONTEXT = ("sampling_callback", "elicitation_callback", "list_roots_callback")
"""Arguments of `mcp.Client` that are called with a request's context first."""
WITHOUT_CONTEXT = ("logging_callback", "message_handler")
"""Those that are not."""
PLAIN = (
    "client_info",
    "log_level",
    "sampling_capabilities",
    "extensions",
    "input_required_max_rounds",
    "raise_exceptions",
    "read_timeout_seconds",
    "cache",
    "prior_discover",
)
"""Arguments of `mcp.Client` that are passed on unchanged."""

_current: ContextVar[Connection] = ContextVar("mcpconn_connection")


def current_connection() -> Connection:
    """The `Connection` that the running callback belongs to.

    Raises:
        LookupError: this is not running in a callback.
    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError("current_connection() is known in callbacks only") from None


@dataclass(kw_only=True)
class ConnectionContext(ClientRequestContext):
    """The SDK's context of a request from the server, and the connection it came on."""

    connection: Connection
    """The `Connection`."""


class Notifications:
    """Listeners to a connection's notifications, beside the one `message_handler` that it was made with."""

    def __init__(self, connection: Connection, report: Report) -> None:
        """
        Args:
            connection: The connection; `current_connection()` in a listener.
            report: Called with what a listener raised.
        """
        self._connection = connection
        self._report = report
        self._listeners: dict[object, Callable[[Any], Awaitable[None]]] = {}

    def subscribe(self, listener: Callable[[Any], Any]) -> Callable[[], None]:
        """Call `listener` with every notification from now on.

        Returns:
            An unsubscribe function. It can be called more than once, and from within a listener.
        """
        # A key of its own for each: the same function may be given twice, and each unsubscribes for itself.
        key = object()

        async def called(message: Any) -> None:
            if inspect.isawaitable(answer := listener(message)):
                await answer

        self._listeners[key] = called
        return lambda: self._listeners.pop(key, None) and None

    async def tell(self, message: Any) -> None:
        """Call every listener. One that raises is reported, and the others are called all the same."""
        for key, listener in tuple(self._listeners.items()):
            if key not in self._listeners:
                continue  # unsubscribed by a listener before it
            try:
                await _called(self._connection, listener, message)
            except Exception as error:
                self._report("listener", error)


def bind(
    connection: Connection,
    options: Mapping[str, Any],
    on_message: Callable[[Any], None],
    notifications: Notifications,
) -> dict[str, Any]:
    """The arguments for every `mcp.Client` of a connection.

    Args:
        connection: The connection that the callbacks belong to.
        options: The user's arguments: any argument of `mcp.Client` except those that locate the server.
        on_message: Called with every notification, before anything else is.
        notifications: Called with every notification next, before the user's own handler.

    Raises:
        ArgumentError: an argument that `mcp.Client` does not have, or that users may not pass.
    """
    known = (*WITH_CONTEXT, *WITHOUT_CONTEXT, *PLAIN)
    for key in options:
        if key not in known:
            raise ArgumentError(f"unknown option {key!r}; known: {', '.join(sorted(known))}", key=key)
    check_timeout(options.get("read_timeout_seconds"), "read_timeout_seconds")
    bound = {key: value for key, value in options.items() if key in PLAIN}
    for key in WITH_CONTEXT:
        if (callback := options.get(key)) is not None:
            bound[key] = _with_context(connection, callback)
    if (logging_callback := options.get("logging_callback")) is not None:
        bound["logging_callback"] = _without_context(connection, logging_callback)
    handler = options.get("message_handler")
    users = _without_context(connection, handler) if handler is not None else None

    async def message_handler(message: Any) -> None:
        attempt = ATTEMPT.get()
        if attempt is not None:
            # The notification arrived in the context of a call, which proves that the call was running. For a server in
            # this process, no lower layer can observe that.
            attempt.progressed = True
        on_message(message)
        # The SDK also hands transport errors to a message handler; those are no notifications.
        if not isinstance(message, Exception):
            await notifications.tell(message)
        if users is not None:
            await users(message)
        # In process the server awaits callbacks in the caller's task. Without a checkpoint, the call of a tool that
        # does nothing but notify could not be cancelled. The SDK's own handler has one as well.
        await checkpoint()

    bound["message_handler"] = message_handler
    return bound


def _with_context(connection: Connection, callback: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(context: ClientRequestContext, *args: Any) -> Any:
        own = ConnectionContext(
            session=context.session, request_id=context.request_id, meta=context.meta, connection=connection
        )
        return await _called(connection, callback, own, *args)

    return call


def _without_context(connection: Connection, callback: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any) -> Any:
        return await _called(connection, callback, *args)

    return call


async def _called(connection: Connection, callback: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    token = _current.set(connection)
    try:
        return await awaited(callback, *args)
    finally:
        _current.reset(token)
