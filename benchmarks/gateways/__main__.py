"""`python -m benchmarks.gateways`: what each gateway promises and costs, as JSON and as docs/comparison.md."""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path
from textwrap import wrap
from typing import Any

import anyio

from benchmarks.gateways.catalog import GATEWAYS, Gateway
from benchmarks.gateways.promises import PROMISES, try_all
from benchmarks.gateways.timing import CALLERS, headline, measure

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gateways.json"
PAGE = ROOT / "docs" / "comparison.md"
WIDTH = 100
"""Columns of the page's text."""
RATE = f"rate of {CALLERS} callers"


def available(gateways: tuple[Gateway, ...]) -> tuple[list[Gateway], dict[str, str]]:
    """Those that are installed, and why the others are not."""
    reasons = {each.name: each.install() for each in gateways}
    return [each for each in gateways if not reasons[each.name]], {name: why for name, why in reasons.items() if why}


def known() -> dict[str, Any]:
    """The results that there are."""
    empty: dict[str, Any] = {"versions": {}, "notes": {}, "not installed": {}, "promises": {}, "times": {}}
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else empty


def keep(content: dict[str, Any]) -> None:
    """Write the results and the page; a run that is interrupted loses only what it was measuring."""
    order = [each.name for each in GATEWAYS]
    content["promises"] = {name: content["promises"][name] for name in order if name in content["promises"]}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page(content), encoding="utf-8")


def measure_promises(gateways: tuple[Gateway, ...], content: dict[str, Any]) -> None:
    """Try what each gateway promises."""
    found, content["not installed"] = available(gateways)
    content["client"] = f"mcp {version('mcp')}"
    content["machine"] = f"{os.cpu_count()} processors, {platform.system()}, CPython {platform.python_version()}"
    for each in found:
        content["date"] = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        content["versions"][each.name] = each.version()
        content["notes"] |= {each.name: each.notes} if each.notes else {}
        content["promises"][each.name] = anyio.run(try_all, each)
        keep(content)


def measure_times(gateways: tuple[Gateway, ...], content: dict[str, Any], quick: bool) -> None:
    """Time calls through all gateways, side by side."""
    found, _ = available(gateways)
    content["load"] = round(os.getloadavg()[0])
    for mode in ("legacy", "auto"):
        content["times"][mode] = anyio.run(measure, found, quick, mode)
        keep(content)


def cell(text: str) -> str:
    """Text that stays in its cell, with no more than the beginning of an error's own words."""
    text = re.sub(r"dead \((.{30}).*\)$", r"dead (\1...)", text.replace(" ()", "").replace("\n", " "))
    return text.replace("|", "\\|")


def table(content: dict[str, Any]) -> list[str]:
    """The promises: a row each, a column for each gateway."""
    names = list(content["promises"])
    heads = [f"{name} {content['versions'][name]}" for name in names]
    lines = ["| what happens | " + " | ".join(heads) + " |", "|---" * (len(names) + 1) + "|"]
    for promise in PROMISES:
        cells = [cell(content["promises"][name].get(promise, "")) for name in names]
        lines.append(f"| {promise} | " + " | ".join(cells) + " |")
    return lines


def times(content: dict[str, Any]) -> list[str]:
    """The times: a row for each gateway."""
    lines = [f"| gateway | legacy client: call | {RATE} | modern client: call | {RATE} |", "|---|---|---|---|---|"]
    for name in content["promises"]:
        cells = []
        for mode in ("legacy", "auto"):
            found = content["times"].get(mode, {}).get(name, {})
            if "call" in found:
                cells += [headline(found["call"]), headline(found[RATE])]
            else:
                cells += [cell(found.get("problem", "not measured")), ""]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def page(content: dict[str, Any]) -> str:
    """docs/comparison.md."""
    notes = [f"- {name}: {note}." for name, note in content["notes"].items()]
    left = [f"- {name} could not be installed: {why}" for name, why in content["not installed"].items()]
    return "\n".join(
        [
            "# Compared with other gateways",
            "",
            *wrap(
                "`make bench-gateways` generates this page from its measurements. The client of each gateway is a bare"
                f" `Client` of {content['client']}; the server behind it is a scripted server of the legacy era that"
                " keeps a journal of what it ran. Each gateway is started as its own documentation shows, with its"
                " default settings.",
                WIDTH,
            ),
            "",
            f"Measured on {content['date']}, {content['machine']}.",
            "Gateways change: note the versions, and repeat the measurement for other ones.",
            "",
            "## What a client is told",
            "",
            *table(content),
            "",
            "- *answers*: the first call after the fault is answered. *dead*: six calls on the same client, over",
            "  five seconds or more, all fail. *no answer*: no answer within 20 s.",
            '- "ran 1 x" is from the journal. The tool is not marked as safe to repeat, so it must not run twice.',
            "- *unknown*: the gateway reports that the tool may have run, in the text and in a field for programs.",
            "- A modern client keeps no session. It uses the legacy protocol if the gateway supports no other.",
            "",
            "## What a call costs",
            "",
            *wrap(
                "The table shows the time of a call through the gateway as a multiple of a direct call, and the calls a"
                f" second of {CALLERS} callers of one client as a fraction of those of a direct client; the lowest and"
                " the highest values of all rounds are in brackets. All gateways run concurrently and take turns. Only"
                " ratios are given because the machine was doing other work during the measurement (load average"
                f" {content.get('load', 'unknown')}).",
                WIDTH,
            ),
            "",
            *times(content),
            "",
            "## How each is started",
            "",
            *notes,
            *left,
            "",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateways", description=__doc__)
    parser.add_argument("names", nargs="*", help="gateways whose promises are tried anew; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--part", choices=("promises", "times", "page"), help="do this alone")
    options = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    if unknown := set(options.names) - {each.name for each in GATEWAYS}:
        parser.error(f"no gateway named {sorted(unknown)[0]!r}; there are: {', '.join(each.name for each in GATEWAYS)}")
    content = known()
    if options.part == "page":
        keep(content)
        return 0
    if options.part != "times":
        measure_promises(tuple(each for each in GATEWAYS if not options.names or each.name in options.names), content)
    if options.part != "promises":
        measure_times(GATEWAYS, content, options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
