"""Questions of a server reach the client whose call it is, and no other, in all four pairs of eras."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from mcp import Client

from tests.gateway.conftest import Gateway, gateway
from tests.gateway.questions import Asking, answers, serving
from tests.support import text_of

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def before(asking: Asking, mode: str) -> AsyncIterator[Gateway]:
    """A gateway before the server that asks, in one era."""
    async with serving(asking, mode) as url, gateway(more={"asks": {"url": url, "mode": mode}}) as made:
        yield made


CLIENTS = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
SERVERS = pytest.mark.parametrize("server_mode", ["legacy", "auto"], ids=["legacy server", "modern server"])

WANTED = {"form": "accept {0}", "url": "accept", "sample": "said {0}", "roots": "file:///{0}"}


@CLIENTS
@SERVERS
@pytest.mark.parametrize("kind", [*WANTED, "twice"])
async def test_a_question_reaches_the_client_that_called(mode, server_mode, kind):
    asking = Asking()
    wanted = {**WANTED, "twice": "accept {0}, accept {0}"}[kind]
    async with (
        before(asking, server_mode) as made,
        Client(made.url, mode=mode, **answers("ann")) as ann,
        Client(made.url, mode=mode, **answers("bob")) as bob,
    ):
        told: dict[str, str] = {}

        async def call(client: Client, name: str) -> None:
            told[name] = text_of(await client.call_tool(f"asks__{kind}", {}))

        async with anyio.create_task_group() as group:
            group.start_soon(call, ann, "ann")
            group.start_soon(call, bob, "bob")
    assert told == {name: wanted.format(name) for name in ("ann", "bob")}
    assert asking.ended[kind] == 2
