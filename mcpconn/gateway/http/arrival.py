"""The epoch of the store in which a request arrived at the gateway.

A request may wait in the gateway before its call is recorded: for its session's owner, for a server's list, or because
the process is paused. If the store fails over meanwhile, another copy of the request may have been run and its record
lost. So what its client says of a call ("I send it for the first time") holds in the epoch of the arrival, at the first
replica that has the request, and not in a later one.
"""

from __future__ import annotations

from starlette.types import Scope

_KEY = "mcpconn.epoch"


def arriving(scope: Scope, epoch: str) -> Scope:
    """A request's scope, with the epoch in which it arrives."""
    return {**scope, _KEY: epoch}


def arrived_in(scope: Scope) -> str | None:
    """The epoch in which a request arrived; None if that was not noted."""
    epoch: str | None = scope.get(_KEY)
    return epoch
