"""An agent of pydantic-ai."""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel

from mcpconn import Manager
from mcpconn.integrations.pydantic_ai import ManagedToolset
from tests.integrations.scenarios import Script


# --8<-- [start:use]
async def converse(manager: Manager, script: Script) -> None:
    def model(messages: Any, info: Any) -> ModelResponse:
        heard = next((str(part.content) for part in messages[-1].parts if isinstance(part, ToolReturnPart)), None)
        call = script.turn([tool.name for tool in info.function_tools], heard)
        return ModelResponse(parts=[TextPart("done") if call is None else ToolCallPart(call[0], call[1])])

    await Agent(FunctionModel(model), toolsets=[ManagedToolset(manager)]).run("go")


# --8<-- [end:use]
