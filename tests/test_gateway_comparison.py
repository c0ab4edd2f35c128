"""The page that compares gateways says what was measured, and of what was not, why."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from benchmarks.gateways import __main__ as comparison
from benchmarks.gateways.catalog import GATEWAYS, HOME
from benchmarks.gateways.promises import PROMISES

CONTENT: dict[str, Any] = {
    "date": "2026-11-01",
    "machine": "2 processors",
    "client": "mcp 2.3.0",
    "load": 3,
    "versions": {"mcpconn": "0.1.0", "other": "9.9"},
    "notes": {"other": "as it comes"},
    "not installed": {"third": "no such package"},
    "promises": {
        "mcpconn": {"session forgotten": "answers"},
        "other": {"session forgotten": "dead (a | b\nc)", "server away 3 s": "no answer; later dead"},
    },
    "times": {"legacy": {"mcpconn": {"call": {"ratio": 2.04, "least": 1.9, "most": 2.2}}, "other": {"problem": "x"}}},
}


def rows(page: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")][1:]


def test_a_cell_holds_what_was_measured_and_nothing_else(monkeypatch):
    content = json.loads(json.dumps(CONTENT))
    content["times"]["legacy"]["mcpconn"][comparison.RATE] = {"ratio": 0.5, "least": 0.4, "most": 0.6}
    page = comparison.page(content)
    assert rows(page, "session forgotten") == ["answers", "dead (a / b c)"]
    assert rows(page, "server away 3 s") == ["", "no answer; later dead"]
    assert rows(page, "mcpconn") == ["2 (1.9 to 2.2)", "0.5 (0.4 to 0.6)", "not measured", ""]
    assert rows(page, "other")[0] == "x"
    assert "2026-11-01" in page
    assert "load average 3" in page
    assert "third could not be installed: no such package" in page
    assert "other 9.9" in page


def test_the_page_is_what_the_results_make():
    content = comparison.known()
    if not content["promises"]:
        pytest.skip("nothing was measured yet")
    assert comparison.PAGE.read_text(encoding="utf-8") == comparison.page(content)
    known = {each.name for each in GATEWAYS}
    assert content["promises"].keys() <= known
    assert all(found.keys() == PROMISES.keys() for found in content["promises"].values())


def test_environments_are_apart_and_not_in_the_repository():
    homes = [each.home for each in GATEWAYS if each.kind != "own"]
    assert len(set(homes)) == len(homes)
    for home in homes:
        asked = subprocess.run(["git", "check-ignore", "-q", home], cwd=HOME.parent, check=False)
        # 128: this is no repository, as in the sdist.
        assert asked.returncode in (0, 128)


@pytest.mark.parametrize("gateway", GATEWAYS, ids=lambda each: each.name)
def test_a_gateway_is_started_on_its_port_before_the_server(gateway, tmp_path):
    command = gateway.command(gateway.home, tmp_path, 4711, "http://127.0.0.1:4712/mcp")
    files = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "4711" in " ".join(command) + files
    assert "http://127.0.0.1:4712/mcp" in " ".join(command) + files
