"""Creates the errors for calls that cannot be made: what happened, to which server, in which state, and what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from mcpconn.core.failures import Delivery, Failure, FailureKind
from mcpconn.core.seen import Seen
from mcpconn.core.states import State
from mcpconn.errors import ConnectionClosed, ConnectionFailed, NotReady, Overloaded
from mcpconn.runtime.gate import Gate


class Situation(Protocol):
    """The information about a connection that an error needs; its `Lifecycle` provides it."""

    name: str
    gate: Gate
    last_failure: Failure | None

    @property
    def state(self) -> State: ...
    @property
    def retry_in(self) -> float | None: ...


def advice(failure: Failure | None, wait: float | None) -> str:
    """What a person can do about a failed connection.

    Args:
        failure: Why it failed.
        wait: Seconds until it dials again automatically; None if it does not.
    """
    if wait is not None and failure is not None and _child_exited(failure):
        # The missing program or file may or may not exist by then; only the author of the configuration knows.
        return f"it tries again in {wait:.0f} s; if this continues, check its command, or call reconnect()"
    if wait is not None:
        return f"nothing: it tries again in {wait:.0f} s; or call reconnect()"
    if failure is None:
        return "call reconnect()"
    if failure.kind is FailureKind.AUTH:
        return "log in again or give other credentials, then call update_credentials()"
    if failure.kind is FailureKind.CONFIG:
        return f"fix {_at_fault(failure)}, then call reconnect()"
    return "call reconnect() once the server is fixed"


def _at_fault(failure: Failure) -> str:
    """What a person has to check. Not every such problem is in the server's entry."""
    seen = Seen(failure.evidence)
    if failure.evidence.http_status == 407 or seen.is_a("ProxyError"):
        return "the proxy or its settings"
    if seen.is_a("SSLCertVerificationError"):
        return "the server's certificate, or what is trusted here"
    return "the server's configuration"


def _child_exited(failure: Failure) -> bool:
    """Whether a process was started and exited before the handshake."""
    return failure.evidence.phase == "dial" and Seen(failure.evidence).is_a("ChildExited")


def _no_call(summary: str, kind: FailureKind = FailureKind.UNAVAILABLE) -> Failure:
    return Failure(kind=kind, delivery=Delivery.NOT_SENT, proof=True, summary=summary)


def failed(of: Situation) -> ConnectionFailed:
    """The error for a `failed` connection, with the failure that caused it and the time of the next dial."""
    # The failure is that of another call or of a dial. This call was not sent.
    failure = replace(of.last_failure or _no_call("the connection failed"), delivery=Delivery.NOT_SENT)
    wait = of.retry_in
    hint = f"next try in {wait:.0f} s" if wait is not None else advice(failure, wait)
    error = ConnectionFailed(
        f"{of.name}: {failure.summary}; {hint}", server=of.name, failure=failure, state=of.state, retry_in=wait
    )
    error.__cause__ = _cause(failure)
    return error


def _cause(failure: Failure) -> BaseException | None:
    """The original exception of a failure: `FileNotFoundError`, `httpx2.ConnectError`, ...

    None if it contains a cancellation, because a handler of the error would consider the call cancelled.
    """
    seen = Seen(failure.evidence)
    if seen.cancelled:
        return None
    for error in seen.errors:
        own = type(error).__module__.partition(".")[0] == "mcpconn"
        wrapper = isinstance(getattr(error, "exceptions", None), tuple) or (own and error.__cause__ is not None)
        if not wrapper:
            return error
    return None


def closed(of: Situation) -> ConnectionClosed:
    """The error for a `closed` connection."""
    failure = _no_call("the connection is closed")
    return ConnectionClosed(f"{of.name}: {failure.summary}", server=of.name, failure=failure, state=of.state)


def overloaded(of: Situation) -> Overloaded:
    """The error for a full queue."""
    failure = _no_call(f"{of.gate.waiting} calls are waiting already", FailureKind.RATE_LIMITED)
    message = f"{of.name}: {failure.summary}; the connection is {of.state}"
    return Overloaded(message, server=of.name, failure=failure, state=of.state, retry_in=of.retry_in)


def not_ready(of: Situation) -> NotReady:
    """The error for a call with `wait=False`."""
    last = of.last_failure
    why = f" ({last.summary})" if last is not None and of.state is not State.READY else ""
    failure = _no_call(f"the connection is {of.state}{why}, and the call was made with wait=False")
    message = f"{of.name}: {failure.summary}"
    return NotReady(message, server=of.name, failure=failure, state=of.state, retry_in=of.retry_in)
