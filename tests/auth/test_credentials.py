"""Credentials on a connection: put on requests, renewed once when refused, and never shown."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest

from mcpconn import Connection, FailureKind, Manager, State
from mcpconn.auth import (
    Credentials,
    CredentialsRefused,
    CredentialsUnavailable,
    FromCallable,
    OAuth,
    StaticBearer,
)
from mcpconn.auth.request_auth import RequestAuth, as_credentials
from mcpconn.errors import CallFailed, ConfigError, ConnectionFailed
from mcpconn.redact.redactor import Redactor
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.clock import virtual_backend
from mcpconn.testing.scripted import faults
from tests.support import UNFINISHED_STREAMS, Seen, quiet, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

TOKEN = "tok_9f8e7d6c5b4a39281706"


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both event loops, with a clock that jumps."""
    return virtual_backend(request.param)


class Renewed:
    """Credentials that count, and that the test can have fail."""

    def __init__(self) -> None:
        self.serial = 0
        self.refreshes: list[str | None] = []
        self.answers: list[bool | Exception] = []
        """What the next refreshes come to; True if nothing is said."""

    async def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {TOKEN}-{self.serial}"}

    async def refresh(self, challenge: str | None) -> bool:
        self.refreshes.append(challenge)
        await anyio.sleep(0.01)
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        self.serial += answer
        return answer


class Recorded(httpx2.AsyncBaseTransport):
    """A scripted server, and the Authorization header of each request to it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.inner = ScriptTransport(script)
        self.sent: list[str | None] = []
        self.refused: set[str | None] = set()
        """Headers that are refused with 401, with a body that says them back."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        sent = request.headers.get("authorization")
        self.sent.append(sent)
        if sent in self.refused:
            return httpx2.Response(401, text=f"no such token: {sent}", request=request)
        return await self.inner.handle_async_request(request)


@asynccontextmanager
async def connected(
    script: Script, auth: Any, *, transport: Any = None, **config: Any
) -> AsyncIterator[tuple[Connection, Recorded]]:
    transport = transport or Recorded(script)
    entry = {"url": "http://scripted/mcp", "http_transport": transport, "auth": auth, **config}
    async with Connection(entry, name="srv") as connection:
        await connection.call_tool("add", {"a": 1, "b": 1})
        await quiet(connection)
        yield connection, transport


async def add(connection: Connection, **options: Any) -> str:
    return text_of(await connection.call_tool("add", {"a": 1, "b": 1}, **options))


@pytest.mark.parametrize("answer", ["json", "sse"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_fifty_calls_that_meet_a_401_cause_one_refresh_and_all_answer(era: Any, answer: Any) -> None:
    script, credentials = Script(era=era, answer=answer), Renewed()
    handshake = "initialize" if era == "legacy" else "server/discover"
    async with connected(script, credentials) as (connection, _):
        before = script.count(handshake)
        script.inject(faults.unauthorized(), times=50)
        answers: list[str] = []

        async def call() -> None:
            answers.append(await add(connection))

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(call)
        assert answers == ["2"] * 50
        assert credentials.refreshes == ['Bearer error="invalid_token"']
        assert (script.count(handshake) - before, connection.epoch) == (1, 2)
        assert script.executions["add"] == 51


async def test_the_renewed_credentials_are_on_every_request_after_the_refresh() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, transport):
        assert set(transport.sent) == {f"Bearer {TOKEN}-0"}
        transport.refused.add(f"Bearer {TOKEN}-0")
        before = len(transport.sent)
        assert await add(connection) == "2"
        await quiet(connection)
        assert transport.sent[before] == f"Bearer {TOKEN}-0"
        assert set(transport.sent[before + 1 :]) == {f"Bearer {TOKEN}-1"}


@pytest.mark.parametrize(
    ("answer", "says"),
    [(False, "HTTP 401"), (CredentialsRefused("the card has expired: get a new one"), "the card has expired")],
)
async def test_a_refused_refresh_fails_the_connection_and_nothing_is_sent_any_more(
    answer: bool | Exception, says: str
) -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, transport):
        seen = Seen(connection)
        script.inject(faults.unauthorized(), method=None, times=None)
        credentials.answers = [answer]
        before = len(transport.sent)
        with pytest.raises(ConnectionFailed, match=says) as caught:
            await add(connection)
        assert caught.value.failure.kind is FailureKind.AUTH
        assert caught.value.retry_in is None
        assert "update_credentials()" in str(caught.value)
        assert (connection.state, seen.events) == (State.FAILED, ["lost", "give_up"])
        with pytest.raises(ConnectionFailed):
            await add(connection)
        await anyio.sleep(3600)
        assert (connection.state, len(credentials.refreshes)) == (State.FAILED, 1)
        assert len(transport.sent) == before + 1


async def test_update_credentials_brings_a_failed_connection_back() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, _):
        script.inject(faults.unauthorized(), method=None, times=None)
        credentials.answers = [False]
        with pytest.raises(ConnectionFailed):
            await add(connection)
        seen = Seen(connection)
        script.clear()
        await connection.update_credentials()
        assert await add(connection) == "2"
        assert (seen.events, len(credentials.refreshes)) == (["retry", "established"], 1)


async def test_update_credentials_refused_again_refreshes_once() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, transport):
        script.inject(faults.unauthorized(), method=None, times=None)
        credentials.answers = [False, True]
        with pytest.raises(ConnectionFailed):
            await add(connection)
        seen, before = Seen(connection), len(transport.sent)
        with pytest.raises(ConnectionFailed):
            await connection.update_credentials()
        assert seen.events == ["retry", "attempt_failed", "give_up"]
        assert (len(credentials.refreshes), len(transport.sent) - before) == (2, 2)


async def test_update_credentials_with_other_credentials_uses_those() -> None:
    script = Script()
    async with connected(script, "an-old-token-0001") as (connection, transport):
        transport.refused.add("Bearer an-old-token-0001")
        with pytest.raises(CallFailed):
            await add(connection)
        await quiet(connection)
        assert connection.state is State.FAILED
        await connection.update_credentials("a-new-token-0002")
        assert await add(connection) == "2"
        assert transport.sent[-1] == "Bearer a-new-token-0002"


async def test_update_credentials_gives_credentials_to_a_connection_that_had_none() -> None:
    script = Script()
    async with connected(script, None) as (connection, transport):
        transport.refused.add(None)
        with pytest.raises(CallFailed):
            await add(connection)
        await connection.update_credentials(Renewed())
        assert await add(connection) == "2"
        assert set(transport.sent[-2:]) == {f"Bearer {TOKEN}-0"}


async def test_authenticated_is_a_deprecated_alias() -> None:
    script = Script()
    async with connected(script, "an-old-token-0001") as (connection, transport):
        with pytest.deprecated_call(match=r"update_credentials\(\)"):
            await connection.authenticated("a-new-token-0002")
        assert await add(connection) == "2"
        assert transport.sent[-1] == "Bearer a-new-token-0002"


async def test_update_credentials_ends_a_refresh_that_waits_for_a_person() -> None:
    script = Script()
    asked = anyio.Event()

    class Waiting(Renewed):
        async def refresh(self, challenge: str | None) -> bool:
            self.refreshes.append(challenge)
            asked.set()
            await anyio.sleep_forever()
            raise AssertionError("unreachable")

    credentials = Waiting()
    async with connected(script, credentials) as (connection, _):
        script.inject(faults.unauthorized())
        async with anyio.create_task_group() as group:
            group.start_soon(add, connection)
            await asked.wait()
            assert connection.state is State.RECONNECTING
            await connection.update_credentials()
        assert (connection.state, len(credentials.refreshes)) == (State.READY, 1)


async def test_a_server_that_refuses_the_renewed_credentials_too_is_dialled_once() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, transport):
        seen, before = Seen(connection), len(transport.sent)
        script.inject(faults.unauthorized(), method=None, times=None)
        with pytest.raises(ConnectionFailed) as caught:
            await add(connection)
        await anyio.sleep(3600)
        assert caught.value.failure.kind is FailureKind.AUTH
        assert (len(credentials.refreshes), seen.events) == (1, ["lost", "give_up"])
        assert len(transport.sent) - before == 2


async def test_an_always_refused_tool_does_not_renew_each_time() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, _):
        script.inject(faults.unauthorized(), tool="echo", times=None)
        for _ in range(5):
            with pytest.raises(CallFailed) as caught:
                await connection.call_tool("echo", {"text": "x"})
            assert caught.value.failure.kind is FailureKind.AUTH
            assert await add(connection) == "2"
        assert (len(credentials.refreshes), connection.epoch, connection.state) == (1, 2, State.READY)


async def test_a_server_that_refuses_every_call_ends_in_failed() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, _):
        for method in ("tools/call", "tools/list", "resources/list", "ping"):
            script.inject(faults.unauthorized(), method=method, times=None)
        for _ in range(2):
            with pytest.raises(CallFailed) as caught:
                await add(connection)
            await quiet(connection)
            assert caught.value.failure.kind is FailureKind.AUTH
        await anyio.sleep(3600)
        assert (connection.state, len(credentials.refreshes), connection.epoch) == (State.FAILED, 2, 3)


async def test_a_refusal_that_names_the_session_is_no_reason_to_refresh() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, _):
        script.inject(faults.status(401, body=b"Session expired", content_type="text/plain"))
        assert await add(connection) == "2"
        assert (credentials.refreshes, connection.epoch) == ([], 2)


async def test_expired_sessions_refresh_nothing() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, _):
        for expected in (2, 3):
            script.forget_sessions()
            assert await add(connection) == "2"
            await quiet(connection)
            assert connection.epoch == expected
        assert credentials.refreshes == []


async def test_nor_does_one_after_a_refresh() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, _):
        script.inject(faults.unauthorized())
        await add(connection)
        await quiet(connection)
        script.forget_sessions()
        await add(connection)
        await quiet(connection)
        await connection.reconnect()
        assert (len(credentials.refreshes), connection.epoch) == (1, 4)


async def test_credentials_that_expire_again_and_again_are_renewed_each_time() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, _):
        for expected in (1, 2, 3):
            script.inject(faults.unauthorized())
            assert await add(connection) == "2"
            await quiet(connection)
            await anyio.sleep(3600)
            assert len(credentials.refreshes) == expected
        assert connection.epoch == 4


async def test_credentials_that_expired_while_the_connection_was_idle_are_renewed() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials, idle_timeout=60) as (connection, _):
        script.inject(faults.unauthorized())
        await add(connection)
        await quiet(connection)
        await anyio.sleep(120)
        assert connection.state is State.IDLE
        script.inject(faults.unauthorized(), method=None)
        assert await add(connection) == "2"
        assert len(credentials.refreshes) == 2


async def test_a_first_dial_that_is_refused_is_made_again_without_a_wait() -> None:
    script, credentials = Script(), Renewed()
    script.inject(faults.unauthorized(), method=None)
    began = anyio.current_time()
    async with connected(script, credentials) as (connection, _):
        assert anyio.current_time() - began < 0.1
        assert (len(credentials.refreshes), connection.epoch) == (1, 1)


async def test_a_refresh_that_cannot_be_tried_now_is_tried_again_later() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, transport):
        script.inject(faults.unauthorized())
        credentials.answers = [httpx2.ConnectError("refused"), OSError("no route"), True]
        seen, before, began = Seen(connection), len(transport.sent), anyio.current_time()
        assert await add(connection) == "2"
        assert seen.events == ["lost", "attempt_failed", "attempt_failed", "established"]
        assert len(credentials.refreshes) == 3
        # With credentials that are known to be refused there is nothing to ask the server for.
        assert transport.sent[before + 1 :] == [f"Bearer {TOKEN}-1"] * (len(transport.sent) - before - 1)
        assert 1.5 < anyio.current_time() - began < 4


async def test_a_refresh_never_possible_fails_and_is_retried() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, _):
        script.inject(faults.unauthorized(), method=None, times=None)
        credentials.answers = [httpx2.ConnectError("refused")] * 100
        with pytest.raises(ConnectionFailed) as caught:
            await add(connection)
        assert caught.value.failure.kind is FailureKind.UNAVAILABLE
        assert caught.value.retry_in is not None
        script.clear()
        credentials.answers.clear()
        await anyio.sleep(caught.value.retry_in + 1)
        assert await add(connection) == "2"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_static_token_that_one_call_is_refused_for_costs_that_call_alone(status: int) -> None:
    script = Script()
    async with connected(script, TOKEN) as (connection, transport):
        seen = Seen(connection)
        script.inject(faults.status(status))
        with pytest.raises(CallFailed):
            await add(connection)
        await quiet(connection)
        assert (seen.events, connection.epoch) == (["suspected"], 1)
        assert await add(connection) == "2"
        assert set(transport.sent) == {f"Bearer {TOKEN}"}


async def test_unavailable_credentials_keep_the_request_back() -> None:
    script = Script()
    broken = False

    class Flaky(Renewed):
        async def headers(self) -> Mapping[str, str]:
            if broken:
                raise RuntimeError("the vault is sealed")
            return await super().headers()

    credentials = Flaky()
    async with connected(script, credentials) as (connection, transport):
        broken, before = True, len(transport.sent)
        with pytest.raises(CallFailed, match="the vault is sealed") as caught:
            await add(connection, timeout=5)
        assert caught.value.outcome == "not_run"
        assert len(transport.sent) == before
        broken = False
        assert await add(connection) == "2"
        assert credentials.refreshes == []


async def test_a_callable_is_called_once_and_again_when_it_is_refused() -> None:
    calls = 0

    async def source() -> str:
        nonlocal calls
        calls += 1
        return f"from-a-callable-{calls}"

    script = Script()
    async with connected(script, source) as (connection, transport):
        assert calls == 1
        transport.refused.add("Bearer from-a-callable-1")
        assert await add(connection) == "2"
        assert (calls, transport.sent[-1]) == (2, "Bearer from-a-callable-2")


async def test_a_callable_that_is_not_cached_is_called_for_each_request() -> None:
    now = "first-of-its-kind"
    script = Script()
    async with connected(script, FromCallable(lambda: {"Authorization": now}, cached=False)) as (connection, transport):
        now = "second-of-its-kind"
        transport.refused.add("first-of-its-kind")
        assert await add(connection) == "2"
        assert (transport.sent[-1], connection.epoch) == ("second-of-its-kind", 1)


async def test_a_callable_that_has_nothing_new_to_say_fails_the_connection() -> None:
    script = Script()
    async with connected(script, lambda: TOKEN) as (connection, transport):
        transport.refused.add(f"Bearer {TOKEN}")
        with pytest.raises(ConnectionFailed) as caught:
            await add(connection)
        assert caught.value.failure.kind is FailureKind.AUTH


async def test_shared_credentials_refresh_once() -> None:
    script, credentials = Script(), Renewed()
    transport = Recorded(script)
    entry = {"url": "http://scripted/mcp", "http_transport": transport, "auth": credentials}
    async with Manager({f"srv{n}": entry for n in range(5)}) as manager:
        async with anyio.create_task_group() as group:
            for name in manager:
                group.start_soon(add, manager[name])
        for connection in manager.values():
            await quiet(connection)
        transport.refused.add(f"Bearer {TOKEN}-0")
        async with anyio.create_task_group() as group:
            for name in manager:
                group.start_soon(add, manager[name])
        assert len(credentials.refreshes) == 1
        # One that slept through it finds the work done.
        transport.refused.add(f"Bearer {TOKEN}-1")
        assert await add(manager["srv0"]) == "2"
        await quiet(manager["srv0"])
        assert await add(manager["srv1"]) == "2"
        assert len(credentials.refreshes) == 2


async def test_what_others_have_renewed_may_be_refused_and_is_renewed_then() -> None:
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, transport):
        transport.refused.update({f"Bearer {TOKEN}-0", f"Bearer {TOKEN}-1"})

        def elsewhere(notice: Any) -> None:
            # Between the refusal and our own turn.
            credentials.serial = max(credentials.serial, 1)

        connection.journal.subscribe(elsewhere)
        assert await add(connection) == "2"
        assert len(credentials.refreshes) == 1
        assert transport.sent[-1] == f"Bearer {TOKEN}-2"


async def test_a_token_that_the_server_says_back_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script, credentials = Script(), Renewed()
    async with connected(script, credentials) as (connection, transport):
        transport.refused.update(f"Bearer {TOKEN}-{n}" for n in range(3))
        with pytest.raises(ConnectionFailed) as caught:
            await add(connection)
        shown = [str(caught.value), repr(caught.value), repr(connection), repr(connection.status())]
        shown += [repr(connection.last_failure), repr(connection.config), str(connection.last_failure), caplog.text]
        assert "no such token: ***" in str(caught.value)
        assert all(TOKEN not in text for text in shown)


async def test_the_same_holds_for_any_other_auth(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script = Script()
    async with connected(script, httpx2.BasicAuth("user", "a-long-password")) as (connection, transport):
        secret = next(iter(set(transport.sent)))
        assert secret is not None
        assert secret.startswith("Basic ")
        transport.refused.add(secret)
        with pytest.raises(CallFailed) as caught:
            await add(connection)
        await quiet(connection)
        assert connection.state is State.FAILED
        shown = str(caught.value) + repr(connection.status()) + caplog.text
        assert secret.removeprefix("Basic ") not in shown


async def test_a_token_never_shows_in_what_the_credentials_look_like() -> None:
    for credentials in (StaticBearer(TOKEN), FromCallable(lambda: TOKEN)):
        await credentials.headers()
        assert TOKEN not in repr(credentials)


@pytest.mark.parametrize("auth", [5, ["token"], {"token": TOKEN}])
async def test_what_are_no_credentials_is_an_error_of_the_configuration(auth: Any) -> None:
    with pytest.raises(ConfigError, match="auth must be a token") as caught:
        Connection({"url": "http://scripted/mcp", "auth": auth}, name="srv")
    assert TOKEN not in str(caught.value)


async def test_credentials_for_a_program_are_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="auth is for servers with a url"):
        Connection({"command": "server", "auth": TOKEN}, name="srv")


async def test_all_forms_of_credentials_are_read() -> None:
    credentials = Renewed()
    assert isinstance(as_credentials(TOKEN), StaticBearer)
    assert as_credentials(credentials) is credentials
    assert isinstance(as_credentials(lambda: TOKEN), FromCallable)
    basic = httpx2.BasicAuth("a", "b")
    assert as_credentials(basic) is basic
    assert isinstance(credentials, Credentials)


async def test_a_refusal_of_what_is_not_used_any_more_changes_nothing() -> None:
    credentials = Renewed()
    request_auth = RequestAuth(credentials, redact=Redactor())
    early = request_auth.async_auth_flow(httpx2.Request("POST", "http://scripted/mcp"))
    request = await early.__anext__()
    assert await request_auth.refresh(None)
    late = request_auth.async_auth_flow(httpx2.Request("POST", "http://scripted/mcp"))
    await late.__anext__()
    with pytest.raises(StopAsyncIteration):
        await early.asend(httpx2.Response(401, request=request))
    assert await request_auth.refresh(None)
    assert len(credentials.refreshes) == 2
    await late.aclose()


async def test_an_error_of_the_credentials_is_an_error_of_connecting() -> None:
    assert issubclass(CredentialsUnavailable, httpx2.ConnectError)
    assert OAuth.__doc__
