"""The one parser and the one encoder."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import (
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)

from mcpconn.wire.messages import (
    WINDOW,
    Limits,
    MessageTooLarge,
    Unreadable,
    encode,
    parse,
    parse_batch,
    read,
    same_id,
    unreadable,
)

pytestmark = pytest.mark.anyio

LIMITS = Limits(1_000_000, 25_000)


# -- what is a message


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', JSONRPCRequest),
        (b'{"jsonrpc": "2.0", "id": "a", "method": "ping", "params": null}', JSONRPCRequest),
        (b'{"jsonrpc": "2.0", "method": "notifications/x", "params": {"a": NaN}}', JSONRPCNotification),
        (b'{"jsonrpc": "2.0", "id": null, "method": "notifications/x"}', JSONRPCNotification),
        (b'{"jsonrpc": "2.0", "id": 1, "result": {}}', JSONRPCResponse),
        (b'{"jsonrpc": "2.0", "id": 1, "result": {}, "error": null}', JSONRPCResponse),
        (b'{"jsonrpc": "2.0", "id": 1, "result": null, "error": {"code": 1, "message": ""}}', JSONRPCError),
        (b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "no"}}', JSONRPCError),
    ],
)
def test_messages_differ_by_their_members(data: bytes, kind: type[JSONRPCMessage]) -> None:
    message = read(data)
    assert type(message) is kind
    assert message.model_dump() == jsonrpc_message_adapter.validate_json(data).model_dump() or b"NaN" in data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"jsonrpc": "2.0", "id": 1, "resu',
        b'{"jsonrpc": "2.0", "id": 1, "result": {"a": "\\ud800"}}',
        b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "half a pair: \\ud83d"}}',
        b'{"jsonrpc": "2.0", "id": 1, "result": {"a": ' + b"7" * 5000 + b"}}",
        b'{"jsonrpc": "2.0", "id": 1, "result": []}',
        b'{"jsonrpc": "2.0", "id": 1, "result": {}, "error": {"code": 1, "message": ""}}',
        b'{"jsonrpc": "2.0", "id": 1}',
        b'{"jsonrpc": "2.0", "id": null, "result": {}}',
        b'{"jsonrpc": "2.0", "id": true, "result": {}}',
        b'{"jsonrpc": "2.0", "id": 1.5, "result": {}}',
        b'{"jsonrpc": "2.0", "error": {"code": 1, "message": ""}}',
        b'{"jsonrpc": "2.0", "id": 1, "error": {"message": "no code"}}',
        b'{"jsonrpc": "2.0", "id": 1, "error": "no"}',
        b'{"jsonrpc": "1.0", "id": 1, "result": {}}',
        b'{"id": 1, "result": {}}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": [1]}',
        b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}',
        b'[{"jsonrpc": "2.0", "id": 1, "result": {}}, {"jsonrpc": "2.0", "id": 2, "result": {}}]',
    ],
)
def test_what_is_no_message_is_unreadable_and_is_never_quoted(data: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        read(data)
    assert str(caught.value) in (
        "the answer is not valid JSON",
        "the answer is not a JSON object",
        "the answer is not a JSON-RPC message",
    )
    # Neither by what it was made from.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


MEMBERS = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error"])
VALUES: st.SearchStrategy[Any] = st.sampled_from(
    ["2.0", None, 1, "a", {}, [], {"code": 1, "message": "x"}, {"code": "x"}]
)


@given(st.binary(max_size=50) | st.dictionaries(MEMBERS, VALUES).map(lambda value: json.dumps(value).encode()))
def test_what_is_read_is_what_the_sdk_reads(data: bytes) -> None:
    message = None
    with suppress(Unreadable):
        message = read(data)
    if message is not None:
        assert message == jsonrpc_message_adapter.validate_json(data, by_name=False)


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
        (b'{"error": {"code": 1, "message": "half a pair: \\ud800"}}', None),
        (b"[1]", None),
        (b"null", None),
        (b"", None),
        (b"<html>", None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
    ],
)
def test_a_refusal_needs_no_id(body: bytes, code: int | None) -> None:
    if code is None:
        with pytest.raises(Unreadable):
            read(body, refusal=True)
        return
    message = read(body, refusal=True)
    assert isinstance(message, JSONRPCError)
    assert (message.error.code, message.id) == (code, None)


# -- whose a broken message was


@pytest.mark.parametrize(
    ("data", "answers", "asks"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":{"a":"\\ud800"}}', 7, False),
        (b' { "jsonrpc" : "2.0" , "id" : "7" , "result": {"cut', "7", False),
        (b'{"id":7,"jsonrpc":"2.0","result":{"cut', 7, False),
        (b'{"result":{"a":"\\ud800"},"jsonrpc":"2.0","id":7}', 7, False),
        (b'{"result":{"a":"\\ud800"},"id":7,"jsonrpc":"2.0"}\r\n', 7, False),
        # An id in the middle is anybody's: that of a row in a table, say.
        (b'{"result":{"rows":[{"id":7}],"a":"\\ud800"}}', None, False),
        (b'{"result":"\\ud800","nested":{"id":7}}', None, False),
        (b'{"jsonrpc":"2.0","method":"notifications/message","params":{"cut', None, True),
        (b'{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","cut', 7, True),
        (b"Listening on stdio", None, False),
        (b"", None, False),
    ],
)
def test_the_id_of_a_broken_message_is_looked_for_at_its_ends(data: bytes, answers: Any, asks: bool) -> None:
    error = unreadable("broken", data)
    assert (error.answers, error.asks) == (answers, asks)


def test_misshapen_messages_say_whose_it_was() -> None:
    with pytest.raises(Unreadable) as caught:
        read(b'{"jsonrpc": "2.0", "id": 7, "result": "a text"}')
    assert (caught.value.answers, caught.value.asks) == (7, False)
    with pytest.raises(Unreadable) as caught:
        read(b'{"jsonrpc": "2.0", "id": 7, "method": 5}')
    assert caught.value.asks


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(7, 7, True), ("7", 7, True), (7, "7", True), ("a", "a", True), (None, 7, False), (8, 7, False), ("a", 7, False)],
)
def test_ids_are_compared_as_in_the_sdk(one: Any, other: Any, same: bool) -> None:
    assert same_id(one, other) is same


@pytest.mark.parametrize(("written", "read_as"), [(b"7.0", 7), (b"7", 7), (b'"7"', "7"), (b"7e0", 7)])
def test_a_number_is_an_id_in_any_spelling(written: bytes, read_as: Any) -> None:
    message = read(b'{"jsonrpc":"2.0","id":%s,"result":{}}' % written)
    assert isinstance(message, JSONRPCResponse)
    assert (message.id, type(message.id)) == (read_as, type(read_as))


# -- how much is a message


def result(inner: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"result":' + inner + b"}"


async def test_too_many_bytes_are_not_parsed() -> None:
    with pytest.raises(MessageTooLarge, match="larger than 1000000 bytes"):
        await parse(b"x" * 1_000_001, LIMITS)


@pytest.mark.parametrize(
    "piece", [b"{},", b"[],", b"1,", b'"",', b'{"a":1},', b"[[]],"], ids=["{}", "[]", "1", "text", "{a}", "[[]]"]
)
async def test_too_many_values_are_not_parsed(piece: bytes) -> None:
    data = result(b'{"structuredContent":{"a":[' + piece * 25_000 + b"0]}}")
    with pytest.raises(MessageTooLarge, match="more than 25000 values"):
        await parse(data, LIMITS)


async def test_half_as_many_values_are_read() -> None:
    data = result(b'{"structuredContent":{"a":[' + b"{}," * 12_000 + b"0]}}")
    assert isinstance(await parse(data, LIMITS), JSONRPCResponse)


@pytest.mark.parametrize("text", [b"{[,", b'\\"{,', b"\\\\", b'\\\\\\"[{', b"{" * 1000 + b'\\"'])
@pytest.mark.parametrize("shift", range(4))
async def test_brackets_in_texts_are_no_values(text: bytes, shift: int) -> None:
    # Long enough for the windows to cut it everywhere: between the quotes, and within an escape.
    piece = b'"' + b"x" * shift + text * (2 * WINDOW // len(text)) + b'"'
    data = result(b'{"content":[{"type":"text","text":' + piece + b"}]}")
    message = await parse(data, Limits(10_000_000, 25_000))
    assert isinstance(message, JSONRPCResponse)
    assert len(message.result["content"]) == 1


@pytest.mark.parametrize(
    "inner",
    [
        b'{"content":[' + b'{"type":"text","text":""},' * 1200 + b"{}]}",
        b'{"content":[' + b"1," * 1200 + b"1]}",
        b'{"tools":[{"icons":[' + b"{}," * 1200 + b"{}]}]}",
        b'{"a":{"b":{"c":[' + b"[]," * 1200 + b"0]}}}",
    ],
)
async def test_items_that_models_describe_cost_more_and_are_fewer(inner: bytes) -> None:
    with pytest.raises(MessageTooLarge, match="more than 1000 items"):
        await parse(result(inner), LIMITS)


TOO_MUCH = {
    "bytes": b'{"content":[{"type":"text","text":"' + b"x" * 1_000_001 + b'"}]}',
    "values": b'{"structuredContent":{"a":[' + b"{}," * 25_000 + b"0]}}",
    "items": b'{"content":[' + b"1," * 1200 + b"1]}",
}


@pytest.mark.parametrize("what", TOO_MUCH)
async def test_what_is_too_large_says_which_request_it_answers(what: str) -> None:
    """On a pipe all answers come on one stream: a caller that is not named waits until its deadline."""
    (error,) = await parse_batch(result(TOO_MUCH[what]), LIMITS)
    assert isinstance(error, MessageTooLarge)
    assert (error.answers, error.asks) == (1, False)


async def test_a_question_that_is_too_large_answers_nothing() -> None:
    question = b'{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{"messages":[%b1]}}'
    (error,) = await parse_batch(question % (b"1," * 1200), LIMITS)
    assert isinstance(error, MessageTooLarge)
    assert (error.answers, error.asks) == (None, True)


@pytest.mark.parametrize("name", [b"structuredContent", b"inputSchema", b"outputSchema", b"_meta", b"data"])
async def test_values_that_no_model_describes_are_not_such_items(name: bytes) -> None:
    inner = b'{"' + name + b'":{"a":[' + b"{}," * 1200 + b"{}]}}"
    assert isinstance(await parse(result(inner), LIMITS), JSONRPCResponse)


@given(st.text(alphabet='{}[],"\\ab', max_size=60), st.integers(0, 30))
def test_values_are_counted_outside_of_texts(text: str, items: int) -> None:
    import anyio

    from mcpconn.wire.messages import _count

    data = json.dumps({"a": text, "b": [text] * items}).encode()
    commas = 1 + max(0, items - 1)
    assert anyio.run(_count, data, 10_000) == commas + 2


# -- out


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (JSONRPCRequest(jsonrpc="2.0", id=1, method="ping"), b'{"jsonrpc":"2.0","id":1,"method":"ping"}'),
        (
            JSONRPCRequest(jsonrpc="2.0", id="a", method="x", params={"_meta": {"a": "é"}, "b": [1.5, None]}),
            '{"jsonrpc":"2.0","id":"a","method":"x","params":{"_meta":{"a":"é"},"b":[1.5,null]}}'.encode(),
        ),
        (JSONRPCNotification(jsonrpc="2.0", method="n"), b'{"jsonrpc":"2.0","method":"n"}'),
        (JSONRPCResponse(jsonrpc="2.0", id=1, result={}), b'{"jsonrpc":"2.0","id":1,"result":{}}'),
        (
            JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=1, message="no")),
            b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"no"}}',
        ),
    ],
)
def test_unset_fields_are_not_encoded(message: JSONRPCMessage, body: bytes) -> None:
    assert encode(message) == body
    assert read(body).model_dump() == message.model_dump()


def _loop() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("half a pair: \ud83d", "not valid Unicode"),
        (int("7" * 4000) ** 2, "a number that JSON cannot carry"),
        (float("nan"), "a number that JSON cannot carry"),
        (float("inf"), "a number that JSON cannot carry"),
        (object(), "a value that JSON does not have"),
        ({(1, 2): 3}, "a value that JSON does not have"),
        (_loop(), "nested too deeply"),
        (_deep(), "nested too deeply"),
    ],
    ids=["surrogate", "digits", "nan", "infinity", "object", "key", "loop", "deep"],
)
def test_an_unsendable_says_why_unquoted(value: Any, why: str) -> None:
    message = JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/call", params={"arguments": {"secret": value}})
    with pytest.raises(ValueError, match=why) as caught:
        encode(message)
    assert len(str(caught.value)) < 200
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("data", ["\ud800", float("nan"), object()])
def test_an_error_for_the_server_is_sent_as_far_as_it_can_be(data: Any) -> None:
    error = ErrorData(code=-32603, message="half a pair: \ud83d", data=data)
    sent = read(encode(JSONRPCError(jsonrpc="2.0", id=3, error=error)))
    assert isinstance(sent, JSONRPCError)
    assert (sent.id, sent.error.code, sent.error.message) == (3, -32603, "half a pair: ?")
