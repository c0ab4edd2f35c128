"""When credentials that a server refused are renewed, and when that has been tried enough.

Once for a refusal, before the next dial, by the connection's one task: so it is once for all calls that met it.
Renewed credentials that are refused as well, by the very next dial, are a person's business. Refused after a
handshake that went well, they are renewed once more, but only if a probe says so: a server that lets a client
in and then refuses one of its calls would have them renewed with every call.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mcpconn.core.failures import Evidence, Failure, FailureKind
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.protocols import Renewable
from mcpconn.runtime.session import Session

FRESH = 60.0
"""Seconds for which renewed credentials are taken for good ones: a call that is refused is looked into first."""
WITHOUT_PROOF = 2
"""Renewals in a row, the last before a session that nobody could use."""


class Renewal:
    """The renewing of one connection's credentials."""

    def __init__(self, credentials: Renewable | None, clock: Clock) -> None:
        self.credentials = credentials
        """None where there is nothing to renew."""
        self.refusal: Failure | None = None
        """Why they are to be renewed before the next dial."""
        self.under_way = False
        self._clock = clock
        self._count = 0
        self._at = -math.inf

    def possible(self, session: Session | None) -> bool:
        """Whether a refusal, of a dial or on `session`, can be answered by a renewal."""
        if self.credentials is None:
            return False
        if session is None:
            return self._count == 0
        return session.proven or self._count < WITHOUT_PROOF

    def likely(self, session: Session | None) -> bool:
        """Whether a call that is refused should be answered by one without asking further."""
        return self.possible(session) and self._clock.now() >= self._at + FRESH

    def over(self, session: Session, *, worked: bool, refusal: Failure | None = None) -> None:
        """A session is over.

        Args:
            session: The session.
            worked: It was of use: the credentials were good.
            refusal: Why it is over, if its credentials are.
        """
        if worked or session.proven:
            self._count = 0
        self.refusal = refusal if refusal is not None and refusal.kind is FailureKind.AUTH else None

    def reset(self) -> None:
        """What was tried before says nothing any more."""
        self.refusal = None
        self._count = 0
        self._at = -math.inf

    async def run(self, classify: Callable[[Evidence], Failure]) -> Failure | None:
        """Renew the credentials, if they are to be. A failure where that was refused, or cannot be tried now."""
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
            # Otherwise it is tried again, after the same waits as a dial.
            return failure
        finally:
            self.under_way = False
        if self.credentials.found:
            # What others have renewed may be refused as well; then it is our turn.
            self.refusal = None
            return None
        self._spent()
        return None if renewed else refused

    def _spent(self) -> None:
        self.refusal = None
        self._count += 1
        self._at = self._clock.now()
