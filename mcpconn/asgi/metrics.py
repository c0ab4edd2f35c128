"""`/metrics` in Prometheus's format, read from the connections at the moment of a scrape: a call costs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mcpconn.core.states import State
from mcpconn.manager import Manager


class MetricsUnavailable(Exception):
    """prometheus-client is not installed."""


def render(manager: Manager) -> tuple[bytes, str]:
    """The metrics of all connections, and their media type.

    Raises:
        MetricsUnavailable: prometheus-client is missing.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.exposition import CONTENT_TYPE_LATEST
    except ModuleNotFoundError:
        raise MetricsUnavailable("/metrics needs prometheus-client: install the extra `metrics`") from None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_collector(manager))
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _collector(manager: Manager) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector

    class Connections(Collector):
        """One family a fact, one sample a connection."""

        def collect(self) -> Iterable[Metric]:
            one = ["connection"]
            state = GaugeMetricFamily("mcpconn_connection_state", "1 for the present state.", labels=[*one, "state"])
            since = GaugeMetricFamily("mcpconn_connection_since_seconds", "When it entered its state.", labels=one)
            epoch = GaugeMetricFamily("mcpconn_connection_epoch", "Number of the current session.", labels=one)
            flight = GaugeMetricFamily("mcpconn_calls_in_flight", "Calls issued and not answered.", labels=one)
            waiting = GaugeMetricFamily("mcpconn_calls_waiting", "Calls waiting for the connection.", labels=one)
            calls = CounterMetricFamily("mcpconn_calls", "Calls that are over.", labels=[*one, "outcome"])
            replays = CounterMetricFamily("mcpconn_replays", "Calls that were retried.", labels=one)
            events = CounterMetricFamily("mcpconn_transitions", "Events of the machine.", labels=[*one, "event"])
            for name, connection in manager.items():
                status = connection.status()
                for each in State:
                    state.add_metric([name, each.value], float(status["state"] == each.value))
                if status["since"] is not None:
                    since.add_metric([name], status["since"])
                epoch.add_metric([name], status["epoch"])
                flight.add_metric([name], status["in_flight"])
                waiting.add_metric([name], status["waiting"])
                counts = status["counts"]
                replays.add_metric([name], counts.get("replayed", 0))
                for key, value in counts.items():
                    kind, _, what = key.partition(".")
                    if kind == "outcome":
                        calls.add_metric([name, what], value)
                    elif kind == "event":
                        events.add_metric([name, what], value)
            return (state, since, epoch, flight, waiting, calls, replays, events)

    return Connections()
