"""Which era a server is of: how one dial finds out, and what a manager remembers of it.

A dial asks `server/discover`. The SDK takes every JSON-RPC error for the answer of a legacy server and sends
`initialize` on the same session. That leaves servers which do not answer at all:

    it ends, or cuts the connection        open once more, as legacy, at once
    HTTP 502, 503, 504 without a wait      the same
    a server that stays mute               `initialize` on the same session; a child that is mute to that as well is
                                           replaced by one that is dialled as legacy
    refused, unauthorized, told to wait    says nothing about the era: the dial fails

An opening as legacy after a cut is a guess. It is remembered once it has worked twice; an answer is remembered at
once. Whatever is remembered is dropped when a dial with it fails, and in doubt the next dial asks again: a modern
server that is dialled in the middle of a restart must not be taken for an old one for ever.

A dial that prefers the legacy era (`prefer-legacy`) begins with `initialize`, and a server that refuses it is asked as
above, in the same dial. If it is a modern one, later dials ask it so from the beginning.

The transport of 2024-11-05 (HTTP+SSE) is found as the specification says (2025-11-25, transports, backwards
compatibility): the POST of `initialize` is answered with 400, 404 or 405, and a GET opens an event stream that
begins with an `endpoint`. It is tried only if nothing is known of the server, no session id was sent, and nobody
has said which transport it is; if it is none, the dial fails of what the POST was answered with.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from mcpconn.checks import PREFER_LEGACY
from mcpconn.config import ServerConfig
from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Era, Evidence
from mcpconn.core.seen import walk
from mcpconn.wire.discovery import Discovery
from mcpconn.wire.messages import Unreadable

CUTS = 2
"""Times that a legacy opening must have worked after a cut before the era is remembered."""
NO_POST = (400, 404, 405)
"""HTTP statuses of `initialize` after which a server may be one of 2024-11-05."""
NOT_NOW = (502, 503, 504)
"""HTTP statuses of a gateway whose server dropped the request, or is away."""


class EraUnknown(Exception):
    """`server/discover` failed over HTTP in a way that says nothing about the server's era. The opening must fail.

    Without this the SDK's negotiation takes any error for "an old server", and an outage at the wrong
    moment would make a modern server a legacy one.
    """


class NoEndpoint(Exception):
    """The event stream did not begin with a usable `endpoint`: it is no HTTP+SSE server's."""


def tells_era(attempt: Attempt) -> bool:
    """Whether a failed `server/discover` says that the server is a legacy one: it answered, and not "not now".

    500 and 501 are what some old servers make of a method that they do not know.
    """
    status = attempt.http_status or 0
    verdict = status in (500, 501) or (status < 500 and status not in (401, 403, 408, 429))
    answered = attempt.exception is None or isinstance(attempt.exception, Unreadable)
    return answered and verdict


def is_refusal(evidence: Evidence) -> bool:
    """Whether the server answered with a JSON-RPC error."""
    return evidence.from_wire is True and evidence.code is not None


@dataclass
class Known:
    """What a manager knows of one server, whatever connection dials it."""

    era: Era | None = None
    cuts: int = 0
    """Times in a row that it was cut at `server/discover` and then shook hands as legacy."""
    started: bool = False
    """A child has shaken hands: what it needs is on this machine."""
    sse: bool = False
    """It speaks the transport of 2024-11-05, though nobody said so."""
    modern_only: bool = False
    """It refused `initialize`, and is a modern server."""
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
        return Known() if config.kind in ("memory", "transport") else self._known.setdefault(key, Known())


def _no_stream(error: BaseException) -> bool:
    return any(isinstance(each, NoEndpoint) for each in walk(error))


class Negotiation:
    """One dial: one opening, or two where the first was cut at `server/discover`."""

    def __init__(self, known: Known, mode: str, allowed: float, *, open_transport: bool = False) -> None:
        """
        Args:
            known: What is known of the server.
            mode: The configured one.
            allowed: Seconds that the dial may take.
            open_transport: It has a URL, and nobody has said which transport it speaks.
        """
        self._known = known
        self._prefers_legacy = mode == PREFER_LEGACY and not known.modern_only
        mode = "auto" if mode == PREFER_LEGACY else mode
        self._mode = mode
        self._open_transport = open_transport
        self.sse = open_transport and known.sse
        """The next opening is over the transport of 2024-11-05."""
        self._refused: Evidence | None = None
        """What the POST was answered with, before that was tried."""
        self._remembered = mode == "auto" and known.era == "legacy"
        """The next opening relies on what is remembered."""
        self.mode = "legacy" if self._remembered or self.sse or self._prefers_legacy else mode
        """The SDK's connect mode of the next opening."""
        self.discovery = Discovery(allowed)
        self._second = False
        """A second opening is under way: there is no third."""
        self._guessed: Evidence | None = None
        """Why the first opening failed, in the second."""

    def opened(self, era: Era) -> None:
        """The handshake is done."""
        known = self._known
        # The next start of this command gets the usual time: what it needs has been fetched.
        known.started, known.waited, known.sse = True, 0.0, self.sse
        if self._prefers_legacy and era == "modern":
            known.modern_only = True
        # One that is modern as well, and was late to say so, may be asked again the next time.
        if self.discovery.answered and not (self.discovery.modern and era == "legacy"):
            known.era, known.cuts = era, 0
        elif self._guessed is not None:
            known.cuts += 1
            if known.cuts >= CUTS:
                known.era = "legacy"

    def again(self, error: BaseException, evidence: Evidence) -> bool:
        """Whether a failed opening is followed by another, at once: one as legacy, or one that asks again."""
        # Read before it is dropped: whether this was a guess decides what may follow.
        known, unknown = self._known, self._known.era is None
        if self._older(evidence):
            self._refused, self.sse, self._second = evidence, True, True
            self.mode, self.discovery = "legacy", Discovery(self.discovery.allowed)
            return True
        if self.sse and not self._second and (400 <= (evidence.http_status or 0) < 500 or _no_stream(error)):
            # It may have been replaced by a server that speaks the present transport.
            self.sse, self._second = False, True
            self.mode, self.discovery = self._mode, Discovery(self.discovery.allowed)
            return True
        known.era = None
        following = None if self._second else self._following(error, evidence, unknown=unknown)
        if following is None:
            known.cuts = 0
            return False
        # There is no third opening: the dial has one timeout for both.
        self._second = True
        self.mode, self.discovery = following, Discovery(self.discovery.allowed)
        return True

    def _following(self, error: BaseException, evidence: Evidence, *, unknown: bool) -> str | None:
        """The mode of the second opening."""
        if is_refusal(evidence) and (self._remembered or self._prefers_legacy or self.discovery.mute):
            # It may have been replaced by a modern server, be one, or be one that was slow to start.
            return "auto"
        if self.mode == "auto" and unknown and self._cut(error, evidence):
            self._guessed = evidence
            return "legacy"
        return None

    def evidence(self, evidence: Evidence) -> Evidence:
        """What the dial failed of, where the last opening failed of `evidence`.

        A guess that is refused was a wrong one. It says nothing about the server, which may be a modern one
        that was away for a moment: then what counts is how it was away.
        """
        if self._refused is not None:
            return self._refused
        return self._guessed if self._guessed is not None and is_refusal(evidence) else evidence

    def _older(self, evidence: Evidence) -> bool:
        """Whether the server may be one of 2024-11-05."""
        known = self._known
        asked = self._open_transport and not self.sse and self._mode in ("auto", "legacy")
        # One that answers with a JSON-RPC error speaks the present transport, and refuses the older era.
        modern = self._prefers_legacy and is_refusal(evidence)
        unknown = known.sse or not (known.started or modern)
        refused = evidence.http_status in NO_POST and not evidence.session_sent
        return asked and unknown and refused and self.discovery.initializing.is_set()

    def _cut(self, error: BaseException, evidence: Evidence) -> bool:
        if self.discovery.cut:
            return True
        if not any(isinstance(each, EraUnknown) for each in walk(error)):
            return False
        away = evidence.http_status in NOT_NOW and evidence.retry_after is None
        return evidence.written is not False and (away or evidence.http_status is None)
