"""The tutorial "A gateway for your team": its files and transcripts, in the order of the page."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from mcpconn import mcpjson
from mcpconn.gateway.config import parse_settings, read_section
from mcpconn.gateway.upstream_auth.config import TokenExchange, UserLogin
from tests.docs_src.conftest import HOWTO, SAFETY, Shop, quiet_port, transcript


@pytest.fixture
def team(tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page, with the ports that are free here."""
    port = str(quiet_port(30000))
    for path in HOWTO.glob("team*.*"):
        text = path.read_text("utf-8").replace("8000", str(shop.port)).replace("9000", port)
        (tmp_path / path.name).write_text(text, "utf-8")
    monkeypatch.setenv("CLOCK", str(Path(sys.executable).with_name("mcp-server-time")))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PORT", port)
    return tmp_path


def run(folder: Path, command: str, **environment: str) -> str:
    """What a command of a transcript says, on both of its streams."""
    program, *arguments = shlex.split(command)
    assert program == "mcpconn"
    done = subprocess.run(
        [sys.executable, "-m", "mcpconn", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
        timeout=SAFETY,
        check=False,
    )
    return done.stdout


def test_a_team_gets_keys_and_rights(team: Path) -> None:
    keys = {}
    for command, expected in transcript(team / "team_keys.console"):
        said = run(team, command)
        keys[command.split()[3]] = said.split()[-1]
        assert re.sub(r"mck_\S+", "KEY", said) == re.sub(r"mck_\S+", "KEY", expected)
    ((_, expected),) = transcript(team / "team_serve.console")
    listen = ["--listen", f"127.0.0.1:{os.environ['PORT']}"]
    serve = [sys.executable, "-m", "mcpconn", "serve", "team.json", *listen]
    gateway = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, cwd=team)
    try:
        assert gateway.stderr is not None
        lines = expected.replace("~/.local/state", str(team / "state")).splitlines()
        # On a machine that lets a process open few files, serve says so first.
        printed = (line.rstrip() for line in gateway.stderr if "(ulimit -n)" not in line)
        assert list(islice(printed, len(lines))) == lines
        for who in ("ann", "bob"):
            for command_line, answer in transcript(team / f"team_{who}.console"):
                assert run(team, command_line, TEAM_KEY=keys[who]).split() == answer.split(), command_line
    finally:
        gateway.terminate()
        gateway.communicate(timeout=SAFETY)
    lines = (team / "audit.jsonl").read_text("utf-8").splitlines()
    ended = [entry for entry in map(json.loads, lines) if entry["event"] == "ended"]
    assert [(entry["principal"], entry["tool"], entry["outcome"]) for entry in ended] == [
        ("key:ann", "price", "answered"),
        ("key:ann", "order", "answered"),
        ("key:bob", "order", "error"),
    ]
    assert not any(key in "".join(lines) for key in keys.values())


def test_the_files_of_users_own_credentials_are_understood(team: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_SECRET", "s")
    (team / "exchange.secret").write_text("e\n")
    for name, kind in (("team_login.json", UserLogin), ("team_exchange.json", TokenExchange)):
        servers = mcpjson.load(team / name)
        settings = parse_settings(read_section(team / name), tuple(servers), folder=team)
        assert all(config.problem is None for config in servers.values())
        assert set(settings.credentials) == set(servers)
        assert all(isinstance(each, kind) for each in settings.credentials.values())
