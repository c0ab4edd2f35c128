"""Replicas that share a rotating refresh token in Redis, before an authorization server that punishes a second use."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator

import anyio
import pytest
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from mcpconn.auth import RedisTokenStorage
from mcpconn.testing import Script
from tests.auth.servers import AuthServer, ServedAuth
from tests.auth.test_processes import Child, Held
from tests.redis_server import RedisServer, needs_redis

pytestmark = needs_redis

NAME = "alice"
REPLICAS = 4
CALLS = 50
ABANDONED = 3.0
"""Seconds after which a mark counts as left behind, in these replicas; usually a minute."""

REPLICA = """
import os, sys
import anyio
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientMetadata
from mcpconn import Connection
from mcpconn.auth import RedisTokenStorage, grants, held
from mcpconn.errors import CallFailed
from tests.support import quiet

held.ABANDONED = float(os.environ["ABANDONED"])
send = grants.Request.tokens

async def slowly(self, request, server):
    # The mark is written, and nothing is sent yet.
    print("marked", flush=True)
    await anyio.to_thread.run_sync(sys.stdin.readline)
    return await send(self, request, server)

if os.environ.get("STOP_AT_MARK"):
    grants.Request.tokens = slowly

async def main(origin, url, key, name, calls):
    async with RedisTokenStorage(url, name, keys=[bytes.fromhex(key)]) as storage:
        metadata = OAuthClientMetadata(redirect_uris=["http://localhost:1/callback"])
        provider = OAuthClientProvider(origin + "/mcp", metadata, storage)
        config = {"url": origin + "/mcp", "auth": provider, "mode": "legacy"}

        async def call():
            try:
                result = await connection.call_tool("add", {"a": 1, "b": 1})
                answers.add(result.content[0].text)
            except CallFailed as error:
                answers.add(error.failure.kind.value)
                said.add(str(error))

        answers, said = set(), set()
        async with Connection(config) as connection:
            await call()
            await quiet(connection)
            while True:
                print(connection.state, *sorted(answers), "|", *sorted(said)[:1], flush=True)
                if not await anyio.to_thread.run_sync(sys.stdin.readline):
                    return
                answers, said = set(), set()
                async with anyio.create_task_group() as group:
                    for _ in range(int(calls)):
                        group.start_soon(call)

anyio.run(main, *sys.argv[1:])
"""


class Fleet:
    """Replicas, the store and the authorization server."""

    def __init__(self, redis: RedisServer, server: AuthServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.redis = redis
        self.server = server
        self.key = secrets.token_bytes(32)
        self.children: list[Child] = []
        self._patch = monkeypatch
        monkeypatch.setenv("ABANDONED", str(ABANDONED))

    def log_in(self) -> None:
        """Store the tokens of a login."""

        async def write() -> None:
            async with self.storage() as storage:
                await storage.set_client_info(OAuthClientInformationFull(client_id="c", issuer=self.server.origin))
                await storage.set_tokens(OAuthToken.model_validate(self.server.issue()))

        anyio.run(write)

    def storage(self) -> RedisTokenStorage:
        return RedisTokenStorage(self.redis.url, NAME, keys=[self.key])

    def is_marked(self) -> bool:
        """Whether Redis says that a refresh is in progress."""

        async def read() -> bool:
            async with self.storage() as storage:
                return (await storage.load()).mark is not None

        return anyio.run(read)

    def start(self, count: int = REPLICAS, *, calls: int = 2, stop_at_mark: bool = False) -> list[Child]:
        if stop_at_mark:
            self._patch.setenv("STOP_AT_MARK", "1")
        else:
            self._patch.delenv("STOP_AT_MARK", raising=False)
        arguments = (self.server.origin, self.redis.url, self.key.hex(), NAME, str(calls))
        started = [Child(REPLICA, *arguments) for _ in range(count)]
        self.children += started
        assert [state(child) for child in started] == ["ready 2"] * count
        return started

    @property
    def spent(self) -> tuple[int, int]:
        """How often a refresh token was sent, and how often one that was used before."""
        return self.server.counts["refresh_token"], self.server.counts["reused"]


@pytest.fixture
def held() -> Held:
    return Held(holding=False)


@pytest.fixture
def fleet(redis, monkeypatch, held) -> Iterator[Fleet]:
    server = AuthServer()
    with ServedAuth(server, Script(get_stream="405"), sending=held.sending):
        made = Fleet(redis, server, monkeypatch)
        made.log_in()
        try:
            yield made
        finally:
            held.release()
            for child in made.children:
                child.end()


def state(child: Child) -> str:
    """What a replica says of its connection and of its calls, without the reasons."""
    return child.says().partition(" |")[0]


def spent_by_one_of_two(fleet: Fleet, held: Held) -> tuple[Child, Child]:
    """Two replicas: the first has spent the refresh token, and the answer is kept back from it."""
    holder, other = fleet.start(2)
    held.holding = True
    fleet.server.revoke_access()
    holder.go()
    held.wait()
    return holder, other


def test_two_hundred_calls_cost_one_refresh(fleet):
    replicas = fleet.start(calls=CALLS)
    fleet.server.revoke_access()
    for child in replicas:
        child.go()
    assert [state(child) for child in replicas] == ["ready 2"] * REPLICAS
    assert fleet.spent == (1, 0)


def test_a_holder_stopped_before_it_sends(fleet):
    (holder,) = fleet.start(1, stop_at_mark=True)
    others = fleet.start(2)
    fleet.server.revoke_access()
    holder.go()
    assert holder.says() == "marked"
    holder.process.send_signal(signal.SIGSTOP)
    for child in others:
        child.go()
    for child in others:
        answer = child.says()
        assert answer.startswith("failed auth"), answer
        assert "has not finished" in answer
    holder.process.send_signal(signal.SIGCONT)
    holder.go()
    assert state(holder) == "ready 2", "nobody has used the token meanwhile"
    assert fleet.spent == (1, 0)


def test_a_holder_stopped_before_it_writes(fleet, held):
    holder, other = spent_by_one_of_two(fleet, held)
    holder.process.send_signal(signal.SIGSTOP)
    held.release()
    other.go()
    assert state(other) == "failed auth"
    holder.process.send_signal(signal.SIGCONT)
    assert state(holder) == "ready 2"
    assert fleet.spent == (1, 0)
    (later,) = fleet.start(1)
    later.go()
    assert state(later) == "ready 2", "what the holder wrote is used by others"
    assert fleet.spent == (1, 0)


def test_a_holder_killed_before_it_writes(fleet, held):
    holder, other = spent_by_one_of_two(fleet, held)
    holder.process.kill()
    holder.process.wait()
    held.release()
    other.go()
    answer = other.says()
    assert answer.startswith("failed auth"), answer
    assert "the refresh token may be used up already" in answer
    assert fleet.spent == (1, 0)
    fleet.log_in()
    fleet.start(1)
    assert fleet.spent == (1, 0)


def test_redis_killed_during_a_refresh(fleet, held):
    holder, other = spent_by_one_of_two(fleet, held)
    fleet.redis.kill()
    held.release()
    assert state(holder) == "ready 2", "it uses the tokens that it could not store"
    fleet.redis.start()
    assert fleet.is_marked()
    while fleet.is_marked():
        # A request now and then, which stores them once Redis is reached again.
        holder.go()
        assert state(holder) == "ready 2"
    other.go()
    assert state(other) == "ready 2"
    assert fleet.spent == (1, 0)


def test_without_redis_no_refresh_is_begun(fleet):
    (child,) = fleet.start(1)
    fleet.redis.kill()
    child.go()
    assert state(child) == "ready 2", "a token that is good needs no store"
    fleet.server.revoke_access()
    child.go()
    answer = child.says()
    assert "2" not in answer.partition(" |")[0], answer
    assert fleet.spent == (0, 0)
    fleet.redis.start()


def test_no_token_is_in_clear_in_redis(fleet):
    files = b"".join(path.read_bytes() for path in fleet.redis.folder.rglob("*") if path.is_file())
    assert b"-secret" not in files
    assert b"record" in files
