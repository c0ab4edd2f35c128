"""Listener functions of the host, called one after another.

A listener is the host's code that runs in the middle of mcpconn's. It may raise any exception, and it may cause new
events, for example by closing the connection whose transition it receives. Neither may affect the code that calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

Report = Callable[[str, BaseException], None]
"""Logs an exception of the host's code. The first argument is the kind of code: `listener`, `errand`, `rule`."""


class Listeners(Generic[T]):
    """An ordered set of listeners. Each receives every event once, in the order in which the events happened."""

    __slots__ = ("_entries", "_telling", "_untold")

    def __init__(self) -> None:
        self._entries: dict[object, Callable[[T], None]] = {}
        # Rarely more than one. A list is 56 bytes, a deque 600, and each connection has two of these.
        self._untold: list[tuple[T, Report]] = []
        self._telling = False

    def __bool__(self) -> bool:
        return bool(self._entries)

    def subscribe(self, listener: Callable[[T], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on.

        Returns:
            An unsubscribe function. It can be called more than once, and from within a listener.
        """
        key = object()
        self._entries[key] = listener
        return lambda: self._entries.pop(key, None) and None

    def tell(self, news: T, report: Report) -> None:
        """Call every listener with `news`. Events that a listener causes are delivered after `news`, to all listeners.

        Args:
            news: The event.
            report: Called with the exceptions of listeners.

        Raises:
            KeyboardInterrupt, SystemExit: a listener raised it; all listeners have been called by then. All other
            exceptions are reported: a CancelledError that passed through here would look like the cancellation of the
            calling task, which owns the connection.
        """
        if not self._entries:
            return
        if self._telling:
            self._untold.append((news, report))
            return
        self._telling = True
        leave: BaseException | None = None
        try:
            while True:
                for key, listener in tuple(self._entries.items()):
                    if key not in self._entries:
                        continue  # an earlier listener has unsubscribed this one
                    try:
                        listener(news)
                    except (KeyboardInterrupt, SystemExit) as error:
                        leave = leave or error
                    except BaseException as error:
                        report("listener", error)
                if not self._untold:
                    break
                news, report = self._untold.pop(0)
        finally:
            self._telling = False
        if leave is not None:
            raise leave
