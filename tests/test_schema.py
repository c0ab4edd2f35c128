"""The schema of mcp.json accepts what is accepted, refuses a slip, and has words and defaults for each key."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships none
import pytest

from mcpconn import ConfigError, Policy, ServerConfig
from mcpconn.mcpjson import parse
from mcpconn.schema import entry_schema, file_schema, keys_table
from tests import pages
from tests.mcpjson.test_hosts import UNDERSTOOD

SCHEMA = file_schema()
IN_CODE = {"name", "notes", "problem", "server", "http_transport", "options"}


def valid(entry: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid({"mcpServers": {"a": entry}}))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_the_entries_of_hosts_are_valid(case: str) -> None:
    entry = {key: value for key, value in UNDERSTOOD[case][1].items() if value is not None}
    assert valid(entry)


@pytest.mark.parametrize(
    "entry",
    [
        {"url": "https://a.example", "timout": 5},
        {"url": 5},
        {"command": "x", "args": "y"},
        {"url": "https://a.example", "connect_timeout": -1},
        {"url": "https://a.example", "timeout": True},
        {"command": "x", "mode": "modern"},
        {"command": "x", "env": {"A": ["b"]}},
        {"url": "https://a.example", "verify": "no"},
        {"url": "https://a.example", "catalog": "sometimes"},
        {"url": "https://a.example", "max_waiting": 1.5},
    ],
)
def test_what_the_schema_refuses_is_refused_by_the_reader(entry: dict[str, Any]) -> None:
    assert not valid(entry)
    assert parse({"mcpServers": {"a": entry}})["a"].problem is not None


def test_every_key_has_words_and_a_row() -> None:
    own = {item.name for item in fields(ServerConfig)} - IN_CODE
    properties, table = entry_schema()["properties"], keys_table()
    for key in own:
        assert properties[key]["description"]
        assert f"| `{key}` |" in table
    for key in IN_CODE - {"name"}:
        assert key not in properties


def test_defaults_of_numbers_are_the_policys() -> None:
    rows = {row.split("|")[1].strip(" `"): row.split("|")[3].strip() for row in keys_table().splitlines() if "|" in row}
    assert rows["connect_timeout"] == f"{Policy().connect_timeout:g}"
    assert rows["timeout"] == f"{Policy().call_timeout:g}"
    assert rows["max_waiting"] == str(Policy().max_waiting)


def test_one_bad_value_is_named_with_its_fix_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(name="a", url="https://a.example", max_waiting="tok-s3cret")  # type: ignore[arg-type]
    assert (caught.value.server, caught.value.key) == ("a", "max_waiting")
    assert "whole number" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("page", "marker"), pages.TABLES)
def test_the_page_is_what_the_code_says(page: str, marker: str) -> None:
    text = (pages.DOCS / page).read_text(encoding="utf-8")
    table = pages.TABLES[page, marker]()
    assert table in text
    assert pages.made(text, marker, f"\n{table}\n") == text, "run: python -m tests.pages"
