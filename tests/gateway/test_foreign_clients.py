"""Clients that are none of Python's, in front of the gateway: the SDK for TypeScript and the Inspector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.gateway.everything import TEMPLATE, URI, Everything
from tests.gateway.questions import serving
from tests.gateway.test_killed import Process
from tests.node import find_node

pytestmark = pytest.mark.anyio

CLIENT = Path(__file__).with_name("foreign.mjs")
INSPECTOR = "@modelcontextprotocol/inspector"
CLIENTS = pytest.mark.parametrize(
    ("package", "mode"),
    [("sdk", "legacy"), ("client", "legacy"), ("client", "auto")],
    ids=["first", "legacy", "modern"],
)
OVER = pytest.mark.parametrize("stdio", [False, True], ids=["http", "stdio"])
PATIENCE = 60.0


class Foreign:
    """A client in another language."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, BufferedByteReceiveStream(process.stdout)

    async def __call__(self, act: str, **params: Any) -> Any:
        """Have it do something; returns what came of it."""
        await self._stdin.send(json.dumps([act, params]).encode() + b"\n")
        said = json.loads(await self._stdout.receive_until(b"\n", 1 << 20))
        assert "error" not in said, said["error"]
        return said["answer"]

    async def call(self, tool: str, **arguments: Any) -> Any:
        return await self("call", name=f"all__{tool}", arguments=arguments)


@asynccontextmanager
async def foreign(package: str, mode: str, *target: str) -> AsyncIterator[Foreign]:
    node, modules = find_node(f"@modelcontextprotocol/{package}")
    command = [str(node), str(CLIENT), str(modules), package, mode, *target]
    async with await anyio.open_process(command, stderr=None, env=os.environ) as process:
        try:
            client = Foreign(process)
            await client("connect")
            yield client
            await client("close")
        finally:
            if process.returncode is None:
                process.kill()


@asynccontextmanager
async def before(folder: Path) -> AsyncIterator[Process]:
    """The gateway's process, not started yet, before a server of both eras with every feature."""
    with anyio.fail_after(PATIENCE):
        async with serving(Everything()) as url:
            made = Process(folder, url)
            servers = {"all": {"url": url}}
            made.file.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
            try:
                yield made
            finally:
                if made.process is not None:
                    with anyio.CancelScope(shield=True):
                        await made.kill()


def stdio_command(made: Process) -> list[str]:
    return [sys.executable, "-m", "mcpconn", "serve", str(made.file), "--stdio", "--state", str(made.state)]


def text_of(result: Any) -> str:
    return str(result["content"][0]["text"])


@OVER
@CLIENTS
async def test_the_typescript_sdk_does_everything(tmp_path, package, mode, stdio):
    async with before(tmp_path) as made:
        if stdio:
            target = stdio_command(made)
        else:
            await made.start()
            target = [made.url]
        async with foreign(package, mode, *target) as client:
            names = [tool["name"] for tool in await client("tools")]
            assert {"all__rich", "all__form", "all__progress"} <= set(names)
            assert len(names) == len(set(names)) == 16
            assert (await client("resources"))[0]["uri"] == f"all+{URI}"
            assert len(await client("prompts")) == 10
            read = await client("read", uri=f"all+{URI}")
            assert read["contents"][0]["text"] == f"text of {URI}"
            said = await client("prompt", name="all__p3", arguments={"topic": "tea"})
            assert said["messages"][0]["content"]["text"] == "p3 tea"
            ref = {"type": "ref/resource", "uri": f"all+{TEMPLATE}"}
            done = await client("complete", ref=ref, argument={"name": "name", "value": "n"})
            assert done["completion"]["values"] == [f"{TEMPLATE} name n"]
            rich = (await client.call("rich"))["result"]
            assert rich["structuredContent"] == {"n": 7}
            progressed = await client.call("progress", who="ts")
            wanted = [[number, 3, f"ts {number}"] for number in (1, 2, 3)]
            # The SDK for TypeScript hands a notification on later than an answer that it reads in the same piece of a
            # pipe, and forgets by then who wanted to be told: a direct server's last ones are lost as well.
            assert progressed["progress"] in ([wanted[:n] for n in (1, 2, 3)] if stdio else [wanted])
            for kind, answer in (("form", "accept ts"), ("sample", "said ts"), ("roots", "file:///ts")):
                assert text_of((await client.call(kind))["result"]) == answer


@CLIENTS
async def test_the_typescript_sdk_lives_on(tmp_path, package, mode):
    async with before(tmp_path) as made:
        await made.start()
        async with foreign(package, mode, made.url) as client:
            assert text_of((await client.call("form"))["result"]) == "accept ts"
            await made.kill()
            await made.start()
            assert text_of((await client.call("form"))["result"]) == "accept ts"
            assert len(await client("tools")) == 16


async def inspect(made: Process, stdio: bool, *arguments: str) -> Any:
    """Run the Inspector on the command line; returns what it printed."""
    node, modules = find_node(INSPECTOR)
    entry = modules / INSPECTOR / "clients" / "cli" / "build" / "index.js"
    target = ["--transport", "http", made.url]
    if stdio:
        target = ["-e", f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}", *stdio_command(made)]
    done = await anyio.run_process(
        [str(node), str(entry), *arguments, *target],
        check=False,
        env={**os.environ, "HOME": str(made.file.parent)},
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    return json.loads(done.stdout)


@OVER
async def test_the_inspector_lists_and_calls(tmp_path, stdio):
    async with before(tmp_path) as made:
        if not stdio:
            await made.start()
        listed = await inspect(made, stdio, "--method", "tools/list")
        assert "all__rich" in [tool["name"] for tool in listed["tools"]]
        called = await inspect(made, stdio, "--method", "tools/call", "--tool-name", "all__rich")
        assert called["structuredContent"] == {"n": 7}
        if stdio:
            return  # each is a process that starts another
        read = await inspect(made, stdio, "--method", "resources/read", "--uri", f"all+{URI}")
        assert read["contents"][0]["text"] == f"text of {URI}"
        arguments = ("--prompt-name", "all__p3", "--prompt-args", "topic=tea")
        said = await inspect(made, stdio, "--method", "prompts/get", *arguments)
        assert said["messages"][0]["content"]["text"] == "p3 tea"
