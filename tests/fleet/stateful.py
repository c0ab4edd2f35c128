"""A server that keeps state for each session, and a journal of everything that it ran, over HTTP and stdio.

As a process: `python -m tests.fleet.stateful JOURNAL [PORT]`; without a port it speaks on stdin and stdout.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.shared.message import ServerMessageMetadata

Context = ServerRequestContext[Any, Any]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"id": {"type": "string"}, "seconds": {"type": "number"}}}
COLOUR: dict[str, Any] = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
URI = "note://session"


class Stateful:
    """Counts the calls of each session."""

    def __init__(self, journal: Path | None = None) -> None:
        self.ran: Counter[str] = Counter()
        """By the id in a call's arguments."""
        self.sessions: defaultdict[str, list[str]] = defaultdict(list)
        """The ids that ran, by session, in order."""
        self.cancelled = anyio.Event()
        self.subscribed: dict[str, Any] = {}
        self._journal = journal
        self._names: dict[int, tuple[str, Any]] = {}

    def server(self) -> Server[Any]:
        made: Server[Any] = Server(
            "stateful",
            on_list_tools=self._tools,
            on_call_tool=self._call,
            on_list_resources=self._resources,
            on_read_resource=self._read,
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self._unsubscribe,
        )
        return made

    def _session(self, ctx: Context) -> str:
        """A name for the session: its id over HTTP, the process over stdio."""
        if ctx.request is not None and (sent := ctx.request.headers.get("mcp-session-id")):
            return str(sent)
        return f"pid {os.getpid()}"

    async def _tools(self, ctx: Context, params: Any) -> types.ListToolsResult:
        names = ("remember", "look", "ask", "steps")
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=name,
                    input_schema=SCHEMA,
                    annotations=types.ToolAnnotations(read_only_hint=True) if name == "look" else None,
                )
                for name in names
            ]
        )

    async def _resources(self, ctx: Context, params: Any) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=[types.Resource(uri=URI, name="note")])

    async def _read(self, ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        text = ",".join(self.sessions[self._session(ctx)])
        return types.ReadResourceResult(contents=[types.TextResourceContents(uri=URI, text=text)])

    async def _subscribe(self, ctx: Context, params: Any) -> types.EmptyResult:
        self.subscribed[self._session(ctx)] = ctx.session
        return types.EmptyResult()

    async def _unsubscribe(self, ctx: Context, params: Any) -> types.EmptyResult:
        self.subscribed.pop(self._session(ctx), None)
        return types.EmptyResult()

    async def updated(self) -> None:
        """Tell all sessions that watch it that the resource has changed."""
        for session in tuple(self.subscribed.values()):
            await session.send_resource_updated(URI)

    async def _call(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        arguments = params.arguments or {}
        session, call = self._session(ctx), str(arguments.get("id", ""))
        if params.name == "look":
            return _text({"session": session, "ran": self.sessions[session]})
        self._note(session, call)
        if params.name == "ask":
            question = types.ElicitRequest(
                params=types.ElicitRequestFormParams(message="Colour?", requested_schema=COLOUR)
            )
            related = ServerMessageMetadata(related_request_id=ctx.request_id)
            answer = await ctx.session.send_request(question, types.ElicitResult, metadata=related)
            return _text(
                {"session": session, "ran": self.sessions[session], "colour": (answer.content or {})["colour"]}
            )
        if params.name == "steps":
            for step in range(3):
                await ctx.session.report_progress(float(step), 3.0, None)
        try:
            await anyio.sleep(float(arguments.get("seconds", 0)))
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        return _text({"session": session, "ran": self.sessions[session]})

    def _note(self, session: str, call: str) -> None:
        self.ran[call] += 1
        self.sessions[session].append(call)
        if self._journal is not None:
            # One write of a line is atomic, also for several processes.
            with open(self._journal, "a", encoding="utf-8") as file:
                file.write(json.dumps([session, call]) + "\n")


def _text(content: Any) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=json.dumps(content))])


async def serve_stdio(stateful: Stateful) -> None:
    from mcp.server.stdio import stdio_server

    server = stateful.server()
    options = server.create_initialization_options(NotificationOptions())
    async with stdio_server() as (read, write):
        await server.run(read, write, options)


async def serve_http(stateful: Stateful, port: int) -> None:
    import uvicorn

    server = stateful.server()
    app = server.streamable_http_app()
    accepting = socket.create_server(("127.0.0.1", port))
    async with server.session_manager.run():
        await uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off")).serve([accepting])


def main() -> None:
    stateful = Stateful(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        anyio.run(serve_http, stateful, int(sys.argv[2]))
    else:
        anyio.run(serve_stdio, stateful)


if __name__ == "__main__":
    main()
