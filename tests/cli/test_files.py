"""Files in which some entries cannot be used, and what the commands say about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke, stdio

Config = Callable[..., Path]
BAD = {"url": "https://bad.example", "headers": {"K": "${MCPCONN_NOPE}"}}
REASON = "bad: its configuration cannot be used (headers.K: the environment variable MCPCONN_NOPE is not set"


def test_check_shows_a_bad_entry_as_a_row_and_asks_the_others(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("check", config(bad=BAD, good=stdio()))
    assert result.exit_code == 1
    _, bad, good = result.stdout.splitlines()[:3]
    assert bad.split()[:3] == ["bad", "✖", "failed"]
    assert good.split()[:3] == ["good", "●", "ready"]
    assert REASON in result.stdout
    assert "fix its entry in the configuration" in result.stdout
    assert result.stdout.endswith("1 of 2 failed.\n")


def test_check_strict_refuses_the_whole_file(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("check", "--strict", config(bad=BAD, good=stdio()))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "server 'bad': headers.K: the environment variable MCPCONN_NOPE is not set" in result.stderr


def test_a_disabled_bad_entry_is_no_failure(mcpconn: Invoke, config: Config) -> None:
    for options in ([], ["--strict"]):
        result = mcpconn("check", *options, config(bad={**BAD, "disabled": True}, good=stdio()))
        assert result.exit_code == 0, result.output
        assert "- disabled" in result.stdout


def test_other_commands_ignore_a_bad_entry(mcpconn: Invoke, config: Config) -> None:
    file = config(bad=BAD, good=stdio())
    result = mcpconn("call", "good", "add", '{"a": 1, "b": 2}', "--config", file)
    assert (result.exit_code, result.stderr) == (0, "")
    result = mcpconn("call", "bad", "add", "--config", file)
    assert result.exit_code == 1
    assert REASON in result.stderr
    result = mcpconn("tools", "--config", file)
    assert result.exit_code == 1
    assert "good" in result.stdout
    assert REASON in result.stderr


def test_check_tells_how_a_file_was_read(mcpconn: Invoke, tmp_path: Path) -> None:
    good = {**stdio(), "timeout": 60000, "disabledTools": ["x"], "description": "${MCPCONN_NOPE}"}
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"good": good}, "mcpServer": {}, "preferences": {}}))
    result = mcpconn("check", file, "--json")
    assert result.exit_code == 0
    first, *rest = result.stderr.splitlines()
    assert "'mcpServer' beside 'mcpServers' is not read" in first
    assert rest == [f"note: good: {note}" for note in json.loads(result.stdout)["servers"]["good"]["notes"]]
    assert rest[0] == "note: good: timeout: 60000 is read as milliseconds, as 60 s"


@pytest.mark.parametrize("name", ["config.toml", "config.yaml"])
def test_files_of_other_kinds_are_read(mcpconn: Invoke, tmp_path: Path, name: str) -> None:
    command, args = stdio()["command"], stdio()["args"]
    toml = f"[mcp_servers.good]\ncommand = {json.dumps(command)}\nargs = {json.dumps(args)}\n"
    yaml = f"extensions:\n  good:\n    cmd: {json.dumps(command)}\n    args: {json.dumps(args)}\n    type: stdio\n"
    file = tmp_path / name
    file.write_text(toml if name.endswith("toml") else yaml)
    result = mcpconn("check", file)
    assert result.exit_code == 0, result.output
    assert "● ready" in result.stdout
