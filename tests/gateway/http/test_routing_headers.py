"""`Mcp-Method` and `Mcp-Name` in odd forms: proxies route by them, so they must say what the body says."""

from __future__ import annotations

from base64 import b64encode

import anyio
import pytest

from mcpconn.testing import Script
from tests.gateway.test_bad_input import MODERN, modern, open_to_all

pytestmark = pytest.mark.anyio

METHOD, NAME = ("mcp-method", "tools/call"), ("mcp-name", "a__charge")


def encoded(text: str, word: str = "base64") -> str:
    return f"=?{word}?{b64encode(text.encode()).decode()}?="


SAME = {
    "as they are": [METHOD, NAME],
    "base64": [METHOD, ("mcp-name", encoded("a__charge"))],
    "other case of the header": [("MCP-METHOD", "tools/call"), ("Mcp-Name", "a__charge")],
}
OTHER: dict[str, list[tuple[str, str]]] = {
    "base64 of another name": [METHOD, ("mcp-name", encoded("a__add"))],
    "base64 twice": [METHOD, ("mcp-name", encoded(encoded("a__charge")))],
    "BASE64": [METHOD, ("mcp-name", encoded("a__charge", "BASE64"))],
    "base64 without its padding": [METHOD, ("mcp-name", "=?base64?YQ?=")],
    "base64 with other bits": [METHOD, ("mcp-name", "=?base64?YR==?=")],
    "no base64": [METHOD, ("mcp-name", "=?base64?***?=")],
    "base64 of no UTF-8": [METHOD, ("mcp-name", "=?base64?/w==?=")],
    "base64 of nothing": [METHOD, ("mcp-name", "=?base64??=")],
    "base64 of much": [METHOD, ("mcp-name", encoded("x" * 20_000))],
    "a method in base64": [("mcp-method", encoded("tools/call")), NAME],
    "other case of the name": [METHOD, ("mcp-name", "A__charge")],
    "other case of the method": [("mcp-method", "TOOLS/CALL"), NAME],
    "two in one": [METHOD, ("mcp-name", "a__charge, a__add")],
    "no name": [METHOD],
    "no method": [NAME],
    "a name twice": [METHOD, NAME, NAME],
    "a name, and another": [METHOD, NAME, ("mcp-name", "a__add")],
    "another, and the name": [METHOD, ("mcp-name", "a__add"), NAME],
    "a method, and another": [METHOD, ("mcp-method", "tools/list"), NAME],
    "another version": [METHOD, NAME, ("mcp-protocol-version", "2025-11-25")],
}
CALL = modern("tools/call", name="a__charge", arguments={"amount": 1})


@pytest.mark.parametrize("headers", SAME.values(), ids=list(SAME))
async def test_what_says_the_same_is_taken(headers):
    script = Script()
    async with open_to_all(script) as (made, http):
        answer = await http.post(made.url, json=CALL, headers=[*MODERN.items(), *headers])
        assert answer.status_code == 200
    assert script.executions["charge"] == 1


async def test_what_says_something_else_is_refused():
    script = Script()
    async with open_to_all(script) as (made, http):
        for case, headers in OTHER.items():
            answer = await http.post(made.url, json=CALL, headers=[*MODERN.items(), *headers])
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020), case
    assert script.executions["charge"] == 0


@pytest.mark.parametrize("space", [b"", b" \t  "])
async def test_space_around_a_value_is_none_of_it(space):
    script = Script()
    body = b'{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{%s}}}' % b",".join(
        (
            b'"io.modelcontextprotocol/protocolVersion":"2026-07-28"',
            b'"io.modelcontextprotocol/clientCapabilities":{}',
        )
    )
    async with open_to_all(script) as (made, _):
        host, _, port = made.url.removeprefix("http://").removesuffix("/mcp").partition(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            head = b"POST /mcp HTTP/1.1\r\nhost: %s:%s\r\ncontent-type: application/json\r\n" % (
                host.encode(),
                port.encode(),
            )
            head += b"accept: application/json, text/event-stream\r\nmcp-protocol-version:%s2026-07-28%s\r\n" % (
                space,
                space,
            )
            head += b"mcp-method:%sserver/discover%s\r\ncontent-length: %d\r\n\r\n" % (space, space, len(body))
            await stream.send(head + body)
            assert (await stream.receive()).startswith(b"HTTP/1.1 200")
