"""OAuth with the SDK's providers, through a connection."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from mcpconn import Connection, FailureKind, State
from mcpconn.auth import CredentialsRefused, OAuth
from mcpconn.auth.request_auth import as_credentials
from mcpconn.errors import CallFailed, ConnectionFailed
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.clock import settle, virtual_backend
from tests.auth.servers import ORIGIN, AuthServer, Guarded
from tests.support import Arrivals, Seen, quiet, text_of

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both event loops, with a clock that jumps. Tokens expire by the wall clock, which does not."""
    return virtual_backend(request.param)


class Memory:
    """The SDK's token storage, in memory: what a restarted program finds."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None
        self.broken = False

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        if self.broken:
            raise OSError(28, "No space left on device")
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Person:
    """Somebody at a browser, who logs in at once unless told otherwise."""

    def __init__(self) -> None:
        self.logins = 0
        self.away = False
        self._state: str | None = None
        self._scope = ""

    async def redirect(self, url: str) -> None:
        self.logins += 1
        asked = parse_qs(urlsplit(url).query)
        self._state, self._scope = asked["state"][0], asked.get("scope", [""])[0]

    async def callback(self) -> AuthorizationCodeResult:
        if self.away:
            await anyio.sleep_forever()
        return AuthorizationCodeResult(code=f"code:{self._scope}", state=self._state)


def provider(storage: Any, person: Person | None = None, url: str = f"{ORIGIN}/mcp") -> OAuthClientProvider:
    metadata = OAuthClientMetadata(client_name="tests", redirect_uris=[AnyUrl("http://localhost:1/callback")])
    return OAuthClientProvider(
        url,
        metadata,
        storage,
        redirect_handler=person.redirect if person else None,
        callback_handler=person.callback if person else None,
    )


class World:
    """A server that asks for tokens, the one that issues them, a person, and what the program has stored."""

    def __init__(self, **options: Any) -> None:
        self.script = Script(**options)
        self.auth = AuthServer()
        self.transport = Guarded(self.auth, ScriptTransport(self.script))
        self.storage = Memory()
        self.person: Person | None = Person()

    @asynccontextmanager
    async def connected(self, auth: Any = None, **config: Any) -> AsyncIterator[Connection]:
        auth = auth if auth is not None else provider(self.storage, self.person)
        entry = {"url": f"{ORIGIN}/mcp", "http_transport": self.transport, "auth": auth, **config}
        async with Connection(entry, name="srv") as connection:
            await add(connection)
            await quiet(connection)
            yield connection


async def add(connection: Connection, **options: Any) -> str:
    return text_of(await connection.call_tool("add", {"a": 1, "b": 1}, **options))


async def test_the_first_connect_logs_in_once() -> None:
    world = World()
    began = anyio.current_time()
    async with world.connected() as connection:
        assert anyio.current_time() - began < 0.1
        assert (connection.epoch, world.person.logins) == (1, 1)  # type: ignore[union-attr]
        assert (world.auth.counts["register"], world.auth.counts["authorization_code"]) == (1, 1)
        # The first request tells what is needed; none after that goes without a token.
        assert world.transport.seen[0] == ""
        assert set(world.transport.seen[1:]) == {"Bearer access-0001-secret"}


async def test_a_login_outlives_expired_sessions() -> None:
    world = World()
    async with world.connected() as connection:
        before = world.auth.counts.copy()
        for epoch in (2, 3):
            world.script.forget_sessions()
            assert await add(connection) == "2"
            await quiet(connection)
            assert connection.epoch == epoch
        assert world.auth.counts == before


async def test_fifty_calls_with_a_token_that_was_revoked_spend_one_refresh_token() -> None:
    world = World()
    async with world.connected() as connection:
        world.auth.revoke_access()
        answers: list[str] = []

        async def call() -> None:
            answers.append(await add(connection))

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(call)
        assert answers == ["2"] * 50
        assert (world.auth.counts["refresh_token"], world.auth.counts["authorization_code"]) == (1, 1)
        assert (connection.epoch, world.script.count("initialize")) == (2, 2)


async def test_after_a_restart_a_revoked_token_is_renewed_without_a_person() -> None:
    world = World()
    async with world.connected():
        pass
    world.auth.revoke_access()
    world.person = None
    before = world.auth.counts.copy()
    async with world.connected() as connection:
        assert connection.epoch == 1
        made = world.auth.counts - before
        # Where the token endpoint is has to be found out again: a guess would send the refresh token elsewhere.
        assert made == {"refused": 1, "resource": 1, "metadata": 1, "refresh_token": 1}


async def test_an_expired_token_is_renewed_before_a_refusal() -> None:
    world = World()
    async with world.connected() as connection:
        credentials = connection._request_auth.credentials  # type: ignore[union-attr]
        assert isinstance(credentials, OAuth)
        seen, refused = Seen(connection), world.auth.counts["refused"]
        credentials.provider.context.token_expiry_time = 1
        answers: list[str] = []

        async def call() -> None:
            answers.append(await add(connection))

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(call)
        assert answers == ["2"] * 20
        assert (seen.events, connection.epoch) == ([], 1)
        assert (world.auth.counts["refresh_token"], world.auth.counts["refused"]) == (1, refused)


async def test_the_end_of_a_stored_token_is_known_after_a_restart() -> None:
    world = World()
    async with world.connected():
        pass
    assert world.storage.tokens is not None
    world.storage.tokens.expires_in = 0
    before = world.auth.counts["refused"]
    async with world.connected() as connection:
        assert connection.epoch == 1
        assert (world.auth.counts["refused"], world.auth.counts["refresh_token"]) == (before, 1)


async def test_a_renewal_ahead_of_time_that_fails_leaves_the_say_to_the_server() -> None:
    world = World()
    async with world.connected() as connection:
        context = connection._request_auth.credentials.provider.context  # type: ignore[union-attr]
        context.token_expiry_time = 1
        world.transport.down = True
        assert await add(connection) == "2"
        assert connection.epoch == 1


async def test_other_resources_get_no_token() -> None:
    world = World()
    async with world.connected():
        pass
    world.person = None
    world.auth.revoke_access()
    auth = provider(world.storage)
    auth.context.server_url = f"{ORIGIN}/other"
    entry = {"url": f"{ORIGIN}/mcp", "http_transport": world.transport, "auth": auth}
    with pytest.raises(ConnectionFailed, match="does not match expected") as caught:
        async with Connection(entry, name="srv"):
            pass
    assert caught.value.failure.kind is FailureKind.AUTH
    assert world.auth.counts["refresh_token"] == 0


async def test_while_the_authorization_server_is_away_the_connection_tries_again() -> None:
    world = World()
    async with world.connected() as connection:
        await anyio.sleep(600)
        world.auth.revoke_access()
        world.auth.status = 503
        seen = Seen(connection)

        async def mend() -> None:
            await anyio.sleep(3)
            world.auth.status = None

        async with anyio.create_task_group() as group:
            group.start_soon(mend)
            assert await add(connection) == "2"
        assert seen.events[0] == "lost"
        assert set(seen.events[1:-1]) == {"attempt_failed"}
        assert seen.events[-1] == "established"
        assert world.person.logins == 1  # type: ignore[union-attr]


async def test_an_outage_at_the_login_is_no_reason_to_give_up_either() -> None:
    world = World()
    world.auth.status = 503

    async def mend() -> None:
        await anyio.sleep(5)
        world.auth.status = None

    async with anyio.create_task_group() as group:
        group.start_soon(mend)
        async with world.connected() as connection:
            assert connection.epoch == 1


async def test_a_refresh_token_that_is_refused_sends_the_person_to_log_in() -> None:
    world = World()
    async with world.connected() as connection:
        world.auth.revoke_all()
        assert await add(connection) == "2"
        assert world.person.logins == 2  # type: ignore[union-attr]
        assert world.auth.counts["refresh_token"] == 1


async def test_without_a_way_to_log_in_it_fails_with_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = World()
    async with world.connected():
        pass
    world.person = None
    async with world.connected() as connection:
        world.auth.revoke_all()
        with pytest.raises(ConnectionFailed) as caught:
            await add(connection)
        message = str(caught.value)
        assert caught.value.failure.kind is FailureKind.AUTH
        assert "the refresh token was refused: invalid_grant (*** is not known)" in message
        assert "login is not possible: the provider has no redirect handler" in message
        assert "log in again" in message
        assert "update_credentials()" in message
        shown = message + repr(connection.status()) + caplog.text + repr(caught.value.failure)
        assert "refresh-0001-secret" not in shown
        assert "access-0001-secret" not in shown
        sent, asked = len(world.transport.seen), world.auth.counts.copy()
        with pytest.raises(ConnectionFailed):
            await add(connection)
        await anyio.sleep(3600)
        assert (len(world.transport.seen), world.auth.counts) == (sent, asked)


async def test_a_token_that_is_refused_right_after_the_login_is_renewed_once_more() -> None:
    """As when the authorization server is replaced just then."""
    world = World()
    entry = {"url": f"{ORIGIN}/mcp", "http_transport": world.transport, "auth": provider(world.storage, world.person)}
    async with Connection(entry, name="srv") as connection:
        seen = Seen(connection)
        world.auth.revoke_access()
        assert await add(connection) == "2"
        assert [event for event in seen.events if event != "suspected"] == ["lost", "established"]
        assert world.auth.counts["refresh_token"] == 1


async def test_a_login_elsewhere_reconnects_it() -> None:
    world = World()
    async with world.connected():
        pass
    world.person = None
    async with world.connected() as connection:
        world.auth.revoke_all()
        with pytest.raises(ConnectionFailed):
            await add(connection)
        world.storage.tokens = OAuthToken.model_validate(world.auth.issue())
        refused = world.auth.counts["refused"]
        await connection.update_credentials()
        assert await add(connection) == "2"
        assert world.auth.counts["refused"] == refused


async def test_a_timed_out_login_can_be_retried() -> None:
    world = World()
    assert world.person is not None
    world.person.away = True
    auth = OAuth(provider(world.storage, world.person), login_timeout=120)
    entry = {"url": f"{ORIGIN}/mcp", "http_transport": world.transport, "auth": auth, "lazy": True}
    async with Connection(entry, name="srv") as connection:
        began = anyio.current_time()
        with pytest.raises(ConnectionFailed, match="the login was not completed within 120 s") as caught:
            await add(connection, timeout=None)
        assert caught.value.failure.kind is FailureKind.AUTH
        assert 120 <= anyio.current_time() - began < 121
        world.person.away = False
        await connection.update_credentials()
        assert await add(connection) == "2"
        assert world.person.logins == 2


async def test_a_login_may_take_longer_than_a_dial_and_does_not_hold_its_slot() -> None:
    world = World()
    assert world.person is not None
    world.person.away = True
    waiting = Connection(
        {"url": f"{ORIGIN}/mcp", "http_transport": world.transport, "auth": provider(world.storage, world.person)}
    )
    async with anyio.create_task_group() as group:
        waiting.run_in(group)
        await anyio.sleep(200)
        assert waiting.state is State.CONNECTING
        assert waiting._shared.dials._total is not None
        assert waiting._shared.dials._total.borrowed_tokens == 0
        waiting.close()
        group.cancel_scope.cancel()


async def test_tokens_on_their_way_are_stored_although_the_connection_is_closed() -> None:
    world = World()
    async with world.connected() as connection:
        under_way = anyio.Event()
        fetch = connection._request_auth._fetch  # type: ignore[union-attr]

        async def slow(request: Any) -> Any:
            response = await fetch(request)  # type: ignore[misc]
            if request.url.path == "/as/token":
                under_way.set()
                await anyio.sleep(1)
            return response

        connection._request_auth._fetch = slow  # type: ignore[union-attr]
        world.auth.revoke_access()
        async with anyio.create_task_group() as group:

            async def call() -> None:
                with pytest.raises(CallFailed):
                    await add(connection)

            group.start_soon(call)
            await under_way.wait()
            connection.close()
    assert world.storage.tokens is not None
    assert world.storage.tokens.refresh_token == "refresh-0002-secret"


async def test_tokens_that_cannot_be_stored_are_used_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    async with world.connected() as connection:
        world.storage.broken = True
        world.auth.revoke_access()
        assert await add(connection) == "2"
        assert "oauth.not_saved" in caplog.text
        world.auth.revoke_access()
        assert await add(connection) == "2"
        world.storage.broken = False
        world.auth.revoke_access()
        assert await add(connection) == "2"
        assert world.person.logins == 1  # type: ignore[union-attr]
        assert world.storage.tokens is not None
        assert world.storage.tokens.refresh_token == "refresh-0004-secret"


async def test_a_slow_call_does_not_delay_others() -> None:
    world = World()
    async with world.connected() as connection:
        arrivals, finished = Arrivals(world.script), []

        async def nap() -> None:
            await connection.call_tool("slow", {"seconds": 30})
            finished.append("nap")

        async with anyio.create_task_group() as group:
            group.start_soon(nap)
            await arrivals.reach(1)
            assert await add(connection) == "2"
            finished.append("add")
        assert finished == ["add", "nap"]


async def test_a_call_that_needs_more_rights_gets_them_and_is_made_again() -> None:
    world = World()
    async with world.connected() as connection:
        seen = Seen(connection)
        require(world, "files:write")
        assert await add(connection) == "2"
        assert (seen.events, connection.epoch, world.person.logins) == ([], 1, 2)  # type: ignore[union-attr]
        assert await add(connection) == "2"
        assert world.person.logins == 2  # type: ignore[union-attr]


async def test_a_denied_scope_is_asked_for_once() -> None:
    world = World()
    async with world.connected() as connection:
        require(world, "files:write")
        world.auth.scope = "files:read"
        for _ in range(3):
            with pytest.raises(CallFailed) as caught:
                await add(connection)
            assert caught.value.failure.kind is FailureKind.AUTH
        assert (connection.state, world.person.logins) == (State.READY, 2)  # type: ignore[union-attr]


async def test_ten_calls_that_need_more_rights_ask_the_person_once() -> None:
    world = World()
    async with world.connected() as connection:
        require(world, "files:write")
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(add, connection)
        assert world.person.logins == 2  # type: ignore[union-attr]


async def test_a_refresh_token_is_not_shown_to_another_authorization_server() -> None:
    world = World()
    async with world.connected():
        pass
    assert world.storage.client is not None
    world.storage.client.issuer = "http://another.example"
    world.auth.revoke_access()
    async with world.connected() as connection:
        assert connection.epoch == 1
        assert (world.auth.counts["refresh_token"], world.person.logins) == (0, 2)  # type: ignore[union-attr]
        assert world.auth.counts["register"] == 2


async def test_client_credentials_need_no_person() -> None:
    world = World()
    auth = ClientCredentialsOAuthProvider(
        f"{ORIGIN}/mcp", world.storage, "client", "a-client-secret", issuer=f"{ORIGIN}"
    )
    async with world.connected(auth) as connection:
        world.auth.revoke_all()
        assert await add(connection) == "2"
        assert (connection.epoch, world.auth.counts["client_credentials"]) == (2, 2)


async def test_client_credentials_have_one_issuer() -> None:
    world = World()
    auth = ClientCredentialsOAuthProvider(
        f"{ORIGIN}/mcp", world.storage, "client", "a-client-secret", issuer="http://another.example"
    )
    entry = {"url": f"{ORIGIN}/mcp", "http_transport": world.transport, "auth": auth}
    with pytest.raises(ConnectionFailed, match="issuer mismatch") as caught:
        async with Connection(entry, name="srv"):
            pass
    assert caught.value.failure.kind is FailureKind.AUTH
    assert world.auth.counts["client_credentials"] == 0


async def test_what_the_authorization_server_says_back_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = World()
    world.auth.error = {"error": "invalid_client", "error_description": "a-client-secret is not yours"}
    auth = ClientCredentialsOAuthProvider(
        f"{ORIGIN}/mcp",
        world.storage,
        "client",
        "a-client-secret",
        token_endpoint_auth_method="client_secret_post",
        issuer=f"{ORIGIN}",
    )
    entry = {"url": f"{ORIGIN}/mcp", "http_transport": world.transport, "auth": auth}
    with pytest.raises(ConnectionFailed) as caught:
        async with Connection(entry, name="srv"):
            pass
    assert "invalid_client (*** is not yours)" in str(caught.value)
    assert "a-client-secret" not in str(caught.value) + caplog.text


async def test_one_provider_is_one_set_of_credentials_wherever_it_is_given() -> None:
    given = provider(Memory())
    assert as_credentials(given) is as_credentials(given)
    assert repr(as_credentials(given)) == "<OAuth OAuthClientProvider>"


async def test_a_provider_of_its_own_flow_is_kept() -> None:
    class Own(OAuthClientProvider):
        async def async_auth_flow(self, request: Any) -> Any:
            yield request

    own = Own("http://scripted/mcp", provider(Memory()).context.client_metadata, Memory())
    assert as_credentials(own) is own


async def test_callers_share_the_outcome_of_one_login_and_of_a_failed_one() -> None:
    world = World()
    assert world.person is not None
    world.person.away = True
    auth = OAuth(provider(world.storage, world.person), login_timeout=60)

    async def fetch(request: Any) -> Any:
        response = await world.transport.handle_async_request(request)
        response.request = request
        await response.aread()
        return response

    refused: list[str] = []

    async def renew() -> None:
        with pytest.raises(CredentialsRefused) as caught:
            await auth.renew(None, fetch=fetch)
        refused.append(str(caught.value))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(renew)
    assert (refused, world.person.logins) == (["the login was not completed within 60 s"] * 5, 1)


async def test_where_the_one_who_logs_in_leaves_another_takes_over() -> None:
    world = World()
    assert world.person is not None
    world.person.away = True
    auth = OAuth(provider(world.storage, world.person))

    async def fetch(request: Any) -> Any:
        response = await world.transport.handle_async_request(request)
        response.request = request
        await response.aread()
        return response

    async def first(scope: anyio.CancelScope) -> None:
        with scope:
            await auth.renew(None, fetch=fetch)

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        group.start_soon(first, scope)
        await settle()
        group.start_soon(lambda: auth.renew(None, fetch=fetch))
        await settle()
        world.person.away = False
        scope.cancel()
    assert (await auth.headers())["Authorization"] == "Bearer access-0001-secret"
    assert world.person.logins == 2


def require(world: World, scope: str) -> None:
    """Have the MCP server refuse calls of tools for tokens without `scope`."""
    guard = world.auth.answer

    def stricter(method: str, path: str, headers: Any, body: bytes) -> Any:
        answer = guard(method, path, headers, body)
        if path != "/mcp" or answer is not None or b'"tools/call"' not in body:
            return answer
        if scope in world.auth.scopes[headers["authorization"].removeprefix("Bearer ")].split():
            return None
        return 403, {"www-authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}, b""

    world.auth.answer = stricter  # type: ignore[method-assign]
