"""What an upstream names is asked only if it is public, or the operator's own."""

from __future__ import annotations

import socket
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.server import MCPServer
from starlette.responses import RedirectResponse

from mcpconn.auth.credentials import CredentialsRefused
from mcpconn.errors import ConfigError
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.upstream_auth.addresses import AllowedAddresses, Fetcher
from tests.gateway.access.test_gate import client
from tests.gateway.conftest import gateway, served
from tests.gateway.upstream_auth.browser import Browser
from tests.gateway.upstream_auth.cloud import Cloud, serving
from tests.gateway.upstream_auth.test_login import needed, users
from tests.support import text_of

pytestmark = pytest.mark.anyio


PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "::1",
    "::",
    "fe80::1%eth0",
    "fd00::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::",
    "::7f00:1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_not_permitted(address):
    assert not AllowedAddresses().permits(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"])
def test_a_public_address_is_permitted(address):
    assert AllowedAddresses().permits(address)


def test_what_operators_name_is_permitted():
    allowed = AllowedAddresses(["10.1.0.0/16", "login.internal"], origins=["http://127.0.0.1:8000/mcp"])
    assert allowed.permits("10.1.9.9")
    assert not allowed.permits("10.2.0.1")
    assert allowed.named(httpx2.URL("http://LOGIN.internal/token"))
    assert allowed.named(httpx2.URL("http://127.0.0.1:8000/token"))
    assert not allowed.named(httpx2.URL("http://127.0.0.1:8001/token"))


@pytest.mark.parametrize("entry", ["", "http://a.example", "10.0.0.0/40", "a b/", "b\u00fcro.example"])
def test_an_entry_naming_nothing_is_refused(entry):
    with pytest.raises(ConfigError, match="allowed_addresses"):
        AllowedAddresses([entry])


def resolving(*answers: list[str]) -> Any:
    """A resolver that gives one answer after another."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


@pytest.mark.parametrize(
    ("url", "addresses", "why"),
    [
        ("https://login.example.com/", ["10.0.0.1"], "private network"),
        ("https://login.example.com/", ["8.8.8.8", "127.0.0.1"], "private network"),
        ("http://login.example.com/", ["8.8.8.8"], "not https"),
        ("https://169.254.169.254/latest/meta-data", [], "private network"),
        ("https://[::1]/", [], "private network"),
        ("https://0x7f000001/", ["127.0.0.1"], "private network"),
    ],
)
async def test_what_is_not_allowed_is_not_asked(monkeypatch, url, addresses, why):
    async def never(*args: Any, **options: Any) -> Any:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("anyio.connect_tcp", never)
    with pytest.raises(CredentialsRefused, match=why) as caught:
        await Fetcher(AllowedAddresses(), resolve=resolving(addresses))(httpx2.Request("GET", url))
    assert "allowed_addresses" in str(caught.value)


async def test_the_address_that_was_looked_at_is_the_one_that_is_asked():
    """A name whose second answer is another address (DNS rebinding): the connection goes to the first."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        fetch = Fetcher(AllowedAddresses(["127.0.0.0/8"]), resolve=resolving(["127.0.0.2"], ["127.0.0.1"]))
        with pytest.raises(httpx2.ConnectError):
            # Nothing listens on the first address; what listens on the second is never asked.
            await fetch(httpx2.Request("GET", f"http://login.internal:{port}/"))
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


async def test_the_hosts_name_is_kept_and_no_redirect_is_followed():
    async with serving(Cloud()) as cloud:
        port = cloud.origin.rpartition(":")[2]
        fetch = Fetcher(AllowedAddresses(["login.internal"]), resolve=resolving(["127.0.0.1"]))
        url = f"http://login.internal:{port}/as/authorize?client_id=c&redirect_uri=http://x/&state=s"
        cloud.clients.add("c")
        answer = await fetch(httpx2.Request("GET", url))
        assert answer.status_code == 302
        assert answer.next_request is None
        assert f"login.internal:{port}" in cloud.asked[-1]
        assert str(answer.request.url) == url


# -- through the gateway


@pytest.mark.parametrize("what", ["issuer", "metadata url", "token endpoint", "registration endpoint"])
async def test_metadata_that_point_into_the_network_are_not_followed(tmp_path, what):
    keys = KeyFile(tmp_path / "clients.json")
    key = keys.add("ann")
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.setblocking(False)
        private = f"http://127.0.0.1:{inside.getsockname()[1]}"
        async with users(keys) as (made, cloud), client(made, key, "auto") as ann, Browser() as browser:
            if what == "issuer":
                cloud.resource_changes = {"authorization_servers": [private]}
            elif what == "metadata url":
                cloud.challenge = f'Bearer resource_metadata="{private}/"'
            elif what == "token endpoint":
                cloud.metadata_changes = {"token_endpoint": f"{private}/token"}
            else:
                cloud.metadata_changes = {"registration_endpoint": f"{private}/register"}
            link = await needed(ann)
            answer = await browser.show(link, key)
            if what == "token endpoint":
                back = await browser.consent(await browser.onward(link, key), "ann@cloud")
                answer = await browser.get(back)
            assert answer.status_code == 400
            assert "was not asked" in answer.text
            assert "private network" in answer.text
        with pytest.raises(BlockingIOError):
            inside.accept()


async def test_redirects_and_icons_into_the_network_are_not_followed(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.setblocking(False)
        private = f"http://127.0.0.1:{inside.getsockname()[1]}"

        async def redirecting(scope: Any, receive: Any, send: Any) -> None:
            await RedirectResponse(f"{private}/mcp", 307)(scope, receive, send)

        with socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
            icon = types.Icon(src=f"{private}/icon.png")
            server = MCPServer("with icons", icons=[icon])
            server.add_tool(lambda: "added", name="add", icons=[icon])
            more = {"elsewhere": {"url": url}, "here": server}
            async with served(redirecting, listening), gateway(more=more) as made:
                async with Client(made.url) as connected:
                    listed = await connected.list_tools()
                    assert [tool.icons for tool in listed.tools] == [[icon]]
                    said = await connected.call_tool("elsewhere__add", {})
                    assert said.is_error
                    assert f"to {private}/mcp" in text_of(said)
                    assert text_of(await connected.call_tool("here__add", {})) == "added"
                async with httpx2.AsyncClient() as http:
                    page = await http.get(made.url.replace("/mcp", "/dashboard/"))
                    assert page.status_code == 200
        with pytest.raises(BlockingIOError):
            inside.accept()
