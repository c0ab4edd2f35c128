"""A server whose sessions are called conversations."""

from typing import Any

import mcpconn
from mcpconn import FailureKind, Rule

RULES = [
    Rule.phrase("no such conversation"),
    Rule.phrase("quota exhausted", FailureKind.RATE_LIMITED),
]


async def main(server: Any) -> bool:
    async with mcpconn.Manager({"chat": server}, rules=RULES) as manager:
        result = await manager.call_tool("chat", "charge", {"amount": 5})
        return not result.is_error
