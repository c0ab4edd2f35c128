"""Describes one failed call: the texts of `handlers.wording`, with information from its connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mcp import MCPError

from mcpconn.core.failures import FailureKind
from mcpconn.core.outcome import Outcome
from mcpconn.errors import CallFailed, ConfigError, NotRunning
from mcpconn.handlers.wording import Problem, no_such_tool, problem, reported
from mcpconn.validate import check_timeout

LOOK_UP = 5.0
"""Seconds, within the call's timeout, to find out whether a failed tool exists: the time limit of a probe."""


def check_call_timeout(timeout: float) -> None:
    """
    Raises:
        ConfigError: it is not a number greater than zero.
    """
    check_timeout(timeout)
    if not timeout:
        raise ConfigError("timeout must be a number of seconds greater than zero", key="timeout")


class FailedCall:
    """One call, and the description of its failure. Its methods do not raise."""

    def __init__(
        self, connection: Any, server: str, *, tool: str = "", runs: bool, now: Callable[[], float], timeout: float
    ) -> None:
        """
        Args:
            connection: The connection; None if there is none with this name. A reference is kept because the server may
                be removed during the call.
            server: Name of the server.
            tool: Name of the tool, if one is run.
            runs: Whether the call runs a tool. All other calls only read.
            now: The clock for `timeout`.
            timeout: Seconds for the whole call.
        """
        self._connection = connection
        self._server = server
        self._tool = tool
        self._runs = runs
        self._now = now
        self._ends_at = now() + timeout

    async def found(self, outcome: Any) -> bool | None:
        """Whether the server has the tool; None if that is unknown, or does not matter."""
        if (look_up := self._to_look_up(outcome)) is None:
            return None
        catalog, seconds = look_up
        with suppress(Exception):  # The failure itself is still reported.
            return await catalog.look_up(self._tool, timeout=seconds)  # type: ignore[no-any-return]
        return None

    def found_by_thread(self, outcome: Any) -> bool | None:
        """As `found`, for a `SyncManager`."""
        if (look_up := self._to_look_up(outcome)) is None:
            return None
        catalog, seconds = look_up
        with suppress(Exception):
            return catalog.look_up(self._tool, timeout=seconds)  # type: ignore[no-any-return]
        return None

    def _to_look_up(self, outcome: Any) -> tuple[Any, float] | None:
        """The catalogue that can tell whether the server has the tool, and the seconds available for that.

        None if it does not matter. Servers answer a call of an unknown tool in the same ways as a failed call.
        """
        application = isinstance(outcome, MCPError) and not isinstance(outcome, CallFailed)
        if not self._runs or self._connection is None or not (application or reports_error(outcome)):
            return None
        seconds = min(LOOK_UP, self._ends_at - self._now())
        return (self._connection.catalog, seconds) if seconds > 0 else None

    def missing(self, found: bool | None) -> str | None:
        """The text that says that the server has no such tool, if that is known.

        Args:
            found: Whether the server has the tool; None if that is unknown.
        """
        if found is not False or self._connection is None:
            return None
        return self.redact(no_such_tool(self._tool, self._connection.catalog.tools))

    def of_error(self, error: Exception, missing: str | None) -> Problem:
        """The description of an exception."""
        state = self._state()
        try:
            return problem(
                error, server=self._server, state=state, runs=self._runs, redact=self.redact, missing=missing
            )
        except Exception:
            # The text of the error cannot be created, or its data is endless.
            what = f"The call to MCP server {self._server!r} failed, and the error cannot be shown."
            return Problem(f"{what} {type(error).__name__}.", FailureKind.APPLICATION, Outcome.UNKNOWN, state)

    def of_result(self, text: str, missing: str | None) -> Problem:
        """The description of a result that reports an error.

        Args:
            text: The result's own.
            missing: As `missing` returned it.
        """
        return reported(text, server=self._server, state=self._state(), redact=self.redact, missing=missing)

    def redact(self, text: str) -> str:
        """Replace the connection's secrets, with its own redactor, which also knows secrets learned at run time."""
        return str(self._connection.redact(text)) if self._connection is not None else text

    def _state(self) -> str | None:
        try:
            return self._connection.state.value if self._connection is not None else None
        except NotRunning:
            return None


def reports_error(outcome: Any) -> bool:
    """Whether `outcome` is a tool's result that reports an error."""
    return bool(getattr(outcome, "is_error", False))
