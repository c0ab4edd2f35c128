"""A picture of how many connections are in which state."""

from pathlib import Path

from mcpconn import Manager, diagram


def draw(manager: Manager, path: Path) -> None:
    path.write_text(diagram.svg(manager), encoding="utf-8")
