"""What is known of a session after its end."""

from __future__ import annotations

import pytest

from mcpconn.config import ServerConfig
from mcpconn.policy import Policy
from mcpconn.testing import Script, ScriptTransport
from mcpconn.wire.dial import Dialer
from tests.support import UNFINISHED_STREAMS

pytestmark = pytest.mark.anyio


@UNFINISHED_STREAMS
async def test_what_a_server_can_do_may_be_asked_after_its_session_has_ended() -> None:
    # A child that was killed while its tools were being listed closed its connection permanently: the listing
    # asked the SDK's client, which raises once it was left.
    config = ServerConfig(url="http://server.example/mcp", http_transport=ScriptTransport(Script()))
    async with Dialer(config, Policy()).open(lambda evidence: None) as link:
        pass
    assert link.capabilities is not None
    assert link.capabilities.tools is not None
    assert link.server_info is not None
