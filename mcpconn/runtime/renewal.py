"""Decides when refused credentials are renewed, and when to stop trying.

They are renewed once per refusal, before the next dial, by the connection's task, and so once for all calls that were
refused. If the next dial refuses the renewed credentials as well, a person has to act. If they are refused after a
successful handshake, they are renewed once more, but only if a probe confirms the refusal: otherwise a server that
accepts the handshake and then refuses a call would cause a renewal with every call.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mcpconn.core.failures import Evidence, Failure, FailureKind
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.protocols import Renewable
from mcpconn.runtime.session import Session

FRESH = 60.0
"""Seconds for which renewed credentials are considered valid: a refused call leads to a probe first."""
WITHOUT_PROOF = 2
"""Consecutive renewals that each led to an unusable session."""


class Renewal:
    """The renewal of one connection's credentials."""

    def __init__(self, credentials: Renewable | None, clock: Clock) -> None:
        self.credentials = credentials
        """None if there is nothing to renew."""
        self.refusal: Failure | None = None
        """Why they have to be renewed before the next dial."""
        self.under_way = False
        self._clock = clock
        self._count = 0
        self._at = -math.inf

    def possible(self, session: Session | None) -> bool:
        """Whether a refusal, of a dial or on `session`, can be handled by a renewal."""
        if self.credentials is None:
            return False
        if session is None:
            return self._count == 0
        return session.proven or self._count < WITHOUT_PROOF

    def likely(self, session: Session | None) -> bool:
        """Whether a refused call should lead to a renewal without a probe."""
        return self.possible(session) and self._clock.now() >= self._at + FRESH

    def over(self, session: Session, *, worked: bool, refusal: Failure | None = None) -> None:
        """Record the end of a session.

        Args:
            session: The session.
            worked: The session was useful, so the credentials were valid.
            refusal: Why it ended, if the credentials were refused.
        """
        if worked or session.proven:
            self._count = 0
        self.refusal = refusal if refusal is not None and refusal.kind is FailureKind.AUTH else None

    def reset(self) -> None:
        """Reset: earlier attempts no longer matter."""
        self.refusal = None
        self._count = 0
        self._at = -math.inf

    async def run(self, classify: Callable[[Evidence], Failure]) -> Failure | None:
        """Renew the credentials if needed. Returns a failure if the renewal was refused, or is impossible at the
        moment."""
        refused = self.refusal
        if refused is None or self.credentials is None:
            return None
        self.under_way = True
        try:
            renewed = await self.credentials.refresh(refused.evidence.challenge)
        except Exception as error:
            retry_after = getattr(error, "retry_after", None)
            failure = classify(Evidence(exception=error, phase="dial", retry_after=retry_after))
            if failure.kind is FailureKind.AUTH:
                self._spent()
            # Otherwise the renewal is tried again, with the same waits as a dial.
            return failure
        finally:
            self.under_way = False
        if self.credentials.found:
            # Credentials renewed by another process may be refused as well; then this process renews them.
            self.refusal = None
            return None
        self._spent()
        return None if renewed else refused

    def _spent(self) -> None:
        self.refusal = None
        self._count += 1
        self._at = self._clock.now()
