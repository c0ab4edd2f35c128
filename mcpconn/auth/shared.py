"""Tokens in a store that processes and machines share, which may have lost what was written last.

A failover to a server that lacks the last writes can take a mark away, or the tokens of a refresh. A process that reads
the record then finds a refresh token that was spent, without a mark that says so. So each record is stored with the
epoch of the store (see `mcpconn.redis.standing`) in which it was known to be the latest. In a later epoch it is in
doubt: its access token is used, its refresh token is not, until a person logs in. A process that holds later tokens in
its memory stores them, but they stay in doubt: others may have refreshed after it, and the store may have lost that,
too.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.record import NotARecord, TokenRecord, parse_json
from mcpconn.auth.store import StoredTokens
from mcpconn.redis.standing import Standing

LIFETIME = 180 * 86_400.0
"""Seconds for which tokens are kept after their last renewal: most refresh tokens have ended by then."""
EPOCH = "epoch"
"""The key, beside those of the record, of the epoch in which it was the latest."""
DOUBT = (
    "the store of the tokens has changed over to a server that may lack what was written last: the refresh token may "
    "be used up already, and is not used again"
)


class SharedTokens(StoredTokens, ABC):
    """A `TokenStore` on one sealed value that is changed by compare-and-set."""

    @abstractmethod
    async def _get(self) -> tuple[bytes, int] | None:
        """What is stored, opened, and its version.

        Raises:
            CredentialsRefused: it cannot be opened.
            CredentialsUnavailable: the store does not answer.
        """

    @abstractmethod
    async def _put(self, value: bytes, version: int | None) -> bool:
        """Store a value durably if the stored version is `version`, or if there is none. Whether it was.

        Raises:
            CredentialsUnavailable: the store does not answer. It is not known whether the value is stored.
        """

    @property
    @abstractmethod
    def _standing(self) -> Standing:
        """How the store is, as of its last answer."""

    async def load(self) -> TokenRecord:
        """The record; one of generation 0 if there is none.

        Raises:
            CredentialsRefused: what is stored cannot be read.
            CredentialsUnavailable: the store does not answer.
        """
        found = await self._get()
        epoch = self._standing.epoch
        if found is None:
            return TokenRecord(basis=(epoch, epoch))
        record, known = self._parsed(found[0])
        return record.with_basis((known, epoch), doubt=DOUBT if known != epoch else None)

    async def replace(self, record: TokenRecord) -> bool:
        """Store `record`, if what is stored has the generation before it. See `TokenStore.replace`.

        Raises:
            CredentialsRefused, CredentialsUnavailable: as `load`; the latter also for a mark that the store might lose.
        """
        unfit = self._standing.unfit
        if record.mark is not None and unfit is not None:
            raise CredentialsUnavailable(f"the tokens are not refreshed, because of their store: {unfit}")
        found = await self._get()
        stored = self._parsed(found[0])[0].generation if found is not None else 0
        if stored != record.generation - 1:
            return False
        known, seen = record.basis or self.basis()
        value = json.dumps({**record.to_json(), EPOCH: known}).encode()
        written = await self._put(value, None if found is None else found[1])
        # If the store has lost something since the record was read, this one may follow one that is not the latest: a
        # refresh token must not be sent on the strength of its mark.
        return written and (record.mark is None or self._standing.epoch == seen)

    def basis(self) -> tuple[str, str]:
        """For tokens that come now. They are the latest as long as the store loses nothing from now on."""
        return self._standing.epoch, self._standing.epoch

    def _parsed(self, value: bytes) -> tuple[TokenRecord, str]:
        """What a value holds: the record, and the epoch in which it was the latest."""
        try:
            data = parse_json(value)
            return TokenRecord.from_json(data), str(data.get(EPOCH, ""))
        except NotARecord:
            pass
        # Outside the handler: a parser's error may quote what was stored.
        raise CredentialsRefused(f"{self!r} does not hold valid tokens")
