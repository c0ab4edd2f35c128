"""A child's stderr: its last lines, without stack frames. `stderr_reasons` finds the reason for its exit in them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

logger = logging.getLogger("mcpconn.stderr")
"""Logs each line of a child immediately, at debug level."""

LINES = 60
"""Lines that are kept. A report of npm or a traceback without its frames has 20 at most."""
WIDTH = 500
"""Characters of a line that are kept."""


class Stderr:
    """The last lines of one child."""

    def __init__(self, redact: Callable[[str], str] = str, name: str = "") -> None:
        """
        Args:
            redact: Hides secrets in a line. It is applied before the line is truncated.
            name: Name of the connection, for the log.
        """
        self._redact = redact
        self._name = name
        # Made with the first line: a server with a URL writes none.
        self._lines: deque[str] | None = None

    def add(self, line: bytes) -> None:
        """A line was written."""
        from mcpconn.wire.stderr_reasons import ANSI, FRAME

        text = self._redact(ANSI.sub("", line.decode("utf-8", "replace"))).rstrip()
        # What a terminal would have written over: `10%\r20%\rdone`.
        text = text.rpartition("\r")[2][:WIDTH]
        if not text.strip():
            return
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("server.stderr connection=%s line=%r", self._name, text)
        if not FRAME.fullmatch(text):
            if self._lines is None:
                self._lines = deque(maxlen=LINES)
            self._lines.append(text)

    @property
    def lines(self) -> tuple[str, ...]:
        """The retained lines, without stack frames."""
        return tuple(self._lines or ())

    @property
    def last(self) -> str:
        """The last line, which shows the progress of a starting child."""
        return self._lines[-1].strip() if self._lines else ""

    @property
    def reason(self) -> str:
        """The reason for its exit, if its lines contain one."""
        if not self._lines:
            return ""
        from mcpconn.wire.stderr_reasons import reason_of

        return reason_of(self.lines)
