"""Keeping secrets out of everything that is shown: logs, errors, reprs, status."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
LEARNED = 16
"""Secrets kept of those that came up later. Tokens are renewed for as long as a program runs."""
SHORTEST_SECRET = 6
"""Shorter values are not replaced in texts: "1" and "true" are everywhere and are no secrets."""

_TOKEN = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[A-Za-z0-9_\-.~%]{16,}")
"""A path segment that looks like a token: sixteen or more characters, letters and digits mixed."""


def redact_url(url: str) -> str:
    """`url` without userinfo, query and fragment, and without path segments that look like tokens.

    Several hosts put the credential into the path (https://host/s/TOKEN/mcp), so hiding the query is not enough.
    """
    parts = urlsplit(url)
    path = "/".join(HIDDEN if _TOKEN.fullmatch(segment) else segment for segment in parts.path.split("/"))
    query = f"?{HIDDEN}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}{query}"


def secrets_of_url(url: str) -> set[str]:
    """The parts of `url` that may be secret: password, user, values of the query, token-like path segments."""
    parts = urlsplit(url)
    found = {value for value in (parts.username, parts.password) if value}
    found.update(piece.partition("=")[2] or piece for piece in parts.query.split("&") if piece)
    found.update(segment for segment in parts.path.split("/") if _TOKEN.fullmatch(segment))
    if parts.query:
        found.add(parts.query)
    return found | {unquote(value) for value in found}


class Redactor:
    """Replaces known secrets in texts."""

    __slots__ = ("_learned", "_pattern", "_secrets")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(secrets)
        self._learned: deque[str] = deque(maxlen=LEARNED)
        self._compile()

    def learn(self, secret: str) -> None:
        """Hide `secret` from now on."""
        if secret not in self._learned:
            self._learned.append(secret)
            self._compile()

    def _compile(self) -> None:
        values = set()
        for secret in (*self._secrets, *self._learned):
            # "Bearer abc": the scheme is no secret, and servers echo the token without it.
            for value in (secret, secret.rpartition(" ")[2]):
                if len(value) >= SHORTEST_SECRET:
                    values.add(value)
        ordered = sorted(values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """`text` with every known secret replaced."""
        return self._pattern.sub(HIDDEN, text) if self._pattern else text
