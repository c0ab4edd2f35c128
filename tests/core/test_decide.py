"""Which event follows from a failure, and whether a call may be retried: every combination there is.

The tables are written down here as the design has them (section 4), independently of the code.
"""

from __future__ import annotations

from dataclasses import replace
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
from mcpconn.core.decide import (
    ERRORS_IN_A_ROW,
    MIN_ATTEMPTS,
    PATIENCE,
    RETURNED_LIMIT,
    confirmed,
    decide_loss,
    is_lost_session,
    is_plain,
    is_refusal,
    needs_person,
    probe_limit,
    refused,
)

K, D = FailureKind, Delivery
BOTH = (False, True)
F = Event.ATTEMPT_FAILED
TIMES = list(product((0, 1, MIN_ATTEMPTS - 1, MIN_ATTEMPTS, 1000), (0.0, PATIENCE - 0.1, PATIENCE, 1e9)))


def failure(
    kind: FailureKind, delivery: Delivery = D.UNKNOWN, *, proof: bool = True, status: int | None = None
) -> Failure:
    """A failure of this kind."""
    return Failure(kind=kind, delivery=delivery, proof=proof, summary=f"{kind}", evidence=Evidence(http_status=status))


# Kind, or AUTH by its status: event of a suspicion, of a proof; of a probe.
L, S, G = Event.LOST, Event.SUSPECTED, Event.GIVE_UP
ON_READY: dict[tuple[FailureKind, int | None], tuple[Event | None, Event | None, Event | None]] = {
    # kind, status              suspicion, proof, probe
    (K.SESSION_EXPIRED, None): (S, L, L),
    (K.SESSION_EXPIRED, 403): (S, L, L),
    (K.TRANSPORT_LOST, None): (S, L, L),
    (K.AUTH, 401): (S, S, L),
    (K.AUTH, None): (S, S, L),
    (K.AUTH, 403): (S, S, L),
    (K.UNAVAILABLE, None): (S, S, L),
    (K.TIMEOUT, None): (S, S, L),
    (K.RATE_LIMITED, None): (None, None, None),
    (K.PROTOCOL, None): (S, S, L),
    (K.PROTOCOL, 403): (S, S, L),
    (K.CONFIG, None): (S, S, L),
    (K.APPLICATION, None): (S, None, L),
    (K.CANCELLED, None): (None, None, None),
}
REFRESHABLE = {(K.AUTH, 401): (L, L, L), (K.AUTH, None): (L, L, L)}
"""What differs if there are credentials to refresh."""


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
def test_credentials_matter_to_auth_alone(kind: FailureKind) -> None:
    for proof in BOTH:
        found = failure(kind, proof=proof)
        assert decide(State.READY, found, refreshable=True) is decide(State.READY, found)
        assert decide_probe(found, refreshable=True) is decide_probe(found)


def test_credentials_are_not_refreshable_by_default() -> None:
    refused = failure(K.AUTH, status=401)
    assert decide(State.READY, refused) is S
    assert decide_probe(refused, proven=False) is G
    assert decide_dial(refused, attempts=1, elapsed=0) is G


@pytest.mark.parametrize("kind", FailureKind)
def test_the_second_error_in_a_row_makes_a_session_suspect(kind: FailureKind) -> None:
    for proof, errors in product(BOTH, (0, 1, 2, 3, 1000)):
        found = failure(kind, proof=proof)
        plain = kind in (K.RATE_LIMITED, K.CANCELLED) or (kind is K.APPLICATION and proof and errors < 2)
        assert is_plain(found, errors_in_a_row=errors) is plain
        event = decide(State.READY, found, errors_in_a_row=errors)
        assert (event is None) is plain
        if kind is K.APPLICATION and not plain:
            assert event is S
    assert is_plain(failure(K.APPLICATION))
    assert ERRORS_IN_A_ROW == 2


# -- probing


@pytest.mark.parametrize("kind", FailureKind)
def test_a_first_request_decides_if_it_was_answered_before_and_is_refused_now(kind: FailureKind) -> None:
    for delivery, proof, known, proven, refreshable in product(Delivery, BOTH, BOTH, BOTH, BOTH):
        found = failure(kind, delivery, proof=proof)
        event = decide_probe(found, refreshable=refreshable, proven=proven, known=known, last=False)
        if kind in (K.RATE_LIMITED, K.CANCELLED):
            expected = None
        elif (kind is K.TIMEOUT or not known) and not (
            delivery is D.NOT_SENT or (kind in (K.TRANSPORT_LOST, K.SESSION_EXPIRED) and proof)
        ):
            expected = S
        else:
            expected = G if kind is K.AUTH and not (proven or refreshable) else L
        assert event is expected, (delivery, proof, known, proven, refreshable)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_last_request_decides_whatever_was_answered_before(kind: FailureKind) -> None:
    for status, known, proven, refreshable in product((None, 401, 403), BOTH, BOTH, BOTH):
        event = decide_probe(failure(kind, status=status), refreshable=refreshable, proven=proven, known=known)
        if kind in (K.RATE_LIMITED, K.CANCELLED):
            expected = None
        else:
            hopeless = not proven and not (refreshable and status != 403)
            expected = G if kind is K.AUTH and hopeless else L
        assert event is expected, (status, known, proven, refreshable)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_session_that_refuses_its_probe_has_expired_unless_more_is_known(kind: FailureKind) -> None:
    found = failure(kind, proof=False)
    lost = refused(found)
    if kind in (K.APPLICATION, K.PROTOCOL):
        assert (lost.kind, lost.proof) == (K.SESSION_EXPIRED, True)
        assert lost.summary == f"the server no longer answers on this session: {kind}"
    elif kind is K.SESSION_EXPIRED:
        assert (lost.kind, lost.proof, lost.summary) == (K.SESSION_EXPIRED, True, found.summary)
    else:
        assert lost is found


def test_only_an_ended_child_is_probed_early() -> None:
    class Returned(Exception):
        transport_ended: bool | None = False

    class Ended(Returned):
        transport_ended = True

    class Silent(Returned):
        transport_ended = None

    def limit(error: Exception) -> float | None:
        return probe_limit(classify(Evidence(exception=error, phase="idle")))

    assert limit(Returned("exited with 0")) == RETURNED_LIMIT == 1.0
    assert [limit(error) for error in (Ended(), Silent(), EOFError())] == [None, None, None]
    assert probe_limit(failure(K.TRANSPORT_LOST)) is None


# -- sessions that are lost


def test_useless_sessions_are_given_up_after_a_time() -> None:
    for useless, elapsed in TIMES:
        for kind in FailureKind:
            spent = useless >= MIN_ATTEMPTS and elapsed >= PATIENCE
            assert decide_loss(failure(kind), useless=useless, elapsed=elapsed) is (G if spent else L)
    assert decide_loss(failure(K.TIMEOUT), useless=2, elapsed=5, patience=5, min_attempts=2) is G
    assert decide_loss(failure(K.TIMEOUT), useless=1, elapsed=5, patience=5, min_attempts=2) is L
    assert decide_loss(failure(K.TIMEOUT), useless=2, elapsed=4.9, patience=5, min_attempts=2) is L


@pytest.mark.parametrize(("wait", "event"), [(None, L), (0, L), (PATIENCE, L), (PATIENCE + 0.1, G), (3600, G)])
def test_a_server_that_asks_for_a_longer_wait_than_patience_is_given_up(wait: float | None, event: Event) -> None:
    asked = replace(failure(K.UNAVAILABLE), retry_after=wait)
    assert decide_loss(asked, useless=0, elapsed=0) is event
    assert decide_dial(asked, attempts=1, elapsed=0) is (F if event is L else G)
    assert decide_dial(asked, attempts=1, elapsed=0, worked=True, patience=4000) is F
    assert decide_loss(asked, useless=0, elapsed=0, patience=4000) is L


# -- what became of a call's session


GONE = failure(K.SESSION_EXPIRED, D.REJECTED, status=404)


def said(message: str, *, status: int = 200, delivery: Delivery = D.REJECTED) -> Failure:
    """What a call was told."""
    evidence = Evidence(http_status=status, code=-32602, message=message, from_wire=True)
    return replace(failure(K.SESSION_EXPIRED, delivery, proof=False), evidence=evidence)


def test_a_refusal_stays_one_only_if_its_session_was_refused_for_its_own_sake() -> None:
    refusal = said("Invalid params: Invalid or expired session.")
    assert confirmed(refusal, GONE) is refusal
    for lost in (None, *(failure(kind) for kind in FailureKind if kind is not K.SESSION_EXPIRED)):
        assert confirmed(refusal, lost).delivery is D.UNKNOWN
        assert confirmed(refusal, lost).kind is K.SESSION_EXPIRED


def test_a_sentence_on_sessions_is_unknown() -> None:
    sentence = said("Checkout failed: session expired", delivery=D.UNKNOWN)
    for lost in (None, GONE, sentence):
        assert confirmed(sentence, lost) is sentence


def test_a_users_phrase_refuses_if_the_probes_words_agree() -> None:
    phrase = said("no such conversation here")
    assert confirmed(phrase, replace(phrase, proof=True)) is phrase
    assert confirmed(phrase, GONE).delivery is D.UNKNOWN
    assert confirmed(phrase, said("No such conversation here")).delivery is D.UNKNOWN
    # Two failures without words are not the same ones.
    mute = failure(K.SESSION_EXPIRED, D.REJECTED, proof=False)
    assert confirmed(mute, replace(mute, proof=True)).delivery is D.UNKNOWN


@pytest.mark.parametrize(("status", "stays"), [(399, False), (400, True), (499, True), (500, False)])
def test_a_client_error_refuses_in_any_words(status: int, stays: bool) -> None:
    told = said("no such conversation here", status=status)
    assert (confirmed(told, GONE).delivery is D.REJECTED) is stays
    assert confirmed(told, None).delivery is D.UNKNOWN


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not K.SESSION_EXPIRED])
def test_no_other_failure_changes_by_what_became_of_its_session(kind: FailureKind) -> None:
    for delivery, proof, lost in product(Delivery, BOTH, (None, GONE)):
        found = failure(kind, delivery, proof=proof)
        assert confirmed(found, lost) is found


def test_proof_needs_no_confirmation() -> None:
    for lost in (None, failure(K.TIMEOUT)):
        assert confirmed(GONE, lost) is GONE
    assert is_lost_session(GONE)
    assert not is_lost_session(said("session expired"))
    assert not is_lost_session(failure(K.TIMEOUT))
    assert [is_refusal(each) for each in (GONE, said("session expired"), failure(K.TIMEOUT, D.REJECTED))] == [
        True,
        True,
        False,
    ]
    assert not is_refusal(said("session expired", delivery=D.UNKNOWN))


# -- dialling


@pytest.mark.parametrize("kind", FailureKind)
def test_which_failed_dials_are_followed_by_another(kind: FailureKind) -> None:
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


def test_a_dial_is_the_first_of_its_kind_by_default() -> None:
    assert decide_dial(failure(K.CONFIG), attempts=1, elapsed=0) is G
    assert decide_dial(failure(K.UNAVAILABLE), attempts=1, elapsed=0) is F
    assert decide_dial(failure(K.UNAVAILABLE), attempts=MIN_ATTEMPTS, elapsed=PATIENCE) is G
    assert (PATIENCE, MIN_ATTEMPTS) == (30.0, 3)


@pytest.mark.parametrize("kind", FailureKind)
def test_who_can_fix_a_failed_connection(kind: FailureKind) -> None:
    assert needs_person(failure(kind)) == (kind in (K.AUTH, K.CONFIG, K.PROTOCOL))
    assert needs_person(failure(kind), worked=True) == (kind is K.AUTH)


# -- replay


def expected_replay(
    kind: FailureKind,
    delivery: Delivery,
    status: int | None,
    safe: bool,
    replays: int,
    lost: bool,
    refreshed: bool,
    budget: float,
) -> bool:
    """The design's table of replays, read aloud."""
    if kind is K.CANCELLED or (kind is K.APPLICATION and not lost):
        return False
    if delivery is D.NOT_SENT:
        return kind is not K.CONFIG
    if replays:
        return False
    if delivery is D.UNKNOWN:
        return safe and budget >= 1
    if lost:
        return True
    if kind is K.AUTH:
        return refreshed and status != 403
    return kind not in (K.CONFIG, K.PROTOCOL)


@pytest.mark.parametrize("delivery", Delivery)
@pytest.mark.parametrize("kind", FailureKind)
def test_whether_a_call_may_be_made_again(kind: FailureKind, delivery: Delivery) -> None:
    for status, progressed, proof, safe, replays, lost, refreshed, budget in product(
        (None, 401, 403), BOTH, BOTH, BOTH, (0, 1, 7), BOTH, BOTH, (-1.0, 0.0, 0.99, 1.0, 50.0)
    ):
        found = failure(kind, delivery, proof=proof, status=status)
        allowed = may_replay(
            found, safe=safe, replays=replays, lost=lost, progressed=progressed, refreshed=refreshed, budget=budget
        )
        known = D.UNKNOWN if progressed else delivery
        assert allowed is expected_replay(kind, known, status, safe, replays, lost, refreshed, budget)


@pytest.mark.parametrize(("kind", "delivery"), list(product(FailureKind, Delivery)))
def test_a_call_that_is_not_safe_is_never_made_again_where_it_may_have_run(
    kind: FailureKind, delivery: Delivery
) -> None:
    for progressed in BOTH:
        if progressed or delivery is D.UNKNOWN:
            found = failure(kind, delivery)
            assert not may_replay(
                found, safe=False, replays=0, lost=True, progressed=progressed, refreshed=True, budget=1000
            )


def test_what_is_not_said_of_a_call_does_not_forbid_its_replay() -> None:
    assert may_replay(failure(K.TIMEOUT), safe=True, replays=0)
    assert may_replay(failure(K.SESSION_EXPIRED, D.REJECTED), safe=False, replays=0)
    assert may_replay(failure(K.UNAVAILABLE, D.NOT_SENT), safe=False, replays=0)
    assert not may_replay(failure(K.AUTH, D.REJECTED, status=401), safe=True, replays=0)
    assert not may_replay(failure(K.PROTOCOL, D.REJECTED, status=400), safe=True, replays=0)
    assert not may_replay(failure(K.APPLICATION), safe=True, replays=0)


# -- from evidence to event, through both


@pytest.mark.parametrize("refreshable", BOTH)
def test_a_403_renews_nothing(refreshable: bool) -> None:
    found = classify(Evidence(http_status=403, message="insufficient_scope", session_sent=True))
    assert decide(State.READY, found, refreshable=refreshable) is S
    assert decide_dial(found, attempts=1, elapsed=0, refreshable=refreshable) is G
    assert not may_replay(found, safe=True, replays=0, refreshed=True)


def test_a_ping_never_known_says_nothing() -> None:
    unknown = classify(Evidence(http_status=200, code=-32601, message="Method not found", from_wire=True))
    assert decide_probe(unknown, known=False, last=False) is S
    assert decide_probe(unknown, known=True, last=False) is L


def test_a_probe_that_fails_in_the_words_that_were_suspected_is_the_proof() -> None:
    said = classify(Evidence(http_status=200, code=-32602, message="Invalid or expired session", from_wire=True))
    assert decide(State.READY, said) is S
    assert decide_probe(said) is L
