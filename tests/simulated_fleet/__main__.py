"""Live through many simulated minutes of a fleet: `python -m tests.simulated_fleet --seeds 1000`; see `make soak`."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from multiprocessing import Pool

from tests.simulated_fleet.world import Minute, PromiseBroken, live_through


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulated_fleet", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many minutes (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="this minute alone, with the log")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    options = parser.parse_args()
    if options.seed is not None:
        print(live_through(options.seed, loud=True))
        return 0
    return soak(range(options.first, options.first + options.seeds), options.jobs)


def soak(seeds: range, jobs: int) -> int:
    """Live through all of them; the exit status says whether every promise was kept."""
    began, done, calls, failures = time.monotonic(), 0, 0, 0
    told: Counter[str] = Counter()
    troubles: Counter[str] = Counter()
    with Pool(min(jobs, len(seeds)), maxtasksperchild=50) as pool:
        for result in pool.imap_unordered(_live, seeds):
            done += 1
            if isinstance(result, str):
                failures += 1
                print(f"FAILED {result}", flush=True)
            else:
                calls += result.calls
                told += result.told
                troubles += result.troubles
            if done % 20 == 0 or done == len(seeds):
                seconds = time.monotonic() - began
                print(
                    f"{done} of {len(seeds)} minutes, {calls} calls, {failures} failures, {seconds:.0f} s", flush=True
                )
    print("outcomes: " + ", ".join(f"{count} {name}" for name, count in sorted(told.items())))
    print("troubles: " + ", ".join(f"{count} {name}" for name, count in sorted(troubles.items())))
    return 1 if failures else 0


def _live(seed: int) -> Minute | str:
    # The SDK leaves response bodies unfinished; see tests/support.py.
    warnings.simplefilter("ignore", ResourceWarning)
    try:
        return live_through(seed)
    except PromiseBroken as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main())
