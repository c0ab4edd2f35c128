"""Logs one line per transition, per replay, and per failed call. Nothing is logged above debug level for a call that
succeeds.

The events are structlog's, and go to the standard library's logger `mcpconn`. A host without structlog gets plain
lines, `connection.recovered connection=fs epoch=2 ...`; a host that wants the fields finds them in the record, as
`record.mcpconn`. structlog uses `event` for the name of the line, so the field for the machine's event is `on`.

The `transitions` library logs every step at INFO under its own name. A host that does not want these lines sets the
level of the logger "transitions"; mcpconn does not change it.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from functools import cache
from typing import Any

from mcpconn.core.outcome import Outcome
from mcpconn.core.states import Event, State
from mcpconn.runtime.journal import Change, Finished, Notice
from mcpconn.runtime.refusals import advice


def _render(_: Any, __: str, fields: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    """The last processor: passes the line as the message, and the fields separately."""
    extra = {"mcpconn": dict(fields)}
    traceback = fields.pop("exc_info", None)
    name = fields.pop("event")
    words = [f"{key}={_word(value)}" for key, value in fields.items()]
    # The message is used as a format by the standard library, with no arguments: nothing is replaced in it.
    return (" ".join([name, *words]),), {"extra": extra, "exc_info": traceback}


def _word(value: Any) -> str:
    text = str(value)
    return repr(text) if not text or " " in text else text


logger = logging.getLogger("mcpconn")


@cache
def prepare() -> Any:
    """structlog's logger. It is created with the first connection: importing structlog takes as long as importing this
    package, because it imports rich if that is installed, and a program that only reads a configuration logs
    nothing."""
    import structlog

    # Bound here: what `wrap_logger` returns makes a logger for each line.
    return structlog.wrap_logger(
        logger, processors=[structlog.stdlib.filter_by_level, _render], wrapper_class=structlog.stdlib.BoundLogger
    ).bind()


class _Log:
    def __getattr__(self, name: str) -> Any:
        return getattr(prepare(), name)


log: Any = _Log()


def logs_answers() -> bool:
    """Whether a successful call is logged."""
    return logger.isEnabledFor(logging.DEBUG)


def log_notice(notice: Notice) -> None:
    """Write a notice of a connection to the log."""
    if isinstance(notice, Finished):
        _log_finished(notice)
    elif isinstance(notice, Change):
        _log_change(notice)
    else:
        log.info(
            "call.replayed",
            connection=notice.server,
            method=notice.method,
            epoch=notice.epoch,
            attempt=notice.attempt,
            kind=notice.failure.kind.value,
            delivery=notice.failure.delivery.value,
            why=notice.failure.summary,
        )


def _log_change(change: Change) -> None:
    level, name = _line(change)
    if not logger.isEnabledFor(level):
        return
    fields: dict[str, Any] = {
        "connection": change.server,
        "epoch": change.epoch,
        "from": change.source.value,
        "to": change.target.value,
        "on": change.event.value,
        "elapsed": round(change.elapsed, 3),
    }
    if change.attempt:
        fields["attempt"] = change.attempt
    if change.wait is not None:
        fields["wait"] = round(change.wait, 3)
    if change.failure is not None:
        fields |= {
            "kind": change.failure.kind.value,
            "delivery": change.failure.delivery.value,
            "why": change.failure.summary,
        }
    if change.target is State.FAILED:
        fields["do"] = advice(change.failure, change.wait)
    log.log(level, name, **fields)


def _line(change: Change) -> tuple[int, str]:
    """The log level of a transition, and the name of its line."""
    if change.target is State.FAILED:
        return logging.ERROR, "connection.failed"
    if change.event is Event.ESTABLISHED:
        recovered = change.source is State.RECONNECTING
        return logging.INFO, "connection.recovered" if recovered else "connection.ready"
    if change.event is Event.ATTEMPT_FAILED:
        # A server that is down for an hour while calls wait is dialled every second: the first attempts are logged, and
        # then one each time their number has doubled.
        rare = change.attempt & (change.attempt - 1) == 0
        name = "connection.connecting" if change.source is State.CONNECTING else "connection.reconnecting"
        return logging.WARNING if rare else logging.DEBUG, name
    if change.target is State.RECONNECTING:
        return logging.WARNING, "connection.reconnecting"
    return logging.DEBUG, f"connection.{change.event.value}"


def _log_finished(call: Finished) -> None:
    quiet = call.failure is None or call.outcome in (Outcome.ANSWERED, Outcome.ERROR, Outcome.CANCELLED)
    if quiet and not logs_answers():
        return
    fields: dict[str, Any] = {
        "connection": call.server,
        "method": call.method,
        "epoch": call.epoch,
        "outcome": call.outcome.value,
        "attempt": call.attempts,
        "elapsed": round(call.elapsed, 3),
    }
    if quiet or call.failure is None:
        log.debug("call.finished", **fields)
        return
    kind, delivery, why = call.failure.kind.value, call.failure.delivery.value, call.failure.summary
    log.warning("call.failed", **fields, kind=kind, delivery=delivery, why=why)
