"""The `requestState` of a call with several rounds: the owner of the state, and the name of the round.

A modern server's own state passes through; the name of a parked call is ours. Both travel in one wrapper, which the
SDK's `RequestStateBoundary` seals to the principal, the view and the request. Each round has a name of its own that is
a key in the ledger: the same round sent again joins the first, or gets its answer.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp import MCPError
from mcp_types import INVALID_PARAMS

from mcpconn.gateway.rewrite import Json

ROUND = "round/"
"""What a round's name in the ledger begins with. A client's own keys do not."""


@dataclass(frozen=True)
class Rounds:
    """What a request says about the round that it is."""

    parked: str | None = None
    """The name of the parked call it goes on with."""
    state: str | None = None
    """The state that its server gave out."""
    key: str | None = None
    """The round's name in the ledger; None in the first round."""
    responses: Mapping[str, Any] | None = None
    owner: str = ""
    """The replica in which the call is parked."""
    salient: Json = field(default_factory=dict)
    """What of it belongs to the call's fingerprint."""

    @classmethod
    def opened(cls, params: Json) -> Rounds:
        """From a request whose state was unsealed.

        Raises:
            MCPError: the state is none of this gateway's.
        """
        text, responses = params.get("requestState"), params.get("inputResponses")
        if text is None:
            return cls(responses=responses)
        try:
            content = json.loads(text)
            kind, state, key = content["kind"], content["state"], content["round"]
        except (ValueError, KeyError, TypeError):
            raise MCPError(INVALID_PARAMS, "Invalid or expired requestState") from None
        if kind == "parked":
            return cls(parked=state, responses=responses, owner=str(content.get("owner", "")))
        return cls(state=state, key=f"{ROUND}{key}", responses=responses, salient={"requestState": state})

    def into(self, sent: Json) -> None:
        """Put the server's own state into the request that goes to it."""
        sent.pop("requestState", None)
        if self.state is not None:
            sent["requestState"] = self.state

    @staticmethod
    def passed(answer: Json) -> Json:
        """A modern server's `input_required`, on its way to a modern client."""
        if answer.get("resultType") != "input_required" or not isinstance(answer.get("requestState"), str):
            return answer
        return {**answer, "requestState": wrapped("server", answer["requestState"])}


def wrapped(kind: str, state: str, *, owner: str = "") -> str:
    """A state as it goes out, with a name for the round that it begins.

    Args:
        kind: `server` or `parked`.
        state: The server's own, or the name of the parked call.
        owner: The replica in which it is parked; nothing if there are no others.
    """
    content = {"kind": kind, "state": state, "round": secrets.token_urlsafe(12)}
    return json.dumps({**content, **({"owner": owner} if owner else {})}, separators=(",", ":"))
