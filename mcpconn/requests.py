"""The way of every call of a connection into the runtime, and of a tool's call, which may be harmful, from its
beginning.

call_tool     what is sent, and whether the tool has to be called as a task
_tool_call    whether it may be sent twice: by the caller's word, by its annotations, or by a key
_call         its deadline, its span; then `runtime.calls`, which keeps it alive
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar, cast

import anyio
import mcp_types as types
from anyio.lowlevel import checkpoint
from mcp import Client, MCPError
from mcp.shared.dispatcher import ProgressFnT

from mcpconn import raw
from mcpconn.catalog.catalog import Catalog
from mcpconn.core.attempt import Attempt
from mcpconn.keys import CANCEL, CallKey, ledger_of, repeated
from mcpconn.peer import Peer
from mcpconn.policy import Policy
from mcpconn.runtime.calls import Calls
from mcpconn.runtime.native import awaited
from mcpconn.runtime.supervisor import Supervisor
from mcpconn.tasks import Tasks
from mcpconn.telemetry import start_span, within
from mcpconn.validate import check_timeout

T = TypeVar("T")

CANCEL_PATIENCE = 5.0
"""Seconds for notifying a gateway of a cancelled call."""


class _Default:
    def __repr__(self) -> str:
        return "the policy's"


DEFAULT: Any = _Default()
"""Means the timeout of the configuration or policy; None means no timeout."""


class Requests(Peer):
    """Calls of tools, and what every other call needs."""

    catalog: Catalog
    """The server's catalogue."""
    policy: Policy
    """The connection's timeouts and limits."""
    _supervisor: Supervisor
    _calls: Calls
    _tasks: Tasks
    _calls_made: int
    """Calls by the host, not in the background."""

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        read_timeout_seconds: float | None = None,
        progress_callback: ProgressFnT | None = None,
        *,
        input_responses: types.InputResponses | None = None,
        request_state: str | None = None,
        meta: types.RequestParamsMeta | None = None,
        timeout: float | None = DEFAULT,
        max_total_timeout: float | None = None,
        idempotent: bool | None = None,
        wait: bool = True,
    ) -> types.CallToolResult:
        """Call a tool; arguments and result as `mcp.Client.call_tool`.

        With `max_total_timeout`, each progress that the server reports gives the call another `timeout` seconds, until
        it has taken that many in all (specification 2025-11-25, lifecycle, timeouts).

        Raises:
            MCPError: the server's application answered with an error.
            OutcomeUnknown: no answer came, and the tool may have run.
            CallTimeout: the deadline passed.
            ConnectionFailed, ConnectionClosed, Overloaded, NotReady, CallFailed: the tool was not run.
            ConfigError: a time limit is no number of seconds. Nothing was sent.
            NotRunning: the connection was not started, or runs in another event loop than this.
        """
        check_timeout(read_timeout_seconds, "read_timeout_seconds")
        check_timeout(max_total_timeout, "max_total_timeout")
        limits: dict[str, Any] = {"timeout": timeout, "idempotent": idempotent, "wait": wait}
        began = anyio.current_time()

        def left() -> float | None:
            # Polling a task's status counts as progress, so the limit for calls with progress applies.
            seconds = self._seconds(timeout) if max_total_timeout is None else max_total_timeout
            return None if seconds is None else max(0.0, began + seconds - anyio.current_time())

        def send(
            client: Client, attempt: Attempt, sent_meta: Mapping[str, Any] | None
        ) -> Awaitable[types.CallToolResult]:
            return client.call_tool(
                name,
                arguments,
                read_timeout_seconds,
                noting(attempt, progress_callback),
                input_responses=input_responses,
                request_state=request_state,
                meta=cast("types.RequestParamsMeta | None", sent_meta),
            )

        def as_task() -> Awaitable[types.CallToolResult]:
            return self._tasks.call(name, arguments, meta, **{**limits, "timeout": left()})

        if self._tasks.needed(name):
            return await as_task()
        try:
            return await self._tool_call(name, meta, send, total=max_total_timeout, **limits)
        except MCPError as refusal:
            if not await self._tasks.learns_of_need(name, refusal, within=left()):
                raise
        return await as_task()

    async def _tool_call(
        self,
        tool: str,
        meta: Mapping[str, Any] | None,
        send: Callable[[Client, Attempt, Mapping[str, Any] | None], Awaitable[T]],
        *,
        timeout: float | None,
        idempotent: bool | None,
        wait: bool,
        total: float | None = None,
    ) -> T:
        """Call a tool, with an idempotency key if it is not safe to repeat and the server keeps a ledger.

        Args:
            tool: Its name.
            meta: The call's `_meta`.
            send: Makes one attempt, with this `_meta`.
            timeout: Seconds for the whole call.
            idempotent: The caller's declaration.
            wait: False raises `NotReady` at once if the connection is not ready.
            total: Maximum seconds in total, if each progress notification gives it another `timeout` seconds.
        """
        mark, safe = self._safety_of(tool, idempotent)
        key = CallKey(meta, client=self._present_client)

        def issue(client: Client, attempt: Attempt) -> Awaitable[T]:
            mark(attempt)
            return send(client, attempt, key.meta(client) if attempt.unsafe else meta)

        async def repeatable() -> bool:
            return key.repeatable() or await safe()

        def call(seconds: float | None) -> Awaitable[T]:
            return self._call(
                "tools/call", issue, safe=repeatable, timeout=seconds, wait=wait, target=tool, total=total
            )

        client = self._present_client()
        if client is not None and ledger_of(client) is None:
            # Most servers keep no ledger; their calls skip everything below.
            return await call(timeout)
        return await repeated(key, call, self._seconds(timeout), self._cancel_key)

    async def _call(
        self,
        method: str,
        issue: Callable[[Client, Attempt], Awaitable[T]],
        *,
        safe: Callable[[], Awaitable[bool]] | None = None,
        timeout: float | None = DEFAULT,
        idempotent: bool | None = None,
        wait: bool = True,
        target: str | None = None,
        background: bool = False,
        total: float | None = None,
    ) -> T:
        """Make a call, by the rules of the core. One in the `background` does not keep an idle session open."""
        self._check_here()
        if timeout is not DEFAULT:
            check_timeout(timeout)
        if safe is None:
            safe = harmful if idempotent is False else harmless
        if not background:
            self._calls_made += 1
        seconds = self._seconds(timeout)
        span = start_span(self.name, method, target)
        call = self._calls.run(method, issue, safe=safe, timeout=seconds, wait=wait, background=background, total=total)
        if span is None:
            return await call
        with within(span):
            return await call

    def _seconds(self, timeout: float | None) -> float | None:
        """The timeout of a call, the default resolved."""
        return self.policy.call_timeout if timeout is DEFAULT else timeout

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run `task` in the background, at most until the connection ends. False if the connection is not running."""
        if self._home is not None:
            self._check_here()
        return self._supervisor.spawn(task)

    def _safety_of(
        self, tool: str, idempotent: bool | None
    ) -> tuple[Callable[[Attempt], None], Callable[[], Awaitable[bool]]]:
        """Two functions: one marks an attempt at a tool as unsafe, the other tells whether the call may be retried
        after an unknown outcome.

        Args:
            tool: Its name.
            idempotent: The caller's declaration; None: the tool's annotations decide.
        """
        # Read before the first attempt: the listing that a retry requests may come from a different version of the
        # server.
        hint = self.catalog.hint(tool)

        def mark(attempt: Attempt) -> None:
            # Evaluated at each attempt, because the tools may have been listed since the last one.
            attempt.unsafe = not (self.catalog.known_safe(tool) if idempotent is None else idempotent)

        async def safe() -> bool:
            return await self.catalog.safe(tool, before=hint) if idempotent is None else idempotent

        return mark, safe

    def _present_client(self) -> Client | None:
        session = self.present()
        client = None if session is None or session.link is None else session.link.client
        try:
            # A client that has been exited raises here until its session is replaced.
            return client if client is not None and client.session is not None else None
        except RuntimeError:
            return None

    def _cancel_key(self, key: str) -> None:
        """Tell the gateway to cancel a call whose caller was cancelled."""

        async def cancel() -> None:
            with suppress(MCPError):
                await self._call(
                    CANCEL,
                    lambda client, _: raw.send(client, CANCEL, {"key": key}, progress_callback=None, rounds=False),
                    idempotent=False,
                    timeout=CANCEL_PATIENCE,
                )

        self.spawn(cancel)


def noting(attempt: Attempt, callback: ProgressFnT | None) -> ProgressFnT | None:
    """Wraps `callback` to record that the call was running. None if there is no callback."""
    if callback is None and attempt.extend is None:
        return None

    async def note(progress: float, total: float | None, message: str | None) -> None:
        attempt.progressed = True
        if attempt.extend is not None:
            attempt.extend()
        if callback is not None:
            # For a server in this process, this runs in the caller's own task. The SDK logs exceptions of a callback,
            # but not a cancellation.
            await awaited(callback, progress, total, message)
        # A server in this process awaits this in the caller's task, which could not be cancelled without a checkpoint.
        await checkpoint()

    return note


async def harmless() -> bool:
    """Running the call twice is harmless."""
    return True


async def harmful() -> bool:
    """Running the call twice may be harmful."""
    return False
