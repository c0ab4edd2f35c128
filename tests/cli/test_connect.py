"""Connecting once: what is shown meanwhile, and what ends it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from trio.testing import MockClock

from mcpconn import Manager, ServerConfig
from mcpconn.cli import connect, output
from mcpconn.cli import watch as watching
from mcpconn.cli.entry import main
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.scripted import faults
from tests.cli.conftest import REFUSED, Invoke, stdio

Config = Callable[..., Path]
VIRTUAL = pytest.mark.parametrize(
    "anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})], ids=["virtual time"]
)


def scripted(**scripts: Script) -> dict[str, ServerConfig]:
    """Servers inside the process."""
    return {
        name: ServerConfig(name=name, url=f"http://{name}/mcp", http_transport=ScriptTransport(script))
        for name, script in scripts.items()
    }


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal that keeps what is written to it."""
    file = io.StringIO()

    def console() -> Console:
        return Console(file=file, force_terminal=True, width=100, height=24)

    monkeypatch.setattr(output, "stderr", console)
    monkeypatch.setattr(watching, "stdout", console)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    return file


def test_progress_names_servers_it_waits_for(screen: io.StringIO) -> None:
    manager = Manager({f"[b]server{number}": REFUSED for number in range(5)})
    with connect.progress(manager):
        pass
    text = screen.getvalue()
    assert "connecting: 0 of 5; waiting for [b]server0, [b]server1, [b]server2 and 2 more" in text


@pytest.mark.anyio
async def test_progress_ends_when_all_answered(screen: io.StringIO) -> None:
    results = await connect.check(scripted(one=Script(), two=Script()))
    assert [result.ok for result in results] == [True, True]
    assert "waiting for one" in screen.getvalue()


@pytest.mark.anyio
async def test_a_listing_is_read_to_its_last_page() -> None:
    (result,) = await connect.check(scripted(srv=Script(page_size=2)))
    assert result.tools is not None
    assert len(result.tools) == 7


@pytest.mark.anyio
async def test_a_listing_without_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcpconn.catalog.listing.PAGES", 3)
    (result,) = await connect.check(scripted(srv=Script(page_size=1)))
    assert result.tools is not None
    assert len(result.tools) == 3


@pytest.mark.anyio
async def test_a_server_that_cannot_list_its_tools_is_no_success() -> None:
    script = Script()
    script.inject(faults.rpc_error(-32603, "the list is lost"), method="tools/list", times=None)
    (result,) = await connect.check(scripted(srv=script))
    assert (result.ok, result.state, result.why) == (False, "ready", "tools/list: the list is lost")
    assert result.as_json()["failure"] == {
        "kind": "application",
        "summary": "tools/list: the list is lost",
        "fix": None,
    }


@pytest.mark.anyio
@VIRTUAL
async def test_waiting_ends_when_a_server_is_up() -> None:
    servers = scripted(srv=Script())
    transport = servers["srv"].http_transport
    transport.down = True

    def back_at_the_third_try(_: Any) -> None:
        transport.down = transport.refused < 3

    def watched(*arguments: Any, **options: Any) -> Manager:
        manager = Manager(*arguments, **options)
        manager.subscribe(back_at_the_third_try)
        return manager

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connect, "Manager", watched)
        (result,) = await connect.check(servers, wait=60)
    assert result.ok
    assert transport.refused == 3


@pytest.mark.anyio
@VIRTUAL
async def test_the_live_view_is_drawn_to_its_end(screen: io.StringIO) -> None:
    source = watching.own(scripted(srv=Script()), Path("mcp.json"), probe=5)
    await watching.watch(source, duration=3, as_json=False)
    text = screen.getvalue()
    assert "0 of 1 ready" in text
    assert "1 of 1 ready" in text
    assert text.count("keys: up") >= 6, "the clocks in it stand still"


def test_watch_writes_lines_into_a_pipe(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("watch", "--for", "0.01", "--config", config(down=REFUSED, off={**REFUSED, "disabled": True}))
    assert result.exit_code == 0
    assert "down  idle -> ◌ connecting  connect" in result.stdout.splitlines()[0]
    assert "off" not in result.stdout


def test_an_error_of_the_application_is_json_where_json_is_asked_for(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("call", "srv", "shopping", "--json", "--config", config(srv=stdio()))
    assert result.exit_code == 1
    failure = json.loads(result.stdout)
    assert failure["kind"] == "application"
    assert failure["code"] == -32603


@pytest.mark.parametrize(("command", "status"), [("check", 130), ("watch", 0)])
def test_ctrl_c_fails_all_commands_but_watch(
    mcpconn: Invoke, config: Config, monkeypatch: pytest.MonkeyPatch, command: str, status: int
) -> None:
    async def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"mcpconn.cli.app.{command}_all", interrupted)
    result = mcpconn(command, "--config", config(srv=REFUSED))
    assert (result.exit_code, result.output) == (status, "")


def test_a_fault_of_ours_is_one_line_too(mcpconn: Invoke, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("mcpconn.cli.app.check_all", broken)
    result = mcpconn("check", config(srv=REFUSED))
    assert result.exit_code == 1
    assert result.stderr == "error: RuntimeError: oops; this is a bug in mcpconn; --debug shows where\n"


def test_the_console_script_runs_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["mcpconn", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("mcpconn 0.")


def test_the_script_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("app", "more"):
        monkeypatch.delitem(sys.modules, f"mcpconn.cli.{module}")
    monkeypatch.setitem(sys.modules, "typer", None)
    assert main() == 1
    assert "pip install '.[cli]'" in capsys.readouterr().err


def test_an_import_that_fails_for_another_reason_is_not_blamed_on_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("app", "more"):
        monkeypatch.delitem(sys.modules, f"mcpconn.cli.{module}")
    monkeypatch.setitem(sys.modules, "mcpconn.cli.watch", None)
    with pytest.raises(ModuleNotFoundError, match=r"mcpconn\.cli\.watch"):
        main()
