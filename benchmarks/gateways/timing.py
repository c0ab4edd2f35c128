"""What a call through each gateway costs, relative to the same call made directly, in one run, taking turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from benchmarks.gateways.catalog import Gateway
from benchmarks.gateways.promises import Caller, caller
from benchmarks.gateways.running import Running, started_upstream
from benchmarks.measure import Ratio, alternate, ratio

CALLERS = 20
WARM = 20
DIRECT = "direct"


async def measure(gateways: Sequence[Gateway], quick: bool, mode: Any = "legacy") -> dict[str, dict[str, Any]]:
    """Call time and rate of each gateway, as multiples of the direct call's.

    Args:
        gateways: Those to measure, all at once before one server.
        quick: Fewer rounds.
        mode: The connect mode of the bare clients.
    """
    with TemporaryDirectory() as folder:
        running: list[Running] = []
        problems: dict[str, dict[str, Any]] = {}
        async with AsyncExitStack() as stack:
            server = stack.enter_context(started_upstream(Path(folder)))
            callers = {DIRECT: await caller(stack, server.url, mode)}
            for gateway in gateways:
                place = Path(folder) / gateway.home.name
                place.mkdir()
                one = Running(gateway, place, server.url)
                stack.callback(one.kill)
                try:
                    await anyio.to_thread.run_sync(one.start)
                    made = await caller(stack, one.url, mode, sse=gateway.sse)
                    await _warm(made)
                except Exception as error:
                    problems[gateway.name] = {"problem": f"{type(error).__name__}: {error}"[:200]}
                    one.kill()
                    continue
                running.append(one)
                callers[gateway.name] = made
            await _warm(callers[DIRECT])
            found = await _take_turns(callers, quick)
        return {**found, **problems}


async def _warm(made: Caller) -> None:
    for _ in range(WARM):
        told = await made.call("add", a=1, b=2)
        if not told.startswith("="):
            raise RuntimeError(told)


async def _take_turns(callers: dict[str, Caller], quick: bool) -> dict[str, dict[str, Any]]:
    wrong: set[str] = set()

    def work(name: str) -> Any:
        async def call() -> None:
            if not (await callers[name].call("add", a=1, b=2)).startswith("="):
                wrong.add(name)

        return call

    calls, rounds, seconds = (80, 4, 1.0) if quick else (320, 8, 2.0)
    took = await alternate({name: work(name) for name in callers}, calls=calls, rounds=rounds)
    rates: dict[str, list[float]] = {name: [] for name in callers}
    for turn in range(rounds):
        names = list(callers)
        for name in names if turn % 2 else reversed(names):
            rates[name].append(await _rate(work(name), seconds))
    found: dict[str, dict[str, Any]] = {}
    for name in callers:
        if name == DIRECT or name in wrong:
            continue
        time_of, rate_of = ratio(took[name], took[DIRECT]), ratio(rates[name], rates[DIRECT])
        found[name] = {"call": _plain(time_of), f"rate of {CALLERS} callers": _plain(rate_of)}
    return {**found, **{name: {"problem": "calls failed while it was measured"} for name in wrong}}


def _plain(found: Ratio) -> dict[str, float]:
    low, high = found.spread
    return {"ratio": round(found.figure, 3), "least": round(low, 3), "most": round(high, 3)}


async def _rate(call: Any, seconds: float) -> float:
    """Calls a second, with many callers of one client. Calls that have begun are waited for."""
    done = 0
    began = time.perf_counter()

    async def one() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await call()
            done += 1

    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(one)
    return done / (time.perf_counter() - began)


def headline(found: dict[str, Any]) -> str:
    """A ratio with its spread."""
    return f"{found['ratio']:.2g} ({found['least']:.2g} to {found['most']:.2g})"


__all__ = ["CALLERS", "headline", "measure"]
