"""Finds the line of a child's stderr that gives the reason for its exit.

Python puts the reason last. Node, npx, docker, Java, Go and uvx put it before a stack, a hint and a version, so that
the last line is `Node.js v22.1.0`. So all known forms of error reports are searched for. If there are several reports,
the last one counts, because a launcher reports after the program that it launched.

Imported with a child's first line: most programs have no children, and compiling the patterns takes a tenth of the time
that the rest of mcpconn needs to be imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

SHOWN = 300
"""Characters of the reason that are shown."""

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
"""Colours and cursor movements: programs write them to pipes, too, if FORCE_COLOR is set."""
FRAME = re.compile(
    r"""
      \s+at\ .+                               # Node, Java, .NET, Deno, Bun
    | \s*\ File\ ".*",\ line\ \d+.*           # Python
    | \s*\|\s+File\ ".*",\ line\ \d+.*        # Python, in a group
    | \s+from\ \S+:\d+:in\ .*                 # Ruby
    | goroutine\ \d+\ .*                      # Go: a goroutine, its functions and their files
    | created\ by\ \S+.*
    | [\w./*()\[\]{}-]+\.[\w.()*\[\]-]+\(.*\)
    | \t/?\S+\.go:\d+.*
    """,
    re.VERBOSE,
)
_NOISE = re.compile(
    r"""
      Node\.js\ v\d.* | Bun\ v\d.* | \s*[\^~]+\s* | \s*throw\ \w+;? | \}+[,;]? | \s*(?:code|errno|syscall):\ .*
    | Traceback\ \(most\ recent\ call\ last\):.* | npm\ (?:warn|notice|info|verb|http)\b.* | npm\ (?:ERR!|error)\s*
    | npm\ (?:ERR!|error)\ (?:A\ complete\ log|\s+/).* | exit\ status\ \d+
    | (?:Run|See)\ '(?:docker|podman).* | For\ more\ information.* | note:\ .* | Usage:?\b.* | \s*(?:help|hint):.*
    | The\ above\ exception\ was.* | During\ handling\ of.* | Killed | Terminated
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Lines that follow a reason without adding to it."""

_EXCEPTION = re.compile(
    r"(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Warning|Timeout|Fault)(?:\ \[\w+\])?(?::\ .*)?"
)
"""`ValueError: bad`, `mcp.shared.exceptions.McpError: bad`, `TypeError [ERR_X]: bad`; Node's plain `Error: bad` too."""
_PLAIN_ERROR = re.compile(r"Error(?:\ \[\w+\])?:\ .+")
_GROUPED = re.compile(r"[\s|+-]*\|\s+(?P<text>\S.*)")
_NPM = re.compile(r"npm\ (?:ERR!|error)\ (?P<text>\S.*)")
_NPM_FACT = re.compile(r"(?:code|errno|syscall|path|dest|command|signal|workspace|location)\b|[45]\d\d\s*$|Lifecycle")
_DIRECT = (
    re.compile(r"docker: .+|podman: .+|Error response from daemon: .+"),
    re.compile(r"panic: .+|fatal error: .+"),
    re.compile(r'Exception in thread "[^"]*" .+|Caused by: .+|Unhandled exception\. .+'),
    re.compile(r"\S+:\d+:in .+ \(\w*(?:Error|Exception)\)"),
    re.compile(r"error: .+|fatal: .+|FATAL: .+|PHP Fatal error: .+"),
    re.compile(r"\S*(?:sh|python[\d.]*|node|ruby|java|env|uvx?|deno|bun)(?:\.exe)?: .+"),
)
"""Lines that are the reason, whole."""
_PANIC = re.compile(r"thread '.*' (?:\(\d+\) )?panicked at .*:\d+:\d+:")
_UV = re.compile(r"\s*[\u00d7x✗] (?P<text>\S.*)")
_UV_BECAUSE = re.compile(r"\s*(?:╰─▶|├─▶|╰>|`->|\|->) (?P<text>\S.*)")
_LOG = re.compile(
    r"\b(?:level|lvl|severity)=\"?(?:error|fatal|critical|panic)\"?\b.*\bmsg=(?:\"(?P<quoted>[^\"]+)\"|(?P<plain>\S+))"
)
_SAYS_SO = re.compile(
    r"\b(?:error|fatal|failed|failure|cannot|can't|could not|couldn't|unable|denied|refused|not found|no such|missing"
    r"|invalid|required|must be|not set|unauthorized|exception|abort(?:ed|ing)?)\b",
    re.IGNORECASE,
)
"""Words that mark an error line in any program's output."""


def reason_of(lines: Sequence[str]) -> str:
    """The line that gives the reason for the program's exit; the last one if no line matches.

    Args:
        lines: What it wrote to stderr, in order.
    """
    telling = [line for line in lines if line.strip() and not _NOISE.fullmatch(line)]
    reports = max(_reports(telling), key=lambda found: found[0], default=None)
    if reports is not None:
        text = reports[1]
    else:
        text = next((line for line in reversed(telling) if _SAYS_SO.search(line)), "")
        text = text or next(reversed(telling), "") or next((line for line in reversed(lines) if line.strip()), "")
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _reports(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Every report of an error, and at which line it is."""
    grouped = _innermost(lines)
    if grouped is not None:
        yield grouped
    npm = [(index, match["text"]) for index, line in enumerate(lines) if (match := _NPM.match(line))]
    if npm:
        yield from _npm(npm)
    for index, line in enumerate(lines):
        if _EXCEPTION.fullmatch(line) or _PLAIN_ERROR.fullmatch(line) or line.startswith("Uncaught "):
            yield index, _with_details(lines, index)
        elif any(pattern.fullmatch(line) for pattern in _DIRECT):
            yield index, line
        elif _PANIC.fullmatch(line) and index + 1 < len(lines):
            # Rust: the words are in the next line.
            yield index, lines[index + 1]
        elif match := _UV.fullmatch(line):
            yield index, _resolved(lines, index, match["text"])
        elif match := _LOG.search(line):
            yield index, match["quoted"] or match["plain"]
        elif line.startswith("{") and (said := _logged(line)):
            yield index, said


def _innermost(lines: list[str]) -> tuple[int, str] | None:
    """Of an exception group, which is drawn with bars, the last exception that is no group itself."""
    found = None
    for index, line in enumerate(lines):
        match = _GROUPED.fullmatch(line)
        if match and _EXCEPTION.fullmatch(match["text"]) and "ExceptionGroup:" not in match["text"]:
            found = index, match["text"]
    return found


def _npm(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """npm's code, and the first line that is a sentence. A command that failed has said why before."""
    facts = dict(text.split(" ", 1) for _, text in lines if text.startswith("code ") and " " in text)
    code = facts.get("code", "")
    if code.isdigit() or any(text.startswith("command failed") for _, text in lines):
        return
    first = next(((index, text) for index, text in lines if not _NPM_FACT.match(text)), lines[0])
    words = re.sub(rf"^(?:{re.escape(code)}|\w+target)\s+", "", first[1]) if code else first[1]
    yield first[0], f"npm {code}: {words}" if code and words != f"code {code}" else f"npm: {words}"


def _with_details(lines: list[str], index: int) -> str:
    """An exception; pydantic's with the first field that it is about, which stands in the lines below."""
    text = lines[index]
    return " ".join((text, *lines[index + 1 : index + 3])) if re.search(r"validation errors? for \S+$", text) else text


def _resolved(lines: list[str], index: int, text: str) -> str:
    """uv's `No solution found:`, after a cross, with its reason, which is folded at the width of a terminal."""
    pieces = [text]
    for line in lines[index + 1 :]:
        match = _UV_BECAUSE.fullmatch(line)
        if match is None and not line.startswith("      "):
            break
        pieces.append(match["text"] if match else line.strip())
    return " ".join(pieces)


def _logged(line: str) -> str:
    """The message of a log line in JSON that reports an error."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(record, dict):
        return ""
    level = str(record.get("level", record.get("severity", ""))).lower()
    # 50 and 60 are pino's numbers for error and fatal.
    if level not in ("error", "fatal", "critical", "panic", "50", "60"):
        return ""
    said = record.get("msg") or record.get("message") or record.get("error")
    return said if isinstance(said, str) else ""
