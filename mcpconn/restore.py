"""What a session was told and the next one must be told again: log level and subscribed resources (legacy era)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import mcp_types as types
from mcp.shared.exceptions import MCPError

from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.core.failures import Delivery, Evidence, Failure, FailureKind
from mcpconn.runtime.protocols import Link

Request: TypeAlias = types.SetLevelRequest | types.SubscribeRequest

UNUSABLE = (FailureKind.SESSION_EXPIRED, FailureKind.AUTH)
"""Failures at the beginning of a session after which it is not worth keeping."""


class Restore:
    """Brings each new session into the state of the last one."""

    def __init__(self) -> None:
        self.log_level: types.LoggingLevel | None = None
        """What the user has set."""
        self.subscriptions: set[str] = set()
        """URIs of the resources that the user watches."""
        self._missing: list[Request] = []
        """What the present session could not be told when it was opened."""

    async def before_calls(self, link: Link, classify: Callable[[Evidence], Failure], timeout: float) -> None:
        """Tell a new session, before calls are let through.

        A server that refuses a subscription, or does not answer it, can still answer calls. So what cannot be
        restored now is left for `beside_calls`.

        Args:
            link: The new session.
            classify: Says what an error means.
            timeout: Seconds that the calls wait for this.

        Raises:
            MCPError: the new session is gone already, or nothing can be sent on it.
        """
        self._missing = self._requests() if link.era == "legacy" else []
        with anyio.move_on_after(timeout):
            for request in tuple(self._missing):
                try:
                    await link.client.session.send_request(request, types.EmptyResult)
                except MCPError as error:
                    failure = classify(link.evidence(error, ATTEMPT.get() or Attempt("dial")))
                    if link.ended is not None or failure.kind in UNUSABLE or failure.delivery is Delivery.NOT_SENT:
                        raise
                else:
                    self._missing.remove(request)

    async def beside_calls(self, send: Callable[[Request], Awaitable[Any]]) -> None:
        """Try once more to tell the session what it could not be told at its beginning.

        Args:
            send: Makes the request as a call of the connection, which reports its failures.
        """
        missing, self._missing = self._missing, []
        for request in missing:
            try:
                await send(request)
            except MCPError:
                # It stays among the subscriptions, and the next session tries again.
                continue

    async def tell_watchers(
        self, handler: Callable[[Any], Awaitable[Any]], report: Callable[[str, Exception], None]
    ) -> None:
        """Have those who watch resources read them again, because updates may have been missed.

        Args:
            handler: The user's message handler.
            report: Told when it raises.
        """
        for uri in sorted(self.subscriptions):
            params = types.ResourceUpdatedNotificationParams(uri=uri)
            try:
                await handler(types.ResourceUpdatedNotification(params=params))
            except Exception as error:  # a handler is host code
                report("handler", error)

    def _requests(self) -> list[Request]:
        watched = [types.SubscribeRequestParams(uri=uri) for uri in sorted(self.subscriptions)]
        requests: list[Request] = [types.SubscribeRequest(params=params) for params in watched]
        if self.log_level is not None:
            level = types.SetLevelRequestParams(level=self.log_level)
            requests.insert(0, types.SetLevelRequest(params=level))
        return requests
