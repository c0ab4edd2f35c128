"""`classify` and exceptions: those inside others, those like the SDK's, and cancellations."""

from __future__ import annotations

import asyncio
import concurrent.futures
from types import SimpleNamespace
from typing import Any

import anyio
import httpx2
import pytest
import trio
from hypothesis import given
from mcp import MCPError

from mcpconn.core import Delivery, Evidence, FailureKind, Rule, State, classify, decide
from mcpconn.core.seen import Seen
from tests.core.trees import WRAPPINGS, as_cause, as_context, in_group, wrapped, wrappings

K, D = FailureKind, Delivery


@pytest.mark.parametrize("how", WRAPPINGS)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (anyio.ClosedResourceError(), K.TRANSPORT_LOST),
        (anyio.BrokenResourceError(), K.TRANSPORT_LOST),
        (anyio.EndOfStream(), K.TRANSPORT_LOST),
        (httpx2.ConnectError("refused"), K.UNAVAILABLE),
        (httpx2.ReadTimeout(""), K.TIMEOUT),
        (MCPError(-32001, "Timed out"), K.TIMEOUT),
        (MCPError(-32002, "Resource not found"), K.APPLICATION),
    ],
    ids=repr,
)
def test_an_error_is_found_in_any_wrapping(error: BaseException, kind: FailureKind, how: str) -> None:
    assert classify(Evidence(exception=wrapped(error, how))).kind is kind


@given(how=wrappings())
def test_an_error_is_found_at_any_depth(how: list[str]) -> None:
    failure = classify(Evidence(exception=wrapped(anyio.ClosedResourceError(), *how)))
    assert (failure.kind, failure.proof) == (K.TRANSPORT_LOST, True)


def test_errors_that_go_round_in_a_circle_are_seen_once_each() -> None:
    first, second = RuntimeError("first"), RuntimeError("session expired")
    first.__cause__, second.__cause__ = second, first
    group = in_group(first)
    second.__context__ = group
    assert classify(Evidence(exception=group)).kind is K.SESSION_EXPIRED
    assert len(Seen(Evidence(exception=group)).errors) == 4


def test_a_context_that_the_author_suppressed_says_nothing() -> None:
    outer = as_context(anyio.ClosedResourceError())
    outer.__suppress_context__ = True
    assert classify(Evidence(exception=outer)).kind is K.APPLICATION


def test_a_cause_replaces_the_context() -> None:
    outer = as_cause(anyio.ClosedResourceError())
    outer.__context__ = FileNotFoundError()
    assert classify(Evidence(exception=outer)).kind is K.TRANSPORT_LOST
    assert not any(isinstance(error, FileNotFoundError) for error in Seen(Evidence(exception=outer)).errors)


class Sandwich(Exception):
    """Has members that are no exceptions."""

    exceptions: Any = ("cheese", anyio.ClosedResourceError())


def test_only_exceptions_are_searched_among_what_calls_itself_exceptions() -> None:
    assert classify(Evidence(exception=Sandwich())).kind is K.TRANSPORT_LOST
    odd = Sandwich()
    odd.exceptions = "no sequence of errors"
    assert classify(Evidence(exception=odd)).kind is K.APPLICATION


class HalfAnError(Exception):
    """Has an `error` like the SDK's, but with a code that is no number."""

    class error:
        code = "E42"
        message = "unknown session"


def test_an_error_whose_code_is_no_number_is_no_jsonrpc_error() -> None:
    assert classify(Evidence(exception=HalfAnError("boom"))).kind is K.APPLICATION
    assert Seen(Evidence(exception=HalfAnError("boom"))).code is None


def test_a_code_is_not_sought_in_exceptions_where_http_has_spoken() -> None:
    failure = classify(Evidence(exception=MCPError(-32000, "Connection closed"), http_status=503))
    assert failure.kind is K.UNAVAILABLE
    assert Seen(Evidence(exception=MCPError(-32000, "x"), http_status=503)).code is None


def test_the_message_of_the_evidence_has_the_word_before_that_of_an_mcp_error() -> None:
    seen = Seen(Evidence(exception=MCPError(-32000, "Connection closed"), message="something else"))
    assert (seen.code, seen.message) == (-32000, "something else")


class Wordy(Exception):
    """Like the SDK's error, but its text is another than its message."""

    def __init__(self, **data: Any) -> None:
        super().__init__("its text")
        self.error = SimpleNamespace(code=-32000, **data)


def test_the_message_is_that_of_the_error_and_not_of_its_exception() -> None:
    assert Seen(Evidence(exception=Wordy(message="its message"))).message == "its message"
    assert Seen(Evidence(exception=Wordy(message=None))).message == ""
    assert Seen(Evidence(exception=Wordy())).message == ""
    assert classify(Evidence(exception=Wordy(message="Unknown session"))).kind is K.SESSION_EXPIRED


def test_an_mcp_error_without_words_has_a_code_all_the_same() -> None:
    error = MCPError(-32000, "x")
    error.error.message = None  # type: ignore[assignment] # a peer that is not typed
    seen = Seen(Evidence(exception=error))
    assert (seen.code, seen.message) == (-32000, "")


# -- cancellation


def trio_cancelled() -> BaseException:
    """Only trio can make one."""
    caught: list[BaseException] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                caught.append(error)
                raise

    trio.run(main)
    return caught[0]


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        trio_cancelled(),
        KeyboardInterrupt(),
        InterruptedError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("how", WRAPPINGS)
@pytest.mark.parametrize("rest", [{}, {"http_status": 404, "session_sent": True}, {"code": -32000, "from_wire": True}])
def test_a_cancellation_wins_over_everything(error: BaseException, how: str, rest: dict[str, Any]) -> None:
    failure = classify(Evidence(exception=wrapped(error, how), message="Session not found", **rest))
    assert failure.kind is K.CANCELLED
    for state in State:
        assert decide(state, failure) is None


def test_cancellation_beats_a_users_rule() -> None:
    everything = Rule("mine", K.TRANSPORT_LOST, D.REJECTED, True, lambda seen: True)
    failure = classify(Evidence(exception=asyncio.CancelledError()), rules=(everything,))
    assert (failure.kind, failure.summary) == (K.CANCELLED, "cancelled (CancelledError)")


def timed_out_by_wait_for() -> BaseException:
    async def main() -> None:
        await asyncio.wait_for(asyncio.Event().wait(), 0)

    try:
        asyncio.run(main())
    except asyncio.TimeoutError as error:
        return error
    raise AssertionError("unreachable")


# Python 3.10 has an asyncio.TimeoutError that is not the builtin one: only the name is the same.
AnotherTimeoutError = type("TimeoutError", (Exception,), {})


@pytest.mark.parametrize("outer", [TimeoutError(), AnotherTimeoutError()], ids=["builtin", "another"])
@pytest.mark.parametrize("how", ["as a cause", "as a context"])
@pytest.mark.parametrize("timer", [asyncio.CancelledError, concurrent.futures.CancelledError])
def test_a_timers_cancellation_is_a_timeout(outer: Exception, how: str, timer: type[BaseException]) -> None:
    outer.__cause__ = timer() if how == "as a cause" else None
    outer.__context__ = timer()
    failure = classify(Evidence(exception=outer))
    assert (failure.kind, failure.delivery, failure.proof) == (K.TIMEOUT, D.UNKNOWN, False)


def test_what_asyncio_raises_when_a_timer_fires_is_a_timeout() -> None:
    assert classify(Evidence(exception=timed_out_by_wait_for())).kind is K.TIMEOUT


@pytest.mark.parametrize("how", ["as a cause", "as a context"])
def test_a_cancellation_behind_any_other_error_is_a_cancellation(how: str) -> None:
    assert classify(Evidence(exception=wrapped(asyncio.CancelledError(), how))).kind is K.CANCELLED


def test_what_lies_behind_a_timeout_and_is_no_cancellation_is_still_seen() -> None:
    outer = TimeoutError()
    outer.__cause__ = as_cause(asyncio.CancelledError())
    assert classify(Evidence(exception=outer)).kind is K.CANCELLED
