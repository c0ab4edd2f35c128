"""The state that one session of a connection passes on to the next: tools, log level, subscribed resources, the
catalogue.

The server forgets this state with the session. `Restore` keeps it on the client's side and implements
`runtime.dialling.Carried`.
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
"""Failures at the beginning of a session after which the session is abandoned."""


class Restore:
    """Restores the state of the last session in each new one."""

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
            catalog: Knows the tools, and lists again what is needed on a new session.
            handler: The user's message handler.
            send: Makes a request as a call of the connection, so that its failures are reported.
            busy: Whether calls have waited for the session.
        """
        self._common = common
        self._catalog = catalog
        self._handler = handler
        self._send = send
        self._busy = busy
        self.log_level: types.LoggingLevel | None = None
        """The level that the user has set (legacy era)."""
        self.subscriptions: set[str] = set()
        """URIs of the resources that the user watches (legacy era)."""
        self._missing: list[Request] = []
        """State that could not be restored when the current session was opened."""

    async def before_calls(self, link: Link) -> None:
        """Restore the state on a new session before calls are issued; they wait at most for the probe timeout.

        A server that refuses a subscription, or does not answer it, may still answer calls. So state that cannot be
        restored now is left to `beside_calls`.

        Raises:
            MCPError: the new session is gone already, or nothing can be sent on it.
        """
        # In the modern era the first call may need headers that are known only from a listing.
        link.restore_tools(tuple(self._catalog.tools.values()))
        self._missing = self._requests() if link.era == "legacy" else []
        if not self._missing:
            return
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
        """Try once more to restore what could not be restored at the beginning of the session; then list what the
        server offers."""
        missing, self._missing = self._missing, []
        for request in missing:
            try:
                await self._send(request)
            except MCPError:
                # It remains among the subscriptions, and the next session tries again.
                continue
        await self._catalog.first_listing(session, busy=self._busy())

    async def tell_watchers(self) -> None:
        """Tell subscribers of resources to read them again, because updates may have been missed."""
        for uri in sorted(self.subscriptions):
            params = types.ResourceUpdatedNotificationParams(uri=uri)
            try:
                await self._handler(types.ResourceUpdatedNotification(params=params))
            except Exception as error:  # a handler is the host's code
                self._common.journal.report("handler", error)

    def _requests(self) -> list[Request]:
        watched = [types.SubscribeRequestParams(uri=uri) for uri in sorted(self.subscriptions)]
        requests: list[Request] = [types.SubscribeRequest(params=params) for params in watched]
        if self.log_level is not None:
            level = types.SetLevelRequestParams(level=self.log_level)
            requests.insert(0, types.SetLevelRequest(params=level))
        return requests
