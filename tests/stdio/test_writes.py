"""What is known of a request that a child does not read."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp_types import JSONRPCRequest

from mcpconn import CallFailed, CallTimeout, Connection, Delivery, OutcomeUnknown
from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.wire import outbox
from mcpconn.wire.messages import Outgoing, encode
from mcpconn.wire.outbox import Outbox
from mcpconn.wire.pipes import GONE, Lines, PipeReader, PipeWriter
from tests.stdio.programs import Told, python
from tests.support import SAFETY

pytestmark = pytest.mark.anyio


def stalling(told: Told) -> dict[str, Any]:
    """A server that tells the length of each line that it reads, and reads no more while it runs a tool."""
    return python(
        f"""
import json, signal
told = open({str(told.path)!r}, "w")
for line in sys.stdin:
    message = json.loads(line)
    print(message.get("method"), len(line), file=told, flush=True)
    if message.get("method") == "tools/call" and message["params"]["arguments"].get("stall"):
        signal.pause()
    answer = {{"jsonrpc": "2.0", "id": message.get("id")}}
    if message.get("method") == "initialize":
        info = {{"name": "stalling", "version": "1"}}
        version = message["params"]["protocolVersion"]
        answer["result"] = {{"protocolVersion": version, "capabilities": {{}}, "serverInfo": info}}
    else:
        answer["error"] = {{"code": -32601, "message": "no"}}
    if "id" in message:
        print(json.dumps(answer), flush=True)
raise SystemExit
"""
    )


async def test_behind_a_stuck_write_none_was_sent(told: Told) -> None:
    outcomes: dict[str, tuple[str, Delivery]] = {}
    with anyio.fail_after(SAFETY):
        async with Connection({**stalling(told), "probe_timeout": 30, "drain_timeout": 0.1}) as connection:

            async def call(name: str, size: int, timeout: float, **arguments: Any) -> None:
                with pytest.raises(CallTimeout) as caught:
                    await connection.call_tool("tool", {"x": "x" * size, **arguments}, timeout=timeout)
                outcomes[name] = (caught.value.outcome, caught.value.failure.delivery)

            async with anyio.create_task_group() as group:
                group.start_soon(lambda: call("read", 1, 3, stall=True))
                while not any(line.startswith("tools/call") for line in told.lines):
                    await anyio.lowlevel.checkpoint()
                # More than a pipe holds: its beginning is on its way.
                group.start_soon(call, "begun", 200_000, 2)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(call, "small", 1, 0.2)
                group.start_soon(call, "large", 2_000_000, 0.2)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(call, "last", 1, 2)
        assert outcomes == {
            "read": ("unknown", Delivery.UNKNOWN),
            "begun": ("unknown", Delivery.UNKNOWN),
            "small": ("not_run", Delivery.NOT_SENT),
            "large": ("not_run", Delivery.NOT_SENT),
            "last": ("not_run", Delivery.NOT_SENT),
        }
        assert sum(line.startswith("tools/call") for line in told.lines) == 1


async def test_calls_behind_a_stuck_write_are_made_on_the_next_session(told: Told) -> None:
    # The probe finds nobody who reads; what was never handed over goes to the next child.
    with anyio.fail_after(SAFETY):
        async with Connection({**stalling(told), "probe_timeout": 0.3, "drain_timeout": 0.1}) as connection:
            errors: list[BaseException] = []

            async def call(size: int, timeout: float, **arguments: Any) -> None:
                try:
                    await connection.call_tool("tool", {"x": "x" * size, **arguments}, timeout=timeout)
                except Exception as error:
                    errors.append(error)

            async with anyio.create_task_group() as group:
                group.start_soon(lambda: call(1, 0.5, stall=True))
                while not any(line.startswith("tools/call") for line in told.lines):
                    await anyio.lowlevel.checkpoint()
                group.start_soon(call, 200_000, 3)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(call, 7, 10)
            begun, small = errors[-2:] if isinstance(errors[-2], OutcomeUnknown) else errors[:0:-1]
            assert isinstance(begun, CallFailed)
            # The small one was answered by the new child, which knows no tool.
            assert not isinstance(small, CallFailed)
            assert connection.epoch == 2


# -- the outbox alone


class Rig:
    """An outbox whose pipe nobody reads, unless told to."""

    def __init__(self) -> None:
        read, write = os.pipe()
        self.reader = PipeReader(read)
        self.writer = PipeWriter(write)
        self.outbox = Outbox(self.writer)

    async def send(self, size: int, exchange: Attempt) -> None:
        message = JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/call", params={"x": "x" * size})
        ATTEMPT.set(exchange)
        await self.outbox.send(Outgoing(message, None, encode(message)))

    async def lines(self) -> list[int]:
        """The lengths of all lines, once the outbox has ended."""
        return [len(line) async for line in Lines(self.reader, 10_000_000) if isinstance(line, bytes)]


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    one = Rig()
    async with anyio.create_task_group() as group:
        group.start_soon(one.outbox.run)
        yield one
        one.outbox.close()
        await one.writer.aclose()
        await one.reader.aclose()


def record() -> Attempt:
    exchange = Attempt("call", "legacy", written=False)
    exchange.start()
    return exchange


@pytest.mark.parametrize("first", [100, 65_536 - 55, 200_000], ids=["small", "fills the pipe", "too large"])
async def test_a_message_is_taken_back_with_its_sender_unless_it_was_begun(first: int) -> None:
    async with rig() as one:
        begun, waiting, other = record(), record(), record()
        async with anyio.create_task_group() as group:
            group.start_soon(one.send, first, begun)
            await anyio.wait_all_tasks_blocked()
            # Fills what is left of the pipe, so that the next one waits for room.
            group.start_soon(one.send, 65_536, other)
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0.01):
                await one.send(5, waiting)
            assert (begun.written, waiting.written) == (True, False)
            received: list[int] = []

            async def read() -> None:
                received.extend(await one.lines())

            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            while one.outbox._current is not None or one.outbox._lines:
                await anyio.lowlevel.checkpoint()
            one.outbox.close()
            await one.writer.aclose()
        assert len(received) == 2
        assert min(received) > 100


async def test_a_sender_that_leaves_as_room_is_made_was_sent_or_was_not() -> None:
    # Whichever comes first: what the record says is what arrives.
    for _ in range(50):
        async with rig() as one:
            full, late = record(), record()
            received: list[int] = []
            async with anyio.create_task_group() as group:
                group.start_soon(one.send, 65_536 - 67, full)
                await anyio.wait_all_tasks_blocked()
                scope = anyio.CancelScope()

                async def leave(scope: anyio.CancelScope = scope, one: Rig = one, late: Attempt = late) -> None:
                    with scope:
                        await one.send(5, late)

                group.start_soon(leave)
                await anyio.wait_all_tasks_blocked()
                os.read(one.reader._fd, 65_536)
                await anyio.lowlevel.checkpoint()
                scope.cancel()
                await anyio.wait_all_tasks_blocked()
                said = late.written
                one.outbox.close()
                await one.writer.aclose()
                received.extend(await one.lines())
            assert bool(received) is said


async def test_senders_hear_that_the_reader_left() -> None:
    async with rig() as one:
        exchange = record()
        await one.reader.aclose()

        async def end() -> None:
            await anyio.wait_all_tasks_blocked()
            one.outbox.close()

        async with anyio.create_task_group() as group:
            group.start_soon(end)
            with pytest.raises(anyio.BrokenResourceError):
                await one.send(5, exchange)
        assert exchange.written is False
        with pytest.raises(anyio.ClosedResourceError):
            await one.send(5, exchange)


async def test_closing_waits_for_nothing_if_nothing_is_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FLUSH", 2 * SAFETY)
    with anyio.fail_after(SAFETY):
        async with rig() as one:
            await one.outbox.flush()


async def test_closing_waits_a_while_for_writes() -> None:
    with anyio.fail_after(SAFETY):
        async with rig() as one, anyio.create_task_group() as group:

            async def stuck() -> None:
                with pytest.raises(GONE):
                    await one.send(200_000, record())

            group.start_soon(stuck)
            await anyio.wait_all_tasks_blocked()
            began = anyio.current_time()
            await one.outbox.flush()
            assert anyio.current_time() - began > 0.4
