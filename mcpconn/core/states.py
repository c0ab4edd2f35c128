"""The states of a connection, and the one table that says what can follow what.

The rules, in words:

- A connection is `idle` until it starts to connect, and again after it was recycled.
- `connecting` and `reconnecting` both mean dialling, before the first session and after a lost one. A failed dial does
  not change the state (another is scheduled) until the connection gives up.
- `ready` is the only state in which calls are issued. Suspicion does not end it: a probe of the same session runs while
  calls continue. Proof ends it.
- `failed` is an open circuit, and never final: calls fail at once, and `retry` leads back to dialling.
- `closed` is final. No event leaves it.

No transition is coded anywhere else. The machine, the diagrams in the documentation and the model in the tests are all
generated from `TRANSITIONS`. Events have no guards: `decide` selects the event, and this table determines the next
state.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class State(str, Enum):
    """The state of a connection. The value is the name used in logs, metrics and status."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    RECONNECTING = "reconnecting"
    FAILED = "failed"
    CLOSED = "closed"

    def __str__(self) -> str:
        return self.value


class Event(str, Enum):
    """The events of a connection."""

    CONNECT = "connect"
    ESTABLISHED = "established"
    ATTEMPT_FAILED = "attempt_failed"
    GIVE_UP = "give_up"
    SUSPECTED = "suspected"
    LOST = "lost"
    RECYCLE = "recycle"
    RETRY = "retry"
    CLOSE = "close"

    def __str__(self) -> str:
        return self.value


class Transition(NamedTuple):
    """One row of the table: in `source`, `event` leads to `target`; `when` describes it in words."""

    source: State
    event: Event
    target: State
    when: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition(
        State.IDLE,
        Event.CONNECT,
        State.CONNECTING,
        "the manager starts it, or a lazy connection gets its first call",
    ),
    Transition(State.CONNECTING, Event.ESTABLISHED, State.READY, "the handshake is done; calls can be issued"),
    Transition(State.CONNECTING, Event.ATTEMPT_FAILED, State.CONNECTING, "a dial failed and another is scheduled"),
    Transition(State.CONNECTING, Event.GIVE_UP, State.FAILED, "only a person can fix it, or the attempts are spent"),
    Transition(
        State.READY,
        Event.SUSPECTED,
        State.READY,
        "evidence that is no proof; a probe of the same session runs, one at a time",
    ),
    Transition(State.READY, Event.LOST, State.RECONNECTING, "proof that the session or its transport is gone"),
    Transition(State.READY, Event.GIVE_UP, State.FAILED, "proof that only a person can fix it"),
    Transition(
        State.READY,
        Event.RECYCLE,
        State.IDLE,
        "idle time or maximum lifetime reached, calls in flight drained",
    ),
    Transition(State.RECONNECTING, Event.ESTABLISHED, State.READY, "a new session is up; the epoch grows by one"),
    Transition(State.RECONNECTING, Event.ATTEMPT_FAILED, State.RECONNECTING, "a dial failed and another is scheduled"),
    Transition(
        State.RECONNECTING,
        Event.GIVE_UP,
        State.FAILED,
        "only a person can fix it, or the attempts are spent",
    ),
    Transition(
        State.FAILED,
        Event.RETRY,
        State.RECONNECTING,
        "the cool-down is over (one probe dial), reconnect() was called, or the credentials changed",
    ),
    Transition(State.IDLE, Event.CLOSE, State.CLOSED, "closed while idle"),
    Transition(State.CONNECTING, Event.CLOSE, State.CLOSED, "closed while dialling"),
    Transition(State.READY, Event.CLOSE, State.CLOSED, "closed in use; calls in flight drain"),
    Transition(State.RECONNECTING, Event.CLOSE, State.CLOSED, "closed while dialling again"),
    Transition(State.FAILED, Event.CLOSE, State.CLOSED, "closed after it had failed"),
)
