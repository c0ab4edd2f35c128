"""The demo's summary: the callers' outcomes, the recovery times, and whether the promise was kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcpconn.demo import tally
from mcpconn.demo.tally import ANSWERED, NOT_RUN, UNKNOWN, WRONG, CallRecord, Recovery
from mcpconn.demo.timeline import GREEN, RED, Timeline

LABEL = 18
CAUSE = 24
NUMBER = 8
SHOWN = 10
"""Maximum number of breaches that are listed."""


@dataclass(frozen=True)
class Outcome:
    """Everything that was recorded."""

    calls: Sequence[CallRecord]
    recoveries: Sequence[Recovery]
    replayed: Mapping[str, int]
    ledger: Counter[str]
    """For each order, how often the server executed it."""
    states: Mapping[str, str]
    """For each server, the state of its connection at the end."""


def write(outcome: Outcome, timeline: Timeline) -> bool:
    """Write the summary. Returns whether the promise was kept."""
    timeline.plain()
    _write_calls(outcome, timeline)
    timeline.plain()
    _write_recoveries(outcome, timeline)
    timeline.plain()
    broken = tally.breaches(outcome.calls, outcome.ledger, outcome.recoveries, outcome.states)
    if not broken:
        answered = sum(1 for call in outcome.calls if call.tool == "charge" and call.outcome == ANSWERED)
        text = f"The promise held: {answered} charges answered, each run once; both connections ready."
        timeline.plain(timeline.paint(text, GREEN))
        return True
    timeline.plain(timeline.paint("The promise was broken:", RED))
    for line in broken[:SHOWN]:
        timeline.plain(f"  {line}")
    if len(broken) > SHOWN:
        timeline.plain(f"  and {len(broken) - SHOWN} more")
    return False


def _write_calls(outcome: Outcome, timeline: Timeline) -> None:
    calls, servers = outcome.calls, tuple(outcome.states)
    unknown = [call.order for call in calls if call.outcome == UNKNOWN and call.order]
    ran = sum(1 for order in unknown if outcome.ledger[order])
    twice = Counter(order.partition("-")[0] for order in tally.executed_twice(outcome.ledger))
    rows: list[tuple[str, Mapping[str, int], str]] = [
        ("calls", tally.count(calls), ""),
        ("answered", tally.count(calls, ANSWERED), ""),
        ("replayed", outcome.replayed, "retried, when that was right"),
        (
            "outcome unknown",
            tally.count(calls, UNKNOWN),
            f"charges: {ran} had run, {len(unknown) - ran} had not",
        ),
        ("failed", tally.count(calls, NOT_RUN, WRONG), ""),
        ("executed twice", twice, "must be 0"),
    ]
    timeline.plain(" " * LABEL + "".join(f"{name:>{NUMBER}}" for name in (*servers, "all")))
    for label, numbers, remark in rows:
        values = [numbers.get(server, 0) for server in servers]
        cells = "".join(f"{value:>{NUMBER}}" for value in (*values, sum(values)))
        timeline.plain(f"{label:<{LABEL}}{cells}   {remark}".rstrip())


def _write_recoveries(outcome: Outcome, timeline: Timeline) -> None:
    heads = ("times", "server away", "ready within", "longest call")
    timeline.plain(f"{'recovery by cause':<{CAUSE}}" + "".join(f"{head:>{len(head) + 2}}" for head in heads))
    for cause, each in tally.by_cause(outcome.recoveries).items():
        away = [one.away for one in each if one.away]
        ready = [one.ready for one in each if one.ready is not None]
        slowest = max(tally.longest(outcome.calls, one) for one in each)
        cells = (str(len(each)), _seconds(away, "-"), _seconds(ready, "stayed ready"), f"{slowest:.2f} s")
        row = "".join(f"{cell:>{len(head) + 2}}" for head, cell in zip(heads, cells, strict=True))
        timeline.plain(f"{cause:<{CAUSE}}{row}")


def _seconds(values: Sequence[float], nothing: str) -> str:
    """The longest of several times."""
    return f"{max(values):.2f} s" if values else nothing
