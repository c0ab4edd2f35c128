"""Whether the promise was kept: the callers' outcomes, compared with the server's ledger. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ANSWERED, UNKNOWN, NOT_RUN, WRONG = "answered", "unknown", "not_run", "wrong"


@dataclass(frozen=True)
class CallRecord:
    """One finished call."""

    server: str
    tool: str
    outcome: str
    """`answered`; `unknown` or `not_run` if mcpconn reported that; `wrong` for any other end."""
    began: float
    ended: float
    """Seconds since the start."""
    order: str = ""
    """The unique id of a charge."""


@dataclass(frozen=True)
class Recovery:
    """One fault, and what followed."""

    server: str
    cause: str
    began: float
    """Seconds since the start."""
    away: float | None
    """Seconds for which the server could not have answered; None if mcpconn itself restarts it."""
    ready: float | None
    """Seconds until the connection was ready again; None: it stayed ready."""
    over: float | None
    """When calls were answered again, in seconds since the start; None: not while a caller waited for it."""


def executed_twice(ledger: Mapping[str, int]) -> list[str]:
    """Orders that were charged more than once."""
    return [order for order, count in ledger.items() if count > 1]


def breaches(
    calls: Iterable[CallRecord], ledger: Mapping[str, int], recoveries: Iterable[Recovery], states: Mapping[str, str]
) -> list[str]:
    """Descriptions of what broke the promise; empty if it was kept.

    Args:
        calls: All calls.
        ledger: For each order, how often the server executed it.
        recoveries: All faults.
        states: For each server, the state of its connection at the end.
    """
    found = [f"{order} was executed {ledger[order]} times" for order in executed_twice(ledger)]
    for call in calls:
        name = f"{call.server}: {call.order or call.tool}"
        if call.outcome == WRONG:
            found.append(f"{name} got a wrong answer")
        elif call.outcome == NOT_RUN:
            found.append(f"{name} was given up")
        elif call.tool == "add" and call.outcome == UNKNOWN:
            found.append(f"{name} may be repeated, and was left unanswered")
        if call.tool == "charge":
            if call.outcome == ANSWERED and ledger.get(call.order, 0) == 0:
                found.append(f"{name} was answered and never executed")
            if call.outcome == NOT_RUN and ledger.get(call.order, 0) > 0:
                found.append(f"{name} was said not to have run, and had")
    found += [f"{each.server} did not recover: {each.cause}" for each in recoveries if each.over is None]
    found += [f"{server} is {state} at the end" for server, state in states.items() if state != "ready"]
    return found


def count(calls: Iterable[CallRecord], *outcomes: str) -> Counter[str]:
    """Calls by server; if outcomes are given, only calls with these."""
    return Counter(call.server for call in calls if not outcomes or call.outcome in outcomes)


def longest(calls: Iterable[CallRecord], recovery: Recovery) -> float:
    """Seconds that the slowest call took of those that were in progress during a fault."""
    over = math.inf if recovery.over is None else recovery.over
    times = [
        call.ended - call.began
        for call in calls
        if call.server == recovery.server and call.began <= over and call.ended >= recovery.began
    ]
    return max(times, default=0.0)


def by_cause(recoveries: Sequence[Recovery]) -> dict[str, list[Recovery]]:
    """Recoveries by cause, in the order in which the causes first occurred."""
    found: dict[str, list[Recovery]] = {}
    for recovery in recoveries:
        found.setdefault(recovery.cause, []).append(recovery)
    return found
