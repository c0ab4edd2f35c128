"""Every exception a caller can catch.

    McpConnError
    |-- ConfigError (ValueError)           a server entry or a policy cannot be used; nothing was dialled
    |-- UnknownServer (KeyError)           the manager has no server of this name
    |-- NotRunning (RuntimeError)          the manager or connection is not entered, or was left
    `-- CallFailed (MCPError)              a call was not answered; .failure says why
        |-- OutcomeUnknown                 the tool may have run
        |-- CallTimeout (TimeoutError)     the call's deadline passed
        |-- Overloaded                     too many calls wait for this connection already
        |-- NotReady                       wait=False, and the connection is not ready
        |-- InvalidResult                  the server answered, with a result of the wrong shape
        |-- ConnectionFailed               the connection is `failed`; .retry_in says when it tries again
        `-- ConnectionClosed (RuntimeError) the connection is `closed`

    IllegalTransition                      an event that cannot happen in a state: a bug, not a condition

An error that the server's application returned is not among them: it arrives as the SDK's `MCPError`,
unchanged. `CallFailed` is an `MCPError` too, so that code written for `mcp.Client` keeps working.
"""

from __future__ import annotations

from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND

from mcpconn.core.failures import Delivery, Failure, FailureKind, Trouble
from mcpconn.core.machine import IllegalTransition as IllegalTransition
from mcpconn.core.outcome import Outcome
from mcpconn.core.states import State

# JSON-RPC codes for code that looks at `MCPError.code`: the SDK's own for the same two conditions.
CONNECTION_CLOSED = -32000
REQUEST_TIMEOUT = -32001


class McpConnError(Exception):
    """Root of all errors of mcpconn."""


class ConfigError(McpConnError, ValueError):
    """A configuration that cannot be used. The message names the server, the key and the fix."""

    trouble = Trouble.CONFIGURATION

    def __init__(self, message: str, *, server: str | None = None, key: str | None = None) -> None:
        super().__init__(message)
        self.server = server
        self.key = key


class ArgumentError(ConfigError, TypeError):
    """An argument of the wrong type, or an unknown argument. `mcp.Client` raises TypeError for it."""


class UnknownServer(McpConnError, KeyError):
    """No server with this name. The message lists the existing names."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(name)
        self.name = name
        self.known = known

    def __reduce__(self) -> tuple[type[UnknownServer], tuple[str, tuple[str, ...]]]:
        return type(self), (self.name, self.known)

    def __str__(self) -> str:
        names = ", ".join(sorted(self.known)) or "none"
        return f"no server named {self.name!r}; known servers: {names}"


class NotRunning(McpConnError, RuntimeError):
    """The manager or the connection has not been entered (`async with`), or has been exited."""

    outcome: Outcome = Outcome.NOT_RUN
    """`unknown` if the loop of a `SyncManager` ended during the call: the tool may have run."""


class CallFailed(McpConnError, MCPError):
    """A call that was not answered because of the connection, not the application.

    Attributes:
        server: Name of the server.
        failure: What happened, classified.
        state: The connection's state when the call gave up.
        attempts: How often the call was issued. 0 means that it was never sent.
        retry_in: Seconds until it makes sense to try again, if known.
    """

    default_code = CONNECTION_CLOSED

    def __init__(
        self,
        message: str,
        *,
        server: str,
        failure: Failure,
        state: State,
        attempts: int = 0,
        retry_in: float | None = None,
    ) -> None:
        code = failure.evidence.code
        if code is None:
            code = _code_for(failure.evidence.http_status, failure.evidence.session_sent) or self.default_code
        MCPError.__init__(self, code, message)
        self.server = server
        self.failure = failure
        self.state = state
        self.attempts = attempts
        self.retry_in = retry_in

    @property
    def outcome(self) -> Outcome:
        """Whether the tool ran: `not_run` and `ran` are certain, `unknown` is everything else."""
        if self.attempts == 0 or self.failure.delivery is not Delivery.UNKNOWN:
            return Outcome.NOT_RUN
        return Outcome.UNKNOWN

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # MCPError's own pickling would call __init__ with its three arguments.
        state = {"server": self.server, "failure": _portable(self.failure), "state": self.state}
        return _rebuild, (
            type(self),
            str(self),
            {**state, "attempts": self.attempts, "retry_in": self.retry_in},
        )


def _code_for(status: int | None, session_sent: bool | None) -> int | None:
    """The JSON-RPC code that the SDK's client gives to an HTTP response without a JSON-RPC error of its own.

    (mcp 2.3.0, `mcp.client.streamable_http`: "Server returned an error response", "Session terminated", "Not Found",
    "server answered a request with 202 Accepted", "Unexpected content type", a redirect.)
    """
    if not status:
        return None
    if status == 404:
        return INVALID_REQUEST if session_sent else METHOD_NOT_FOUND
    return INTERNAL_ERROR if status >= 400 else INVALID_REQUEST


def _portable(failure: Failure) -> Failure:
    from dataclasses import replace

    # Exceptions and their tracebacks may be unpicklable; only the classification is kept.
    return replace(failure, evidence=replace(failure.evidence, exception=None))


def _rebuild(cls: type[CallFailed], message: str, fields: dict[str, Any]) -> CallFailed:
    return cls(message, **fields)


class OutcomeUnknown(CallFailed):
    """The request may have reached the server, and no answer came: the tool may have run.

    The call was not retried because nothing indicates that running the tool twice is harmless. If it is harmless,
    annotate the tool with readOnlyHint or idempotentHint, or call with `idempotent=True`.
    """


class CallTimeout(CallFailed, TimeoutError):
    """The call's deadline passed. `.outcome` says whether the tool may have run."""

    default_code = REQUEST_TIMEOUT


class Overloaded(CallFailed):
    """The maximum number of calls is already waiting for this connection."""


class NotReady(CallFailed):
    """The connection is not ready, and the call was made with `wait=False`."""


class ConnectionFailed(CallFailed):
    """The connection is `failed`. `.retry_in` is the time until its next dial; None: a person has to act first."""


class ConnectionClosed(CallFailed, RuntimeError):
    """The connection was closed before the call could be made or answered.

    It is also a RuntimeError, because `mcp.Client` raises that outside its block.
    """


class InvalidResult(CallFailed):
    """The server answered with a result that does not have the form that the protocol requires.

    The server processed the request, so a tool has run. The call is not retried, even if that would be harmless,
    because the server would give the same answer.
    """

    default_code = INTERNAL_ERROR

    @property
    def outcome(self) -> Outcome:
        """`ran`, because there is an answer."""
        return Outcome.RAN


def unanswered(
    failure: Failure,
    *,
    server: str,
    state: State,
    attempts: int,
    retry_in: float | None,
    method: str = "tools/call",
) -> CallFailed:
    """The exception for a call that was issued and failed.

    Args:
        failure: Why.
        server: Name of the server.
        state: The connection's state.
        attempts: How often the call was issued.
        retry_in: Seconds until it makes sense to try again, if known.
        method: Its JSON-RPC method. Only `tools/call` runs a tool; all other requests can be repeated.
    """
    where = f"{server}: {failure.summary}"
    runs = method == "tools/call"
    unknown = failure.delivery is Delivery.UNKNOWN
    if failure.kind is FailureKind.TIMEOUT and failure.evidence.http_status is None:
        hint = ("; the tool may have run" if runs else "") if unknown else "; the call was not made"
        cls: type[CallFailed] = CallTimeout
    elif unknown:
        hint = "; the tool may have run. Check before calling again, or call with idempotent=True if that is harmless"
        hint = hint if runs else f"; {method} was not answered"
        cls = OutcomeUnknown
    else:
        hint = "; the call was not run"
        cls = CallFailed
    if failure.retry_after is not None:
        hint += f". The server asks to wait {failure.retry_after:g} s"
    return cls(
        where + hint,
        server=server,
        failure=failure,
        state=state,
        attempts=attempts,
        retry_in=retry_in if retry_in is not None else failure.retry_after,
    )
