"""A server's progress and log messages during a call. They go to standard error."""

from __future__ import annotations

import json
from typing import Any

import mcp_types as types

from mcpconn.cli.output import one_line, say
from mcpconn.redact.redactor import Redactor

LONGEST = 400
"""Characters of a line of a server's log."""


class Meanwhile:
    """Writes a line for each message, unless disabled."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self.redact: Redactor | None = None

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """As the SDK's `progress_callback`."""
        share = f"{progress:g} of {total:g}" if total is not None else f"{progress:g}"
        self._say(f"progress: {share}{': ' + message if message else ''}")

    async def log(self, params: types.LoggingMessageNotificationParams) -> None:
        """As the SDK's `logging_callback`."""
        data: Any = params.data
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, default=str)
        source = f" {params.logger}" if params.logger else ""
        self._say(f"{params.level}{source}: {text}")

    def _say(self, text: str) -> None:
        if not self._quiet:
            # Secrets are removed before the line is truncated.
            text = one_line(self.redact(text) if self.redact is not None else text)
            say(text if len(text) <= LONGEST else text[:LONGEST] + "...")
