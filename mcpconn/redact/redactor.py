"""The redactor of one connection: it knows the configured secrets, learns those of run time, and replaces them in
texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from mcpconn.redact.forms import forms_of

HIDDEN = "***"
LEARNED = 64
"""Secrets kept of those that came up later. Tokens and session ids are renewed for as long as a program runs."""
PIECE = 12
"""Characters of a secret's beginning or end that are hidden wherever they stand. Programs cut what they show, servers
too: without this, 39 of the 40 characters of a token would pass."""
PARTIAL = re.compile(r"[^\s{}<>\"]{16,}|(?=[^\n{}]*\d)[^\n{}]{16,}")
"""Secrets of which a piece is hidden as well. Shorter ones, and those that are prose, JSON or PEM, begin with ordinary
words and are replaced as a whole only; what is secret in them is known separately."""


class Piece(NamedTuple):
    """What is searched for."""

    text: str
    secret: str
    is_head: bool
    """`text` is the beginning of `secret`, or all of it; otherwise it is its end."""


class Redactor:
    """Replaces known secrets in texts, in every form in which they may come back (see `forms`)."""

    __slots__ = ("_learned", "_pieces", "_secrets")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = frozenset(secrets)
        # In the order in which they were learned. What is searched for is made when a text has to be searched: most
        # connections learn their session's id and have nothing to hide it in.
        self._learned: dict[str, frozenset[Piece] | None] = {}
        self._pieces: list[Piece] | None = None

    def learn(self, secret: str) -> None:
        """Hide `secret` from now on."""
        if secret and secret not in self._secrets and secret not in self._learned:
            self._learned[secret] = None
            if len(self._learned) > LEARNED:
                del self._learned[next(iter(self._learned))]
            self._pieces = None

    def __call__(self, text: str) -> str:
        """`text` with every known secret replaced. Call it before the text is cut, not after."""
        spans = self._spans(text)
        if not spans:
            return text
        spans.sort()
        shown: list[str] = []
        position = 0
        for start, end in spans:
            if start > position or not shown:
                shown += (text[position:start], HIDDEN)
            position = max(position, end)
        return "".join((*shown, text[position:]))

    def _spans(self, text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        # `str.find` for each piece is faster than one regular expression with some hundred alternatives.
        for piece, secret, is_head in self._compiled():
            start = text.find(piece)
            while start >= 0:
                end = start + len(piece)
                if is_head:
                    end = start + _common(secret, text[start : start + len(secret)])
                    spans.append((start, end))
                else:
                    found = text[max(0, end - len(secret)) : end]
                    length = _common(secret[::-1], found[::-1])
                    # The space between a scheme and its token is not part of what is hidden.
                    spans.append((end - len(found[len(found) - length :].lstrip()), end))
                # What was covered need not be searched, but the next occurrence may overlap it by less than a piece.
                start = text.find(piece, max(start + 1, end - len(piece)))
        return spans

    def _compiled(self) -> list[Piece]:
        if self._pieces is None:
            pieces = {piece for secret in self._secrets for piece in _pieces_of(secret)}
            for secret, learned in self._learned.items():
                if learned is None:
                    learned = self._learned[secret] = _pieces_of(secret)
                pieces |= learned
            self._pieces = sorted(pieces)
        return self._pieces

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._secrets) + len(self._learned)} secrets>"


def _pieces_of(secret: str) -> frozenset[Piece]:
    pieces = set[Piece]()
    for form in forms_of(secret):
        if PARTIAL.fullmatch(form) and "://" not in form:
            pieces.update((Piece(form[:PIECE], form, True), Piece(form[-PIECE:], form, False)))
        else:
            pieces.add(Piece(form, form, True))
    return frozenset(pieces)


def _common(left: str, right: str) -> int:
    """Characters that two texts have in common from the beginning."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))


def redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """`value`, as JSON knows them, with known secrets replaced in all of its texts and keys."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(key) if isinstance(key, str) else key: redacted(item, redact) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item, redact) for item in value]
    return value
