"""A limit of requests counts on all replicas together."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx2
import pytest

from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.rights import Rights
from mcpconn.testing import HttpServer, Script
from tests.fleet.conftest import replicas
from tests.fleet.test_revoked import ACCEPT, INITIALIZE

pytestmark = pytest.mark.anyio

BURST = 4


async def test_what_one_replica_let_in_counts_on_another(tmp_path: Path):
    keys = KeyFile(tmp_path / "keys")
    headers = {**ACCEPT, "authorization": f"Bearer {keys.add('ann')}"}
    # So slow that no request more flows in during the test.
    rules = (Rights(rate=0.001, burst=BURST),)
    settings = Settings(access=AccessSettings(keys=keys, rules=rules))
    async with (
        HttpServer(Script()) as server,
        httpx2.AsyncClient(headers=headers) as http,
        replicas({"a": {"url": server.url}}, count=2, settings=settings) as made,
    ):

        async def ask(index: int) -> int:
            return (await http.post(made[index].url, json=INITIALIZE)).status_code

        assert [await ask(0) for _ in range(BURST + 1)] == [200] * BURST + [429]
        fleet = made[0].app.fleet
        assert fleet is not None
        await fleet.rates.settle()
        # The first request here is decided before the shared bucket was looked at; what follows is not.
        told = [await ask(1)]
        with anyio.fail_after(10):
            while told[-1] == 200:
                await anyio.sleep(0.2)
                told.append(await ask(1))
        assert len(told) <= BURST
