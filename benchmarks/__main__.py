"""`python -m benchmarks [--quick] [name ...]`: measure, print a table, write JSON and docs/performance.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio

from benchmarks import calls, fleet, machine, peers, recovery, safeties, simulated
from benchmarks.measure import Report, Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
REMARKS = ROOT / "benchmarks" / "remarks.md"
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "performance.md"
GROUPS: dict[str, Callable[[bool], Awaitable[Report]]] = {
    **calls.GROUPS,
    **recovery.GROUPS,
    **fleet.GROUPS,
    **machine.GROUPS,
    **simulated.GROUPS,
    **safeties.GROUPS,
    **peers.GROUPS,
}


def verdict(row: Row) -> str:
    """Whether the target was reached, in a word."""
    return {True: "met", False: "MISSED", None: ""}[row.met]


def target(row: Row) -> str:
    """What the figure was meant to be."""
    parts = [f"<= {row.target:g}"] if row.target is not None else []
    parts += [f">= {row.least:g}"] if row.least is not None else []
    return " and ".join(parts) or "reported"


def merged(reports: Mapping[str, Report]) -> dict[str, Any]:
    """The series of all groups; those that several have a part of are put together."""
    found: dict[str, Any] = {}
    for report in reports.values():
        for name, data in report.series.items():
            if isinstance(data, dict) and isinstance(found.get(name), dict):
                found[name] |= data
            elif isinstance(data, list) and isinstance(found.get(name), list):
                found[name] = found[name] + data
            else:
                found[name] = data
    return found


def page(reports: Mapping[str, Report], plots: list[Path], quick: bool) -> str:
    """docs/performance.md."""
    series = merged(reports)
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
    rows = [row for report in reports.values() for row in report.rows]
    lines += [
        f"| {row.name} | {row.figure:.4g} {row.unit} | {target(row)} | {verdict(row)} | {row.note} |" for row in rows
    ]
    for plot in plots:
        lines += ["", f"![{plot.stem.partition('-')[2]}](assets/{plot.name})"]
    notes = [note for report in reports.values() for note in report.notes]
    lines += ["", "## Where the time goes", ""]
    lines += ["Shares of the measuring process's own processor time, from a profile.", ""]
    lines += [f"- {note}" for note in notes]
    if missed := [row for row in rows if row.met is False]:
        lines += ["", "## What was missed", ""]
        lines += [f"- {row.name}: {row.figure:.4g} {row.unit}, {target(row)} asked for." for row in missed]
        lines += ["", REMARKS.read_text(encoding="utf-8").strip()]
    lines += ["", "## What each safety costs", "", (safeties.__doc__ or "").partition("\n\n")[2].strip(), ""]
    lines += [series.get("safeties", "Not measured in this run.")]
    lines += ["", "## The same faults, other clients", "", *peers.table(series.get("peers", {}))]
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
    fleet.quiet_logs()
    fleet.raise_file_limit()
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
    if not options.names:
        write(reports, options.quick)
    return int(failed)


def write(reports: Mapping[str, Report], quick: bool) -> None:
    """The page, its plots, the comparison in the README, and the figures for programs."""
    from benchmarks.plots import draw

    series = merged(reports)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: [row.plain() for row in report.rows] for name, report in reports.items()}
    everything = {"figures": plain, "peers": series.get("peers", {})}
    RESULTS.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page(reports, draw(series, PAGE.parent / "assets"), quick), encoding="utf-8")
    if not quick:
        before, rest = README.read_text(encoding="utf-8").split("<!-- comparison -->\n")
        after = rest.partition("<!-- /comparison -->")[2]
        compared = "\n".join(peers.table(series.get("peers", {})))
        whole = f"{before}<!-- comparison -->\n{compared}\n<!-- /comparison -->{after}"
        README.write_text(whole, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
