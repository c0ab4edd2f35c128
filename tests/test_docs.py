"""The documentation: made from the code where it can be, and complete without a network."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from benchmarks import figures as benchmark_figures
from benchmarks import pages as benchmark_pages
from mcpconn import diagram
from mcpconn.cli.more import app

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SOURCES = ROOT / "docs_src"
MADE = {"invariants.md", "conformance.md", "performance.md"}
"""Reports on runs: what they show is what came out."""
PAGES = sorted(path for path in DOCS.rglob("*.md"))
WRITTEN = [path for path in PAGES if path.relative_to(DOCS).as_posix() not in MADE]

SNIPPET = re.compile(r'^\s*--8<-- "(?P<file>[^":]+)(?::(?P<part>\w+))?"$')
FENCE = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,}|~{3,})(?P<language>[\w-]*)")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """The code blocks of a page: language and lines."""
    fence, language, lines = "", "", list[str]()
    for line in text.splitlines():
        mark = FENCE.match(line)
        if fence:
            if mark is not None and mark["fence"].startswith(fence) and line.strip() == mark["fence"]:
                yield language, lines
                fence, lines = "", []
            else:
                lines.append(line)
        elif mark is not None:
            fence, language = mark["fence"], mark["language"]


def without_made(text: str) -> str:
    """A page without what stands between the markers of mcpconn.diagram."""
    return re.sub(r"<!-- mcpconn:(\w+).*?<!-- /mcpconn:\1 -->", "", text, flags=re.DOTALL)


def snippets() -> set[str]:
    return {
        match["file"]
        for page in PAGES
        for line in page.read_text("utf-8").splitlines()
        if (match := SNIPPET.match(line))
    }


@pytest.mark.parametrize("path", [DOCS, ROOT / "README.md"], ids=named)
def test_every_diagram_and_table_is_what_the_code_says(path: Path) -> None:
    assert [str(drift) for drift in diagram.check(path)] == []


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_every_code_block_is_a_tested_file(page: Path) -> None:
    for language, lines in blocks(without_made(page.read_text(encoding="utf-8"))):
        assert language, f"{named(page)}: a code block says in which language it is"
        for line in lines:
            match = SNIPPET.match(line)
            assert match, f"{named(page)}: {line!r} is written into the page; put it into docs_src/, where it is tested"
            assert (ROOT / match["file"]).is_file(), match["file"]
            if match["part"]:
                assert f"--8<-- [start:{match['part']}]" in (ROOT / match["file"]).read_text(encoding="utf-8")


def test_no_example_is_left_over() -> None:
    files = {named(path) for path in SOURCES.rglob("*.*") if path.is_file() and path.suffix not in (".pyc", ".toml")}
    # The picture that an example compares is read by the example.
    assert files - snippets() - {"docs_src/howto/our-connections.md"} == set()


def pages_in(navigation: Any) -> Iterator[str]:
    if isinstance(navigation, str):
        yield navigation
    else:
        for each in navigation.values() if isinstance(navigation, dict) else navigation:
            yield from pages_in(each)


def test_every_page_is_in_the_navigation() -> None:
    configuration = YAML().load(ROOT / "mkdocs.yml")
    listed = set(pages_in(configuration["nav"]))
    # That each of these exists is what the build of the site says.
    assert {path.relative_to(DOCS).as_posix() for path in PAGES} <= listed


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    commands = getattr(get_command(app), "commands")  # noqa: B009  typer's own class is not public
    for command, rest in re.findall(r"`mcpconn ([a-z]+)\b([^`]*)`", page.read_text(encoding="utf-8")):
        assert command in commands, f"mcpconn {command}"
        known = {option for parameter in commands[command].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= known, f"mcpconn {command}{rest}"


def test_the_tutorials_commands_work() -> None:
    lines = (SOURCES / "tutorial" / "install.sh").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "python3 -m venv .venv"
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    (extra,) = re.findall(r"pip install '\.\[(\w+)\]'", "\n".join(lines))
    assert re.search(rf"^{extra} = \[", extras, re.MULTILINE)
    assert (ROOT / lines[-1].removeprefix("cd ")).is_dir()


def test_what_is_written_of_the_benchmarks_is_what_they_found() -> None:
    results = json.loads(benchmark_pages.RESULTS.read_text(encoding="utf-8"))
    assert benchmark_pages.PAGE.read_text(encoding="utf-8") == benchmark_pages.performance(results)
    assert benchmark_pages.FIGURES.read_text(encoding="utf-8") == benchmark_figures.figures(results)
    for page in benchmark_pages.COMPARED:
        text = page.read_text(encoding="utf-8")
        assert benchmark_pages.compared(text, results["peers"]) == text, f"{named(page)}: python -m benchmarks.pages"


@pytest.mark.parametrize(
    ("answered", "recovery", "problem", "words"),
    [
        ("3 of 3", "17.3 ms", "", "answered in 17 ms"),
        ("0 of 3", "10.9 ms", "OutcomeUnknown: the connection was cut", "said unknown, back in 11 ms"),
        ("0 of 3", "never", "MCPError: Session not found", "an error, never back"),
        ("1 of 3", "1.01 s", "MCPError: Connection closed", "1 of 3 answered, else an error, back in 1 s"),
    ],
)
def test_a_comparison_is_told_in_words(answered: str, recovery: str, problem: str, words: str) -> None:
    cell = {"answered": answered, "ran": 1, "recovery": recovery, "problem": problem}
    assert benchmark_pages.words(cell) == words


def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    if importlib.util.find_spec("material") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("the tools of the site are not installed; `make docs` installs them")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout + run.stderr == "", "the build says something that nobody has to act on"
    assert (tmp_path / "site" / "assets" / "machine.svg").is_file()
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        # What the browser loads by itself; a link that a reader may click is none of these.
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\" >]+)", text)
        loaded += re.findall(r"<link\b[^>]*\brel=\"?(?:stylesheet|icon|preload|preconnect)\"?[^>]*>", text)
        assert [each for each in loaded if "//" in each] == [], page.name
        assert 'class="mermaid"' not in text, f"{page.name}: Mermaid would be fetched from a network"
    assert "iframe-worker" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "site" / "search" / "search_index.js").stat().st_size > 10_000
