"""Results that do not have the form that the protocol requires."""

from __future__ import annotations

from pydantic import ValidationError

from mcpconn.core.attempt import Attempt

_OWN = ("Params", "Request", "Notification")
"""Ends of the names of what a client sends. Of these an error is the caller's."""


class Misfit(ValueError):
    """An answer to the handshake with the wrong form. The text names fields but does not quote values."""


def unquoted(error: BaseException) -> BaseException:
    """`error`, or a `Misfit` if it is one of validation: its own text quotes what the server sent."""
    if not isinstance(error, ValidationError):
        return error
    return Misfit(f"the result is not a valid {error.title}: {fault_of(error)}")


def misfit(error: BaseException, attempt: Attempt, *, streams: bool, raises: bool) -> str | None:
    """What is wrong with the result of an attempt, if `error` concerns its form. The result is not quoted.

    Args:
        error: What the SDK raised.
        attempt: The record of the attempt.
        streams: All messages pass the streams of this package, which note in the record that there was an answer.
        raises: A server in this process raises its own exceptions here (`raise_exceptions`).
    """
    if not isinstance(error, ValidationError) or error.title.endswith(_OWN):
        return None
    if not (attempt.answered if streams else not raises):
        return None
    return f"the result is not a valid {error.title}: {fault_of(error)}"


def fault_of(error: ValidationError) -> str:
    """The first field that is wrong, and what is wrong with it."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(str(part) for part in found[0]["loc"]) if found else ""
    what = found[0]["msg"] if found else "it cannot be read"
    return f"{where}: {what}" if where else what
