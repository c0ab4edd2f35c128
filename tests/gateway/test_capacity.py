"""As many sessions as there may be: who gives way, who is refused, and who is not touched."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.capacity import Capacity
from mcpconn.testing import Script
from tests.gateway.conftest import gateway
from tests.gateway.crowd import Bare, Refused, idle_clients

pytestmark = pytest.mark.anyio

PING = {"id": 3, "method": "ping"}


class Clients:
    """Bare clients of one gateway; they vanish at the end."""

    def __init__(self, port: int, stack: AsyncExitStack) -> None:
        self._port, self._stack = port, stack

    async def begin(self, key: str, *, listen: bool = False) -> Bare:
        one = await Bare.connect(self._port, key)
        self._stack.callback(one.close)
        await one.begin(listen=listen)
        return one


async def test_a_full_gateway_ends_sessions_of_the_largest_user(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    ann, bob, eve = (keys.add(name) for name in ("ann", "bob", "eve"))
    settings = Settings(access=AccessSettings(keys), limits=Capacity(sessions=4))
    async with gateway(Script(), settings=settings) as made, AsyncExitStack() as stack:
        clients = Clients(int(made.url.split(":")[2].partition("/")[0]), stack)
        sessions = made.app.endpoint("").sessions
        of_bob = await clients.begin(bob)
        of_ann = [await clients.begin(ann) for _ in range(3)]
        held = set(sessions._live._all)
        await clients.begin(eve)
        assert len(sessions) == 4
        (put_away,) = held - set(sessions._live._all)
        # Bob's session was idle for longest, but ann has three.
        assert put_away in held
        counts = {principal.client: count for principal, count in sessions._live._counts.items()}
        assert counts == {"key:ann": 2, "key:bob": 1, "key:eve": 1}
        for each in (of_bob, *of_ann):
            # One that was put away is opened again, in the place of another of ann's.
            assert "200 OK" in await each.ask("POST", PING)
        assert len(sessions) == 4
        assert sessions._live.count(next(each for each in sessions._live._counts if each.client == "key:bob")) == 1


async def test_a_gateway_full_of_clients_that_listen_refuses(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    ann, bob = keys.add("ann"), keys.add("bob")
    settings = Settings(access=AccessSettings(keys), limits=Capacity(sessions=3))
    async with gateway(Script(), settings=settings) as made, AsyncExitStack() as stack:
        clients = Clients(int(made.url.split(":")[2].partition("/")[0]), stack)
        listening = [await clients.begin(ann, listen=True) for _ in range(3)]
        with pytest.raises(Refused) as refused:
            await clients.begin(bob)
        assert "503" in str(refused.value)
        assert "retry-after: 5" in str(refused.value)
        assert "Too many sessions are open" in str(refused.value)
        listening[0].close()
        sessions = made.app.endpoint("").sessions
        while sessions._live.first_idle() is None:
            await anyio.lowlevel.checkpoint()
        await clients.begin(bob)


async def test_one_principals_sessions_are_its_own_to_give(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    ann, bob = keys.add("ann"), keys.add("bob")
    settings = Settings(access=AccessSettings(keys), limits=Capacity(sessions_per_principal=2))
    async with gateway(Script(), settings=settings) as made, AsyncExitStack() as stack:
        clients = Clients(int(made.url.split(":")[2].partition("/")[0]), stack)
        await clients.begin(bob)
        for _ in range(2):
            await clients.begin(ann, listen=True)
        with pytest.raises(Refused, match="503"):
            await clients.begin(ann)
        await clients.begin(bob)
        assert len(made.app.endpoint("").sessions) == 4


async def test_crowds_beyond_a_limit_harm_no_other(tmp_path: Path) -> None:
    # The short form of `python -m tests.gateway.crowd --clients 10000 --sockets`.
    options = {"by_sockets": True, "one_principal": False}
    assert await idle_clients(tmp_path, 12, processes=1, within=60, rest=0, over=12, **options)
