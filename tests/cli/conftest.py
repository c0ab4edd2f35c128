"""Configurations with scripted servers, and the command line in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mcpconn.cli.more import app
from mcpconn.testing import STDIO_SERVER

Invoke = Callable[..., Any]
"""Gives typer's result: `exit_code`, `stdout`, `stderr`."""


def stdio(*arguments: str) -> dict[str, Any]:
    """The entry of a scripted server that runs as a child."""
    return {"command": sys.executable, "args": [str(STDIO_SERVER), *arguments]}


REFUSED = {"url": "http://127.0.0.1:9/mcp"}
"""Nothing listens on the discard port."""


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Writes an mcp.json of the given servers."""

    def write(**servers: Any) -> Path:
        path = tmp_path / "mcp.json"
        path.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
        return path

    return write


@pytest.fixture
def mcpconn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """The command line, run in an empty folder without any variable of ours."""
    monkeypatch.delenv("MCPCONN_CONFIG", raising=False)
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def invoke(*arguments: object, input: str | None = None) -> Any:  # noqa: A002  as in CliRunner
        return CliRunner().invoke(app, [str(each) for each in arguments], input=input)

    return invoke
