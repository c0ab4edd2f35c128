"""What token endpoints answer, read: tokens, refusals, "not now", and everything else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.auth import OAuthToken

from mcpconn.auth.token_response import Busy, Refused, Unreadable, plain, read, seconds

NEW = "new-access-0001-secret"
REFRESH = "new-refresh-0001-secret"


def answer(body: Any, status: int = 200, content_type: str = "application/json", **headers: str) -> httpx2.Response:
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return httpx2.Response(status, headers={"content-type": content_type, **headers}, content=content)


def tokens(response: httpx2.Response) -> OAuthToken:
    outcome = read(response)
    assert isinstance(outcome, OAuthToken), outcome
    return outcome


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ({"access_token": NEW, "token_type": "bearer", "scope": "a b"}, "application/json"),
        (f"access_token={NEW}&scope=a+b&token_type=bearer", "application/x-www-form-urlencoded"),
        (f"access_token={NEW}&scope=a%20b&token_type=bearer", "text/plain"),
        (f'{{"access_token": "{NEW}", "scope": "a b"}}', "text/html; charset=utf-8"),
        ({"access_token": NEW, "scope": ["a", "b"], "token_type": None}, "application/vnd.as+json"),
        ({"access_token": f" {NEW}\n", "scope": " a  b ", "expires_in": None, "refresh_token": None}, ""),
        (b'\xef\xbb\xbf{"access_token": "' + NEW.encode() + b'", "scope": "a b"}', "application/json"),
    ],
)
def test_tokens_are_read_from_json_and_forms(body: Any, content_type: str) -> None:
    read = tokens(answer(body, content_type=content_type))
    assert (read.access_token, read.scope, read.expires_in, read.refresh_token) == (NEW, "a b", None, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (3600, 3600),
        (3599.9, 3599),
        ("3600", 3600),
        (" 60 ", 60),
        ("60.5", 60),
        (0, None),
        (-1, None),
        ("-3600", None),
        (0.5, None),
        ("soon", None),
        ("", None),
        (None, None),
        (True, None),
        ([3600], None),
        ({"seconds": 3600}, None),
        (float("nan"), None),
        (float("inf"), None),
        ("Infinity", None),
        ("nan", None),
        (10**400, None),
        ("1e999", None),
        (1e308, None),
        (400 * 365 * 86400, None),
    ],
)
def test_a_lifetime_is_seconds_or_not_known(given: object, expected: int | None) -> None:
    assert seconds(given) == expected


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-0.0", "9" * 3000])
def test_bad_numbers_leave_a_token_readable(number: str) -> None:
    read = tokens(answer(f'{{"access_token": "{NEW}", "expires_in": {number}}}'))
    assert (read.access_token, read.expires_in) == (NEW, None)


@pytest.mark.parametrize(
    ("response", "code", "said"),
    [
        (answer({"error": "invalid_grant"}, 400), "invalid_grant", "invalid_grant"),
        (answer({"error": "invalid_grant"}, 200), "invalid_grant", "invalid_grant"),
        (answer({"ok": False, "error": "invalid_refresh_token"}), "invalid_refresh_token", "invalid_refresh_token"),
        (
            answer("error=bad_refresh_token&error_description=It+is+old.", content_type="text/plain"),
            "bad_refresh_token",
            "bad_refresh_token (It is old.)",
        ),
        (answer({"error": {"code": "expired", "message": "gone"}}, 403), "expired", "expired (gone)"),
        (answer({"error": "invalid_scope", "error_description": "a\n b"}, 403), "invalid_scope", "invalid_scope (a b)"),
        (answer("bad request", 400, "text/plain"), None, "HTTP 400"),
        (answer("", 400, ""), None, "HTTP 400"),
        (answer({"error": "<script>alert(1)</script>"}, 400), "unknown", "an invalid error code"),
        (answer({"error": ["invalid_grant"]}, 400), None, "HTTP 400"),
    ],
)
def test_a_refusal_is_known_by_its_code_whatever_the_status(
    response: httpx2.Response, code: str | None, said: str
) -> None:
    assert read(response) == Refused(code, said)


@pytest.mark.parametrize(
    "response",
    [
        answer({"error": "invalid_client"}, 400),
        answer({"error": "invalid_client"}, 401),
        answer({"error": "invalid_client"}, 200),
        answer({"error": "unauthorized_client"}, 400),
        answer("", 401, ""),
        answer("<html>", 401, "text/html"),
        answer({"detail": "Client not found"}, 422),
        answer({"detail": [{"loc": ["body", "client_id"], "msg": "unknown"}]}, 422),
    ],
)
def test_a_registration_that_is_gone_is_told_from_a_token_that_is(response: httpx2.Response) -> None:
    outcome = read(response)
    assert isinstance(outcome, Refused)
    assert outcome.registration


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (answer("", 503), "HTTP 503"),
        (answer("<html>Bad Gateway", 502, "text/html"), "HTTP 502"),
        (answer("", 429), "HTTP 429"),
        (answer("", 408), "HTTP 408"),
        (answer({"error": "temporarily_unavailable"}, 400), "temporarily_unavailable"),
        (answer({"error": "temporarily_unavailable"}, 200), "temporarily_unavailable"),
        (answer({"error": "server_error", "error_description": "try later"}, 500), "server_error (try later)"),
        (answer({"ok": False, "error": "ratelimited"}), "ratelimited"),
    ],
)
def test_not_now_is_told_from_no(response: httpx2.Response, said: str) -> None:
    assert read(response, retry_after=7) == Busy(said, 7)


UNREADABLE = [
    answer("<html><body>Log in</body></html>", content_type="text/html"),
    answer(f'{{"access_token": "{NEW}", "expires_in": 36'),
    answer(f'{{"access_token": ["{NEW}"]}}'),
    answer({"access_token": NEW, "token_type": "mac"}),
    answer({"access_token": f"{NEW}\r\nx-evil: 1"}),
    answer({"access_token": f"{NEW}ü"}),
    answer({"data": {"access_token": NEW}}),
    answer({"token_type": "Bearer", "refresh_token": REFRESH}),
    answer("[" * 100_000 + NEW),
    answer('{"a":' * 100_000 + f'"{NEW}"'),
    answer(f'[{{"access_token": "{NEW}"}}]'),
    answer(f'{{"access_token": "{NEW}", "expires_in": {"9" * 10_000}}}'),
    answer("", 204, ""),
    answer(b"\x1f\x8b\x08" + NEW.encode()),
    answer(f"<html>{NEW}</html>", 400, "text/html"),
    answer(f"<html>{NEW}</html>", 403, "text/html"),
    answer(NEW, 404, f"text/plain-{NEW}"),
    answer("", 405, ""),
]


@pytest.mark.parametrize("response", UNREADABLE)
def test_other_answers_are_not_quoted(response: httpx2.Response) -> None:
    with pytest.raises(Unreadable, match=f"HTTP {response.status_code}") as caught:
        read(response)
    assert NEW not in repr(caught.value)
    assert REFRESH not in repr(caught.value)
    assert caught.value.__context__ is caught.value.__cause__ is None


def test_a_redirect_is_described_by_the_origin_it_leads_to() -> None:
    response = answer("", 307, "", location=f"https://u:p@other.example/x?token={NEW}")
    response.request = httpx2.Request("POST", "https://as.example/token")
    response.next_request = httpx2.Request("POST", response.headers["location"])
    with pytest.raises(Unreadable, match=r"a redirect to https://other\.example, which is not followed") as caught:
        read(response)
    assert NEW not in str(caught.value)


def test_what_the_request_held_is_hidden_before_a_description_is_cut() -> None:
    spent = "refresh-" + "x" * 32
    for padding in range(150, 230):
        body = {"error": "invalid_grant", "error_description": "." * padding + f" {spent} is not known"}
        outcome = read(answer(body, 400), secrets=[spent])
        assert isinstance(outcome, Refused)
        assert "xxxx" not in outcome.said


def test_a_secret_error_code_is_not_shown() -> None:
    outcome = read(answer({"error": "refresh0001secret"}, 400), secrets=["refresh0001secret"])
    assert outcome == Refused("unknown", "an invalid error code")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        ["access_token", "token_type", "expires_in", "scope", "refresh_token", "error", "error_description"]
    ),
    JSON,
)


@given(fields=FIELDS, status=st.sampled_from([200, 201, 204, 302, 400, 401, 403, 404, 422, 429, 500, 503]))
def test_any_json_gives_an_outcome_of_ours(fields: dict[str, Any], status: int) -> None:
    try:
        outcome = read(answer(fields, status))
    except Unreadable:
        return
    assert isinstance(outcome, (OAuthToken, Refused, Busy))
    if isinstance(outcome, OAuthToken):
        assert outcome.access_token.isascii()
        assert outcome.access_token.isprintable()


@given(body=st.binary(max_size=200), status=st.sampled_from([200, 400, 401, 500]))
def test_any_bytes_give_an_outcome_of_ours(body: bytes, status: int) -> None:
    with suppress(Unreadable):
        assert isinstance(read(answer(body, status)), (OAuthToken, Refused, Busy))


def test_other_parsers_get_tokens_in_json() -> None:
    noted: list[str] = []
    request = httpx2.Request("POST", "https://as.example/token")
    given = answer(f"access_token={NEW}&refresh_token={REFRESH}&expires_in=60&evil=1", content_type="text/plain")
    response = plain(given, request, noted.append)
    assert response.json() == {
        "access_token": NEW,
        "refresh_token": REFRESH,
        "expires_in": 60,
        "token_type": "Bearer",
    }
    assert noted == [NEW, REFRESH]


@pytest.mark.parametrize(
    ("given", "status", "error"),
    [
        (answer({"error": "invalid_grant", "error_description": NEW}, 400), 400, "invalid_grant"),
        (answer({"error": "bad_refresh_token", "error_description": NEW}), 400, "bad_refresh_token"),
        (answer("", 503), 503, "temporarily_unavailable"),
        (answer(f"<html>{NEW}", content_type="text/html"), 400, "unreadable_response"),
    ],
)
def test_other_parsers_get_bare_refusals(given: httpx2.Response, status: int, error: str) -> None:
    response = plain(given, httpx2.Request("POST", "https://as.example/token"), lambda secret: None)
    assert (response.status_code, response.json()) == (status, {"error": error})
