"""Every public coroutine, cancelled wherever it can be: nothing is left behind, and the connection still answers.

In virtual time. Sockets and children are in test_sweep_real.py.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import MCPDeprecationWarning, MCPError

from mcpconn import Connection, Manager, State
from mcpconn.runtime.gate import Gate
from mcpconn.testing import Script, ScriptTransport, clock
from mcpconn.testing.scripted import faults
from tests.cancellation.sweep import Cut, every_checkpoint, every_moment
from tests.support import UNFINISHED_STREAMS, idle, text_of

pytestmark = [
    pytest.mark.anyio,
    UNFINISHED_STREAMS,
    pytest.mark.filterwarnings(f"ignore::{MCPDeprecationWarning.__module__}.MCPDeprecationWarning"),
]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return clock.virtual_backend(request.param)


LONG = 400.0
"""Seconds, longer than any deadline, probe, drain or cool-down."""


@dataclass
class Stage:
    """A connection of a manager to a scripted server, and what was there before anybody was cancelled."""

    script: Script
    transport: ScriptTransport
    manager: Manager
    tasks: Counter[str] = field(default_factory=Counter)

    @property
    def connection(self) -> Connection:
        return self.manager["srv"]

    def take_down(self) -> None:
        self.transport.down = True
        self.script.forget_sessions()

    async def left_clean(self, what: object = None) -> None:
        """Nothing is left behind, and the connection answers."""
        self.transport.down = False
        self.script.clear()
        await clock.settle()
        connection = self.connection
        # A probe of a server that hangs and an old session that
        # drains take their time: what is still there after this is there indefinitely.
        await anyio.sleep(LONG)
        await clock.settle()
        assert idle(connection), f"cancelled at {what}: {connection!r}"
        assert _tasks() == self.tasks, (
            f"cancelled at {what}: more {_tasks() - self.tasks}, fewer {self.tasks - _tasks()}"
        )
        assert self.transport.waiting == self.script.streams.count, f"cancelled at {what}: requests are under way"
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 2}, timeout=10)) == "3"


@asynccontextmanager
async def stage(**options: Any) -> AsyncIterator[Stage]:
    script = Script(**options)
    transport = ScriptTransport(script)
    # Eager: in the modern era the first listing opens a stream, which would look like something left behind.
    entry = {"url": "http://srv.test/mcp", "http_transport": transport, "catalog": "eager"}
    async with Manager({"srv": entry}) as manager:
        stage = Stage(script, transport, manager)
        await manager.wait_ready()
        await stage.connection.call_tool("add", {"a": 1, "b": 2})
        await anyio.sleep(LONG)
        await clock.settle()
        stage.tasks = _tasks()
        yield stage


def _tasks() -> Counter[str]:
    """The tasks that run, by name; asyncio numbers those that have none."""
    return Counter((task.name or "").partition("-")[0] for task in anyio.get_running_tasks())


Act = Callable[[Stage], Awaitable[Any]]
ACTS: dict[str, Act] = {
    "call_tool": lambda s: s.connection.call_tool("charge", {"amount": 1}),
    "call_tool with progress": lambda s: s.connection.call_tool("progress", {"steps": 2}, progress_callback=_nothing),
    "call_tool that takes long": lambda s: s.connection.call_tool("slow", {"seconds": 5}),
    "list_tools": lambda s: s.connection.list_tools(cache_mode="refresh"),
    "list_resources": lambda s: s.connection.list_resources(cache_mode="refresh"),
    "list_resource_templates": lambda s: s.connection.list_resource_templates(cache_mode="refresh"),
    "read_resource": lambda s: s.connection.read_resource("memo://rules"),
    "list_prompts": lambda s: s.connection.list_prompts(cache_mode="refresh"),
    "get_prompt": lambda s: s.connection.get_prompt("greet", {"name": "Ada"}),
    "complete": lambda s: s.connection.complete(
        types.PromptReference(type="ref/prompt", name="greet"), {"name": "name", "value": "al"}
    ),
    "wait_ready": lambda s: s.connection.wait_ready(),
    "reconnect": lambda s: s.connection.reconnect(),
    "settled": lambda s: s.connection.settled(),
    "catalog.refresh": lambda s: s.connection.catalog.refresh(),
    "Manager.call_tool": lambda s: s.manager.call_tool("srv", "charge", {"amount": 1}),
    "Manager.list_tools": lambda s: s.manager.list_tools("srv", cache_mode="refresh"),
    "Manager.wait_ready": lambda s: s.manager.wait_ready(),
}
LEGACY: dict[str, Act] = {
    "send_ping": lambda s: s.connection.send_ping(),
    "set_logging_level": lambda s: s.connection.set_logging_level("info"),
    "subscribe_resource": lambda s: s.connection.subscribe_resource("memo://rules"),
    "unsubscribe_resource": lambda s: s.connection.unsubscribe_resource("memo://rules"),
    "send_roots_list_changed": lambda s: s.connection.send_roots_list_changed(),
    "send_progress_notification": lambda s: s.connection.send_progress_notification("token", 1.0),
}
TROUBLES: dict[str, Callable[[Stage], Any]] = {
    "nothing": lambda s: None,
    "the session is forgotten": lambda s: s.script.forget_sessions(),
    "503": lambda s: s.script.inject(faults.unavailable(), method=None),
    "503 and the probe hangs": lambda s: (
        s.script.inject(faults.unavailable(), method=None),
        s.script.inject(faults.hang(), method="ping"),
    ),
    "429": lambda s: s.script.inject(faults.rate_limited(3), method=None),
    "a reset": lambda s: s.script.inject(faults.drop_after(), method=None),
    "the server is down": lambda s: s.take_down(),
}


async def _nothing(progress: float, total: float | None, message: str | None) -> None:
    return


def before(stage: Stage, trouble: str) -> Callable[[], Awaitable[None]]:
    async def begin() -> None:
        TROUBLES[trouble](stage)

    return begin


def through(stage: Stage, act: Act) -> Callable[[Cut], Awaitable[None]]:
    async def make(cut: Cut) -> None:
        try:
            await cut.through(_as_coroutine(act(stage)))
        except MCPError:
            # The trouble of the day; what it leaves behind is looked at all the same.
            return

    return make


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


@pytest.mark.parametrize("name", [*ACTS, *LEGACY])
async def test_a_coroutine_cancelled_at_any_checkpoint_leaves_nothing_behind(name: str) -> None:
    async with stage() as on:
        checkpoints = await every_checkpoint(through(on, {**ACTS, **LEGACY}[name]), after=on.left_clean)
        assert checkpoints > 0 or name in ("wait_ready", "settled")


@pytest.mark.parametrize("name", ACTS)
async def test_the_same_in_the_modern_era(name: str) -> None:
    async with stage(era="modern", answer="sse") as on:
        await every_checkpoint(through(on, ACTS[name]), after=on.left_clean)


@pytest.mark.parametrize("trouble", [trouble for trouble in TROUBLES if trouble != "nothing"])
@pytest.mark.parametrize("name", ["call_tool", "list_tools", "reconnect", "wait_ready"])
async def test_a_coroutine_cancelled_in_trouble_leaves_nothing_behind(name: str, trouble: str) -> None:
    async with stage() as on:
        await every_checkpoint(through(on, ACTS[name]), before=before(on, trouble), after=on.left_clean)


@pytest.mark.parametrize("trouble", ["nothing", "the session is forgotten", "a reset"])
async def test_a_call_cancelled_at_any_moment_leaves_nothing_behind(trouble: str) -> None:
    async with stage() as on:
        make, begin = ACTS["call_tool"], before(on, trouble)

        async def call() -> None:
            try:
                await make(on)
            except MCPError:
                return

        turns = await every_moment(call, before=begin, after=on.left_clean)
        assert turns > 5


async def test_opening_a_modern_event_stream_can_be_cancelled_anywhere() -> None:
    async with stage(era="modern") as on:

        async def make(cut: Cut) -> None:
            stream = on.connection.listen(tools_list_changed=True)
            await cut.through(_as_coroutine(stream.__aenter__()))
            await cut.through(_as_coroutine(stream.__aexit__(None, None, None)))

        assert await every_checkpoint(make, after=on.left_clean) >= 1


async def test_changes_can_be_cancelled_anywhere() -> None:
    async with stage() as on:

        async def make(cut: Cut) -> None:
            async def read() -> None:
                async with aclosing(on.manager.changes()) as changes:
                    async for change in changes:
                        if change.target is State.READY:
                            return

            async with anyio.create_task_group() as group:
                group.start_soon(on.connection.reconnect)
                await cut.through(read())

        async def clean(at: int) -> None:
            await on.left_clean(at)
            assert not on.manager._readers

        assert await every_checkpoint(make, after=clean) >= 1
        assert not on.manager._listeners


ENTRANCES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Connection": lambda entry: Connection(entry, name="srv"),
    "a lazy Connection": lambda entry: Connection({**entry, "lazy": True}, name="srv"),
    "Manager": lambda entry: Manager({"srv": entry}),
}


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("name", ENTRANCES)
async def test_entering_and_leaving_can_be_cancelled_at_any_checkpoint(name: str, era: Any) -> None:
    await entered_and_left(name, Script(era=era), by_turns=False)


@pytest.mark.parametrize("name", ENTRANCES)
async def test_entering_and_leaving_can_be_cancelled_at_any_moment(name: str) -> None:
    await entered_and_left(name, Script(), by_turns=True)


async def entered_and_left(name: str, script: Script, *, by_turns: bool) -> None:
    transport = ScriptTransport(script)
    entry = {"url": "http://srv.test/mcp", "http_transport": transport}
    await clock.settle()
    tasks = _tasks()

    async def make(cut: Cut) -> None:
        entered = ENTRANCES[name](entry)
        await cut.through(entered.__aenter__())
        try:
            connection = entered["srv"] if isinstance(entered, Manager) else entered
            await cut.through(connection.call_tool("charge", {"amount": 1}))
        finally:
            await cut.through(entered.__aexit__(None, None, None))

    async def clean(at: int) -> None:
        await clock.settle()
        assert _tasks() == tasks, f"cancelled at {at}: {_tasks() - tasks}"
        assert transport.waiting == 0, f"cancelled at {at}: requests are under way"

    if by_turns:
        assert await every_moment(lambda: make(Cut(0, anyio.CancelScope())), after=clean) > 30
    else:
        assert await every_checkpoint(make, after=clean) > 3
    assert max(script.executions.values()) >= 1


async def test_the_sweep_notices_a_permit_that_is_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    release = Gate.release

    def forgetful(self: Gate) -> None:
        if not isinstance(sys.exc_info()[1], anyio.get_cancelled_exc_class()):
            release(self)

    monkeypatch.setattr(Gate, "release", forgetful)
    async with stage() as on:
        with pytest.raises(AssertionError, match="cancelled at 1"):
            await every_checkpoint(through(on, ACTS["call_tool"]), after=on.left_clean)


async def test_the_sweep_notices_a_leaked_task() -> None:
    async with stage() as on, anyio.create_task_group() as group:

        async def careless() -> None:
            group.start_soon(anyio.sleep_forever)
            await anyio.sleep(1)

        with pytest.raises(AssertionError, match="cancelled at 1"):
            await every_checkpoint(lambda cut: cut.through(careless()), after=on.left_clean)
        group.cancel_scope.cancel()
