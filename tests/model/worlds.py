"""What the model of a connection speaks of: worlds, the callers in them, steps, and faults.

A `World` is a value. Beside what a client knows, it holds the truth: whether a request left, and whether the
server may have run it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from mcpconn.core.failures import Evidence
from mcpconn.core.states import State

Phase = Literal["new", "waiting", "granted", "in flight", "confirming", "over"]
Outcome = Literal["", "answered", "error", "unknown", "not run", "cancelled"]
Gate = Literal["closed", "open", "refusing"]


class Caller(NamedTuple):
    """One call, from before it is made until its caller has an answer."""

    safe: bool
    """Running it twice is harmless."""
    phase: Phase = "new"
    epoch: int = 0
    """The session that the attempt in flight is on."""
    written: bool = False
    """The attempt in flight has left."""
    fault: str = ""
    """While confirming: the fault that the probe is to explain."""
    replays: int = 0
    """Times it was retried after a refusal or an unknown outcome, as the client counts."""
    doubt: bool = False
    """The client knows of an attempt that may have run."""
    outcome: Outcome = ""
    sent: bool = False
    """The truth: some attempt left."""
    ran: bool = False
    """The truth: some attempt that failed may have run."""
    again: int = 0
    """The truth about `replays`."""


OVER = (Caller(False, "over"), Caller(True, "over"))


class World(NamedTuple):
    """One connection and its callers, at one moment."""

    callers: tuple[Caller, ...]
    budget: float
    renewals: int
    """Times that the credentials can still be renewed."""
    state: State = State.IDLE
    epoch: int = 0
    accepting: tuple[int, ...] = ()
    """Epochs of the sessions that take calls."""
    gate: Gate = "closed"
    probes: int = 0
    """Probes of the current session that are in progress."""
    deferred: bool = False
    """The present session is suspected, and its probe has to wait: the last one was less than 3 s ago."""
    attempts: int = 0
    """Dials that failed in a row. (The runtime keeps them until the session is proven; here any session is.)"""
    half_open: bool = False
    person: bool = False
    """It failed, and only a person can fix it."""
    ends: int = 0
    """Times that the session of this epoch was given up."""

    def __str__(self) -> str:
        callers = ", ".join(f"{name(i)} {_describe(caller, self.epoch)}" for i, caller in enumerate(self.callers))
        probing = " and probed" if self.probes else " and suspected" if self.deferred else ""
        return f"{self.state}{probing}; {callers}"


class Luck(NamedTuple):
    """What decides how a failure is taken, and no world knows: it is chosen freely."""

    again: bool = False
    """The call before it failed as well."""
    waits: bool = False
    """The last probe was less than 3 s ago."""
    spent: bool = False
    """Patience is spent: session after session was of no use."""
    lost: str = ""
    """A session that is no longer the current one was lost by this fault; otherwise it was replaced."""

    def __str__(self) -> str:
        words = {
            "once more": self.again,
            "soon after a probe": self.waits,
            "and patience is spent": self.spent,
            f"and the session was lost ({self.lost})": bool(self.lost),
        }
        return "".join(f", {text}" for text, holds in words.items() if holds)


class Step(NamedTuple):
    """Something that can happen, in words, and what it leads to."""

    words: str
    after: World
    reported: int | None = None
    """The epoch that a failure was reported for, where one was."""


class Fault(NamedTuple):
    """Something that goes wrong with a request: what is seen of it, and the truth."""

    evidence: Evidence
    written: bool = True
    """It happens to requests that have left."""
    ran: bool = False
    """The truth: the server may have run the request."""
    tool: bool = False
    """The truth: the words are a tool's, not the server's."""
    doubted: bool = False
    """What would be proof elsewhere proves nothing here, and a probe is asked."""


GONE = Evidence(http_status=404, session_sent=True, content_type="")
CLOSED = Evidence(code=-32000, message="Connection closed", from_wire=False)
PHRASE = Evidence(http_status=200, code=-32602, message="Invalid params: Invalid or expired session", from_wire=True)
TOOL = Evidence(http_status=200, code=1, message="no", from_wire=True)
FAULTS = {
    "nobody listens at the server's port": Fault(Evidence(exception=ConnectionRefusedError()), written=False),
    "the transport ends before the request is written": Fault(replace(CLOSED, written=False), written=False),
    "the session is answered with 404": Fault(GONE),
    # After several sessions that were forgotten soon: replicas that do not share their sessions look like that.
    "one of several replicas answers with 404": Fault(GONE, doubted=True),
    "the server says 'expired session'": Fault(PHRASE),
    "the server refuses in words that nobody listed": Fault(replace(GONE, http_status=400)),
    "the server fails in words that nobody listed": Fault(replace(TOOL, code=-32603, message="Oops"), ran=True),
    "a tool says 'session expired'": Fault(replace(TOOL, message="Session expired."), ran=True, tool=True),
    "a tool says that a session expired, and more": Fault(
        replace(TOOL, message="Shop session expired"), ran=True, tool=True
    ),
    "429": Fault(Evidence(http_status=429)),
    "401": Fault(Evidence(http_status=401)),
    "403": Fault(Evidence(http_status=403)),
    "503": Fault(Evidence(http_status=503), ran=True),
    "a reset": Fault(Evidence(exception=ConnectionResetError(), written=True), ran=True),
    "the transport ends": Fault(replace(CLOSED, written=True), ran=True),
    "no answer in time": Fault(Evidence(exception=TimeoutError(), written=True), ran=True),
    "a web page": Fault(Evidence(http_status=200, content_type="text/html"), ran=True),
    "the tool fails": Fault(TOOL, ran=True),
}


def session(epoch: int, world: World) -> str:
    """The present one or an old one."""
    return "the session" if epoch == world.epoch else "an old session"


def name(i: int) -> str:
    """A, B, C."""
    return chr(ord("A") + i)


def _describe(caller: Caller, epoch: int) -> str:
    safety = "safe" if caller.safe else "not safe"
    if caller.phase == "in flight":
        written = "written" if caller.written else "not written"
        old = "" if caller.epoch == epoch else " on an old session"
        return f"({safety}) in flight{old}, {written}"
    return f"({safety}) over: {caller.outcome}" if caller.phase == "over" else f"({safety}) {caller.phase}"
