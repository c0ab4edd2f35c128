"""The demo: what it counts, what it prints, how it ends; and the README's example."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from mcpconn import diagram
from mcpconn.core import DEFAULT_RULES, TRANSITIONS, Event, Failure, FailureKind, State
from mcpconn.core.failures import Delivery
from mcpconn.demo import summary, tally
from mcpconn.demo.summary import Outcome
from mcpconn.demo.tally import CallRecord, Recovery, breaches
from mcpconn.demo.timeline import Timeline
from mcpconn.runtime.journal import Change
from mcpconn.wire.child import ChildExited
from tests import demo_picture

ROOT = Path(__file__).resolve().parent.parent
DEMO = [sys.executable, "-m", "mcpconn.demo"]
QUICKSTART = ROOT / "examples" / "quickstart.py"
README = ROOT / "README.md"
LIMIT = 100
"""Seconds after which a child process that says nothing is ended."""


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A child process, killed at the end of the block with all that it started."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        if process.poll() is None:
            descendants = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for each in descendants:
                each.kill()
        process.wait(LIMIT)
        assert process.stdout is not None
        process.stdout.close()


def read_until(process: subprocess.Popen[str], *wanted: str) -> list[str]:
    """Lines of output, up to the one by which each of `wanted` has been said in turn."""
    lines: list[str] = []
    assert process.stdout is not None
    remaining = list(wanted)
    for line in process.stdout:
        lines.append(line)
        if remaining[0] in line:
            del remaining[0]
            if not remaining:
                return lines
    raise AssertionError(f"{remaining[0]!r} was never said:\n{''.join(lines)}")


# -- the whole


def numbers(output: str, label: str) -> list[int]:
    """The numbers of a row of the summary: http, stdio, all."""
    match = re.search(rf"^{label} +(\d+) +(\d+) +(\d+)", output, re.MULTILINE)
    assert match, f"no row {label!r} in:\n{output}"
    return [int(group) for group in match.groups()]


def test_the_demo_survives_all_faults_and_leaves_nothing_running() -> None:
    run = subprocess.run(
        [*DEMO, "--seconds", "1"], capture_output=True, text=True, cwd=ROOT, timeout=LIMIT, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == "", "log lines clutter the demo"
    assert "\x1b" not in run.stdout, "colours where there is no terminal"
    calls, answered = numbers(run.stdout, "calls"), numbers(run.stdout, "answered")
    unknown = numbers(run.stdout, "outcome unknown")
    assert all(calls)
    assert [all_ - got for all_, got in zip(calls, answered, strict=True)] == unknown
    assert numbers(run.stdout, "executed twice") == [0, 0, 0]
    assert numbers(run.stdout, "failed") == [0, 0, 0]
    assert len(numbers(run.stdout, "replayed")) == 3
    for cause, times in (
        ("session expired", 1),
        ("429 Too Many Requests", 1),
        ("server killed", 1),
        ("503 Service Unavailable", 1),
        ("child killed", 1),
    ):
        assert re.search(rf"^{cause} +{times} ", run.stdout, re.MULTILINE), f"{cause}: not {times} times"
    assert "The promise held" in run.stdout
    killed, restarted = (int(pid) for pid in re.findall(r"process (\d+)", run.stdout))
    assert killed != restarted
    assert not is_demo_server(restarted)


def is_demo_server(pid: int) -> bool:
    """Whether the process is there, and is the demo's: a number may have been given to another since."""
    try:
        return any(part.endswith("server.py") for part in psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("number", "when"),
    [(signal.SIGINT, "http    connecting -> ready"), (signal.SIGTERM, "Starting")],
    ids=["Ctrl-C", "SIGTERM while it starts"],
)
def test_the_demo_is_ended_cleanly_by(number: signal.Signals, when: str) -> None:
    with running([*DEMO, "--seconds", "600"]) as process:
        read_until(process, when)
        servers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        output, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 128 + signal.SIGINT
        assert output.endswith("Interrupted. Both servers have been ended.\n"), output
        _, alive = psutil.wait_procs(servers, timeout=10)
        assert alive == []


# -- the judgement


GOOD = [
    CallRecord("http", "add", "answered", 0.0, 1.0),
    CallRecord("http", "charge", "answered", 0.0, 1.0, "http-1"),
    CallRecord("http", "charge", "unknown", 0.0, 1.0, "http-2"),
    CallRecord("http", "charge", "unknown", 0.0, 1.0, "http-3"),
]
LEDGER = {"http-1": 1, "http-2": 1}
RECOVERED = [Recovery("http", "session expired", 0.0, 0.0, 0.5, 1.0)]
READY = {"http": "ready"}


def test_an_unknown_charge_may_have_run() -> None:
    assert breaches(GOOD, LEDGER, RECOVERED, READY) == []


@pytest.mark.parametrize(
    ("calls", "ledger", "recoveries", "states", "why"),
    [
        (GOOD, {**LEDGER, "http-1": 2}, RECOVERED, READY, "http-1 was executed 2 times"),
        (GOOD, {**LEDGER, "http-3": 2}, RECOVERED, READY, "http-3 was executed 2 times"),
        (GOOD, {"http-2": 1}, RECOVERED, READY, "http: http-1 was answered and never executed"),
        (
            [CallRecord("http", "charge", "not_run", 0.0, 1.0, "http-1")],
            {"http-1": 1},
            RECOVERED,
            READY,
            "http: http-1 was said not to have run, and had",
        ),
        ([CallRecord("http", "add", "not_run", 0.0, 1.0)], {}, RECOVERED, READY, "http: add was given up"),
        ([CallRecord("http", "add", "wrong", 0.0, 1.0)], {}, RECOVERED, READY, "http: add got a wrong answer"),
        (
            [CallRecord("http", "add", "unknown", 0.0, 1.0)],
            {},
            RECOVERED,
            READY,
            "http: add may be repeated, and was left unanswered",
        ),
        (
            GOOD,
            LEDGER,
            [Recovery("http", "server killed", 0.0, 1.0, None, None)],
            READY,
            "http did not recover: server killed",
        ),
        (GOOD, LEDGER, RECOVERED, {"http": "reconnecting"}, "http is reconnecting at the end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_promise_is_broken_where(
    calls: list[CallRecord], ledger: dict[str, int], recoveries: list[Recovery], states: dict[str, str], why: str
) -> None:
    assert why in breaches(calls, ledger, recoveries, states)


def test_the_longest_call_is_one_that_was_under_way_during_the_fault() -> None:
    fault = Recovery("http", "server killed", 10.0, 1.0, 2.0, 12.0)
    calls = [
        CallRecord("http", "add", "answered", 1.0, 9.0),
        CallRecord("http", "add", "answered", 9.5, 12.5),
        CallRecord("http", "add", "answered", 11.0, 11.5),
        CallRecord("http", "add", "answered", 13.0, 23.0),
        CallRecord("stdio", "add", "answered", 9.0, 19.0),
    ]
    assert tally.longest(calls, fault) == 3.0


# -- what is printed


class Terminal(io.StringIO):
    """Text that goes to a terminal."""

    def isatty(self) -> bool:
        return True


def lost(why: str) -> Change:
    failure = Failure(kind=FailureKind.TRANSPORT_LOST, delivery=Delivery.UNKNOWN, proof=True, summary=why)
    return Change("http", 1, State.READY, Event.LOST, State.RECONNECTING, failure, 0.0, 1.0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return monkeypatch


def test_a_terminal_gets_short_colour_lines(terminal: pytest.MonkeyPatch) -> None:
    out = Terminal()
    Timeline(out).change(lost("the server cannot be reached, and what is more, nobody knows where it has gone"))
    text = out.getvalue()
    assert "\x1b[31mready -> reconnecting" in text
    lines = re.sub(r"\x1b\[\w*|\r", "", text).splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_declined_with(terminal: pytest.MonkeyPatch, variable: str, value: str) -> None:
    terminal.setenv(variable, value)
    out = Terminal()
    Timeline(out).change(lost("gone"))
    assert "\x1b[31m" not in out.getvalue()
    assert "ready -> reconnecting" in out.getvalue()


def test_what_happens_to_many_calls_is_one_line_before_the_next_event() -> None:
    out = io.StringIO()
    timeline = Timeline(out)
    for _ in range(3):
        timeline.gather("http", "replay", "it had not left")
    timeline.event("http", "reconnecting -> ready")
    first, second = out.getvalue().splitlines()
    assert re.search(r"http +3 x replay +it had not left$", first)
    assert "reconnecting -> ready" in second


def test_a_broken_promise_is_said_and_makes_the_exit_status() -> None:
    out = io.StringIO()
    twice = Outcome(GOOD, RECOVERED, {"http": 1}, Counter({**LEDGER, "http-1": 2}), READY)
    assert summary.write(twice, Timeline(out)) is False
    assert "The promise was broken:\n  http-1 was executed 2 times\n" in out.getvalue()
    assert re.search(r"^executed twice +1 +1 ", out.getvalue(), re.MULTILINE)


# -- the README


@pytest.mark.parametrize("example", [QUICKSTART, ROOT / "docs_src" / "readme" / "five.py"], ids=lambda path: path.stem)
def test_the_readme_shows_real_examples(example: Path) -> None:
    assert f"```python\n{example.read_text(encoding='utf-8')}```" in README.read_text(encoding="utf-8")


def test_the_readmes_picture_is_current() -> None:
    assert diagram.compare(README) == []


def test_the_first_example_calls_a_tool(tmp_path: Path) -> None:
    entry = {"command": sys.executable, "args": ["-m", "mcpconn.demo.server"]}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"shop": entry}}), encoding="utf-8")
    command = [sys.executable, str(ROOT / "docs_src" / "readme" / "five.py")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=True)
    assert "structured_content={'result': 3}" in run.stdout


def test_the_quickstart_survives_a_kill() -> None:
    said = (ROOT / "docs_src" / "readme" / "quickstart.txt").read_text(encoding="utf-8")
    assert f"```text\n{said}```" in README.read_text(encoding="utf-8")
    lost, established = said.splitlines()[1:3]
    with running([sys.executable, "-u", str(QUICKSTART)]) as process:
        (line,) = [line for line in read_until(process, "{'result': 1}") if line.startswith("{'result': 1}")]
        killed = int(line.rpartition(" from process ")[2])
        assert [child.pid for child in psutil.Process(process.pid).children()] == [killed]
        os.kill(killed, signal.SIGKILL)
        lines = read_until(
            process, "shop: ready --lost--> reconnecting", "reconnecting --established--> ready", "{'result'"
        )
        assert {lost, established} <= {line.rstrip() for line in lines}
        assert not lines[-1].endswith(f" {killed}\n")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()


# -- the picture that moves


PICTURE = ROOT / "docs" / "assets" / "demo.svg"


def test_readme_and_picture_show_one_run() -> None:
    page = README.read_text(encoding="utf-8")
    assert demo_picture.written(page, demo_picture.excerpt(demo_picture.shown(PICTURE.read_text("utf-8")))) == page


def test_the_picture_needs_no_script_and_nothing_from_elsewhere() -> None:
    text = PICTURE.read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert {each.tag.rpartition("}")[2] for each in root.iter()} <= {
        "svg", "title", "style", "clipPath", "rect", "path", "circle", "text", "tspan", "g",
    }  # fmt: skip
    assert "url(http" not in text
    assert "href" not in text
    assert "prefers-reduced-motion" in text


def test_the_pictures_lines_come_in_turn() -> None:
    lines = [demo_picture.Line(0.0, "one"), demo_picture.Line(1.0, "\x1b[31mtwo\x1b[0m & three")]
    live = [demo_picture.Line(0.2, "waiting")]
    text = demo_picture.picture(demo_picture.Recording(lines, live))
    assert demo_picture.shown(text) == ["one", "two & three"]
    assert '<tspan class="r">two</tspan> &amp; three' in text
    covers = re.findall(r"([\d.]+)% { transform: translateY\((-?\d+)px", text.partition("@keyframes cover")[2])
    height = demo_picture.LINE
    assert covers[:2] == [("0.00", str(height)), (f"{100 / 11:.2f}", str(2 * height))]


def test_a_full_screen_moves_up() -> None:
    lines = [demo_picture.Line(float(number), f"line {number}") for number in range(demo_picture.ROWS + 2)]
    text = demo_picture.picture(demo_picture.Recording(lines, []))
    moves = re.findall(r"translateY\((-?\d+)px", text.partition("@keyframes lines")[2].partition("@keyframes")[0])
    assert moves == ["0", str(-demo_picture.LINE), str(-2 * demo_picture.LINE)]


def said_by_the_code() -> str:
    """All text in the package's source, and the reasons of the rules, in one line."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "mcpconn").rglob("*.py")]
    return re.sub(r"\s+", " ", " ".join([*sources, *(rule.because for rule in DEFAULT_RULES)]))


OF_OTHERS = {"Session not found", "Errno", str(ChildExited(-9, ())), os.strerror(errno.ECONNRESET)}
"""Words of the SDK's server, and of the system."""


def test_the_excerpts_words_are_the_codes() -> None:
    """The run was some time ago: were a text of the demo or of a failure changed, the README would be stale."""
    code = said_by_the_code()
    page = README.read_text(encoding="utf-8").partition("<!-- demo -->")[2].partition("<!-- /demo -->")[0]
    timeline, _, rest = page.partition("\n\n")
    causes = re.sub(r"\n {40}", " ", timeline)
    for line in causes.splitlines():
        if len(line) < 17 or not line[:6].strip().replace(".", "").isdigit():
            continue
        what, cause = line[16:40].strip(), line[40:]
        if " -> " in what:
            source, target = what.split(" -> ")
            assert any((row.source, row.target) == (source, target) for row in TRANSITIONS), line
        elif " x " in what:
            assert what.partition(" x ")[2] in code, line
        elif not what.startswith("***"):
            assert what.partition(",")[0] in set(State), line
        for words in re.split(r"[:;,()\[\]]|-?\b[\d.]+( s)?\b", cause):
            assert (words or "").strip() in code or (words or "").strip() in OF_OTHERS, (line, words)
    for label in ("calls", "answered", "replayed", "outcome unknown", "failed", "executed twice", "recovery by cause"):
        assert f"\n{label} " in rest
        assert f'"{label}"' in code or f"'{label}" in code
