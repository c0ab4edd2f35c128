"""`python -m benchmarks [--quick] [name ...]`: measure, print a table, write JSON and docs/performance.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from benchmarks import calls, fleet, machine, recovery, simulated
from benchmarks.measure import Report, Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
PAGE = ROOT / "docs" / "performance.md"
GROUPS: dict[str, Callable[[bool], Awaitable[Report]]] = {
    "in_process": calls.in_process,
    "loopback": calls.loopback,
    "throughput": calls.throughput,
    "expired": recovery.expired,
    "restarted": recovery.restarted,
    "stampede": recovery.stampede,
    "outage": recovery.outage,
    "start": fleet.start,
    "memory": fleet.memory,
    "growth": fleet.growth,
    "transitions": machine.transitions,
    "imports": machine.imports,
    "fleet": simulated.fleet,
}


def verdict(row: Row) -> str:
    """Whether the target was reached, in a word."""
    return {True: "met", False: "MISSED", None: ""}[row.met]


def target(row: Row) -> str:
    """What the figure was meant to be."""
    parts = [f"<= {row.target:g}"] if row.target is not None else []
    parts += [f">= {row.least:g}"] if row.least is not None else []
    return " and ".join(parts) or "reported"


def page(reports: dict[str, Report], quick: bool) -> str:
    """docs/performance.md."""
    lines = [
        "# Performance",
        "",
        "Made by `make bench`. Both sides of a comparison run in turn, in one run; figures are medians. The ratios",
        "carry over to other machines, the absolute figures do not.",
        "",
        f"Measured on {os.cpu_count()} processors, {platform.system()}, CPython {platform.python_version()}"
        + (", with `--quick` (fewer rounds)." if quick else "."),
        "",
        "| what | figure | target | | behind it |",
        "|---|---|---|---|---|",
    ]
    for report in reports.values():
        lines += [
            f"| {row.name} | {row.figure:.4g} {row.unit} | {target(row)} | {verdict(row)} | {row.note} |"
            for row in report.rows
        ]
    notes = [note for report in reports.values() for note in report.notes]
    for note in notes:
        lines += ["", note]
    lines += [
        "",
        "## Repeat it",
        "",
        "`make bench` measures everything; `python -m benchmarks stampede` one group, `--quick` with fewer rounds.",
        "The figures are also in `benchmarks/results/latest.json`.",
        "",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the groups that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"groups to run: {', '.join(GROUPS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args(argv)
    unknown = set(options.names) - GROUPS.keys()
    if unknown:
        parser.error(f"no group named {sorted(unknown)[0]!r}; there are: {', '.join(GROUPS)}")
    reports: dict[str, Report] = {}
    failed = False
    for name in options.names or GROUPS:
        try:
            reports[name] = anyio.run(GROUPS[name], options.quick)
        except Exception as error:  # one group that cannot run must not hide the others
            failed = True
            print(f"{name}: could not be measured: {error!r}", file=sys.stderr)
            continue
        for row in reports[name].rows:
            print(f"{row.name:<60} {row.figure:>10.4g} {row.unit:<6} {target(row):<12} {verdict(row):<7} {row.note}")
        sys.stdout.flush()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: {"rows": [row.plain() for row in each.rows], "notes": each.notes} for name, each in reports.items()}
    RESULTS.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    if not options.names:
        PAGE.write_text(page(reports, options.quick), encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
