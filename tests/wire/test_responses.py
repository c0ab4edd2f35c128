"""What is read out of an HTTP response besides its message."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx2
import pytest

from mcpconn import FailureKind, classify
from mcpconn.core.attempt import Attempt
from mcpconn.redact.redactor import Redactor
from mcpconn.wire.evidence_client import read_limited
from mcpconn.wire.messages import MessageTooLarge
from mcpconn.wire.responses import note_refusal, note_response, retry_after
from tests.wire.transports import URL, Chunks

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("1", 1),
        (" 12 ", 12),
        ("2.5", 2.5),
        ("86400", 86400),
        ("", None),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("1e400", None),
        ("inf", None),
        ("nan", None),
        ("1,5", None),
        ("٣", None),
        ("9" * 400, 86400),
    ],
)
def test_retry_after_in_seconds(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


@pytest.mark.parametrize("offset", [-100, 0, 30, 3600])
def test_retry_after_as_a_date(offset: int) -> None:
    when = datetime.now(timezone.utc) + timedelta(seconds=offset)
    found = retry_after(format_datetime(when, usegmt=True))
    assert found is not None
    assert max(0, offset - 5) <= found <= max(0, offset) + 1


def test_a_date_without_zone_is_utc() -> None:
    when = datetime.now(timezone.utc) + timedelta(seconds=60)
    found = retry_after(when.strftime("%d %b %Y %H:%M:%S -0000"))
    assert found is not None
    assert 50 <= found <= 61


async def test_reading_ends_a_chunk_past_the_limit() -> None:
    body = Chunks(b"x" * 1000, endless=True)
    response = httpx2.Response(200, stream=body, request=httpx2.Request("POST", URL))
    with pytest.raises(MessageTooLarge, match="larger than 5000 bytes"):
        await read_limited(response, 5000)
    assert body.given <= 7000
    other = Chunks(b"y" * 1000, endless=True)
    response = httpx2.Response(200, stream=other, request=httpx2.Request("POST", URL))
    assert await read_limited(response, 5500, cut=True) == b"y" * 5500


async def refused(status: int, body: bytes, content_type: str, **headers: str) -> Attempt:
    attempt = Attempt("call", "legacy", written=True)
    fields = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    response = httpx2.Response(status, headers=fields, content=body, request=httpx2.Request("POST", URL))
    note_response(attempt, response, Redactor())
    note_refusal(attempt, status, body, Redactor(["sk-secret-value"]))
    return attempt


async def test_the_words_of_a_refusal_are_kept_short_and_without_secrets() -> None:
    evidence = (await refused(400, b"no sk-secret-value here " + b"x" * 10_000, "text/plain")).evidence()
    assert evidence.message is not None
    assert evidence.message.startswith("no *** here xxx")
    assert len(evidence.message) <= 1000


async def test_a_web_page_says_nothing_in_words() -> None:
    evidence = (await refused(503, b"<html>busy</html>", "text/html", retry_after="7")).evidence()
    assert (evidence.message, evidence.retry_after, evidence.content_type) == (None, 7, "text/html")


async def test_a_challenge_is_noted_in_no_repr() -> None:
    evidence = (await refused(401, b"", "text/plain", www_authenticate='Bearer realm="internal-name"')).evidence()
    assert evidence.challenge == 'Bearer realm="internal-name"'
    assert "internal-name" not in repr(evidence)
    assert "internal-name" not in classify(evidence).summary


async def test_errors_are_noted_with_or_without_id() -> None:
    for identity in (b"", b'"id": null, ', b'"id": 99, '):
        body = b'{"jsonrpc": "2.0", ' + identity + b'"error": {"code": -32600, "message": "sk-secret-value"}}'
        evidence = (await refused(400, body, "application/json")).evidence()
        assert (evidence.code, evidence.message, evidence.from_wire) == (-32600, "***", True)


@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_an_unreadable_error_may_be_a_tools(status: int) -> None:
    # A tool that has run and raises an error with half a surrogate pair in it: in the modern era such errors
    # come with status 400, and what it said may have been "I have charged the card".
    body = b'{"jsonrpc": "2.0", "id": 7, "error": {"code": -32602, "message": "\\ud83d"}}'
    attempt = await refused(status, body, "application/json")
    assert attempt.progressed
    assert attempt.code is None


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (401, b'{"broken', "application/json"),
        (403, b'{"broken', "application/json"),
        (429, b'{"broken', "application/json"),
        (400, b"", "application/json"),
        (400, b'{"error": "unauthorized"}', "application/json"),
        (400, b"broken", "text/plain"),
    ],
)
async def test_other_refusals_are_refusals(status: int, body: bytes, content_type: str) -> None:
    attempt = await refused(status, body, content_type)
    assert not attempt.progressed
    assert classify(attempt.evidence()).kind in (FailureKind.AUTH, FailureKind.RATE_LIMITED, FailureKind.PROTOCOL)
