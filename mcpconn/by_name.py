"""The methods of the connections of a manager, for callers that have the name of a server and no `Connection`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
from typing_extensions import Unpack

from mcpconn.connection import Connection
from mcpconn.options import (
    CallOptions,
    ListenOptions,
    ListOptions,
    MetaOptions,
    ReadOptions,
    RoundOptions,
    ToolOptions,
)


class CallsByName:
    """Each method takes the name of a server, and then what the `Connection`'s method takes. It has no state."""

    @abstractmethod
    def _running(self, server: str) -> Connection:
        """The connection of this name, if it can be used.

        Raises:
            UnknownServer: there is none of this name.
            NotRunning: the manager does not run.
        """

    async def call_tool(
        self, server: str, name: str, arguments: dict[str, Any] | None = None, **options: Unpack[ToolOptions]
    ) -> types.CallToolResult:
        """`Connection.call_tool` on the server of this name."""
        return await self._running(server).call_tool(name, arguments, **options)

    async def list_tools(self, server: str, **options: Unpack[ListOptions]) -> types.ListToolsResult:
        """`Connection.list_tools` on the server of this name."""
        return await self._running(server).list_tools(**options)

    async def list_resources(self, server: str, **options: Unpack[ListOptions]) -> types.ListResourcesResult:
        """`Connection.list_resources` on the server of this name."""
        return await self._running(server).list_resources(**options)

    async def list_resource_templates(
        self, server: str, **options: Unpack[ListOptions]
    ) -> types.ListResourceTemplatesResult:
        """`Connection.list_resource_templates` on the server of this name."""
        return await self._running(server).list_resource_templates(**options)

    async def read_resource(self, server: str, uri: str, **options: Unpack[ReadOptions]) -> types.ReadResourceResult:
        """`Connection.read_resource` on the server of this name."""
        return await self._running(server).read_resource(uri, **options)

    async def list_prompts(self, server: str, **options: Unpack[ListOptions]) -> types.ListPromptsResult:
        """`Connection.list_prompts` on the server of this name."""
        return await self._running(server).list_prompts(**options)

    async def get_prompt(
        self, server: str, name: str, arguments: dict[str, str] | None = None, **options: Unpack[RoundOptions]
    ) -> types.GetPromptResult:
        """`Connection.get_prompt` on the server of this name."""
        return await self._running(server).get_prompt(name, arguments, **options)

    async def complete(
        self,
        server: str,
        ref: types.ResourceTemplateReference | types.PromptReference,
        argument: dict[str, str],
        **options: Unpack[CallOptions],
    ) -> types.CompleteResult:
        """`Connection.complete` on the server of this name."""
        return await self._running(server).complete(ref, argument, **options)

    async def set_logging_level(
        self, server: str, level: types.LoggingLevel, **options: Unpack[MetaOptions]
    ) -> types.EmptyResult:
        """`Connection.set_logging_level` on the server of this name."""
        return await self._running(server).set_level(level, **options)

    async def subscribe_resource(self, server: str, uri: str, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """`Connection.subscribe_resource` on the server of this name."""
        return await self._running(server).watch_resource(uri, **options)

    async def unsubscribe_resource(self, server: str, uri: str, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """`Connection.unsubscribe_resource` on the server of this name."""
        return await self._running(server).unwatch_resource(uri, **options)

    @asynccontextmanager
    async def listen(self, server: str, **options: Unpack[ListenOptions]) -> AsyncIterator[Any]:
        """`Connection.listen` on the server of this name."""
        async with self._running(server).listen(**options) as subscription:
            yield subscription
