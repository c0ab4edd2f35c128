"""`/metrics` in Prometheus's format, read from the connections at the moment of a scrape: a call costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mcpconn.core.states import State
from mcpconn.manager import Manager


class MetricsUnavailable(Exception):
    """prometheus-client is not installed."""


def exposition(collect: Callable[[], Iterable[Any]], *, process: bool = False) -> tuple[bytes, str]:
    """Metric families as a scrape is answered: the body, and its media type.

    Args:
        collect: Makes the families.
        process: Add those of this process: its memory, processor time and files.

    Raises:
        MetricsUnavailable: prometheus-client is missing.
    """
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
        from prometheus_client.exposition import CONTENT_TYPE_LATEST
        from prometheus_client.registry import Collector
    except ModuleNotFoundError:
        raise MetricsUnavailable("/metrics needs prometheus-client: install the extra `metrics`") from None

    class Families(Collector):
        def collect(self) -> Iterable[Any]:
            return collect()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families())
    if process:
        ProcessCollector(registry=registry)
    return generate_latest(registry), CONTENT_TYPE_LATEST


class ConnectionFamilies:
    """What is known of connections, a family for each fact, whose samples have the label `connection`."""

    def __init__(self) -> None:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        one = ["connection"]
        self._state = GaugeMetricFamily("mcpconn_connection_state", "1 for the current state.", labels=[*one, "state"])
        self._since = GaugeMetricFamily(
            "mcpconn_connection_since_seconds", "Time at which the current state was entered.", labels=one
        )
        self._epoch = GaugeMetricFamily("mcpconn_connection_epoch", "Number of the current session.", labels=one)
        self._flight = GaugeMetricFamily("mcpconn_calls_in_flight", "Calls issued and not answered.", labels=one)
        self._waiting = GaugeMetricFamily("mcpconn_calls_waiting", "Calls waiting for the connection.", labels=one)
        self._calls = CounterMetricFamily("mcpconn_calls", "Finished calls.", labels=[*one, "outcome"])
        self._replays = CounterMetricFamily("mcpconn_replays", "Calls that were retried.", labels=one)
        self._events = CounterMetricFamily("mcpconn_transitions", "Events of the machine.", labels=[*one, "event"])

    def add_state(self, name: str, status: Mapping[str, Any]) -> None:
        """The state and the session of one connection.

        Args:
            name: Value of the label.
            status: As `Connection.status()`.
        """
        for each in State:
            self._state.add_metric([name, each.value], float(status["state"] == each.value))
        if status["since"] is not None:
            self._since.add_metric([name], status["since"])
        self._epoch.add_metric([name], status["epoch"])

    def add_calls(self, name: str, counts: Mapping[str, int], *, in_flight: int, waiting: int) -> None:
        """What became of calls.

        Args:
            name: Value of the label.
            counts: As `Journal.counts`.
            in_flight: Calls that are issued now.
            waiting: Calls that wait now.
        """
        self._flight.add_metric([name], in_flight)
        self._waiting.add_metric([name], waiting)
        self._replays.add_metric([name], counts.get("replayed", 0))
        for key, value in counts.items():
            kind, _, what = key.partition(".")
            if kind == "outcome":
                self._calls.add_metric([name, what], value)
            elif kind == "event":
                self._events.add_metric([name, what], value)

    @property
    def all(self) -> tuple[Any, ...]:
        """The families, with the samples so far."""
        gauges = (self._state, self._since, self._epoch, self._flight, self._waiting)
        return (*gauges, self._calls, self._replays, self._events)


def render(manager: Manager) -> tuple[bytes, str]:
    """The metrics of all connections, and their media type.

    Raises:
        MetricsUnavailable: prometheus-client is missing.
    """

    def collect() -> Iterable[Any]:
        families = ConnectionFamilies()
        for name, connection in manager.items():
            status = connection.status()
            families.add_state(name, status)
            families.add_calls(name, status["counts"], in_flight=status["in_flight"], waiting=status["waiting"])
        return families.all

    return exposition(collect)
