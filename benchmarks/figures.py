"""All figures in one table, with their targets, and what was missed: benchmarks/results/figures.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import safeties
from benchmarks.measure import Row

REMARKS = Path(__file__).resolve().parent / "remarks.md"


def rows(results: Mapping[str, Any]) -> list[Row]:
    """All figures."""
    fields = ("name", "figure", "unit", "target", "least", "note")
    return [Row(**{each: row[each] for each in fields}) for group in results["figures"].values() for row in group]


def measured_on(results: Mapping[str, Any]) -> str:
    """The machine, and the date of the last whole run and of groups that were measured again since."""
    days: dict[str, list[str]] = {}
    for group, day in results.get("later", {}).items():
        days.setdefault(day, []).append(group)
    again = "".join(f"; {', '.join(sorted(groups))}: {day}" for day, groups in sorted(days.items()))
    return f"{results['machine']}, {results['measured']}{again}."


def figures(results: Mapping[str, Any]) -> str:
    """benchmarks/results/figures.md."""
    measured = rows(results)
    lines = [
        "# All figures",
        "",
        *folded(f"Made by `make bench` on {measured_on(results)}"),
        "",
        "| what | figure | target | | behind it |",
        "|---|---|---|---|---|",
        *(
            f"| {row.name} | {row.figure:.4g} {row.unit} | {target(row)} | {verdict(row)} | {row.note} |"
            for row in measured
        ),
        "",
        "## Where the time goes",
        "",
        "Shares of the measuring process's own processor time, from a profile.",
        "",
        *[line for note in results["notes"] for line in folded(note, item=True)],
    ]
    if missed := [row for row in measured if row.met is False]:
        lines += ["", "## What was missed", ""]
        for row in missed:
            lines += folded(f"{row.name}: {row.figure:.4g} {row.unit}, {target(row)} asked for.", item=True)
        lines += ["", REMARKS.read_text(encoding="utf-8").strip()]
    explained = (safeties.__doc__ or "").partition("\n\n")[2].split()
    lines += ["", "## What each safety costs", "", *folded(" ".join(explained)), "", results["safeties"]]
    return "\n".join(lines) + "\n"


def verdict(row: Row) -> str:
    """Whether the target was reached, in a word."""
    return {True: "met", False: "MISSED", None: ""}[row.met]


def target(row: Row) -> str:
    """What the figure was meant to be."""
    parts = [f"<= {row.target:g}"] if row.target is not None else []
    parts += [f">= {row.least:g}"] if row.least is not None else []
    return " and ".join(parts) or "reported"


def folded(text: str, *, item: bool = False) -> list[str]:
    """Lines of Markdown of at most 100 columns; code is not broken."""
    lines, current = list[str](), "-" if item else ""
    for word in re.findall(r"(?:`[^`]*`|[^\s`])+", text):
        if len(current) + 1 + len(word) > 100:
            lines.append(current)
            current = f"  {word}" if item else word
        else:
            current = f"{current} {word}" if current else word
    return [*lines, current]
