"""The consequences of each kind of failure, computed by the functions that decide them.

Every cell is a result of `decide`, `decide_probe`, `decide_dial`, `may_replay` or `unanswered`. This module has no copy
of the rules, only words for their results.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from mcpconn.core.decide import MIN_ATTEMPTS, PATIENCE, decide, decide_dial, decide_probe, may_replay, needs_person
from mcpconn.core.failures import Delivery, Evidence, Failure, FailureKind
from mcpconn.core.states import Event, State
from mcpconn.diagram.render import table
from mcpconn.errors import unanswered


def _cases() -> Iterator[tuple[str, FailureKind, Evidence]]:
    """Every kind; AUTH twice, because a 403 is decided separately."""
    for kind in FailureKind:
        if kind is FailureKind.AUTH:
            yield "auth, 401", kind, Evidence(http_status=401)
            yield "auth, 403", kind, Evidence(http_status=403)
        else:
            yield kind.value, kind, Evidence()


def _failure(
    kind: FailureKind, evidence: Evidence, delivery: Delivery = Delivery.UNKNOWN, *, proof: bool = True
) -> Failure:
    return Failure(kind=kind, delivery=delivery, proof=proof, summary="it failed", evidence=evidence)


# -- kind x delivery -> replay


def failures_table() -> str:
    """Kind x delivery: whether the call is retried, and otherwise the caller's error."""
    rows = []
    for label, kind, evidence in _cases():
        for delivery in Delivery:
            failure = _failure(kind, evidence, delivery)
            rows.append(
                [
                    f"`{label}`",
                    f"`{delivery.value}`",
                    _replay(failure, safe=True),
                    _replay(failure, safe=False),
                    _caller_gets(failure),
                ]
            )
    return table(["kind", "delivery", "a safe call is retried", "any other call is", "else its caller gets"], rows)


def _replay(failure: Failure, *, safe: bool) -> str:
    def allowed(replays: int, refreshed: bool, budget: float) -> bool:
        return may_replay(failure, safe=safe, replays=replays, refreshed=refreshed, budget=budget)

    answers = {case: allowed(*case) for case in product((0, 1), (False, True), (0.0, 1.0))}
    if not any(answers.values()):
        return "no"
    if all(answers.values()):
        return "until the deadline"
    conditions = []
    if not any(yes for (_, refreshed, _), yes in answers.items() if not refreshed):
        conditions.append("with renewed credentials")
    if not any(yes for (_, _, budget), yes in answers.items() if not budget):
        conditions.append("within the replay budget")
    once = not any(yes for (replays, _, _), yes in answers.items() if replays)
    return ", ".join(["once" if once else "until the deadline", *conditions])


def _caller_gets(failure: Failure) -> str:
    if failure.kind is FailureKind.APPLICATION:
        return "the server's own `MCPError`"
    if failure.kind is FailureKind.CANCELLED:
        return "the cancellation"
    error = unanswered(failure, server="", state=State.READY, attempts=1, retry_in=None)
    return f"`{type(error).__name__}`"


# -- kind -> event


def events_table() -> str:
    """Kind: its effect on a ready connection, on a probe, and on a dial."""
    rows = []
    for label, kind, evidence in _cases():
        proof, suspicion = _failure(kind, evidence), _failure(kind, evidence, proof=False)
        rows.append(
            [
                f"`{label}`",
                _either(*(_event(decide(State.READY, proof, refreshable=yes)) for yes in (True, False))),
                _either(*(_event(decide(State.READY, suspicion, refreshable=yes)) for yes in (True, False))),
                _either(*(_event(decide_probe(proof, refreshable=yes)) for yes in (True, False))),
                _dial(proof),
            ]
        )
    return table(
        ["kind", "on a ready connection, as proof", "as suspicion", "as the answer to a probe", "of a dial"], rows
    )


def _event(event: Event | None) -> str:
    return "nothing" if event is None else f"`{event.value}`"


def _either(refreshable: str, else_: str) -> str:
    return else_ if refreshable == else_ else f"{refreshable} if credentials can be renewed, else {else_}"


def _dial(failure: Failure) -> str:
    def event(*, worked: bool, refreshable: bool, spent: bool) -> Event:
        attempts, elapsed = (MIN_ATTEMPTS, PATIENCE) if spent else (1, 0.0)
        return decide_dial(failure, attempts=attempts, elapsed=elapsed, worked=worked, refreshable=refreshable)

    def patience(*, worked: bool, refreshable: bool) -> str:
        early, late = (event(worked=worked, refreshable=refreshable, spent=spent) for spent in (False, True))
        if early is late:
            return "another dial" if early is Event.ATTEMPT_FAILED else "`give_up` at once"
        return "`give_up` when patience is spent"

    def history(*, refreshable: bool) -> str:
        fresh, worked = (patience(worked=worked, refreshable=refreshable) for worked in (False, True))
        return fresh if fresh == worked else f"{fresh}; if it ever worked, {worked}"

    answer = _either(history(refreshable=True), history(refreshable=False))
    return f"{answer}; a person is needed" if needs_person(failure) and needs_person(failure, worked=True) else answer
