"""Rewrites the tables of pages that are made from the code: `python -m tests.pages`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mcpconn.schema import keys_table

DOCS = Path(__file__).resolve().parent.parent / "docs"
README = DOCS.parent / "README.md"


def sees_table() -> str:
    """What a call sees, as the README has it: the front page shows the same."""
    section = README.read_text(encoding="utf-8").partition("## What your call sees\n\n")[2]
    return section.partition("\n\n")[0] + "\n"


TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("reference/mcp-json.md", "keys"): keys_table,
    ("index.md", "sees"): sees_table,
}
"""By page and marker: what stands there."""


def made(text: str, marker: str, between: str) -> str:
    """A page with other lines between its markers."""
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{between}{match[2]}", text, flags=re.DOTALL)


if __name__ == "__main__":
    for (page, marker), table in TABLES.items():
        path = DOCS / page
        path.write_text(made(path.read_text(), marker, f"\n{table()}\n"))
