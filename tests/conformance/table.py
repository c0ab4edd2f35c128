"""Writes docs/conformance.md: the scenarios for clients with the bare SDK and with mcpconn, and those for servers
without and with the gateway in between.

python -m tests.conformance.table [clients] [servers]
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from mcpconn import __version__
from tests.conformance.servers import Verdict, both, run
from tests.conformance.suite import NEXT, PACKAGE, ROOT, Result, Suite

PAGE = ROOT / "docs" / "conformance.md"
AT_ONCE = 2
"""Scenarios that run concurrently. With more, a machine with few processors makes clients miss the suite's timeout."""

HEAD = """\
# Conformance

The official conformance suite acts as a server to test clients, and as a client to test servers.
`make conformance` runs it and writes this page.

"""
CLIENTS = """\
## mcpconn as a client

This table compares a client built on `mcpconn.Connection` with one built on the SDK's bare
`mcp.Client` with the same settings; both are in `examples/conformance_client.py`. A cell shows how
many of the scenario's checks passed. mcpconn often passes one check more, because a connection
lists the server's tools automatically, and every request with a valid token is a check.

Run with `@modelcontextprotocol/conformance` {suite}, mcp {mcp} and mcpconn {mcpconn}.

| scenario | specification | `mcp.Client` | `mcpconn.Connection` |
|---|---|---|---|
"""
SERVERS = """\
## The gateway as a server

This table shows the results of the SDK's example server, tested directly and through
`mcpconn serve` (a view with `prefix: false`). A cell shows how many of the scenario's checks
passed, in the release and in the newest alpha, which has scenarios for the 2026-07-28 protocol. A
cell is empty if the suite does not have the scenario.

Run with `@modelcontextprotocol/conformance` {release} and {alpha}, mcp {mcp} and mcpconn {mcpconn}.

| scenario | specification | {release}: server | through the gateway | {alpha}: server | through the gateway |
|---|---|---|---|---|---|
"""
SERVERS_FOOT = """
{total} checks passed by the server, {passed} through the gateway; {worse} failed that the server
itself passes.

The server fails scenarios of an extension that it does not support: `tasks-*` test the tasks of
2026-07-28. If the gateway has fewer checks than the server, the behaviour is not visible through a
gateway: if the server ends a stream in the middle of a call, the gateway resumes it, and if a list
changes back before it is listed, the client sees no change.
"""
BREAK = "\n## The gateway"


def cell(result: Result) -> str:
    """One result, for the table."""
    return f"{'passed' if result.passed else '**failed**'} {result.checks}"


def main(parts: list[str]) -> int:
    """Write the page. Returns 1 if mcpconn fails what the bare client or server passes."""
    before = PAGE.read_text(encoding="utf-8").removeprefix(HEAD).partition(BREAK)
    clients = before[0]
    worse: list[str] = []
    servers = "".join(before[1:]).removeprefix("\n")
    if not parts or "clients" in parts:
        clients, worse = of_clients()
    if not parts or "servers" in parts:
        servers, found = of_servers()
        worse += found
    PAGE.write_text(f"{HEAD}{clients.rstrip()}\n\n{servers}", encoding="utf-8")
    for each in worse:
        sys.stdout.write(f"mcpconn fails what is passed without it: {each}\n")
    return 1 if worse else 0


def of_clients() -> tuple[str, list[str]]:
    """The part about clients, and what mcpconn fails that the bare client passes."""
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
    head = CLIENTS.format(suite=suite.version(), mcp=version("mcp"), mcpconn=__version__)
    foot = f"\n{total} of {len(scenarios)} passed.\n" + "".join(f"\n{note}" for note in notes)
    return head + "".join(lines) + foot, [f"{each}\n{results[each, False].output}" for each in worse]


def of_servers() -> tuple[str, list[str]]:
    """The part about the gateway, and the checks it fails that its server passes."""
    suites = [Suite.find(PACKAGE), Suite.find(NEXT)]
    with both() as urls:
        results = [[run(suite, url) for url in urls] for suite in suites]
    lines: list[str] = []
    worse: list[str] = []
    passed = [0, 0]
    for scenario in results[-1][0] | results[0][0]:
        row: list[Verdict | None] = [result.get(scenario) for pair in results for result in pair]
        said = next(verdict.specification for verdict in reversed(row) if verdict is not None)
        cells = ["" if verdict is None else str(verdict) for verdict in row]
        lines.append(f"| `{scenario}` | {said.replace(',', ', ')} | {' | '.join(cells)} |\n")
        for direct, through in ((row[0], row[1]), (row[2], row[3])):
            if direct is not None and through is not None:
                worse += [f"{scenario}: {check}" for check in through.failed.keys() - direct.failed.keys()]
                passed[0] += sum(direct.passed.values())
                passed[1] += sum(through.passed.values())
    names = {"release": suites[0].version(), "alpha": suites[1].version()}
    head = SERVERS.format(**names, mcp=version("mcp"), mcpconn=__version__)
    foot = SERVERS_FOOT.format(total=passed[0], passed=passed[1], worse=len(worse) or "none")
    return head + "".join(lines) + foot, worse


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
