"""A user's own login at an upstream: who is asked, who gets in, and who does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import mcp_types as types
import pytest
from mcp import Client, MCPError

from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile, principal_of_key
from mcpconn.gateway.access.rights import Rights
from mcpconn.gateway.upstream_auth.config import UserLogin
from tests.gateway.access.test_gate import client
from tests.gateway.conftest import Gateway, gateway
from tests.gateway.upstream_auth.browser import Browser, link_in
from tests.gateway.upstream_auth.cloud import Cloud, serving
from tests.support import text_of

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])


@asynccontextmanager
async def users(
    keys: KeyFile | None, *rules: Rights, cloud: Cloud | None = None
) -> AsyncIterator[tuple[Gateway, Cloud]]:
    """A gateway before an upstream that its users log in at."""
    settings = Settings(
        access=AccessSettings(keys, (), rules or (Rights(),)),
        credentials={"cloud": UserLogin()},
        allowed_addresses=(),
    )
    async with serving(cloud or Cloud()) as found:
        more = {"cloud": {"url": f"{found.origin}/mcp", "lazy": True}}
        async with gateway(more=more, settings=settings) as made:
            yield made, found


async def tools(connected: Client) -> set[str]:
    return {tool.name for tool in (await connected.list_tools()).tools}


@MODES
async def test_a_client_without_elicitation_gets_the_link_in_words(keys, mode):
    key = keys.add("ann")
    async with users(keys) as (made, cloud), client(made, key, mode) as ann, Browser() as browser:
        assert await tools(ann) == {"cloud__log_in"}
        said = await ann.call_tool("cloud__whoami", {})
        assert said.is_error
        assert said.meta is not None
        assert said.meta["mcpconn/outcome"] == "not_run"
        link = link_in(text_of(said))
        assert said.meta["mcpconn/login"] == link
        answer = await browser.log_in(link, key, "ann@cloud")
        assert "logged in at cloud" in answer.text
        assert text_of(await ann.call_tool("cloud__whoami", {})) == "ann@cloud"
        with anyio.fail_after(10):
            while "cloud__whoami" not in await tools(ann):
                await anyio.lowlevel.checkpoint()
        assert await tools(ann) == {"cloud__whoami", "cloud__charge"}
        assert cloud.calls == {"ann@cloud": 1}


@MODES
async def test_a_client_with_elicitation_is_asked_and_the_call_goes_on(keys, mode):
    key = keys.add("ann")
    asked: list[Any] = []
    async with users(keys) as (made, cloud), Browser() as browser, anyio.create_task_group() as group:

        async def elicit(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
            asked.append(params)
            assert isinstance(params, types.ElicitRequestURLParams)
            group.start_soon(browser.log_in, params.url, key, "ann@cloud")
            return types.ElicitResult(action="accept")

        async with client(made, key, mode, elicitation_callback=elicit) as ann:
            assert text_of(await ann.call_tool("cloud__charge", {})) == "charged"
            assert text_of(await ann.call_tool("cloud__whoami", {})) == "ann@cloud"
        assert len(asked) == 1
        assert cloud.counts["charge"] == 1


# -- whoever is not the user


async def needed(connected: Client) -> str:
    """The link that a client is told when its user has to log in."""
    said = await connected.call_tool("cloud__charge", {})
    assert said.is_error
    return link_in(text_of(said))


async def test_another_users_link_opens_nothing(keys):
    ann, bob = keys.add("ann"), keys.add("bob")
    async with users(keys) as (made, cloud), client(made, ann, "auto") as of_ann, Browser() as bobs, Browser() as anns:
        link = await needed(of_ann)
        shown = await bobs.get(link)
        assert "cloud" not in shown.text
        assert "ann" not in shown.text
        answer = await bobs.show(link, bob)
        assert answer.status_code == 400
        assert "not one of yours" in answer.text
        assert cloud.counts["register"] == 0
        # The link is still good for the user that it was made for.
        assert (await anns.log_in(link, ann, "ann@cloud")).status_code == 200
        assert text_of(await of_ann.call_tool("cloud__whoami", {})) == "ann@cloud"
        async with client(made, bob, "auto") as of_bob:
            assert (await of_bob.call_tool("cloud__whoami", {})).is_error


async def test_an_answer_counts_once_and_for_its_user_alone(keys):
    ann, bob = keys.add("ann"), keys.add("bob")
    async with users(keys) as (made, cloud), AsyncExitStack() as stack:
        of_ann, of_bob = [await stack.enter_async_context(client(made, key, "auto")) for key in (ann, bob)]
        anns, bobs, nobodys = [await stack.enter_async_context(Browser()) for _ in range(3)]
        back = await anns.consent(await anns.onward(await needed(of_ann), ann), "ann@cloud")
        # Bob's browser has proved to be Bob's, and begun a login of its own.
        await bobs.onward(await needed(of_bob), bob)
        for browser, said in ((bobs, "No login of yours"), (nobodys, "has not shown whose")):
            answer = await browser.get(back)
            assert answer.status_code == 400
            assert said in answer.text
        assert (await anns.get(back)).status_code == 200
        replayed = await anns.get(back)
        assert replayed.status_code == 400
        assert "No login of yours waits" in replayed.text
        assert cloud.counts["authorization_code"] == 1
        assert text_of(await of_ann.call_tool("cloud__whoami", {})) == "ann@cloud"
        assert (await of_bob.call_tool("cloud__whoami", {})).is_error


@pytest.mark.parametrize("forgery", ["state", "issuer", "code"])
async def test_a_forged_answer_is_refused(keys, forgery):
    key = keys.add("ann")
    async with users(keys) as (made, cloud), client(made, key, "auto") as ann, Browser() as browser:
        if forgery == "issuer":
            cloud.iss = "http://evil.example.com"
        back = await browser.consent(await browser.onward(await needed(ann), key), "ann@cloud")
        if forgery == "state":
            back = back.replace("state=", "state=x")
        if forgery == "code":
            back = back.replace("code=", "code=x")
        answer = await browser.get(back)
        assert answer.status_code == 400
        assert cloud.counts["authorization_code"] == (forgery == "code")
        assert (await ann.call_tool("cloud__whoami", {})).is_error
        assert cloud.calls == {}


async def test_a_login_that_is_given_up_can_be_begun_again(keys):
    key = keys.add("ann")
    async with users(keys) as (made, _), client(made, key, "auto") as ann, Browser() as browser:
        link = await needed(ann)
        await browser.onward(link, key)
        back = await browser.consent(await browser.onward(link, key), None)
        refused = await browser.get(back)
        assert refused.status_code == 400
        assert "access_denied" in refused.text
        assert await needed(ann) == link
        assert (await browser.log_in(link, None, "ann@cloud")).status_code == 200
        assert text_of(await ann.call_tool("cloud__whoami", {})) == "ann@cloud"
        # A link ends with the login that it was made for.
        assert (await browser.show(link)).status_code == 400


async def test_a_client_that_declines_is_told(keys):
    key = keys.add("ann")

    async def elicit(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="decline")

    for mode in ("legacy", "auto"):
        async with users(keys) as (made, cloud), client(made, key, mode, elicitation_callback=elicit) as ann:
            said = await ann.call_tool("cloud__charge", {})
            assert said.is_error
            assert "did not want to log in" in text_of(said)
            assert cloud.counts["charge"] == 0


# -- the page


@pytest.mark.parametrize("origin", ["", "null", "http://evil.example.com"])
async def test_a_form_of_another_page_is_refused(keys, origin):
    key = keys.add("ann")
    async with users(keys) as (made, cloud), client(made, key, "auto") as ann, Browser() as browser:
        link = await needed(ann)
        answer = await browser.show(link, key, origin=origin)
        assert answer.status_code == 403
        assert browser.cookies == {}
        assert cloud.counts["register"] == 0


async def test_the_page_says_what_is_wrong_and_repeats_nothing(keys):
    keys.add("ann")
    async with users(keys) as (made, _), Browser() as browser:
        page = made.url.removesuffix("/mcp") + "/login/"
        for name, key, status in (
            ("none", "mck_a-wrong-key", 403),
            ("none", "", 401),
            ("<script>", "x" * 40_000, 400),
        ):
            answer = await browser.show(page + name, key)
            assert answer.status_code == status
            assert key == "" or key not in answer.text
            assert "<script>" not in answer.text
        assert (await browser.http.put(page + "none")).status_code == 405
        head = (await browser.get(page + "none")).headers
        assert "default-src 'none'" in head["content-security-policy"]
        assert "frame-ancestors 'none'" in head["content-security-policy"]
        assert head["referrer-policy"] == "no-referrer"
        assert head["cache-control"] == "no-store"
        assert (await browser.get(page + "none", headers={"host": "evil.example.com"})).status_code == 421


async def test_a_browser_is_known_for_ten_minutes(keys):
    key = keys.add("ann")
    async with users(keys) as (made, cloud), client(made, key, "auto") as ann, Browser() as browser:
        back = await browser.consent(await browser.onward(await needed(ann), key), "ann@cloud")
        wall = made.app.auth.page._wall
        made.app.auth.page._wall = lambda: wall() + 601
        assert (await browser.get(back)).status_code == 400
        made.app.auth.page._wall = wall
        keys.remove("ann")
        assert (await browser.get(back)).status_code == 400
        assert cloud.counts["authorization_code"] == 0


async def test_the_cookie_is_the_browsers_alone(keys):
    key = keys.add("ann")
    async with users(keys) as (made, _), client(made, key, "auto") as ann, Browser() as browser:
        answer = await browser.show(await needed(ann), key)
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-mcpconn-login=")
        for each in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
            assert each in cookie
        assert "ann" not in cookie
        assert "Domain" not in cookie


# -- the tokens


async def test_a_refused_token_is_renewed_once(keys):
    key = keys.add("ann")
    async with users(keys) as (made, cloud), client(made, key, "legacy") as ann, Browser() as browser:
        await browser.log_in(await needed(ann), key, "ann@cloud")
        assert text_of(await ann.call_tool("cloud__whoami", {})) == "ann@cloud"
        cloud.revoke_access("ann@cloud")
        said: list[str] = []

        async def ask() -> None:
            said.append(text_of(await ann.call_tool("cloud__whoami", {})))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask)
        assert said == ["ann@cloud"] * 5
        assert cloud.counts["refresh_token"] == 1


@MODES
async def test_a_login_that_was_taken_back_is_made_again(keys, mode):
    key = keys.add("ann")
    async with users(keys) as (made, cloud), client(made, key, mode) as ann, Browser() as browser:
        await browser.log_in(await needed(ann), key, "ann@cloud")
        assert text_of(await ann.call_tool("cloud__charge", {})) == "charged"
        cloud.revoke("ann@cloud")
        cloud.clients.clear()
        link = await needed(ann)
        # The authorization server has forgotten its client as well: another one is registered.
        assert (await browser.log_in(link, key, "ann@cloud")).status_code == 200
        assert text_of(await ann.call_tool("cloud__charge", {})) == "charged"
        assert cloud.counts["charge"] == 2
        assert cloud.counts["register"] == 2
        assert cloud.counts["reused"] == 0


async def test_one_client_serves_all_users(keys):
    names = ["ann", "bob", "eve"]
    async with users(keys) as (made, cloud):
        for name in names:
            key = keys.add(name)
            async with client(made, key, "auto") as connected, Browser() as browser:
                await browser.log_in(await needed(connected), key, name)
                assert text_of(await connected.call_tool("cloud__whoami", {})) == name
        assert cloud.counts["register"] == 1


async def test_another_process_continues_a_login(keys):
    key = keys.add("ann")
    async with users(keys) as (made, _), Browser() as browser:
        async with client(made, key, "auto") as ann:
            link = await needed(ann)
        await made.replace()
        address = await browser.onward(link, key)
        await made.replace()
        assert (await browser.get(await browser.consent(address, "ann@cloud"))).status_code == 200
        await made.replace()
        async with client(made, key, "auto") as ann:
            assert text_of(await ann.call_tool("cloud__whoami", {})) == "ann@cloud"


async def test_who_gets_a_removed_keys_name_gets_no_login(keys):
    key = keys.add("ann")
    async with users(keys) as (made, cloud), Browser() as browser:
        async with client(made, key, "auto") as ann:
            await browser.log_in(await needed(ann), key, "ann@cloud")
            assert text_of(await ann.call_tool("cloud__whoami", {})) == "ann@cloud"
        storage = made.app.auth.users.logins.storage(principal_of_key("ann"), "cloud")
        assert (await storage.load()).tokens is not None
        keys.remove("ann")
        with anyio.fail_after(10):
            while (await storage.load()).tokens is not None:
                await anyio.lowlevel.checkpoint()
        key = keys.add("ann")
        async with client(made, key, "auto") as another:
            await needed(another)
        assert cloud.calls == {"ann@cloud": 1}


async def test_a_code_is_traded_while_the_server_is_busy(keys, monkeypatch):
    monkeypatch.setattr("mcpconn.auth.grants.PAUSES", (0.0, 0.0))
    key = keys.add("ann")
    async with users(keys) as (made, cloud), client(made, key, "auto") as ann, Browser() as browser:
        cloud.busy = 2
        assert (await browser.log_in(await needed(ann), key, "ann@cloud")).status_code == 200
        assert text_of(await ann.call_tool("cloud__whoami", {})) == "ann@cloud"


async def test_on_a_plain_listener_everybody_is_one_person():
    async with users(None) as (made, _), client(made, None, "auto") as connected, Browser() as browser:
        assert (await browser.log_in(await needed(connected), None, "ann@cloud")).status_code == 200
        assert text_of(await connected.call_tool("cloud__whoami", {})) == "ann@cloud"


async def test_the_tool_to_log_in_does_it(keys):
    key = keys.add("ann")
    async with users(keys) as (made, _), client(made, key, "auto") as ann, Browser() as browser:
        said = await ann.call_tool("cloud__log_in", {})
        assert not said.is_error
        await browser.log_in(link_in(text_of(said)), key, "ann@cloud")
        assert "is logged in at" in text_of(await ann.call_tool("cloud__log_in", {}))
        assert text_of(await ann.call_tool("cloud__whoami", {})) == "ann@cloud"


async def test_without_the_right_nobody_logs_in(keys):
    key = keys.add("ann")
    async with users(keys, Rights(servers=("other",))) as (made, _), client(made, key, "auto") as ann:
        assert await tools(ann) == set()
        with pytest.raises(MCPError, match="Unknown tool"):
            await ann.call_tool("cloud__log_in", {})
