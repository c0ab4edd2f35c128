"""Entries as the hosts of 2026 write them: what each becomes here, and what is said of what cannot be obtained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcpconn.login import Login
from mcpconn.mcpjson import load

ENVIRON = {"KEY": "s3cret-value-0001"}
URL = "https://a.example/mcp"

Entry = dict[str, Any]

UNDERSTOOD: dict[str, tuple[str, Entry, dict[str, Any]]] = {
    "Cursor, a client of its own": (
        ".cursor/mcp.json",
        {"url": URL, "auth": {"CLIENT_ID": "c", "CLIENT_SECRET": "${env:KEY}", "scopes": ["r", "w"]}},
        {"auth": Login(client_id="c", client_secret="s3cret-value-0001", scopes=("r", "w"))},
    ),
    "VS Code, a client of its own": (
        ".vscode/mcp.json",
        {"type": "http", "url": URL, "oauth": {"clientId": "c"}},
        {"auth": Login(client_id="c")},
    ),
    "Claude Code, a fixed port": (
        ".mcp.json",
        {"type": "http", "url": URL, "oauth": {"clientId": "c", "callbackPort": 8080, "scopes": "r w"}},
        {"auth": Login(client_id="c", scopes=("r", "w"), redirect_uri="http://localhost:8080/callback")},
    ),
    "Claude Code, a plugin": (
        ".mcp.json",
        {"command": "${CLAUDE_PLUGIN_ROOT}/run", "args": ["${CLAUDE_PROJECT_DIR}"], "alwaysLoad": True},
        {"command": "{here}/run", "args": ("{here}",)},
    ),
    "Gemini CLI, a login": (
        ".gemini/settings.json",
        {"httpUrl": URL, "oauth": {"enabled": True, "clientId": "c", "tokenUrl": "https://t"}, "timeout": 5000},
        {"auth": Login(client_id="c"), "timeout": 5.0},
    ),
    "Gemini CLI, a login that is discovered": (
        ".gemini/settings.json",
        {"httpUrl": URL, "authProviderType": "dynamic_discovery"},
        {"auth": Login()},
    ),
    "Gemini CLI, an extension": (
        "gemini-extension.json",
        {"command": "node", "args": ["${extensionPath}${/}x.js"]},
        {"args": ("{here}/x.js",)},
    ),
    "Kiro, an address without a scheme": (
        ".kiro/settings/mcp.json",
        {"url": URL, "oauth": {"redirectUri": "127.0.0.1:7778"}, "oauthScopes": ["r"]},
        {"auth": Login(scopes=("r",), redirect_uri="http://127.0.0.1:7778")},
    ),
    "Copilot CLI": (
        ".copilot/mcp-config.json",
        {"type": "http", "url": URL, "headers": {"X": "$KEY"}, "tools": ["*"], "oauthClientId": "c"},
        {"headers": {"X": "s3cret-value-0001"}, "auth": Login(client_id="c")},
    ),
    "fastmcp": ("mcp.json", {"url": URL, "transport": "streamable-http", "auth": "oauth"}, {"auth": Login()}),
    "a token with its kind": (
        "mcp.json",
        {"url": URL, "auth": {"type": "bearer", "token": "t0ken"}},
        {"auth": "t0ken"},
    ),
    "opencode, braces without a dollar sign": (
        "opencode.json",
        {"type": "remote", "url": URL, "headers": {"Authorization": "Bearer {env:KEY}", "X": "{file:./token}"}},
        {"headers": {"Authorization": "Bearer s3cret-value-0001", "X": "from a file"}},
    ),
    "opencode, version 2": (
        "opencode.jsonc",
        {"type": "local", "command": ["npx", "x"], "timeout": {"startup": 30_000, "request": 60_000}},
        {"command": "npx", "args": ("x",), "timeout": 60.0, "connect_timeout": 30.0},
    ),
    "Windsurf, a token in a file": (
        "mcp_config.json",
        {"serverUrl": URL, "headers": {"Authorization": "Bearer ${file:token}"}},
        {"url": URL, "headers": {"Authorization": "Bearer from a file"}},
    ),
    "Crush": ("crush.json", {"type": "http", "url": URL, "headers": {"X": "$KEY"}}, {"headers": {"X": ENVIRON["KEY"]}}),
    "Cherry Studio": (
        "mcp.json",
        {"isActive": True, "type": "streamableHttp", "baseUrl": URL, "command": "", "longRunning": True, "logoUrl": ""},
        {"url": URL, "command": None},
    ),
    "Jan": ("mcp_config.json", {"command": "npx", "active": False, "official": True}, {"disabled": True}),
    "Continue": (
        ".continue/mcpServers/x.yaml",
        {"url": URL, "apiKey": "${{ secrets.KEY }}", "connectionTimeout": 5000, "faviconUrl": "x"},
        {"auth": ENVIRON["KEY"], "connect_timeout": 5.0},
    ),
    "LibreChat": (
        "librechat.yaml",
        {"url": URL, "apiKey": {"source": "admin", "authorization_type": "bearer", "key": "k"}, "initTimeout": 9000},
        {"auth": "k", "connect_timeout": 9.0},
    ),
    "Codex, a token in the file": (".codex/config.toml", {"url": URL, "bearer_token": "t"}, {"auth": "t"}),
    "Codex, scopes": (".codex/config.toml", {"url": URL, "scopes": ["r"]}, {"auth": Login(scopes=("r",))}),
    "Mistral Vibe": (
        "mcp.json",
        {"transport": "streamable-http", "url": URL, "api_key_env": "KEY", "api_key_format": "Bearer {token}"},
        {"auth": ENVIRON["KEY"]},
    ),
    "Trae": (
        "mcp.json",
        {"command": "x", "start_mcp_timeout_ms": 9000, "fromGalleryId": "x"},
        {"connect_timeout": 9.0},
    ),
    "Goose, what is not given": (
        "goose/config.yaml",
        {"type": "streamable_http", "uri": URL, "envs": {}, "env_keys": [], "socket": None, "headers": {"X": "$KEY"}},
        {"url": URL, "headers": {"X": ENVIRON["KEY"]}},
    ),
    "headers in a list": (
        "server.json",
        {"type": "streamable-http", "url": URL, "headers": [{"name": "X", "value": 1}]},
        {"headers": {"X": "1"}},
    ),
    "an environment in a list": (
        "mcp.json",
        {"command": "x", "env": ["A=b=c", {"name": "B", "value": True}]},
        {"env": {"A": "b=c", "B": "true"}},
    ),
    "a token besides a login": (
        "mcp.json",
        {"url": URL, "headers": {"authorization": "Bearer t"}, "oauth": {"clientSecret": "${NOT_SET}"}},
        {"auth": None},
    ),
    "no login": ("mcp.json", {"url": URL, "oauth": False, "auth": "none"}, {"auth": None}),
}

NOT_USABLE: dict[str, tuple[str, Entry, str]] = {
    "Claude Code, headers from a program": (".mcp.json", {"url": URL, "headersHelper": "/x"}, "not run here"),
    "Claude Code, a WebSocket": (".mcp.json", {"type": "ws", "url": "wss://a.example"}, "wss:// is not known here"),
    "VS Code, a Unix socket": (".vscode/mcp.json", {"url": "unix:///tmp/x.sock#/mcp"}, "unix:// is not known here"),
    "VS Code, a setting": (".vscode/mcp.json", {"command": "${config:x.y}"}, "a setting of the editor's"),
    "Gemini CLI, Google's credentials": (
        ".gemini/settings.json",
        {"url": URL, "authProviderType": "google_credentials"},
        "only the host itself can perform",
    ),
    "Codex, ChatGPT's session": (".codex/config.toml", {"url": URL, "auth": "chatgpt"}, "only the host itself"),
    "Zed, an extension": (".zed/settings.json", {"source": "extension", "settings": {}}, "only Zed can start"),
    "Crush, a command": ("crush.json", {"url": URL, "headers": {"X": "$(cat x)"}}, "filled in by Crush"),
    "LibreChat, a person's": ("librechat.yaml", {"url": URL, "headers": {"X": "{{USER}}"}}, "filled in by LibreChat"),
    "LibreChat, a person's key": (
        "librechat.yaml",
        {"url": URL, "apiKey": {"source": "user"}},
        "requested from the user",
    ),
    "opencode, a variable that is not set": (
        "opencode.json",
        {"type": "local", "command": ["x"], "environment": {"A": "{env:NOPE}"}},
        "NOPE is not set",
    ),
    "a file that is not there": ("mcp.json", {"url": URL, "headers": {"X": "${file:nope}"}}, "cannot be read"),
    "credentials of no known kind": (
        "mcp.json",
        {"url": URL, "auth": {"user": "u", "password": "p"}},
        "not understood",
    ),
    "a list as a token": ("mcp.json", {"url": URL, "auth": ["t"]}, "must be a token"),
    "a scope that is two": (
        "mcp.json",
        {"url": URL, "auth": {"client_id": "c", "scopes": ["a b"]}},
        "without spaces",
    ),
    "Mistral Vibe, a header of its own": (
        "mcp.json",
        {"url": URL, "api_key_env": "KEY", "api_key_header": "X-Key"},
        "give the header itself",
    ),
}


def written(folder: Path, name: str, entry: Entry) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "token").write_text("from a file\n")
    if path.suffix == ".toml":
        lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
        path.write_text("\n".join(["[mcp_servers.a]", *lines]))
        return path
    wrapper = {
        ".vscode/mcp.json": "servers",
        ".zed/settings.json": "context_servers",
        "goose/config.yaml": "extensions",
    }
    key = "mcp" if name.startswith(("opencode", "crush")) else wrapper.get(name, "mcpServers")
    # JSON is YAML as well.
    path.write_text(json.dumps({key: {"a": entry}}))
    return path


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_an_entry_of_a_host_is_understood(tmp_path: Path, case: str) -> None:
    name, entry, expected = UNDERSTOOD[case]
    path = written(tmp_path, name, entry)
    config = load(path, environ=ENVIRON)["a"]
    assert config.problem is None
    here = json.dumps(str(path.parent))[1:-1]
    for field, value in expected.items():
        if isinstance(value, tuple) and isinstance(getattr(config, field), tuple):
            value = tuple(each.replace("{here}", here) for each in value)
        elif isinstance(value, str):
            value = value.replace("{here}", here)
        assert getattr(config, field) == value


@pytest.mark.parametrize("case", NOT_USABLE)
def test_entries_that_need_a_host_are_off(tmp_path: Path, case: str) -> None:
    name, entry, words = NOT_USABLE[case]
    problem = load(written(tmp_path, name, entry), environ=ENVIRON)["a"].problem
    assert problem is not None
    assert words in problem


def test_servers_of_projects_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / ".claude.json"
    path.write_text(json.dumps({"mcpServers": {}, "projects": {"/x": {"mcpServers": {"a": {"command": "x"}}}}}))
    assert "single projects" in load(path).notes[0]
