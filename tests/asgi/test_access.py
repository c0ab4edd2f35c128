"""Who gets in, who may act, and what a browser is told."""

from __future__ import annotations

import pytest

from mcpconn import Manager, State
from mcpconn.asgi import Access, status_app
from mcpconn.asgi.access import COOKIE, LOGIN_LIFETIME, LOGINS, Guard
from mcpconn.testing import Script, ScriptTransport
from tests.asgi.support import HOST, ask

pytestmark = pytest.mark.anyio

READ, ACT = "reading-key-0123456789", "acting-key-0123456789"
KEYS = Access(read_key=READ, act_key=ACT)
OWN = {"origin": f"http://{HOST}", "x-mcpconn-action": "reconnect"}
PRIVATE = ["/status", "/events", "/metrics", "/machine.svg", "/connections/shop"]


def manager() -> Manager:
    return Manager({"shop": {"url": "http://shop.test/mcp", "http_transport": ScriptTransport(Script())}})


@pytest.mark.parametrize("path", PRIVATE)
@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"host": "gateway.example.com"}, "127.0.0.1"),
        ({"host": ""}, "127.0.0.1"),
        ({}, "192.0.2.7"),
        ({"x-forwarded-for": "192.0.2.7"}, "127.0.0.1"),
        ({"forwarded": "for=192.0.2.7"}, "127.0.0.1"),
    ],
    ids=["foreign name", "no name", "foreign address", "proxy", "standard proxy"],
)
async def test_without_keys_others_are_kept_out(path, headers, client):
    answer = await ask(status_app(manager()), path, headers=headers, client=client)
    assert answer.status == 403
    assert "shop" not in answer.text


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "127.0.0.2"])
async def test_without_keys_this_machine_gets_in(host):
    answer = await ask(status_app(manager()), "/status", headers={"host": host})
    assert answer.json()["may_act"] is True


@pytest.mark.parametrize("path", PRIVATE)
@pytest.mark.parametrize("key", [None, "", "wrong", READ + "x", READ[:-1], "\u00e9" * 20])
async def test_without_a_key_requests_are_refused(path, key):
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = await ask(status_app(manager(), access=KEYS), path, headers=headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("key", "status"), [(READ, 403), (ACT, 204)])
async def test_reading_and_acting_need_own_rights(key, status):
    async with manager() as servers:
        app = status_app(servers, access=KEYS)
        headers = {"authorization": f"Bearer {key}"}
        assert (await ask(app, "/status", headers=headers)).json()["may_act"] is (key == ACT)
        answer = await ask(app, "/connections/shop/disable", method="POST", headers=headers)
        assert answer.status == status
        assert (servers["shop"].state is State.CLOSED) is (key == ACT)


async def test_a_browser_logs_in_by_strict_cookie():
    app = status_app(manager(), access=KEYS)
    page = await ask(app, "/", root="/connections")
    assert (page.status, page.headers["location"]) == (303, "/connections/login")
    answer = await ask(app, "/login", method="POST", body=f"key={ACT}".encode())
    cookie = answer.headers["set-cookie"]
    for attribute in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert attribute in cookie
    assert ACT not in cookie
    token = cookie.partition(";")[0]
    assert token.startswith(f"{COOKIE}=")
    assert (await ask(app, "/status", headers={"cookie": token})).status == 200
    out = await ask(app, "/logout", method="POST", headers={"cookie": token, **OWN})
    assert out.status == 204
    assert (await ask(app, "/status", headers={"cookie": token})).status == 401


@pytest.mark.parametrize("body", [b"", b"key=", b"key=wrong", b"other=1", b"\xff\xfe", b"key=" + b"a" * 10_000])
async def test_a_wrong_login_sets_no_cookie(body):
    answer = await ask(status_app(manager(), access=KEYS), "/login", method="POST", body=body)
    assert answer.status in (401, 413)
    assert answer.status == 413 or 'role="alert"' in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": f"http://{HOST}"},
        {"x-mcpconn-action": "reconnect"},
        {"origin": "http://evil.example", "x-mcpconn-action": "reconnect"},
        {"origin": "null", "x-mcpconn-action": "reconnect"},
        {"origin": f"http://{HOST}.evil.example", "x-mcpconn-action": "reconnect"},
    ],
    ids=["nothing", "no header", "no origin", "foreign", "null", "prefix"],
)
@pytest.mark.parametrize("action", ["reconnect", "disable", "enable"])
async def test_actions_of_other_pages_are_refused(headers, action):
    async with manager() as servers:
        app = status_app(servers)
        await servers.wait_ready()
        answer = await ask(app, f"/connections/shop/{action}", method="POST", headers=headers)
        assert answer.status == 403
        assert (servers["shop"].state, servers["shop"].epoch) == (State.READY, 1)


async def test_buttons_can_be_taken_away():
    async with manager() as servers:
        app = status_app(servers, access=Access(allow_actions=False))
        assert (await ask(app, "/status")).json()["may_act"] is False
        answer = await ask(app, "/connections/shop/disable", method="POST", headers=OWN)
        assert answer.status == 403
        assert servers["shop"].state is not State.CLOSED


async def test_no_key_is_in_a_repr():
    assert READ not in repr(KEYS)
    assert ACT not in repr(KEYS)


@pytest.mark.parametrize("key", ["", "short", 17])
async def test_a_weak_key_is_refused(key):
    with pytest.raises(ValueError, match="16 characters"):
        Access(read_key=key)


async def test_logins_run_out_and_are_bounded():
    now = 0.0
    guard = Guard(KEYS, now=lambda: now)
    first = guard.log_in(READ)
    assert guard._login_of(first) == "read"
    now = LOGIN_LIFETIME
    assert guard._login_of(first) is None
    for _ in range(LOGINS + 5):
        guard.log_in(READ)
    assert len(guard._logins) == LOGINS


@pytest.mark.parametrize("path", ["/", "/login", "/status", "/page/page.js", "/page/page.css", "/healthz", "/nothing"])
async def test_answers_forbid_foreign_content(path):
    answer = await ask(status_app(manager()), path)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
