"""An agent of langchain, which runs on langgraph."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from mcpconn import Manager
from mcpconn.integrations.langchain import tools
from tests.integrations.scenarios import Script


class Scripted(BaseChatModel):
    script: Any
    offered: Any = ()

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return Scripted(script=self.script, offered=[tool.name for tool in tools])

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        heard = str(messages[-1].content) if isinstance(messages[-1], ToolMessage) else None
        call = self.script.turn(list(self.offered), heard)
        calls = [] if call is None else [{"name": call[0], "args": call[1], "id": f"c{self.script.turns}"}]
        return ChatResult(
            generations=[ChatGeneration(message=AIMessage("done" if call is None else "", tool_calls=calls))]
        )


# --8<-- [start:use]
async def converse(manager: Manager, script: Script) -> None:
    agent = create_agent(Scripted(script=script), tools=await tools(manager))
    await agent.ainvoke({"messages": [("user", "go")]})


# --8<-- [end:use]
