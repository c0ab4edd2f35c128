"""How replicas reach each other: by TCP, or by a replacement in tests.

Only this module knows sockets and the HTTP server of the listener. `Forwarding` writes HTTP on a byte stream and the
`Listener` is an ASGI application, so that a fleet can also run in one process and in virtual time
(`tests/simulation/fleet`), with partitions and pauses between its replicas.
"""

from __future__ import annotations

import socket
from contextlib import nullcontext
from typing import Protocol

import anyio
from anyio.abc import ByteStream
from starlette.types import ASGIApp

HEAD = 64 * 1024
"""Bytes of the head of a request that the listener reads; an envelope has up to 48 KiB."""
CLOSING = 2.0
"""Seconds that the listener's server gets to end."""


class Port(Protocol):
    """An open port of the listener."""

    @property
    def number(self) -> int:
        """Its number, which the other replicas are told."""

    async def serve(self, app: ASGIApp) -> None:
        """Serve an application until `aclose`, or until this is cancelled."""

    async def aclose(self) -> None:
        """Stop serving, cut what is still open, and close the port."""


class Links(Protocol):
    """The way from replica to replica."""

    def listen(self, host: str, port: int) -> Port:
        """Open a port.

        Args:
            host: An address of this machine.
            port: 0 for any that is free.

        Raises:
            OSError: it cannot be opened.
        """

    async def connect(self, host: str, port: int) -> ByteStream:
        """Connect to another replica.

        Raises:
            OSError: it cannot be reached.
        """


class TcpPort:
    """A listening socket, served by uvicorn."""

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        self.number: int = self._socket.getsockname()[1]
        self._ending = anyio.Event()
        self._served: anyio.Event | None = None

    async def serve(self, app: ASGIApp) -> None:
        import uvicorn

        config = uvicorn.Config(
            app,
            http="h11",
            log_config=None,
            log_level="warning",
            lifespan="off",
            access_log=False,
            h11_max_incomplete_event_size=HEAD,
        )
        server = uvicorn.Server(config)
        # Signals belong to the server of the gateway's own port.
        server.capture_signals = nullcontext  # type: ignore[assignment]
        self._served = anyio.Event()

        async def end() -> None:
            await self._ending.wait()
            server.should_exit = server.force_exit = True

        async with anyio.create_task_group() as group:
            group.start_soon(end)
            await server.serve(sockets=[self._socket])
            group.cancel_scope.cancel()
        self._served.set()

    async def aclose(self) -> None:
        self._ending.set()
        if self._served is not None:
            with anyio.move_on_after(CLOSING):
                await self._served.wait()
        self._socket.close()


class Tcp:
    """TCP sockets."""

    def listen(self, host: str, port: int) -> Port:
        return TcpPort(host, port)

    async def connect(self, host: str, port: int) -> ByteStream:
        return await anyio.connect_tcp(host, port)


TCP = Tcp()
