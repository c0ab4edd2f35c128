"""Minutes of a simulated fleet, and mistakes that they find. `make soak` lives through a thousand whole minutes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mcpconn.auth.held import HeldTokens
from mcpconn.gateway.fleet.go_ahead import AskedGoAhead, GoAhead
from mcpconn.gateway.fleet.membership import Membership
from mcpconn.gateway.fleet.revocations import Revocations
from mcpconn.gateway.fleet.routing import Routing
from mcpconn.gateway.requests.ledger import Ledger
from mcpconn.gateway.requests.ledger_entries import Entry, Found, Outcome
from mcpconn.gateway.store import StoreUnavailable
from mcpconn.redis.standing import Standing
from tests.simulated_fleet import checks
from tests.simulated_fleet.world import PromiseBroken, live_through

pytestmark = [
    # The SDK leaves response bodies unfinished; see tests/support.py.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.skipif(
        sys.version_info < (3, 11),
        reason="a simulated process is the context of its tasks, which asyncio's create_task takes from 3.11 on",
    ),
]

MANY = 100
"""Minutes, short ones in `make test` and whole ones in `make test-chaos`. A whole one takes about a second of processor
time, a short one a third of that."""
WITHIN = 10
"""Seeds within which a mistake has to be found."""


@pytest.mark.parametrize("seed", range(MANY))
def test_a_fleet_keeps_its_promises(seed: int) -> None:
    assert live_through(seed, seconds=6, clients=3).calls > 9


def test_retired_replicas_cost_no_client_an_answer() -> None:
    # With this seed, calls to a modern server are in flight when a replica gives up what it owns of their principal.
    assert set(live_through(0, troubles=("retire",)).told) == {"answered"}


@pytest.mark.parametrize("seed", range(MANY))
def test_a_fleet_keeps_its_promises_for_long(seed: int) -> None:
    assert live_through(seed).calls > 20


def test_a_seed_repeats_its_minute() -> None:
    digests = {live_through(seed).digest for seed in (1, 1, 2)}
    assert len(digests) == 2


class Mistake(NamedTuple):
    """Something that is left out of the real code."""

    make: Callable[[pytest.MonkeyPatch], None]
    promise: str
    """What it breaks."""
    troubles: tuple[str, ...]
    """Under which trouble."""


def no_mark_in_the_ledger(patch: pytest.MonkeyPatch) -> None:
    async def write_sent(self: Ledger, entry: Entry) -> None:
        entry.version = 1

    patch.setattr(Ledger, "_write_sent", write_sent)


def fails_open(patch: pytest.MonkeyPatch) -> None:
    look, send = Ledger.look, Ledger.send

    async def open_look(self: Ledger, principal: Any, key: str, fingerprint: str, **options: Any) -> Any:
        try:
            return await look(self, principal, key, fingerprint, **options)
        except StoreUnavailable:
            return Entry(self._place(principal, key), fingerprint), Found(Outcome.NEW)

    async def open_send(self: Ledger, entry: Entry) -> None:
        try:
            await send(self, entry)
        except StoreUnavailable:
            return

    patch.setattr(Ledger, "look", open_look)
    patch.setattr(Ledger, "send", open_send)


def loss_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Standing, "doubtful", lambda self, ttl: False)
    patch.setattr(Ledger, "_name", lambda self, identity: identity)


def no_fencing(patch: pytest.MonkeyPatch) -> None:
    async def check(self: Membership, name: str) -> None:
        """Nothing is checked."""

    patch.setattr(Membership, "check", check)
    patch.setattr(Membership, "may_write", property(lambda self: True))
    patch.setattr("mcpconn.gateway.fleet.fleet.Fleet._drop", _nothing)


async def _nothing(self: object) -> None:
    """What was held is kept."""


def owner_is_not_asked(patch: pytest.MonkeyPatch) -> None:
    async def owner(self: Routing, key: str, **options: Any) -> None:
        return None

    patch.setattr(Routing, "owner", owner)


def no_wait_for_the_go_ahead(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AskedGoAhead, "ask", GoAhead.ask)


def removed_keys_are_not_announced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Revocations, "look", _nothing)


def no_mark_of_a_refresh(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HeldTokens, "mark", _nothing)


MISTAKES = {
    "no record is written before a call is sent": Mistake(no_mark_in_the_ledger, checks.AT_MOST_ONCE, ("pause",)),
    "calls with a key go on without the store": Mistake(fails_open, checks.AT_MOST_ONCE, ("store away for all",)),
    "a loss of the store is not noticed": Mistake(loss_is_not_noticed, checks.AT_MOST_ONCE, ("failover", "kill")),
    "the lease is looked at by nobody": Mistake(no_fencing, checks.CONVERGES, ("pause",)),
    "each replica serves every session": Mistake(owner_is_not_asked, checks.ONE_AT_A_TIME, ("pause",)),
    "a forwarded call goes out without its go-ahead": Mistake(
        no_wait_for_the_go_ahead, checks.AT_MOST_ONCE, ("kill", "links")
    ),
    "removed keys are not announced": Mistake(removed_keys_are_not_announced, checks.REVOKED, ("revoke",)),
    "a refresh writes no mark": Mistake(no_mark_of_a_refresh, checks.ONE_USE, ("server forgets",)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_fleet_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake = MISTAKES[name]
    mistake.make(monkeypatch)
    with pytest.raises(PromiseBroken, match=rf"{mistake.promise}(.|\n)*To repeat it: python -m tests.simulated_fleet"):
        for seed in range(WITHIN):
            live_through(seed, troubles=mistake.troubles)


def test_the_page_names_each_fleet_promise() -> None:
    page = (Path(__file__).parents[2] / "docs" / "invariants.md").read_text(encoding="utf-8")
    for words in (*checks.PROMISES, *MISTAKES):
        assert words in page
