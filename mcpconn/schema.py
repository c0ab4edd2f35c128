"""A JSON Schema for mcp.json, made from `ServerConfig`: editors use it to complete and check the file.

Each key is defined once: its type, check and description come from `ServerConfig`; the default and the description of a
timeout or limit come from `Policy`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from pydantic import TypeAdapter

from mcpconn.checks import MODES, PREFER_LEGACY, TRANSPORTS
from mcpconn.config import ServerConfig
from mcpconn.dialects.hosts import IGNORED, REFUSED, RESTRICTIONS, SPELLINGS
from mcpconn.login import Login
from mcpconn.policy import Policy

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NOT_IN_FILES = frozenset({"name", "notes", "problem", "server", "http_transport", "options"})
_POLICY_NAMES = {"timeout": "call_timeout"}
_UNITS = ("timeout", "lifetime", "keepalive")
"""Suffixes of the names of numbers of seconds."""
_SPELLED: Mapping[str, tuple[str, str]] = {
    "env_file": ("a file with variables for `env`", "VS Code, Cursor"),
    "enabled": ("the opposite of `disabled`", "Codex, Goose, Gemini CLI"),
    "active": ("the opposite of `disabled`", "Jan"),
    "is_active": ("the opposite of `disabled`", "Cherry Studio"),
    "oauth": ("a login by OAuth, as `auth`", "VS Code, Claude Code, Gemini CLI, opencode"),
    "auth_provider_type": ("`dynamic_discovery`: a login by OAuth", "Gemini CLI"),
    "scopes": ("the scopes of a login", "Codex"),
    "oauth_scopes": ("the scopes of a login", "Kiro"),
    "oauth_client_id": ("the client of a login", "Copilot CLI"),
    "client_id": ("the client of a login", "Goose"),
    "client_secret": ("the secret of that client", "Goose"),
    "bearer_token_env_var": ("the variable that holds the token", "Codex"),
    "api_key_env": ("the variable that holds the token", "Mistral Vibe"),
    "api_key_header": ("must be `Authorization`", "Mistral Vibe"),
    "api_key_format": ("must be `Bearer {token}`", "Mistral Vibe"),
    "env_http_headers": ("headers, with the names of variables as values", "Codex"),
    "env_headers": ("headers, with the names of variables as values", "Codex"),
    "request_options": ("headers, `verifySsl`, `caBundlePath`, `clientCertificate`, `timeout`", "Continue"),
    "request_init": ("headers", "SDK for TypeScript"),
    "startup_timeout_sec": ("as `connect_timeout`", "Codex"),
    "startup_timeout_ms": ("as `connect_timeout`, in milliseconds", "Codex"),
    "tool_timeout_sec": ("as `timeout`", "Codex"),
    "start_mcp_timeout_ms": ("as `connect_timeout`, in milliseconds", "Trae"),
    "run_mcp_timeout_ms": ("as `timeout`, in milliseconds", "Trae"),
    "connection_timeout": ("as `connect_timeout`", "Continue"),
    "init_timeout": ("as `connect_timeout`", "LibreChat"),
    "request_timeout": ("as `timeout`", "others"),
}
"""Hosts' keys that are not merely a different name, in snake_case: their meaning, and the hosts that use them."""
_SPELLED_BY: Mapping[str, str] = {
    "type": "VS Code, Claude Code, Cursor, Roo, opencode",
    "transport_type": "others",
    "server_url": "Windsurf, Antigravity",
    "http_url": "Gemini CLI, Qwen Code",
    "base_url": "Cherry Studio",
    "uri": "Goose",
    "cmd": "Goose",
    "envs": "Goose",
    "environment": "opencode",
    "env_keys": "Goose",
    "env_vars": "Codex",
    "http_headers": "Codex",
    "working_directory": "Warp",
    "working_dir": "others",
    "disable": "others",
    "verify_ssl": "Continue",
    "ssl_verify": "Hermes",
    "api_key": "Continue, LibreChat",
    "bearer_token": "others",
}


def camel(key: str) -> str:
    """`auto_approve` as `autoApprove`."""
    first, *rest = key.split("_")
    return first + "".join(each.capitalize() for each in rest)


def file_schema() -> dict[str, Any]:
    """The schema of a whole file: `mcpServers`, or one of its other names."""
    servers = {
        "type": "object",
        "description": "The servers, by name.",
        "additionalProperties": {"$ref": "#/$defs/server"},
    }
    return {
        "$schema": DIALECT,
        "title": "MCP servers",
        "type": "object",
        "properties": dict.fromkeys(("mcpServers", "servers"), servers),
        "$defs": {"server": entry_schema()},
    }


def entry_schema() -> dict[str, Any]:
    """The schema of one server's entry."""
    own = _own()
    properties = dict(own)
    for spelling, target in SPELLINGS.items():
        for key in {spelling, camel(spelling)} - own.keys():
            properties[key] = {**own[target], "description": f"As `{target}`."}
    for spelling, (meaning, _) in _SPELLED.items():
        for key in (spelling, camel(spelling)):
            properties[key] = {"description": meaning[0].upper() + meaning[1:] + "."}
    for spelling in sorted(IGNORED | RESTRICTIONS):
        what = "Restricts the server in its host; not applied here." if spelling in RESTRICTIONS else "Not used here."
        for key in (spelling, camel(spelling)):
            properties.setdefault(key, {"description": what})
    for spelling, why in REFUSED.items():
        for key in (spelling, camel(spelling)):
            properties[key] = {"description": f"It {why}.", "enum": [None, False, ""]}
    return {
        "type": "object",
        "properties": properties,
        # Keys that some people use for comments in JSON.
        "patternProperties": {"^(_|//|#|\\$)": {}},
        "additionalProperties": False,
    }


def keys_table() -> str:
    """Every key of mcpconn, and every host's spelling of it, as tables in Markdown."""
    rows = [
        f"| `{key}` | {_type(found)} | {_default(key)} | {found['description'].splitlines()[0]} | {_hosts(key)} |"
        for key, found in _own().items()
    ]
    head = ["| key | type | default | meaning | also written |", "| --- | --- | --- | --- | --- |"]
    spelled = [
        f"| `{camel(key)}` | {meaning} | {who} |" for key, (meaning, who) in sorted(_SPELLED.items()) if who != "others"
    ]
    more = ["", "| key of a host | meaning | hosts |", "| --- | --- | --- |"]
    return "\n".join([*head, *rows, *more, *spelled]) + "\n"


def _hosts(key: str) -> str:
    spellings = [each for each, target in SPELLINGS.items() if target == key]
    return ", ".join(f"`{camel(each)}` ({_SPELLED_BY[each]})" for each in spellings if _SPELLED_BY[each] != "others")


def _own() -> dict[str, dict[str, Any]]:
    """The keys of `ServerConfig` that a file may contain, each with its schema."""
    made = TypeAdapter(ServerConfig).json_schema()["properties"]
    words, policy_words = _docstrings(ServerConfig), _docstrings(Policy)
    own: dict[str, dict[str, Any]] = {}
    for item in fields(ServerConfig):
        if item.name in _NOT_IN_FILES:
            continue
        schema = _without_null(made[item.name])
        said = policy_words.get(_policy_name(item.name)) or words[item.name]
        own[item.name] = {**schema, **_MORE.get(item.name, {}), "description": _with_unit(item.name, said)}
    return own


def _policy_name(key: str) -> str:
    return _POLICY_NAMES.get(key, key)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """An optional key need not also accept null."""
    kinds = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    kept = {name: each for name, each in schema.items() if name not in ("anyOf", "default", "title")}
    return {**kept, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})} if kinds else kept


_TEXTS = {"type": ["string", "number", "boolean"]}
_MAPPING = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
_MORE: Mapping[str, dict[str, Any]] = {
    # Files contain numbers and booleans in places that expect strings.
    "command": {"type": ["string", "array", "object"], "items": {"type": "string"}},
    "args": {"items": _TEXTS},
    "env": {"type": ["object", "array"], **{key: _MAPPING[key] for key in ("additionalProperties",)}},
    "headers": {"type": ["object", "array"], **{key: _MAPPING[key] for key in ("additionalProperties",)}},
    "mode": {"enum": [*MODES, PREFER_LEGACY]},
    "transport": {"anyOf": [{"enum": ["stdio", "http", "sse"]}, {"type": "string"}], "examples": sorted(TRANSPORTS)},
    "timeout": {
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0},
            {"const": False},
            {"type": "object", "properties": {name: {"type": "number"} for name in ("startup", "request")}},
        ]
    },
    "auth": {
        "anyOf": [
            {"type": ["string", "boolean"]},
            {"type": "object", "properties": TypeAdapter(Login).json_schema()["properties"]},
        ]
    },
}


def _with_unit(key: str, words: str) -> str:
    return f"{words} In seconds." if key.endswith(_UNITS) and "second" not in words.lower() else words


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    kinds: list[str] = []
    for each in schema.get("anyOf", [schema]):
        if "enum" in each:
            return ", ".join(f"`{value}`" for value in each["enum"])
        named = each.get("type", "false" if each.get("const") is False else "any")
        kinds += named if isinstance(named, list) else [named]
    return " or ".join(dict.fromkeys({"array": "list", "object": "mapping"}.get(each, each) for each in kinds))


def _default(key: str) -> str:
    """The value if the key is omitted: the policy's number, if it has one."""
    item = {each.name: each for each in fields(ServerConfig)}[key]
    value = item.default if item.default is not MISSING else None
    number = {each.name: each for each in fields(Policy)}.get(_policy_name(key))
    if number is not None and value is None:
        value = number.default if number.default is not None else "none"
    shown = f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if shown in (None, ()):
        return ""
    return str(shown).lower() if isinstance(shown, bool) else str(shown)


def _docstrings(cls: type) -> dict[str, str]:
    """The docstring below each field."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    return dict(_described(body.body))


def _described(statements: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    name = ""
    for each in statements:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            name = each.target.id
            yield name, ""
        elif name and isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
            yield name, " ".join(str(each.value.value).split())
