"""Pictures that others drew are read as Mermaid reads them, and compared with the machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mcpconn import diagram
from mcpconn.core import TRANSITIONS, Event
from mcpconn.diagram import Difference
from tests.node import find_modules
from tests.pictures import read_mermaid

ROOT = Path(__file__).resolve().parent.parent
EDGES = {(row.source.value, row.event.value, row.target.value) for row in TRANSITIONS}


# -- Mermaid itself


def mermaid_says(*texts: str) -> list[dict[str, Any]]:
    """What Mermaid's own parser reads."""
    modules = find_modules()
    if shutil.which("node") is None:
        pytest.skip("node is not installed, and Mermaid needs it")
    if not (modules / "mermaid").is_dir():
        pytest.skip(f"no mermaid in {modules}; .ci/run installs it")
    run = subprocess.run(
        ["node", str(ROOT / "tests" / "mermaid_edges.mjs"), str(modules)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answer: list[dict[str, Any]] = json.loads(run.stdout)
    return answer


def inner_edges(said: dict[str, Any]) -> set[tuple[str, str, str]]:
    assert "error" not in said, said["error"]
    ends = ("root_start", "root_end")
    return {tuple(edge) for edge in said["edges"] if edge[0] not in ends and edge[2] not in ends}


def test_mermaids_own_parser_reads_the_machine_out_of_the_diagram() -> None:
    plain, marked, fleet, broken = mermaid_says(
        diagram.mermaid(),
        diagram.mermaid("ready"),
        diagram.mermaid("27 ready, 1 failed"),
        diagram.mermaid().replace("-->", "->"),
    )
    assert inner_edges(plain) == inner_edges(marked) == inner_edges(fleet) == EDGES
    assert plain["marked"] == []
    assert marked["marked"] == ["ready"]
    assert sorted(fleet["marked"]) == ["failed", "ready"]
    assert "error" in broken, "a parser that accepts everything proves nothing"


HAND_DRAWN = """\
stateDiagram-v2
    direction LR
    %% drawn by hand
    [*] --> idle
    idle-->connecting : connect
    connecting --> ready:::good: established
    note right of ready
        idle --> ready: not an edge
    end note
    note left of idle : waits --> here
    state "Trying again" as trying
    ready --> trying: lost
    trying --> ready: established
    classDef good fill:#dfd
    ready --> [*]
"""


def test_it_reads_as_mermaids_parser_does() -> None:
    expected = {
        ("idle", "connect", "connecting"),
        ("connecting", "established", "ready"),
        ("ready", "lost", "trying"),
        ("trying", "established", "ready"),
    }
    assert read_mermaid(HAND_DRAWN) == expected
    (said,) = mermaid_says(HAND_DRAWN)
    assert inner_edges(said) == expected


# -- reading what others drew


@pytest.mark.parametrize(
    "text",
    [
        "stateDiagram-v2\n a --> b: go",
        "stateDiagram\n a --> b: go",
        "# Title\n\n```mermaid\nstateDiagram-v2\n  a --> b: go\n```\n",
        "~~~mermaid\nstateDiagram-v2\n  a --> b: go\n~~~\n",
        "::: mermaid\nstateDiagram-v2\n  a --> b: go\n:::\n",
        "- item\n\n  ```{.mermaid}\n  stateDiagram-v2\n    a --> b: go\n  ```\n",
        "> ```mermaid\n> stateDiagram-v2\n> a --> b: go\n> ```\n",
        "```mermaid\n---\ntitle: x --> y\n---\nstateDiagram-v2\n a --> b: go\n```\n",
        "```mermaid\n%%{init: {\n'theme': 'dark'}}%%\nstateDiagram-v2\n a --> b: go\n```\n",
    ],
)
def test_a_diagram_is_found_in_any_wrapping(text: str) -> None:
    assert read_mermaid(text) == {("a", "go", "b")}


@pytest.mark.parametrize(
    "text", ["", "# no diagram", "```mermaid\nflowchart LR\n a --> b\n```", "```python\na --> b\n```"]
)
def test_no_state_diagram_means_no_edges(text: str) -> None:
    assert read_mermaid(text) == set()


@pytest.mark.parametrize(
    ("label", "events"),
    [
        ("give_up", {"give_up"}),
        ("Give up", {"give_up"}),
        ("give-up", {"give_up"}),
        ("GiveUp", {"give_up"}),
        ("give_up (only a person can fix it, ever)", {"give_up"}),
        ("give_up: only a person can fix it", {"give_up"}),
        ("lost, give_up", {"lost", "give_up"}),
        ("lost<br/>give_up", {"lost", "give_up"}),
        (r"lost\ngive_up", {"lost", "give_up"}),
        ("", {""}),
        ("(for a reason)", {""}),
    ],
)
def test_a_label_names_its_events(label: str, events: set[str]) -> None:
    text = f"stateDiagram-v2\n a --> b{': ' + label if label else ''}"
    assert {event for _, event, _ in read_mermaid(text)} == events


def test_a_composite_state_stands_for_the_states_inside_it() -> None:
    text = """stateDiagram-v2
        state "In use" as open {
            [*] --> idle
            idle --> connecting: connect
            state busy {
                connecting --> ready: established
            }
        }
        open --> closed: close
        closed --> open: again
    """
    edges = read_mermaid(text)
    assert {("idle", "close", "closed"), ("connecting", "close", "closed"), ("ready", "close", "closed")} <= edges
    assert ("closed", "again", "idle") in edges
    assert not any("open" in edge or "busy" in edge for edge in edges)


def test_a_state_goes_by_its_text_where_the_text_is_the_machines_name() -> None:
    text = 'stateDiagram-v2\n state "Idle" as s1\n s2: Connecting\n s1 --> s2: connect\n'
    assert read_mermaid(text) == {("idle", "connect", "connecting")}


def test_an_edge_that_cannot_be_read_is_an_error_and_not_left_out() -> None:
    with pytest.raises(ValueError, match=r"line 2: .* cannot be read as an edge: 'a b --> c'"):
        read_mermaid("stateDiagram-v2\n a b --> c\n")


# -- comparing


def test_the_machines_own_diagram_is_true() -> None:
    assert diagram.compare(diagram.mermaid()) == []


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: f"{row.source}-{row.event}")
def test_each_edge_a_picture_lacks_is_told(row: Any) -> None:
    line = f"    {row.source} --> {row.target}: {row.event}\n"
    differences = diagram.compare(diagram.mermaid().replace(line, ""))
    assert differences == [Difference("missing", row.source.value, row.event.value, row.target.value)]
    assert str(differences[0]) == f"line 1: the picture lacks {row.source} --{row.event}--> {row.target}"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ready --> idle: lost", "lost leads to reconnecting"),
        ("idle --> ready: established", "established cannot happen in idle"),
        ("ready --> away: lost", "there is no state 'away'"),
        ("readdy --> failed: give_up", "there is no state 'readdy'; is ready meant?"),
        ("ready --> failed: gave_up", "there is no event 'gave_up'; is give_up meant?"),
        ("ready --> failed", "an edge needs an event"),
    ],
)
def test_an_edge_that_the_machine_lacks_is_told_with_the_reason(line: str, why: str) -> None:
    (difference,) = diagram.compare(f"{diagram.mermaid()}    {line}\n")
    assert difference.kind == "extra"
    last = diagram.mermaid().count("\n") + 1
    assert str(difference).startswith(f"line {last}: the machine has no ")
    assert str(difference).endswith(f": {why}")


def test_an_event_may_be_left_out_of_a_picture_on_request() -> None:
    text = "".join(line for line in diagram.mermaid().splitlines(keepends=True) if ": close" not in line)
    assert len(diagram.compare(text)) == 5
    assert diagram.compare(text, ignore=[Event.CLOSE]) == diagram.compare(text, ignore=["Close"]) == []


def test_of_several_diagrams_in_a_file_the_one_like_the_machine_is_meant(tmp_path: Path) -> None:
    other = "```mermaid\nstateDiagram-v2\n red --> green: wait\n```\n"
    page = tmp_path / "host.md"
    page.write_text(f"# Host\n{other}\n```mermaid\n{diagram.mermaid()}```\n{other}", encoding="utf-8")
    assert diagram.compare(page) == diagram.compare(str(page)) == []


def test_a_page_without_diagram_is_not_true(tmp_path: Path) -> None:
    page = tmp_path / "host.md"
    page.write_text("# Host\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no state diagram of a connection"):
        diagram.compare(page)


DOCUMENT = """\
# Our host

```mermaid
---
title: ours
---
stateDiagram-v2
    %% a note
    idle --> connecting: connect
    connecting --> ready: established
    ready --> failed: lost
```
"""


def test_a_difference_names_file_and_line(tmp_path: Path) -> None:
    page = tmp_path / "host.md"
    page.write_text(DOCUMENT, encoding="utf-8")
    told = [str(each) for each in diagram.compare(page)]
    assert f"{page}:7: the picture lacks idle --close--> closed" in told
    assert told[-1] == f"{page}:11: the machine has no ready --lost--> failed: lost leads to reconnecting"


def test_a_picture_may_show_some_states_only() -> None:
    text = "stateDiagram-v2\n  connecting --> ready: established\n  connecting --> connecting: attempt failed\n"
    assert [each.kind for each in diagram.compare(text, partial=True)] == ["missing"], "ready can be suspected"
    whole = text + "  ready --> ready: suspected\n"
    assert diagram.compare(whole, partial=True) == []
    assert len(diagram.compare(whole)) == len(EDGES) - 3
    assert diagram.compare(whole.replace("-v2", "-v2\n %% mcpconn: partial")) == []


def test_a_partial_pictures_edge_is_told() -> None:
    (difference,) = diagram.compare("stateDiagram-v2\n  idle --> failed: give_up\n", partial=True)
    assert str(difference) == "line 2: the machine has no idle --give_up--> failed: give_up cannot happen in idle"


def test_all_pictures_of_connections_in_a_folder_are_compared(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "inner" / "host.md").write_text(DOCUMENT, encoding="utf-8")
    (tmp_path / "node_modules" / "host.md").write_text(DOCUMENT, encoding="utf-8")
    (tmp_path / "light.md").write_text("```mermaid\nstateDiagram-v2\n red --> green: go\n```\n", encoding="utf-8")
    (tmp_path / "plain.md").write_text("# Plain\n", encoding="utf-8")
    (tmp_path / "true.mmd").write_text(diagram.mermaid(), encoding="utf-8")
    (tmp_path / "true.scxml").write_text(diagram.scxml(), encoding="utf-8")
    assert {each.path for each in diagram.compare(tmp_path)} == {tmp_path / "inner" / "host.md"}


def test_a_folder_without_a_picture_of_connections_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "light.md").write_text("```mermaid\nstateDiagram-v2\n red --> green: go\n```\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"there is no state diagram of a connection in .*test_a_folder"):
        diagram.compare(tmp_path)


def test_two_pictures_in_a_file_are_compared(tmp_path: Path) -> None:
    page = tmp_path / "host.md"
    block = DOCUMENT.partition("\n\n")[2]
    page.write_text(f"```mermaid\n{diagram.mermaid()}```\n\n{block}", encoding="utf-8")
    assert len(diagram.compare(page)) == len(EDGES) - 2 + 1
