"""Server-sent events, however they are cut."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpconn.wire.events import RETRY_LIMIT, Event, EventReader
from mcpconn.wire.messages import MessageTooLarge

STREAM = (
    b"\xef\xbb\xbf: a comment\n"
    b"event: endpoint\r\ndata: /messages?a=1\r\n\r\n"
    b"id: 1\nretry: 250\ndata:\n\n"
    b"data: one\rdata:two\r\r"
    b"data\n\n"
    b"unknown: field\n\n"
    b"id: 2\n\n"
    b"id: bad\0id\ndata: x\n\n"
    b"retry: soon\ndata: y\n\n"
    b"id:\ndata: z\n\n"
    b"data: the end is missing\n"
)
EVENTS = [
    Event(b"/messages?a=1", "endpoint", None, None),
    Event(b"", "message", b"1", 250),
    Event(b"one\ntwo", "message", b"1", None),
    Event(b"", "message", b"1", None),
    Event(b"", "message", b"2", None),
    Event(b"x", "message", b"2", None),
    Event(b"y", "message", b"2", None),
    Event(b"z", "message", None, None),
]


def events(*chunks: bytes, limit: int = 10_000) -> list[Event]:
    reader = EventReader(limit)
    return [event for chunk in chunks for event in reader.feed(chunk)]


def test_streams_are_read_by_the_standard() -> None:
    assert events(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_where_it_is_cut_makes_no_difference(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert events(*(STREAM[a:b] for a, b in pairwise(edges))) == EVENTS


def test_byte_by_byte_makes_none_either() -> None:
    assert events(*(bytes([byte]) for byte in STREAM)) == EVENTS


@given(st.text(alphabet="ab:\r\n dt", max_size=40))
def test_the_data_is_what_httpx2_reads(text: str) -> None:
    body = f"data: begin\n\n{text}\n\ndata: end\n\n".encode()
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    response.request = httpx2.Request("GET", "http://server.example/")
    source = httpx2.EventSource(response)
    assert [event.data.decode() for event in events(body)] == [event.data for event in source]


def test_waits_are_believed_up_to_an_hour() -> None:
    assert [event.retry for event in events(b"retry: 0\n\n" + b"retry: " + b"9" * 5000 + b"\n\n")] == [0, RETRY_LIMIT]


@pytest.mark.parametrize(
    "chunks",
    [
        (b"data: ", *[b"x" * 100] * 11),
        (b"data: " + b"x" * 1100 + b"\n\n",),
        (*[b"data: " + b"x" * 100 + b"\n"] * 11,),
        (b"x" * 1100,),
        (b":" + b"x" * 1100,),
    ],
)
def test_an_event_above_the_limit_is_refused_as_soon_as_it_is(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(MessageTooLarge, match="larger than 1000 bytes"):
        events(*chunks, limit=1000)


def test_the_limit_is_each_events_own() -> None:
    assert len(events(*[b"data: " + b"x" * 900 + b"\n\n"] * 10, limit=1000)) == 10


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
@pytest.mark.parametrize(
    ("data", "answers", "asks"),
    [
        (b"data: " + b"x" * 2000, None, False),
        (b'data: {"jsonrpc":"2.0","id":7,"result":{"a":"' + b"x" * 2000 + b'"}}', 7, False),
        (b'data: {"result":{"a":"' + b"x" * 2000 + b'"},"jsonrpc":"2.0","id":7}', 7, False),
        (b'data: {"jsonrpc":"2.0",\ndata: "id":7,\n' + b"data: x\n" * 2000 + b"data: }", 7, False),
        (b'data: {"jsonrpc":"2.0","method":"notifications/message","params":"' + b"x" * 2000 + b'"}', None, True),
    ],
    ids=["no message", "id first", "id last", "lines", "a notification"],
)
def test_an_oversized_event_can_be_skipped(size: int, data: bytes, answers: object, asks: bool) -> None:
    stream = b"data: before\n\n" + data + b"\n\ndata: after\n\n" + data + b"\nid: 9\n\ndata: last\n\n"
    reader = EventReader(1000, skip=True)
    found = [event for start in range(0, len(stream), size) for event in reader.feed(stream[start : start + size])]
    assert [event.data for event in found] == [b"before", b"", b"after", b"", b"last"]
    errors = [event.error for event in found if event.error is not None]
    assert [(str(error), error.answers, error.asks) for error in errors] == [
        ("the answer is larger than 1000 bytes", answers, asks)
    ] * 2
    assert found[-1].id == b"9"


def test_no_more_is_kept_of_a_skipped_event_than_the_limit_and_a_chunk() -> None:
    reader = EventReader(10_000, skip=True)
    reader.feed(b"data: ")
    tracemalloc.start()
    try:
        for number in range(10_000):
            reader.feed(b"x" * 1000 if number % 3 else b"x\ndata: " * 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
