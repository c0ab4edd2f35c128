"""`SyncManager`: many named connections, for programs without an event loop."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any

import mcp_types as types
from typing_extensions import Self, Unpack

from mcpconn import mcpjson
from mcpconn.connection import Connection
from mcpconn.core.rule import Rule
from mcpconn.manager import Manager
from mcpconn.options import (
    CallOptions,
    ListOptions,
    MetaOptions,
    ReadOptions,
    RoundOptions,
    SyncClientOptions,
    SyncManagerOptions,
    SyncToolOptions,
)
from mcpconn.policy import Policy
from mcpconn.runtime.journal import Change, Notice
from mcpconn.status import ManagerStatus
from mcpconn.sync.background import Background, run_in_thread
from mcpconn.sync.connection import SyncConnection, async_options


class SyncManager(Mapping[str, SyncConnection]):
    """A `Manager` whose event loop runs in a background thread, with plain methods that any thread can call.

        with SyncManager({"fs": {"command": "npx", "args": [...]}}) as manager:
            result = manager.call_tool("fs", "read_file", {"path": "notes.txt"})

    Ctrl-C in a calling thread cancels only the call that waits there. A program that does not close the manager still
    exits, and so do its servers. A forked child has to create its own manager. There is no equivalent of
    `Manager.changes` and `Manager.listen`: use `subscribe`, and the `subscribe` of a connection's `catalog`.
    """

    def __init__(
        self,
        servers: Mapping[str, Any] | None = None,
        *,
        policy: Policy | None = None,
        rules: Iterable[Rule] = (),
        backend: str = "asyncio",
        backend_options: dict[str, Any] | None = None,
        **options: Unpack[SyncClientOptions],
    ) -> None:
        """
        Args:
            servers: As for `Manager`.
            policy: As for `Manager`.
            rules: As for `Manager`.
            backend: The event loop of the background thread: `asyncio` or `trio`.
            backend_options: Of `anyio.run`, such as `{"use_uvloop": True}`.
            options: As for `Manager`. Callbacks may be plain functions, which are called in a worker thread.

        Raises:
            ConfigError: as for `Manager`. Nothing has been started.
        """
        make = partial(Manager, servers, policy=policy, rules=rules, **async_options(options))
        self._manager = run_in_thread(make)
        self._background = Background(backend, backend_options)
        # A manager that is garbage-collected without being closed also ends, without blocking.
        weakref.finalize(self, self._background.end).atexit = False

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, strict: bool = False, **options: Unpack[SyncManagerOptions]
    ) -> Self:
        """As `Manager.from_file`."""
        return cls(mcpjson.load(path, strict=strict), **options)

    # -- life

    def start(self) -> Self:
        """Start the thread and the connections, without waiting for servers. `with` does the same.

        Raises:
            NotRunning: it was started before.
        """
        self._background.start(self._manager)
        return self

    def close(self) -> None:
        """End all connections and the thread. Waiting calls fail at once; calls in flight get the drain timeout.

        Can be called more than once, and from any thread.
        """
        self._background.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def add(self, name: str, entry: Any) -> SyncConnection:
        """As `Manager.add`."""
        return self._view(self._background.apply(partial(self._manager.add, name, entry)))

    def get_or_add(self, name: str, entry: Any, *, ttl: float | None = None) -> SyncConnection:
        """As `Manager.get_or_add`."""
        return self._view(self._background.apply(partial(self._manager.get_or_add, name, entry, ttl=ttl)))

    def remove(self, name: str, *, drain: bool = True) -> None:
        """As `Manager.remove`."""
        self._background.apply(partial(self._manager.remove, name, drain=drain))

    def disable(self, name: str) -> None:
        """As `Manager.disable`."""
        self._background.apply(partial(self._manager.disable, name))

    def enable(self, name: str) -> SyncConnection:
        """As `Manager.enable`."""
        return self._view(self._background.apply(partial(self._manager.enable, name)))

    def reload(self, path: str | os.PathLike[str] | mcpjson.Servers, *, strict: bool = False) -> dict[str, list[str]]:
        """As `Manager.reload`."""
        return self._background.apply(partial(self._manager.reload, path, strict=strict))

    # -- the mapping

    def __getitem__(self, name: str) -> SyncConnection:
        return self._view(self._manager[name])

    def __contains__(self, name: object) -> bool:
        return name in self._manager

    def __iter__(self) -> Iterator[str]:
        # A copy, because other threads may add and remove servers.
        return iter(tuple(self._manager))

    def __len__(self) -> int:
        return len(self._manager)

    def __repr__(self) -> str:
        return f"<SyncManager of {self._manager!r}>"

    def _view(self, connection: Connection) -> SyncConnection:
        return SyncConnection(connection, self._background, self)

    # -- events

    def status(self) -> ManagerStatus:
        """As `Manager.status`."""
        return self._background.look(self._manager.status)

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """As `Manager.subscribe`: the listener is called in the loop's thread, and must not block."""
        return self._manager.subscribe(listener)

    def observe(self, listener: Callable[[Notice], None]) -> Callable[[], None]:
        """As `Manager.observe`: the listener is called in the loop's thread, and must not block."""
        return self._manager.observe(listener)

    def wait_ready(self, timeout: float | None = None) -> None:
        """As `Manager.wait_ready`."""
        self._background.run(partial(self._manager.wait_ready, timeout))

    # -- calls

    def call_tool(
        self, server: str, name: str, arguments: dict[str, Any] | None = None, **options: Unpack[SyncToolOptions]
    ) -> types.CallToolResult:
        """As `Manager.call_tool`. A plain `progress_callback` is called in a worker thread."""
        return self[server].call_tool(name, arguments, **options)

    def list_tools(self, server: str, **options: Unpack[ListOptions]) -> types.ListToolsResult:
        """As `Manager.list_tools`."""
        return self[server].list_tools(**options)

    def list_resources(self, server: str, **options: Unpack[ListOptions]) -> types.ListResourcesResult:
        """As `Manager.list_resources`."""
        return self[server].list_resources(**options)

    def list_resource_templates(self, server: str, **options: Unpack[ListOptions]) -> types.ListResourceTemplatesResult:
        """As `Manager.list_resource_templates`."""
        return self[server].list_resource_templates(**options)

    def read_resource(self, server: str, uri: str, **options: Unpack[ReadOptions]) -> types.ReadResourceResult:
        """As `Manager.read_resource`."""
        return self[server].read_resource(uri, **options)

    def list_prompts(self, server: str, **options: Unpack[ListOptions]) -> types.ListPromptsResult:
        """As `Manager.list_prompts`."""
        return self[server].list_prompts(**options)

    def get_prompt(
        self, server: str, name: str, arguments: dict[str, str] | None = None, **options: Unpack[RoundOptions]
    ) -> types.GetPromptResult:
        """As `Manager.get_prompt`."""
        return self[server].get_prompt(name, arguments, **options)

    def complete(
        self,
        server: str,
        ref: types.ResourceTemplateReference | types.PromptReference,
        argument: dict[str, str],
        **options: Unpack[CallOptions],
    ) -> types.CompleteResult:
        """As `Manager.complete`."""
        return self[server].complete(ref, argument, **options)

    def set_logging_level(
        self, server: str, level: types.LoggingLevel, **options: Unpack[MetaOptions]
    ) -> types.EmptyResult:
        """As `Manager.set_logging_level`."""
        return self[server].set_logging_level(level, **options)

    def subscribe_resource(self, server: str, uri: str, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """As `Manager.subscribe_resource`."""
        return self[server].subscribe_resource(uri, **options)

    def unsubscribe_resource(self, server: str, uri: str, **options: Unpack[MetaOptions]) -> types.EmptyResult:
        """As `Manager.unsubscribe_resource`."""
        return self[server].unsubscribe_resource(uri, **options)
