"""Calls with an idempotency key: each runs once, and a repeated request joins it or gets its answer.

The call runs in a task of the gateway, not in that of the request that started it. So it continues, and its result is
recorded, if that request is cut off. The client's answer depends only on the call itself: if the ledger fails after the
call was sent, that is logged, and the result is written later; it never changes the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import mcp_types as types
from mcp import MCPError

from mcpconn.errors import ConfigError
from mcpconn.gateway.clients.downstream import Downstream
from mcpconn.gateway.clients.parked import Parked, ParkingLot
from mcpconn.gateway.outcomes import CALL_ID, tool_error
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.requests.ledger import Ledger, Superseded
from mcpconn.gateway.requests.ledger_entries import Entry, Found, LedgerRefused, Outcome
from mcpconn.gateway.rewrite import Json
from mcpconn.gateway.store import StoreFull, StoreUnavailable
from mcpconn.gateway.store.base import Unreadable
from mcpconn.keys import CANCEL
from mcpconn.observe import log

OTHER_KEYS = (
    "the store is used by replicas with other sealing keys: no key of this one opens what they have sealed. Give all "
    "replicas the same key file; to change the keys, list the old one, too. If there are no other replicas, choose "
    "another prefix in the URL of the store"
)


async def look_up(ledger: Ledger, *, shared: bool) -> None:
    """Look up the ledger's id at the start. If the store is away, it is looked up later.

    Args:
        ledger: The ledger.
        shared: Other replicas use the store.

    Raises:
        ConfigError: it was sealed with other keys. This replica would tell clients of the others that their sessions do
            not exist, and the others would tell its own.
    """
    try:
        await ledger.identity()
    except Unreadable:
        if shared:
            raise ConfigError(OTHER_KEYS, key="sealing-keys") from None
    except StoreUnavailable as error:
        log.warning("gateway.store_unavailable", error=str(error))


class Keyed:
    """The calls with a key of one view."""

    def __init__(self, ledger: Ledger, parking: ParkingLot) -> None:
        """
        Args:
            ledger: The records of the calls.
            parking: Runs calls in tasks of the gateway's.
        """
        self._ledger = ledger
        self._parking = parking

    async def run(
        self,
        client: Downstream,
        key: str,
        fingerprint: str,
        call: Callable[[Entry, Parked], Awaitable[Json]],
        *,
        repeat_of: object = None,
        new: bool = False,
        detached: bool,
    ) -> Json:
        """Run a call, or join the one that its key names.

        Args:
            client: Who calls.
            key: The call's name.
            fingerprint: What is called.
            call: Runs it, with `Ledger.send` immediately before the request goes out.
            repeat_of: The ledger that the client first sent the call under; None if it does not say.
            new: The client marks the call as sent for the first time.
            detached: The call continues if the request is cancelled.

        Returns:
            A tool's result. A refusal is one, too.
        """
        principal = client.principal
        # That of the request's arrival: it may have waited here, or in another replica, while the store lost what a
        # second copy of it had written.
        word = (self._ledger.epoch if client.arrived is None else client.arrived) if new else None
        try:
            if repeat_of is not None:
                if repeat_of != await self._ledger.identity():
                    return tool_error(
                        "This call was first sent under another ledger than the present one, which knows nothing of "
                        "it. It may have run. Find out before you call again.",
                        "unknown",
                        {},
                    )
                word = self._ledger.epoch
            unseen = new
            while True:
                # A call that was first sent under the present ledger is in it, or was never sent.
                entry, found = await self._ledger.look(principal, key, fingerprint, word=word, unseen=unseen)
                if found.outcome is not Outcome.NEW:
                    return _remembered(entry, found)
                try:
                    return await self._begin(entry, client, call, detached=detached)
                except Superseded:
                    unseen = False
        except LedgerRefused as error:
            return tool_error(str(error), "not_run", {})
        except StoreFull as error:
            return tool_error(f"The call was not made: its idempotency key cannot be recorded. {error}", "not_run", {})
        except StoreUnavailable as error:
            known = repeat_of is not None or self._ledger.may_have_sent(principal, key)
            text = f"The call was not made now, because its idempotency key cannot be looked up or recorded: {error}."
            if known:
                text += " An earlier request with this key may have run. Send it again later, with the same key."
            return tool_error(text, "unknown" if known else "not_run", {})

    async def _begin(
        self,
        entry: Entry,
        client: Downstream,
        call: Callable[[Entry, Parked], Awaitable[Json]],
        *,
        detached: bool,
    ) -> Json:
        turn = self._parking.begin(
            client.principal, lambda parked: call(entry, parked), asked=entry.ask, expires=client.expires
        )
        entry.cancel = turn.parked.scope.cancel
        return await self._parking.outcome(turn, detached=detached)

    async def cancel(self, principal: Principal, key: object) -> Json:
        """Cancel a call that runs. Says whether there was one; its record says `unknown` afterwards."""
        if not isinstance(key, str):
            raise MCPError(types.INVALID_PARAMS, f"{CANCEL} needs a `key`")
        return {"cancelled": await self._ledger.cancel(principal, key)}


def _remembered(entry: Entry, found: Found) -> Json:
    """What the ledger knows of a call that is not run again."""
    meta = {CALL_ID: entry.key.name}
    if found.outcome is Outcome.UNKNOWN:
        text = "This call was sent before, and its answer was lost: it may have run. Find out before you call again."
        return tool_error(text, "unknown", meta)
    answer = found.answer
    if answer is None:
        return tool_error("This call ran; its answer was too long to be kept. Do not call again for it.", "ran", meta)
    if "error" in answer:
        raise MCPError.from_error_data(types.ErrorData.model_validate(answer["error"]))
    return dict(answer["result"])
