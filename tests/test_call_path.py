"""A call passes through few files, so that a reader finds the next step."""

from __future__ import annotations

import pytest

from tests.call_path import passage

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_passes_few_files(anyio_backend: str) -> None:
    passed = await passage()
    assert passed.files[:3] == ["by_name.py", "requests.py", "runtime/calls.py"]
    assert len(passed.files) <= 11
    assert passed.changes <= 23
