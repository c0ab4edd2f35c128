"""The frameworks whose environments are there: `make test-integrations` makes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integrations import frameworks
from tests.integrations.frameworks import FRAMEWORKS, Framework

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda each: each.name)
def test_a_frameworks_agent_lives_through_dying_servers(framework: Framework) -> None:
    if not framework.ready:
        pytest.skip(f"{framework.package} has no environment in .integrations/: make test-integrations makes it")
    outcome = frameworks.tried(framework)
    assert frameworks.passed(outcome), outcome


def test_each_framework_has_a_module_an_agent_and_a_section() -> None:
    page = (ROOT / "docs/frameworks.md").read_text(encoding="utf-8")
    shared = {"__init__", "each", "server", "session"}
    ours = {path.stem for path in (ROOT / "mcpconn/integrations").glob("*.py")} - shared
    assert ours == {each.name for each in FRAMEWORKS}
    for framework in FRAMEWORKS:
        assert (ROOT / f"tests/integrations/agents/{framework.name}.py").exists()
        assert re.search(rf"^## {framework.package.removesuffix('-slim').removesuffix('-core')}", page, re.MULTILINE)


@pytest.mark.parametrize("outcome", [{}, {"a_tool_call": "AssertionError: no"}, {"started": "exit status 1: "}])
def test_an_outcome_with_one_thing_wrong_has_not_passed(outcome: dict[str, str]) -> None:
    assert not frameworks.passed(outcome)
