"""A host for the page, as a process of its own: `python host.py COUNT` prints its port, then obeys lines of stdin."""

from __future__ import annotations

import asyncio
import socket
import sys

import uvicorn

from mcpconn import Manager
from mcpconn.asgi import status_app
from mcpconn.testing import Script, ScriptTransport

HOSTILE = "<img src=x onerror=\"document.title='hacked'\">"
SHOUT = "import sys; print(\"<script>document.title='hacked'</script>\", file=sys.stderr); sys.exit(3)"
SECRET = "sk-canary-0123456789abcdef"


def servers(count: int) -> dict[str, object]:
    """So many good ones, and two hostile ones."""
    good = {
        f"server-{number:03}": {
            "url": f"http://server-{number}.test/mcp",
            "http_transport": ScriptTransport(Script()),
            "headers": {"Authorization": f"Bearer {SECRET}"},
        }
        for number in range(count)
    }
    return {**good, HOSTILE: {"command": sys.executable, "args": ["-c", SHOUT], "env": {"API_KEY": SECRET}}}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(count: int) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    async with Manager(servers(count)) as manager:
        config = uvicorn.Config(status_app(manager), log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await manager["server-000"].wait_ready()
        say(str(listening.getsockname()[1]))
        loop = asyncio.get_running_loop()
        while line := (await loop.run_in_executor(None, sys.stdin.readline)).split():
            if line[0] == "remove":
                await manager.remove(line[1])
            elif line[0] == "reconnect":
                await manager[line[1]].reconnect()
            say("done")
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
