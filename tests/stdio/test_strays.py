"""A child that writes an answer to no request, before the answer to a call or in its place."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mcpconn import Connection, OutcomeUnknown
from tests.stdio.programs import Told, python
from tests.support import SAFETY, text_of

pytestmark = pytest.mark.anyio

STRAYS = {
    "a result of another id": '{"jsonrpc":"2.0","id":4000,"result":{"content":[]}}',
    "an error without an id": '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}',
    "no message": '{"jsonrpc":"2.0","result":7}',
}


def straying(stray: str, told: Told, *, version: str = "2025-11-25") -> dict[str, Any]:
    """A server that writes `stray` before its answer to each call; with the argument `mute`, in its place."""
    return python(
        f"""
import json
told = open({str(told.path)!r}, "w")
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    answer = {{"jsonrpc": "2.0", "id": message["id"]}}
    if message["method"] == "initialize":
        info = {{"name": "straying", "version": "1"}}
        answer["result"] = {{"protocolVersion": {version!r}, "capabilities": {{"tools": {{}}}}, "serverInfo": info}}
    elif message["method"] == "tools/call":
        print("ran", file=told, flush=True)
        print({stray!r}, flush=True)
        if message["params"].get("arguments", {{}}).get("mute"):
            continue
        time.sleep(message["params"].get("arguments", {{}}).get("seconds", 0))
        answer["result"] = {{"content": [{{"type": "text", "text": "charged"}}]}}
    elif message["method"] == "ping":
        answer["result"] = {{}}
    else:
        answer["error"] = {{"code": -32601, "message": "no"}}
    print(json.dumps(answer), flush=True)
raise SystemExit
"""
    )


@pytest.mark.parametrize("stray", STRAYS.values(), ids=list(STRAYS))
async def test_a_stray_before_the_answer_costs_no_call(stray: str, told: Told) -> None:
    with anyio.fail_after(SAFETY):
        async with Connection(straying(stray, told)) as connection:
            for seconds in (0, 0.3):
                assert text_of(await connection.call_tool("charge", {"seconds": seconds})) == "charged"
            assert (connection.epoch, told.lines) == (1, ["ran", "ran"])


async def test_a_stray_in_place_of_the_answer_ends_the_call(told: Told) -> None:
    with anyio.fail_after(SAFETY):
        async with Connection(straying(STRAYS["a result of another id"], told)) as connection:
            with pytest.raises(OutcomeUnknown):
                await connection.call_tool("charge", {"mute": True}, timeout=30)
            assert text_of(await connection.call_tool("charge", {})) == "charged"
            assert told.lines == ["ran", "ran"]
