"""One line of JSON when a call begins, before anything is sent, and one when it has ended.

A call without an end, because the process was killed, counts as unknown. Answers are never logged, and arguments only
if the operator enables it, because they are private to the users.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult

from mcpconn.errors import ConfigError
from mcpconn.gateway.clients.downstream import Context, Downstream
from mcpconn.gateway.outcomes import CALL_ID, OUTCOME
from mcpconn.keys import IDEMPOTENCY_KEY
from mcpconn.names import Table
from mcpconn.observe import log
from mcpconn.runtime.journal import Finished, Notice

AUDITED = {"tools/call": "tool", "prompts/get": "prompt", "resources/read": "resource"}
"""Methods that use something of a server, and its name in a line."""


class AuditLog:
    """The file. Each line is one write at its end, so that several processes can share it."""

    def __init__(self, path: Path, *, arguments: bool = False, wall: Callable[[], float] = time.time) -> None:
        """
        Args:
            path: The file; made with mode 0600 if it is missing.
            arguments: Write a call's arguments, too.
            wall: Seconds since 1970.

        Raises:
            ConfigError: it cannot be written.
        """
        self.arguments = arguments
        self.wall = wall
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"gateway.audit: {path} cannot be written: {error.strerror}", key="audit") from None
        self._broken = False
        self.failures = 0
        """Lines that could not be written."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line. A full disk does not end calls; the failure is logged, once until writing works again."""
        # JSON has no raw line breaks, so a name cannot leave its line.
        content = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            whole = os.write(self._descriptor, content) == len(content)
        except OSError:
            whole = False
        self.failures += not whole
        if not whole and not self._broken:
            log.error("gateway.audit_failed", do="free space, or give another file under gateway.audit")
        self._broken = not whole

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Entry:
    """One call."""

    def __init__(self, audit: AuditLog, facts: Mapping[str, Any]) -> None:
        self._audit = audit
        self._facts = {"id": secrets.token_hex(8), **facts}
        self._began = time.monotonic()
        self.attempts = 0
        self.waited = 0.0
        audit.write({"at": _time(audit.wall()), "event": "started", **self._facts})

    def end(self, outcome: str, ledger: str | None = None) -> None:
        """The call has ended."""
        line: dict[str, Any] = {"at": _time(self._audit.wall()), "event": "ended", **self._facts, "outcome": outcome}
        line.pop("arguments", None)
        line |= {"attempts": self.attempts, "waited_ms": round(self.waited * 1000)}
        line["ms"] = round((time.monotonic() - self._began) * 1000)
        if ledger is not None:
            line["call"] = ledger
        self._audit.write(line)


_ENTRY: ContextVar[Entry | None] = ContextVar("mcpconn_gateway_audit", default=None)


def note(notice: Notice) -> None:
    """Count a connection's notices of a call. A notice is delivered in the context of its call."""
    entry = _ENTRY.get()
    if entry is not None and isinstance(notice, Finished):
        entry.attempts += notice.attempts
        entry.waited += notice.blocked


class Auditing:
    """The part of one view's server that writes the lines."""

    def __init__(self, audit: AuditLog, view: str, table: Table) -> None:
        """
        Args:
            audit: Where they go.
            view: The view's name.
            table: Its public names.
        """
        self._audit = audit
        self._view = view
        self._table = table

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        what = AUDITED.get(ctx.method)
        if what is None:
            return await call_next(ctx)
        entry = Entry(self._audit, self._facts(ctx, what))
        token = _ENTRY.set(entry)
        try:
            answer = await call_next(ctx)
        except MCPError as error:
            data = error.error.data
            entry.end(str(data.get(OUTCOME, "error")) if isinstance(data, Mapping) else "error")
            raise
        except BaseException:
            # Its client was cancelled, or mcpconn has a bug: it may have run.
            entry.end("unknown")
            raise
        finally:
            _ENTRY.reset(token)
        said = answer if isinstance(answer, Mapping) else {}
        meta = said.get("_meta") or {}
        entry.end(_outcome(said, meta), meta.get(CALL_ID))
        return answer

    def _facts(self, ctx: Context, what: str) -> dict[str, Any]:
        client = Downstream.of(ctx)
        params: Mapping[str, Any] = ctx.params or {}
        name = str(params.get("uri" if what == "resource" else "name", ""))
        found = self._table.resolve_uri(name) if what == "resource" else self._table.resolve(name)
        server, own = found if found is not None else (None, name)
        facts: dict[str, Any] = {"principal": str(client.principal), "server": server, what: own}
        if self._view:
            facts["view"] = self._view
        if isinstance(key := (params.get("_meta") or {}).get(IDEMPOTENCY_KEY), str):
            facts["key"] = key
        if self._audit.arguments and what != "resource":
            facts["arguments"] = params.get("arguments")
        return facts


def _outcome(answer: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    if answer.get("resultType") == "input_required":
        return "asked"
    if OUTCOME in meta:
        return str(meta[OUTCOME])
    return "tool_error" if answer.get("isError") else "answered"


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03}Z"
