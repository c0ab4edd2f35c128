"""mcpconn keeps connections to MCP servers alive and reports their state truthfully."""

from mcpconn import installed as _installed  # noqa: F401  # isort: skip - first: it names a mixed installation
from typing import TYPE_CHECKING

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
from mcpconn.core.outcome import Outcome
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
from mcpconn.lazy import first_use
from mcpconn.version import __version__

if TYPE_CHECKING:
    from mcpconn import handlers
    from mcpconn.callbacks import ConnectionContext, current_connection
    from mcpconn.catalog.entries import CatalogChange
    from mcpconn.config import ServerConfig
    from mcpconn.connection import Connection
    from mcpconn.manager import Manager
    from mcpconn.policy import Policy
    from mcpconn.runtime.journal import Change
    from mcpconn.sync import SyncManager

__getattr__ = first_use(
    "mcpconn",
    {
        "CatalogChange": "mcpconn.catalog.entries",
        "Change": "mcpconn.runtime.journal",
        "Connection": "mcpconn.connection",
        "ConnectionContext": "mcpconn.callbacks",
        "Manager": "mcpconn.manager",
        "Policy": "mcpconn.policy",
        "ServerConfig": "mcpconn.config",
        "SyncManager": "mcpconn.sync",
        "as_server": "mcpconn.integrations",
        "current_connection": "mcpconn.callbacks",
        "handlers": "mcpconn.handlers",
        "integrations": "mcpconn.integrations",
    },
)

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
    "Outcome",
    "OutcomeUnknown",
    "Overloaded",
    "Policy",
    "Rule",
    "ServerConfig",
    "State",
    "SyncManager",
    "UnknownServer",
    "__version__",
    "classify",
    "current_connection",
    "handlers",
]
