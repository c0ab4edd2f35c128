"""The SDK's own test suite, with `mcp.Client` replaced by `Connection`: `make compat`, or `python -m tests.sdk_suite`.

1. The sdist of the SDK comes from the registry and is unpacked into `.compat`, where a virtual environment has what
   its tests need.
2. One run with `mcp.Client` itself says which tests construct one, and pass.
3. Those run once more with `Connection` in its place. Those that fail are listed by reason.

This file is both the program and, under the name `sdk_suite_plugin`, the pytest plugin of those two runs: the SDK's
tests are a package `tests`, too, so that plugin and package cannot come from the same folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

VERSION = "2.3.0"
WANTED = 1780
"""Tests that have to pass."""
ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".compat"
PLUGIN = "sdk_suite_plugin"
MODE = "MCPCONN_SDK_SUITE"
"""Environment variable: `reference` or `connection`."""
RESULTS = "MCPCONN_SDK_SUITE_RESULTS"
"""Environment variable: the file that results are written to."""
TOOLS = (
    *("mcp[cli]", "transitions", "anyio", "structlog", "trio", "uvicorn", "coverage"),
    *("pytest", "pytest-xdist", "pytest-examples", "inline-snapshot", "dirty-equals"),
    *("logfire", "opentelemetry-sdk", "blockbuster", "pillow", "pydantic-settings", "pyyaml"),
)
"""What mcpconn needs, and the SDK's tests (its pyproject.toml, group `dev`)."""

NO_REASON = "not in the list of differences (tests/sdk_suite.py, docs/howto/from-mcp-client.md)"
DIFFERENCES: tuple[tuple[str, ...], ...] = (
    (
        "the first connect raises ConnectionFailed, with the SDK's error as its __cause__, and no exception group",
        "interaction/auth/test_authorize_token.py",
        "interaction/auth/test_discovery.py",
        "interaction/auth/test_identity_assertion.py",
        "test_auto_mode_propagates_a_network_error_from_discover_without_initializing",
        "test_the_default_streamable_http_app_answers_a_real_hostname_with_421",
    ),
    (
        "an error that leaves the block is not wrapped in an exception group",
        "test_an_error_leaving_the_async_with_block_arrives_wrapped_in_an_exception_group",
    ),
    (
        "a refusal with HEADER_MISMATCH is sent again only if HTTP 400 is seen, which a transport of the user's hides",
        "_re_list",
        "test_a_client_that_has_not_listed_the_tool_is_rejected_then_lists_and_resends_once",
        "test_modern_client_raises_a_header_mismatch_that_survives_the_retry",
    ),
    (
        "an attempt to connect has connect_timeout and a call its deadline, with a login inside a given transport",
        "interaction/auth/test_login_time.py",
    ),
    (
        "looks at private names, or replaces them",
        "test_client_with_url_initializes_streamable_http_transport",
        "test_a_raising_eviction_does_not_block_notification_delivery",
        "test_cache_none_disables_the_cache_and_the_handler_wrap",
        "test_client_listen_installs_the_cache_eviction_barrier_exactly_when_a_cache_exists",
        "test_the_cache_eviction_barrier_maps_events_and_contains_store_faults",
        "test_the_timeout_on_the_page_is_the_sdk_clients_and_a_client_without_one_has_five_seconds",
    ),
    (
        "a text is ours: it names the server, what happened, and whether the tool ran",
        "test_client_reentry_raises_runtime_error",
        "test_a_closed_client_raises_on_every_cacheable_verb_instead_of_serving_the_cache",
        "test_a_client_outside_its_async_with_refuses_every_call",
        "test_request_timeout_fails_the_pending_call",
        "test_session_level_timeout_applies_to_every_request",
        "test_a_404_mid_session_surfaces_as_a_session_terminated_error",
    ),
    (
        "a URL has to be one: checked by the constructor, not by the first request",
        "test_a_url_without_an_authority_passes_through_unchanged",
        "test_stripping_userinfo_changes_no_other_byte_of_the_url[tab-",
    ),
    (
        "tools are not listed inside a call, to check its result, if that takes a request",
        "test_the_whole_grant_is_one_token_request",
        "test_legacy_streamable_http_exchange_carries_no_modern_protocol_vocabulary",
    ),
    (
        "after an error or a call that was given up, the session may be asked whether it lives",
        "test_at_2026_abandoning_a_call_closes_its_stream_and_posts_nothing",
        "test_legacy_client_raises_a_header_mismatch_error_without_re_listing_or_retrying",
    ),
    (
        "once tools were listed, changes to them are listened for, and message_handler is told of them",
        "test_lowlevel_composition_serves_the_same_stream",
    ),
    (
        "BlockBuster takes reading a child's non-blocking pipe for blocking, and breaks the start of the child",
        "test_client_with_stdio_parameters_launches_the_server_as_a_subprocess",
        # What is left of that start, wherever it is collected.
        "Exception ignored in: <function Popen.__del__",
    ),
)
"""Why tests fail that are not to pass: each difference, and words in the ids of its tests or in their errors."""


# -- the pytest plugin


def pytest_configure(config: Any) -> None:
    """Replace `mcp.Client`, or note who constructs one."""
    mode = os.environ.get(MODE)
    if mode == "connection":
        _replace()
    elif mode == "reference":
        _note()


def _replace() -> None:
    # First everything that needs the SDK's own: it is imported by name.
    import mcp
    import mcp.client
    import mcp.client.client

    import mcpconn
    import mcpconn.testing
    import mcpconn.wire

    for module in (mcp, mcp.client, mcp.client.client):
        if hasattr(module, "Client"):
            module.Client = mcpconn.Connection  # type: ignore[attr-defined]


def _note() -> None:
    import mcp

    own = mcp.Client.__post_init__

    def __post_init__(self: Any) -> None:
        node, _, _phase = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")
        _write({"constructs": node})
        own(self)

    mcp.Client.__post_init__ = __post_init__  # type: ignore[method-assign]


def pytest_runtest_logreport(report: Any) -> None:
    """Write down how a test ended."""
    if "PYTEST_XDIST_WORKER" in os.environ or (report.when != "call" and report.outcome == "passed"):
        return
    if report.when == "teardown" and report.outcome == "skipped":
        return
    words = ""
    if report.outcome == "failed":
        crash = getattr(report.longrepr, "reprcrash", None)
        words = str(crash.message if crash is not None else report.longrepr)[:2000]
    _write({"test": report.nodeid, "when": report.when, "outcome": report.outcome, "words": words})


def _write(line: dict[str, Any]) -> None:
    # One write of less than a page, in append mode: the workers do not disturb each other.
    with open(os.environ[RESULTS], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


# -- the program


def suite() -> Path:
    """The folder of the unpacked sdist, fetched if it is not there yet."""
    folder = CACHE / f"mcp-{VERSION}"
    if not (folder / "tests").is_dir():
        CACHE.mkdir(exist_ok=True)
        _say(f"Fetching the SDK's sdist, {VERSION}, from the registry; this takes a minute or two.")
        _run(
            sys.executable,
            *("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--no-binary", "mcp", "--dest", str(CACHE), f"mcp=={VERSION}"),
        )
        with tarfile.open(CACHE / f"mcp-{VERSION}.tar.gz") as archive:
            archive.extractall(CACHE)
    return folder


def environment() -> Path:
    """The Python of the virtual environment for the suite, made if it is not there yet."""
    python = CACHE / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = CACHE / "venv" / ".installed"
    wanted = f"{VERSION}\n{' '.join(TOOLS)}\n"
    if not stamp.is_file() or stamp.read_text() != wanted:
        _say("Installing what the SDK's tests need; this takes a minute or two.")
        _run(sys.executable, "-m", "venv", str(CACHE / "venv"))
        pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
        _run(*pip, "--constraint", str(ROOT / "constraints.txt"), f"mcp=={VERSION}", *TOOLS)
        stamp.write_text(wanted)
    return python


def path() -> Path:
    """A folder with the package, the plugin and the suite's examples, and nothing else: our `tests` and `docs_src`
    have the names of the suite's own."""
    folder = CACHE / "path"
    folder.mkdir(exist_ok=True)
    for package in (ROOT / "mcpconn", suite() / "examples" / "stories"):
        if not (folder / package.name).exists():
            (folder / package.name).symlink_to(package, target_is_directory=True)
    shutil.copy(__file__, folder / f"{PLUGIN}.py")
    return folder


def run(mode: str, results: Path, arguments: Iterable[str]) -> dict[str, Any]:
    """Run the suite.

    Args:
        mode: `reference` with `mcp.Client`, `connection` with `Connection` in its place.
        results: The file for the results; replaced.
        arguments: More for pytest.

    Returns:
        `constructs`: tests that constructed a client. `failed`: the words of each test that failed. `passed`: the
        others.
    """
    folder, python = suite(), environment()
    results.unlink(missing_ok=True)
    variables = {MODE: mode, RESULTS: str(results), "PYTHONPATH": str(path()), "COLUMNS": "160"}
    workers = ("-n", "2", "--dist", "loadfile")
    pytest = (str(python), "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", "-q", "--no-header")
    quiet = ("--tb=short", "-o", "log_cli=false", "--color=no")
    with open(results.with_suffix(".log"), "w", encoding="utf-8") as log:
        subprocess.run(
            [*pytest, *workers, *quiet, *arguments],
            cwd=folder,
            env={**os.environ, **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return read(results)


def read(results: Path) -> dict[str, Any]:
    """The results of a run, from its file."""
    constructs: set[str] = set()
    failed: dict[str, str] = {}
    passed: set[str] = set()
    for text in results.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "constructs" in line:
            constructs.add(line["constructs"])
        elif line["outcome"] == "failed":
            failed.setdefault(line["test"], line["words"])
        elif line["outcome"] == "passed":
            passed.add(line["test"])
    return {"constructs": constructs, "failed": failed, "passed": passed - set(failed)}


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def main(arguments: list[str] | None = None) -> int:
    """Report the count."""
    parser = argparse.ArgumentParser(prog="python -m tests.sdk_suite", description=__doc__.partition("\n")[0])
    parser.add_argument("--again", action="store_true", help="only what failed the last time")
    parser.add_argument("--last", action="store_true", help="run nothing: report the last run")
    parser.add_argument("rest", nargs="*", help="files of the suite, or more for pytest")
    options = parser.parse_args(arguments)
    reference = CACHE / "reference.jsonl"
    suite()
    if not reference.is_file():
        _say("Running the suite with mcp.Client, to see which tests construct one.")
        run("reference", reference, ())
    known = read(reference)
    concerned = known["constructs"] & known["passed"]
    ours = CACHE / "connection.jsonl"
    if not options.last:
        asked = [*options.rest]
        if options.again:
            asked += sorted(set(read(ours)["failed"]) & concerned)
        elif not asked:
            asked = sorted({test.partition("::")[0] for test in concerned})
        part = CACHE / "part.jsonl"
        run("connection", part, asked)
        if options.rest or options.again:
            _merge(ours, part)
        else:
            part.replace(ours)
    return report(read(ours), concerned)


def _merge(whole: Path, part: Path) -> None:
    new = [json.loads(line) for line in part.read_text(encoding="utf-8").splitlines()]
    done = {line["test"] for line in new}
    old = [json.loads(line) for line in whole.read_text(encoding="utf-8").splitlines()] if whole.is_file() else []
    kept = [line for line in old if line.get("test") not in done]
    whole.write_text("".join(json.dumps(line) + "\n" for line in (*kept, *new)), encoding="utf-8")


def report(result: dict[str, Any], concerned: set[str]) -> int:
    """Print what came of it. Returns the exit code."""
    passed = concerned & result["passed"]
    groups: dict[str, list[str]] = defaultdict(list)
    for test in sorted(concerned - passed):
        groups[_reason(test + result["failed"].get(test, "")) or NO_REASON].append(test)
    for reason, tests in sorted(groups.items(), key=lambda item: -len(item[1])):
        _say(f"\n{len(tests)}: {reason}")
        for test in tests:
            first = result["failed"].get(test, "not run").strip().partition("\n")[0]
            _say(f"    {test}" + (f"\n        {first[:160]}" if reason == NO_REASON else ""))
    _say(f"\n{len(passed)} of {len(concerned)} tests that construct a client pass with Connection in its place.")
    return 0 if len(passed) >= WANTED and NO_REASON not in groups else 1


def _reason(known: str) -> str | None:
    return next((reason for reason, *patterns in DIFFERENCES if any(each in known for each in patterns)), None)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
