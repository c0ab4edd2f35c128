"""The real connection does nothing that the model does not allow, whatever is done to its server.

One connection, two callers, virtual time. After every action the follower asks whether the model could have gone
the same way, with no more freedom than what was done to the server: a fault that was not injected cannot happen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from mcpconn import Change, Delivery, Event, FailureKind, Policy, State
from mcpconn.runtime.journal import Notice, Replay
from mcpconn.runtime.session import Session
from mcpconn.testing import Armed, Script
from mcpconn.testing.history import Call
from mcpconn.testing.machine import SandboxMachine
from tests.properties.follower import Follower, Ledger, Observation, Seen
from tests.properties.test_machines import QUICK, SCALE

NAMES = "AB"
BUDGET = 1
OUTCOMES = {"answered": "answered", "error": "error", "unknown": "unknown", "not_run": "not run"}

ALWAYS = {
    "the connection is told to connect",
    "a dial succeeds",
    "the probe of the session is answered",
    "the probe of an old session is answered",
    "the probe that had to wait begins",
    "the suspicion that had to wait is dropped, because a call was answered",
    *(f"call {name} is {done}" for name in NAMES for done in ("made", "issued", "written", "answered")),
}
RESET, REFUSED, PAGE = "a reset", "nobody listens at the server's port", "a web page"
GONE, EXPIRED = "the session is answered with 404", "the server says 'expired session'"
REPLICA = "one of several replicas answers with 404"
CALL_FAULTS = {
    "drop before": (RESET,),
    "drop after": (RESET,),
    "cut stream": (RESET,),
    "hang": (),
    "hang after": (),
    "garbage": (PAGE,),
    "web page": (PAGE,),
    "202": (PAGE,),
    "401": ("401",),
    "403": ("403",),
    "404": (GONE,),
    "429": ("429",),
    "503": ("503",),
    "503 after it ran": ("503",),
    "expired, 200": (EXPIRED,),
    "application error": ("the tool fails", "a tool says 'session expired'"),
}
"""Faults of the scripted server that a tool call meets, and what the model calls them."""
DIAL_FAULTS = {"drop before": (REFUSED,), "web page": (PAGE,), "401": ("401",), "403": ("403",), "503": (REFUSED,)}
PROBE_FAULTS = {
    "drop before": ("the transport ends",),
    "hang": ("no answer in time",),
    "401": ("401",),
    "429": ("429",),
    "expired, 200": (EXPIRED,),
}


def call_words(*faults: str) -> set[str]:
    return {f"call {name} fails: {fault}" for name in NAMES for fault in faults}


def dial_words(*faults: str) -> set[str]:
    return {f"a dial fails ({fault})" for fault in faults}


def probe_words(*faults: str) -> set[str]:
    return {f"the probe of the session fails ({fault})" for fault in faults}


GONE_WORDS, REPLICA_WORDS = call_words(GONE), call_words(REPLICA)
LOST_SESSION = GONE_WORDS | probe_words(EXPIRED)
OUTAGE = call_words(REFUSED) | dial_words(REFUSED) | probe_words("the transport ends")
DRAINED = call_words("the transport ends")
TIME = {
    "the cool-down ends",
    "the session reaches its maximum lifetime",
    *(f"the deadline of call {name} passes" for name in NAMES),
}
LUCK = re.compile("(, once more|, soon after a probe|, and patience is spent)+$")
NUMBERS = st.integers(0, 1)
TOOLS = st.sampled_from(["add", "charge", "slow", "slow_charge"])
TIMES = st.sampled_from([1, 3])
SECONDS = st.sampled_from([0.5, 3.0, 6.0, 15.0, 45.0, 310.0])


LEDGER = Ledger(budget=BUDGET, renewals=0)
"""What can happen in a world is found out once, for all connections that are followed."""


async def list_nothing(session: Session) -> None:
    """In place of what runs beside the first calls of a session."""


class Conformance(SandboxMachine):
    """A connection, and the model beside it. Its sessions are replaced when they are old."""

    config: ClassVar[Mapping[str, Any]] = {"max_lifetime": 250.0}

    # In the model a probe follows a suspicion. One that nobody's call has asked for, by keepalive, is not in it.
    policy = Policy(
        patience=20,
        min_attempts=2,
        call_timeout=40,
        replay_reserve=BUDGET,
        replay_ratio=1e-9,
        max_message_size=65536,
        keepalive=None,
    )

    def __init__(self) -> None:
        super().__init__()
        self.connection = self.sandbox.manager["server"]
        self.script_ = self.sandbox.scripts["server"]
        # The catalogue's own calls would be callers that the model does not know.
        self.connection._restore.beside_calls = list_nothing  # type: ignore[method-assign]
        self.follower = Follower(LEDGER)
        self.calls: list[Call | None] = [None] * len(NAMES)
        self.told = [True] * len(NAMES)
        self.armed: list[tuple[Armed, set[str]]] = []
        self.forgotten = self.down = self.refusing = False
        # What happened before anybody watched.
        begun = self.connection.state is not State.IDLE
        self.events: list[Event] = [Event.CONNECT, Event.ESTABLISHED] if begun else []
        self.possible: set[str] = set()
        self.replays = self.short_lives = 0
        self.scattered = {False}
        self.sandbox.manager.observe(self._note)
        self.observe()

    def script(self, name: str) -> Script:
        return Script(get_stream="405")

    def _note(self, notice: Notice) -> None:
        if isinstance(notice, Change):
            self.events.append(notice.event)
            if notice.event in (Event.LOST, Event.GIVE_UP) and notice.source is State.READY:
                self._count_short_lives(notice)
        elif isinstance(notice, Replay):
            self.replays += notice.failure.delivery is not Delivery.NOT_SENT

    def _count_short_lives(self, lost: Change) -> None:
        """docs/failures.md: after three sessions in a row that were forgotten soon, a 404 is not taken for proof."""
        forgotten = lost.failure is not None and lost.failure.kind is FailureKind.SESSION_EXPIRED
        young = lost.elapsed < self.policy.proven_after
        self.short_lives = self.short_lives + 1 if forgotten and young else 0
        self.scattered.add(self.short_lives >= 3)

    # -- what is seen

    def observe(self) -> None:
        """Settle, and see whether the model could be here."""
        possible = ALWAYS | self.possible
        if Event.ESTABLISHED not in self.events:
            possible.discard("a dial succeeds")
            if self.forgotten or self.down:
                possible.discard("the probe of the session is answered")
        possible.update(*(words for _, words in self.armed))
        # What a fault does may still be to come, while the call or the probe that has met it is in progress.
        pending = any(call is not None and not call.ended for call in self.calls)
        pending = pending or self.connection._lifecycle.probe.under_way
        self.armed = [(armed, words) for armed, words in self.armed if armed.left or pending]
        if self.forgotten:
            possible |= LOST_SESSION
            self.forgotten = Event.ESTABLISHED not in self.events
        if self.connection.state is State.CLOSED:
            possible |= DRAINED
        transport = self.sandbox.transports["server"]
        if transport.down or self.refusing:
            possible |= OUTAGE
        self.refusing = transport.refusing > 0
        if GONE_WORDS & possible and True in self.scattered:
            possible |= REPLICA_WORDS
            if False not in self.scattered:
                possible -= GONE_WORDS
        self.scattered = {self.short_lives >= 3}
        gate = self.connection._lifecycle.gate
        observation = Observation(
            events=tuple(self.events),
            replays=self.replays,
            state=self.connection.state,
            open=gate.is_open,
            in_flight=gate.in_flight,
            waiting=gate.waiting,
            calls=tuple(self._seen(number) for number in range(len(NAMES))),
        )
        self.events.clear()
        self.replays = 0
        self.possible.clear()
        self.follower.observe(observation, lambda words: _plain(words) in possible)
        self.down = transport.down

    def _seen(self, number: int) -> Seen | None:
        call = self.calls[number]
        if call is None or self.told[number]:
            return None
        self.told[number] = call.ended
        ran = sum(run.arguments.get("call_id") == call.id for run in self.script_.calls)
        outcome = call.outcome
        finished = "" if outcome == "pending" else OUTCOMES.get(outcome, outcome)
        # One of the runs may be the one that is answered, still to be, or given up.
        failed = ran - (outcome != "not_run")
        return Seen(finished, arrived=ran > 0, ran=failed > 0)

    def after(self, verb: str, *args: Any, possible: set[str] | None = None, **options: Any) -> None:
        self.possible |= possible or set()
        self.act(verb, *args, **options)
        self.observe()

    def after_doing(self, action: Callable[[], None], words: str) -> None:
        async def do() -> None:
            action()

        self.possible.add(words)
        self.wait(do())
        self.after("settle")

    # -- what is done

    @rule(number=NUMBERS, tool=TOOLS)
    def call(self, number: int, tool: str) -> None:
        """A caller makes a call, unless its last one is in progress."""
        before = self.calls[number]
        if before is not None and not before.ended:
            return
        safe = tool in ("add", "slow")
        self.follower.begin(number, safe=safe)

        async def begin() -> None:
            arguments = {"a": 1, "b": 2, "seconds": 10}
            self.calls[number] = self.sandbox.call("server", tool, arguments, idempotent=safe)

        self.told[number] = False
        self.wait(begin())
        self.after("settle")

    @rule(number=NUMBERS, tool=TOOLS, fault=st.sampled_from(list(CALL_FAULTS)), times=TIMES)
    def call_meets_a_fault(self, number: int, tool: str, fault: str, times: int) -> None:
        """The same, and something goes wrong with it."""
        self._arm(fault, times, "tools/call", call_words(*CALL_FAULTS[fault]))
        self.call(number, tool)

    @rule(number=NUMBERS, tool=TOOLS)
    def call_outlives_its_session(self, number: int, tool: str) -> None:
        """The same; it is not answered, and another session takes the place of its own."""
        self.call_meets_a_fault(number, tool, "hang", 1)
        self.reconnect()

    @rule(number=NUMBERS, tool=TOOLS, seconds=SECONDS, again=SECONDS)
    def call_meets_an_outage(self, number: int, tool: str, seconds: float, again: float) -> None:
        """The same, and the server is down for a while."""
        self.take_down()
        self.call(number, tool)
        self.advance(seconds)
        self.advance(again)

    @rule(number=NUMBERS)
    def cancel(self, number: int) -> None:
        call = self.calls[number]
        pending = [caller.call for caller in self.sandbox.pending]
        if call in pending:
            self.after("cancel", pending.index(call), possible={f"call {NAMES[number]} is cancelled"})

    @rule(fault=st.sampled_from(list(DIAL_FAULTS)), times=TIMES)
    def fail_dials(self, fault: str, times: int) -> None:
        self._arm(fault, times, "initialize", dial_words(*DIAL_FAULTS[fault]))

    @rule(fault=st.sampled_from(list(PROBE_FAULTS)), times=TIMES)
    def fail_probes(self, fault: str, times: int) -> None:
        self._arm(fault, times, "ping", probe_words(*PROBE_FAULTS[fault]))

    def _arm(self, fault: str, times: int, method: str, words: set[str]) -> None:
        self.act("inject", "server", fault, times=times, method=method)
        self.armed.append((self.script_._armed[-1], words))

    @rule(times=TIMES)
    def refuse(self, times: int) -> None:
        self.after("refuse", "server", times, possible=OUTAGE)

    @rule()
    def forget(self) -> None:
        # Found out when the session is used next.
        self.forgotten = True
        self.after("forget", "server")

    @rule()
    def restart(self) -> None:
        self.forgotten = True
        self.after("restart", "server", possible=call_words(RESET) | probe_words("the transport ends"))

    @rule()
    def take_down(self) -> None:
        self.forgotten = True
        self.after("take_down", "server", possible=OUTAGE | call_words(RESET))

    @rule()
    def bring_up(self) -> None:
        self.after("bring_up", "server", possible=OUTAGE)

    @rule()
    def reconnect(self) -> None:
        if self.connection.state is State.CLOSED:
            return
        self.short_lives = 0
        self.scattered.add(False)
        # Without the wait for ready, which would be one more caller.
        self.after_doing(self.connection._lifecycle.reconnect, "reconnect() is called")

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        self.after("advance", seconds, possible=TIME)

    @rule()
    def close(self) -> None:
        self.after_doing(self.connection.close, "the connection is closed")

    def teardown(self) -> None:
        self.abandon()


def _plain(words: str) -> str:
    """A step without what the connection's clock and counters decide about it: the follower has neither."""
    return LUCK.sub("", words)


class Resting(Conformance):
    """The same; it dials when it is needed, and rests when it is not."""

    config: ClassVar[Mapping[str, Any]] = {"lazy": True, "idle_timeout": 40.0}


TestConformance = Conformance.TestCase
TestConformance.settings = settings(QUICK, max_examples=25 * SCALE)
TestResting = Resting.TestCase
TestResting.settings = settings(QUICK, max_examples=10 * SCALE)
