"""What every test can ask for: the event loops, the profiles of hypothesis, the everything server."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import mcp.client.stdio
import pytest
from hypothesis import settings

from tests.node import find_modules
from tests.suites import NAMES, choose, may_hold

ROOT = Path(__file__).resolve().parent.parent
EVERYTHING = "@modelcontextprotocol/server-everything"

# "ci" tries the same examples each time and keeps none; "dev" tries others each time and keeps what failed.
# Neither has a deadline: a slow machine is no bug.
settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

# A shell's background jobs, and their children, come with SIGINT ignored; some tests are about Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# So does what nohup starts with SIGHUP; some tests are about a terminal that is closed.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The SDK hands few variables on to the processes it starts. This one tells them that they are measured.
if "COVERAGE_PROCESS_CONFIG" in os.environ:
    mcp.client.stdio.DEFAULT_INHERITED_ENV_VARS.append("COVERAGE_PROCESS_CONFIG")

# Every manager reads the file that SSL_CERT_FILE names. The system's has 150 certificates or so and takes 30 ms each
# time; this one has a single certificate, whose key is discarded. A test that installs packages needs the system's.
os.environ.setdefault("MCPCONN_TESTS_SYSTEM_CERT_FILE", os.environ.get("SSL_CERT_FILE", ""))
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "data" / "authority.pem")

EVENT_LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]
if os.environ.get("MCPCONN_UVLOOP") == "1":
    EVENT_LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="asyncio+uvloop"))


@pytest.fixture(scope="module", params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop of an async test. anyio's plugin runs tests marked `anyio` once on each."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture(scope="session")
def everything_server_js() -> Path:
    """The everything server's entry, to be run by node. MCPCONN_NODE_DIR names another node_modules."""
    modules = find_modules()
    entry = modules / EVERYTHING / "dist" / "index.js"
    if shutil.which("node") is None:
        pytest.skip("node is not installed, and the everything server needs it")
    if not entry.is_file():
        pytest.skip(f"no {EVERYTHING} in {modules}; .ci/run installs it")
    return entry


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--suite` and `--short`, for the Makefile and .ci/run."""
    parser.addoption(
        "--suite", metavar="NAMES", help=f"run these suites alone, by commas: {', '.join(NAMES)}; see tests/suites.py"
    )
    parser.addoption("--short", action="store_true", help="of slow suites, run the short form")


def suites_of(config: pytest.Config) -> list[str]:
    """The suites that were asked for; none means every test."""
    named = config.getoption("--suite")
    suites = named.split(",") if named else []
    if unknown := sorted(set(suites) - set(NAMES)):
        raise pytest.UsageError(f"there is no suite called {', '.join(unknown)}; known are {', '.join(NAMES)}")
    return suites


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files without a test of the suites are not imported: that is half a minute of processor time for `quick`."""
    suites = suites_of(config)
    if not suites or collection_path.suffix != ".py" or ROOT not in collection_path.parents:
        return None
    return None if may_hold(collection_path.relative_to(ROOT).as_posix(), suites) else True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Leave the tests of the suites."""
    if suites := suites_of(config):
        chosen = list(choose(items, suites, short=config.getoption("--short")))
        left = {item.nodeid for item in chosen}
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in left])
        items[:] = chosen


def pytest_collection_finish() -> None:
    """Five thousand collected tests need not be looked at by every garbage collection of theirs."""
    gc.collect()
    gc.freeze()
