"""What is raised for an entry that cannot be translated."""

from __future__ import annotations


class Unclear(ValueError):
    """An entry that cannot be translated. `key` is the one that it is about, as it is written."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key
