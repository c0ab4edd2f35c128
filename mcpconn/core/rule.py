"""One row of the table in `classify`: the evidence that it matches, and the resulting classification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mcpconn.core.failures import Delivery, FailureKind
from mcpconn.core.seen import Seen

Condition = Callable[[Seen], bool]


@dataclass(frozen=True)
class Rule:
    """One row: if `matches` is true, the failure has this kind and delivery.

    Put your own in front: `classify(evidence, rules=(Rule(...), *DEFAULT_RULES))`, or
    `Manager(..., rules=[Rule(...)])`.
    """

    because: str
    """The meaning in words, which begins the failure's summary."""
    kind: FailureKind
    delivery: Delivery
    proof: bool
    """False makes it a suspicion, which a probe must confirm."""
    matches: Condition
    quote: bool = True
    """Whether the summary includes the error's own text. The text of a parser's error contains fragments of data."""

    @classmethod
    def phrase(
        cls,
        text: str,
        kind: FailureKind = FailureKind.SESSION_EXPIRED,
        *,
        delivery: Delivery = Delivery.REJECTED,
        because: str | None = None,
    ) -> Rule:
        """A rule for an unusual phrase of a server, in upper or lower case, in a JSON-RPC error or an exception. Never
        proof."""
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
    """A row whose evidence is certain: the failure takes effect at once.

    Args:
        because: The meaning in words.
        kind: The class of the failure.
        delivery: What is known about the request.
        when: The condition.
        quote: Whether the summary includes the error's own text.
    """
    return Rule(because, kind, delivery, proof=True, matches=when, quote=quote)


def suspicion(because: str, kind: FailureKind, delivery: Delivery, when: Condition, *, quote: bool = True) -> Rule:
    """A row whose evidence may have another cause: a probe of the session decides. The arguments are those of
    `proof`."""
    return Rule(because, kind, delivery, proof=False, matches=when, quote=quote)
