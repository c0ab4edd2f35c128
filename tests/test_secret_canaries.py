"""Every place where a secret can be configured, a server that says all of it back, and everything that is shown.

A canary is put into each place; the server, or the child, repeats what it was given: as it is, and in the forms in
which programs repeat things. Then nothing that a person or a model can see may hold it, nor a piece of it.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from mcp import MCPError
from typer.testing import CliRunner

from mcpconn import Manager, Policy, handlers, mcpjson
from mcpconn.cli.more import app
from mcpconn.testing import STDIO_SERVER, Script
from mcpconn.testing.scripted.steps import Send
from tests.support import SAFETY
from tests.threaded_http import QuietHandler, ThreadedHttp

pytestmark = pytest.mark.anyio

CANARY = "cnry-7Hq2xW9pLm4RtZ8vKd3NyB6s"
"""What is looked for. It has the form of a token, and no word of it stands anywhere else."""
PIECE = 12
"""Characters of a piece that would give it away."""
QUICK = Policy(patience=0.01, min_attempts=1, drain_timeout=0.2, connect_timeout=10)


def shapes(secret: str) -> Iterator[str]:
    """What programs make of a secret when they repeat it."""
    yield secret
    yield base64.b64encode(secret.encode()).decode()
    yield base64.b64encode(f"user:{secret}".encode()).decode()
    yield quote(secret, safe="").replace("-", "%2D")
    yield json.dumps({"token": secret})
    yield secret[:-1]
    yield secret[4:]
    yield f"...{secret}..." * 2


def gives_away(text: str) -> bool:
    plain = base64.b64encode(CANARY.encode()).decode().rstrip("=")
    pieces = {CANARY[start : start + PIECE] for start in range(len(CANARY) - PIECE + 1)}
    return plain[:-1] in text or any(piece in text for piece in pieces)


# -- a server that repeats everything

ANSWERS: dict[str, Callable[[Any, str], tuple[int, str, bytes]]] = {
    "text": lambda id_, words: (400, "text/plain", words.encode()),
    "unauthorized": lambda id_, words: (401, "text/plain", words.encode()),
    "json-rpc error": lambda id_, words: (
        200,
        "application/json",
        json.dumps({"jsonrpc": "2.0", "id": id_, "error": {"code": -32603, "message": words}}).encode(),
    ),
    "error without id": lambda id_, words: (
        500,
        "application/json",
        json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": words}}).encode(),
    ),
    "failed tool": lambda id_, words: (
        200,
        "application/json",
        json.dumps(
            {"jsonrpc": "2.0", "id": id_, "result": {"isError": True, "content": [{"type": "text", "text": words}]}}
        ).encode(),
    ),
    "no message": lambda id_, words: (200, "application/json", b'{"jsonrpc": "2.0", "x": ' + words.encode()),
}


class Echo:
    """Serves a scripted server. Its tools, or all of it, answer with what they were sent."""

    def __init__(self, answer: str, *, always: bool) -> None:
        script, lock, reply = Script(), Lock(), ANSWERS[answer]

        class Handler(QuietHandler):
            def _serve(self) -> None:
                body = self.body()
                message = json.loads(body or b"{}")
                if always or message.get("method") == "tools/call":
                    said = f"{self.path} {dict(self.headers.items())} {' '.join(shapes(CANARY))}"
                    status, kind, content = reply(message.get("id"), said)
                    challenge = (
                        {"www-authenticate": f'Bearer error_description="{said[:500]}"'} if status == 401 else {}
                    )
                    headers = {"content-type": kind, **{key: each.replace('"', "'") for key, each in challenge.items()}}
                else:
                    with lock:
                        answered = script.decide(self.command, dict(self.headers), body)
                    status, headers = answered.status or 500, dict(answered.headers)
                    content = b"".join(step.data for step in answered.steps if isinstance(step, Send))
                headers.pop("content-length", None)
                self.reply(status, headers, content)

            do_GET = do_POST = do_DELETE = _serve

        self._http = ThreadedHttp(Handler)
        self.host = self._http.host

    def __enter__(self) -> Echo:
        self._http.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()


CHILD = f"""
import base64, json, os, sys
words = ' '.join([*sys.argv, json.dumps(dict(os.environ))])
for each in {list(shapes(CANARY))!r}:
    words += ' ' + each
print(words, file=sys.stderr)
print('Error: cannot start with', words, file=sys.stderr, flush=True)
sys.exit(3)
"""
"""A child that says all it was given, and dies."""

PEM = "-----BEGIN PRIVATE KEY-----\n" + CANARY + "\n-----END PRIVATE KEY-----"

Entry = dict[str, Any]
OVER_HTTP: dict[str, Callable[[str], Entry]] = {
    "userinfo": lambda host: {"url": f"http://user:{CANARY}@{host}/mcp"},
    "query": lambda host: {"url": f"http://{host}/mcp?api_key={CANARY}&x=1"},
    "path": lambda host: {"url": f"http://{host}/s/{CANARY}/mcp"},
    "bearer header": lambda host: {"url": f"http://{host}/mcp", "headers": {"Authorization": f"Bearer {CANARY}"}},
    "basic header": lambda host: {
        "url": f"http://{host}/mcp",
        "headers": {"Authorization": "Basic " + base64.b64encode(f"u:{CANARY}".encode()).decode()},
    },
    "header of its own": lambda host: {"url": f"http://{host}/mcp", "headers": {"X-Whatever": CANARY}},
    "cookie": lambda host: {"url": f"http://{host}/mcp", "headers": {"Cookie": f"a=1; session={CANARY}; b=2"}},
    "auth": lambda host: {"url": f"http://{host}/mcp", "auth": CANARY},
    "auth of a kind": lambda host: {"url": f"http://{host}/mcp", "auth": {"type": "bearer", "token": CANARY}},
    "login": lambda host: {"url": f"http://{host}/mcp", "auth": {"client_id": "c", "client_secret": CANARY}},
    "variable": lambda host: {"url": f"http://{host}/mcp", "headers": {"X-Key": "${CANARY_VARIABLE}"}},
    "named variable": lambda host: {"url": f"http://{host}/mcp", "bearer_token_env_var": "CANARY_VARIABLE"},
    "header variable": lambda host: {"url": f"http://{host}/mcp", "env_http_headers": {"X-Key": "CANARY_VARIABLE"}},
    "file": lambda host: {"url": f"http://{host}/mcp", "headers": {"X-Key": "${file:secret.txt}"}},
    "api key": lambda host: {"url": f"http://{host}/mcp", "apiKey": CANARY},
}
CHILDREN: dict[str, Entry] = {
    "environment": {"env": {"API_KEY": CANARY}},
    "environment, an odd name": {"env": {"WHATEVER": CANARY}},
    "environment, JSON": {"env": {"SETTINGS": json.dumps({"a": {"token": CANARY}})}},
    "environment, PEM": {"env": {"PRIVATE": PEM}},
    "environment, a URL": {"env": {"DATABASE_URL": f"postgres://user:{CANARY}@db.example/x"}},
    "argument": {"args": [f"--token={CANARY}"]},
    "argument and its value": {"args": ["--api-key", CANARY]},
    "argument, a header": {"args": ["--header", f"Authorization: Bearer {CANARY}"]},
    "argument, a URL": {"args": [f"https://user:{CANARY}@host.example/x"]},
    "argument, by its form": {"args": ["ghp_16C7e42F292c6912E7710c838347Ae178B4a"]},
    "inherited": {"inherit_env": ["CANARY_*"]},
    "env file": {"envFile": "secret.env"},
    "variable": {"env": {"X": "${CANARY_VARIABLE}"}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CANARY_VARIABLE", CANARY)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "secret.txt").write_text(CANARY + "\n")
    (tmp_path / "secret.env").write_text(f"SERVICE_TOKEN={CANARY}\n")
    return tmp_path


def written(folder: Path, entry: Entry) -> Path:
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"srv": entry}}))
    return path


async def shown(path: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Everything that is shown of a server that fails, by whatever way."""
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    with anyio.fail_after(SAFETY):
        servers = mcpjson.load(path)
        texts += [repr(servers), *servers.notes, str(servers["srv"].problem), *servers["srv"].notes]
        async with Manager(servers, policy=QUICK) as manager:
            connection = manager["srv"]
            await manager.wait_ready()
            tool = handlers.call_tool(manager, "srv", "charge", timeout=5)
            texts.append(str(await tool({"amount": 1})))
            try:
                await manager.call_tool("srv", "charge", {"amount": 1}, timeout=5)
            except MCPError as error:
                # The application's own error arrives as it came: it is between the two.
                if hasattr(error, "failure"):
                    texts += [str(error), repr(error), *traceback.format_exception(error)]
            failure = connection.last_failure
            texts += [repr(manager), repr(connection), repr(connection.config), repr(failure), str(failure)]
            texts += [json.dumps(manager.status()), json.dumps(connection.status()), str(connection.progress)]
            texts += list(connection.stderr)
    texts += [
        f"{record.getMessage()} {vars(record)!r}" for record in caplog.records if record.name.startswith("mcpconn")
    ]
    return texts


def commands(path: Path) -> list[str]:
    texts = []
    for command in (
        ["check", str(path)],
        ["--debug", "check", str(path), "--json"],
        ["call", "srv", "charge", "amount=1", "-c", str(path)],
        ["call", "srv", "charge", "amount=1", "--json", "-c", str(path)],
    ):
        result = CliRunner().invoke(app, command)
        texts += [result.stdout, result.stderr]
    return texts


def assert_hidden(texts: list[str]) -> None:
    found = [text for text in texts if gives_away(text)]
    assert not found, found[0][:600]


@pytest.mark.parametrize("place", OVER_HTTP)
async def test_a_secret_that_a_server_repeats_is_not_shown(
    folder: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    # Each place meets one way of answering and one engine; all ways are met by one place below.
    number = sorted(OVER_HTTP).index(place)
    answer, engine = sorted(ANSWERS)[number % len(ANSWERS)], ("direct", "httpx")[number % 2]
    with Echo(answer, always=place == "login") as server:
        entry = {**OVER_HTTP[place](server.host), "engine": engine}
        assert_hidden(await shown(written(folder, entry), caplog))


@pytest.mark.parametrize("always", [False, True], ids=["a tool", "all of it"])
@pytest.mark.parametrize("answer", ANSWERS)
async def test_no_way_of_answering_shows_a_secret(
    folder: Path, caplog: pytest.LogCaptureFixture, answer: str, always: bool
) -> None:
    with Echo(answer, always=always) as server:
        path = written(folder, OVER_HTTP["bearer header"](server.host))
        assert_hidden(await shown(path, caplog))


@pytest.mark.parametrize("place", CHILDREN)
async def test_a_secret_that_a_child_repeats_is_not_shown(
    folder: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    entry = CHILDREN[place]
    path = written(folder, {**entry, "command": sys.executable, "args": ["-c", CHILD, *entry.get("args", ())]})
    texts = await shown(path, caplog)
    if place != "argument, by its form":
        assert_hidden(texts)
    else:
        assert not [text for text in texts if "16C7e42F292c" in text]
    assert any("exited with 3" in text for text in texts)


@pytest.mark.parametrize("place", ["query", "bearer header", "login", "cookie", "file"])
def test_no_command_shows_a_secret(folder: Path, place: str) -> None:
    for answer in ("json-rpc error", "unauthorized", "failed tool"):
        with Echo(answer, always=answer == "unauthorized") as server:
            texts = commands(written(folder, OVER_HTTP[place](server.host)))
            assert_hidden(texts)
            # It says something all the same. (A client's secret is not sent before there is a login.)
            assert place == "login" or any("***" in text for text in texts)


@pytest.mark.parametrize("place", ["environment", "argument", "env file"])
def test_no_command_shows_a_childs_secret(folder: Path, place: str) -> None:
    entry = CHILDREN[place]
    path = written(folder, {**entry, "command": sys.executable, "args": ["-c", CHILD, *entry.get("args", ())]})
    assert_hidden(commands(path))


@pytest.mark.parametrize(
    "entry",
    [
        {"url": CANARY},
        {"url": f"https://a b/{CANARY}"},
        {"command": "x", CANARY: 1},
        {"url": "https://a.example", "headers": {CANARY + "\n": "x"}},
        {"url": "https://a.example", "headers": {"X": CANARY + "\n" + CANARY}},
        {"url": "https://a.example", "headers": {"X": [CANARY]}},
        {"url": "https://a.example", "auth": CANARY + "\0"},
        {"url": "https://a.example", "auth": [CANARY]},
        {"url": "https://a.example", "auth": {"client_id": "c", "client_secret": [CANARY]}},
        {"url": "https://a.example", "auth": {"user": CANARY}},
        {"url": "https://a.example", "max_waiting": CANARY},
        {"url": "https://a.example", "timeout": CANARY},
        {"url": "https://a.example", "mode": CANARY},
        {"url": "https://a.example", "transport": CANARY},
        {"url": "https://a.example", "client_key_password": [CANARY]},
        {"url": "https://a.example", "headers": {"X": "${input:" + CANARY + "}"}},
        {"url": "https://a.example", "oauth": CANARY},
        {"url": "https://a.example", "authProviderType": CANARY},
        {"command": "x", "env": {CANARY + "=": "x"}},
        {"command": "x", "env": {"A": {"b": CANARY}}},
        {"command": [CANARY, 5]},
        {"command": "x", "args": CANARY},
        {"command": "x", "cwd": [CANARY]},
        CANARY,
    ],
)
def test_a_misplaced_secret_is_not_quoted(folder: Path, entry: Any) -> None:
    path = written(folder, entry)
    config = mcpjson.load(path)["srv"]
    assert config.problem is not None
    status = json.dumps(Manager({"srv": config})["srv"].status())
    assert_hidden([config.problem, repr(config), status, *commands(path)[:4]])


async def test_arguments_in_a_command_are_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(folder, {"command": f"{sys.executable} -m x --token={CANARY} --api-key {CANARY}"})
    config = mcpjson.load(path)["srv"]
    assert_hidden([config.address, config.label, repr(config), *await shown(path, caplog), *commands(path)])


def test_the_search_finds_what_it_looks_for() -> None:
    for shape in shapes(CANARY):
        if "%" not in shape and shape != base64.b64encode(f"user:{CANARY}".encode()).decode():
            assert gives_away(shape)
    assert not gives_away("***" + str(STDIO_SERVER))
