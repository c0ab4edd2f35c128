"""Which session gives way: found without a look at all of them."""

from __future__ import annotations

from mcpconn.gateway.clients.live_sessions import LiveSession, LiveSessions
from mcpconn.gateway.clients.session_ids import Session
from mcpconn.gateway.principals import Principal

ANN, BOB = Principal("ann"), Principal("bob")


class Time:
    now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def opened(sessions: LiveSessions, principal: Principal, sid: str) -> LiveSession:
    live = LiveSession(Session(sid, principal, ""), f"inner {sid}")
    sessions.add(live)
    return live


def test_the_longest_idle_of_a_principal_is_first():
    sessions = LiveSessions(Time())
    first, second = (opened(sessions, ANN, sid) for sid in ("a1", "a2"))
    opened(sessions, BOB, "b1")
    assert sessions.idle_of(ANN) is first
    sessions.begin(first, stream=False)
    assert sessions.idle_of(ANN) is second
    sessions.end(first, stream=False)
    assert sessions.idle_of(ANN) is second, "the first was used later"
    assert (len(sessions), sessions.count(ANN), sessions.count(BOB)) == (3, 2, 1)


def test_a_session_with_a_stream_is_not_idle():
    sessions = LiveSessions(Time())
    live = opened(sessions, ANN, "a")
    sessions.begin(live, stream=True)
    sessions.begin(live, stream=False)
    sessions.end(live, stream=False)
    assert (sessions.idle_of(ANN), sessions.idle_of_most(), sessions.first_idle()) == (None, None, None)
    assert (live.requests, live.streams) == (1, 1)
    sessions.end(live, stream=True)
    assert sessions.idle_of(ANN) is live


def test_of_the_principal_with_most_the_longest_idle_gives_way():
    sessions = LiveSessions(Time())
    of_bob = opened(sessions, BOB, "b")
    of_ann = [opened(sessions, ANN, sid) for sid in ("a1", "a2", "a3")]
    assert sessions.idle_of_most() is of_ann[0]
    for live in of_ann[:2]:
        assert sessions.remove(live)
    assert sessions.idle_of_most() is of_bob, "of as many, the one that is idle longest"


def test_what_was_removed_comes_back_at_no_end_of_a_request():
    sessions = LiveSessions(Time())
    live = opened(sessions, ANN, "a")
    sessions.begin(live, stream=False)
    assert sessions.remove(live)
    assert not sessions.remove(live)
    sessions.end(live, stream=False)
    assert (len(sessions), sessions.idle_of(ANN), sessions.count(ANN)) == (0, None, 0)


def test_a_session_opened_again_is_another():
    sessions = LiveSessions(Time())
    old = opened(sessions, ANN, "a")
    sessions.remove(old)
    new = opened(sessions, ANN, "a")
    assert not sessions.remove(old)
    assert sessions.get("a") is new
    assert "a" in sessions


def test_idle_since_names_those_that_are_due():
    time = Time()
    sessions = LiveSessions(time)
    first = opened(sessions, ANN, "a")
    due = time.now
    opened(sessions, BOB, "b")
    assert sessions.idle_since(due) == [first]
    assert sessions.first_idle() == first.used
