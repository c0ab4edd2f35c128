"""What is written about the measurements: docs/performance.md, the comparison in the README, and all figures.

python -m benchmarks.pages      writes them again from benchmarks/results/latest.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import figures, folded, measured_on, rows
from benchmarks.measure import Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
FIGURES = ROOT / "benchmarks" / "results" / "figures.md"
PAGE = ROOT / "docs" / "performance.md"
COMPARED = (ROOT / "README.md", ROOT / "docs" / "index.md")
"""Pages with the comparison between markers."""
PLOTS = {
    "overhead": "The time of a call with mcpconn, against the same call with `mcp.Client`.",
    "recovery": "An expired session: the time until the answer.",
    "stampede": "A thousand concurrent calls on an expired session: when each was answered.",
    "fleet": "Ten thousand connections whose servers come back after ten minutes, simulated: dials a second.",
}
"""By the name of a plot: what it shows."""
TRIALS, PATIENCE = 3, 10
"""Calls of each fault in the comparison, and the seconds after which "never" is written."""


# -- the page


def performance(results: Mapping[str, Any]) -> str:
    """docs/performance.md."""
    measured = rows(results)
    found = {row.name: row for row in measured}

    def against(name: str) -> tuple[str, str]:
        """Both sides of a figure: "14.4 ms against 50.9 ms", without what is said after them."""
        ours, _, theirs = found[name].note.partition(" against ")
        return ours, theirs.partition(",")[0]

    def span(part: str) -> str:
        figures = [row.figure for name, row in found.items() if name.startswith("a call, ") and part in name]
        return f"{min(figures):.2f} to {max(figures):.2f}"

    memory, bare_memory = against("memory of 1000 ready HTTP connections, against bare clients")
    shared_memory = _sharing(measured, "memory of 1000")
    start, bare_start = against("start of 100 servers, one hanging, one refusing: 98 ready, against 98 bare clients")
    shared_start = _sharing(measured, "start of 100")
    expired, new_client = against("recovery, expired session: time against a new bare client")
    _, four = against("recovery, expired session: time against its four bare requests")
    back = found["server back after 5 s: listening to first answer"]
    more = found["a call, in-process server: more"]
    pays = [
        (
            f"**A call over HTTP** takes {span('default engine')} times as long as with `mcp.Client`. With the"
            f' SDK\'s HTTP library (`engine="httpx"`) it takes {span("httpx engine")} times as long.'
        ),
        f"**A call to a server in the same process** takes {more.figure:.0f} µs longer.",
        (
            f"**Memory:** {memory} over HTTP. An `mcp.Client` that shares its TLS context takes"
            f" {shared_memory}; one with the default settings, which does not share it, takes {bare_memory}."
        ),
        (
            f"**Start:** 100 servers in {start}, one of which hangs and one refuses. Clients that share a TLS context"
            f" take {shared_start}, bare clients {bare_start}."
        ),
        f"**Import:** {found['import mcpconn against import mcp'].figure:.2f} times as long as `import mcp` alone.",
    ]
    gets = [
        (
            f"**An expired session** costs one call {expired}: four requests, which alone take {four} on an open"
            f" socket. A new `mcp.Client` takes {new_client}."
        ),
        "**A thousand concurrent calls on an expired session** cause one handshake, and all are answered.",
        f"**A server that was down** answers its first caller {back.figure:.2g} s after it listens again (median).",
        f"**A thousand idle connections** use {found['idle cost of 1000 ready connections'].figure:.2g} % of one core.",
        (
            f"**Ten thousand connections** whose servers come back after ten minutes dial at most"
            f" {found[_fleet(found)].figure:.0f} times a second."
        ),
    ]
    lines = [
        "# Performance",
        "",
        *folded(
            "This page compares the cost and the benefits of mcpconn with a bare `mcp.Client`. Both sides of a"
            " comparison run alternately in one run; figures are medians. The ratios carry over to other machines, the"
            f" absolute figures do not. Measured on {measured_on(results)}"
        ),
        "",
        "## What you pay",
        "",
        *[line for each in pays for line in folded(each, item=True)],
        "",
        "## What you get",
        "",
        *[line for each in gets for line in folded(each, item=True)],
        "",
        "## Plots",
        "",
    ]
    for name, shows in PLOTS.items():
        lines += [*folded(shows), "", f"![{name}](assets/performance-{name}.svg)", ""]
    lines += [
        "## The same faults, other clients",
        "",
        *comparison(results["peers"]),
        "",
        "## Repeat it",
        "",
        *folded(
            "`make bench` measures everything; `python -m benchmarks stampede` measures one group, and `--quick` takes"
            " fewer rounds. In the repository, `benchmarks/results/figures.md` lists every figure with its target,"
            " the targets that were missed and why, where the time goes, and what each safety measure costs."
        ),
    ]
    return "\n".join(lines) + "\n"


def _sharing(measured: list[Row], begins: str) -> str:
    """What clients that share a TLS context take: it is in the row after the one that begins so."""
    index = next(number for number, row in enumerate(measured) if row.name.startswith(begins))
    assert measured[index + 1].name.startswith("the same, against bare clients that share")
    return measured[index + 1].note.partition(" against ")[2]


def _fleet(found: Mapping[str, Row]) -> str:
    return next(name for name in found if name.startswith("fleet of 10,000") and "dials/s" in name)


# -- the comparison


def comparison(peers: Mapping[str, Any]) -> list[str]:
    """What became of calls in other clients, in words: a row for each client, a column for each fault."""
    tried = {peer: results for peer, results in peers.items() if isinstance(results, dict)}
    if not tried:
        return ["Not measured in this run."]
    faults = list(next(iter(tried.values())))
    explained = folded(
        f"Each client is used as its own documentation shows. It calls `charge`, a tool that must not run twice,"
        f" {TRIALS} times, each time right after the fault. A cell shows what the caller was told, and after how long"
        f' the client answered a call again; "never" is longer than {PATIENCE} s. No client ran the tool twice.'
    )
    lines = [*explained, "", "| client | " + " | ".join(faults) + " |", "|---" * (len(faults) + 1) + "|"]
    lines += [
        f"| {peer} | " + " | ".join(words(results[fault]) for fault in faults) + " |" for peer, results in tried.items()
    ]
    lines += [
        "",
        *folded(
            '"Said unknown" means `OutcomeUnknown`: the caller is told that the tool may have run. The errors of the'
            " other clients do not say whether it ran."
        ),
    ]
    left = {peer: reason for peer, reason in peers.items() if not isinstance(reason, dict)}
    for peer, reason in left.items():
        lines += ["", *folded(f"Not compared: {peer}, because {reason}.")]
    return lines


def words(cell: Mapping[str, Any]) -> str:
    """One cell: `{"answered": "0 of 3", "ran": 1, "recovery": "10.9 ms", "problem": "OutcomeUnknown: ..."}`."""
    assert cell["ran"] <= 1, "a tool ran twice: the sentence above the table would be false"
    number, _, unit = cell["recovery"].partition(" ")
    back = f"{float(number):.2g} {unit}" if unit else number
    answered, _, tried = cell["answered"].partition(" of ")
    if answered == tried:
        return f"answered in {back}"
    told = "said unknown" if cell["problem"].startswith("OutcomeUnknown") else "an error"
    if answered != "0":
        told = f"{cell['answered']} answered, else {told}"
    return f"{told}, never back" if number == "never" else f"{told}, back in {back}"


# -- all figures


def compared(page: str, peers: Mapping[str, Any]) -> str:
    """A page with the comparison between its markers."""
    table = "\n".join(comparison(peers))
    return re.sub(
        r"(<!-- comparison -->\n).*?(<!-- /comparison -->)",
        lambda match: f"{match[1]}{table}\n{match[2]}",
        page,
        flags=re.DOTALL,
    )


def write() -> None:
    """Write all pages from the results."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(performance(results), encoding="utf-8")
    FIGURES.write_text(figures(results), encoding="utf-8")
    for path in COMPARED:
        path.write_text(compared(path.read_text(encoding="utf-8"), results["peers"]), encoding="utf-8")


if __name__ == "__main__":
    write()
