"""A scripted MCP server of 2024-11-05: all answers on one event stream. Standard library only, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mcpconn.testing.scripted.faults import SSE_HEADERS
from mcpconn.testing.scripted.script import Script
from mcpconn.testing.scripted.steps import Feed, Follow, Message, Reply, Send, Step, body_reply, sse_event


class SseScript(Script):
    """A `Script` over HTTP+SSE: GET opens the stream, each POST is accepted and answered on it.

    Faults and tools are those of `Script`. What a fault sends with status 200 goes to the stream; a refusal is the
    answer to the POST.
    """

    def __init__(self, **options: Any) -> None:
        """
        Args:
            options: As for `Script`.
        """
        super().__init__(**options, era="legacy", sessions=False, answer="json")
        self._feed: Feed | None = None

    def _reply(self, http_method: str, message: Message, headers: Mapping[str, str]) -> Reply:
        if http_method == "GET":
            return Reply(200, SSE_HEADERS, self._open())
        if http_method != "POST":
            return body_reply(405, b"", None)
        reply = super()._reply(http_method, message, headers)
        if "id" not in message or reply.status != 200:
            return reply
        stream = dict(reply.headers).get("content-type") == "text/event-stream"
        return Reply(202, (), self._diverted(reply, stream=stream))

    def _open(self) -> Iterator[Step]:
        feed = self._feed = Feed()
        yield Send(b"event: endpoint\r\ndata: /messages?sessionId=0123456789abcdef0123456789abcdef\r\n\r\n")
        yield Follow(feed)

    def _diverted(self, reply: Reply, *, stream: bool) -> Iterator[Step]:
        """Accept the POST, then play its answer on the stream."""
        yield Send(b"")
        body = b""
        for step in reply.steps:
            if not isinstance(step, Send):
                yield step
            elif stream:
                self._push(step.data)
            else:
                body += step.data
        if body:
            self._push(sse_event(body))

    def _push(self, data: bytes) -> None:
        if self._feed is not None:
            self._feed.push(data)
