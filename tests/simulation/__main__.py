"""Live through many simulated days: `python -m tests.simulation --seeds 1000`, which is `make soak`."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from multiprocessing import Pool

from tests.simulation.day import SERVERS, Day, DayFailed, live_through

BACKENDS = ("asyncio", "trio")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many days (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="this day alone")
    parser.add_argument("--backend", choices=BACKENDS, help="default: the two in turn; both, for one seed")
    parser.add_argument("--servers", type=int, default=SERVERS, help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    options = parser.parse_args()
    if options.seed is not None:
        backends = [options.backend] if options.backend else BACKENDS
        days = [(options.seed, backend, options.servers) for backend in backends]
    else:
        seeds = range(options.first, options.first + options.seeds)
        days = [(seed, options.backend or BACKENDS[seed % 2], options.servers) for seed in seeds]
    return soak(days, options.jobs)


def soak(days: list[tuple[int, str, int]], jobs: int) -> int:
    """Live through all of them; the exit status says whether every promise was kept."""
    began, done, calls = time.monotonic(), 0, 0
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    with Pool(min(jobs, len(days)), maxtasksperchild=50) as pool:
        for result in pool.imap_unordered(_live, days):
            done += 1
            if isinstance(result, str):
                failures.append(result)
                print(f"FAILED {result}", flush=True)
            else:
                calls += result.calls
                outcomes += result.outcomes
            if done % 20 == 0 or done == len(days):
                seconds = time.monotonic() - began
                print(
                    f"{done} of {len(days)} days, {calls} calls, {len(failures)} failures, {seconds:.0f} s", flush=True
                )
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{len(days)} days: {calls} calls ({told}), {len(failures)} days on which a promise was broken")
    return 1 if failures else 0


def _live(what: tuple[int, str, int]) -> Day | str:
    seed, backend, servers = what
    warnings.simplefilter("error")
    # The SDK leaves response bodies unfinished, and trio warns of that; see tests/support.py.
    warnings.filterwarnings("ignore", "Async generator 'http(x|core)2", ResourceWarning)
    try:
        return live_through(seed, backend, servers=servers)
    except DayFailed as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main())
