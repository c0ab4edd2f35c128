"""What a child gets of this process's environment (`inherit_env`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcpconn import Connection
from tests.support import SAFETY, text_of

pytestmark = pytest.mark.anyio

ENVIRONMENT = """
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                  "serverInfo": {"name": "env", "version": "1"}}
    else:
        result = {"content": [{"type": "text", "text": json.dumps(sorted(os.environ))}]}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@pytest.mark.parametrize(
    ("inherit", "seen"),
    [
        (False, set()),
        (True, {"TRIED_CA_FILE", "TRIED_PROXY", "TRIED_OTHER"}),
        (["tried_proxy"], {"TRIED_PROXY"}),
        (["*_PROXY", "*_CA_FILE"], {"TRIED_CA_FILE", "TRIED_PROXY"}),
        ([], set()),
    ],
)
async def test_a_child_inherits_what_it_is_given(
    inherit: Any, seen: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRIED_CA_FILE", "TRIED_PROXY", "TRIED_OTHER"):
        monkeypatch.setenv(name, "here")
    program = tmp_path / "env.py"
    program.write_text(ENVIRONMENT)
    entry = {"command": sys.executable, "args": [str(program)], "inherit_env": inherit, "env": {"TRIED_OWN": "own"}}
    with anyio.fail_after(SAFETY):
        async with Connection({**entry, "mode": "legacy"}) as connection:
            found = set(json.loads(text_of(await connection.call_tool("env"))))
    assert {name for name in found if name.startswith("TRIED_")} == seen | {"TRIED_OWN"}
