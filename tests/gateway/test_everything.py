"""All that the protocol has passes through the gateway, in each of four pairs of eras, and reaches nobody else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import mcp_types as types
import pytest
from mcp import Client, MCPError

from tests.gateway.conftest import gateway
from tests.gateway.everything import FORGED, LONG, TEMPLATE, URI, Everything
from tests.gateway.questions import answers, serving
from tests.gateway.test_killed import Process
from tests.support import SAFETY, text_of
from tests.wire.sockets import free_port

pytestmark = pytest.mark.anyio


LOOK_AGAIN = 0.1
"""Seconds between two looks whether a server is there."""


class Person:
    """A bare client, and what reached it."""

    def __init__(self, name: str, url: str, mode: Any, **options: Any) -> None:
        self.name, self.mode = name, mode
        self.logs: list[str] = []
        self.messages: list[Any] = []
        self.everything: list[str] = []
        """All that was sent to this client and is no answer to it, as it came."""
        self._news = anyio.Event()

        async def log(params: types.LoggingMessageNotificationParams) -> None:
            self.logs.append(str(params.data))
            self.everything.append(params.model_dump_json())

        async def message(message: Any) -> None:
            self.messages.append(message)
            self.everything.append(repr(message))
            self._news.set()

        def noted(callback: Any) -> Any:
            async def answer(*args: Any) -> Any:
                self.everything += [repr(each) for each in args[1:]]
                return await callback(*args)

            return answer

        options = {**{each: noted(callback) for each, callback in answers(name).items()}, **options}
        self.client = Client(url, mode=mode, logging_callback=log, message_handler=message, **options)

    @property
    def is_modern(self) -> bool:
        return bool(self.mode != "legacy")

    async def call(self, tool: str, meta: Any = None, **arguments: Any) -> types.CallToolResult:
        return await self.client.call_tool(f"all__{tool}", {"who": self.name, **arguments}, meta=meta)

    async def heard(self, kind: type[Any]) -> Any:
        """The first notification of a kind."""
        with anyio.fail_after(10):
            while True:
                found = next((each for each in self.messages if isinstance(each, kind)), None)
                if found is not None:
                    return found
                self._news = anyio.Event()
                await self._news.wait()


class World:
    """Two clients before one gateway before one server."""

    def __init__(self, ann: Person, bob: Person, server_mode: str) -> None:
        self.ann, self.bob = ann, bob
        self.server_is_modern = server_mode != "legacy"

    async def both(self, act: Callable[[Person], Coroutine[Any, Any, None]]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(act, self.ann)
            group.start_soon(act, self.bob)

    async def journal(self) -> list[str]:
        return list(json.loads(text_of(await self.ann.call("journal"))))

    async def until(self, line: str) -> list[str]:
        """The journal, as soon as a line is in it."""
        with anyio.fail_after(10):
            while line not in (seen := await self.journal()):
                await anyio.lowlevel.checkpoint()
        return seen


@asynccontextmanager
async def in_process(mode: str, server_mode: str, **options: Any) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(Everything(), server_mode))
        made = await stack.enter_async_context(gateway(more={"all": {"url": url, "mode": server_mode}}))
        ann, bob = (Person(name, made.url, mode, **options) for name in ("ann", "bob"))
        for person in (ann, bob):
            await stack.enter_async_context(person.client)
        yield World(ann, bob, server_mode)


@asynccontextmanager
async def as_processes(folder: Path, mode: str, server_mode: str, **options: Any) -> AsyncIterator[World]:
    """The same with a process for the gateway, and one for the server; or one for each client, over stdio."""
    entry: dict[str, Any] = {"command": sys.executable, "args": ["-m", "tests.gateway.everything", "stdio"]}
    entry |= {"env": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}, "mode": "legacy"}
    with anyio.fail_after(300):
        async with AsyncExitStack() as stack:
            if server_mode != "stdio":
                port = await free_port()
                command = [sys.executable, "-m", "tests.gateway.everything", str(port), server_mode]
                server = await stack.enter_async_context(await anyio.open_process(command, env=os.environ, stderr=None))
                stack.callback(server.kill)
                assert server.stdout is not None
                assert await server.stdout.receive() == b"ready\n"
                entry = {"url": f"http://127.0.0.1:{port}/mcp", "mode": server_mode}
            made = Process(folder, "")
            made.file.write_text(json.dumps({"mcpServers": {"all": entry}}), encoding="utf-8")
            await made.start()
            stack.push_async_callback(made.kill)
            async with Client(made.url, mode="legacy") as first:
                # A child takes its time to start, and what it says of its use is known only then.
                while not (await first.list_tools()).tools:  # noqa: ASYNC110 - it is another process
                    await anyio.sleep(LOOK_AGAIN)
            ann, bob = (Person(name, made.url, mode, **options) for name in ("ann", "bob"))
            for person in (ann, bob):
                await stack.enter_async_context(person.client)
            yield World(ann, bob, "legacy" if server_mode == "stdio" else server_mode)


PAIRS = [
    pytest.param("legacy", "legacy", id="legacy-legacy"),
    pytest.param("legacy", "auto", id="legacy-modern"),
    pytest.param("auto", "legacy", id="modern-legacy"),
    pytest.param("auto", "auto", id="modern-modern"),
]
pairs = pytest.mark.parametrize(("mode", "server_mode"), PAIRS)


async def every(page: Callable[..., Awaitable[Any]], member: str) -> list[Any]:
    found: list[Any] = []
    cursor = None
    while True:
        result = await page(cursor=cursor)
        found += getattr(result, member)
        cursor = result.next_cursor
        if cursor is None:
            return found


async def lists(world: World) -> None:
    client = world.ann.client
    tools = {tool.name: tool for tool in await every(client.list_tools, "tools")}
    assert len(tools) == 16
    rich = tools["all__rich"]
    assert rich.title == "The rich"
    assert rich.output_schema is not None
    assert rich.icons is not None
    assert rich.icons[0].src == "https://icons.test/a.png"
    assert rich.annotations is not None
    assert rich.annotations.read_only_hint
    assert rich.input_schema["x-kept"] == "rich"
    assert rich.meta == {"own.test/kept": 1}
    prompts = await every(client.list_prompts, "prompts")
    assert [prompt.name for prompt in prompts] == [f"all__p{number}" for number in range(10)]
    resources = await every(client.list_resources, "resources")
    assert len(resources) == 10
    assert str(resources[0].uri) == f"all+{URI}"
    assert resources[0].annotations.priority == 0.5
    templates = await every(client.list_resource_templates, "resource_templates")
    assert [each.uri_template for each in templates] == [f"all+{TEMPLATE}"]


async def prompts(world: World) -> None:
    got = await world.ann.client.get_prompt("all__p3", {"topic": "tea"})
    assert got.messages[0].content.text == "p3 tea"  # type: ignore[union-attr]
    assert str(got.messages[1].content.uri) == f"all+{URI}"  # type: ignore[union-attr]


async def resources(world: World) -> None:
    for uri in (f"all+{URI}", "all+note://all/x"):
        read = await world.ann.client.read_resource(uri)
        assert str(read.contents[0].uri) == uri
        assert read.contents[0].text == f"text of {uri.removeprefix('all+')}"  # type: ignore[union-attr]
    with pytest.raises(MCPError, match="no such note"):
        await world.ann.client.read_resource("all+other://x")


async def completion(world: World) -> None:
    ref: Any = types.PromptReference(type="ref/prompt", name="all__p1")
    done = await world.ann.client.complete(ref, {"name": "topic", "value": "t"})
    assert done.completion.values == ["p1 topic t"]
    ref = types.ResourceTemplateReference(type="ref/resource", uri=f"all+{TEMPLATE}")
    done = await world.ann.client.complete(ref, {"name": "name", "value": "n"})
    assert done.completion.values == [f"{TEMPLATE} name n"]


async def content(world: World) -> None:
    result = await world.ann.call("rich")
    assert result.structured_content == {"n": 7}
    text, link, embedded, image, audio = result.content
    assert text.annotations.priority == 0.5  # type: ignore[union-attr]
    assert text.meta == {"own.test/block": 1}
    assert str(link.uri) == f"all+{URI}"  # type: ignore[union-attr]
    assert link.icons[0].src == "https://icons.test/a.png"  # type: ignore[union-attr, index]
    assert str(embedded.resource.uri) == f"all+{URI}"  # type: ignore[union-attr]
    assert (image.type, audio.type) == ("image", "audio")


async def meta(world: World) -> None:
    result = await world.ann.call("meta", {"own.test/there": "x", "traceparent": "00-1-1-01"}, n=1)
    sent = json.loads(text_of(result))
    assert sent["own.test/there"] == "x"
    assert not [key for key in sent if key.startswith("mcpconn/")]
    assert (result.meta or {})["own.test/back"] == {"who": "ann", "n": 1}


async def forgery(world: World) -> None:
    result = await world.ann.call("forged")
    assert result.is_error
    assert (result.meta or {}).get("own.test/kept") == 1
    assert "mcpconn/outcome" not in (result.meta or {})
    assert result.content[0].meta == {"own.test/kept": 1}
    with pytest.raises(MCPError) as caught:
        await world.ann.call("forged", error=True)
    assert caught.value.error.data == {"own.test/kept": 1} != FORGED


async def errors(world: World) -> None:
    with pytest.raises(MCPError) as caught:
        await world.ann.call("refuses")
    assert (caught.value.error.code, caught.value.error.data) == (-32042, {"price": 5})


async def big(world: World) -> None:
    assert len(text_of(await world.ann.call("big"))) == LONG


async def progress(world: World) -> None:
    seen: dict[str, list[Any]] = {"ann": [], "bob": []}

    async def act(person: Person) -> None:
        async def note(progress: float, total: float | None, message: str | None) -> None:
            seen[person.name].append((progress, total, message))

        await person.client.call_tool("all__progress", {"who": person.name}, progress_callback=note)

    await world.both(act)
    for name, notes in seen.items():
        assert notes == [(number, 3, f"{name} {number}") for number in (1, 2, 3)]


async def logs(world: World) -> None:
    if not world.ann.is_modern:
        for person in (world.ann, world.bob):
            await person.client.set_logging_level("info")

    async def act(person: Person) -> None:
        await person.call("logs")

    await world.both(act)
    with anyio.fail_after(SAFETY):
        while any(len(person.logs) < 2 for person in (world.ann, world.bob)):
            await anyio.lowlevel.checkpoint()
    for person in (world.ann, world.bob):
        assert person.logs == [f"{person.name} info", f"{person.name} error"]


async def cancellation(world: World) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(world.ann.call, "slow")
        group.start_soon(world.bob.call, "slow")
        await world.until("slow ann began")
        await world.until("slow bob began")
        group.cancel_scope.cancel()
    await world.until("slow ann cancelled")
    await world.until("slow bob cancelled")


async def instructions(world: World) -> None:
    assert world.ann.client.instructions == "Use with care."


async def changes(world: World) -> None:
    ann, bob = world.ann, world.bob
    await ann.client.list_tools()

    async def listed() -> bool:
        return f"all__{name}" in [tool.name for tool in (await ann.client.list_tools()).tools]

    with anyio.fail_after(10):
        if not ann.is_modern:
            name = text_of(await bob.call("change"))
            while True:
                await ann.heard(types.ToolListChangedNotification)
                if await listed():
                    return
                ann.messages.clear()
        async with ann.client.listen(tools_list_changed=True) as events:
            name = text_of(await bob.call("change"))
            async for _ in events:
                if await listed():
                    return


async def subscriptions(world: World) -> None:
    ann, bob = world.ann, world.bob
    if not ann.is_modern:
        await ann.client.subscribe_resource(f"all+{URI}")
        await ann.call("touch")
        heard = await ann.heard(types.ResourceUpdatedNotification)
        assert str(heard.params.uri) == f"all+{URI}"
        assert not [each for each in bob.messages if isinstance(each, types.ResourceUpdatedNotification)]
        await ann.client.unsubscribe_resource(f"all+{URI}")
        return
    async with ann.client.listen(resource_subscriptions=[f"all+{URI}"]) as events:
        if not world.server_is_modern:
            await world.until(f"subscribe {URI}")
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:

                async def touching() -> None:
                    while True:
                        await bob.call("touch")
                        await anyio.sleep(0.05)

                group.start_soon(touching)
                event = await anext(events.__aiter__())
                group.cancel_scope.cancel()
        assert event.uri == f"all+{URI}"  # type: ignore[union-attr]


def asks(kind: str, wanted: str) -> Callable[[World], Awaitable[None]]:
    async def check(world: World) -> None:
        async def act(person: Person) -> None:
            assert text_of(await person.call(kind)) == wanted.format(person.name)

        await world.both(act)

    return check


async def roots_changed(world: World) -> None:
    await world.ann.call("journal")
    await world.ann.client.send_roots_list_changed()
    if not world.server_is_modern:
        await world.until("roots changed")


CHECKS: dict[str, Callable[[World], Awaitable[None]]] = {
    "form": asks("form", "accept {0}"),
    "url": asks("url", "accept"),
    "sampling": asks("sample", "said {0}"),
    "roots": asks("roots", "file:///{0}"),
    "two questions": asks("twice", "accept {0}, accept {0}"),
    "lists": lists,
    "prompts": prompts,
    "resources": resources,
    "completion": completion,
    "content": content,
    "meta": meta,
    "forgery": forgery,
    "errors": errors,
    "big": big,
    "progress": progress,
    "logs": logs,
    "cancellation": cancellation,
    "instructions": instructions,
    "changes": changes,
    "subscriptions": subscriptions,
    "roots changed": roots_changed,
}


@pairs
@pytest.mark.parametrize("check", CHECKS)
async def test_it_passes_through(mode, server_mode, check):
    if check == "roots changed" and mode != "legacy":
        return  # the modern era has no such message
    options = {"log_level": "info"} if mode != "legacy" else {}
    async with in_process(mode, server_mode, **options) as world:
        await CHECKS[check](world)


OF_ONE_SESSION = ("cancellation", "changes", "subscriptions")
"""What one client sees of what another did in the server: children over stdio have nothing in common."""


@pytest.mark.parametrize(("mode", "server_mode"), [*PAIRS, pytest.param("legacy", "stdio", id="legacy-stdio")])
async def test_it_passes_between_processes_and_reaches_no_other(tmp_path, mode, server_mode):
    options = {"log_level": "info"} if mode != "legacy" else {}
    async with as_processes(tmp_path, mode, server_mode, **options) as world:
        for name, check in CHECKS.items():
            if (name == "roots changed" and mode != "legacy") or (server_mode == "stdio" and name in OF_ONE_SESSION):
                continue
            try:
                await check(world)
            except BaseException as error:
                error.add_note(f"while checking {name}")
                raise
        for person, other in ((world.ann, "bob"), (world.bob, "ann")):
            assert person.everything
            assert not [said for said in person.everything if other in said.replace("annotations", "")]


async def test_a_child_asks_a_modern_client_whose_call_is_the_only_one(tmp_path):
    """Over stdio nothing says which of two calls a question is for; then nobody is asked."""
    async with as_processes(tmp_path, "auto", "stdio") as world:
        assert text_of(await world.ann.call("form")) == "accept ann"
        assert text_of(await world.bob.call("form")) == "accept bob"
        async with anyio.create_task_group() as group:
            group.start_soon(world.ann.call, "slow")
            await world.until("slow ann began")
            with pytest.raises(MCPError, match="no client is connected"):
                await world.bob.call("form")
            group.cancel_scope.cancel()
