"""What the tests of child processes share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stdio.programs import Told, telling

if sys.platform == "win32":
    collect_ignore_glob = ["test_*"]
    """Signals, process groups and pipes of the file system are POSIX's."""


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """Lines from other processes."""
    with telling(tmp_path) as pipe:
        yield pipe
