"""mcpconn keeps connections to MCP servers alive, and tells the truth about them."""

from mcpconn import handlers, testing
from mcpconn.callbacks import ConnectionContext, current_connection
from mcpconn.catalog import CatalogChange
from mcpconn.config import ServerConfig
from mcpconn.connection import Connection
from mcpconn.core import (
    TRANSITIONS,
    Delivery,
    Event,
    Evidence,
    Failure,
    FailureKind,
    Rule,
    State,
    classify,
)
from mcpconn.errors import (
    ArgumentError,
    CallFailed,
    CallTimeout,
    ConfigError,
    ConnectionClosed,
    ConnectionFailed,
    IllegalTransition,
    InvalidResult,
    McpConnError,
    NotReady,
    NotRunning,
    OutcomeUnknown,
    Overloaded,
    UnknownServer,
)
from mcpconn.manager import Manager
from mcpconn.policy import Policy
from mcpconn.runtime.journal import Change
from mcpconn.sync import SyncManager

__all__ = [
    "TRANSITIONS",
    "ArgumentError",
    "CallFailed",
    "CallTimeout",
    "CatalogChange",
    "Change",
    "ConfigError",
    "Connection",
    "ConnectionClosed",
    "ConnectionContext",
    "ConnectionFailed",
    "Delivery",
    "Event",
    "Evidence",
    "Failure",
    "FailureKind",
    "IllegalTransition",
    "InvalidResult",
    "Manager",
    "McpConnError",
    "NotReady",
    "NotRunning",
    "OutcomeUnknown",
    "Overloaded",
    "Policy",
    "Rule",
    "ServerConfig",
    "State",
    "SyncManager",
    "UnknownServer",
    "classify",
    "current_connection",
    "handlers",
    "testing",
]
