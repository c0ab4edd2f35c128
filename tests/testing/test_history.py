"""A history is compared with what servers ran: each rule, broken once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mcp import MCPError

from mcpconn import CallFailed, OutcomeUnknown, State, classify
from mcpconn.core import Delivery, Evidence
from mcpconn.testing.history import Call, History, HistoryError
from mcpconn.testing.scripted.records import Execution


class Server:
    """What ran, and what of it was answered."""

    def __init__(self, *ran: Call, answered: tuple[Call, ...] = ()) -> None:
        self.calls = [Execution(call.tool, call.arguments, None) for call in ran]
        self.answered = [Execution(call.tool, call.arguments, None) for call in answered]


def ended(history: History, *, error: BaseException | None = None, answer: Any = "it ran", safe: bool = False) -> Call:
    """A call that is over."""
    call = history.call("charge", {"amount": 1}, safe=safe)
    try:
        with call:
            if error is not None:
                raise error
            call.answer = answer
    except BaseException as raised:
        assert raised is error  # noqa: PT017 - any error of a call is raised as it is
    return call


def not_run() -> CallFailed:
    failure = classify(Evidence(exception=ConnectionRefusedError(), written=False, phase="call"))
    return CallFailed("it was not sent", server="srv", state=State.READY, failure=failure)


def unknown() -> OutcomeUnknown:
    failure = classify(Evidence(exception=ConnectionResetError(), written=True, phase="call"))
    return OutcomeUnknown("cut", server="srv", state=State.READY, failure=failure, attempts=1)


def rules(history: History, server: Server, **options: Any) -> list[str]:
    return [violation.rule for violation in history.violations(server, **options)]


def test_truthful_calls_break_no_rule() -> None:
    history = History()
    answered, safe = ended(history), ended(history, safe=True)
    failed, cut = ended(history, error=not_run()), ended(history, error=unknown())
    refused = ended(history, error=MCPError(-32000, "no"))
    left = ended(history, error=KeyboardInterrupt())
    broken = ended(history, error=ValueError("the caller's own"))
    history.check(Server(answered, safe, safe, cut, refused, answered=(answered, safe)))
    assert [call.outcome for call in history.calls] == [
        "answered", "answered", "not_run", "unknown", "error", "cancelled", "unknown",
    ]  # fmt: skip
    assert history.outcomes()["unknown"] == 2
    assert (failed.delivery, left.delivery, broken.delivery) == (Delivery.NOT_SENT, None, None)


def test_an_unsafe_call_that_ran_twice() -> None:
    history = History()
    call = ended(history)
    assert rules(history, Server(call, call)) == ["ran at most once"]


def test_a_false_not_run_is_found() -> None:
    history = History()
    call = ended(history, error=not_run())
    assert rules(history, Server(call)) == ["not run"]


def test_an_answer_that_no_server_gave() -> None:
    history = History()
    ended(history)
    assert rules(history, Server()) == ["no answer invented"]


def test_an_answer_of_another_call() -> None:
    history = History()
    first = ended(history, answer=SimpleNamespace(structured_content={"call_id": "call-2"}))
    second = ended(history, answer=SimpleNamespace(structured_content={"call_id": "call-2"}))
    with pytest.raises(HistoryError) as caught:
        history.check(Server(first, second))
    (violation,) = caught.value.violations
    assert (violation.rule, violation.call) == ("no answer mixed up", first)
    assert str(caught.value) == (
        "no answer mixed up: call call-1 of charge, not safe to repeat, ended as answered, and it ran 1 times"
    )


def test_an_answer_that_arrived_and_was_not_given_to_the_caller() -> None:
    history = History()
    call = ended(history, error=unknown())
    server = Server(call, answered=(call,))
    assert rules(history, server) == ["no answer lost"]
    # A bad network may have lost it after the server had sent it.
    assert rules(history, server, lossy=True) == []


def test_a_call_that_never_ended() -> None:
    history = History()
    history.call("charge")
    assert rules(history, Server()) == ["no call forgotten"]
    assert rules(history, Server(), pending=True) == []
