"""Many named connections, kept alive together."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import anyio
import mcp_types as types
from anyio.abc import TaskGroup
from typing_extensions import Self

from mcpconn import mcpjson
from mcpconn.config import ServerConfig
from mcpconn.connection import Connection
from mcpconn.core.rule import Rule
from mcpconn.errors import ConfigError, NotRunning, UnknownServer
from mcpconn.policy import Policy
from mcpconn.runtime import Change, Clock
from mcpconn.runtime.journal import Notice
from mcpconn.shared import Shared

CHANGES_KEPT = 10_000
"""Changes kept for a slow reader of `changes()`; the oldest are dropped beyond it."""


class Manager(Mapping[str, Connection]):
    """Named connections that share limits, one TLS context and a replay budget.

        async with Manager({"fs": {"command": "npx", "args": [...]}}) as manager:
            result = await manager.call_tool("fs", "read_file", {"path": "notes.txt"})

    Entering does not wait for servers: one that is down must not stop the others. Calls wait for theirs.
    """

    def __init__(
        self,
        servers: Mapping[str, Any] | None = None,
        *,
        policy: Policy | None = None,
        rules: Iterable[Rule] = (),
        clock: Clock | None = None,
        **client_options: Any,
    ) -> None:
        """
        Args:
            servers: Maps a name to a `ServerConfig`, a mapping as in mcp.json, or what `mcp.Client` takes.
            policy: Timeouts and limits for all; a server's own entries go before it.
            rules: Rules of classification to be tried before the core's.
            clock: Time and randomness, for tests.
            client_options: Passed to every `mcp.Client`: `sampling_callback`, `client_info` and so on.

        Raises:
            ConfigError: names the server and the key. Nothing has been dialled.
        """
        self.policy = policy or Policy()
        self._shared = Shared(self.policy, clock=clock, rules=rules)
        self._options = client_options
        self._connections: dict[str, Connection] = {}
        self._listeners: list[Callable[[Notice], None]] = []
        self._group: TaskGroup | None = None
        self._entered = False
        self._thread: int | None = None
        self._readers: set[_Reader] = set()
        for name, entry in (servers or {}).items():
            config = ServerConfig.parse(name, entry)
            if not config.disabled:
                self._create(name, config)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """A manager for the servers of a configuration file: mcp.json of Claude Desktop, Cursor or VS Code.

        Args:
            path: The file; see `mcpconn.mcpjson`.
            options: As for `Manager`.

        Raises:
            ConfigError: names the file, the server and the key.
        """
        return cls(mcpjson.load(path), **options)

    def reload(self, path: str | os.PathLike[str]) -> dict[str, list[str]]:
        """Apply a configuration file to the running manager: connect what is new, close what is gone.

        A server whose entry has changed is closed and connected anew; one that has not is left alone. The
        file is checked before anything is changed.

        Args:
            path: The file.

        Returns:
            The names, under `added`, `removed`, `changed` and `unchanged`.

        Raises:
            ConfigError: the file cannot be used. Nothing has been changed.
        """
        wanted = {name: config for name, config in mcpjson.load(path).items() if not config.disabled}
        result: dict[str, list[str]] = {"added": [], "removed": [], "changed": [], "unchanged": []}
        for name in [name for name in self._connections if name not in wanted]:
            self.remove(name)
            result["removed"].append(name)
        for name, config in wanted.items():
            present = self._connections.get(name)
            if present is not None and present.config == config:
                result["unchanged"].append(name)
                continue
            if present is not None:
                self.remove(name)
            self.add(name, config)
            result["added" if present is None else "changed"].append(name)
        return result

    def _create(self, name: str, entry: Any) -> Connection:
        connection = Connection(entry, name=name, shared=self._shared, **self._options)
        connection.journal.subscribe(self._notify, bored=lambda: not self._listeners)
        self._connections[name] = connection
        return connection

    # -- life

    async def __aenter__(self) -> Self:
        if self._entered:
            raise NotRunning("the manager has been entered already; a Manager is entered once")
        self._entered = True
        self._thread = threading.get_ident()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        for connection in self._connections.values():
            self._start(connection)
        return self

    def _start(self, connection: Connection) -> None:
        assert self._group is not None
        connection.start(self._group)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._group is not None
        group, self._group = self._group, None
        for connection in self._connections.values():
            connection.close()
        for reader in tuple(self._readers):
            reader.end()
        # The group is not told of the exception, which it would wrap in another.
        await group.__aexit__(None, None, None)

    def add(self, name: str, entry: Any) -> Connection:
        """Add a server, and connect to it if the manager is running.

        Raises:
            ConfigError: the name is taken, or the entry cannot be used.
        """
        if name in self._connections:
            raise ConfigError(f"server {name!r}: there is one of this name already; remove it first", server=name)
        connection = self._create(name, entry)
        if self._group is not None:
            self._start(connection)
        return connection

    def remove(self, name: str) -> None:
        """Close a connection and forget it. Its calls in flight get the drain timeout.

        Raises:
            UnknownServer: there is none of this name.
        """
        self[name].close()
        del self._connections[name]

    # -- the mapping

    def __getitem__(self, name: str) -> Connection:
        try:
            return self._connections[name]
        except KeyError:
            raise UnknownServer(name, tuple(self._connections)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._connections

    def __iter__(self) -> Iterator[str]:
        return iter(self._connections)

    def __len__(self) -> int:
        return len(self._connections)

    def __repr__(self) -> str:
        states = ", ".join(f"{name}: {connection.state.value}" for name, connection in self._connections.items())
        return f"<Manager {{{states}}}>"

    # -- what happens

    def status(self) -> dict[str, Any]:
        """Every connection's status, by name, as plain data."""
        return {name: connection.status() for name, connection in self._connections.items()}

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Have `listener` called with every transition, at once and in the loop's thread. Returns its end.

        It must not block. What it raises is logged, and changes nothing.
        """

        def only_changes(notice: Notice) -> None:
            if isinstance(notice, Change):
                listener(notice)

        return self.observe(only_changes)

    def observe(self, listener: Callable[[Notice], None]) -> Callable[[], None]:
        """As `subscribe`, with replays and finished calls, too."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def _notify(self, notice: Notice) -> None:
        fault: Exception | None = None
        for listener in tuple(self._listeners):
            try:
                listener(notice)
            except Exception as error:  # the others have to be told all the same
                fault = error
        if fault is not None:
            raise fault

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Every transition from now on, until the manager is left."""
        reader = _Reader()
        end = self.subscribe(reader.put)
        self._readers.add(reader)
        try:
            while (change := await reader.get()) is not None:
                yield change
        finally:
            end()
            self._readers.discard(reader)

    # -- calls

    def _running(self, server: str) -> Connection:
        connection = self[server]
        if self._group is None:
            when = "was left" if self._entered else "is not entered: async with Manager(...) as manager"
            raise NotRunning(f"{server}: the manager {when}")
        if self._thread != threading.get_ident():
            # Events of one loop, set from another, crash both.
            raise NotRunning(
                f"{server}: the manager's event loop runs in another thread; use a SyncManager where threads call"
            )
        return connection

    async def call_tool(
        self, server: str, name: str, arguments: dict[str, Any] | None = None, **options: Any
    ) -> types.CallToolResult:
        """`Connection.call_tool` on the server of this name."""
        return await self._running(server).call_tool(name, arguments, **options)

    async def list_tools(self, server: str, **options: Any) -> types.ListToolsResult:
        """`Connection.list_tools` on the server of this name."""
        return await self._running(server).list_tools(**options)

    async def list_resources(self, server: str, **options: Any) -> types.ListResourcesResult:
        """`Connection.list_resources` on the server of this name."""
        return await self._running(server).list_resources(**options)

    async def list_resource_templates(self, server: str, **options: Any) -> types.ListResourceTemplatesResult:
        """`Connection.list_resource_templates` on the server of this name."""
        return await self._running(server).list_resource_templates(**options)

    async def read_resource(self, server: str, uri: str, **options: Any) -> types.ReadResourceResult:
        """`Connection.read_resource` on the server of this name."""
        return await self._running(server).read_resource(uri, **options)

    async def list_prompts(self, server: str, **options: Any) -> types.ListPromptsResult:
        """`Connection.list_prompts` on the server of this name."""
        return await self._running(server).list_prompts(**options)

    async def get_prompt(
        self, server: str, name: str, arguments: dict[str, str] | None = None, **options: Any
    ) -> types.GetPromptResult:
        """`Connection.get_prompt` on the server of this name."""
        return await self._running(server).get_prompt(name, arguments, **options)

    async def complete(
        self,
        server: str,
        ref: types.ResourceTemplateReference | types.PromptReference,
        argument: dict[str, str],
        **options: Any,
    ) -> types.CompleteResult:
        """`Connection.complete` on the server of this name."""
        return await self._running(server).complete(ref, argument, **options)

    async def set_logging_level(self, server: str, level: types.LoggingLevel, **options: Any) -> types.EmptyResult:
        """`Connection.set_logging_level` on the server of this name."""
        return await self._running(server).set_logging_level(level, **options)

    async def subscribe_resource(self, server: str, uri: str, **options: Any) -> types.EmptyResult:
        """`Connection.subscribe_resource` on the server of this name."""
        return await self._running(server).subscribe_resource(uri, **options)

    async def unsubscribe_resource(self, server: str, uri: str, **options: Any) -> types.EmptyResult:
        """`Connection.unsubscribe_resource` on the server of this name."""
        return await self._running(server).unsubscribe_resource(uri, **options)

    @asynccontextmanager
    async def listen(self, server: str, **options: Any) -> AsyncIterator[Any]:
        """`Connection.listen` on the server of this name."""
        async with self._running(server).listen(**options) as subscription:
            yield subscription

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Return when every connection that is not lazy is ready or has failed.

        Args:
            timeout: Seconds to wait for all of them; returns after it in any case.
        """
        with anyio.move_on_after(math.inf if timeout is None else timeout):
            async with anyio.create_task_group() as group:
                for connection in self._connections.values():
                    if not connection.config.lazy:
                        group.start_soon(connection.settled)


class _Reader:
    """A queue from listeners to one `changes()` iterator."""

    def __init__(self) -> None:
        self._items: deque[Change] = deque(maxlen=CHANGES_KEPT)
        self._more = anyio.Event()
        self._ended = False

    def put(self, change: Change) -> None:
        self._items.append(change)
        self._more.set()

    def end(self) -> None:
        self._ended = True
        self._more.set()

    async def get(self) -> Change | None:
        while not self._items:
            if self._ended:
                return None
            self._more = anyio.Event()
            await self._more.wait()
        return self._items.popleft()
