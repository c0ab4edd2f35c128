"""The one line that a failure says of itself."""

from __future__ import annotations

from collections.abc import Callable

from mcpconn.core.rule import Rule
from mcpconn.core.seen import Seen

SUMMARY_LIMIT = 300
"""Characters of a server's own words that go into a summary. A server can send megabytes."""


def summary(rule: Rule, seen: Seen, redact: Callable[[str], str] = str) -> str:
    """What the rule concludes, and in parentheses what was seen: status, code, and the error's own words.

    Args:
        rule: The rule.
        seen: What was seen.
        redact: Hides secrets in those words. It is used before they are cut: of a token that is cut, most would stay.
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
