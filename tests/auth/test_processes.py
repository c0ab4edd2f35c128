"""Processes that share a token file, and an authorization server that punishes whoever uses a token twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Condition

import anyio
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from mcpconn import Connection
from mcpconn.auth import FileTokenStorage
from mcpconn.auth.filelock import FIRST_LOOK, FileLock
from mcpconn.testing import Script
from tests.auth.servers import AuthServer, ServedAuth
from tests.support import SAFETY, quiet

CALL = """
import os
import sys
import anyio
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientMetadata
from mcpconn import Connection
from mcpconn.auth import FileTokenStorage
from mcpconn.errors import CallFailed
from tests.support import quiet

async def main(origin, path):
    metadata = OAuthClientMetadata(redirect_uris=["http://localhost:1/callback"])
    provider = OAuthClientProvider(origin + "/mcp", metadata, FileTokenStorage(path))
    answers = set()

    async def call():
        try:
            result = await connection.call_tool("add", {"a": 1, "b": 1})
            answers.add(result.content[0].text)
        except CallFailed as error:
            answers.add(error.failure.kind.value)

    headers = {"x-process": str(os.getpid())}
    config = {"url": origin + "/mcp", "auth": provider, "headers": headers, "mode": "legacy"}
    async with Connection(config) as connection:
        await call()
        await quiet(connection)
        answers.clear()
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(call)
        print(connection.state, *sorted(answers), flush=True)

anyio.run(main, *sys.argv[1:])
"""

HOLD = """
import sys
import anyio
from mcpconn.auth.filelock import FileLock

async def main(path):
    async with FileLock(path).held():
        print("held", flush=True)
        sys.stdin.readline()

anyio.run(main, *sys.argv[1:])
"""


class Child:
    """A program that says when it is ready, and goes on when it is told to."""

    def __init__(self, program: str, *arguments: str) -> None:
        root = str(Path(__file__).resolve().parents[2])
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


Start = Callable[..., Child]


@pytest.fixture
def children() -> Iterator[Start]:
    started: list[Child] = []

    def start(program: str, *arguments: str) -> Child:
        started.append(Child(program, *arguments))
        return started[-1]

    yield start
    for child in started:
        child.end()


def store(path: Path, server: AuthServer) -> None:
    """The tokens of a login that was made before."""
    client = OAuthClientInformationFull(client_id="client-1", issuer=server.origin)

    async def write() -> None:
        storage = FileTokenStorage(path)
        await storage.set_client_info(client)
        await storage.set_tokens(OAuthToken.model_validate(server.issue()))

    anyio.run(write)


def test_two_processes_that_meet_a_refusal_at_once_refresh_once(tmp_path: Path, children: Start) -> None:
    server, path = AuthServer(), tmp_path / "tokens.json"
    refused: set[str] = set()
    changed = Condition()

    def sending(path: str, headers: Mapping[str, str], status: int) -> None:
        """Hold the first refresh back until the second process would have sent its own, if it ever did."""
        with changed:
            if status == 401:
                refused.add(headers["x-process"])
            changed.notify_all()
            if path == "/as/token":
                changed.wait_for(lambda: len(refused) == 2, SAFETY)
                changed.wait_for(lambda: server.counts["refresh_token"] > 1, 1.5)

    with ServedAuth(server, Script(get_stream="405"), sending=sending):
        store(path, server)
        processes = [children(CALL, server.origin, str(path)) for _ in range(2)]
        assert [child.says() for child in processes] == ["ready", "ready"]
        server.revoke_access()
        for child in processes:
            child.go()
        # One renews, the other finds what that one has stored.
        assert [child.says() for child in processes] == ["ready 2", "ready 2"]
        assert (server.counts["refresh_token"], server.counts["reused"]) == (1, 0)
        assert server.valid == {"access-0002-secret"}
        assert json.loads(path.read_text())["tokens"]["refresh_token"] == "refresh-0002-secret"


def test_with_a_copy_of_the_file_the_second_process_loses_the_login(tmp_path: Path, children: Start) -> None:
    """So the server of the test above does punish a second use, and would have."""
    server, path, copy = AuthServer(), tmp_path / "tokens.json", tmp_path / "copy.json"
    with ServedAuth(server, Script(get_stream="405")):
        store(path, server)
        copy.write_bytes(path.read_bytes())
        processes = [children(CALL, server.origin, str(each)) for each in (path, copy)]
        assert [child.says() for child in processes] == ["ready", "ready"]
        server.revoke_access()
        answers = []
        for child in processes:
            child.go()
            answers.append(child.says())
        assert answers == ["ready 2", "failed auth"]
        assert (server.counts["refresh_token"], server.counts["reused"]) == (2, 1)
        assert server.valid == set()


class Held:
    """A token endpoint that keeps its answers back, after it has issued the tokens."""

    def __init__(self, *, holding: bool = True) -> None:
        self.changed = Condition()
        self.asked = 0
        self.holding = holding

    def sending(self, path: str, headers: Mapping[str, str], status: int) -> None:
        if path == "/as/token":
            with self.changed:
                self.asked += 1
                self.changed.notify_all()
                self.changed.wait_for(lambda: not self.holding, SAFETY)

    def wait(self) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.asked > 0, SAFETY)

    def release(self) -> None:
        with self.changed:
            self.holding = False
            self.changed.notify_all()


def test_a_holder_killed_between_spending_and_writing_ends_in_a_login(tmp_path: Path, children: Start) -> None:
    server, path, held = AuthServer(), tmp_path / "tokens.json", Held()
    with ServedAuth(server, Script(get_stream="405"), sending=held.sending):
        store(path, server)
        holder, other = (children(CALL, server.origin, str(path)) for _ in range(2))
        assert [holder.says(), other.says()] == ["ready", "ready"]
        server.revoke_access()
        holder.go()
        held.wait()
        mark = json.loads(path.read_text())["mark"]
        assert f"process {holder.process.pid}" in mark["holder"]
        holder.process.send_signal(signal.SIGKILL)
        holder.process.wait()
        held.release()
        other.go()
        # Visible, and the refresh token was used once: the server has not ended the whole login.
        assert other.says() == "failed auth"
        assert (server.counts["refresh_token"], server.counts["reused"]) == (1, 0)


def waits_for(connection: Connection) -> str | None:
    """What the connection's credentials wait for."""
    credentials = connection.status()["credentials"]
    assert credentials is not None
    return credentials["waiting"]


def test_a_holder_that_is_stopped_keeps_the_others_waiting_and_is_named(tmp_path: Path, children: Start) -> None:
    server, path, held = AuthServer(), tmp_path / "tokens.json", Held()
    with ServedAuth(server, Script(get_stream="405"), sending=held.sending):
        store(path, server)
        holder = children(CALL, server.origin, str(path))
        assert holder.says() == "ready"

        async def meanwhile() -> str:
            """What another program says of its connection while it waits, until the holder goes on."""
            metadata = OAuthClientMetadata(redirect_uris=[AnyUrl("http://localhost:1/callback")])
            auth = OAuthClientProvider(f"{server.origin}/mcp", metadata, FileTokenStorage(path))
            async with Connection({"url": f"{server.origin}/mcp", "auth": auth, "mode": "legacy"}) as connection:
                await quiet(connection)
                server.revoke_access()
                holder.go()
                await anyio.to_thread.run_sync(held.wait)
                holder.process.send_signal(signal.SIGSTOP)
                held.release()
                async with anyio.create_task_group() as group:
                    group.start_soon(connection.call_tool, "add", {"a": 1, "b": 1})
                    # Asked repeatedly, as by an operator. Real time has to pass: another process holds it up.
                    while (waiting := waits_for(connection)) is None:  # noqa: ASYNC110 - see above
                        await anyio.sleep(FIRST_LOOK)
                    holder.process.send_signal(signal.SIGCONT)
            return str(waiting)

        waiting = anyio.run(meanwhile)
        assert f"{path}> has been locked by process {holder.process.pid} for " in waiting
        assert holder.says() == "ready 2"
        assert (server.counts["refresh_token"], server.counts["reused"]) == (1, 0)


def test_a_lock_dies_with_its_process(tmp_path: Path, children: Start) -> None:
    holder = children(HOLD, str(tmp_path / "lock"))
    assert holder.says() == "held"

    async def take() -> bool:
        with anyio.move_on_after(SAFETY):
            async with FileLock(tmp_path / "lock").held():
                return True
        return False

    async def attempt() -> bool:
        with anyio.move_on_after(0.05):
            async with FileLock(tmp_path / "lock").held():
                return True
        return False

    assert not anyio.run(attempt)
    holder.process.send_signal(signal.SIGKILL)
    assert anyio.run(take)
