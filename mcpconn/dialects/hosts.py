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
    plain_braces: bool = False
    """It writes `{env:NAME}` and `{file:PATH}`, without a dollar sign."""
    unknown_to_us: str | None = None
    """Begins what only the host itself can fill in, such as `{{USER_ID}}`."""


IN_CODE = Host("a program", unit=1)
UNKNOWN = Host("an unknown host")
GEMINI = Host("Gemini CLI", unit=0.001, bare_variables=True)
CLINE = Host("Cline", unit=1)
CODEX = Host("Codex", unit=1)
GOOSE = Host("Goose", unit=1, bare_variables=True)
CONTINUE = Host("Continue", unit=0.001)
KIRO = Host("Kiro", unit=0.001)
LIBRECHAT = Host("LibreChat", unit=0.001, unknown_to_us="{{")
OPENCODE = Host("opencode", unit=0.001, command_lists=True, plain_braces=True)
CRUSH = Host("Crush", unit=1, bare_variables=True, unknown_to_us="$(")
COPILOT = Host("Copilot CLI", unit=0.001, bare_variables=True)
ZED = Host("Zed", unit=1)

SPELLINGS: Mapping[str, str] = {
    "type": "transport",
    "transport_type": "transport",
    "disable": "disabled",
    "base_url": "url",
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
    "verify_ssl": "verify",
    "ssl_verify": "verify",
    "api_key": "auth",
    "bearer_token": "auth",
}
"""Keys of hosts, in snake_case, and what they are called here."""
IGNORED = frozenset(
    {
        # What it is called, and where it is from.
        *("name", "title", "label", "display_name", "description", "version", "icon", "icon_path", "tags", "category"),
        *("gallery", "dev", "source", "bundled", "origin", "extension_name", "extension", "provider", "homepage"),
        *("repository", "registry_url", "provider_url", "logo_url", "favicon_url", "source_file", "install_source"),
        *("search_key", "from_gallery_id", "official", "author", "license", "keywords", "docs", "documentation", "id"),
        # What the host asks of a person, or shows.
        *("auto_approve", "always_allow", "trust", "tool_approval", "default_tools_approval_mode", "required"),
        *("watch_paths", "auto_start", "start_on_launch", "chat_menu", "server_instructions", "custom_user_vars"),
        *("disabled_auto_approve_tools", "remote_configured", "always_load", "prompt", "instructions", "metadata"),
        # How the host runs it.
        *("supports_parallel_tool_calls", "startup", "installed", "settings", "experimental_environment", "remote"),
        *("sse_read_timeout", "read_timeout", "long_running", "keep_alive", "sampling", "stderr", "session_kwargs"),
        *("encoding", "encoding_error_handler", "include_tags", "exclude_tags", "authentication", "filter_mapping"),
        # Who shares a session with the server, whether it is a gateway, and whose credentials it sees: read by
        # `mcpconn.gateway` itself.
        *("scope", "gateway", "credentials"),
        # Logins are made with what the server says of them.
        *("oauth_resource", "requires_oauth", "oauth_public_client"),
    }
)
"""Keys that say nothing about how the server is reached."""
RESTRICTIONS = frozenset(
    {
        *("disabled_tools", "enabled_tools", "include_tools", "exclude_tools", "available_tools", "tools"),
        *("tool_filter", "ignored_tools", "allowed_tools", "sandbox", "sandbox_enabled", "disabled_prompts"),
    }
)
"""Keys by which a host restricts what a server or its tools may do. They do not apply here, and that is said."""
REFUSED: Mapping[str, str] = {
    "headers_helper": "is a program that prints headers, which is not run here; give `auth` a callable in code",
    "tcp": "is a WebSocket, which is not known here; use a url of http or https",
    "socket": "is a Unix socket, which is not known here; use a url of http or https",
    "target_audience": "is for Google's credentials, which are not known here; give `auth` a callable in code",
    "target_service_account": "is for Google's credentials, which are not known here; give `auth` a callable in code",
    "proxy": "is not known here; set HTTPS_PROXY for the whole program",
}
"""Keys without which the server would be reached otherwise than was meant, and why they cannot be used."""
