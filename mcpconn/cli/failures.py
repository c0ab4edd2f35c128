"""Converts an exception to one line with the fix, and to an exit status."""

from __future__ import annotations

from mcp.shared.exceptions import MCPError

from mcpconn.core.failures import Failure, FailureKind
from mcpconn.errors import CallFailed, ConnectionFailed, McpConnError

FAILED, USAGE, UNKNOWN, INTERRUPTED, UNREAD = 1, 2, 3, 130, 141
"""Exit status: it failed; the command or the configuration makes no sense; the tool may have run; Ctrl-C; the reader of
its output has closed the pipe, for which shells show 128 + SIGPIPE."""


class CliError(Exception):
    """An error whose text is sufficient for a person."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


def fix(failure: Failure, server: str = "NAME") -> str:
    """What a person at a terminal can do about a failed connection.

    Args:
        failure: The failure.
        server: The server's name, for a command that can be copied.
    """
    summary = failure.summary
    if failure.kind is FailureKind.TRANSPORT_LOST and failure.evidence.phase == "dial":
        return "its output says more; if it depends on something that will be available soon, --wait 30 keeps trying"
    if failure.kind is FailureKind.AUTH and "mcpconn login" in summary:
        return f"mcpconn login {server}"
    if failure.kind is FailureKind.CONFIG and "proxy" in summary:
        return "change HTTPS_PROXY or HTTP_PROXY, or except this server with NO_PROXY"
    if failure.kind is FailureKind.CONFIG and "certificate" in summary:
        return "if you trust it, give its authority as ca_file in the entry, or with SSL_CERT_FILE"
    return {
        FailureKind.AUTH: f"give it other credentials (headers, env, auth), or log in: mcpconn login {server}",
        FailureKind.CONFIG: "fix its entry in the configuration",
        FailureKind.PROTOCOL: "check that this is an MCP server and that its protocol version is supported",
        FailureKind.UNAVAILABLE: "is it running? --wait 30 keeps trying for 30 s",
        FailureKind.TIMEOUT: "give it longer with --timeout, or keep trying with --wait 30",
        FailureKind.RATE_LIMITED: "wait, then try again",
    }.get(failure.kind, "try again; --debug shows what happened")


def leaf(error: BaseException) -> BaseException:
    """The first exception of a group that holds one."""
    while True:
        inner = getattr(error, "exceptions", None)
        if not inner:
            return error
        error = inner[0]


def describe(error: BaseException) -> tuple[str, int]:
    """The line, and the exit status."""
    error = leaf(error)
    if isinstance(error, CliError):
        return str(error), error.status
    if isinstance(error, ConnectionFailed):
        # The command ends here, so the connection's next dial does not matter.
        return f"{error.server}: {error.failure.summary}; {fix(error.failure, error.server)}", FAILED
    if isinstance(error, CallFailed):
        return str(error), UNKNOWN if error.outcome == "unknown" else FAILED
    if isinstance(error, McpConnError):
        return str(error), USAGE
    if isinstance(error, MCPError):
        return f"the server answered with an error: {error} (JSON-RPC {error.code})", FAILED
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error), FAILED
    return f"{type(error).__name__}: {error}; this is a bug in mcpconn; --debug shows where", FAILED
