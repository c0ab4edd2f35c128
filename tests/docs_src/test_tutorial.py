"""The tutorial, followed: with its own server in a process of its own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from starlette.requests import Request
from typer.testing import CliRunner

from mcpconn.cli.more import app
from tests.docs_src.conftest import HOWTO, SAFETY, TUTORIAL, Shop, follow, load, masked, quiet_port, transcript


def test_the_first_call_answers(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    anyio.run(load(TUTORIAL / "first.py").main, shop.url)
    ((_, expected),) = transcript(TUTORIAL / "first.console")
    assert capsys.readouterr().out == expected


def test_calls_survive_a_killed_server_as_the_tutorial_shows(shop: Shop) -> None:
    survive = load(TUTORIAL / "survive.py")
    lines: list[str] = []

    def note(*words: object) -> None:
        lines.append(" ".join(map(str, words)))
        if lines[-1].startswith("2 "):
            shop.kill()
        elif "attempt_failed" in lines[-1] and shop.down:
            shop.start()

    survive.print = note  # type: ignore[attr-defined]
    anyio.run(survive.main, shop.url, 5, 0.01)
    ((_, expected),) = transcript(TUTORIAL / "survive.console")
    begin = next(number for number, line in enumerate(lines) if "established" in line)
    # The shop takes a while to start, and how often it is asked before that is no matter.
    shown = masked(expected)[1:]
    assert masked("\n".join(lines[begin:]))[: len(shown)] == shown


def test_a_cut_order_is_told_as_in_the_page(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    order = load(TUTORIAL / "order.py")

    async def cut_off() -> None:
        with anyio.fail_after(SAFETY):
            async with anyio.create_task_group() as group:
                group.start_soon(order.main, shop.url)
                assert await anyio.to_thread.run_sync(shop.said) == "packing: pear\n"
                shop.kill()
                shop.start()

    anyio.run(cut_off)
    ((_, expected),) = transcript(TUTORIAL / "order.console")
    # Which end notices first is chance, and so are the words for it.
    cut = re.compile(r"\([^)]*\)+")
    assert cut.sub("", capsys.readouterr().out) == cut.sub("", expected)


def test_the_cli_says_what_the_page_shows(folder: Path, shop: Shop) -> None:
    # The first command waits for the shop to start.
    assert CliRunner().invoke(app, ["check", "--wait", "30"]).exit_code == 0
    follow(folder / "check.console")
    follow(HOWTO / "tools.console")
    follow(HOWTO / "call.console")
    shop.kill()
    follow(folder / "down.console")


def test_the_gateway_serves_and_survives(folder: Path, shop: Shop) -> None:
    port = quiet_port(26000)
    command = [sys.executable, "-m", "uvicorn", "gateway:app", "--port", str(port)]
    gateway = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert gateway.stderr is not None
        # It says so once it serves, and does not wait for the shop.
        assert any("Uvicorn running on" in line for line in gateway.stderr)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=SAFETY) as client:
            assert "error" not in client.post("/clock/get_current_time", content='{"timezone": "UTC"}').json()
            for command_line, expected in transcript(folder / "gateway.console"):
                words = shlex.split(command_line)
                path = next(word for word in words if word.startswith("localhost:9000")).partition("9000")[2]
                body = words[words.index("-d") + 1] if "-d" in words else None
                answer = client.request("POST" if body else "GET", path, content=body)
                assert answer.text == expected.strip()
            shop.kill()
            shop.start()
            assert client.post("/shop/price", content='{"item": "pear"}').json()["result"] == "3"
    finally:
        gateway.terminate()
        gateway.communicate(timeout=SAFETY)


@pytest.mark.anyio
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
async def test_the_gateway_answers_400_to_no_json(body: bytes) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    path = {"server": "shop", "tool": "price"}
    scope = {"type": "http", "headers": [], "path_params": path, "state": {"manager": None}}
    assert (await load(TUTORIAL / "gateway.py").call(Request(scope, receive))).status_code == 400
