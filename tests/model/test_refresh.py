"""The refresh of a shared login, searched exhaustively; and mistakes that the search finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model import exhaustive
from tests.model.refresh import NO_LOGIN_WITHOUT_FAULT, THE_FAMILY_LIVES, Model, Rules, World

MISTAKES = {
    "no mark is written": (Rules(marks=False), 0),
    "a mark of another is not heeded": (Rules(heeds_marks=False), 0),
    "what is stored is not compared": (Rules(compares=False), 0),
    "without an answer of the store it goes on": (Rules(fails_open=True), 2),
    "a loss between read and mark is not noticed": (Rules(checks_epoch=False), 2),
    "a record of before a loss is believed": (Rules(doubts=False), 2),
}


def search(model: Model) -> exhaustive.Found[World]:
    return exhaustive.search(model.start, model.steps)


@pytest.mark.parametrize(
    ("processes", "refreshes", "faults"), [(2, 2, 1), (2, 1, 2), (3, 1, 1)], ids=["twice", "two faults", "three"]
)
def test_the_family_is_never_revoked(processes, refreshes, faults):
    found = search(Model(processes=processes, refreshes=refreshes, faults=faults))
    assert found.broken is None, "\n".join(found.path)
    assert found.worlds > 1_000


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(name):
    rules, faults = MISTAKES[name]
    found = search(Model(rules, faults=faults))
    assert found.broken == THE_FAMILY_LIVES, name


def test_memory_does_not_end_a_doubt():
    found = search(Model(Rules(trusts_memory=True), refreshes=2, faults=1))
    assert found.broken == THE_FAMILY_LIVES


def test_without_a_fault_all_have_tokens():
    found = search(Model(refreshes=2, faults=0))
    assert found.broken is None, found.path
    assert {tuple(each.at for each in world.processes) for world in found.ends} == {("done", "done")}


def test_the_page_names_each_mistake():
    page = (Path(__file__).parents[2] / "docs" / "invariants.md").read_text(encoding="utf-8")
    assert THE_FAMILY_LIVES in page
    assert NO_LOGIN_WITHOUT_FAULT in page
    for name in MISTAKES:
        assert name in page


def test_a_mistake_is_told_in_steps():
    found = search(Model(Rules(marks=False), faults=0))
    assert found.path == (
        "A reads",
        "A marks nothing",
        "A sends token 0 and gets 1",
        "B reads",
        "B marks nothing",
        "B sends token 0, which was spent",
    )
