"""`status()`: a connection as plain data that can be serialized as JSON. It contains no secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from mcpconn.config import ServerConfig
from mcpconn.core.failures import Failure
from mcpconn.core.stream import StreamRecord, StreamStatus
from mcpconn.runtime.journal import Change, Journal
from mcpconn.runtime.lifecycle import Lifecycle
from mcpconn.wire.dial import Dialer

if TYPE_CHECKING:
    from mcpconn.auth.credentials import CredentialsStatus
    from mcpconn.auth.request_auth import RequestAuth


class FailureStatus(TypedDict):
    """A failure in words and classes."""

    kind: str
    """A `FailureKind`'s value."""
    delivery: str
    """A `Delivery`'s value."""
    proof: bool
    """False: it was a suspicion."""
    summary: str
    """One line for people."""
    http_status: int | None


# Not a class: `from` is a keyword of Python.
TransitionStatus = TypedDict(
    "TransitionStatus",
    {
        "at": float,
        "epoch": int,
        "from": str,
        "event": str,
        "to": str,
        "elapsed": float,
        "wait": "float | None",
        "failure": "FailureStatus | None",
    },
)
"""A transition: the time, the epoch, the old and the new state, the seconds in the old state, the seconds until the
next dial, and the reason."""


class ServerStatus(TypedDict):
    """A server's name and version."""

    name: str
    version: str


class ConnectionStatus(TypedDict):
    """The result of `Connection.status()`. Times are in seconds: `since` and `at` since 1970, all others are
    durations."""

    name: str
    address: str
    """The URL without secrets, or the command."""
    transport: str
    state: str
    since: float | None
    """When the state was entered; None before the first transition."""
    epoch: int
    era: str | None
    protocol_version: str | None
    server: ServerStatus | None
    pid: int | None
    """The process id of the session's child; None if there is no session, or no child."""
    stream: StreamStatus | None
    """The session's event stream; None if there is none."""
    progress: str | None
    """The progress of a child that is being started."""
    last_failure: FailureStatus | None
    stderr: list[str]
    """The last lines of a child's standard error, without secrets."""
    retry_in: float | None
    """Seconds until the next dial or probe; None if none is scheduled."""
    credentials: CredentialsStatus | None
    """The kind of the credentials, and what they are waiting for; not the credentials themselves."""
    in_flight: int
    waiting: int
    counts: dict[str, int]
    """How often each event, retry and outcome occurred."""
    transitions: list[TransitionStatus]


ManagerStatus = dict[str, ConnectionStatus]
"""The result of `Manager.status()`: the status of every connection, by name."""


def failure_status(failure: Failure | None) -> FailureStatus | None:
    """A failure in words and classes."""
    if failure is None:
        return None
    return {
        "kind": failure.kind.value,
        "delivery": failure.delivery.value,
        "proof": failure.proof,
        "summary": failure.summary,
        "http_status": failure.evidence.http_status,
    }


def change_status(change: Change) -> TransitionStatus:
    """A transition."""
    return {
        "at": change.at,
        "epoch": change.epoch,
        "from": change.source.value,
        "event": change.event.value,
        "to": change.target.value,
        "elapsed": change.elapsed,
        "wait": change.wait,
        "failure": failure_status(change.failure),
    }


def connection_status(
    lifecycle: Lifecycle,
    journal: Journal,
    config: ServerConfig,
    auth: RequestAuth | None,
    dialer: Dialer,
) -> ConnectionStatus:
    """All information for operators about one connection."""
    session = lifecycle.session
    link: Any = session.link if session is not None else None
    stream: StreamRecord | None = link.stream if link is not None else None
    info = link.server_info if link is not None else None
    return {
        "name": lifecycle.name,
        "address": config.address,
        "transport": config.kind,
        "state": lifecycle.state.value,
        "since": lifecycle.since_wall,
        "epoch": lifecycle.epoch,
        "era": link.era if link is not None else None,
        "protocol_version": link.version if link is not None else None,
        "server": {"name": info.name, "version": info.version} if info is not None else None,
        "pid": link.pid if link is not None else None,
        "stream": stream.status(lifecycle.now) if stream is not None else None,
        "progress": dialer.progress,
        "last_failure": failure_status(lifecycle.last_failure),
        "stderr": list(dialer.stderr),
        "retry_in": lifecycle.retry_in,
        "credentials": auth.status() if auth is not None else None,
        "in_flight": lifecycle.gate.in_flight,
        "waiting": lifecycle.gate.waiting,
        "counts": dict(journal.counts),
        "transitions": [change_status(change) for change in journal.changes],
    }
