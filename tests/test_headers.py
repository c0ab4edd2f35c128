"""Headers that no request can carry are refused at the door, and what they hold is not shown."""

from __future__ import annotations

from typing import Any

import pytest

from mcpconn.headers import BadHeader, checked_headers

SECRET = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"


@pytest.mark.parametrize(
    "value", [f"{SECRET}\n", f"{SECRET}\r\n", f" {SECRET}\t", f"\ufeff{SECRET}", SECRET, f"{SECRET} with spaces", ""]
)
def test_whitespace_around_a_value_is_cut(value: str) -> None:
    assert checked_headers({"X-Key": value}) == {"X-Key": value.strip("\ufeff\r\n\t ")}


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"X-Key": f"{SECRET}\nX-Other: 1"}, ["'X-Key'", "line break"]),
        ({"X-Key": f"{SECRET}\r\n x"}, ["'X-Key'", "line break"]),
        ({"X-Key": f"{SECRET}\0"}, ["'X-Key'", "NUL"]),
        ({"X-Key": f"{SECRET}\x1b[1m"}, ["'X-Key'", "control character"]),
        ({"X-Key": f"{SECRET}é"}, ["'X-Key'", "not ASCII"]),
        ({"X-Key": 5}, ["'X-Key'", "must be a string, not int"]),
        ({5: SECRET}, ["must be a string"]),
        ({"": SECRET}, ["is empty"]),
        ({"X Key": SECRET}, ["'X...'", "contains a space"]),
        ({f"Authorization: Bearer {SECRET}": ""}, ["'Authorization...'", "contains a colon"]),
        ({f"{SECRET} ": ""}, ["***", "contains a space"]),
        ({"X-Key\n": SECRET}, ["'X-Key...'", "cannot have"]),
        ({"Schlüssel": SECRET}, ["'Schl...'", "cannot have"]),
        ({"Content-Length": "5"}, ["Content-Length", "set by the protocol"]),
        ({"transfer-encoding": "chunked"}, ["transfer-encoding", "set by the protocol"]),
        ({"Mcp-Session-Id": SECRET}, ["Mcp-Session-Id", "set by the protocol"]),
    ],
)
def test_a_bad_header_is_named_without_value(headers: dict[Any, Any], words: list[str]) -> None:
    with pytest.raises(BadHeader) as caught:
        checked_headers(headers)
    for word in words:
        assert word in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_whole_requests_headers_frame_it() -> None:
    assert checked_headers({"content-length": "5"}, framing=True) == {"content-length": "5"}
