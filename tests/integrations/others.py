"""Frameworks that cannot share an environment with mcpconn, at a gateway: `python -m tests.integrations.others`.

Each has an environment of its own in `.integrations/`, with the mcp that it wants. Its client, in `gateway_clients/`,
calls a tool through `mcpconn serve`, the server behind the gateway is killed, and the client calls again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".integrations"
CLIENTS = ROOT / "tests" / "integrations" / "gateway_clients"
PATIENCE = 120.0
"""Seconds for a client to end after its server was killed."""


class Other(NamedTuple):
    """A framework, as it is installed."""

    name: str
    """Of its client in `gateway_clients/`."""
    pins: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Its environment."""
        return ENVIRONMENTS / f"gateway-{self.name}"

    @property
    def ready(self) -> bool:
        """Whether its environment is there, with these versions."""
        stamp = self.folder / "pins"
        return stamp.exists() and stamp.read_text(encoding="utf-8") == "\n".join(self.pins)


OTHERS = (
    Other("strands", ("strands-agents==1.62.0",)),
    Other("mcp_use", ("mcp-use==1.7.1",)),
    Other("autogen_ext", ("autogen-ext[mcp]==0.7.5", "mcp<2")),
    Other("crewai", ("crewai==1.15.30", "crewai-tools[mcp]==1.15.30")),
    Other("semantic_kernel", ("semantic-kernel[mcp]==1.45.0",)),
)


def installed(other: Other) -> None:
    """Make its environment, unless it is there."""
    if other.ready:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(other.folder)], check=True)
    pip = [str(other.folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "install", "--quiet", *other.pins], check=True)
    (other.folder / "pins").write_text("\n".join(other.pins), encoding="utf-8")


def tried(other: Other, folder: Path) -> list[str]:
    """What its client was answered before and after its server was killed.

    Args:
        other: The framework.
        folder: For the gateway's configuration and state.
    """
    shop = {"command": sys.executable, "args": ["-m", "mcpconn.demo.server"]}
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"shop": shop}}), encoding="utf-8")
    command = [sys.executable, "-m", "mcpconn", "serve", "mcp.json", "--listen", "127.0.0.1:0", "--state", "state"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as gateway:
        try:
            assert gateway.stdout is not None
            said = next(line for line in gateway.stdout if "http://" in line)
            return _called(other, said[said.index("http://") :].strip(), gateway.pid, folder)
        finally:
            gateway.terminate()


def _called(other: Other, url: str, gateway: int, folder: Path) -> list[str]:
    python = other.folder / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(
        [str(python), str(CLIENTS), other.name, url],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        try:
            assert client.stdout is not None
            assert any(line == "between\n" for line in client.stdout), "the first call was not answered"
            for child in psutil.Process(gateway).children(recursive=True):
                if "mcpconn.demo.server" in child.cmdline():
                    child.kill()
            output, _ = client.communicate("\n", timeout=PATIENCE)
        finally:
            client.kill()
    answers: list[str] = json.loads(output.splitlines()[-1])
    return [match[0] if (match := re.search(r"\d+", answer)) else answer for answer in answers]


if __name__ == "__main__":
    import tempfile

    for each in OTHERS:
        installed(each)
        with tempfile.TemporaryDirectory() as name:
            print(each.name, tried(each, Path(name)))
