"""A user's own login at an upstream: who is asked, who gets in, and who does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.rights import Rights
from mcpconn.gateway.upstream_auth.config import UserLogin
from tests.gateway.conftest import Gateway, gateway
from tests.gateway.upstream_auth.browser import Browser, link_in
from tests.gateway.upstream_auth.cloud import Cloud, serving
from tests.support import text_of

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])


@pytest.fixture
def anyio_backend():
    """uvicorn serves on asyncio alone."""
    return "asyncio"


@pytest.fixture
def keys(tmp_path):
    return KeyFile(tmp_path / "clients.json")


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


@asynccontextmanager
async def client(made: Gateway, key: str | None, mode: str, **options: Any) -> AsyncIterator[Client]:
    async with AsyncExitStack() as stack:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=30))
        transport = streamable_http_client(made.url, http_client=http)
        yield await stack.enter_async_context(Client(transport, mode=mode, **options))


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
