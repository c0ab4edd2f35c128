"""The sources of rows and transitions for `mcpconn watch`: its own connections, or a running host."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import anyio
import httpx2

from mcpconn.asgi.rows import news, row
from mcpconn.cli.failures import USAGE, CliError
from mcpconn.core.seen import walk
from mcpconn.errors import CallFailed
from mcpconn.loopback import LOOPBACK
from mcpconn.manager import Manager
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.journal import Change
from mcpconn.wire.reasons import connect_reason

Row = dict[str, Any]
"""As created by `mcpconn.asgi.rows.row`."""
Tell = Callable[[Row], None]
"""Called with a transition, as created by `mcpconn.asgi.rows.news`."""

AGAIN = 2.0
"""Seconds until a host that cannot be reached is tried again."""
SILENCE = 45.0
"""Seconds without a byte after which a host counts as unreachable. It sends a comment every 15 s."""


class Source(Protocol):
    """What is watched."""

    title: str
    """What it is, for the heading."""
    trouble: str | None
    """Why the displayed data may be old; None if it is current."""

    def rows(self) -> Mapping[str, Row]:
        """The connections as they are now, by name."""

    def running(self, tell: Tell) -> Any:
        """An async context in which transitions are told."""

    async def reconnect(self, name: str) -> str | None:
        """Open a new session of a connection now. Returns why that was refused; None if it was not."""


class Own:
    """Connections that were opened to be watched."""

    trouble: str | None = None

    def __init__(self, manager: Manager, title: str, clock: Clock | None = None) -> None:
        self.manager = manager
        self.title = title
        self._clock = clock or Clock()

    def rows(self) -> Mapping[str, Row]:
        now = self._clock.wall()
        return {name: row(connection, now) for name, connection in self.manager.items()}

    @asynccontextmanager
    async def running(self, tell: Tell) -> AsyncIterator[None]:
        def note(change: Change) -> None:
            told = news(change)
            if told is not None:
                tell(told)

        end = self.manager.subscribe(note)
        try:
            async with self.manager:
                yield
        finally:
            end()

    async def reconnect(self, name: str) -> str | None:
        # What comes of it is on the screen.
        with suppress(CallFailed):
            await self.manager[name].reconnect(timeout=0.1)
        return None


class Attached:
    """The connections of a running host that serves `mcpconn.asgi.status_app`, or of a gateway."""

    def __init__(self, url: str, *, key: str | None = None, names: tuple[str, ...] = ()) -> None:
        """
        Args:
            url: Where the status page is.
            key: Opens it, if it asks for one.
            names: Show these connections alone; all if there are none.

        Raises:
            CliError: the URL cannot be used.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CliError(
                f"--attach {url}: give the URL of a status page, such as http://127.0.0.1:8000/status", USAGE
            )
        self.title = url
        self.trouble: str | None = None
        self._names = names
        self._rows: dict[str, Row] = {}
        self._base = url.rstrip("/")
        # An action without a key has to come from the page's own origin: this program says that it does.
        self._own = {"origin": f"{parts.scheme}://{parts.netloc}", "x-mcpconn-action": "reconnect"}
        # What is on this machine is reached without the proxies that lead out of it.
        self._client = httpx2.AsyncClient(
            headers={} if key is None else {"authorization": f"Bearer {key}"},
            timeout=httpx2.Timeout(10, read=SILENCE),
            trust_env=parts.hostname not in LOOPBACK,
        )

    def rows(self) -> Mapping[str, Row]:
        return self._rows

    @asynccontextmanager
    async def running(self, tell: Tell) -> AsyncIterator[None]:
        async with self._client, anyio.create_task_group() as group:
            await group.start(self._read, tell)
            yield
            group.cancel_scope.cancel()

    async def _read(self, tell: Tell, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Follow the host's events. An unreachable host is an error at the beginning; later, it may come back."""
        began = False
        while True:
            try:
                async for name, data in self._events():
                    self._apply(name, data, tell)
                    if not began:
                        began = True
                        task_status.started()
                self.trouble = "the host has ended"
            except httpx2.HTTPError as error:
                self.trouble = f"the host cannot be reached ({self._reason(error)})"
            if not began:
                raise CliError(f"{self._base}: {self.trouble}") from None
            await anyio.sleep(AGAIN)

    async def _events(self) -> AsyncIterator[tuple[str, Any]]:
        async with self._client.stream("GET", f"{self._base}/events") as answer:
            if answer.status_code != 200:
                raise CliError(f"{self._base} shows no connections: {await self._refusal(answer)}")
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                raise CliError(f"{self._base} is not a status page of mcpconn")
            name = ""
            async for line in answer.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)

    def _reason(self, error: httpx2.HTTPError) -> str:
        """What went wrong in the system's words: a library's are "All connection attempts failed"."""
        # httpcore2 carries the system's error as an argument of its own, not as a cause.
        inner = [each for known in walk(error) for each in (known, *known.args) if isinstance(each, BaseException)]
        cause = next(
            (each for known in inner for each in walk(known) if isinstance(each, OSError) and each.errno), None
        )
        if cause is None:
            return str(error) or type(error).__name__
        parts = urlsplit(self._base)
        default = 443 if parts.scheme == "https" else 80
        return connect_reason(cause, parts.hostname or "", parts.port or default)[0]

    @staticmethod
    async def _refusal(answer: httpx2.Response) -> str:
        if answer.status_code == 401:
            return "a key is needed: put it into MCPCONN_KEY, or into a file that --key-file names"
        text = (await answer.aread())[:300].decode("utf-8", "replace").strip()
        return f"{text or 'refused'} (HTTP {answer.status_code})"

    def _apply(self, name: str, data: Any, tell: Tell) -> None:
        self.trouble = None
        if name == "hello":
            self._rows = {}
        if name in ("hello", "rows"):
            for each in data["rows"]:
                if self._shown(each["name"]):
                    self._rows[each["name"]] = each
            for gone in data.get("gone", ()):
                self._rows.pop(gone, None)
            unknown = [each for each in self._names if each not in self._rows]
            if name == "hello" and unknown:
                self.trouble = f"no connection is called {', '.join(unknown)}"
        elif name == "change" and self._shown(data["name"]):
            tell(data)

    def _shown(self, name: str) -> bool:
        return not self._names or name in self._names

    async def reconnect(self, name: str) -> str | None:
        try:
            answer = await self._client.post(
                f"{self._base}/connections/{quote(name, safe='')}/reconnect", headers=self._own
            )
        except httpx2.HTTPError as error:
            return self._reason(error)
        return None if answer.status_code == 204 else await self._refusal(answer)
