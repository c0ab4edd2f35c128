"""Three ways to know how the connections are."""

import json
from contextlib import aclosing

import mcpconn


def plain_data(manager: mcpconn.Manager) -> str:
    """For a status page: everything, ready for JSON."""
    return json.dumps(manager.status(), indent=2)


async def first_recovery(manager: mcpconn.Manager) -> str:
    """As they happen."""
    # `aclosing`, because this leaves the loop before its end.
    async with aclosing(manager.changes()) as changes:
        async for change in changes:
            if (change.source, change.target) == (
                mcpconn.State.RECONNECTING,
                mcpconn.State.READY,
            ):
                return f"{change.server} is back after {change.elapsed:.1f} s"
    return "the manager was closed"


def tell(manager: mcpconn.Manager, pager: list[str]) -> None:
    """At once, in the loop's thread; it must not block."""
    manager.subscribe(
        lambda change: pager.append(str(change)) if change.target == "failed" else None
    )
