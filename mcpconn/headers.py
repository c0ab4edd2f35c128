"""HTTP header fields, checked before they reach a library that would quote the value of a bad one in its error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mcpconn.redact.redactor import HIDDEN
from mcpconn.redact.tokens import looks_like_token

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A field's name: a token (RFC 9110, 5.6.2)."""
_VALUE = re.compile(r"[\t\x20-\x7e]*")
"""A field's value: visible ASCII, spaces and tabs (RFC 9110, 5.5). What is not ASCII has no agreed encoding, and
httpx2 refuses to send it."""
_AROUND = " \t\r\n\ufeff"
"""Stripped from both ends of a value: a token that was read from a file often ends in an unintended newline."""
_FRAMING = frozenset({"content-length", "transfer-encoding", "mcp-session-id"})
"""Fields that only the protocol may set: a fixed value would make every request invalid."""
_SHOWN = 40
"""Characters shown of a name."""


class BadHeader(ValueError):
    """A header that cannot be sent. The text says what is wrong but does not show the value."""


def checked_headers(headers: Mapping[Any, Any], *, framing: bool = False) -> dict[str, str]:
    """`headers` in a form that can be sent: without whitespace around the values.

    Args:
        headers: The headers to send.
        framing: The headers are those of a whole request, including the protocol's own.

    Raises:
        BadHeader: an invalid name or value, or a field that users may not set.
    """
    return {name: _checked(name, value, framing) for name, value in headers.items()}


def _checked(name: Any, value: Any, framing: bool) -> str:
    if not isinstance(name, str) or not isinstance(value, str):
        raise BadHeader(f"header {_shown(name)} must be a string, not {type(value).__name__}")
    if not _NAME.fullmatch(name):
        raise BadHeader(f"{_shown(name)} is not the name of a header: it {_name_fault(name)}")
    if not framing and name.lower() in _FRAMING:
        raise BadHeader(f"header {name} is set by the protocol; remove it")
    stripped = value.strip(_AROUND)
    if not _VALUE.fullmatch(stripped):
        raise BadHeader(f"the value of header {_shown(name)} {_value_fault(stripped)}")
    return stripped


def _shown(name: object) -> str:
    """A name for an error message. It may be anything, even a token that was pasted into the wrong place."""
    text = str(name)
    start = _NAME.match(text)
    shown = start.group() if start else ""
    if looks_like_token(shown):
        return HIDDEN
    return repr(shown + "..." if shown != text else shown) if len(shown) <= _SHOWN else repr(shown[:_SHOWN] + "...")


def _name_fault(name: str) -> str:
    if not name:
        return "is empty"
    for character, what in ((":", "contains a colon"), (" ", "contains a space")):
        if character in name:
            return what
    return "contains a character that names cannot have"


def _value_fault(value: str) -> str:
    if "\n" in value or "\r" in value:
        return "contains a line break"
    if "\0" in value:
        return "contains a NUL character"
    return "contains a control character" if value.isascii() else "contains a character that is not ASCII"
