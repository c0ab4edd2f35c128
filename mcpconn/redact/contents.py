"""Looks into values that hold other values: JSON and PEM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

LINE = 16
"""Characters of the shortest line of a PEM that is hidden by itself. A shorter one tells nothing."""


def fields_of_json(text: str) -> Iterator[tuple[str, str]]:
    """The strings in a JSON object or array, with the name that each goes by. Nothing if `text` is no such thing."""
    if not text.lstrip().startswith(("{", "[")):
        return
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return
    pending: list[tuple[str, Any]] = [("", content)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            # What lies below a name goes by that name as well: {"auth": {"value": "..."}}.
            pending += [(f"{name}.{key}" if name else key, item) for key, item in value.items()]
        elif isinstance(value, list):
            pending += [(name, item) for item in value]
        elif isinstance(value, str):
            yield name, value


def lines_of_pem(text: str) -> Iterator[str]:
    """The lines of a PEM file's content, without its frame. Nothing if `text` is no such thing."""
    if "-----BEGIN " not in text:
        return
    for line in text.replace("\\n", "\n").splitlines():
        line = line.strip()
        if len(line) >= LINE and not line.startswith("-----"):
            yield line
