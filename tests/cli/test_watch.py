"""`mcpconn watch`: what the keys do, and a running host looked into."""

from __future__ import annotations

import io
import json
import os
import selectors
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.console import Console

from mcpconn import diagram
from mcpconn.cli.failures import CliError
from mcpconn.cli.watch import attached
from mcpconn.cli.watch_sources import Attached, Row
from mcpconn.cli.watch_view import View
from tests.cli.conftest import Invoke
from tests.cli.test_terminal import COMMAND

KEY = "a-key-for-the-page-0123"


class Given:
    """Rows that a test says."""

    title = "mcp.json"
    trouble: str | None = None

    def __init__(self, **states: str) -> None:
        self.states = states

    def rows(self) -> dict[str, Row]:
        return {
            name: {
                "name": name,
                "address": "http://127.0.0.1:1/mcp",
                "transport": "http",
                "state": state,
                "since": 0.0,
                "epoch": 1,
                "in_flight": 0,
                "waiting": 0,
                "calls": 0,
                "unknown": 0,
                "failure": "the server cannot be reached " * 5,
                "progress": None,
                "retry_at": None,
            }
            for name, state in self.states.items()
        }

    def running(self, tell: Any) -> Any: ...

    async def reconnect(self, name: str) -> str | None: ...


def shown(view: View, *, width: int = 100, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(view.picture(console))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def names_in(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines[3:] if line[:1].isalpha()]


MANY = {f"server-{number:02}": "ready" for number in range(30)}


def test_failed_connections_come_first() -> None:
    view = View(Given(a="ready", b="failed", c="idle", d="reconnecting"))
    assert names_in(shown(view)) == ["b", "d", "a", "c"]


def test_what_does_not_fit_is_counted() -> None:
    view = View(Given(**MANY))
    lines = shown(view, height=20)
    assert "20 more: up and down scroll" in lines[13]
    assert names_in(lines)[0] == "server-00"
    for _ in range(30):
        view.press("down")
    lines = shown(view, height=20)
    assert names_in(lines)[:10] == [f"server-{number}" for number in range(20, 30)]
    view.press("page up")
    view.press("page up")
    view.press("page up")
    assert names_in(shown(view, height=20))[0] == "server-00"


@pytest.mark.parametrize("width", [60, 40, 80, 100])
def test_name_and_state_are_never_cut(width: int) -> None:
    name = "a-server-with-a-name-of-forty-characters"[:36]
    lines = shown(View(Given(**{name: "reconnecting"})), width=width)
    table = "".join(lines[3:8]).replace(" ", "")
    assert all(part in table for part in ("a-server", "reconnecting"))
    assert all(len(line) <= width for line in lines)
    if width >= 60:
        assert any(name in line and "reconnecting" in line for line in lines)


def test_a_failure_is_shown_in_full_on_a_key() -> None:
    source = Given(a="failed")
    view = View(source)
    whole = source.rows()["a"]["failure"].strip()
    assert view.press("enter") is None
    assert not view.detailed
    view.press("down")
    view.press("enter")
    assert whole in " ".join(" ".join(shown(view, width=60)).split())
    view.press("escape")
    assert not view.detailed


def test_keys_reconnect_and_quit() -> None:
    view = View(Given(a="failed"))
    assert view.press("r") is None
    view.press("down")
    assert view.press("r") == "a"
    assert view.press("q") == "quit"


def test_a_selected_connection_that_is_removed_harms_nothing() -> None:
    source = Given(a="failed", b="ready")
    view = View(source)
    view.press("down")
    view.press("enter")
    del source.states["a"]
    assert any("it was removed" in line for line in shown(view))
    assert view.press("r") is None


# -- a running host

HOST = """
import asyncio, socket, sys, uvicorn
from mcpconn import Manager
from mcpconn.asgi import Access, status_app
from mcpconn.testing import Script, ScriptTransport

async def main():
    listening = socket.create_server(("127.0.0.1", 0))
    key = sys.argv[1] or None
    servers = {name: {"url": f"http://{name}.test/mcp", "http_transport": ScriptTransport(Script())} for name in "ab"}
    async with Manager(servers) as manager:
        await manager.wait_ready()
        app = status_app(manager, access=Access(act_key=key))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        sys.stdout.write(f"{listening.getsockname()[1]}\\n")
        sys.stdout.flush()
        while await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
            await manager["a"].reconnect()
        server.should_exit = True
        await serving

asyncio.run(main())
"""


class Host:
    """A process with two connections and a status page."""

    def __init__(self, key: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOST, key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"

    def reconnect(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


@pytest.mark.anyio
async def test_an_attached_source_follows_a_host_and_acts_on_it() -> None:
    with Host() as host:
        source = Attached(host.url)
        put, take = anyio.create_memory_object_stream[Row](100)
        with put, take:
            async with source.running(put.send_nowait):
                assert {name: row["state"] for name, row in source.rows().items()} == {"a": "ready", "b": "ready"}
                assert await source.reconnect("a") is None
                told = [await take.receive() for _ in range(3)]
                refused = await source.reconnect("nobody")
                assert refused is not None
                assert refused.endswith("(HTTP 404)")
        assert [(change["name"], change["event"]) for change in told] == [
            ("a", "recycle"),
            ("a", "connect"),
            ("a", "established"),
        ]


def test_diagram_marks_a_hosts_states(mcpconn: Invoke) -> None:
    with Host() as host:
        assert mcpconn("diagram", "--attach", host.url).stdout == diagram.mermaid("2 ready")


@pytest.mark.anyio
async def test_chosen_names_are_shown_alone() -> None:
    with Host() as host:
        source = Attached(host.url, names=("b", "missing"))
        async with source.running(lambda _: None):
            assert list(source.rows()) == ["b"]
            assert source.trouble == "no connection is called missing"


def watch(*arguments: str, key: str = "") -> subprocess.Popen[str]:
    """The command, as a process."""
    environment = {**os.environ, "MCPCONN_KEY": key}
    return subprocess.Popen(
        [*COMMAND, "watch", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_transition_of_a_host_is_a_line_and_the_end_of_the_pipe_the_end() -> None:
    with Host(KEY) as host:
        process = watch("--attach", host.url, "--json", key=KEY)
        assert process.stdout is not None
        # The command says nothing when it has begun: the host reconnects until a line comes of it.
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not selector.select(timeout=0.2):
                host.reconnect()
        assert json.loads(process.stdout.readline())["server"] == "a"
        process.stdout.close()
        while process.poll() is None:
            host.reconnect()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
        assert process.returncode == 0
        assert process.stderr is not None
        with process.stderr:
            assert process.stderr.read() == ""


@pytest.mark.parametrize("key", ["", "another-key-0123456789"])
def test_a_wrong_key_says_where_to_put_it(key: str) -> None:
    with Host(KEY) as host:
        out, errors = watch("--attach", host.url, key=key).communicate()
        assert out == ""
        assert errors.count("\n") == 1
        assert "MCPCONN_KEY" in errors
        assert KEY not in errors


def test_an_absent_host_is_one_line() -> None:
    process = watch("--attach", "http://127.0.0.1:9/")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert "127.0.0.1:9: connection refused" in errors


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host/", "http://"])
def test_an_unusable_attach_url_is_refused(url: str) -> None:
    with pytest.raises(CliError, match="--attach"):
        attached(url, key_file=None, names=())


def test_a_key_files_mistakes_are_said(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(CliError, match="No such file"):
        attached("http://127.0.0.1:1", key_file=path, names=())
    path.write_text(f"{KEY}\n")
    source = attached("http://127.0.0.1:1", key_file=path, names=())
    assert isinstance(source, Attached)
    assert source._client.headers["authorization"] == f"Bearer {KEY}"
    path.write_bytes(b"\xff")
    with pytest.raises(CliError, match="not text"):
        attached("http://127.0.0.1:1", key_file=path, names=())
