"""What one session of a connection passes on to the next: tools, log level, subscribed resources, the catalogue.

The server forgets all of it with a session. `Restore` keeps it on this side, as `runtime.dialling.Carried` asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import mcp_types as types
from mcp.shared.exceptions import MCPError

from mcpconn.catalog.catalog import Catalog
from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.core.failures import Delivery, FailureKind
from mcpconn.runtime.common import Common
from mcpconn.runtime.protocols import Link
from mcpconn.runtime.session import Session

Request: TypeAlias = types.SetLevelRequest | types.SubscribeRequest

UNUSABLE = (FailureKind.SESSION_EXPIRED, FailureKind.AUTH)
"""Failures at the beginning of a session after which it is not worth keeping."""


class Restore:
    """Brings each new session into the state of the last one."""

    def __init__(
        self,
        common: Common,
        catalog: Catalog,
        *,
        handler: Callable[[Any], Awaitable[Any]],
        send: Callable[[Request], Awaitable[Any]],
        busy: Callable[[], bool],
    ) -> None:
        """
        Args:
            common: What all parts of the connection have in common.
            catalog: Knows the tools, and lists again what is needed of a new session.
            handler: The user's message handler.
            send: Makes a request as a call of the connection, which reports its failures.
            busy: Whether calls have waited for the session.
        """
        self._common = common
        self._catalog = catalog
        self._handler = handler
        self._send = send
        self._busy = busy
        self.log_level: types.LoggingLevel | None = None
        """What the user has set (legacy era)."""
        self.subscriptions: set[str] = set()
        """URIs of the resources that the user watches (legacy era)."""
        self._missing: list[Request] = []
        """What the present session could not be told when it was opened."""

    async def before_calls(self, link: Link) -> None:
        """Tell a new session, before calls are let through; they wait for this for the probe timeout at most.

        A server that refuses a subscription, or does not answer it, can still answer calls. So what cannot be
        restored now is left for `beside_calls`.

        Raises:
            MCPError: the new session is gone already, or nothing can be sent on it.
        """
        # In the modern era the first call may need headers that only a listing names.
        link.restore_tools(tuple(self._catalog.tools.values()))
        self._missing = self._requests() if link.era == "legacy" else []
        with anyio.move_on_after(self._common.policy.probe_timeout):
            for request in tuple(self._missing):
                try:
                    await link.client.session.send_request(request, types.EmptyResult)
                except MCPError as error:
                    failure = self._common.classify(link.evidence(error, ATTEMPT.get() or Attempt("dial")))
                    if link.ended is not None or failure.kind in UNUSABLE or failure.delivery is Delivery.NOT_SENT:
                        raise
                else:
                    self._missing.remove(request)

    async def beside_calls(self, session: Session) -> None:
        """Try once more to tell the session what it could not be told at its beginning; then list what it offers."""
        missing, self._missing = self._missing, []
        for request in missing:
            try:
                await self._send(request)
            except MCPError:
                # It stays among the subscriptions, and the next session tries again.
                continue
        await self._catalog.first_listing(session, busy=self._busy())

    async def tell_watchers(self) -> None:
        """Tell subscribers of resources to read them again, because updates may have been missed."""
        for uri in sorted(self.subscriptions):
            params = types.ResourceUpdatedNotificationParams(uri=uri)
            try:
                await self._handler(types.ResourceUpdatedNotification(params=params))
            except Exception as error:  # a handler is host code
                self._common.journal.report("handler", error)

    def _requests(self) -> list[Request]:
        watched = [types.SubscribeRequestParams(uri=uri) for uri in sorted(self.subscriptions)]
        requests: list[Request] = [types.SubscribeRequest(params=params) for params in watched]
        if self.log_level is not None:
            level = types.SetLevelRequestParams(level=self.log_level)
            requests.insert(0, types.SetLevelRequest(params=level))
        return requests
