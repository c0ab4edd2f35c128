"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mcpconn.cli import completion
from mcpconn.cli.shell import debugging

Debug = Annotated[bool, typer.Option("--debug", callback=debugging, help="Show log lines, and a traceback of errors.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The configuration file.  [default: $MCPCONN_CONFIG, else ./mcp.json]"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.001,
        metavar="SECONDS",
        help="Time limit for a server to answer.  [default: 20; 120 for a command to start, which may download]",
    ),
]
Wait = Annotated[
    float,
    typer.Option("--wait", min=0, metavar="SECONDS", help="How long to keep trying a server that is not running yet."),
]
Servers = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE] [SERVER]...",
        help="A file, names of servers in it, or addresses; or a command after --.  [default: all of --config]",
        autocompletion=completion.server,
    ),
]
