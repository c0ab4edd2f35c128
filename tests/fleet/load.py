"""Bare clients of both eras that call without end, and what each of their calls was told."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import mcp_types as types
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from mcpconn.keys import NEW_SESSION, OUTCOME

ANSWERED, BROKEN = "answered", "broken"
TIMEOUT = httpx2.Timeout(30, read=300)
"""As the SDK's own HTTP client has it."""
EXCHANGES = 12
"""Of the last requests of each client, for the report of a call that hangs."""
PATIENCE = 100.0
"""Seconds after which a call counts as hung. A gateway tells of one after 60 s, and looks for an owner for 8 s."""


@dataclass
class Load:
    """The calls of all clients."""

    url: str
    tools: tuple[str, ...] = ("http__remember", "child__remember")
    told: dict[str, str] = field(default_factory=dict)
    """By the id of a call: `answered`, `not_run`, `unknown` or `broken`."""
    words: Counter[str] = field(default_factory=Counter)
    """What else was said, for whoever reads the report."""
    text: dict[str, str] = field(default_factory=dict)
    """By the id of a call that was not answered: the words with its outcome."""
    lost: list[str] = field(default_factory=list)
    """Sessions that were said not to exist."""
    hung: list[str] = field(default_factory=list)
    news: int = 0
    """Answers that said of a new session with the server."""
    connected: Counter[str] = field(default_factory=Counter)
    """How often clients of each era had to connect."""
    stopping: bool = False

    async def client(self, name: str, mode: Any) -> None:
        """One client, which connects again when its connection breaks, until the load is stopped."""
        numbers = itertools.count()
        while True:
            try:
                exchanges = Exchanges()
                http = httpx2.AsyncClient(timeout=TIMEOUT, event_hooks=exchanges.hooks)
                async with http, Client(streamable_http_client(self.url, http_client=http), mode=mode) as client:
                    self.connected[str(mode)] += 1
                    while await self._call(client, f"{name} {next(numbers)}", exchanges):
                        if self.stopping:
                            return
            except Exception as error:
                self._note(error)
                await anyio.sleep(0.2)
            if self.stopping:
                return

    async def _call(self, client: Client, call: str, exchanges: Exchanges) -> bool:
        """One call. Whether the client can go on."""
        self.told[call] = BROKEN
        try:
            with anyio.fail_after(PATIENCE):
                result = await client.call_tool(self.tool(call), {"id": call})
        except TimeoutError:
            self.hung.append(f"{call}, after {exchanges}")
            return False
        except MCPError as error:
            data = error.error.data
            if isinstance(data, dict) and OUTCOME in data:
                self.told[call] = str(data[OUTCOME])
                self.text[call] = error.error.message
            self._note(error)
            # The SDK's client cannot go on without its transport.
            return error.error.code > 0 or "onnection" not in error.error.message
        self.told[call] = self._read(call, result)
        return True

    def _read(self, call: str, result: types.CallToolResult) -> str:
        meta: dict[str, Any] = dict(result.meta or {})
        self.news += NEW_SESSION in meta
        if not result.is_error:
            return ANSWERED
        said = str(meta.get(OUTCOME, "no outcome"))
        self.text[call] = getattr(result.content[0], "text", "")
        self.words[f"{said}: {self.text[call][:160]}"] += 1
        return said

    def idle(self, ran: Counter[str]) -> Counter[str]:
        """What was said of the calls that were told `unknown` and did not run, to which server."""
        return Counter(
            f"{self.tool(call)}: {self.text.get(call, '')}"
            for call, told in self.told.items()
            if told == "unknown" and not ran[call]
        )

    def tool(self, call: str) -> str:
        """The tool of a call."""
        return self.tools[int(call.split()[1]) % len(self.tools)]

    def _note(self, error: BaseException) -> None:
        for each in _leaves(error):
            text = f"{type(each).__name__}: {each}"[:200]
            self.words[text] += 1
            if "ession not found" in text:
                self.lost.append(text)

    def problems(self, ran: Counter[str]) -> list[str]:
        """Calls that were told something else than what the journal says."""
        wrong = [f"{call} was {told} and ran {ran[call]} times" for call, told in self.told.items() if ran[call] > 1]
        for call, told in self.told.items():
            if (told == ANSWERED and ran[call] != 1) or (told == "not_run" and ran[call]):
                wrong.append(f"{call} was told {told} and ran {ran[call]} times")
            elif told not in (ANSWERED, BROKEN, "unknown", "not_run"):
                wrong.append(f"{call} was told {told!r}")
        return [*wrong, *(f"no session: {text}" for text in self.lost), *(f"{call} hung" for call in self.hung)]

    def count(self, ran: Counter[str]) -> dict[str, int]:
        """The count of what was told, and of calls told `unknown` that did not run."""
        idle = sum(told == "unknown" and not ran[call] for call, told in self.told.items())
        return {
            ANSWERED: 0,
            **Counter(self.told.values()),
            "unknown, and did not run": idle,
            "session not found": len(self.lost),
            "hung": len(self.hung),
            "answers that told of a new session": self.news,
            **{f"connections of {mode} clients": count for mode, count in sorted(self.connected.items())},
        }


class Exchanges:
    """The last HTTP requests and answers of a client: where a call waits that hangs."""

    def __init__(self) -> None:
        self._seen: deque[str] = deque(maxlen=EXCHANGES)
        self._began = time.monotonic()

    @property
    def hooks(self) -> Any:
        """For an HTTP client."""
        return {"request": [self._request], "response": [self._response]}

    async def _request(self, request: httpx2.Request) -> None:
        resumed = request.headers.get("last-event-id")
        self._note(f"{request.method}{f' from event {resumed}' if resumed else ''} sent")

    async def _response(self, response: httpx2.Response) -> None:
        self._note(f"{response.request.method} answered {response.status_code}")

    def _note(self, what: str) -> None:
        self._seen.append(f"{time.monotonic() - self._began:.1f} s: {what}")

    def __str__(self) -> str:
        return "; ".join(self._seen)


def _leaves(error: BaseException) -> list[BaseException]:
    # Python 3.10 has no name for a group.
    parts = getattr(error, "exceptions", None)
    return [error] if parts is None else [leaf for each in parts for leaf in _leaves(each)]
