"""What `check` and `tools` print for people."""

from __future__ import annotations

from rich.text import Text

from mcpconn.cli.connect import Checked
from mcpconn.cli.output import grid, one_line, seconds, shown_state, stdout


def print_checks(results: list[Checked]) -> None:
    """A row for each server, and below it why some failed."""
    table = grid("server", "state", "era", "what answered", "tools", "connected in", right=("tools", "connected in"))
    for each in results:
        table.add_row(
            Text(one_line(each.name)),
            shown_state(each.state) if each.state != "disabled" else Text("- disabled", style="dim"),
            each.era or "-",
            Text(one_line(f"{each.server.name} {each.server.version}") if each.server else "-"),
            str(len(each.tools)) if each.tools is not None else "-",
            seconds(each.connected_in),
        )
    console = stdout()
    console.print(table)
    failed = [each for each in results if not each.ok]
    for each in failed:
        console.print()
        console.print(Text(f"{one_line(each.name)}: {each.why}", style="red"))
        if each.fix:
            console.print(Text(f"  {each.fix}"))
    enabled = [each for each in results if each.state != "disabled"]
    if failed:
        console.print(f"\n{len(failed)} of {len(enabled)} failed.")


def print_tools(results: list[Checked]) -> None:
    """A row for each tool."""
    table = grid("server", "tool", "run twice?", "what it does", fold="what it does")
    for each in results:
        for tool in sorted(each.tools or [], key=lambda tool: tool.name):
            hints = tool.annotations
            safe = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
            first_line = (tool.description or tool.title or "").strip().partition("\n")[0]
            table.add_row(
                Text(one_line(each.name)),
                Text(one_line(tool.name), style="bold"),
                Text("harmless", style="green") if safe else Text("unknown", style="dim"),
                Text(one_line(first_line)),
            )
    if table.row_count:
        stdout().print(table)
