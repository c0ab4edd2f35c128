"""An agent of openai-agents."""

from __future__ import annotations

import json
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from mcpconn import Manager
from mcpconn.integrations.openai_agents import ConnectedServer
from tests.integrations.scenarios import Script


class Scripted(Model):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        said, tools = kwargs.get("input", args[1:2] and args[1]), kwargs.get("tools", args[3:4] and args[3])
        heard = None
        if isinstance(said, list) and said[-1].get("type") == "function_call_output":
            heard = str(said[-1]["output"])
        call = self.script.turn([tool.name for tool in tools], heard)
        if call is None:
            text = ResponseOutputText(annotations=[], text="done", type="output_text")
            item: Any = ResponseOutputMessage(
                id="m", content=[text], role="assistant", status="completed", type="message"
            )
        else:
            item = ResponseFunctionToolCall(
                arguments=json.dumps(call[1]), call_id=f"c{self.script.turns}", name=call[0], type="function_call"
            )
        return ModelResponse(output=[item], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


# --8<-- [start:use]
async def converse(manager: Manager, script: Script) -> None:
    set_tracing_disabled(True)
    agent = Agent(name="clerk", model=Scripted(script), mcp_servers=[ConnectedServer(manager["shop"])])
    await Runner.run(agent, "go")


# --8<-- [end:use]
