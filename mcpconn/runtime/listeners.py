"""Functions of the host that want to be told of something, called one after another.

A listener is host code that runs in the middle of our own. It may raise anything, and it may cause what it is
being told of: close the connection whose transition it hears about. Neither may reach the code that tells it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

Report = Callable[[str, BaseException], None]
"""Logs what host code raised. The first argument says which kind of host code: `listener`, `errand`, `rule`."""


class Listeners(Generic[T]):
    """An ordered set of listeners. Each hears of everything once, in the order in which it happened."""

    __slots__ = ("_entries", "_telling", "_untold")

    def __init__(self) -> None:
        self._entries: dict[object, Callable[[T], None]] = {}
        self._untold: deque[tuple[T, Report]] = deque()
        self._telling = False

    def __bool__(self) -> bool:
        return bool(self._entries)

    def subscribe(self, listener: Callable[[T], None]) -> Callable[[], None]:
        """Call `listener` with everything that is told from now on.

        Returns:
            An unsubscribe function. It can be called more than once, and from within a listener.
        """
        key = object()
        self._entries[key] = listener
        return lambda: self._entries.pop(key, None) and None

    def tell(self, news: T, report: Report) -> None:
        """Call every listener with `news`. What a listener causes is told after `news`, to all of them.

        Args:
            news: What happened.
            report: Called with whatever a listener raised.

        Raises:
            KeyboardInterrupt, SystemExit: a listener raised it; all have been told by then. Whatever else one
                raises is reported: a CancelledError that passed through here would look like the cancellation of
                the task that tells, which is the one that owns the connection.
        """
        self._untold.append((news, report))
        if self._telling:
            return
        self._telling = True
        leave: BaseException | None = None
        try:
            while self._untold:
                news, report = self._untold.popleft()
                for key, listener in tuple(self._entries.items()):
                    if key not in self._entries:
                        continue  # unsubscribed by a listener before it
                    try:
                        listener(news)
                    except (KeyboardInterrupt, SystemExit) as error:
                        leave = leave or error
                    except BaseException as error:
                        report("listener", error)
        finally:
            self._telling = False
        if leave is not None:
            raise leave
