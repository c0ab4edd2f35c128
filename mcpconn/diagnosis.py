"""What went wrong on one connection: classified by its rules, said without its secrets."""

from __future__ import annotations

from contextlib import suppress

from mcpconn.core.classify import classify
from mcpconn.core.failures import Evidence, Failure
from mcpconn.core.rule import Rule
from mcpconn.observe import log
from mcpconn.redact.redactor import Redactor


class Diagnosis:
    """Turns evidence into failures, and logs what host code raised."""

    def __init__(self, name: str, *, rules: tuple[Rule, ...], redact: Redactor) -> None:
        """
        Args:
            name: What the connection is called.
            rules: Tried in this order; the host's first.
            redact: Knows the connection's secrets.
        """
        self._name = name
        self._rules = rules
        self._redact = redact

    def classify(self, evidence: Evidence) -> Failure:
        """The failure that the evidence speaks for. A rule of the host's that raises is passed over, with all others
        of the host's."""
        try:
            return classify(evidence, self._rules, redact=self._redact)
        except Exception as error:
            self.contain("rule", error)
            return classify(evidence, redact=self._redact)

    def contain(self, what: str, error: BaseException) -> None:
        """Log what host code raised: a listener, a rule, a callback. It must not end the connection."""
        # Handlers and filters of the standard library's loggers are host code, too.
        with suppress(Exception):
            log.error(f"{what}.raised", connection=self._name, error=self._redact(repr(error)))

    def crashed(self, error: Exception) -> None:
        """Log a fault of this package's own, with its traceback. The connection is closed after it."""
        log.exception("connection.crashed", connection=self._name, error=self._redact(repr(error)))
