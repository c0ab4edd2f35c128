"""One list of a server in the catalogue: its entries, the session that listed them, and later changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcpconn.catalog.listing import Listing, keyed
from mcpconn.runtime.session import Session


@dataclass(frozen=True)
class CatalogChange:
    """The differences from the last listing."""

    server: str
    kind: str
    """`tools`, `resources`, `templates` or `prompts`."""
    added: tuple[str, ...]
    """Names; for resources and templates, URIs."""
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    epoch: int
    """The session that listed them."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


class Entries:
    """One list, across sessions."""

    __slots__ = (
        "_client",
        "_following",
        "_pages",
        "_pages_began",
        "announced",
        "began",
        "complete",
        "doubted",
        "epoch",
        "got",
        "kind",
        "known",
        "retry",
        "seen",
        "tried",
        "wanted",
    )

    def __init__(self, kind: str, *, wanted: bool) -> None:
        """
        Args:
            kind: One of `mcpconn.catalog.KINDS`.
            wanted: Whether the list is needed from the beginning.
        """
        self.kind = kind
        self.known: dict[str, Any] = {}
        self.epoch = 0
        """The session that listed the entries; 0 before the first listing."""
        self.complete = False
        """Whether the entries are complete."""
        self.wanted = wanted
        """Whether the list is needed, so that every new session lists it."""
        self.announced = 0
        """How often the server announced a change."""
        self.doubted = False
        """Whether the event stream was interrupted since the listing, so that a change may have been missed."""
        self.seen = 0
        """The value of `announced` when the listing of the entries began."""
        self.began = 0
        """Number of the last listing. All listings of a catalogue are numbered in the order in which they started."""
        self.got = 0
        """Number of the listing that the entries come from."""
        self.tried = 0
        """The session of the last listing."""
        self.retry = False
        """Whether the last listing failed for a reason that may be temporary."""
        self._client: Any = None
        self._pages: dict[str, Any] = {}
        self._pages_began = 0
        self._following: str | None = None

    def fresh(self, session: Session) -> bool:
        """Whether `session` listed it, and no change was announced or may have been missed since."""
        return self.epoch == session.epoch and self.announced == self.seen and not self.doubted

    def due(self, session: Session) -> bool:
        """Whether `session` should list it again, because it has changed or its listing failed temporarily."""
        changed = self.epoch == session.epoch and self.announced != self.seen
        return self.wanted and self.tried == session.epoch and (self.retry or changed)

    def begin(self, number: int, session: Session) -> int:
        """Start a listing. Returns the value to pass to `replace` at its end."""
        self.began, self.tried, self.retry = number, session.epoch, False
        return self.announced

    def forget_attempt(self) -> None:
        """The listing was interrupted and counts as not started: the entries are those of the previous one."""
        self.began, self.tried = self.got, self.epoch

    def replace(self, server: str, found: Listing, session: Session, seen: int) -> CatalogChange:
        """Record a successful listing.

        Args:
            server: Its name, for the change.
            found: The result.
            session: The session that listed it.
            seen: The value that `begin` returned.
        """
        before, after = self.known, found.entries
        self.got, self.doubted = self.began, False
        self.known, self.complete, self.epoch, self.seen = after, found.complete, session.epoch, seen
        return CatalogChange(
            server,
            self.kind,
            added=tuple(sorted(after.keys() - before.keys())),
            removed=tuple(sorted(before.keys() - after.keys())),
            changed=tuple(sorted(key for key in after.keys() & before.keys() if after[key] != before[key])),
            epoch=session.epoch,
        )

    def page(self, cursor: str | None, page: Any, client: Any) -> tuple[Listing, int] | None:
        """The connection's user has listed a page. After the last page the list is known.

        Args:
            cursor: Of the page; None for the first.
            page: The result.
            client: The `mcp.Client` that it came from: one session's.

        Returns:
            The whole list and the value to pass to `replace`; None if pages are missing.
        """
        if cursor is None:
            self._client, self._pages, self._pages_began = client, {}, self.announced
        elif client is not self._client or cursor != self._following:
            return None
        self._pages.update(keyed(self.kind, page))
        self._following = page.next_cursor or None
        if self._following is not None:
            return None
        pages, self._client, self._pages = self._pages, None, {}
        return Listing(pages, True), self._pages_began
