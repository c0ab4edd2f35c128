"""What an entry takes from outside its file: an env file, and values that are the names of variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcpconn.dialects.translate import Translated
from mcpconn.dialects.unclear import Unclear

LIMIT = 1024 * 1024
"""Bytes of an env file."""
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ENTRY = re.compile(
    r"""
    [ \t]* (?:export[ \t]+)? (?P<name>[A-Za-z_][\w.]*) [ \t]*=[ \t]*
    (?: '(?P<literal>[^']*)' [ \t]* (?:\#[^\n]*)?         # a quoted value may go on over several lines, as a PEM does
      | "(?P<quoted>(?:\\.|[^"\\])*)" [ \t]* (?:\#[^\n]*)?
      | (?P<plain>[^'"\n][^\n]*)?
    ) (?:\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def complete(entry: Translated, environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """The values of an entry, with what it takes from an env file and from variables.

    Args:
        entry: The entry.
        environ: The variables there are.
        folder: What a relative path is relative to.

    Raises:
        Unclear: the file cannot be read, or a variable is not set.
    """
    values = dict(entry.values)
    if entry.env_file is not None:
        given = values.get("env", {})
        if isinstance(given, Mapping):
            values["env"] = {**read_env_file(folder / Path(entry.env_file).expanduser()), **given}
    if entry.env_headers is not None:
        headers = values.get("headers", {})
        if isinstance(headers, Mapping):
            named = {header: _variable(name, environ, header) for header, name in entry.env_headers.items()}
            values["headers"] = {**named, **headers}
    if entry.token_variable is not None:
        if "auth" in values:
            raise Unclear("there are two tokens, one of them in a variable; give one", "auth")
        values["auth"] = _variable(entry.token_variable, environ, "the bearer token")
    return values


def _variable(name: Any, environ: Mapping[str, str], what: str) -> str:
    value = environ.get(name) if isinstance(name, str) else None
    if value is None:
        raise Unclear(f"{what}: the environment variable {name!r} is not set")
    return value


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of an env file: `NAME=value` a line, with `export`, quotes and comments as in a shell.

    Raises:
        Unclear: it cannot be read, or a line is not of this form. Nothing of the line is shown.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except (OSError, ValueError) as error:
        raise Unclear(
            f"envFile {path} cannot be read: {getattr(error, 'strerror', None) or error}", "envFile"
        ) from None
    if len(data) > LIMIT:
        raise Unclear(f"envFile {path} is larger than {LIMIT} bytes", "envFile")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise Unclear(f"envFile {path} is not UTF-8 text", "envFile") from None
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        if blank := _BLANK.match(text, position):
            position = blank.end()
            continue
        entry = _ENTRY.match(text, position)
        if entry is None:
            line = text.count("\n", 0, position) + 1
            raise Unclear(f"envFile {path}: line {line} is not NAME=value, or a quote is not closed", "envFile")
        position = entry.end()
        if entry["literal"] is not None:
            found[entry["name"]] = entry["literal"]
        elif entry["quoted"] is not None:
            found[entry["name"]] = _unescape(entry["quoted"])
        else:
            found[entry["name"]] = re.split(r"\s#", entry["plain"] or "", maxsplit=1)[0].strip()
    return found


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), text, flags=re.DOTALL)
