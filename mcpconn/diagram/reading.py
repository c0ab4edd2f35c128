"""Reads Mermaid state diagrams that somebody drew, and compares them with the machine, edge by edge.

What is understood: everything that Mermaid's `stateDiagram` and `stateDiagram-v2` know as an edge, in any
Markdown file or as bare text. The label of an edge is its event; several events stand on one edge with
commas or line breaks between them; a remark behind an event, in parentheses or after a colon, is left out.
Case, spaces and hyphens do not matter: `Give up`, `give-up` and `GiveUp` are `give_up`. An edge that leaves
a composite state leaves every state inside it, and one that enters it enters its first, as in UML.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from mcpconn.core.states import TRANSITIONS, Event, State

Edge = tuple[str, str, str]
"""Source, event, target."""

_FENCE = re.compile(
    r"^[ \t>]*(?P<fence>`{3,}|~{3,}|:{3,})[ \t]*\{?\.?mermaid\b[^\n]*\n"
    r"(?P<body>.*?)"
    r"^[ \t>]*(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_FRONT_MATTER = re.compile(r"\A\s*---\n.*?^\s*---[ \t]*$", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"%%\{.*?\}%%", re.DOTALL)
_COMMENT = re.compile(r"^[ \t>]*%%[^\n]*", re.MULTILINE)
_EDGE = re.compile(
    r"^(?P<source>\[\*\]|[^\s:{}\-]+)(?::::[\w-]+)?\s*-->\s*(?P<target>\[\*\]|[^\s:{}\-]+)(?::::[\w-]+)?"
    r"\s*(?::\s*(?P<label>.*))?$"
)
_ALIAS = re.compile(r'^state\s+"(?P<text>[^"]*)"\s+as\s+(?P<id>[^\s{]+)\s*(?P<open>\{)?$')
_COMPOSITE = re.compile(r"^state\s+(?P<id>[^\s{]+)\s*\{$")
_DESCRIPTION = re.compile(r"^(?P<id>[^\s:{}\-]+)\s*:(?!::)\s*(?P<text>.+)$")
_NOTE = re.compile(r"^note\s+(left|right)\s+of\s+[^\s:]+(?P<text>\s*:.*)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Difference:
    """One edge that only the machine has (`missing`), or only the picture (`extra`)."""

    kind: Literal["missing", "extra"]
    source: str
    event: str
    target: str

    def __str__(self) -> str:
        edge = f"{self.source} --{self.event or '(no event)'}--> {self.target}"
        if self.kind == "missing":
            return f"the picture lacks {edge}"
        return f"the machine has no {edge}{_why(self.source, self.event, self.target)}"


@dataclass
class _Picture:
    """One diagram as it is read."""

    edges: list[Edge] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)
    """The states of each composite state, those of inner composites included."""
    first: dict[str, str] = field(default_factory=dict)


def read_mermaid(text: str) -> set[Edge]:
    """The edges of all Mermaid state diagrams in a text, as (source, event, target).

    Args:
        text: Markdown, or a bare diagram.

    Raises:
        ValueError: a line looks like an edge and cannot be read as one.
    """
    return {edge for picture in _pictures(text) for edge in picture}


def compare(text_or_path: str | os.PathLike[str], *, ignore: Iterable[Event | str] = ()) -> list[Difference]:
    """What a drawn state diagram and the machine say differently. Empty: the picture is true.

    Args:
        text_or_path: Markdown, a bare diagram, or a file with either. Of several state diagrams in it, the one
            most like the machine is meant.
        ignore: Events that need not be drawn, `close` for one.

    Raises:
        ValueError: there is no state diagram in it, or a line of it cannot be read.
        OSError: the file cannot be read.
    """
    text = _text(text_or_path)
    pictures = list(_pictures(text))
    if not pictures:
        raise ValueError("there is no Mermaid state diagram in it (a block of ```mermaid that says stateDiagram-v2)")
    unseen = {_normal(str(event)) for event in ignore}
    machine = [(row.source.value, row.event.value, row.target.value) for row in TRANSITIONS]
    machine = [edge for edge in machine if edge[1] not in unseen]
    candidates = []
    for picture in pictures:
        drawn = {edge for edge in picture if edge[1] not in unseen}
        missing = [Difference("missing", *edge) for edge in machine if edge not in drawn]
        extra = [Difference("extra", *edge) for edge in sorted(drawn.difference(machine))]
        candidates.append(missing + extra)
    return min(candidates, key=len)


def _text(text_or_path: str | os.PathLike[str]) -> str:
    if isinstance(text_or_path, str) and ("\n" in text_or_path or text_or_path.lstrip().startswith("stateDiagram")):
        return text_or_path
    return Path(text_or_path).read_text(encoding="utf-8")


def _pictures(text: str) -> Iterator[set[Edge]]:
    blocks = [match["body"] for match in _FENCE.finditer(text)] or [text]
    for block in blocks:
        body = _COMMENT.sub("", _DIRECTIVE.sub("", _FRONT_MATTER.sub("", block)))
        lines = [line.lstrip("> \t").rstrip() for line in body.splitlines()]
        while lines and not lines[0]:
            del lines[0]
        if lines and re.match(r"stateDiagram(-v2)?\b", lines[0]):
            yield _resolved(_parsed(lines[1:]))


def _parsed(lines: list[str]) -> _Picture:
    picture = _Picture()
    open_composites: list[str] = []
    in_note = False
    for line in lines:
        if in_note:
            in_note = line.lower() != "end note"
        elif (note := _NOTE.match(line)) is not None:
            in_note = note["text"] is None
        elif (edge := _EDGE.match(line)) is not None:
            _add_edge(picture, edge, open_composites)
        elif "-->" in line:
            raise ValueError(f"this line of the state diagram cannot be read as an edge: {line!r}")
        elif (alias := _ALIAS.match(line)) is not None:
            picture.texts[alias["id"]] = alias["text"]
            if alias["open"]:
                open_composites.append(alias["id"])
        elif (composite := _COMPOSITE.match(line)) is not None:
            open_composites.append(composite["id"])
        elif line == "}" and open_composites:
            open_composites.pop()
        elif (description := _DESCRIPTION.match(line)) is not None:
            picture.texts.setdefault(description["id"], description["text"])
    return picture


def _add_edge(picture: _Picture, match: re.Match[str], composites: list[str]) -> None:
    source, target, label = match["source"], match["target"], match["label"] or ""
    for composite in composites:
        members = picture.members.setdefault(composite, [])
        members += [each for each in (source, target) if each != "[*]" and each not in members]
    if source == "[*]" and composites:
        picture.first.setdefault(composites[-1], target)
    if "[*]" not in (source, target):
        picture.edges += [(source, event, target) for event in _events(label)]


def _events(label: str) -> list[str]:
    pieces = re.split(r",|<br\s*/?>|\\n", re.sub(r"\([^)]*\)", "", label))
    names = [piece.partition(":")[0].strip() for piece in pieces]
    return [_normal(name) for name in names if name] or [""]


def _resolved(picture: _Picture) -> set[Edge]:
    """The edges with composites opened and everything by its name."""
    found: set[Edge] = set()
    for source, event, target in picture.edges:
        leaves = [each for each in picture.members.get(source, [source]) if each not in picture.members]
        while target in picture.first:
            target = picture.first[target]
        found.update((_name(leaf, picture), event, _name(target, picture)) for leaf in leaves)
    return found


def _name(identifier: str, picture: _Picture) -> str:
    """The id of a state, or its text where that is what the machine calls it."""
    states = {state.value for state in State}
    text = _normal(picture.texts.get(identifier, ""))
    return text if _normal(identifier) not in states and text in states else _normal(identifier)


def _normal(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.strip())
    return re.sub(r"[\s\-_]+", "_", spaced.lower())


def _why(source: str, event: str, target: str) -> str:
    states, events = [state.value for state in State], [each.value for each in Event]
    for what, name, known in (("state", source, states), ("state", target, states), ("event", event, events)):
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"; is {close[0]} meant?" if close else ""
            return f": an edge needs an event{hint}" if not name else f": there is no {what} {name!r}{hint}"
    leads_to = [row.target.value for row in TRANSITIONS if (row.source.value, row.event.value) == (source, event)]
    return f": {event} leads to {leads_to[0]}" if leads_to else f": {event} cannot happen in {source}"
