"""Which era a server is of: how one dial finds out, and what a manager remembers of it.

A dial asks `server/discover`. The SDK takes every JSON-RPC error for the answer of a legacy server and sends
`initialize` on the same session. That leaves servers which do not answer at all:

    it ends, or cuts the connection        open once more, as legacy, at once
    HTTP 502, 503, 504 without a wait      the same
    a child that stays mute                `initialize` on the same child; if that fails, a new one as legacy
    refused, unauthorized, told to wait    says nothing about the era: the dial fails

An opening as legacy after a cut is a guess. It is remembered once it has worked twice; an answer is remembered at
once. Whatever is remembered is dropped when a dial with it fails, and in doubt the next dial asks again: a modern
server that is dialled in the middle of a restart must not be taken for an old one for ever.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import anyio
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse, RequestId

from mcpconn.config import ServerConfig
from mcpconn.core.exchange import Exchange
from mcpconn.core.failures import Era, Evidence
from mcpconn.core.seen import walk
from mcpconn.wire.messages import Unreadable, same_id

MUTE_AFTER_OUTPUT = 3.0
"""Seconds that a child which has written something, and so is running, has for its answer to `server/discover`."""
MUTE = 10.0
"""The same for a child that has written nothing, and may be loading: the SDK's own limit for `server/discover`."""
CUTS = 2
"""Times that a legacy opening must have worked after a cut before the era is remembered."""
NOT_NOW = (502, 503, 504)
"""HTTP statuses of a gateway whose server dropped the request, or is away."""


class Undecided(Exception):
    """`server/discover` failed over HTTP in a way that says nothing about the server's era. The opening must fail.

    Without this the SDK's negotiation takes any error for "an old server", and an outage at the wrong
    moment would make a modern server a legacy one.
    """


def tells_era(exchange: Exchange) -> bool:
    """Whether a failed `server/discover` says that the server is a legacy one: it answered, and not "not now".

    500 and 501 are what some old servers make of a method that they do not know.
    """
    status = exchange.http_status or 0
    verdict = status in (500, 501) or (status < 500 and status not in (401, 403, 408, 429))
    answered = exchange.exception is None or isinstance(exchange.exception, Unreadable)
    return answered and verdict


@dataclass
class Known:
    """What a manager knows of one server, whatever connection dials it."""

    era: Era | None = None
    cuts: int = 0
    """Times in a row that it was cut at `server/discover` and then shook hands as legacy."""
    started: bool = False
    """A child has shaken hands: what it needs is on this machine."""
    waited: float = 0.0
    """Seconds that starts have taken which came to nothing, until one did not."""


class Eras:
    """What the connections of one manager know of their servers' eras."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Known] = {}

    def of(self, config: ServerConfig) -> Known:
        """By command line and directory, or by URL."""
        key = config.url if config.url is not None else (config.command, tuple(config.args), config.cwd)
        # Servers in this process have no name to be known by.
        return Known() if config.kind == "memory" else self._known.setdefault(key, Known())


class Discovery:
    """`server/discover` in one opening: whether it was asked, and what came of it."""

    def __init__(self, allowed: float) -> None:
        """
        Args:
            allowed: Seconds that the whole dial may take.
        """
        self.allowed = allowed
        self.asked = anyio.Event()
        """`server/discover` was handed to the transport."""
        self.settled = anyio.Event()
        """It was answered, or is waited for no longer."""
        self.initializing = anyio.Event()
        """`initialize` was handed to the transport."""
        self.shaken = anyio.Event()
        """The handshake is done."""
        self.answered = False
        """By the server: with a result or a JSON-RPC error."""
        self.cut = False
        """The child read the question, and ended, or said nothing to `initialize` either."""
        self._id: RequestId | None = None

    @property
    def patience(self) -> float:
        """Seconds for the answer. The other half of a short dial is left for `initialize`."""
        return min(MUTE, self.allowed / 2)

    @property
    def patience_after_output(self) -> float:
        """The same, once the child has written something."""
        return min(MUTE_AFTER_OUTPUT, self.allowed / 4)

    def sent(self, message: JSONRPCMessage) -> None:
        """A message is handed to the transport."""
        if isinstance(message, JSONRPCRequest) and message.method == "server/discover":
            self._id = message.id
            self.asked.set()
        elif isinstance(message, JSONRPCRequest) and message.method == "initialize":
            self.initializing.set()

    def heard(self, message: JSONRPCMessage) -> None:
        """A message came from the server."""
        if self._id is None or not isinstance(message, (JSONRPCResponse, JSONRPCError)):
            return
        if same_id(message.id, self._id):
            self.answered = True
            self.settled.set()

    def give_up(self) -> RequestId | None:
        """Wait for its answer no longer. Returns the request's id."""
        request_id, self._id = self._id, None
        self.settled.set()
        return request_id


class Negotiation:
    """One dial: one opening, or two where the first was cut at `server/discover`."""

    def __init__(self, known: Known, mode: str, allowed: float) -> None:
        """
        Args:
            known: What is known of the server.
            mode: The configured one.
            allowed: Seconds that the dial may take.
        """
        self._known = known
        self._asks = mode == "auto" and known.era != "legacy"
        self.mode = "legacy" if mode == "auto" and known.era == "legacy" else mode
        """The SDK's connect mode of the next opening."""
        self.discovery = Discovery(allowed)
        self._guessed: Evidence | None = None
        """Why the first opening failed, in the second."""

    def opened(self, era: Era) -> None:
        """The handshake is done."""
        known = self._known
        known.started, known.waited = True, 0.0
        if self.discovery.answered:
            known.era, known.cuts = era, 0
        elif self._guessed is not None:
            known.cuts += 1
            if known.cuts >= CUTS:
                known.era = "legacy"

    def again(self, error: BaseException, evidence: Evidence) -> bool:
        """Whether a failed opening is followed by one as legacy, at once."""
        known = self._known
        if self._guessed is None and self._asks and known.era is None and self._cut(error, evidence):
            self._guessed = evidence
            self.mode, self.discovery = "legacy", Discovery(self.discovery.allowed)
            return True
        known.era, known.cuts = None, 0
        return False

    def evidence(self, evidence: Evidence) -> Evidence:
        """What the dial failed of, where the last opening failed of `evidence`.

        A guess that is refused was a wrong one. It says nothing about the server, which may be a modern one
        that was away for a moment: then what counts is how it was away.
        """
        refused = evidence.from_wire and evidence.code is not None
        return self._guessed if self._guessed is not None and refused else evidence

    def _cut(self, error: BaseException, evidence: Evidence) -> bool:
        if self.discovery.cut:
            return True
        if not any(isinstance(each, Undecided) for each in walk(error)):
            return False
        away = evidence.http_status in NOT_NOW and evidence.retry_after is None
        return evidence.written is not False and (away or evidence.http_status is None)
