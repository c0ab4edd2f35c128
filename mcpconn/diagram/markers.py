"""Keeps the diagrams and tables of Markdown files true: what stands between markers is made from the code.

    <!-- mcpconn:mermaid highlight=ready -->
    ...
    <!-- /mcpconn:mermaid -->

The kinds are `mermaid`, `dot`, `table`, `events`, `failures` and `rules`. Markers inside a code block are text.
An SVG file that `svg` made carries a marker, too, and is made anew as a whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mcpconn.diagram.drawing import svg
from mcpconn.diagram.render import dot, markdown_table, mermaid
from mcpconn.diagram.rule_table import rules_table
from mcpconn.diagram.tables import events_table, failures_table

MAKERS: dict[str, Callable[[str | None], str]] = {
    "mermaid": lambda highlight: f"```mermaid\n{mermaid(highlight)}```\n",
    "dot": lambda highlight: f"```dot\n{dot(highlight)}```\n",
    "table": markdown_table,
    "events": lambda _: events_table(),
    "failures": lambda _: failures_table(),
    "rules": lambda _: rules_table(),
}

_OPENING = re.compile(r"^\s*<!--\s*mcpconn:(?P<kind>\w+)(?:\s+highlight=(?P<highlight>\w+))?\s*-->\s*$")
_CLOSING = re.compile(r"^\s*<!--\s*/mcpconn:(?P<kind>\w+)\s*-->\s*$")
_FENCE = re.compile(r"^\s*(?P<fence>`{3,}|~{3,})")
_SKIPPED = frozenset({"node_modules", "site", "build", "dist"})


@dataclass(frozen=True)
class Drift:
    """Something in a file that is not what the code says."""

    path: Path
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.kind} is not what the code says; mcpconn diagram --write fixes it"


@dataclass
class _Block:
    """What stands between two markers: lines from `begin` up to `end`."""

    kind: str
    highlight: str | None
    begin: int
    end: int


def write(path: str | os.PathLike[str]) -> list[Path]:
    """Rewrite what stands between the markers of a file, or of all files below a folder.

    Returns:
        The files that were changed.

    Raises:
        ValueError: a marker is not closed or not known, or there are no markers at all.
        OSError: a file cannot be read or written.
    """
    changed = []
    for file, text, made, _ in _made(Path(path)):
        if made != text:
            file.write_text(made, encoding="utf-8", newline="\n")
            changed.append(file)
    return changed


def check(path: str | os.PathLike[str]) -> list[Drift]:
    """What `write` would change, and where.

    Raises:
        ValueError: as `write`.
        OSError: a file cannot be read.
    """
    return [drift for _, _, _, drifts in _made(Path(path)) for drift in drifts]


def _made(path: Path) -> Iterator[tuple[Path, str, str, list[Drift]]]:
    """Each file with markers, its text, what it should be, and where they differ."""
    found = False
    for file in _files(path):
        text = file.read_text(encoding="utf-8")
        result = _svg(file, text) if file.suffix == ".svg" else _markdown(file, text)
        if result is not None:
            found = True
            yield file, text, *result
    if not found:
        raise ValueError(
            f"{path}: no markers (<!-- mcpconn:mermaid --> ... <!-- /mcpconn:mermaid -->): nothing is kept true"
        )


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for each in sorted(path.iterdir()):
        if each.is_dir():
            if not each.name.startswith(".") and each.name not in _SKIPPED:
                yield from _files(each)
        elif each.suffix in (".md", ".svg"):
            yield each


def _svg(file: Path, text: str) -> tuple[str, list[Drift]] | None:
    opening = _OPENING.match(text.partition("\n")[0])
    if opening is None or opening["kind"] != "svg":
        return None
    made = svg(opening["highlight"])
    return made, [] if made == text else [Drift(file, 1, "svg")]


def _markdown(file: Path, text: str) -> tuple[str, list[Drift]] | None:
    lines = text.splitlines(keepends=True)
    blocks = list(_blocks(file, lines))
    drifts = []
    for block in reversed(blocks):
        # Blank lines around it: without them a table is no table to most Markdown.
        made = f"\n{MAKERS[block.kind](block.highlight)}\n"
        if "".join(lines[block.begin : block.end]) != made:
            drifts.append(Drift(file, block.begin, block.kind))
        lines[block.begin : block.end] = [made]
    return ("".join(lines), drifts[::-1]) if blocks else None


def _blocks(file: Path, lines: list[str]) -> Iterator[_Block]:
    fence: str | None = None
    block: _Block | None = None
    for number, line in enumerate(lines, start=1):
        if block is not None:
            closing = _CLOSING.match(line)
            if closing is not None and closing["kind"] == block.kind:
                block.end = number - 1
                yield block
                block = None
            elif closing is not None or _OPENING.match(line) is not None:
                raise ValueError(f"{file}:{number}: {line.strip()} inside {block.kind}, which is not closed")
            continue
        mark = _FENCE.match(line)
        if fence is not None:
            if mark is not None and mark["fence"].startswith(fence):
                fence = None
        elif mark is not None:
            fence = mark["fence"]
        elif _CLOSING.match(line) is not None:
            raise ValueError(f"{file}:{number}: {line.strip()} closes nothing")
        elif (opening := _OPENING.match(line)) is not None:
            if opening["kind"] not in MAKERS:
                raise ValueError(f"{file}:{number}: unknown marker {opening['kind']!r}; known: {', '.join(MAKERS)}")
            block = _Block(opening["kind"], opening["highlight"], number, number)
    if block is not None:
        raise ValueError(f"{file}:{block.begin}: <!-- mcpconn:{block.kind} --> is never closed")
