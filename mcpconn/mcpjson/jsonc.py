"""JSON as editors write it: with comments and trailing commas."""

from __future__ import annotations

import json
import re
from typing import Any

_STRING = r'"(?:[^"\\]|\\.)*(?:"|\Z)'
"""Nothing in a string is a comment or a comma."""
_COMMENT = re.compile(rf"{_STRING}|//[^\n]*|/\*.*?(?P<end>\*/|\Z)", re.DOTALL)
_COMMA = re.compile(rf"{_STRING}|,(?=\s*[}}\]])", re.DOTALL)
_NOT_NEWLINE = re.compile(r"[^\n]")


class Repeating(dict[str, Any]):
    """A JSON object in which a key is given twice. JSON silently uses the last one, and a server that vanishes because
    of a pasted name is hard to find."""

    def __init__(self, pairs: list[tuple[str, Any]], key: str) -> None:
        super().__init__(pairs)
        self.key = key


def loads(text: str) -> Any:
    """The content of JSON with comments and trailing commas. A repeated key makes its object a `Repeating`.

    Raises:
        ValueError: it is no such thing; a `json.JSONDecodeError` says where.
    """
    try:
        return json.loads(_plain(text), object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _plain(text: str) -> str:
    """`text` as plain JSON. What is taken out leaves spaces behind, so that lines and columns stay what they were."""
    return _COMMA.sub(_blank, _COMMENT.sub(_blank, text))


def _blank(match: re.Match[str]) -> str:
    token = match.group()
    if token.startswith('"'):
        return token
    if token.startswith("/*") and not match["end"]:
        raise ValueError(f"line {match.string.count(chr(10), 0, match.start()) + 1}: the comment is not closed")
    return _NOT_NEWLINE.sub(" ", token)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    keys = [key for key, _ in pairs]
    return Repeating(pairs, next(key for index, key in enumerate(keys) if key in keys[:index]))


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")
