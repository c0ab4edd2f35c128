"""Replicas are killed and replaced, one after another, under the load of bare clients: `python -m tests.fleet.soak`.

Every call is answered, or its client is told `not_run` or `unknown`, or its connection broke; none runs twice.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import textwrap
from contextlib import ExitStack
from pathlib import Path

import anyio

from tests.fleet.load import Load
from tests.fleet.processes import Fleet, fleet
from tests.redis_server import RedisServer

WIDTH = 78
"""Columns of the report."""


async def soak(made: Fleet, *, seconds: float, clients: int, between: float = 2.0) -> Load:
    """Kill and replace replicas for a while.

    Args:
        made: The fleet.
        seconds: For how long.
        clients: Clients; every second one is modern.
        between: Seconds from one that serves again to the next kill.
    """
    load = Load(made.url)
    async with anyio.create_task_group() as group:
        for number in range(clients):
            group.start_soon(load.client, f"c{number}", "auto" if number % 2 else "legacy")
        end = anyio.current_time() + seconds
        turn = 0
        while anyio.current_time() < end:
            await anyio.sleep(between)
            await made.kill(turn % len(made.replicas))
            await made.start(turn % len(made.replicas))
            turn += 1
        await anyio.sleep(between)
        load.stopping = True
    return load


def report(made: Fleet, load: Load) -> list[str]:
    """Print the count; what was wrong."""
    ran = made.ran()
    problems = load.problems(ran)
    kills = sum("SIGKILL" in what for _, what in made.timeline)
    print(f"calls: {len(load.told)}; replicas killed: {kills}; things wrong: {len(problems)}")
    for what, count in load.count(ran).items():
        print(f"  {count:6}  {what}")
    if load.words:
        print("What the clients were told of those that were not answered:")
    for words, count in load.words.most_common(8):
        folded = textwrap.wrap(words, WIDTH - 10)
        print(f"  {count:6}  " + f"\n{'':10}".join(folded[:2]) + (" ..." if len(folded) > 2 else ""))
    for words, count in load.idle(ran).most_common(8):
        print(f"  {count:6}  unknown, and did not run: {words[:300]}")
    for problem in problems[:20]:
        print(f"WRONG {problem}")
    return problems


async def main(arguments: argparse.Namespace) -> int:
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = None
        if arguments.redis:
            redis = RedisServer(folder / "redis").start()
            stack.callback(redis.kill)
            store = redis.url
        async with fleet(folder, store=store, debug=arguments.folder is not None) as made:
            load = await soak(made, seconds=arguments.seconds, clients=arguments.clients)
            return 1 if report(made, load) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="keep the logs and the journal in this empty folder")
    parser.add_argument("--redis", action="store_true", help="share Redis, and not a file")
    sys.exit(anyio.run(main, parser.parse_args()))
