"""An agent of haystack."""

from __future__ import annotations

from typing import Any

from haystack import component
from haystack.components.agents import Agent
from haystack.dataclasses import ChatMessage, ToolCall

from mcpconn import Manager
from mcpconn.integrations.haystack import tools
from tests.integrations.scenarios import Script


@component
class Scripted:
    def __init__(self, script: Script) -> None:
        self.script = script

    @component.output_types(replies=list[ChatMessage])
    def run(self, messages: list[ChatMessage], tools: Any = None) -> dict[str, Any]:
        result = messages[-1].tool_call_result
        call = self.script.turn([tool.name for tool in tools or ()], None if result is None else str(result.result))
        if call is None:
            return {"replies": [ChatMessage.from_assistant("done")]}
        return {"replies": [ChatMessage.from_assistant(tool_calls=[ToolCall(call[0], call[1])])]}

    @component.output_types(replies=list[ChatMessage])
    async def run_async(self, messages: list[ChatMessage], tools: Any = None) -> dict[str, Any]:
        return self.run(messages, tools)  # type: ignore[no-any-return]


# --8<-- [start:use]
async def converse(manager: Manager, script: Script) -> None:
    agent = Agent(chat_generator=Scripted(script), tools=await tools(manager))
    await agent.run_async(messages=[ChatMessage.from_user("go")])


# --8<-- [end:use]
