"""The options of the integrations are arguments of the frameworks, as they are installed in `.integrations`."""

from __future__ import annotations

import subprocess

import pytest

from tests.integrations.frameworks import FRAMEWORKS, ROOT

# What is typed, and the framework's function that takes it.
OPTIONS = {
    "agno": "from mcpconn.integrations.agno import ToolkitOptions as Options\n"
    "from agno.tools import Toolkit\n"
    "from agno.tools.mcp import MCPTools\n"
    "takes = [MCPTools, Toolkit]",
    "agent_framework": "from mcpconn.integrations.agent_framework import ToolOptions as Options\n"
    "from agent_framework import FunctionTool\n"
    "takes = [FunctionTool]",
    "openai_agents": "from mcpconn.integrations.openai_agents import ServerOptions as Options\n"
    "from agents.mcp import MCPServer\n"
    "takes = [MCPServer]",
}
PROGRAM = """
import inspect
{imports}
known = set().union(*(inspect.signature(each.__init__).parameters for each in takes))
print(len(Options.__annotations__), sorted(set(Options.__annotations__) - known))
"""


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_is_an_argument_of_the_framework(name: str) -> None:
    (framework,) = (each for each in FRAMEWORKS if each.name == name)
    if not framework.ready:
        pytest.skip(f"{framework.package} has no environment in .integrations/: make test-integrations makes it")
    command = [str(framework.python), "-c", PROGRAM.format(imports=OPTIONS[name])]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    count, unknown = said.split(maxsplit=1)
    assert int(count) > 5
    assert unknown.strip() == "[]"
