"""The phrases with which servers report an unknown session. All functions expect lower-case text.

This module answers two questions about a text. Does it *name* a lost session anywhere? An unnecessary phrase costs only
one probe, so that list is broad. And does it consist of such a *refusal* and nothing else? Only then is a call known
not to have run: "Invalid params: session 7 not found." is a refusal, but "Checkout failed: session expired" comes from
a tool that has already run.
"""

from __future__ import annotations

import re

REFUSAL_LIMIT = 300
"""Maximum characters of a text that is only a refusal; an id has at most 80."""

IDENTIFIER = r"""(?: [(<]? [\w.:-]{0,80}\d[\w.:-]{0,80} [>)]? | "[^"]{1,80}" | '[^']{1,80}' )"""
"""A session's id: a word with a digit in it, or anything in quotes. Bounded, so that no text is slow to match."""

NAMED = r"""
      (?:invalid|expired|unknown)\ (?:mcp[-\ ])?session
    | session\ (?:id\ )?(?:{identifier}\ )?(?:is\ |was\ )?
      (?: not\ (?:found|initialized) | expired | has\ expired | is\ closing | user\ mismatch
        | (?:belongs\ to|opened\ by|owned\ by)\ (?:another|a\ different)\ user )
    | session\ with\ id\ {anything}\ (?:not|could\ not\ be)\ found
    | no\ (?:valid|active|such)\ session
    | could\ not\ find\ session
    | server\ not\ initialized
"""
"""The phrases of the SDKs and well-known servers for a lost session."""

PREFIX = r"""
    (?: mcp\ error(?:\ -?\d+)? | error | bad\ request | not\ found | unauthorized | forbidden
      | invalid\ (?:params|request) | internal\ error ) :\ ?
"""
"""Prefixes that libraries put in front of a message: the names of JSON-RPC's errors, the reason phrases of HTTP."""

SESSION_PHRASE = re.compile(
    NAMED.replace("{identifier}", IDENTIFIER).replace("{anything}", ".{0,80}"),
    re.VERBOSE,
)
SESSION_REFUSAL = re.compile(
    rf"""
    (?:{PREFIX})*
    (?:the\ |this\ |your\ )? (?:mcp\ )? (?:(?:invalid|expired|unknown)\ or\ )?
    (?: {NAMED.replace("{identifier}", IDENTIFIER).replace("{anything}", IDENTIFIER)} | session\ terminated )
    (?:[-\ ]id)? (?:\ provided)? (?:\ or\ (?:has\ )?expired)? (?::?\ {IDENTIFIER})? [.!]?
    """,
    re.VERBOSE,
)


def names_session(text: str) -> bool:
    """Whether `text`, in lower case, says anywhere that a session is unknown."""
    return SESSION_PHRASE.search(text) is not None or is_session_refusal(text)


def is_session_refusal(text: str) -> bool:
    """Whether `text`, in lower case, says that and nothing else, apart from a prefix, an id and a full stop."""
    return len(text) <= REFUSAL_LIMIT and SESSION_REFUSAL.fullmatch(text) is not None
