"""Rewrites messages that pass through: names, URIs, and reserved `_meta` keys. Pure.

Messages are plain JSON values. All other content is passed on unchanged, so unknown fields are preserved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

OURS = "mcpconn/"
"""Prefix of the gateway's own `_meta` keys. A server that sends such a key forges it."""
PROTOCOLS = "io.modelcontextprotocol/"
"""Prefix of the protocol's own `_meta` keys. They belong to one hop: each side writes its own."""

RELATED_TASK = f"{PROTOCOLS}related-task"
"""Names the task that a message belongs to (specification 2025-11-25, tasks)."""

LONGEST_TEXT = 128 * 1024
"""Characters of a notification's text. The SDK's client takes events up to 1 MiB, and JSON needs up to 6 bytes for a
character; an event that is longer ends the stream, and the call that it belongs to is lost with it."""
CUT = " [the rest was removed by the gateway: it was too long for a notification]"

Json = dict[str, Any]


def without(meta: Mapping[str, Any], *prefixes: str) -> Json:
    """`_meta` without the keys that begin with one of `prefixes`."""
    return {key: value for key, value in meta.items() if not key.startswith(prefixes)}


def to_server(params: Mapping[str, Any] | None) -> Json:
    """A request's parameters for the next hop: the protocol's own `_meta` and progress token are this hop's."""
    sent = dict(params or {})
    meta = sent.pop("_meta", None)
    if isinstance(meta, Mapping):
        kept = without(meta, PROTOCOLS, OURS)
        kept.pop("progressToken", None)
        if kept:
            sent["_meta"] = kept
    return sent


def shortened(text: str) -> str:
    """The text of a notification, cut if a client could not take it."""
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + CUT


def notification(params: Mapping[str, Any]) -> Json:
    """The parameters of a log message or of another notification, with its text cut if it is too long."""
    sent = dict(params)
    if "data" in sent and len(said := str(sent["data"])) > LONGEST_TEXT:
        sent["data"] = shortened(said)
    return sent


def from_server(message: Json, *, trusted: bool = False) -> Json:
    """A result, or a part of one, without what its server may not say: see `OURS` and `PROTOCOLS`.

    Args:
        message: The JSON object; it is not changed.
        trusted: The server is a gateway of our own, whose word is passed on.
    """
    meta = message.get("_meta")
    if not isinstance(meta, Mapping):
        return message
    kept = without(meta, PROTOCOLS) if trusted else without(meta, PROTOCOLS, OURS)
    if len(kept) == len(meta):
        return message
    changed = {key: value for key, value in message.items() if key != "_meta"}
    return {**changed, "_meta": kept} if kept else changed


def content(block: Any, uri: Callable[[str], str], *, trusted: bool = False) -> Any:
    """A block of content: links and embedded resources get public URIs."""
    if not isinstance(block, Mapping):
        return block
    block = from_server(dict(block), trusted=trusted)
    if block.get("type") == "resource_link" and isinstance(block.get("uri"), str):
        return {**block, "uri": uri(block["uri"])}
    if block.get("type") == "resource" and isinstance(block.get("resource"), Mapping):
        return {**block, "resource": resource(block["resource"], uri, trusted=trusted)}
    if block.get("type") == "tool_result" and isinstance(block.get("content"), list):
        return {**block, "content": [content(each, uri, trusted=trusted) for each in block["content"]]}
    return block


def resource(part: Any, uri: Callable[[str], str], *, trusted: bool = False) -> Any:
    """A resource, or the content of one, with its public URI."""
    if not isinstance(part, Mapping):
        return part
    part = from_server(dict(part), trusted=trusted)
    return {**part, "uri": uri(part["uri"])} if isinstance(part.get("uri"), str) else part


def _task(task: Json, uri: Callable[[str], str], *, trusted: bool) -> Json:
    """A task of the 2026-07-28 extension: the result, the error and the questions in it are a server's words, too."""
    changed = dict(task)
    if isinstance(task.get("result"), Mapping):
        changed["result"] = result("tools/call", dict(task["result"]), uri, trusted=trusted)
    error = task.get("error")
    if isinstance(error, Mapping) and isinstance(error.get("data"), Mapping) and not trusted:
        changed["error"] = {**error, "data": without(error["data"], OURS)}
    if isinstance(task.get("inputRequests"), Mapping):
        changed["inputRequests"] = {
            key: {**asked, "params": from_server(dict(asked["params"]), trusted=trusted)}
            if isinstance(asked, Mapping) and isinstance(asked.get("params"), Mapping)
            else asked
            for key, asked in task["inputRequests"].items()
        }
    return changed


def result(method: str, answer: Json, uri: Callable[[str], str], *, trusted: bool = False) -> Json:
    """The result of `method` as its client may see it."""
    answer = from_server(answer, trusted=trusted)
    if method in ("tools/call", "tasks/result") and isinstance(answer.get("content"), list):
        return {**answer, "content": [content(block, uri, trusted=trusted) for block in answer["content"]]}
    if method == "resources/read" and isinstance(answer.get("contents"), list):
        return {**answer, "contents": [resource(part, uri, trusted=trusted) for part in answer["contents"]]}
    if method == "tasks/get":
        return _task(answer, uri, trusted=trusted)
    if method == "prompts/get" and isinstance(answer.get("messages"), list):
        messages = [
            {**message, "content": content(message["content"], uri, trusted=trusted)}
            if isinstance(message, Mapping) and "content" in message
            else message
            for message in answer["messages"]
        ]
        return {**answer, "messages": messages}
    return answer
