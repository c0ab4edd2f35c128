"""How long a connection fails calls after its session was forgotten, and how often a healthy one is asked.

In virtual time, with one call a second and the default policy: the figures of docs/invariants.md are measured here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import MCPError

from mcpconn import Connection, ConnectionFailed, FailureKind, Policy, State
from mcpconn.testing import EXPIRIES, Fault, Script, ScriptTransport
from mcpconn.testing.clock import virtual_backend, virtual_clock
from mcpconn.testing.scripted import faults
from mcpconn.testing.scripted.expiries import UNLISTED
from tests.support import UNFINISHED_STREAMS, Seen, played, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

K = FailureKind
LIMIT = 10.0
"""Seconds for which calls may fail: docs/invariants.md."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


async def failing_for(connection: Connection, seconds: float = 60) -> float:
    """Call once a second. Seconds from now to the end of the last call that failed; 0 if none did."""
    started, failed = anyio.current_time(), 0.0
    for second in range(int(seconds)):
        await anyio.sleep(max(0.0, started + second - anyio.current_time()))
        try:
            await connection.call_tool("charge", {"amount": 1})
        except MCPError:
            failed = anyio.current_time() - started
    return failed


class Stateless(Script):
    """A server some of whose methods are answered without a look at the session, as a gateway in front of it may."""

    def __init__(self, *methods: str, dropped: str = "", expiry: str = "400 and nothing") -> None:
        super().__init__(expiry=expiry, get_stream="405")
        self._methods = methods
        if dropped:
            self.inject(faults.hang(), method=dropped, times=None)

    def _refusal(self, http_method: str, message: Any, headers: Any) -> Any:
        return None if message.get("method") in self._methods else super()._refusal(http_method, message, headers)


# -- a session that the server has forgotten


@pytest.mark.parametrize("before", ["nothing", "a probe", "an error"])
@pytest.mark.parametrize("expiry", EXPIRIES)
async def test_calls_fail_for_ten_seconds_at_most(expiry: str, before: str) -> None:
    script = Script(expiry=expiry, get_stream="405")
    async with played(script, clock=virtual_clock(1)) as (connection, _):
        if before != "nothing":
            # The moment that is worst: the last probe was answered a moment ago, so the next one has to wait.
            code = -32603 if before == "a probe" else -32602
            script.inject(faults.rpc_error(code, "no"))
            with pytest.raises(MCPError):
                await connection.call_tool("charge")
        script.forget_sessions()
        assert await failing_for(connection, 20) <= LIMIT
        assert (connection.state, connection.epoch, script.count("initialize")) == (State.READY, 2, 2)


@pytest.mark.parametrize(
    "expiry", ["400 and nothing", "200 internal error", "200 method not found", "502 as a web page"]
)
@pytest.mark.parametrize(
    ("stateless", "dropped"), [(("ping",), ""), ((), "ping")], ids=["ping is answered", "ping is dropped"]
)
async def test_a_refused_listing_is_enough(expiry: str, stateless: Any, dropped: str) -> None:
    script = Stateless(*stateless, dropped=dropped, expiry=expiry)
    async with played(script, clock=virtual_clock(2)) as (connection, _):
        script.forget_sessions()
        assert await failing_for(connection, 20) <= LIMIT
        assert (connection.state, connection.epoch) == (State.READY, 2)


async def test_a_server_that_answers_ping_and_listings_keeps_its_session() -> None:
    # The exception of docs/invariants.md: nothing that changes nothing tells the two apart.
    script = Stateless("ping", "tools/list", "resources/list", "resources/templates/list", "prompts/list")
    async with played(script, clock=virtual_clock(3)) as (connection, _):
        script.forget_sessions()
        assert await failing_for(connection, 60) > 50
        assert (connection.state, connection.epoch) == (State.READY, 1)
        assert script.count("ping") <= 60 / 3 + 1


async def test_a_server_that_forgets_again_and_again_is_met_each_time() -> None:
    script = Script(expiry="422", get_stream="405")
    async with played(script, clock=virtual_clock(4)) as (connection, _):
        for round_ in range(10):
            script.forget_sessions()
            assert await failing_for(connection, 15) <= LIMIT
            assert connection.epoch == round_ + 2


# -- a healthy server whose tool fails


ERRORS: dict[str, Callable[[], Fault]] = {
    "-32603": lambda: faults.rpc_error(-32603, "Internal error"),
    "-32602": lambda: faults.rpc_error(-32602, "no such customer"),
    "a code of its own": lambda: faults.rpc_error(4711, "sold out"),
    "session expired": lambda: faults.rpc_error(-32603, "the shop's session expired"),
    "400": lambda: faults.status(400),
    "403": faults.forbidden,
    "404 -32601": lambda: faults.rpc_error(-32601, "Method not found", http_status=404, ran=False),
    "500": lambda: faults.status(500, ran=True),
    "502": faults.bad_gateway,
    "202": faults.accepted_202,
}


@pytest.mark.parametrize(("every", "seconds"), [(0.1, 30), (1, 120), (7, 300)])
@pytest.mark.parametrize("error", ERRORS)
async def test_a_failing_tool_costs_a_probe_in_3_s(error: str, every: float, seconds: float) -> None:
    script = Script(get_stream="405")
    async with played(script, clock=virtual_clock(5)) as (connection, _):
        seen, listed = Seen(connection), script.count("tools/list")
        script.inject(ERRORS[error](), times=None)
        started = anyio.current_time()
        slowest = 0.0
        while (now := anyio.current_time()) < started + seconds:
            with pytest.raises(MCPError):
                await connection.call_tool("charge", {"amount": 1})
            slowest = max(slowest, anyio.current_time() - now)
            await anyio.sleep(every)
        assert (connection.state, connection.epoch, script.count("initialize")) == (State.READY, 1, 1)
        asked = script.count("ping")
        assert asked <= seconds / 3 + 1
        assert script.count("tools/list") - listed <= asked
        # The last may be on its way.
        assert asked <= len(seen.events) <= asked + 1
        assert set(seen.events) == {"suspected"}
        # Nobody waits for a probe that has to wait.
        assert slowest < 0.1


async def test_a_tool_that_fails_among_others_that_do_not_costs_nothing() -> None:
    script = Script(get_stream="405")
    async with played(script, clock=virtual_clock(6)) as (connection, _):
        script.inject(ERRORS["-32602"](), times=None, tool="charge")
        for _ in range(100):
            with pytest.raises(MCPError):
                await connection.call_tool("charge", {"amount": 1})
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            await anyio.sleep(0.5)
        assert script.count("ping") == 0


# -- sessions that are useless


async def test_a_server_that_accepts_sessions_and_refuses_every_call_ends_in_failed() -> None:
    script = Script(get_stream="405")
    async with played(script, clock=virtual_clock(7)) as (connection, _):
        seen = Seen(connection)
        for method in ("tools/call", "tools/list", "ping", "prompts/list", "resources/list"):
            script.inject(faults.status(400), method=method, times=None)
        started = anyio.current_time()
        while connection.state is not State.FAILED:
            assert anyio.current_time() < started + 90
            with pytest.raises(MCPError):
                await connection.call_tool("charge", {"amount": 1})
            await anyio.sleep(1)
        assert anyio.current_time() >= started + connection.policy.patience
        with pytest.raises(ConnectionFailed, match=r"accepted \d sessions in a row, and no call succeeded") as caught:
            await connection.call_tool("charge", {"amount": 1})
        assert caught.value.retry_in is not None
        assert seen.events.count("established") <= 10
        # It comes back by itself.
        script.clear()
        await anyio.sleep(60)
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"


# -- a wait that nobody should sit through


@asynccontextmanager
async def unready(script: Script, **config: Any) -> AsyncIterator[Connection]:
    """A connection that is entered without waiting for it."""
    connection = Connection(
        {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script), "lazy": True, **config},
        name="srv",
        clock=virtual_clock(8),
    )
    async with connection:
        yield connection


@pytest.mark.parametrize("fault", [faults.rate_limited, faults.unavailable], ids=["429", "503"])
@pytest.mark.parametrize("worked", [False, True])
async def test_retry_after_beyond_patience_on_a_dial_is_failed_with_that_retry_in(
    fault: Callable[[float], Fault], worked: bool
) -> None:
    script = Script(get_stream="405")
    async with unready(script) as connection:
        if worked:
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            script.forget_sessions()
        script.inject(fault(3600), method="initialize", times=None)
        script.inject(fault(3600), method="server/discover", times=None)
        started = anyio.current_time()
        with pytest.raises(ConnectionFailed) as caught:
            await connection.call_tool("add", {"a": 1, "b": 1})
        assert anyio.current_time() - started < 1
        assert caught.value.retry_in == pytest.approx(3600, abs=1)
        assert (connection.state, connection.status()["retry_in"]) == (State.FAILED, pytest.approx(3600, abs=1))
        dials = script.count("initialize") + script.count("server/discover")
        await anyio.sleep(3500)
        assert script.count("initialize") + script.count("server/discover") == dials
        script.clear()
        await anyio.sleep(200)
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"


async def test_entering_does_not_wait_an_hour() -> None:
    script = Script()
    script.inject(faults.unavailable(3600), method=None, times=None)
    started = anyio.current_time()
    with pytest.raises(ConnectionFailed) as caught:
        async with Connection({"url": "http://scripted/mcp", "http_transport": ScriptTransport(script)}, name="srv"):
            raise AssertionError("entered")
    assert anyio.current_time() - started < 1
    assert caught.value.retry_in == pytest.approx(3600, abs=1)


async def test_a_short_wait_is_waited_for() -> None:
    script = Script()
    script.inject(faults.unavailable(25), method=None, times=1)
    async with unready(script) as connection:
        started = anyio.current_time()
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1}, timeout=60)) == "2"
        assert 25 <= anyio.current_time() - started < 32


# -- a handshake that is refused


@pytest.mark.parametrize("status", [200, 400, 404])
@pytest.mark.parametrize("code", [-32600, -32601, -32602, -32022])
async def test_a_final_refusal_is_dialled_once(code: int, status: int) -> None:
    script = Script()
    refusal = faults.rpc_error(code, "no", http_status=status, ran=False)
    script.inject(refusal, method="initialize", times=None)
    started = anyio.current_time()
    with pytest.raises(ConnectionFailed, match="refused the handshake") as caught:
        async with Connection(
            {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script), "mode": "legacy"}, name="srv"
        ):
            raise AssertionError("entered")
    assert anyio.current_time() == started
    assert script.count("initialize") == 1
    assert (caught.value.failure.kind, caught.value.retry_in) == (K.PROTOCOL, None)


@pytest.mark.parametrize("code", [-32603, -32000, 1])
async def test_a_handshake_that_fails_is_dialled_until_patience_is_spent(code: int) -> None:
    script = Script()
    script.inject(faults.rpc_error(code, "starting up", ran=False), method="initialize", times=3)
    async with unready(script, mode="legacy") as connection:
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1}, timeout=60)) == "2"
        assert script.count("initialize") == 4


async def test_a_refused_handshake_after_success_is_a_deployment() -> None:
    script = Script(get_stream="405")
    async with unready(script, mode="legacy") as connection:
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        script.forget_sessions()
        script.inject(faults.rpc_error(-32601, "no", ran=False), method="initialize", times=3)
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1}, timeout=60)) == "2"
        assert script.count("initialize") == 5


assert set(UNLISTED) < set(EXPIRIES)
assert Policy().probe_timeout == 5.0
