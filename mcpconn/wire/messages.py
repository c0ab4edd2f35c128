"""JSON-RPC messages and their bytes: a single parser and a single encoder for all transports.

Two parsers may disagree: one accepts half a surrogate pair or an integer of 5,000 digits, the other does not, and the
error that a call gets then matches neither the server nor the wire. So all received data is parsed here, once, and the
SDK receives only the resulting messages. All sent messages are encoded here, once, before the session's transport sees
them, so that an unencodable message fails in its caller and does not end the session.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from anyio.lowlevel import checkpoint
from mcp.shared.dispatcher import as_request_id, coerce_request_id
from mcp.shared.message import SessionMessage
from mcp_types import (
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from pydantic_core import PydanticSerializationError, from_json, to_jsonable_python

from mcpconn.core.failures import Trouble

MODELLED_SHARE = 25
"""The fraction (1 in this many) of `Limits.values` that may be items that the SDK's models describe. Measured:
validating a text block costs 16 us, twice 8, parsing any value 0.1 us; so both limits correspond to about 0.3 s, during
which no other connection's call makes progress."""
WINDOW = 256 * 1024
"""Bytes scanned before other tasks run: at most 10 ms."""

FREE_FORM = frozenset({"_meta", "data", "inputSchema", "outputSchema", "structuredContent"})
"""Members that the SDK's models accept without validating their contents."""


class Unreadable(ValueError):
    """The received data is not a JSON-RPC message, or not the expected one. The text never quotes it.

    Attributes:
        answers: Id of the request that it may have been meant to answer, where one can be made out.
        asks: It is a request or a notification of the server's, if a badly made one: no answer.
        broken: It is no JSON, so nothing at all is known of what it says.
        anonymous: It is an answer that names no request.
    """

    trouble = Trouble.UNREADABLE_ANSWER

    def __init__(
        self,
        text: str,
        *,
        answers: RequestId | None = None,
        asks: bool = False,
        broken: bool = False,
        anonymous: bool = False,
    ) -> None:
        super().__init__(text)
        self.answers = answers
        self.asks = asks
        self.broken = broken
        self.anonymous = anonymous


class MessageTooLarge(Unreadable):
    """What was received is above `Policy.max_message_size`, or holds more than `Policy.max_message_values`."""


@dataclass(frozen=True)
class Limits:
    """How much one message may be."""

    size: int
    """Bytes."""
    values: int
    """JSON values: objects, arrays, and what is in them. 16 MB of empty objects are half a gigabyte of dicts."""


@dataclass
class Outgoing(SessionMessage):
    """A message on its way out, and the bytes to send."""

    body: bytes = b""


class Made(SessionMessage):
    """A locally created answer, in place of one that will not come."""


def made(request_id: RequestId, code: int, text: str) -> Made:
    """The answer for a request that gets none from the server."""
    return Made(JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=code, message=text)))


# -- out


def encode(message: JSONRPCMessage) -> bytes:
    """The bytes of `message`.

    Raises:
        ValueError: it cannot be encoded as JSON. Nothing was written.
    """
    try:
        # Only fields that were set, because for strict servers an added null is a different message.
        return _dump(message.model_dump(by_alias=True, exclude_unset=True))
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(message, JSONRPCError):
            # The answer to a request of the server, which waits for it: send as much as possible.
            text = message.error.message.encode("utf-8", "replace").decode()
            return _dump({"jsonrpc": "2.0", "id": message.id, "error": {"code": message.error.code, "message": text}})
        raise ValueError(f"the message cannot be sent: {_why(error)}") from None


def _dump(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=to_jsonable_python)
    return text.encode()


def _why(error: Exception) -> str:
    """The reason, without the value: it may be a secret, or ten megabytes."""
    if isinstance(error, UnicodeError):
        return "one of its texts is not valid Unicode (half a surrogate pair)"
    if isinstance(error, RecursionError) or "ircular" in str(error):
        return "it is nested too deeply"
    if isinstance(error, (TypeError, PydanticSerializationError)):
        return "it holds a value that JSON does not have"
    return "it holds a number that JSON cannot carry (NaN, infinite, or of thousands of digits)"


# -- in


async def parse(data: bytes, limits: Limits, *, refusal: bool = False) -> JSONRPCMessage:
    """The message in `data`.

    Args:
        data: One JSON text.
        limits: What it may be at most.
        refusal: It came with an HTTP status of 400 or more: see `read`.

    Raises:
        MessageTooLarge: it is above a limit.
        Unreadable: it is not a JSON-RPC message.
    """
    few, bound = await _checked(data, limits)
    # Parsed only after the limits were checked, which prevent a small message from filling the memory.
    message = read(data, refusal=refusal)
    if bound > few and not _modelled(message, few):
        # Where all answers come on one stream, the caller of a request that is not named would wait until its deadline.
        answers = message.id if isinstance(message, (JSONRPCResponse, JSONRPCError)) else None
        asks = isinstance(message, (JSONRPCRequest, JSONRPCNotification))
        raise MessageTooLarge(f"the answer holds more than {few} items", answers=answers, asks=asks)
    return message


async def parse_batch(data: bytes, limits: Limits) -> list[JSONRPCMessage | Unreadable]:
    """The messages in `data`: one, or those of a JSON array, as which MCP 2025-03-26 lets servers send several.

    Args:
        data: One JSON text.
        limits: What it may be at most, as a whole.
    """
    found: list[JSONRPCMessage | Unreadable] = []
    try:
        parts = [data]
        if data[:ENDS].lstrip().startswith(b"["):
            await _checked(data, limits)
            with suppress(ValueError):
                # Written again one by one, so that each is read as if it had come alone.
                parts = [_dump(each) for each in from_json(data)] or parts
        for part in parts:
            try:
                found.append(await parse(part, limits))
            except Unreadable as error:
                found.append(error)
    except MessageTooLarge as error:
        found.append(error)
    return found


async def _checked(data: bytes, limits: Limits) -> tuple[int, int]:
    """Raise `MessageTooLarge` if `data` is above a limit.

    Returns:
        How many items that the SDK's models describe it may hold, and an upper bound of its values.
    """
    # Checked first, because it costs nothing and the checks below read all data.
    if len(data) > limits.size:
        raise unreadable(f"the answer is larger than {limits.size} bytes", data, MessageTooLarge)
    few = max(1, limits.values // MODELLED_SHARE)
    # Every value except one is preceded by a comma or a bracket. Strings contain them as well, so this is only an upper
    # bound.
    bound = 0 if len(data) <= few else sum(data.count(each) for each in (b",", b"{", b"["))
    if bound > limits.values and await _count(data, limits.values) > limits.values:
        raise unreadable(f"the answer holds more than {limits.values} values", data, MessageTooLarge)
    return few, bound


def read(data: bytes, *, refusal: bool = False) -> JSONRPCMessage:
    """The message in `data`, regardless of its size.

    Args:
        data: One JSON text.
        refusal: It came with an HTTP status of 400 or more. Such an error needs no id, and its id is not
            looked at: it is about the request that was refused.

    Raises:
        Unreadable: it is not a JSON-RPC message.
    """
    try:
        value = from_json(data)
    except ValueError:
        raise unreadable("the answer is not valid JSON", data) from None
    if isinstance(value, list) and len(value) == 1:
        # A batch of one, as which MCP 2025-03-26 lets a server answer.
        value = value[0]
    if not isinstance(value, dict):
        raise Unreadable("the answer is not a JSON object")
    if isinstance(number := value.get("id"), float) and number.is_integer():
        # JSON has one kind of numbers, and so have the languages of some servers, which return 7 as 7.0.
        value["id"] = int(number)
    try:
        return _refusal(value) if refusal else _message(value)
    # pydantic's error is a ValueError, and quotes what it was given.
    except (KeyError, TypeError, ValueError, OverflowError):
        answers, asks = as_request_id(value.get("id")), "method" in value
        anonymous = answers is None and not asks and ("result" in value or "error" in value)
        text = "the answer is not a JSON-RPC message"
        raise Unreadable(text, answers=answers, asks=asks, anonymous=anonymous) from None


def _message(value: dict[str, Any]) -> JSONRPCMessage:
    version: Any = value["jsonrpc"]
    if "method" in value:
        fields = {"params": value["params"]} if value.get("params") is not None else {}
        if value.get("id") is None:
            return JSONRPCNotification(jsonrpc=version, method=value["method"], **fields)
        return JSONRPCRequest(jsonrpc=version, id=value["id"], method=value["method"], **fields)
    result: Any = value.get("result")
    error: Any = value.get("error")
    if (result is None) == (error is None):
        raise KeyError("neither result nor error, or both")
    if error is None:
        return JSONRPCResponse(jsonrpc=version, id=value["id"], result=result)
    return JSONRPCError(jsonrpc=version, id=value["id"], error=ErrorData(**_error(error)))


def _refusal(value: dict[str, Any]) -> JSONRPCError:
    error = ErrorData(**_error(value["error"], code=int, message=str))
    return JSONRPCError(jsonrpc="2.0", id=None, error=error)


def _error(error: dict[str, Any], **as_type: Any) -> dict[str, Any]:
    fields = {name: as_type.get(name, _same)(error[name]) for name in ("code", "message")}
    return {**fields, "data": error["data"]} if "data" in error else fields


def _same(value: Any) -> Any:
    return value


_ID = rb'"id"\s*:\s*(\d{1,18}|"[^"\\]{0,64}")\s*'
_VERSION = rb'"jsonrpc"\s*:\s*"2\.0"\s*'
_HEAD = re.compile(rb"\s*\{\s*(?:%s,\s*)?(?:%s,\s*)?(\"method\")?" % (_VERSION, _ID))
_TAIL = re.compile(rb",\s*%s(?:,\s*%s)?\}\s*$" % (_ID, _VERSION))
ENDS = 256
"""Bytes at the beginning and at the end of a broken message in which its id is looked for. Of the official SDKs, some
write the id first, and TypeScript's writes it last."""


def unreadable(text: str, data: bytes, kind: type[Unreadable] = Unreadable) -> Unreadable:
    """The error for a message of which only the beginning or the end is available or valid.

    Args:
        text: What is wrong.
        data: The message, or what is left of it.
        kind: Of the error.

    On a stream of its own a broken answer is its request's. Where all answers come on one stream, only the id
    that can still be made out tells whose it was; without it, its caller would wait until the deadline.
    """
    head = _HEAD.match(data[:ENDS])
    tail = _TAIL.search(data[-ENDS:])
    found = (head and head.group(1)) or (tail and tail.group(1))
    return kind(text, answers=from_json(found) if found else None, asks=bool(head and head.group(2)), broken=True)


async def _count(data: bytes, limit: int) -> int:
    """How many commas and brackets there are outside of texts; no more than `limit` are counted to the end."""
    found, inside, carried = 0, False, b""
    for start in range(0, len(data), WINDOW):
        window = carried + data[start : start + WINDOW]
        # An escape that the window cuts in two is looked at whole, in the next one.
        carried = b"\\" if (len(window) - len(window.rstrip(b"\\"))) % 2 else b""
        window = window[: len(window) - len(carried)].replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = window.split(b'"')
        outside = b"".join(pieces[inside::2])
        inside ^= len(pieces) % 2 == 0
        found += sum(outside.count(each) for each in (b",", b"{", b"["))
        if found > limit:
            break
        await checkpoint()
    return found


def _modelled(message: JSONRPCMessage, limit: int) -> bool:
    """Whether no more than `limit` values are in places that the SDK's models describe."""
    pending = [_content(message)]
    met = 0
    while pending and met <= limit:
        items = pending.pop()
        met += len(items)
        if met <= limit:
            pending.extend(_containers(items))
    return met <= limit


def _content(message: JSONRPCMessage) -> Any:
    if isinstance(message, JSONRPCResponse):
        return message.result
    return {} if isinstance(message, JSONRPCError) else message.params or {}


def _containers(items: Any) -> Iterator[Any]:
    values = (item for name, item in items.items() if name not in FREE_FORM) if isinstance(items, dict) else items
    return (each for each in values if isinstance(each, (dict, list)))


# -- ids


def same_id(one: RequestId | None, other: RequestId) -> bool:
    """Whether both name the same request. "7" equals 7, because some servers return every id as a string, and the SDK
    accepts that (`coerce_request_id`)."""
    return one is not None and coerce_request_id(one) == coerce_request_id(other)
