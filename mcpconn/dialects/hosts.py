"""The hosts whose files are read, and the keys that they write into the entry of a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """What is particular to the files of one host."""

    name: str
    unit: float | None = None
    """Seconds in one of its `timeout`; None: not known, and made out from the number."""
    bare_variables: bool = False
    """It replaces `$NAME` as well as `${NAME}`."""
    command_lists: bool = False
    """Its `command` holds the arguments as well."""


IN_CODE = Host("a program", unit=1)
UNKNOWN = Host("an unknown host")
GEMINI = Host("Gemini CLI", unit=0.001, bare_variables=True)
CLINE = Host("Cline", unit=1)
CODEX = Host("Codex", unit=1)
GOOSE = Host("Goose", unit=1, bare_variables=True)
CONTINUE = Host("Continue", unit=0.001)
KIRO = Host("Kiro", unit=0.001)
LIBRECHAT = Host("LibreChat", unit=0.001)
OPENCODE = Host("opencode", unit=0.001, command_lists=True)
CRUSH = Host("Crush", unit=1)
ZED = Host("Zed", unit=1)

SPELLINGS: Mapping[str, str] = {
    "type": "transport",
    "transport_type": "transport",
    "disable": "disabled",
    "server_url": "url",
    "http_url": "url",
    "uri": "url",
    "cmd": "command",
    "envs": "env",
    "environment": "env",
    "working_directory": "cwd",
    "working_dir": "cwd",
    "http_headers": "headers",
    "env_keys": "inherit_env",
    "env_vars": "inherit_env",
}
"""Keys of hosts, in snake_case, and what they are called here."""
IGNORED = frozenset(
    {
        *("name", "title", "label", "display_name", "description", "version", "icon", "icon_path", "tags", "category"),
        *("gallery", "dev", "source", "bundled", "origin", "extension_name", "provider", "homepage", "repository"),
        *("auto_approve", "always_allow", "trust", "tool_approval", "default_tools_approval_mode", "required"),
        *("watch_paths", "auto_start", "start_on_launch", "chat_menu", "server_instructions", "custom_user_vars"),
        *(
            "supports_parallel_tool_calls",
            "sandbox",
            "sandbox_enabled",
            "startup",
            "is_active",
            "installed",
            "settings",
        ),
        *("sse_read_timeout", "instructions", "metadata", "experimental_environment", "scopes", "oauth_resource"),
    }
)
"""Keys that say nothing about how the server is reached."""
RESTRICTIONS = frozenset(
    {
        *("disabled_tools", "enabled_tools", "include_tools", "exclude_tools", "available_tools", "tools"),
        *("tool_filter", "sandbox", "sandbox_enabled"),
    }
)
"""Keys by which a host restricts what a server or its tools may do. They do not apply here, and that is said."""
LOGINS = frozenset({"oauth", "auth_provider_type", "client_id", "client_secret"})
"""Keys of a login that a person makes in the host's own way."""
