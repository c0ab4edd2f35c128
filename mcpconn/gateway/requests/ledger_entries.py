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
