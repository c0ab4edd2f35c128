"""`make demo-fleet`: haproxy, three replicas, Redis, twenty clients, a minute of kills; a timeline and the count."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import anyio

from tests.fleet.processes import Fleet, fleet
from tests.fleet.soak import report, soak
from tests.redis_server import RedisServer


class Told(Fleet):
    """A fleet that says what happens as it happens."""

    def note(self, what: str) -> None:
        super().note(what)
        print(f"{self.timeline[-1][0]:6.1f} s  {what}", flush=True)


async def main(arguments: argparse.Namespace) -> int:
    missing = [name for name in ("haproxy", "redis-server", "redis-cli") if shutil.which(name) is None]
    if missing:
        print(f"The demo needs {', '.join(missing)}: apt install haproxy redis-server redis-tools")
        return 2
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = RedisServer(folder / "redis").start()
        stack.callback(redis.kill)
        print("Three replicas that share a Redis, and a balancer that sends each request to")
        print("the next of them; behind them a server over HTTP that keeps state for each")
        print("session, and one that is started for each session:")
        async with fleet(folder, kind=Told, store=redis.url) as made:
            print(f"{arguments.clients} bare clients call without end. The replicas are killed in turn:")
            load = await soak(made, seconds=arguments.seconds, clients=arguments.clients)
            print()
            problems = report(made, load)
    if not problems:
        print("Each call was answered, or its client was told its outcome, or its connection")
        print("broke; none ran twice.")
    return 1 if problems else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=20)
    sys.exit(anyio.run(main, parser.parse_args()))
