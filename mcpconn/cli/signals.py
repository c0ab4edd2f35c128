"""SIGTERM and SIGHUP end a command as Ctrl-C does: connections are closed and child processes ended."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


class Ended(KeyboardInterrupt):
    """The command was told to end by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


async def until_ended(function: Callable[[], Awaitable[T]]) -> T:
    """The result of `function`. A signal cancels it; its cleanup is awaited.

    Raises:
        Ended: by SIGTERM, or by SIGHUP, which a terminal sends when it is closed.
        Exception: as `function`.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return await function()
    # Signals that nohup has disabled stay ignored.
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is not signal.SIG_IGN]
    received: list[int] = []
    failure: BaseException | None = None
    results: list[T] = []
    # Open until the end: a second signal must not interrupt the cleaning up.
    with anyio.open_signal_receiver(*numbers) as signals:
        async with anyio.create_task_group() as group:
            group.start_soon(_heed, signals, received, group.cancel_scope)
            try:
                results.append(await function())
            except (Exception, KeyboardInterrupt) as error:
                # Not raised through the group, which would wrap it in another.
                failure = error
            group.cancel_scope.cancel()
    if received:
        raise Ended(received[0])
    if failure is not None:
        raise failure
    return results[0]


async def _heed(signals: AsyncIterator[signal.Signals], received: list[int], scope: anyio.CancelScope) -> None:
    async for number in signals:
        received.append(number)
        scope.cancel()
        return
