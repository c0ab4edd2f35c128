"""What an agent of a framework lives through: `python -m tests.integrations.scenarios FRAMEWORK`, in its environment.

It prints one line of JSON: by scenario, "ok" or what went wrong. No model is asked: a script plays it, and writes down
which tools it was offered and what it heard. It imports nothing of pytest, which the environments do not have.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from mcpconn import Manager, SyncManager
from tests.integrations.shop import Shop, until


class Script:
    """A model that makes the given calls, one a turn, and then says "done"."""

    def __init__(self, *calls: tuple[str, dict[str, Any]], before: dict[int, Callable[[], None]] | None = None) -> None:
        """
        Args:
            calls: A tool's own name, and arguments.
            before: What happens before the call of that number.
        """
        self.calls = calls
        self.before = before or {}
        self.turns = 0
        self.offered: list[list[str]] = []
        self.heard: list[str] = []

    def turn(self, offered: list[str], heard: str | None) -> tuple[str, dict[str, Any]] | None:
        """The next call, by the name that it is offered under; None if there is nothing left to do.

        Args:
            offered: Names of the tools that the model is offered.
            heard: What the last call brought, if there was one.
        """
        self.offered.append(offered)
        number, self.turns = self.turns, self.turns + 1
        if number and heard is not None:
            self.heard.append(heard)
        if number >= len(self.calls):
            return None
        self.before.get(number, lambda: None)()
        own, arguments = self.calls[number]
        name = next((each for each in offered if each == own or each.endswith(f"__{own}")), own)
        return name, arguments


Converse = Callable[[Any, Script], Awaitable[None]]


async def a_tool_call(converse: Converse, manager: Any, shop: Shop) -> None:
    script = Script(("add", {"a": 1, "b": 2}))
    await converse(manager, script)
    assert "3" in script.heard[0], script.heard


async def killed_between_calls(converse: Converse, manager: Any, shop: Shop) -> None:
    script = Script(("add", {"a": 1, "b": 2}), ("add", {"a": 20, "b": 2}), before={1: shop.kill})
    await converse(manager, script)
    assert "22" in script.heard[1], script.heard


async def killed_during_a_call(converse: Converse, manager: Any, shop: Shop) -> None:
    shop.die_after_the_next_charge()
    script = Script(("charge", {"order": "7"}), ("charge", {"order": "8"}))
    await converse(manager, script)
    assert "It is not known whether the tool ran" in script.heard[0], script.heard
    assert "Do not just try again" in script.heard[0], script.heard
    assert "charged 8" in script.heard[1], script.heard
    assert shop.ledger == ["7", "8"], shop.ledger


async def a_changed_list(converse: Converse, manager: Any, shop: Shop) -> None:
    await converse(manager, Script(("learn", {})))
    await until(lambda: "learned" in manager["shop"].catalog.tools)
    script = Script(("learned", {}))
    await converse(manager, script)
    assert "yes" in script.heard[0], (script.heard, script.offered)


async def cancelled(converse: Converse, manager: Any, shop: Shop) -> None:
    task = asyncio.ensure_future(converse(manager, Script(("slow", {"order": "1"}))))
    await until((shop.folder / "slow-began").exists)
    task.cancel()
    await asyncio.wait([task])
    await until((shop.folder / "slow-cancelled").exists)
    await a_tool_call(converse, manager, shop)


SCENARIOS = (a_tool_call, killed_between_calls, killed_during_a_call, a_changed_list, cancelled)


async def lived_through(scenario: Callable[..., Awaitable[None]], module: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        try:
            if not getattr(module, "SYNCHRONOUS", False):
                async with Manager(shop.servers) as manager:
                    await scenario(module.converse, manager, shop)
            elif scenario is cancelled:
                return "not offered: its agents are synchronous"
            else:
                with SyncManager(shop.servers) as plain:

                    async def converse(manager: Any, script: Script) -> None:
                        await asyncio.to_thread(module.converse, manager, script)

                    await scenario(converse, plain, shop)
            await until(lambda: not shop.alive)
        except Exception as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
        return "ok"


async def main(framework: str) -> None:
    module = import_module(f"tests.integrations.agents.{framework}")
    print(json.dumps({each.__name__: await lived_through(each, module) for each in SCENARIOS}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
