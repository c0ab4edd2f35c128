"""Removes secrets from everything that a command writes to standard error: messages, log lines, tracebacks.

Libraries log what they send: httpx2 logs the URL of each request with its query, the SDK logs session ids. `--debug`
shows their lines without secrets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

_redactors: list[Callable[[str], str]] = []
"""The redactors of this command's servers."""


def forget() -> None:
    """A new command begins."""
    _redactors.clear()


def know(redactor: Callable[[str], str]) -> None:
    """Also apply `redactor` from now on."""
    _redactors.append(redactor)


def hide(text: str) -> str:
    """`text` without the secrets of any of this command's servers."""
    for redactor in _redactors:
        text = redactor(text)
    return text


class HidingFormatter(logging.Formatter):
    """Formats a record with its traceback, and removes all secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The text that is written."""
        return hide(super().format(record))
