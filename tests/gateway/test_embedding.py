"""The gateway mounted into an application, as the how-to has it, in a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.streams.text import TextReceiveStream
from mcp import Client

from mcpconn.testing import HttpServer, Script, faults
from tests.support import text_of

pytestmark = pytest.mark.anyio


SOURCE = Path(__file__).parents[2] / "docs_src" / "howto" / "embed_gateway.py"


async def test_the_gateway_is_mounted_beside_other_routes(tmp_path):
    script = Script()
    shutil.copy(SOURCE, tmp_path)
    async with HttpServer(script) as shop:
        servers: dict[str, Any] = {"shop": {"url": shop.url}, "gone": {"url": "http://127.0.0.1:1/mcp"}}
        (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
        command = [sys.executable, "-m", "uvicorn", "embed_gateway:app", "--port", "0"]
        with anyio.fail_after(60):
            async with await anyio.open_process(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
                try:
                    assert process.stderr is not None
                    said = ""
                    async for text in TextReceiveStream(process.stderr):
                        said += text
                        if (found := re.search(r"running on (http://\S+)", said)) is not None:
                            break
                    assert found is not None
                    url = found.group(1)
                    async with Client(f"{url}/mcp", mode="legacy") as client:
                        assert text_of(await client.call_tool("shop__add", {"a": 1, "b": 2})) == "3"
                        script.forget_sessions()
                        assert text_of(await client.call_tool("shop__charge", {"amount": 5})) == "charged 5"
                        script.inject(faults.drop_after())
                        cut = await client.call_tool("shop__charge", {"amount": 6})
                        assert (cut.meta or {})["mcpconn/outcome"] == "unknown"
                    async with httpx2.AsyncClient() as http:
                        states = (await http.get(f"{url}/health")).json()
                    assert states["shop"] == "ready"
                    assert "gone" in states
                finally:
                    process.terminate()
                    await process.wait()
    assert script.executions["charge"] == 2
