"""From evidence to failure, by the rules: see `mcpconn.core.rules`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

from mcpconn.core.failures import Delivery, Evidence, Failure
from mcpconn.core.rule import Rule
from mcpconn.core.rules import CANCELLATION, DEFAULT_RULES
from mcpconn.core.seen import Seen
from mcpconn.core.summary import summary


def classify(
    evidence: Evidence, rules: Iterable[Rule] = DEFAULT_RULES, *, redact: Callable[[str], str] = str
) -> Failure:
    """Classify the evidence of a failure.

    Args:
        evidence: What was observed.
        rules: Tried in order. If none matches, the core's rules follow; the last of them matches everything.
        redact: Replaces secrets in the summary.
    """
    seen = Seen(evidence)
    for rule in chain(rules, DEFAULT_RULES):
        if rule.matches(seen):
            break
    # A cancellation takes precedence over users' rules too, because it is never a failure of the connection.
    if seen.cancelled:
        rule = CANCELLATION[0]
    return Failure(
        kind=rule.kind,
        delivery=_delivery(rule, evidence),
        proof=rule.proof,
        summary=summary(rule, seen, redact),
        retry_after=evidence.retry_after,
        evidence=evidence,
    )


def _delivery(rule: Rule, evidence: Evidence) -> Delivery:
    if evidence.written is False:
        return Delivery.NOT_SENT
    if evidence.written and rule.delivery is Delivery.NOT_SENT:
        return Delivery.UNKNOWN
    return rule.delivery
