"""Metrics and traces through OpenTelemetry's API, a dependency of mcp. Without an SDK they cost almost nothing.

| instrument | kind | attributes |
|---|---|---|
| mcpconn.connection.state | gauge, 1 for the current state | connection, state |
| mcpconn.connection.transitions | counter | connection, from, event, to |
| mcpconn.connection.dials | counter | connection, outcome |
| mcpconn.connection.recovery | histogram, s | connection, kind |
| mcpconn.calls | counter | connection, method, outcome |
| mcpconn.calls.in_flight, mcpconn.calls.waiting | gauges | connection |
| mcpconn.call.duration, mcpconn.call.blocked | histograms, s | connection, method |
| mcpconn.call.replays | counter | connection, method, kind, delivery |

A call is a span, `mcpconn tools/call NAME`, with its waits and replays as events; the SDK's spans are inside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet, ref

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from mcpconn.core.failures import FailureKind
from mcpconn.core.outcome import Outcome
from mcpconn.core.states import TRANSITIONS, Event, State
from mcpconn.runtime.journal import Change, Finished, Notice, Replay
from mcpconn.runtime.lifecycle import Lifecycle

_tracer = trace.get_tracer("mcpconn")
_meter = metrics.get_meter("mcpconn")
_watched: WeakSet[Lifecycle] = WeakSet()
"""Connections whose state the gauges report, until they are closed. Weak references, so that measuring does not keep a
connection alive."""

_EDGES = {
    (row.source, row.event): {"from": row.source.value, "event": row.event.value, "to": row.target.value}
    for row in TRANSITIONS
}
"""The attributes of each transition. Looked up, because an outage is a dozen transitions of every connection."""
_traced = False
"""Whether any call of this process was ever recorded as a span, because looking up the current span takes time."""


def _states(options: CallbackOptions) -> Iterable[Observation]:
    for lifecycle in tuple(_watched):
        yield Observation(1, {"connection": lifecycle.name, "state": lifecycle.state.value})


def _in_flight(options: CallbackOptions) -> Iterable[Observation]:
    for lifecycle in tuple(_watched):
        yield Observation(lifecycle.gate.in_flight, {"connection": lifecycle.name})


def _waiting(options: CallbackOptions) -> Iterable[Observation]:
    for lifecycle in tuple(_watched):
        yield Observation(lifecycle.gate.waiting, {"connection": lifecycle.name})


_meter.create_observable_gauge("mcpconn.connection.state", [_states], description="1 for the current state")
_meter.create_observable_gauge("mcpconn.calls.in_flight", [_in_flight], description="calls issued and not answered")
_meter.create_observable_gauge("mcpconn.calls.waiting", [_waiting], description="calls waiting for the connection")
_transitions = _meter.create_counter("mcpconn.connection.transitions", description="transitions of the state machine")
_dials = _meter.create_counter("mcpconn.connection.dials", description="attempts to open a session")
_recovery = _meter.create_histogram("mcpconn.connection.recovery", "s", "from the loss of a session to the next one")
_calls = _meter.create_counter("mcpconn.calls", description="finished calls")
_duration = _meter.create_histogram("mcpconn.call.duration", "s", "a whole call, including waits and replays")
_blocked = _meter.create_histogram("mcpconn.call.blocked", "s", "the part of a call spent waiting for its connection")
_replays = _meter.create_counter("mcpconn.call.replays", description="calls retried")


def measuring() -> bool:
    """Whether calls are measured: a provider of metrics was set, or a call was recorded as a span."""
    # The default classes of OpenTelemetry's API, used until a provider is set, record nothing.
    provider = type(metrics.get_meter_provider())
    return _traced or not provider.__module__.startswith("opentelemetry.metrics")


class Meter:
    """Converts one connection's notices into measurements."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        _watched.add(lifecycle)
        self._of = ref(lifecycle)
        self._lost: FailureKind | None = None
        self._lost_at = 0.0
        self._attributes: dict[tuple[str, str], tuple[dict[str, str], dict[str, str]]] = {}
        """Cached per method and outcome, so that they are not created for every call."""

    def __call__(self, notice: Notice) -> None:
        """Measure a notice. A listener of the connection's journal."""
        if isinstance(notice, Finished):
            self._finished(notice)
        elif isinstance(notice, Change):
            self._change(notice)
        else:
            self._replay(notice)

    def _change(self, change: Change) -> None:
        name = change.server
        if change.target is State.CLOSED and (lifecycle := self._of()) is not None:
            _watched.discard(lifecycle)
        _transitions.add(1, {"connection": name, **_EDGES[change.source, change.event]})
        if change.event is Event.LOST and change.failure is not None:
            self._lost, self._lost_at = change.failure.kind, change.at
        elif change.event is Event.ESTABLISHED:
            _dials.add(1, {"connection": name, "outcome": "established"})
            if self._lost is not None:
                _recovery.record(max(0.0, change.at - self._lost_at), {"connection": name, "kind": self._lost.value})
            self._lost = None
        elif change.source in (State.CONNECTING, State.RECONNECTING) and change.failure is not None:
            _dials.add(1, {"connection": name, "outcome": change.failure.kind.value})

    def _replay(self, replay: Replay) -> None:
        kind, delivery = replay.failure.kind.value, replay.failure.delivery.value
        _replays.add(1, {"connection": replay.server, "method": replay.method, "kind": kind, "delivery": delivery})
        # The notice is delivered in the call's own context, in which its span is the current one.
        trace.get_current_span().add_event(
            "mcpconn.replay",
            {"kind": kind, "delivery": delivery, "why": replay.failure.summary, "epoch": replay.epoch},
        )

    def _finished(self, call: Finished) -> None:
        self._count(call)
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attribute("mcpconn.epoch", call.epoch)
            span.set_attribute("mcpconn.attempts", call.attempts)
            span.set_attribute("mcpconn.outcome", call.outcome.value)
            if call.blocked:
                span.add_event("mcpconn.waited", {"seconds": call.blocked})
            if call.outcome not in (Outcome.ANSWERED, Outcome.CANCELLED) and call.failure is not None:
                span.set_status(Status(StatusCode.ERROR, call.failure.summary))

    def _count(self, call: Finished) -> None:
        key = call.method, call.outcome.value
        if key not in self._attributes:
            attributes = {"connection": call.server, "method": call.method}
            self._attributes[key] = attributes, {**attributes, "outcome": call.outcome.value}
        attributes, with_outcome = self._attributes[key]
        _calls.add(1, with_outcome)
        _duration.record(call.elapsed, attributes)
        if call.blocked:
            _blocked.record(call.blocked, attributes)


def start_span(server: str, method: str, target: str | None) -> Span | None:
    """A span for one call; None if spans are not recorded."""
    name = f"mcpconn {method} {target}" if target else f"mcpconn {method}"
    span = _tracer.start_span(name, kind=SpanKind.CLIENT)
    if not span.is_recording():
        return None
    global _traced
    _traced = True
    span.set_attribute("mcpconn.connection", server)
    span.set_attribute("mcp.method.name", method)
    return span


def within(span: Span) -> Any:
    """Make `span` the current one for a block, and end it there. The connection has already recorded any error."""
    return trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False)
