"""Through which files one `call_tool` passes, on an open connection over HTTP: `python -m tests.call_path`.

A step is a coroutine function of mcpconn that runs for the call, in the call's task or in one of the SDK's session:
it hands the call on, and is what a reader has to find. Ordinary functions are called and return, and are listed apart.
The scripted server does not count.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import anyio

import mcpconn
from mcpconn import Manager
from mcpconn.testing import HttpServer, Script

PACKAGE = Path(mcpconn.__file__).parent


class Step(NamedTuple):
    """A function that was entered."""

    file: str
    function: str
    is_coroutine: bool


class Passage:
    """The functions of mcpconn that run while it is watched, in order."""

    def __init__(self) -> None:
        self.entered: list[Step] = []
        self._frames: dict[int, FrameType] = {}

    def __enter__(self) -> Passage:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        code, path = frame.f_code, Path(frame.f_code.co_filename)
        # A coroutine is entered again whenever it goes on: that is no further step. A frame that is kept keeps its id.
        if event != "call" or PACKAGE not in path.parents or "testing" in path.parts or id(frame) in self._frames:
            return
        self._frames[id(frame)] = frame
        name = getattr(code, "co_qualname", code.co_name)
        self.entered.append(Step(str(path.relative_to(PACKAGE)), name, bool(code.co_flags & inspect.CO_COROUTINE)))

    @property
    def steps(self) -> list[Step]:
        """The coroutine functions, each where it is met first."""
        return list(dict.fromkeys(step for step in self.entered if step.is_coroutine))

    @property
    def files(self) -> list[str]:
        """Their files."""
        return list(dict.fromkeys(step.file for step in self.steps))

    @property
    def changes(self) -> int:
        """How often a step is in another file than the one before."""
        return sum(one.file != other.file for one, other in zip(self.steps, self.steps[1:], strict=False))


async def passage() -> Passage:
    """The passage of one call on a connection that has made some."""
    async with HttpServer(Script()) as server, Manager({"srv": {"url": server.url}}) as manager:
        for _ in range(3):
            await manager.call_tool("srv", "add", {"a": 1, "b": 2})
        with Passage() as passed:
            await manager.call_tool("srv", "add", {"a": 1, "b": 2})
        return passed


def main() -> None:
    """Print the passage."""
    passed = anyio.run(passage)
    print(f"{len(passed.files)} files, {len(passed.steps)} coroutine functions, {passed.changes} changes of file")
    for step in passed.steps:
        print(f"  {step.file:28} {step.function}")
    others = dict.fromkeys(step.file for step in passed.entered if step.file not in passed.files)
    print(f"and functions of {len(others)} files that return at once:\n  {' '.join(others)}")


if __name__ == "__main__":
    main()
