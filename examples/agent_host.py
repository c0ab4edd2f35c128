"""An agent host without an event loop: a registry with one plain function a tool, called by a loop of turns.

    python examples/agent_host.py mcp.json < turns.jsonl

Each line is a turn, the calls that a model wants made: `[{"tool": "shop__add", "arguments": {"a": 1, "b": 2}}]`. They
are made at the same time. What the model is told comes back, in a line for each turn.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from mcpconn import CallFailed, SyncManager, handlers
from mcpconn.catalog.entries import CatalogChange

Handler = Callable[[dict[str, Any]], str]


class Registry(dict[str, Handler]):
    """The tools of all servers by name. A server that is away for a while keeps its tools."""

    def __init__(self, manager: SyncManager) -> None:
        super().__init__()
        self.manager = manager
        for server, connection in manager.items():
            connection.catalog.subscribe(self.follow)
            try:
                for tool in connection.list_tools(timeout=10).tools:
                    self.register(server, tool.name)
            except CallFailed as failure:
                # Its tools are registered when it comes: nothing has to be done here.
                print(failure, file=sys.stderr)

    def register(self, server: str, tool: str) -> None:
        self[f"{server}__{tool}"] = handlers.call_tool(self.manager, server, tool, timeout=30)

    def follow(self, change: CatalogChange) -> None:
        """What a server offers has changed. Runs in the manager's thread, and must not block."""
        if change.kind == "tools":
            for tool in change.added:
                self.register(change.server, tool)
            for tool in change.removed:
                self.pop(f"{change.server}__{tool}", None)

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """What the model is told. Nothing is raised, whatever happens."""
        if name not in self:
            return {"error": f"There is no tool {name!r}. There are: {', '.join(sorted(self))}."}
        answer: dict[str, Any] = json.loads(self[name](arguments))
        return answer


def play(registry: Registry, turns: Iterable[str]) -> Iterator[list[dict[str, Any]]]:
    """The answers to each turn."""
    with ThreadPoolExecutor(8) as threads:
        for turn in turns:
            calls = [threads.submit(registry.call, call["tool"], call["arguments"]) for call in json.loads(turn)]
            yield [call.result() for call in calls]


def main(config: str) -> None:
    with SyncManager.from_file(config) as manager:
        for answers in play(Registry(manager), sys.stdin):
            print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/agent_host.py mcp.json < turns.jsonl")
    with suppress(KeyboardInterrupt):  # Ctrl-C ends it
        main(sys.argv[1])
