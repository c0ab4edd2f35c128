"""What the gateway notes about a request on its way, in the request's ASGI scope.

The epoch of the store in which it arrived. A request may wait in the gateway before its call is recorded: for its
session's owner, for a server's list, or because the process is paused. If the store fails over meanwhile, another copy
of the request may have been run and its record lost. So what its client says of a call ("I send it for the first time")
holds in the epoch of the arrival, at the first replica that has the request, and not in a later one.

Whether an earlier try of it may have run: a replica that was lost had it, and it is retried because it is safe to
repeat. If the next try does not reach its server, the request is not one that did not run.
"""

from __future__ import annotations

from starlette.types import Scope

_EPOCH, _EARLIER = "mcpconn.epoch", "mcpconn.earlier"


def arriving(scope: Scope, epoch: str) -> Scope:
    """A request's scope, with the epoch in which it arrives."""
    return {**scope, _EPOCH: epoch}


def arrived_in(scope: Scope) -> str | None:
    """The epoch in which a request arrived; None if that was not noted."""
    epoch: str | None = scope.get(_EPOCH)
    return epoch


def note_earlier_try(scope: Scope) -> None:
    """An earlier try of the request may have run."""
    scope[_EARLIER] = True


def had_earlier_try(scope: Scope) -> bool:
    """Whether an earlier try of the request may have run."""
    return _EARLIER in scope
