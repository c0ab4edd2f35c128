"""The tokens of one provider as this process holds them, and the record of them that others share.

The tokens in use are in the provider's context, which the SDK's methods read. The stored ones are a `TokenRecord`. It
can be older than the tokens in use (if a disk is full) or newer (if another process has renewed); this module
synchronizes them.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import anyio
from mcp.client.auth import OAuthClientProvider

from mcpconn.auth.credentials import CredentialsRefused, CredentialsStatus, CredentialsUnavailable
from mcpconn.auth.discovery import origin
from mcpconn.auth.record import Mark, TokenRecord
from mcpconn.auth.store import store_of
from mcpconn.auth.words import from_host, words
from mcpconn.redact.places import redact_url
from mcpconn.redact.redactor import Redactor
from mcpconn.sdk import oauth as sdk

logger = logging.getLogger("mcpconn")

LEEWAY = 10.0
"""Seconds before its end at which a token is renewed; a tenth of its remaining life where that is less."""
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0, 3.0, 5.0, 5.0, 5.0)
"""Seconds between two checks of the store while another process refreshes, 23 s in all. A token request ends after
20."""
ABANDONED = 60.0
"""Seconds after which a mark that stays is taken for one whose holder is gone, where the store has no lock that
proves it."""
LONG_WAIT = 2.0
"""Seconds of waiting for the store's lock from which on `status()` says so."""

Change = Callable[[TokenRecord], TokenRecord]
Test = Callable[[TokenRecord], bool]


class Overtaken(CredentialsUnavailable):
    """Another process wrote first."""


class HeldTokens:
    """Reads, writes and marks the record of one provider's tokens."""

    def __init__(self, provider: OAuthClientProvider) -> None:
        self.provider = provider
        self.loaded = False
        """The store was read since the last `forget`."""
        self.record = TokenRecord()
        """What is used, as it is or should be stored."""
        self._context = provider.context
        self._store = store_of(provider.context.storage)
        self._store_lock = getattr(self._store, "lock", None) or getattr(provider.context.storage, "lock", None)
        self._holder = f"{socket.gethostname()}, process {os.getpid()}, {secrets.token_hex(4)}"
        self._lock = anyio.Lock()
        self._unsaved: tuple[Change, Test] | None = None
        """A change that could not be stored yet. What is used is newer than what the store holds."""
        self._seen_mark: tuple[Mark, float] | None = None
        """A mark of another process, and when it was first seen, by this process's clock, because the other's may be
        wrong."""
        self._waiting_since: float | None = None

    def forget(self) -> None:
        """Read the store again before the next use, whatever is held now."""
        self.loaded = False
        self.record = TokenRecord()
        self._unsaved = None

    # -- what there is

    @property
    def access(self) -> str | None:
        """The access token."""
        tokens = self._context.current_tokens
        return tokens.access_token if tokens is not None else None

    @property
    def expiring(self) -> bool:
        """Whether the access token's time is over, or nearly."""
        tokens, end = self._context.current_tokens, self._context.token_expiry_time
        if tokens is None or end is None:
            return False
        return time.time() >= end - min(LEEWAY, (tokens.expires_in or 0) / 10)

    @property
    def unsaved(self) -> bool:
        """Whether what is used is newer than what is stored."""
        return self._unsaved is not None

    @property
    def expired(self) -> bool:
        """Whether the access token's time is over."""
        return time.time() >= (self._context.token_expiry_time or 0)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be shown nowhere."""
        tokens, client = self._context.current_tokens, self._context.client_info
        found = [tokens.access_token, tokens.refresh_token] if tokens is not None else []
        found.append(client.client_secret if client is not None else None)
        return tuple(value for value in found if value)

    def hide(self, text: str) -> str:
        """`text` without the secrets."""
        return Redactor(self.secrets)(text)

    def status(self) -> CredentialsStatus:
        """For `Connection.status()`."""
        return {
            "kind": type(self.provider).__name__,
            "issuer": redact_url(self.record.issuer) if self.record.issuer else None,
            "expires_at": self._context.token_expiry_time,
            "waiting": self._waiting(),
        }

    def _waiting(self) -> str | None:
        since = self._waiting_since
        if since is None or time.monotonic() - since < LONG_WAIT:
            return None
        holder = getattr(self._store, "holder", None)
        by = holder() if callable(holder) else None
        return (
            f"{self._store!r} has been locked by {by or 'another process'} for {time.monotonic() - since:.0f} s: "
            "it renews the tokens, or waits for a login"
        )

    # -- others

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Keep others from renewing: in this process, and in those that share a store with a lock."""
        async with self._lock:
            if self._store_lock is None:
                yield
                return
            self._waiting_since = time.monotonic()
            try:
                held = self._store_lock()
                await held.__aenter__()
            finally:
                self._waiting_since = None
            try:
                yield
            finally:
                await held.__aexit__(None, None, None)

    async def others(self) -> str | None:
        """Wait while another process is refreshing.

        Returns:
            None when it has finished; a text if it never will.

        Raises:
            CredentialsUnavailable: they have not finished yet.
        """
        pauses = iter(PAUSES)
        while True:
            mark = self.record.mark
            if self.record.rotates is False:
                # This server takes the same refresh token repeatedly: it cannot be used up.
                return None
            if self.record.doubt is not None:
                return self.record.doubt
            if mark is None or mark.holder == self._holder:
                return None
            when = datetime.fromtimestamp(mark.since, timezone.utc).isoformat(timespec="seconds")
            begun = f"{mark.holder} began to renew the tokens at {when} and has not finished"
            if self._seen_mark is None or self._seen_mark[0] != mark:
                self._seen_mark = mark, anyio.current_time()
            # This process holds the store's lock, so the holder of the mark does not, and has ended.
            if self._store_lock is not None or anyio.current_time() - self._seen_mark[1] >= ABANDONED:
                return f"{begun}: the refresh token may be used up already, and is not used again"
            pause = next(pauses, None)
            if pause is None:
                raise CredentialsUnavailable(begun)
            await anyio.sleep(pause)
            await self.load()

    # -- the store

    async def load(self) -> None:
        """Read the store, which another process may have written to.

        Raises:
            CredentialsRefused: it cannot be used.
            CredentialsUnavailable: it does not answer.
        """
        if self._unsaved is not None:
            await self.write(*self._unsaved)
            if self._unsaved is not None:
                return
        stored = await self._stored()
        if self.loaded and 0 < stored.generation < self.record.generation:
            # A failover or a restored backup lost what was written here: these tokens are newer. (Generation 0 is
            # a person who removed it all, to log out.)
            change, ours = self._again(stored)
            await self.write(change, ours, known=stored)
        else:
            self._adopt(stored)
        if sdk.brings_client(self.provider):
            tokens, end = self._context.current_tokens, self._context.token_expiry_time
            await sdk.initialize(self.provider)
            self._context.current_tokens, self._context.token_expiry_time = tokens, end
        self.loaded = True

    async def _stored(self) -> TokenRecord:
        return await from_host(self._store.load, f"{self._store!r} cannot be read", self.hide)

    async def mark(self) -> None:
        """Store a mark that the refresh token is about to be sent. Nothing may be sent before that.

        Raises:
            Overtaken: another process was faster; the stored record must be read again.
            CredentialsRefused, CredentialsUnavailable: it could not be said.
        """
        mark = Mark(self._holder, time.time())
        if not await from_host(lambda: self._set_mark(mark), f"{self._store!r} cannot be written to", self.hide):
            raise Overtaken("another process has just changed the stored tokens")

    async def unmark(self) -> None:
        """Nothing was spent, or what was is worth nothing: take the mark away."""
        try:
            await self._set_mark(None)
        except Exception as error:  # of the store, which may be host code
            self._not_saved(error)

    async def _set_mark(self, mark: Mark | None) -> bool:
        """Store the current record with this mark. False if another process has stored one since."""
        stored = self.record if self._unsaved is None else await self._store.load()
        if not await self._store.replace(stored.successor(mark=mark)):
            return False
        self.record = replace(self.record, generation=stored.generation + 1, mark=mark)
        return True

    async def renewed(self, spent: str | None, **changes: Any) -> None:
        """Store and use the tokens that came for the refresh token `spent`."""

        def ours(stored: TokenRecord) -> bool:
            # Otherwise a person has logged in or out since, which takes precedence.
            marked = stored.mark is not None and stored.mark.holder == self._holder
            return marked or (stored.tokens is not None and stored.tokens.refresh_token == spent)

        await self.write(lambda stored: stored.successor(**changes, mark=None), ours)

    def basis(self) -> tuple[str, str] | None:
        """What the store has to know later of tokens that come now."""
        basis = getattr(self._store, "basis", None)
        return basis() if callable(basis) else None

    def _again(self, older: TokenRecord) -> tuple[Change, Test]:
        """The present record once more, as the successor of an older one, whose doubt stays."""
        ours = replace(self.record, doubt=older.doubt, basis=older.basis)
        return (
            lambda stored: replace(ours, generation=stored.generation + 1, mark=None),
            lambda stored: True,
        )

    async def write(
        self, change: Change, mine: Test = lambda stored: True, *, known: TokenRecord | None = None
    ) -> None:
        """Store a change and use it. Where it cannot be stored it is used all the same: it may be the only copy.

        Args:
            change: Made to whatever is stored.
            mine: Whether it may be applied to a record that another process stored meanwhile; otherwise that record is
            used.
            known: What is stored, where that is not what is used.
        """
        retried, self._unsaved = self._unsaved is not None, (change, mine)
        record = change(known or self.record)
        self._adopt(record)
        try:
            if retried:
                record = change(await self._store.load())
            while not await self._store.replace(record):
                stored = await self._store.load()
                if not mine(stored):
                    record = stored
                    break
                record = change(stored)
            self._adopt(record)
        except Exception as error:  # of the store, which may be host code
            self._not_saved(error)
            return
        self._unsaved = None

    def _not_saved(self, error: Exception) -> None:
        logger.error("oauth.not_saved storage=%s why=%r", type(self._store).__name__, words(error, self.hide))

    def _adopt(self, record: TokenRecord) -> None:
        """Use what a record holds.

        Raises:
            CredentialsRefused: its tokens are for another server.
        """
        here = origin(self._context.server_url)
        if record.server is not None and record.server != here:
            raise CredentialsRefused(
                f"{self._store!r} holds the tokens of {record.server}, and this server is {here}: give each server a "
                "storage of its own, or move that one away"
            )
        before = self.access
        self.record = record
        self._context.current_tokens = record.current_tokens()
        if self.access != before:
            self._context.token_expiry_time = record.expires_at
        if not sdk.brings_client(self.provider):
            self._context.client_info = record.client
