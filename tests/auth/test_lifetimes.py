"""How long tokens live, what clocks say, and how an authorization server that cannot answer now is waited for."""

from __future__ import annotations

import json
import time
from typing import Any

import anyio
import httpx2
import pytest

from mcpconn import FailureKind, State
from mcpconn.auth import OAuth
from mcpconn.auth.token_requests import BODY_LIMIT, NoAnswer, ask
from mcpconn.errors import CallFailed, ConnectionFailed
from mcpconn.testing.clock import virtual_backend
from tests.auth.hosts import error, raw
from tests.auth.servers import Answer
from tests.auth.test_oauth import World, add
from tests.auth.test_oauth_outages import answering

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both event loops, with a clock that jumps. Tokens expire by the wall clock, which does not."""
    return virtual_backend(request.param)


class Wall:
    """The wall clock, to be put right or wrong."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = time.time
        self.off = 0.0
        monkeypatch.setattr("time.time", lambda: real() + self.off)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


def lasting(expires_in: str) -> Any:
    """Tokens with this as the JSON of their lifetime; none where it is empty."""

    def dress(tokens: dict[str, object]) -> Answer:
        body = json.dumps({key: value for key, value in tokens.items() if key != "expires_in"})
        field = f', "expires_in": {expires_in}' if expires_in else ""
        return raw(200, "application/json", body[:-1] + field + "}")

    return dress


@pytest.mark.parametrize(
    "expires_in", ["", "null", "0", "-1", "-3600", '"0"', '"3600"', '"soon"', "3600.5", "NaN", "1e999", "9" * 400, "[]"]
)
async def test_no_lifetime_makes_a_token_request_of_every_request(expires_in: str) -> None:
    world = World()
    world.auth.dress = lasting(expires_in)
    async with world.connected() as connection:
        for _ in range(20):
            assert await add(connection) == "2"
        assert world.auth.counts["refresh_token"] == 0
        # When the server refuses the token, it is renewed as any other.
        world.auth.revoke_access()
        for _ in range(20):
            assert await add(connection) == "2"
        assert (world.auth.counts["refresh_token"], connection.epoch) == (1, 2)


async def test_tokens_that_are_too_short_lived_are_not_renewed_for_each_request(wall: Wall) -> None:
    world = World()
    world.auth.dress = lasting("1")
    async with world.connected() as connection:
        for _ in range(20):
            wall.off += 2
            assert await add(connection) == "2"
        assert world.auth.counts["refresh_token"] == 1


@pytest.mark.parametrize("jump", [86400.0, 400 * 86400.0, -86400.0, -400 * 86400.0])
async def test_a_clock_jump_costs_one_renewal(wall: Wall, jump: float) -> None:
    world = World()
    async with world.connected() as connection:
        wall.off = jump
        for _ in range(20):
            assert await add(connection) == "2"
        assert world.auth.counts["refresh_token"] == (1 if jump > 0 else 0)
        assert connection.epoch == 1
        wall.off = 0.0
        world.auth.revoke_access()
        assert await add(connection) == "2"


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        (raw(429, "text/plain", "", retry_after="20"), 20),
        (raw(503, "text/plain", "", retry_after="20"), 20),
        (error(400, "temporarily_unavailable", retry_after="20"), 20),
        (error(200, "slow_down", retry_after="20"), 20),
        (raw(429, "text/plain", "", retry_after="soon"), 0),
        (raw(503, "text/plain", "", retry_after="-5"), 0),
    ],
)
async def test_a_token_endpoints_retry_after_holds(answer: Answer, wait: float) -> None:
    world = World()
    async with world.connected() as connection:
        asked: list[float] = []

        def busy() -> Answer | None:
            asked.append(anyio.current_time())
            return answer if len(asked) == 1 else None

        answering(world, "/as/token", busy)
        world.auth.revoke_access()
        assert await add(connection, timeout=300) == "2"
        assert len(asked) == 2
        assert wait <= asked[1] - asked[0] < wait + 5
        assert world.person.logins == 1  # type: ignore[union-attr]


async def test_an_outage_for_good_fails_the_connection_and_says_of_what() -> None:
    world = World()
    async with world.connected() as connection:
        world.auth.revoke_access()
        answering(world, "/as/token", lambda: error(503, "server_error", "the database is down"))
        with pytest.raises(CallFailed):
            await add(connection, timeout=200)
        assert connection.state is State.FAILED
        assert connection.last_failure is not None
        assert connection.last_failure.kind is FailureKind.UNAVAILABLE
        assert "server_error (the database is down)" in connection.last_failure.summary
        with pytest.raises(ConnectionFailed, match="the database is down"):
            await add(connection)


async def test_a_server_that_hangs_holds_up_one_request_and_no_more() -> None:
    world = World()
    async with world.connected() as connection:
        credentials = connection._request_auth.credentials  # type: ignore[union-attr]
        assert isinstance(credentials, OAuth)

        async def hang(request: httpx2.Request) -> httpx2.Response:
            await anyio.sleep_forever()
            raise AssertionError("unreachable")

        connection._request_auth._fetch = hang  # type: ignore[union-attr]
        credentials.provider.context.token_expiry_time = time.time() + 5
        waits = []
        for _ in range(5):
            began = anyio.current_time()
            assert await add(connection) == "2"
            waits.append(round(anyio.current_time() - began))
        assert waits[0] <= 12
        assert waits[1:] == [0, 0, 0, 0]


async def test_a_scope_that_shrinks_or_grows_with_a_refresh_is_noted() -> None:
    world, scopes = World(), ["files:read files:write", "files:read", "files:read mail", None]
    given = iter(scopes)

    def dress(tokens: dict[str, object]) -> Answer:
        scope = next(given)
        return raw(200, "application/json", json.dumps(tokens if scope is None else {**tokens, "scope": scope}))

    world.auth.dress = dress
    async with world.connected() as connection:
        stored = []
        for _ in scopes:
            assert world.storage.tokens is not None
            stored.append(world.storage.tokens.scope)
            if len(stored) < len(scopes):
                world.auth.revoke_access()
                assert await add(connection) == "2"
        # What a refresh leaves out is as before.
        assert stored == [*scopes[:3], scopes[2]]


@pytest.mark.parametrize("rotates", [True, False])
async def test_refresh_tokens_that_rotate_or_not_are_good_for_years(rotates: bool) -> None:
    world = World()
    world.auth.rotates = rotates
    async with world.connected() as connection:
        for _ in range(5):
            world.auth.revoke_access()
            assert await add(connection) == "2"
            await anyio.sleep(3600)
        assert world.auth.counts["refresh_token"] == 5
        assert world.auth.counts["reused"] == 0
        assert world.storage.tokens is not None
        expected = "refresh-0006-secret" if rotates else "refresh-0001-secret"
        assert world.storage.tokens.refresh_token == expected


async def test_a_person_does_not_log_in_again_because_the_trade_had_to_wait() -> None:
    world = World()
    busy = [error(503, "temporarily_unavailable"), raw(429, "text/plain", "", retry_after="20")]
    answering(world, "/as/token", lambda: busy.pop() if busy else None)
    began = anyio.current_time()
    async with world.connected() as connection:
        assert connection.epoch == 1
        assert (world.person.logins, world.auth.counts["authorization_code"]) == (1, 1)  # type: ignore[union-attr]
        assert 20 <= anyio.current_time() - began < 30


# -- single requests

REQUEST = httpx2.Request("POST", "http://as.example/token", data={"refresh_token": "refresh-secret"})


class Body(httpx2.AsyncByteStream):
    def __init__(self, pause: float, chunk: bytes) -> None:
        self.pause, self.chunk = pause, chunk
        self.closed = False

    async def __aiter__(self) -> Any:
        while True:
            await anyio.sleep(self.pause)
            yield self.chunk

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (Body(5.0, b"{"), "http://as.example: no answer within 20 s"),
        (Body(0.0, b"x" * BODY_LIMIT), "the connection was cut before the answer was complete"),
    ],
)
async def test_an_answer_without_end_is_given_up(body: Body, says: str) -> None:
    from mcpconn.auth.token_requests import send

    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, stream=body))
    async with httpx2.AsyncClient(transport=transport) as client:
        with pytest.raises(NoAnswer, match=says) as caught:
            await ask(REQUEST, lambda request: send(client, request))
    assert (body.closed, caught.value.written) == (True, True)


async def test_too_many_redirects_are_not_followed() -> None:
    asked: list[str] = []

    async def fetch(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        response = httpx2.Response(307, headers={"location": f"{request.url.path}x"}, request=request)
        response.next_request = httpx2.Request("POST", f"{request.url}x", content=b"")
        return response

    response = await ask(REQUEST, fetch)
    assert (response.status_code, len(asked)) == (307, 6)
