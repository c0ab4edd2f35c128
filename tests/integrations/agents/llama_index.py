"""An agent of llama-index."""

from __future__ import annotations

from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata, MessageRole
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from mcpconn import Manager
from mcpconn.integrations.llama_index import function_tools
from tests.integrations.scenarios import Script


class Scripted(FunctionCallingLLM):
    script: Any = None

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_function_calling_model=True, model_name="scripted")

    def _prepare_chat_with_tools(
        self, tools: Any, user_msg: Any = None, chat_history: Any = None, **kwargs: Any
    ) -> Any:
        return {"messages": chat_history, "tools": tools}

    async def achat(self, messages: Any, tools: Any = (), **kwargs: Any) -> ChatResponse:
        heard = str(messages[-1].content) if messages[-1].role == MessageRole.TOOL else None
        call = self.script.turn([tool.metadata.name for tool in tools], heard)
        message = ChatMessage(role=MessageRole.ASSISTANT, content="done" if call is None else "")
        return ChatResponse(message=message, raw={"call": call})

    def get_tool_calls_from_response(self, response: Any, error_on_no_tool_call: bool = True, **kwargs: Any) -> Any:
        call = response.raw["call"]
        if call is None:
            return []
        return [ToolSelection(tool_id=f"c{self.script.turns}", tool_name=call[0], tool_kwargs=call[1])]

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    chat = complete = acomplete = stream_chat = stream_complete = astream_chat = astream_complete = _refuse


# --8<-- [start:use]
async def converse(manager: Manager, script: Script) -> None:
    tools = await function_tools(manager)
    agent = FunctionAgent(tools=tools, llm=Scripted(script=script), streaming=False)
    await agent.run("go")


# --8<-- [end:use]
