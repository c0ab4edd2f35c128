"""The file is broken, changed and restored while calls run, in processes: no call is lost, and none runs twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError

from mcpconn.testing import HttpServer, Script
from tests.gateway.processes import over_http
from tests.stdio.programs import Told, server, telling
from tests.support import text_of

pytestmark = pytest.mark.anyio

SECONDS = 3.0
"""How long a tool runs: the file is looked at each second."""
SERVERS = ("old", "new", "child", "shared")


@pytest.fixture
def anyio_backend() -> str:
    """The gateway is served on asyncio alone."""
    return "asyncio"


class Served:
    """A gateway process, a client of each era, and what the process said."""

    def __init__(self, path: Path, content: dict[str, Any], scripts: list[Script], ran: Told) -> None:
        self.path, self.content, self.scripts, self.ran = path, content, scripts, ran
        self.clients: list[Client] = []
        self.said = b""
        self.heard = anyio.Event()

    def hear(self, data: bytes) -> None:
        self.said += data
        self.heard.set()
        self.heard = anyio.Event()

    async def says(self, change: Callable[[], object], words: bytes) -> None:
        """Change the file, and wait until the gateway has said something about it."""
        before = self.said.count(words)
        change()
        while self.said.count(words) == before:
            await self.heard.wait()

    def write(self, content: Any) -> Callable[[], object]:
        text = content if isinstance(content, str) else json.dumps(content)
        return lambda: self.path.write_text(text)

    async def during_calls(self, what: Callable[[], Any], prefix: str = "") -> None:
        """Do something while each client calls a tool of each server that must not run twice; all are answered."""
        answers: Counter[str] = Counter()
        before = self.runs

        async def call(client: Client, name: str) -> None:
            answers[text_of(await client.call_tool(f"{prefix}{name}__slow_charge", {"seconds": SECONDS}))] += 1

        async with anyio.create_task_group() as group:
            for client in self.clients:
                for name in SERVERS:
                    group.start_soon(call, client, name)
            # The children tell it through a pipe, and the servers through a counter.
            while self.runs < before + len(SERVERS) * len(self.clients):  # noqa: ASYNC110
                await anyio.sleep(0.01)
            await what()
        assert sum(answers.values()) == len(SERVERS) * len(self.clients)
        assert not [text for text in answers if "MCP server" in text]
        assert self.runs == before + len(SERVERS) * len(self.clients)

    @property
    def runs(self) -> int:
        return sum(each.executions["slow_charge"] for each in self.scripts) + self.ran.lines.count("slow_charge")

    async def next_calls_work(self, prefix: str = "") -> None:
        for client in self.clients:
            for name in SERVERS:
                assert text_of(await client.call_tool(f"{prefix}{name}__add", {"a": 1, "b": 2})) == "3"


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(100))
        scripts = [Script(), Script(era="modern")]
        old, new = [await stack.enter_async_context(HttpServer(each)) for each in scripts]
        ran = stack.enter_context(telling(folder))
        child = server("--count-file", str(ran.path))
        content = {
            "mcpServers": {"old": {"url": old.url}, "new": {"url": new.url}, "child": child, "shared": child},
            "gateway": {"servers": {"shared": {"scope": "shared"}}},
        }
        made = Served(folder / "mcp.json", content, scripts, ran)
        _, url = await stack.enter_async_context(over_http(folder, content, hear=made.hear))
        for mode in ("legacy", "auto"):
            client: Any = Client(url, mode=mode)
            made.clients.append(await stack.enter_async_context(client))
            await made.clients[-1].list_tools()
        yield made


async def test_a_broken_file_ends_no_call(tmp_path: Path) -> None:
    async with served(tmp_path) as made:
        path, refused = made.path, b"was not applied"
        sessions = [set(script.sessions) for script in made.scripts]

        async def break_and_restore() -> None:
            scoped = {"mcpServers": {"old": {"command": "x", "scope": "client"}}, "gateway": {"servers": [1]}}
            for content in (json.dumps(made.content)[:100], "[", {"mcpServers": 5}, scoped):
                await made.says(made.write(content), refused)
            path.unlink()
            await made.says(path.mkdir, refused)
            path.rmdir()
            await made.says(made.write(made.content), b"4 unchanged")

        await made.during_calls(break_and_restore)
        await made.next_calls_work()
        for before, script in zip(sessions, made.scripts, strict=True):
            assert before <= set(script.sessions)


async def test_a_changed_or_renamed_server_answers_its_calls(tmp_path: Path) -> None:
    async with served(tmp_path) as made:
        changed = json.loads(json.dumps(made.content))
        for name, entry in changed["mcpServers"].items():
            entry["headers" if name in ("old", "new") else "env"] = {"X": "1"}
        renamed = {
            "mcpServers": {f"my-{name}": entry for name, entry in changed["mcpServers"].items()},
            "gateway": {"servers": {"my-shared": {"scope": "shared"}}},
        }
        await made.during_calls(lambda: made.says(made.write(changed), b"4 changed"))
        await made.next_calls_work()
        await made.during_calls(lambda: made.says(made.write(renamed), b"4 added"))
        await made.next_calls_work("my-")
        for client in made.clients:
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool("old__add", {"a": 1, "b": 2})
