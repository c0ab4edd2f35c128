"""Private parts of the SDK's client and sessions, and replacements for some of their methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import mcp
from mcp import MCPError
from mcp.client import ClientSession
from mcp.client._memory import InMemoryTransport
from mcp.client.caching import CacheConfig, ClientResponseCache
from mcp.shared.dispatcher import ProgressFnT
from mcp_types import (
    CONNECTION_CLOSED,
    HEADER_MISMATCH,
    REQUEST_TIMEOUT,
    CallToolResult,
    ListToolsResult,
    Tool,
)

from mcpconn.core.attempt import ATTEMPT, Attempt

RELIST_TIMEOUT = 10.0
"""Seconds for the listing after a HEADER_MISMATCH. The caller already has a refusal, which must not be delayed
longer."""

DISPATCHER = "mcp.shared.direct_dispatcher"
"""The SDK's module that calls an in-process server without streams."""


class Client(mcp.Client):
    """`mcp.Client`, whose one extra request inside a call leaves the call's record alone."""

    async def _relist_tool(self, name: str) -> None:
        """List tools after a call was refused with HEADER_MISMATCH. If this raises, the SDK raises that refusal.

        Only HTTP 400 says that the request was refused before the tool ran (specification 2026-07-28, transports:
        "MUST reject with HTTP 400"). A tool can answer with the same code, and must not be called twice.
        """
        call = ATTEMPT.get()
        if call is None or call.http_status != 400:
            raise MCPError(HEADER_MISMATCH, "not refused with HTTP 400, so the tool may have run")
        token = ATTEMPT.set(Attempt("call", call.era, written=False))
        try:
            with anyio.fail_after(RELIST_TIMEOUT):
                await super()._relist_tool(name)
        except Exception as error:
            raise MCPError(HEADER_MISMATCH, f"the tools could not be listed ({type(error).__name__})") from error
        finally:
            ATTEMPT.reset(token)


class Clients:
    """Makes one `mcp.Client` for each session, all with the same arguments."""

    def __init__(self, options: Mapping[str, Any], *, url: str | None, mode: str) -> None:
        """
        Args:
            options: Arguments of `mcp.Client`, without the server and the mode.
            url: Of the server; None if it has none. A response cache supplied by the user stores its responses under
            it.
            mode: As for `mcp.Client`.

        Raises:
            ValueError, TypeError: `mcp.Client` does not take an argument.
        """
        cache = options["cache"] if "cache" in options else CacheConfig()
        if cache is not None and cache.target_id is None and url is not None:
            # The client gets a transport, which does not reveal the URL. This is the key that it would derive from one:
            options = {**options, "cache": replace(cache, target_id=_without_userinfo(url))}
        self._options = {**options, "extensions": None}
        model = Client(_NOWHERE, mode=mode, **options)
        self._extensions = getattr(model, "_folded_extensions", None)
        if self._extensions is None:
            self._options["extensions"] = options.get("extensions")
        self.defaults = model
        """A client that is never entered: the arguments, with the defaults of those that were not given."""

    @asynccontextmanager
    async def open(self, server: Any, mode: str) -> AsyncIterator[Client]:
        """A client for one session, entered.

        Args:
            server: A server object or a transport.
            mode: As for `mcp.Client`.
        """
        async with self._new(server, mode) as client:
            # The cache asks it for the protocol version: entries are of one version alone.
            session = self.defaults._session = client.session
            try:
                yield client  # type: ignore[misc]
            finally:
                if self.defaults._session is session:
                    self.defaults._session = None

    def _new(self, server: Any, mode: str) -> Client:
        client = Client(server, mode=mode, **self._options)
        if hasattr(client, "_response_cache"):
            # One cache for all sessions, as `mcp.Client` has one for its lifetime: the server decides how long a
            # response may be used, and a reconnect does not change that.
            client._response_cache = self.defaults._response_cache
        if self._extensions is not None:
            # Each extension is asked once what it declares, because asking may have side effects.
            client._folded_extensions = self._extensions
        return client


class _Nowhere:
    """A transport that is never opened."""

    async def __aenter__(self) -> Any:
        raise RuntimeError("not a transport")

    async def __aexit__(self, *_: object) -> None:
        return None


_NOWHERE: Any = _Nowhere()


def _without_userinfo(url: str) -> str:
    before, slashes, rest = url.partition("//")
    end = min((at for mark in "/?#" if (at := rest.find(mark)) >= 0), default=len(rest))
    return f"{before}{slashes}{rest[:end].rpartition('@')[2]}{rest[end:]}"


def response_cache(client: mcp.Client) -> ClientResponseCache | None:
    """The cache of a client; None if it has none, or the SDK keeps it elsewhere."""
    return getattr(client, "_response_cache", None)


async def send_unchecked(
    session: ClientSession, method: str, params: Mapping[str, Any], *, progress_callback: ProgressFnT | None = None
) -> dict[str, Any]:
    """Send a request, and return its result whatever its shape.

    `ClientSession.send_request` checks the results of the methods that it knows, and for `tools/call` it accepts only a
    tool's result, and not the task that a server of 2025-11-25 may return instead.
    """
    data: dict[str, Any] = {"method": method, "params": dict(params)}
    options: Any = {} if progress_callback is None else {"on_progress": progress_callback}
    session._stamp(data, options)
    return dict(await session._dispatcher.send_raw_request(method, data["params"], options))


def declares(session: ClientSession, extension: str) -> bool:
    """Whether a session announces an extension to its server. False if the SDK does not reveal it."""
    return extension in (getattr(session, "_extensions", None) or {})


def validate_known(session: ClientSession, *, listing: bool = False) -> None:
    """Have `session` validate results against the schemas it knows, without a request for others.

    The SDK lists the tools inside a call whose tool it does not know. If that listing fails, the answer, which has
    already arrived, is lost; and with `idempotent=True` the tool would run twice. Here a result whose schema is unknown
    is returned unchanged. A result that violates its schema raises RuntimeError, as in `mcp.Client`.

    Args:
        session: The session.
        listing: List the tools nevertheless, because the server is in this process and this costs no request. If the
            listing fails, the result is returned as it is.
    """
    validate = session.validate_tool_result

    async def validate_tool_result(name: str, result: CallToolResult) -> None:
        attempt = ATTEMPT.get()
        if attempt is not None:
            # Whatever is raised from here on, the tool has run and has answered.
            attempt.has_result = True
        if name in getattr(session, "_tool_output_schemas", ()):
            await validate(name, result)
        elif listing:
            # The listing gets a record of its own, so that its failure is not attributed to the call.
            token = ATTEMPT.set(Attempt("call", written=False))
            try:
                await validate(name, result)
            except MCPError:
                return
            finally:
                ATTEMPT.reset(token)

    session.validate_tool_result = validate_tool_result  # type: ignore[method-assign]


def restore_tools(session: ClientSession, tools: Sequence[Tool]) -> None:
    """Tell `session` of tools that an earlier session listed, or that may have changed since.

    In the modern era it sends some arguments as HTTP headers, too, and only a listing says which. Output schemas are
    left out, so that no answer is refused because of an outdated schema.
    """
    absorb = getattr(session, "_absorb_tool_listing", None)
    if callable(absorb):
        unchecked = [tool.model_copy(update={"output_schema": None}) for tool in tools]
        absorb(ListToolsResult(tools=unchecked), complete=True)


def in_process(server: Any, *, raise_exceptions: bool) -> AbstractAsyncContextManager[Any]:
    """The streams to a legacy server in this process.

    Args:
        server: An `mcp.server.Server` or `MCPServer`.
        raise_exceptions: As for `mcp.Client`.
    """
    return InMemoryTransport(server, raise_exceptions=raise_exceptions)


def made_by_dispatcher(error: MCPError) -> bool:
    """Whether the SDK's dispatcher for in-process servers raised `error` itself, because there was no answer.

    Server and client share one stack there, and a server may raise an error of the same code and text. The traceback
    distinguishes them: the dispatcher raises its own error in its module, a server raises deeper. Without a traceback
    the error is taken for the server's.
    """
    if error.code not in (CONNECTION_CLOSED, REQUEST_TIMEOUT):
        return False
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_globals.get("__name__") == DISPATCHER
