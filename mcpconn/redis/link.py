"""A link to Redis that reconnects automatically and refuses requests while it is down.

One task owns the client. After a connection error or a missing answer, the task replaces the whole client, so that no
state of the old one (a pool's lost places, an outdated map of a Cluster, a demoted primary) is reused. While there is
no client, requests wait until `GRACE` after the loss, which allows for a restart or a new connection. After that they
fail at once, so that an outage delays no caller further.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from types import ModuleType
from typing import Any

import anyio
from typing_extensions import Self

from mcpconn.errors import ConfigError
from mcpconn.redis.address import Address
from mcpconn.redis.scripts import ALL, EPOCH, Script
from mcpconn.redis.standing import Facts, Standing

TIMEOUT = 10.0
"""Seconds for one request, including the connection that it may need. Locally it takes less than a millisecond; over a
bad link each of two to four round trips may take seconds."""
GRACE = 2.0
"""Seconds after a loss for which requests wait for the next client."""
START = 30.0
"""Seconds for a new client to connect and to examine the server: half a dozen requests, one after another."""
FIRST = 2.0
"""Seconds that entering the link waits for its first client. Without one it continues, and reports that it is
degraded."""
PAUSES = 0.05, 1.0
"""Seconds between two attempts: the first, and the longest."""
SLOW = 1.0
"""A store counts as slow if a request takes this many seconds or more. Streams are given 0.1 s, leases last 3 s."""
ASK = 5.0
"""Seconds between examinations of the server, because its settings or its replicas may have changed."""
WAIT = 1000
"""Milliseconds for replicas to acknowledge a write."""


class RedisUnavailable(Exception):
    """Redis cannot be reached, did not answer, or refused. A write that raised this may or may not have happened."""


class Link:
    """Runs scripts on a store. It must be entered before its first use, and exited in the same task."""

    def __init__(
        self,
        address: Address,
        *,
        may_lose: bool = False,
        meanwhile: Sequence[Callable[[], Awaitable[None]]] = (),
        timeout: float = TIMEOUT,
        ahead: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """
        Args:
            address: Where the store is.
            may_lose: Use it even if it evicts or does not persist.
            meanwhile: Functions that run while the store is connected, each in its own task; restarted with each
            client.
            timeout: Seconds for one request.
            ahead: Seconds to add to the server's clock, for tests of what expires.

        Raises:
            ConfigError: coredis is not installed, or the certificates of the address cannot be used.
        """
        self.address = address
        self._redis = _coredis()
        address.ssl_context()
        self._may_lose = may_lose
        self._meanwhile = meanwhile
        self._timeout = timeout
        self._ahead = ahead
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._changed = anyio.Event()
        self._lost = anyio.Event()
        self._ask = anyio.Event()
        self._down_since = time.monotonic()
        self._tried = anyio.Event()
        self._facts: Facts | None = None
        self._took = 0.0
        """Seconds that the last request took."""
        self._known: set[str] = set()
        """Replication ids of the current epoch."""
        self.standing = Standing(away=f"{address} has not been reached yet")

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(group.cancel_scope.cancel)
            group.start_soon(self._keep)
            with anyio.move_on_after(FIRST):
                await self._tried.wait()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def key(self, group: str, *parts: str) -> str:
        """A key in a group: all keys of a group are in one slot of a Cluster."""
        return ":".join((f"{self.address.prefix}:{{{group}}}", *parts))

    async def run(self, script: Script, keys: list[str], *arguments: Any, durable: bool = False) -> list[Any]:
        """Run a script. Returns its answer without the replication id.

        Args:
            script: Of `scripts`; not `EPOCH`.
            keys: The keys it uses.
            arguments: Its arguments.
            durable: Return only when a majority of the server and its replicas have the write.

        Raises:
            RedisUnavailable: it may have run or not.
        """
        client = await self._ready()
        copies = self._facts.copies if durable and self._facts is not None else 0
        replid, *answer = await self._run(client, script, keys, *arguments, copies=copies)
        if replid.decode() not in self._known:
            # A different primary has answered, which may have lost records. This must be known before the answer is
            # used.
            await self._settle(client, [replid.decode()], safe=False)
        return answer

    async def _run(self, client: Any, script: Script, keys: list[str], *arguments: Any, copies: int = 0) -> list[Any]:
        redis = self._redis
        ahead = round(self._ahead() * 1000)
        began = time.monotonic()
        try:
            with anyio.fail_after(self._timeout):
                answer: list[Any] = await redis.run(client, script, keys, (ahead, *arguments), copies=copies, wait=WAIT)
            self._timed(time.monotonic() - began)
            return answer
        except redis.NOT_REPLICATED:
            self._ask.set()
            raise RedisUnavailable(f"{self.address}: its replicas have not acknowledged the write") from None
        except redis.GONE as error:
            self._lose(client)
            raise RedisUnavailable(self._words(error)) from None
        except redis.REFUSED as error:
            # Its memory may be full, which the status should report.
            self._ask.set()
            raise RedisUnavailable(f"{self.address} refused: {error}") from None

    def _timed(self, took: float) -> None:
        changed = (took >= SLOW) != (self._took >= SLOW)
        self._took = took
        if changed and self._client is not None:
            self._stand()

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call `heard` for each message of a channel, and once at the beginning. For `meanwhile`."""
        await self._redis.listen(self._client, channel, heard)

    # -- the client

    async def _ready(self) -> Any:
        with anyio.move_on_after(max(0.0, self._down_since + GRACE - time.monotonic())):
            while self._client is None:
                await self._changed.wait()
        if self._client is None:
            raise RedisUnavailable(self.standing.away or f"{self.address} is not reached now")
        return self._client

    def _lose(self, client: Any) -> None:
        if self._client is client:
            self._lost.set()

    async def _keep(self) -> None:
        pause, longest = PAUSES
        while True:
            self._lost, reached = anyio.Event(), False
            try:
                async with self._redis.client_of(self.address) as client:
                    with anyio.fail_after(START):
                        await self._redis.load(client, ALL)
                        await self._examine(client)
                    reached = True
                    await self._use(client)
                why = f"{self.address} has stopped answering"
            except BaseException as error:  # of coredis's tasks, in groups of any kind
                if (fault := _fault(error)) is None:
                    raise
                why = self._words(fault)
            pause = PAUSES[0] if reached else min(longest, 2 * pause)
            if self._client is not None or self.standing.away is None:
                self._down_since = time.monotonic()
            self._client = None
            self._stand(away=why)
            self._tried.set()
            await anyio.sleep(pause)

    async def _use(self, client: Any) -> None:
        """Make a client available to requests until it is lost."""
        self._client = client
        self._stand()
        self._tried.set()
        self._changed.set()
        self._changed = anyio.Event()
        try:
            async with anyio.create_task_group() as group:
                for task in (*self._meanwhile, lambda: self._ask_again(client)):
                    group.start_soon(self._until_lost, task)
                await self._lost.wait()
                group.cancel_scope.cancel()
        finally:
            self._down_since = time.monotonic()
            self._client = None

    async def _until_lost(self, task: Callable[[], Awaitable[None]]) -> None:
        with suppress(RedisUnavailable):
            await task()
        self._lost.set()

    async def _ask_again(self, client: Any) -> None:
        while True:
            with anyio.move_on_after(ASK):
                await self._ask.wait()
            self._ask = anyio.Event()
            with anyio.fail_after(START):
                await self._examine(client)
            self._stand()

    # -- what it is

    async def _examine(self, client: Any) -> None:
        self._facts = facts = Facts.of(await self._redis.facts(client))
        await self._settle(client, list(facts.ids), safe=facts.safe)

    async def _settle(self, client: Any, ids: list[str], *, safe: bool) -> None:
        """Determine, with the same result in all processes, whether these primaries may lack records that others
        wrote."""
        seen = self.standing.epoch
        keys = [self.key("epoch")]
        epoch, began, now, _ = await self._run(client, EPOCH, keys, int(safe), int(bool(seen)), *ids)
        epoch = epoch.decode()
        if epoch != seen:
            self._known.clear()
        self._known.update(ids)
        # The server's clock is converted to this process's once, by the age of the event.
        ago = (int(now) - int(began)) / 1000
        self._stand(epoch=epoch, began=time.monotonic() - ago if int(began) else float("-inf"))

    def _stand(self, *, away: str | None = None, epoch: str | None = None, began: float | None = None) -> None:
        old, facts = self.standing, self._facts
        unfit = facts.unfit if facts is not None else None
        notes = [f"it may lose what it was given: {unfit}"] if unfit and self._may_lose else []
        if facts is not None and facts.full:
            notes.append("it is full (maxmemory), and takes no writes")
        if self._took >= SLOW:
            notes.append(f"it is slow: an answer took {self._took:.1f} s")
        self.standing = Standing(
            away=away,
            unfit=None if self._may_lose else unfit,
            epoch=old.epoch if epoch is None else epoch,
            began=old.began if began is None else began,
            note="; ".join(notes) or None,
        )

    def _words(self, error: BaseException) -> str:
        causes = [error]
        while (inner := _fault(causes[-1]) if _group(causes[-1]) else causes[-1].__cause__) is not None:
            causes.append(inner)
        if isinstance(causes[-1], TimeoutError):
            return f"{self.address} did not answer in time"
        return f"{self.address} cannot be reached: {str(causes[-1]) or type(causes[-1]).__name__}"


def _fault(error: BaseException) -> Exception | None:
    """The cause of the failure; None if this task was cancelled.

    An exception group from trio also contains the cancellations of coredis's own tasks. If this task was cancelled as
    well, its next checkpoint raises it.
    """
    inside: Sequence[BaseException] = getattr(error, "exceptions", ())
    if not inside:
        return error if isinstance(error, Exception) else None
    if any(not isinstance(each, (Exception, anyio.get_cancelled_exc_class())) and not _group(each) for each in inside):
        return None
    return next((found for each in inside if (found := _fault(each)) is not None), None)


def _group(error: BaseException) -> bool:
    return bool(getattr(error, "exceptions", ()))


def _coredis() -> ModuleType:
    try:
        from mcpconn.redis import client
    except ModuleNotFoundError as error:
        how = f"pip install '.[redis]' in a clone of mcpconn, or pip install {error.name}"
        raise ConfigError(f"a store in Redis needs {error.name}: {how}", key="store") from None
    return client
