"""An agent of smolagents, which is synchronous."""

from __future__ import annotations

from typing import Any

from smolagents import ChatMessage, MessageRole, Model, ToolCallingAgent
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction

from mcpconn import SyncManager
from mcpconn.integrations.smolagents import tools
from tests.integrations.scenarios import Script

SYNCHRONOUS = True


class Scripted(Model):
    def __init__(self, script: Script) -> None:
        super().__init__(model_id="scripted")
        self.script = script

    def generate(self, messages: Any, tools_to_call_from: Any = None, **kwargs: Any) -> ChatMessage:
        heard = str(messages[-1].content)
        call = self.script.turn([tool.name for tool in tools_to_call_from or ()], heard)
        name, arguments = call or ("final_answer", {"answer": "done"})
        function = ChatMessageToolCallFunction(name=name, arguments=arguments)
        tool_call = ChatMessageToolCall(id=f"c{self.script.turns}", type="function", function=function)
        return ChatMessage(role=MessageRole.ASSISTANT, content="", tool_calls=[tool_call])


# --8<-- [start:use]
def converse(manager: SyncManager, script: Script) -> None:
    ToolCallingAgent(tools=tools(manager), model=Scripted(script), verbosity_level=0).run("go")


# --8<-- [end:use]
