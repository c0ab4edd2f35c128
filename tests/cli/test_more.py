"""Ad-hoc servers, arguments, resources, prompts, ping, discover, completion, and what fits any terminal."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from rich.console import Console

from mcpconn.cli import completion, output, rows
from mcpconn.cli.arguments import arguments_of, texts_of
from mcpconn.cli.discover import discover
from mcpconn.cli.failures import CliError
from mcpconn.cli.rows import Column, Rows
from mcpconn.cli.tables import signature
from tests.cli.conftest import REFUSED, Invoke, stdio
from tests.cli.test_commands import error_of

Config = Callable[..., Path]
SERVER = stdio()
COMMAND = ["--", SERVER["command"], *SERVER["args"]]


# -- servers that are in no file


def test_after_two_dashes_comes_a_command(mcpconn: Invoke) -> None:
    result = mcpconn("check", *COMMAND)
    assert result.exit_code == 0, result.output
    assert "● ready" in result.stdout
    assert mcpconn("call", "add", "a=1", "b=2", *COMMAND).stdout == "3\n"


def test_an_address_is_a_server(mcpconn: Invoke) -> None:
    result = mcpconn("check", REFUSED["url"])
    assert result.exit_code == 1
    assert "127.0.0.1:9: the server cannot be reached" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "--"], "needs a command after it"),
        (["check", "name", *COMMAND], "not both"),
        (["call", "shop"], "call shop buy item=pen"),
        (["read", "https://a.example"], "read docs file:///readme.md"),
        (["check", "https://a b"], "not a valid http or https address"),
    ],
)
def test_missing_words_are_told_by_example(mcpconn: Invoke, arguments: list[str], words: str) -> None:
    result = mcpconn(*arguments)
    assert result.exit_code == 2
    assert words in error_of(result)


# -- arguments


def test_arguments_are_pairs_or_files(tmp_path: Path) -> None:
    text, whole = tmp_path / "text.txt", tmp_path / "whole.json"
    text.write_text("hello\n")
    whole.write_text('{"x": 1, "y": 2}')
    words = [
        f"@{whole}",
        "y=3",
        "name=Ann Lee",
        "on=true",
        'list=["a"]',
        "n:=4",
        f"body=@{text}",
        "q=a=b",
        "e=",
        "i=NaN",
    ]
    assert arguments_of(words) == {
        "x": 1,
        "y": 3,
        "name": "Ann Lee",
        "on": True,
        "list": ["a"],
        "n": 4,
        "body": "hello\n",
        "q": "a=b",
        "e": "",
        "i": "NaN",
    }
    assert arguments_of(['{"url": "a=b"}']) == {"url": "a=b"}
    assert texts_of(["count=3", "on=true"]) == {"count": "3", "on": "true"}


@pytest.mark.parametrize("word", ["n:=four", "@/nowhere", "x=@/nowhere", "[1]", "{", "word", "[" * 100_000])
def test_an_unknown_word_is_a_usage_error(word: str) -> None:
    with pytest.raises(CliError) as caught:
        arguments_of([word])
    assert caught.value.status == 2


def test_what_a_server_says_meanwhile_goes_to_standard_error(mcpconn: Invoke) -> None:
    result = mcpconn("call", "progress", "steps=2", *COMMAND)
    assert result.exit_code == 0, result.output
    assert "progress: 1 of 2" in result.stderr
    assert "progress:" not in result.stdout
    assert mcpconn("call", "progress", "steps=2", "--quiet", *COMMAND).stderr == ""


# -- what else there is to ask


def test_resources_and_prompts_can_be_read(mcpconn: Invoke, config: Config) -> None:
    path = config(srv=stdio(), down=REFUSED)
    listed = mcpconn("resources", "--json", "srv", "--config", path)
    assert listed.exit_code == 0, listed.output
    uri = json.loads(listed.stdout)["srv"][0]["uri"]
    assert uri in mcpconn("resources", "srv", "--config", path).stdout
    assert mcpconn("read", "srv", uri, "--config", path).stdout.strip()
    prompts = mcpconn("prompts", "srv", "--config", path)
    assert "greet(name?)" in prompts.stdout
    assert "Ann" in mcpconn("prompt", "srv", "greet", "name=Ann", "--config", path).stdout


def test_one_server_down_troubles_no_other(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("ping", "--config", config(srv=stdio(), down=REFUSED))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1].startswith("srv\t")
    assert error_of(result).startswith("error: down: the server cannot be reached")


def test_a_tool_is_shown_as_a_function() -> None:
    schema = {
        "type": "object",
        "required": ["b"],
        "properties": {
            "a": {"type": "integer", "default": 3},
            "b": {"enum": ["x", "y"]},
            "c": {"type": "array", "items": {"type": "string"}},
            "d": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "e": True,
        },
    }
    tool = types.Tool(name="t", input_schema=schema)
    assert signature(tool) == "t(b: 'x' | 'y', a: integer = 3, c?: string[], d?: number, e?: any)"


@pytest.mark.parametrize("schema", [{"properties": 5}, {"required": "x"}, {"properties": {"a": {"type": {}}}}, {}])
def test_an_invalid_schema_is_still_shown(schema: dict[str, Any]) -> None:
    assert signature(types.Tool(name="t", input_schema=schema)).startswith("t(")


# -- files of editors


def test_files_of_editors_are_found_and_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    home, folder = tmp_path / "home", tmp_path / "project"
    good = {"mcpServers": {"a": {"command": "/not/there"}, "b": {"url": "5"}, "off": {"disabled": True}}}
    for path, content in (
        (home / ".cursor/mcp.json", json.dumps(good)),
        (home / ".config/Claude/claude_desktop_config.json", "{"),
        (folder / ".vscode/mcp.json", json.dumps({"servers": {}})),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(content)
    found = {each.host: each for each in discover(folder, home)}
    assert set(found) == {"Cursor", "Claude Desktop", "VS Code"}
    assert (found["Cursor"].servers, found["Cursor"].unusable) == (("a", "b"), ("b",))
    assert "line 1" in str(found["Claude Desktop"].why)


def test_the_same_file_is_shown_once(tmp_path: Path) -> None:
    (tmp_path / ".cursor").mkdir()
    (tmp_path / ".cursor/mcp.json").write_text("{}")
    assert len(discover(tmp_path, tmp_path)) == 1


# -- completion


def test_tools_complete_once_listed(
    mcpconn: Invoke, config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = config(srv=stdio("--tools", "add,charge"))

    class Context:
        params = {"config": path, "words": ["srv"]}  # noqa: RUF012  never changed

    assert completion.call(Context(), [], "") == []
    assert mcpconn("tools", "--config", path).exit_code == 0
    assert completion.call(Context(), [], "a") == ["add"]


# -- any terminal


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], io.StringIO]:
    def make(width: int) -> io.StringIO:
        file = io.StringIO()
        monkeypatch.setattr(rows, "stdout", lambda: Console(file=file, force_terminal=True, width=width, no_color=True))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        return file

    return make


@pytest.mark.parametrize("width", [20, 40, 60, 100, 200])
def test_name_and_state_fit_any_width(screen: Callable[[int], io.StringIO], width: int) -> None:
    file, name = screen(width), "a-server-with-a-long-name-of-38-letters"
    table = Rows(
        Column("server", len(name), whole=True), Column("state", 13, whole=True), Column("x", 9), Column("y", 9)
    )
    table.add(name, "reconnecting", "extra", "a long last cell that is cut where there is no room for it")
    _, row = file.getvalue().splitlines()[:2]
    assert name in row
    assert "reconnecting" in row
    if width >= len(name) + 15 + 8:
        assert len(row) <= width


def test_a_pipe_is_not_padded(capsys: pytest.CaptureFixture[str]) -> None:
    table = Rows(Column("server", 30, whole=True), Column("x", 3))
    table.add("a", "longer than its column")
    assert capsys.readouterr().out == "server\tx\na\tlonger than its column\n"


def test_a_terminal_of_ascii_is_sent_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    for state in ("ready", "connecting", "failed", "idle", "closed", "reconnecting"):
        assert output.shown_state(state).plain.isascii()
    output.prepare_streams()
    sys.stdout.write("naïve ●")
