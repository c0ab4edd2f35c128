"""`status()`: a connection as plain data, ready for JSON. Nothing in it is secret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcpconn.auth.request_auth import RequestAuth
from mcpconn.config import ServerConfig
from mcpconn.core.failures import Failure
from mcpconn.core.stream import StreamRecord
from mcpconn.runtime.journal import Change, Journal
from mcpconn.runtime.supervisor import Supervisor


def failure_status(failure: Failure | None) -> dict[str, Any] | None:
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


def change_status(change: Change) -> dict[str, Any]:
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
    supervisor: Supervisor,
    journal: Journal,
    config: ServerConfig,
    auth: RequestAuth | None,
    stderr: Sequence[str],
) -> dict[str, Any]:
    """Everything an operator asks of one connection."""
    session = supervisor.session
    link: Any = session.link if session is not None else None
    stream: StreamRecord | None = link.stream if link is not None else None
    info = link.server_info if link is not None else None
    return {
        "name": supervisor.name,
        "address": config.address,
        "transport": config.kind,
        "state": supervisor.state.value,
        "since": supervisor.since_wall,
        "epoch": supervisor.epoch,
        "era": link.era if link is not None else None,
        "protocol_version": link.version if link is not None else None,
        "server": {"name": info.name, "version": info.version} if info is not None else None,
        "stream": stream.status(supervisor.now) if stream is not None else None,
        "progress": supervisor.progress,
        "last_failure": failure_status(supervisor.last_failure),
        "stderr": list(stderr),
        "retry_in": supervisor.retry_in,
        "credentials": auth.status() if auth is not None else None,
        "in_flight": supervisor.gate.in_flight,
        "waiting": supervisor.gate.waiting,
        "counts": dict(journal.counts),
        "transitions": [change_status(change) for change in journal.changes],
    }
