"""The methods of `mcp.Client`: each defines what is sent; `_call` keeps it alive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import mcp_types as types
from mcp import Client
from mcp.client.caching import CacheMode
from mcp.client.subscriptions import Subscription
from typing_extensions import Unpack

from mcpconn.catalog.listing import LISTS, without_misfits
from mcpconn.core.attempt import Attempt
from mcpconn.errors import InvalidResult
from mcpconn.observe import log
from mcpconn.options import CallOptions
from mcpconn.requests import Requests
from mcpconn.sdk.client import send_unchecked

T = TypeVar("T")


class Methods(Requests):
    """`mcp.Client`'s methods, with the same arguments and results, on top of one `_call`. `call_tool` is in `Requests`.

    Each takes three arguments more:

    - `timeout`: seconds for the whole call, including waiting and reconnecting; None for no limit.
    - `idempotent`: True declares that running this call twice is harmless, False that it is not. By default, the method
      and the tool's annotations decide.
    - `wait`: False raises `NotReady` at once if the connection is not ready.
    """

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
            # The catalogue uses only what the server has just listed, not a page from a cache or one filtered by
            # `meta`.
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
        try:
            return await self._call(
                rpc, lambda client, _: getattr(client, method)(cursor=cursor, cache_mode="refresh"), background=True
            )
        except InvalidResult:
            # The SDK rejects a page as a whole. One tool of a wrong form would hide all tools of its server, so the
            # page is requested again as it is, and the entries that can be used are used.
            sent = {} if cursor is None else {"cursor": cursor}
            page = await self._call(rpc, lambda client, _: send_unchecked(client.session, rpc, sent), background=True)
            usable, wrong = without_misfits(kind, page)
            if usable is None:
                raise
            for entry, why in wrong.items():
                log.warning("catalog.entry_left_out", connection=self.name, list=kind, entry=entry, why=why)
            return usable

    async def capabilities(self) -> types.ServerCapabilities | None:
        """For the catalogue: the capabilities of the current session's server. Asks once if the handshake did not tell.

        Raises:
            MCPError, CallFailed: the server does not tell.
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

        Opening the stream waits and retries like a call. The stream belongs to its session and ends with it
        (`SubscriptionLost`): then listen again, and fetch again what it reported on.
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
