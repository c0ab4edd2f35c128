"""The files that are looked at below a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_SKIPPED = frozenset({"node_modules", "site", "build", "dist"})
"""Folders of what was installed or made."""


def files(path: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """A file itself, or the files below a folder that end so, in order; hidden folders are left out."""
    if not path.is_dir():
        yield path
        return
    for each in sorted(path.iterdir()):
        if each.is_dir():
            if not each.name.startswith(".") and each.name not in _SKIPPED:
                yield from files(each, suffixes)
        elif each.suffix in suffixes:
            yield each
