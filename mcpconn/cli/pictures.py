"""The command `diagram`: diagrams of the machine, and the comparison of other diagrams with it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mcpconn import diagram as pictures
from mcpconn.cli.app import app
from mcpconn.cli.failures import FAILED, USAGE, CliError
from mcpconn.cli.options import Debug
from mcpconn.cli.output import clean, say
from mcpconn.cli.shell import run
from mcpconn.cli.watch import attached
from mcpconn.cli.watch_sources import Source


class Format(str, Enum):
    """What `mcpconn diagram` can print."""

    mermaid = "mermaid"
    dot = "dot"
    svg = "svg"
    scxml = "scxml"
    markdown = "markdown"


@app.command()
def diagram(
    form: Annotated[Format, typer.Option("--format", "-f", help="What to print.")] = Format.mermaid,
    highlight: Annotated[
        str | None, typer.Option("--highlight", help='A state to mark, or several: "27 ready, 1 failed".')
    ] = None,
    attach: Annotated[
        str | None,
        typer.Option("--attach", metavar="URL", help="Highlight the states of a running host's connections."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE", help="With --attach: the key.  [default: $MCPCONN_KEY]")
    ] = None,
    links: Annotated[
        str | None, typer.Option("--links", metavar="URL", help="With svg: each state links to URL#state.")
    ] = None,
    narrow: Annotated[bool, typer.Option("--narrow", help="With svg: a layout for phones.")] = False,
    write: Annotated[
        Path | None, typer.Option("--write", help="Rewrite the text between the markers in a file or folder.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="Exit with 1 if `--write` would change the file or folder.")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", help="Exit with 1 if diagrams in a file or folder differ from the machine."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="With --compare: an event that the diagrams omit.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="With --compare: diagrams may show only some states.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Print the state machine, or keep diagrams of it up to date."""
    chosen = [each for each in (write, check, compare) if each is not None]
    if len(chosen) > 1:
        raise CliError("--write, --check and --compare exclude each other; give one", USAGE)
    if highlight is not None and attach is not None:
        raise CliError("--highlight and --attach exclude each other; give one", USAGE)
    if form is not Format.svg and (links is not None or narrow):
        raise CliError("--links and --narrow are for --format svg", USAGE)
    try:
        if write is not None:
            for path in pictures.write(write):
                say(f"{path}: rewritten")
        elif check is not None:
            _report([str(drift) for drift in pictures.check(check)])
        elif compare is not None:
            _report([str(each) for each in pictures.compare(compare, ignore=ignore or (), partial=partial)])
        else:
            marked: Mapping[str, int] | str | None = highlight
            if attach is not None:
                marked = run(_states, attached(attach, key_file=key_file, names=()))
            sys.stdout.write(_drawn(form, marked, links=links, narrow=narrow))
    except ValueError as error:
        raise CliError(str(error), USAGE) from error


def _drawn(form: Format, marked: Mapping[str, int] | str | None, *, links: str | None, narrow: bool) -> str:
    if form is Format.svg:
        return pictures.svg(marked, links=links, narrow=narrow)
    if form is Format.scxml:
        if marked is not None:
            raise CliError("SCXML has no way to mark a state; choose another --format", USAGE)
        return pictures.scxml()
    make = {Format.mermaid: pictures.mermaid, Format.dot: pictures.dot, Format.markdown: pictures.markdown_table}
    return make[form](marked)


async def _states(source: Source) -> Mapping[str, int]:
    """How many connections of a running host are in each state."""
    async with source.running(lambda _: None):
        counts = Counter(row["state"] for row in source.rows().values())
    if not counts:
        raise CliError(f"{source.title} has no connections")
    return counts


def _report(lines: list[str]) -> None:
    for line in lines:
        sys.stdout.write(clean(line) + "\n")
    if lines:
        raise typer.Exit(FAILED)
