"""Bare clients of both eras that call without end, and what each of their calls was told."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import anyio
import mcp_types as types
from mcp import Client, MCPError

from mcpconn.keys import NEW_SESSION, OUTCOME

ANSWERED, BROKEN = "answered", "broken"
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
                async with Client(self.url, mode=mode) as client:
                    self.connected[str(mode)] += 1
                    while await self._call(client, f"{name} {next(numbers)}", next(numbers)):
                        if self.stopping:
                            return
            except Exception as error:
                self._note(error)
                await anyio.sleep(0.2)
            if self.stopping:
                return

    async def _call(self, client: Client, call: str, number: int) -> bool:
        """One call. Whether the client can go on."""
        self.told[call] = BROKEN
        tool = self.tools[number // 2 % len(self.tools)]
        try:
            with anyio.fail_after(PATIENCE):
                result = await client.call_tool(tool, {"id": call})
        except TimeoutError:
            self.hung.append(call)
            return False
        except MCPError as error:
            data = error.error.data
            if isinstance(data, dict) and OUTCOME in data:
                self.told[call] = str(data[OUTCOME])
            self._note(error)
            # The SDK's client cannot go on without its transport.
            return error.error.code > 0 or "onnection" not in error.error.message
        self.told[call] = self._read(result)
        return True

    def _read(self, result: types.CallToolResult) -> str:
        meta: dict[str, Any] = dict(result.meta or {})
        self.news += NEW_SESSION in meta
        if not result.is_error:
            return ANSWERED
        said = str(meta.get(OUTCOME, "no outcome"))
        self.words[f"{said}: {str(result.content[0])[:160]}"] += 1
        return said

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

    def count(self) -> dict[str, Any]:
        """The count of what was told."""
        return {
            **Counter(self.told.values()),
            "session not found": len(self.lost),
            "hung": len(self.hung),
            "new sessions said": self.news,
            "connected": dict(self.connected),
        }


def _leaves(error: BaseException) -> list[BaseException]:
    # Python 3.10 has no name for a group.
    parts = getattr(error, "exceptions", None)
    return [error] if parts is None else [leaf for each in parts for leaf in _leaves(each)]
