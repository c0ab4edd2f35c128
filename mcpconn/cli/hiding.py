"""Keeps secrets out of everything that a command writes to standard error: messages, log lines, tracebacks.

Libraries below log what they send: httpx2 the URL of each request with its query, the SDK the ids of sessions. Under
`--debug` their lines are shown, without what is secret in them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

_redactors: list[Callable[[str], str]] = []
"""Of the servers of this command."""


def forget() -> None:
    """A new command begins."""
    _redactors.clear()


def know(redactor: Callable[[str], str]) -> None:
    """Hide what `redactor` hides, from now on."""
    _redactors.append(redactor)


def hide(text: str) -> str:
    """`text` without the secrets of any server that this command has to do with."""
    for redactor in _redactors:
        text = redactor(text)
    return text


class HidingFormatter(logging.Formatter):
    """Formats a record with its traceback, and hides the secrets in the whole."""

    def format(self, record: logging.LogRecord) -> str:
        """The text that is written."""
        return hide(super().format(record))
