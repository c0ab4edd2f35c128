"""The invariants of the model say the same in the code and in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.model.invariants import INVARIANTS

PAGE = (Path(__file__).parent.parent.parent / "docs" / "invariants.md").read_text(encoding="utf-8")
PROMISES = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE))
FOUND_BY = set(re.findall(r"^\| [^`|].*\| `(\w+)` \|$|^\| `.*\| `(\w+)` \|$", PAGE, re.MULTILINE))


def test_the_page_names_the_invariants_in_the_words_of_the_code() -> None:
    assert {holds.__name__: " ".join((holds.__doc__ or "").split()) for holds in INVARIANTS} == PROMISES


def test_the_page_names_a_mistake_for_each() -> None:
    assert {name for pair in FOUND_BY for name in pair if name} == {holds.__name__ for holds in INVARIANTS}


@pytest.mark.parametrize("holds", INVARIANTS, ids=lambda holds: holds.__name__)
def test_an_invariant_is_in_full_sentences(holds: object) -> None:
    words = " ".join((holds.__doc__ or "").split())
    assert words[0].isupper()
    assert words.endswith((".", ".)"))
