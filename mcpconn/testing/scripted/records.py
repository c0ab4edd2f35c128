"""A scripted server's records, and its armed faults. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcpconn.testing.scripted.faults import Exchange, Fault
from mcpconn.testing.scripted.steps import Message, Reply


@dataclass(frozen=True)
class Execution:
    """One run of a tool."""

    tool: str
    arguments: Mapping[str, Any]
    request_id: object


@dataclass(frozen=True)
class Received:
    """One request the server received; `status` is None if no status was sent."""

    http_method: str
    rpc_method: str | None
    session_id: str | None
    status: int | None


@dataclass
class SessionState:
    """The server's state of one session."""

    subscriptions: set[str] = field(default_factory=set)
    log_level: str | None = None


@dataclass
class Armed:
    """A fault waiting for requests; `used` counts those it has met."""

    fault: Fault
    method: str | None
    tool: str | None
    left: int | None
    used: int = 0

    def matches(self, http_method: str, message: Message) -> bool:
        """Whether this fault is meant for the request."""
        if self.left == 0:
            return False
        if self.tool is not None and (message.get("params") or {}).get("name") != self.tool:
            return False
        if self.method is None:
            return "id" in message and "method" in message
        return self.method == (message.get("method") or http_method)

    def take(self, exchange: Exchange) -> Reply:
        """Count one use of the fault, and make its reply."""
        self.used += 1
        if self.left is not None:
            self.left -= 1
        return self.fault.plan(exchange)
