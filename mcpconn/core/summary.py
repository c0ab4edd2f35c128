"""The one-line summary of a failure."""

from __future__ import annotations

from collections.abc import Callable

from mcpconn.core.rule import Rule
from mcpconn.core.seen import Seen

SUMMARY_LIMIT = 300
"""Maximum characters of a server's own text in a summary, because a server can send megabytes."""


def summary(rule: Rule, seen: Seen, redact: Callable[[str], str] = str) -> str:
    """The rule's conclusion, and the evidence in parentheses: status, code, and the error's own text.

    Args:
        rule: The rule.
        seen: The evidence.
        redact: Replaces secrets in that text. It is applied before the text is truncated, because most of a truncated
            token would otherwise remain.
    """
    details: list[str] = []
    if seen.status:
        details.append(f"HTTP {seen.status}")
    if seen.code is not None:
        details.append(f"JSON-RPC {seen.code}")
    said = (
        ""
        if not rule.quote
        else seen.message or next((str(error) for error in seen.errors[::-1] if str(error).strip()), "")
    )
    said = " ".join(redact(said).split())
    if not said and seen.errors:
        said = type(seen.errors[0]).__name__
    if len(said) > SUMMARY_LIMIT:
        said = said[:SUMMARY_LIMIT] + "..."
    if said and said.lower() not in rule.because.lower():
        details.append(said)
    hint = seen.evidence.hint
    if hint and hint.lower() not in said.lower():
        details.append(hint)
    return f"{rule.because} ({', '.join(details)})" if details else rule.because
