"""Strategies for hypothesis: evidence, failures, faults, walks through the states, and actions on a `Sandbox`."""

from __future__ import annotations

from typing import Any, get_args

from mcpconn.core.classify import classify
from mcpconn.core.failures import Delivery, Era, Evidence, Failure, FailureKind, Phase
from mcpconn.core.states import TRANSITIONS, Event, State
from mcpconn.testing.named_faults import FAULTS
from mcpconn.testing.sandbox import Sandbox
from mcpconn.testing.scripted.faults import Fault

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ImportError as error:  # pragma: no cover - seen in a process without it: tests/testing/test_fixtures.py
    raise ImportError("mcpconn.testing.strategies needs hypothesis: pip install hypothesis") from error


MESSAGES = (
    "Session not found",
    "Invalid params: Invalid or expired session",
    "Bad Request: No valid session ID provided",
    "Session terminated before the request completed",
    "Session terminated",
    "Connection closed",
    "Tool failed: the user's shopping session expired",
    "Method not found",
    "Tool failed to execute",
    "",
)
"""Error messages of servers, helpful or not."""
ERRORS: tuple[type[BaseException], ...] = (
    ConnectionRefusedError,
    ConnectionResetError,
    BrokenPipeError,
    TimeoutError,
    EOFError,
    FileNotFoundError,
    InterruptedError,
    KeyboardInterrupt,
    RuntimeError,
    ValueError,
)
CODES = (-32000, -32001, -32002, -32020, -32022, -32600, -32601, -32602, -32603, -32700, 408, 1)
STATUSES = (200, 202, 301, 400, 401, 403, 404, 405, 408, 429, 500, 502, 503, 504)
MEDIA = ("", "application/json", "text/event-stream", "text/html", "text/plain")


def exceptions() -> SearchStrategy[BaseException]:
    """Local exceptions, some of them with a cause."""

    def build(kind: type[BaseException], text: str, cause: BaseException | None) -> BaseException:
        error = kind(text)
        error.__cause__ = cause
        return error

    plain = st.builds(build, st.sampled_from(ERRORS), st.sampled_from(MESSAGES), st.none())
    return plain | st.builds(build, st.sampled_from(ERRORS), st.sampled_from(MESSAGES), plain)


def evidence() -> SearchStrategy[Evidence]:
    """Any evidence of a failure: from HTTP, from JSON-RPC, an exception, or several of these."""
    maybe: Any = st.none()
    return st.builds(
        Evidence,
        exception=maybe | exceptions(),
        code=maybe | st.sampled_from(CODES),
        message=maybe | st.sampled_from(MESSAGES),
        http_status=maybe | st.sampled_from(STATUSES),
        content_type=maybe | st.sampled_from(MEDIA),
        retry_after=maybe | st.floats(0, 3600),
        session_sent=maybe | st.booleans(),
        from_wire=maybe | st.booleans(),
        written=maybe | st.booleans(),
        era=maybe | st.sampled_from(get_args(Era)),
        phase=maybe | st.sampled_from(get_args(Phase)),
    )


def failures(*, classified: bool = False) -> SearchStrategy[Failure]:
    """Failures of every kind.

    Args:
        classified: Only failures that `classify` returns for some evidence, instead of every combination.
    """
    made = evidence().map(classify)
    if classified:
        return made
    return made | st.builds(
        Failure,
        kind=st.sampled_from(FailureKind),
        delivery=st.sampled_from(Delivery),
        proof=st.booleans(),
        summary=st.sampled_from(MESSAGES),
        retry_after=st.none() | st.floats(0, 3600),
        evidence=evidence(),
    )


def fault_names() -> SearchStrategy[str]:
    """Names in `FAULTS`: short to print, and easy to shrink."""
    return st.sampled_from(list(FAULTS))


def faults() -> SearchStrategy[Fault]:
    """Faults for `Script.inject`."""
    return fault_names().map(lambda name: FAULTS[name]())


@st.composite
def walks(draw: Any, start: State = State.IDLE, *, max_size: int = 30) -> list[Event]:
    """Legal sequences of events from `start`, by the table of transitions."""
    state, walk = start, []
    for _ in range(draw(st.integers(0, max_size))):
        rows = [row for row in TRANSITIONS if row.source is state]
        if not rows:
            break
        row = draw(st.sampled_from(rows))
        walk.append(row.event)
        state = row.target
    return walk


Action = tuple[str, tuple[Any, ...], dict[str, Any]]
"""A method of `Sandbox`, and its arguments."""
SECONDS = (0.1, 1.0, 5.0, 12.0, 31.0, 65.0, 301.0)
"""Times to pass: around the probe timeout, deadlines and cool-downs."""


def actions(sandbox: Sandbox | None = None, *, servers: tuple[str, ...] = ("server",)) -> SearchStrategy[Action]:
    """Things to do in a `Sandbox`; `Sandbox.perform(verb, *args, **options)` does one.

    Args:
        sandbox: The sandbox whose servers and tools are used; by default those of a plain `Script`.
        servers: Names of the servers, if no sandbox is given.
    """
    names = tuple(sandbox.scripts) if sandbox is not None else servers
    server = st.sampled_from(names)
    method = st.sampled_from(["tools/call", "tools/call", "initialize", "ping", "GET", None])
    timeout = st.sampled_from([None, 2.0, 20.0])
    tool = st.sampled_from(["add", "charge", "slow", "slow_charge"])
    seconds = st.sampled_from([0.5, 3, 30])
    return st.one_of(
        st.builds(
            lambda s, t, n, d: ("call", (s, t, {"a": 1, "b": 2, "seconds": n}), {"timeout": d}),
            server,
            tool,
            seconds,
            timeout,
        ),
        st.builds(
            lambda s, f, n, m: ("inject", (s, f), {"times": n, "method": m}),
            server,
            fault_names(),
            st.sampled_from([1, 2, 5]),
            method,
        ),
        st.builds(lambda s, n: ("refuse", (s, n), {}), server, st.sampled_from([1, 2, 5])),
        st.builds(lambda n: ("cancel", (n,), {}), st.integers(0, 5)),
        st.builds(
            lambda verb, s: (verb, (s,), {}),
            st.sampled_from(["forget", "restart", "take_down", "bring_up", "reconnect", "replace"]),
            server,
        ),
        st.builds(lambda n: ("advance", (n,), {}), st.sampled_from(SECONDS)),
        st.just(("settle", (), {})),
    )
