"""`python -m benchmarks [--quick] [--update] [name ...]`: measure, print a table, write JSON and the pages about it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import anyio

from benchmarks import (
    apart,
    calls,
    fleet,
    gateway,
    gateway_load,
    gateway_sessions,
    growth,
    machine,
    opening,
    pages,
    peers,
    recovery,
    safeties,
    simulated,
    stdio,
    ten_thousand,
    threads,
)
from benchmarks.figures import target, verdict
from benchmarks.measure import Report

GROUPS: dict[str, Callable[[bool], Awaitable[Report]]] = {
    **calls.GROUPS,
    **recovery.GROUPS,
    **fleet.GROUPS,
    **growth.GROUPS,
    **ten_thousand.GROUPS,
    **gateway.GROUPS,
    **gateway_load.GROUPS,
    **gateway_sessions.GROUPS,
    **machine.GROUPS,
    **simulated.GROUPS,
    **safeties.GROUPS,
    **opening.GROUPS,
    **stdio.GROUPS,
    **threads.GROUPS,
    **peers.GROUPS,
}


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


def main(argv: list[str] | None = None) -> int:
    """Run the groups that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"groups to run: {', '.join(GROUPS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument(
        "--update", action="store_true", help="write the figures of the named groups, too; the others' stay as they are"
    )
    options = parser.parse_args(argv)
    unknown = set(options.names) - GROUPS.keys()
    if unknown:
        parser.error(f"no group named {sorted(unknown)[0]!r}; there are: {', '.join(GROUPS)}")
    apart.quiet_logs()
    apart.raise_file_limit()
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
    elif options.update:
        update(reports)
    return int(failed)


def write(reports: Mapping[str, Report], quick: bool) -> None:
    """The figures for programs, the plots, and unless the run was a quick one, what is written about them."""
    from benchmarks.plots import draw

    series = merged(reports)
    results = {
        "measured": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{os.cpu_count()} processors, {platform.system()}, CPython {platform.python_version()}",
        "figures": {name: [row.plain() for row in report.rows] for name, report in reports.items()},
        "notes": [note for report in reports.values() for note in report.notes],
        "safeties": series.get("safeties", "Not measured in this run."),
        "peers": series.get("peers", {}),
    }
    if quick:
        print(json.dumps(results["peers"], indent=2))
        return
    pages.RESULTS.parent.mkdir(parents=True, exist_ok=True)
    pages.RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw(series, pages.PAGE.parent / "assets")
    pages.write()


def update(reports: Mapping[str, Report]) -> None:
    """Replace the figures of some groups, with the date. Notes, plots and peers stay those of the last whole run."""
    results = json.loads(pages.RESULTS.read_text(encoding="utf-8"))
    today = datetime.now(timezone.utc).date().isoformat()
    for name, report in reports.items():
        results["figures"][name] = [row.plain() for row in report.rows]
        results.setdefault("later", {})[name] = today
    pages.RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    pages.write()


if __name__ == "__main__":
    sys.exit(main())
