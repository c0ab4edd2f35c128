"""mcpconn in agent frameworks: one small module for each, and two classes for all others.

`as_server` is an in-process MCP server that forwards to your connections, for frameworks that accept a server, a client
or a transport. `Session` has the methods of the SDK's `ClientSession`, for frameworks that accept a session. With both,
a failed tool call reaches the model as a result with mcpconn's text, never as an exception whose text the framework
replaces.

Each framework's module imports the framework, which you have to install yourself.
"""

from mcpconn.integrations.server import as_server
from mcpconn.integrations.session import Session

__all__ = ["Session", "as_server"]
