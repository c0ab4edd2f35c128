"""`mcpconn serve` with a store that kills its process at one operation: `FILE STATE SOCKET OPERATION WHEN`.

SOCKET is the number of a listening socket that was passed. OPERATION is the name of a method of the store, and WHEN is
`before` or `after`. The operation is one on the ledger; `append` is the one that keeps a charge's answer for a client
whose stream is cut.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from mcpconn.gateway import serve
from mcpconn.gateway.store import FileStore, Key


class KillingStore(FileStore):
    """Ends the process with SIGKILL at one operation."""

    operation = when = ""

    async def _at(self, name: str, key: Key, *args: Any, **options: Any) -> Any:
        hit = name == self.operation and key.group.startswith("ledger/")
        if hit and self.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = await getattr(super(), name)(key, *args, **options)
        if hit and self.when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    async def get(self, key: Key, *args: Any, **options: Any) -> Any:
        return await self._at("get", key, *args, **options)

    async def add(self, key: Key, *args: Any, **options: Any) -> Any:
        return await self._at("add", key, *args, **options)

    async def swap(self, key: Key, *args: Any, **options: Any) -> Any:
        return await self._at("swap", key, *args, **options)

    async def delete(self, key: Key, *args: Any, **options: Any) -> Any:
        return await self._at("delete", key, *args, **options)

    async def append_all(self, logs: Mapping[Key, Sequence[bytes]], **options: Any) -> None:
        hit = self.operation == "append" and any(b"charged" in value for values in logs.values() for value in values)
        if hit and self.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await super().append_all(logs, **options)
        if hit and self.when == "after":
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    path, state, passed, KillingStore.operation, KillingStore.when = sys.argv[1:]
    vars(serve)["FileStore"] = KillingStore

    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    app = serve.make_app(Path(path), serve.Storage(Path(state)), one_person=True, say=lambda line: None)
    accepting = socket.socket(fileno=int(passed))
    anyio.run(lambda: serve.serve_http(app, accepting, ready=ready))


if __name__ == "__main__":
    main()
