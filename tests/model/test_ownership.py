"""Ownership in a fleet, searched exhaustively; and mistakes that the search finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.exhaustive import search
from tests.model.ownership import (
    ANSWERS_COUNT_UNDER_THE_LEASE,
    INVARIANTS,
    ONE_OWNER,
    SESSIONS_ARE_NOT_SHARED,
    WRITER_HOLDS_THE_LEASE,
    Model,
    Rules,
    World,
)

MISTAKES = {
    "the lease is not looked at before a write": (Rules(checks_before=False), WRITER_HOLDS_THE_LEASE),
    "the lease is not looked at after an answer": (Rules(checks_after=False), ANSWERS_COUNT_UNDER_THE_LEASE),
    "a successor uses the upstream session of its predecessor": (
        Rules(opens_its_own=False),
        SESSIONS_ARE_NOT_SHARED,
    ),
    "a session is taken from a living owner": (Rules(looks_at_the_lease=False), ONE_OWNER),
    "a session is taken without comparing": (Rules(compares=False), ONE_OWNER),
    "a replica that has lost its lease keeps what it held": (Rules(drops=False), ONE_OWNER),
    "a lease is counted from the answer": (Rules(gives_up_first=False), WRITER_HOLDS_THE_LEASE),
}


def test_a_session_has_one_owner():
    found = search(World(), Model().steps)
    assert found.broken is None, "\n".join(found.path)
    assert found.worlds > 5_000


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_ownership_is_found(name):
    rules, broken = MISTAKES[name]
    assert search(World(), Model(rules).steps).broken == broken


def test_the_page_names_each_fleet_mistake():
    page = (Path(__file__).parents[2] / "docs" / "invariants.md").read_text(encoding="utf-8")
    for words in (*INVARIANTS, *MISTAKES):
        assert words in page
