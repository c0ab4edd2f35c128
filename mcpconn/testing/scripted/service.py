"""The JSON-RPC side of a scripted server: requests in, messages out. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mcpconn.testing.scripted.catalog import Catalog
from mcpconn.testing.scripted.records import Execution, SessionState
from mcpconn.testing.scripted.steps import Message, Sleep, Verbatim, error_message, result_message
from mcpconn.testing.scripted.streams import SUBSCRIPTION_KEY, Item, Streams, honoured, listen_stamp
from mcpconn.testing.scripted.tools import Progress, RpcError, ScriptedTool, Spoiled, tool_items


class Service:
    """Answers requests and counts what it executes.

    Tools count as executed when they start, since a side effect cannot be taken back by a
    client that leaves while the tool is still busy.
    """

    def __init__(self, catalog: Catalog, newest_version: str) -> None:
        self.catalog = catalog
        self.newest_version = newest_version
        self.streams = Streams()
        self.executions: Counter[str] = Counter()
        self.calls: list[Execution] = []
        self.answered: list[Execution] = []
        self.spoiled: list[Execution] = []
        self.on_execute: Callable[[Execution], None] | None = None

    def items(self, message: Message, state: SessionState) -> Iterator[Item]:
        """The server's messages for a request, lazily: a tool starts once its first item is asked for.

        Raises:
            RpcError: The request is refused before anything runs.
        """
        request_id, method, params = message["id"], message["method"], message.get("params") or {}
        if method == "tools/call":
            tool = self.catalog.tools.get(params.get("name", ""))
            if tool is None:
                raise RpcError(-32602, f"Unknown tool: {params.get('name')}")
            return self._call(tool, request_id, params)
        if self.catalog.modern:
            if method == "subscriptions/listen":
                return self._listen(request_id, params)
            result = self.catalog.answer(method, params)
        else:
            result = self._legacy_result(method, params, state)
        return iter([result_message(request_id, result)])

    def _legacy_result(self, method: str, params: Mapping[str, Any], state: SessionState) -> Message:
        """The result of a request that may change the session, and of every other legacy request."""
        if method == "initialize":
            return self.catalog.initialized(str(params.get("protocolVersion")), self.newest_version)
        if method == "resources/subscribe":
            state.subscriptions.add(str(params.get("uri")))
        elif method == "resources/unsubscribe":
            state.subscriptions.discard(str(params.get("uri")))
        elif method == "logging/setLevel":
            state.log_level = str(params.get("level"))
        elif method != "ping":
            return self.catalog.answer(method, params)
        return {}

    def _call(self, tool: ScriptedTool, request_id: object, params: Mapping[str, Any]) -> Iterator[Item]:
        arguments = params.get("arguments") or {}
        execution = Execution(tool.name, arguments, request_id)
        self.executions[tool.name] += 1
        self.calls.append(execution)
        if self.on_execute is not None:
            self.on_execute(execution)
        token = (params.get("_meta") or {}).get("progressToken")
        running = tool_items(tool, arguments)
        while True:
            try:
                item = next(running)
            except StopIteration as stop:
                result: Message = stop.value
                break
            except RpcError as exc:
                yield error_message(request_id, exc.code, exc.message, exc.data)
                return
            except Spoiled as exc:
                self.spoiled.append(execution)
                yield Verbatim(exc.answer(request_id))
                return
            if isinstance(item, Sleep):
                yield item
            elif token is not None:
                yield _progress_message(token, item)
        if self.catalog.modern:
            result.setdefault("resultType", "complete")
        yield result_message(request_id, result)

    def _listen(self, request_id: object, params: Mapping[str, Any]) -> Iterator[Item]:
        accepted, meta = honoured(params), {SUBSCRIPTION_KEY: request_id}
        yield {
            "jsonrpc": "2.0",
            "method": "notifications/subscriptions/acknowledged",
            "params": {"notifications": accepted, "_meta": meta},
        }
        for step in self.streams.follow(listen_stamp(request_id, accepted)):
            yield step
            if step.feed.graceful:
                yield result_message(request_id, {"resultType": "complete", "_meta": meta})


def _progress_message(token: object, item: Progress) -> Message:
    """The notification for one progress report."""
    params: Message = {"progressToken": token, "progress": item.progress}
    if item.total is not None:
        params["total"] = item.total
    if item.message is not None:
        params["message"] = item.message
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
