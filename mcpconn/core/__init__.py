"""The pure core: tables and functions without I/O, clock or randomness.

Functions receive everything that they need as arguments, and return everything that they decide.
"""

from mcpconn.core.backoff import Backoff, ReplayBudget
from mcpconn.core.classify import classify
from mcpconn.core.decide import decide, decide_dial, decide_probe, may_replay
from mcpconn.core.failures import Delivery, Evidence, Failure, FailureKind
from mcpconn.core.machine import IllegalTransition
from mcpconn.core.rule import Rule
from mcpconn.core.rules import DEFAULT_RULES
from mcpconn.core.states import TRANSITIONS, Event, State

__all__ = [
    "DEFAULT_RULES",
    "TRANSITIONS",
    "Backoff",
    "Delivery",
    "Event",
    "Evidence",
    "Failure",
    "FailureKind",
    "IllegalTransition",
    "ReplayBudget",
    "Rule",
    "State",
    "classify",
    "decide",
    "decide_dial",
    "decide_probe",
    "may_replay",
]
