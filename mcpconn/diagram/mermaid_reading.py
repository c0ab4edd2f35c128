"""Reads hand-written Mermaid state diagrams.

It understands every form of edge in Mermaid's `stateDiagram` and `stateDiagram-v2`, in any Markdown file or as bare
text. The label of an edge is its event; commas or line breaks separate several events on one edge; a remark after an
event, in parentheses or after a colon, is ignored. An edge from a composite state leaves every state inside it, and an
edge to it enters its first state, as in UML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mcpconn.diagram.picture import STATES, Edge, Picture, normal

_FENCE = re.compile(
    r"^[ \t>]*(?P<fence>`{3,}|~{3,}|:{3,})[ \t]*\{?\.?mermaid\b[^\n]*\n"
    r"(?P<body>.*?)"
    r"^[ \t>]*(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_FRONT_MATTER = re.compile(r"\A\s*---\n.*?^\s*---[ \t]*$", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"%%\{.*?\}%%", re.DOTALL)
_COMMENT = re.compile(r"^[ \t>]*%%[^\n]*", re.MULTILINE)
_PARTIAL = re.compile(r"^[ \t>]*%%\s*mcpconn:\s*partial\s*$", re.MULTILINE)
_EDGE = re.compile(
    r"^(?P<source>\[\*\]|[^\s:{}\-]+)(?::::[\w-]+)?\s*-->\s*(?P<target>\[\*\]|[^\s:{}\-]+)(?::::[\w-]+)?"
    r"\s*(?::\s*(?P<label>.*))?$"
)
_ALIAS = re.compile(r'^state\s+"(?P<text>[^"]*)"\s+as\s+(?P<id>[^\s{]+)\s*(?P<open>\{)?$')
_COMPOSITE = re.compile(r"^state\s+(?P<id>[^\s{]+)\s*\{$")
_DESCRIPTION = re.compile(r"^(?P<id>[^\s:{}\-]+)\s*:(?!::)\s*(?P<text>.+)$")
_NOTE = re.compile(r"^note\s+(left|right)\s+of\s+[^\s:]+(?P<text>\s*:.*)?$", re.IGNORECASE)


@dataclass
class _Drawing:
    """One diagram before its composite states are resolved."""

    edges: list[tuple[str, str, str, int]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)
    """The states of each composite state, including those of inner composites."""
    first: dict[str, str] = field(default_factory=dict)


def mermaid_pictures(text: str) -> Iterator[Picture]:
    """Each Mermaid state diagram in a text.

    Args:
        text: Markdown, or a bare diagram.

    Raises:
        ValueError: a line looks like an edge and cannot be read as one.
    """
    blocks = [(match["body"], match.start("body")) for match in _FENCE.finditer(text)] or [(text, 0)]
    for block, begin in blocks:
        first = text.count("\n", 0, begin) + 1
        partial = _PARTIAL.search(block) is not None
        body = block
        # Text outside diagrams is replaced by blank lines, to preserve line numbers.
        for left_out in (_FRONT_MATTER, _DIRECTIVE, _COMMENT):
            body = left_out.sub(lambda match: "\n" * match[0].count("\n"), body)
        lines = [(first + at, line.lstrip("> \t").rstrip()) for at, line in enumerate(body.splitlines())]
        while lines and not lines[0][1]:
            del lines[0]
        if lines and re.match(r"stateDiagram(-v2)?\b", lines[0][1]):
            yield _resolved(_parsed(lines[1:]), lines[0][0], partial=partial)


def _parsed(lines: list[tuple[int, str]]) -> _Drawing:
    picture = _Drawing()
    open_composites: list[str] = []
    in_note = False
    for number, line in lines:
        if in_note:
            in_note = line.lower() != "end note"
        elif (note := _NOTE.match(line)) is not None:
            in_note = note["text"] is None
        elif (edge := _EDGE.match(line)) is not None:
            _add_edge(picture, edge, number, open_composites)
        elif "-->" in line:
            raise ValueError(f"line {number}: this line of the state diagram cannot be read as an edge: {line!r}")
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


def _add_edge(picture: _Drawing, match: re.Match[str], number: int, composites: list[str]) -> None:
    source, target, label = match["source"], match["target"], match["label"] or ""
    for composite in composites:
        members = picture.members.setdefault(composite, [])
        members += [each for each in (source, target) if each != "[*]" and each not in members]
    if source == "[*]" and composites:
        picture.first.setdefault(composites[-1], target)
    if "[*]" not in (source, target):
        picture.edges += [(source, event, target, number) for event in _events(label)]


def _events(label: str) -> list[str]:
    pieces = re.split(r",|<br\s*/?>|\\n", re.sub(r"\([^)]*\)", "", label))
    names = [piece.partition(":")[0].strip() for piece in pieces]
    return [normal(name) for name in names if name] or [""]


def _resolved(drawing: _Drawing, line: int, *, partial: bool) -> Picture:
    """The diagram with composites resolved and all ids replaced by names."""
    edges: dict[Edge, int] = {}
    for source, event, target, number in drawing.edges:
        leaves = [each for each in drawing.members.get(source, [source]) if each not in drawing.members]
        while target in drawing.first:
            target = drawing.first[target]
        for leaf in leaves:
            edges.setdefault((_name(leaf, drawing), event, _name(target, drawing)), number)
    return Picture(edges, line, partial)


def _name(identifier: str, drawing: _Drawing) -> str:
    """The id of a state, or its text if that is the machine's name for it."""
    text = normal(drawing.texts.get(identifier, ""))
    return text if normal(identifier) not in STATES and text in STATES else normal(identifier)
