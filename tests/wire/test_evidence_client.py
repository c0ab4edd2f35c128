"""What the HTTP client writes down of a request."""

from __future__ import annotations

from contextlib import suppress

import httpx2
import pytest

from mcpconn import FailureKind, classify
from mcpconn.core.attempt import Attempt
from mcpconn.wire.evidence_client import EvidenceClient, Refused
from tests.wire.transports import URL, Session, replied

pytestmark = pytest.mark.anyio

K = FailureKind


def client_for(reply: object, *, sse: bool = False) -> EvidenceClient:
    return Session(lambda _: reply).client(sse=sse)


async def noted(reply: object, *, session: str | None = "s1", sse: bool = False) -> Attempt:
    """The record of a request that met `reply`."""
    attempt = Attempt("call", written=False)
    headers = {"mcp-session-id": session} if session is not None else {}
    async with client_for(reply, sse=sse) as client:
        # What is raised is in the record, if it is not the refusal that is.
        with suppress(Refused, httpx2.HTTPError, ValueError):
            await client.send_message(httpx2.URL(URL), headers, b"{}", attempt)
    return attempt


async def test_a_refusal_is_noted_in_full() -> None:
    evidence = (await noted(replied(503, b"busy", "text/plain", retry_after="7"))).evidence()
    assert (evidence.http_status, evidence.retry_after, evidence.message) == (503, 7, "busy")
    assert (evidence.session_sent, evidence.written, evidence.from_wire) == (True, True, None)


@pytest.mark.parametrize(("session", "sse", "sent"), [("s1", False, True), (None, False, False), (None, True, True)])
async def test_a_session_is_sent_with_its_id_or_always(session: str | None, sse: bool, sent: bool) -> None:
    assert (await noted(replied(200), session=session, sse=sse)).session_sent is sent


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_what_is_no_refusal_is_returned(status: int) -> None:
    attempt = await noted(replied(status, b"x", "text/plain"))
    assert (attempt.http_status, attempt.content_type, attempt.exception) == (status, "text/plain", None)


async def test_a_redirect_is_not_followed_here() -> None:
    attempt = await noted(replied(302, b"", None, location="http://elsewhere.example/"))
    assert (attempt.http_status, attempt.failed) == (302, True)


@pytest.mark.parametrize(
    ("error", "written", "kind"),
    [
        (httpx2.ConnectError("refused"), False, K.UNAVAILABLE),
        (httpx2.ConnectTimeout("slow"), False, K.UNAVAILABLE),
        (httpx2.PoolTimeout("full"), False, K.UNAVAILABLE),
        (httpx2.ReadError("reset"), True, K.TRANSPORT_LOST),
        (httpx2.WriteError("reset"), True, K.TRANSPORT_LOST),
        (httpx2.RemoteProtocolError("closed"), True, K.TRANSPORT_LOST),
        (httpx2.ReadTimeout("slow"), True, K.TIMEOUT),
        (ValueError("odd"), True, K.APPLICATION),
    ],
)
async def test_an_error_says_whether_anything_left(error: Exception, written: bool, kind: FailureKind) -> None:
    evidence = (await noted(error)).evidence()
    assert (evidence.written, evidence.exception) == (written, error)
    failure = classify(evidence)
    assert failure.kind is kind
    assert failure.delivery.value == ("unknown" if written else "not_sent")


async def test_a_notification_returns_its_failure() -> None:
    request = httpx2.Request("POST", URL, headers={"mcp-session-id": "s1"})
    for reply, kind in (
        (httpx2.ReadError("reset"), K.TRANSPORT_LOST),
        (replied(404, b"Session not found", "text/plain"), K.SESSION_EXPIRED),
    ):
        async with client_for(reply) as client:
            evidence = await client.send_quietly(request)
        assert evidence is not None
        assert (classify(evidence).kind, evidence.phase) == (kind, "idle")
    async with client_for(replied(202)) as client:
        assert await client.send_quietly(request) is None
