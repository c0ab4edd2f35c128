"""`mcpconn discover`: the configuration files of editors and other hosts on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcpconn import mcpjson
from mcpconn.cli.output import one_line
from mcpconn.errors import ConfigError

HERE = (
    ("mcpconn", "mcp.json"),
    ("Claude Code", ".mcp.json"),
    ("Cursor", ".cursor/mcp.json"),
    ("VS Code", ".vscode/mcp.json"),
    ("Roo", ".roo/mcp.json"),
    ("Kiro", ".kiro/settings/mcp.json"),
    ("Gemini CLI", ".gemini/settings.json"),
    ("Codex", ".codex/config.toml"),
    ("opencode", "opencode.json"),
    ("opencode", "opencode.jsonc"),
    ("Crush", "crush.json"),
    ("Crush", ".crush.json"),
    ("Zed", ".zed/settings.json"),
    ("LibreChat", "librechat.yaml"),
)
"""In the folder of a project: host and path."""
AT_HOME = (
    ("Claude Code", ".claude.json"),
    ("Cursor", ".cursor/mcp.json"),
    ("Windsurf", ".codeium/windsurf/mcp_config.json"),
    ("Gemini CLI", ".gemini/settings.json"),
    ("Antigravity", ".gemini/antigravity/mcp_config.json"),
    ("Codex", ".codex/config.toml"),
    ("Copilot CLI", ".copilot/mcp-config.json"),
    ("LM Studio", ".lmstudio/mcp.json"),
    ("Kiro", ".kiro/settings/mcp.json"),
    ("Amazon Q", ".aws/amazonq/mcp.json"),
    ("Continue", ".continue/config.yaml"),
    ("Qwen Code", ".qwen/settings.json"),
    ("Factory", ".factory/mcp.json"),
)
"""In the home directory."""
IN_CONFIG = (
    ("Claude Desktop", "Claude/claude_desktop_config.json"),
    ("VS Code", "Code/User/mcp.json"),
    ("VS Code Insiders", "Code - Insiders/User/mcp.json"),
    ("Cline", "Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"),
    ("Roo", "Code/User/globalStorage/rooveterinaryinc.roo-cline/settings/mcp_settings.json"),
    ("Zed", "zed/settings.json"),
    ("Goose", "goose/config.yaml"),
    ("opencode", "opencode/opencode.json"),
    ("opencode", "opencode/opencode.jsonc"),
    ("Crush", "crush/crush.json"),
    ("Amp", "amp/settings.json"),
    ("Jan", "Jan/data/mcp_config.json"),
)
"""In the directory for applications' settings, which each system has elsewhere."""


@dataclass(frozen=True)
class Discovered:
    """A file that is there."""

    host: str
    path: Path
    servers: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()
    why: str | None = None
    """Why it cannot be read."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "host": self.host,
            "path": str(self.path),
            "servers": list(self.servers),
            "unusable": list(self.unusable),
            "error": self.why,
        }


def discover(folder: Path, home: Path) -> list[Discovered]:
    """The files that are there, and what servers they have. No server is started or asked.

    Args:
        folder: Of the project.
        home: The home directory.
    """
    found: dict[Path, Discovered] = {}
    for host, path in _candidates(folder, home):
        try:
            real = path.resolve()
            if real in found or not path.is_file():
                continue
        except (OSError, RuntimeError):
            continue
        found[real] = _read(host, path)
    return list(found.values())


def _candidates(folder: Path, home: Path) -> Iterator[tuple[str, Path]]:
    yield from ((host, folder / path) for host, path in HERE)
    yield from ((host, home / path) for host, path in AT_HOME)
    for base in _settings(home):
        yield from ((host, base / path) for host, path in IN_CONFIG)


def _settings(home: Path) -> list[Path]:
    if sys.platform == "darwin":
        # Programs from Linux keep theirs in ~/.config there, too.
        return [home / "Library" / "Application Support", home / ".config"]
    if sys.platform == "win32":
        return [Path(os.environ.get("APPDATA") or home / "AppData" / "Roaming"), home / ".config"]
    return [Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")]


def _read(host: str, path: Path) -> Discovered:
    try:
        servers = mcpjson.load(path)
    except ConfigError as error:
        return Discovered(host, path, why=one_line(str(error).removeprefix(f"{path}: ")))
    enabled = {name: each for name, each in servers.items() if not each.disabled}
    unusable = tuple(name for name, each in enabled.items() if each.problem is not None)
    return Discovered(host, path, tuple(enabled), unusable)
