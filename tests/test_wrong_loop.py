"""Used from another thread, or from another event loop, than the one it runs in: an error at once, never a hang."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from mcp_types import PromptReference

from mcpconn import ConfigError, Connection, Manager, NotRunning, State
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.clock import virtual_backend
from tests.support import SAFETY, UNFINISHED_STREAMS, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "request": ("ping",),
    "call_tool": ("add", {"a": 1, "b": 1}),
    "read_resource": ("memo://welcome",),
    "get_prompt": ("greet", {"name": "Ada"}),
    "complete": (PromptReference(name="greet"), {"name": "name", "value": ""}),
    "set_logging_level": ("info",),
    "subscribe_resource": ("memo://welcome",),
    "unsubscribe_resource": ("memo://welcome",),
    "send_progress_notification": ("token", 0.5),
    "set_level": ("info",),
    "watch_resource": ("memo://welcome",),
    "unwatch_resource": ("memo://welcome",),
    "tell_progress": ("token", 0.5),
    "add": ("more", "http://127.0.0.1:9/mcp"),
    "get_or_add": ("more", "http://127.0.0.1:9/mcp"),
    "remove": ("srv",),
    "disable": ("srv",),
    "enable": ("srv",),
    "reload": ("mcp.json",),
    "end_session": ("session", "2025-11-25"),
}
OF_THE_CATALOG = {"capabilities", "list_page", "tell_watchers"}
FREE = {
    *("subscribe", "observe", "on_notification", "status", "usage", "present", "from_file"),
    *("keys", "items", "values", "get", "spawn"),
}
"""Methods that only read, or only note down whom to tell: they may be called anywhere."""
INTERNAL = {"run_in", "serve", "start"}
"""Those that start it: they refuse a second time for another reason."""


def methods_of(cls: type) -> list[str]:
    public = [name for name in dir(cls) if not name.startswith("_") and inspect.isfunction(getattr(cls, name))]
    return [name for name in public if name not in FREE | INTERNAL | OF_THE_CATALOG and name != "authenticated"]


def entry() -> dict[str, Any]:
    return {"url": "http://scripted/mcp", "http_transport": ScriptTransport(Script())}


async def use(it: Manager | Connection, name: str) -> Any:
    """Call a method, and do with its result what a caller does."""
    arguments = ARGUMENTS.get(name, ())
    if isinstance(it, Manager) and name in methods_of(Connection) and name not in ("aclose", "wait_ready"):
        arguments = ("srv", *arguments)
    with anyio.fail_after(SAFETY):
        result = getattr(it, name)(*arguments)
        if hasattr(result, "__aenter__") and name == "listen":
            async with result as entered:
                return entered
        if hasattr(result, "__anext__"):
            return await result.__anext__()
        return await result if inspect.isawaitable(result) else result


async def refused_elsewhere(it: Manager | Connection, name: str) -> None:
    def elsewhere() -> None:
        with pytest.raises(NotRunning, match="another thread"):
            anyio.run(use, it, name)

    await anyio.to_thread.run_sync(elsewhere)


@pytest.mark.parametrize("name", methods_of(Connection))
async def test_methods_refuse_another_thread(name: str) -> None:
    async with Connection(entry(), name="srv") as connection:
        await refused_elsewhere(connection, name)
        assert connection.state is State.READY
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"


@pytest.mark.parametrize("name", methods_of(Manager))
async def test_its_methods_refuse_another_thread(name: str, tmp_path: Any) -> None:
    if name == "reload":
        (tmp_path / "mcp.json").write_text('{"mcpServers": {"more": {"url": "http://127.0.0.1:9/mcp"}}}')
        ARGUMENTS["reload"] = (tmp_path / "mcp.json",)
    async with Manager({"srv": entry()}) as manager:
        await manager.wait_ready()
        await refused_elsewhere(manager, name)
        assert list(manager) == ["srv"]
        assert text_of(await manager.call_tool("srv", "add", {"a": 1, "b": 1})) == "2"


@pytest.mark.parametrize("kind", ["open", "closed"])
def test_another_loop_is_refused(kind: str) -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    manager = Manager({"srv": entry()})
    try:
        first.run_until_complete(manager.start())
        first.run_until_complete(manager.wait_ready())
        for use_it in (manager["srv"].list_tools, partial(manager.list_tools, "srv"), manager.aclose):
            with pytest.raises(NotRunning, match="another event loop than this"):
                second.run_until_complete(use_it())
        first.run_until_complete(manager.aclose())
        if kind == "closed":
            first.close()
        second.run_until_complete(manager.aclose())
        with pytest.raises(NotRunning, match="has ended" if kind == "closed" else "another event loop than this"):
            second.run_until_complete(manager["srv"].list_tools())
    finally:
        first.close()
        second.close()


# -- numbers that no clock knows

UNUSABLE: list[Any] = [10**400, -1, -(10**400), float("nan"), float("inf"), float("-inf"), True, "30"]


def each_limit() -> list[tuple[str, Callable[[Manager, Any], Any]]]:
    return [
        ("call_tool", lambda manager, value: manager.call_tool("srv", "charge", timeout=value)),
        ("read", lambda manager, value: manager["srv"].read_resource("memo://welcome", timeout=value)),
        ("listen", lambda manager, value: manager["srv"].listen(timeout=value).__aenter__()),
        ("wait_ready", lambda manager, value: manager["srv"].wait_ready(value)),
        ("wait_all", lambda manager, value: manager.wait_ready(value)),
        ("reconnect", lambda manager, value: manager["srv"].reconnect(value)),
        ("credentials", lambda manager, value: manager["srv"].update_credentials(None, value)),
        (
            "read_timeout",
            lambda manager, value: manager["srv"].call_tool("charge", read_timeout_seconds=value),
        ),
    ]


@pytest.mark.parametrize(
    "anyio_backend", [virtual_backend("asyncio"), virtual_backend("trio")], ids=["asyncio", "trio"]
)
@pytest.mark.parametrize("which", range(len(each_limit())), ids=[name for name, _ in each_limit()])
async def test_an_unusable_limit_is_refused(which: int, anyio_backend: Any) -> None:
    script = Script()
    server = {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script)}
    async with Manager({"srv": server, "other": entry()}) as manager:
        await manager.wait_ready()
        for value in UNUSABLE:
            with pytest.raises(ConfigError, match="timeout"):
                await each_limit()[which][1](manager, value)
        assert (manager["srv"].state, manager["srv"].epoch) == (State.READY, 1)
        assert script.executions["charge"] == 0
        for name in manager:
            assert text_of(await manager.call_tool(name, "add", {"a": 1, "b": 1}, timeout=10**300)) == "2"
