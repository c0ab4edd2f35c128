"""The requests of one probe, which may run concurrently, each with its own record and verdict."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from mcpconn.core.attempt import ATTEMPT
from mcpconn.core.failures import Evidence, Failure, FailureKind
from mcpconn.runtime.protocols import Link


class Request:
    """One request of a probe."""

    __slots__ = ("failure", "method", "over")

    def __init__(self, method: str) -> None:
        self.method = method
        self.failure: Failure | None = None
        """Why it was not answered. While the request is in progress, the reason is that no answer has come yet."""
        self.over = False

    @property
    def answered(self) -> bool:
        """The server answered, on this session."""
        return self.over and self.failure is None

    @property
    def silent(self) -> bool:
        """There was no response: neither an answer nor a refusal."""
        return self.failure is not None and self.failure.kind is FailureKind.TIMEOUT


class Inquiry:
    """Sends the requests of one probe and waits for their results, within one time limit."""

    def __init__(self, link: Link, group: TaskGroup, classify: Callable[[Evidence], Failure], *, until: float) -> None:
        """
        Args:
            link: The session to probe.
            group: Runs the requests; the caller cancels it when it has its answer.
            classify: From evidence to failure.
            until: The deadline, on the event loop's clock.
        """
        self._link = link
        self._group = group
        self._classify = classify
        self._until = until
        self._news = anyio.Event()

    def send(self, method: str) -> Request:
        """Send a request. It continues while others are sent."""
        request = Request(method)
        self._group.start_soon(self._run, request)
        return request

    async def _run(self, request: Request) -> None:
        attempt = self._link.new_attempt("probe")
        # This task is the request's own, so its context needs no resetting.
        ATTEMPT.set(attempt)
        try:
            with anyio.fail_after(max(0.0, self._until - anyio.current_time())):
                await self._link.probe(request.method)
        except Exception as error:
            request.failure = self._classify(self._link.evidence(error, attempt))
        request.over = True
        # A waiter checks all requests again; a new event is created for the next request that ends.
        news, self._news = self._news, anyio.Event()
        news.set()

    async def wait(self, done: Callable[[], bool]) -> None:
        """Return when `done()` is true. It is evaluated whenever a request ends."""
        while not done():
            await self._news.wait()
