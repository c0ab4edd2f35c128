"""A server on stdio for the tests of the frameworks: `python server.py FOLDER`. It needs mcp and nothing else.

Each run of `charge` is a line in FOLDER/ledger, written before anything else happens. `die-after` in the folder makes
it kill itself right after that line, once: the tool has run, and nobody gets an answer.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations

FOLDER = Path(sys.argv[1])
server = MCPServer("shop")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def charge(order: str) -> str:
    """Charge the customer for an order."""
    with (FOLDER / "ledger").open("a") as ledger:
        ledger.write(f"{order}\n")
    if (FOLDER / "die-after").exists():
        (FOLDER / "die-after").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"charged {order}"


@server.tool()
async def slow(order: str) -> str:
    """Take a minute, unless it is cancelled."""
    (FOLDER / "slow-began").touch()
    try:
        await anyio.sleep(60)
    except anyio.get_cancelled_exc_class():
        (FOLDER / "slow-cancelled").touch()
        raise
    return order


@server.tool()
def fails(reason: str) -> str:
    """Fail, for a reason."""
    raise ValueError(reason)


@server.tool()
async def learn(ctx: Context) -> str:
    """Offer one tool more from now on."""
    server.add_tool(learned, name="learned")
    await ctx.session.send_tool_list_changed()  # clients of the legacy era
    await ctx.notify_tools_changed()  # and of the modern one
    return "learned"


def learned() -> str:
    """A tool that was not there at first."""
    return "yes"


(FOLDER / "pid").write_text(str(os.getpid()))
server.run("stdio")
