"""The gateways: how each is installed, and how its own documentation starts it before one HTTP server.

Each has an environment of its own below `.envs`, with the latest release that can be had when it is made. Where a
gateway only serves servers over stdio, its own bridge from stdio to HTTP stands between, and `notes` says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mcpconn import __version__

HERE = Path(__file__).parent
HOME = HERE / ".envs"


@dataclass(frozen=True)
class Gateway:
    """One gateway."""

    name: str
    package: str
    """What is installed, as the registry names it."""
    kind: str
    """`pip`, `npm`, or `own`."""
    command: Callable[[Path, Path, int, str], list[str]]
    """From its environment, an empty folder for its files, a port and the server's address."""
    path: str = "/mcp"
    sse: bool = False
    """Its endpoint is that of the old HTTP with SSE transport."""
    notes: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """Its environment."""
        # Two registries have a package of one name.
        return HOME / f"{'npm-' if self.kind == 'npm' else ''}{self.package.partition('[')[0]}"

    def install(self) -> str:
        """Make the environment if it is missing. Returns why it cannot be obtained, or nothing."""
        if self.kind == "own" or (self.home / ".made").exists():
            return ""
        if self.kind == "pip":
            venv.create(self.home, with_pip=True)
            command = [str(self.home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        else:
            self.home.mkdir(parents=True, exist_ok=True)
            command = ["npm", "install", "--prefix", str(self.home), "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            done = subprocess.run([*command, self.package], capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{command[0]} cannot be run: {error.strerror}"
        if done.returncode:
            lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if "WARNING" not in line]
            return lines[-1] if lines else "it could not be installed"
        (self.home / ".made").touch()
        return ""

    def version(self) -> str:
        """The release that is installed."""
        name = self.package.partition("[")[0]
        if self.kind == "own":
            return __version__
        if self.kind == "npm":
            content = json.loads((self.home / "node_modules" / name / "package.json").read_text())
            return str(content["version"])
        line = f"from importlib.metadata import version; print(version({name!r}))"
        shown = subprocess.run([self.home / "bin" / "python", "-c", line], capture_output=True, text=True, check=True)
        return shown.stdout.strip()


def _own(home: Path, folder: Path, port: int, url: str) -> list[str]:
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"a": {"url": url}}}))
    serve = ["serve", str(folder / "mcp.json"), "--listen", f"127.0.0.1:{port}", "--state", str(folder / "state")]
    return [sys.executable, "-m", "mcpconn", *serve]


def _fastmcp(home: Path, folder: Path, port: int, url: str) -> list[str]:
    program = (
        "from fastmcp.server import create_proxy\n"
        f"proxy = create_proxy({url!r}, name='proxy', mode='legacy')\n"
        f"proxy.run(transport='http', host='127.0.0.1', port={port}, show_banner=False)\n"
    )
    (folder / "proxy.py").write_text(program)
    return [str(home / "bin" / "python"), str(folder / "proxy.py")]


def _litellm(home: Path, folder: Path, port: int, url: str) -> list[str]:
    config = {
        "model_list": [],
        # It does not start without a key otherwise.
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
        "mcp_servers": {"a": {"url": url, "transport": "http", "allow_all_keys": True}},
    }
    # JSON is YAML.
    (folder / "config.yaml").write_text(json.dumps(config))
    return [
        str(home / "bin" / "litellm"),
        *("--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)),
    ]


def _mcp_proxy(home: Path, folder: Path, port: int, url: str) -> list[str]:
    program = str(home / "bin" / "mcp-proxy")
    return [program, "--host", "127.0.0.1", "--port", str(port), "--", program, "--transport", "streamablehttp", url]


def _supergateway(home: Path, folder: Path, port: int, url: str) -> list[str]:
    program = str(home / "node_modules" / ".bin" / "supergateway")
    inner = f"{program} --streamableHttp {url} --logLevel none"
    options = ["--outputTransport", "streamableHttp", "--stateful", "--logLevel", "none", "--port", str(port)]
    return [program, "--stdio", inner, *options]


def _mcp_hub(home: Path, folder: Path, port: int, url: str) -> list[str]:
    (folder / "hub.json").write_text(json.dumps({"mcpServers": {"a": {"url": url}}}))
    program = str(home / "node_modules" / ".bin" / "mcp-hub")
    return [program, "--port", str(port), "--config", str(folder / "hub.json")]


def _npm_mcp_proxy(home: Path, folder: Path, port: int, url: str) -> list[str]:
    bridge = HOME / "npm-supergateway" / "node_modules" / ".bin" / "supergateway"
    program = str(home / "node_modules" / ".bin" / "mcp-proxy")
    options = ["--host", "127.0.0.1", "--port", str(port), "--server", "stream"]
    return [program, *options, "--", str(bridge), "--streamableHttp", url, "--logLevel", "none"]


GATEWAYS = (
    Gateway("mcpconn", "mcpconn", "own", _own),
    Gateway(
        "fastmcp",
        "fastmcp",
        "pip",
        _fastmcp,
        notes="`create_proxy(url, mode='legacy')`; without a mode it speaks to the server in its client's era",
    ),
    Gateway(
        "LiteLLM",
        "litellm[proxy]",
        "pip",
        _litellm,
        path="/mcp/",
        notes="the proxy with one entry in `mcp_servers`, no database, no keys",
        # It fetches its price list from a web site otherwise.
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    ),
    Gateway(
        "mcp-proxy (PyPI)",
        "mcp-proxy",
        "pip",
        _mcp_proxy,
        notes="serves servers over stdio; a second mcp-proxy is its bridge to HTTP",
    ),
    Gateway(
        "supergateway",
        "supergateway",
        "npm",
        _supergateway,
        notes="serves servers over stdio, with `--stateful`; a second supergateway is its bridge to HTTP",
    ),
    Gateway(
        "mcp-hub", "mcp-hub", "npm", _mcp_hub, sse=True, notes="its endpoint is the older transport, HTTP with SSE"
    ),
    Gateway(
        "mcp-proxy (npm)",
        "mcp-proxy",
        "npm",
        _npm_mcp_proxy,
        notes="serves servers over stdio; supergateway is its bridge to HTTP",
    ),
)
