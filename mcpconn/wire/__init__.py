"""The wire: the only place that knows mcp's client and httpx2. It dials, and turns what happens into evidence."""

from mcpconn.wire.dial import Dialer, unusable
from mcpconn.wire.era import Eras
from mcpconn.wire.network import Network
from mcpconn.wire.watchdog import Watchdog

__all__ = ["Dialer", "Eras", "Network", "Watchdog", "unusable"]
