"""What the commands print, and how they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcpconn import diagram
from tests.cli.conftest import REFUSED, Invoke, stdio

Config = Callable[..., Path]


def error_of(result: Any) -> str:
    """The one line on standard error."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return str(lines[0])


# -- check


def test_check_shows_every_server_and_succeeds_where_all_are_ready(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("check", config(one=stdio(), two=stdio("--era", "modern", "--tools", "add,charge")))
    assert result.exit_code == 0, result.output
    heading, *rows = result.stdout.splitlines()
    assert heading.split("\t")[0] == "server"
    # They come as they are ready.
    one, two = (row.split() for row in sorted(rows))
    assert one[:3] == ["one", "●", "ready"]
    assert one[3:7] == ["legacy", "scripted", "1", "7"]
    assert two[3:7] == ["modern", "scripted", "1", "2"]
    assert one[-1] in ("ms", "s")
    assert result.stderr == ""


def test_check_says_what_failed_and_the_fix(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("check", config(good=stdio(), crash=stdio("--crash-on-start", "no such module"), down=REFUSED))
    assert result.exit_code == 1
    assert "crash: the server process exited before the handshake (exited with 1: no such module)" in result.stdout
    assert "--wait 30 keeps trying\n  | no such module\n" in result.stdout
    assert "down: the server cannot be reached" in result.stdout
    assert "is it running? --wait 30 keeps trying for 30 s" in result.stdout
    assert result.stdout.endswith("2 of 3 failed.\n")
    assert "● ready" in result.stdout
    assert result.stdout.count("✖ failed") == 2


def test_check_tells_programs_all_as_json(mcpconn: Invoke, config: Config) -> None:
    off = {**REFUSED, "disabled": True}
    result = mcpconn("check", config(good=stdio(), down=REFUSED, off=off), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    good, down, off = (report["servers"][name] for name in ("good", "down", "off"))
    assert (good["state"], good["era"], good["tools"], good["failure"]) == ("ready", "legacy", 7, None)
    assert good["server"] == {"name": "scripted", "version": "1"}
    assert 0 < good["connect_seconds"] < 20
    assert (down["state"], down["tools"], down["connect_seconds"]) == ("failed", None, None)
    assert down["failure"]["kind"] == "unavailable"
    assert (off["state"], off["failure"]) == ("disabled", None)


def test_a_disabled_server_is_no_failure(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("check", config(good=stdio(), off={**REFUSED, "disabled": True}))
    assert result.exit_code == 0
    assert "- disabled" in result.stdout


def test_a_lazy_server_is_connected_too(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("check", config(lazy={**stdio(), "lazy": True}))
    assert result.exit_code == 0
    assert "● ready" in result.stdout


def test_a_file_is_found_by_name_or_folder(mcpconn: Invoke, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(off={**REFUSED, "disabled": True})
    monkeypatch.chdir(path.parent)
    assert mcpconn("check").exit_code == 0
    monkeypatch.chdir(path.parent / "empty")
    monkeypatch.setenv("MCPCONN_CONFIG", str(path))
    assert mcpconn("check").exit_code == 0


# -- tools


def test_tools_lists_what_servers_have_and_what_may_run_twice(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("tools", "--config", config(one=stdio("--tools", "add,charge"), two=stdio("--tools", "slow")))
    assert result.exit_code == 0
    rows = [row.split("\t") for row in result.stdout.splitlines()[1:]]
    assert [[row[0], row[1].partition("(")[0], row[2]] for row in rows] == [
        ["one", "add", "harmless"],
        ["one", "charge", "unknown"],
        ["two", "slow", "harmless"],
    ]
    assert "Add two numbers." in result.stdout


def test_tools_leaves_unnamed_servers_alone(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("tools", "one", "--json", "--config", config(one=stdio("--tools", "add"), down=REFUSED))
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert list(listed) == ["one"]
    assert listed["one"][0]["annotations"] == {"readOnlyHint": True}


def test_tools_shows_what_there_is_although_a_server_failed(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("tools", "--config", config(one=stdio("--tools", "add"), down=REFUSED))
    assert result.exit_code == 1
    assert "add" in result.stdout
    assert error_of(result).startswith("error: down: the server cannot be reached")


# -- call


def test_call_prints_nothing_but_the_answer(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("call", "srv", "add", '{"a": 1, "b": 2}', "--config", config(srv=stdio()))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "3\n", "")


def test_call_reads_arguments_from_stdin(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("call", "srv", "add", "-", "--config", config(srv=stdio()), input='{"a": 1, "b": 2}')
    assert (result.exit_code, result.stdout) == (0, "3\n")


def test_call_prints_a_whole_result_as_json(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("call", "srv", "add", '{"a": 1, "b": 2}', "--json", "--config", config(srv=stdio()))
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["content"] == [{"type": "text", "text": "3"}]
    assert answer["isError"] is False


def test_a_failed_tool_is_a_line_of_error(mcpconn: Invoke, config: Config) -> None:
    path = config(srv=stdio())
    result = mcpconn("call", "srv", "session_expired_result", "--config", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert error_of(result) == "error: srv: session_expired_result failed: session expired"
    result = mcpconn("call", "srv", "shopping", "--config", path)
    assert result.exit_code == 1
    assert "Tool failed: the user's shopping session expired (JSON-RPC -32603)" in error_of(result)


def test_a_misspelt_tool_is_told_with_the_one_that_may_be_meant(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("call", "srv", "chargee", "--config", config(srv=stdio()))
    assert result.exit_code == 1
    assert error_of(result) == "error: srv: this server has no such tool, 'chargee'; did you mean 'charge'?"


def test_a_call_that_may_have_run_has_a_status_of_its_own(mcpconn: Invoke, config: Config) -> None:
    path = config(srv=stdio("--die-on", "charge"))
    result = mcpconn("call", "srv", "charge", "--config", path)
    assert result.exit_code == 3
    assert "the tool may have run" in error_of(result)
    result = mcpconn("call", "srv", "charge", "--json", "--config", path)
    assert result.exit_code == 3
    failure = json.loads(result.stdout)
    assert failure["outcome"] == "unknown"
    assert failure["kind"] == "transport_lost"
    assert result.stderr == ""


def test_a_call_to_a_server_down_fails_fast(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("call", "down", "add", "--config", config(down=REFUSED))
    assert result.exit_code == 1
    assert "the server cannot be reached" in error_of(result)
    assert error_of(result).endswith("is it running? --wait 30 keeps trying for 30 s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "ARGUMENT is not JSON (Expecting property name enclosed in double quotes at character 2)"),
        ("[1]", "ARGUMENT is JSON, but not an object"),
        ("{a: 1}", "ARGUMENT is not JSON"),
    ],
)
def test_arguments_that_are_no_object_are_told_with_an_example(
    mcpconn: Invoke, config: Config, text: str, message: str
) -> None:
    result = mcpconn("call", "srv", "add", text, "--config", config(srv=REFUSED))
    assert result.exit_code == 2
    assert error_of(result).startswith(f"error: {message}")
    assert """'{"item": "pen"}'""" in error_of(result)


# -- what cannot work


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "there is no mcp.json here; name one with --config FILE, or set MCPCONN_CONFIG"),
        (["check", "nowhere.json"], "the configuration file nowhere.json does not exist"),
        (["check", "."], "the configuration file . is a folder, not a file"),
        (["chekc"], "No such command 'chekc'"),
        (["check", "--tiemout", "1"], "No such option: --tiemout"),
        (["check", "--timeout", "soon"], "Invalid value for '--timeout'"),
        (["call"], "Missing argument"),
        (["diagram", "--format", "png"], "Invalid value for '--format'"),
        (["diagram", "--highlight", "broken"], "there is no state 'broken'; the states are: idle,"),
        (["diagram", "--narrow"], "--links and --narrow are for --format svg"),
        (["diagram", "-f", "scxml", "--highlight", "ready"], "SCXML has no way to mark a state"),
        (["diagram", "--highlight", "ready", "--attach", "http://x"], "--highlight and --attach exclude each other"),
        (["diagram", "--attach", "x"], "--attach x: give the URL of a status page"),
        (["diagram", "--write", ".", "--check", "."], "--write, --check and --compare exclude each other"),
    ],
)
def test_a_command_that_makes_no_sense_ends_with_one_line(mcpconn: Invoke, arguments: list[str], message: str) -> None:
    result = mcpconn(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in error_of(result)


def test_a_missing_file_names_its_variable(mcpconn: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCPCONN_CONFIG", "gone.json")
    assert error_of(mcpconn("tools")) == (
        "error: the configuration file gone.json (from MCPCONN_CONFIG) does not exist"
    )


def test_an_editors_file_is_named_not_read(mcpconn: Invoke) -> None:
    Path(".vscode").mkdir()
    Path(".vscode/mcp.json").write_text("{}", encoding="utf-8")
    assert "there is .vscode/mcp.json: name it with --config FILE" in error_of(mcpconn("check"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1, column 2"),
        ('{"mcpServers": {}}', "there are no servers in it"),
        ('{"mcpServers": {"a": {"url": "x"}}}', "server 'a': url is not a valid http or https address"),
        ('{"mcpServers": {"a": {"urll": "x"}}}', "unknown key 'urll'; did you mean 'url'?"),
        ('{"mcpServers": {"a": {"url": "${MCPCONN_UNSET}"}}}', "the environment variable MCPCONN_UNSET is not set"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told_with_the_place(
    mcpconn: Invoke, content: str, message: str
) -> None:
    Path("mcp.json").write_text(content, encoding="utf-8")
    result = mcpconn("check", "--strict")
    assert result.exit_code == 2
    assert "mcp.json: " in error_of(result)
    assert message in error_of(result)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("srb", "no server named 'srb'; did you mean 'srv'?"),
        ("zzz", "no server named 'zzz'; known servers: off, srv"),
        ("off", "server 'off' is disabled in the configuration"),
    ],
)
@pytest.mark.parametrize("command", ["call", "tools"])
def test_a_server_that_is_not_there_is_told_with_those_that_are(
    mcpconn: Invoke, config: Config, command: str, name: str, message: str
) -> None:
    path = config(srv=REFUSED, off={**REFUSED, "disabled": True})
    result = mcpconn(command, name, *(["add"] if command == "call" else []), "--config", path)
    assert result.exit_code == 2
    assert message in error_of(result)


def test_configured_secrets_are_not_printed(mcpconn: Invoke, config: Config) -> None:
    secret = "sk-live-4f9a8b7c6d5e"
    program = "import os, sys; sys.exit('bad token ' + os.environ['TOKEN'])"
    path = config(srv={"command": sys.executable, "args": ["-c", program], "env": {"TOKEN": secret}})
    for command in (
        ["check"],
        ["check", "--json"],
        ["tools"],
        ["call", "srv", "add"],
        ["call", "srv", "add", "--json"],
    ):
        result = mcpconn(*command, "--config", path)
        assert result.exit_code == 1
        assert "bad token ***" in result.output
        assert secret not in result.output


# -- diagram


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("mermaid", diagram.mermaid()),
        ("dot", diagram.dot()),
        ("svg", diagram.svg()),
        ("scxml", diagram.scxml()),
        ("markdown", diagram.markdown_table()),
    ],
)
def test_diagram_prints_the_machine(mcpconn: Invoke, form: str, text: str) -> None:
    result = mcpconn("diagram", "--format", form)
    assert (result.exit_code, result.stdout) == (0, text)


def test_diagram_marks_a_state(mcpconn: Invoke) -> None:
    assert mcpconn("diagram", "--highlight", "failed").stdout == diagram.mermaid("failed")


def test_diagram_writes_and_then_finds_true(mcpconn: Invoke) -> None:
    page = Path("page.md")
    page.write_text("<!-- mcpconn:table -->\n<!-- /mcpconn:table -->\n", encoding="utf-8")
    drifted = mcpconn("diagram", "--check", page)
    assert drifted.exit_code == 1
    assert drifted.stdout.startswith("page.md:1: table is not what the code says")
    written = mcpconn("diagram", "--write", page)
    assert (written.exit_code, written.stderr) == (0, "page.md: rewritten\n")
    assert mcpconn("diagram", "--check", page).exit_code == 0
    assert mcpconn("diagram", "--write", page).stderr == ""


def test_diagram_compares_with_the_machine(mcpconn: Invoke) -> None:
    Path("host.md").write_text(f"```mermaid\n{diagram.mermaid()}    idle --> ready: lost\n```\n", encoding="utf-8")
    result = mcpconn("diagram", "--compare", "host.md")
    assert result.exit_code == 1
    assert result.stdout == "host.md:22: the machine has no idle --lost--> ready: lost cannot happen in idle\n"
    assert mcpconn("diagram", "--compare", "host.md", "--ignore", "lost").exit_code == 0


def test_diagram_compares_partial_pictures(mcpconn: Invoke) -> None:
    Path("docs").mkdir()
    Path("docs/start.md").write_text(
        "```mermaid\nstateDiagram-v2\n idle --> connecting: connect\n```\n", encoding="utf-8"
    )
    assert mcpconn("diagram", "--compare", "docs").stdout.startswith("docs/start.md:2: the picture lacks")
    result = mcpconn("diagram", "--compare", "docs", "--partial")
    assert result.stdout == ("docs/start.md:2: the picture lacks connecting --attempt_failed--> connecting\n")


def test_diagram_marks_a_fleet(mcpconn: Invoke) -> None:
    fleet = "27 ready, 1 failed"
    assert mcpconn("diagram", "--highlight", fleet).stdout == diagram.mermaid(fleet)


def test_diagram_makes_a_picture_for_phones(mcpconn: Invoke) -> None:
    result = mcpconn("diagram", "--format", "svg", "--narrow", "--links", "states.md")
    assert result.stdout == diagram.svg(links="states.md", narrow=True)


# -- the rest


def test_without_a_command_there_is_help(mcpconn: Invoke) -> None:
    result = mcpconn()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


def test_the_version_is_the_packages(mcpconn: Invoke) -> None:
    result = mcpconn("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("mcpconn 0.")


def test_the_demo_is_given_its_options(mcpconn: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def main(arguments: list[str]) -> int:
        seen.append(arguments)
        return 1

    monkeypatch.setattr("mcpconn.demo.main", main)
    assert mcpconn("demo", "--seconds", "2", "--log", "demo.log").exit_code == 1
    assert mcpconn("demo").exit_code == 1
    assert seen == [["--seconds", "2", "--log", "demo.log"], []]


def test_server_names_complete_in_a_shell(mcpconn: Invoke, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCPCONN_CONFIG", str(config(alpha=REFUSED, beta=REFUSED, alps=REFUSED)))
    monkeypatch.setenv("_MCPCONN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "mcpconn call al")
    monkeypatch.setenv("COMP_CWORD", "2")
    from typer.testing import CliRunner

    from mcpconn.cli.more import app

    result = CliRunner().invoke(app, prog_name="mcpconn")
    assert result.stdout.split() == ["alpha", "alps"]
    monkeypatch.setenv("MCPCONN_CONFIG", "gone.json")
    assert CliRunner().invoke(app, prog_name="mcpconn").stdout.split() == []


def test_the_schema_is_printed(mcpconn: Invoke) -> None:
    result = mcpconn("schema")
    assert result.exit_code == 0
    assert "url" in json.loads(result.stdout)["$defs"]["server"]["properties"]


# -- a file before the server


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("check", [], "● ready"),
        ("tools", [], "Add two numbers."),
        ("call", ["add", "a=1", "b=2"], "3"),
        ("ping", [], "ms"),
        ("resources", [], "memo://rules"),
        ("read", ["memo://rules"], "Be precise."),
    ],
)
def test_every_command_takes_the_file_as_its_first_word(
    mcpconn: Invoke, config: Config, command: str, words: list[str], said: str
) -> None:
    result = mcpconn(command, config(one=stdio(), other=REFUSED), "one", *words)
    assert (result.exit_code, said in result.stdout) == (0, True), result.output


@pytest.mark.parametrize("words", [["call"], ["call", "one"], ["read", "one"], ["login"]])
def test_an_incomplete_file_is_a_clear_line(mcpconn: Invoke, config: Config, words: list[str]) -> None:
    command, *rest = words
    result = mcpconn(command, config(one=stdio()), *rest)
    assert result.exit_code == 2
    assert "for example: " in result.stderr


def test_a_folder_named_like_a_server_is_not_taken_for_a_file(
    mcpconn: Invoke, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(docs=stdio())
    monkeypatch.chdir(path.parent)
    (path.parent / "docs").mkdir()
    assert mcpconn("check", "docs").exit_code == 0
