"""One row of the table in `classify`: what evidence it matches, and what that evidence amounts to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mcpconn.core.failures import Delivery, FailureKind
from mcpconn.core.seen import Seen

Condition = Callable[[Seen], bool]


@dataclass(frozen=True)
class Rule:
    """One row: if `matches`, then a failure of this kind and delivery.

    Put your own in front: `classify(evidence, rules=(Rule(...), *DEFAULT_RULES))`, or
    `Manager(..., rules=[Rule(...)])`.
    """

    because: str
    """What it means, in words; the beginning of the failure's summary."""
    kind: FailureKind
    delivery: Delivery
    proof: bool
    """False makes it a suspicion, which a probe must confirm before anything is concluded."""
    matches: Condition
    quote: bool = True
    """Whether the error's own words belong in the summary. A parser's hold pieces of somebody's data."""

    @classmethod
    def phrase(
        cls,
        text: str,
        kind: FailureKind = FailureKind.SESSION_EXPIRED,
        *,
        delivery: Delivery = Delivery.REJECTED,
        because: str | None = None,
    ) -> Rule:
        """A rule for a server's odd phrase, in any case, in a JSON-RPC error or an exception. Never proof."""
        wanted = text.strip().lower()
        if not wanted:
            raise ValueError("Rule.phrase needs a text: an empty one would match every error")
        return cls(
            because or f"the server said {text!r}",
            kind,
            delivery,
            proof=False,
            matches=lambda seen: wanted in seen.text,
        )


def proof(because: str, kind: FailureKind, delivery: Delivery, when: Condition, *, quote: bool = True) -> Rule:
    """A row whose evidence leaves no doubt: what follows from the failure follows at once.

    Args:
        because: What it means, in words.
        kind: What class of failure it is.
        delivery: What is known about the request.
        when: The condition.
        quote: Whether the error's own words belong in the summary.
    """
    return Rule(because, kind, delivery, proof=True, matches=when, quote=quote)


def suspicion(because: str, kind: FailureKind, delivery: Delivery, when: Condition, *, quote: bool = True) -> Rule:
    """A row whose evidence may have another cause: a probe of the session decides. Arguments as for `proof`."""
    return Rule(because, kind, delivery, proof=False, matches=when, quote=quote)
