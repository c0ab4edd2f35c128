"""Which event follows from a failure, and whether a call may be retried. Pure: every fact is an argument.

On a ready connection (`decide`):

    SESSION_EXPIRED, TRANSPORT_LOST   lost if it is proof, else suspected
    AUTH, 401                         lost if credentials can be refreshed (the supervisor refreshes once, then
                                      dials), else suspected
    APPLICATION                       nothing if it clearly concerns the call only, and is the first error in a row;
    else suspected RATE_LIMITED, CANCELLED           nothing all others                        suspected

Servers refuse forgotten sessions in more ways than any list can contain. So every answer that is not clearly the
application's own makes the session suspect, and so do consecutive errors.

The probe of a suspected session (`decide_probe`), a session that is lost (`decide_loss`) and a failed dial
(`decide_dial`) have rules of their own.
"""

from __future__ import annotations

from dataclasses import replace

from mcpconn.core.failures import Delivery, Failure, FailureKind
from mcpconn.core.seen import Seen
from mcpconn.core.states import Event, State

PATIENCE = 30.0
"""Seconds of failed dialling before a connection is called failed."""
MIN_ATTEMPTS = 3
"""The minimum number of failed dials before that: slow dials may make only one attempt in 30 s."""
SUSPICION_INTERVAL = 3.0
"""Seconds between probes of a suspected session, on one connection. With probes that end within 5 s, a session that the
server refuses is detected within 10 s, and a healthy server whose tool keeps failing is probed at most 20 times a
minute."""
ERRORS_IN_A_ROW = 2
"""The number of consecutive errors that make a session suspect, even if each is clearly the application's."""

RETURNED_LIMIT = 1.0
"""Seconds for the probe of a child whose process has returned while its output is open: a launcher may have exited
after starting the real server, which answers at once."""

_LOSING = frozenset({FailureKind.SESSION_EXPIRED, FailureKind.TRANSPORT_LOST})
_HARMLESS = frozenset({FailureKind.RATE_LIMITED, FailureKind.CANCELLED})
_FOR_PEOPLE = frozenset({FailureKind.CONFIG, FailureKind.PROTOCOL})


def _forbidden(failure: Failure) -> bool:
    return failure.kind is FailureKind.AUTH and failure.evidence.http_status == 403


def is_plain(failure: Failure, *, errors_in_a_row: int = 1) -> bool:
    """Whether a failed call is no evidence against its session.

    Args:
        failure: Why the call failed.
        errors_in_a_row: Calls on its session that failed since the last result, this one included.
    """
    if failure.kind is FailureKind.APPLICATION:
        return failure.proof and errors_in_a_row < ERRORS_IN_A_ROW
    return failure.kind in _HARMLESS


def decide(state: State, failure: Failure, *, refreshable: bool = False, errors_in_a_row: int = 1) -> Event | None:
    """The event that follows from a failed call, or from a failure of an idle transport. None if there is none.

    Only a ready connection is affected: in every other state the supervisor is already working, and in `closed` nothing
    can change.

    Args:
        state: The connection's state. Do not call this for a failure of an old epoch.
        failure: What happened.
        refreshable: Whether there are credentials that could be refreshed.
        errors_in_a_row: Calls on the session that failed since the last result, this one included.
    """
    if state is not State.READY or is_plain(failure, errors_in_a_row=errors_in_a_row):
        return None
    if failure.kind in _LOSING and failure.proof:
        return Event.LOST
    if failure.kind is FailureKind.AUTH and refreshable and not _forbidden(failure):
        return Event.LOST
    return Event.SUSPECTED


def decide_probe(
    failure: Failure, *, refreshable: bool = False, proven: bool = True, known: bool = True, last: bool = True
) -> Event | None:
    """The event that follows from a failed request of a probe. None: the server knows the session.

    A request that is refused, or not answered, is proof if this server has ever answered the same request. Otherwise it
    is weak evidence, because not every server supports `ping`. The session then remains `suspected`, and another
    request decides.

    Args:
        failure: Why the request failed.
        refreshable: Whether there are credentials that could be refreshed.
        proven: A call or a probe succeeded on this session. If not, and the credentials were accepted for its handshake
            but are refused now, a person has to act: another dial would end the same way.
        known: The same request was answered before, on a session of this connection.
        last: There is no other request to probe with.
    """
    if failure.kind in _HARMLESS:
        return None
    lost = failure.kind in _LOSING and failure.proof
    conclusive = last or lost or failure.delivery is Delivery.NOT_SENT
    if not conclusive and (failure.kind is FailureKind.TIMEOUT or not known):
        return Event.SUSPECTED
    renewable = refreshable and not _forbidden(failure)
    if failure.kind is FailureKind.AUTH and not (proven or renewable):
        return Event.GIVE_UP
    return Event.LOST


def is_refusal(failure: Failure) -> bool:
    """Whether an error says that the session is unknown, before anything was run."""
    return failure.kind is FailureKind.SESSION_EXPIRED and failure.delivery is Delivery.REJECTED


def is_lost_session(failure: Failure) -> bool:
    """Whether an error alone proves that the session is not known."""
    return failure.kind is FailureKind.SESSION_EXPIRED and failure.proof


def probe_limit(failure: Failure) -> float | None:
    """Seconds for a probe of this suspicion, which then starts at once; None: the policy's timeout applies."""
    return RETURNED_LIMIT if Seen(failure.evidence).told("transport_ended") is False else None


def refused(failure: Failure) -> Failure:
    """Converts a probe's failure to the reason for the loss of its session: the server refuses the session itself.

    Failures that concern the server stay unchanged: that it cannot be reached, or that it refuses the credentials.
    """
    if failure.kind is FailureKind.SESSION_EXPIRED:
        return replace(failure, proof=True)
    if failure.kind in (FailureKind.APPLICATION, FailureKind.PROTOCOL):
        summary = f"the server no longer answers on this session: {failure.summary}"
        return replace(failure, kind=FailureKind.SESSION_EXPIRED, proof=True, summary=summary)
    return failure


def decide_loss(
    failure: Failure, *, useless: int, elapsed: float, patience: float = PATIENCE, min_attempts: int = MIN_ATTEMPTS
) -> Event:
    """Whether the next session is dialled after one was lost (`lost`), or the connection has failed (`give_up`).

    Args:
        failure: Why the session was lost.
        useless: Consecutive sessions, including this one, on which calls were made but none succeeded. Each counts as a
            failed attempt, because a server that accepts the handshake and then refuses every call is useless.
        elapsed: Seconds since the loss of the last session on which a call had succeeded.
        patience: Seconds of failure that are tolerated, and the longest wait that a server may ask for.
        min_attempts: The minimum number of useless sessions before patience applies.
    """
    spent = useless >= min_attempts and elapsed >= patience
    return Event.GIVE_UP if spent or _asks_too_much(failure, patience) else Event.LOST


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
        attempts: Consecutive failed dials, including this one.
        elapsed: Seconds since the session was lost, or since the first dial.
        worked: A session of this same configuration existed before. A configuration that worked is not wrong: a web
            page or a missing program counts as a deployment in progress until patience is spent.
        half_open: This dial probed a failed connection, which gives up again at once.
        refreshable: Credentials can be refreshed, and have not yet been refreshed for this refusal.
        patience: Seconds of failure that are tolerated, and the longest wait that a server may ask for.
        min_attempts: The minimum number of failed dials before patience applies.
    """
    if failure.kind is FailureKind.AUTH:
        return Event.ATTEMPT_FAILED if refreshable and not _forbidden(failure) else Event.GIVE_UP
    if half_open or _asks_too_much(failure, patience):
        return Event.GIVE_UP
    if failure.kind in _FOR_PEOPLE and not worked:
        return Event.GIVE_UP
    if attempts >= min_attempts and elapsed >= patience:
        return Event.GIVE_UP
    return Event.ATTEMPT_FAILED


def _asks_too_much(failure: Failure, patience: float) -> bool:
    """Whether the server asks for a wait (Retry-After) that is too long for callers."""
    return failure.retry_after is not None and failure.retry_after > patience


def needs_person(failure: Failure, *, worked: bool = False) -> bool:
    """Whether a connection with this failure waits for `reconnect()` or new credentials instead of a cool-down."""
    return failure.kind is FailureKind.AUTH or (failure.kind in _FOR_PEOPLE and not worked)


def confirmed(failure: Failure, lost: Failure | None) -> Failure:
    """A call's failure after the fate of its session is known. Only its delivery can change, to unknown.

    An error that names a session counts as a refusal if the session was then proved lost, and the error's text consists
    of the refusal only. In that case the server answered before anything ran. The text of a tool's error says more.

    Args:
        failure: Why the call failed.
        lost: Why its session was lost; None if it was not.
    """
    if failure.proof or not is_refusal(failure):
        return failure
    evidence = failure.evidence
    if lost is not None and lost.kind is FailureKind.SESSION_EXPIRED:
        words = (evidence.code, evidence.message)
        # A phrase of the user's own is taken for the server's if the probe was refused in the very same words.
        same = words != (None, None) and words == (lost.evidence.code, lost.evidence.message)
        if same or Seen(evidence).refuses_session or 400 <= (evidence.http_status or 0) < 500:
            return failure
    return replace(failure, delivery=Delivery.UNKNOWN)


def may_replay(
    failure: Failure,
    *,
    safe: bool,
    replays: int,
    lost: bool = False,
    progressed: bool = False,
    refreshed: bool = False,
    budget: float = 1.0,
) -> bool:
    """Whether the call that failed may be retried.

    Args:
        failure: Why it failed. A suspicion must have been settled before.
        safe: Running the call twice is harmless: it only lists, reads, gets or completes, or its tool is
            annotated readOnlyHint or idempotentHint, or the caller said `idempotent=True`.
        replays: How often this call was retried already after it was refused or its outcome was unknown.
            A second failure is the caller's.
        lost: The session that it was made on is lost: on another one the answer may be different.
        progressed: Progress was received for it, so it did run.
        refreshed: A refused call (AUTH) now has other credentials.
        budget: Balance of the replay budget; only replays of unknown outcome need it.
    """
    delivery = Delivery.UNKNOWN if progressed else failure.delivery
    if failure.kind is FailureKind.CANCELLED or (failure.kind is FailureKind.APPLICATION and not lost):
        return False
    if delivery is Delivery.NOT_SENT:
        return failure.kind is not FailureKind.CONFIG
    if replays > 0:
        return False
    if delivery is Delivery.UNKNOWN:
        return safe and budget >= 1
    if lost:
        return True
    if failure.kind is FailureKind.AUTH:
        return refreshed and not _forbidden(failure)
    return failure.kind not in _FOR_PEOPLE
