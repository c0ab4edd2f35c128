"""One session of a connection: an open link, the calls on it, and how it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import anyio
from anyio.abc import TaskStatus

from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.core.failures import Failure
from mcpconn.runtime.protocols import Link


class Session:
    """A session, from its dial to its end. It lives in a task of its own (`hold`).

    It must: the SDK's transports raise into the task group they run in, and would cancel whoever called.
    """

    __slots__ = (
        "answered",
        "answers",
        "cleared",
        "drained",
        "epoch",
        "errors_in_a_row",
        "established_at",
        "gone",
        "in_flight",
        "keepalive",
        "last_used",
        "link",
        "lost",
        "mute",
        "probed_at",
        "proven",
        "retired",
        "suspected",
        "unanswered",
    )

    def __init__(self) -> None:
        self.link: Link | None = None
        self.epoch = 0
        self.established_at = 0.0
        self.last_used = 0.0
        self.probed_at = 0.0
        """When it was last asked whether it lives, because nobody used it."""
        self.keepalive: float | None = None
        """Seconds without use after which it is asked the next time; None: never."""
        self.proven = False
        """A call or a probe succeeded on it."""
        self.answers = 0
        """Calls that were answered on it. Probes do not count."""
        self.errors_in_a_row = 0
        """Calls that failed on it since the last one that was answered."""
        self.suspected = False
        """A call failed on it in a way that is not plainly that call's own."""
        self.cleared: int | None = None
        """`answers` when a probe last settled a suspicion in its favour; None before the first."""
        self.mute: set[str] = set()
        """Probe requests that it does not answer, though it answers others."""
        # One answer forgives the keepalive probes that were missed.
        self.unanswered = 0
        """Keepalive probes in a row that were not answered."""
        self.in_flight = 0
        """Calls issued on it and not yet over."""
        self.lost: Failure | None = None
        """Why it was given up, once it was."""
        self.answered = anyio.Event()
        """Set once it is proven."""
        self.retired = anyio.Event()
        self.drained = anyio.Event()
        self.gone = anyio.Event()

    def enter(self) -> Link:
        """A call is issued on it."""
        assert self.link is not None
        # Counted here and not at the gate: a retired session drains while the gate lets calls through to its successor.
        self.in_flight += 1
        return self.link

    def leave(self) -> None:
        """A call on it is over."""
        self.in_flight -= 1
        # The last call of a retired session ends it; a session in use has no end of this kind.
        if self.in_flight == 0 and self.retired.is_set():
            self.drained.set()

    def passed(self) -> None:
        """A probe was answered on it."""
        self.proven = True
        self.unanswered = 0
        self.answered.set()

    def retire(self, *, lost: Failure | None = None) -> None:
        """No further calls: end it when those in flight are done.

        Args:
            lost: Why it is known to be gone, if it is: then the session is not ended with a DELETE.
        """
        if lost is not None and self.link is not None:
            # The first reason stays: what fails after it is its consequence.
            self.lost = self.lost or lost
            self.link.mark_lost()
        self.retired.set()
        if self.in_flight == 0:
            self.drained.set()

    def abandon(self) -> None:
        """Do not wait for calls in flight any longer."""
        self.retired.set()
        self.drained.set()

    async def hold(
        self,
        opening: AbstractAsyncContextManager[Link],
        broke: Callable[[Session, Exception], None],
        prepare: Callable[[Link], Awaitable[None]],
        *,
        task_status: TaskStatus[Session],
    ) -> None:
        """Open the link, keep it until the session is retired and drained, close it.

        Args:
            opening: The link, not yet open.
            broke: Told of an error that ended the session from within.
            prepare: Brings the session into the state its predecessor was in.
            task_status: Told when the session can be used.
        """
        attempt = Attempt("dial")
        # This task is the session's own, so its context needs no resetting.
        ATTEMPT.set(attempt)
        try:
            async with opening as link:
                await prepare(link)
                self.link = link
                task_status.started(self)
                # Two waits: a session may be retired with calls in flight, which finish on it.
                await self.retired.wait()
                await self.drained.wait()
        except Exception as error:
            if self.link is None:
                raise
            # The SDK raised out of an open session. To the caller of `start` this would be the failure of a dial.
            broke(self, error)
        finally:
            # Whatever happened: `close` waits for this.
            self.gone.set()
