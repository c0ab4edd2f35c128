"""The examples of the documentation, and the tutorial's server."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from mcpconn.cli.more import app

ROOT = Path(__file__).resolve().parent.parent.parent
TUTORIAL = ROOT / "docs_src" / "tutorial"
HOWTO = ROOT / "docs_src" / "howto"
SAFETY = 60.0


def load(path: Path) -> ModuleType:
    """An example, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_src_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def masked(text: str) -> list[str]:
    """The lines of a transcript without what differs from run to run; repeated lines count once."""
    found: list[str] = []
    for line in text.splitlines():
        plain = re.sub(r"\d+(\.\d+)? (ms|s)$", "TIME", line)
        plain = re.sub(r"\b\d+(\.\d+){2}\b", "VERSION", plain)
        # What is seen of a killed server depends on who comes first: the end of its sockets, or the next request.
        plain = re.sub(r"(the server cannot be reached|the connection was cut) \(.*\)", "THE SERVER IS GONE", plain)
        plain = re.sub(r"\s+", " ", plain).strip()
        if not found or found[-1] != plain:
            found.append(plain)
    return found


def transcript(path: Path) -> list[tuple[str, str]]:
    """The commands of a transcript, and what follows each."""
    pieces = re.split(r"^\$ (.+)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def quiet_port(base: int = 20000) -> int:
    """A free port below those that the system gives to sockets without one, so that nobody takes it meanwhile."""
    first = base + os.getpid() % 1000
    for port in range(first, first + 4000, 7):
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


class Shop:
    """The tutorial's server, which can be killed and started again."""

    def __init__(self) -> None:
        self.port = quiet_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it. It does not answer yet; a connection waits."""
        command = [sys.executable, str(TUTORIAL / "shop.py"), str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def said(self) -> str:
        """Its next line, after the one that names its process."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return self._process.stdout.readline() if line.startswith("shop: process ") else line

    @property
    def down(self) -> bool:
        """Whether it is not running."""
        return self._process is None

    def kill(self) -> None:
        """End it as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate(timeout=SAFETY)


def follow(path: Path) -> None:
    """Give the commands of a transcript, and compare what they say with what is written there."""
    for command, expected in transcript(path):
        program, *arguments = shlex.split(command)
        assert program == "mcpconn"
        result = CliRunner().invoke(app, arguments)
        assert masked(result.output) == masked(expected), command


@pytest.fixture(scope="module")
def one_shop() -> Iterator[Shop]:
    """The tutorial's server, for all tests of this module: it takes a second or two to start."""
    shop = Shop()
    yield shop
    shop.kill()


@pytest.fixture
def shop(one_shop: Shop) -> Shop:
    """The tutorial's server, started."""
    if one_shop.down:
        one_shop.start()
    return one_shop


@pytest.fixture
def folder(tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tutorial's folder, with the shop at the port it has here."""
    for path in TUTORIAL.glob("*.*"):
        (tmp_path / path.name).write_text(path.read_text("utf-8").replace("8000", str(shop.port)), "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MCPCONN_CONFIG", raising=False)
    monkeypatch.setenv("CLOCK", str(Path(sys.executable).with_name("mcp-server-time")))
    return tmp_path
