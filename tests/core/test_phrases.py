"""How servers say that they do not know a session: every way, and what only sounds like it.

The lists stand in witnesses.py, independently of the patterns; each small change of a pattern must break one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from mcpconn.core.phrases import (
    IDENTIFIER,
    REFUSAL_LIMIT,
    SESSION_PHRASE,
    SESSION_REFUSAL,
    is_session_refusal,
    names_session,
)
from tests.core.witnesses import MENTIONS, OTHER_SAYINGS, SAYINGS, sayings


def lower(text: str) -> list[str]:
    """A list's sayings, as the patterns see them."""
    return [each.lower() for each in sayings(text)]


REFUSALS = lower(SAYINGS)
NAMING = [*lower(MENTIONS), f"session with id {'x' * 80} not found", "session with id  not found"]
OTHERS = [*lower(OTHER_SAYINGS), f"session with id {'x' * 81} not found"]
LONG = "x" * 80
IDENTIFIERS = [
    *("7", "(7)", "<7>", "a.7", "a:7", "a-7", "a_7", "7.a", "7:a", "7-a", "7_a", "'x y'", '"x y"', "'x'", '"x"'),
    *(f"{LONG}7", f"7{LONG}", f"'{LONG}'", f'"{LONG}"'),
]
OTHER_WORDS = [
    "abc",
    "",
    "''",
    '""',
    f"{LONG}x7",
    f"7x{LONG}",
    f"'x{LONG}'",
    f'"x{LONG}"',
    "[7]",
    "a7 b",
    "'a'b'",
    '"a"b"',
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_names_only_its_session(text: str) -> None:
    assert names_session(text)
    assert is_session_refusal(text)


@pytest.mark.parametrize("text", NAMING)
def test_a_mention_says_more_than_a_refusal(text: str) -> None:
    assert names_session(text)
    assert not is_session_refusal(text)


@pytest.mark.parametrize("text", OTHERS)
def test_words_that_sound_alike_do_not_match(text: str) -> None:
    assert not names_session(text)
    assert not is_session_refusal(text)


def test_a_long_text_is_never_a_mere_refusal() -> None:
    refusal = "error: " * 40 + "session expired"
    assert len(refusal) <= REFUSAL_LIMIT
    assert is_session_refusal(refusal)
    longer = "error: " * 42 + "session expired"
    assert len(longer) > REFUSAL_LIMIT
    assert not is_session_refusal(longer)
    assert names_session(longer)


@pytest.mark.parametrize("piece", ["session ", "session 7", "error: ", "7", "'", "session with id "])
def test_no_text_is_slow_to_match(piece: str) -> None:
    began = time.perf_counter()
    names_session(piece * 100_000)
    assert time.perf_counter() - began < 5


TOKENS = re.compile(r"""\\[wd]|\{\d+,\d+\}|[a-z]+|[?*|.]|\\ |\[[^\]]*\]""")


def mutants(pattern: str) -> Iterator[str]:
    """The pattern with one word, alternative or quantifier changed."""
    for match in TOKENS.finditer(pattern):
        token = match[0]
        changes = {"?": [""], "*": [""], "|": [""], ".": ["x"], "\\w": ["w"], "\\d": ["d"]}.get(token)
        if changes is None and token.startswith("{"):
            low, high = map(int, token[1:-1].split(","))
            changes = [f"{{{low},{high - 1}}}", f"{{{low},{high + 1}}}", f"{{{1 - low},{high}}}"]
        elif changes is None and token.startswith("["):
            changes = [token.replace(each, "", 1) for each in set(token[1:-1]) - set("\\wd^")]
        for other in changes or ["zz", ""]:
            yield pattern[: match.start()] + other + pattern[match.end() :]


ONLY_WHOLE = "session terminated"
"""It names a session only if nothing else is said: "Session terminated before the request completed" does not."""
PATTERNS = {
    "phrase": (SESSION_PHRASE.pattern, "search", [*REFUSALS, *NAMING], [*OTHERS, ONLY_WHOLE]),
    "refusal": (SESSION_REFUSAL.pattern, "fullmatch", [*REFUSALS, ONLY_WHOLE], [*NAMING, *OTHERS]),
    "identifier": (IDENTIFIER, "fullmatch", IDENTIFIERS, OTHER_WORDS),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_changes_of_a_pattern_are_noticed(name: str) -> None:
    pattern, method, right, wrong = PATTERNS[name]
    right = [text for text in right if text != ONLY_WHOLE or name == "refusal"]
    # The identifier has its own turn; in the others it stays what it is.
    whole = pattern if name == "identifier" else pattern.replace(IDENTIFIER, "@@")
    survivors = []
    for mutant in mutants(whole):
        try:
            matches = getattr(re.compile(mutant.replace("@@", IDENTIFIER), re.VERBOSE), method)
        except re.error:
            continue
        if all(map(matches, right)) and not any(map(matches, wrong)):
            survivors.append(_difference(whole, mutant))
    assert not survivors, "\n".join(survivors)


def _difference(whole: str, changed: str) -> str:
    """The place of a change, and what stands there now."""
    start = next((i for i, (a, b) in enumerate(zip(whole, changed, strict=False)) if a != b), len(changed))
    return f"{whole[max(0, start - 20) : start]} >>> {changed[start : start + 20]} (was {whole[start : start + 20]})"
