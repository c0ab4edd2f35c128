"""A shop on stdio whose process can be killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integrations.shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)
