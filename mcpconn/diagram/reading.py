"""Compares hand-written state diagrams (Mermaid or SCXML) with the machine, edge by edge.

Case, spaces and hyphens do not matter: `Give up`, `give-up` and `GiveUp` are `give_up`. `mermaid_reading` and `scxml`
describe how each format is read. A diagram that shows only some states declares this in a comment, `%% mcpconn:
partial` (in SCXML `<!-- mcpconn: partial -->`): then it must contain only the edges between the states that it shows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from mcpconn.core.states import TRANSITIONS, Event
from mcpconn.diagram.files import files
from mcpconn.diagram.mermaid_reading import mermaid_pictures
from mcpconn.diagram.picture import EVENTS, STATES, Edge, Picture, distance, normal
from mcpconn.diagram.scxml import scxml_picture

MACHINE: tuple[Edge, ...] = tuple((row.source.value, row.event.value, row.target.value) for row in TRANSITIONS)
SUFFIXES = (".md", ".mmd", ".mermaid", ".scxml")
"""Suffixes of the files in a folder that are read."""


@dataclass(frozen=True)
class Difference:
    """One edge that only the machine has (`missing`), or only the diagram (`extra`)."""

    kind: Literal["missing", "extra"]
    source: str
    event: str
    target: str
    line: int | None = field(default=None, compare=False)
    """The line of the edge, or the first line of the diagram that lacks it; from 1."""
    path: Path | None = field(default=None, compare=False)
    """The file, if the text came from one."""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.path is None else f"{self.path}:{self.line}: "
        where = "" if self.line is None else where
        edge = f"{self.source} --{self.event or '(no event)'}--> {self.target}"
        if self.kind == "missing":
            return f"{where}the picture lacks {edge}"
        return f"{where}the machine has no {edge}{_why(self.source, self.event, self.target)}"


def compare(
    text_or_path: str | os.PathLike[str], *, ignore: Iterable[Event | str] = (), partial: bool = False
) -> list[Difference]:
    """The differences between state diagrams and the machine. Empty: the diagrams are correct.

    Args:
        text_or_path: Markdown, a bare Mermaid diagram, an SCXML document, a file with one of them, or a folder, whose
            `.md`, `.mmd`, `.mermaid` and `.scxml` files are read, including subfolders. Other diagrams (with fewer than
            two states of the machine, or with more other states) are ignored. If a single file or text has only such
            diagrams, the one most similar to the machine is compared.
        ignore: Events that need not be in the diagrams, such as `close`.
        partial: Whether each diagram may show only some states.

    Raises:
        ValueError: it contains no state diagram, or a line cannot be parsed.
        OSError: a file cannot be read.
    """
    unseen = {normal(str(event)) for event in ignore}
    found: list[Difference] = []
    any_picture = False
    for path, pictures in _read(text_or_path):
        for picture in pictures:
            any_picture = True
            found += _differences(picture, path, unseen, partial=partial or picture.partial)
    if not any_picture:
        raise ValueError(
            f"there is no state diagram of a connection in {'it' if _is_text(text_or_path) else text_or_path}"
            " (an SCXML document, or a block of ```mermaid that says stateDiagram-v2)"
        )
    return found


def _differences(picture: Picture, path: Path | None, unseen: set[str], *, partial: bool) -> Iterator[Difference]:
    shown = picture.shown
    for source, event, target in MACHINE:
        wanted = event not in unseen and (not partial or {source, target} <= shown)
        if wanted and (source, event, target) not in picture.edges:
            yield Difference("missing", source, event, target, picture.line, path)
    for (source, event, target), line in sorted(picture.edges.items()):
        if event not in unseen and (source, event, target) not in MACHINE:
            yield Difference("extra", source, event, target, line, path)


def _read(text_or_path: str | os.PathLike[str]) -> Iterator[tuple[Path | None, list[Picture]]]:
    if _is_text(text_or_path):
        yield None, _meant(_pictures(str(text_or_path)))
        return
    path = Path(text_or_path)
    for file in files(path, SUFFIXES):
        try:
            pictures = _pictures(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        if path.is_dir():
            yield file, [each for each in pictures if each.is_about_connections()]
        else:
            yield file, _meant(pictures)


def _is_text(given: str | os.PathLike[str]) -> bool:
    return isinstance(given, str) and ("\n" in given or given.lstrip().startswith(("stateDiagram", "<")))


def _pictures(text: str) -> list[Picture]:
    if text.lstrip().startswith("<") and "<scxml" in text and "```" not in text:
        return [scxml_picture(text)]
    return list(mermaid_pictures(text))


def _meant(pictures: list[Picture]) -> list[Picture]:
    """The diagrams of connections in a file, or else the one most similar to the machine."""
    about = [each for each in pictures if each.is_about_connections()]
    return about or sorted(pictures, key=lambda each: distance(each.edges, MACHINE))[:1]


def _why(source: str, event: str, target: str) -> str:
    for what, name, known in (("state", source, STATES), ("state", target, STATES), ("event", event, EVENTS)):
        if name not in known:
            close = get_close_matches(name, sorted(known), n=1)
            hint = f"; is {close[0]} meant?" if close else ""
            return f": an edge needs an event{hint}" if not name else f": there is no {what} {name!r}{hint}"
    leads_to = [end for start, name, end in MACHINE if (start, name) == (source, event)]
    return f": {event} leads to {leads_to[0]}" if leads_to else f": {event} cannot happen in {source}"
