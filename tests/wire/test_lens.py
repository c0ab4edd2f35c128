"""What the lens reads out of HTTP, piece by piece, and what is made of an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import anyio
import httpx2
import pytest
from anyio.lowlevel import checkpoint
from mcp import MCPError
from mcp_types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, jsonrpc_message_adapter

from mcpconn import Evidence, FailureKind, classify
from mcpconn.core.exchange import EXCHANGE, Exchange
from mcpconn.redact import Redactor
from mcpconn.testing import Reply, Reset, Script, ScriptTransport, Send
from mcpconn.wire.dial import LOCAL_ERRORS, explain
from mcpconn.wire.lens import Lens, MessageTooLarge, Undecided, jsonrpc_error, read_limited, retry_after
from mcpconn.wire.stdio import ChildExited
from mcpconn.wire.watch import OUTBOUND, Watch

pytestmark = pytest.mark.anyio

K = FailureKind
URL = "http://scripted/mcp"
LIMIT = 10_000


# -- Retry-After


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


def test_retry_after_as_a_date_without_a_zone_is_in_utc() -> None:
    when = datetime.now(timezone.utc) + timedelta(seconds=60)
    found = retry_after(when.strftime("%d %b %Y %H:%M:%S -0000"))
    assert found is not None
    assert 50 <= found <= 61


# -- bodies


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "Session not found"}}', -32600),
        (b'{"jsonrpc": "2.0", "error": {"code": -32000, "message": "x", "data": [1]}}', -32000),
        (b'{"jsonrpc": "2.0", "id": "server-error", "error": {"code": "-32600", "message": 5}}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "result": {}}', None),
        (b'{"error": "unauthorized"}', None),
        (b'{"error": {"message": "no code"}}', None),
        (b'{"error": {"code": 1}}', None),
        (b"[1]", None),
        (b"null", None),
        (b"", None),
        (b"<html>", None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
    ],
)
def test_a_json_rpc_error_is_found_with_or_without_an_id(body: bytes, code: int | None) -> None:
    error = jsonrpc_error(body)
    assert (error.code if error is not None else None) == code


class Body(httpx2.AsyncByteStream):
    """A body without end, and how much of it was asked for."""

    def __init__(self, chunk: bytes) -> None:
        self.chunk = chunk
        self.given = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await checkpoint()
        self.given += len(self.chunk)
        return self.chunk

    async def aclose(self) -> None:
        pass


async def test_no_more_is_read_than_the_limit_and_one_chunk() -> None:
    body = Body(b"x" * 1000)
    response = httpx2.Response(200, stream=body, request=httpx2.Request("POST", URL))
    with pytest.raises(MessageTooLarge, match="larger than 5000 bytes"):
        await read_limited(response, 5000)
    assert body.given <= 7000
    other = Body(b"y" * 1000)
    response = httpx2.Response(200, stream=other, request=httpx2.Request("POST", URL))
    assert await read_limited(response, 5500, cut=True) == b"y" * 5500


# -- the client


REQUEST = JSONRPCRequest(jsonrpc="2.0", id=7, method="tools/call", params={"name": "charge"})
DISCOVER = JSONRPCRequest(jsonrpc="2.0", id=1, method="server/discover", params={})


class Served:
    """A lens in front of one reply, and what it noted and signed."""

    def __init__(self, reply: Reply | None = None, *, error: Exception | None = None, limit: int = LIMIT) -> None:
        self.signs: list[Evidence] = []
        self.watch = Watch(self.signs.append)
        self.exchange = Exchange("call")
        script = Script()
        script.decide = lambda http_method, headers, body: self._decide(http_method)  # type: ignore[method-assign]
        self._reply, self._error = reply, error
        self.requests: list[str] = []
        self.lens = Lens(
            self.watch, redact=Redactor(["sk-secret-value"]), limit=limit, transport=ScriptTransport(script)
        )

    def _decide(self, method: str) -> Reply:
        self.requests.append(method)
        if self._error is not None:
            raise self._error
        assert self._reply is not None
        return self._reply

    async def post(self, message: object = REQUEST, session: str | None = "s1") -> httpx2.Response:
        OUTBOUND.set(message)  # type: ignore[arg-type]
        EXCHANGE.set(self.exchange)
        headers = {"mcp-session-id": session} if session is not None else {}
        async with self.lens:
            return await self.lens.send(self.lens.build_request("POST", URL, headers=headers, content=b"{}"))

    @property
    def evidence(self) -> Evidence:
        return self.exchange.evidence()


def replied(status: int, body: bytes = b"", content_type: str | None = None, **headers: str) -> Reply:
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    if content_type is not None:
        fields.append(("content-type", content_type))
    return Reply(status, tuple(fields), (Send(body),))


async def test_a_refusal_is_noted_in_full_and_the_transport_gets_an_error_that_it_can_read() -> None:
    served = Served(replied(503, b"<html>busy</html>", "text/html", retry_after="7"))
    response = await served.post()
    assert (served.evidence.http_status, served.evidence.retry_after) == (503, 7)
    assert served.evidence.content_type == "text/html"
    assert (served.evidence.session_sent, served.evidence.written) == (True, True)
    # A web page says nothing in words.
    assert served.evidence.message is None
    assert response.status_code == 200
    answer = jsonrpc_message_adapter.validate_json(response.content)
    assert answer.model_dump()["id"] == 7
    assert answer.model_dump()["error"]["message"] == "Request failed: HTTP 503"


async def test_a_challenge_is_noted_and_is_in_no_repr() -> None:
    served = Served(replied(401, b"", None, www_authenticate='Bearer realm="internal-name"'))
    await served.post(session=None)
    assert served.evidence.challenge == 'Bearer realm="internal-name"'
    assert served.evidence.session_sent is False
    assert "internal-name" not in repr(served.evidence)
    assert "internal-name" not in classify(served.evidence).summary


async def test_an_error_body_without_an_id_is_passed_on_with_the_id_of_the_request() -> None:
    body = b'{"jsonrpc": "2.0", "error": {"code": -32000, "message": "Bad Request: No valid session ID provided"}}'
    served = Served(replied(400, body, "application/json"))
    response = await served.post()
    assert jsonrpc_message_adapter.validate_json(response.content).model_dump()["id"] == 7
    failure = classify(served.evidence)
    assert (failure.kind, failure.proof) == (K.SESSION_EXPIRED, True)


async def test_the_words_of_a_refusal_are_kept_short_and_without_secrets() -> None:
    served = Served(replied(400, b"no sk-secret-value here " + b"x" * 10_000, "text/plain"))
    await served.post()
    assert served.evidence.message is not None
    assert served.evidence.message.startswith("no *** here xxx")
    assert len(served.evidence.message) <= 1000


@pytest.mark.parametrize("status", [500, 200])
async def test_an_answer_without_end_is_given_up(status: int) -> None:
    body = Body(b"x" * 4096)
    served = Served()
    served.lens = Lens(
        served.watch,
        redact=Redactor(),
        limit=LIMIT,
        transport=httpx2.MockTransport(
            lambda request: httpx2.Response(status, headers={"content-type": "application/json"}, stream=body)
        ),
    )
    response = await served.post()
    assert jsonrpc_message_adapter.validate_json(response.content) is not None
    if status == 200:
        assert body.given <= LIMIT + 4096 * 2
        assert isinstance(served.evidence.exception, MessageTooLarge)
    else:
        assert body.given <= 1024 * 1024 + 4096 * 2


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
async def test_what_was_raised_says_whether_anything_left(error: Exception, written: bool, kind: FailureKind) -> None:
    served = Served(error=error)
    response = await served.post()
    assert jsonrpc_message_adapter.validate_json(response.content) is not None
    assert served.evidence.written is written
    assert served.evidence.exception is error
    failure = classify(served.evidence)
    assert failure.kind is kind
    assert failure.delivery.value == ("unknown" if written else "not_sent")


async def test_a_body_that_breaks_off_is_an_error_of_this_call_and_of_no_other() -> None:
    served = Served(Reply(200, (("content-type", "application/json"),), (Send(b'{"jsonrpc"'), Reset())))
    response = await served.post()
    assert jsonrpc_message_adapter.validate_json(response.content) is not None
    assert isinstance(served.evidence.exception, httpx2.ReadError)


async def test_an_error_in_a_good_answer_is_known_to_have_come_over_the_wire() -> None:
    body = b'{"jsonrpc": "2.0", "id": 7, "error": {"code": -32000, "message": "Connection closed"}}'
    served = Served(replied(200, body, "application/json"))
    response = await served.post()
    assert response.content == body
    assert (served.evidence.code, served.evidence.from_wire) == (-32000, True)


@pytest.mark.parametrize("status", [401, 403, 408, 429, 502, 503])
async def test_a_discovery_that_says_nothing_of_the_era_fails_the_dial(status: int) -> None:
    served = Served(replied(status))
    served.exchange = Exchange("dial")
    with pytest.raises(Undecided):
        await served.post(DISCOVER)
    assert served.evidence.http_status == status


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_a_discovery_that_is_refused_by_an_old_server_does_not(status: int) -> None:
    served = Served(replied(status))
    served.exchange = Exchange("dial")
    response = await served.post(DISCOVER)
    assert jsonrpc_message_adapter.validate_json(response.content) is not None


async def test_a_discovery_that_was_cut_off_fails_the_dial() -> None:
    served = Served(error=httpx2.ReadError("reset"))
    served.exchange = Exchange("dial")
    with pytest.raises(Undecided):
        await served.post(DISCOVER)
    assert classify(served.evidence).kind is K.TRANSPORT_LOST


# -- messages that expect no answer


@pytest.mark.parametrize(
    "message",
    [
        JSONRPCNotification(jsonrpc="2.0", method="notifications/initialized"),
        JSONRPCResponse(jsonrpc="2.0", id=3, result={}),
    ],
)
async def test_what_expects_no_answer_never_raises_and_its_failure_is_a_sign(message: object) -> None:
    for served in (Served(error=httpx2.ReadError("reset")), Served(replied(404, b"Session not found", "text/plain"))):
        response = await served.post(message)
        assert response.status_code == 202
        assert len(served.signs) == 1
    assert classify(served.signs[0]).kind is K.SESSION_EXPIRED
    fine = Served(replied(202))
    await fine.post(message)
    assert fine.signs == []


async def test_goodbye_is_said_to_a_living_session_and_to_no_other() -> None:
    for doomed, said in ((False, ["DELETE"]), (True, [])):
        served = Served(replied(200))
        served.watch.doomed = doomed
        OUTBOUND.set(None)
        async with served.lens:
            response = await served.lens.send(served.lens.build_request("DELETE", URL))
        assert response.status_code == 204
        assert served.requests == said


# -- an error, explained


def test_what_the_wire_saw_comes_before_what_the_sdk_made_of_it() -> None:
    exchange = Exchange("call")
    exchange.http_status, exchange.written = 502, True
    evidence = explain(MCPError(-32000, "Request failed: HTTP 502"), exchange, Watch(lambda _: None))
    assert (evidence.http_status, evidence.code) == (502, None)


def test_a_json_rpc_error_that_nobody_saw_on_the_wire_came_over_it_unless_the_sdk_makes_such() -> None:
    evidence = explain(MCPError(-32602, "expired session"), Exchange("call"), Watch(lambda _: None))
    assert (evidence.code, evidence.message, evidence.from_wire) == (-32602, "expired session", True)
    for code, text in LOCAL_ERRORS:
        local = explain(MCPError(code, f"{text} and more"), Exchange("call"), Watch(lambda _: None))
        assert local.from_wire is False


def test_connection_closed_is_local_where_the_transport_has_ended_and_a_servers_where_it_has_not() -> None:
    watch = Watch(lambda _: None)
    assert explain(MCPError(-32000, "Connection closed"), Exchange("call"), watch).from_wire is True
    watch.reason = ChildExited(1, ["KeyError: 'x'"])
    watch.end()
    evidence = explain(MCPError(-32000, "Connection closed"), Exchange("call"), watch)
    assert (evidence.code, evidence.from_wire, evidence.exception) == (None, False, watch.reason)
    failure = classify(evidence)
    assert (failure.kind, failure.proof) == (K.TRANSPORT_LOST, True)
    assert "exited with 1: KeyError: 'x'" in failure.summary


def test_a_local_exception_is_not_the_fault_of_an_answer_that_came() -> None:
    exchange = Exchange("call")
    exchange.http_status, exchange.content_type, exchange.written = 200, "application/json", True
    error = ValueError("Invalid structured content: session expired")
    evidence = explain(error, exchange, Watch(lambda _: None))
    assert (evidence.http_status, evidence.content_type, evidence.exception) == (None, None, error)


def test_a_transport_ends_once() -> None:
    signs: list[Evidence] = []
    watch = Watch(signs.append)
    watch.reason = ChildExited(-9, [])
    watch.end()
    watch.end()
    assert [sign.exception for sign in signs] == [watch.reason]
    assert classify(signs[0]).kind is K.TRANSPORT_LOST


def test_end_of_stream_without_a_reason_is_proof_too() -> None:
    signs: list[Evidence] = []
    Watch(signs.append).end()
    assert isinstance(signs[0].exception, anyio.EndOfStream)
    assert classify(signs[0]).proof


# -- the legacy event stream transport: requests are refused here, and answered elsewhere


async def test_over_the_event_stream_transport_a_refusal_is_put_into_the_stream() -> None:
    served = Served(replied(503, b"busy", "text/plain"))
    served.lens._sse = True
    answers: list[object] = []
    served.watch.inject = answers.append
    response = await served.post(session=None)
    # The transport is told that all is well: it would give the session up.
    assert response.status_code == 202
    (answer,) = answers
    assert getattr(answer, "id", None) == 7
    assert (served.evidence.http_status, served.evidence.session_sent) == (503, True)


async def test_over_the_event_stream_transport_an_accepted_request_is_no_failure() -> None:
    served = Served(replied(202))
    served.lens._sse = True
    assert (await served.post(session=None)).status_code == 202
    assert served.evidence.http_status is None
    assert not served.exchange.failed
    assert served.evidence.written is True


# -- requests that nobody waits for any more


CANCEL = JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params={"requestId": 7})


@pytest.mark.parametrize("request_id", [7, "7", None, 8])
async def test_a_cancelled_request_is_given_up_and_no_other(request_id: object) -> None:
    waiting = anyio.Event()

    class Silent(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.headers.get("x-cancel"):
                return httpx2.Response(202, request=request)
            waiting.set()
            await anyio.sleep_forever()
            raise AssertionError

    served = Served()
    served.lens = Lens(served.watch, redact=Redactor(), limit=LIMIT, transport=Silent())
    with anyio.move_on_after(0.3 if request_id != 7 else 20) as scope:
        async with anyio.create_task_group() as group:
            served.watch.background = group.start_soon

            async def cancel() -> None:
                await waiting.wait()
                params = {} if request_id is None else {"requestId": request_id}
                OUTBOUND.set(CANCEL.model_copy(update={"params": params}))
                request = served.lens.build_request("POST", URL, headers={"x-cancel": "1"})
                assert (await served.lens.send(request)).status_code == 202

            group.start_soon(cancel)
            OUTBOUND.set(REQUEST)
            EXCHANGE.set(served.exchange)
            response = await served.lens.send(served.lens.build_request("POST", URL))
            assert response.status_code == 202
    assert scope.cancelled_caught == (request_id != 7)
    assert served.lens._pending == {}
