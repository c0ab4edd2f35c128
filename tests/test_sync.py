"""`SyncManager`: the manager for threads."""

from __future__ import annotations

import gc
import inspect
import itertools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from types import FrameType
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from mcp import MCPError
from mcp.server import MCPServer
from mcp_types import PromptReference

from mcpconn import (
    Change,
    ConfigError,
    Connection,
    ConnectionClosed,
    Event,
    Manager,
    NotRunning,
    OutcomeUnknown,
    State,
    SyncManager,
    UnknownServer,
)
from mcpconn.arguments import Arguments
from mcpconn.legacy import Legacy
from mcpconn.runtime.native import starting
from mcpconn.sync import SyncConnection
from mcpconn.sync import background as background_module
from mcpconn.sync.background import Background
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.scripted import faults
from tests.support import SAFETY, text_of

THREADS = 50


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """The event loop of the background thread."""
    name: str = request.param
    return name


def scripted(script: Script | None = None, **more: Any) -> dict[str, Any]:
    return {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script or Script()), **more}


class Waiting:
    """A server in the process, with tools that wait, and threading's events that tell of them."""

    def __init__(self) -> None:
        self.server: Any = MCPServer("waiting")
        self.started = threading.Event()
        self.ended = threading.Event()
        arrived: list[int] = []
        everybody = anyio.Event()

        @self.server.tool()
        async def forever() -> str:
            """Wait until cancelled."""
            self.started.set()
            try:
                await anyio.sleep_forever()
            finally:
                self.ended.set()
            return "never"

        @self.server.tool()
        async def together(number: int) -> str:
            """Wait until so many calls have arrived."""
            arrived.append(number)
            if len(arrived) == THREADS:
                everybody.set()
            await everybody.wait()
            return str(number)


@contextmanager
def interrupted_after(event: threading.Event) -> Iterator[None]:
    """Ctrl-C for this thread, once `event` is set."""
    thread = threading.current_thread()
    assert thread is threading.main_thread(), "only the main thread gets signals"

    def interrupt() -> None:
        if event.wait(SAFETY):
            assert thread.ident is not None
            signal.pthread_kill(thread.ident, signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        yield


# -- calls


def test_a_plain_threads_call_is_answered(backend: str) -> None:
    with SyncManager({"srv": scripted()}, backend=backend) as manager:
        assert text_of(manager.call_tool("srv", "add", {"a": 1, "b": 2}, timeout=SAFETY)) == "3"
        assert text_of(manager["srv"].call_tool("add", {"a": 2, "b": 2})) == "4"
        assert (manager["srv"].state, manager["srv"].epoch) == (State.READY, 1)
        assert manager.status()["srv"]["state"] == manager["srv"].status()["state"] == "ready"


def test_everything_else_a_manager_offers_is_there_as_well(backend: str) -> None:
    with SyncManager({"srv": scripted()}, backend=backend) as manager:
        manager.wait_ready(SAFETY)
        srv = manager["srv"]
        srv.wait_ready(SAFETY)
        assert "add" in {tool.name for tool in manager.list_tools("srv").tools}
        assert manager.list_resources("srv").resources[0].uri == "memo://welcome"
        assert manager.list_resource_templates("srv").resource_templates
        assert manager.read_resource("srv", "memo://welcome").contents
        assert manager.list_prompts("srv").prompts[0].name == "greet"
        assert manager.get_prompt("srv", "greet", {"name": "Ada"}).messages
        completed = manager.complete("srv", PromptReference(name="greet"), {"name": "name", "value": ""})
        assert completed.completion.values
        manager.set_logging_level("srv", "info")
        manager.subscribe_resource("srv", "memo://welcome")
        manager.unsubscribe_resource("srv", "memo://welcome")
        srv.send_ping()
        assert srv.server_info is not None
        assert srv.server_info.name == "scripted"
        assert srv.server_capabilities.tools is not None
        assert (srv.name, srv.instructions, srv.protocol_version) == ("srv", None, "2025-11-25")
        srv.reconnect(SAFETY)
        assert (srv.epoch, srv.last_failure) == (2, None)
        assert repr(srv).startswith("<SyncConnection of <Connection 'srv' ready epoch=2 ")
        assert repr(manager) == "<SyncManager of <Manager {srv: ready}>>"


NOT_IN_THREADS = {"listen", "changes", "serve", "aclose"}
OF_THE_LOOP = {
    "run_in",
    "start",
    "settled",
    "ended",
    "usage",
    "watching",
    "capabilities",
    "usable",
    "tell_watchers",
    "list_page",
    "close",
    "session",
    "journal",
    "present",
    "spawn",
    "send_progress_notification",
    "send_roots_list_changed",
    # What the warning methods do, without a warning. SyncConnection's own do not warn.
    *(name for name in vars(Legacy) if not name.startswith("_")),
    # What a SyncConnection was made with is the manager's to know.
    *(name for name in vars(Arguments) if not name.startswith("_")),
}


@pytest.mark.parametrize(
    ("plain", "original", "missing"),
    [(SyncManager, Manager, NOT_IN_THREADS), (SyncConnection, Connection, NOT_IN_THREADS | OF_THE_LOOP)],
)
def test_names_and_arguments_match_a_manager(plain: type, original: type, missing: set[str]) -> None:
    public = {name for name in dir(original) if not name.startswith("_")}
    assert public - set(dir(plain)) <= missing
    for name in sorted(public & set(dir(plain))):
        here, there = getattr(plain, name), getattr(original, name)
        if inspect.isfunction(there):
            ours = [name for name, of in inspect.signature(here).parameters.items() if of.kind is not of.VAR_KEYWORD]
            theirs = list(inspect.signature(there).parameters)
            assert ours == theirs[: len(ours)], name
            assert len(ours) == len(theirs) or "options" in inspect.signature(here).parameters, name


def test_fifty_threads_run_their_calls_on_one_connection_at_the_same_time(backend: str) -> None:
    with (
        SyncManager({"srv": {"server": Waiting().server}}, backend=backend) as manager,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        # Each call is answered when all have arrived: if any of them waited for another, none would be.
        calls = [
            pool.submit(manager.call_tool, "srv", "together", {"number": number}, timeout=SAFETY)
            for number in range(THREADS)
        ]
        assert [text_of(call.result(SAFETY)) for call in calls] == [str(number) for number in range(THREADS)]
        assert manager["srv"].epoch == 1


def test_errors_arrive_as_they_are(backend: str) -> None:
    script = Script()
    with SyncManager({"srv": scripted(script)}, backend=backend) as manager:
        with pytest.raises(MCPError, match="shopping session expired") as caught:
            manager.call_tool("srv", "shopping")
        assert type(caught.value) is MCPError
        script.inject(faults.drop_after())
        with pytest.raises(OutcomeUnknown):
            manager.call_tool("srv", "charge")
        with pytest.raises(UnknownServer, match="known servers: srv"):
            manager.call_tool("elsewhere", "charge")


def test_a_raised_call_leaves_no_garbage(backend: str) -> None:
    with SyncManager({"srv": scripted()}, backend=backend) as manager:
        manager.wait_ready(SAFETY)
        for _ in range(3):
            with pytest.raises(MCPError):
                manager.call_tool("srv", "shopping")
        assert not manager._background._waiting
        assert not manager._background._running


# -- Ctrl-C


def test_ctrl_c_cancels_the_call_that_waits_and_is_raised(backend: str) -> None:
    waiting = Waiting()
    cancelled = threading.Event()
    with SyncManager({"srv": {"server": waiting.server}}, backend=backend) as manager:
        manager.observe(lambda notice: cancelled.set() if getattr(notice, "outcome", "") == "cancelled" else None)
        with interrupted_after(waiting.started), pytest.raises(KeyboardInterrupt):
            manager.call_tool("srv", "forever", timeout=None)
        assert cancelled.wait(SAFETY)
        assert waiting.ended.wait(SAFETY), "the server was not told"
        assert (manager["srv"].state, manager["srv"].epoch) == (State.READY, 1)


def test_ctrl_c_spares_other_threads_calls(backend: str) -> None:
    waiting = Waiting()
    servers = {"srv": {"server": waiting.server}}
    with SyncManager(servers, backend=backend) as manager, ThreadPoolExecutor(THREADS) as pool:
        calls = [pool.submit(manager.call_tool, "srv", "together", {"number": n}) for n in range(THREADS - 1)]
        with interrupted_after(waiting.started), pytest.raises(KeyboardInterrupt):
            manager.call_tool("srv", "forever", timeout=None)
        manager.call_tool("srv", "together", {"number": THREADS - 1})
        assert [text_of(call.result(SAFETY)) for call in calls] == [str(n) for n in range(THREADS - 1)]


def test_a_signal_handlers_error_ends_a_call(backend: str) -> None:
    def interrupt(*_: object) -> None:
        raise InterruptedError("the user has sent something new")

    waiting = Waiting()
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with SyncManager({"srv": {"server": waiting.server}}, backend=backend) as manager:
            with interrupted_after(waiting.started), pytest.raises(InterruptedError, match="something new"):
                manager.call_tool("srv", "forever", timeout=None)
            assert waiting.ended.wait(SAFETY)
            assert manager["srv"].epoch == 1
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_handlers_error_is_raised_wherever_it_comes(backend: str) -> None:
    """Python runs a handler between any two lines of the main thread; asyncio ignores an OSError at some of them."""
    before = sys.gettrace()

    async def call() -> str:
        return "answered"

    def interrupted_at(line: int) -> bool:
        """Whether the call got as far as this line, counted from its beginning."""
        passed = 0

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal passed
            # In frames that hold a lock, a trace is stricter than a signal: it may raise before the lock is released.
            if frame.f_globals["__name__"].partition(".")[0] not in ("mcpconn", "asyncio"):
                return None
            passed += event == "line"
            if passed == line:
                raise InterruptedError(f"{frame.f_code.co_filename}:{frame.f_lineno}")
            return trace

        sys.settrace(trace)
        try:
            answer = background.run(call)
        except InterruptedError:
            return True
        finally:
            sys.settrace(before)
        assert answer == "answered"
        assert passed < line, "the error was raised and ignored"
        return False

    with SyncManager({}, backend=backend) as manager:
        background = manager._background
        lines = 1
        while interrupted_at(lines):
            lines += 1
        assert lines > 15


def test_a_call_cancelled_before_the_loop_came_to_it_is_not_made(backend: str) -> None:
    made = []

    async def call() -> None:
        made.append(1)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with SyncManager({}, backend=backend) as manager:
        background = manager._background
        hold, held = threading.Event(), threading.Event()

        def block() -> None:
            held.set()
            hold.wait(SAFETY)

        assert background._tell(block)
        assert held.wait(SAFETY)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mcpconn.sync.background._Call.wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                background.run(call)
        hold.set()
        manager.status()
        assert made == []


# -- the life of the thread


def test_one_thread_serves_all_connections_and_ends_with_them(backend: str) -> None:
    before = set(threading.enumerate())
    with SyncManager({name: scripted() for name in "abc"}, backend=backend) as manager:
        manager.wait_ready(SAFETY)
        assert len(set(threading.enumerate()) - before) == 1
    assert set(threading.enumerate()) <= before


def test_before_it_is_started_calls_say_so_and_servers_can_be_added() -> None:
    manager = SyncManager({"one": scripted()})
    with pytest.raises(NotRunning, match="not started: with SyncManager"):
        manager.call_tool("one", "add", {"a": 1, "b": 2})
    assert manager.add("two", scripted()).name == "two"
    manager.remove("one")
    assert (list(manager), len(manager), "two" in manager, "one" in manager) == (["two"], 1, True, False)
    assert manager["two"].state is State.IDLE
    assert manager.status()["two"]["state"] == "idle"
    manager.close()
    with manager:
        assert text_of(manager.call_tool("two", "add", {"a": 1, "b": 2})) == "3"


def test_it_is_started_once() -> None:
    with SyncManager({}) as manager, pytest.raises(NotRunning, match="started already"):
        manager.start()
    with pytest.raises(NotRunning, match="started already"):
        manager.start()


def test_calls_raise_at_once_after_closing(backend: str) -> None:
    with SyncManager({"srv": scripted()}, backend=backend) as manager:
        manager.wait_ready(SAFETY)
    for call in (
        lambda: manager.call_tool("srv", "add", {"a": 1, "b": 2}),
        lambda: manager["srv"].list_tools(),
        lambda: manager.wait_ready(),
        lambda: manager.add("two", scripted()),
    ):
        with pytest.raises(NotRunning, match="the manager was closed"):
            call()
    assert manager["srv"].state is State.CLOSED
    assert manager.status()["srv"]["state"] == "closed"
    manager.close()


def test_calls_that_wait_for_a_server_fail_when_it_is_closed(backend: str) -> None:
    config = scripted(lazy=True)
    config["http_transport"].down = True
    waits = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with SyncManager({"srv": config}, backend=backend) as manager:
            # A lazy connection dials when a call waits.
            manager.subscribe(lambda change: waits.set() if change.event is Event.CONNECT else None)
            call = pool.submit(manager.call_tool, "srv", "add", {"a": 1, "b": 2}, timeout=None)
            assert waits.wait(SAFETY)
        with pytest.raises(ConnectionClosed):
            call.result(SAFETY)


def test_several_threads_may_close_it_and_all_wait_for_the_end(backend: str) -> None:
    manager = SyncManager({"srv": scripted()}, backend=backend).start()
    manager.wait_ready(SAFETY)
    with ThreadPoolExecutor(4) as pool:
        for closing in [pool.submit(manager.close) for _ in range(4)]:
            closing.result(SAFETY)
    assert manager["srv"].state is State.CLOSED


class Interrupting:
    """Raises KeyboardInterrupt in this thread, at the n-th line that it runs in a module."""

    def __init__(self, at: int, file: str | None) -> None:
        self.left = at
        self._file = file

    def __enter__(self) -> Interrupting:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename != self._file:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self._trace


class Interrupted(threading.Event):
    """An event whose waiter gets a Ctrl-C."""

    def wait(self, timeout: float | None = None) -> bool:
        raise KeyboardInterrupt


def closes(manager: SyncManager) -> None:
    """Fails where `close` waits indefinitely, or leaves the thread behind."""
    closing, thread = threading.Thread(target=manager.close, daemon=True), manager._background._thread
    closing.start()
    closing.join(SAFETY)
    assert not closing.is_alive(), "close() waits for ever"
    if thread.ident is not None:
        thread.join(SAFETY)
    assert not thread.is_alive()
    with pytest.raises(NotRunning):
        manager.wait_ready()


def test_ctrl_c_at_the_start_leaves_nothing(backend: str) -> None:
    for at in itertools.count(1):
        manager, interrupt = SyncManager({}, backend=backend), Interrupting(at, background_module.__file__)
        with interrupt, suppress(KeyboardInterrupt):
            manager.start()
        closes(manager)
        if interrupt.left > 0:
            break
    assert at > 5


@pytest.mark.parametrize("soon", [True, False], ids=["the thread", "the loop"])
def test_ctrl_c_while_it_waits_for_its_start_leaves_nothing(soon: bool, backend: str) -> None:
    manager = SyncManager({"srv": scripted()}, backend=backend)
    if soon:
        manager._background._thread._started = Interrupted()  # type: ignore[attr-defined] # threading's own
    else:
        manager._background._begun = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        manager.start()
    closes(manager)


def test_an_unknown_event_loop_is_refused_when_it_is_started() -> None:
    manager = SyncManager({}, backend="twisted")
    with pytest.raises(LookupError, match="twisted"):
        manager.start()
    manager.close()


def test_a_bad_configuration_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="'srv'"):
        SyncManager({"srv": {"url": "nowhere"}})


def test_servers_follow_their_file(tmp_path: Any, backend: str) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {"one": {"url": "http://127.0.0.1:1/mcp", "lazy": true}}}', encoding="utf-8")
    with SyncManager.from_file(path, backend=backend) as manager:
        assert list(manager) == ["one"]
        path.write_text('{"mcpServers": {"two": {"url": "http://127.0.0.1:1/mcp", "lazy": true}}}', encoding="utf-8")
        assert manager.reload(path)["added"] == ["two"]
        assert list(manager) == ["two"]
        assert manager["two"].config.lazy


def test_it_can_be_made_inside_an_event_loop() -> None:
    # What is made there must not be tied to that loop.
    async def make() -> SyncManager:
        return SyncManager({"srv": scripted()}, backend="trio")

    with anyio.run(make) as manager:
        assert text_of(manager.call_tool("srv", "add", {"a": 1, "b": 2}, timeout=SAFETY)) == "3"


def test_any_thread_can_add_servers(backend: str) -> None:
    def use(name: str) -> str:
        manager.add(name, scripted())
        answer = text_of(manager.call_tool(name, "add", {"a": 1, "b": 1}, timeout=SAFETY))
        manager.remove(name)
        return answer

    with SyncManager({}, backend=backend) as manager, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(use, [f"s{number}" for number in range(16)])) == {"2"}
        assert len(manager) == 0


def test_an_unreferenced_manager_ends(backend: str) -> None:
    manager = SyncManager({"srv": scripted()}, backend=backend).start()
    manager.wait_ready(SAFETY)
    done, connection = manager._background._done, manager["srv"]
    del manager
    gc.collect()
    assert connection.state is State.READY, "a connection keeps its manager"
    closed = connection._connection
    del connection
    gc.collect()
    assert done.wait(SAFETY)
    assert closed.state is State.CLOSED


# -- in the loop's thread


def test_a_listener_hears_of_every_transition_until_it_is_unsubscribed(backend: str) -> None:
    changes: list[Change] = []
    with SyncManager({"srv": scripted()}, backend=backend) as manager:
        manager["srv"].wait_ready(SAFETY)
        end = manager.subscribe(changes.append)
        manager["srv"].reconnect(SAFETY)
        assert [change.event.value for change in changes] == ["recycle", "connect", "established"]
        end()
        heard = len(changes)
        manager["srv"].reconnect(SAFETY)
        assert len(changes) == heard


def test_observers_hear_of_calls_too(backend: str) -> None:
    notices: list[Any] = []
    with SyncManager({"srv": scripted()}, backend=backend) as manager:
        manager.observe(notices.append)
        manager.call_tool("srv", "add", {"a": 1, "b": 2})
        manager.status()
        assert "tools/call" in {getattr(notice, "method", None) for notice in notices}


def test_a_call_from_the_loops_own_thread_is_refused(backend: str) -> None:
    refused: Future[Any] = Future()
    states: list[Any] = []
    manager = SyncManager({"srv": scripted()}, backend=backend)

    def listener(change: Change) -> None:
        states.append(manager.status()["srv"]["state"])
        if not refused.done():
            try:
                manager.call_tool("srv", "add", {"a": 1, "b": 2})
            except NotRunning as error:
                refused.set_result(str(error))

    manager.subscribe(listener)
    with manager:
        assert "own thread" in refused.result(SAFETY)
        manager.wait_ready(SAFETY)
    assert states[-1] == "closed"


def test_a_listener_may_close_it(backend: str) -> None:
    manager = SyncManager({"srv": scripted()}, backend=backend)
    manager.subscribe(lambda change: manager.close() if change.target is State.READY else None)
    with manager:
        assert manager._background._done.wait(SAFETY)
    assert manager["srv"].state is State.CLOSED


CALLER: ContextVar[str] = ContextVar("caller", default="nobody")


def test_callbacks_run_with_the_context_of_the_thread_that_called(backend: str) -> None:
    seen: list[tuple[str, float]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((CALLER.get(), done))

    with SyncManager({"srv": scripted(Script(answer="sse"))}, backend=backend) as manager:
        CALLER.set("me")
        manager.call_tool("srv", "progress", {"steps": 2}, progress_callback=progress)
    assert seen == [("me", 1.0), ("me", 2.0)]


def test_a_plain_callback_may_block_and_make_calls_itself(backend: str) -> None:
    answers: list[str] = []
    called = threading.Event()

    def progress(done: float, total: float | None, message: str | None) -> None:
        answers.append(text_of(manager.call_tool("srv", "add", {"a": done, "b": 0.5}, timeout=SAFETY)))
        called.set()

    with SyncManager({"srv": scripted(Script(answer="sse"))}, backend=backend) as manager:
        manager.call_tool("srv", "progress", {"steps": 1}, progress_callback=progress)
        assert called.wait(SAFETY)
    assert answers == ["1.5"]


@pytest.mark.parametrize("shape", ["plain", "async", "plain that returns a coroutine"])
def test_callbacks_may_be_plain_or_async(shape: str, backend: str) -> None:
    heard: Future[str] = Future()

    def plain(message: Any) -> None:
        if getattr(message, "method", "") == "notifications/progress":
            heard.set_result(message.params.message)

    async def asynchronous(message: Any) -> None:
        plain(message)

    callbacks: dict[str, Callable[..., Any]] = {
        "plain": plain,
        "async": asynchronous,
        "plain that returns a coroutine": lambda message: asynchronous(message),
    }
    servers = {"srv": scripted(Script(answer="sse"))}
    with SyncManager(servers, backend=backend, message_handler=callbacks[shape]) as manager:
        manager.call_tool("srv", "progress", {"steps": 1}, progress_callback=lambda *_: None)
        assert heard.result(SAFETY) == "step 1"


# -- when the loop dies


class Crashing:
    """A resource whose task group fails when it is told to."""

    def __init__(self) -> None:
        self.crash = anyio.Event()

    async def __aenter__(self) -> None:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._fail)

    async def __aexit__(self, *exc: Any) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(*exc)

    async def _fail(self) -> None:
        await self.crash.wait()
        raise ZeroDivisionError("on purpose")


def test_no_call_waits_for_a_dead_loop(backend: str) -> None:
    background, resource = Background(backend), Crashing()
    background.start(resource)
    waiting = threading.Event()

    async def wait() -> None:
        waiting.set()
        await anyio.sleep_forever()

    async def crash() -> None:
        resource.crash.set()

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(background.run, wait)
        assert waiting.wait(SAFETY)
        background.run(crash)
        with pytest.raises(NotRunning) as under:
            call.result(SAFETY)
    with pytest.raises(NotRunning, match="loop has ended") as after:
        background.run(crash)
    assert (under.value.outcome, after.value.outcome) == ("unknown", "not_run")
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group, or what is in it
        background.close()
    assert "ZeroDivisionError" in repr(caught.value)


class Idle:
    """A resource that does nothing."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exc: Any) -> None:
        pass


def test_a_running_call_may_answer_after_the_end_but_not_wait(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcpconn.sync.background.LAST_WORDS", 0.3)
    background = Background(backend)
    background.start(Idle())
    running = threading.Barrier(3)

    async def call(seconds: float) -> str:
        await anyio.to_thread.run_sync(running.wait)
        await anyio.sleep(seconds)
        return "answered"

    with ThreadPoolExecutor(2) as pool:
        soon, never = (pool.submit(background.run, partial(call, seconds)) for seconds in (0.01, SAFETY * 10))
        running.wait(SAFETY)
        background.close()
        assert soon.result(SAFETY) == "answered"
        with pytest.raises(NotRunning, match="closed while the call was running") as caught:
            never.result(SAFETY)
    assert caught.value.outcome == "unknown"
    assert not background._running


def test_a_cancelled_call_gets_no_more_time_at_the_end(backend: str) -> None:
    made: list[str] = []

    async def call() -> None:
        await anyio.sleep(0.01)
        made.append("made")

    async def cancelled() -> None:
        running: set[Any] = set()
        async with starting() as start:
            for begun in (False, True):
                task = background_module._Call(call, running)
                task.start(start)
                if begun:
                    await anyio.lowlevel.checkpoint()
                task.cancel()
                task.end_by(anyio.current_time() + SAFETY)

    anyio.run(cancelled, backend=backend)
    assert made == []


def test_a_call_that_raises_what_is_no_exception_ends_the_loop(backend: str) -> None:
    class Exit(BaseException):
        pass

    async def call() -> None:
        raise Exit("on purpose")

    background = Background(backend)
    background.start(Idle())
    with pytest.raises(NotRunning):
        background.run(call)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group, or what is in it
        background.close()
    assert "on purpose" in repr(caught.value)


def test_threads_calls_end_with_their_callers_context_and_leave_nothing(backend: str) -> None:
    background = Background(backend)
    background.start(Idle())

    async def name() -> str:
        await anyio.lowlevel.checkpoint()
        return CALLER.get()

    def call(number: int) -> None:
        CALLER.set(str(number))
        assert [background.run(name) for _ in range(20)] == [str(number)] * 20

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(call, range(THREADS)))
    assert not background._waiting
    assert not background._running
    background.close()


def test_a_resource_that_cannot_be_entered_leaves_no_thread_behind(backend: str) -> None:
    class Broken:
        async def __aenter__(self) -> None:
            raise ZeroDivisionError

        async def __aexit__(self, *exc: Any) -> None:
            raise AssertionError("it was not entered")

    background, threads = Background(backend), set(threading.enumerate())
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group, or what is in it
        background.start(Broken())
    assert "ZeroDivisionError" in repr(caught.value)
    assert not [thread for thread in set(threading.enumerate()) - threads if "portal" in thread.name]
    background.close()
    with pytest.raises(NotRunning):
        background.run(anyio.sleep_forever)


def test_a_plain_listener_may_block_and_make_calls_itself(backend: str) -> None:
    heard: Future[str] = Future()

    def listener(notification: Any) -> None:
        if not heard.done():
            heard.set_result(text_of(manager.call_tool("srv", "add", {"a": 1, "b": 0.5}, timeout=SAFETY)))

    with SyncManager({"srv": scripted(Script(answer="sse"))}, backend=backend) as manager:
        stop = manager["srv"].on_notification(listener)
        manager.call_tool("srv", "progress", {"steps": 1}, progress_callback=lambda *_: None)
        assert heard.result(SAFETY) == "1.5"
        stop()
