"""A canary for each text of the SDK that the rules know (`mcpconn.core.sdk_words`)."""

from __future__ import annotations

import inspect

import pytest
from mcp.client import streamable_http
from mcp.server import streamable_http as server
from mcp.shared import direct_dispatcher, jsonrpc_dispatcher

from mcpconn.core import sdk_words


@pytest.mark.parametrize(
    ("text", "module"),
    [
        (sdk_words.CLOSED[0], jsonrpc_dispatcher),
        (sdk_words.CLOSED[0], direct_dispatcher),
        (sdk_words.CUT, server),
        (sdk_words.STREAM_CUT, streamable_http),
        *((text, streamable_http) for text in sdk_words.UNREADABLE),
        (sdk_words.NO_JSON, streamable_http),
        (sdk_words.REDIRECTED, streamable_http),
        (sdk_words.REFUSED, streamable_http),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else value.__name__.rpartition(".")[2],
)
def test_the_sdk_still_says_it(text: str, module: object) -> None:
    # In quotes, so that it is the beginning of a message and not a comment.
    assert f'"{text}' in inspect.getsource(module).lower()  # type: ignore[arg-type]
