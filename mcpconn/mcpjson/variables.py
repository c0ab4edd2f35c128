"""`${VAR}` and its kin, in any string of an entry."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcpconn.dialects.hosts import UNKNOWN, Host
from mcpconn.dialects.unclear import Unclear
from mcpconn.mcpjson.jsonc import Repeating
from mcpconn.redact.redactor import HIDDEN
from mcpconn.redact.tokens import looks_like_token

_EDITORS = {
    "input": "requested from the user by the editor",
    "command": "a command of the editor's",
    "config": "a setting of the editor's",
}
_PLAIN = re.compile(r"\{(?P<kind>env|file):(?P<what>[^{}]*)\}")
LONGEST_FILE = 64 * 1024
"""Bytes of a file whose content is a value."""
DEPTH = 50
"""Levels of nesting in an entry, and of defaults in a variable."""
NODES = 10_000
"""Values of an entry. In YAML a few lines can stand for more values than there is memory."""
_NAME = re.compile(r"(?:env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<rest>:?-.*)?", re.DOTALL)
_SECRET = re.compile(r"\{\s*secrets\.(?P<name>[A-Za-z_]\w*)\s*\}")
"""Continue's `${{ secrets.NAME }}`, which it takes from the environment too."""
_BRACE = re.compile(r"\$?\{|\}")
_BARE = re.compile(r"\$(?P<name>[A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True)
class Scope:
    """Where values come from."""

    environ: Mapping[str, str]
    folder: Path
    """The workspace: what `${workspaceFolder}` is, and what relative paths are relative to."""
    host: Host = UNKNOWN
    """Whose file it is."""
    here: Path = Path()
    """The folder that the file is in: the root of a plugin, or of an extension."""

    @property
    def predefined(self) -> Mapping[str, str]:
        """The variables of VS Code and Cursor."""
        return {
            "workspaceFolder": str(self.folder),
            "workspaceRoot": str(self.folder),
            "workspaceFolderBasename": self.folder.name,
            "userHome": os.path.expanduser("~"),
            "cwd": str(self.folder),
            "pathSeparator": os.sep,
            "/": os.sep,
            # Gemini CLI; Claude Code, which sets these for the programs that it starts.
            "workspacePath": str(self.folder),
            "extensionPath": str(self.here),
            "CLAUDE_PLUGIN_ROOT": self.environ.get("CLAUDE_PLUGIN_ROOT", str(self.here)),
            "CLAUDE_PROJECT_DIR": self.environ.get("CLAUDE_PROJECT_DIR", str(self.folder)),
        }


class Expander:
    """Replaces the variables in one entry."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._nodes = 0

    def expand(self, value: Any, at: str, depth: int = 0) -> Any:
        """`value` with its variables replaced.

        Args:
            value: What stands in the file.
            at: Where, for errors: `headers.X-Key`, `args[1]`.
            depth: Levels above it.

        Raises:
            Unclear: a variable is not set, or what stands in the braces is not understood.
        """
        self._nodes += 1
        if depth > DEPTH or self._nodes > NODES:
            raise Unclear(f"{at.partition('.')[0].partition('[')[0]} is nested too deeply or too large")
        if isinstance(value, Repeating):
            raise Unclear(f"{at}: {value.key!r} is given twice in the same place; keep one")
        if isinstance(value, Mapping):
            return {name: self.expand(each, f"{at}.{name}", depth + 1) for name, each in value.items()}
        if isinstance(value, list):
            return [self.expand(each, f"{at}[{index}]", depth + 1) for index, each in enumerate(value)]
        return self._text(self._braces(value, at), at, 0) if isinstance(value, str) else value

    def _braces(self, text: str, at: str) -> str:
        """The forms of single hosts: what can be replaced is, and what only the host can fill in is an error."""
        host = self._scope.host
        if host.unknown_to_us is not None and host.unknown_to_us in text:
            raise Unclear(f"{at}: what begins with {host.unknown_to_us} is filled in by {host.name}; write it out here")
        if not host.plain_braces:
            return text
        return _PLAIN.sub(lambda match: self._plain(match["kind"], match["what"], at), text)

    def _plain(self, kind: str, what: str, at: str) -> str:
        # opencode: a variable that is not set is empty. It is an error here, as the other forms are.
        return self._file(what, at) if kind == "file" else self._variable(what, at, 0)

    def _file(self, path: str, at: str) -> str:
        """The content of a file that holds one value, a token mostly."""
        where = self._scope.here / Path(path).expanduser()
        try:
            with where.open("rb") as file:
                return file.read(LONGEST_FILE).decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise Unclear(f"{at}: the file {where} is not UTF-8 text") from None
        except (OSError, ValueError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or "its path cannot be used"
            raise Unclear(f"{at}: the file {where} cannot be read: {why}") from None

    def _text(self, text: str, at: str, depth: int) -> str:
        if depth > DEPTH:
            raise Unclear(f"{at}: defaults are nested too deeply")
        pieces: list[str] = []
        position = 0
        while (start := text.find("${", position)) >= 0:
            end = _closing(text, start + 2)
            if end < 0:
                # Not a variable: part of a script, perhaps.
                break
            pieces += (self._bare(text[position:start]), self._variable(text[start + 2 : end], at, depth))
            position = end + 1
        return "".join((*pieces, self._bare(text[position:])))

    def _variable(self, inside: str, at: str, depth: int) -> str:
        if inside in (predefined := self._scope.predefined):
            return predefined[inside]
        if inside.startswith("file:"):
            return self._file(inside.removeprefix("file:"), at)
        match = _SECRET.fullmatch(inside) or _NAME.fullmatch(inside)
        if match is None:
            raise Unclear(f"{at}: {_why_not(inside)}")
        found = self._scope.environ.get(match["name"])
        rest = match.groupdict().get("rest")
        if rest is not None:
            # As in a shell, `:-` stands in for an empty variable too, and `-` only for one that is not set.
            given = found if found or (found is not None and rest[0] == "-") else None
            return given if given is not None else self._text(rest.partition("-")[2], at, depth + 1)
        if found is None:
            name = HIDDEN if looks_like_token(match["name"]) else match["name"]
            raise Unclear(
                f"{at}: the environment variable {name} is not set; set it, or write a default: ${{{name}:-default}}"
            )
        return found

    def _bare(self, text: str) -> str:
        if not self._scope.host.bare_variables:
            return text
        # The hosts that know this form leave a variable that is not set as it stands.
        return _BARE.sub(lambda match: self._scope.environ.get(match["name"], match.group()), text)


def _closing(text: str, start: int) -> int:
    """Where the brace that was opened before `start` is closed; -1 where it is not."""
    depth = 1
    for match in _BRACE.finditer(text, start):
        depth += -1 if match.group() == "}" else 1
        if depth == 0:
            return match.start()
    return -1


def _why_not(inside: str) -> str:
    kind, _, name = inside.partition(":")
    if kind in _EDITORS and re.fullmatch(r"[\w.-]+", name) and not looks_like_token(name):
        variable = re.sub(r"\W", "_", name).upper()
        return f"${{{inside}}} is {_EDITORS[kind]}; use a variable here, as in ${{{variable}}}"
    shown = inside if re.fullmatch(r"[\w:.-]{0,40}", inside) and not looks_like_token(name or kind) else "..."
    return f"${{{shown}}} is not understood; write ${{NAME}} or ${{NAME:-default}}"
