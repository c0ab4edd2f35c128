"""The era of a server: how a dial determines it, and what a manager remembers.

A dial sends `server/discover`. The SDK interprets every JSON-RPC error as the answer of a legacy server and sends
`initialize` on the same session. That leaves servers which do not answer at all:

    it ends, or cuts the connection        open once more, as legacy, at once
    HTTP 502, 503, 504 without a wait      the same
    a server that stays mute               `initialize` on the same session; a child that is mute to that as well is
                                           replaced by one that is dialled as legacy
    refused, unauthorized, told to wait    says nothing about the era: the dial fails

An opening as legacy after a cut is a guess. It is remembered after it has worked twice; an answer is remembered at
once. Remembered information is dropped when a dial with it fails, and in case of doubt the next dial asks again,
because a modern server that was dialled during a restart must not permanently count as an old one.

A dial that prefers the legacy era (`prefer-legacy`) begins with `initialize`, and a server that refuses it is asked as
above, in the same dial. If it is a modern one, later dials ask it so from the beginning.

The transport of 2024-11-05 (HTTP+SSE) is found as the specification says (2025-11-25, transports, backwards
compatibility): the POST of `initialize` is answered with 400, 404 or 405, and a GET opens an event stream that
begins with an `endpoint`. It is tried only if nothing is known about the server, no session id was sent, and the
transport is not configured. If the server does not support it, the dial fails with the answer to the POST.

When many connections to one URL start together, the first dial asks and the others wait for its answer
(`Negotiation.begin`). The wait costs no time: it ends with the answer that each of them would have waited for.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import anyio

from mcpconn.checks import PREFER_LEGACY
from mcpconn.config import ServerConfig
from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Era, Evidence
from mcpconn.core.seen import walk
from mcpconn.wire.discovery import Discovery
from mcpconn.wire.messages import Unreadable

CUTS = 2
"""Number of successful legacy openings after a cut before the era is remembered."""
ASK_PATIENCE = 0.5
"""Seconds that a dial waits for the answer to another dial's `server/discover`; then it asks for itself. Most servers
answer within it, and one connection that hangs must not visibly delay the others."""
NO_POST = (400, 404, 405)
"""HTTP statuses of `initialize` after which a server may be one of 2024-11-05."""
NOT_NOW = (502, 503, 504)
"""HTTP statuses of a gateway whose server dropped the request or is unreachable."""


class EraUnknown(Exception):
    """`server/discover` failed over HTTP in a way that is no evidence of the server's era. The opening must fail.

    Otherwise the SDK's negotiation interprets any error as "an old server", and an outage at the wrong moment would
    make a modern server a legacy one.
    """


class NoEndpoint(Exception):
    """The event stream did not begin with a usable `endpoint`, so it is not that of an HTTP+SSE server."""


def tells_era(attempt: Attempt) -> bool:
    """Whether a failed `server/discover` means that the server is a legacy one: it answered, and the answer is not
    temporary.

    Some old servers answer an unknown method with 500 or 501.
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
    """What a manager knows about one server, independent of the connection."""

    era: Era | None = None
    cuts: int = 0
    """Consecutive times that it was cut at `server/discover` and then completed a legacy handshake."""
    started: bool = False
    """Whether a child has completed a handshake, so that everything it needs is on this machine."""
    sse: bool = False
    """Whether it uses the transport of 2024-11-05, although that is not configured."""
    modern_only: bool = False
    """Whether it refused `initialize` and is a modern server."""
    waited: float = 0.0
    """Total seconds of failed starts before the first successful one."""
    asking: Discovery | None = None
    """The `server/discover` of a dial in progress, for whose answer other dials wait."""


class Eras:
    """What the connections of one manager know about their servers' eras."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Known] = {}

    def of(self, config: ServerConfig) -> Known:
        """By command line and directory, or by URL."""
        key = config.url if config.url is not None else (config.command, tuple(config.args), config.cwd)
        # Servers in this process have no key.
        return Known() if config.kind in ("memory", "transport") else self._known.setdefault(key, Known())


def _no_stream(error: BaseException) -> bool:
    return any(isinstance(each, NoEndpoint) for each in walk(error))


class Negotiation:
    """One dial: one opening, or two if the first was cut at `server/discover`."""

    def __init__(self, known: Known, mode: str, allowed: float, *, open_transport: bool = False) -> None:
        """
        Args:
            known: What is known about the server.
            mode: The configured mode.
            allowed: Seconds for the dial.
            open_transport: Whether it has a URL and the transport is not configured.
        """
        self._known = known
        self._prefers_legacy = mode == PREFER_LEGACY and not known.modern_only
        mode = "auto" if mode == PREFER_LEGACY else mode
        self._mode = mode
        self._open_transport = open_transport
        self.sse = open_transport and known.sse
        """The next opening is over the transport of 2024-11-05."""
        self._refused: Evidence | None = None
        """The answer to the POST, before that was tried."""
        self._remembered = mode == "auto" and known.era == "legacy"
        """Whether the next opening relies on remembered information."""
        self.mode = "legacy" if self._remembered or self.sse or self._prefers_legacy else mode
        """The SDK's connect mode of the next opening."""
        self.discovery = Discovery(allowed)
        self._asked: Discovery | None = None
        """The `server/discover` of this dial, if other dials wait for its answer."""
        self._second = False
        """Whether the second opening is in progress; there is no third."""
        self._guessed: Evidence | None = None
        """During the second opening: why the first failed."""

    async def begin(self) -> None:
        """If another dial is asking for the era of this server, wait for its answer. Otherwise this dial asks."""
        known = self._known
        if known.era is not None or self.mode != "auto":
            return
        asking = known.asking
        if asking is None:
            known.asking = self._asked = self.discovery
            return
        # A fraction of a short dial, so that enough time is left for the handshake.
        with anyio.move_on_after(min(ASK_PATIENCE, self.discovery.allowed / 4)):
            await asking.settled.wait()
        if known.era == "legacy" or asking.refused:
            # Not yet remembered, because the other dial has only begun its handshake. If this one fails, it asks.
            self._remembered, self.mode = True, "legacy"

    def end(self) -> None:
        """The dial has ended, or has opened a session: other dials no longer wait for its answer."""
        asking = self._known.asking
        if asking is not None and asking is self._asked:
            self._known.asking = None
            asking.settled.set()

    def opened(self, era: Era) -> None:
        """The handshake is done."""
        known = self._known
        # The next start of this command gets the usual time, because everything it needs has been downloaded.
        known.started, known.waited, known.sse = True, 0.0, self.sse
        if self._prefers_legacy and era == "modern":
            known.modern_only = True
        # A server that also supports the modern era, but answered late, may be asked again next time.
        if self.discovery.answered and not (self.discovery.modern and era == "legacy"):
            known.era, known.cuts = era, 0
        elif self._guessed is not None:
            known.cuts += 1
            if known.cuts >= CUTS:
                known.era = "legacy"
        self.end()

    def again(self, error: BaseException, evidence: Evidence) -> bool:
        """Whether to make a second opening at once: as legacy, or with another `server/discover`."""
        # Read before it is dropped, because the next step depends on whether this was a guess.
        known, unknown = self._known, self._known.era is None
        if self._older(evidence):
            self._refused, self.sse, self._second = evidence, True, True
            self.mode, self.discovery = "legacy", Discovery(self.discovery.allowed)
            return True
        if self.sse and not self._second and (400 <= (evidence.http_status or 0) < 500 or _no_stream(error)):
            # It may have been replaced by a server with the current transport.
            self.sse, self._second = False, True
            self.mode, self.discovery = self._mode, Discovery(self.discovery.allowed)
            return True
        known.era = None
        following = None if self._second else self._following(error, evidence, unknown=unknown)
        if following is None:
            known.cuts = 0
            return False
        # There is no third opening, because the dial has one timeout for both.
        self._second = True
        self.mode, self.discovery = following, Discovery(self.discovery.allowed)
        return True

    def _following(self, error: BaseException, evidence: Evidence, *, unknown: bool) -> str | None:
        """The mode of the second opening."""
        if is_refusal(evidence) and (self._remembered or self._prefers_legacy or self.discovery.mute):
            # The server may have been replaced by a modern one, or be a modern one that was slow to start.
            return "auto"
        if self.mode == "auto" and unknown and self._cut(error, evidence):
            self._guessed = evidence
            return "legacy"
        return None

    def evidence(self, evidence: Evidence) -> Evidence:
        """The failure of the dial, if the last opening failed with `evidence`.

        If a guess is refused, it was wrong. That is no evidence about the server, which may be a modern one that was
        briefly unreachable: then the first failure counts.
        """
        if self._refused is not None:
            return self._refused
        return self._guessed if self._guessed is not None and is_refusal(evidence) else evidence

    def _older(self, evidence: Evidence) -> bool:
        """Whether the server may use the transport of 2024-11-05."""
        known = self._known
        asked = self._open_transport and not self.sse and self._mode in ("auto", "legacy")
        # A server that answers with a JSON-RPC error uses the current transport and refuses the older era.
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
