"""The Redis keys of a record, from its group and name."""

from __future__ import annotations

import hashlib

from mcpconn.redis.link import Link

DIGITS = 40
"""Hexadecimal digits of a hash in a key: 160 bits, so that collisions are practically impossible."""


def hashed(text: str) -> str:
    """Hash any text into a part of a key. Someone who reads the server's keys learns nothing from it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def record_keys(link: Link, group: str, name: str) -> list[str]:
    """The keys that the record scripts use."""
    tag = hashed(group)
    return [link.key(tag, *parts) for parts in (("record", hashed(name)), ("index",), ("clock",))]


def log_keys(link: Link, group: str, name: str) -> list[str]:
    """The keys that the log scripts use."""
    return [link.key(hashed(group), part, hashed(name)) for part in ("log", "entries")]


def milliseconds(seconds: float) -> int:
    """A time to live in milliseconds, as Redis expects it."""
    return max(1, round(seconds * 1000))
