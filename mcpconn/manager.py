"""Many named connections, kept alive together."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import anyio
from typing_extensions import Self, Unpack

from mcpconn.by_name import CallsByName
from mcpconn.config import ServerConfig
from mcpconn.connection import Connection
from mcpconn.core.rule import Rule
from mcpconn.core.states import State
from mcpconn.errors import ConfigError, NotRunning, UnknownServer
from mcpconn.leases import Leases, Removal
from mcpconn.observe import log
from mcpconn.options import ClientOptions, ManagerOptions
from mcpconn.policy import Policy
from mcpconn.reloading import difference
from mcpconn.runtime.changes import Changes
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.journal import Change, Notice
from mcpconn.runtime.listeners import Listeners
from mcpconn.runtime.owner import Owned, Owner
from mcpconn.shared import Shared
from mcpconn.status import ManagerStatus
from mcpconn.validate import check_timeout

if TYPE_CHECKING:
    # Loaded with the first file: see `from_file`.
    from mcpconn import mcpjson


class Manager(Owned, CallsByName, Mapping[str, Connection]):
    """Named connections that share limits, one TLS context and a replay budget.

        async with Manager({"fs": {"command": "npx", "args": [...]}}) as manager:
            result = await manager.call_tool("fs", "read_file", {"path": "notes.txt"})

    Entering does not wait for servers, so that one that is down does not hold up the others: each call waits for its
    own. To start and stop in different tasks, use `await manager.start()` and `await manager.aclose()` instead of the
    block. A manager, its connections and calls belong to one event loop. For several threads, see `SyncManager`.
    """

    def __init__(
        self,
        servers: Mapping[str, Any] | None = None,
        *,
        policy: Policy | None = None,
        rules: Iterable[Rule] = (),
        clock: Clock | None = None,
        **client_options: Unpack[ClientOptions],
    ) -> None:
        """
        Args:
            servers: Maps a name to a `ServerConfig`, a mapping as in mcp.json, or what `mcp.Client` takes.
            policy: Timeouts and limits for all servers; a server's own settings override it.
            rules: Classification rules that are tried before the core's.
            clock: Time and randomness, for tests.
            client_options: Passed to every `mcp.Client`: `sampling_callback`, `client_info` and so on.

        Raises:
            ConfigError: names the server and the key. Nothing has been dialled.
        """
        self.policy = policy or Policy()
        self._shared = Shared(self.policy, clock=clock, rules=rules)
        self.dials = self._shared.dials
        self._options = client_options
        self._connections: dict[str, Connection] = {}
        self._listeners: Listeners[Change] = Listeners()
        self._observers: Listeners[Notice] = Listeners()
        self._owner = Owner("manager", begin=self._begin, finish=self._finish)
        self._leases = Leases(now=self._shared.clock.now, remove=self.remove)
        self._readers: WeakSet[Changes] = WeakSet()
        for note in getattr(servers, "notes", ()):
            log.warning("config.note", note=note)
        for name, entry in (servers or {}).items():
            config = ServerConfig.parse(name, entry)
            if not config.disabled:
                self._create(name, config)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, strict: bool = False, **options: Unpack[ManagerOptions]
    ) -> Self:
        """A manager for the servers in a configuration file, in the format of any common host.

        An invalid entry disables only its own server: its connection is `failed` from the beginning, with the reason,
        and is never dialled.

        Args:
            path: The file; see `mcpconn.mcpjson`.
            strict: Reject the whole file if one entry is invalid.
            options: As for `Manager`.

        Raises:
            ConfigError: the file cannot be read; or, with `strict`, an entry is invalid. The error names the file, the
                server and the key.
        """
        from mcpconn import mcpjson

        return cls(mcpjson.load(path, strict=strict), **options)

    def reload(self, path: str | os.PathLike[str] | mcpjson.Servers, *, strict: bool = False) -> dict[str, list[str]]:
        """Apply a configuration file to the running manager: connect new servers, close removed ones.

        A server whose entry has changed is closed and connected again. Unchanged servers, and connections made by
        `get_or_add`, are not affected. Afterwards the manager is in the state that `from_file` would create: a server
        whose entry has become invalid is `failed`.

        Args:
            path: The file, or the result of reading one with `mcpconn.mcpjson`.
            strict: Change nothing if one entry of the file is invalid.

        Returns:
            The names, under `added`, `removed`, `changed` and `unchanged`.

        Raises:
            ConfigError: the file cannot be used. Nothing has been changed.
        """
        from mcpconn import mcpjson

        servers = path if isinstance(path, mcpjson.Servers) else mcpjson.load(path, strict=strict)
        present = {name: connection.config for name, connection in self._connections.items()}
        result = difference(present, servers, keep=self._leases)
        for note in servers.notes:
            log.warning("config.note", note=note)
        for name in (*result["removed"], *result["changed"]):
            self.remove(name)
        for name in servers:
            if name in (*result["added"], *result["changed"]):
                self.add(name, servers[name])
        return result

    def _create(self, name: str, entry: Any) -> Connection:
        connection = Connection(entry, name=name, shared=self._shared, **self._options)

        def notify(notice: Notice) -> None:
            if isinstance(notice, Change):
                self._listeners.tell(notice, connection.journal.report)
            self._observers.tell(notice, connection.journal.report)

        connection.journal.subscribe(notify, wants_answered=lambda: bool(self._observers))
        self._connections[name] = connection
        for note in connection.config.notes:
            log.warning("config.note", connection=name, note=note)
        return connection

    # -- life

    async def _opened(self) -> None:
        """This does not wait, because a server that is down must not hold up the others."""

    def _begin(self) -> None:
        for connection in self._connections.values():
            connection.run_in(self._owner)
        self._leases.start(self._owner)

    def _finish(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._leases.end()
        for reader in tuple(self._readers):
            reader.end()

    def add(self, name: str, entry: Any) -> Connection:
        """Add a server, and connect to it if the manager is running.

        Args:
            name: Name of the connection. It appears in logs, errors, `status()` and metrics.
            entry: As in the constructor.

        Raises:
            ConfigError: the name is taken, or the entry is invalid.
            NotRunning: called outside the manager's event loop.
        """
        self._check_here()
        if name in self._connections:
            raise ConfigError(f"server {name!r}: a server with this name exists already; remove it first", server=name)
        connection = self._create(name, entry)
        if self._owner.running:
            connection.run_in(self._owner)
        return connection

    def get_or_add(self, name: str, entry: Any, *, ttl: float | None = None) -> Connection:
        """The connection with this name, which is added if there is none. For connections that belong to users.

            connection = manager.get_or_add(user_id, {"url": url, "auth": token}, ttl=600)
            result = await connection.call_tool("inbox", {})

        Args:
            name: Name of the connection. It appears in logs, errors, `status()` and metrics. Use an opaque id, not a
                token or a person's address.
            entry: As in the constructor. It is used only if there is no such connection: to give an existing one new
                credentials, call `Connection.update_credentials`.
            ttl: Remove the connection when it was neither requested nor used for this many seconds. None keeps it.

        Raises:
            ConfigError: the entry or `ttl` is invalid.
            NotRunning: called outside the manager's event loop.
        """
        check_timeout(ttl, "ttl")
        self._check_here()
        connection = self._connections.get(name) or self.add(name, entry)
        self._leases.hold(connection, math.inf if ttl is None else ttl)
        return connection

    def remove(self, name: str, *, drain: bool = True) -> Removal:
        """Close and remove a connection. Its calls in flight get the drain timeout, unless `drain` is False.

        Returns:
            An awaitable that returns when the connection has ended. You need not await it.

        Raises:
            UnknownServer: there is no connection with this name.
            NotRunning: called outside the manager's event loop.
        """
        self._check_here()
        connection = self[name]
        if self._owner.running:
            connection.close(drain=drain)
        del self._connections[name]
        self._leases.drop(name)
        return Removal(connection)

    def disable(self, name: str) -> None:
        """Close a connection but keep its entry: it is `closed`, and its calls are refused, until `enable`.

        Raises:
            UnknownServer: there is no connection with this name.
            NotRunning: called outside the manager's event loop.
        """
        self._check_here()
        self[name].close()

    def enable(self, name: str) -> Connection:
        """Reconnect a disabled server with its entry. A server that is not disabled is not affected.

        Returns:
            The connection; a new object if the server was disabled.

        Raises:
            UnknownServer: there is no connection with this name.
            NotRunning: called outside the manager's event loop.
        """
        self._check_here()
        present = self[name]
        if present.state is not State.CLOSED:
            return present
        connection = self._create(name, present.config)
        self._leases.replace(connection)
        if self._owner.running:
            connection.run_in(self._owner)
        return connection

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

    # -- events

    def status(self) -> ManagerStatus:
        """Every connection's status, by name, as plain data."""
        return {name: connection.status() for name, connection in self._connections.items()}

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` with every transition, immediately and in the loop's thread.

        It must not block. Its exceptions are logged and have no other effect. It may close connections and the manager.

        Returns:
            An unsubscribe function.
        """
        return self._listeners.subscribe(listener)

    def observe(self, listener: Callable[[Notice], None]) -> Callable[[], None]:
        """As `subscribe`, and also with retries and finished calls."""
        return self._observers.subscribe(listener)

    def changes(self) -> Changes:
        """Every transition from this call on, until the manager is closed: `async for change in manager.changes()`.

        Up to 10,000 transitions are kept for a slow reader; beyond that, the oldest are dropped.
        """
        reader = Changes(self.subscribe, self._owner.wrong_loop, self._readers)
        if self._owner.entered and not self._owner.running:
            reader.end()
        return reader

    # -- calls

    def _check_here(self) -> None:
        if self._owner.running and (where := self._owner.wrong_loop()) is not None:
            raise NotRunning(f"the manager cannot be used here: {where}")

    def _running(self, server: str) -> Connection:
        connection = self[server]
        if not self._owner.running:
            when = "was left" if self._owner.entered else "is not entered: async with Manager(...) as manager"
            raise NotRunning(f"{server}: the manager {when}")
        return connection

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Return when every connection that is not lazy is ready or has failed.

        Args:
            timeout: Seconds to wait for all of them; the method returns after this time in any case.

        Raises:
            ConfigError: `timeout` is not a valid number of seconds.
            NotRunning: called outside the manager's event loop.
        """
        check_timeout(timeout)
        self._check_here()
        with anyio.move_on_after(math.inf if timeout is None else timeout):
            async with anyio.create_task_group() as group:
                for connection in self._connections.values():
                    if not connection.config.lazy:
                        group.start_soon(connection.settled)
