"""What must always hold for a connection, each as a function of a step of the model.

Their words are those of docs/invariants.md.
"""

from __future__ import annotations

from collections.abc import Callable

from mcpconn.core.states import State
from tests.model.worlds import Step, World

Invariant = Callable[[World, Step], bool]
"""Whether a step from a world keeps the invariant."""


def no_waiter_after_terminal(before: World, step: Step) -> bool:
    """When the connection is failed or closed, no call waits any longer: neither for ready nor for a probe."""
    after = step.after
    if after.state not in (State.FAILED, State.CLOSED):
        return True
    return not any(caller.phase in ("waiting", "confirming") for caller in after.callers)


def epoch_only_grows(before: World, step: Step) -> bool:
    """The epoch grows by one with each new session, and changes at no other time."""
    after = step.after
    established = after.state is State.READY and before.state is not State.READY
    return after.epoch == before.epoch + established


def call_belongs_to_one_epoch(before: World, step: Step) -> bool:
    """A call is issued on the session that accepts calls at that moment, and stays on it until it ends."""
    for old, new in zip(before.callers, step.after.callers, strict=True):
        if new.phase == "in flight":
            stays = old.phase == "in flight" and old.epoch == new.epoch
            issued = old.phase != "in flight" and new.epoch == before.epoch and new.epoch in before.accepting
            if not (stays or issued):
                return False
    return True


def stale_failure_changes_nothing(before: World, step: Step) -> bool:
    """A failure of a session that no longer accepts calls affects only the call that it belongs to."""
    if step.reported is None or (step.reported == before.epoch and step.reported in before.accepting):
        return True

    def connection(world: World) -> World:
        return world._replace(callers=(), budget=0)

    return connection(before) == connection(step.after)


def one_accepting_session(before: World, step: Step) -> bool:
    """Exactly one session accepts calls while the connection is ready, and none at any other time."""
    return len(step.after.accepting) == (step.after.state is State.READY)


def one_reconnect_per_epoch(before: World, step: Step) -> bool:
    """A session is lost at most once, however many calls fail with it."""
    return step.after.ends <= 1


def budget_never_negative(before: World, step: Step) -> bool:
    """No replay is made that the budget does not cover."""
    return step.after.budget >= 0


def unknown_only_after_write(before: World, step: Step) -> bool:
    """No caller is told that its call may have run if the request was never sent."""
    return all(caller.sent for caller in step.after.callers if caller.outcome == "unknown")


def never_written_twice(before: World, step: Step) -> bool:
    """A call that is not safe is never written again, unless its earlier attempts are proved not to have run."""
    pairs = zip(before.callers, step.after.callers, strict=True)
    return not any(new.written and not old.written and old.ran and not new.safe for old, new in pairs)


def not_run_is_the_truth(before: World, step: Step) -> bool:
    """No caller is told that its call did not run if one of its attempts may have run."""
    return not any(caller.ran for caller in step.after.callers if caller.outcome == "not run")


def one_replay_per_call(before: World, step: Step) -> bool:
    """A call is retried at most once after it was refused or its outcome was unknown."""
    return all(caller.again <= 1 for caller in step.after.callers)


def one_probe_per_session(before: World, step: Step) -> bool:
    """At most one probe of a session runs at a time."""
    return step.after.probes <= 1


def gate_open_only_when_ready(before: World, step: Step) -> bool:
    """Calls pass while the connection is ready, are refused when it is failed or closed, and otherwise wait."""
    expected = {State.READY: "open", State.FAILED: "refusing", State.CLOSED: "refusing"}
    return step.after.gate == expected.get(step.after.state, "closed")


def closed_is_the_end(before: World, step: Step) -> bool:
    """A closed connection stays closed."""
    return before.state is not State.CLOSED or step.after.state is State.CLOSED


def only_legal_events(before: World, step: Step) -> bool:
    """No event is fired in a state that has no row for it. (The search itself detects this: the model raises.)"""
    return True


INVARIANTS: tuple[Invariant, ...] = (
    no_waiter_after_terminal,
    epoch_only_grows,
    call_belongs_to_one_epoch,
    stale_failure_changes_nothing,
    one_accepting_session,
    one_reconnect_per_epoch,
    budget_never_negative,
    unknown_only_after_write,
    never_written_twice,
    not_run_is_the_truth,
    one_replay_per_call,
    one_probe_per_session,
    gate_open_only_when_ready,
    closed_is_the_end,
    only_legal_events,
)
