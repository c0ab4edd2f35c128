"""The sandbox finds a connection that stays `ready` on a session that its server has forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from mcpconn import Event, Failure, State
from mcpconn.core.decide import decide
from mcpconn.runtime import lifecycle
from mcpconn.testing import Script, clock
from mcpconn.testing.convergence import FAILING_LIMIT, Convergence, Standing
from mcpconn.testing.sandbox import Broken, Sandbox
from mcpconn.testing.scripted.expiries import UNLISTED


def live(expiry: str, *, seconds: float = 20, backend: str = "asyncio") -> dict[str, int]:
    """Have a session forgotten, and call once a second."""

    async def main() -> None:
        async with Sandbox({"server": Script(expiry=expiry, get_stream="405")}) as sandbox:
            await sandbox.settle()
            sandbox.call("server", "add", {"a": 1, "b": 1})
            await sandbox.advance(1)
            sandbox.forget("server")
            for _ in range(int(seconds)):
                sandbox.call("server", "charge", {"amount": 1})
                await sandbox.advance(1)
            outcomes.update(sandbox.history.outcomes())

    outcomes: dict[str, int] = {}
    clock.run(main, backend=backend)
    return outcomes


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("expiry", list(UNLISTED)[::5])
def test_forgotten_sessions_are_replaced(expiry: str, backend: str) -> None:
    assert live(expiry, backend=backend)["answered"] >= 10


def test_a_machine_without_probes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def confident(state: State, failure: Failure, **facts: Any) -> Event | None:
        event = decide(state, failure, **facts)
        return None if event is Event.SUSPECTED else event

    monkeypatch.setattr(lifecycle, "decide", confident)
    with pytest.raises(Broken, match="still ready on session 1, which the server has forgotten, after 1"):
        live("400 and nothing")


def test_only_the_forgotten_sessions_failures_count() -> None:
    here, later = Standing(1, 0), FAILING_LIMIT + 1
    convergence = Convergence()
    assert convergence.ended(here, here, began=0, now=0) is None
    convergence.forget(1)
    assert convergence.ended(here, here, began=0, now=0) is None
    # It has another session since, or was met by something else, or was begun in time.
    assert convergence.ended(here, Standing(2, 0), began=later, now=later) is None
    assert convergence.ended(here, Standing(1, 1), began=later, now=later) is None
    assert convergence.ended(here, None, began=later, now=later) is None
    assert convergence.ended(here, here, began=FAILING_LIMIT - 1, now=later) is None
    assert convergence.ended(here, here, began=later, now=later) is not None
