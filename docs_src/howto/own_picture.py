"""A test that the picture in a host's documentation is true."""

from pathlib import Path

from mcpconn import diagram


def check_our_picture(page: Path) -> None:
    differences = diagram.compare(page, ignore=["close"])
    assert not differences, "\n".join(map(str, differences))
