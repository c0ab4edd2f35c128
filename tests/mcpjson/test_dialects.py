"""What the hosts write, each in its own words, and what is understood by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcpconn import ConfigError, ServerConfig
from mcpconn.login import Login
from mcpconn.mcpjson import Servers, load

ENVIRON = {"TOKEN": "t0ken-value", "HOST": "h.example", "EMPTY": ""}


def read(folder: Path, name: str, content: Any, environ: dict[str, str] | None = None) -> Servers:
    """A file of this name, loaded. A dict is written as JSON."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return load(path, environ=ENVIRON if environ is None else environ, strict=True)


def one(servers: Servers) -> ServerConfig:
    (config,) = servers.values()
    return config


def test_comments_and_commas_are_allowed(tmp_path: Path) -> None:
    text = """
    // The file of an editor.
    {
      "servers": { /* all of
                      them */
        "a": {
          "command": "npx", // "not": "this",
          "args": ["-y", "http://x//y", "a,]", "/* no comment */", "\\" // \\\\",], // ////////// ////
          "env": {"A": ",}",},
        },
        // , } ]
      }, // last
      "inputs": [],
    }
    """
    config = one(read(tmp_path, "mcp.json", text))
    assert config.args == ("-y", "http://x//y", "a,]", "/* no comment */", '" // \\')
    assert config.env == {"A": ",}"}


def test_errors_behind_comments_keep_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 3, column 6"):
        read(tmp_path, "mcp.json", '{ /* a\n b */\n "a" 5}')


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_editors_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "mcp.json"
    path.write_bytes('{"ä": {"url": "https://a"}}'.encode(encoding))
    assert list(load(path)) == ["ä"]


def test_vs_code(tmp_path: Path) -> None:
    content = {
        "inputs": [{"id": "key", "type": "promptString"}],
        "servers": {
            "local": {
                "type": "stdio",
                "command": "${workspaceFolder}/.venv/bin/python",
                "args": ["-m", "server", "--home", "${userHome}", "${workspaceFolderBasename}${/}x"],
                "env": {"PORT": 8080, "DEBUG": True, "RATIO": 0.5, "GONE": None, "T": "${env:TOKEN}"},
                "envFile": "${workspaceFolder}/.env",
                "dev": {"watch": "src/**", "debug": {"type": "debugpy"}},
                "gallery": "https://gallery.example",
                "version": "1.0.0",
            }
        },
    }
    (tmp_path / ".env").write_text("export A='from the file'\nPORT=1\n")
    config = one(read(tmp_path, ".vscode/mcp.json", content))
    assert config.command == f"{tmp_path}/.venv/bin/python"
    assert config.args == ("-m", "server", "--home", str(Path.home()), f"{tmp_path.name}/x")
    assert config.env == {"A": "from the file", "PORT": "8080", "DEBUG": "true", "RATIO": "0.5", "T": "t0ken-value"}
    assert config.notes == ()


def test_the_settings_of_vs_code(tmp_path: Path) -> None:
    content = {"editor.fontSize": 12, "mcp": {"inputs": [], "servers": {"a": {"url": "https://a"}}}}
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(content))
    assert one(load(path)).url == "https://a"


def test_cursor(tmp_path: Path) -> None:
    auth = {"CLIENT_ID": "${env:TOKEN}", "CLIENT_SECRET": "x", "scopes": ["mcp"]}
    entry = {"url": "https://${env:HOST}/mcp", "headers": {"A": "Bearer ${env:TOKEN}"}, "auth": auth}
    config = one(read(tmp_path, ".cursor/mcp.json", {"mcpServers": {"a": entry}}))
    assert (config.url, config.headers) == ("https://h.example/mcp", {"A": "Bearer t0ken-value"})
    assert config.auth == Login(client_id="t0ken-value", client_secret="x", scopes=["mcp"])
    assert config.notes == ()


def test_claude_code(tmp_path: Path) -> None:
    entry = {"type": "http", "url": "${BASE:-https://${HOST}}/mcp", "headers": {"X": "${NOPE:-${ALSO_NOT:-${TOKEN}}}"}}
    content = {"numStartups": 5, "projects": {"/x": {"mcpServers": {}}}, "mcpServers": {"a": entry}}
    path = tmp_path / ".claude.json"
    path.write_text(json.dumps(content))
    config = one(load(path, environ=ENVIRON))
    assert (config.url, config.headers) == ("https://h.example/mcp", {"X": "t0ken-value"})


def test_windsurf_and_cline_and_roo(tmp_path: Path) -> None:
    entry = {"serverUrl": "https://a/mcp", "disabledTools": ["x"], "disabled": False}
    config = one(read(tmp_path, "mcp_config.json", {"mcpServers": {"a": entry}}))
    assert config.url == "https://a/mcp"
    assert "disabledTools is not applied" in config.notes[0]
    entry = {"command": "npx", "autoApprove": ["x"], "alwaysAllow": [], "timeout": 1800, "watchPaths": ["x"]}
    config = one(read(tmp_path, "cline_mcp_settings.json", {"mcpServers": {"a": entry}}))
    assert (config.timeout, config.notes) == (1800, ())
    entry = {"type": "streamableHttp", "url": "https://a", "timeout": 3600}
    config = one(read(tmp_path, ".roo/mcp.json", {"mcpServers": {"a": entry}}))
    assert (config.kind, config.timeout) == ("http", 3600)


def test_gemini_cli(tmp_path: Path) -> None:
    entry = {
        "httpUrl": "https://a/mcp",
        "headers": {"Authorization": "Bearer $TOKEN", "X": "$NOPE costs $5"},
        "timeout": 600,
        "trust": False,
        "description": "${NOPE}",
        "includeTools": ["x"],
        "oauth": {"enabled": True, "clientSecret": "${NOPE}"},
        "authProviderType": "dynamic_discovery",
    }
    content = {"theme": "x", "mcp": {"allowed": ["a"]}, "mcpServers": {"a": entry}}
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(content))
    config = one(load(path, environ=ENVIRON))
    assert (config.url, config.kind, config.timeout) == ("https://a/mcp", "http", 0.6)
    assert config.headers == {"Authorization": "Bearer t0ken-value", "X": "$NOPE costs $5"}
    assert len(config.notes) == 2
    assert config.auth is None


def test_zed_opencode_crush_and_copilot(tmp_path: Path) -> None:
    entry: dict[str, Any] = {
        "source": "custom",
        "command": {"path": "npx", "args": ["-y"], "env": {"A": 1}},
        "settings": {},
    }
    config = one(read(tmp_path, "zed.json", {"context_servers": {"a": entry}}))
    assert (config.command, config.args, config.env) == ("npx", ("-y",), {"A": "1"})
    entry = {"type": "local", "command": ["npx", "-y"], "environment": {"A": "1"}, "enabled": True, "timeout": 500}
    config = one(read(tmp_path, "opencode.json", {"mcp": {"a": entry}}))
    assert (config.command, config.args, config.env, config.timeout) == ("npx", ("-y",), {"A": "1"}, 0.5)
    entry = {"type": "remote", "url": "https://a", "headers": {}, "oauth": False}
    assert one(read(tmp_path, "opencode.jsonc", {"mcp": {"a": entry}})).kind == "http"
    entry = {"type": "http", "url": "https://a", "timeout": 1200}
    assert one(read(tmp_path, "crush.json", {"mcp": {"a": entry}})).timeout == 1200
    entry = {"type": "local", "command": "npx", "tools": ["*"]}
    config = one(read(tmp_path, "mcp-config.json", {"mcpServers": {"a": entry}}))
    assert (config.kind, config.notes) == ("stdio", ())


def test_codex(tmp_path: Path) -> None:
    text = """
    model = "x"
    [mcp_servers.local]
    command = "npx"
    args = ["-y", "server", 8080]
    env = { PORT = 8080, SINCE = 2026-11-28 }
    env_vars = ["LANG", { name = "HTTP_PROXY", source = "local" }]
    startup_timeout_ms = 15000
    tool_timeout_sec = 90
    enabled_tools = ["x"]
    [mcp_servers.local.tools.x]
    approval_mode = "approve"
    [mcp_servers.remote]
    url = "https://a/mcp"
    bearer_token_env_var = "TOKEN"
    http_headers = { "X-A" = "1" }
    env_http_headers = { "X-B" = "HOST" }
    startup_timeout_sec = 5
    required = true
    [mcp_servers.off]
    command = "nothing"
    enabled = false
    """
    path = tmp_path / "config.toml"
    path.write_text(text)
    loaded = load(path, environ=ENVIRON)
    assert not any(config.problem for config in loaded.values())
    local, remote, off = loaded["local"], loaded["remote"], loaded["off"]
    assert (local.args, local.env) == (("-y", "server", "8080"), {"PORT": "8080", "SINCE": "2026-11-28"})
    assert local.inherit_env == ("LANG", "HTTP_PROXY")
    assert (local.timeout, local.connect_timeout) == (90, 15)
    assert (remote.auth, remote.headers) == ("t0ken-value", {"X-A": "1", "X-B": "h.example"})
    assert remote.connect_timeout == 5
    assert off.disabled


def test_goose(tmp_path: Path) -> None:
    text = """
    GOOSE_PROVIDER: x
    extensions:
      developer: {type: builtin, enabled: true, name: developer, bundled: true}
      github:
        name: GitHub
        type: stdio
        cmd: npx
        args: [-y, "@scope/server", no]
        envs: {DEBUG: on, TOKEN: $TOKEN}
        env_keys: [GITHUB_TOKEN]
        enabled: true
        timeout: 1200
        available_tools: []
      remote: {type: streamable_http, uri: "https://${HOST}/mcp", headers: {A: b}, enabled: true, description: x}
      off: {type: sse, uri: "https://a/sse", enabled: false}
    """
    path = tmp_path / "config.yaml"
    path.write_text(text)
    loaded = load(path, environ=ENVIRON)
    assert {name: config.problem for name, config in loaded.items()} == {"github": None, "remote": None, "off": None}
    github = loaded["github"]
    assert github.args == ("-y", "@scope/server", "no")
    assert github.env == {"DEBUG": "on", "TOKEN": "t0ken-value"}
    assert (github.timeout, github.inherit_env, github.notes) == (1200, ("GITHUB_TOKEN",), ())
    assert (loaded["remote"].kind, loaded["remote"].url) == ("http", "https://h.example/mcp")
    assert loaded["off"].disabled


def test_continue(tmp_path: Path) -> None:
    text = """
    name: My assistant
    schema: v1
    mcpServers:
      - name: local
        command: npx
        args: [-y, server]
        env: {KEY: "${{ secrets.TOKEN }}"}
        connectionTimeout: 5000
      - name: remote
        type: streamable-http
        url: https://a/mcp
        requestOptions:
          headers: {Authorization: "Bearer ${{ secrets.TOKEN }}"}
          verifySsl: false
          timeout: 7000
      - command: unnamed
    """
    path = tmp_path / "config.yaml"
    path.write_text(text)
    loaded = load(path, environ=ENVIRON)
    assert list(loaded) == ["local", "remote", "mcpServers[2]"]
    assert not any(config.problem for config in loaded.values())
    assert (loaded["local"].env, loaded["local"].connect_timeout) == ({"KEY": "t0ken-value"}, 5)
    assert loaded["remote"].headers == {"Authorization": "Bearer t0ken-value"}
    assert (loaded["remote"].verify, loaded["remote"].timeout) == (False, 7)


@pytest.mark.parametrize(
    ("entry", "timeout", "connect_timeout"),
    [
        ({"timeout": 999}, 999, None),
        ({"timeout": 1000}, 1, None),
        ({"timeout": 60000}, 60, None),
        ({"timeout": 0.5}, 0.5, None),
        ({"timeout": False}, float("inf"), None),
        ({"timeout_ms": 500}, 0.5, None),
        ({"timeoutMs": 60000}, 60, None),
        ({"timeout_sec": 3600}, 3600, None),
        ({"timeoutSeconds": 3600}, 3600, None),
        ({"tool_timeout_sec": 3600, "startup_timeout_ms": 100}, 3600, 0.1),
        ({"initTimeout": 10000}, None, 10),
        ({"connect_timeout": 2000}, None, 2000),
    ],
)
def test_a_timeout_is_read_by_its_name_or_its_size(
    tmp_path: Path, entry: dict[str, Any], timeout: float | None, connect_timeout: float | None
) -> None:
    config = one(read(tmp_path, "mcp.json", {"mcpServers": {"a": {"url": "https://a", **entry}}}))
    assert (config.timeout, config.connect_timeout) == (timeout, connect_timeout)
    guessed = [key for key, value in entry.items() if key in ("timeout", "initTimeout") and value >= 1000]
    assert len(config.notes) == len(guessed)
    for key, note in zip(guessed, config.notes, strict=True):
        assert note.startswith(f"{key}: {entry[key]} is read as milliseconds, as ")


def test_in_programs_timeouts_are_seconds() -> None:
    config = ServerConfig.parse("a", {"url": "https://a", "timeout": 2000})
    assert (config.timeout, config.notes) == (2000, ())


def test_comments_as_keys_are_left_alone(tmp_path: Path) -> None:
    entry = {"_comment": "x", "//": "y", "$schema": "z", "#note": 1, "url": "https://a"}
    assert one(read(tmp_path, "mcp.json", {"mcpServers": {"a": entry}})).notes == ()


@pytest.mark.parametrize(
    ("text", "environ", "result"),
    [
        ("${A:-${B}}", {"B": "b"}, "b"),
        ("${A:-${B:-${C:-d}}}", {}, "d"),
        ("${A:-${B}}", {"A": "a"}, "a"),
        ("${A:-}", {}, ""),
        ("${A:-b}", {"A": ""}, "b"),
        ("${A-b}", {"A": ""}, ""),
        ("${A-b}", {}, "b"),
        ('${A:-{"x": {}}}', {}, '{"x": {}}'),
        ("${env:A}-${A}", {"A": "a"}, "a-a"),
        ("${A}", {"A": "${B}"}, "${B}"),
        ("$A ${ $5 }{", {"A": "a"}, None),
        ("echo ${unclosed", {}, "echo ${unclosed"),
        ("$A {A}", {"A": "a"}, "$A {A}"),
    ],
)
def test_variables_and_their_defaults(tmp_path: Path, text: str, environ: dict[str, str], result: str | None) -> None:
    content = {"mcpServers": {"a": {"command": "x", "args": [text]}}}
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps(content))
    config = one(load(path, environ=environ))
    if result is None:
        assert config.problem is not None
    else:
        assert (config.problem, config.args) == (None, (result,))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["envFile", "cannot be read: No such file"]),
        (b"A='never closed", ["line 1", "not NAME=value"]),
        (b"# fine\nB=1\nghp_16C7e42F292c6912E7710c838347Ae178B4a", ["line 3", "not NAME=value"]),
        (b"A=\xff", ["not UTF-8"]),
        (b"A=\0", ["NUL"]),
    ],
)
def test_an_unusable_env_file_is_named(tmp_path: Path, content: bytes | None, words: list[str]) -> None:
    if content is not None:
        (tmp_path / ".env").write_bytes(content)
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {"a": {"command": "x", "envFile": ".env"}}}')
    problem = one(load(path)).problem
    assert problem is not None
    assert "ghp_" not in problem
    for word in words:
        assert word in problem


def test_an_env_file_may_hold_quotes_escapes_and_several_lines(tmp_path: Path) -> None:
    lines = [
        "# c",
        "",
        "export A=1",
        "B = two words # c",
        r'C="x\"y\nz" # c',
        r"D='lit\n#'",
        "E=",
        'F="-----BEGIN',
        'x"',
        "G=a#b",
    ]
    (tmp_path / ".env").write_bytes("\r\n".join(lines).encode())
    config = one(read(tmp_path, "mcp.json", {"a": {"command": "x", "envFile": ".env", "env": {"A": "2"}}}))
    assert config.env == {
        "A": "2",
        "B": "two words",
        "C": 'x"y\nz',
        "D": "lit\\n#",
        "E": "",
        "F": "-----BEGIN\nx",
        "G": "a#b",
    }
