"""What is installed under which name, and what importing it loads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mcpconn

ROOT = Path(__file__).resolve().parent.parent
ON_DEMAND = ("asgi", "cli", "demo", "gateway", "integrations", "testing")
"""What a program that keeps connections does not need. Each costs time at the start."""


def python(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    before = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    words = [sys.executable, "-c", before + arguments[0]] if arguments[0][0] != "-" else [sys.executable, *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


def test_the_import_loads_only_what_it_needs() -> None:
    run = python("import sys, mcpconn; print(*(name for name in sys.modules if name.startswith('mcpconn.')))")
    assert run.returncode == 0, run.stderr
    rooms = {name.split(".")[1] for name in run.stdout.split()}
    assert {"core", "errors"} <= rooms
    assert rooms & {*ON_DEMAND, "manager", "runtime", "wire"} == set()


def test_names_that_are_not_loaded_are_listed_and_found() -> None:
    line = "import mcpconn; assert set(mcpconn.__all__) <= set(dir(mcpconn)); print(mcpconn.Manager.__module__)"
    run = python(line)
    assert (run.returncode, run.stdout) == (0, "mcpconn.manager\n"), run.stderr


def test_the_import_loads_few_modules_beyond_those_of_mcp() -> None:
    line = (
        "import sys, mcp; before = set(sys.modules); from mcpconn import Manager; print(*(set(sys.modules) - before))"
    )
    run = python(line)
    assert run.returncode == 0, run.stderr
    loaded = run.stdout.split()
    # Counted, because a time depends on the machine: 139 when this was written, and each takes a fraction of a
    # millisecond.
    assert len(loaded) <= 145
    # Imported with the first server, or file, that needs them.
    rooms = ("mcpconn.auth", "mcpconn.mcpjson", "mcpconn.wire.stdio", "mcpconn.wire.sse", "mcpconn.wire.engine", "mcp.")
    assert [name for name in loaded if name.startswith(rooms)] == []


def test_the_package_runs_as_a_module() -> None:
    run = python("-m", "mcpconn", "--version")
    assert (run.returncode, run.stdout) == (0, f"mcpconn {mcpconn.__version__}\n"), run.stderr


def test_no_text_installs_from_the_index() -> None:
    kept = [*ROOT.glob("*.md"), *ROOT.glob("mcpconn/**/*.py"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*")]
    kept += ROOT.glob("docs_src/**/*.*")
    wrong = re.compile(r"(?:pip|uv|pipx)\w* (?:install|add) '?\"?mcp(?:conn|-connection-manager)\b(?! mcp-conn)")
    found = [path.relative_to(ROOT).as_posix() for path in kept if path.is_file() and wrong.search(path.read_text())]
    assert found == [], "it is not on an index: name '.[extra]' in a clone, or the wheel"


MIXED = "two projects that share the import name 'mcpconn' are installed here, and their files are mixed"


def record(site: Path, *files: str) -> None:
    """The other project's record of what it has installed, as pip leaves it."""
    info = site / "mcpconn-0.3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mcpconn\nVersion: 0.3.1\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


@pytest.mark.parametrize("linked", [True, False], ids=["one folder", "two folders"])
def test_files_of_the_namesake_are_named(linked: bool, tmp_path: Path) -> None:
    # From Python 3.12 on, files that are recorded and are not there do not count.
    if linked:
        record(tmp_path, "mcpconn/__init__.py")
        (tmp_path / "mcpconn").symlink_to(ROOT / "mcpconn")
    else:
        record(tmp_path, "mcpconn/client.py")
        (tmp_path / "mcpconn").mkdir()
        (
            tmp_path / "mcpconn" / "client.py"
        ).touch()  # without an __init__.py: the package on sys.path behind it is imported
    run = python("import mcpconn", path=tmp_path)
    assert (MIXED in run.stderr) is linked, run.stderr
    assert run.returncode == int(linked)


def test_an_editable_install_under_the_name_is_not_a_mixture(tmp_path: Path) -> None:
    record(tmp_path, "_editable_impl_mcpconn.pth", "mcpconn-0.3.1.dist-info/METADATA")
    (tmp_path / "mcpconn").symlink_to(ROOT / "mcpconn")
    run = python("import mcpconn", path=tmp_path)
    assert run.returncode == 0, run.stderr
