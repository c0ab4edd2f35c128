"""What must hold of a connection whatever happens, each as a function of a step of the model.

Their words are those of docs/invariants.md.
"""

from __future__ import annotations

from collections.abc import Callable

from mcpconn.core.states import State
from tests.model.worlds import Step, World

Invariant = Callable[[World, Step], bool]
"""Whether a step from a world keeps the promise."""


def no_waiter_after_terminal(before: World, step: Step) -> bool:
    """Where the connection is failed or closed, no call waits any more: neither for ready nor for a probe."""
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
    """A call is issued on the session that takes calls at that moment, and stays with it until it is over."""
    for old, new in zip(before.callers, step.after.callers, strict=True):
        if new.phase == "in flight":
            stays = old.phase == "in flight" and old.epoch == new.epoch
            issued = old.phase != "in flight" and new.epoch == before.epoch and new.epoch in before.accepting
            if not (stays or issued):
                return False
    return True


def stale_failure_changes_nothing(before: World, step: Step) -> bool:
    """A failure of a session that takes no more calls changes nothing but the call that it belongs to."""
    if step.reported is None or (step.reported == before.epoch and step.reported in before.accepting):
        return True

    def connection(world: World) -> World:
        return world._replace(callers=(), budget=0)

    return connection(before) == connection(step.after)


def one_accepting_session(before: World, step: Step) -> bool:
    """Exactly one session takes calls while the connection is ready, and none at any other time."""
    return len(step.after.accepting) == (step.after.state is State.READY)


def one_reconnect_per_epoch(before: World, step: Step) -> bool:
    """A session is lost at most once, however many calls fail with it."""
    return step.after.ends <= 1


def budget_never_negative(before: World, step: Step) -> bool:
    """No replay is made that the budget does not hold."""
    return step.after.budget >= 0


def unknown_only_after_write(before: World, step: Step) -> bool:
    """No caller is told that its call may have run where the request never left."""
    return all(caller.sent for caller in step.after.callers if caller.outcome == "unknown")


def never_written_twice(before: World, step: Step) -> bool:
    """A call that is not safe is never written again, unless what was written before is proved not to have run."""
    pairs = zip(before.callers, step.after.callers, strict=True)
    return not any(new.written and not old.written and old.ran and not new.safe for old, new in pairs)


def not_run_is_the_truth(before: World, step: Step) -> bool:
    """No caller is told that its call did not run where one of its attempts may have."""
    return not any(caller.ran for caller in step.after.callers if caller.outcome == "not run")


def one_replay_per_call(before: World, step: Step) -> bool:
    """A call is retried at most once after it was refused or its outcome was unknown."""
    return all(caller.again <= 1 for caller in step.after.callers)


def one_probe_per_session(before: World, step: Step) -> bool:
    """A session is asked by one probe at a time."""
    return step.after.probes <= 1


def gate_open_only_when_ready(before: World, step: Step) -> bool:
    """Calls are let through while the connection is ready, turned away when it failed or closed, else they wait."""
    expected = {State.READY: "open", State.FAILED: "refusing", State.CLOSED: "refusing"}
    return step.after.gate == expected.get(step.after.state, "closed")


def closed_is_the_end(before: World, step: Step) -> bool:
    """What is closed stays closed."""
    return before.state is not State.CLOSED or step.after.state is State.CLOSED


def only_legal_events(before: World, step: Step) -> bool:
    """No event is fired in a state that does not know it. (The search itself notices: the model raises.)"""
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
