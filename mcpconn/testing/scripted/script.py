"""An MCP server as a function from requests to replies. Standard library only, no I/O."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from mcpconn.testing.scripted.catalog import LEGACY_VERSIONS, Catalog
from mcpconn.testing.scripted.expiries import LISTED, Expiry, expired
from mcpconn.testing.scripted.faults import SSE_HEADERS, Exchange, Fault
from mcpconn.testing.scripted.records import Armed, Execution, Received, SessionState
from mcpconn.testing.scripted.refusals import (
    legacy_refusal,
    modern_refusal,
    not_allowed,
    unsupported_version,
)
from mcpconn.testing.scripted.service import Service
from mcpconn.testing.scripted.steps import (
    Message,
    Reply,
    Send,
    Step,
    body_reply,
    error_message,
    error_reply,
    sse_event,
)
from mcpconn.testing.scripted.streams import Item, Recording, Streams, event_steps, json_steps, session_stamp
from mcpconn.testing.scripted.tools import RpcError, ScriptedTool, default_tools

# Statuses the 2026-07-28 protocol assigns to error codes; any other error is sent with 200.
_MODERN_STATUS = {-32600: 400, -32602: 400, -32601: 404}


class Script:
    """A scripted MCP server: it behaves correctly until it is told to misbehave."""

    def __init__(
        self,
        *,
        era: Literal["legacy", "modern"] = "legacy",
        answer: Literal["json", "sse"] = "json",
        sessions: bool = True,
        event_ids: bool = False,
        retry_ms: int | None = None,
        page_size: int | None = None,
        tools: Iterable[ScriptedTool] | None = None,
        version: str = LEGACY_VERSIONS[-1],
        expiry: Expiry = "404",
        get_stream: Literal["open", "405", "closing"] = "open",
        refuse_initialize: Literal[-32022, -32601] = -32022,
    ) -> None:
        self.era = era
        self.answer = answer
        self.has_sessions = sessions and era == "legacy"
        self.event_ids = event_ids
        self.retry_ms = retry_ms
        self.expiry: Expiry = expiry
        self.get_stream = get_stream
        self.refuse_initialize = refuse_initialize
        offered = default_tools() if tools is None else tuple(tools)
        self.service = Service(Catalog(offered, modern=era == "modern", page_size=page_size), version)
        self.requests: list[Received] = []
        self.states: dict[str, SessionState] = {}
        self.on_request: Callable[[Received], None] | None = None
        """Called whenever a request arrives, before any of its answer is sent."""
        self._armed: list[Armed] = []
        # The state of requests without a session.
        self._sessionless = SessionState()

    @property
    def tools(self) -> dict[str, ScriptedTool]:
        """The tools by name; changes take effect at once."""
        return self.service.catalog.tools

    @property
    def executions(self) -> Counter[str]:
        """How often each tool has run."""
        return self.service.executions

    @property
    def calls(self) -> list[Execution]:
        """Every run of a tool, in order."""
        return self.service.calls

    @property
    def answered(self) -> list[Execution]:
        """The runs whose whole answer the client received, without a fault."""
        return self.service.answered

    @property
    def spoiled(self) -> list[Execution]:
        """The runs for which something that is not an answer to their request was sent completely."""
        return self.service.spoiled

    @property
    def on_execute(self) -> Callable[[Execution], None] | None:
        """Called whenever a tool starts; setting it replaces the former callback."""
        return self.service.on_execute

    @on_execute.setter
    def on_execute(self, callback: Callable[[Execution], None] | None) -> None:
        self.service.on_execute = callback

    @property
    def streams(self) -> Streams:
        """The standing event streams."""
        return self.service.streams

    @property
    def sessions(self) -> set[str]:
        """The ids of the sessions the server knows."""
        return set(self.states)

    def forget_sessions(self) -> None:
        """Lose every session, as a restarted server does; `expiry` says how their requests are refused."""
        self.states.clear()

    def count(self, method: str) -> int:
        """How many requests named this JSON-RPC method (or HTTP method, for requests without a body)."""
        return sum(method == (seen.rpc_method or seen.http_method) for seen in self.requests)

    def inject(
        self,
        fault: Fault,
        *,
        times: int | None = 1,
        method: str | None = "tools/call",
        tool: str | None = None,
    ) -> Armed:
        """Arm a fault for the next matching requests.

        Args:
            fault: What goes wrong.
            times: For how many requests; None means until `clear`.
            method: A JSON-RPC method, or "GET" or "DELETE"; None means any JSON-RPC request.
            tool: Only calls of this tool.

        Faults armed earlier are used first.
        """
        armed = Armed(fault, method, tool, times)
        self._armed.append(armed)
        return armed

    @property
    def troubled(self) -> bool:
        """Whether a fault is armed that some request will still meet."""
        return any(armed.left != 0 for armed in self._armed)

    def clear(self) -> None:
        """Disarm every fault."""
        self._armed.clear()

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification on every standing event stream that may carry it."""
        self.streams.notify(method, dict(params or {}))

    def decide(self, http_method: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one HTTP request. Header names are matched without regard to case."""
        lowered = {name.lower(): value for name, value in headers.items()}
        message = _parsed(body) if http_method == "POST" else {}
        if message is None:
            reply = error_reply(400, None, -32700, "Parse error: not a JSON-RPC message")
        else:
            reply = self._reply(http_method, message, lowered)
        method = (message or {}).get("method")
        self._note(Received(http_method, method, lowered.get("mcp-session-id"), reply.status))
        return reply

    def exchange(self, message: Message) -> Iterator[Item]:
        """Answer one message outside HTTP, without sessions: the messages to send back, in order."""
        self._note(Received("STDIO", message.get("method"), None, None))
        if "id" not in message or "method" not in message:
            return iter(())
        if self.era == "modern" and message["method"] == "initialize":
            return iter([error_message(message["id"], -32601, "Method not found: initialize")])
        try:
            return self.service.items(message, self._sessionless)
        except RpcError as exc:
            return iter([error_message(message["id"], exc.code, exc.message, exc.data)])

    def _note(self, received: Received) -> None:
        self.requests.append(received)
        if self.on_request is not None:
            self.on_request(received)

    def _reply(self, http_method: str, message: Message, headers: Mapping[str, str]) -> Reply:
        armed = next((one for one in self._armed if one.matches(http_method, message)), None)
        if armed is not None and not armed.fault.after:
            return armed.take(Exchange(message, Reply(None)))
        refusal = self._refusal(http_method, message, headers)
        if refusal is not None:
            return refusal
        recording = self._recording(message, headers)
        opening = recording.events[0] if recording is not None else b""
        answer = self._answer(http_method, message, headers, recording)
        if armed is not None:
            answer = armed.take(Exchange(message, answer, opening))
        if message.get("method") == "tools/call" and (armed is None or armed.fault.spoils):
            noted = self.answered if armed is None else self.spoiled
            return replace(answer, steps=self._to_the_end(answer.steps, message.get("params") or {}, noted))
        return answer

    def _to_the_end(self, steps: Iterable[Step], params: Mapping[str, Any], noted: list[Execution]) -> Iterator[Step]:
        """The same steps; after the last one, the tool's run is recorded as answered."""
        yield from steps
        arguments = params.get("arguments")
        ran = next((run for run in reversed(self.calls) if run.arguments is arguments), None)
        if ran is not None and all(ran is not each for each in self.spoiled):
            noted.append(ran)

    def _recording(self, message: Message, headers: Mapping[str, str]) -> Recording | None:
        """The recording of this answer, if it is an event stream that can be resumed."""
        streamed = self.answer == "sse" and self.era == "legacy" and "id" in message
        if not streamed or not self.event_ids:
            return None
        asked = (message.get("params") or {}).get("protocolVersion") or headers.get("mcp-protocol-version")
        # Clients of earlier versions cannot read the empty event that opens such a stream.
        return self.streams.record(self.retry_ms) if asked == LEGACY_VERSIONS[-1] else None

    def _refusal(self, http_method: str, message: Message, headers: Mapping[str, str]) -> Reply | None:
        if self.era == "modern":
            if http_method != "POST":
                return not_allowed("POST")
            if message.get("method") == "initialize":
                return self._no_handshake(message)
            return modern_refusal(message, headers) if "id" in message and "method" in message else None
        if http_method not in ("GET", "POST", "DELETE"):
            return not_allowed("GET, POST, DELETE")
        if http_method == "GET" and self.get_stream == "405":
            return not_allowed("POST, DELETE")
        if message.get("method") == "initialize":
            return None
        if self.has_sessions:
            session = headers.get("mcp-session-id")
            if session is None:
                return error_reply(400, None, -32600, "Bad Request: Missing session ID")
            if session not in self.states:
                if http_method != "POST" and self.expiry in LISTED:
                    return expired("404", None)
                return expired(self.expiry, message.get("id"))
        elif http_method == "DELETE":
            return not_allowed("GET, POST")
        return legacy_refusal(headers)

    def _no_handshake(self, message: Message) -> Reply:
        request_id = message.get("id")
        if self.refuse_initialize == -32601:
            return error_reply(404, request_id, -32601, "Method not found: initialize")
        return unsupported_version(request_id, (message.get("params") or {}).get("protocolVersion"))

    def _answer(
        self, http_method: str, message: Message, headers: Mapping[str, str], recording: Recording | None
    ) -> Reply:
        session = headers.get("mcp-session-id", "")
        state = self.states.get(session, self._sessionless)
        if http_method == "DELETE":
            del self.states[session]
            return body_reply(200, b"", None)
        if http_method == "GET":
            return Reply(200, SSE_HEADERS, self._standing(headers.get("last-event-id"), state))
        if "id" not in message or "method" not in message:
            return body_reply(202, b"", None)
        extra: tuple[tuple[str, str], ...] = ()
        if message["method"] == "initialize" and self.has_sessions:
            session = f"session-{len(self.states) + 1}-{secrets.token_hex(6)}"
            self.states[session] = SessionState()
            extra = (("mcp-session-id", session),)
        try:
            items = self.service.items(message, state)
        except RpcError as exc:
            status = _MODERN_STATUS.get(exc.code, 200) if self.era == "modern" else 200
            return error_reply(status, message["id"], exc.code, exc.message, exc.data, dict(extra))
        if self.answer == "sse" or message["method"] == "subscriptions/listen":
            return Reply(200, SSE_HEADERS + extra, event_steps(items, recording))
        return Reply(200, (("content-type", "application/json"), *extra), json_steps(items))

    def _standing(self, last_event_id: str | None, state: SessionState) -> Iterator[Step]:
        """The body of a GET: a replayed answer or the standing event stream."""
        if last_event_id is not None:
            return self.streams.replay(last_event_id)
        opening = sse_event(b"", retry_ms=self.retry_ms) if self.retry_ms is not None else b""
        return self._stream(opening, state)

    def _stream(self, opening: bytes, state: SessionState) -> Iterator[Step]:
        yield Send(opening)
        if self.get_stream != "closing":
            yield from self.streams.follow(session_stamp(state.subscriptions))


def _parsed(body: bytes) -> Message | None:
    """The JSON-RPC message in a body, or None if there is none; batches are not supported."""
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(decoded, dict) or not isinstance(decoded.get("params", {}), dict):
        return None
    return decoded
