"""Programs that use a `SyncManager` and end in every way but the tidy one: `python tests/sync_programs.py`.

Each is a fork of this one, made before there are threads, and leaves through the interpreter's own exit. A line of JSON
tells of each: what it said, how it ended, and which of its servers still run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import psutil
from mcp.server import MCPServer

from mcpconn import NotRunning, State, SyncManager
from mcpconn.testing import STDIO_SERVER

LIMIT = 30
"""Seconds after which a program that does not end is killed, and has failed."""
CHILD = {"command": sys.executable, "args": [str(STDIO_SERVER)]}
SUM = {"a": 1, "b": 2}
KEPT: list[SyncManager] = []
"""So that no program ends because nobody refers to its manager."""

Say = Callable[..., object]


def started(backend: str, **more: Any) -> tuple[SyncManager, list[int]]:
    """A running manager with a server that is a child process, and the child's id."""
    manager = SyncManager({"srv": CHILD, **more}, backend=backend).start()
    KEPT.append(manager)
    assert sum_of(manager) == "3"
    return manager, [child.pid for child in psutil.Process().children()]


def sum_of(manager: SyncManager) -> str:
    return str(manager.call_tool("srv", "add", SUM).content[0].text)  # type: ignore[union-attr]


def forgotten(backend: str, say: Say) -> None:
    _, children = started(backend)
    say(children=children)


def crashed(backend: str, say: Say) -> None:
    _, children = started(backend)
    say(children=children)
    raise ZeroDivisionError


def waiting() -> tuple[Any, threading.Event]:
    """A server whose tool never answers, and what it sets once it runs."""
    server: Any = MCPServer("waiting")
    running = threading.Event()

    @server.tool()
    async def forever() -> str:
        running.set()
        await anyio.sleep_forever()
        return "never"

    return {"server": server}, running


def in_a_call(backend: str, say: Say) -> None:
    entry, running = waiting()
    manager, children = started(backend, waiting=entry)
    call = threading.Thread(target=manager.call_tool, args=("waiting", "forever"), kwargs={"timeout": None})
    call.daemon = True
    call.start()
    assert running.wait(LIMIT)
    say(children=children)


def called_after_the_main_thread(backend: str, say: Say) -> None:
    manager, children = started(backend)

    def late() -> None:
        threading.main_thread().join()
        say(children=children, late=sum_of(manager))

    threading.Thread(target=late).start()


def interrupted(backend: str, say: Say) -> None:
    entry, running = waiting()
    manager, children = started(backend, waiting=entry)
    say(children=children)

    def interrupt() -> None:
        assert running.wait(LIMIT)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    manager.call_tool("waiting", "forever", timeout=None)


def forked(backend: str, say: Say) -> None:
    manager, children = started(backend)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        refused = []
        for use in (
            lambda: manager.call_tool("srv", "add", SUM),
            lambda: manager["srv"].list_tools(),
            lambda: manager["srv"].state,
            manager.status,
            manager.start,
        ):
            try:
                use()
            except NotRunning as error:
                refused.append(str(error))
        # Must neither wait for a thread that is not here nor end what is the parent's.
        manager.close()
        with SyncManager({"srv": CHILD}, backend=backend) as own:
            answer = sum_of(own)
        os.write(writer, json.dumps({"refused": refused, "own": answer}).encode())
        return
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = json.loads(pipe.read())
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    untouched = manager["srv"].state is State.READY and manager["srv"].epoch == 1
    say(children=children, told=told, ended=ended, untouched=untouched, still=sum_of(manager))


PROGRAMS: dict[Callable[[str, Say], None], tuple[str, ...]] = {
    forgotten: ("asyncio", "trio"),
    crashed: ("asyncio",),
    in_a_call: ("asyncio", "trio"),
    called_after_the_main_thread: ("trio",),
    interrupted: ("asyncio", "trio"),
    forked: ("asyncio", "trio"),
}


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    for program, backends in PROGRAMS.items():
        for backend in backends:
            reader, writer = os.pipe()
            if (pid := os.fork()) == 0:
                os.close(reader)
                # Its tracebacks are meant to be.
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                signal.alarm(LIMIT)
                program(backend, lambda writer=writer, **words: os.write(writer, json.dumps(words).encode()))
                return
            os.close(writer)
            ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with os.fdopen(reader) as pipe:
                said = json.loads(pipe.read() or "{}")
            left = [child for child in said.get("children", ()) if alive(child)]
            report = {"program": program.__name__, "backend": backend, "said": said, "ended": ended, "left": left}
            sys.stdout.write(json.dumps(report) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
