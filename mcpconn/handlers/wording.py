"""The result of a handler for a failed call.

    error       what happened, whether to try again, and what to do instead: written for a language model
    kind        class of the failure, a `FailureKind`; what the server's application or the call's arguments
                are to blame for is `application`
    state       the connection's state, null if there is no connection
    outcome     `not_run`: certainly not, because nothing was sent or the server refused the request unread; `ran`: a
                result came, and it reports an error; `unknown`: all else, including every JSON-RPC error: a tool
                that charges and then raises answers with any code
    retry_in    seconds until trying again makes sense, null if unknown

No secret that the connection knows is in it: neither of its configuration nor learned at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import mcp_types as types
from mcp import MCPError

from mcpconn.core.classify import classify
from mcpconn.core.failures import Evidence, FailureKind
from mcpconn.core.outcome import Outcome
from mcpconn.errors import CallFailed, ConnectionClosed, ConnectionFailed, InvalidResult, NotRunning, UnknownServer
from mcpconn.redact.redactor import redacted

Redact = Callable[[str], str]

NO_SUCH_TOOL = "this server has no such tool"
"""Used if the server's own complete listing lacks the tool."""
SHOWN = 10
"""Number of tool names shown if none is similar to the called one."""


class BadArguments(Exception):
    """A handler was called with invalid arguments. The text says which, and why."""


class UnreadableResult(Exception):
    """The call was answered, but its answer cannot be serialized as JSON."""


@dataclass(frozen=True)
class Problem:
    """The description of a failed call."""

    text: str
    kind: FailureKind
    outcome: Outcome
    state: str | None = None
    retry_in: float | None = None
    data: Any = None
    """The data that the server's application added to its error."""

    def payload(self) -> dict[str, Any]:
        """As the result of a handler."""
        fields = {
            "error": self.text,
            "kind": self.kind.value,
            "state": self.state,
            "outcome": self.outcome.value,
            "retry_in": None if self.retry_in is None else round(self.retry_in, 1),
        }
        return fields if self.data is None else {**fields, "data": self.data}


def problem(
    error: Exception, *, server: str, state: str | None, runs: bool, redact: Redact, missing: str | None = None
) -> Problem:
    """The description of `error`.

    Args:
        error: The call's exception.
        server: Name of the server.
        state: The connection's current state.
        runs: Whether the call runs a tool; other calls change nothing.
        redact: Replaces the connection's secrets in texts of others.
        missing: The text that says that the server has no such tool, if that is the case: see `no_such_tool`.
    """
    if isinstance(error, CallFailed):
        # There was no answer because of the connection.
        said = f"MCP server {server!r}: {_sentence(redact(error.failure.summary))}"
        text = _joined(said, _fate(error.outcome, runs), _advice(error, runs))
        return Problem(text, error.failure.kind, error.outcome, error.state.value, error.retry_in)
    if isinstance(error, MCPError):
        return _answered(error, server, state, runs, redact, missing)
    said = _sentence(redact(str(error).strip() or type(error).__name__))
    if isinstance(error, UnknownServer):
        return Problem(_joined(said, "Do not try again under this name."), FailureKind.CONFIG, Outcome.NOT_RUN)
    if isinstance(error, NotRunning):
        text = _joined(f"MCP server {server!r} cannot be used: {said}", _fate(error.outcome, runs), _HOST)
        return Problem(text, FailureKind.UNAVAILABLE, error.outcome, state)
    if isinstance(error, BadArguments):
        text = _joined(said, f"Nothing was sent to MCP server {server!r}. Correct the arguments and try again.")
        return Problem(text, FailureKind.APPLICATION, Outcome.NOT_RUN, state)
    if isinstance(error, UnreadableResult):
        advice = "The tool ran: do not run it again for its answer." if runs else _SAME_AGAIN
        text = _joined(f"MCP server {server!r} answered, and the answer cannot be shown: {said}", advice)
        return Problem(text, FailureKind.APPLICATION, Outcome.RAN, state)
    if classify(Evidence(exception=error, phase="call")).kind is FailureKind.CANCELLED:
        text = f"The call to MCP server {server!r} was interrupted on this side: {said}"
        advice = "Do not try again unless you are asked to."
        return Problem(
            _joined(text, _fate(Outcome.UNKNOWN, runs), advice), FailureKind.CANCELLED, Outcome.UNKNOWN, state
        )
    text = _joined(f"The call to MCP server {server!r} failed: {said}", _fate(Outcome.UNKNOWN, runs), _SAME_AGAIN)
    return Problem(text, FailureKind.APPLICATION, Outcome.UNKNOWN, state)


def reported(
    text: str, *, server: str, state: str | None, redact: Redact, missing: str | None = None, data: Any = None
) -> Problem:
    """The description of a result that reports an error. It is the application's error, regardless of its text.

    Args:
        text: The result's own.
        server: Name of the server.
        state: The connection's current state.
        redact: Replaces the connection's secrets.
        missing: The text that says that the server has no such tool, if that is the case: then it is unknown what
            answered.
        data: Other data in the result.
    """
    text = redact(text) or "The tool failed, and does not say why."
    if missing is None:
        return Problem(text, FailureKind.APPLICATION, Outcome.RAN, state, data=data)
    said = f"MCP server {server!r}: {missing} It answered: {_sentence(text)}"
    return Problem(said, FailureKind.APPLICATION, Outcome.UNKNOWN, state, data=data)


def no_such_tool(tool: str, known: Iterable[str]) -> str:
    """The text that says that a server has no such tool, and lists the ones it has.

    Args:
        tool: The called name.
        known: The names of the server's tools.
    """
    names = sorted(known)
    close = get_close_matches(tool, names, n=1)
    if close:
        return f"{NO_SUCH_TOOL}, {tool!r}; did you mean {close[0]!r}?"
    some = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{NO_SUCH_TOOL}, {tool!r}; its tools are: {some or 'none'}."


def _answered(
    error: MCPError, server: str, state: str | None, runs: bool, redact: Redact, missing: str | None
) -> Problem:
    """The server's application answered with an error. The code does not say what it had done by then."""
    said = f"MCP server {server!r} answered with error {error.code}: {_sentence(redact(error.message))}"
    data = redacted(error.error.data, redact)
    if missing is not None:
        text = _joined(f"MCP server {server!r}: {missing}", f"It answered: {_sentence(redact(error.message))}")
        return Problem(text, FailureKind.APPLICATION, Outcome.UNKNOWN, state, data=data)
    advice = (_REFUSED_TOOL if runs else _REFUSED).get(error.code, _SAME_AGAIN)
    text = _joined(said, _fate(Outcome.UNKNOWN, runs), advice)
    return Problem(text, FailureKind.APPLICATION, Outcome.UNKNOWN, state, data=data)


def _advice(error: CallFailed, runs: bool) -> str:
    kind, when = error.failure.kind, error.retry_in
    soon = f" in {when:.0f} s" if when is not None and when >= 1 else ""
    if isinstance(error, ConnectionClosed):
        return "Do not try again: the host has ended this connection. Go on without this server."
    if kind is FailureKind.AUTH:
        if error.failure.evidence.http_status == 403:
            return "Do not try again: the credentials do not allow this. Use another tool, or ask the user for access."
        return "Do not try again: a person has to log in again or give other credentials. Tell the user."
    if isinstance(error, ConnectionFailed) and when is None:
        return "Do not try again: a person has to fix this server or its configuration. Tell the user."
    if isinstance(error, InvalidResult):
        return "Do not run it again for its answer." if runs else _SAME_AGAIN
    if runs and error.outcome is Outcome.UNKNOWN:
        return (
            "Do not just try again, it could be done twice: find out first whether it took effect, with a tool that "
            "only reads, or ask the user."
        )
    if isinstance(error, ConnectionFailed):
        return f"Before the next attempt to connect{soon} every call fails: use other tools meanwhile."
    if kind is FailureKind.RATE_LIMITED:
        return f"Try again{soon or ' later'}, with fewer calls at once."
    if kind in (FailureKind.PROTOCOL, FailureKind.CONFIG):
        return _SAME_AGAIN
    return f"You may try again{soon}. If it fails again, go on without this server."


_HOST = "Do not try again: only the program that you run in can fix this. Go on without this server."
_SAME_AGAIN = "The same call will most likely fail again: change the arguments, or use another tool."
_REFUSED = {
    types.METHOD_NOT_FOUND: "This server cannot do that: do not try again.",
    types.INVALID_PARAMS: "Check the name and the arguments before you try again.",
}
"""What to do about an error, by its JSON-RPC code."""
_REFUSED_TOOL = {
    types.METHOD_NOT_FOUND: _REFUSED[types.METHOD_NOT_FOUND],
    types.INVALID_PARAMS: "Check the name and the arguments, and whether it took effect all the same, before you try "
    "again.",
}
"""The same, if trying again could run something twice."""


def _joined(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def _fate(outcome: Outcome, runs: bool) -> str:
    if not runs:
        return ""
    return {
        Outcome.NOT_RUN: "The tool was not run.",
        Outcome.RAN: "The tool ran, and its answer cannot be used.",
    }.get(outcome, "It is not known whether the tool ran.")


def _sentence(text: str) -> str:
    text = text.strip() or "no reason was given"
    return text if text.endswith((".", "!", "?")) else f"{text}."
