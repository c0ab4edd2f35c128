"""Where a record is in Redis: its keys, by group and name."""

from __future__ import annotations

import hashlib

from mcpconn.redis.link import Link

DIGITS = 40
"""Hexadecimal digits of a hash in a key: 160 bits, of which no two are ever the same."""


def hashed(text: str) -> str:
    """Any text as a part of a key. Whoever reads the server's keys learns nothing from it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def record_keys(link: Link, group: str, name: str) -> list[str]:
    """The keys that the scripts of records work on."""
    tag = hashed(group)
    return [link.key(tag, *parts) for parts in (("record", hashed(name)), ("index",), ("clock",))]


def log_keys(link: Link, group: str, name: str) -> list[str]:
    """The keys that the scripts of logs work on."""
    return [link.key(hashed(group), part, hashed(name)) for part in ("log", "entries")]


def milliseconds(seconds: float) -> int:
    """A time to live as Redis takes it."""
    return max(1, round(seconds * 1000))
