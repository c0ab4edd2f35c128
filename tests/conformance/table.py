"""Runs every scenario with the bare SDK and with mcpconn, and writes docs/conformance.md.

python -m tests.conformance.table
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from mcpconn import __version__
from tests.conformance.suite import ROOT, Result, Suite

PAGE = ROOT / "docs" / "conformance.md"
AT_ONCE = 2
"""Scenarios that run side by side. With more, processors that are few make clients miss the suite's timeout."""

HEAD = """\
# Conformance

The official conformance suite plays a server and watches what a client does. Here are its results for a client
written on `mcpconn.Connection`, beside those of the SDK's bare `mcp.Client` with the same settings; both are
`examples/conformance_client.py`. A cell says how many of the scenario's checks passed. mcpconn often meets one check
more: a connection lists the server's tools by itself, and every request with a valid token is a check.

Made by `make conformance`, with `@modelcontextprotocol/conformance` {suite}, mcp {mcp} and mcpconn {mcpconn}.

| scenario | specification | `mcp.Client` | `mcpconn.Connection` |
|---|---|---|---|
"""


def cell(result: Result) -> str:
    """One result, for the table."""
    return f"{'passed' if result.passed else '**failed**'} {result.checks}"


def main() -> int:
    """Write the page. Returns 1 where mcpconn fails what the bare client passes."""
    suite = Suite.find()
    scenarios = suite.scenarios()
    jobs = [(scenario, bare) for scenario in scenarios for bare in (True, False)]
    with suite.ready(), ThreadPoolExecutor(AT_ONCE) as pool:
        results = dict(zip(jobs, pool.map(lambda job: suite.run(job[0], bare=job[1]), jobs), strict=True))
    lines, notes, worse = [], [], []
    for scenario, specification in scenarios.items():
        bare, ours = results[scenario, True], results[scenario, False]
        lines.append(f"| `{scenario}` | {specification.replace(',', ', ')} | {cell(bare)} | {cell(ours)} |\n")
        if bare.passed and not ours.passed:
            worse.append(scenario)
        if not (bare.passed and ours.passed):
            which = "Both fail" if not (bare.passed or ours.passed) else "One fails"
            reason = bare.error or ours.error or ", ".join(bare.failed or ours.failed)
            notes.append(f"{which} `{scenario}`: `{reason}`\n")
    total = sum(results[scenario, False].passed for scenario in scenarios)
    head = HEAD.format(suite=suite.version(), mcp=version("mcp"), mcpconn=__version__)
    foot = f"\n{total} of {len(scenarios)} passed.\n" + "".join(f"\n{note}" for note in notes)
    PAGE.write_text(head + "".join(lines) + foot, encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}: {total} of {len(scenarios)} passed\n")
    for scenario in worse:
        output = results[scenario, False].output
        sys.stdout.write(f"mcpconn fails {scenario}, which the bare client passes:\n{output}\n")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
