"""OAuth while the authorization server is away, or answers what nobody can use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from mcpconn import FailureKind, State
from mcpconn.errors import CallFailed
from mcpconn.testing.clock import virtual_backend
from tests.auth.servers import Answer
from tests.auth.test_oauth import World, add, require
from tests.support import Seen

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both event loops, with a clock that jumps."""
    return virtual_backend(request.param)


def answering(world: World, beginning: str, answer: Callable[[], Answer | None]) -> None:
    """Have the authorization server answer requests for what begins so otherwise; None: as ever."""
    usual = world.auth.answer

    def other(method: str, path: str, headers: Any, body: bytes) -> Answer | None:
        given = answer() if path.startswith(beginning) else None
        return given if given is not None else usual(method, path, headers, body)

    world.auth.answer = other  # type: ignore[method-assign]


@pytest.mark.parametrize("path", ["/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource"])
@pytest.mark.parametrize("status", [429, 503])
async def test_after_a_restart_metadata_that_cannot_be_had_now_is_asked_for_again(path: str, status: int) -> None:
    world = World()
    async with world.connected():
        pass
    # Another process, which knows the tokens and nothing else. The access token is not good any more.
    world.auth.revoke_access()
    away = True
    answering(world, path, lambda: (status, {}, b"") if away else None)

    async def mend() -> None:
        nonlocal away
        await anyio.sleep(5)
        away = False

    async with anyio.create_task_group() as group:
        group.start_soon(mend)
        async with world.connected() as connection:
            assert connection.epoch == 1
    # The outage was no reason to ask the person, or to throw the refresh token away.
    assert (world.person.logins, world.auth.counts["refresh_token"]) == (1, 1)  # type: ignore[union-attr]


async def test_a_token_endpoint_that_has_moved_within_its_origin_is_followed() -> None:
    world = World()
    async with world.connected() as connection:
        usual = world.auth.answer

        def moved(method: str, path: str, headers: Any, body: bytes) -> Answer | None:
            if path == "/as/token":
                return 307, {"location": "/as/v2/token"}, b""
            return usual(method, path.replace("/as/v2/", "/as/"), headers, body)

        world.auth.answer = moved  # type: ignore[method-assign]
        world.auth.revoke_access()
        assert await add(connection) == "2"
        assert (world.person.logins, world.auth.counts["refresh_token"]) == (1, 1)  # type: ignore[union-attr]


async def test_unreadable_tokens_are_asked_again() -> None:
    world = World()
    async with world.connected() as connection:
        answers = [(200, {"content-type": "application/json"}, b'{"token_type": "Bearer"}')]
        answering(world, "/as/token", lambda: answers.pop() if answers else None)
        world.auth.revoke_access()
        assert await add(connection) == "2"
        assert world.person.logins == 1  # type: ignore[union-attr]


async def test_unavailable_rights_cost_one_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    async with world.connected() as connection:
        require(world, "files:write")
        world.auth.status = 503
        seen = Seen(connection)
        with pytest.raises(CallFailed) as caught:
            await add(connection)
        assert caught.value.failure.kind is FailureKind.AUTH
        assert (connection.state, seen.events, connection.epoch) == (State.READY, ["suspected"], 1)
        assert "oauth.not_stepped_up scope='files:write'" in caplog.text
        world.auth.status = None
        assert await add(connection) == "2"
