"""`mcpconn serve`: the gateway as a separate process, over HTTP."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from mcpconn.errors import ConfigError
from mcpconn.gateway.access.hosts import loopback
from mcpconn.gateway.app import App
from mcpconn.gateway.config import loaded
from mcpconn.gateway.ending import Ending
from mcpconn.gateway.fleet.config import FleetSettings
from mcpconn.gateway.http.activation import notify
from mcpconn.gateway.http.garbage import relax
from mcpconn.gateway.http.sockets import CONNECTIONS, SocketLimits
from mcpconn.gateway.store import FileStore, RedisStore, Store
from mcpconn.loopback import is_loopback
from mcpconn.observe import log
from mcpconn.seal import KeyRing, given_ring, kept_ring

DEFAULT_LISTEN = "127.0.0.1:9000"
KEEP_ALIVE = 120
"""Seconds for which an idle socket is kept. Clients keep theirs for 5 to 60 s; the side that closes second loses no
request."""
GRACE = 30
"""Seconds that calls in flight get to finish after SIGTERM. What still runs then is answered as `unknown`."""
LAST_WORDS = 2
"""Seconds for those answers, and for clients that take them slowly, before connections are cut."""
AT_ONCE = 0.2
"""Seconds for them at a second signal."""
SERVER_FILES = 4096
"""Files that clients' sockets leave to the rest: 1,000 connections to servers, with three pipes or two sockets each."""
FILE_LOOK = 1.0
"""Seconds between two looks at the configuration file."""


@dataclass(frozen=True)
class Listen:
    """Where the gateway listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Listen:
        """From `HOST:PORT`, `[::1]:PORT` or `PORT`.

        Raises:
            ConfigError: it is none of these.
        """
        host, _, port = text.rpartition(":")
        if not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"--listen {text}: give HOST:PORT, such as {DEFAULT_LISTEN}", key="listen")
        return cls(host.strip("[]") or "127.0.0.1", int(port))

    @classmethod
    def of(cls, accepting: socket.socket) -> Listen:
        """Where a socket listens."""
        return cls(*accepting.getsockname()[:2])

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def url(self, port: int) -> str:
        """Its address for a client on this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}/mcp"


@dataclass(frozen=True)
class Storage:
    """Where a gateway keeps its store and its sealing keys."""

    directory: Path
    """The state directory; created with mode 0700 if it is missing."""
    sealing_keys: Path | None = None
    """A file with the keys, kept by the operator. None: a file in the state directory."""
    url: str | None = None
    """URL of a store in Redis. None: a file in the state directory."""
    may_lose: bool = False
    """Keep the ledger even in a store that evicts or does not persist."""

    def open(self, say: Callable[[str], None]) -> tuple[Store, KeyRing]:
        """The store and the keys; a missing key is created, and `say` called with that.

        Raises:
            ConfigError: the key or the store cannot be used.
        """
        if self.sealing_keys is not None:
            ring = given_ring(self.sealing_keys)
        else:
            ring, made = kept_ring(self.directory / "keys")
            if made:
                say(f"no sealing key was given: a new one was created in {self.directory / 'keys'}")
                if self.url is not None:
                    say("processes that share the store need the same key: give it to each with --sealing-keys")
        if self.url is None:
            return FileStore(self.directory / "store.db"), ring
        return RedisStore(self.url, may_lose=self.may_lose), ring


def make_app(
    path: Path,
    storage: Storage,
    *,
    one_person: bool,
    say: Callable[[str], None],
    public_url: str | None = None,
    allowed_hosts: tuple[str, ...] = (),
    fleet: FleetSettings | None = None,
    alone: bool = False,
) -> App:
    """The gateway of a configuration file, with a store and a key that outlive the process.

    Args:
        path: The configuration file.
        storage: Where the store and the key are.
        one_person: All anonymous clients are one person.
        say: Called with lines of information for people.
        public_url: The address that clients use, if it is not this machine's.
        allowed_hosts: Names that clients may call the gateway by, besides this machine's own and `public_url`'s.
        fleet: Be one of several replicas with this store and key.
        alone: One user is served, over stdio.

    Raises:
        ConfigError: the file, the key or the store cannot be used.
    """
    servers, settings = loaded(path, None)
    if all(config.disabled for config in servers.values()):
        raise ConfigError(f"{path}: there are no servers in it")
    kept, ring = storage.open(say)
    public_name = urlsplit(public_url).hostname if public_url else None
    hosts = (*allowed_hosts, *([public_name] if public_name else []))
    return App(
        servers,
        settings=settings,
        store=kept,
        ring=ring,
        security=loopback(hosts),
        one_person=one_person,
        public_url=public_url,
        fleet=fleet,
        alone=alone,
    )


def fleet_settings(listen: str | None, networks: tuple[str, ...]) -> FleetSettings | None:
    """How this process takes part in a fleet; None if it is the whole gateway.

    Raises:
        ConfigError: the address or a network is none.
    """
    if listen is None and networks:
        raise ConfigError("--fleet-network is for --fleet: say where this replica listens for the others", key="fleet")
    return None if listen is None else FleetSettings.parse(listen, networks)


def listening_socket(listen: Listen) -> socket.socket:
    """A socket to accept on.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((listen.host, listen.port))
        made.listen(2048)
    except OSError as error:
        made.close()
        reason = "is in use; name another with --listen" if error.errno == 98 else f"cannot be used: {error.strerror}"
        raise ConfigError(f"{listen.host}:{listen.port} {reason}", key="listen") from None
    return made


def allow_files(sockets: int = CONNECTIONS) -> int:
    """Let this process open as many files as the system grants it: each client is a socket, and 1,024 are usual.

    Args:
        sockets: Connections of clients that are wanted.

    Returns:
        How many there may be. The other files are left for servers: if there were none to open a connection with, each
        call of every client would fail.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return sockets
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * sockets if hard == resource.RLIM_INFINITY else min(hard, 2 * sockets)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return sockets if soft == resource.RLIM_INFINITY else min(sockets, soft - min(soft // 2, SERVER_FILES))


async def serve_http(
    app: App,
    accepting: socket.socket,
    *,
    path: Path | None = None,
    ready: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve until SIGTERM or SIGINT; then let calls in flight finish, for `GRACE` seconds at most.

    Args:
        app: The gateway.
        accepting: The socket to accept on.
        path: The configuration file; it is applied again at SIGHUP, and when it has changed.
        ready: Called once the gateway accepts connections.
        say: Called with lines of information for people.
    """
    import uvicorn

    from mcpconn.gateway.http.draining import Drain

    wanted = app.settings.limits.sockets
    limits = SocketLimits(allow_files(wanted))
    if limits.connections < wanted:
        say(f"at most {limits.connections} sockets of clients: this process may open no more files (ulimit -n)")
    drain = Drain()
    config = uvicorn.Config(
        drain.says_close(app),
        http=drain.protocol(limits),
        log_config=None,
        log_level="warning",
        lifespan="off",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE + LAST_WORDS,
        # Session ids are long, and clients add cookies and tokens of their own.
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = uvicorn.Server(config)
    relax()
    # Signals are handled here: event streams have to end before uvicorn waits for what is in flight.
    server.capture_signals = nullcontext  # type: ignore[assignment]
    # Not by the lifespan protocol: if the gateway fails, the process has to end, so that a supervisor starts another.
    # uvicorn would go on to accept requests, and answer each with an error.
    async with app, anyio.create_task_group() as group:
        ending = Ending(app)

        async def stop() -> None:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for received in signals:
                    if drain.begun:
                        app.drain(calls=True)
                        await anyio.sleep(AT_ONCE)
                        # `force_exit` alone is not enough: from Python 3.12 on, uvicorn then waits for connections
                        # that are still open, and a client that does not read keeps its connection open.
                        serving.cancel()
                        return
                    # At a keyboard no other process takes over, and the user does not want to wait.
                    drain.begin(idle=0.0 if received == signal.SIGINT else None)
                    if running := ending.running:
                        say(f"stopping: {running} unfinished, with {GRACE} s left; another signal ends them at once")
                    app.drain()
                    notify("STOPPING=1")
                    server.should_exit = True
                    group.start_soon(expire)

        async def expire() -> None:
            await anyio.sleep(GRACE)
            app.drain(calls=True)

        async def follow() -> None:
            """Apply the file again when it has changed."""
            known = _stamp(path)
            while True:
                await anyio.sleep(FILE_LOOK)
                if (found := _stamp(path)) not in (known, None):
                    known = found
                    _reload(app, path, say)

        async def hang_up() -> None:
            with anyio.open_signal_receiver(signal.SIGHUP) as signals:
                async for _ in signals:
                    _reload(app, path, say)

        async def announce() -> None:
            while not server.started and not server.should_exit:  # noqa: ASYNC110 - uvicorn has no event for it
                await anyio.sleep(0.02)
            ready()
            notify("READY=1")

        group.start_soon(stop)
        group.start_soon(announce)
        if path is not None:
            group.start_soon(follow)
            if hasattr(signal, "SIGHUP"):
                group.start_soon(hang_up)
        with anyio.CancelScope() as serving:
            await server.serve(sockets=[accepting])
        ending.cut()
        group.cancel_scope.cancel()
    if (said := ending.summary()) is not None:
        say(said)
    if drain.late:
        say(f"{drain.late} requests came after their connection had been closed; they did not run")


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """What changes when a file is written or replaced; None while there is no file."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size) if found is not None else None


def _reload(app: App, path: Path | None, say: Callable[[str], None]) -> None:
    assert path is not None
    try:
        result = app.reload(path)
    except ConfigError as error:
        say(f"{path} was not applied, and nothing has changed: {error}")
        return
    except Exception as error:  # a bug of ours must not end the calls of servers that the file does not even name
        log.exception("gateway.reload_failed", file=str(path))
        say(f"{path} was not applied as a whole, because of a bug in mcpconn: {type(error).__name__}. Please report it")
        return
    what = ", ".join(f"{len(result[name])} {name}" for name in ("added", "changed", "removed", "unchanged"))
    say(f"{path} was applied: {what}")


def print_config(name: str, command: list[str], url: str) -> str:
    """How to add the gateway to Claude Desktop, Cursor and VS Code."""
    over_http = {"mcpServers": {name: {"url": url}}}
    vscode = {"servers": {name: {"type": "http", "url": url}}}
    stdio = {"mcpServers": {name: {"command": command[0], "args": command[1:]}}}
    lines = ["Cursor (~/.cursor/mcp.json):", json.dumps(over_http, indent=2)]
    lines += ["VS Code (.vscode/mcp.json):", json.dumps(vscode, indent=2)]
    lines += ["Claude Desktop (claude_desktop_config.json), which starts it itself:", json.dumps(stdio, indent=2)]
    return "\n".join(lines)


def own_command(path: Path, view: str) -> list[str]:
    """The command by which a host starts this gateway over stdio."""
    command = [sys.executable, "-m", "mcpconn", "serve", str(path.resolve()), "--stdio"]
    return [*command, "--view", view] if view else command
