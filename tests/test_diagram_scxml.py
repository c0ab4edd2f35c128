"""The machine as SCXML: written, read back, read by a library that is not ours, and compared."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from statemachine.io.scxml.processor import SCXMLProcessor

from mcpconn import diagram
from mcpconn.core import TRANSITIONS, Event, State
from mcpconn.core.states import Transition
from tests.pictures import read_scxml

EDGES = {(row.source.value, row.event.value, row.target.value) for row in TRANSITIONS}
XMLNS = 'xmlns="http://www.w3.org/2005/07/scxml" version="1.0"'


def document(states: str, attributes: str = 'initial="idle"') -> str:
    return f"<scxml {XMLNS} {attributes}>\n{states}\n</scxml>\n"


# -- written


def test_it_has_exactly_the_machines_edges() -> None:
    assert read_scxml(diagram.scxml()) == EDGES
    assert diagram.scxml().count("<transition ") == len(TRANSITIONS)
    assert diagram.compare(diagram.scxml()) == []


def test_the_reasons_of_the_table_stand_beside_the_transitions() -> None:
    comments = re.findall(r"<!-- (.*) -->\n    <transition ", diagram.scxml())
    assert comments == [row.when for state in State for row in TRANSITIONS if row.source is state]


def test_it_begins_idle_and_ends_closed() -> None:
    root = ET.fromstring(diagram.scxml())
    assert root.attrib == {"version": "1.0", "datamodel": "null", "name": "connection", "initial": "idle"}
    names = "{http://www.w3.org/2005/07/scxml}"
    assert [each.get("id") for each in root.iter(f"{names}final")] == ["closed"]


def test_a_foreign_interpreter_does_what_the_machine_does() -> None:
    for row in TRANSITIONS:
        # Begun in each state, with the document's own initial state replaced.
        text = diagram.scxml().replace('initial="idle"', f'initial="{row.source.value}"')
        processor = SCXMLProcessor()
        processor.parse_scxml("connection", text)
        machine = processor.start()
        assert set(machine.configuration_values) == {row.source.value}
        machine.send(row.event.value)
        assert set(machine.configuration_values) == {row.target.value}


def test_a_foreign_interpreter_refuses_what_the_machine_refuses() -> None:
    legal = {(row.source, row.event) for row in TRANSITIONS}
    for state in State:
        processor = SCXMLProcessor()
        processor.parse_scxml("connection", diagram.scxml().replace('initial="idle"', f'initial="{state.value}"'))
        machine = processor.start()
        for event in Event:
            if (state, event) not in legal:
                # SCXML drops an event without a transition.
                machine.send(event.value)
                assert set(machine.configuration_values) == {state.value}


# -- read

COMPOUND = document(
    """
    <state id="open">
      <initial><transition target="idle"/></initial>
      <state id="idle"><transition event="connect" target="busy"/></state>
      <state id="busy" initial="ready">
        <state id="connecting"/>
        <state id="ready">
          <transition event="suspected"/>
          <transition event="lost give-up" target="open"/>
        </state>
        <transition event="lost" target="failed"/>
      </state>
      <transition event="close" target="closed"/>
    </state>
    <state id="failed"><transition event="retry.*" target="busy" cond="In('x')"/></state>
    <final id="closed"/>
    """,
    'initial="open"',
)


def test_compound_states_follow_the_standard() -> None:
    assert read_scxml(COMPOUND) == {
        ("idle", "connect", "ready"),
        ("idle", "close", "closed"),
        ("connecting", "lost", "failed"),
        ("connecting", "close", "closed"),
        ("ready", "suspected", "ready"),
        ("ready", "lost", "idle"),
        ("ready", "give_up", "idle"),
        ("ready", "close", "closed"),
        ("failed", "retry", "ready"),
    }


def test_any_event_means_all_not_named() -> None:
    text = document('<state id="ready"><transition event="lost" target="a"/><transition event="*" target="b"/></state>')
    edges = read_scxml(text)
    assert ("ready", "lost", "a") in edges
    assert {event for _, event, target in edges if target == "b"} == {event.value for event in Event} - {"lost"}


def test_a_history_state_means_its_default() -> None:
    inner = '<history id="h"><transition target="ready"/></history><state id="idle"/><state id="ready"/>'
    text = document(
        f'<state id="open" initial="idle">{inner}</state><state id="x"><transition event="go" target="h"/></state>'
    )
    assert read_scxml(text) == {("x", "go", "ready")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<scxml><state></scxml>", "not well-formed XML: mismatched tag"),
        ("<svg/>", "its root is not <scxml>"),
        (f'<!DOCTYPE scxml [<!ENTITY a "b">]><scxml {XMLNS}/>', "a DTD is not read"),
        (document('<parallel id="both"/>'), "line 2: <parallel> cannot be compared"),
    ],
)
def test_what_cannot_be_read_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_scxml(text)


# -- compared


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: f"{row.source}-{row.event}")
def test_a_changed_transition_names_its_line(tmp_path: Path, row: Transition) -> None:
    lines = diagram.scxml().splitlines(keepends=True)
    begin = next(number for number, line in enumerate(lines) if f'<state id="{row.source}">' in line)
    at = next(number for number in range(begin, len(lines)) if f'event="{row.event}"' in lines[number])
    lines[at] = lines[at].replace(f'target="{row.target}"', 'target="elsewhere"')
    path = tmp_path / "host.scxml"
    path.write_text("".join(lines), encoding="utf-8")
    missing, extra = (str(each) for each in diagram.compare(path))
    assert missing == f"{path}:2: the picture lacks {row.source} --{row.event}--> {row.target}"
    assert extra.startswith(f"{path}:{at + 1}: the machine has no {row.source} --{row.event}--> elsewhere: there is no")


def test_a_partial_document_is_partly_judged() -> None:
    states = """<!-- mcpconn: partial -->
    <state id="idle"><transition event="connect" target="connecting"/></state>
    <state id="connecting"><transition event="attempt_failed" target="connecting"/></state>"""
    assert diagram.compare(document(states)) == []
    assert len(diagram.compare(document(states.replace("partial", "all")))) == len(EDGES) - 2
