"""An agent of agent-framework."""

from __future__ import annotations

from typing import Any

from agent_framework import Agent, BaseChatClient, ChatResponse, Content, FunctionInvocationLayer, Message

from mcpconn import Manager
from mcpconn.integrations.agent_framework import function_tools
from tests.integrations.scenarios import Script


class Scripted(FunctionInvocationLayer, BaseChatClient):
    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script

    async def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **kwargs: Any) -> ChatResponse:
        last = messages[-1].contents[-1]
        heard = str(last.result) if last.type == "function_result" else None
        call = self.script.turn([tool.name for tool in options.get("tools") or ()], heard)
        if call is None:
            content = Content.from_text("done")
        else:
            content = Content.from_function_call(call_id=f"c{self.script.turns}", name=call[0], arguments=call[1])
        return ChatResponse(messages=[Message(role="assistant", contents=[content])])


# --8<-- [start:use]
async def converse(manager: Manager, script: Script) -> None:
    await Agent(client=Scripted(script), tools=await function_tools(manager)).run("go")


# --8<-- [end:use]
