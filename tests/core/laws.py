"""The laws of the table, each a function of a table, so that a changed table can be compared with them.

A law raises AssertionError where it is broken. `EXPECTED` is the table of the design, written down once more
by hand; the laws say the same in general terms, without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mcpconn.core import Event, State
from mcpconn.core.states import Transition

Table = Sequence[Transition]
S, E = State, Event

EXPECTED = """
idle          connect         connecting
connecting    established     ready
connecting    attempt_failed  connecting
connecting    give_up         failed
ready         suspected       ready
ready         lost            reconnecting
ready         give_up         failed
ready         recycle         idle
reconnecting  established     ready
reconnecting  attempt_failed  reconnecting
reconnecting  give_up         failed
failed        retry           reconnecting
idle          close           closed
connecting    close           closed
ready         close           closed
reconnecting  close           closed
failed        close           closed
"""

DIALLING = {S.CONNECTING, S.RECONNECTING}
KNOWN = {
    S.IDLE: {E.CONNECT, E.CLOSE},
    S.CONNECTING: {E.ESTABLISHED, E.ATTEMPT_FAILED, E.GIVE_UP, E.CLOSE},
    S.READY: {E.SUSPECTED, E.LOST, E.GIVE_UP, E.RECYCLE, E.CLOSE},
    S.RECONNECTING: {E.ESTABLISHED, E.ATTEMPT_FAILED, E.GIVE_UP, E.CLOSE},
    S.FAILED: {E.RETRY, E.CLOSE},
    S.CLOSED: set(),
}
"""The events of each state; all others are illegal there."""


def rows(table: Table) -> set[tuple[State, Event, State]]:
    """The table without its words."""
    return {(row.source, row.event, row.target) for row in table}


def reachable(table: Table, start: State) -> set[State]:
    """The states that can be reached from `start`, itself included."""
    found = {start}
    while more := {row.target for row in table if row.source in found} - found:
        found |= more
    return found


def the_table_is_the_designs(table: Table) -> None:
    """Row for row."""
    expected = {
        (S(source), E(event), S(target)) for source, event, target in map(str.split, EXPECTED.split("\n")[1:-1])
    }
    assert rows(table) == expected


def an_event_leads_to_one_place(table: Table) -> None:
    """No state has two rows for one event."""
    pairs = [(row.source, row.event) for row in table]
    assert len(pairs) == len(set(pairs))


def every_pair_is_declared_legal_or_illegal(table: Table) -> None:
    """A state knows the events that it should, and no others."""
    for state in State:
        assert {row.event for row in table if row.source is state} == KNOWN[state], state


def nothing_leaves_closed(table: Table) -> None:
    """It is the end."""
    assert reachable(table, S.CLOSED) == {S.CLOSED}


def close_is_known_everywhere_and_closes(table: Table) -> None:
    """From every state but closed itself, and nothing else leads there."""
    closing = {row.source for row in table if row.event is E.CLOSE and row.target is S.CLOSED}
    assert closing == set(State) - {S.CLOSED}
    assert {row.event for row in table if row.target is S.CLOSED} == {E.CLOSE}


def ready_can_be_reached_from_everywhere_but_closed(table: Table) -> None:
    """No state but closed is a grave."""
    for state in State:
        assert (S.READY in reachable(table, state)) == (state is not S.CLOSED), state


def every_state_can_be_reached_from_idle(table: Table) -> None:
    """There are no dead words in the table."""
    assert reachable(table, S.IDLE) == set(State)


def ready_is_entered_by_a_session_and_nothing_else(table: Table) -> None:
    """Only a dial that succeeded makes a connection ready."""
    assert {row.event for row in table if row.target is S.READY and row.source is not S.READY} == {E.ESTABLISHED}
    assert {row.source for row in table if row.event is E.ESTABLISHED and row.target is S.READY} == DIALLING


def what_changes_nothing_stays_where_it_is(table: Table) -> None:
    """A failed dial and a suspicion leave the state as it is, and nothing else does."""
    assert {row.event for row in table if row.source is row.target} == {E.ATTEMPT_FAILED, E.SUSPECTED}
    assert all(row.source is row.target for row in table if row.event in (E.ATTEMPT_FAILED, E.SUSPECTED))


def failed_is_entered_by_giving_up_and_nothing_else(table: Table) -> None:
    """An open circuit is a decision."""
    assert {row.event for row in table if row.target is S.FAILED} == {E.GIVE_UP}
    assert {row.target for row in table if row.event is E.GIVE_UP} == {S.FAILED}


def dialling_has_a_history_or_none(table: Table) -> None:
    """First sessions are dialled in connecting, later ones in reconnecting; what was recycled starts again."""
    entering = {(row.event, row.target) for row in table if row.target in DIALLING and row.source is not row.target}
    assert entering == {(E.CONNECT, S.CONNECTING), (E.LOST, S.RECONNECTING), (E.RETRY, S.RECONNECTING)}
    assert {row.target for row in table if row.event is E.RECYCLE} == {S.IDLE}


def every_row_says_when(table: Table) -> None:
    """In words."""
    assert all(row.when.strip() for row in table)


GENERAL: tuple[Callable[[Table], None], ...] = (
    an_event_leads_to_one_place,
    every_pair_is_declared_legal_or_illegal,
    nothing_leaves_closed,
    close_is_known_everywhere_and_closes,
    ready_can_be_reached_from_everywhere_but_closed,
    every_state_can_be_reached_from_idle,
    ready_is_entered_by_a_session_and_nothing_else,
    what_changes_nothing_stays_where_it_is,
    failed_is_entered_by_giving_up_and_nothing_else,
    dialling_has_a_history_or_none,
    every_row_says_when,
)
LAWS = (the_table_is_the_designs, *GENERAL)


def broken(table: Table, laws: Sequence[Callable[[Table], None]] = LAWS) -> list[str]:
    """The names of the laws that `table` breaks."""
    names = []
    for law in laws:
        try:
            law(table)
        except AssertionError:
            names.append(law.__name__)
    return names
