"""`mcpconn login`: the whole flow over real sockets, with a browser that is a function."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from mcpconn.testing import Script
from tests.auth.servers import AuthServer, ServedAuth
from tests.cli.conftest import REFUSED, Invoke, stdio
from tests.cli.test_commands import error_of

Config = Callable[..., Path]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AuthServer]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    auth = AuthServer()
    with ServedAuth(auth, Script()):
        yield auth


class Browser:
    """Logs in at once, and comes back as it was told to."""

    def __init__(self, **answer: str) -> None:
        self.answer = answer
        self.pages: list[str] = []
        self.addresses: list[str] = []

    def open(self, address: str) -> bool:
        self.addresses.append(address)
        asked = parse_qs(urlsplit(address).query)
        back, state = asked["redirect_uri"][0], asked["state"][0]

        def come_back() -> None:
            # As browsers do, it asks for a picture first.
            for query in ("", urlencode({"state": state, **(self.answer or {"code": "code:"})})):
                try:
                    with urllib.request.urlopen(f"{back}?{query}") as page:
                        self.pages.append(page.read().decode())
                except OSError:
                    self.pages.append("")

        Thread(target=come_back).start()
        return True


def opened(monkeypatch: pytest.MonkeyPatch, **answer: str) -> Browser:
    browser = Browser(**answer)
    monkeypatch.setattr("webbrowser.open", browser.open)
    return browser


def test_a_login_serves_other_commands(
    mcpconn: Invoke, config: Config, server: AuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = opened(monkeypatch)
    path = config(srv={"url": f"{server.origin}/mcp"})
    before = mcpconn("check", path)
    assert before.exit_code == 1
    assert "mcpconn login srv" in before.stdout
    result = mcpconn("login", "srv", "--config", path)
    assert result.exit_code == 0, result.output
    assert "srv: logged in; the tokens are in " in result.stderr
    assert all(token not in result.output for token in server.valid)
    assert mcpconn("call", "srv", "add", "a=1", "b=2", "--config", path).stdout == "3\n"
    again = mcpconn("login", "srv", "--config", path)
    assert "logged in already" in again.stderr
    assert len(browser.addresses) == 1
    # An address is the same server.
    assert mcpconn("ping", f"{server.origin}/mcp").exit_code == 0
    assert mcpconn("login", "srv", "--forget", "--config", path).exit_code == 0
    assert mcpconn("check", path).exit_code == 1


def test_a_login_that_is_refused_says_so(
    mcpconn: Invoke, config: Config, server: AuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = opened(monkeypatch, error="access_denied", error_description="<b>not you</b>")
    result = mcpconn("login", "srv", "--config", config(srv={"url": f"{server.origin}/mcp"}))
    assert result.exit_code == 1
    assert "the login was refused: access_denied: <b>not you</b>" in result.stderr
    assert "<b>" not in browser.pages[-1]


def test_a_second_login_has_the_same_address(
    mcpconn: Invoke, config: Config, server: AuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = opened(monkeypatch)
    path = config(srv={"url": f"{server.origin}/mcp"})
    for _ in range(2):
        assert mcpconn("login", "srv", "--config", path).exit_code == 0
        server.revoke_all()
        assert mcpconn("login", "srv", "--forget", "--config", path).exit_code == 0
    first, second = (parse_qs(urlsplit(each).query)["redirect_uri"] for each in browser.addresses)
    assert first == second
    assert server.counts["register"] == 1


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (stdio(), "for servers with a url"),
        ({"url": "https://a.example", "auth": "t0ken"}, "its entry has a token"),
        ({"url": "https://a.example", "timout": 5}, "its entry cannot be used"),
    ],
)
def test_what_one_cannot_log_in_at_is_told(
    mcpconn: Invoke, config: Config, entry: dict[str, object], words: str
) -> None:
    result = mcpconn("login", "srv", "--config", config(srv=entry))
    assert result.exit_code == 2
    assert words in error_of(result)


def test_a_server_that_is_down_ends_a_login(mcpconn: Invoke, config: Config) -> None:
    result = mcpconn("login", "srv", "--config", config(srv=REFUSED))
    assert result.exit_code == 1
    assert "the server cannot be reached" in error_of(result)
