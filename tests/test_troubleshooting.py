"""The texts of docs/troubleshooting.md: each is what the code says in the situation that the page describes."""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client.auth import OAuthFlowError

from mcpconn import Connection, Manager, McpConnError, Policy, installed
from mcpconn.core import Evidence, classify
from mcpconn.testing import Script, ScriptedTool, ScriptTransport
from mcpconn.testing.scripted import faults
from mcpconn.wire.child import CannotStart, ChildExited
from mcpconn.wire.messages import Unreadable
from mcpconn.wire.reasons import WrongScheme

PAGE = Path(__file__).resolve().parent.parent / "docs" / "troubleshooting.md"
QUOTED = re.findall(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


REFUSED = {"url": "http://127.0.0.1:9/mcp"}
"""Nothing listens on the discard port."""


def served(script: Script) -> dict[str, Any]:
    return {"url": "http://shop.test/mcp", "http_transport": ScriptTransport(script)}


# -- texts of failures: evidence, classified


SEEN: dict[str, Evidence] = {
    "the server cannot be reached": Evidence(exception=httpx2.ConnectError("refused"), phase="dial"),
    "there is no MCP server at this URL": Evidence(http_status=404, phase="dial"),
    "the URL serves a web page, not an MCP server": Evidence(http_status=200, content_type="text/html", phase="dial"),
    "the URL redirects elsewhere": Evidence(http_status=308, phase="dial"),
    "the URL's scheme is not the server's": Evidence(exception=WrongScheme("it speaks plain HTTP"), phase="dial"),
    "the server's certificate is not trusted": Evidence(exception=ssl.SSLCertVerificationError(1, "self-signed")),
    "the proxy requires other credentials": Evidence(http_status=407, phase="dial"),
    "the command cannot be started": Evidence(exception=CannotStart(FileNotFoundError(2, "no such program"))),
    "the server process exited before the handshake": Evidence(exception=ChildExited(1, ()), phase="dial"),
    "the server refused the handshake": Evidence(http_status=400, code=-32600, from_wire=True, phase="dial"),
    "the versions do not fit": Evidence(code=-32022, from_wire=True, phase="call"),
    "the server refused the credentials": Evidence(http_status=401),
    "the credentials do not allow this call": Evidence(http_status=403),
    "the authorization failed": Evidence(exception=OAuthFlowError("no answer from the browser"), phase="dial"),
    "too many requests": Evidence(http_status=429),
    "the server cannot answer now": Evidence(http_status=503),
    "the connection was cut": Evidence(exception=httpx2.ReadError("reset"), written=True),
    "the event stream ended before the answer": Evidence(code=-32000, message="SSE stream ended without a response"),
    "the transport ended": Evidence(exception=ChildExited(-9, ()), phase="idle"),
    "the server no longer knows the session": Evidence(
        http_status=404, code=-32600, message="Session not found", session_sent=True, from_wire=True
    ),
    "the answer cannot be used": Evidence(exception=Unreadable("it is not JSON")),
}


@pytest.mark.parametrize("text", SEEN)
def test_a_failure_is_described_so(text: str) -> None:
    assert classify(SEEN[text]).summary.startswith(text)


# -- texts of exceptions: raised


async def may_have_run() -> None:
    script = Script()
    async with Manager({"shop": served(script)}) as manager:
        await manager.wait_ready()
        script.inject(faults.drop_after())
        await manager.call_tool("shop", "charge")


async def no_answer() -> None:
    script = Script()
    async with Manager({"shop": served(script)}) as manager:
        await manager.wait_ready()
        script.inject(faults.hang())
        await manager.call_tool("shop", "charge", timeout=0.01)


async def never_ready(**options: Any) -> None:
    async with Manager({"shop": REFUSED}) as manager:
        await manager.call_tool("shop", "charge", **options)


async def too_many() -> None:
    async with Manager({"shop": REFUSED}, policy=Policy(max_waiting=1)) as manager:
        async with anyio.create_task_group() as group:
            group.start_soon(manager.call_tool, "shop", "charge")
            while manager["shop"].status()["waiting"] == 0:
                await anyio.lowlevel.checkpoint()
            refused = None
            try:
                await manager.call_tool("shop", "charge")
            except McpConnError as error:
                refused = error
            group.cancel_scope.cancel()
        assert refused is not None
        raise refused


async def closed() -> None:
    async with Manager({"shop": served(Script())}) as manager:
        connection = manager["shop"]
        await manager.remove("shop")
        await connection.call_tool("charge")


class Misshapen(ScriptedTool):
    def listed(self) -> dict[str, Any]:
        return {**super().listed(), "inputSchema": None}


async def misshapen() -> None:
    script = Script(tools=[Misshapen("charge", lambda arguments: "charged")])
    async with Connection(served(script)) as connection:
        await connection.list_tools()


async def not_entered() -> None:
    await Manager({"shop": served(Script())}).call_tool("shop", "charge")


async def nobody() -> None:
    _ = Manager({})["shop"]


async def entry(**entry: Any) -> None:
    Manager({"shop": entry})


RAISED: dict[str, Callable[[], Awaitable[None]]] = {
    "the tool may have run": may_have_run,
    "no answer within": no_answer,
    "not ready within": lambda: never_ready(timeout=0.01),
    "and the call was made with wait=False": lambda: never_ready(wait=False),
    "calls are waiting already": too_many,
    "the connection is closed": closed,
    "the result is not a valid": misshapen,
    "the manager is not entered": not_entered,
    "no server named": nobody,
    "unknown key": lambda: entry(ur="http://shop.test/mcp"),
    "give exactly one of url, command and server": lambda: entry(),
    "url is not a valid http or https address": lambda: entry(url="shop.test/mcp"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("text", RAISED)
async def test_an_exception_says_so(text: str) -> None:
    with pytest.raises(McpConnError, match=re.escape(text)):
        await RAISED[text]()


def test_a_mixture_of_two_projects_says_so() -> None:
    assert installed.MIXED.startswith(QUOTED[-1])


def test_every_text_of_the_page_has_a_test() -> None:
    assert sorted(QUOTED) == sorted([*SEEN, *RAISED, QUOTED[-1]])
    assert QUOTED[-1].startswith("two projects")
