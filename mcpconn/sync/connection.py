"""One connection of a `SyncManager`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio
import mcp_types as types
from typing_extensions import Unpack, deprecated

from mcpconn.callbacks import WITH_CONTEXT, WITHOUT_CONTEXT
from mcpconn.config import ServerConfig
from mcpconn.connection import Connection
from mcpconn.core.failures import Failure
from mcpconn.core.states import State
from mcpconn.options import (
    CallOptions,
    ListOptions,
    MetaOptions,
    ReadOptions,
    RoundOptions,
    SyncRequestOptions,
    SyncToolOptions,
)
from mcpconn.redact.redactor import Redactor
from mcpconn.status import ConnectionStatus
from mcpconn.sync.background import Background
from mcpconn.sync.catalog import SyncCatalog

T = TypeVar("T")


class SyncConnection:
    """A connection of a `SyncManager`: the methods of `Connection`, callable from any thread."""

    def __init__(self, connection: Connection, background: Background, owner: object) -> None:
        """Created by the `SyncManager` `owner`, which ends when there are no more references to it."""
        self._connection = connection
        self._background = background
        self._owner = owner

    @property
    def name(self) -> str:
        """The name in logs and errors."""
        return self._connection.name

    @property
    def config(self) -> ServerConfig:
        """Its configuration."""
        return self._connection.config

    @property
    def catalog(self) -> SyncCatalog:
        """The server's catalogue."""
        return SyncCatalog(self._connection.catalog, self._background)

    @property
    def state(self) -> State:
        """The connection's state."""
        return self._here.state

    @property
    def epoch(self) -> int:
        """Number of the current session; 0 before the first."""
        return self._here.epoch

    @property
    def last_failure(self) -> Failure | None:
        """The last failure that had consequences for the connection."""
        return self._here.last_failure

    @property
    def server_info(self) -> types.Implementation | None:
        """The server's name and version."""
        return self._here.server_info

    @property
    def server_capabilities(self) -> types.ServerCapabilities:
        """The server's capabilities."""
        return self._here.server_capabilities

    @property
    def instructions(self) -> str | None:
        """The server's instructions."""
        return self._here.instructions

    @property
    def protocol_version(self) -> str:
        """The protocol version of the current session."""
        return self._here.protocol_version

    @property
    def session_id(self) -> str | None:
        """As `Connection.session_id`."""
        return self._here.session_id

    @property
    def _here(self) -> Connection:
        # A forked child does not know the connection's state, and must not use its parent's.
        if self._background.forked:
            self._background.check()
        return self._connection

    @property
    def progress(self) -> str | None:
        """As `Connection.progress`."""
        return self._here.progress

    @property
    def stderr(self) -> Sequence[str]:
        """As `Connection.stderr`."""
        return self._here.stderr

    @property
    def redact(self) -> Redactor:
        """As `Connection.redact`."""
        return self._connection.redact

    def status(self) -> ConnectionStatus:
        """All information for operators, as plain data."""
        return self._background.look(self._connection.status)

    def wait_ready(self, timeout: float | None = None) -> None:
        """As `Connection.wait_ready`."""
        self._call(self._connection.wait_ready, timeout)

    def reconnect(self, timeout: float | None = None) -> None:
        """As `Connection.reconnect`."""
        self._call(self._connection.reconnect, timeout)

    def update_credentials(self, auth: Any = None, timeout: float | None = None) -> None:
        """As `Connection.update_credentials`."""
        self._call(self._connection.update_credentials, auth, timeout)

    @deprecated("authenticated() is now called update_credentials()")
    def authenticated(self, auth: Any = None, timeout: float | None = None) -> None:
        """The former name of `update_credentials`."""
        self.update_credentials(auth, timeout)

    def end_session(self, session_id: str, version: str) -> bool:
        """As `Connection.end_session`."""
        return self._call(self._connection.end_session, session_id, version)

    def on_notification(self, listener: Callable[[types.ServerNotification], Any]) -> Callable[[], None]:
        """As `Connection.on_notification`. A plain `listener` is called in a worker thread."""
        return self._connection.on_notification(_in_thread(listener))

    def request(
        self, method: str, params: Mapping[str, Any] | None = None, **options: Unpack[SyncRequestOptions]
    ) -> dict[str, Any]:
        """As `Connection.request`. A plain `progress_callback` is called in a worker thread."""
        return self._call(self._connection.request, method, params, **async_options(options))

    def call_tool(
        self, name: str, arguments: dict[str, Any] | None = None, **options: Unpack[SyncToolOptions]
    ) -> types.CallToolResult:
        """As `Connection.call_tool`. A plain `progress_callback` is called in a worker thread."""
        return self._call(self._connection.call_tool, name, arguments, **async_options(options))

    def list_tools(self, **options: Unpack[ListOptions]) -> types.ListToolsResult:
        """As `Connection.list_tools`."""
        return self._call(self._connection.list_tools, **options)

    def list_resources(self, **options: Unpack[ListOptions]) -> types.ListResourcesResult:
        """As `Connection.list_resources`."""
        return self._call(self._connection.list_resources, **options)

    def list_resource_templates(self, **options: Unpack[ListOptions]) -> types.ListResourceTemplatesResult:
        """As `Connection.list_resource_templates`."""
        return self._call(self._connection.list_resource_templates, **options)

    def read_resource(self, uri: str, **options: Unpack[ReadOptions]) -> types.ReadResourceResult:
        """As `Connection.read_resource`."""
        return self._call(self._connection.read_resource, uri, **options)

    def list_prompts(self, **options: Unpack[ListOptions]) -> types.ListPromptsResult:
        """As `Connection.list_prompts`."""
        return self._call(self._connection.list_prompts, **options)

    def get_prompt(
        self, name: str, arguments: dict[str, str] | None = None, **options: Unpack[RoundOptions]
    ) -> types.GetPromptResult:
        """As `Connection.get_prompt`."""
        return self._call(self._connection.get_prompt, name, arguments, **options)

    def complete(
        self,
        ref: types.ResourceTemplateReference | types.PromptReference,
        argument: dict[str, str],
        context_arguments: dict[str, str] | None = None,
        **options: Unpack[CallOptions],
    ) -> types.CompleteResult:
        """As `Connection.complete`."""
        return self._call(self._connection.complete, ref, argument, context_arguments, **options)

    def send_ping(self, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """As `Connection.send_ping`."""
        return self._call(self._connection.ping, **options)

    def set_logging_level(self, level: types.LoggingLevel, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """As `Connection.set_logging_level`."""
        return self._call(self._connection.set_level, level, **options)

    def subscribe_resource(self, uri: str, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """As `Connection.subscribe_resource`."""
        return self._call(self._connection.watch_resource, uri, **options)

    def unsubscribe_resource(self, uri: str, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """As `Connection.unsubscribe_resource`."""
        return self._call(self._connection.unwatch_resource, uri, **options)

    def __repr__(self) -> str:
        return f"<SyncConnection of {self._connection!r}>"

    def _call(self, method: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        return self._background.run(partial(method, *args, **options))


def async_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options`, with plain callbacks converted to async ones."""
    callbacks = ("progress_callback", *WITH_CONTEXT, *WITHOUT_CONTEXT)
    return {key: _in_thread(value) if key in callbacks and value else value for key, value in options.items()}


def _in_thread(callback: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    if inspect.iscoroutinefunction(callback):
        return callback

    async def call(*args: Any) -> Any:
        # Wrapped because trio accepts no coroutine from a thread, and a callback may return one (a partial, a lambda).
        (result,) = await anyio.to_thread.run_sync(lambda: (callback(*args),))
        return await result if inspect.isawaitable(result) else result

    return call
