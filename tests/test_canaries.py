"""Canary secrets in every place of a configuration, real servers and children that say back what they got, and every
output: not one canary, in whatever form, in any of them."""

from __future__ import annotations

import base64
import html
import json
import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import anyio.to_thread
import pytest
from mcp import MCPError

from mcpconn import Connection, Manager, Policy, SyncManager, handlers
from tests.echoing import SESSION, Echo, echoing
from tests.support import SAFETY, UNFINISHED_STREAMS

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

CANARIES = {
    "userinfo": "corr/ect-h0rse+battery",
    "path": "c2VjcmV0LXBhdGgtdG9rZW4tMTIz",
    "query": "AKIAIOSFODNN7EXAMPLE",
    "header": "sk-live-51H8x2KJh7aBcDeFgHiJ",
    "other header": 'Quoted "value" <1234>',
    "cookie": "s%3A0123456789.abcdefghij",
    "session": SESSION,
}
CONFIGURED = {name: secret for name, secret in CANARIES.items() if name != "session"}
TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
MODES = [
    "tool error",
    "rpc error",
    "400 text",
    "400 json",
    "401 text",
    "403 json",
    "404 json",
    "429 text",
    "500 text",
    "503 json",
]
ENGINES = pytest.mark.parametrize("engine", ["direct", "httpx"])


def forms(secret: str) -> Iterator[str]:
    """What must not be seen of a secret: it, its other forms, and most of it."""
    yield secret
    yield quote(secret, safe="")
    yield base64.b64encode(secret.encode()).decode().rstrip("=")[:-2]
    yield json.dumps(secret)[1:-1]
    yield html.escape(secret)
    if len(secret) >= 16:
        yield secret[:14]
        yield secret[-14:]


def clean(where: str, text: str, secrets: dict[str, str] | None = None) -> None:
    """Nothing of a canary is in `text`."""
    assert text, where
    for name, secret in (secrets or {**CANARIES, "token": TOKEN}).items():
        for form in forms(secret):
            assert form not in text, f"{where} shows the {name}: ...{text[max(0, text.find(form) - 60) :][:160]}..."


def entry(echo: Echo, **more: Any) -> dict[str, Any]:
    """Canaries wherever a configuration has room for them."""
    secret = CANARIES
    userinfo = f"me:{quote(secret['userinfo'], safe='')}"
    return {
        "url": f"http://{userinfo}@{echo.url}/s/{secret['path']}/mcp?api_key={secret['query']}",
        "headers": {
            "X-Api-Key": secret["header"],
            "X-Other": secret["other header"],
            "Cookie": f"theme=dark; sid={secret['cookie']}",
        },
        **more,
    }


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """What the library has logged, and that URLs of others have no userinfo."""
    everything = "\n".join(record.getMessage() for record in caplog.records)
    clean("a log line", everything, {"userinfo": CANARIES["userinfo"]})
    own = [record for record in caplog.records if record.name.startswith("mcpconn")]
    return "\n".join(f"{record.getMessage()} {record.__dict__!r}" for record in own)


@ENGINES
@pytest.mark.parametrize("mode", MODES)
async def test_no_output_shows_a_canary(mode: str, engine: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    notices: list[Any] = []
    with anyio.fail_after(SAFETY):
        async with echoing() as echo:
            config = entry(echo, engine=engine, mode="legacy")
            async with Manager({"srv": config}, policy=Policy(probe_timeout=1)) as manager:
                manager.observe(notices.append)
                await manager.call_tool("srv", "say")
                assert any(CANARIES["header"] in head for head in echo.heads)
                echo.mode = mode
                said: list[tuple[str, str]] = []
                if mode == "tool error":
                    await manager.call_tool("srv", "say", timeout=1)
                else:
                    with pytest.raises(MCPError) as caught:
                        await manager.call_tool("srv", "say", timeout=1)
                    if mode != "rpc error":  # that is the application's own, and the caller's alone
                        said.append(("an error", str(caught.value)))
                        said.append(("a repr", repr(caught.value)))
                        said.append(("a traceback", "".join(traceback.format_exception(caught.value))))
                said.append(("a handler's answer", await handlers.call_tool(manager, "srv", "say", timeout=1)({})))
                connection = manager["srv"]
                said += [
                    ("repr(connection)", repr(connection)),
                    ("repr(config)", repr(connection.config)),
                    ("repr(manager)", repr(manager)),
                    ("status", json.dumps(manager.status())),
                    ("a notice", repr(notices) + "".join(str(notice) for notice in notices)),
                    ("last failure", repr(connection.last_failure)),
                    ("a log line", logged(caplog)),
                ]
                for where, text in said:
                    clean(where, text, CONFIGURED if "handler" in where else None)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_threaded_handler_shows_a_canary(anyio_backend: str) -> None:
    def use(config: dict[str, Any], mode: Callable[[str], None]) -> list[str]:
        with SyncManager({"srv": config}, policy=Policy(probe_timeout=1)) as manager:
            manager.call_tool("srv", "say")
            answers = []
            for each in ("tool error", "rpc error", "500 text"):
                mode(each)
                answers.append(handlers.call_tool(manager, "srv", "say", timeout=1)({}))
            return [*answers, json.dumps(manager.status()), repr(manager)]

    with anyio.fail_after(SAFETY):
        async with echoing() as echo:
            config = entry(echo, mode="legacy")
            for text in await anyio.to_thread.run_sync(partial(use, config, partial(setattr, echo, "mode"))):
                clean("an answer in a thread", text, CONFIGURED)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("mode", ["tool error", "rpc error", "500 text", "401 json"])
async def test_no_command_shows_a_canary(mode: str, anyio_backend: str, tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    with anyio.fail_after(6 * SAFETY):
        async with echoing() as echo:
            file.write_text(json.dumps({"mcpServers": {"srv": entry(echo, mode="legacy")}}))
            echo.mode = mode
            call = ["call", "srv", "say", "-c", str(file)]
            for command in (["--debug", "check", str(file)], call, ["--debug", *call]):
                run = await anyio.run_process(
                    [sys.executable, "-m", "mcpconn.cli", *command], check=False, stderr=subprocess.PIPE
                )
                output = run.stdout.decode() + run.stderr.decode()
                clean(" ".join(command), output)
                assert ("HTTP Request: POST" in output) is ("--debug" in command)


async def test_no_word_of_a_child_shows_a_canary(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----"
    env = {
        "SLACK_TOKEN": TOKEN,
        "DATABASE": f"postgres://me:{quote(CANARIES['userinfo'], safe='')}@host/db",
        "ACCOUNT": json.dumps({"type": "account", "private_key": pem, "key": CANARIES["header"]}),
    }
    # 500 characters of a line are kept, 300 of a message: the token is across both limits.
    code = (
        "import os, sys\n"
        "words = ' '.join(os.environ[n] for n in ('SLACK_TOKEN', 'DATABASE', 'ACCOUNT')) + ' '.join(sys.argv)\n"
        "sys.exit('No module named server_of_many_words ' + words[:20] + ' ' * {} + os.environ['SLACK_TOKEN'] + words)"
    )
    secrets = {
        "token": TOKEN,
        "userinfo": CANARIES["userinfo"],
        "header": CANARIES["header"],
        "pem": pem.split("\n")[1],
    }
    for pad in (0, 200, 240, 400, 430):
        args = ["-c", code.format(pad), f"--api-key={CANARIES['header']}", "--name", "server_of_many_words"]
        once = Policy(patience=1e-6, min_attempts=1)
        connection = Connection({"command": sys.executable, "args": args, "env": env}, name="child", policy=once)
        with anyio.fail_after(SAFETY):
            with pytest.raises(MCPError, match="No module named server_of_many_words") as caught:
                async with connection:
                    raise AssertionError("never ready")
        shown = [
            str(caught.value),
            "".join(traceback.format_exception(caught.value)),
            json.dumps(connection.status()),
            repr(connection.last_failure),
            logged(caplog),
        ]
        for text in shown:
            clean("a child's word", text, secrets)
    assert TOKEN not in "".join(capfd.readouterr())
