"""Secrets of a configuration are in nothing that is shown: errors, reprs, status, notices, logs."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from typing import Any

import anyio
import pytest

from mcpconn import Connection, Manager, Policy
from mcpconn.testing import HttpServer, Reply, Script, Send
from mcpconn.testing.scripted import faults
from tests.support import SAFETY, UNFINISHED_STREAMS

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
PASSWORD = "correct-horse-battery"
PATH = "c2VjcmV0LXBhdGgtdG9rZW4tMTIz"
KEY = "AKIAIOSFODNN7EXAMPLE"
HEADER = "sk-live-51H8x2KJh7aBcDeFgHiJ"
ENV = "xoxb-1234567890-abcdefghij"
SECRETS = (TOKEN, PASSWORD, PATH, KEY, HEADER, ENV)


def shown(caplog: pytest.LogCaptureFixture) -> str:
    """Everything the library has logged."""
    return "\n".join(
        f"{record.getMessage()} {record.__dict__!r}" for record in caplog.records if record.name.startswith("mcpconn")
    )


def clean(*texts: str) -> None:
    for text in texts:
        assert text
        for secret in SECRETS:
            assert secret not in text


def echoing(status: int, content_type: str) -> faults.Fault:
    """A server or proxy that repeats in its refusal what it was sent."""
    words = f"denied: url /s/{PATH}/mcp?api_key={KEY} Authorization: Bearer {HEADER} user:{PASSWORD}".encode()
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": words.decode()}}).encode()

    def plan(exchange: faults.Exchange) -> Reply:
        answer = body if "json" in content_type else words
        return Reply(status, (("content-type", content_type),), (Send(answer),))

    return faults.Fault(f"echoing {status}", plan)


@pytest.mark.parametrize(
    ("status", "content_type"),
    [
        (400, "text/plain"),
        (400, "application/json"),
        (401, "text/plain"),
        (403, "application/json"),
        (404, "text/plain"),
        (429, "text/plain"),
        (500, "text/plain"),
        (503, "application/json"),
    ],
)
async def test_a_repeating_refusal_hides_them(status: int, content_type: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="mcpconn")
    script = Script()
    notices: list[Any] = []
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server:
            config = {
                "url": f"http://user:{PASSWORD}@127.0.0.1:{server.port}/s/{PATH}/mcp?api_key={KEY}",
                "headers": {"Authorization": f"Bearer {HEADER}", "X-Token": TOKEN},
            }
            async with Manager({"srv": config}, policy=Policy(probe_timeout=1)) as manager:
                manager.observe(notices.append)
                await manager.call_tool("srv", "add", {"a": 1, "b": 1})
                script.inject(echoing(status, content_type), method=None, times=None)
                with pytest.raises(Exception, match=r".") as caught:
                    await manager.call_tool("srv", "charge", timeout=1)
                connection = manager["srv"]
                clean(
                    str(caught.value),
                    repr(caught.value),
                    "".join(traceback.format_exception(caught.value)),
                    repr(connection),
                    repr(manager),
                    repr(connection.config),
                    json.dumps(manager.status()),
                    repr(notices),
                    "".join(str(notice) for notice in notices),
                    shown(caplog),
                )
                if connection.last_failure is not None:
                    clean(repr(connection.last_failure), str(connection.last_failure))


async def test_a_server_that_cannot_be_reached_does_not_show_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="mcpconn")
    config = {
        "url": f"http://user:{PASSWORD}@127.0.0.1:1/s/{PATH}/mcp?api_key={KEY}",
        "headers": {"Authorization": f"Bearer {HEADER}"},
    }
    with anyio.fail_after(SAFETY):
        async with Manager({"srv": config}) as manager:
            with pytest.raises(Exception, match=r"srv") as caught:
                await manager.call_tool("srv", "charge", timeout=0.2)
            formatted = "".join(traceback.format_exception(caught.value))
            clean(str(caught.value), formatted, json.dumps(manager.status()), shown(caplog))


async def test_a_child_that_repeats_them_on_stderr_does_not_show_them(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, logger="mcpconn")
    code = f"import os, sys; sys.exit('bad key ' + os.environ['SLACK_TOKEN'] + ' and {TOKEN}')"
    config = {"command": sys.executable, "args": ["-c", code, f"--token={TOKEN}"], "env": {"SLACK_TOKEN": ENV}}
    # A first start that fails is tried again; here it may fail permanently at once.
    connection = Connection(config, name="child", policy=Policy(patience=0.01, min_attempts=1))
    with anyio.fail_after(SAFETY):
        with pytest.raises(Exception, match=r"bad key \*\*\*") as caught:
            async with connection:
                raise AssertionError("never ready")
    assert connection.last_failure is not None
    clean(
        str(caught.value),
        repr(caught.value),
        repr(connection.config),
        repr(connection.last_failure),
        json.dumps(connection.status()),
        shown(caplog),
    )
    assert not any(secret in text for secret in SECRETS for text in capfd.readouterr())
