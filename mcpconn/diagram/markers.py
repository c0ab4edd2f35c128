"""Keeps the diagrams and tables in Markdown files up to date: the text between markers is generated from the code.

    <!-- mcpconn:mermaid highlight=ready -->
    ...
    <!-- /mcpconn:mermaid -->

The kinds are `mermaid`, `dot`, `scxml`, `table`, `events`, `failures` and `rules`. Markers inside a code block are
text. A generated SVG or SCXML file has a marker in its first line, and is rewritten as a whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mcpconn.diagram.drawing import svg
from mcpconn.diagram.files import files
from mcpconn.diagram.render import dot, markdown_table, mermaid
from mcpconn.diagram.rule_table import rules_table
from mcpconn.diagram.scxml import scxml
from mcpconn.diagram.tables import events_table, failures_table

MAKERS: dict[str, Callable[[str | None], str]] = {
    "mermaid": lambda highlight: f"```mermaid\n{mermaid(highlight)}```\n",
    "dot": lambda highlight: f"```dot\n{dot(highlight)}```\n",
    "scxml": lambda _: f"```xml\n{_without_marker(scxml())}```\n",
    "table": markdown_table,
    "events": lambda _: events_table(),
    "failures": lambda _: failures_table(),
    "rules": lambda _: rules_table(),
}

_OPENING = re.compile(
    r"^\s*<!--\s*mcpconn:(?P<kind>\w+)(?P<attributes>(?:\s+[\w-]+(?:=(?:\"[^\"]*\"|[^\s\"]+))?)*)\s*-->\s*$"
)
_ATTRIBUTE = re.compile(r'([\w-]+)(?:=(?:"([^"]*)"|(\S+)))?')
_CLOSING = re.compile(r"^\s*<!--\s*/mcpconn:(?P<kind>\w+)\s*-->\s*$")
_FENCE = re.compile(r"^\s*(?P<fence>`{3,}|~{3,})")
_WHOLE = {"svg": {"highlight", "links", "narrow"}, "scxml": set[str]()}
"""The formats of separate files, and the attributes of their markers."""


@dataclass(frozen=True)
class Drift:
    """A difference between a file and the code."""

    path: Path
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.kind} is not what the code says; mcpconn diagram --write fixes it"


@dataclass
class _Block:
    """The text between two markers: the lines from `begin` up to `end`."""

    kind: str
    highlight: str | None
    begin: int
    end: int


def _without_marker(document: str) -> str:
    return document.partition("\n")[2]


def write(path: str | os.PathLike[str]) -> list[Path]:
    """Rewrite the text between the markers in a file, or in all files below a folder.

    Returns:
        The files that were changed.

    Raises:
        ValueError: a marker is not closed or is unknown, or there are no markers.
        OSError: a file cannot be read or written.
    """
    changed = []
    for file, text, made, _ in _made(Path(path)):
        if made != text:
            file.write_text(made, encoding="utf-8", newline="\n")
            changed.append(file)
    return changed


def check(path: str | os.PathLike[str]) -> list[Drift]:
    """The changes that `write` would make.

    Raises:
        ValueError: as `write`.
        OSError: a file cannot be read.
    """
    return [drift for _, _, _, drifts in _made(Path(path)) for drift in drifts]


def _made(path: Path) -> Iterator[tuple[Path, str, str, list[Drift]]]:
    """Each file with markers, its text, the correct text, and the differences."""
    found = False
    for file in files(path, (".md", ".svg", ".scxml")):
        text = file.read_text(encoding="utf-8")
        result = _whole(file, text) if file.suffix[1:] in _WHOLE else _markdown(file, text)
        if result is not None:
            found = True
            yield file, text, *result
    if not found:
        raise ValueError(
            f"{path}: no markers (<!-- mcpconn:mermaid --> ... <!-- /mcpconn:mermaid -->): nothing is kept true"
        )


def _whole(file: Path, text: str) -> tuple[str, list[Drift]] | None:
    opening = _OPENING.match(text.partition("\n")[0])
    if opening is None or opening["kind"] != file.suffix[1:]:
        return None
    given = _attributes(f"{file}:1", opening, _WHOLE[opening["kind"]])
    if opening["kind"] == "scxml":
        made = scxml()
    else:
        made = svg(given.get("highlight"), links=given.get("links"), narrow="narrow" in given)
    return made, [] if made == text else [Drift(file, 1, opening["kind"])]


def _attributes(where: str, opening: re.Match[str], known: set[str]) -> dict[str, str]:
    """`highlight="27 ready" narrow` as a mapping."""
    given = {name: quoted or plain for name, quoted, plain in _ATTRIBUTE.findall(opening["attributes"])}
    for name in given:
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ValueError(f"{where}: unknown attribute {name!r} of {opening['kind']}; known: {names}")
    return given


def _markdown(file: Path, text: str) -> tuple[str, list[Drift]] | None:
    lines = text.splitlines(keepends=True)
    blocks = list(_blocks(file, lines))
    drifts = []
    for block in reversed(blocks):
        # With blank lines around it, because most Markdown renderers need them around a table.
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
            given = _attributes(f"{file}:{number}", opening, {"highlight"})
            block = _Block(opening["kind"], given.get("highlight"), number, number)
    if block is not None:
        raise ValueError(f"{file}:{block.begin}: <!-- mcpconn:{block.kind} --> is never closed")
