"""A host of handlers for tests: the same questions to a `Manager` and to a `SyncManager`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, NoReturn

import anyio
import anyio.to_thread

from mcpconn import Connection, Manager, SyncManager, handlers
from mcpconn.testing import Script, ScriptTransport
from tests.support import SAFETY, quiet

Surface = Literal["Manager", "SyncManager"]

FACTORIES = (
    "call_tool",
    "list_tools",
    "list_resources",
    "list_resource_templates",
    "read_resource",
    "list_prompts",
    "get_prompt",
    "complete",
)
ARGS: dict[str, dict[str, Any]] = {
    "call_tool": {"a": 2, "b": 3},
    "read_resource": {"uri": "memo://welcome"},
    "get_prompt": {"name": "greet", "arguments": {"name": "Ada"}},
    "complete": {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "name", "value": "al"}},
}
"""What each is asked here."""
KEYS = ["error", "kind", "state", "outcome", "retry_in"]
"""What every failure has, in this order."""


def _no_json(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


def parsed(text: object) -> dict[str, Any]:
    """An answer of a handler: a JSON object with a result or an error, as a string that can be sent."""
    assert isinstance(text, str)
    answer = json.loads(text.encode(), parse_constant=_no_json)
    assert isinstance(answer, dict)
    assert ("result" in answer) != ("error" in answer)
    if "error" in answer:
        assert list(answer)[: len(KEYS)] == KEYS
        assert answer["outcome"] in ("not_run", "unknown", "ran")
        assert answer["error"].strip()
    return answer


def scripted(script: Script, **more: Any) -> dict[str, Any]:
    """A server inside the process."""
    return {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script), **more}


def made(factory: str, manager: Any, server: str = "srv", *, tool: str = "add", timeout: float = SAFETY) -> Any:
    """A handler of this factory."""
    more = (tool,) if factory == "call_tool" else ()
    return getattr(handlers, factory)(manager, server, *more, timeout=timeout)


class Host:
    """Asks the handlers of a manager, whichever it is."""

    def __init__(self, manager: Manager | SyncManager) -> None:
        self.manager: Any = manager
        self.plain = isinstance(manager, SyncManager)

    @property
    def connection(self) -> Connection:
        """The connection to `srv`, for looking at."""
        found = self.manager["srv"]
        return found._connection if self.plain else found  # type: ignore[no-any-return]

    async def ask(self, handler: Callable[[Any], Any], args: Any) -> dict[str, Any]:
        """What a handler answers."""
        return parsed(await self.do(handler, args))

    async def tool(self, name: str, args: Any = None, *, timeout: float = SAFETY) -> dict[str, Any]:
        """What the handler of a tool of `srv` answers."""
        return await self.ask(handlers.call_tool(self.manager, "srv", name, timeout=timeout), args or {})

    async def do(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call what is async here and blocks there."""
        return await (anyio.to_thread.run_sync(function, *args) if self.plain else function(*args))

    async def ready(self) -> None:
        """Wait until `srv` is proven and at rest, so that nothing happens beside the calls of the test."""
        await self.tool("add", {"a": 1, "b": 1})
        rest = partial(quiet, self.connection)
        await (self.do(self.manager._background.run, rest) if self.plain else rest())


@asynccontextmanager
async def hosting(
    surface: Surface, servers: Mapping[str, Any], backend: str = "asyncio", **options: Any
) -> AsyncIterator[Host]:
    """A running manager of this kind, and handlers to ask."""
    with anyio.fail_after(SAFETY):
        if surface == "Manager":
            async with Manager(servers, **options) as manager:
                yield Host(manager)
            return
        plain = SyncManager(servers, backend=backend, **options)
        await anyio.to_thread.run_sync(plain.start)
        try:
            yield Host(plain)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(plain.close)
