"""Idempotency keys, for calls that must not run twice and go through a gateway with a ledger (see `mcpconn.gateway`).

Such a gateway advertises its ledger among its experimental capabilities. It runs a call with a key once, regardless of
how often the call is sent. So a call whose answer was lost can be sent again, with the same key, to the same ledger,
within half the time for which the ledger keeps it. In all other respects it is treated like any other call.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
from mcp import Client

from mcpconn.errors import CallTimeout, OutcomeUnknown

T = TypeVar("T")

LEDGER = "mcpconn/ledger"
"""The experimental capability of a gateway with a ledger; in `_meta` of a repeat, the ledger under which the call was
first sent."""
IDEMPOTENCY_KEY = "mcpconn/idempotencyKey"
"""The key in `_meta` that identifies the call."""
FIRST = "mcpconn/first"
"""True in `_meta` of a call that is sent for the first time. A gateway whose store may have lost records runs such a
call; for any other unknown call it answers `unknown`."""
CANCEL = "mcpconn/cancel"
"""The request that cancels a call by its key; the end of the call's stream does not cancel it."""
OUTCOME = "mcpconn/outcome"
"""Key in the `_meta` of a failed result, and in an error's data: `not_run`, `unknown` or `ran`, an `Outcome`."""
RETRY_IN = "mcpconn/retryIn"
"""The accompanying key: seconds until it makes sense to try again."""
NEW_SESSION = "mcpconn/newSession"
"""Key in the `_meta` of a result: a text that says that the session with the server is new, and why."""
REPEATS = 5
"""How often a call is sent again, in addition to the one retry that every call may have."""
PAUSE = 0.2
"""Seconds before the first of them; doubled each time. The connection's own waits are added."""


@dataclass(frozen=True)
class Ledger:
    """A gateway's description of its ledger."""

    id: str
    ttl: float
    """Seconds for which the ledger keeps a call after its end."""


def ledger_of(client: Client) -> Ledger | None:
    """The ledger of a session's server; None if it has none."""
    said = (client.server_capabilities.experimental or {}).get(LEDGER)
    if not isinstance(said, Mapping):
        return None
    name, ttl = said.get("id"), said.get("ttl")
    return Ledger(name, float(ttl)) if isinstance(name, str) and isinstance(ttl, int | float) and ttl > 0 else None


class CallKey:
    """The key of one call, used for all its attempts."""

    def __init__(self, meta: Mapping[str, Any] | None, *, client: Callable[[], Client | None]) -> None:
        """
        Args:
            meta: The call's `_meta`. If it contains a key from the caller, that key is used.
            client: The client of the connection's current session.
        """
        self._meta = dict(meta or {})
        own = self._meta.get(IDEMPOTENCY_KEY)
        self.key: str = own if isinstance(own, str) else ""
        self._client = client
        self._ledger: Ledger | None = None
        self._until = 0.0
        self._repeat = False
        self._attempted = own is not None
        """Whether it may have been sent before: a call with the caller's own key may be a repeat."""

    def meta(self, client: Client) -> dict[str, Any] | None:
        """The `_meta` for an attempt on a session."""
        ledger = ledger_of(client)
        if ledger is None:
            return self._meta or None
        if self._ledger is None:
            self._ledger, self._until = ledger, anyio.current_time() + ledger.ttl / 2
            self.key = self.key or secrets.token_hex(16)
        sent = {**self._meta, IDEMPOTENCY_KEY: self.key}
        if not self._attempted:
            self._attempted = True
            return {**sent, FIRST: True}
        # Set only if the call may have run: a different ledger answers `unknown` to a repeat and runs nothing.
        return {**sent, LEDGER: self._ledger.id} if self._repeat else sent

    def repeatable(self) -> bool:
        """Whether the call can be sent again without running twice: the current session's server has the same
        ledger."""
        if self._ledger is None or anyio.current_time() >= self._until:
            return False
        client = self._client()
        if client is not None and ledger_of(client) != self._ledger:
            return False
        self._repeat = True
        return True

    @property
    def sent(self) -> bool:
        """Whether the call was sent with a key."""
        return self._ledger is not None


async def repeated(
    key: CallKey,
    call: Callable[[float | None], Awaitable[T]],
    timeout: float | None,
    cancel: Callable[[str], None],
) -> T:
    """Make a call, and repeat it while its outcome is unknown and its key makes a repeat harmless.

    Args:
        key: The call's.
        call: Makes the call within the given number of seconds.
        timeout: Seconds for all of it; None: no limit.
        cancel: Called with the key of a call whose caller has stopped waiting.

    Raises:
        CallFailed: as `call`.
    """
    deadline = None if timeout is None else anyio.current_time() + timeout
    pause = PAUSE
    try:
        for left in range(REPEATS, -1, -1):
            remaining = None if deadline is None else max(0.0, deadline - anyio.current_time())
            try:
                return await call(remaining)
            except OutcomeUnknown as error:
                late = deadline is not None and anyio.current_time() + pause >= deadline
                if not left or late or isinstance(error, CallTimeout) or not key.repeatable():
                    raise
            await anyio.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")  # pragma: no cover - the last pass returns or raises
    except (anyio.get_cancelled_exc_class(), CallTimeout):
        if key.sent:
            cancel(key.key)
        raise
