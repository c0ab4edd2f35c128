"""The result of a handler for a successful call: `{"result": ...}`. Nothing is silently dropped.

    tool        result: its text blocks, joined by newlines; structuredContent, if there is some;
                content: the blocks that are more than text (images, audio, links, embedded resources, text
                with annotations), whole
    resource    result: its text parts, joined; content: every part, whole, but that of a single text part the
                text is not repeated
    all others  result: the answer as it is

`_meta` is beside them where the server sent any, but for the server's name and version, with which a modern
server stamps every answer. Everything is valid JSON: numbers that JSON does not have
become the strings "NaN", "Infinity" and "-Infinity", and values of types it does not have their texts.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import date
from enum import Enum
from typing import Any

import mcp_types as types
from pydantic import BaseModel

Payload = dict[str, Any]

_UNSAID = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
"""Default values that the SDK adds for servers that do not send them."""


def tool_payload(result: types.CallToolResult) -> Payload:
    """The result of a tool. The caller decides whether it is a success."""
    data = plain(result)
    blocks: list[Payload] = data.pop("content", [])
    texts = [str(block["text"]) for block in blocks if block["type"] == "text"]
    payload: Payload = {"result": "\n".join(texts)}
    if "structuredContent" in data:
        payload["structuredContent"] = data.pop("structuredContent")
    if more := [block for block in blocks if block.keys() != {"type", "text"}]:
        payload["content"] = more
    data.pop("isError", None)
    return payload | data


def resource_payload(result: types.ReadResourceResult) -> Payload:
    """The parts of a resource."""
    data = plain(result)
    parts: list[Payload] = data.pop("contents", [])
    written = [part for part in parts if "text" in part]
    texts = [str(part["text"]) for part in written]
    if len(written) == 1:
        # If there are several, only the parts show what belongs to which.
        del written[0]["text"]
    return {"result": "\n".join(texts), "content": parts} | data


def whole_payload(result: BaseModel) -> Payload:
    """A listing, a prompt, a completion."""
    data = plain(result)
    meta = {"_meta": data.pop("_meta")} if "_meta" in data else {}
    return {"result": data} | meta


def plain(result: BaseModel) -> Payload:
    """A result of the SDK as the server sent it."""
    data = result.model_dump(by_alias=True, exclude_none=True)
    meta = {key: value for key, value in data.pop("_meta", {}).items() if key != types.SERVER_INFO_META_KEY}
    if meta:
        data["_meta"] = meta
    return {key: value for key, value in data.items() if key not in _UNSAID or value != _UNSAID[key]}


def encode(payload: Payload) -> str:
    """`payload` as JSON, regardless of its contents.

    Raises:
        ValueError, RecursionError: it contains itself, or is nested too deeply.
    """
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError):
        payload = jsonable(payload)
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A Python string may contain half a surrogate pair, which can only be sent escaped.
        return json.dumps(payload, allow_nan=False)
    return text


def jsonable(value: Any) -> Any:
    """`value` in the types that JSON has."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Enum):
        return jsonable(value.value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _name(value)
    if isinstance(value, BaseModel):
        return jsonable(value.model_dump(by_alias=True, exclude_none=True))
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(jsonable(key)): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, date) else str(value)


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
