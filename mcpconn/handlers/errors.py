"""What a handler answers where a call failed.

    error       what happened, whether to try again, and what to do instead: written for a language model
    kind        class of the failure, a `FailureKind`; what the server's application or the call's arguments
                are to blame for is `application`
    state       the connection's state, null where there is no connection
    outcome     `not_run`: certainly not; `ran`: it did, and reports an error; `unknown`: all else
    retry_in    seconds until trying again makes sense, null where that is not known

No secret of the server's configuration is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mcp import MCPError

from mcpconn.core.classify import classify
from mcpconn.core.failures import Evidence, FailureKind
from mcpconn.errors import CallFailed, ConnectionClosed, ConnectionFailed, NotRunning, UnknownServer

Outcome = Literal["not_run", "unknown", "ran"]
Redact = Callable[[str], str]

REFUSED_CODES = (-32700, -32600, -32601, -32602)
"""JSON-RPC: parse error, invalid request, method not found, invalid params. Nothing was run then."""


class BadArguments(Exception):
    """The arguments that a handler was called with cannot be used. The text says which, and why."""


class UnreadableResult(Exception):
    """The call was answered, and its answer cannot be put into JSON."""


@dataclass(frozen=True)
class Problem:
    """A failed call, in the words of a payload."""

    text: str
    kind: FailureKind
    outcome: Outcome
    state: str | None = None
    retry_in: float | None = None
    data: Any = None
    """What the server's application added to its error."""

    def payload(self) -> dict[str, Any]:
        """As a handler answers it."""
        fields = {
            "error": self.text,
            "kind": self.kind.value,
            "state": self.state,
            "outcome": self.outcome,
            "retry_in": None if self.retry_in is None else round(self.retry_in, 1),
        }
        return fields if self.data is None else {**fields, "data": self.data}


def problem(error: Exception, *, server: str, state: str | None, runs: bool, redact: Redact) -> Problem:
    """What to say about `error`.

    Args:
        error: What the call raised.
        server: Name of the server.
        state: The connection's present state.
        runs: The call runs a tool; all others change nothing.
        redact: Hides the secrets of the server's configuration in what others said.
    """
    if isinstance(error, CallFailed):
        # No answer, for a reason that lies in the connection.
        said = f"MCP server {server!r}: {_sentence(redact(error.failure.summary))}"
        text = _joined(said, _fate(error.outcome, runs), _advice(error, runs))
        return Problem(text, error.failure.kind, error.outcome, error.state.value, error.retry_in)
    if isinstance(error, MCPError):
        return _answered(error, server, state, runs, redact)
    said = _sentence(redact(str(error).strip() or type(error).__name__))
    if isinstance(error, UnknownServer):
        return Problem(_joined(said, "Do not try again under this name."), FailureKind.CONFIG, "not_run")
    if isinstance(error, NotRunning):
        text = _joined(f"MCP server {server!r} cannot be used: {said}", _fate(error.outcome, runs), _HOST)
        return Problem(text, FailureKind.UNAVAILABLE, error.outcome, state)
    if isinstance(error, BadArguments):
        text = _joined(said, f"Nothing was sent to MCP server {server!r}. Correct the arguments and try again.")
        return Problem(text, FailureKind.APPLICATION, "not_run", state)
    if isinstance(error, UnreadableResult):
        advice = "The tool ran: do not run it again for its answer." if runs else _SAME_AGAIN
        text = _joined(f"MCP server {server!r} answered, and the answer cannot be shown: {said}", advice)
        return Problem(text, FailureKind.APPLICATION, "ran", state)
    if classify(Evidence(exception=error, phase="call")).kind is FailureKind.CANCELLED:
        text = f"The call to MCP server {server!r} was interrupted on this side: {said}"
        advice = "Do not try again unless you are asked to."
        return Problem(_joined(text, _fate("unknown", runs), advice), FailureKind.CANCELLED, "unknown", state)
    text = _joined(f"The call to MCP server {server!r} failed: {said}", _fate("unknown", runs), _SAME_AGAIN)
    return Problem(text, FailureKind.APPLICATION, "unknown", state)


def _answered(error: MCPError, server: str, state: str | None, runs: bool, redact: Redact) -> Problem:
    """The server's application answered with an error."""
    outcome: Outcome = "not_run" if error.code in REFUSED_CODES else "unknown"
    said = f"MCP server {server!r} answered with error {error.code}: {_sentence(redact(error.message))}"
    advice = _REFUSED.get(error.code, _SAME_AGAIN)
    text = _joined(said, _fate(outcome, runs), advice)
    return Problem(text, FailureKind.APPLICATION, outcome, state, data=redacted(error.error.data, redact))


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
        return "Do not try again: a person has to mend this server or its configuration. Tell the user."
    if runs and error.outcome == "unknown":
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


_HOST = "Do not try again: only the program that you run in can mend this. Go on without this server."
_SAME_AGAIN = "The same call will most likely fail again: change the arguments, or use another tool."
_REFUSED = {
    -32601: "This server cannot do that: do not try again.",
    -32602: "Check the name and the arguments before you try again.",
}


def _joined(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def _fate(outcome: str, runs: bool) -> str:
    if not runs:
        return ""
    return "The tool was not run." if outcome == "not_run" else "It is not known whether the tool ran."


def _sentence(text: str) -> str:
    text = text.strip() or "no reason was given"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def redacted(value: Any, redact: Redact) -> Any:
    """`value`, known secrets replaced in all of its texts."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(key) if isinstance(key, str) else key: redacted(item, redact) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item, redact) for item in value]
    return value
