"""The state that the connections of one manager share."""

from __future__ import annotations

from collections.abc import Iterable

from mcpconn.core.backoff import ReplayBudget
from mcpconn.core.rule import Rule
from mcpconn.core.rules import DEFAULT_RULES
from mcpconn.policy import Policy
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.dials import Dials
from mcpconn.wire.era import Eras
from mcpconn.wire.network import Network
from mcpconn.wire.watchdog import Watchdog


class Shared:
    """Limits, clock, rules, TLS context and replay budget. A `Connection` without a manager has its own."""

    def __init__(self, policy: Policy, *, clock: Clock | None = None, rules: Iterable[Rule] = ()) -> None:
        """
        Args:
            policy: Timeouts and limits for all connections.
            clock: Time and randomness, for tests.
            rules: Rules of classification to be tried before the core's.
        """
        self.policy = policy
        self.clock = clock or Clock()
        self.rules: tuple[Rule, ...] = (*rules, *DEFAULT_RULES)
        self.network = Network()
        self.dials = Dials(policy)
        self.budget = ReplayBudget(policy.replay_ratio, policy.replay_reserve)
        self.eras = Eras()
        self.watchdog = Watchdog()
