"""The protocol of token stores: records with generations, compare-and-set, and a mark before a refresh."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import anyio
import httpx2
import pytest
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from mcpconn import Connection
from mcpconn.auth import (
    CredentialsRefused,
    CredentialsUnavailable,
    Mark,
    OAuth,
    TokenRecord,
    TokenStore,
)
from mcpconn.auth.record import NotARecord, parse_json
from mcpconn.auth.store import SdkStorage
from mcpconn.testing.clock import settle, virtual_backend
from tests.auth.servers import ORIGIN
from tests.auth.stores import SharedStore
from tests.auth.test_oauth import Memory, World, add, provider
from tests.support import SAFETY, quiet

pytestmark = pytest.mark.anyio

TOKENS = OAuthToken(access_token="access-secret", refresh_token="refresh-secret", expires_in=3600)
CLIENT = OAuthClientInformationFull(client_id="client-1", issuer="http://issuer.example")
RECORD = TokenRecord(
    generation=1,
    tokens=TOKENS,
    expires_at=2e9,
    issuer="http://issuer.example",
    server="http://mcp.example:80",
    client=CLIENT,
    rotates=True,
    mark=Mark("host, process 1", 1.7e9),
)


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both event loops, with a clock that jumps."""
    return virtual_backend(request.param)


@pytest.fixture(params=["shared", "sdk"])
def store(request: pytest.FixtureRequest) -> TokenStore:
    """What implements the protocol in memory. `test_shared_files` has the same tests for files, in real time."""
    return SharedStore() if request.param == "shared" else SdkStorage(Memory())


# -- what every store has to do


async def test_an_empty_store_holds_generation_0(store: TokenStore) -> None:
    assert isinstance(store, TokenStore)
    assert await store.load() == TokenRecord()


async def test_what_is_stored_is_loaded(store: TokenStore) -> None:
    assert await store.replace(RECORD)
    assert await store.load() == RECORD


async def test_a_record_follows_the_one_before_it_or_is_refused(store: TokenStore) -> None:
    assert await store.replace(RECORD)
    for generation in (0, 1, 3, 7):
        assert not await store.replace(replace(RECORD, generation=generation))
    assert await store.load() == RECORD
    assert await store.replace(RECORD.successor(mark=None))
    assert (await store.load()).mark is None


async def test_of_many_writers_one_succeeds(store: TokenStore) -> None:
    assert await store.replace(RECORD)
    succeeded: list[int] = []

    async def write(number: int) -> None:
        if await store.replace(RECORD.successor(mark=Mark(f"holder {number}", 0.0))):
            succeeded.append(number)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(write, number)
    assert len(succeeded) == 1
    assert (await store.load()).mark == Mark(f"holder {succeeded[0]}", 0.0)


async def test_tokens_of_others_end_a_refresh() -> None:
    store = SharedStore()
    await store.replace(RECORD)
    await store.set_tokens(OAuthToken(access_token="brought"))
    assert (store.record.mark, store.record.rotates, store.record.generation) == (None, None, 2)
    await store.clear()
    assert (store.record.tokens, store.record.client) == (None, CLIENT)


# -- records as JSON


def test_a_record_is_the_same_after_json() -> None:
    text = json.dumps(RECORD.to_json())
    assert TokenRecord.from_json(parse_json(text)) == RECORD
    assert TokenRecord().to_json() == {"generation": 0}
    assert TokenRecord.from_json({}) == TokenRecord()


DAMAGED: list[Any] = [
    {"generation": -1},
    {"generation": "1"},
    {"generation": True},
    {"generation": 1.0},
    {"generation": 2**60},
    {"expires_at": "soon"},
    {"expires_at": True},
    {"expires_at": float("nan")},
    {"expires_at": float("inf")},
    {"expires_at": -1},
    {"expires_at": 10**400},
    {"tokens": "access-secret"},
    {"tokens": {"access_token": ["access-secret"]}},
    {"tokens": {"access_token": "access-secret", "expires_in": "access-secret"}},
    {"client": {"client_secret": "access-secret"}},
    {"client": [1]},
    {"issuer": 5},
    {"server": {}},
    {"rotates": "yes"},
    {"mark": "holder"},
    {"mark": {"holder": "x", "since": "then"}},
]


@pytest.mark.parametrize("data", DAMAGED)
def test_what_is_no_record_is_refused_without_a_quotation(data: Any) -> None:
    with pytest.raises(NotARecord) as caught:
        TokenRecord.from_json(data)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": -Infinity}',
        '{"a":' * 100_000,
        "[" * 100_000,
        '{"a": ' + "9" * 10_000 + "}",
        b"\xff\xfe\x00",
        '{"tokens": {"access_token": "access-sec',
    ],
)
def test_json_is_read_strictly(text: str | bytes) -> None:
    with pytest.raises(NotARecord):
        parse_json(text)


# -- refreshes by several holders


class Fleet:
    """Programs that share a store and one server, each with a provider of its own."""

    def __init__(self, store: Any = None) -> None:
        self.world = World()
        self.store = SharedStore() if store is None else store
        self.refused: list[str] = []

    async def log_in(self) -> None:
        """Somebody has logged in before."""
        record = TokenRecord(
            generation=1,
            tokens=OAuthToken.model_validate(self.world.auth.issue()),
            issuer=ORIGIN,
            client=OAuthClientInformationFull(client_id="client-1", issuer=ORIGIN),
        )
        assert await self.store.replace(record)

    def program(self) -> OAuth:
        """Another one, without a person."""
        return OAuth(provider(self.store))

    async def fetch(self, request: Any) -> Any:
        response = await self.world.transport.handle_async_request(request)
        response.request = request
        await response.aread()
        return response

    async def renew(self, program: OAuth) -> None:
        await program.headers(fetch=self.fetch)
        try:
            await program.renew(None, fetch=self.fetch)
        except (CredentialsRefused, CredentialsUnavailable) as error:
            self.refused.append(str(error))


async def test_ten_programs_spend_one_token(store: TokenStore) -> None:
    fleet = Fleet(store)
    await fleet.log_in()
    programs = [fleet.program() for _ in range(10)]
    for program in programs:
        await program.headers(fetch=fleet.fetch)
    async with anyio.create_task_group() as group:
        for program in programs:
            group.start_soon(fleet.renew, program)
    assert fleet.refused == []
    assert (fleet.world.auth.counts["refresh_token"], fleet.world.auth.counts["reused"]) == (1, 0)
    assert {(await program.headers())["Authorization"] for program in programs} == {"Bearer access-0002-secret"}
    record = await fleet.store.load()
    assert (record.mark, record.rotates, record.issuer, record.server) == (None, True, ORIGIN, f"{ORIGIN}:80")


async def test_the_mark_is_stored_before_anything_is_sent() -> None:
    fleet = Fleet()
    await fleet.log_in()
    program = fleet.program()
    await program.headers(fetch=fleet.fetch)

    def full(record: TokenRecord) -> None:
        raise OSError(28, "No space left on device")

    fleet.store.before = full
    await fleet.renew(program)
    fleet.store.away = True
    await fleet.renew(program)
    assert fleet.world.auth.counts["refresh_token"] == 0
    assert "<SharedStore> cannot be written to: No space left on device" in fleet.refused[0]
    assert len(fleet.refused) == 2
    # The tokens that are in memory go on.
    assert (await program.headers())["Authorization"] == "Bearer access-0001-secret"


async def test_a_mark_that_may_be_stored_is_not_trusted_to_be_ours() -> None:
    """The store did not say that it has the mark: reading again shows whose it is."""
    fleet = Fleet()
    await fleet.log_in()
    program = fleet.program()

    def cut(record: TokenRecord) -> None:
        fleet.store.after = lambda record: None
        raise ConnectionResetError(104, "Connection reset by peer")

    fleet.store.after = cut
    await fleet.renew(program)
    assert fleet.world.auth.counts["refresh_token"] == 0
    await fleet.renew(program)
    assert (fleet.world.auth.counts["refresh_token"], fleet.world.auth.counts["reused"]) == (1, 0)


def spending(fleet: Fleet, resumed: anyio.Event, stopped: anyio.Event) -> None:
    """Stop whoever has spent the refresh token, before the new tokens are stored."""

    async def pause(record: TokenRecord) -> None:
        if record.mark is None and record.generation > 2 and not stopped.is_set():
            stopped.set()
            with anyio.CancelScope(shield=True):
                await resumed.wait()

    fleet.store.pause = pause


async def test_a_paused_holder_is_not_overtaken() -> None:
    fleet = Fleet()
    await fleet.log_in()
    holder, other = fleet.program(), fleet.program()
    resumed, stopped = anyio.Event(), anyio.Event()
    await holder.headers(fetch=fleet.fetch)
    await other.headers(fetch=fleet.fetch)
    spending(fleet, resumed, stopped)
    async with anyio.create_task_group() as group:
        group.start_soon(fleet.renew, holder)
        await stopped.wait()
        # Others wait for as long as a token request takes, and say for what.
        began = anyio.current_time()
        with pytest.raises(CredentialsUnavailable, match=r"began to renew the tokens at .* and has not finished"):
            await other.renew(None, fetch=fleet.fetch)
        assert 20 < anyio.current_time() - began < 30
        # Then a person is asked for. The refresh token is not sent again.
        await anyio.sleep(60)
        with pytest.raises(
            CredentialsRefused, match="may be used up already, and is not used again; login is not possible"
        ):
            await other.renew(None, fetch=fleet.fetch)
        resumed.set()
    assert (fleet.refused, fleet.world.auth.counts["refresh_token"]) == ([], 1)
    # It was no crash: what the holder has stored in the end is used by all.
    assert not await other.renew(None, fetch=fleet.fetch)
    assert (await other.headers())["Authorization"] == "Bearer access-0002-secret"


async def test_a_login_ends_the_wait_for_a_holder_and_outlives_it() -> None:
    fleet = Fleet()
    await fleet.log_in()
    holder, other = fleet.program(), fleet.program()
    resumed, stopped = anyio.Event(), anyio.Event()
    await holder.headers(fetch=fleet.fetch)
    spending(fleet, resumed, stopped)
    async with anyio.create_task_group() as group:
        group.start_soon(fleet.renew, holder)
        await stopped.wait()
        fleet.store.pause = None
        await fleet.store.set_tokens(OAuthToken(access_token="from-a-login", refresh_token="r"))
        assert (await other.headers(fetch=fleet.fetch))["Authorization"] == "Bearer from-a-login"
        resumed.set()
    # The holder comes late with tokens of the former login: they are not stored over the new ones, nor used.
    assert fleet.store.record.tokens is not None
    assert fleet.store.record.tokens.access_token == "from-a-login"
    assert (await holder.headers())["Authorization"] == "Bearer from-a-login"


async def test_a_registration_stored_during_a_refresh_costs_no_tokens() -> None:
    fleet = Fleet()
    await fleet.log_in()
    holder = fleet.program()
    resumed, stopped = anyio.Event(), anyio.Event()
    await holder.headers(fetch=fleet.fetch)
    spending(fleet, resumed, stopped)
    async with anyio.create_task_group() as group:
        group.start_soon(fleet.renew, holder)
        await stopped.wait()
        fleet.store.pause = None
        await fleet.store.set_client_info(CLIENT)
        resumed.set()
    record = fleet.store.record
    assert record.tokens is not None
    assert (record.tokens.refresh_token, record.client, record.mark) == ("refresh-0002-secret", CLIENT, None)


async def test_a_mark_left_behind_needs_a_login() -> None:
    fleet = Fleet()
    await fleet.log_in()
    record = await fleet.store.load()
    assert await fleet.store.replace(record.successor(mark=Mark("elsewhere, process 7", 1.7e9)))
    program = fleet.program()
    await fleet.renew(program)
    # Nothing proves that it is gone. (A file's lock does: the system took it away.)
    assert "log in" not in fleet.refused[0]
    await anyio.sleep(60)
    await fleet.renew(program)
    assert "elsewhere, process 7 began to renew the tokens at 2023-11-14T22:13:20+00:00" in fleet.refused[-1]
    assert "login is not possible" in fleet.refused[-1]
    assert fleet.world.auth.counts["refresh_token"] == 0
    # Somebody logs in, with another program.
    await fleet.store.set_tokens(OAuthToken.model_validate(fleet.world.auth.issue()))
    assert not await program.renew(None, fetch=fleet.fetch)
    assert fleet.store.record.mark is None


async def test_a_server_that_does_not_rotate_makes_marks_harmless() -> None:
    fleet = Fleet()
    fleet.world.auth.rotates = False
    await fleet.log_in()
    await fleet.renew(fleet.program())
    record = await fleet.store.load()
    assert record.rotates is False
    assert await fleet.store.replace(record.successor(mark=Mark("elsewhere, process 7", 1.7e9)))
    await fleet.renew(fleet.program())
    assert (fleet.refused, fleet.world.auth.counts["refresh_token"]) == ([], 2)


@pytest.mark.parametrize("carried_out", [False, True])
async def test_the_holder_may_ask_again_when_an_answer_was_lost(carried_out: bool) -> None:
    """The next tokens were lost with it. If the server had not got so far, no login is needed."""
    fleet = Fleet()
    await fleet.log_in()
    program = fleet.program()
    await program.headers(fetch=fleet.fetch)
    cuts = [1]

    async def cut(request: Any) -> Any:
        if request.url.path == "/as/token" and cuts.pop() if cuts else False:
            if carried_out:
                await fleet.fetch(request)
            raise httpx2.ReadError("Connection reset by peer")
        return await fleet.fetch(request)

    with pytest.raises(CredentialsUnavailable, match="cut before the answer was complete"):
        await program.renew(None, fetch=cut)
    assert fleet.store.record.mark is not None
    if carried_out:
        with pytest.raises(CredentialsRefused, match="the refresh token was refused: invalid_grant"):
            await program.renew(None, fetch=cut)
    else:
        assert await program.renew(None, fetch=cut)
    assert fleet.store.record.mark is None


async def test_nothing_is_asked_twice_while_the_token_is_still_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost answer to a renewal ahead of time: a second use of the refresh token could end what still works."""
    fleet = Fleet()
    await fleet.log_in()
    program = fleet.program()
    await program.headers(fetch=fleet.fetch)
    sent: list[str] = []

    async def cut(request: Any) -> Any:
        if request.url.path == "/as/token":
            sent.append(request.url.path)
            raise httpx2.ReadError("Connection reset by peer")
        return await fleet.fetch(request)

    monkeypatch.setattr("mcpconn.auth.oauth.PAUSE", 0.0)
    context = program.provider.context
    assert context.current_tokens is not None
    context.current_tokens.expires_in, context.token_expiry_time = 3600, time.time() + 9
    for _ in range(5):
        await program.headers(fetch=cut)
    assert len(sent) == 1
    context.token_expiry_time = time.time() - 1
    program._not_before = 0.0
    await program.headers(fetch=cut)
    assert len(sent) == 2


async def test_tokens_lost_by_the_store_are_stored_again() -> None:
    fleet = Fleet()
    await fleet.log_in()
    program = fleet.program()
    await fleet.renew(program)
    fleet.store.lose(2)
    assert fleet.store.record.generation == 1
    # The present token is good; with the next look at the store it is there again.
    fleet.world.auth.revoke_access()
    await fleet.renew(program)
    assert (fleet.refused, fleet.world.auth.counts["reused"]) == ([], 0)
    assert fleet.store.record.tokens is not None
    assert fleet.store.record.tokens.refresh_token == "refresh-0003-secret"


async def test_tokens_that_cannot_be_stored_now_are_stored_later() -> None:
    fleet = Fleet()
    await fleet.log_in()
    program = fleet.program()
    await program.headers(fetch=fleet.fetch)

    def full(record: TokenRecord) -> None:
        if record.mark is None:
            raise OSError(28, "No space left on device")

    fleet.store.before = full
    await fleet.renew(program)
    assert (await program.headers())["Authorization"] == "Bearer access-0002-secret"
    assert fleet.store.record.mark is not None
    # No refresh can be lost any more by another: they see the mark.
    fleet.store.before = lambda record: None
    fleet.world.auth.revoke_access()
    await fleet.renew(program)
    assert (fleet.refused, fleet.world.auth.counts["reused"]) == ([], 0)
    record = fleet.store.record
    assert record.tokens is not None
    assert (record.tokens.refresh_token, record.mark) == ("refresh-0003-secret", None)


async def test_a_login_is_written_over_whatever_was_stored_meanwhile() -> None:
    world, store = World(), SharedStore()
    auth = OAuth(provider(store, world.person))
    fetch = Fleet(store)
    fetch.world = world
    raced: list[int] = []

    def race(record: TokenRecord) -> None:
        if record.tokens is not None and not raced:
            raced.append(1)
            store.record = store.record.successor(client=CLIENT)

    store.before = race
    assert await auth.renew(None, fetch=fetch.fetch)
    await settle()
    assert store.record.tokens is not None
    assert store.record.tokens.access_token == "access-0001-secret"


async def test_connections_of_one_store_renew_once() -> None:
    fleet = Fleet()
    await fleet.log_in()
    entry = {"url": f"{ORIGIN}/mcp", "http_transport": fleet.world.transport}
    with anyio.fail_after(SAFETY * 60):
        async with (
            Connection({**entry, "auth": provider(fleet.store)}, name="one") as one,
            Connection({**entry, "auth": provider(fleet.store)}, name="two") as two,
        ):
            for each in (one, two):
                await quiet(each)
            fleet.world.auth.revoke_access()
            answers: list[str] = []

            async def call(connection: Connection) -> None:
                answers.append(await add(connection))

            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(call, one)
                    group.start_soon(call, two)
            assert answers == ["2"] * 40
    assert (fleet.world.auth.counts["refresh_token"], fleet.world.auth.counts["reused"]) == (1, 0)
