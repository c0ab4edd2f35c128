"""Frameworks at a gateway: their clients keep their session while the server behind it is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integrations.others import CLIENTS, OTHERS, ROOT, Other, tried


@pytest.mark.parametrize("other", OTHERS, ids=lambda each: each.name)
def test_a_client_calls_on_after_its_server_was_killed(other: Other, tmp_path: Path) -> None:
    if not other.ready:
        pytest.skip(f"{other.name} has no environment in .integrations/: python -m tests.integrations.others makes it")
    assert tried(other, tmp_path) == ["3", "7"]


def test_each_client_is_listed_and_tried() -> None:
    page = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
    files = {path.stem for path in CLIENTS.glob("*.py")} - {"__main__"}
    assert files == {other.name for other in OTHERS}
    for other in OTHERS:
        assert f'--8<-- "tests/integrations/gateway_clients/{other.name}.py:use"' in page
