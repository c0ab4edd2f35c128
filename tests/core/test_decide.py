"""Which event follows from a failure, and whether a call may be made again: every combination there is.

The tables are written down here as the design has them (section 4), independently of the code.
"""

from __future__ import annotations

from itertools import product

import pytest

from mcpconn.core import (
    Delivery,
    Event,
    Evidence,
    Failure,
    FailureKind,
    State,
    classify,
    decide,
    decide_dial,
    decide_probe,
    may_replay,
)
from mcpconn.core.decide import MIN_ATTEMPTS, PATIENCE, needs_person

K, D = FailureKind, Delivery
BOTH = (False, True)


def failure(
    kind: FailureKind, delivery: Delivery = D.UNKNOWN, *, proof: bool = True, status: int | None = None
) -> Failure:
    """A failure of this kind."""
    return Failure(kind=kind, delivery=delivery, proof=proof, summary=f"{kind}", evidence=Evidence(http_status=status))


# Kind, or AUTH by its status: event of a suspicion, of a proof; of a probe; whether refreshing changes it.
L, S, G = Event.LOST, Event.SUSPECTED, Event.GIVE_UP
ON_READY: dict[tuple[FailureKind, int | None], tuple[Event | None, Event | None, Event | None]] = {
    # kind, status              suspicion, proof, probe
    (K.SESSION_EXPIRED, None): (S, L, L),
    (K.SESSION_EXPIRED, 403): (S, L, L),
    (K.TRANSPORT_LOST, None): (S, L, L),
    (K.AUTH, 401): (S, S, G),
    (K.AUTH, None): (S, S, G),
    (K.AUTH, 403): (None, None, None),
    (K.UNAVAILABLE, None): (S, S, L),
    (K.TIMEOUT, None): (S, S, L),
    (K.RATE_LIMITED, None): (None, None, None),
    (K.PROTOCOL, None): (None, None, L),
    (K.PROTOCOL, 403): (None, None, L),
    (K.CONFIG, None): (None, None, L),
    (K.APPLICATION, None): (None, None, None),
    (K.CANCELLED, None): (None, None, None),
}
REFRESHABLE = {(K.AUTH, 401): (L, L, L), (K.AUTH, None): (L, L, L)}
"""What differs where there are credentials to refresh."""


def test_the_table_names_every_kind() -> None:
    assert {kind for kind, _ in ON_READY} == set(FailureKind)


@pytest.mark.parametrize("refreshable", BOTH)
@pytest.mark.parametrize(("kind", "status"), ON_READY)
def test_what_a_failure_does_to_a_ready_connection(kind: FailureKind, status: int | None, refreshable: bool) -> None:
    row = REFRESHABLE.get((kind, status), ON_READY[kind, status]) if refreshable else ON_READY[kind, status]
    for delivery, proof in product(Delivery, BOTH):
        found = failure(kind, delivery, proof=proof, status=status)
        assert decide(State.READY, found, refreshable=refreshable) is row[proof]
        assert decide_probe(found, refreshable=refreshable) is row[2]


@pytest.mark.parametrize("state", [state for state in State if state is not State.READY])
def test_a_failure_does_nothing_to_a_connection_that_is_not_ready(state: State) -> None:
    for (kind, status), proof, refreshable in product(ON_READY, BOTH, BOTH):
        assert decide(state, failure(kind, proof=proof, status=status), refreshable=refreshable) is None


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not K.AUTH])
def test_credentials_matter_to_no_other_kind_than_auth(kind: FailureKind) -> None:
    for proof in BOTH:
        found = failure(kind, proof=proof)
        assert decide(State.READY, found, refreshable=True) is decide(State.READY, found)
        assert decide_probe(found, refreshable=True) is decide_probe(found)


def test_credentials_are_not_refreshable_unless_somebody_says_so() -> None:
    refused = failure(K.AUTH, status=401)
    assert decide(State.READY, refused) is S
    assert decide_probe(refused) is G
    assert decide_dial(refused, attempts=1, elapsed=0) is G


# -- dialling

F = Event.ATTEMPT_FAILED
TIMES = list(product((0, 1, MIN_ATTEMPTS - 1, MIN_ATTEMPTS, 1000), (0.0, PATIENCE - 0.1, PATIENCE, 1e9)))


@pytest.mark.parametrize("kind", FailureKind)
def test_whether_a_failed_dial_is_followed_by_another(kind: FailureKind) -> None:
    for (attempts, elapsed), status, worked, half_open, refreshable, proof in product(
        TIMES, (None, 401, 403), BOTH, BOTH, BOTH, BOTH
    ):
        event = decide_dial(
            failure(kind, proof=proof, status=status),
            attempts=attempts,
            elapsed=elapsed,
            worked=worked,
            half_open=half_open,
            refreshable=refreshable,
        )
        spent = attempts >= 3 and elapsed >= 30
        if kind is K.AUTH:
            # Only other credentials can help, however patient one is.
            expected = F if refreshable and status != 403 else G
        elif half_open or spent:
            expected = G
        elif kind in (K.CONFIG, K.PROTOCOL):
            expected = F if worked else G
        else:
            expected = F
        assert event is expected, (attempts, elapsed, status, worked, half_open, refreshable)


def test_patience_is_the_policys() -> None:
    def after(attempts: int, elapsed: float) -> Event:
        return decide_dial(failure(K.UNAVAILABLE), attempts=attempts, elapsed=elapsed, patience=5, min_attempts=2)

    assert [after(1, 5), after(2, 4.9), after(2, 5), after(3, 6)] == [F, F, G, G]


def test_a_dial_is_the_first_of_its_kind_unless_somebody_says_otherwise() -> None:
    assert decide_dial(failure(K.CONFIG), attempts=1, elapsed=0) is G
    assert decide_dial(failure(K.UNAVAILABLE), attempts=1, elapsed=0) is F
    assert decide_dial(failure(K.UNAVAILABLE), attempts=MIN_ATTEMPTS, elapsed=PATIENCE) is G
    assert (PATIENCE, MIN_ATTEMPTS) == (30.0, 3)


@pytest.mark.parametrize("kind", FailureKind)
def test_who_can_mend_a_failed_connection(kind: FailureKind) -> None:
    assert needs_person(failure(kind)) == (kind in (K.AUTH, K.CONFIG, K.PROTOCOL))
    assert needs_person(failure(kind), worked=True) == (kind is K.AUTH)


# -- replay

NEVER = (K.APPLICATION, K.CANCELLED)


def expected_replay(
    kind: FailureKind, delivery: Delivery, status: int | None, safe: bool, replays: int, refreshed: bool, budget: float
) -> bool:
    """The design's table of replays, read aloud."""
    if kind in NEVER:
        return False
    if delivery is D.NOT_SENT:
        return kind is not K.CONFIG
    if replays:
        return False
    if delivery is D.UNKNOWN:
        return safe and budget >= 1
    if kind is K.AUTH:
        return refreshed and status != 403
    return kind not in (K.CONFIG, K.PROTOCOL)


@pytest.mark.parametrize("delivery", Delivery)
@pytest.mark.parametrize("kind", FailureKind)
def test_whether_a_call_may_be_made_again(kind: FailureKind, delivery: Delivery) -> None:
    for status, progressed, proof, safe, replays, refreshed, budget in product(
        (None, 401, 403), BOTH, BOTH, BOTH, (0, 1, 7), BOTH, (-1.0, 0.0, 0.99, 1.0, 50.0)
    ):
        found = failure(kind, delivery, proof=proof, status=status)
        allowed = may_replay(
            found, safe=safe, replays=replays, progressed=progressed, refreshed=refreshed, budget=budget
        )
        known = D.UNKNOWN if progressed else delivery
        assert allowed is expected_replay(kind, known, status, safe, replays, refreshed, budget)


@pytest.mark.parametrize(("kind", "delivery"), list(product(FailureKind, Delivery)))
def test_a_call_that_is_not_safe_is_never_made_again_where_it_may_have_run(
    kind: FailureKind, delivery: Delivery
) -> None:
    for progressed in BOTH:
        if progressed or delivery is D.UNKNOWN:
            found = failure(kind, delivery)
            assert not may_replay(found, safe=False, replays=0, progressed=progressed, refreshed=True, budget=1000)


def test_what_is_not_said_of_a_call_does_not_forbid_its_replay() -> None:
    assert may_replay(failure(K.TIMEOUT), safe=True, replays=0)
    assert may_replay(failure(K.SESSION_EXPIRED, D.REJECTED), safe=False, replays=0)
    assert may_replay(failure(K.UNAVAILABLE, D.NOT_SENT), safe=False, replays=0)
    assert not may_replay(failure(K.AUTH, D.REJECTED, status=401), safe=True, replays=0)


# -- from evidence to event, through both


@pytest.mark.parametrize("refreshable", BOTH)
def test_a_403_is_that_calls_alone(refreshable: bool) -> None:
    found = classify(Evidence(http_status=403, message="insufficient_scope", session_sent=True))
    assert decide(State.READY, found, refreshable=refreshable) is None
    assert decide_probe(found, refreshable=refreshable) is None
    assert decide_dial(found, attempts=1, elapsed=0, refreshable=refreshable) is G
    assert not may_replay(found, safe=True, replays=0, refreshed=True)


def test_a_probe_that_the_server_answers_with_an_error_was_answered() -> None:
    unknown = classify(Evidence(http_status=200, code=-32601, message="Method not found", from_wire=True))
    assert decide_probe(unknown) is None


def test_a_probe_that_fails_in_the_words_that_were_suspected_is_the_proof() -> None:
    said = classify(Evidence(http_status=200, code=-32602, message="Invalid or expired session", from_wire=True))
    assert decide(State.READY, said) is S
    assert decide_probe(said) is L
