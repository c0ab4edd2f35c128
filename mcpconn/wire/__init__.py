"""The wire: the only place that knows mcp's client and httpx2. It dials, and turns what happens into evidence."""

from mcpconn.wire.dial import Dialer, unusable
from mcpconn.wire.network import Network

__all__ = ["Dialer", "Network", "unusable"]
