"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mcpconn"
TESTS = ROOT / "tests"

MAX_LINES = 400
ODD_WORDS = re.compile(
    r"\b(made again|makes? again|mend(s|ed|ing)?|grave|Returns its end|[Ww]aiters there are none|for want of"
    r"|untouched|goodbyes?|smells?|smelled|to be had|is told in|Tell how it is"
    r"|(?<!503 )for ever|[Nn]obody (can )?knows?|under way|in vain|hammered"
    r"|(does|do) no harm|may do harm|goes before|(None|False|True|[Nn]othing) where|(?<!a )person's business"
    r"|(waiting|waiting and reconnecting|waits and replays) included|where there (is|are)|makes itself felt"
    r"|is brought back by|Waiters are none|what came of it|made anew|anew(?!\s*(?:[:=,)]|or\b)))\b"
)
"""What native technical English says otherwise.

| not | but |
| --- | --- |
| mend, make again, anew | fix, retry, again |
| for ever, in vain, under way | indefinitely, without success, in progress |
| nobody knows whether it ran | a failure whose outcome is unknown |
| running it twice does no harm | running it twice is harmless |
| None where there is none | None if there is none |
| `deny` goes before `allow` | `deny` overrides `allow` |
| seconds, waiting included | seconds, including waiting |
"""
MAX_NAMES = 150
"""Public names of the whole package: what is public is documented."""
KEPT_OUT_OF_THE_CORE = {"anyio", "asyncio", "httpx2", "mcp", "structlog", "trio"}

NUMBER = r"[\d_]*\.?[\d_]+(?:[eE][+-]?\d+)?"
REAL_SLEEP = re.compile(rf"\b(?:time|asyncio)\.sleep\(\s*({NUMBER})")


def files(folder: Path, pattern: str = "*.py") -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if "__pycache__" not in path.parts)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_docstring(index: int, node: ast.stmt) -> bool:
    if index != 0 or not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


def sets_all(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        targets: list[ast.expr] = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target]
    else:
        return False
    return all(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def statements_with_code(source: str) -> Iterator[int]:
    """The lines of top-level statements that are neither docstring nor import, now or at first use, nor __all__."""
    for index, node in enumerate(ast.parse(source).body):
        if not (imports(node) or is_docstring(index, node) or sets_all(node)):
            yield node.lineno


def imports(node: ast.stmt) -> bool:
    """Whether it imports: now, for a type checker, or at first use (`__getattr__ = first_use(...)`)."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING" and all(imports(each) for each in (*node.body, *node.orelse))
    if isinstance(node, ast.Assign):
        return ast.unparse(node).startswith("__getattr__ = first_use(")
    return isinstance(node, (ast.Import, ast.ImportFrom))


def real_sleeps(source: str) -> Iterator[int]:
    """The lines that sleep for a time written down in them."""
    for match in REAL_SLEEP.finditer(source):
        if float(match[1]) > 0:
            yield source.count("\n", 0, match.start()) + 1


@pytest.mark.parametrize("path", files(PACKAGE, "__init__.py"), ids=named)
def test_an_init_holds_only_imports_and_all(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), f"{named(path)} has no docstring"
    assert list(statements_with_code(source)) == [], f"{named(path)} has code on these lines"


@pytest.mark.parametrize("path", files(PACKAGE), ids=named)
def test_a_file_has_at_most_400_lines(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{named(path)} has {lines} lines; {MAX_LINES} are the most"


IMPORT_THE_CORE = """
import importlib, json, sys, types

package, modules, path = json.loads(sys.argv[1])
sys.path += path
stub = types.ModuleType("mcpconn")
stub.__path__ = [package]
sys.modules["mcpconn"] = stub
for name in modules:
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_the_core_loads_neither_an_event_loop_nor_a_protocol() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in files(PACKAGE / "core")
    ]
    assert modules, "there is no mcpconn.core"
    # -S leaves out site and with it every .pth file, which could load anything before the core does.
    arguments = json.dumps([str(PACKAGE), modules, [entry for entry in sys.path if entry]])
    run = subprocess.run(
        [sys.executable, "-S", "-c", IMPORT_THE_CORE, arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    loaded = set(json.loads(run.stdout))
    assert "mcpconn" in loaded
    assert sorted(loaded & KEPT_OUT_OF_THE_CORE) == []


def test_every_public_name_exists() -> None:
    package = importlib.import_module("mcpconn")
    assert package.__all__, "mcpconn has no public names"
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


DOCUMENTS = [*files(ROOT / "docs", "*.md"), *sorted(ROOT.glob("*.md")), ROOT / "tests" / "README.md", *files(PACKAGE)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_words_are_those_of_the_field(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if ODD_WORDS.search(line)] == []


MARKDOWN = [*files(ROOT / "docs", "*.md"), *sorted(ROOT.glob("*.md")), ROOT / "tests" / "README.md"]
WIDTH = 100
NOT_FOLDED = re.compile(r"docs/(conformance|comparison)\.md")
"""Reports that runs write."""


def too_wide(text: str) -> Iterator[str]:
    """Lines of prose that are too long. Tables, code and lists of names cannot be folded."""
    fence = ""
    for line in text.splitlines():
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        if mark is not None:
            fence = "" if fence and line.strip().startswith(fence) else fence or mark[1]
        elif len(line) > WIDTH and not fence and not re.match(r"\s*(\||members:|!\[)|    \s*\S", line):
            yield line


@pytest.mark.parametrize("path", MARKDOWN, ids=named)
def test_prose_is_folded(path: Path) -> None:
    if NOT_FOLDED.fullmatch(named(path)) is None:
        assert list(too_wide(path.read_text(encoding="utf-8"))) == [], f"at most {WIDTH} columns"


def test_a_long_line_of_prose_is_found() -> None:
    long = "word " * 30
    assert list(too_wide(f"# Title\n{long}\n| {long} |\n```text\n{long}\n```\n    {long}\n- {long}\n")) == [
        long,
        f"- {long}",
    ]


OTHER_PRIVATE = {"os._exit", "parts._replace", "connection._supervisor", "_core", "_run"}
"""Public in the standard library; and what the test tools read of a connection and of trio."""


def private_names_of_others(source: str) -> Iterator[str]:
    """Imports and attributes with an underscore that belong to no module of ours, in a module's source."""
    tree = ast.parse(source)
    defined = {"self", "cls"}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            defined |= {node.attr} if isinstance(node.value, ast.Name) and node.value.id == "self" else set()
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("mcpconn"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (name for name in names if private(name) and node.module != "__future__")
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if any(map(private, alias.name.split("."))))
        elif isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in defined:
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ATTRIBUTE_CALLS:
            asked = node.args[1] if len(node.args) > 1 else None
            if isinstance(asked, ast.Constant) and private(str(asked.value)) and asked.value not in defined:
                yield ast.unparse(node)


ATTRIBUTE_CALLS = ("getattr", "hasattr", "setattr", "delattr")


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("path", [path for path in files(PACKAGE) if PACKAGE / "sdk" not in path.parents], ids=named)
def test_private_names_of_the_sdk_have_one_door(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert [name for name in private_names_of_others(source) if name not in OTHER_PRIVATE] == []


@pytest.mark.parametrize(
    "line",
    [
        "from mcp.client._memory import X",
        "from mcp import _x",
        "import httpx2._utils",
        "session._stamp(1)",
        'getattr(client, "_cache", None)',
        "self.client._session = None",
    ],
)
def test_the_search_finds_private_names(line: str) -> None:
    assert len(list(private_names_of_others(line))) == 1


def test_the_door_says_of_each_name_why() -> None:
    door = importlib.import_module("mcpconn.sdk").__doc__ or ""
    touched = {
        name.removeprefix("self.defaults.").rpartition(".")[2]
        for path in files(PACKAGE / "sdk")
        for name in private_names_of_others(path.read_text(encoding="utf-8"))
    }
    names = {found for name in touched for found in re.findall(r"\b_[a-z]\w+", name)}
    assert len(names) > 8
    assert sorted(name for name in names if name not in door) == []


def test_the_public_names_are_not_too_many() -> None:
    count = 0
    for path in files(PACKAGE):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if sets_all(node):
                assert isinstance(node, ast.Assign)
                count += len(ast.literal_eval(node.value))
    assert count <= MAX_NAMES


def test_the_import_loads_only_what_is_used() -> None:
    program = "import json, sys, mcpconn; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT, timeout=60)
    rooms = {name.split(".")[1] for name in json.loads(output) if name.startswith("mcpconn.")}
    assert rooms & {"testing", "demo", "cli", "gateway", "asgi", "redis", "sync", "handlers"} == set()


def test_no_public_name_is_listed_twice() -> None:
    names = importlib.import_module("mcpconn").__all__
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", files(PACKAGE / "integrations"), ids=named)
def test_options_of_integrations_are_typed(path: Path) -> None:
    module = ast.parse(path.read_text(encoding="utf-8"))
    public = [each for each in module.body if not getattr(each, "name", "_").startswith("_")]
    inside = [each for owner in public if isinstance(owner, ast.ClassDef) for each in owner.body]
    untyped = [
        each.name
        for each in (*public, *inside)
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) and each.args.kwarg is not None
        # smolagents calls `forward` with the arguments that the model wrote.
        if ast.unparse(each.args.kwarg.annotation or ast.Name("Any")) == "Any" and each.name != "forward"
    ]
    assert untyped == [], f"{named(path)}: name the options, in a TypedDict or as parameters"


@pytest.mark.parametrize("path", files(TESTS), ids=named)
def test_no_test_sleeps_in_real_time(path: Path) -> None:
    lines = list(real_sleeps(path.read_text(encoding="utf-8")))
    assert lines == [], f"{named(path)} sleeps on these lines; wait for an event, or use the test clock"


@pytest.mark.parametrize("call", ["time.sleep({})", "await asyncio.sleep( {} )", "time.sleep({},)"])
@pytest.mark.parametrize(("seconds", "real"), [("0.1", True), (".5", True), ("1e-3", True), ("0", False)])
def test_the_search_knows_a_real_sleep(call: str, seconds: str, real: bool) -> None:
    assert list(real_sleeps(call.format(seconds))) == ([1] if real else [])


@pytest.mark.parametrize(
    "line", ["def f(): ...", "x = 1", "if True:\n    pass", "if TYPE_CHECKING:\n    f()", "f()", '__version__ = "1"']
)
def test_the_search_finds_code_in_an_init(line: str) -> None:
    source = f'"""Doc."""\nfrom __future__ import annotations\nimport os\n__all__ = ["os"]\n{line}\n'
    assert list(statements_with_code(source)) == [5]


def test_names_of_tests_are_short() -> None:
    """Counted: the names of all functions that begin with `test_`, with it."""
    names = [
        node.name
        for path in files(TESTS)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    ]
    assert len(names) > 1000
    assert median(map(len, names)) <= 40
