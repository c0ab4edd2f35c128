"""Run it: `python -m tests.gateway.chaos --seconds 600`, which is `make chaos`."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from tests.gateway.chaos.clients import ChaosClient
from tests.gateway.chaos.verdict import lines, of_audit, of_calls, of_sessions
from tests.gateway.chaos.world import SERVERS, World

CALM = 300.0
"""Seconds in which every client has to finish its last calls, once nothing is killed any more: five times a call's
deadline, for a machine that is busy with other things. Beyond it a client counts as stuck."""


@dataclass
class Report:
    """What came of a run."""

    problems: list[str] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    """By what clients were told, the attempts."""
    audit: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    runs: int = 0
    received: int = 0
    opened: int = 0
    unanswered_at_the_end: int = 0

    def __str__(self) -> str:
        def counts(of: Counter[str]) -> str:
            return ", ".join(f"{count} {name}" for name, count in of.most_common())

        return "\n".join(
            [
                f"killed: {counts(self.killed)}",
                f"{self.calls} calls in {sum(self.told.values())} requests: {counts(self.told)}",
                f"{self.runs} runs in the journals; audit: {counts(self.audit)}",
                f"{self.received:,} bytes looked at; {self.opened} connections opened by clients",
                f"{len(self.problems)} problems",
                *self.problems[:50],
            ]
        )


async def live_through(folder: Path, *, seconds: float, clients: int = 20, seed: int = 0) -> Report:
    """Let clients call for so long while everything is killed, and judge.

    Args:
        folder: An empty folder for everything that is written.
        seconds: How long things are killed.
        clients: Half of them speak the legacy protocol.
        seed: Of the choices that are made. Threads of time are the machine's own, so no two runs are the same.
    """
    world = World(folder, clients=clients, seed=seed)
    users = [
        ChaosClient(number, world.url, key, mode="legacy" if number % 2 else "auto", seed=seed)
        for number, key in enumerate(world.keys)
    ]
    report = Report()
    try:
        await world.start()
        async with anyio.create_task_group() as group:
            for user in users:
                group.start_soon(user.run)
            await world.chaos(anyio.current_time() + seconds)
            for user in users:
                user.over.set()
            group.cancel_scope.deadline = anyio.current_time() + CALM
        if group.cancel_scope.cancelled_caught:
            report.problems.append("a client did not come to its end")
        left = await world.stop()
        if left:
            report.problems.append(f"children outlived the gateway: {left}")
    finally:
        world.kill_now()
        await world.old.kill()
        await world.new.kill()
    judge(world, users, report)
    return report


def judge(world: World, users: list[ChaosClient], report: Report) -> None:
    """Hold what clients were told, the journals and the audit lines against each other."""
    journals = {server: lines(world.journal(server)) for server in SERVERS}
    runs = Counter(run["id"] for journal in journals.values() for run in journal)
    calls = [call for user in users for call in user.calls]
    report.problems += of_calls(calls, runs)
    report.problems += of_sessions(journals["old"], "session")
    report.problems += of_sessions(journals["child"], "pid")
    for user in users:
        report.problems += [f"{user.name} received {found!r} {count} times" for found, count in user.foreign.items()]
        # When nothing is killed any more, everybody is answered.
        for call in user.calls[-len(SERVERS) :]:
            if call.told[-1] != "answered":
                report.problems.append(f"in the calm at the end: {call}")
    problems, report.audit = of_audit(lines(world.folder / "audit.jsonl"), calls, runs)
    report.problems += problems
    report.told = Counter(told for call in calls for told in call.told)
    report.killed = world.killed
    report.calls, report.runs = len(calls), sum(runs.values())
    report.received, report.opened = sum(user.received for user in users), sum(user.opened for user in users)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.gateway.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="an empty folder to leave the journals in")
    options = parser.parse_args()
    # The SDK logs each broken connection with its traceback, and this run is made of them.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)

        async def run() -> Report:
            return await live_through(folder, seconds=options.seconds, clients=options.clients, seed=options.seed)

        report = anyio.run(run)
    sys.stdout.write(f"{report}\n")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
