"""A long-lived session: the methods of the SDK's `ClientSession` on a connection."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import mcp_types as types
from mcp.shared.dispatcher import ProgressFnT
from mcp.types import LATEST_PROTOCOL_VERSION
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from typing_extensions import Self, Unpack

from mcpconn.connection import Connection
from mcpconn.errors import NotReady
from mcpconn.handlers.tool_results import TIMEOUT, connection_result
from mcpconn.options import CallOptions, MetaOptions, ReadOptions, RoundOptions


class Session:
    """The interface of a `ClientSession`, on a `Connection` that the host owns and closes.

        toolkit = SomeFramework(session=mcpconn.integrations.Session(manager["shop"]))

    `call_tool` does not raise: a failure is a result with `is_error`, with a text for a model and `mcpconn/outcome` in
    its `_meta`. All other methods raise as `Connection` does.
    """

    def __init__(self, connection: Connection, *, timeout: float = TIMEOUT) -> None:
        """
        Args:
            connection: Must run for as long as the session is used.
            timeout: Default seconds for a tool call, including waiting and reconnecting.
        """
        self.connection = connection
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """The host closes the connection."""

    # -- the handshake, which the connection has made

    async def initialize(self) -> types.InitializeResult:
        """Wait until the connection is ready, and return its server's information.

        Raises:
            CallFailed: it cannot be connected now.
        """
        await self.connection.wait_ready(self._timeout)
        result = self.initialize_result
        if result is not None:
            return result
        return types.InitializeResult(
            protocol_version=self.protocol_version or LATEST_PROTOCOL_VERSION,
            capabilities=self.server_capabilities or types.ServerCapabilities(),
            server_info=self.server_info or types.Implementation(name=self.connection.name, version=""),
            instructions=self.instructions,
        )

    def _present(self, name: str) -> Any:
        try:
            return getattr(self.connection, name)
        except NotReady:
            return None

    @property
    def initialize_result(self) -> types.InitializeResult | None:
        """The handshake result of the current session's server; None without a session, and in the modern era."""
        session = self._present("session")
        return None if session is None else session.initialize_result

    @property
    def protocol_version(self) -> str | None:
        """That of the current session; None without one."""
        version = self._present("protocol_version")
        return None if version is None else str(version)

    @property
    def server_info(self) -> types.Implementation | None:
        """The server's name and version; None without a session."""
        return self._present("server_info")  # type: ignore[no-any-return]

    @property
    def server_capabilities(self) -> types.ServerCapabilities | None:
        """The server's capabilities; None without a session."""
        return self._present("server_capabilities")  # type: ignore[no-any-return]

    @property
    def instructions(self) -> str | None:
        """The server's instructions; None without a session."""
        return self._present("instructions")  # type: ignore[no-any-return]

    # -- tools

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        read_timeout_seconds: float | timedelta | None = None,
        progress_callback: ProgressFnT | None = None,
        *,
        input_responses: types.InputResponses | None = None,
        request_state: str | None = None,
        allow_input_required: bool = False,
        meta: types.RequestParamsMeta | None = None,
    ) -> types.CallToolResult:
        """Call a tool. Returns within the timeout and does not raise.

        Args:
            name: The tool, as the server calls it.
            arguments: Its arguments.
            read_timeout_seconds: Seconds for the whole call instead of the session's timeout.
            progress_callback: Called with progress.
            input_responses: Answers to a modern server's questions.
            request_state: The state that came with the questions.
            allow_input_required: Ignored, here and below: the connection's own client answers the questions.
            meta: The request's `_meta`.
        """
        if isinstance(read_timeout_seconds, timedelta):
            read_timeout_seconds = read_timeout_seconds.total_seconds()
        return await connection_result(
            self.connection,
            name,
            arguments,
            timeout=read_timeout_seconds or self._timeout,
            progress_callback=progress_callback,
            meta=meta,
            input_responses=input_responses,
            request_state=request_state,
        )

    async def list_tools(
        self, cursor: str | None = None, *, params: types.PaginatedRequestParams | None = None
    ) -> types.ListToolsResult:
        """List a page of tools; raises as `Connection.list_tools`."""
        return await self.connection.list_tools(**_page(cursor, params))

    # -- prompts and resources

    async def list_prompts(
        self, cursor: str | None = None, *, params: types.PaginatedRequestParams | None = None
    ) -> types.ListPromptsResult:
        """List a page of prompts; raises as `Connection.list_prompts`."""
        return await self.connection.list_prompts(**_page(cursor, params))

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, str] | None = None,
        *,
        allow_input_required: bool = False,
        **options: Unpack[RoundOptions],
    ) -> types.GetPromptResult:
        """Get a prompt; raises as `Connection.get_prompt`."""
        return await self.connection.get_prompt(name, arguments, **options)

    async def list_resources(
        self, cursor: str | None = None, *, params: types.PaginatedRequestParams | None = None
    ) -> types.ListResourcesResult:
        """List a page of resources; raises as `Connection.list_resources`."""
        return await self.connection.list_resources(**_page(cursor, params))

    async def list_resource_templates(
        self, cursor: str | None = None, *, params: types.PaginatedRequestParams | None = None
    ) -> types.ListResourceTemplatesResult:
        """List a page of resource templates; raises as `Connection.list_resource_templates`."""
        return await self.connection.list_resource_templates(**_page(cursor, params))

    async def read_resource(
        self, uri: object, *, allow_input_required: bool = False, **options: Unpack[ReadOptions]
    ) -> types.ReadResourceResult:
        """Read a resource; raises as `Connection.read_resource`."""
        return await self.connection.read_resource(str(uri), **options)

    async def subscribe_resource(self, uri: object, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """Be notified of a resource's changes (legacy era)."""
        return await self.connection.subscribe_resource(str(uri), **options)

    async def unsubscribe_resource(self, uri: object, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """End `subscribe_resource`."""
        return await self.connection.unsubscribe_resource(str(uri), **options)

    async def complete(
        self,
        ref: types.ResourceTemplateReference | types.PromptReference,
        argument: dict[str, str],
        context_arguments: dict[str, str] | None = None,
        **options: Unpack[CallOptions],
    ) -> types.CompleteResult:
        """Complete an argument of a prompt or resource template."""
        return await self.connection.complete(ref, argument, context_arguments, **options)

    # -- the rest

    async def send_ping(self, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """Ping the server. In the modern era, which has no ping, it waits until the connection is ready."""
        await self.connection.wait_ready(self._timeout)
        if self.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return types.EmptyResult()
        return await self.connection.send_ping(**options)

    async def set_logging_level(self, level: types.LoggingLevel, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """Set the minimum level of the server's log messages (legacy era)."""
        return await self.connection.set_logging_level(level, **options)

    async def send_roots_list_changed(self) -> None:
        """Tell the server that the roots have changed (legacy era)."""
        await self.connection.send_roots_list_changed()

    async def send_progress_notification(
        self, progress_token: str | int, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Report the progress of one of the server's requests (legacy era)."""
        await self.connection.send_progress_notification(progress_token, progress, total, message)


def _page(cursor: str | None, params: types.PaginatedRequestParams | None) -> dict[str, Any]:
    if params is None:
        return {"cursor": cursor}
    return {"cursor": cursor or params.cursor, "meta": params.meta}
