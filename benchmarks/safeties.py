"""What each safety costs a call: the same calls with one of them taken out, or added.

The client answers at once, so that nothing is timed but the way to it. Most of these cannot be switched off, and
nobody should want to: a call without them is a call of `mcp.Client`.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.calls import ARGUMENTS, adder, warm
from benchmarks.measure import Report
from mcpconn import Connection
from mcpconn.core.attempt import Attempt
from mcpconn.runtime.gate import Gate

BLOCK = 500


class OpenGate(Gate):
    """Lets everybody through, and counts nobody."""

    __slots__ = ()

    def try_acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def without_gate(connection: Connection) -> None:
    connection._lifecycle.gate.__class__ = OpenGate


def without_record(connection: Connection) -> None:
    session = connection.present()
    assert session is not None
    assert session.link is not None
    shared = Attempt("call", "modern")
    session.link.new_attempt = lambda phase: shared  # type: ignore[method-assign]


def without_journal(connection: Connection) -> None:
    connection.journal.answered = lambda: True  # type: ignore[method-assign]


def without_budget(connection: Connection) -> None:
    class Unlimited:
        balance = 1.0

        def deposit(self) -> None:
            pass

        withdraw = deposit

    connection._calls._budget = Unlimited()  # type: ignore[assignment]


def with_a_listener(connection: Connection) -> None:
    connection.journal.subscribe(lambda notice: None)


def with_debug_lines(connection: Connection) -> None:
    """A line for every call, formatted and then dropped."""
    logger = logging.getLogger("mcpconn")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())


VARIANTS: dict[str, tuple[str, Callable[[Connection], None]]] = {
    "without the limit on calls in flight, and the queue before it": (
        "a stampede reaches the server whole",
        without_gate,
    ),
    "without a record of what was sent": ("nothing can be proved, so nothing replayed", without_record),
    "without counts, log and metrics": ("nobody can see what happens", without_journal),
    "without the replay budget": ("an outage is answered with twice the load", without_budget),
    "with a listener for every call": ("", with_a_listener),
    "with a debug line for every call": ("", with_debug_lines),
}


async def safeties(quick: bool) -> Report:
    """Microseconds a call, with and without."""
    report = Report()
    rounds = 20 if quick else 120
    async with AsyncExitStack() as stack:
        server = adder()
        sides: dict[str, Callable[..., Awaitable[Any]]] = {}
        bare: Any = None
        for name, (_, change) in {"all": ("", lambda _: None), **VARIANTS}.items():
            connection = await stack.enter_async_context(Connection(server))
            await warm(connection)
            bare = _answer_at_once(connection, await connection.call_tool("add", ARGUMENTS))
            change(connection)
            sides[name] = connection.call_tool
        sides["mcp.Client"] = bare
        took: dict[str, list[float]] = {name: [] for name in sides}
        logger = logging.getLogger("mcpconn")
        level = logger.level
        for _ in range(rounds):
            for name, call in sides.items():
                logger.setLevel(logging.DEBUG if "debug line" in name else logging.WARNING)
                began = time.perf_counter()
                for _ in range(BLOCK):
                    await call("add", ARGUMENTS)
                took[name].append((time.perf_counter() - began) / BLOCK * 1e6)
        logger.setLevel(level)
    cost = {name: statistics.median(times) for name, times in took.items()}
    report.add("a call that is answered at once: what mcpconn adds", cost["all"] - cost["mcp.Client"], "µs")
    lines = ["| | µs a call | what is lost |", "|---|---|---|"]
    lines += [f"| all of it, on top of `mcp.Client` | {cost['all'] - cost['mcp.Client']:.1f} | |"]
    lines += [f"| {name} | {cost[name] - cost['all']:+.1f} | {lost} |" for name, (lost, _) in VARIANTS.items()]
    report.series["safeties"] = "\n".join(lines)
    return report


def _answer_at_once(connection: Connection, result: Any) -> Callable[..., Awaitable[Any]]:
    async def answer(*_: Any, **__: Any) -> Any:
        return result

    connection._client.call_tool = answer  # type: ignore[method-assign]
    return answer


GROUPS: dict[str, Callable[[bool], Any]] = {"safeties": safeties}
