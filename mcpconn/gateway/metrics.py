"""`/metrics` of a gateway: its connections by server, its own requests, and its process.

A gateway opens connections for its clients and closes them when they are idle. A sample for each would be a new series
for each client, and its counts would be gone with it. So a sample belongs to a server: it is the sum over the server's
own connection, those of its clients, and those that were closed before.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from starlette.types import Message, Send
from typing_extensions import Self

from mcpconn.asgi.metrics import ConnectionFamilies, exposition
from mcpconn.connection import Connection
from mcpconn.core.outcome import Outcome
from mcpconn.core.states import Event, State
from mcpconn.gateway.requests.audit import AuditLog
from mcpconn.gateway.servers.upstreams import MARK
from mcpconn.manager import Manager
from mcpconn.runtime.journal import Change
from mcpconn.version import __version__

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds: prometheus-client's own, and up to the minute that calls wait for an outage."""

METHODS = ("GET", "POST", "DELETE", "OPTIONS")
"""What clients make up themselves must not become a series each."""

ZEROS = dict.fromkeys((*(f"outcome.{each.value}" for each in Outcome), *(f"event.{each}" for each in Event)), 0)
"""The counts of a connection to which nothing has happened."""


class Requests:
    """Counts what the gateway's endpoints answered, and how long it took."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.statuses: Counter[tuple[str, int]] = Counter()
        """Answers by the request's method and the status."""
        self.buckets = [0] * (len(BUCKETS) + 1)
        """POST requests by the time they took, the last for longer ones. Other methods are streams."""
        self.seconds = 0.0
        """All their time."""
        self.in_flight = 0

    def counted(self, method: str, send: Send) -> Counted:
        """A request that is answered in the block; `send` is counted."""
        return Counted(self, method if method in METHODS else "other", send, self._now)


class Counted:
    """A request while it is answered: a context manager, whose value is the `send` that counts what passes through it.

    Not a function with a closure in a generator: the request of each open event stream has one of these.
    """

    __slots__ = ("_began", "_method", "_now", "_send", "_told")

    def __init__(self, told: Requests, method: str, send: Send, now: Callable[[], float]) -> None:
        self._told = told
        self._method = method
        self._send = send
        self._now = now
        self._began = now()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._told.statuses[self._method, message["status"]] += 1
        elif self._method == "POST" and not message.get("more_body"):
            took = self._now() - self._began
            self._told.buckets[bisect_left(BUCKETS, took)] += 1
            self._told.seconds += took
        await self._send(message)

    def __enter__(self) -> Self:
        self._told.in_flight += 1
        return self

    def __exit__(self, *exc: object) -> None:
        self._told.in_flight -= 1


class Metrics:
    """Reads a gateway at the moment of a scrape. Between scrapes it keeps the counts of connections that are closed."""

    def __init__(self, manager: Manager, requests: Requests, *, sessions: Callable[[], int]) -> None:
        """
        Args:
            manager: Holds the servers' own connections and those of clients.
            requests: What the endpoints answered.
            sessions: How many sessions of clients this process knows.
        """
        self._manager = manager
        self._requests = requests
        self._sessions = sessions
        self.audit: AuditLog | None = None
        """None: no audit is asked for."""
        self.draining = False
        self._held: set[Connection] = set()
        """Connections whose counts are not in `_gone`: all that were seen and are not closed, or are in use."""
        self._gone: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def follow(self) -> Callable[[], None]:
        """Begin to note connections before they are removed. Returns an unsubscribe function."""
        return self._manager.subscribe(self._changed)

    def _changed(self, change: Change) -> None:
        connection = self._manager.get(change.server)
        if connection is not None:
            self._held.add(connection)
        if change.target is State.CLOSED:
            self._settle()

    def _settle(self) -> None:
        """Move the counts of removed connections to their server, once no call of theirs can add to them."""
        for connection in tuple(self._held):
            present = connection.name in self._manager and self._manager[connection.name] is connection
            if not present and connection.state is State.CLOSED and not connection.status()["in_flight"]:
                self._held.discard(connection)
                self._gone[server_of(connection)].update(connection.journal.counts)

    def render(self) -> tuple[bytes, str]:
        """The metrics, and their media type.

        Raises:
            MetricsUnavailable: prometheus-client is missing.
        """
        self._settle()
        return exposition(self._families, process=True)

    def _families(self) -> Iterable[Any]:
        yield from self._of_servers()
        yield from self._of_gateway()

    def _of_servers(self) -> Iterable[Any]:
        from prometheus_client.core import GaugeMetricFamily

        families = ConnectionFamilies()
        labels = ["connection", "state"]
        many = GaugeMetricFamily("mcpconn_connections", "Connections, clients' included.", labels=labels)
        counts = {name: Counter(gone) for name, gone in self._gone.items()}
        states: defaultdict[str, Counter[State]] = defaultdict(Counter)
        in_flight: Counter[str] = Counter()
        waiting: Counter[str] = Counter()
        for connection in {*self._manager.values(), *self._held}:
            name = server_of(connection)
            status = connection.status()
            counts.setdefault(name, Counter()).update(connection.journal.counts)
            in_flight[name] += status["in_flight"]
            waiting[name] += status["waiting"]
            states[name][connection.state] += 1
            if connection.name == name and self._manager.get(name) is connection:
                families.add_state(name, status)
        for name in sorted(counts):
            for each in State:
                many.add_metric([name, each.value], states[name][each])
            # Zeros, too: `increase` does not see a series begin, and the first unknown outcome is the one to tell.
            families.add_calls(name, {**ZEROS, **counts[name]}, in_flight=in_flight[name], waiting=waiting[name])
        return (*families.all, many)

    def _of_gateway(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        told = self._requests
        answers = CounterMetricFamily("mcpconn_gateway_requests", "Answers.", labels=["method", "status"])
        for (method, status), count in sorted(told.statuses.items()):
            answers.add_metric([method, str(status)], count)
        bounds: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), told.buckets, strict=True):
            bounds.append((bound, (bounds[-1][1] if bounds else 0) + count))
        took = HistogramMetricFamily("mcpconn_gateway_request_seconds", "POST requests, from head to end.", labels=[])
        took.add_metric([], bounds, told.seconds)
        version = GaugeMetricFamily("mcpconn_gateway_info", "1.", labels=["version"])
        version.add_metric([__version__], 1)
        yield from (answers, took, version)
        yield GaugeMetricFamily("mcpconn_gateway_requests_in_flight", "Requests, streams included.", told.in_flight)
        yield GaugeMetricFamily("mcpconn_gateway_sessions", "Sessions of legacy clients.", self._sessions())
        yield GaugeMetricFamily("mcpconn_gateway_draining", "1 after its shutdown has begun.", float(self.draining))
        if self.audit is not None:
            yield CounterMetricFamily("mcpconn_gateway_audit_failures", "Lines not written.", self.audit.failures)


def server_of(connection: Connection) -> str:
    """The server's name, which is the part before a client's in the connection's name."""
    return connection.name.partition(MARK)[0]
