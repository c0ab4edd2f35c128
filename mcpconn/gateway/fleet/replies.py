"""The answer to a client's request that another replica, or a session that may be lost, produces.

In every case the client gets a proper end: an event stream ends cleanly, and a call's outcome is reported as unknown. A
cut connection would leave the client guessing.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from typing import Any

import anyio
from mcp_types import INTERNAL_ERROR
from starlette.types import Message, Send

from mcpconn.gateway.outcomes import EARLIER, LIST_NOT_SERVED, tool_error
from mcpconn.keys import FIRST, IDEMPOTENCY_KEY, OUTCOME

NOT_SERVED = (
    "The call was not made: the replica of the gateway that holds the session does not answer, and has not been given "
    "up yet. Try again in some seconds."
)
LOST = (
    "The replica of the gateway that made this call is gone, or lost its hold on the session. It is not known whether "
    "the tool ran. Find out before you call again."
)


class Reply:
    """A `send` that knows how far the answer has come."""

    def __init__(self, send: Send, method: str, body: bytes) -> None:
        """
        Args:
            send: The client's.
            method: The HTTP method of its request.
            body: The request's body.
        """
        self._send = send
        self._method = method
        self._body = body
        self.started = False
        self.sse = False
        self.complete = False
        self.abandoned = False
        self.may_have_run = False
        """An earlier try of the request may have run."""
        self._whole: bytes | None = None
        """The client gets a different answer: the rest of the original one is dropped."""

    async def __call__(self, message: Message) -> None:
        if self.complete or self.abandoned:
            return
        if message["type"] == "http.response.start" and self.started:
            await self._follow(message)
            return
        if self._whole is not None:
            await self._add(message)
            return
        if message["type"] == "http.response.start":
            self.started = True
            self.sse = is_stream(message["headers"])
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body")
        await self._send(message)

    async def _follow(self, start: Message) -> None:
        """The answer begins once more, from another replica: the client has seen the head of an event stream."""
        if is_stream(start["headers"]):
            return
        if start["status"] == 200:
            self._whole = b""
        else:
            # Refused before it was passed on.
            await self.end_not_run()

    async def _add(self, message: Message) -> None:
        """More of a JSON answer, which becomes an event of the stream that has begun."""
        assert self._whole is not None
        self._whole += message.get("body", b"")
        if not message.get("more_body"):
            self.complete = True
            await self._send({"type": "http.response.body", "body": event(self._whole)})

    @cached_property
    def _message(self) -> dict[str, Any] | None:
        # Parsed when it is first asked for: a request that is served here and answered needs it never.
        if not self._body:
            return None
        try:
            message = json.loads(self._body)
        except (ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None

    @property
    def is_call(self) -> bool:
        """Whether the request calls a tool."""
        return self._message is not None and self._message.get("method") == "tools/call"

    @property
    def named(self) -> bool:
        """Whether another request may have made the same call: it has an idempotency key, or answers a question."""
        params = (self._message or {}).get("params")
        if not isinstance(params, dict):
            return False
        meta = params.get("_meta")
        meta = meta if isinstance(meta, dict) else {}
        return "requestState" in params or (IDEMPOTENCY_KEY in meta and meta.get(FIRST) is not True)

    @property
    def can_follow(self) -> bool:
        """Whether the answer of another replica can follow what was sent: only whole events were, or nothing."""
        return not (self.started or self.complete) or (self.sse and self._method == "POST" and not self.complete)

    @property
    def wants_answer(self) -> bool:
        """Whether the request is one that has an answer."""
        return self._message is not None and "method" in self._message and self._message.get("id") is not None

    async def end_unknown(self) -> None:
        """No answer will come: tell the client, in the form in which its answer has begun."""
        await self._end(LOST, "unknown")

    async def end_not_run(self) -> None:
        """No replica can serve the request now; this try of it certainly did not run."""
        if self.may_have_run:
            await self.end_unknown()
        elif self.named:
            # Of this request that is certain, but not of an earlier one.
            await self._end(f"{NOT_SERVED} {EARLIER}", "unknown")
        else:
            await self._end(NOT_SERVED, "not_run")

    async def _end(self, text: str, outcome: str) -> None:
        if self.complete:
            return
        self.abandoned = True
        with anyio.CancelScope(shield=True):
            if self._method != "POST" or not self.wants_answer:
                await self._end_plain()
            else:
                await self._end_with(self._said(text, outcome))

    async def _end_plain(self) -> None:
        if not self.started:
            # A notification, or the answer to a question that is no longer open.
            status = 202 if self._method == "POST" else 503
            headers = [(b"content-length", b"0"), (b"retry-after", b"1")]
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
        self.complete = True
        await self._send({"type": "http.response.body", "body": b""})

    async def _end_with(self, message: dict[str, Any]) -> None:
        packed = json.dumps(message, separators=(",", ":")).encode()
        if not self.started:
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(packed)).encode())]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        elif self.sse:
            packed = event(packed)
        else:
            # A JSON answer that was cut: its length was declared, so that the client sees it.
            raise ConnectionResetError("the answer was cut")
        self.complete = True
        await self._send({"type": "http.response.body", "body": packed})

    def _said(self, text: str, outcome: str) -> dict[str, Any]:
        assert self._message is not None
        said = {"jsonrpc": "2.0", "id": self._message["id"]}
        if self.is_call:
            return {**said, "result": {**tool_error(text, outcome, {}), "resultType": "complete"}}
        if self._message.get("method") == "tools/list":
            return {**said, "error": {"code": INTERNAL_ERROR, "message": LIST_NOT_SERVED}}
        return {**said, "error": {"code": INTERNAL_ERROR, "message": text, "data": {OUTCOME: outcome}}}


def is_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an answer with these headers is an event stream."""
    return any(name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def event(message: bytes) -> bytes:
    """A JSON-RPC message, which has no line breaks, as an event of a stream."""
    return b"event: message\r\ndata: " + message + b"\r\n\r\n"


async def unless(lost: anyio.Event, serve: Callable[[], Awaitable[None]]) -> None:
    """Serve a request until it is answered, or until `lost` is set."""
    failure: Exception | None = None
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await lost.wait()
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            await serve()
        except Exception as error:  # raised outside of the group, which would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
