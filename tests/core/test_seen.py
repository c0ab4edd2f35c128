"""Evidence, prepared for matching."""

from __future__ import annotations

import anyio
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpconn.core import Evidence
from mcpconn.core.seen import Seen, forget_tracebacks, walk
from tests.core.trees import as_cause, as_context, in_group, wrapped, wrappings


@given(how=wrappings())
def test_a_walk_meets_each_error_once(how: list[str]) -> None:
    inner = RuntimeError("inner")
    outer = wrapped(inner, *how)
    met = list(walk(outer))
    assert met[0] is outer
    assert sum(error is inner for error in met) == 1
    assert len({id(error) for error in met}) == len(met)


def test_a_walk_passes_a_repeated_error() -> None:
    shared, last = ValueError("shared"), ValueError("last")
    group = in_group(shared)
    twice = in_group(group)
    twice.__cause__ = shared
    shared.__cause__ = last
    assert last in list(walk(twice))
    repeated = as_cause(shared)
    repeated.exceptions = [shared, shared, last]  # type: ignore[attr-defined] # only its name matters
    assert [str(error) for error in walk(repeated)] == ["outer", "shared", "last"]


def test_a_walk_sees_members_before_causes() -> None:
    outer = in_group(ValueError("member"))
    outer.__cause__ = ValueError("cause")
    assert [str(error) for error in walk(outer)][1:] == ["sibling", "member", "cause"]


def test_members_can_be_a_list() -> None:
    outer = RuntimeError("outer")
    outer.exceptions = [ValueError("member")]  # type: ignore[attr-defined] # only its name matters
    assert [str(error) for error in walk(outer)] == ["outer", "member"]


def test_what_is_no_sequence_is_left_alone() -> None:
    outer = RuntimeError("outer")
    outer.exceptions = {ValueError("member")}  # type: ignore[attr-defined] # only its name matters
    assert [str(error) for error in walk(outer)] == ["outer"]


def test_tracebacks_are_forgotten_of_all_that_is_behind_an_error() -> None:
    def raised(error: BaseException) -> BaseException:
        try:
            raise error
        except BaseException as caught:
            return caught

    outer, other = raised(in_group(raised(ValueError("member")))), raised(KeyError("other"))
    outer.__cause__ = raised(ValueError("cause"))
    # The context is no evidence beside a cause, but it has frames.
    outer.__context__ = raised(ValueError("context"))
    outer.__context__.__cause__ = outer
    members = outer.exceptions  # type: ignore[attr-defined] # it is a group
    forget_tracebacks(outer, None, other)
    for error in (outer, outer.__cause__, outer.__context__, *members, other):
        assert error.__traceback__ is None


def test_without_an_exception_no_walk() -> None:
    assert Seen(Evidence()).errors == ()
    assert Seen(Evidence()).names == frozenset()
    assert Seen(Evidence()).text == ""


def test_the_names_are_those_of_the_types_and_their_bases() -> None:
    seen = Seen(Evidence(exception=as_context(httpx2.ConnectTimeout(""))))
    assert {"ConnectTimeout", "TimeoutException", "TransportError", "LookupError", "Exception"} <= seen.names
    assert seen.is_a("TimeoutException")
    assert seen.is_a("nothing", "ConnectTimeout")
    assert not seen.is_a("NetworkError")
    assert not seen.is_a()


def test_the_text_is_in_lower_case() -> None:
    assert Seen(Evidence(message="  Session NOT found\n", exception=RuntimeError("x"))).text == "session not found"


def test_the_text_is_that_of_all_exceptions_where_there_is_no_message() -> None:
    error = in_group(as_cause(ValueError("  Inner ")))
    assert Seen(Evidence(exception=error)).text == (
        "unhandled errors in a taskgroup (2 sub-exceptions) (2 sub-exceptions)\nsibling\nouter\ninner"
    )


def test_exceptions_without_a_text_add_none() -> None:
    assert Seen(Evidence(exception=as_cause(anyio.ClosedResourceError()))).text == "outer"


@pytest.mark.parametrize(
    ("text", "names", "refuses"),
    [("Session NOT found.", True, True), ("Checkout failed: session expired", True, False), ("no", False, False)],
)
def test_a_session_is_named_or_refused(text: str, names: bool, refuses: bool) -> None:
    for evidence in (Evidence(message=text), Evidence(exception=RuntimeError(text))):
        assert (Seen(evidence).names_session, Seen(evidence).refuses_session) == (names, refuses)


@pytest.mark.parametrize(
    ("content_type", "media_type"),
    [
        (None, ""),
        ("", ""),
        ("text/html", "text/html"),
        (" Text/HTML ; charset=utf-8; q=1", "text/html"),
        ("application/json;charset=x", "application/json"),
    ],
)
def test_a_media_type_has_no_parameters(content_type: str | None, media_type: str) -> None:
    assert Seen(Evidence(content_type=content_type)).media_type == media_type


@pytest.mark.parametrize(("from_wire", "local"), [(True, False), (False, True), (None, True)])
def test_an_error_is_local_unless_received(from_wire: bool | None, local: bool) -> None:
    assert Seen(Evidence(from_wire=from_wire)).local is local


@given(status=st.none() | st.integers(100, 599))
def test_no_response_has_the_status_0(status: int | None) -> None:
    assert Seen(Evidence(http_status=status)).status == (status or 0)
