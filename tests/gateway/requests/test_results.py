"""A result in the form of its client's era."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mcpconn.gateway.http.notes import note_earlier_try
from mcpconn.gateway.outcomes import tool_error
from mcpconn.gateway.requests.results import dressed
from mcpconn.keys import OUTCOME


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize(("earlier", "told"), [(False, "not_run"), (True, "unknown")])
def test_a_second_try_that_did_not_run_does_not_speak_for_the_first(version: str, earlier: bool, told: str) -> None:
    scope: dict[str, Any] = {}
    if earlier:
        note_earlier_try(scope)
    ctx: Any = SimpleNamespace(request=SimpleNamespace(scope=scope), method="tools/call", protocol_version=version)
    answer = dressed(ctx, tool_error("Its server is away.", "not_run", {}), dict)
    assert answer["_meta"][OUTCOME] == told
    assert ("An earlier request" in str(answer["content"])) == earlier
