"""Keys of a terminal, one at a time, while something else is drawn."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

NAMES = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "k": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "j": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\r": "enter",
    "\n": "enter",
    " ": "enter",
    "\x1b": "escape",
}
"""What terminals send for a key (ECMA-48, xterm's control sequences), and the letters of less(1)."""


class Keyboard:
    """The keys that are pressed. There are none if standard input is no terminal."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    async def key(self) -> str:
        """The next key: a name of `NAMES`, or the character itself."""
        while self._descriptor is not None:
            await anyio.wait_readable(self._descriptor)
            # A key is one read: a terminal sends all bytes of an escape sequence together.
            text = os.read(self._descriptor, 32).decode("utf-8", "replace")
            if text:
                return NAMES.get(text, text[:1])
            self._descriptor = None
        await anyio.sleep_forever()
        raise AssertionError


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Read keys as they are pressed, unseen; afterwards the terminal is as it was."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield Keyboard(None)
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    # Ctrl-C stays a signal.
    tty.setcbreak(descriptor, termios.TCSANOW)
    try:
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
