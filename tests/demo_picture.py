"""The demo as a picture that moves, and as an excerpt in the README: `make demo-svg`.

The demo runs in a terminal of its own. What it writes, and when, becomes docs/assets/demo.svg; the excerpt is made of
the lines of the same run. The picture needs no script: one CSS animation moves the lines up, step by step, so it moves
in an `<img>` as well. Readers who have asked for less motion see its end.
"""

from __future__ import annotations

import os
import pty
import re
import sys
import time
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path

from tests.pages import made

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "assets" / "demo.svg"
README = ROOT / "README.md"

COLUMNS, ROWS = 100, 30
FONT, LINE = 14, 19
"""Pixels: the height of a letter, and of a line."""
ADVANCE = 8.7
"""Pixels of a letter's width, of the widest of the fonts that are asked for."""
EDGE, BAR = 16, 34
HOLD = 10.0
"""Seconds for which the end stays, before it begins again."""
COLOURS = {"1": "b", "2": "d", "31": "r", "32": "g", "33": "y"}
"""Class of a span by its escape code: bold, dim, red, green, yellow."""
MARGIN = 16
"""Columns for time and server, before what happened."""
LEFT_OUT = "[...]"
_CODE = re.compile(r"\x1b\[(\d*)m")
SHOWN = ("the server forgets its sessions", "SIGKILL to child", "SIGKILL to process")
"""The faults of the excerpt."""


@dataclass
class Line:
    """One line of the terminal, and when it appeared: seconds since the first."""

    at: float
    text: str
    """With escape codes for colours."""

    @property
    def plain(self) -> str:
        """The text alone."""
        return _CODE.sub("", self.text)


@dataclass
class Recording:
    """What a run wrote."""

    lines: list[Line]
    live: list[Line]
    """The versions of the last line, which is written over."""


def record() -> Recording:
    """Run the demo in a terminal.

    Raises:
        RuntimeError: the promise was not held, or the demo could not run.
    """
    process, terminal = pty.fork()
    if not process:
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
        os.environ.pop("NO_COLOR", None)
        os.execv(sys.executable, [sys.executable, "-m", "mcpconn.demo"])
    lines, live, rest, began = list[Line](), list[Line](), "", None
    while True:
        try:
            data = os.read(terminal, 65536).decode("utf-8", "replace")
        except OSError:
            # The other end of a terminal is closed by the end of its program.
            break
        now = time.monotonic()
        began = now if began is None else began
        *whole, rest = (rest + data).replace("\r\n", "\n").split("\n")
        lines += [Line(now - began, piece.rpartition("\x1b[K")[2]) for piece in whole]
        if "\x1b[K" in rest:
            live.append(Line(now - began, rest.rpartition("\x1b[K")[2]))
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status:
        raise RuntimeError(f"the demo ended with {status}:\n" + "\n".join(line.plain for line in lines))
    return Recording(lines, live)


# -- the picture


def picture(recording: Recording) -> str:
    """The recording as an SVG whose lines move up."""
    # It begins with the heading there: before that, servers start, and nothing moves.
    begin = next((line.at for line in recording.lines if line.plain.lstrip().startswith("time  server")), 0.0)
    lines, live = _since(begin, recording.lines), _since(begin, recording.live)
    total = lines[-1].at + HOLD
    live = _each_second(live, lines[-1].at)
    counts = _counts([line.at for line in lines], total)
    up = {when: min(0, ROWS - count) for when, count in counts.items()}
    covered = {when: min(ROWS, count) for when, count in counts.items()}
    versions = {when: -count for when, count in _counts([line.at for line in live] + [lines[-1].at], total).items()}
    width, height = round(COLUMNS * ADVANCE) + 2 * EDGE, BAR + (ROWS + 1) * LINE + EDGE
    style = f"""\
    .screen {{ fill: #0d1117 }} .bar {{ fill: #161b22 }} .dot {{ fill: #30363d }}
    text {{ font: {FONT}px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #e6edf3;
           white-space: pre }}
    .b {{ font-weight: 700; fill: #ffffff }} .d {{ fill: #8b949e }} .r {{ fill: #ff7b72 }} .g {{ fill: #3fb950 }}
    .y {{ fill: #e3b341 }}
    .lines {{ transform: translateY({min(0, ROWS - len(lines)) * LINE}px);
             animation: lines {total:.1f}s step-end infinite }}
    .cover {{ transform: translateY({ROWS * LINE}px); animation: cover {total:.1f}s step-end infinite }}
    .live {{ transform: translateY({-len(live) * LINE}px); animation: live {total:.1f}s step-end infinite }}
    @media (prefers-reduced-motion: reduce) {{ .lines, .cover, .live {{ animation: none }} }}
    @keyframes lines {{ {_steps(up)} }}
    @keyframes cover {{ {_steps(covered)} }}
    @keyframes live {{ {_steps(versions)} }}"""
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    title = "The demo in a terminal: connections break, recover, and no charge runs twice"
    below, top = BAR + ROWS * LINE + 6, BAR - 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="demo-title">',
        f'  <title id="demo-title">{title}</title>',
        "  <style>",
        style,
        "  </style>",
        f'  <clipPath id="demo-screen"><rect y="{BAR}" width="{width}" height="{ROWS * LINE}"/></clipPath>',
        f'  <clipPath id="demo-live"><rect y="{below}" width="{width}" height="{LINE}"/></clipPath>',
        f'  <rect class="screen" width="{width}" height="{height}" rx="10"/>',
        f'  <path class="bar" d="M 0 {top} V 10 Q 0 0 10 0 H {width - 10} Q {width} 0 {width} 10 V {top} Z"/>',
        *(f'  <circle class="dot" cx="{20 + 20 * dot}" cy="14" r="6"/>' for dot in range(3)),
        f'  <text class="d" x="{width / 2:g}" y="19" text-anchor="middle">make demo</text>',
        '  <g clip-path="url(#demo-screen)"><g class="lines">',
        *(f"    {_text(line.text, index)}" for index, line in enumerate(lines)),
        f'  </g><rect class="screen cover" y="{BAR}" width="{width}" height="{ROWS * LINE}"/></g>',
        '  <g clip-path="url(#demo-live)"><g class="live">',
        *(f"    {_text(line.text, ROWS + 1 + index, 6)}" for index, line in enumerate(live)),
        "  </g></g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _each_second(live: list[Line], end: float) -> list[Line]:
    """The last version in each half second."""
    kept = {int(line.at * 2): line for line in live if line.plain.strip() and line.at < end}
    return list(kept.values())


def _since(begin: float, lines: list[Line]) -> list[Line]:
    return [Line(max(0.0, line.at - begin), line.text) for line in lines]


def _counts(times: list[float], total: float) -> dict[str, int]:
    """How many lines there are from which part of the whole time on."""
    return {"0.00%": 0} | {f"{100 * at / total:.2f}%": count for count, at in enumerate(times, 1)}


def _steps(rows: dict[str, int]) -> str:
    """Keyframes: by how many rows something is moved from when on."""
    steps, last = list[str](), None
    for when, count in rows.items():
        if count != last:
            steps.append(f"{when} {{ transform: translateY({count * LINE}px) }}")
        last = count
    return " ".join(steps)


def _text(text: str, row: int, lower: int = 0) -> str:
    """One line as an element, its colours as spans."""
    spans, style = list[str](), ""
    for index, piece in enumerate(_CODE.split(text)):
        if index % 2:
            style = COLOURS.get(piece, "")
        elif piece:
            spans.append(f'<tspan class="{style}">{escape(piece)}</tspan>' if style else escape(piece))
    return f'<text x="{EDGE}" y="{BAR + row * LINE + FONT + lower}">{"".join(spans)}</text>'


# -- the excerpt


def shown(svg: str) -> list[str]:
    """The lines of a picture, as text."""
    screen = svg.partition('class="lines">')[2].partition("</g>")[0]
    return [unescape(re.sub(r"<[^>]+>", "", line)) for line in re.findall(r"<text [^>]*>(.*)</text>", screen)]


def excerpt(lines: list[str]) -> str:
    """Three faults and what came of them, and the summary."""
    head = next(index for index, line in enumerate(lines) if line.lstrip().startswith("time  server"))
    end = next(index for index, line in enumerate(lines) if index > head and not line.strip())
    found = [lines[head]]
    courses = [_course(lines[head + 1 : end], fault) for fault in SHOWN]
    for course in sorted(courses, key=lambda course: float(course[0].split()[0])):
        found += [LEFT_OUT, *course]
    return "\n".join([*found, LEFT_OUT, *lines[end:]]).rstrip() + "\n"


def _course(timeline: list[str], fault: str) -> list[str]:
    """What came of a fault on its server; of faults of a kind, one after which an outcome was unknown."""
    courses = [
        _until_the_next(timeline[index:])
        for index, line in enumerate(timeline)
        if line[MARGIN:].startswith(f"*** {fault}")
    ]
    return next((course for course in courses if any("OutcomeUnknown" in line for line in course)), courses[0])


def _until_the_next(timeline: list[str]) -> list[str]:
    """The lines of the first line's server until its next fault, without all dials but the first."""
    server, found, ours = timeline[0].split()[1], [timeline[0]], True
    for line in timeline[1:]:
        if line[:MARGIN].strip():
            ours = line.split()[1] == server
            what = line[MARGIN:]
            if ours and ((what.startswith("*** ") and "listens" not in what) or "closed" in what):
                break
            if ours and re.search(r" dial (?!1:)", what):
                ours = False
                found += [LEFT_OUT] * (found[-1] != LEFT_OUT)
        if ours:
            found.append(line)
    return found


def written(page: str, text: str) -> str:
    """A page with the excerpt between its markers."""
    return made(page, "demo", f"```text\n{text}```\n")


if __name__ == "__main__":
    svg = picture(record())
    PICTURE.write_text(svg, encoding="utf-8")
    README.write_text(written(README.read_text(encoding="utf-8"), excerpt(shown(svg))), encoding="utf-8")
