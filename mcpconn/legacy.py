"""Methods of `mcp.Client` that the protocol removed in 2026-07-28. They issue warnings, as the SDK's do.

Each exists twice: under a different name without a warning, for code built on connections (the gateway, managers); and
under the SDK's name.
"""

from __future__ import annotations

import mcp_types as types
from mcp.shared.exceptions import MCPDeprecationWarning
from typing_extensions import Unpack, deprecated

from mcpconn.options import CallOptions
from mcpconn.requests import Requests
from mcpconn.restore import Restore


class Legacy(Requests):
    """Methods that only servers up to 2025-11-25 support."""

    _restore: Restore
    """Keeps the log level and the subscriptions for later sessions."""

    async def ping(
        self, *, meta: types.RequestParamsMeta | None = None, **options: Unpack[CallOptions]
    ) -> types.EmptyResult:
        """Ping the server."""
        return await self._call("ping", lambda client, _: client.session.send_ping(meta=meta), **options)

    async def set_level(
        self, level: types.LoggingLevel, *, meta: types.RequestParamsMeta | None = None, **options: Unpack[CallOptions]
    ) -> types.EmptyResult:
        """Set the level of the server's log messages, for this session and the ones that follow it."""
        request = types.SetLevelRequest(params=types.SetLevelRequestParams(level=level, _meta=meta))
        result = await self._call(
            "logging/setLevel",
            lambda client, _: client.session.send_request(request, types.EmptyResult),
            **options,
        )
        self._restore.log_level = level
        return result

    async def watch_resource(
        self, uri: str, *, meta: types.RequestParamsMeta | None = None, **options: Unpack[CallOptions]
    ) -> types.EmptyResult:
        """Be notified of a resource's changes, on this session and the ones that follow it."""
        request = types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri, _meta=meta))
        result = await self._call(
            "resources/subscribe",
            lambda client, _: client.session.send_request(request, types.EmptyResult),
            **options,
        )
        self._restore.subscriptions.add(uri)
        return result

    async def unwatch_resource(
        self, uri: str, *, meta: types.RequestParamsMeta | None = None, **options: Unpack[CallOptions]
    ) -> types.EmptyResult:
        """End `watch_resource`."""
        self._restore.subscriptions.discard(uri)
        request = types.UnsubscribeRequest(params=types.UnsubscribeRequestParams(uri=uri, _meta=meta))
        return await self._call(
            "resources/unsubscribe",
            lambda client, _: client.session.send_request(request, types.EmptyResult),
            **options,
        )

    @property
    def watching(self) -> bool:
        """For the catalogue: whether the user watches resources."""
        return bool(self._restore.subscriptions)

    async def tell_progress(
        self, progress_token: str | int, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Report the progress of one of the server's requests. The notification is dropped if there is no session."""
        params = types.ProgressNotificationParams(
            progress_token=progress_token, progress=progress, total=total, message=message
        )
        self._check_here()
        await self._client.session.send_notification(types.ProgressNotification(params=params))

    async def tell_roots_changed(self) -> None:
        """Tell the server that the roots have changed."""
        self._check_here()
        await self._client.session.send_notification(types.RootsListChangedNotification())

    # -- as in mcp.Client

    @deprecated(
        "ping is removed as of 2026-07-28; the method only works under mode='legacy'.",
        category=MCPDeprecationWarning,
    )
    async def send_ping(
        self, *, meta: types.RequestParamsMeta | None = None, **options: Unpack[CallOptions]
    ) -> types.EmptyResult:
        """As `ping`."""
        return await self.ping(meta=meta, **options)

    @deprecated("The logging capability is deprecated as of 2026-07-28 (SEP-2577).", category=MCPDeprecationWarning)
    async def set_logging_level(
        self, level: types.LoggingLevel, *, meta: types.RequestParamsMeta | None = None, **options: Unpack[CallOptions]
    ) -> types.EmptyResult:
        """As `set_level`."""
        return await self.set_level(level, meta=meta, **options)

    @deprecated(
        "resources/subscribe is removed as of 2026-07-28; use Client.listen() instead.",
        category=MCPDeprecationWarning,
    )
    async def subscribe_resource(
        self, uri: str, *, meta: types.RequestParamsMeta | None = None, **options: Unpack[CallOptions]
    ) -> types.EmptyResult:
        """As `watch_resource`."""
        return await self.watch_resource(uri, meta=meta, **options)

    @deprecated(
        "resources/unsubscribe is removed as of 2026-07-28; use Client.listen() instead.",
        category=MCPDeprecationWarning,
    )
    async def unsubscribe_resource(
        self, uri: str, *, meta: types.RequestParamsMeta | None = None, **options: Unpack[CallOptions]
    ) -> types.EmptyResult:
        """As `unwatch_resource`."""
        return await self.unwatch_resource(uri, meta=meta, **options)

    @deprecated(
        "Client-to-server progress is deprecated as of 2026-07-28; progress is server-to-client only.",
        category=MCPDeprecationWarning,
    )
    async def send_progress_notification(
        self, progress_token: str | int, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """As `tell_progress`."""
        await self.tell_progress(progress_token, progress, total, message)

    @deprecated("The roots capability is deprecated as of 2026-07-28 (SEP-2577).", category=MCPDeprecationWarning)
    async def send_roots_list_changed(self) -> None:
        """As `tell_roots_changed`."""
        await self.tell_roots_changed()
