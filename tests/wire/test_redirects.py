"""Redirects of a message: followed once at most, and never said to have run nothing when they may have."""

from __future__ import annotations

import anyio
import httpx2
import pytest
from mcp import MCPError

from mcpconn import CallFailed, Delivery, OutcomeUnknown, State
from mcpconn.testing import Script
from mcpconn.testing.scripted import faults, poison
from mcpconn.wire.redirects import next_hop, target
from tests.support import UNFINISHED_STREAMS, quiet, served, text_of
from tests.wire.sockets import Name

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


@pytest.fixture(params=["direct", "httpx"])
def engine(request: pytest.FixtureRequest) -> Name:
    return request.param  # type: ignore[no-any-return]


# -- which are followed

ORIGIN = "http://host.example/mcp"


def redirected(location: str, status: int = 307, *, url: str = ORIGIN, method: str = "POST") -> httpx2.Request | None:
    """What follows from such a redirect."""

    async def run() -> httpx2.Request | None:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(status, headers={"location": location}))
        async with httpx2.AsyncClient(transport=transport) as client:
            return next_hop(await client.request(method, url, content=b"message"))

    return anyio.run(run)


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize(
    ("location", "followed"),
    [
        ("/mcp/", "http://host.example/mcp/"),
        ("http://host.example:80/other?a=1", "http://host.example/other?a=1"),
        ("https://host.example/mcp", "https://host.example/mcp"),
        ("https://host.example:8443/mcp", None),
        ("http://other.example/mcp", None),
        ("http://host.example:8080/mcp", None),
        ("/mcp", None),
        ("#there", None),
        ("http://user:secret@host.example/mcp/", None),
        ("http://[", None),
        ("", None),
    ],
)
def test_a_hop_stays_within_the_origin(location: str, followed: str | None, status: int) -> None:
    request = redirected(location, status)
    assert (str(request.url) if request is not None else None) == followed
    if request is not None:
        assert (request.method, request.read()) == ("POST", b"message")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305])
def test_a_redirect_that_drops_the_message_is_not_followed(status: int) -> None:
    assert redirected("/mcp/", status) is None


def test_https_is_never_left_for_http() -> None:
    assert redirected("http://host.example/mcp", url="https://host.example/mcp") is None


async def test_a_redirect_is_named_without_secrets() -> None:
    location = "http://user:secret@host.example/path?token=secret#secret"
    transport = httpx2.MockTransport(lambda _: httpx2.Response(307, headers={"location": location}))
    async with httpx2.AsyncClient(transport=transport) as client:
        assert target(await client.post(ORIGIN)) == "http://host.example/path"


# -- what a caller is told


async def test_a_missing_slash_costs_one_request(engine: Name) -> None:
    script = Script()
    script.inject(poison.redirect(), method=None, times=1)
    script.inject(poison.redirect(308), method="notifications/initialized")
    async with served(script, config={"engine": engine}) as (connection, _):
        script.inject(poison.redirect())
        before = script.count("tools/call")
        assert text_of(await connection.call_tool("charge", {"amount": 5})) == "charged 5"
        assert (script.count("tools/call") - before, script.executions["charge"]) == (2, 1)


async def test_a_notification_is_redirected_too(engine: Name) -> None:
    script = Script()
    redirect = script.inject(poison.redirect(), method="notifications/initialized")
    async with served(script, config={"engine": engine}):
        assert redirect.used == 1
        assert script.count("notifications/initialized") == 2


@pytest.mark.parametrize("location", ["/mcp", "/mcp#again"])
async def test_a_self_redirect_is_not_followed(location: str, engine: Name) -> None:
    script = Script()
    async with served(script, config={"engine": engine}) as (connection, _):
        script.inject(poison.redirect(location=location), times=None)
        before = script.count("tools/call")
        with pytest.raises(
            CallFailed, match=r"redirects elsewhere \(HTTP 307, to http://127.0.0.1:\d+/mcp\)"
        ) as caught:
            await connection.call_tool("charge", {"amount": 5})
        assert caught.value.outcome == "not_run"
        assert script.count("tools/call") == before + 1


async def test_no_second_hop_is_followed(engine: Name) -> None:
    script = Script()
    async with served(script, config={"engine": engine}) as (connection, _):
        script.inject(poison.redirect(location="/a"))
        script.inject(poison.redirect(location="/b"))
        before = script.count("tools/call")
        with pytest.raises(CallFailed, match="/b") as caught:
            await connection.call_tool("charge", {"amount": 5})
        assert caught.value.failure.delivery is Delivery.REJECTED
        assert (script.count("tools/call") - before, script.executions["charge"]) == (2, 0)


AFTER_THE_HOP = {
    "dropped": (faults.drop_after(), OutcomeUnknown, Delivery.UNKNOWN),
    "502": (faults.bad_gateway(ran=True), OutcomeUnknown, Delivery.UNKNOWN),
    "403": (faults.forbidden(), CallFailed, Delivery.REJECTED),
}


@pytest.mark.parametrize("how", AFTER_THE_HOP)
async def test_a_redirected_request_stands_alone(how: str, engine: Name) -> None:
    fault, expected, delivery = AFTER_THE_HOP[how]
    script = Script()
    async with served(script, config={"engine": engine}) as (connection, _):
        script.inject(poison.redirect())
        script.inject(fault)
        with pytest.raises(expected) as caught:
            await connection.call_tool("charge", {"amount": 5})
        assert caught.value.failure.delivery is delivery
        assert caught.value.failure.evidence.http_status not in (307, 308)
        await quiet(connection)
        assert connection.state is State.READY


@pytest.mark.parametrize("status", [300, 302, 303, 304])
@pytest.mark.parametrize("ran", [True, False])
async def test_a_redirect_after_a_run_is_unknown(status: int, ran: bool, engine: Name) -> None:
    script = Script()
    async with served(script, config={"engine": engine}) as (connection, _):
        script.inject(poison.redirect(status, "/receipt", ran=ran))
        with pytest.raises(OutcomeUnknown):
            await connection.call_tool("charge", {"amount": 5})
        assert script.executions["charge"] == ran


async def test_safe_calls_are_retried_on_redirect(engine: Name) -> None:
    script = Script()
    async with served(script, config={"engine": engine}) as (connection, _):
        script.inject(poison.redirect(303, "/receipt", ran=True))
        assert text_of(await connection.call_tool("add", {"a": 2, "b": 3})) == "5"


async def test_a_permanent_redirect_says_which_url_to_configure(engine: Name) -> None:
    script = Script()
    async with served(script, config={"engine": engine}) as (connection, _):
        script.inject(poison.redirect(301, "/v2/mcp?key=secret"))
        with pytest.raises(CallFailed, match=r"to http://127.0.0.1:\d+/v2/mcp\)") as caught:
            await connection.call_tool("charge", {"amount": 5})
        assert caught.value.outcome == "not_run"


async def test_an_error_of_the_application_behind_a_hop_arrives_as_it_is(engine: Name) -> None:
    script = Script()
    async with served(script, config={"engine": engine}) as (connection, _):
        script.inject(poison.redirect())
        with pytest.raises(MCPError, match="shopping session"):
            await connection.call_tool("shopping", {})
        assert script.executions["shopping"] == 1
