"""The tables of `check` and `tools`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import mcp_types as types
from rich.text import Text

from mcpconn.cli.connect import Checked
from mcpconn.cli.output import one_line, paused, seconds, shown_state, stdout
from mcpconn.cli.rows import Column, Rows


class CheckTable:
    """Prints a row for each server as soon as it is known, and at the end the reasons of failures."""

    def __init__(self, names: Iterable[str]) -> None:
        width = max((len(one_line(name)) for name in names), default=0)
        self._rows = Rows(
            Column("server", max(width, len("server")), whole=True),
            Column("state", len("- unfinished"), whole=True),
            Column("era", len("modern")),
            Column("what answered", 24),
            Column("tools", len("tools"), right=True),
            Column("connected in", len("connected in"), right=True),
        )

    def add(self, each: Checked) -> None:
        """A server has answered, or failed."""
        if each.state == "disabled" or not each.finished:
            state = Text("- disabled" if each.state == "disabled" else "- unfinished", style="dim")
        else:
            state = shown_state(each.state)
        self._rows.add(
            Text(one_line(each.name)),
            state,
            each.era or "-",
            Text(one_line(f"{each.server.name} {each.server.version}") if each.server else "-"),
            str(len(each.tools)) if each.tools is not None else "-",
            seconds(each.connected_in),
        )

    def finish(self, results: Iterable[Checked]) -> None:
        """The results that were known at the end."""
        console, results = stdout(), list(results)
        failed = [each for each in results if not each.ok]
        with paused():
            for each in failed:
                console.print()
                console.print(Text(f"{one_line(each.name)}: {each.why}", style="red"), soft_wrap=True)
                if each.fix:
                    console.print(Text(f"  {each.fix}"), soft_wrap=True)
                for line in each.stderr:
                    console.print(Text(f"  | {one_line(line)}", style="dim"), soft_wrap=True)
            enabled = [each for each in results if each.state != "disabled"]
            if failed:
                console.print(f"\n{len(failed)} of {len(enabled)} failed.")


def print_tools(results: list[Checked]) -> None:
    """A row for each tool, with its arguments."""
    listed = [(each, tool) for each in results for tool in sorted(each.tools or [], key=lambda tool: tool.name)]
    if not listed:
        return
    signatures = {id(tool): signature(tool) for _, tool in listed}
    rows = Rows(
        Column("server", max(len("server"), *(len(one_line(each.name)) for each, _ in listed)), whole=True),
        Column("tool", max(map(len, signatures.values())), whole=True),
        Column("run twice?", len("run twice?")),
        Column("what it does", 24),
    )
    for each, tool in listed:
        hints = tool.annotations
        safe = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
        first_line = (tool.description or tool.title or "").strip().partition("\n")[0]
        rows.add(
            Text(one_line(each.name)),
            Text(signatures[id(tool)], style="bold"),
            Text("harmless", style="green") if safe else Text("unknown", style="dim"),
            Text(one_line(first_line)),
        )


def signature(tool: types.Tool) -> str:
    """A tool with its arguments, as a function is written: `add(a: number, b?: number = 1)`."""
    schema: Mapping[str, Any] = tool.input_schema or {}
    properties = schema.get("properties")
    required = schema.get("required")
    given = properties if isinstance(properties, Mapping) else {}
    needed = set(map(str, required)) if isinstance(required, list) else set()
    # Required arguments come first; otherwise the order is the server's.
    ordered = sorted(given.items(), key=lambda item: item[0] not in needed)
    return one_line(f"{tool.name}({', '.join(_argument(name, each, name in needed) for name, each in ordered)})")


def _argument(name: str, schema: Any, needed: bool) -> str:
    schema = schema if isinstance(schema, Mapping) else {}
    default = f" = {schema['default']!r}" if schema.get("default") is not None else ""
    return f"{name}{'' if needed or default else '?'}: {_kind(schema)}{default}"


def _kind(schema: Mapping[str, Any]) -> str:
    """The type of an argument in a word or two."""
    choices = schema.get("enum")
    if isinstance(choices, list) and 0 < len(choices) <= 5:
        return " | ".join(repr(each) for each in choices)
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    if kind is None and isinstance(schema.get("anyOf"), list):
        kinds = [each.get("type") for each in schema["anyOf"] if isinstance(each, Mapping)]
    named = [str(each) for each in kinds if each not in (None, "null")]
    if named == ["array"] and isinstance(schema.get("items"), Mapping):
        return f"{_kind(schema['items'])}[]"
    return " | ".join(named) or "any"
