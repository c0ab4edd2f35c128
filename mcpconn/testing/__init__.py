"""Scripted MCP servers for tests: correct until they are told to misbehave.

`Script` decides what a server answers. `HttpServer` serves it on a real socket,
`ScriptTransport` inside the process (virtual clocks work), and `STDIO_SERVER` is a program
to run with `sys.executable` for the stdio transport. `faults` and `hostile` contain the faults.
"""

from mcpconn.testing.memory import MemoryTransport
from mcpconn.testing.scripted import faults, hostile, poison
from mcpconn.testing.scripted.expiries import EXPIRIES, Expiry
from mcpconn.testing.scripted.faults import Exchange, Fault
from mcpconn.testing.scripted.http import HttpServer
from mcpconn.testing.scripted.inproc import ScriptTransport
from mcpconn.testing.scripted.paths import STDIO_SERVER
from mcpconn.testing.scripted.proxy import FaultProxy
from mcpconn.testing.scripted.records import Armed, Execution, Received, SessionState
from mcpconn.testing.scripted.script import Script
from mcpconn.testing.scripted.sse import SseScript
from mcpconn.testing.scripted.steps import Close, Feed, Follow, Hang, Raw, Reply, Reset, Send, Sleep, Step
from mcpconn.testing.scripted.tools import Progress, RpcError, ScriptedTool, default_tools

__all__ = [
    "EXPIRIES",
    "STDIO_SERVER",
    "Armed",
    "Close",
    "Exchange",
    "Execution",
    "Expiry",
    "Fault",
    "FaultProxy",
    "Feed",
    "Follow",
    "Hang",
    "HttpServer",
    "MemoryTransport",
    "Progress",
    "Raw",
    "Received",
    "Reply",
    "Reset",
    "RpcError",
    "Script",
    "ScriptTransport",
    "ScriptedTool",
    "Send",
    "SessionState",
    "Sleep",
    "SseScript",
    "Step",
    "default_tools",
    "faults",
    "hostile",
    "poison",
]
