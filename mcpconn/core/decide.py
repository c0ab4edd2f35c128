"""Which event follows from a failure, and whether a call may be made again. Pure: every fact is an argument.

On a ready connection (`decide`):

    SESSION_EXPIRED, TRANSPORT_LOST   lost where it is proof, else suspected
    AUTH, 401                         lost where credentials can be refreshed (the supervisor refreshes once,
                                      then dials), else suspected: a probe refused the same way is the proof
    AUTH, 403                         nothing: it is that call's alone
    UNAVAILABLE, TIMEOUT              suspected
    RATE_LIMITED                      nothing: the call waits
    PROTOCOL, CONFIG                  nothing: the call fails
    APPLICATION, CANCELLED            nothing

The probe of a suspected session (`decide_probe`) and a failed dial (`decide_dial`) have rules of their own.
"""

from __future__ import annotations

from mcpconn.core.failures import Delivery, Failure, FailureKind
from mcpconn.core.states import Event, State

PATIENCE = 30.0
"""Seconds of failed dialling before a connection is called failed."""
MIN_ATTEMPTS = 3
"""Dials that must have failed by then: with slow dials, 30 s may be only one."""

_LOSING = frozenset({FailureKind.SESSION_EXPIRED, FailureKind.TRANSPORT_LOST})
_SMELLING = frozenset({FailureKind.UNAVAILABLE, FailureKind.TIMEOUT})
_ANSWERS = frozenset({FailureKind.APPLICATION, FailureKind.RATE_LIMITED, FailureKind.CANCELLED})
_FOR_PEOPLE = frozenset({FailureKind.CONFIG, FailureKind.PROTOCOL})


def _forbidden(failure: Failure) -> bool:
    return failure.kind is FailureKind.AUTH and failure.evidence.http_status == 403


def decide(state: State, failure: Failure, *, refreshable: bool = False) -> Event | None:
    """The event that a failed call, or a sign from an idle transport, causes. None where it causes none.

    Only a ready connection is affected: in every other state the supervisor is at work already, and in
    `closed` nothing matters any more.

    Args:
        state: The connection's state. A failure of an old epoch must not be brought here at all.
        failure: What happened.
        refreshable: Whether there are credentials that could be refreshed.
    """
    if state is not State.READY:
        return None
    if failure.kind in _LOSING:
        return Event.LOST if failure.proof else Event.SUSPECTED
    if failure.kind in _SMELLING:
        return Event.SUSPECTED
    if failure.kind is FailureKind.AUTH and not _forbidden(failure):
        return Event.LOST if refreshable else Event.SUSPECTED
    return None


def decide_probe(failure: Failure, *, refreshable: bool = False) -> Event | None:
    """The event that a failed probe causes. None: the server did answer on this session, so it lives.

    A probe that is not answered, or that is answered by something that is no MCP server, is the proof
    that the suspicion lacked.
    """
    if failure.kind in _ANSWERS or _forbidden(failure):
        return None
    if failure.kind is FailureKind.AUTH:
        return Event.LOST if refreshable else Event.GIVE_UP
    return Event.LOST


def decide_dial(
    failure: Failure,
    *,
    attempts: int,
    elapsed: float,
    worked: bool = False,
    half_open: bool = False,
    refreshable: bool = False,
    patience: float = PATIENCE,
    min_attempts: int = MIN_ATTEMPTS,
) -> Event:
    """Whether a failed dial is followed by another (`attempt_failed`) or not (`give_up`).

    Args:
        failure: Why the dial failed.
        attempts: Dials failed in a row, this one included.
        elapsed: Seconds since the session was lost, or since the first dial.
        worked: A session of this same configuration has been up before. What worked is not misconfigured:
            a web page or a missing program is a deployment in progress until patience is spent.
        half_open: This dial probed a failed connection. It gives up again at once.
        refreshable: Credentials have not been refreshed for this refusal yet, and can be.
        patience: Seconds of failing that are bearable.
        min_attempts: Dials that must have failed before patience counts.
    """
    if failure.kind is FailureKind.AUTH:
        return Event.ATTEMPT_FAILED if refreshable and not _forbidden(failure) else Event.GIVE_UP
    if half_open:
        return Event.GIVE_UP
    if failure.kind in _FOR_PEOPLE and not worked:
        return Event.GIVE_UP
    if attempts >= min_attempts and elapsed >= patience:
        return Event.GIVE_UP
    return Event.ATTEMPT_FAILED


def needs_person(failure: Failure, *, worked: bool = False) -> bool:
    """Whether a connection that failed so waits for `reconnect()` or new credentials instead of a cool-down."""
    return failure.kind is FailureKind.AUTH or (failure.kind in _FOR_PEOPLE and not worked)


def may_replay(
    failure: Failure,
    *,
    safe: bool,
    replays: int,
    progressed: bool = False,
    refreshed: bool = False,
    budget: float = 1.0,
) -> bool:
    """Whether the call that failed may be made again.

    Args:
        failure: Why it failed. A suspicion must have been settled before: a refusal that a probe did not
            confirm is the call's own.
        safe: Running the call twice does no harm: it only lists, reads, gets or completes, or its tool is
            annotated readOnlyHint or idempotentHint, or the caller said `idempotent=True`.
        replays: How often this call was made again already after it was refused or its outcome was unknown.
            A second failure is the caller's.
        progressed: Progress was received for it, so it did run.
        refreshed: A refused call (AUTH) now has other credentials.
        budget: Balance of the replay budget; only replays of unknown outcome need it.
    """
    delivery = Delivery.UNKNOWN if progressed else failure.delivery
    if failure.kind in (FailureKind.APPLICATION, FailureKind.CANCELLED):
        return False
    if delivery is Delivery.NOT_SENT:
        return failure.kind is not FailureKind.CONFIG
    if replays > 0:
        return False
    if delivery is Delivery.REJECTED:
        if failure.kind is FailureKind.AUTH:
            return refreshed and not _forbidden(failure)
        return failure.kind not in _FOR_PEOPLE
    return safe and budget >= 1
