"""An agent of agno."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from agno.agent import Agent
from agno.models.base import Model
from agno.models.response import ModelResponse

from mcpconn import Manager
from mcpconn.integrations.agno import toolkit
from tests.integrations.scenarios import Script


class Scripted(Model):
    def __init__(self, script: Script) -> None:
        super().__init__(id="scripted", name="scripted", provider="none")
        self.script = script

    async def ainvoke(self, messages: Any, *args: Any, tools: Any = None, **kwargs: Any) -> ModelResponse:
        heard = str(messages[-1].content) if messages[-1].role == "tool" else None
        call = self.script.turn([tool["function"]["name"] for tool in tools or ()], heard)
        if call is None:
            return ModelResponse(role="assistant", content="done")
        function = {"name": call[0], "arguments": json.dumps(call[1])}
        calls = [{"id": f"c{self.script.turns}", "type": "function", "function": function}]
        return ModelResponse(role="assistant", tool_calls=calls)

    def invoke(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise NotImplementedError

    def invoke_stream(self, *args: Any, **kwargs: Any) -> Iterator[ModelResponse]:
        raise NotImplementedError

    def ainvoke_stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ModelResponse]:
        raise NotImplementedError

    def _parse_provider_response(self, response: Any, **kwargs: Any) -> ModelResponse:
        return response

    def _parse_provider_response_delta(self, response: Any) -> ModelResponse:
        return response


# --8<-- [start:use]
async def converse(manager: Manager, script: Script) -> None:
    async with toolkit(manager["shop"]) as tools:
        await Agent(model=Scripted(script), tools=[tools], telemetry=False).arun("go")


# --8<-- [end:use]
