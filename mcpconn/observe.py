"""Logs: one line a transition, one a replay, one a failed call. Nothing above debug for a call that succeeds.

The events go to the standard library's logger `mcpconn`, rendered by structlog: a host that uses only the
standard library reads plain lines, one that uses structlog gets the fields.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog

from mcpconn.core.states import Event, State
from mcpconn.runtime.journal import Change, Finished, Notice, Replay

# The `transitions` library logs at INFO under its own name; a host that does not want that sets the level of
# the logger "transitions".
log: Any = structlog.wrap_logger(
    logging.getLogger("mcpconn"),
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.processors.KeyValueRenderer(key_order=["event", "connection"], drop_missing=True),
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)


def log_notice(notice: Notice) -> None:
    """Write a notice of a connection to the log."""
    if isinstance(notice, Change):
        _log_change(notice)
    elif isinstance(notice, Replay):
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
    else:
        _log_finished(notice)


def _log_change(change: Change) -> None:
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
        log.error("connection.failed", **fields)
    elif change.event is Event.ESTABLISHED and change.source is State.RECONNECTING:
        log.info("connection.recovered", **fields)
    elif change.target is State.RECONNECTING or change.event is Event.ATTEMPT_FAILED:
        log.warning("connection.reconnecting", **fields)
    elif change.event is Event.ESTABLISHED:
        log.info("connection.ready", **fields)
    else:
        log.debug(f"connection.{change.event.value}", **fields)


def _log_finished(call: Finished) -> None:
    fields: dict[str, Any] = {
        "connection": call.server,
        "method": call.method,
        "epoch": call.epoch,
        "outcome": call.outcome,
        "attempt": call.attempts,
        "elapsed": round(call.elapsed, 3),
    }
    if call.outcome in ("answered", "error", "cancelled") or call.failure is None:
        log.debug("call.finished", **fields)
        return
    log.warning(
        "call.failed",
        kind=call.failure.kind.value,
        delivery=call.failure.delivery.value,
        why=call.failure.summary,
        **fields,
    )
