"""The table of states and events, and the machine that is built from it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import product

import pytest
from transitions import Machine

from mcpconn.core import TRANSITIONS, Event, IllegalTransition, State
from mcpconn.core.machine import MACHINE, Cell, build, fire
from tests.core.laws import KNOWN, LAWS, Table, rows

TARGETS = {(row.source, row.event): row.target for row in TRANSITIONS}
ALL_PAIRS = [pytest.param(state, event, id=f"{event} in {state}") for state, event in product(State, Event)]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_table_keeps_the_law(law: Callable[[Table], None]) -> None:
    law(TRANSITIONS)


@pytest.mark.parametrize("level", ["WARNING", "INFO"])
@pytest.mark.parametrize(("state", "event"), ALL_PAIRS)
def test_the_machine_does_what_the_table_has(
    state: State, event: Event, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    # With the lines of `transitions` the events take the library's own way, and without them a shorter one.
    caplog.set_level(level, "transitions")
    cell = Cell(state)
    target = TARGETS.get((state, event))
    if target is None:
        with pytest.raises(IllegalTransition) as caught:
            fire(cell, event)
        assert (caught.value.state, caught.value.event) == (state, event)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        assert cell.state is state
    else:
        assert fire(cell, event) is target
        assert cell.state is target
        assert bool(caplog.messages) is (level == "INFO")


@pytest.mark.parametrize(("state", "event"), ALL_PAIRS)
def test_a_machine_built_from_half_the_table_knows_half_of_it(state: State, event: Event) -> None:
    half = TRANSITIONS[::2]
    cell = Cell(state)
    if (state, event) in {(row.source, row.event) for row in half}:
        assert fire(cell, event, build(half)) is TARGETS[state, event]
    else:
        with pytest.raises(IllegalTransition):
            fire(cell, event, build(half))
        assert cell.state is state


def test_the_machine_knows_the_rows_of_the_table_and_no_others() -> None:
    found = {
        (State[str(transition.source)], Event(name), State[str(transition.dest)])
        for name, event in MACHINE.events.items()
        for transitions in event.transitions.values()
        for transition in transitions
    }
    assert found == rows(TRANSITIONS)


@pytest.mark.parametrize("machine", [MACHINE, build(TRANSITIONS)], ids=["the one", "another"])
def test_a_machine_has_no_ways_states_or_models_of_its_own(machine: Machine) -> None:
    assert sorted(machine.events) == sorted(event.value for event in Event)
    assert machine.models == []
    assert set(machine.states) == {state.name for state in State}
    assert machine.initial == State.IDLE.name


def test_an_empty_machine_knows_no_event() -> None:
    empty = build([])
    assert empty.events == {}
    assert empty.models == []
    assert empty.initial == State.IDLE.name
    with pytest.raises(IllegalTransition):
        fire(Cell(), Event.CONNECT, empty)


def test_firing_leaves_the_machine_unchanged() -> None:
    before = {name: len(event.transitions) for name, event in MACHINE.events.items()}
    for _ in range(50):
        fire(Cell(), Event.CONNECT)
    assert MACHINE.models == []
    assert {name: len(event.transitions) for name, event in MACHINE.events.items()} == before


def test_cells_do_not_know_of_each_other() -> None:
    first, second = Cell(), Cell()
    fire(first, Event.CONNECT)
    assert (first.state, second.state) == (State.CONNECTING, State.IDLE)


def test_a_cell_begins_idle_with_one_state() -> None:
    cell = Cell()
    assert cell.state is State.IDLE
    assert Cell.__slots__ == ("state",)
    assert not hasattr(cell, "__dict__")
    with pytest.raises(AttributeError):
        cell.epoch = 1  # type: ignore[attr-defined] # that is the point


def test_a_cell_shows_its_state() -> None:
    assert repr(Cell(State.RECONNECTING)) == "<Cell reconnecting>"


def test_an_illegal_transition_says_where() -> None:
    error = IllegalTransition(State.CLOSED, Event.CONNECT)
    assert str(error) == "event 'connect' cannot happen in state 'closed'"
    assert (error.state, error.event) == (State.CLOSED, Event.CONNECT)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_illegal_transition_is_pickled(protocol: int) -> None:
    error = IllegalTransition(State.READY, Event.RETRY)
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(twin) is IllegalTransition
        assert (twin.state, twin.event, str(twin)) == (State.READY, Event.RETRY, str(error))


class Odd(IllegalTransition):
    """Somebody's subclass."""


def test_a_subclass_survives_pickling() -> None:
    assert type(pickle.loads(pickle.dumps(Odd(State.READY, Event.RETRY)))) is Odd


@pytest.mark.parametrize("kind", [State, Event])
def test_names_in_logs_are_lower_case(kind: type[State] | type[Event]) -> None:
    for member in kind:
        assert str(member) == f"{member}" == member.value == member.name.lower()


def test_the_laws_know_every_state_and_event() -> None:
    assert set(KNOWN) == set(State)
    assert set().union(*KNOWN.values()) == set(Event)
