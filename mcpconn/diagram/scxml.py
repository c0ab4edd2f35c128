"""Writes and reads the machine as W3C SCXML, the standard format of state machines.

Reading follows SCXML 1.0: a transition of a compound state applies to every state inside it, unless the inner state has
one for the same event; the first of several applies, unless it has a condition; a transition to a compound state enters
its initial state; one without a target does not change the state. Conditions, actions and data are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from mcpconn.core.states import TRANSITIONS, Event, State
from mcpconn.diagram.picture import Edge, Picture, normal
from mcpconn.diagram.render import FINAL, INITIAL

NAMESPACE = "http://www.w3.org/2005/07/scxml"
MARKER = "<!-- mcpconn:scxml -->"
"""The first line, by which `mcpconn diagram --write` recognizes its own file."""
_STATES = frozenset({"state", "final", "history"})


def scxml() -> str:
    """The machine as an SCXML document.

    Each reason of the table is a comment at its transition. The document has no data and no actions (the null data
    model), and `closed` is its final state.
    """
    lines = [
        MARKER,
        f'<scxml xmlns="{NAMESPACE}" version="1.0" datamodel="null" name="connection" initial="{INITIAL.value}">',
    ]
    for state in State:
        if state in FINAL:
            lines.append(f'  <final id="{state.value}"/>')
            continue
        lines.append(f'  <state id="{state.value}">')
        for row in TRANSITIONS:
            if row.source is state:
                lines.append(f"    <!-- {row.when.replace('--', '- -')} -->")
                attributes = f"event={quoteattr(row.event.value)} target={quoteattr(row.target.value)}"
                lines.append(f"    <transition {attributes}/>")
        lines.append("  </state>")
    return "\n".join([*lines, "</scxml>"]) + "\n"


@dataclass
class _Transition:
    """One `transition`."""

    events: list[str]
    targets: list[str]
    conditional: bool
    line: int


@dataclass
class _Node:
    """One `state`, `final`, `history`, or the document."""

    identifier: str
    parent: _Node | None
    initial: str = ""
    children: list[_Node] = field(default_factory=list)
    transitions: list[_Transition] = field(default_factory=list)
    history: bool = False

    def leaves(self) -> Iterator[_Node]:
        """The innermost states of it."""
        inner = [child for child in self.children if not child.history]
        if not inner:
            yield self
        for child in inner:
            yield from child.leaves()


def scxml_picture(text: str) -> Picture:
    """An SCXML document as a picture.

    Raises:
        ValueError: it is not SCXML, has a DTD, or has concurrently active states (`parallel`).
    """
    reader = _Reader()
    reader.read(text)
    names = {node.identifier: node for node in reader.nodes}
    edges: dict[Edge, int] = {}
    for leaf in reader.document.leaves():
        for event, transition in _transitions(leaf):
            for target in transition.targets or [leaf.identifier]:
                entered = _entered(target, names)
                edges.setdefault((normal(leaf.identifier), event, normal(entered)), transition.line)
    states = frozenset(normal(leaf.identifier) for leaf in reader.document.leaves())
    return Picture(edges, reader.line, reader.partial, states)


def _transitions(leaf: _Node) -> Iterator[tuple[str, _Transition]]:
    """The events of a state; its own transitions come before those of enclosing states."""
    decided: set[str] = set()
    node: _Node | None = leaf
    while node is not None:
        for transition in node.transitions:
            for event in transition.events:
                if event not in decided:
                    yield event, transition
            if not transition.conditional:
                decided.update(transition.events)
        node = node.parent


def _entered(target: str, names: dict[str, _Node]) -> str:
    """The innermost state that a transition to `target` enters."""
    seen: set[str] = set()
    while target in names and target not in seen:
        seen.add(target)
        node = names[target]
        if node.history:
            # The previous state is known only at run time; the document specifies the default.
            target = next((each for transition in node.transitions for each in transition.targets), target)
        elif node.children:
            target = node.initial or next(child.identifier for child in node.children if not child.history)
        else:
            break
    return target


class _Reader:
    """Builds the tree with expat, because ElementTree does not report line numbers."""

    def __init__(self) -> None:
        self.nodes: list[_Node] = []
        self.document = _Node("", None)
        self.line = 0
        self.partial = False
        self._open = self.document
        self._in_initial = False
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CommentHandler = self._comment
        # DTDs are rejected, because entities can expand to gigabytes and SCXML documents need no DTD.
        self._parser.StartDoctypeDeclHandler = self._refuse

    def read(self, text: str) -> None:
        """Parse a document."""
        try:
            self._parser.Parse(text.lstrip(), True)
        except expat.ExpatError as error:
            raise ValueError(f"this is not well-formed XML: {error}") from None
        if not self.line:
            raise ValueError("this XML document is not SCXML: its root is not <scxml>")

    def _refuse(self, *_: object) -> None:
        raise ValueError("an SCXML document with a DTD is not read; remove the <!DOCTYPE ...>")

    def _comment(self, text: str) -> None:
        self.partial = self.partial or text.split() == ["mcpconn:", "partial"]

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition(" ")[2]
        line = self._parser.CurrentLineNumber
        if tag == "scxml":
            self.line = line
            self.document.initial = attributes.get("initial", "")
        elif tag == "parallel":
            raise ValueError(f"line {line}: <parallel> cannot be compared: a connection is in one state at a time")
        elif tag in _STATES:
            node = _Node(attributes.get("id", ""), self._open, attributes.get("initial", ""), history=tag == "history")
            self._open.children.append(node)
            self.nodes.append(node)
            self._open = node
        elif tag == "initial":
            self._in_initial = True
        elif tag == "transition":
            targets = attributes.get("target", "").split()
            if self._in_initial:
                self._open.initial = targets[0] if targets else ""
            else:
                events = _events(attributes.get("event", ""))
                self._open.transitions.append(_Transition(events, targets, "cond" in attributes, line))

    def _end(self, name: str) -> None:
        tag = name.rpartition(" ")[2]
        if tag in _STATES:
            assert self._open.parent is not None
            self._open = self._open.parent
        elif tag == "initial":
            self._in_initial = False


def _events(descriptors: str) -> list[str]:
    """The events that match: `*` is every event, and `lost.*` is `lost` as well."""
    names: list[str] = []
    for each in descriptors.split():
        if each == "*":
            names += [event.value for event in Event]
        else:
            names.append(normal(each.removesuffix("*").removesuffix(".")))
    return names or [""]
