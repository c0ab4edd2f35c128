"""Signatures between replicas: who sent a forwarded request, to whom, and that it was not sent before.

Each forwarded request carries an envelope: everything that the receiver acts upon (method, path, headers, the hash of
the body, the principal, the number of the lease, the receiver, the time and a nonce), with an HMAC-SHA256 over all of
it. The key is derived from the gateway's key ring, so that a ring is rotated for both at once. The answer's head is
signed as well: a process that has taken over the address of a replica that is gone cannot answer in its place.

Whether a request is old is decided by the receiver's clock. A receiver whose clock differs from the sender's by more
than the window refuses the request and says its own time, signed, and the sender signs by that clock from then on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mcpconn.gateway.principals import Principal
from mcpconn.seal import KeyRing

WINDOW = 60.0
"""Seconds for which a request may be on its way, or its sender's clock differ. Nonces are remembered for twice as long.
"""
CLOCKS = 1_000
"""Replicas whose clock is remembered to differ from ours."""
NONCES = 200_000
"""Nonces that are remembered. When as many come within the window, further requests are refused, not let in unseen."""
LONGEST = 48 * 1024
"""Characters of an envelope; the listener reads heads of up to 64 KiB."""


class Unsigned(Exception):
    """A request between replicas is not what it should be. The text says why, for the log; the sender gets none."""


class OtherClock(Unsigned):
    """A request between replicas is as it should be, but for its time."""

    def __init__(self, nonce: str, now: float, seconds: float) -> None:
        """
        Args:
            nonce: The request's.
            now: The receiver's time, in seconds since 1970.
            seconds: By how much the receiver's clock is ahead.
        """
        super().__init__(f"it was signed {seconds:.0f} s ago: the replicas' clocks differ")
        self.nonce, self.now = nonce, now


@dataclass(frozen=True)
class Envelope:
    """What one replica asks of another."""

    to: str
    """The replica that is meant. After a restart, or once it has lost its lease, it has another name."""
    action: str
    """`session` for a request of a legacy session, `principal` for one of a modern client, `resume` for a parked call.
    """
    key: str
    """Of what is owned; see `ownership`."""
    number: int
    """The fencing number under which the receiver owns it, as the sender knows it."""
    method: str
    view: str
    headers: tuple[tuple[str, str], ...]
    """Of the client's request, those that matter. No credentials are among them."""
    principal: tuple[str, str, str]
    """Client, issuer and subject."""
    rights: dict[str, Any] | None
    """What the principal may use, as its rule says; None: everything."""
    body: str
    """SHA-256 of the request's body, in hexadecimal."""
    new: bool = True
    """Whether it begins something. An answer to a question and a notification belong to something in progress."""
    asks: bool = False
    """The receiver has to ask for the go-ahead before the request goes out, and answers in frames; see `go_ahead`."""
    time: float = 0.0
    nonce: str = field(default="")

    @property
    def whom(self) -> Principal:
        """Whom the request is from."""
        client, issuer, subject = self.principal
        return Principal(client, issuer=issuer, subject=subject)


def digest(body: bytes) -> str:
    """The hash of a body, as an envelope has it."""
    return hashlib.sha256(body).hexdigest()


class Signer:
    """Signs and checks what goes between replicas."""

    def __init__(self, ring: KeyRing, *, wall: Callable[[], float] = time.time) -> None:
        """
        Args:
            ring: Its first secret signs, each of them checks.
            wall: Seconds since 1970.
        """
        self._keys: Sequence[bytes] = ring.derived("fleet forwarding")
        self._wall = wall
        self._seen: OrderedDict[str, float] = OrderedDict()
        # By the name of a replica, the seconds by which its clock is ahead of this one's.
        self._ahead: OrderedDict[str, float] = OrderedDict()

    def sign(self, envelope: Envelope) -> tuple[str, str, str]:
        """The envelope as text, its signature, and its nonce. Time and nonce are set here."""
        nonce = secrets.token_urlsafe(18)
        content = {**asdict(envelope), "time": self._wall() + self._ahead.get(envelope.to, 0.0), "nonce": nonce}
        if not envelope.asks:
            # A replica of a version that knows nothing of it refuses what it cannot read.
            del content["asks"]
        text = base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).decode("ascii")
        return text, _mac(self._keys[0], "request", text), nonce

    def open(self, text: str, signature: str, *, me: str) -> Envelope:
        """The envelope of a request.

        Args:
            text: As it came.
            signature: The same.
            me: The receiver's present name.

        Raises:
            Unsigned: it was not made with this ring, is for another replica, or came before.
            OtherClock: it is too old, or from the future.
        """
        if len(text) > LONGEST or not any(
            hmac.compare_digest(_mac(key, "request", text), signature) for key in self._keys
        ):
            raise Unsigned("the signature is wrong")
        try:
            content = json.loads(base64.urlsafe_b64decode(text.encode("ascii")))
            content["headers"] = tuple((str(name), str(value)) for name, value in content["headers"])
            content["principal"] = tuple(content["principal"])
            envelope = Envelope(**content)
        except (ValueError, TypeError, KeyError, binascii.Error) as error:
            # Signed by one of us, so it is another version's.
            raise Unsigned(f"the envelope cannot be read: {type(error).__name__}") from None
        if envelope.to != me:
            raise Unsigned("it is for another replica")
        now = self._wall()
        if abs(now - envelope.time) > WINDOW:
            raise OtherClock(envelope.nonce, now, now - envelope.time)
        self._remember(envelope.nonce)
        return envelope

    def _remember(self, nonce: str) -> None:
        now = time.monotonic()
        while self._seen and next(iter(self._seen.values())) <= now:
            self._seen.popitem(last=False)
        if nonce in self._seen:
            raise Unsigned("it came before")
        if len(self._seen) >= NONCES:
            raise Unsigned("too many requests arrived to tell whether this one is a repeat")
        # An envelope may be as much as a window ahead of this clock, and is good for a window after that.
        self._seen[nonce] = now + 2 * WINDOW

    def follow_clock(self, name: str, now: str) -> float:
        """Sign by the clock of a replica from now on.

        Args:
            name: The replica.
            now: Its time, in seconds since 1970.

        Returns:
            The seconds by which it is ahead.
        """
        self._ahead[name] = ahead = float(now) - self._wall()
        while len(self._ahead) > CLOCKS:
            self._ahead.popitem(last=False)
        return ahead

    def prove(self, nonce: str, status: int, now: str = "") -> str:
        """The signature of an answer's head, and of the time in it."""
        return _mac(self._keys[0], "answer", f"{nonce} {status} {now}".rstrip())

    def proven(self, nonce: str, status: int, signature: str, now: str = "") -> bool:
        """Whether an answer's head comes from one of us."""
        said = f"{nonce} {status} {now}".rstrip()
        return any(hmac.compare_digest(_mac(key, "answer", said), signature) for key in self._keys)


def _mac(key: bytes, what: str, text: str) -> str:
    return hmac.new(key, f"mcpconn/fleet/v1/{what}\n{text}".encode("utf-8", "surrogatepass"), "sha256").hexdigest()
