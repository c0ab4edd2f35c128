"""One way for every call of a connection, and any request by it: what is sent, and nothing of how it is kept alive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

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
from mcpconn.telemetry import start_span, within
from mcpconn.validate import check_timeout

T = TypeVar("T")

CANCEL_PATIENCE = 5.0
"""Seconds for telling a gateway of a cancelled call."""


class _Default:
    def __repr__(self) -> str:
        return "the policy's"


DEFAULT: Any = _Default()
"""Stands for the timeout of the configuration or policy; None means no timeout at all."""


class Requests(Peer):
    """Requests of any method, on top of one `_call`."""

    catalog: Catalog
    """What the server offers."""
    policy: Policy
    """The connection's timeouts and limits."""
    _supervisor: Supervisor
    _calls: Calls
    _calls_made: int
    """By the host, not in the background."""

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
        """Run `task` beside the connection, for no longer than it lives. False if it does not live."""
        if self._home is not None:
            self._check_here()
        return self._supervisor.spawn(task)

    def _safety_of(
        self, tool: str, idempotent: bool | None
    ) -> tuple[Callable[[Attempt], None], Callable[[], Awaitable[bool]]]:
        """What marks an attempt at a tool as unsafe, and what says whether it may be retried after an unknown outcome.

        Args:
            tool: Its name.
            idempotent: What the caller says of it; None leaves it to the tool's annotations.
        """
        # Before the first attempt: the listing that a retry asks for may be another version of the server's.
        hint = self.catalog.hint(tool)

        def mark(attempt: Attempt) -> None:
            # Asked at each attempt: the tools may have been listed since the last one.
            attempt.unsafe = not (self.catalog.known_safe(tool) if idempotent is None else idempotent)

        async def safe() -> bool:
            return await self.catalog.safe(tool, before=hint) if idempotent is None else idempotent

        return mark, safe

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        progress_callback: ProgressFnT | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
        rounds: bool = False,
        timeout: float | None = DEFAULT,
        idempotent: bool | None = None,
        wait: bool = True,
    ) -> dict[str, Any]:
        """Make any request, and return its result as the server sent it: as JSON, with nothing dropped.

        For gateways and for extensions of the protocol. It is kept alive by the same rules as every call.

        Args:
            method: The JSON-RPC method.
            params: Its parameters, as JSON.
            progress_callback: Told of progress.
            before: Awaited each time immediately before the request is handed to the session; what it raises ends the
                call, and nothing is sent.
            rounds: Answer a modern server's questions with the connection's callbacks. Otherwise an `input_required`
                result is returned as it is.
            timeout: Seconds for the whole call.
            idempotent: Whether running it twice does no harm. None: known of the protocol's own methods, and of a
                tool by its annotations.
            wait: False raises `NotReady` at once if the connection is not ready.

        Raises:
            MCPError: the server's application answered with an error.
            CallFailed: as the other methods.
        """
        if method == "tools/call":
            return await self._request_tool(
                dict(params or {}), progress_callback, before, rounds, timeout=timeout, idempotent=idempotent, wait=wait
            )

        async def issue(client: Client, attempt: Attempt) -> dict[str, Any]:
            if before is not None:
                await before()
            told = noting(attempt, progress_callback)
            return await raw.send(client, method, params, progress_callback=told, rounds=rounds)

        async def safe() -> bool:
            return method in raw.SAFE_METHODS if idempotent is None else idempotent

        return await self._call(method, issue, safe=safe, timeout=timeout, wait=wait)

    async def _request_tool(
        self,
        params: dict[str, Any],
        progress_callback: ProgressFnT | None,
        before: Callable[[], Awaitable[None]] | None,
        rounds: bool,
        **options: Any,
    ) -> dict[str, Any]:
        async def send(client: Client, attempt: Attempt, meta: Mapping[str, Any] | None) -> dict[str, Any]:
            if before is not None:
                await before()
            sent = params if meta is None else {**params, "_meta": dict(meta)}
            told = noting(attempt, progress_callback)
            return await raw.send(client, "tools/call", sent, progress_callback=told, rounds=rounds)

        return await self._tool_call(str(params.get("name", "")), params.get("_meta"), send, **options)

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
        """Call a tool, with a key if it may do harm and the server keeps a ledger.

        Args:
            tool: Its name.
            meta: The call's `_meta`.
            send: Makes one attempt, with this `_meta`.
            timeout: Seconds for the whole call.
            idempotent: What the caller says of it.
            wait: False raises `NotReady` at once if the connection is not ready.
            total: Seconds that it may take in all, if each progress gives it another `timeout` seconds.
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
            # The usual server: nothing of this costs the call anything.
            return await call(timeout)
        return await repeated(key, call, self._seconds(timeout), self._cancel_key)

    def _present_client(self) -> Client | None:
        session = self.present()
        client = None if session is None or session.link is None else session.link.client
        try:
            # A client that has been left raises here, until its session is replaced: nothing can be asked of it.
            return client if client is not None and client.session is not None else None
        except RuntimeError:
            return None

    def _cancel_key(self, key: str) -> None:
        """Have the gateway cancel a call whose caller has left."""

        async def cancel() -> None:
            with suppress(MCPError):
                await self.request(CANCEL, {"key": key}, timeout=CANCEL_PATIENCE)

        self.spawn(cancel)


def noting(attempt: Attempt, callback: ProgressFnT | None) -> ProgressFnT | None:
    """`callback`, and a note that the call was running. None: nobody wants to be told."""
    if callback is None and attempt.extend is None:
        return None

    async def note(progress: float, total: float | None, message: str | None) -> None:
        attempt.progressed = True
        if attempt.extend is not None:
            attempt.extend()
        if callback is not None:
            # In process this is the caller's own task. The SDK logs what a callback raises, but not a cancellation.
            await awaited(callback, progress, total, message)
        # In process the server awaits this in the caller's task, which could not be cancelled without.
        await checkpoint()

    return note


async def harmless() -> bool:
    """Running the call twice does no harm."""
    return True


async def harmful() -> bool:
    """Running the call twice may do harm."""
    return False
