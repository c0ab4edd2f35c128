"""One session of a connection: an open link, the calls on it, and how it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from anyio.abc import TaskStatus

from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.core.failures import Failure
from mcpconn.flag import Flag
from mcpconn.runtime.protocols import Link


class Session:
    """A session, from its dial to its end. It lives in a task of its own (`hold`).

    This is necessary because the SDK's transports raise into the task group that they run in, which would cancel the
    caller.
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
        """When it was last probed because it was not used."""
        self.keepalive: float | None = None
        """Seconds without use after which it is probed next; None: never."""
        self.proven = False
        """Whether a call or a probe succeeded on it."""
        self.answers = 0
        """Calls that were answered on it. Probes do not count."""
        self.errors_in_a_row = 0
        """Calls that failed on it since the last answered one."""
        self.suspected = False
        """Whether a call failed on it in a way that does not clearly concern only that call."""
        self.cleared: int | None = None
        """`answers` when a probe last settled a suspicion in its favour; None before the first."""
        self.mute: set[str] = set()
        """Probe requests that it does not answer although it answers others."""
        # One answer resets the count of missed keepalive probes.
        self.unanswered = 0
        """Consecutive unanswered keepalive probes."""
        self.in_flight = 0
        """Calls issued on it that have not ended."""
        self.lost: Failure | None = None
        """Why it was given up, if it was."""
        self.answered = Flag()
        """Set once it is proven."""
        self.retired = Flag()
        self.drained = Flag()
        self.gone = Flag()

    def enter(self) -> Link:
        """Count a call that is issued on it."""
        assert self.link is not None
        # Counted here and not at the gate, because a retired session drains while the gate passes calls to its
        # successor.
        self.in_flight += 1
        return self.link

    def leave(self) -> None:
        """Count the end of a call on it."""
        self.in_flight -= 1
        # The last call of a retired session ends the session.
        if self.in_flight == 0 and self.retired.is_set():
            self.drained.set()

    def passed(self) -> None:
        """A probe was answered on it."""
        self.proven = True
        self.unanswered = 0
        self.answered.set()

    def retire(self, *, lost: Failure | None = None) -> None:
        """Accept no further calls, and end the session when those in flight have finished.

        Args:
            lost: Why it is known to be lost, if it is: then no DELETE is sent.
        """
        if lost is not None and self.link is not None:
            # The first reason is kept: later failures are its consequences.
            self.lost = self.lost or lost
            self.link.mark_lost()
        self.retired.set()
        if self.in_flight == 0:
            self.drained.set()

    def abandon(self) -> None:
        """Stop waiting for calls in flight."""
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
        """Open the link, keep it until the session is retired and drained, and close it.

        Args:
            opening: The link, not yet open.
            broke: Called with an error that ended the session from within.
            prepare: Restores the state of the previous session.
            task_status: Notified when the session is usable.
        """
        attempt = Attempt("dial")
        # This task is the session's own, so its context needs no resetting.
        ATTEMPT.set(attempt)
        try:
            async with opening as link:
                await prepare(link)
                self.link = link
                task_status.started(self)
                # Two waits, because a session may be retired with calls in flight, which finish on it.
                await self.retired.wait()
                await self.drained.wait()
        except Exception as error:
            if self.link is None:
                raise
            # The SDK raised an exception in an open session. The caller of `start` would consider it the failure of a
            # dial.
            broke(self, error)
        finally:
            # Set in every case, because `close` waits for it.
            self.gone.set()
