"""What the tests of responses share."""

from __future__ import annotations

import pytest

from mcpconn.gateway.requests import large_tools
from mcpconn.gateway.requests.responses import Releases


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """No tool is known for its large answers."""
    monkeypatch.setattr(large_tools, "_known", type(large_tools._known)())


@pytest.fixture
async def releases():
    async with Releases().running() as running:
        yield running
