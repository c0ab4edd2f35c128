"""What a stdio session reads, in the task that handles it: no cancellation loses a message, and the end is told."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from mcp.shared.message import SessionMessage

from mcpconn.wire import incoming
from mcpconn.wire.incoming import Incoming
from mcpconn.wire.messages import Limits, made

pytestmark = pytest.mark.anyio


class Pipe:
    """Output that a test writes."""

    def __init__(self) -> None:
        self.spoke = anyio.Event()
        self._send, self._receive = anyio.create_memory_object_stream[bytes](100)

    def write(self, *ids: int) -> None:
        self._send.send_nowait(b"".join(b'{"jsonrpc":"2.0","id":%d,"result":{}}\n' % each for each in ids))

    def end(self) -> None:
        self._send.close()

    async def receive(self, max_bytes: int = 0) -> bytes:
        return await self._receive.receive()

    async def aclose(self) -> None:
        self._receive.close()


def of(pipe: Pipe) -> Incoming:
    child: Any = pipe
    return Incoming(child, pipe, Limits(size=10_000, values=10_000))


def number(item: SessionMessage | Exception) -> Any:
    assert isinstance(item, SessionMessage)
    return getattr(item.message, "id", None)


async def test_messages_come_in_order_and_the_first_tells_that_the_child_has_spoken() -> None:
    pipe = Pipe()
    read = of(pipe)
    pipe.write(1, 2)
    pipe.write(3)
    assert not pipe.spoke.is_set()
    assert [number(await anext(read)) for _ in range(3)] == [1, 2, 3]
    assert pipe.spoke.is_set()


async def test_a_message_that_is_put_comes_while_a_read_waits_and_the_read_goes_on() -> None:
    pipe = Pipe()
    read = of(pipe)
    found: list[Any] = []

    async def reading() -> None:
        found.extend([number(await anext(read)), number(await anext(read))])

    async with anyio.create_task_group() as group:
        group.start_soon(reading)
        await anyio.wait_all_tasks_blocked()
        read.put(made(7, -32001, "late"))
        await anyio.wait_all_tasks_blocked()
        assert not found
        pipe.write(8)
    assert found == [7, 8]


async def test_a_line_whose_reader_is_cancelled_while_it_is_parsed_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsing = anyio.Event()

    async def slowly(line: bytes, limits: Limits) -> Any:
        parsing.set()
        await anyio.sleep_forever()

    pipe = Pipe()
    read = of(pipe)
    pipe.write(1)
    with monkeypatch.context() as patched:
        patched.setattr(incoming, "parse", slowly)
        async with anyio.create_task_group() as group:
            group.start_soon(anext, read)
            await parsing.wait()
            group.cancel_scope.cancel()
    assert number(await anext(read)) == 1


async def test_at_the_end_of_the_output_it_is_left_and_ends_once_it_is_closed() -> None:
    pipe = Pipe()
    read = of(pipe)
    pipe.write(1)
    pipe.end()
    found: list[Any] = []

    async def reading() -> None:
        async for item in read:
            found.append(number(item))  # noqa: PERF401 - looked at before the end
        found.append("end")

    async with anyio.create_task_group() as group:
        group.start_soon(reading)
        await read.left.wait()
        await anyio.wait_all_tasks_blocked()
        # The session is told only after its owner knows why.
        assert found == [1]
        read.close()
    assert found == [1, "end"]


@pytest.mark.parametrize("waiting", [True, False], ids=["while it is read", "while it is not read"])
async def test_a_close_ends_the_read_before_the_output_is_left_to_another_reader(waiting: bool) -> None:
    pipe = Pipe()
    read = of(pipe)
    async with anyio.create_task_group() as group:
        if waiting:

            async def reading() -> None:
                with pytest.raises(StopAsyncIteration):
                    await anext(read)

            group.start_soon(reading)
            await anyio.wait_all_tasks_blocked()
        read.close()
        # Two readers of one pipe at once are an error of the loop's.
        assert read.left.is_set() is not waiting
        await read.left.wait()
    with pytest.raises(StopAsyncIteration):
        await anext(read)


async def test_many_lines_at_once_let_other_tasks_run() -> None:
    pipe = Pipe()
    read = of(pipe)
    pipe.write(*range(50))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while turns < 1000:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        for _ in range(50):
            await anext(read)
        assert turns >= 49
        group.cancel_scope.cancel()
