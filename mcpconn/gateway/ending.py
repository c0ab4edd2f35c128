"""What the gateway says of the requests that were running when it was told to stop."""

from __future__ import annotations

from collections import Counter

from mcpconn.gateway.app import App
from mcpconn.gateway.endpoint import Endpoint


class Ending:
    """The requests of all views, while the process ends."""

    def __init__(self, app: App) -> None:
        """
        Args:
            app: The gateway, which runs.
        """
        # Kept here, because the gateway forgets its endpoints when it has ended.
        self._endpoints: list[Endpoint] = [app.endpoint(view) for view in app.settings.views]
        self._cut = 0

    @property
    def running(self) -> int:
        """Requests that run now, without streams of events."""
        return sum(each.stopping.running for each in self._endpoints)

    def cut(self) -> None:
        """The process does not wait any longer for what still runs."""
        self._cut = self.running

    def summary(self) -> str | None:
        """One line on the requests that got no regular answer; None if all did."""
        told: Counter[str] = Counter()
        for each in self._endpoints:
            told.update(each.stopping.told)
        parts = [
            f"{told['unknown']} told that they may have run" if told["unknown"] else "",
            f"{told['not_run']} told that they did not run" if told["not_run"] else "",
            f"{self._cut} cut off, which their clients repeat with their keys" if self._cut else "",
        ]
        said = ", ".join(part for part in parts if part)
        return f"stopped with unfinished requests: {said}" if said else None
