"""`mcpconn key`: the key on standard output alone, and mistakes in a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcpconn.gateway.access.keys import KeyFile
from tests.cli.conftest import Invoke


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {}, "gateway": {"access": {"keys": "clients.json"}}}))
    return path


def test_a_key_is_made_listed_and_taken_back(mcpconn: Invoke, file: Path) -> None:
    made = mcpconn("key", "add", "ann", "--config", file)
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert key not in made.stderr
    assert str(KeyFile(file.parent / "clients.json").identify(key).principal) == "key:ann"
    assert mcpconn("key", "list", "--config", file).stdout == "ann\n"
    assert mcpconn("key", "remove", "ann", "--config", file).exit_code == 0
    assert mcpconn("key", "list", "--config", file).stdout == ""


def test_a_name_that_is_taken_is_one_line(mcpconn: Invoke, file: Path) -> None:
    mcpconn("key", "add", "ann", "--config", file)
    again = mcpconn("key", "add", "ann", "--config", file)
    assert again.exit_code != 0
    assert again.stdout == ""
    assert again.stderr.count("\n") == 1


def test_a_file_without_keys_says_the_fix(mcpconn: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {}}')
    refused = mcpconn("key", "list", "--config", path)
    assert refused.exit_code == 2
    assert '"access": {"keys"' in refused.stderr
