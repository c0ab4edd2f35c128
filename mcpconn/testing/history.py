"""A record of calls and their outcomes, compared with what the servers ran.

    history = History()
    with history.call("charge", {"amount": 5}) as call:
        call.answer = await manager.call_tool("shop", call.tool, call.arguments)
    history.check(script)

Each call has a unique id in its arguments, and the server records the arguments of each run of a tool.
The rules that `check` applies, by name:

    ran at most once      a call that is not safe to repeat ran at most once
    not run               a call that failed as NOT_SENT or REJECTED ran zero times
    no answer invented    a call that was answered ran
    no answer mixed up    the answer has this call's id, if the tool repeats the id
    no answer lost        a call that the server answered completely did not fail, unless its deadline passed
    unknown, at once      a call whose answer was unusable (unreadable, another call's) has an unknown outcome, and did
    not wait for its deadline no call forgotten     every call has ended
    no run invented       a call that its handler reported as run did run
    no bug in the handler a handler raised only `MCPError` or `Said`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from mcp import MCPError
from typing_extensions import Self

from mcpconn.core.failures import Delivery
from mcpconn.errors import CallFailed, CallTimeout
from mcpconn.testing.scripted.records import Execution

NO_ANSWER_LOST = "no answer lost"
PENDING = object()
"""Represents a missing answer."""


class Server(Protocol):
    """A server that a history is compared with, such as a `Script`."""

    @property
    def calls(self) -> list[Execution]:
        """Every run of a tool."""

    @property
    def answered(self) -> list[Execution]:
        """The runs whose answer the client received completely."""

    # It may also have `spoiled`: the runs for which something was sent that is not an answer.


@dataclass(frozen=True)
class Violation:
    """A call whose reported outcome is wrong."""

    rule: str
    """The rule that was broken; see the module."""
    call: Call
    ran: int
    """How often the servers ran it."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.call}, and it ran {self.ran} times"


class HistoryError(AssertionError):
    """A history that breaks the rules."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("\n".join(map(str, self.violations)))


class Said(Exception):
    """How a handler described a failed call: raise it in `HandlerMachine.handle`.

    answer = json.loads(await my_handler(arguments))
    if "error" in answer:
        raise Said(answer["outcome"], answer["error"])
    """

    def __init__(self, outcome: str, text: str = "") -> None:
        """
        Args:
            outcome: `not_run`, `unknown`, or `ran` for a tool that ran and failed.
            text: The handler's text, for the report.

        Raises:
            ValueError: `outcome` is none of these.
        """
        if outcome not in ("not_run", "unknown", "ran"):
            raise ValueError(f"a handler says not_run, unknown or ran of a failed call, not {outcome!r}")
        super().__init__(str(outcome), text)
        self.outcome = str(outcome)


@dataclass(eq=False)
class Call:
    """One call, from its caller's side."""

    id: str
    tool: str
    arguments: dict[str, Any]
    """The tool's arguments, including the call's id."""
    safe: bool
    """Running it twice is harmless."""
    answer: Any = field(default=PENDING, repr=False)
    """The answer; set it inside the `with` block."""
    error: BaseException | None = None
    """The exception raised instead."""
    ended: bool = False
    bug: bool = False
    """Its handler raised neither `MCPError` nor `Said`, which is a bug in the handler."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.error = exc
        self.ended = True

    @property
    def outcome(self) -> str:
        """`pending`, `answered`, `error` (the application's), `not_run`, `unknown` or `cancelled`."""
        if not self.ended:
            return "pending"
        if self.error is None:
            return "answered" if self.answer is not PENDING else "unknown"
        if isinstance(self.error, (CallFailed, Said)):
            return self.error.outcome
        if isinstance(self.error, MCPError):
            return "error"
        return "unknown" if isinstance(self.error, Exception) else "cancelled"

    @property
    def delivery(self) -> Delivery | None:
        """If it failed, what the failure says about the request."""
        return self.error.failure.delivery if isinstance(self.error, CallFailed) else None

    def __str__(self) -> str:
        why = f" ({self.error!r})" if self.error is not None else ""
        safe = "safe" if self.safe else "not safe"
        return f"call {self.id} of {self.tool}, {safe} to repeat, ended as {self.outcome}{why}"


class History:
    """Calls and their outcomes."""

    def __init__(self, *, key: str = "call_id", prefix: str = "call-") -> None:
        """
        Args:
            key: The argument that carries a call's id.
            prefix: Prefix of ids; several histories of one server need different prefixes.
        """
        self.key = key
        self.calls: list[Call] = []
        self._prefix = prefix

    def call(self, tool: str, arguments: Mapping[str, Any] | None = None, *, safe: bool = False) -> Call:
        """A call that is made inside a `with` block. An exception of the block is recorded, and propagates.

        Args:
            tool: The tool's name.
            arguments: Its arguments; the call's id is added to them.
            safe: Running it twice is harmless: the tool is annotated so, or the call has `idempotent=True`.
        """
        name = f"{self._prefix}{len(self.calls) + 1}"
        call = Call(name, tool, {**(arguments or {}), self.key: name}, safe)
        self.calls.append(call)
        return call

    def violations(self, *servers: Server, pending: bool = False, lossy: bool = False) -> list[Violation]:
        """The calls that break a rule.

        Args:
            servers: All servers that the calls could have reached.
            pending: Calls may still be in progress.
            lossy: Data may be lost between server and client, as on a bad network.
        """
        ran = self._by_id(each for server in servers for each in server.calls)
        answered = self._by_id(each for server in servers for each in server.answered)
        spoiled = self._by_id(each for server in servers for each in getattr(server, "spoiled", ()))
        return [
            Violation(rule, call, ran[call.id])
            for call in self.calls
            for rule in _broken(call, ran[call.id], answered[call.id], spoiled[call.id], pending=pending, key=self.key)
            if not (lossy and rule == NO_ANSWER_LOST)
        ]

    def check(self, *servers: Server, pending: bool = False, lossy: bool = False) -> None:
        """As `violations`.

        Raises:
            HistoryError: there are some.
        """
        if found := self.violations(*servers, pending=pending, lossy=lossy):
            raise HistoryError(found)

    def outcomes(self) -> Counter[str]:
        """Number of calls by outcome."""
        return Counter(call.outcome for call in self.calls)

    def _by_id(self, executions: Iterable[Execution]) -> Counter[str]:
        return Counter(str(each.arguments[self.key]) for each in executions if self.key in each.arguments)


def _broken(call: Call, ran: int, answered: int, spoiled: int, *, pending: bool, key: str) -> Iterator[str]:
    outcome = call.outcome
    if call.bug:
        yield "no bug in the handler"
    if outcome == "ran" and not ran:
        yield "no run invented"
    if ran > 1 and not call.safe:
        yield "ran at most once"
    if ran and (outcome == "not_run" or call.delivery in (Delivery.NOT_SENT, Delivery.REJECTED)):
        yield "not run"
    if outcome == "answered" and not ran:
        yield "no answer invented"
    if outcome == "answered" and (told := _told(call.answer, key)) is not None and told != call.id:
        yield "no answer mixed up"
    if answered and isinstance(call.error, CallFailed) and not isinstance(call.error, CallTimeout):
        yield NO_ANSWER_LOST
    # A call that may be retried is retried, and then the outcome of the retry is reported.
    given_up = outcome == "unknown" and not isinstance(call.error, CallTimeout)
    if spoiled and not call.safe and not given_up and outcome not in ("pending", "cancelled"):
        yield "unknown, at once"
    if outcome == "pending" and not pending:
        yield "no call forgotten"


def _told(answer: Any, key: str) -> str | None:
    """The id that an answer repeats in its structured content; None if it does not."""
    structured = getattr(answer, "structured_content", None)
    return str(structured[key]) if isinstance(structured, Mapping) and key in structured else None
