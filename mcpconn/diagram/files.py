"""Finds files below a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_SKIPPED = frozenset({"node_modules", "site", "build", "dist"})
"""Folders with installed or generated files."""


def files(path: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """A file itself, or the files below a folder with these suffixes, sorted; hidden folders are skipped."""
    if not path.is_dir():
        yield path
        return
    for each in sorted(path.iterdir()):
        if each.is_dir():
            if not each.name.startswith(".") and each.name not in _SKIPPED:
                yield from files(each, suffixes)
        elif each.suffix in suffixes:
            yield each
