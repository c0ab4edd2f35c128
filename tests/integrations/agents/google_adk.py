"""An agent of google-adk."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai import types

from mcpconn import Manager
from mcpconn.integrations.google_adk import ManagedToolset
from tests.integrations.scenarios import Script


class Scripted(BaseLlm):
    script: Any = None

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> AsyncGenerator[LlmResponse, None]:
        answer = llm_request.contents[-1].parts[-1].function_response
        heard = None if answer is None else str(answer.response)
        call = self.script.turn(list(llm_request.tools_dict), heard)
        part = types.Part(text="done") if call is None else types.Part.from_function_call(name=call[0], args=call[1])
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


# --8<-- [start:use]
async def converse(manager: Manager, script: Script) -> None:
    agent = LlmAgent(name="clerk", model=Scripted(model="scripted", script=script), tools=[ManagedToolset(manager)])
    async with InMemoryRunner(agent=agent, app_name="shop") as runner:
        session = await runner.session_service.create_session(app_name="shop", user_id="u")
        message = types.Content(role="user", parts=[types.Part(text="go")])
        async for _ in runner.run_async(user_id="u", session_id=session.id, new_message=message):
            pass


# --8<-- [end:use]
