"""Random sequences of faults, shrunk when they show something: the real manager on scripted servers, in virtual time.

What is checked after each action, and at the end, is in `mcpconn.testing.sandbox`. The sequences are the same in
every run; MCPCONN_EXAMPLES=100 tries a hundred times as many, and others each time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpconn import Policy
from mcpconn.testing import Script, clock
from mcpconn.testing.machine import SETTINGS, HandlerMachine
from mcpconn.testing.sandbox import Sandbox
from mcpconn.testing.strategies import Action, actions

# The SDK leaves response bodies unfinished, and trio warns of that; see tests/support.py.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2:ResourceWarning")

SCALE = int(os.environ.get("MCPCONN_EXAMPLES", "1"))
QUICK = settings(SETTINGS, max_examples=10 * SCALE)
if SCALE == 1:
    QUICK = settings(QUICK, derandomize=True, database=None)


class TwoServers(HandlerMachine):
    """One of each era."""

    servers = ("old", "new")

    def script(self, name: str) -> Script:
        return Script(era="modern" if name == "new" else "legacy")


class EventStreams(HandlerMachine):
    """Answers come as event streams, and a cut one can be resumed."""

    def script(self, name: str) -> Script:
        return Script(answer="sse", event_ids=True, retry_ms=100)


class ModernEventStreams(HandlerMachine):
    """The same in the modern era, if nothing can be resumed."""

    def script(self, name: str) -> Script:
        return Script(era="modern", answer="sse")


class Kept(HandlerMachine):
    """Sessions are probed, put to rest and replaced."""

    config: ClassVar[Mapping[str, Any]] = {"keepalive": 20.0, "idle_timeout": 90.0, "max_lifetime": 120.0}

    def script(self, name: str) -> Script:
        return Script(get_stream="405", expiry="200")


class Narrow(HandlerMachine):
    """Few calls at once, few that wait, little patience, hardly any replays."""

    policy = Policy(
        max_in_flight=2, max_waiting=3, call_timeout=8, patience=5, min_attempts=2, replay_reserve=1, replay_ratio=0.01
    )
    config: ClassVar[Mapping[str, Any]] = {"lazy": True}

    def script(self, name: str) -> Script:
        return Script(sessions=False)


TestTwoServers = TwoServers.TestCase
TestEventStreams = EventStreams.TestCase
TestModernEventStreams = ModernEventStreams.TestCase
TestKept = Kept.TestCase
TestNarrow = Narrow.TestCase
for case in (TestTwoServers, TestEventStreams, TestModernEventStreams, TestKept, TestNarrow):
    case.settings = QUICK
del case


@settings(QUICK, max_examples=15 * SCALE)
@given(todo=st.lists(actions(), max_size=25), seed=st.integers(0, 2**16), era=st.sampled_from(["legacy", "modern"]))
def test_the_promises_hold_whatever_is_done_in_whatever_order_tasks_run(
    todo: list[Action], seed: int, era: Any
) -> None:
    async def main() -> None:
        async with Sandbox({"server": Script(era=era)}, seed=seed, policy=Policy(max_message_size=65536)) as sandbox:
            await sandbox.settle()
            for verb, args, options in todo:
                await sandbox.perform(verb, *args, **options)
            await sandbox.recover()

    # trio wakes tasks in an order of its own, which the seed decides.
    clock.run(main, backend="trio", seed=seed)
