"""Tokens, known by their form alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

_KNOWN = re.compile(
    r"(?:sk|pk|rk|ek|whsec|key|pat|secret|api|tvly|fc|csk|gsk|nvapi|r8|re|lin_api|lin_oauth|figd|ntn|hf|npm|pypi|dop_v1"
    r"|shpat|shpss|sntrys|glpat|gldt|glrt|ghp|gho|ghu|ghs|ghr|github_pat|xox[a-z]|xapp|ya29|SG|ATATT3|ATCTT3)"
    r"[-_.](?=[^\s]*\d)[A-Za-z0-9_\-.~+/=]{12,}"
    r"|(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}"
    r"|AIza[A-Za-z0-9_\-]{30,}"
    r"|eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-.]+"
)
"""Tokens that say what they are: the prefixes that the issuers publish so that scanners find them, and JWTs."""
_CANDIDATE = re.compile(r"[A-Za-z0-9_\-.~+=%]{16,}")
_LETTER_BESIDE_DIGIT = re.compile(r"(?<=[A-Za-z])\d|(?<=\d)[A-Za-z]")
_LOWER_BESIDE_UPPER = re.compile(r"(?<=[a-z])[A-Z]")
_RUN = re.compile(r"[A-Za-z0-9]+")


def looks_like_token(text: str) -> bool:
    """Whether the whole of `text` has the form of a token: 16 characters or more, and not made of words.

    `claude-3-5-sonnet-20241022`, `server_v2_handlers.py` and `2026-11-28T01:00:00Z` do not.
    """
    if _KNOWN.fullmatch(text):
        return True
    return bool(_CANDIDATE.fullmatch(text)) and _is_random(text)


def tokens_in(text: str) -> Iterator[str]:
    """The tokens in a text of any kind."""
    for match in _KNOWN.finditer(text):
        yield match.group()
    for match in _CANDIDATE.finditer(text):
        for piece in {match.group(), *match.group().split("=", 1)}:
            if len(piece) >= 16 and _is_random(piece):
                yield piece


def _is_random(text: str) -> bool:
    """Letters and digits take turns as they do in no name, or upper and lower case do."""
    turns = len(_LETTER_BESIDE_DIGIT.findall(text))
    longest = max(_RUN.findall(text), key=len, default="")
    # camelCase has a capital for each word of some five letters; random letters have one for every four.
    mixed = len(longest) >= 16 and len(_LOWER_BESIDE_UPPER.findall(longest)) * 4.5 >= len(longest)
    return turns >= 4 or (turns >= 2 and len(longest) >= 16) or mixed
