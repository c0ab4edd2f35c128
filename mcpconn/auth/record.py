"""What is stored of one login: tokens, the client's registration, who issued them, and whether a refresh is in
progress.

A record has a generation. Every change is a new record with the next generation, written by compare-and-set:
`TokenStore.replace` succeeds for one of several writers, and the others read the result. Before a refresh token is
sent, a record with a mark is written. A process that finds another's mark knows that the refresh token may already have
been used, and does not send it: a server that rotates refresh tokens revokes the whole login when it sees one twice
(RFC 9700, 4.14.2).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

SOONEST, LATEST = 0.0, 253402300799.0
"""Seconds since 1970: the beginning of time, and the end of the year 9999, which no token outlives."""


class NotARecord(ValueError):
    """Stored data that are not a record. The text does not quote them."""


@dataclass(frozen=True)
class Mark:
    """A note that a process is about to use the record's refresh token, or has used it."""

    holder: str
    """The holder: a unique name that a person can understand (host, process)."""
    since: float
    """When, in seconds since 1970."""


@dataclass(frozen=True)
class TokenRecord:
    """Everything stored of one login. Immutable: `successor` makes the next one."""

    generation: int = 0
    """Number of the record; 0: nothing has been stored yet."""
    tokens: OAuthToken | None = None
    expires_at: float | None = None
    """When the access token ends, in seconds since 1970; None if that is not known."""
    issuer: str | None = None
    """The authorization server that issued the tokens. The refresh token is sent to no other."""
    server: str | None = None
    """Origin of the MCP server that the tokens are for. The access token is sent to no other."""
    client: OAuthClientInformationFull | None = None
    """The client's registration; its `issuer` says with whom."""
    rotates: bool | None = None
    """Whether the last refresh came with another refresh token; None before the first."""
    mark: Mark | None = None
    """A refresh is in progress, or was never finished."""
    doubt: str | None = None
    """Why the refresh token may be spent although there is no mark; None if there is no such reason. Not stored."""
    basis: tuple[str, str] | None = field(default=None, compare=False, repr=False)
    """What the store that it was read from has to know if a successor of it is written. Not stored."""

    def successor(self, **changes: Any) -> TokenRecord:
        """The record after this one, with `changes`. Other tokens make it independent of what was read."""
        if "tokens" in changes:
            changes = {"doubt": None, "basis": None, **changes}
        return replace(self, generation=self.generation + 1, **changes)

    def with_basis(self, basis: tuple[str, str], *, doubt: str | None) -> TokenRecord:
        """The record as a store gives it out."""
        return replace(self, basis=basis, doubt=doubt)

    def current_tokens(self) -> OAuthToken | None:
        """The tokens, `expires_in` counted from now, as the SDK's `TokenStorage` gives them."""
        if self.tokens is None or self.expires_at is None:
            return self.tokens
        return self.tokens.model_copy(update={"expires_in": max(0, int(self.expires_at - time.time()))})

    def to_json(self) -> dict[str, Any]:
        """For JSON, what is not known left out. The result holds secrets."""
        data: dict[str, Any] = {
            "generation": self.generation,
            "tokens": self.tokens and self.tokens.model_dump(mode="json", exclude_none=True),
            "expires_at": self.expires_at,
            "issuer": self.issuer,
            "server": self.server,
            "client": self.client and self.client.model_dump(mode="json", exclude_none=True),
            "rotates": self.rotates,
            "mark": self.mark and {"holder": self.mark.holder, "since": self.mark.since},
        }
        return {key: value for key, value in data.items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TokenRecord:
        """The record that `to_json` was given.

        Raises:
            NotARecord: it is something else.
        """
        mark = data.get("mark")
        if mark is not None and not isinstance(mark, Mapping):
            raise NotARecord("mark")
        rotates = data.get("rotates")
        generation = data.get("generation", 0)
        if type(generation) is not int or not 0 <= generation < 2**53 or rotates not in (None, True, False):
            raise NotARecord("generation")
        return cls(
            generation=generation,
            tokens=_parsed(OAuthToken, data.get("tokens")),
            expires_at=_moment(data.get("expires_at")),
            issuer=_text(data.get("issuer")),
            server=_text(data.get("server")),
            client=_parsed(OAuthClientInformationFull, data.get("client")),
            rotates=rotates,
            mark=None if mark is None else Mark(str(mark.get("holder")), _moment(mark.get("since")) or SOONEST),
        )


@runtime_checkable
class TokenStore(Protocol):
    """A store for a record, shared by all processes and machines that can reach it.

    The protocol has two methods. `FileTokenStorage` implements it; any storage with a compare-and-set can (a script in
    Redis, a row in a database). `mcpconn.auth.StoredTokens` adds the methods of the SDK's `TokenStorage` on top of it.

    A store that can prove that a holder has died, or that can make others wait during a refresh, has a third method,
    `lock()`: an async context manager. It is an optimization and a proof; safety does not depend on it.
    """

    async def load(self) -> TokenRecord:
        """The record; one of generation 0 if there is none.

        Raises:
            CredentialsRefused: what is stored cannot be read, and a person has to look.
            CredentialsUnavailable: the store does not answer.
        """

    async def replace(self, record: TokenRecord) -> bool:
        """Store `record`, if what is stored now has the generation before it.

        It must be durable when this returns, because a refresh token is sent only after its mark is stored.

        Returns:
            False if another writer was faster. Nothing is stored then.

        Raises:
            CredentialsRefused, CredentialsUnavailable: as `load`. It is not known whether `record` is stored.
        """


def parse_json(content: bytes | str) -> dict[str, Any]:
    """A JSON object, strictly: no NaN, no Infinity, no nesting deeper than the parser goes.

    Raises:
        NotARecord: it is none.
    """
    try:
        data = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise NotARecord("no JSON object")
    return data


def _no_number(name: str) -> float:
    raise ValueError(name)


def _parsed(model: type[Model], value: Any) -> Model | None:
    if value is None:
        return None
    try:
        return model.model_validate(value)
    except (ValidationError, RecursionError):
        pass
    # Raised out here, so that it has no context: what the validation says quotes the values, and they are secrets.
    raise NotARecord(model.__name__)


def _moment(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NotARecord("a time")
    if not (isinstance(value, int) or math.isfinite(value)) or not SOONEST <= value <= LATEST:
        raise NotARecord("a time")
    return float(value)


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise NotARecord("a text")
    return value
