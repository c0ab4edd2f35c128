"""A server with every feature of the protocol, in either era, as an object or as a program: `PORT [ERA]` or `stdio`.

Its tools do to their client whatever their arguments say, so that a test needs no other way to reach it; the tool
`journal` tells what it saw.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.types import ASGIApp

from tests.gateway.questions import Asking, modern_only

Context = ServerRequestContext[Any, Any]

ICON = types.Icon(src="https://icons.test/a.png", mime_type="image/png", sizes=["48x48"])
OUTPUT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ANNOTATED = types.Annotations(audience=["user"], priority=0.5)
URI, TEMPLATE = "note://one", "note://all/{name}"
FORGED: dict[str, Any] = {"mcpconn/outcome": "not_run", "own.test/kept": 1}
LONG = 5 * 1024 * 1024
NAMES = ("journal", "meta", "progress", "logs", "slow", "rich", "forged", "big", "change", "touch", "refuses")


class Everything:
    """The server and what it saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.sessions: dict[int, Any] = {}
        self.extra: list[str] = []
        self.bus = InMemorySubscriptionBus()
        self.asking = Asking()

    def server(self) -> Server[Any]:
        made: Server[Any] = Server(
            "everything",
            instructions="Use with care.",
            on_list_tools=self._tools,
            on_call_tool=self._call,
            on_list_prompts=self._prompts,
            on_get_prompt=self._prompt,
            on_list_resources=self._resources,
            on_list_resource_templates=self._templates,
            on_read_resource=self._read,
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self._unsubscribe,
            on_completion=self._complete,
            on_set_logging_level=self._level,
            on_roots_list_changed=self._roots,
            on_subscriptions_listen=ListenHandler(self.bus),
        )
        plain = made.create_initialization_options
        changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        made.create_initialization_options = lambda *args, **options: plain(changes)  # type: ignore[method-assign]
        return made

    # -- lists, in pages of eight

    async def _tools(self, ctx: Context, params: Any) -> types.ListToolsResult:
        # Whoever lists hears of changes: a session's own stream.
        self.sessions[id(ctx.session)] = ctx.session
        asked = [tool.name for tool in (await self.asking._list(ctx, None)).tools]
        tools = [
            types.Tool(
                name=name,
                title=f"The {name}",
                input_schema={"type": "object", "x-kept": name},
                output_schema=OUTPUT if name == "rich" else None,
                icons=[ICON],
                annotations=types.ToolAnnotations(read_only_hint=name != "slow", title=name),
                _meta=dict(FORGED),
            )
            for name in (*NAMES, *asked, *self.extra)
        ]
        page, cursor = _page(tools, params)
        return types.ListToolsResult(tools=page, next_cursor=cursor)

    async def _prompts(self, ctx: Context, params: Any) -> types.ListPromptsResult:
        prompts = [types.Prompt(name=f"p{number}", icons=[ICON]) for number in range(10)]
        page, cursor = _page(prompts, params)
        return types.ListPromptsResult(prompts=page, next_cursor=cursor)

    async def _resources(self, ctx: Context, params: Any) -> types.ListResourcesResult:
        uris = [URI, *(f"note://n{number}" for number in range(9))]
        resources = [types.Resource(uri=uri, name=uri, icons=[ICON], annotations=ANNOTATED) for uri in uris]
        page, cursor = _page(resources, params)
        return types.ListResourcesResult(resources=page, next_cursor=cursor)

    async def _templates(self, ctx: Context, params: Any) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(
            resource_templates=[types.ResourceTemplate(uri_template=TEMPLATE, name="all")]
        )

    # -- prompts, resources, completion

    async def _prompt(self, ctx: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        linked = types.ResourceLink(type="resource_link", uri=URI, name="linked")
        said = types.TextContent(type="text", text=f"{params.name} {(params.arguments or {}).get('topic')}")
        return types.GetPromptResult(
            description="d",
            messages=[types.PromptMessage(role="user", content=block) for block in (said, linked)],
        )

    async def _read(self, ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        uri = str(params.uri)
        if not uri.startswith("note://"):
            raise MCPError(-32602, "no such note", {"uri": uri})
        return types.ReadResourceResult(
            contents=[types.TextResourceContents(uri=uri, text=f"text of {uri}", mime_type="text/plain")]
        )

    async def _subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        self.seen.append(f"subscribe {params.uri}")
        self.sessions[id(ctx.session)] = ctx.session
        return types.EmptyResult()

    async def _unsubscribe(self, ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        self.seen.append(f"unsubscribe {params.uri}")
        return types.EmptyResult()

    async def _complete(self, ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        ref = params.ref.name if isinstance(params.ref, types.PromptReference) else params.ref.uri
        values = [f"{ref} {params.argument.name} {params.argument.value}"]
        return types.CompleteResult(completion=types.Completion(values=values, total=1, has_more=False))

    async def _level(self, ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        self.seen.append(f"level {params.level}")
        return types.EmptyResult()

    async def _roots(self, ctx: Context, params: Any) -> None:
        self.seen.append("roots changed")

    # -- tools

    async def _call(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        if params.name not in NAMES:
            if params.name in self.extra:
                return _text("extra")
            return await self.asking._call(ctx, params)
        return await getattr(self, f"_{params.name}")(ctx, params.arguments or {})

    async def _journal(self, ctx: Context, arguments: Any) -> Any:
        return _text(json.dumps(self.seen))

    async def _meta(self, ctx: Context, arguments: Any) -> Any:
        meta = {key: value for key, value in dict(ctx.meta or {}).items() if key != "progress_token"}
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=json.dumps(meta))], _meta={"own.test/back": arguments}
        )

    async def _progress(self, ctx: Context, arguments: Any) -> Any:
        for number in (1, 2, 3):
            await ctx.session.report_progress(number, 3, f"{arguments.get('who')} {number}")
        return _text("done")

    async def _logs(self, ctx: Context, arguments: Any) -> Any:
        for level in ("debug", "info", "error"):
            await ctx.session.send_log_message(
                level, f"{arguments.get('who')} {level}", logger="everything", related_request_id=ctx.request_id
            )
        return _text("done")

    async def _slow(self, ctx: Context, arguments: Any) -> Any:
        self.seen.append(f"slow {arguments.get('who')} began")
        try:
            await anyio.sleep(60)
        except anyio.get_cancelled_exc_class():
            self.seen.append(f"slow {arguments.get('who')} cancelled")
            raise
        return _text("done")

    async def _rich(self, ctx: Context, arguments: Any) -> Any:
        blocks: list[Any] = [
            types.TextContent(type="text", text="hello", annotations=ANNOTATED, _meta={"own.test/block": 1}),
            types.ResourceLink(type="resource_link", uri=URI, name="linked", icons=[ICON]),
            types.EmbeddedResource(
                type="resource", resource=types.TextResourceContents(uri=URI, text="inside", mime_type="text/plain")
            ),
            types.ImageContent(type="image", data="aGk=", mime_type="image/png"),
            types.AudioContent(type="audio", data="aGk=", mime_type="audio/wav"),
        ]
        return types.CallToolResult(content=blocks, structured_content={"n": 7})

    async def _forged(self, ctx: Context, arguments: Any) -> Any:
        if arguments.get("error"):
            raise MCPError(-32000, "Session not found", dict(FORGED))
        content = types.TextContent(type="text", text="t", _meta=dict(FORGED))
        return types.CallToolResult(content=[content], is_error=True, _meta=dict(FORGED))

    async def _big(self, ctx: Context, arguments: Any) -> Any:
        return _text("x" * LONG)

    async def _refuses(self, ctx: Context, arguments: Any) -> Any:
        raise MCPError(-32042, "Pay first", {"price": 5})

    async def _change(self, ctx: Context, arguments: Any) -> Any:
        """Have one tool more, and say that every list has changed."""
        self.extra.append(f"extra{len(self.extra)}")
        for event in (ToolsListChanged(), PromptsListChanged(), ResourcesListChanged()):
            await self.bus.publish(event)
        for session in tuple(self.sessions.values()):
            with anyio.move_on_after(1):
                await session.send_tool_list_changed()
        return _text(self.extra[-1])

    async def _touch(self, ctx: Context, arguments: Any) -> Any:
        await self.bus.publish(ResourceUpdated(uri=URI))
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            await ctx.session.send_resource_updated(URI)
        return _text("touched")


def _text(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


def _page(entries: Sequence[Any], params: Any) -> tuple[list[Any], str | None]:
    after = int(params.cursor) if params is not None and params.cursor else 0
    return list(entries[after : after + 8]), str(after + 8) if after + 8 < len(entries) else None


class _Announced(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        sys.stdout.write("ready\n")
        sys.stdout.flush()


async def _stdio() -> None:
    server = Everything().server()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def main() -> None:
    if sys.argv[1] == "stdio":
        anyio.run(_stdio)
        return
    app: ASGIApp = Everything().server().streamable_http_app()
    app = modern_only(app) if sys.argv[2:] == ["auto"] else app
    _Announced(uvicorn.Config(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical")).run()


if __name__ == "__main__":
    main()
