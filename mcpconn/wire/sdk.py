"""Every place that depends on how the SDK works inside: its private names, and methods of it that are replaced.

Written against mcp 2.3.0. Each entry says why it is needed and what happens when a later SDK lacks it; each has
a canary in `tests/wire/test_sdk.py`, which fails when the SDK changes.

| name | why | without it |
| --- | --- | --- |
| `ClientSession.validate_tool_result` (public) | it lists tools inside a call | the listing is back |
| `ClientSession._tool_output_schemas` | says whether a schema is known | results are not validated |
| `ClientSession._absorb_tool_listing` | a new session knows the tools' headers | HEADER_MISMATCH costs a listing |
| `Client._response_cache`, `Client._session` | one cache for all sessions | each session begins with an empty one |
| `Client._folded_extensions` | extensions are asked once, not at each session | they are asked at each session |
| `ClientSession._dispatcher`, `_stamp` | it refuses the receipt of a task as no result | tools that need tasks fail |
| `Client._relist_tool` | its request must not touch the call's record | a failed listing hides the refusal |
| `mcp.client._memory.InMemoryTransport` | its streams are wrapped | an ImportError: legacy servers in process are out |
| `mcp.shared.direct_dispatcher` raising by itself | tells its own timeout from a server's word | see below |
| `httpx2.AsyncHTTPTransport._pool` (httpx2 2.16) | its idle sockets are swept | swept at the next request |
| `httpcore2.AsyncConnectionPool._network_backend` | sockets of ours | early refusals of large requests are not seen |
| `httpx2._utils.get_environment_proxies`, `URLPattern` | which proxy is for a URL | the rules of urllib |
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx2
import httpx2._utils
import mcp
from mcp import MCPError
from mcp.client import ClientSession
from mcp.client._memory import InMemoryTransport
from mcp.client.caching import CacheConfig
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
"""Seconds for the listing after a HEADER_MISMATCH. The refusal is there already, and must not wait for longer."""

DISPATCHER = "mcp.shared.direct_dispatcher"
"""Where the SDK calls a server in process without streams."""


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
            url: Of the server; None if it has none. What its responses are cached under in a store of the user's.
            mode: As for `mcp.Client`.

        Raises:
            ValueError, TypeError: `mcp.Client` does not take an argument.
        """
        cache = options["cache"] if "cache" in options else CacheConfig()
        if cache is not None and cache.target_id is None and url is not None:
            # The client is given a transport, from which it cannot know the URL. What it would make of one:
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
            # One cache for all sessions, as `mcp.Client` has one for its life: how long a response may be used is
            # for its server to say, and not for the network.
            client._response_cache = self.defaults._response_cache
        if self._extensions is not None:
            # Each extension says once what it declares: it may count, or be a one-off.
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


async def send_unchecked(session: ClientSession, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Send a request, and return its result whatever its shape.

    `ClientSession.send_request` checks the results of the methods that it knows, and for `tools/call` it knows only
    the result of a tool: not the receipt that a server of 2025-11-25 gives for a task.
    """
    data: dict[str, Any] = {"method": method, "params": dict(params)}
    options: Any = {}
    session._stamp(data, options)
    return dict(await session._dispatcher.send_raw_request(method, data["params"], options))


def validate_known(session: ClientSession, *, listing: bool = False) -> None:
    """Have `session` check results against the schemas it has listed, and send nothing to get others.

    The SDK lists the tools inside a call whose tool it does not know. If that listing fails, the answer, which is
    there, is lost; and with `idempotent=True` the tool would run twice. Here a result whose schema is not known is
    returned as it is. One that does not fit its schema raises RuntimeError, as in `mcp.Client`.

    Args:
        session: The session.
        listing: List the tools all the same: the server is in this process, where that costs no request. If the
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
            # A record of its own: nothing that happens to the listing is about the call.
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

    In the modern era it sends some arguments as HTTP headers, too, and only a listing says which. Output schemas
    are left out: an answer is not to be refused for a schema that may no longer hold.
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
    """Whether the SDK's dispatcher for servers in process made `error` up, for lack of an answer.

    Server and client share one stack there, and a server may raise an error of the same code and text. The place
    where it was raised tells them apart: the dispatcher's own is raised in its module, a server's deeper down.
    Without a traceback it is taken for the server's, and believed.
    """
    if error.code not in (CONNECTION_CLOSED, REQUEST_TIMEOUT):
        return False
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_globals.get("__name__") == DISPATCHER


def pool_of(transport: httpx2.AsyncHTTPTransport) -> Any | None:
    """The connection pool (`httpcore2.AsyncConnectionPool`) under a transport of httpx2.

    Its idle connections have to be closed when the server has closed them, and httpcore2 looks at them only when
    another request is made.
    """
    return getattr(transport, "_pool", None)


def use_backend(transport: httpx2.AsyncHTTPTransport, backend: Any) -> None:
    """Have a transport of httpx2 open its sockets with `backend` (`httpcore2.AsyncNetworkBackend`).

    httpcore2's pool takes one as an argument, httpx2 has no argument to pass it on.
    """
    pool: Any = pool_of(transport)
    if hasattr(pool, "_network_backend"):
        pool._network_backend = backend


class ProxyMap:
    """The environment's proxies and exceptions, by httpx2's rules: those of its own client, which cannot be asked."""

    def __init__(self) -> None:
        read = getattr(httpx2._utils, "get_environment_proxies", None)
        pattern = getattr(httpx2._utils, "URLPattern", None)
        self._entries: list[tuple[Any, str | None]] | None = None
        if callable(read) and callable(pattern):
            # Sorted as in the client: the most specific pattern first.
            entries = [(pattern(key), proxy) for key, proxy in read().items()]
            self._entries = sorted(entries, key=lambda entry: entry[0])

    def find(self, url: str) -> tuple[str, str] | None:
        """The scheme whose variable names the proxy for `url` (`http`, `https`, `all`), and the proxy's URL."""
        if self._entries is None:
            return self._by_urllib(url)
        target = httpx2.URL(url)
        for pattern, proxy in self._entries:
            if pattern.matches(target):
                return None if proxy is None else (pattern.scheme or "all", proxy)
        return None

    def _by_urllib(self, url: str) -> tuple[str, str] | None:
        parts, found = urlsplit(url), getproxies()
        for scheme in (parts.scheme, "all"):
            if found.get(scheme) and not proxy_bypass(parts.hostname or ""):
                proxy = found[scheme]
                return scheme, proxy if "://" in proxy else f"http://{proxy}"
        return None
