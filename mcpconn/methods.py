"""The methods of `mcp.Client`: each says what is sent, and nothing of how it is kept alive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar, cast

import mcp_types as types
from mcp import Client, MCPError
from mcp.client.caching import CacheMode
from mcp.client.subscriptions import Subscription
from mcp.shared.dispatcher import ProgressFnT
from typing_extensions import Unpack

from mcpconn.catalog.listing import LISTS
from mcpconn.core.attempt import Attempt
from mcpconn.options import CallOptions
from mcpconn.requests import DEFAULT, noting
from mcpconn.tasks import Tasks
from mcpconn.validate import check_timeout

T = TypeVar("T")


class Methods(Tasks):
    """`mcp.Client`'s methods, with the same arguments and results, on top of one `_call`.

    Each takes three arguments more:

    - `timeout`: seconds for the whole call, waiting and reconnecting included; None for no limit.
    - `idempotent`: True says that running this call twice does no harm, False that it does. Otherwise the
      method and the tool's annotations say it.
    - `wait`: False raises `NotReady` at once where the connection is not ready.
    """

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        read_timeout_seconds: float | None = None,
        progress_callback: ProgressFnT | None = None,
        *,
        input_responses: types.InputResponses | None = None,
        request_state: str | None = None,
        meta: types.RequestParamsMeta | None = None,
        timeout: float | None = DEFAULT,
        max_total_timeout: float | None = None,
        idempotent: bool | None = None,
        wait: bool = True,
    ) -> types.CallToolResult:
        """Call a tool; arguments and result as `mcp.Client.call_tool`.

        With `max_total_timeout`, each progress that the server reports gives the call another `timeout` seconds, until
        it has taken that many in all (specification 2025-11-25, lifecycle, timeouts).

        Raises:
            MCPError: the server's application answered with an error.
            OutcomeUnknown: no answer came, and the tool may have run.
            CallTimeout: the deadline passed.
            ConnectionFailed, ConnectionClosed, Overloaded, NotReady, CallFailed: the tool was not run.
            ConfigError: a time limit is no number of seconds. Nothing was sent.
            NotRunning: the connection was not started, or runs in another event loop than this.
        """

        check_timeout(read_timeout_seconds, "read_timeout_seconds")
        check_timeout(max_total_timeout, "max_total_timeout")
        limits: dict[str, Any] = {"timeout": timeout, "idempotent": idempotent, "wait": wait}

        def send(
            client: Client, attempt: Attempt, sent_meta: Mapping[str, Any] | None
        ) -> Awaitable[types.CallToolResult]:
            return client.call_tool(
                name,
                arguments,
                read_timeout_seconds,
                noting(attempt, progress_callback),
                input_responses=input_responses,
                request_state=request_state,
                meta=cast("types.RequestParamsMeta | None", sent_meta),
            )

        def as_task() -> Awaitable[types.CallToolResult]:
            # Whoever asks how it is going has progress.
            seconds = self._seconds(timeout) if max_total_timeout is None else max_total_timeout
            return self._call_as_task(name, arguments, meta, **{**limits, "timeout": seconds})

        if self._needs_task(name):
            return await as_task()
        try:
            return await self._tool_call(name, meta, send, total=max_total_timeout, **limits)
        except MCPError as refusal:
            if not await self._learns_that_it_needs_a_task(name, refusal):
                raise
        return await as_task()

    async def list_tools(
        self,
        *,
        cursor: str | None = None,
        meta: types.RequestParamsMeta | None = None,
        cache_mode: CacheMode = "use",
        **options: Unpack[CallOptions],
    ) -> types.ListToolsResult:
        """List a page of tools."""
        page: types.ListToolsResult = await self._list("tools", cursor, meta, cache_mode, **options)
        return page

    async def list_resources(
        self,
        *,
        cursor: str | None = None,
        meta: types.RequestParamsMeta | None = None,
        cache_mode: CacheMode = "use",
        **options: Unpack[CallOptions],
    ) -> types.ListResourcesResult:
        """List a page of resources."""
        page: types.ListResourcesResult = await self._list("resources", cursor, meta, cache_mode, **options)
        return page

    async def list_resource_templates(
        self,
        *,
        cursor: str | None = None,
        meta: types.RequestParamsMeta | None = None,
        cache_mode: CacheMode = "use",
        **options: Unpack[CallOptions],
    ) -> types.ListResourceTemplatesResult:
        """List a page of resource templates."""
        page: types.ListResourceTemplatesResult = await self._list("templates", cursor, meta, cache_mode, **options)
        return page

    async def read_resource(
        self,
        uri: str,
        *,
        input_responses: types.InputResponses | None = None,
        request_state: str | None = None,
        meta: types.RequestParamsMeta | None = None,
        cache_mode: CacheMode = "use",
        **options: Unpack[CallOptions],
    ) -> types.ReadResourceResult:
        """Read a resource."""
        return await self._call(
            "resources/read",
            lambda client, _: client.read_resource(
                uri,
                input_responses=input_responses,
                request_state=request_state,
                meta=meta,
                cache_mode=cache_mode,
            ),
            **options,
        )

    async def list_prompts(
        self,
        *,
        cursor: str | None = None,
        meta: types.RequestParamsMeta | None = None,
        cache_mode: CacheMode = "use",
        **options: Unpack[CallOptions],
    ) -> types.ListPromptsResult:
        """List a page of prompts."""
        page: types.ListPromptsResult = await self._list("prompts", cursor, meta, cache_mode, **options)
        return page

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, str] | None = None,
        *,
        input_responses: types.InputResponses | None = None,
        request_state: str | None = None,
        meta: types.RequestParamsMeta | None = None,
        **options: Unpack[CallOptions],
    ) -> types.GetPromptResult:
        """Get a prompt."""
        return await self._call(
            "prompts/get",
            lambda client, _: client.get_prompt(
                name, arguments, input_responses=input_responses, request_state=request_state, meta=meta
            ),
            **options,
        )

    async def complete(
        self,
        ref: types.ResourceTemplateReference | types.PromptReference,
        argument: dict[str, str],
        context_arguments: dict[str, str] | None = None,
        **options: Unpack[CallOptions],
    ) -> types.CompleteResult:
        """Complete an argument of a prompt or resource template."""
        return await self._call(
            "completion/complete",
            lambda client, _: client.complete(ref, argument, context_arguments),
            **options,
        )

    async def _list(
        self,
        kind: str,
        cursor: str | None,
        meta: types.RequestParamsMeta | None,
        cache_mode: CacheMode,
        **options: Unpack[CallOptions],
    ) -> Any:
        rpc, method = LISTS[kind]

        async def issue(client: Client, attempt: Attempt) -> Any:
            page = await getattr(client, method)(cursor=cursor, meta=meta, cache_mode=cache_mode)
            # The catalogue learns what the server has listed: not a page from a cache, or filtered by `meta`.
            if meta is None and (attempt.started or attempt.written is None):
                self.catalog.heard(kind, cursor, page, client)
            return page

        return await self._call(rpc, issue, **options)

    async def list_page(self, kind: str, cursor: str | None) -> Any:
        """For the catalogue: a page of one kind of list. It does not count as use of the connection.

        Args:
            kind: One of `mcpconn.catalog.KINDS`.
            cursor: Of the page; None for the first.

        Raises:
            MCPError, CallFailed: as the `list_*` methods.
        """
        rpc, method = LISTS[kind]
        return await self._call(
            rpc, lambda client, _: getattr(client, method)(cursor=cursor, cache_mode="refresh"), background=True
        )

    async def capabilities(self) -> types.ServerCapabilities | None:
        """For the catalogue: what the present session's server can do. Asks it once, if the handshake did not.

        Raises:
            MCPError, CallFailed: it does not say.
        """
        session = self.present()
        link = session.link if session is not None else None
        if link is not None and link.capabilities is None:
            link.capabilities = await self._call("server/discover", lambda *_: link.discover(), background=True)
        return link.capabilities if link is not None else None

    @asynccontextmanager
    async def listen(
        self,
        *,
        tools_list_changed: bool = False,
        prompts_list_changed: bool = False,
        resources_list_changed: bool = False,
        resource_subscriptions: Sequence[str] = (),
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[Subscription]:
        """Listen to change events (modern era), as `mcp.Client.listen`.

        Opening it waits and replays as a call does. The stream is its session's, and ends with it
        (`SubscriptionLost`): listen again, and fetch again what it told about.
        """
        async with AsyncExitStack() as stack:
            yield await self._call(
                "subscriptions/listen",
                lambda client, _: stack.enter_async_context(
                    client.listen(
                        tools_list_changed=tools_list_changed,
                        prompts_list_changed=prompts_list_changed,
                        resources_list_changed=resources_list_changed,
                        resource_subscriptions=resource_subscriptions,
                    )
                ),
                **options,
            )
