"""The server of `server.py`, whose process can be killed, and what it did, in files that survive it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

SERVER = Path(__file__).with_name("server.py")


@dataclass
class Shop:
    """The server, and its folder."""

    folder: Path

    @property
    def servers(self) -> dict[str, Any]:
        """As a `Manager` wants them."""
        return {"shop": {"command": sys.executable, "args": [str(SERVER), str(self.folder)]}}

    @property
    def ledger(self) -> list[str]:
        """The orders that were charged, one for each time it happened."""
        path = self.folder / "ledger"
        return path.read_text().split() if path.exists() else []

    @property
    def alive(self) -> bool:
        """Whether the last process of the server is there."""
        try:
            os.kill(int((self.folder / "pid").read_text()), 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """Kill the current process."""
        os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)

    def die_after_the_next_charge(self) -> None:
        """The next charge is made, and the process killed before it answers."""
        (self.folder / "die-after").touch()

    async def began(self, name: str) -> None:
        """Return when the file `name` is there: the server made it."""
        await until((self.folder / name).exists)


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` holds; it may take as long as a process needs to do what it was asked for."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - what another process has done has no event here
            await anyio.sleep(0.005)
