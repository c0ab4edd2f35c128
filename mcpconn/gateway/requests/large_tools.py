"""Which tools give large answers, as far as it can be known before they are called."""

from __future__ import annotations

import re
from collections import OrderedDict

LARGE = 1024 * 1024
"""Bytes of an event; `max_sse_event_size` of the SDK's client."""
REMEMBERED = 1000
"""Tools that are remembered for their large answers."""
# A name that says so moves the balance between an answer that is too large for an event, and a connection that is cut
# in the two seconds before its client could take up the stream again. It decides nothing else.
MUCH = frozenset(
    (
        *("big", "blob", "content", "contents", "download", "dump", "export", "fetch", "find", "get", "html"),
        *("image", "images", "large", "list", "pdf", "picture", "query", "read", "render", "report", "retrieve"),
        *("screenshot", "search", "show", "snapshot", "view"),
    )
)
"""Words in the names of tools that return much."""
CHANGES = frozenset(
    (
        *("add", "append", "book", "buy", "cancel", "charge", "commit", "create", "delete", "edit", "insert", "make"),
        *("merge", "move", "order", "pay", "post", "publish", "push", "put", "remove", "rename", "run", "save"),
        *("send", "set", "submit", "transfer", "update", "upload", "write"),
    )
)
"""Words in the names of tools that change something. One of them outweighs those of `MUCH`."""
_WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

Tool = tuple[str, str]
"""A server, and its own name of the tool."""

# Of this process: for each tool this saves one failure at most.
_known: OrderedDict[Tool, None] = OrderedDict()


def remember(tool: Tool | None) -> None:
    """A tool gave a large answer."""
    if tool is not None:
        _known[tool] = None
        if len(_known) > REMEMBERED:
            _known.popitem(last=False)


def is_known(tool: Tool | None) -> bool:
    """Whether a tool gave a large answer before."""
    return tool in _known


def returns_much(name: str) -> bool:
    """Whether the name of a tool says that it returns much, and nothing of a change."""
    words = {word.lower() for word in _WORD.findall(name)}
    return not words.isdisjoint(MUCH) and words.isdisjoint(CHANGES)
