"""`Evidence` is what was observed of an error; `Failure` is its classification."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

Phase = Literal["dial", "call", "probe", "idle"]
"""The activity at the time: opening a session, a caller's request, a probe of the session, or none."""

Era = Literal["legacy", "modern"]
"""`legacy`: initialize handshake and sessions (up to 2025-11-25). `modern`: neither (2026-07-28)."""


class FailureKind(str, Enum):
    """The classes of failure; `decide` has the consequences of each."""

    SESSION_EXPIRED = "session_expired"
    AUTH = "auth"
    TRANSPORT_LOST = "transport_lost"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    PROTOCOL = "protocol"
    CONFIG = "config"
    APPLICATION = "application"
    CANCELLED = "cancelled"

    def __str__(self) -> str:
        return self.value


class Delivery(str, Enum):
    """What is known about the request itself. It decides whether a replay is correct.

    The distinction is gRPC's (A6, transparent retries): a request that never left, or that the server
    refused before running it, can be sent again by any layer; for all others only the caller can decide.
    """

    NOT_SENT = "not_sent"
    REJECTED = "rejected"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


class Trouble(Enum):
    """The classification that an exception of this package carries in its attribute `trouble`.

    The rules read it, so the names of these classes do not matter. Other exceptions are recognized by the names of
    their types.
    """

    CONFIGURATION = "the configuration cannot be used"
    PROXY_REFUSED = "the proxy does not let the request through"
    WRONG_SCHEME = "the server speaks TLS and the URL does not, or the other way round"
    CREDENTIALS_UNAVAILABLE = "their source, or the authorization server, does not answer"
    CREDENTIALS_REFUSED = "they cannot be renewed without a person"
    UNREADABLE_ANSWER = "an answer cannot be read"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything observed about one failure. All fields are optional; None means "not observed"."""

    exception: BaseException | None = field(default=None, repr=False)
    """The local exception, if there was one. Groups, causes and contexts are searched."""
    code: int | None = None
    """Code of the JSON-RPC error."""
    message: str | None = None
    """Message of the JSON-RPC error, or the plain text of a refusing HTTP response."""
    http_status: int | None = None
    """Status of the HTTP response."""
    content_type: str | None = None
    """Content-Type of the HTTP response; an empty string for a response without a body."""
    retry_after: float | None = None
    """Retry-After of the HTTP response, in seconds from its arrival."""
    challenge: str | None = field(default=None, repr=False)
    """WWW-Authenticate of the HTTP response. Not in the repr: it can name realms and nonces."""
    hint: str | None = None
    """Readable information from the headers of the HTTP response (the challenge's text, Allow), without secrets."""
    session_sent: bool | None = None
    """Whether the request carried a session id."""
    from_wire: bool | None = None
    """Whether the JSON-RPC error was received, rather than created locally."""
    written: bool | None = None
    """Whether bytes of the request left this process; None if that is unknown."""
    era: Era | None = None
    """The era of the session on which the request was made."""
    phase: Phase | None = None
    """The activity at the time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A classified failure."""

    kind: FailureKind
    delivery: Delivery
    proof: bool
    """True: the evidence proves `kind`. False: it is a suspicion, and a probe decides."""
    summary: str
    """One line for people. Holds no secrets."""
    retry_after: float | None = None
    """Seconds that the server asked the client to wait, or None."""
    evidence: Evidence = field(default_factory=Evidence, repr=False)
    """The evidence for the classification."""

    def __str__(self) -> str:
        return self.summary
