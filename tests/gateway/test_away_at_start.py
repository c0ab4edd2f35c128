"""Ten servers, four of which are not there in four ways: the others are served as if there were none of them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client

from mcpconn.gateway.requests.lists import FIRST_LOOK, SERVERS_META
from mcpconn.testing import HttpServer, Script
from tests.gateway.conftest import Gateway, gateway
from tests.support import text_of
from tests.wire.sockets import free_port

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
GOOD = tuple("abcdef")
AWAY = {"hole", "refuses", "late", "hangs"}
AT_ONCE = FIRST_LOOK + 8.0
"""Seconds for a list: the one look at what was never seen, and what a busy machine takes. A connect that is waited for
takes 10 and more."""


@contextmanager
def black_hole() -> Iterator[int]:
    """A port on which a connect gets no answer: the queue of its listener is full."""
    waiting = [socket.socket() for _ in range(4)]
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        try:
            yield full.getsockname()[1]
        finally:
            for each in waiting:
                each.close()


@contextmanager
def mute() -> Iterator[int]:
    """A port that connections are accepted on, by the system, and nothing is answered."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


class World:
    def __init__(self, made: Gateway, late: HttpServer, scripts: dict[str, Script]) -> None:
        self.made, self.late, self.scripts = made, late, scripts


@asynccontextmanager
async def ten_servers() -> AsyncIterator[World]:
    scripts = {name: Script() for name in (*GOOD, "late")}
    async with AsyncExitStack() as stack:
        ports = {"hole": stack.enter_context(black_hole()), "hangs": stack.enter_context(mute())}
        ports["refuses"] = await free_port()
        late = await stack.enter_async_context(HttpServer(scripts["late"]))
        ports["late"] = late.port
        await late.stop()
        more = {name: {"url": f"http://127.0.0.1:{port}/mcp"} for name, port in ports.items()}
        began = anyio.current_time()
        made = await stack.enter_async_context(gateway(*(scripts[name] for name in GOOD), more=more))
        # It listens before the servers have answered.
        assert anyio.current_time() - began < AT_ONCE
        yield World(made, late, scripts)


def served(listed: types.ListToolsResult) -> set[str]:
    return {tool.name.partition("__")[0] for tool in listed.tools}


@MODES
async def test_lists_and_calls_of_the_others_are_unharmed(mode: Any):
    async with ten_servers() as world, Client(world.made.url, mode=mode) as client:
        with anyio.fail_after(AT_ONCE):
            listed = await client.list_tools()
        assert served(listed) == set(GOOD)
        missing = (listed.meta or {})[SERVERS_META]
        assert set(missing) == AWAY
        assert all(each["note"] == "its entries are missing" for each in missing.values())

        async def call(name: str) -> None:
            for number in range(5):
                assert text_of(await client.call_tool(f"{name}__add", {"a": number, "b": 1})) == str(number + 1)

        with anyio.fail_after(AT_ONCE):
            async with anyio.create_task_group() as group:
                for name in GOOD:
                    group.start_soon(call, name)
            # The look is taken once, whoever asks: the next list is there without it.
            for _ in range(3):
                assert served(await client.list_tools()) == set(GOOD)
        assert all(world.scripts[name].executions["add"] == 5 for name in GOOD)


@MODES
async def test_a_late_server_needs_no_restart(mode: Any):
    news = anyio.Event()

    async def note(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            news.set()

    async with ten_servers() as world, Client(world.made.url, mode=mode, message_handler=note) as client:
        assert "late" not in served(await client.list_tools())

        async def told() -> None:
            if mode == "legacy":
                await news.wait()
                return
            async with client.listen(tools_list_changed=True) as events:
                listening.set()
                await events.__anext__()

        listening = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(told)
            if mode != "legacy":
                await listening.wait()
            await world.late.start()
        listed = await client.list_tools()
        while "late" not in served(listed):
            listed = await client.list_tools()
        assert set((listed.meta or {})[SERVERS_META]) == AWAY - {"late"}
        assert text_of(await client.call_tool("late__add", {"a": 1, "b": 1})) == "2"


@MODES
async def test_a_server_that_goes_away_keeps_its_tools_listed(mode: Any):
    async with ten_servers() as world, Client(world.made.url, mode=mode) as client:
        await world.late.start()
        with anyio.fail_after(30):
            while "late" not in served(await client.list_tools()):
                await anyio.lowlevel.checkpoint()
        await world.late.stop()
        with anyio.fail_after(30):
            while "late" not in ((listed := await client.list_tools()).meta or {})[SERVERS_META]:
                await anyio.lowlevel.checkpoint()
        assert "late" in served(listed)
        assert (listed.meta or {})[SERVERS_META]["late"]["note"] == "its last known entries are listed"
