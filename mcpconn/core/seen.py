"""Evidence in a normalized form for matching: the whole tree of exceptions, their type names, one lower-case text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from mcpconn.core.failures import Evidence, Trouble
from mcpconn.core.phrases import is_session_refusal, names_session

# Types are recognized by name, because the core imports no I/O library: asyncio's and concurrent.futures'
# CancelledError, trio's Cancelled.
CANCELLED_NAMES = frozenset({"CancelledError", "Cancelled"})


def walk(error: BaseException) -> Iterator[BaseException]:
    """`error`, the members of its groups, and all their causes and contexts, each once."""
    pending: list[BaseException] = [error]
    met: set[int] = set()
    while pending:
        current = pending.pop(0)
        if id(current) in met:
            continue
        met.add(id(current))
        yield current
        # Duck-typed, because Python 3.10 has no ExceptionGroup, and the core does not import its backport.
        members = getattr(current, "exceptions", None)
        if isinstance(members, (tuple, list)):
            pending.extend(member for member in members if isinstance(member, BaseException))
        behind = current.__cause__
        if behind is None and not current.__suppress_context__:
            behind = current.__context__
        if behind is None:
            continue
        # A timer that fires cancels, and then raises TimeoutError from (`asyncio.timeout`) or while handling
        # (`anyio.fail_after`) that cancellation, which belongs to the timer, not the caller. Python 3.10 has several
        # TimeoutErrors, so this type is recognized by name too.
        timed_out = any(base.__name__ == "TimeoutError" for base in type(current).__mro__)
        spent = timed_out and type(behind).__name__ in CANCELLED_NAMES
        if not spent:
            pending.append(behind)


class Seen:
    """Evidence with derived values that the rules use."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.errors: tuple[BaseException, ...] = tuple(walk(evidence.exception)) if evidence.exception else ()
        code, message = evidence.code, evidence.message
        if code is None and evidence.http_status is None:
            code, message = self._from_errors(message)
        self.code: int | None = code
        """The JSON-RPC code; if the evidence has none, that of an `MCPError` among the exceptions."""
        self.message: str | None = message
        # Attributes and no properties, because most rules read them.
        self.status: int = evidence.http_status or 0
        """The HTTP status; 0 if there was no response."""
        self.local: bool = evidence.from_wire is not True
        """Whether the JSON-RPC error may have been created locally."""

    def _from_errors(self, message: str | None) -> tuple[int | None, str | None]:
        for error in self.errors:
            data: Any = getattr(error, "error", None)
            code = getattr(data, "code", None)
            if isinstance(code, int):
                return code, message or str(getattr(data, "message", "") or "")
        return None, message

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the types, and their bases, of all exceptions."""
        return frozenset(base.__name__ for error in self.errors for base in type(error).__mro__)

    @cached_property
    def text(self) -> str:
        """The text in lower case: the message, or the texts of the exceptions if there is no message."""
        if self.message:
            return self.message.strip().lower()
        return "\n".join(text for error in self.errors if (text := str(error).strip())).lower()

    @cached_property
    def names_session(self) -> bool:
        """Whether the text contains a known phrase for an unknown session."""
        return names_session(self.text)

    @cached_property
    def refuses_session(self) -> bool:
        """Whether the text consists of such a phrase only: the error of a tool that has run would say more."""
        return is_session_refusal(self.text)

    @cached_property
    def cancelled(self) -> bool:
        """Whether a cancellation or an interrupt is anywhere in it."""
        return not CANCELLED_NAMES.isdisjoint(self.names) or any(
            isinstance(error, (KeyboardInterrupt, InterruptedError)) for error in self.errors
        )

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return (self.evidence.content_type or "").partition(";")[0].strip().lower()

    def told(self, attribute: str) -> Any:
        """The classification that an exception of mcpconn carries; None if there is none."""
        for error in self.errors:
            value = getattr(error, attribute, None)
            if value is not None:
                return value
        return None

    @cached_property
    def troubles(self) -> tuple[Any, ...]:
        """The classifications that exceptions of mcpconn carry in `trouble`."""
        return tuple(getattr(error, "trouble", None) for error in self.errors)

    def is_own(self, trouble: Trouble) -> bool:
        """Whether any exception of mcpconn carries this classification."""
        return trouble in self.troubles

    def is_a(self, *names: str) -> bool:
        """Whether any exception has a type with this name, or a subtype."""
        return not self.names.isdisjoint(names)


def detach(error: BaseException, handled: BaseException | None) -> None:
    """Remove the exception that the caller was handling from the chain of `error`, because it is not a cause.

    Python adds it, and a call made while a cancellation is being handled would look cancelled.
    """
    if handled is None:
        return
    for each in tuple(walk(error)):
        # Only this link is removed: causes that the SDK set itself are evidence.
        if each.__context__ is handled:
            each.__context__ = None


def forget_tracebacks(*errors: BaseException | None) -> None:
    """Remove the tracebacks of `errors` and of everything behind them, which hold the frames of what failed."""
    pending = list(errors)
    met: set[int] = set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in met:
            continue
        met.add(id(current))
        current.__traceback__ = None
        # Unlike in `walk`, because causes that are no evidence hold frames too.
        pending += [current.__cause__, current.__context__]
        members = getattr(current, "exceptions", None)
        if isinstance(members, (tuple, list)):
            pending += [member for member in members if isinstance(member, BaseException)]
