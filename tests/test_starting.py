"""Many connections that start together: what is asked of a server, and what waits for what."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from mcpconn import Manager, State
from mcpconn.testing import Script, ScriptTransport, clock, faults
from mcpconn.wire.era import ASK_PATIENCE
from mcpconn.wire.streamable import CROWD_COURTESY

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
MANY = 8


def asked(script: Script) -> Counter[str]:
    """The requests that a server has seen."""
    return Counter(each.rpc_method or each.http_method for each in script.requests)


def together(script: Script, many: int = MANY, url: str = "http://one.test/mcp") -> dict[str, dict[str, object]]:
    """Entries for connections to one server."""
    return {f"s{number}": {"url": url, "http_transport": ScriptTransport(script)} for number in range(many)}


@BACKENDS
def test_connections_that_start_together_ask_for_the_era_once(backend: str) -> None:
    async def main() -> None:
        script = Script()
        async with Manager(together(script)) as manager:
            await manager.wait_ready()
            assert {connection.state for connection in manager.values()} == {State.READY}
            assert asked(script)["server/discover"] == 1
            assert asked(script)["initialize"] == MANY

    clock.run(main, backend=backend)


@BACKENDS
def test_each_connection_to_a_modern_server_discovers(backend: str) -> None:
    async def main() -> None:
        script = Script(era="modern")
        async with Manager(together(script)) as manager:
            await manager.wait_ready()
            # It is the handshake of this era.
            assert asked(script) == {"server/discover": MANY}

    clock.run(main, backend=backend)


@BACKENDS
def test_a_dial_that_hangs_delays_the_others_briefly(backend: str) -> None:
    async def main() -> None:
        script = Script()
        script.inject(faults.hang(), method="server/discover")
        async with Manager(together(script)) as manager:
            await anyio.sleep(ASK_PATIENCE + 0.1)
            states = Counter(connection.state for connection in manager.values())
            assert states == {State.READY: MANY - 1, State.CONNECTING: 1}

    clock.run(main, backend=backend)


@BACKENDS
def test_a_dial_that_fails_is_not_taken_for_an_answer(backend: str) -> None:
    async def main() -> None:
        script = Script(era="modern")
        script.inject(faults.unavailable(retry_after=1), method="server/discover")
        async with Manager(together(script)) as manager:
            await manager.wait_ready()
            assert {connection.state for connection in manager.values()} == {State.READY}
            assert asked(script)["initialize"] == 0

    clock.run(main, backend=backend)


@BACKENDS
def test_event_streams_open_after_the_dials(backend: str) -> None:
    async def main() -> None:
        script, slow = Script(), Script()
        slow.inject(faults.slow(CROWD_COURTESY / 2), method="initialize")
        entries = {**together(script), "slow": {"url": "http://slow.test/mcp", "http_transport": ScriptTransport(slow)}}
        async with Manager(entries) as manager:
            await manager["s0"].wait_ready()
            await anyio.sleep(CROWD_COURTESY / 4)
            assert asked(script)["GET"] == 0
            await manager["slow"].wait_ready()
            await anyio.sleep(0.01)
            assert asked(script)["GET"] == MANY

    clock.run(main, backend=backend)


@BACKENDS
def test_a_dial_that_hangs_does_not_keep_event_streams_closed(backend: str) -> None:
    async def main() -> None:
        script, stuck = Script(), Script()
        stuck.inject(faults.hang(), method="initialize", times=None)
        entries = {
            **together(script),
            "stuck": {"url": "http://stuck.test/mcp", "http_transport": ScriptTransport(stuck)},
        }
        async with Manager(entries) as manager:
            for name in list(manager)[:MANY]:
                await manager[name].wait_ready()
            await anyio.sleep(CROWD_COURTESY + 0.01)
            assert asked(script)["GET"] == MANY

    clock.run(main, backend=backend)
