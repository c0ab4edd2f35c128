"""The plots of docs/performance.md, from the figures of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, THEIRS, THIRD = "#3949ab", "#9e9e9e", "#90a4f4"
# The same figures give the same file, letter by letter; and text stays text.
mpl.rcParams.update({"svg.hashsalt": "mcpconn", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10})


def overhead(axes: Axes, rows: list[list[Any]]) -> None:
    """What a call takes."""
    rows = [row for row in rows if len(row) == 4][::-1]
    height = 0.26
    for offset, column, name, colour in (
        (1, 1, "mcp.Client", THEIRS),
        (0, 3, "mcpconn, httpx engine", THIRD),
        (-1, 2, "mcpconn", OURS),
    ):
        places = [number + offset * height for number in range(len(rows))]
        axes.barh(places, [row[column] * 1e3 for row in rows], height, label=name, color=colour)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_xlabel("milliseconds a call, median")
    axes.set_title("A call over loopback HTTP")
    # Below the plot: wherever it is inside, there is a bar.
    axes.figure.legend(frameon=False, loc="outside lower center", ncols=3)


def recovery(axes: Axes, times: Mapping[str, float]) -> None:
    """How long a call takes that meets a fault."""
    names = sorted(times, key=lambda name: times[name], reverse=True)
    bars = axes.barh(
        names,
        [times[name] * 1e3 for name in names],
        0.6,
        color=[THEIRS if "by hand" in name else OURS for name in names],
    )
    axes.bar_label(bars, [f"{times[name] * 1e3:.3g} ms" for name in names], padding=4)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_xlabel("milliseconds to the answer, median (logarithmic)")
    axes.set_title("Recovery, by cause")


def stampede(axes: Axes, ends: Mapping[str, list[float]]) -> None:
    """When each of many calls at once was answered."""
    for name, label, colour in (("live", "on a live session", THEIRS), ("expired", "on an expired session", OURS)):
        axes.plot(ends[name], range(1, len(ends[name]) + 1), label=label, color=colour)
    axes.set_xlabel("seconds since all were made")
    axes.set_ylabel("calls answered")
    axes.set_title(f"{len(ends['live']):,} calls at once")
    axes.legend(frameon=False, loc="upper left")


def fleet(axes: Axes, seen: Mapping[str, list[float]]) -> None:
    """The return of a fleet."""
    axes.plot(seen["seconds"], seen["ready"], color=OURS)
    axes.set_xlabel("seconds since the servers are back")
    axes.set_ylabel("connections ready", color=OURS)
    beside = axes.twinx()
    axes.set_zorder(beside.get_zorder() + 1)
    axes.patch.set_visible(False)
    beside.bar(seen["seconds"], seen["dials"], 1.0, color=THEIRS, alpha=0.5)
    beside.set_ylabel("dials a second", color="#616161")
    axes.set_title("A fleet after ten minutes without servers (simulated)")


PLOTS: dict[str, Callable[[Axes, Any], None]] = {
    "overhead": overhead,
    "recovery": recovery,
    "stampede": stampede,
    "fleet": fleet,
}


def draw(series: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write a plot for each series that has one.

    Args:
        series: Data, by name of the plot.
        folder: Where the files go.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, plot in PLOTS.items():
        if name not in series:
            continue
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        plot(axes, series[name])
        files.append(folder / f"performance-{name}.svg")
        figure.savefig(files[-1], format="svg", metadata={"Date": None})
    return files
