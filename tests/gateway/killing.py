"""`mcpconn serve` with a store that kills its process at one operation on the ledger: `FILE STATE PORT OPERATION WHEN`.

OPERATION is the name of a method of the store, WHEN is `before` or `after`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio

from mcpconn.gateway import endpoint, serve
from mcpconn.gateway.store import FileStore, Key


class KillingStore(FileStore):
    """Ends the process with SIGKILL at one operation on a record of the ledger."""

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


def main() -> None:
    path, state, port, KillingStore.operation, KillingStore.when = sys.argv[1:]
    vars(serve)["FileStore"] = KillingStore
    # Starting Python takes several seconds on a machine that runs other tests; the SDK's client comes back twice.
    vars(endpoint)["COME_BACK"] = 10_000

    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    app = serve.make_app(Path(path), state=Path(state), one_person=True, say=lambda line: None)
    accepting = serve.listening_socket(serve.Listen("127.0.0.1", int(port)))
    anyio.run(lambda: serve.serve_http(app, accepting, ready=ready))


if __name__ == "__main__":
    main()
