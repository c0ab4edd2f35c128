"""Nothing runs for whoever cannot sign, repeats what was signed, or writes into the store."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcpconn.errors import ConfigError
from mcpconn.gateway.fleet.config import FleetSettings
from mcpconn.gateway.fleet.envelopes import envelope_of
from mcpconn.gateway.fleet.forwarding import ENVELOPE, SIGNATURE, AddressRefused, checked
from mcpconn.gateway.fleet.membership import Membership
from mcpconn.gateway.fleet.ownership import Owner
from mcpconn.gateway.fleet.signing import WINDOW, Envelope, Signer
from mcpconn.seal import KeyRing
from tests.fleet.conftest import Replicas, replicas
from tests.fleet.stateful import Stateful
from tests.gateway.questions import serving

pytestmark = pytest.mark.anyio


@dataclass
class Target:
    """A session, and a request of it as a replica would forward it to its owner."""

    made: Replicas
    owner: int
    stateful: Stateful
    envelope: Envelope
    body: bytes
    client: Client

    async def post(self, text: str, signature: str, body: bytes | None = None) -> int:
        """Send a request to the owner's listener. Its status."""
        headers = {ENVELOPE: text, SIGNATURE: signature}
        fleet = self.made[self.owner].app.fleet
        assert fleet is not None
        async with httpx2.AsyncClient() as http:
            answer = await http.post(f"http://{fleet.address}/", headers=headers, content=body or self.body)
        return answer.status_code

    def signer(self, **options: Any) -> Signer:
        """Signs as another replica does."""
        return Signer(self.made[0]._ring, **options)


@asynccontextmanager
async def target() -> AsyncIterator[Target]:
    """Two replicas, and a client with a session that has called once."""
    stateful = Stateful()
    async with serving(stateful) as url, replicas({"s": {"url": url, "mode": "legacy"}}, count=2) as made:
        seen: list[httpx2.Request] = []

        class Noting(httpx2.AsyncHTTPTransport):
            async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
                seen.append(request)
                return await super().handle_async_request(request)

        http = httpx2.AsyncClient(transport=Noting(), timeout=30)
        async with http, Client(streamable_http_client(made[0].url, http_client=http), mode="legacy") as client:
            await client.call_tool("s__remember", {"id": "first"})
            request = next(each for each in seen if b'"first"' in each.content)
            scope = {"method": "POST", "headers": [(name.lower(), value) for name, value in request.headers.raw]}
            fleet = made[made.owner_of()].app.fleet
            assert fleet is not None
            (key,) = fleet.ownership.keys
            own = fleet.ownership.mine(key)
            assert own is not None
            body = request.content.replace(b'"first"', b'"forged"')
            owner = Owner(key, replace(own.replica, name=fleet.membership.name), own.number, mine=False)
            envelope = envelope_of(owner, scope, action="session", view="", body=body)
            yield Target(made, made.owner_of(), stateful, envelope, body, client)


async def test_a_signed_request_is_served_once():
    async with target() as aim:
        text, signature, _ = aim.signer().sign(aim.envelope)
        assert await aim.post(text, signature) == 200
        assert await aim.post(text, signature) == 403
        assert aim.stateful.ran["forged"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"to": "another replica"},
        {"key": "session/another"},
        {"number": 0},
        {"body": "0" * 64},
    ],
    ids=["replica", "session", "number", "body"],
)
async def test_what_is_meant_for_something_else_is_refused(change):
    async with target() as aim:
        text, signature, _ = aim.signer().sign(replace(aim.envelope, **change))
        assert await aim.post(text, signature) in (403, 421)
        assert not aim.stateful.ran["forged"]


async def test_what_was_not_signed_with_the_ring_is_refused():
    async with target() as aim:
        text, signature, _ = Signer(KeyRing.ephemeral()).sign(aim.envelope)
        assert await aim.post(text, signature) == 403
        text, signature, _ = aim.signer().sign(aim.envelope)
        assert await aim.post(text, "0" * 64) == 403
        assert await aim.post(text[:-4] + "AAAA", signature) == 403
        assert await aim.post(text, signature, aim.body.replace(b"forged", b"FORGED")) == 403
        assert await aim.post("", "") == 403
        assert set(aim.stateful.ran) == {"first"}


@pytest.mark.parametrize("seconds", [-WINDOW - 5, WINDOW + 5], ids=["too old", "from the future"])
async def test_what_was_signed_at_another_time_is_refused(seconds):
    async with target() as aim:
        text, signature, _ = aim.signer(wall=lambda: time.time() + seconds).sign(aim.envelope)
        assert await aim.post(text, signature) == 403
        assert not aim.stateful.ran["forged"]


async def test_another_principals_request_does_not_open_the_session():
    async with target() as aim:
        text, signature, _ = aim.signer().sign(replace(aim.envelope, principal=("mallory", "", "")))
        assert await aim.post(text, signature) == 404
        assert not aim.stateful.ran["forged"]


def sealed(ring: KeyRing, address: str, name: str) -> bytes:
    return ring.sealer("fleet replica").seal(json.dumps({"at": address}).encode(), name).encode()


@pytest.mark.parametrize("poison", ["no seal", "another ring", "another replica's", "outside", "a name"])
async def test_a_poisoned_owner_address_is_not_connected_to(poison):
    async with target() as aim:
        fleet = aim.made[aim.owner].app.fleet
        assert fleet is not None
        me, ring = fleet.membership.name, aim.made[0]._ring
        value = {
            "no seal": b"127.0.0.1:9",
            "another ring": sealed(KeyRing.ephemeral(), "127.0.0.1:9", me),
            "another replica's": sealed(ring, "127.0.0.1:9", "another"),
            "outside": sealed(ring, "192.0.2.1:9", me),
            "a name": sealed(ring, "evil.test:9", me),
        }[poison]
        await aim.made[0].store.put(Membership.key(me), value, ttl=60)
        # A request of the session, to the replica that would forward it.
        url = aim.made[1 - aim.owner].url
        headers = {**dict(aim.envelope.headers), "host": url.split("/")[2]}
        async with httpx2.AsyncClient(timeout=30) as http:
            answer = await http.post(url, headers=headers, content=aim.body)
        result = answer.text
        if poison in ("outside", "a name"):
            assert "not_run" in result
            assert not aim.stateful.ran["forged"]
        else:
            # It is as if the owner were gone: the session is taken over, and its state begins again.
            assert aim.stateful.ran["forged"] == 1
            assert "new one" in result


def test_addresses_outside_the_networks_are_refused():
    networks = FleetSettings.parse("10.1.2.3:0").networks
    assert checked("10.200.0.1:99", networks) == ("10.200.0.1", 99)
    for address in ("11.0.0.1:99", "10.0.0.1:0", "10.0.0.1", "localhost:99", "169.254.169.254:80", "[::1]:80"):
        with pytest.raises(AddressRefused):
            checked(address, networks)


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "localhost:1", "8.8.8.8:1", "10.0.0.1", "10.0.0.1:99999"])
def test_an_address_that_others_cannot_use_is_refused(listen):
    with pytest.raises(ConfigError):
        FleetSettings.parse(listen)


def test_answers_are_signed_too():
    one, other = Signer(KeyRing([b"a" * 32])), Signer(KeyRing([b"b" * 32]))
    assert one.proven("nonce", 200, one.prove("nonce", 200))
    assert not one.proven("nonce", 200, other.prove("nonce", 200))
    assert not one.proven("nonce", 421, one.prove("nonce", 200))


def test_a_ring_that_is_being_rotated_signs_for_both():
    old, new = b"a" * 32, b"b" * 32
    before, during, after = Signer(KeyRing([old, new])), Signer(KeyRing([new, old])), Signer(KeyRing([new, old]))
    envelope = Envelope("r", "session", "k", 1, "POST", "", (), ("c", "", ""), None, "")
    for one, other in ((before, during), (during, before), (during, after)):
        text, signature, _ = one.sign(envelope)
        assert other.open(text, signature, me="r").key == "k"
