"""Exceptions inside exceptions, in every way that Python knows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def in_group(error: BaseException) -> BaseException:
    """As a task group raises it, with a sibling in front."""
    return BaseExceptionGroup("unhandled errors in a TaskGroup (2 sub-exceptions)", [ValueError("sibling"), error])


def as_cause(error: BaseException) -> BaseException:
    """`raise RuntimeError from error`"""
    outer = RuntimeError("outer")
    outer.__cause__ = error
    return outer


def as_context(error: BaseException) -> BaseException:
    """Raised while `error` was handled."""
    outer = LookupError("later")
    outer.__context__ = error
    return outer


WRAPPINGS: dict[str, Callable[[BaseException], BaseException]] = {
    "bare": lambda error: error,
    "in a group": in_group,
    "as a cause": as_cause,
    "as a context": as_context,
}


def wrapped(error: BaseException, *how: str) -> BaseException:
    """`error`, wrapped from the inside out."""
    for each in how:
        error = WRAPPINGS[each](error)
    return error


def wrappings() -> Any:
    """Up to four of them, in any order."""
    return st.lists(st.sampled_from(sorted(WRAPPINGS)), max_size=4)


@st.composite
def any_case(draw: st.DrawFn, texts: tuple[str, ...]) -> str:
    """One of the texts, each letter in either case."""
    text = draw(st.sampled_from(texts))
    upper = draw(st.lists(st.booleans(), min_size=len(text), max_size=len(text)))
    return "".join(letter.upper() if up else letter.lower() for letter, up in zip(text, upper, strict=True))
