"""The pieces of the stdio transport: lines, last words, exit statuses."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest

from mcpconn.wire import child as child_module
from mcpconn.wire.child import TERM_AFTER, Child, ChildExited, start_child
from mcpconn.wire.incoming import parse
from mcpconn.wire.messages import Limits, MessageTooLarge, Unreadable
from mcpconn.wire.pipes import Lines
from mcpconn.wire.stderr import LINES, WIDTH

pytestmark = pytest.mark.anyio


class TinyChunks:
    """A byte stream that arrives in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def receive(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self._pieces:
            raise anyio.EndOfStream
        return self._pieces.pop(0)


async def lines(*pieces: bytes, limit: int = 100) -> list[bytes | str]:
    stream: Any = TinyChunks(*pieces)
    return [line if isinstance(line, bytes) else str(line) async for line in Lines(stream, limit)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
async def test_lines_are_joined_in_any_split(size: int) -> None:
    data = b'{"a": 1}\n\n  \n{"b": 2}\r\nlast\nno end'
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert await lines(*pieces) == [b'{"a": 1}', b'{"b": 2}\r', b"last"]


LONG = b"x" * 950


@pytest.mark.parametrize("size", [1, 7, 64, 1000, 5000])
@pytest.mark.parametrize(
    ("line", "answers", "asks"),
    [
        (LONG, None, False),
        (b'{"jsonrpc":"2.0","id":7,"result":{"a":"' + LONG + b'"}}', 7, False),
        (b'{"result":{"a":"' + LONG + b'"},"jsonrpc":"2.0","id":"7"}', "7", False),
        (b'{"result":{"a":"' + LONG + b'"},"id":7,"jsonrpc":"2.0"}\r', 7, False),
        (b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"' + LONG + b'"}}', None, True),
    ],
    ids=["no message", "id first", "id last", "version last", "a notification"],
)
async def test_a_line_over_the_limit_is_skipped_and_reported(
    size: int, line: bytes, answers: object, asks: bool
) -> None:
    data = b"before\n" + line + b"\nafter\n" + line + b"\nlast\n"
    stream: Any = TinyChunks(*(data[start : start + size] for start in range(0, len(data), size)))
    found = [each async for each in Lines(stream, 700)]
    assert [each for each in found if isinstance(each, bytes)] == [b"before", b"after", b"last"]
    errors = [each for each in found if isinstance(each, MessageTooLarge)]
    assert [str(each) for each in errors] == ["a line of output is longer than 700 bytes"] * 2
    assert {(each.answers, each.asks) for each in errors} == {(answers, asks)}


async def test_no_more_is_kept_of_an_endless_line_than_the_limit_and_one_piece() -> None:
    tracemalloc.start()
    try:
        found = await lines(*[b"x" * 1000] * 10_000, limit=5000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == []
    # The pieces themselves are a list of one object.
    assert peak < 500_000


async def test_whose_an_endless_answer_is_can_be_told_from_its_beginning() -> None:
    found = await lines(b'{"jsonrpc":"2.0","id":7,"result":{"a":"', *[b"x" * 1000] * 100, limit=5000)
    assert found == ["a line of output is longer than 5000 bytes"]


async def test_a_line_is_a_message_or_an_error() -> None:
    limits = Limits(1_000_000, 10_000)
    (message,) = await parse(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', limits)
    assert isinstance(message, SessionMessage)
    assert isinstance(message.message, JSONRPCRequest)
    for line in (b"Listening on stdio", b'{"jsonrpc": "2.0"', b"[]", b"\xff\xfe", b"1" * 100_000):
        (error,) = await parse(line, limits)
        assert isinstance(error, Unreadable)


async def test_a_batch_is_read_message_by_message() -> None:
    answer = b'{"jsonrpc": "2.0", "id": 1, "result": {}}'
    limits = Limits(1000, 1000)
    both: list[Any] = await parse(b" [%s, %s]" % (answer, answer.replace(b"1", b"2")), limits)
    assert [each.message.id for each in both] == [1, 2]
    broken = await parse(b'[%s, {"id": 7, "result": null}, 5]' % answer, limits)
    assert [getattr(each, "answers", None) for each in broken] == [None, 7, None]
    for line in (b"[]", b"[1, 2", b"[[[%s]]]" % answer, b"[" + b"1," * 600 + b"1]", b"[" + b" " * 2000 + b"]"):
        assert all(isinstance(each, Unreadable) for each in await parse(line, limits)), line


@pytest.mark.parametrize(
    ("returncode", "stderr", "text"),
    [
        (0, [], "exited with 0"),
        (
            1,
            ["Traceback", "  File x", "KeyError: no", ""],
            "exited with 1: KeyError: no",
        ),
        (-9, ["something"], "killed by SIGKILL"),
        (-15, [], "killed by SIGTERM"),
        (-250, ["last"], "killed by signal 250: last"),
        (None, ["still here"], "closed its output: still here"),
    ],
)
def test_the_end_of_a_child_is_told_in_words(returncode: int | None, stderr: list[str], text: str) -> None:
    error = ChildExited(returncode, stderr)
    assert str(error) == text
    assert error.stderr == tuple(stderr)


async def child(code: str) -> Child:
    return await start_child(sys.executable, ["-c", code], env=None, cwd=None)


async def test_only_the_last_stderr_lines_are_kept() -> None:
    one = await child(
        """
import sys
for n in range(1000):
    print('line', n, 'x' * n, file=sys.stderr)
sys.stderr.write('end')
"""
    )
    with anyio.fail_after(20):
        await one.drain_stderr()
    assert len(one.stderr.lines) == LINES
    assert one.stderr.lines[-1] == "end"
    assert one.stderr.lines[-2].startswith("line 999 xxx")
    assert all(len(line) <= WIDTH for line in one.stderr.lines)
    await one.stop()


async def test_stderr_without_lines_is_bounded() -> None:
    one = await child("import sys\nfor _ in range(200): sys.stderr.write('x' * 65536)")
    with anyio.fail_after(20):
        await one.drain_stderr()
    assert sum(map(len, one.stderr.lines)) <= WIDTH
    await one.stop()


async def test_stopping_a_child_that_has_ended_already_is_quick_and_certain() -> None:
    one = await child("pass")
    with anyio.fail_after(20):
        assert await one.exited(10)
        await one.stop()
        await one.stop()
    assert one.process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX's")
async def test_a_child_that_reads_on_gets_its_grace_and_then_a_signal() -> None:
    one = await child("import signal; signal.pause()")
    began = anyio.current_time()
    with anyio.fail_after(20):
        await one.stop()
    assert one.process.returncode == -15
    assert anyio.current_time() - began >= TERM_AFTER


@pytest.mark.skipif(sys.platform == "win32", reason="the script has a first line that only other systems read")
async def test_on_windows_npx_is_npx_cmd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another name than npx, which may be installed here.
    script = tmp_path / "mcpconn-npx.cmd"
    script.write_text('#!/bin/sh\necho started "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    started = await child_module._start_on_windows(["mcpconn-npx", "-y"], {"stdin": subprocess.PIPE})
    async with started.process:
        with anyio.fail_after(10):
            assert await started.stdout.receive(100) == b"started -y\n"
