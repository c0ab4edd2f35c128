"""The runtime: the task that owns a connection's life, the gate before it, and the path of a call. anyio only."""

from mcpconn.runtime.calls import Calls
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.deadlines import Deadlines
from mcpconn.runtime.dials import Dials
from mcpconn.runtime.gate import Gate
from mcpconn.runtime.journal import Change, Journal
from mcpconn.runtime.supervisor import Supervisor

__all__ = ["Calls", "Change", "Clock", "Deadlines", "Dials", "Gate", "Journal", "Supervisor"]
