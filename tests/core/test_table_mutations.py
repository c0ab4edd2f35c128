"""Every row of the table deleted, and redirected to every other state, in turn: each change is noticed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mcpconn.core import TRANSITIONS, Event, State
from mcpconn.core.machine import Cell, IllegalTransition, build, fire
from mcpconn.core.states import Transition
from tests.core.laws import GENERAL, broken, the_table_is_the_designs
from tests.model.model import Model
from tests.model.search import search

ROWS = [pytest.param(i, id=f"{row.event} in {row.source}") for i, row in enumerate(TRANSITIONS)]


def without(i: int) -> tuple[Transition, ...]:
    """The table without one row."""
    return TRANSITIONS[:i] + TRANSITIONS[i + 1 :]


def redirected(i: int) -> Iterator[tuple[Transition, ...]]:
    """The table with one row that leads elsewhere: to each state that it does not lead to."""
    for target in State:
        if target is not TRANSITIONS[i].target:
            yield (*TRANSITIONS[:i], TRANSITIONS[i]._replace(target=target), *TRANSITIONS[i + 1 :])


def test_the_table_as_it_is_breaks_nothing() -> None:
    assert broken(TRANSITIONS) == []


@pytest.mark.parametrize("i", ROWS)
def test_a_row_that_is_missing_breaks_a_law(i: int) -> None:
    assert broken(without(i), [the_table_is_the_designs])
    assert broken(without(i), GENERAL)


@pytest.mark.parametrize("i", ROWS)
def test_a_row_with_a_wrong_target_breaks_it(i: int) -> None:
    mutants = list(redirected(i))
    assert len(mutants) == len(State) - 1
    for mutant in mutants:
        assert broken(mutant, [the_table_is_the_designs])
        assert broken(mutant, GENERAL), mutant[i]


@pytest.mark.parametrize("i", ROWS)
def test_the_model_misses_a_missing_row(i: int) -> None:
    found = search(Model(safe=(False,), renewals=1, table=without(i))).counterexample
    assert found is not None
    assert found.invariant == "only_legal_events"


@pytest.mark.parametrize("i", ROWS)
def test_ready_needs_a_session_in_the_model(i: int) -> None:
    for mutant in redirected(i):
        if State.READY in (mutant[i].target, TRANSITIONS[i].target):
            assert search(Model(safe=(False,), renewals=1, table=mutant)).counterexample is not None, mutant[i]


@pytest.mark.parametrize("i", ROWS)
def test_a_machine_follows_whatever_table_it_is_built_from(i: int) -> None:
    row = TRANSITIONS[i]
    with pytest.raises(IllegalTransition):
        fire(Cell(row.source), row.event, build(without(i)))
    for mutant in redirected(i):
        assert fire(Cell(row.source), row.event, build(mutant)) is mutant[i].target


@pytest.mark.parametrize("law", GENERAL, ids=lambda law: law.__name__)
def test_no_law_is_idle(law: object) -> None:
    doubled = (*TRANSITIONS, TRANSITIONS[0])
    mute = (TRANSITIONS[0]._replace(when=" "), *TRANSITIONS[1:])
    undead = (*TRANSITIONS, Transition(State.CLOSED, Event.RETRY, State.RECONNECTING, "never"))
    mutants = [doubled, mute, undead]
    for i in range(len(TRANSITIONS)):
        mutants += [without(i), *redirected(i)]
    assert any(broken(mutant, [law]) for mutant in mutants)  # type: ignore[list-item] # a law
