"""The alert rules and the board ask for metrics, labels and values that a running gateway exports."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from prometheus_client.parser import text_string_to_metric_families

from mcpconn.core.outcome import Outcome
from mcpconn.core.states import Event, State
from mcpconn.gateway import Settings
from mcpconn.testing import Script
from tests.deploy.reading import DEPLOY, Use, documents, groupings, uses
from tests.gateway.conftest import gateway

RULES = DEPLOY / "prometheus" / "alerts.yaml"
BOARD = DEPLOY / "grafana" / "mcpconn.json"
TARGET = {"job", "instance"}
"""Labels that Prometheus itself adds to every sample of a scrape."""
VALUES: dict[str, type[State] | type[Outcome] | type[Event]] = {"state": State, "outcome": Outcome, "event": Event}


def rules() -> list[dict[str, Any]]:
    (content,) = documents(RULES)
    return [rule for group in content["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(BOARD.read_text())["panels"]
    return found


QUERIES = {
    **{rule["alert"]: rule["expr"] for rule in rules()},
    **{f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]},
}


@pytest.fixture
def anyio_backend():
    """uvicorn serves on asyncio alone."""
    return "asyncio"


async def exported(path: Path) -> dict[str, set[str]]:
    """The labels of each metric of a gateway that has answered a call."""
    labels: defaultdict[str, set[str]] = defaultdict(set, up=set())
    async with gateway(Script(), settings=Settings(audit=path)) as made, httpx2.AsyncClient() as http:
        async with Client(made.url) as client:
            await client.session.call_tool("a__add", {"a": 1, "b": 2})
        text = (await http.get(made.url.removesuffix("/mcp") + "/metrics")).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels[sample.name] |= sample.labels.keys()
    return dict(labels)


@pytest.mark.anyio
async def test_every_query_asks_for_what_a_gateway_exports(tmp_path):
    labels = await exported(tmp_path / "audit.jsonl")
    for name, query in QUERIES.items():
        found = uses(query)
        assert found, f"{name}: no metric in {query}"
        known = set(TARGET)
        for use in found:
            assert use.metric in labels, f"{name}: {use.metric} is not exported"
            known |= labels[use.metric]
            assert use.matchers.keys() <= labels[use.metric] | TARGET, f"{name}: {use}"
        assert groupings(query) <= known, f"{name}: {groupings(query) - known}"
    asked = {use.metric for query in QUERIES.values() for use in uses(query)}
    ours = {metric for metric in labels if metric.startswith("mcpconn_gateway")}
    unused = {metric.removesuffix("_bucket") for metric in ours - asked if not metric.endswith(("_sum", "_count"))}
    assert unused <= {"mcpconn_gateway_info"}


@pytest.mark.parametrize("name", QUERIES)
def test_every_value_asked_for_exists(name):
    for use in uses(QUERIES[name]):
        for label, value in use.matchers.items():
            if label in VALUES:
                assert set(value.split("|")) <= {each.value for each in VALUES[label]}


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_has_its_brackets_closed(name):
    for pair in ("()", "[]", "{}"):
        assert QUERIES[name].count(pair[0]) == QUERIES[name].count(pair[1])


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_says_how_grave_it_is_and_what_to_do(rule):
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert rule["annotations"].keys() == {"summary", "description"}
    # A label of a template that the aggregation drops would be shown as nothing.
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert named <= TARGET | groupings(rule["expr"])
    if groupings(rule["expr"]):
        assert named <= groupings(rule["expr"])


def test_panels_differ_and_do_not_overlap():
    assert len({panel["id"] for panel in panels()}) == len(panels())
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels())
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24, "a board is 24 columns wide"


def test_a_board_uses_variables_it_declares():
    board = json.loads(BOARD.read_text())
    declared = {variable["name"] for variable in board["templating"]["list"]}
    built_in = {"__rate_interval"}
    assert set(re.findall(r"\$\{?(\w+)", BOARD.read_text())) - built_in == declared
    assert board["uid"]


def test_the_scrape_sends_the_key_and_loads_the_rules():
    (content,) = documents(DEPLOY / "prometheus" / "scrape.yaml")
    (job,) = content["scrape_configs"]
    assert job["job_name"] == "mcpconn"
    assert job["metrics_path"] == "/metrics"
    assert job["authorization"] == {"type": "Bearer", "credentials_file": "/etc/prometheus/mcpconn.key"}
    assert 'job="mcpconn"' in RULES.read_text()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("up == 0", [Use("up", {})]),
        (
            'sum by (a) (rate(x_total{b="c", d=~"e|f"}[5m])) / y > 3',
            [Use("x_total", {"b": "c", "d": "e|f"}), Use("y", {})],
        ),
        ("clamp_min(sum(z), 1)", [Use("z", {})]),
        ("a and on (i) b unless c", [Use("a", {}), Use("b", {}), Use("c", {})]),
    ],
)
def test_the_reader_of_queries_finds_their_metrics(query, found):
    assert uses(query) == found


def test_the_page_names_every_alert():
    page = (DEPLOY.parent / "docs" / "howto" / "gateway-operation.md").read_text()
    assert set(re.findall(r"`(Mcpconn\w+)`", page)) == {rule["alert"] for rule in rules()}
