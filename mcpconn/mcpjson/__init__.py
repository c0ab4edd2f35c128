"""Existing configuration files: those of editors, command lines and desktop hosts, or a bare mapping.

    {"mcpServers": {"fs": {"command": "npx", "args": [...]}}}     Claude, Cursor, Windsurf, Cline, Gemini CLI and others
    {"servers": {"fs": {...}}}                                     VS Code
    {"fs": {...}}                                                  bare
    [mcp_servers.fs]                                               Codex (TOML)
    extensions: / mcpServers:                                      Goose, Continue (YAML)

One step a file: `reading` turns a file into data, `hosts` finds the servers in it, `variables` replaces `${VAR}`,
`mcpconn.dialects` renames keys, and `loading` creates a `ServerConfig` from each entry, or reports why it cannot.
"""

from mcpconn.mcpjson.loading import Servers, load, parse

__all__ = ["Servers", "load", "parse"]
