"""`mcpconn serve` of something that cannot be served says so in one line; a key is made once and kept."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest
from mcp import Client

from mcpconn.cli.failures import CliError
from mcpconn.cli.serve import ServeOptions
from mcpconn.cli.serve import serve as serve_all
from mcpconn.gateway import serve
from mcpconn.testing import HttpServer, Script
from tests.cli.conftest import stdio
from tests.gateway.processes import over_http


def run(*arguments: str, state: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mcpconn", "serve", *arguments, "--state", state]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"a": {"url": "http://127.0.0.1:1/mcp"}}}), encoding="utf-8")
    return path


BROKEN = {
    "missing": None,
    "no JSON": "{",
    "no servers": "{}",
    "an empty file": "",
    "a bad section": '{"mcpServers": {"a": {"url": "http://x/mcp"}}, "gateway": {"servrs": {}}}',
    "a bad scope": '{"mcpServers": {"a": {"url": "http://x/mcp"}}, "gateway": {"servers": {"a": {"scope": "all"}}}}',
}


@pytest.mark.parametrize("case", BROKEN, ids=list(BROKEN))
def test_an_unusable_file_is_one_line(tmp_path, case):
    path = tmp_path / "mcp.json"
    if (content := BROKEN[case]) is not None:
        path.write_text(content, encoding="utf-8")
    ended = run(str(path), "--listen", "127.0.0.1:0", state=str(tmp_path / "state"))
    assert ended.returncode != 0
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, ended.stderr
    assert "mcp.json" in lines[0] or "gateway" in lines[0]
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_one_line(tmp_path, file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(str(file), "--listen", f"127.0.0.1:{port}", state=str(tmp_path / "state"))
    assert ended.returncode != 0
    *_, line = [line for line in ended.stderr.splitlines() if line.strip()]
    assert f"127.0.0.1:{port} is in use" in line
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_a_key_is_made_once_and_private(tmp_path, file):
    said: list[str] = []
    state = tmp_path / "state"

    def start() -> None:
        app = serve.make_app(file, serve.Storage(state), one_person=True, say=said.append)
        anyio.run(app.store.aclose)

    start()
    assert said == [f"no sealing key was given: a new one was created in {state / 'keys'}"]
    key = (state / "keys").read_text(encoding="ascii")
    assert stat.S_IMODE((state / "keys").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    start()
    assert len(said) == 1, "it is said once, when it is made"
    assert (state / "keys").read_text(encoding="ascii") == key
    assert key.strip() not in said[0]


@pytest.mark.skipif(find_spec("uvloop") is None, reason="there is no uvloop for Windows")
@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.anyio
async def test_calls_are_answered_on_uvloop(tmp_path, mode):
    with anyio.fail_after(60):
        async with HttpServer(Script()) as server:
            content = {"mcpServers": {"http": {"url": server.url}, "child": stdio()}}
            async with over_http(tmp_path, content, "--uvloop") as (process, url):
                async with Client(url, mode=mode) as client:
                    await client.list_tools()
                    for name in ("http__add", "child__add"):
                        answer = await client.call_tool(name, {"a": 1, "b": 2})
                        assert not answer.is_error, answer
                maps = Path(f"/proc/{process.pid}/maps")
                assert not maps.exists() or "uvloop" in maps.read_text()
                process.terminate()
                assert await process.wait() == 0


def test_a_missing_uvloop_is_one_line(monkeypatch, file):
    monkeypatch.setattr("mcpconn.cli.serve.find_spec", lambda name: None)
    with pytest.raises(CliError, match=r"--uvloop needs uvloop: pip install .*\[uvloop\]"):
        serve_all(file, ServeOptions(listen="127.0.0.1:0", uvloop=True))
