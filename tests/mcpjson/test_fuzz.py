"""Any file at all: the answer is a configuration, or a `ConfigError`; and what is accepted can be dialled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpconn import ConfigError, Connection, ServerConfig
from mcpconn.dialects.hosts import IGNORED, REFUSED, RESTRICTIONS, SPELLINGS
from mcpconn.mcpjson import parse
from mcpconn.schema import entry_schema

KEYS = sorted(
    {*SPELLINGS, *list(IGNORED)[:5], *REFUSED, *RESTRICTIONS, *entry_schema()["properties"], "auth", "oauth", "scopes"}
    | {"enabled", "active", "envFile", "env_http_headers", "bearer_token_env_var", "requestOptions", "clientId"}
    | {"tool_timeout_sec", "startup_timeout_ms", "api_key_header", "authProviderType", "server", "http_transport"}
)
FILES = [
    "mcp.json",
    ".cursor/mcp.json",
    ".vscode/mcp.json",
    "opencode.json",
    "crush.json",
    ".codex/config.toml",
    ".gemini/settings.json",
    "librechat.yaml",
    ".zed/settings.json",
]
WRAPPERS = ["mcpServers", "servers", "mcp_servers", "context_servers", "extensions", "mcp", "amp.mcpServers", None]
PIECES = [
    *("", " ", "https://a.example/mcp", "http://[::1]:8000", "https://a.example:99999", "npx", "x --y", "\0", "\n"),
    *("${KEY}", "${NOPE}", "${A:-${B:-c}}", "${", "}", "$(x)", "{{x}}", "{env:KEY}", "{file:\0}", "${file:~nobody/x}"),
    *("Bearer t", "\ud800", "é", "auto", "legacy", "sse", "stdio", "oauth", "none", "1e400", "a b", "Content-Length"),
    *("https://u:p@a.example/", "https://" + "a" * 70 + ".example", "http://a.example:0", "unix:///x", "C:\\x", "~"),
]
TEXTS = st.one_of(
    st.sampled_from(PIECES), st.text(max_size=8), st.lists(st.sampled_from(PIECES), max_size=3).map("".join)
)
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -1, 0, 60000, 1e308]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(TEXTS, st.sampled_from(["client_id", "scopes", "redirect_uri", "token"])), inner, max_size=3
        ),
    ),
    max_leaves=6,
)
ENTRIES = st.dictionaries(st.one_of(st.sampled_from(KEYS), TEXTS), VALUES, max_size=5)
PLACED = st.tuples(ENTRIES, st.sampled_from([{"url": "https://a.example/mcp"}, {"command": "npx"}, {}])).map(
    lambda pair: {**pair[0], **pair[1]}
)


def check(config: ServerConfig) -> None:
    """What would be done with it at a dial, up to the network."""
    repr(config), hash(config.name), config.address, config.label, config.origin, config.kind
    config.redactor("text")
    json.dumps({"notes": config.notes, "problem": config.problem})
    if config.problem is not None:
        Connection(config).status()
        return
    assert replace(config, name="other").name == "other"
    if config.url is not None:
        request = httpx2.Request("POST", config.endpoint, headers=config.request_headers)
        for name, value in request.headers.items():
            assert "\n" not in name + value
        assert request.url.host
    else:
        assert config.command is not None
        for text in (config.command, *config.args, *config.environment({}), *config.environment({}).values()):
            assert "\0" not in text
            text.encode()
    # Its credentials, its policy, its TLS.
    Connection(config).status()


@settings(max_examples=40)
@given(PLACED, st.sampled_from(FILES), st.sampled_from(WRAPPERS))
def test_any_entry_works_or_says_why_not(entry: dict[str, Any], name: str, wrapper: str | None) -> None:
    content: Any = {"a": entry}
    if wrapper is not None:
        content = {wrapper: content}
    try:
        servers = parse(content, environ={"KEY": "value"}, path=Path("/nowhere") / name)
    except ConfigError:
        return
    for config in servers.values():
        check(config)


@settings(max_examples=20)
@given(PLACED)
def test_any_mapping_in_code_is_a_configuration_or_an_error(entry: dict[str, Any]) -> None:
    entry = {key: value for key, value in entry.items() if key not in ("server", "http_transport", "options")}
    try:
        config = ServerConfig.parse("a", entry)
    except ConfigError:
        return
    check(config)


@settings(max_examples=20)
@given(VALUES)
def test_any_content_is_servers_or_an_error(content: Any) -> None:
    try:
        servers = parse(content, environ={})
    except ConfigError:
        return
    for config in servers.values():
        check(config)
