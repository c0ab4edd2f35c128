"""The pytest fixtures, in runs of pytest of their own: as a user's tests ask for them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_src.conftest import HOWTO, SAFETY

BEGINNING = """
from typing import Any
import anyio, pytest
from mcpconn.testing import clock, faults

pytest_plugins = ["mcpconn.testing.fixtures"]
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend(mcp_virtual_backend):
    return mcp_virtual_backend
"""


def outcomes(path: Path, *, failing: bool = False) -> tuple[dict[str, int], str]:
    """Run the tests of a file: how many ended how, and what was said."""
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # Away from this project's own settings and fixtures.
    command += ["-c", "/dev/null", "--rootdir", str(path.parent), "-W", "ignore:Async generator:ResourceWarning"]
    run = subprocess.run([*command, str(path)], cwd=path.parent, capture_output=True, text=True, timeout=2 * SAFETY)
    assert run.returncode == failing, run.stdout + run.stderr
    last = run.stdout.strip().splitlines()[-1]
    return {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|error)s?\b", last)}, run.stdout


def test_the_example_passes_on_both_loops() -> None:
    assert outcomes(HOWTO / "test_my_handler_with_fixtures.py")[0] == {"passed": 6}


def test_the_fixtures_refuse_sockets_and_false_histories(tmp_path: Path) -> None:
    path = tmp_path / "test_wrong.py"
    path.write_text(
        BEGINNING
        + """
async def test_time_would_run_ahead_of_it(mcp_server):
    raise AssertionError("not reached")

async def test_a_call_that_was_never_made(mcp_history):
    with mcp_history.call("charge") as call:
        call.answer = "invented"

async def test_one_script_for_all(mcp_manager, mcp_transport, mcp_script, mcp_history):
    assert mcp_transport.script is mcp_script
    assert mcp_manager["server"].state == "ready"
    began = anyio.current_time()
    with mcp_history.call("slow", {"seconds": 50}) as call:
        call.answer = await mcp_manager.call_tool("server", call.tool, call.arguments)
    assert anyio.current_time() - began == pytest.approx(50)
    assert mcp_script.executions == {"slow": 1}
""",
        encoding="utf-8",
    )
    # Each on asyncio and on trio. A history is looked at when its test has passed.
    counts, said = outcomes(path, failing=True)
    assert counts == {"passed": 4, "error": 4}
    assert "mcp_server is a real socket, and time is virtual here" in said
    assert "no answer invented: call call-1 of charge" in said


@pytest.mark.parametrize("absent", ["pytest", "hypothesis", "trio"])
def test_the_package_needs_none_of_it(absent: str) -> None:
    program = f"import sys; sys.modules[{absent!r}] = None; import mcpconn.testing, mcpconn.testing.sandbox"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=SAFETY)


@pytest.mark.parametrize(
    ("module", "absent"),
    [("fixtures", "pytest"), ("machine", "hypothesis"), ("strategies", "hypothesis")],
)
def test_a_module_says_what_it_needs(module: str, absent: str) -> None:
    program = f"import sys; sys.modules[{absent!r}] = None; import mcpconn.testing.{module}"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SAFETY)
    assert f"mcpconn.testing.{module} needs {absent}: pip install {absent}" in run.stderr
