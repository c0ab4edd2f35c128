"""What the ledger keeps of one call, and what it says about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import anyio

from mcpconn.gateway.store import Key

OTHER_CALL = "this idempotency key was used for another call (another tool, other arguments); use a new key"


class Outcome(Enum):
    """What the ledger says about a call before anything is run."""

    NEW = "new"
    """Nothing is known of this key: the call may go on to `send`."""
    ANSWERED = "answered"
    """It ran, and here is its answer."""
    ANSWER_LOST = "answer lost"
    """It ran; its answer was too long to be kept."""
    UNKNOWN = "unknown"
    """It was sent by a process that is gone: it may have run."""


@dataclass(frozen=True)
class Found:
    """The answer to a look at the ledger."""

    outcome: Outcome
    answer: Mapping[str, Any] | None = None
    """The JSON-RPC result or error as it was given the first time: `{"result": ...}` or `{"error": ...}`."""


class LedgerRefused(Exception):
    """The key is invalid for this call. The text says why; nothing was run."""


class Entry:
    """One call with a key, on its way through the gateway."""

    def __init__(self, key: Key, fingerprint: str, epoch: str = "") -> None:
        self.key = key
        self.fingerprint = fingerprint
        self.epoch = epoch
        """Of the store when it was looked at. If it is another one later, what was found may be out of date."""
        self.version: int | None = None
        """Of the record, once this process wrote it: the token by which alone it may be changed."""
        self.token = ""
        """Of the record that this process writes: it tells the record from another of the same key."""
        self.changed = anyio.Event()
        """Set and replaced when the call is over in this process, or asks; who joins it here waits for that."""
        self.over = False
        self.asking: Mapping[str, Any] | None = None
        """The last question that the call waits for an answer to, as it went out."""
        self.cancel: Callable[[], None] | None = None
        """Cancels the call."""

    def told(self, fingerprint: str) -> Found | None:
        """What this call, which runs in this process, says to a repeat: the question that it asks, if it does.

        Raises:
            LedgerRefused: it is another call.
        """
        if self.fingerprint != fingerprint:
            raise LedgerRefused(OTHER_CALL)
        return None if self.asking is None else Found(Outcome.ANSWERED, {"result": self.asking})

    def ask(self, question: Mapping[str, Any]) -> None:
        """The call has asked its client something."""
        self.asking = question
        self._tell()

    def end(self) -> None:
        """The call is over."""
        self.over = True
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


def told(content: Mapping[str, Any], fingerprint: str) -> Found:
    """What a record of a call that is over says.

    Raises:
        LedgerRefused: it is another call.
    """
    if content["fingerprint"] != fingerprint:
        raise LedgerRefused(OTHER_CALL)
    if content["state"] != "answered":
        return Found(Outcome.UNKNOWN)
    answer = content["answer"]
    return Found(Outcome.ANSWER_LOST) if answer is None else Found(Outcome.ANSWERED, answer)


def fingerprint_of(method: str, server: str, params: Mapping[str, Any]) -> str:
    """What a call is, for comparison: server, name, arguments, and the answers to a server's questions.

    `_meta` and the view it came through do not count. Arguments are compared as JSON values: the order of an object's
    members means nothing.
    """
    salient = {key: params.get(key) for key in ("name", "uri", "arguments", "requestState", "inputResponses")}
    return hashlib.sha256(packed([method, server, salient], sort_keys=True)).hexdigest()


def packed(content: Any, *, sort_keys: bool = False) -> bytes:
    """JSON without spaces."""
    return json.dumps(content, separators=(",", ":"), sort_keys=sort_keys).encode("ascii")
