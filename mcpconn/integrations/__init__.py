"""mcpconn inside agent frameworks: one small module each, and two pieces that cover all the others.

`as_server` is an in-process MCP server that forwards to your connections, for whatever takes a server, a client or a
transport. `Session` has the methods of the SDK's `ClientSession`, for whatever takes a session. In both a failed tool
call reaches the model as a result in words, never as an exception that a framework would put into words of its own.

The modules of the frameworks import their framework, which is yours: install it yourself.
"""

from mcpconn.integrations.server import as_server
from mcpconn.integrations.session import Session

__all__ = ["Session", "as_server"]
