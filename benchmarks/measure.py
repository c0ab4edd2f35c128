"""How things are timed: both sides in turn, in rounds, and only medians and ratios of them are kept."""

from __future__ import annotations

import cProfile
import gc
import pstats
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Work = Callable[[], Awaitable[object]]


@dataclass
class Row:
    """One figure, beside what it was meant to be."""

    name: str
    figure: float
    unit: str
    target: float | None = None
    """What the figure must not exceed; None if it is only reported."""
    least: float | None = None
    """What the figure must not fall below."""
    note: str = ""
    """The absolute figures behind a ratio, and what else a reader should know."""
    spread: tuple[float, float] | None = None
    """The smallest and the largest of the rounds."""

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None if there is none."""
        if self.target is None and self.least is None:
            return None
        return (self.target is None or self.figure <= self.target) and (self.least is None or self.figure >= self.least)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "met": self.met}


@dataclass
class Report:
    """What one group of measurements found."""

    rows: list[Row] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)
    """Data for the plots."""
    notes: list[str] = field(default_factory=list)
    """Paragraphs for the page: profiles, and why a target was missed."""

    def add(self, name: str, figure: float, unit: str, **more: Any) -> None:
        """Add a row."""
        self.rows.append(Row(name, figure, unit, **more))

    def compare(self, name: str, found: Ratio, *, target: float | None = None, note: str = "") -> None:
        """Add a row for a ratio; the absolute figures are its note, unless another is given."""
        self.add(name, found.figure, "x", target=target, note=note or str(found), spread=found.spread)


async def alternate(
    sides: Mapping[str, Work], *, calls: int, rounds: int, before: Work | None = None
) -> dict[str, list[float]]:
    """The median duration of each side's work, in seconds, for each round.

    Within a round the sides take turns call by call, each first as often as last, so that whatever else the
    machine does meets all of them alike.

    Args:
        sides: What to time, by name.
        calls: How often in all.
        rounds: In how many rounds.
        before: Done before each call, and not timed.
    """
    names = list(sides)
    medians: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in names}
        gc.collect()
        for turn in range(max(1, calls // rounds)):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                if before is not None:
                    await before()
                began = time.perf_counter()
                await sides[name]()
                times[name].append(time.perf_counter() - began)
        for name in names:
            medians[name].append(statistics.median(times[name]))
    return medians


@dataclass(frozen=True)
class Ratio:
    """One side against another, over all rounds."""

    figure: float
    """The median of the rounds' ratios."""
    spread: tuple[float, float]
    ours: float
    """Seconds."""
    theirs: float

    @property
    def more(self) -> float:
        """Seconds on top."""
        return self.ours - self.theirs

    def __str__(self) -> str:
        return f"{span(self.ours)} against {span(self.theirs)}"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Compare two sides, round by round."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Ratio(
        statistics.median(ratios), (min(ratios), max(ratios)), statistics.median(ours), statistics.median(theirs)
    )


def worked(pid: int) -> float:
    """Seconds that a process has used a processor, with all its threads. A thread's end takes its part away.

    From Linux's scheduler, which counts nanoseconds: `cpu_times` counts ticks of 10 ms, and a call takes about 2.
    """
    spent = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            spent += int((thread / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return spent / 1e9


PACKAGES = ("mcpconn", "mcp", "mcp_types", "httpx2", "httpcore2", "h11", "pydantic", "anyio", "asyncio", "json")
LAYERS = {"mcp_types": "mcp", "pydantic_core": "pydantic", "sniffio": "anyio", "asyncio": "asyncio and sockets"}


async def shares(work: Work, calls: int, *, before: Work | None = None) -> str:
    """Where a client's processor time goes, in words: the share of each package. Waiting does not count.

    Args:
        work: What to profile.
        calls: How often to do it.
        before: Done before each, and not profiled.
    """
    profile = cProfile.Profile(builtins=False)
    for _ in range(calls):
        if before is not None:
            await before()
        profile.enable()
        await work()
        profile.disable()
    spent: Counter[str] = Counter()
    for (path, _, _), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        parts = Path(path).parts
        if parts[-1] == "selectors.py":
            # Waiting for sockets, which is as long as the server takes.
            continue
        found = next((part for part in reversed(parts) if part in (*PACKAGES, *LAYERS)), "the rest of Python")
        spent[LAYERS.get(found, found)] += own
    whole = sum(spent.values())
    return ", ".join(f"{name} {own / whole:.0%}" for name, own in spent.most_common() if own / whole > 0.02)


def span(seconds: float) -> str:
    """A duration, for people."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if abs(seconds) < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"
