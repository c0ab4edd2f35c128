"""Diagrams and tables are made from the machine, and pictures by others are compared with it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcpconn import diagram
from mcpconn.core import (
    DEFAULT_RULES,
    TRANSITIONS,
    Delivery,
    Event,
    Evidence,
    Failure,
    FailureKind,
    State,
    decide,
    may_replay,
)
from mcpconn.core.machine import Cell, fire
from mcpconn.diagram import drawing, markers
from mcpconn.diagram.highlight import COLOURS, DARK_COLOURS
from mcpconn.diagram.layout import NARROW, WIDE, Layout
from mcpconn.diagram.rule_table import rules_table
from mcpconn.diagram.tables import events_table, failures_table
from tests.pictures import read_mermaid

ROOT = Path(__file__).resolve().parent.parent
EDGES = {(row.source.value, row.event.value, row.target.value) for row in TRANSITIONS}


@dataclass
class Live:
    """Something with a state, as a connection has."""

    state: State


# -- what is made


def test_the_mermaid_diagram_has_exactly_the_edges_of_the_machine() -> None:
    assert read_mermaid(diagram.mermaid()) == EDGES
    assert diagram.mermaid().count("-->") == len(TRANSITIONS) + 2, (
        "one row is drawn twice, or a start or end is missing"
    )


def test_every_drawn_edge_can_be_taken() -> None:
    for source, event, target in read_mermaid(diagram.mermaid()):
        cell = Cell(State(source))
        assert fire(cell, Event(event)) is State(target)


def test_the_dot_graph_has_exactly_the_edges_of_the_machine() -> None:
    found = re.findall(r'^ {4}(\w+) -> (\w+) \[label="(\w+)"', diagram.dot(), re.MULTILINE)
    assert {(source, event, target) for source, target, event in found} == EDGES
    assert len(found) == len(TRANSITIONS)


def test_the_markdown_table_has_exactly_the_rows_of_the_machine() -> None:
    rows = [re.split(r" *\| *", line.strip("| ")) for line in diagram.markdown_table().splitlines()[2:]]
    assert [[cell.strip("`") for cell in row] for row in rows] == [[str(cell) for cell in row] for row in TRANSITIONS]


def edges_of_svg(text: str) -> set[tuple[str, str, str]]:
    found: set[tuple[str, str, str]] = set()
    for title in ET.fromstring(text.encode()).iter("{http://www.w3.org/2000/svg}title"):
        match = re.match(r"(.+) --(\w+)--> (\w+)", title.text or "")
        if match is not None:
            found.update((source, match[2], match[3]) for source in match[1].split(", "))
    return found


@pytest.mark.parametrize("narrow", [False, True])
def test_the_svg_picture_has_exactly_the_edges_of_the_machine(narrow: bool) -> None:
    assert edges_of_svg(diagram.svg(narrow=narrow)) == EDGES


def test_the_svg_says_in_words_what_it_shows() -> None:
    description = ET.fromstring(diagram.svg("failed").encode()).findtext("{http://www.w3.org/2000/svg}desc") or ""
    assert all(f"{row.source}, {row.event}: {row.target}." in description for row in TRANSITIONS)
    assert description.endswith("The connection is failed.")


@pytest.mark.parametrize("layout", [WIDE, NARROW], ids=lambda layout: layout.name)
def test_every_state_has_a_place_of_its_own_in_the_picture(layout: Layout) -> None:
    assert set(layout.places) == set(State)
    assert len(set(layout.places.values())) == len(State)
    assert set(layout.loops) == {row.source for row in TRANSITIONS if row.source is row.target}


def test_without_a_common_event_the_picture_draws_every_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    table = tuple(row for row in TRANSITIONS if (row.source, row.event) != (State.FAILED, Event.CLOSE))
    monkeypatch.setattr(drawing, "TRANSITIONS", table)
    assert edges_of_svg(diagram.svg()) == EDGES - {("failed", "close", "closed")}


@pytest.mark.parametrize("layout", [WIDE, NARROW], ids=lambda layout: layout.name)
def test_nothing_lies_outside_the_picture(layout: Layout) -> None:
    root = ET.fromstring(diagram.svg(narrow=layout is NARROW).encode())
    width, height = layout.width, layout.height
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        x, y = float(element.attrib["x"]), float(element.attrib["y"])
        half = len(element.text or "") * 8
        reach = {"start": (0, half), "middle": (half / 2, half / 2), "end": (half, 0)}[
            element.attrib.get("text-anchor", "middle")
        ]
        assert x - reach[0] > 0, element.text
        assert x + reach[1] < width, element.text
        assert 12 < y < height, element.text


@pytest.mark.parametrize("state", State, ids=str)
def test_a_state_its_name_and_a_connection_in_it_are_marked_alike(state: State) -> None:
    for make in (diagram.mermaid, diagram.dot, diagram.svg, diagram.markdown_table):
        assert make(state) == make(state.value) == make(Live(state))
        # Nothing leaves `closed`, so no row of the table is marked for it.
        assert (make(state) != make()) is not (make is diagram.markdown_table and state is State.CLOSED)
    assert f"class {state} {state}_now" in diagram.mermaid(state)
    assert f'<g data-state="{state}" class="current {state}">' in diagram.svg(state)


def test_only_one_state_is_marked() -> None:
    assert diagram.svg("ready").count('class="current') == 1
    assert diagram.dot("ready").count("#ffffff") == diagram.dot().count("#ffffff") + 1


def test_failed_is_not_lit_like_ready() -> None:
    for make in (diagram.mermaid, diagram.dot):
        assert COLOURS[State.FAILED] in make("failed")
        assert COLOURS[State.FAILED] not in make("ready")
    assert len(set(COLOURS.values())) == len(set(DARK_COLOURS.values())) == len(State)


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("colours", "ink"), [(COLOURS, "#ffffff"), (DARK_COLOURS, "#0d1117")])
def test_a_marked_name_can_be_read(colours: dict[State, str], ink: str) -> None:
    for colour in colours.values():
        dark, light = sorted((luminance(colour), luminance(ink)))
        # 4.5:1 is what WCAG 2.2 asks of text.
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour


FLEET = "27 ready, 2 reconnecting, 1 failed"


def test_a_manager_is_marked_by_counts() -> None:
    states = [State.READY] * 27 + [State.RECONNECTING] * 2 + [State.FAILED]
    fleet = {f"shop{number}": Live(state) for number, state in enumerate(states)}
    for make in (diagram.mermaid, diagram.dot, diagram.svg, diagram.markdown_table):
        assert make(fleet) == make(FLEET) == make({"ready": 27, "reconnecting": 2, "failed": 1})
    assert "    ready: 27 ready\n" in diagram.mermaid(fleet)
    assert read_mermaid(diagram.mermaid(fleet)) == EDGES
    assert 'label="2 reconnecting"' in diagram.dot(fleet)
    picture = ET.fromstring(diagram.svg(fleet).encode())
    names = "{http://www.w3.org/2000/svg}"
    counts = {g.get("data-state"): g.findtext(f"{names}text[@class='name count']") for g in picture.iter(f"{names}g")}
    assert {state: count for state, count in counts.items() if count} == {
        "ready": "27",
        "reconnecting": "2",
        "failed": "1",
    }
    assert (picture.findtext(f"{names}desc") or "").endswith("Connections: 27 ready, 2 reconnecting, 1 failed.")


def test_an_empty_manager_marks_nothing() -> None:
    assert diagram.svg({}) == diagram.svg()


def test_states_are_links_on_request() -> None:
    picture = ET.fromstring(diagram.svg(links="states.md").encode())
    links = [link.get("href") for link in picture.iter("{http://www.w3.org/2000/svg}a")]
    assert links == [f"states.md#{state}" for state in State]
    assert "<a " not in diagram.svg()


def test_two_pictures_in_a_page_share_no_id() -> None:
    ids = re.findall(r' id="([^"]+)"', diagram.svg() + diagram.svg(narrow=True))
    assert len(ids) == len(set(ids)) == 6


def test_an_unknown_state_cannot_be_marked() -> None:
    with pytest.raises(ValueError, match=r"no state 'broken'; the states are: idle, connecting, ready"):
        diagram.mermaid("broken")


# -- markers


def page(folder: Path, kind: str = "mermaid", content: str = "old\n", attributes: str = "") -> Path:
    path = folder / "page.md"
    path.write_text(
        f"before\n\n<!-- mcpconn:{kind}{attributes} -->\n{content}<!-- /mcpconn:{kind} -->\n\nafter\n", encoding="utf-8"
    )
    return path


@pytest.mark.parametrize("kind", sorted(markers.MAKERS))
def test_write_makes_what_check_finds_true(tmp_path: Path, kind: str) -> None:
    path = page(tmp_path, kind)
    (drift,) = diagram.check(path)
    assert (drift.path, drift.line, drift.kind) == (path, 3, kind)
    assert "mcpconn diagram --write" in str(drift)
    assert diagram.write(path) == [path]
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"before\n\n<!-- mcpconn:{kind} -->\n\n")
    assert text.endswith(f"\n\n<!-- /mcpconn:{kind} -->\n\nafter\n")
    assert diagram.check(path) == diagram.write(path) == []


def test_one_changed_edge_is_drift(tmp_path: Path) -> None:
    path = page(tmp_path)
    diagram.write(path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("ready --> reconnecting: lost", "ready --> idle: lost"), encoding="utf-8")
    assert [drift.kind for drift in diagram.check(path)] == ["mermaid"]


def test_a_marker_can_mark_a_state(tmp_path: Path) -> None:
    path = page(tmp_path, attributes=" highlight=failed")
    diagram.write(path)
    assert "class failed failed_now" in path.read_text(encoding="utf-8")


def test_several_blocks_of_one_page_are_written_each_in_its_place(tmp_path: Path) -> None:
    path = page(tmp_path)
    both = "<!-- mcpconn:table -->\n<!-- /mcpconn:table -->\n<!-- mcpconn:mermaid -->\n<!-- /mcpconn:mermaid -->\n"
    path.write_text(both, encoding="utf-8")
    assert [(drift.line, drift.kind) for drift in diagram.check(path)] == [(1, "table"), (3, "mermaid")]
    diagram.write(path)
    text = path.read_text(encoding="utf-8")
    assert text.index("| from |") < text.index("<!-- /mcpconn:table -->") < text.index("stateDiagram-v2")
    assert diagram.check(path) == []


def test_a_folder_is_searched_for_pictures(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    hidden = tmp_path / ".hidden"
    for folder in (inner, hidden):
        folder.mkdir()
        page(folder)
    picture = inner / "machine.svg"
    picture.write_text("<!-- mcpconn:svg highlight=ready -->\n<svg/>\n", encoding="utf-8")
    (tmp_path / "other.svg").write_text("<svg/>\n", encoding="utf-8")
    (tmp_path / "plain.md").write_text("text\n", encoding="utf-8")
    assert {drift.path for drift in diagram.check(tmp_path)} == {inner / "page.md", picture}
    assert set(diagram.write(tmp_path)) == {inner / "page.md", picture}
    assert picture.read_text(encoding="utf-8") == diagram.svg("ready")
    assert diagram.check(tmp_path) == []


def test_markers_in_a_code_block_are_text(tmp_path: Path) -> None:
    path = page(tmp_path)
    example = "````markdown\n<!-- mcpconn:nonsense -->\n```\n<!-- /mcpconn:table -->\n```\n````\n"
    path.write_text(example + path.read_text(encoding="utf-8"), encoding="utf-8")
    diagram.write(path)
    assert path.read_text(encoding="utf-8").startswith(example)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- mcpconn:mermaid -->\n", r":1: <!-- mcpconn:mermaid --> is never closed"),
        ("\n<!-- /mcpconn:mermaid -->\n", r":2: <!-- /mcpconn:mermaid --> closes nothing"),
        ("<!-- mcpconn:picture -->\n", r":1: unknown marker 'picture'; known: mermaid, "),
        ("<!-- mcpconn:dot -->\n<!-- /mcpconn:table -->\n", r":2: <!-- /mcpconn:table --> inside dot"),
        ("<!-- mcpconn:dot -->\n<!-- mcpconn:dot -->\n", r":2: <!-- mcpconn:dot --> inside dot"),
        ("no markers\n", "no markers"),
    ],
)
def test_senseless_markers_are_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        diagram.check(path)
    with pytest.raises(ValueError, match=message):
        diagram.write(path)
    assert path.read_text(encoding="utf-8") == text


def test_a_marker_makes_its_own_file_again(tmp_path: Path) -> None:
    made = {
        "fleet.svg": diagram.svg(FLEET, links="states.md", narrow=True),
        "plain.svg": diagram.svg(),
        "machine.scxml": diagram.scxml(),
    }
    for name, text in made.items():
        (tmp_path / name).write_text(text.partition("\n")[0] + "\n", encoding="utf-8")
    assert [drift.kind for drift in diagram.check(tmp_path)] == ["svg", "scxml", "svg"]
    diagram.write(tmp_path)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == made


def test_an_attribute_that_a_marker_does_not_have_is_an_error(tmp_path: Path) -> None:
    path = page(tmp_path, attributes=" narrow")
    with pytest.raises(ValueError, match=r"page\.md:3: unknown attribute 'narrow' of mermaid; known: highlight"):
        diagram.check(path)


def test_a_folder_without_marker_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no markers"):
        diagram.check(tmp_path)


# -- the tables of failures


def rows(table: str) -> list[list[str]]:
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def evidence_of(label: str) -> Evidence:
    return Evidence(http_status=int(label.partition(", ")[2])) if ", " in label else Evidence()


def test_the_table_of_failures_has_a_row_for_every_kind_and_delivery() -> None:
    cells = [(label.partition(",")[0], delivery) for label, delivery, *_ in rows(failures_table())]
    assert set(cells) == {(kind.value, delivery.value) for kind in FailureKind for delivery in Delivery}
    assert len(cells) == (len(FailureKind) + 1) * len(Delivery), "auth has two rows a delivery: 401 and 403"


@pytest.mark.parametrize("row", rows(failures_table()), ids=lambda row: " ".join(row[:2]))
def test_what_the_table_says_of_a_replay_is_what_is_decided(row: list[str]) -> None:
    label, delivery, *answers, _ = row
    failure = Failure(
        kind=FailureKind(label.partition(",")[0]),
        delivery=Delivery(delivery),
        proof=True,
        summary="",
        evidence=evidence_of(label),
    )
    for safe, answer in zip((True, False), answers, strict=True):
        best: dict[str, Any] = {"safe": safe, "refreshed": True, "budget": 1.0}
        assert may_replay(failure, replays=0, **best) is (answer != "no")
        assert may_replay(failure, replays=1, **best) is answer.startswith("until")
        if answer != "no":
            assert may_replay(failure, replays=0, safe=safe, refreshed=False) is ("credentials" not in answer)
            assert may_replay(failure, replays=0, safe=safe, refreshed=True, budget=0.0) is ("budget" not in answer)


def test_what_the_table_says_of_events_is_what_is_decided() -> None:
    for label, as_proof, as_suspicion, *_ in rows(events_table()):
        for proof, answer in ((True, as_proof), (False, as_suspicion)):
            failure = Failure(
                kind=FailureKind(label.partition(",")[0]),
                delivery=Delivery.UNKNOWN,
                proof=proof,
                summary="",
                evidence=evidence_of(label),
            )
            events = [decide(State.READY, failure, refreshable=yes) for yes in (True, False)]
            named = ["nothing" if event is None else event.value for event in events]
            assert answer.replace("`", "") in (
                named[0],
                f"{named[0]} if credentials can be renewed, else {named[1]}",
            )
            assert (named[0] == named[1]) is ("credentials" not in answer)


def test_the_table_of_rules_has_every_rule_in_the_order_they_are_tried() -> None:
    assert [row[4:6] for row in rows(rules_table())] == [[rule.because, rule.kind.value] for rule in DEFAULT_RULES]


def test_the_table_of_rules_names_what_each_one_decides_by() -> None:
    found = {(row[0], row[4]): row[1:4] for row in rows(rules_table())}
    assert found["HTTP", "too many requests"] == ["429", "", ""]
    assert found["HTTP", "the server cannot answer now"][0] == "5xx"
    assert found["HTTP", "the server does not know this method"][:2] == ["404", "-32601"]
    assert found["HTTP", "a proxy has no route to the server"][2] == '"page not found"'
    assert "not `application/json`" in found["HTTP", "the URL serves a web page, not an MCP server"][2]
    assert found["JSON-RPC", "the versions do not fit"][1] == "-32020, -32021, -32022"
    assert found["JSON-RPC", "the event stream ended before the answer"][1:] == ["-32000", '"sse stream"']
    assert found["local", "the server's certificate is not trusted"][2].strip("`") == "SSLCertVerificationError"
    assert "EndOfStream" in found["local", "the transport ended"][2]
    # A status that nobody decides by would be a hole in the rules.
    assert all(status for (part, _), (status, *_) in found.items() if part == "HTTP")
