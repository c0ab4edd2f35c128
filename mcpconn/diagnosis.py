"""Classifies the errors of one connection by its rules, and describes them without its secrets."""

from __future__ import annotations

from contextlib import suppress

from mcpconn.core.classify import classify
from mcpconn.core.failures import Evidence, Failure
from mcpconn.core.rule import Rule
from mcpconn.observe import log
from mcpconn.redact.redactor import Redactor


class Diagnosis:
    """Turns evidence into failures, and logs exceptions of the host's code."""

    def __init__(self, name: str, *, rules: tuple[Rule, ...], redact: Redactor) -> None:
        """
        Args:
            name: Name of the connection.
            rules: The rules, in the order in which they are tried; the host's come first.
            redact: Replaces the connection's secrets in a text.
        """
        self._name = name
        self._rules = rules
        self._redact = redact

    def classify(self, evidence: Evidence) -> Failure:
        """The failure that follows from the evidence. If one of the host's rules raises, all of the host's rules are
        skipped."""
        try:
            return classify(evidence, self._rules, redact=self._redact)
        except Exception as error:
            self.contain("rule", error)
            return classify(evidence, redact=self._redact)

    def contain(self, what: str, error: BaseException) -> None:
        """Log an exception of the host's code: a listener, a rule, a callback. It must not end the connection."""
        # Handlers and filters of the standard library's loggers are host code, too.
        with suppress(Exception):
            log.error(f"{what}.raised", connection=self._name, error=self._redact(repr(error)))

    def crashed(self, error: Exception) -> None:
        """Log an error in this package, with its traceback. The connection is closed afterwards."""
        log.exception("connection.crashed", connection=self._name, error=self._redact(repr(error)))
